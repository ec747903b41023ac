"""Verify that a written video matches its plan: decode every frame, compare every timestamp and every audio packet."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av.error

from upframe.errors import InputError, VerifyError
from upframe.media.video.frame_facts import matrix_of, side_data_of
from upframe.media.video.frames import fraction
from upframe.media.video.index import Decoding, timecode
from upframe.media.video.info import open_video
from upframe.media.video.mux import Expected, ExpectedTrack, payload


def verify_video(path: Path, expected: Expected, *, on_frame: Callable[[], None] | None = None) -> None:
    """Check that `path` holds the content that `mux.join` planned.

    Each frame at its time to one tick of the output's clock, the size, the end, that all of it decodes, every copied
    track byte by byte and its start within one of its packets, chapters and attachments. Cost: one decode.

    Args:
        on_frame: Called after each frame; an exception from it stops the check.

    Raises:
        VerifyError: if there is a difference; the message names the first one.
    """
    try:
        _check_video(path, expected, on_frame)
        _check_tracks(path, expected)
    except InputError as error:
        raise VerifyError(path, f"the written file cannot be read back ({error.happened})", "write it again") from error


def _differs(path: Path, what: str) -> VerifyError:
    return VerifyError(path, f"the written file has {what}", "write it again")


def _check_video(path: Path, expected: Expected, on_frame: Callable[[], None] | None) -> None:
    count, last_end = 0, Fraction(0)
    slack = max(expected.tick, expected.time_base)
    with open_video(path) as container:
        stream = next(s for s in container.streams.video if not s.disposition & av.stream.Disposition.attached_pic)
        base = fraction(stream.time_base) or Fraction(1, 1000)
        decoding = Decoding(container, stream, threads=0)
        for frame, is_bad in decoding.pictures():
            if is_bad or decoding.failures or frame.pts is None:
                raise _differs(path, f"a damaged frame {count}")
            if count >= len(expected.pts):
                raise _differs(path, f"more than {len(expected.pts)} frames")
            if (frame.height, frame.width) != expected.size:
                height, width = expected.size
                raise _differs(path, f"frame {count} of {frame.width}x{frame.height}, not {width}x{height}")
            time, wanted = frame.pts * base, int(expected.pts[count]) * expected.time_base
            if abs(time - wanted) > slack:
                off = f"{float(time - wanted):+.6f} s"
                raise _differs(path, f"frame {count} at {timecode(time)} instead of {timecode(wanted)} ({off})")
            if count == 0:
                _check_first(path, frame, stream, expected)
            last_end = time + (frame.duration or 0) * base
            count += 1
            if on_frame is not None:
                on_frame()
        if decoding.failures or decoding.ended_by:
            raise _differs(path, "packets that cannot be decoded")
        if count != len(expected.pts):
            raise _differs(path, f"{count} of {len(expected.pts)} frames")
        _check_end(path, container, last_end, expected)


def _check_first(path: Path, frame: Any, stream: Any, expected: Expected) -> None:
    matrix = matrix_of(side_data_of(frame))
    if matrix != expected.matrix:
        raise _differs(path, f"display matrix {matrix} instead of {expected.matrix}")
    wanted = expected.sample_aspect
    found = fraction(stream.sample_aspect_ratio) or fraction(stream.codec_context.sample_aspect_ratio)
    if wanted is not None and abs((found or Fraction(1)) / wanted - 1) > Fraction(1, 100):
        # Matroska states the display size in whole pixels, which may round the ratio
        raise _differs(path, f"sample aspect {found} instead of {wanted}")


def _check_end(path: Path, container: Any, last_end: Fraction, expected: Expected) -> None:
    """Check that the last frame has its duration; Matroska states it only by the length of the file."""
    end = (int(expected.pts[-1]) + expected.last_duration) * expected.time_base
    file_end = last_end
    if container.duration:
        file_end = max(last_end, Fraction(container.duration + max(0, container.start_time or 0), av.time_base))
    slack = 2 * max(expected.tick, expected.time_base)
    if file_end < end - slack:
        raise _differs(path, f"an end at {timecode(file_end)} instead of {timecode(end)}")


def _check_tracks(path: Path, expected: Expected) -> None:
    with open_video(path) as container:
        attachments = sum(s.type == "attachment" for s in container.streams)
        if attachments != expected.attachments:
            raise _differs(path, f"{attachments} attachments instead of {expected.attachments}")
        if len(container.chapters()) != expected.chapters:
            raise _differs(path, f"{len(container.chapters())} chapters instead of {expected.chapters}")
        found = _tracks(container)
        for kind in ("audio", "subtitle", "cover"):
            wanted = [t for t in expected.tracks if t.kind == kind]
            have = [t for t in found if t.kind == kind]
            if len(have) != len(wanted):
                raise _differs(path, f"{len(have)} {kind} tracks instead of {len(wanted)}")
            for number, (one, other) in enumerate(zip(wanted, have, strict=True)):
                _check_track(path, number, one, other, expected)


def _tracks(container: Any) -> list[ExpectedTrack]:
    """List the tracks of the file besides the video, in the order of its streams."""
    tracks: dict[int, tuple[ExpectedTrack, Any]] = {}
    is_first = True
    for stream in container.streams:
        is_cover = stream.type == "video" and bool(stream.disposition & av.stream.Disposition.attached_pic)
        if stream.type == "video" and not is_cover and is_first:
            is_first = False
        elif stream.type in ("audio", "subtitle") or is_cover:
            name = stream.codec_context.name if stream.codec_context is not None else ""
            tracks[stream.index] = ExpectedTrack("cover" if is_cover else stream.type, name), hashlib.sha256()
    if not tracks:
        return []
    for packet in container.demux([container.streams[index] for index in tracks]):
        if packet.size == 0:
            continue
        track, digest = tracks[packet.stream_index]
        base = fraction(packet.time_base) or Fraction(1, 1000)
        if packet.pts is not None and track.start is None:
            track.start = packet.pts * base
        track.packets += 1
        digest.update(payload(packet, packet.stream))
    for track, digest in tracks.values():
        track.sha256 = digest.hexdigest()
    return [track for track, _ in tracks.values()]


def _check_track(path: Path, number: int, wanted: ExpectedTrack, found: ExpectedTrack, expected: Expected) -> None:
    name = f"{wanted.kind} track {number + 1}"
    if wanted.sha256 is None:
        return  # converted text: containers add empty packets, so neither count nor bytes can be compared
    if found.packets != wanted.packets:
        raise _differs(path, f"{found.packets} packets in {name} instead of {wanted.packets}")
    if wanted.kind != "subtitle" and found.sha256 != wanted.sha256:
        raise _differs(path, f"{name} that is not a copy of the source's")
    if wanted.start is not None and found.start is not None and wanted.kind == "audio":
        slack = max(wanted.packet_duration, expected.tick)
        if abs(found.start - wanted.start) > slack:
            raise _differs(path, f"{name} starting at {timecode(found.start)} instead of {timecode(wanted.start)}")
