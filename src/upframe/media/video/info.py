"""`probe_video` reads the headers of a video file and decodes only one frame."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

import av
import av.error
import av.logging

from upframe.errors import InputError, Notice
from upframe.media.image.opening import open_regular
from upframe.media.video.boxes import edit_lists
from upframe.media.video.colour import WEIGHTS, Coding
from upframe.media.video.frame_facts import UNSPECIFIED, ColourTags, Hdr10, Matrix, side_data_of, timecode_of
from upframe.media.video.frames import (
    fraction,
    is_full_range_format,
    layout_of,
    readable_format,
)
from upframe.media.video.stated import NOTHING, Crop, Stated, crop_of, logging_at, refuse_dolby_vision, stated_by
from upframe.media.video.survey import UNSEEN, Survey, Surveyor, look_around

_HD_LINES = 720

_IMAGE_FORMATS = ("image2", "gif", "apng", "webp_anim", "ico", "jpegxl_anim")
UNTIMED_FORMATS = frozenset(("h264", "hevc", "vvc", "m4v", "mpegvideo", "cavsvideo", "h261", "h263", "dirac", "vc1", "evc"))
"""Bare streams: their demuxers invent timestamps."""
_ENCRYPTED_TAGS = ("encv", "enca", "drmi", "drms")
_LIMITED_CODECS = ("h264", "hevc", "av1", "libdav1d", "vp9", "mpeg2video", "vvc")
"""Codecs whose specification defines limited range as the default, also for gray."""
_CENTRE_SITED = ("mjpeg", "mpeg1video", "h263", "flv1", "vp6", "vp6f", "h261")

_TOLERANT: dict[str, Any] = {"metadata_errors": "replace"} if int(av.__version__.split(".")[0]) < 19 else {}
"""Tags that are not UTF-8 must not stop a video; PyAV 19 has no such option."""


@dataclass(frozen=True)
class StreamInfo:
    """A track other than the upscaled video."""

    index: int
    kind: str
    """"audio", "subtitle", "data", "attachment", "video" for further video, or "cover" for an attached picture."""
    codec: str
    """FFmpeg's decoder or codec name; for an attachment its MIME type."""
    language: str | None
    disposition: int
    """FFmpeg's disposition flags (`av.stream.Disposition`)."""
    title: str = ""
    """Track title, or the file name of an attachment."""
    has_timecode: bool = False
    """Whether it holds a time code, which is also a tag."""
    tags: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Chapter:
    start: Fraction
    """Seconds."""
    end: Fraction
    tags: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class VideoInfo:
    """Facts of a video, known before its frames are counted."""

    path: Path
    format: str
    """FFmpeg's name of the container, e.g. "mov,mp4,m4a,3gp,3g2,mj2"."""
    stream: int
    """Index of the video stream in the file."""
    codec: str
    size: tuple[int, int]
    """(height, width) of the picture without the parts that the container hides, before rotation and sample aspect ratio."""
    pix_fmt: str
    bits: int
    """Bits per sample."""
    chroma: Literal["420", "422", "440", "444", "rgb", "gray"]
    colour: ColourTags
    coding: Coding
    """Conversion of its Y'CbCr: as tagged, else BT.709 from 720 lines up and BT.601 below."""
    sample_aspect: Fraction | None
    """Width of a pixel divided by its height; None if not stated."""
    rotation: int
    """Degrees by which players turn the picture counter-clockwise; copied, not applied. `matrix` has flips, too."""
    time_base: Fraction
    """Seconds per tick."""
    rate: Fraction
    """Nominal frames per second; 25 if not stated."""
    start_time: Fraction
    """Time of the first video frame in seconds, from the header."""
    container_start: Fraction
    """Time of the first packet of any track in seconds, from the header."""
    frames_estimate: int | None
    duration_estimate: Fraction | None
    """Number of frames from the header, which is never trusted."""
    hdr10: Hdr10 | None
    streams: tuple[StreamInfo, ...]
    """All other tracks."""
    chapters: tuple[Chapter, ...]
    tags: tuple[tuple[str, str], ...]
    """Tags of the container."""
    video_tags: tuple[tuple[str, str], ...]
    """Tags of the video stream."""
    notices: tuple[Notice, ...] = ()
    crop: Crop = (0, 0, 0, 0)
    """Rows and columns that the container hides."""
    matrix: Matrix | None = None
    """Display matrix by which players turn and flip the picture; copied, not applied. None leaves it as it is."""
    frame_timecode: str | None = None
    """Time code that the first frame states itself; None if it has none, or counts from zero."""
    stated: Stated = NOTHING
    seen: Survey = field(default=UNSEEN, compare=False)
    """Survey of the frames that were looked at; `FrameIndex.seen` is that of all frames."""

    @property
    def coded_size(self) -> tuple[int, int]:
        """(height, width) of the decoded picture, with the hidden parts."""
        top, bottom, left, right = self.crop
        return self.size[0] + top + bottom, self.size[1] + left + right

    @property
    def is_interlaced(self) -> bool:
        """Whether any of the frames that were looked at is interlaced."""
        return self.seen.interlaced > 0

    def of_kind(self, kind: str) -> tuple[StreamInfo, ...]:
        return tuple(stream for stream in self.streams if stream.kind == kind)


