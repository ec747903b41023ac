"""`index_video` counts and times every frame of a video before any is upscaled.

Headers are not trusted: frame counts and durations are missing or wrong in many files, and packets are not frames. The
index is made by decoding the whole stream once, which costs milliseconds a frame where a network costs hundreds. It holds the
exact timestamps, finds damage and changes of size before the work starts, and holds a checksum of every frame, which proves
that a later jump to the middle (`VideoSource.range`) gives the same pixels as a decode from the start.
"""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import av.error
import numpy as np
from numpy.typing import NDArray

from upframe.errors import InputError, Notice
from upframe.media.image.opening import Stamp, stamp
from upframe.media.names import OnBadFrame
from upframe.media.video.account import reading_ledger
from upframe.media.video.clock import Clock, ClockFinder
from upframe.media.video.colour import Plane
from upframe.media.video.decoding import Decoding
from upframe.media.video.ending import cut_short, has_cut_packet
from upframe.media.video.frames import checksum, fraction, planes_of
from upframe.media.video.info import UNTIMED_FORMATS, VideoInfo, choose_stream, coding_of_tags, open_video, probe_video
from upframe.media.video.survey import UNSEEN, Survey, Surveyor

NO_TIME = -(1 << 63)

_HIDDEN_FRAME_CODECS = ("vp8", "vp9", "libvpx", "libvpx-vp9", "av1", "libdav1d", "libaom-av1")
"""Codecs whose packets may hold hidden pictures, so that a packet without a frame is no loss."""


