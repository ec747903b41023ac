"""`join` joins finished segments with the tracks of the source. It encodes only text subtitles."""

from __future__ import annotations

import hashlib
import heapq
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import av.error
import numpy as np
from av.subtitles.subtitle import SubtitleSet
from numpy.typing import NDArray

from upframe.errors import Notice, VerifyError
from upframe.files import remove_quietly
from upframe.media.video.codecs import CONTAINERS, tag_stream
from upframe.media.video.container import _movie_clock, add_track, open_output
from upframe.media.video.frame_facts import Matrix
from upframe.media.video.frames import fraction
from upframe.media.video.info import Chapter, VideoInfo, open_video, plain
from upframe.media.video.sink import close_quietly, exact_ticks, write_error
from upframe.media.video.timing import Timing
from upframe.media.video.written import Carried, VideoPlan

_LOG = logging.getLogger(__name__)


_Timed = tuple[float, Any, "_Route | None"]
"""Decoding time in seconds, a packet, and its route; the route is None for the video."""


@dataclass
class ExpectedTrack:
    """A track that was copied."""

    kind: str
    codec: str
    packets: int = 0
    start: Fraction | None = None
    """Seconds of its first packet in the output."""
    packet_duration: Fraction = Fraction(0)
    """Duration of its longest packet in seconds: the tolerance of its start."""
    sha256: str | None = None
    """Digest of all payloads in order; None for a converted track."""


@dataclass(frozen=True)
class Expected:
    """The expected content of an output, for `verify_video`."""

    size: tuple[int, int]
    """(height, width)."""
    time_base: Fraction
    pts: NDArray[np.int64]
    """Timestamps of all frames of the output in ticks."""
    last_duration: int
    """Duration of the last frame in ticks."""
    tick: Fraction
    """Tick of the output's clock in seconds."""
    tracks: tuple[ExpectedTrack, ...] = ()
    chapters: int = 0
    attachments: int = 0
    matrix: Matrix | None = None
    sample_aspect: Fraction | None = None
    notices: tuple[Notice, ...] = ()
    """Losses while joining."""


def join(
    segments: Sequence[Path],
    target: Path,
    plan: VideoPlan,
    *,
    timing: Timing,
    info: VideoInfo | None = None,
    selection: range | None = None,
    on_frame: Callable[[], None] | None = None,
) -> Expected:
    """Make the output from finished work files: their packets in order, and all tracks of the source.

    Audio, subtitles and covers are copied packet by packet, and not cut at the end of the video. A selection that skips the
    beginning starts at zero, and takes the packets of other tracks that start within it.

    Args:
        segments: Work files of `VideoSink`, in order, made with the same plan.
        target: A part file that the caller syncs, verifies and renames. It is removed on an error.
        timing: Timestamps of the source's frames.
        info: Facts about the source and its tracks; None for a source without tracks (a folder of frames).
        selection: The frames of `timing` that the segments hold; None for all.
        on_frame: Called after each frame; an exception from it stops the join.

    Returns:
        The expected content, for `verify_video`.

    Raises:
        ValueError: if there are no segments.
        VerifyError: if the segments do not hold exactly these frames.
        OutputError: if the output cannot be written.
    """
    if not segments:
        raise ValueError("there are no segments to join")
    chosen = selection if selection is not None else range(len(timing.pts))
    pts = timing.pts[chosen.start : chosen.stop].astype(np.int64)
    durations = timing.durations[chosen.start : chosen.stop]
    clip = _Clip.of(timing, chosen, pts, durations)
    out: Any = None
    try:
        with ExitStack() as stack:
            first = stack.enter_context(open_video(segments[0]))
            source = stack.enter_context(open_video(info.path)) if info is not None else None
            out = open_output(target, plan)
            video = _add_video(out, first.streams.video[0], plan)
            routes = {} if source is None else _add_routes(out, source, plan, clip)
            if info is not None and plan.has_chapters:
                chapters = _chapters(info.chapters, clip)
                out.set_chapters(chapters)
            else:
                chapters = []
            movie = _video_packets(segments, video, plan, pts, durations, clip)
            others = _source_packets(source, routes) if source is not None else iter(())
            for _, packet, route in heapq.merge(movie, others, key=lambda timed: timed[0]):
                if route is None:
                    out.mux_one(packet)
                    if on_frame is not None:
                        on_frame()
                else:
                    route.mux(out, packet)
            out.close()
    except BaseException as error:
        if out is not None:
            close_quietly(out)
        remove_quietly(target)
        if isinstance(error, av.error.FFmpegError | ValueError | OSError):
            raise write_error(target, error) from error
        raise
    held = CONTAINERS[plan.container]
    return Expected(
        size=plan.coded_size,
        time_base=timing.time_base,
        pts=pts + clip.shift_ticks,
        last_duration=int(durations[-1]),
        tick=held.tick or Fraction(1, _movie_clock(plan.time_base)),
        tracks=tuple(route.finish() for route in routes.values()),
        chapters=len(chapters),
        attachments=sum(track.kind == "attachment" for track in plan.tracks),
        matrix=plan.matrix,
        sample_aspect=plan.sample_aspect,
        notices=tuple(
            Notice(
                "packets-dropped",
                str(target if info is None else info.path),
                f"{route.refused} damaged packets of {route.track.kind} stream {route.track.index} could not be copied",
            )
            for route in routes.values()
            if route.refused
        ),
    )


