"""`probe_video` reads the headers of a video file and decodes only one frame."""

from __future__ import annotations

import contextlib
import struct
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

import av
import av.error
import av.logging

from upframe.errors import InputError, Notice
from upframe.media.image.opening import open_regular
from upframe.media.video.colour import WEIGHTS, Coding
from upframe.media.video.frames import (
    fraction,
    has_alpha,
    is_full_range_format,
    layout_of,
    readable_format,
)

UNSPECIFIED = 2  # H.273: primaries, transfer and matrix
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


@dataclass(frozen=True)
class ColourTags:
    """Colour as stated by the stream, in numbers of H.273; 2 is unspecified and stays unspecified."""

    primaries: int = UNSPECIFIED
    transfer: int = UNSPECIFIED
    matrix: int = UNSPECIFIED
    range: int = 0
    """0 unspecified, 1 limited, 2 full."""


@dataclass(frozen=True)
class Hdr10:
    """Static HDR metadata (SMPTE ST 2086 and CTA-861.3); each part is None if absent."""

    primaries: tuple[tuple[Fraction, Fraction], ...] | None = None
    """CIE x, y of the mastering display's red, green, blue and white."""
    luminance: tuple[Fraction, Fraction] | None = None
    """Lowest and highest luminance of the mastering display, cd/m²."""
    light_level: tuple[int, int] | None = None
    """MaxCLL and MaxFALL, cd/m²."""


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
    """(height, width) of the coded picture, before rotation and sample aspect ratio."""
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
    """Degrees by which players turn the picture counter-clockwise; copied, not applied."""
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
    is_interlaced: bool
    hdr10: Hdr10 | None
    has_dolby_vision: bool
    has_timecode: bool
    streams: tuple[StreamInfo, ...]
    """All other tracks."""
    chapters: tuple[Chapter, ...]
    tags: tuple[tuple[str, str], ...]
    """Tags of the container."""
    video_tags: tuple[tuple[str, str], ...]
    """Tags of the video stream."""
    notices: tuple[Notice, ...] = ()

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


_LOGGING = threading.Lock()


def _reason(path: Path, error: Exception) -> str:
    """FFmpeg's reason why a file cannot be opened: its log says more than its error codes.

    The file is opened a second time to capture the log. The log is not captured at other times: its callback takes Python's
    lock in decoder threads.
    """
    with _LOGGING:
        level, skips = av.logging.get_level(), av.logging.get_skip_repeated()
        av.logging.set_level(av.logging.ERROR)
        av.logging.set_skip_repeated(False)  # the reason may be that of the file before
        try:
            with av.logging.Capture(local=False) as logs, contextlib.suppress(av.error.FFmpegError, ValueError, OSError):
                _open(path).close()
        finally:
            av.logging.set_level(level)
            av.logging.set_skip_repeated(skips)
    texts = [text.strip() for _, _, text in logs if text.strip()]
    return texts[-1] if texts else plain(error)


def plain(error: Exception) -> str:
    """Describe an error of FFmpeg."""
    return (getattr(error, "strerror", None) or str(error)).lower()


def probe_video(path: str | Path, *, stream: int | None = None) -> VideoInfo:
    """Read the headers of a video file.

    Args:
        stream: Index of the video stream in the file; None takes the stream marked as default, else the first.

    Raises:
        InputError: if it has no video, is encrypted, is damaged at its start, or has an unsupported format.
    """
    path = Path(path)
    with open_video(path) as container:
        if container.format.name.endswith("_pipe") or container.format.name in _IMAGE_FORMATS:
            raise InputError(path, f"is an image ({container.format.long_name}), not a video", "rename it to its actual format")
        chosen = choose_stream(container, path, stream)
        first = _first_frame(container, chosen, path)
        return _describe(path, container, chosen, first)


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


def _describe(path: Path, container: av.container.InputContainer, stream: av.VideoStream, first: av.VideoFrame) -> VideoInfo:
    context = stream.codec_context
    pix_fmt = first.format.name
    readable = readable_format(pix_fmt)
    layout = layout_of(readable) if readable else None
    if layout is None:
        raise InputError(path, f"its pixel format {pix_fmt} is not supported", "convert it to yuv420p or yuv444p16 first")
    height, width = first.height, first.width
    colour = _colour_tags(context, first)
    side = _side_data(first)
    notices: list[Notice] = []
    if has_alpha(pix_fmt):
        notices.append(Notice("alpha-dropped", str(path), f"its transparency ({pix_fmt}) is dropped"))
    interlaced = bool(first.interlaced_frame)
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
        coding=_coding(path, colour, layout.kind, pix_fmt, height, context.name),
        sample_aspect=fraction(stream.sample_aspect_ratio) or fraction(context.sample_aspect_ratio),
        rotation=int(first.rotation),
        time_base=time_base,
        rate=fraction(stream.average_rate) or fraction(stream.guessed_rate) or fraction(stream.base_rate) or Fraction(25),
        start_time=(stream.start_time or 0) * time_base,
        container_start=Fraction(container.start_time or 0, av.time_base),
        frames_estimate=stream.frames or None,
        duration_estimate=_duration(container, stream, time_base),
        is_interlaced=interlaced,
        hdr10=_hdr10(side),
        has_dolby_vision=bool({"DOVI_RPU_BUFFER", "DOVI_METADATA"} & set(side)),
        has_timecode="timecode" in stream.metadata,
        streams=tuple(_stream_info(s) for s in others),
        chapters=tuple(_chapter(c) for c in container.chapters()),
        tags=tuple(container.metadata.items()),
        video_tags=tuple(stream.metadata.items()),
        notices=tuple(notices),
    )


