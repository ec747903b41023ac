"""`join` joins finished segments with the tracks of the source."""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import av.error
import numpy as np
from numpy.typing import NDArray

from upframe.errors import InputError, Notice, OutputError, VerifyError
from upframe.files import remove_quietly
from upframe.media.names import bitstream_of
from upframe.media.video.attached import Attached, read_attached
from upframe.media.video.clock import Clock, demuxed
from upframe.media.video.codecs import CONTAINERS, tag_stream
from upframe.media.video.container import add_routes, movie_clock, name_tracks, open_output
from upframe.media.video.frame_facts import Matrix
from upframe.media.video.frames import fraction
from upframe.media.video.info import Chapter, VideoInfo, open_video, plain
from upframe.media.video.sink import close_quietly, exact_ticks, write_error
from upframe.media.video.timing import Timing
from upframe.media.video.tracks import ExpectedTrack, Route, Span
from upframe.media.video.written import VideoPlan

_Timed = tuple[float, Any, Route | None]
"""Decoding time in seconds, a packet, and its route; the route is None for the video."""


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
    attached: tuple[str, ...] = ()
    """SHA-256 of all covers and attachments, sorted."""
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
    frames = _Frames.of(timing, chosen)
    return _write(segments, target, plan, frames, _span(timing, chosen, frames), timing.clock, info, on_frame)


def join_tracks(
    segment: Path, target: Path, plan: VideoPlan, *, timing: Timing, info: VideoInfo, selection: range | None = None
) -> Expected:
    """Make an output with all tracks of the source beside a single frame: what `join` will do to them, before any work is done.

    Args:
        segment: A work file with the first frame of the selection.
        target, timing, info, selection: As for `join`.

    Raises:
        InputError: if the container does not take the tracks because they are damaged.
        OutputError: if the output cannot be written.
    """
    chosen = selection if selection is not None else range(len(timing.pts))
    frames = _Frames.of(timing, chosen)
    first = _Frames(timing.time_base, frames.pts[:1], frames.durations[:1])
    try:
        return _write([segment], target, plan, first, _span(timing, chosen, frames), timing.clock, info, None)
    except OutputError as error:
        if isinstance(error.__cause__, av.error.InvalidDataError | av.error.ArgumentError | av.error.PatchWelcomeError):
            raise InputError(info.path, f"its tracks are damaged ({plain(error.__cause__)})", _WITHOUT) from error
        raise


_WITHOUT = "get the file again, or drop them with `video.audio=False` or `video.subtitles=False`"


@dataclass(frozen=True)
class _Frames:
    """Frames of the output in the time of the source."""

    time_base: Fraction
    pts: NDArray[np.int64]
    durations: NDArray[np.int64]

    @classmethod
    def of(cls, timing: Timing, chosen: range) -> _Frames:
        part = slice(chosen.start, chosen.stop)
        return cls(timing.time_base, timing.pts[part].astype(np.int64), timing.durations[part])


def _write(
    segments: Sequence[Path],
    target: Path,
    plan: VideoPlan,
    frames: _Frames,
    span: Span,
    clock: Clock,
    info: VideoInfo | None,
    on_frame: Callable[[], None] | None,
) -> Expected:
    out: Any = None
    routes: dict[int, Route] = {}
    chapters = _chapters(info.chapters, span) if info is not None and plan.has_chapters else []
    try:
        with ExitStack() as stack:
            first = stack.enter_context(open_video(segments[0]))
            source = stack.enter_context(open_video(info.path)) if info is not None else None
            out = open_output(target, plan)
            video = _add_video(out, first.streams.video[0], plan)
            attached = _attached(plan, info)
            if source is not None:
                routes = add_routes(out, source, plan, span, attached)
            if chapters:
                out.set_chapters(chapters)
            pictures = _video_packets(segments, video, plan, frames, span)
            others = _source_packets(source, routes, clock) if source is not None else iter(())
            for _, packet, route in heapq.merge(pictures, others, key=lambda timed: timed[0]):
                if route is not None:
                    route.mux(out, packet)
                    continue
                out.mux_one(packet)
                if on_frame is not None:
                    on_frame()
            out.close()
        name_tracks(target, plan)
    except BaseException as error:
        if out is not None:
            close_quietly(out)
        remove_quietly(target)
        if isinstance(error, av.error.FFmpegError | ValueError | OSError):
            raise write_error(target, error) from error
        raise
    return Expected(
        size=plan.coded_size,
        time_base=frames.time_base,
        pts=frames.pts + span.shift_ticks,
        last_duration=int(frames.durations[-1]),
        tick=CONTAINERS[plan.container].tick or Fraction(1, movie_clock(plan.time_base)),
        tracks=tuple(route.finish() for route in routes.values() if route.track.kind != "cover"),
        chapters=len(chapters),
        attached=tuple(sorted(hashlib.sha256(one.data).hexdigest() for one in attached.values())),
        matrix=plan.matrix,
        sample_aspect=plan.sample_aspect,
        notices=tuple(_notices(str(target if info is None else info.path), routes.values())),
    )