@dataclass(frozen=True)
class FrameIndex:
    """All frames of a video stream in display order."""

    path: Path
    stream: int
    stamp: Stamp
    """Stamp of the indexed file."""
    time_base: Fraction
    pts: NDArray[np.int64]
    """Timestamp of each frame in ticks, strictly rising; repaired if the file's timestamps are not."""
    durations: NDArray[np.int64]
    """Duration of each frame in ticks: until the next frame; for the last frame, as stated by the file or the nominal rate."""
    decoded: NDArray[np.int64]
    """Number of the decoded picture of each frame; a picture that occurs twice replaces a damaged one."""
    raw_pts: NDArray[np.int64]
    """Per decoded picture: the decoder's timestamp; NO_TIME if none."""
    is_key: NDArray[np.bool_]
    """Per decoded picture: whether it is a keyframe."""
    checksums: NDArray[np.uint32]
    """Per decoded picture: CRC-32 of its samples."""
    is_seekable: bool
    """Whether reading may start at a keyframe; False for damaged streams and streams without timestamps."""
    is_damaged: bool
    """Whether the decoder met errors. Then it always runs with one thread, since frame threads conceal damage differently each
    time."""
    damaged: tuple[Fraction, ...]
    """Times in seconds of damaged frames."""
    truncated: str | None
    """Evidence that the file ends early; None if it does not."""
    clock: Clock = field(default_factory=Clock)
    """Moves the file's packets to the time line of `pts` and `raw_pts`."""
    notices: tuple[Notice, ...] = ()
    seen: Survey = UNSEEN
    """Survey of all frames."""

    def __len__(self) -> int:
        return len(self.pts)

    def time(self, frame: int) -> Fraction:
        """Time of a frame in seconds."""
        return int(self.pts[frame]) * self.time_base

    def duration(self, frame: int) -> Fraction:
        """Duration of a frame in seconds."""
        return int(self.durations[frame]) * self.time_base

    @property
    def end(self) -> Fraction:
        """End time of the last frame in seconds."""
        return self.time(len(self) - 1) + self.duration(len(self) - 1)

    def between(self, start: Fraction | None, end: Fraction | None) -> range:
        """Select the frames from `start` on and before `end`, in seconds after the first frame; None is no limit."""
        first = int(self.pts[0])

        def at(seconds: Fraction | None, default: int) -> int:
            if seconds is None:
                return default
            ticks = seconds / self.time_base + first
            return int(np.searchsorted(self.pts, -int(-ticks // 1), side="left"))

        return range(at(start, 0), at(end, len(self)))

    def digest(self) -> str:
        """SHA-256 over all timestamps and pictures: equal for two files only if they show the same."""
        state = hashlib.sha256(str(self.time_base).encode())
        for part in (self.pts, self.durations, self.decoded, self.checksums):
            state.update(np.ascontiguousarray(part).tobytes())
        return state.hexdigest()


class _Damaged(Exception):  # noqa: N818  (a signal to start again, caught here)
    pass


def index_video(
    path: str | Path,
    *,
    stream: int | None = None,
    on_bad_frame: OnBadFrame = "repeat",
    info: VideoInfo | None = None,
    observe: Callable[[int, Plane], None] | None = None,
) -> FrameIndex:
    """Count, time and checksum all frames. Cost: one decode of the stream; about 40 bytes of memory per frame.

    Args:
        stream: See `probe_video`.
        on_bad_frame: How to handle a damaged frame: repeat the previous frame, skip it, or raise an error.
        info: Facts about the same file, if known.
        observe: Called with the number of each decoded picture and its luma (or green) plane, a view that is valid only during
            the call; finds scene cuts in the same pass. After damage, numbers start again at 0, since the stream is then read
            again with one thread.

    Raises:
        InputError: if there is no frame, the size changes, or a frame is damaged and `on_bad_frame` asks for an error.
    """
    info = info or probe_video(path, stream=stream)
    seen = stamp(info.path)
    raw = _read(info, None, observe)
    if not raw.clock.is_even:
        raw = _read(info, raw.clock, observe)
    return _assemble(info, raw, on_bad_frame, seen)


def _read(info: VideoInfo, clock: Clock | None, observe: Callable[[int, Plane], None] | None) -> _Raw:
    try:
        return _decode_all(info, clock, threads=0, observe=observe)
    except _Damaged:  # frame threads conceal damage differently each time
        return _decode_all(info, clock, threads=1, observe=observe)


@dataclass
class _Raw:
    """Findings of one pass over the stream."""

    pts: array[int]
    durations: array[int]
    keys: array[int]
    checksums: array[int]
    bad: list[int]
    """Numbers of pictures in which the decoder concealed damage."""
    lost: list[int]
    """Timestamps of missing pictures."""
    is_damaged: bool
    ended_by: str | None
    clock: Clock
    """The clock that was found, or used."""
    late: tuple[int, ...] = ()
    """Audio streams with packets of which nothing was known when the file was opened."""
    seen: Survey = UNSEEN


def _decode_all(info: VideoInfo, clock: Clock | None, *, threads: int, observe: Callable[[int, Plane], None] | None) -> _Raw:
    """Decode the whole stream; without a clock, in the file's time, and find the clock."""
    raw = _Raw(array("q"), array("q"), array("b"), array("L"), [], [], False, None, clock or Clock())
    with open_video(info.path) as container:
        stream = choose_stream(container, info.path, info.stream)
        unknown = [s.index for s in container.streams.audio if s.codec_context is not None and not s.codec_context.rate]
        finder = None if info.format in UNTIMED_FORMATS else _clock_finder(container, stream)
        surveyor = Surveyor()
        decoding = Decoding(container, stream, threads=threads, clock=clock, finder=finder, surveyor=surveyor)
        for frame, is_bad in decoding.pictures(note_packets=True):
            number = len(raw.pts)
            _check_size(info, frame, number)
            planes, _ = planes_of(frame)
            if threads != 1 and (is_bad or decoding.failures):
                raise _Damaged
            if is_bad:
                raw.bad.append(number)
            raw.pts.append(_time_of(frame))
            raw.durations.append(frame.duration or 0)
            raw.keys.append(bool(frame.key_frame))
            raw.checksums.append(checksum(planes))
            if observe is not None:
                observe(number, planes[0])
        if threads != 1 and decoding.failures:
            raise _Damaged
        raw.is_damaged = bool(decoding.failures or raw.bad)
        raw.ended_by = decoding.ended_by
        raw.seen = surveyor.survey()
        if finder is not None:
            raw.clock = finder.clock() if clock is None else clock
            raw.late = tuple(index for index in unknown if finder.has_packets(index))
        if raw.is_damaged:
            raw.lost = _lost(decoding, raw, info.codec)
    return raw


def _clock_finder(container: av.container.InputContainer, video: av.VideoStream) -> ClockFinder:
    flags: Any = container.format.flags
    finder = ClockFinder(may_skip=bool(flags & av.format.Flags.ts_discont.value))
    for stream in container.streams:
        if stream.index == video.index or stream.type in ("audio", "subtitle"):
            base = fraction(stream.time_base) or Fraction(1, 90000)
            finder.add_track(stream.index, base, is_steady=stream.type != "subtitle")
    return finder


def _time_of(frame: av.VideoFrame) -> int:
    """Timestamp of a frame. AVI and similar formats have only the decoding order, which FFmpeg's players also use."""
    value = frame.pts if frame.pts is not None else frame.dts
    return NO_TIME if value is None else int(value)


def _lost(decoding: Decoding, raw: _Raw, codec: str) -> list[int]:
    shown = set(raw.pts)
    if codec in _HIDDEN_FRAME_CODECS:
        return sorted(set(decoding.lost) - shown)
    return sorted(set(decoding.packet_pts) - shown)


def _check_size(info: VideoInfo, frame: av.VideoFrame, number: int) -> None:
    if (frame.height, frame.width) == info.coded_size:
        return
    time = frame.pts * info.time_base if frame.pts is not None else number / info.rate
    height, width = info.coded_size
    raise InputError(
        info.path,
        f"the picture changes from {width}x{height} to {frame.width}x{frame.height} at {timecode(time)}",
        "cut it there (`video.start`, `video.end`) or convert it to one size first",
    )


def timecode(seconds: Fraction) -> str:
    """Format a time as h:mm:ss.mmm, like players."""
    sign = "-" if seconds < 0 else ""
    total = round(abs(seconds) * 1000)
    return f"{sign}{total // 3600000}:{total // 60000 % 60:02}:{total // 1000 % 60:02}.{total % 1000:03}"


# Putting it together --------------------------------------------------------------------------------------------------
def _assemble(info: VideoInfo, raw: _Raw, on_bad_frame: OnBadFrame, seen: Stamp) -> FrameIndex:
    if not raw.pts:
        raise InputError(info.path, "holds no frame that can be decoded", "get the file again")
    subject = str(info.path)
    for colour in raw.seen.colours:
        coding_of_tags(info, colour)  # refuses a matrix that is not supported, before any frame is converted
    notices = [*info.notices, *reading_ledger(info, raw.seen).notices(subject)]
    nominal = max(1, round(1 / (info.rate * info.time_base)))
    raw_pts = np.array(raw.pts, np.int64)
    order: list[tuple[int, int]]
    untimed = info.format in UNTIMED_FORMATS or bool((raw_pts == NO_TIME).any())
    if untimed:
        order = _synthetic(raw_pts, info, nominal)
        notices.append(Notice("no-pts", subject, f"frames have no timestamps; treated as {float(info.rate):.6g} per second"))
    else:
        order = [(int(pts), number) for number, pts in enumerate(_in_display_order(raw_pts, info))]
    damaged = [int(raw_pts[number]) for number in raw.bad] + ([] if untimed else raw.lost)
    order = _without_damage(info, order, raw, damaged, on_bad_frame, notices, untimed=untimed)
    pts = np.array([time for time, _ in order], np.int64)
    repaired = _risen(pts, nominal)
    if raw.clock.jumps:
        notices.append(Notice("time-jumps", subject, _told_jumps(raw.clock)))
    if has_cut_packet(info):
        notices.append(Notice("truncated", subject, f"its last packet is cut, so it may end early after {len(pts)} frames"))
    for index in raw.late:
        notices.append(Notice("track-dropped", subject, f"its audio stream {index} begins too late to be copied"))
    moved = int((repaired != pts).sum())
    if moved:
        text = f"{moved} of {len(pts)} frames had repeated or backward timestamps and were moved apart"
        notices.append(Notice("pts-repaired", subject, text))
    durations = np.empty_like(repaired)
    durations[:-1] = np.diff(repaired)
    last = raw.durations[order[-1][1]]
    durations[-1] = last if 0 < last <= 10 * nominal else nominal
    return FrameIndex(
        path=info.path,
        stream=info.stream,
        stamp=seen,
        time_base=info.time_base,
        pts=repaired,
        durations=durations,
        decoded=np.array([number for _, number in order], np.int64),
        raw_pts=raw_pts,
        is_key=np.array(raw.keys, np.bool_),
        checksums=np.array(raw.checksums, np.uint32),
        is_seekable=raw.clock.is_even and not (untimed or moved or raw.is_damaged or (np.diff(raw_pts) <= 0).any()),
        is_damaged=raw.is_damaged,
        damaged=tuple(time * info.time_base for time in sorted(damaged) if time != NO_TIME),
        truncated=raw.ended_by or cut_short(info),
        clock=raw.clock,
        notices=tuple(notices),
        seen=raw.seen,
    )


def _in_display_order(raw_pts: NDArray[np.int64], info: VideoInfo) -> NDArray[np.int64]:
    """Timestamps of frames that are in display order.

    AVI has none, so FFmpeg counts packets, in coding order: with B-frames of H.264 each frame has the number of its packet.
    Sorted, these are the right times.
    """
    return np.sort(raw_pts) if info.format == "avi" else raw_pts


_JUMPS_TOLD = 3


def _told_jumps(clock: Clock) -> str:
    jumps = [f"{'back' if jump.by < 0 else 'ahead'} by {timecode(abs(jump.by))} at {timecode(jump.at)}" for jump in clock.jumps]
    more = len(jumps) - _JUMPS_TOLD
    told = ", ".join(jumps[:_JUMPS_TOLD]) + (f" and {more} more times" if more > 0 else "")
    return f"its time jumps {told}; all its tracks go on from there without a jump"


def _synthetic(raw_pts: NDArray[np.int64], info: VideoInfo, nominal: int) -> list[tuple[int, int]]:
    """Set timestamps at the nominal rate for frames without any: all frames of a bare stream."""
    tick = 1 / (info.rate * info.time_base)
    if info.format in UNTIMED_FORMATS or (raw_pts == NO_TIME).all():
        return [(round(number * tick), number) for number in range(len(raw_pts))]
    first = int((raw_pts != NO_TIME).argmax())
    times = [int(raw_pts[first]) - nominal * (first - number) for number in range(first)]  # frames before it count back
    for value in raw_pts[first:]:
        times.append(int(value) if value != NO_TIME else times[-1] + nominal)
    return list(zip(times, range(len(times)), strict=True))


def _without_damage(
    info: VideoInfo,
    order: list[tuple[int, int]],
    raw: _Raw,
    damaged: list[int],
    on_bad_frame: OnBadFrame,
    notices: list[Notice],
    *,
    untimed: bool,
) -> list[tuple[int, int]]:
    """Replace each damaged frame by the previous one, or skip it."""
    if not damaged:
        return order
    times = [timecode(t * info.time_base) for t in sorted(damaged) if t != NO_TIME]
    shown = ", ".join(times[:5]) + (f" and {len(times) - 5} more" if len(times) > 5 else "")
    if on_bad_frame == "fail":
        raise InputError(
            info.path, f"{len(damaged)} damaged frames, at {shown}", "use `video.on_bad_frame='repeat'`, or get the file again"
        )
    bad = set(raw.bad)
    kept = [(time, number) for time, number in order if number not in bad]
    if not kept:
        raise InputError(info.path, "every frame of it is damaged", "get the file again")
    doing = "skipped" if on_bad_frame == "skip" else "replaced by the previous frame"
    notices.append(Notice("bad-frames", str(info.path), f"{len(damaged)} damaged frames were {doing}, at {shown}"))
    if on_bad_frame == "skip":
        return kept
    lost = [(time, -1) for time, number in order if number in bad]
    lost += [] if untimed else [(time, -1) for time in raw.lost]
    merged = sorted(kept + lost)
    previous = kept[0][1]  # replaces the lost frame before it
    filled = []
    for time, number in merged:
        previous = number if number >= 0 else previous
        filled.append((time, previous))
    return filled


def _risen(pts: NDArray[np.int64], nominal: int) -> NDArray[np.int64]:
    """Make `pts` strictly rising: each run that does not rise is spread between its good neighbours."""
    if (np.diff(pts) > 0).all():
        return pts
    out = pts.copy()
    n = 1
    while n < len(out):
        if out[n] > out[n - 1]:
            n += 1
            continue
        end = n
        while end < len(out) and pts[end] <= out[n - 1] + (end - n):
            end += 1
        gap = nominal if end == len(out) else max(1, min(nominal, int(pts[end] - out[n - 1]) // (end - n + 1)))
        for k in range(n, end):
            out[k] = out[k - 1] + gap
        n = end
    return out


def checked_index(index: FrameIndex) -> FrameIndex:
    """Check that the file has not changed since `index` was made.

    Raises:
        InputError: if the file changed or is gone.
    """
    try:
        now = stamp(index.path)
    except OSError as error:
        raise InputError(index.path, "changed while reading (it is gone)", "run it again") from error
    if now != index.stamp:
        raise InputError(index.path, "changed while reading", "run it again when nothing writes to it")
    return replace(index)
