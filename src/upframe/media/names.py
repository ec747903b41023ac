"""Names for video options, as data: a door can check options before any codec is loaded."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Literal

Odd = Literal["pad", "crop", "444"]
Deinterlace = Literal["off", "auto", "bwdif", "yadif"]
OnBadFrame = Literal["repeat", "skip", "fail"]

ODD_POLICIES: tuple[Odd, ...] = ("pad", "crop", "444")
"""How to handle odd frame sizes if the pixel format needs even ones."""
DEINTERLACERS: tuple[Deinterlace, ...] = ("off", "auto", "bwdif", "yadif")
BAD_FRAME_POLICIES: tuple[OnBadFrame, ...] = ("repeat", "skip", "fail")
"""How to handle damaged frames."""

CODEC_NAMES = ("h264", "h265", "av1", "ffv1", "prores")
"""Codecs that upframe writes: the keys of `media.video.codecs.CODECS`."""
HARDWARE_NAMES = (
    *("h264_nvenc", "hevc_nvenc", "av1_nvenc", "h264_qsv", "hevc_qsv", "av1_qsv"),
    *("h264_amf", "hevc_amf", "av1_amf", "h264_videotoolbox", "hevc_videotoolbox"),
)
"""The same codecs by encoders of graphics chips: the keys of `media.video.hardware.HARDWARE`."""
CONTAINER_NAMES = ("mp4", "mov", "mkv", "webm")
"""Containers that upframe writes: the keys of `media.video.codecs.CONTAINERS`."""
MAX_CRF = 63
"""The largest constant quality that any codec takes."""
DEFAULT_RATE = Fraction(25)
"""Default frames per second of a folder of frames."""
MAX_RATE = 1000

VIDEO_SUFFIXES = frozenset((
    ".mp4", ".m4v", ".mov", ".qt", ".mkv", ".mk3d", ".webm", ".avi", ".ts", ".m2ts", ".mts", ".mpg", ".mpeg", ".vob", ".wmv",
    ".asf", ".flv", ".f4v", ".ogv", ".3gp", ".3g2", ".mxf", ".nut", ".y4m", ".h264", ".264", ".avc", ".h265", ".265", ".hevc",
    ".ivf", ".dv", ".obu", ".m2v", ".mpv", ".divx", ".rm", ".rmvb",
))  # fmt: skip
"""Extensions of video formats that upframe reads, in lower case."""

_CODEC_ALIASES = {
    "avc": "h264", "x264": "h264", "libx264": "h264", "h.264": "h264",
    "hevc": "h265", "x265": "h265", "libx265": "h265", "h.265": "h265",
    "libdav1d": "av1", "libsvtav1": "av1", "svt-av1": "av1", "libaom-av1": "av1", "prores_ks": "prores",
}  # fmt: skip

_CONTAINER_ALIASES = {"m4v": "mp4", "qt": "mov", "matroska": "mkv", "mk3d": "mkv"}


def is_video_name(path: str | Path) -> bool:
    """Whether the name has the extension of a video format."""
    return Path(path).suffix.lower() in VIDEO_SUFFIXES


def codec_name(name: str) -> str | None:
    """Find a codec that upframe writes by any of its common names, including FFmpeg's names of decoders; None for others."""
    lower = name.lower()
    found = _CODEC_ALIASES.get(lower, lower)
    return found if found in (*CODEC_NAMES, *HARDWARE_NAMES) else None


def bitstream_of(codec: str) -> str:
    """The codec of `CODEC_NAMES` that decodes what `codec`, perhaps of a graphics chip, makes."""
    return (codec_name(codec.partition("_")[0]) or codec) if codec in HARDWARE_NAMES else codec


def container_name(name: str) -> str | None:
    """Find a container that upframe writes by its name or extension, with or without a dot; None for others."""
    lower = name.lower().removeprefix(".")
    found = _CONTAINER_ALIASES.get(lower, lower)
    return found if found in CONTAINER_NAMES else None