@contextlib.contextmanager
def open_video(path: Path) -> Iterator[av.container.InputContainer]:
    """Open `path` for demuxing.

    Raises:
        InputError: if it is not a regular file, or FFmpeg cannot open it; the message gives FFmpeg's reason.
    """
    open_regular(path).close()  # refuses folders, pipes and devices, and reports missing files
    try:
        container = _open(path)
    except (av.error.FFmpegError, ValueError, OSError) as error:
        raise InputError(
            path, f"is not a video that upframe can read ({_reason(path, error)})", "check that it is complete, or get it again"
        ) from error
    with container:
        yield container


def _open(path: Path) -> av.container.InputContainer:
    # The prefix "file:" keeps FFmpeg from reading "a:b.mp4" as a protocol; a playlist cannot open anything remote.
    container: av.container.InputContainer = av.open(
        f"file:{path.resolve()}", options={"protocol_whitelist": "file"}, **_TOLERANT
    )
    return container


def _reason(path: Path, error: Exception) -> str:
    """FFmpeg's reason why a file cannot be opened: its log says more than its error codes.

    The file is opened a second time to capture the log.
    """
    ignored = contextlib.suppress(av.error.FFmpegError, ValueError, OSError)
    with logging_at(av.logging.ERROR), av.logging.Capture(local=False) as logs, ignored:
        _open(path).close()
    texts = [text.strip() for _, _, text in logs if text.strip()]
    return texts[-1] if texts else plain(error)


def plain(error: Exception) -> str:
    """Describe an error of FFmpeg."""
    return (getattr(error, "strerror", None) or str(error)).lower()


def probe_video(path: str | Path, *, stream: int | None = None, places: int = 0) -> VideoInfo:
    """Read the headers of a video file.

    Args:
        places: Number of places, spread over the file, of which one frame each is decoded besides the first frame of all.
        stream: Index of the video stream in the file; None takes the stream marked as default, else the first.

    Raises:
        InputError: if it has no video, is encrypted, is damaged at its start, or has an unsupported format.
    """
    path = Path(path)
    with open_video(path) as container:
        if container.format.name.endswith("_pipe") or container.format.name in _IMAGE_FORMATS:
            raise InputError(path, f"is an image ({container.format.long_name}), not a video", "rename it to its actual format")
        chosen = choose_stream(container, path, stream)
        stated = stated_by(container)
        if container.format.name.startswith("mov"):
            stated = replace(stated, edits=edit_lists(path))
        refuse_dolby_vision(path, stated.of_stream(chosen.index).get("dovi_conf", ""))
        first = _first_frame(container, chosen, path)
        surveyor = Surveyor()
        surveyor.see_frame(first, chosen.codec_context)
        info = _describe(path, container, chosen, first, stated, surveyor.survey())
        if places and info.format not in UNTIMED_FORMATS:
            look_around(container, chosen, surveyor, places)
        seen = surveyor.survey()
        return replace(info, seen=seen, hdr10=info.hdr10 or next(iter(seen.hdr10), None))


