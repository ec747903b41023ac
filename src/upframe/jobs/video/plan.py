"""Plan a video from its headers: how its output is written, the disk room it takes, and whether it exists already."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import partial
from pathlib import Path

from upframe.errors import Notice, OptionError, UsageError
from upframe.jobs.items import is_done, something_else
from upframe.jobs.options import VideoOptions
from upframe.jobs.video.workspace import kept_bytes
from upframe.media.image.formats import format_of_name
from upframe.media.image.source import probe
from upframe.media.ledger import EMPTY, Ledger
from upframe.media.names import bitstream_of
from upframe.media.video.files import (
    Survey,
    VideoInfo,
    VideoPlan,
    codec_named,
    cut_short,
    folder_ledger,
    plan_video,
    probe_video,
    reaches,
    reading_ledger,
    side_ledger,
)

_GUESSED_LENGTHS = ("mpegts", "mpeg")
"""Formats that state no length: FFmpeg takes it from their last timestamp, which is wrong where the time jumps."""
LENGTH_SLACK_S = 1  # seconds by which two headers of the same video may differ in its length


@dataclass(frozen=True)
class Video:
    """A video and how its output is written: the facts known before the video is read."""

    input: Path
    """A video file, or a folder of frames."""
    output: Path
    info: VideoInfo
    plan: VideoPlan | None
    """None for an output that is a folder of frames."""
    size: tuple[int, int]
    """(height, width) of the output pictures."""
    notices: tuple[Notice, ...] = ()
    """Losses that are known before the video is read."""
    ledger: Ledger = EMPTY
    """Everything that the input holds and its fate, as far as headers and some frames show it."""
    is_doubled: bool = False
    """Whether the network makes a new frame between every two."""

    @property
    def frames_estimate(self) -> int:
        """Number of input frames according to the header; Matroska states only how long they are shown."""
        length = _length(self.info) or Fraction(0)
        return max(self.info.frames_estimate or math.ceil(length * self.info.rate), 1)

    def made(self, first: int, end: int) -> range:
        """Range of output frames for input frames `first` to `end` - 1, counted from the first chosen frame."""
        return made_frames(first, end, is_doubled=self.is_doubled)


def made_frames(first: int, end: int, *, is_doubled: bool) -> range:
    """Range of output frames for input frames `first` to `end` - 1, counted from the first chosen frame."""
    return range(2 * first, 2 * end) if is_doubled else range(first, end)


def plan_video_output(
    info: VideoInfo, size: tuple[int, int], options: VideoOptions, *, container: str | None, is_doubled: bool = False
) -> tuple[VideoPlan | None, Ledger]:
    """Decide how a video is written, and try the encoder and the container with all its tracks.

    Args:
        info: From `probe_input`.
        container: Name or extension; an image format means a folder of numbered PNGs, which has no plan; None keeps the input's
            container.
        is_doubled: Whether the output has twice the rate.

    Returns:
        The plan, and the ledger of everything that the input holds.

    Raises:
        UsageError: if the video cannot be made as asked.
    """
    _check_start(info, options)
    if container is not None and format_of_name(container) is not None:
        if format_of_name(container) != "png":
            raise OptionError("format", container, "frames are written as PNG", "use png, or a video format")
        return None, video_ledger(info, info.seen, None, options)
    plan = plan_video(
        replace(info, time_base=info.time_base / 2, rate=2 * info.rate) if is_doubled else info,
        container=container,
        size=size,
        codec=options.codec,
        crf=options.crf,
        preset=options.preset,
        pix_fmt=options.pix_fmt,
        options=dict(options.encoder),
        odd=options.odd,
        audio=options.audio,
        subs=options.subtitles,
    )
    return plan, video_ledger(info, info.seen, plan, options)


def video_ledger(info: VideoInfo, seen: Survey, plan: VideoPlan | None, options: VideoOptions) -> Ledger:
    """The ledger of everything that a video holds.

    Args:
        seen: A survey of some of its frames, or of all.
        plan: How the output is written; None for a folder of frames.
    """
    reading = reading_ledger(info, seen, is_deinterlaced=options.deinterlace != "off")
    planned = folder_ledger(info) if plan is None else plan.ledger
    return reading + planned + side_ledger(info, seen, plan)


def _check_start(info: VideoInfo, options: VideoOptions) -> None:
    """Refuse a start after the last frame. Headers may state a wrong length, so packets decide where they leave a doubt."""
    length = _length(info)
    if options.start is None or (length is not None and options.start < length - LENGTH_SLACK_S):
        return
    if not reaches(info, options.start):
        stated = "" if length is None else f"; it is {float(length):.3f} s long"
        raise OptionError("video.start", options.start, f"{info.path.name} ends before it{stated}", "choose an earlier start")


def frame_name(number: int) -> str:
    """File name of a frame in an output folder."""
    return f"frame_{number:08}.png"


# Estimates ------------------------------------------------------------------------------------------------------------
def frames_taken(video: Video, options: VideoOptions) -> int | None:
    """Number of input frames between start and end according to headers; None if unknown."""
    whole, length = video.info.frames_estimate, _chosen_length(video.info, options)
    if length is None or (whole is not None and options.start is None and options.end is None):
        return whole
    taken = max(math.ceil(length * video.info.rate), 1)
    return taken if whole is None else min(taken, whole)


def estimated_file_bytes(video: Video, options: VideoOptions) -> int:
    """Estimate the bytes of the output, rather too many: 0.25 bits per pixel for delivery codecs, 12 for intermediate ones."""
    codec = "png" if video.plan is None else video.plan.codec
    bits = {"png": 14.0, "ffv1": 12.0, "prores": 4.0}.get(codec, 0.25)
    frames = (frames_taken(video, options) or 1) * (2 if video.is_doubled else 1)
    return int(video.size[0] * video.size[1] * frames * bits / 8) + (1 << 20)


def estimated_room_bytes(video: Video, options: VideoOptions) -> int:
    """Disk room still needed: for the segments and the joined file, less the segments that exist already."""
    return max((1 if video.plan is None else 2) * estimated_file_bytes(video, options) - kept_bytes(video.output), 0)


# Outputs that are there already ---------------------------------------------------------------------------------------
def check_place(video: Video) -> None:
    """Refuse an existing output that `overwrite` must not replace: a folder instead of a file, a file instead of a folder, or a
    folder that holds anything but frames.

    Raises:
        UsageError: naming the output.
    """
    output = video.output
    if video.plan is not None:
        if output.is_dir():
            raise UsageError(output, "is a folder", "choose another name")
        return
    if not output.is_dir():
        raise UsageError(output, "is a file, but the output is a folder of frames", "choose another name")
    foreign = next((p.name for p in output.iterdir() if not re.fullmatch(r"frame_\d{8}\.png", p.name)), None)
    if foreign is not None:
        raise UsageError(output, f"holds files that are not frames ({foreign})", "choose a new folder")


def is_video_done(video: Video, options: VideoOptions) -> bool:
    """Whether the output already exists according to its headers: same size, codec and length, and not cut short.

    Raises:
        UsageError: if a different file has that name, or the output was made before the input last changed.
    """
    plan = video.plan
    look = partial(_look_at_frames, video, options) if plan is None else partial(_look_at_file, video, plan, options)
    return is_done(video.output, video.input, look, begins_like=_begins_like_video)


def _look_at_file(video: Video, plan: VideoPlan, options: VideoOptions) -> bool:
    output = video.output
    there = probe_video(output)
    length, expected = _length(there), _chosen_length(video.info, options)
    if video.info.format in _GUESSED_LENGTHS:
        expected = None
    same = there.size == plan.coded_size and _same_codec(there.codec, plan.codec)
    close = length is None or expected is None or abs(length - expected) <= LENGTH_SLACK_S
    if not (same and close):
        raise something_else(output, f"{there.codec}, {there.size[1]}x{there.size[0]}, {float(length or 0):.1f} s")
    return cut_short(there) is None


def _same_codec(decoder: str, codec: str) -> bool:
    """Whether the name of a decoder means this codec. One codec may have several decoders (libdav1d for AV1)."""
    known = codec_named(decoder.removeprefix("lib").replace("dav1d", "av1"))
    return known is not None and known.name == bitstream_of(codec)


def _look_at_frames(video: Video, options: VideoOptions) -> bool:
    names = sorted(p.name for p in video.output.iterdir())
    if not names:
        return False
    expected, rate = _chosen_length(video.info, options), video.info.rate * (2 if video.is_doubled else 1)
    close = expected is None or abs(len(names) / rate - expected) <= LENGTH_SLACK_S
    if names != [frame_name(n) for n in range(len(names))] or not close:
        raise something_else(video.output, f"{len(names)} pictures")
    sizes = {probe(video.output / name).size for name in names}
    if sizes != {video.size}:
        raise something_else(video.output, "pictures of another size")
    return True


def _begins_like_video(head: bytes) -> bool:
    """Whether a file begins like a container that upframe writes: Matroska, WebM, MP4 or MOV."""
    return head.startswith(b"\x1aE\xdf\xa3") or head[4:8] == b"ftyp"


def _length(info: VideoInfo) -> Fraction | None:
    """Seconds of the video track, as the header states them; Matroska does so in a tag that counts from zero."""
    found = re.match(r"(\d+):(\d\d):(\d\d(?:\.\d+)?)", dict(info.video_tags).get("DURATION", ""))
    if found is None:
        return info.duration_estimate
    return 3600 * int(found[1]) + 60 * int(found[2]) + Fraction(found[3]) - max(info.start_time, Fraction(0))


def _chosen_length(info: VideoInfo, options: VideoOptions) -> Fraction | None:
    """Seconds between start and end."""
    length = _length(info)
    if length is None:
        return None
    return max((length if options.end is None else min(options.end, length)) - (options.start or 0), Fraction(0))