def _attached(plan: VideoPlan, info: VideoInfo | None) -> dict[int, Attached]:
    indices = [track.index for track in plan.tracks if track.kind in ("cover", "attachment")]
    return {} if info is None else read_attached(info.path, indices)


def _notices(subject: str, routes: Iterable[Route]) -> Iterator[Notice]:
    for route in routes:
        name = f"{route.track.kind} stream {route.track.index}"
        if route.refused:
            yield Notice("packets-dropped", subject, f"{route.refused} damaged packets of {name} could not be copied")
        if route.moved:
            yield Notice("pts-repaired", subject, f"{route.moved} packets of {name} had repeated or backward timestamps")


def _span(timing: Timing, chosen: range, frames: _Frames) -> Span:
    first = int(frames.pts[0])
    # A video that starts before zero would lose its beginning in players.
    ticks = -first if chosen.start else max(0, -first)
    base = timing.time_base
    start = None if chosen.start == 0 else first * base
    end = None if chosen.stop == len(timing.pts) else (int(frames.pts[-1]) + int(frames.durations[-1])) * base
    return Span(start, end, ticks, ticks * base)


# Video ----------------------------------------------------------------------------------------------------------------
def _add_video(out: Any, template: Any, plan: VideoPlan) -> Any:
    stream = out.add_stream_from_template(template, opaque=True)
    stream.time_base = plan.time_base
    stream.codec_context.framerate = plan.rate
    tag_stream(stream, tags=plan.colour, sample_aspect=plan.sample_aspect)
    stream.set_display_matrix(plan.matrix)
    if bitstream_of(plan.codec) == "h265" and plan.container in ("mp4", "mov"):
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
    frames: _Frames,
    span: Span,
) -> Iterator[_Timed]:
    """Yield packets of all segments in coding order, with new decoding times.

    Each encoder run starts its own decoding times, which would collide where segments meet. The new ones are the timestamps of
    the frames, delayed by the number of frames by which pictures are reordered: always rising, never later than the display
    time.
    """
    pts, durations = frames.pts, frames.durations
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
                packet.pts, packet.dts = int(pts[frame]) + span.shift_ticks, dts + span.shift_ticks
                packet.duration = int(durations[frame])
                yield float((dts + span.shift_ticks) * plan.time_base), packet, None
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
def _source_packets(source: Any, routes: dict[int, Route], clock: Clock) -> Iterator[_Timed]:
    """Yield packets for the output from the source, in its order; each with its decoding time in seconds."""
    if not routes:
        return
    latest = float("-inf")
    try:
        for packet in demuxed(source, [route.template for route in routes.values()], clock):
            if packet.size == 0:
                continue
            route = routes[packet.stream_index]
            for time, made in route.take(packet):
                latest = max(latest, time)
                yield latest, made, route
    except av.error.FFmpegError:
        pass  # the source ends early, as its index has reported
    for route in routes.values():
        for time, made in route.rest():
            latest = max(latest, time)
            yield latest, made, route


def _chapters(chapters: Sequence[Chapter], span: Span) -> list[Any]:
    """Chapters that overlap the span, cut to it."""
    made = []
    base = Fraction(1, 1000000)
    for number, chapter in enumerate(chapters):
        start = chapter.start if span.start is None else max(chapter.start, span.start)
        end = chapter.end if span.end is None else min(chapter.end, span.end)
        if end <= start and (start, end) != (chapter.start, chapter.end):
            continue
        made.append({
            "id": number + 1,
            "start": max(0, exact_ticks(start + span.shift, base)),
            "end": max(0, exact_ticks(end + span.shift, base)),
            "time_base": base,
            "metadata": dict(chapter.tags),
        })  # fmt: skip
    return made