@dataclass(frozen=True)
class _Clip:
    """The part of the source's time that is copied, and its shift."""

    start: Fraction | None
    """Tracks are copied from this time of the source on; None copies all."""
    end: Fraction | None
    shift_ticks: int
    """Shift of video timestamps in ticks."""
    shift: Fraction
    """The same in seconds."""

    @classmethod
    def of(cls, timing: Timing, chosen: range, pts: NDArray[np.int64], durations: NDArray[np.int64]) -> _Clip:
        first = int(pts[0])
        # A video that starts before zero would lose its beginning in players.
        ticks = -first if chosen.start else max(0, -first)
        base = timing.time_base
        start = None if chosen.start == 0 else first * base
        end = None if chosen.stop == len(timing.pts) else (int(pts[-1]) + int(durations[-1])) * base
        return cls(start, end, ticks, ticks * base)

    def takes(self, time: Fraction) -> bool:
        return (self.start is None or time >= self.start) and (self.end is None or time < self.end)


# Video ----------------------------------------------------------------------------------------------------------------
def _add_video(out: Any, template: Any, plan: VideoPlan) -> Any:
    stream = out.add_stream_from_template(template, opaque=True)
    stream.time_base = plan.time_base
    stream.codec_context.framerate = plan.rate
    tag_stream(stream, tags=plan.colour, sample_aspect=plan.sample_aspect)
    stream.set_display_matrix(plan.matrix)
    if plan.codec == "h265" and plan.container in ("mp4", "mov"):
        stream.codec_context.codec_tag = "hvc1"  # Apple's players support no other tag
    stream.disposition = int(av.stream.Disposition.default)
    stream.metadata.update(dict(plan.video_tags))
    return stream


def _coding_order(segments: Sequence[Path], plan: VideoPlan, pts: NDArray[np.int64]) -> NDArray[np.int64]:
    """Find the frame of each packet of the segments, in the order of the packets.

    Raises:
        VerifyError: unless each frame occurs exactly once.
    """
    order: list[int] = []
    placed = np.zeros(len(pts), np.bool_)
    extradata: bytes | None = None
    for number, path in enumerate(segments):
        with open_video(path) as container:
            source = container.streams.video[0]
            if number and source.codec_context.extradata != extradata:
                raise VerifyError(
                    path, "was encoded with other settings than the first segment", "use `video.restart` to discard them"
                )
            extradata = source.codec_context.extradata
            for packet in container.demux(source):
                if packet.size == 0:
                    continue
                value = _exact_pts(packet, plan.time_base, path) - plan.work_origin
                frame = int(np.searchsorted(pts, value))
                if frame >= len(pts) or pts[frame] != value:
                    raise VerifyError(
                        path,
                        f"holds a frame at {value} ticks, but the source has none there",
                        "use `video.restart` to discard them",
                    )
                if placed[frame]:
                    raise VerifyError(
                        path, f"holds the frame at {value} ticks a second time", "use `video.restart` to discard them"
                    )
                placed[frame] = True
                order.append(frame)
    if len(order) != len(pts):
        raise VerifyError(
            segments[-1], f"the segments hold {len(order)} frames, the source {len(pts)}", "use `video.restart` to discard them"
        )
    return np.array(order, np.int64)


