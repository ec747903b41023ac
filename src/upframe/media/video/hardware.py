"""Encoders of graphics chips, as codecs: NVIDIA's NVENC, Intel's Quick Sync, AMD's AMF and Apple's VideoToolbox.

They are faster than software and make larger files of the same quality. Their bits depend on chip and driver, so they are
chosen by name only.
"""

from __future__ import annotations

from collections.abc import Callable

import av

from upframe.errors import ResourceError
from upframe.media.names import HARDWARE_NAMES, bitstream_of, codec_name
from upframe.media.video.codecs import CODECS, VideoCodec

_LABELS = {"h264": "H.264", "hevc": "H.265", "av1": "AV1"}
_QP_TO_LAMBDA = 118  # FFmpeg's unit of `global_quality` with `qscale`


def _nvenc(quality: int) -> dict[str, str]:
    return {"rc": "vbr", "cq": str(quality), "b": "0"}  # without a bit rate, which would limit the quality


def _qsv(quality: int) -> dict[str, str]:
    return {"global_quality": str(quality)}


def _amf(quality: int) -> dict[str, str]:
    return {"rc": "cqp", "qp_i": str(quality), "qp_p": str(quality)}


def _av1_amf(quality: int) -> dict[str, str]:
    """AMF counts the quantisers of AV1 up to 255; --crf, as for software, up to 63."""
    return _amf(4 * quality)


def _videotoolbox(quality: int) -> dict[str, str]:
    """VideoToolbox counts from 1 for the worst to 100 for the best; --crf from 0 for the best to 63."""
    return {"flags": "+qscale", "global_quality": str((100 - round(quality * 99 / 63)) * _QP_TO_LAMBDA)}


Maker = tuple[str, Callable[[int], dict[str, str]], dict[str, int], int, str | None, tuple[str, ...]]

_MAKERS: dict[str, Maker] = {
    # Name, options of a quality, default quality by codec, largest value, default preset, presets.
    "nvenc": ("NVENC", _nvenc, {"h264": 19, "hevc": 21, "av1": 26}, 51, "p5", tuple(f"p{n}" for n in range(1, 8))),
    "qsv": ("Quick Sync", _qsv, {"h264": 20, "hevc": 21, "av1": 24}, 51, "slow",
            ("veryfast", "faster", "fast", "medium", "slow", "slower", "veryslow")),
    "amf": ("AMF", _amf, {"h264": 20, "hevc": 22, "av1": 20}, 51, "quality", ("speed", "balanced", "quality")),
    "videotoolbox": ("VideoToolbox", _videotoolbox, {"h264": 19, "hevc": 22}, 63, None, ()),
}  # fmt: skip


def _codec(name: str) -> VideoCodec:
    coding, _, maker = name.partition("_")
    label, options, qualities, largest, preset, presets = _MAKERS[maker]
    if name == "av1_amf":
        options, largest = _av1_amf, 63
    return VideoCodec(
        *(name, f"{_LABELS[coding]} by {label}", name, qualities[coding], largest, preset, presets),
        quality_options=options,
        formats=("yuv420p",) if coding == "h264" else ("yuv420p", "yuv420p10le"),  # what the chips themselves encode
    )


HARDWARE: dict[str, VideoCodec] = {name: _codec(name) for name in HARDWARE_NAMES}

ENCODERS: dict[str, VideoCodec] = CODECS | HARDWARE
"""Every codec that can be named."""


def encoder_named(name: str) -> VideoCodec | None:
    """Find a codec of `ENCODERS` by any of its common names.

    Raises:
        ResourceError: if FFmpeg was built without the encoder, as others than Apple's are without VideoToolbox.
    """
    found = ENCODERS.get(codec_name(name) or "")
    if found is not None and found.name in HARDWARE and found.encoder not in av.codecs_available:
        raise no_chip(found, "this build of FFmpeg does not have it")
    return found


def no_chip(codec: VideoCodec, happened: str) -> ResourceError:
    """Make the error for an encoder that is not there or does not open."""
    return ResourceError(
        f"`video.codec='{codec.name}'`", happened, f"check its driver, or use `video.codec='{bitstream_of(codec.name)}'`"
    )