def reaches(info: VideoInfo, start: Fraction) -> bool:
    """Whether a frame may lie `start` seconds after the first one or later, by the times of packets; decodes nothing."""
    if info.format == "folder":
        return start * info.rate <= (info.frames_estimate or 1) - 1
    if info.format in UNTIMED_FORMATS:
        return True
    wanted = (info.start_time + start) / info.time_base
    with open_video(info.path) as container:
        stream = choose_stream(container, info.path, info.stream)
        with contextlib.suppress(av.error.FFmpegError):
            container.seek(int(wanted), stream=stream)
        with contextlib.suppress(av.error.FFmpegError):
            for packet in container.demux(stream):
                time = packet.pts if packet.pts is not None else packet.dts
                if packet.size and (time is None or time >= wanted):
                    return True
    return False


def choose_stream(container: av.container.InputContainer, path: Path, wanted: int | None) -> av.VideoStream:
    """Choose the video stream to upscale; see `probe_video`."""
    videos = [s for s in container.streams.video if not _is_cover(s)]
    for stream in container.streams:
        if stream.codec_context is not None and stream.codec_context.codec_tag in _ENCRYPTED_TAGS:
            raise InputError(path, "is encrypted (DRM)", "upframe cannot read protected media")
    if not videos:
        audio = len(container.streams.audio)
        covers = len(container.streams.video)
        found = f"{audio} audio" + (f", {covers} cover picture" if covers else "")
        raise InputError(path, f"has no video stream ({found})", "pass a file with video")
    if wanted is not None:
        for candidate in videos:
            if candidate.index == wanted:
                return _checked_codec(candidate, path)
        indices = ", ".join(str(s.index) for s in videos)
        raise InputError(path, f"stream {wanted} is not a video stream", f"choose `video.stream` from {indices}")
    default = [s for s in videos if s.disposition & av.stream.Disposition.default]
    return _checked_codec((default or videos)[0], path)


def _checked_codec(stream: av.VideoStream, path: Path) -> av.VideoStream:
    if stream.codec_context is None:
        raise InputError(path, "its video codec is unknown to this FFmpeg", "convert it with the program that made it")
    return stream


def _is_cover(stream: av.VideoStream) -> bool:
    return bool(stream.disposition & av.stream.Disposition.attached_pic)


def _first_frame(container: av.container.InputContainer, stream: av.VideoStream, path: Path) -> av.VideoFrame:
    try:
        for packet in container.demux(stream):
            try:
                for frame in stream.codec_context.decode(packet if packet.size else None):
                    return frame
            except av.error.InvalidDataError:
                continue  # damage at the start: later packets may decode
            except EOFError:
                break
    except av.error.FFmpegError as error:
        raise InputError(path, f"cannot be read ({plain(error)})", "get the file again") from error
    raise InputError(path, "holds no frame that can be decoded", "get the file again, or check that it is not encrypted")


def _describe(
    path: Path,
    container: av.container.InputContainer,
    stream: av.VideoStream,
    first: av.VideoFrame,
    stated: Stated,
    seen: Survey,
) -> VideoInfo:
    context = stream.codec_context
    pix_fmt = first.format.name
    readable = readable_format(pix_fmt)
    layout = layout_of(readable) if readable else None
    if layout is None:
        raise InputError(path, f"its pixel format {pix_fmt} is not supported", "convert it to yuv420p or yuv444p16 first")
    height, width = first.height, first.width
    colour = seen.colours[0]
    crop = crop_of(stated.of_stream(stream.index).get("frame_cropping", ""), (height, width))
    height, width = height - crop[0] - crop[1], width - crop[2] - crop[3]
    matrices = {"yuv": {(2, 2): "420", (2, 1): "422", (1, 2): "440", (1, 1): "444"}[layout.across, layout.down]}
    chroma: Any = matrices.get(layout.kind, layout.kind)
    time_base = fraction(stream.time_base) or Fraction(1, 90000)
    others = [s for s in container.streams if s.index != stream.index and not _is_chapter_track(s, container)]
    return VideoInfo(
        path=path,
        format=container.format.name,
        stream=stream.index,
        codec=context.name,
        size=(height, width),
        pix_fmt=pix_fmt,
        bits=layout.bits,
        chroma=chroma,
        colour=colour,
        coding=coding_of(path, colour, layout.kind, pix_fmt, first.height, context.name),
        sample_aspect=fraction(stream.sample_aspect_ratio) or fraction(context.sample_aspect_ratio),
        rotation=int(first.rotation),
        time_base=time_base,
        rate=fraction(stream.average_rate) or fraction(stream.guessed_rate) or fraction(stream.base_rate) or Fraction(25),
        start_time=(stream.start_time or 0) * time_base,
        container_start=Fraction(container.start_time or 0, av.time_base),
        frames_estimate=stream.frames or None,
        duration_estimate=_duration(container, stream, time_base),
        hdr10=next(iter(seen.hdr10), None),
        streams=tuple(_stream_info(s) for s in others),
        chapters=tuple(_chapter(c) for c in container.chapters()),
        tags=tuple(container.metadata.items()),
        video_tags=tuple(stream.metadata.items()),
        crop=crop,
        matrix=seen.matrices[0],
        frame_timecode=timecode_of(side_data_of(first)),
        stated=stated,
        seen=seen,
    )