def _video_packets(
    segments: Sequence[Path],
    stream: Any,
    plan: VideoPlan,
    pts: NDArray[np.int64],
    durations: NDArray[np.int64],
    clip: _Clip,
) -> Iterator[_Timed]:
    """Yield packets of all segments in coding order, with new decoding times.

    Each encoder run starts its own decoding times, which would collide where segments meet. The new ones are the timestamps of
    the frames, delayed by the number of frames by which pictures are reordered: always rising, never later than the display
    time.
    """
    order = _coding_order(segments, plan, pts)
    delay = int(max(np.arange(len(order)) - order))
    gap = int(pts[1] - pts[0]) if len(pts) > 1 else max(1, int(durations[0]))
    coded = 0
    for path in segments:
        with open_video(path) as container:
            for packet in container.demux(container.streams.video[0]):
                if packet.size == 0:
                    continue
                frame, ahead = int(order[coded]), coded - delay
                dts = int(pts[ahead]) if ahead >= 0 else int(pts[0]) + ahead * gap
                packet.stream = stream
                packet.time_base = plan.time_base
                packet.pts, packet.dts = int(pts[frame]) + clip.shift_ticks, dts + clip.shift_ticks
                packet.duration = int(durations[frame])
                yield float((dts + clip.shift_ticks) * plan.time_base), packet, None
                coded += 1


def _exact_pts(packet: Any, base: Fraction, path: Path) -> int:
    """Timestamp of a packet in the plan's clock; work files have this clock or a multiple of it."""
    if packet.pts is None:
        raise VerifyError(path, "holds a frame without a time", "use `video.restart` to discard them")
    ticks: Fraction = packet.pts * (fraction(packet.time_base) or base) / base
    if ticks.denominator != 1:
        raise VerifyError(path, f"holds a frame at {float(ticks)} ticks", "use `video.restart` to discard them")
    return int(ticks)


