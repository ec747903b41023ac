"""`index_video` counts and times every frame of a video before any is upscaled.

Headers are not trusted: frame counts and durations are missing or wrong in many files, and packets are not frames. The
index is made by decoding the whole stream once, which costs milliseconds a frame where a network costs hundreds. It holds the
exact timestamps, finds damage and changes of size before the work starts, and holds a checksum of every frame, which proves
that a later jump to the middle (`VideoSource.range`) gives the same pixels as a decode from the start.
"""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import av
import av.error
import numpy as np
from numpy.typing import NDArray

from upframe.errors import InputError, Notice
from upframe.media.image.opening import Stamp, open_regular, stamp
from upframe.media.names import OnBadFrame
from upframe.media.video.account import reading_ledger
from upframe.media.video.colour import Plane
from upframe.media.video.frames import checksum, planes_of
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


class Picture(NamedTuple):
    """One decoded picture."""

    frame: av.VideoFrame
    is_bad: bool
    """Whether the decoder concealed damaged data."""


class Decoding:
    """Decodes the pictures of one stream in display order, every packet in its own `try`.

    A damaged packet ends FFmpeg's own loops; this class counts it and decodes the next one.
    """

    def __init__(
        self,
        container: av.container.InputContainer,
        stream: av.VideoStream,
        *,
        threads: int,
        surveyor: Surveyor | None = None,
    ) -> None:
        self.container, self.stream, self._surveyor = container, stream, surveyor
        self.lost: list[int] = []
        """Timestamps of packets that the decoder refused."""
        self.packet_pts: list[int] = []
        self.failures = 0
        self.ended_by: str | None = None
        """The reason why the demuxer stopped, if not at the end of the file."""
        stream.codec_context.thread_count = threads
        stream.codec_context.thread_type = "AUTO" if threads != 1 else "NONE"

    def pictures(self, *, note_packets: bool = False) -> Iterator[Picture]:
        context: Any = self.stream.codec_context
        for packet in self._packets():
            if packet is not None and packet.pts is None and packet.size == 0:
                continue  # PyAV's own flush; this class flushes at the end
            if packet is not None and note_packets and packet.pts is not None and not packet.is_discard:
                self.packet_pts.append(packet.pts)
            if packet is not None and self._surveyor is not None:
                self._surveyor.see_packet(packet)
            try:
                frames = context.decode(packet)
            except (av.error.InvalidDataError, av.error.PatchWelcomeError, av.error.UnknownError):
                self.failures += 1
                if packet is not None and packet.pts is not None:
                    self.lost.append(packet.pts)
                continue
            except EOFError:
                return
            for frame in frames:
                if self._surveyor is not None:
                    self._surveyor.see_frame(frame, context)
                yield Picture(frame, frame.is_corrupt or bool(packet is not None and packet.is_corrupt))

    def _packets(self) -> Iterator[Any]:
        try:
            yield from self.container.demux(self.stream)
        except av.error.FFmpegError as error:
            self.ended_by = (error.strerror or str(error)).lower()
        yield None


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
    try:
        # Frame threads conceal damage differently each time, so a damaged stream is always read with one thread.
        raw = _decode_all(info, threads=0, observe=observe)
    except _Damaged:
        raw = _decode_all(info, threads=1, observe=observe)
    return _assemble(info, raw, on_bad_frame, seen)


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
    seen: Survey = UNSEEN


def _decode_all(info: VideoInfo, *, threads: int, observe: Callable[[int, Plane], None] | None) -> _Raw:
    raw = _Raw(array("q"), array("q"), array("b"), array("L"), [], [], False, None)
    with open_video(info.path) as container:
        stream = choose_stream(container, info.path, info.stream)
        surveyor = Surveyor()
        decoding = Decoding(container, stream, threads=threads, surveyor=surveyor)
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
        if raw.is_damaged:
            raw.lost = _lost(decoding, raw, info.codec)
    return raw


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
        is_seekable=not (untimed or moved or raw.is_damaged or (np.diff(raw_pts) <= 0).any()),
        is_damaged=raw.is_damaged,
        damaged=tuple(time * info.time_base for time in sorted(damaged) if time != NO_TIME),
        truncated=raw.ended_by or cut_short(info),
        notices=tuple(notices),
        seen=raw.seen,
    )


def _in_display_order(raw_pts: NDArray[np.int64], info: VideoInfo) -> NDArray[np.int64]:
    """Timestamps of frames that are in display order.

    AVI has none, so FFmpeg counts packets, in coding order: with B-frames of H.264 each frame has the number of its packet.
    Sorted, these are the right times.
    """
    return np.sort(raw_pts) if info.format == "avi" else raw_pts


def _synthetic(raw_pts: NDArray[np.int64], info: VideoInfo, nominal: int) -> list[tuple[int, int]]:
    """Set timestamps at the nominal rate for frames without any: all frames of a bare stream."""
    tick = 1 / (info.rate * info.time_base)
    if info.format in UNTIMED_FORMATS or (raw_pts == NO_TIME).all():
        return [(round(number * tick), number) for number in range(len(raw_pts))]
    order: list[tuple[int, int]] = []
    for number, value in enumerate(raw_pts):
        time = int(value) if value != NO_TIME else (order[-1][0] + nominal if order else 0)
        order.append((time, number))
    return order


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


def cut_short(info: VideoInfo) -> str | None:
    """Find evidence in the file's outermost structure that the file ends early; None if it seems complete. Decodes nothing."""
    with open_regular(info.path) as file:
        size = file.seek(0, 2)
        file.seek(0)
        if info.format.startswith("matroska"):
            return _ebml_shortage(file, size)
        if info.format.startswith("mov"):
            return _box_shortage(file, size)
        if info.format == "avi":
            head = file.read(8)
            stated = int.from_bytes(head[4:8], "little") + 8
            return f"{stated - size} bytes are missing" if head[:4] == b"RIFF" and stated > size else None
        if info.format == "mpegts":
            head = file.read(377)
            if head[:1] == b"G" and head[188:189] == b"G" and size % 188:
                return "its last packet is cut"
    return None


def _box_shortage(file: Any, size: int) -> str | None:
    """ISO/IEC 14496-12, 4.2: top-level boxes must end where the file does."""
    at = 0
    while at + 8 <= size:
        file.seek(at)
        head = file.read(16)
        length = int.from_bytes(head[:4], "big")
        length = int.from_bytes(head[8:16], "big") if length == 1 else length
        if length == 0:
            return None  # to the end of the file
        if length < 8:
            return None  # not a box: some writers append padding
        at += length
        if at > size:
            return f"{at - size} bytes are missing"
    return None


def _ebml_shortage(file: Any, size: int) -> str | None:
    """RFC 8794, 4.4: the Segment states its size, unless it was streamed."""
    at = 0
    for _ in range(2):  # the EBML header, then the Segment
        file.seek(at)
        head = file.read(12)
        id_length = _vint_length(head[0]) if head else 0
        length = _vint_length(head[id_length]) if 0 < id_length < len(head) else 0
        if not length or id_length + length > len(head):
            return None
        mask = (1 << (7 * length)) - 1
        value = int.from_bytes(head[id_length : id_length + length], "big") & mask
        if value == mask:
            return None  # unknown size
        at += id_length + length + value
    return f"{at - size} bytes are missing" if at > size else None


def _vint_length(first: int) -> int:
    return 9 - first.bit_length() if first else 0


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