def _duration(container: av.container.InputContainer, stream: av.VideoStream, time_base: Fraction) -> Fraction | None:
    if stream.duration:
        return stream.duration * time_base
    return Fraction(container.duration, av.time_base) if container.duration else None


def _colour_tags(context: Any, first: av.VideoFrame) -> ColourTags:
    """Colour of the first frame; of the stream if the frame does not state it."""

    def tag(of_frame: Any, of_stream: Any, unknown: int) -> int:
        return next((int(v) for v in (of_frame, of_stream) if int(v) != unknown), unknown)

    return ColourTags(
        primaries=tag(first.color_primaries, context.color_primaries, UNSPECIFIED),
        transfer=tag(first.color_trc, context.color_trc, UNSPECIFIED),
        matrix=tag(first.colorspace, context.colorspace, UNSPECIFIED),
        range=tag(first.color_range, context.color_range, 0),
    )


def default_matrix(height: int) -> int:
    """Return the matrix that players use if none is tagged: BT.709 from 720 lines up, BT.601 below."""
    return 1 if height >= _HD_LINES else 6


def _coding(path: Path, colour: ColourTags, kind: str, pix_fmt: str, height: int, codec: str) -> Coding:
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


def _side_data(frame: av.VideoFrame) -> dict[str, bytes]:
    """Find side data of a frame by name. PyAV 18 iterates over the data, 19 over the keys: indexing works in both."""
    found: dict[str, bytes] = {}
    for name in ("MASTERING_DISPLAY_METADATA", "CONTENT_LIGHT_LEVEL", "DOVI_RPU_BUFFER", "DOVI_METADATA"):
        data: Any = frame.side_data.get(name)
        if data is not None:
            found[name] = bytes(data)
    return found


def _hdr10(side: dict[str, bytes]) -> Hdr10 | None:
    """Read ST 2086 and CTA-861.3 from FFmpeg's structures, AVMasteringDisplayMetadata and AVContentLightMetadata."""
    primaries = luminance = level = None
    raw = side.get("MASTERING_DISPLAY_METADATA")
    if raw is not None and len(raw) >= 88:
        numbers = struct.unpack_from("22i", raw)
        pairs = [Fraction(numbers[i], numbers[i + 1]) if numbers[i + 1] else Fraction(0) for i in range(0, 20, 2)]
        has_primaries, has_luminance = numbers[20:22]
        if has_primaries:
            primaries = tuple((pairs[i], pairs[i + 1]) for i in range(0, 8, 2))
        if has_luminance:
            luminance = (pairs[8], pairs[9])
    raw = side.get("CONTENT_LIGHT_LEVEL")
    if raw is not None and len(raw) >= 8:
        cll, fall = struct.unpack_from("2I", raw)
        level = (cll, fall)
    return Hdr10(primaries, luminance, level) if primaries or luminance or level else None


def _stream_info(stream: Any) -> StreamInfo:
    kind = "cover" if stream.type == "video" and _is_cover(stream) else stream.type
    if kind == "attachment":
        codec = stream.metadata.get("mimetype", "application/octet-stream")
        title = stream.metadata.get("filename", "")
    else:
        codec = stream.codec_context.name if stream.codec_context is not None else "unknown"
        title = stream.metadata.get("title", "")
    language = stream.metadata.get("language")
    return StreamInfo(stream.index, kind, codec, language, int(stream.disposition), title)


def _is_chapter_track(stream: Any, container: av.container.InputContainer) -> bool:
    """MP4 repeats its chapters as a text track, which is made from the chapters again and never copied."""
    if stream.type != "data" or "mov" not in container.format.name or not container.chapters():
        return False
    return "timecode" not in stream.metadata and "timecode" not in stream.metadata.get("handler_name", "").lower()


def _chapter(chapter: Any) -> Chapter:
    base = fraction(chapter["time_base"]) or Fraction(1)
    return Chapter(chapter["start"] * base, chapter["end"] * base, tuple(chapter["metadata"].items()))