# The other tracks -----------------------------------------------------------------------------------------------------
@dataclass
class _Route:
    """Copies or converts a stream of the source to a stream of the output."""

    track: Carried
    stream: Any
    template: Any
    clip: _Clip
    expected: ExpectedTrack
    digest: Any = field(default_factory=hashlib.sha256)
    last_dts: int | None = None
    refused: int = 0

    def take(self, packet: Any) -> Iterator[tuple[float, Any]]:
        """Yield the packets of the output for a packet of the source, each with its decoding time in seconds."""
        base = fraction(packet.time_base) or Fraction(1, 1000)
        stamp = packet.pts if packet.pts is not None else packet.dts
        if self.track.kind == "cover":
            packet.pts = packet.dts = 0
            packet.stream = self.stream
            yield 0.0, packet
            return
        if stamp is None or not self.clip.takes(stamp * base):
            return
        ticks = exact_ticks(self.clip.shift, base)
        packet.pts = stamp + ticks
        packet.dts = packet.pts if packet.dts is None else packet.dts + ticks
        if self.track.convert is not None:
            yield from self._converted(packet, base)
            return
        if self.last_dts is not None and packet.dts <= self.last_dts:
            packet.dts = self.last_dts + 1  # a splice or damage: no container accepts timestamps that run backward
        packet.pts = max(packet.pts, packet.dts)
        self.last_dts = packet.dts
        packet.stream = self.stream
        yield float(packet.dts * base), packet

    def mux(self, out: Any, packet: Any) -> None:
        """Write a packet; one that is too damaged for the container is skipped and counted."""
        try:
            out.mux_one(packet)
        except (av.error.InvalidDataError, av.error.ArgumentError, av.error.PatchWelcomeError) as error:
            _LOG.warning("%s track %d: a damaged packet is skipped (%s)", self.track.kind, self.track.index, plain(error))
            self.refused += 1
            return
        base = fraction(packet.time_base) or Fraction(1, 1000)
        expected = self.expected
        expected.packets += 1
        expected.start = packet.pts * base if expected.start is None else expected.start
        expected.packet_duration = max(expected.packet_duration, (packet.duration or 0) * base)
        if self.track.convert is None:
            self.digest.update(payload(packet, self.template))

    def _converted(self, packet: Any, base: Fraction) -> Iterator[tuple[float, Any]]:
        """Convert a text subtitle to the output's format."""
        text = self.template.codec_context.decode2(packet)
        if text is None:
            return
        milliseconds = exact_ticks((packet.duration or 0) * base, Fraction(1, 1000))
        lines = [bytes(rect.ass) for rect in text if getattr(rect, "ass", None)]
        if not lines:
            return
        start = exact_ticks(packet.pts * base, Fraction(1, 1000))
        made = self.stream.codec_context.encode_subtitle(SubtitleSet.create(b"\\N".join(lines), 0, milliseconds))
        made.pts = made.dts = start
        made.duration = milliseconds
        made.time_base = Fraction(1, 1000)
        made.stream = self.stream
        yield start / 1000, made

    def finish(self) -> ExpectedTrack:
        if self.track.convert is None:
            self.expected.sha256 = self.digest.hexdigest()
        return self.expected


def payload(packet: Any, stream: Any) -> bytes:
    """Payload of a packet, without the ADTS header of AAC in transport streams, which other containers do not have."""
    data = bytes(packet)
    is_aac = stream.codec_context is not None and stream.codec_context.name in ("aac", "aac_fixed")
    # ISO/IEC 13818-7, 6.2: 12 bits of sync; with the checksum flag the header has 9 bytes instead of 7
    if is_aac and len(data) > 9 and data[0] == 0xFF and data[1] & 0xF6 == 0xF0:
        return data[7 if data[1] & 1 else 9 :]
    return data


def _add_routes(out: Any, source: Any, plan: VideoPlan, clip: _Clip) -> dict[int, _Route]:
    routes = {}
    for track in plan.tracks:
        template = source.streams[track.index]
        stream = add_track(out, source, track, plan)
        if track.kind != "attachment":
            expected = ExpectedTrack(track.kind, template.codec_context.name if template.codec_context else "")
            routes[track.index] = _Route(track, stream, template, clip, expected)
    return routes


def _source_packets(source: Any, routes: dict[int, _Route]) -> Iterator[_Timed]:
    """Yield packets for the output from the source, in its order; each with its decoding time in seconds."""
    if not routes:
        return
    latest = float("-inf")
    try:
        for packet in source.demux([route.template for route in routes.values()]):
            if packet.size == 0:
                continue
            route = routes[packet.stream_index]
            for time, made in route.take(packet):
                latest = max(latest, time)
                yield latest, made, route
    except av.error.FFmpegError:
        return  # the source ends early, as its index has reported


def _chapters(chapters: Sequence[Chapter], clip: _Clip) -> list[Any]:
    """Chapters that overlap the clip, cut to it."""
    made = []
    base = Fraction(1, 1000000)
    for number, chapter in enumerate(chapters):
        start = chapter.start if clip.start is None else max(chapter.start, clip.start)
        end = chapter.end if clip.end is None else min(chapter.end, clip.end)
        if end <= start and (start, end) != (chapter.start, chapter.end):
            continue
        made.append({
            "id": number + 1,
            "start": max(0, exact_ticks(start + clip.shift, base)),
            "end": max(0, exact_ticks(end + clip.shift, base)),
            "time_base": base,
            "metadata": dict(chapter.tags),
        })  # fmt: skip
    return made