def _duration(container: av.container.InputContainer, stream: av.VideoStream, time_base: Fraction) -> Fraction | None:
    if stream.duration:
        return stream.duration * time_base
    return Fraction(container.duration, av.time_base) if container.duration else None


def default_matrix(height: int) -> int:
    """Return the matrix that players use if none is tagged: BT.709 from 720 lines up, BT.601 below."""
    return 1 if height >= _HD_LINES else 6


def coding_of(path: Path, colour: ColourTags, kind: str, pix_fmt: str, height: int, codec: str) -> Coding:
    unsaid_full = is_full_range_format(pix_fmt) and not (kind == "gray" and codec in _LIMITED_CODECS)
    full = colour.range == 2 or (colour.range == 0 and unsaid_full)
    matrix = colour.matrix
    # 0 is RGB and 3 reserved: for Y'CbCr both mean that it is not set.
    if kind != "yuv" or matrix in (0, UNSPECIFIED, 3):
        matrix = default_matrix(height)
    if matrix not in WEIGHTS:
        names = {8: "YCgCo", 10: "BT.2020 constant luminance", 11: "Y'D'zD'x", 14: "ICtCp"}
        raise InputError(
            path, f"its colour matrix ({names.get(matrix, matrix)}) is not supported", "convert it to BT.709 or BT.2020 NCL"
        )
    return Coding(matrix, full, "centre" if codec in _CENTRE_SITED else "left")


def coding_of_frame(info: VideoInfo, frame: av.VideoFrame) -> Coding:
    """Meaning of the code values of a frame: as it states itself; what it does not state is as in the first frame.

    Raises:
        InputError: if its matrix is not supported.
    """
    matrix, range_of = int(frame.colorspace), int(frame.color_range)
    colour = replace(
        info.colour,
        matrix=info.colour.matrix if matrix == UNSPECIFIED else matrix,
        range=range_of or info.colour.range,
    )
    return info.coding if colour == info.colour else coding_of_tags(info, colour)


def coding_of_tags(info: VideoInfo, colour: ColourTags) -> Coding:
    """Meaning of code values under other tags than those of the first frame.

    Raises:
        InputError: if the matrix is not supported.
    """
    kind = info.chroma if info.chroma in ("rgb", "gray") else "yuv"
    return coding_of(info.path, colour, kind, info.pix_fmt, info.coded_size[0], info.codec)


def _stream_info(stream: Any) -> StreamInfo:
    kind = "cover" if stream.type == "video" and _is_cover(stream) else stream.type
    if kind == "attachment":
        codec = stream.metadata.get("mimetype", "application/octet-stream")
        title = stream.metadata.get("filename", "")
    else:
        codec = stream.codec_context.name if stream.codec_context is not None else "unknown"
        title = stream.metadata.get("title", "")
    language = stream.metadata.get("language")
    tags = tuple(stream.metadata.items())
    return StreamInfo(stream.index, kind, codec, language, int(stream.disposition), title, "timecode" in stream.metadata, tags)


def _is_chapter_track(stream: Any, container: av.container.InputContainer) -> bool:
    """MP4 repeats its chapters as a text track, which is made from the chapters again and never copied."""
    if stream.type != "data" or "mov" not in container.format.name or not container.chapters():
        return False
    return "timecode" not in stream.metadata and "timecode" not in stream.metadata.get("handler_name", "").lower()


def _chapter(chapter: Any) -> Chapter:
    base = fraction(chapter["time_base"]) or Fraction(1)
    return Chapter(chapter["start"] * base, chapter["end"] * base, tuple(chapter["metadata"].items()))
