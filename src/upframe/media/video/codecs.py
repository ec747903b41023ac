"""Data about the encoders and containers of output videos, and the options of encoders."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import av

from upframe.media.names import codec_name, container_name
from upframe.media.video.colour import Layout
from upframe.media.video.frame_facts import Hdr10
from upframe.media.video.frames import layout_of, readable_format


def _crf(quality: int) -> dict[str, str]:
    return {"crf": str(quality)}


@dataclass(frozen=True)
class VideoCodec:
    """One way to compress pictures."""

    name: str
    label: str
    encoder: str
    """FFmpeg's name."""
    crf: int | None
    """Default quality; None for a codec without one."""
    max_crf: int
    preset: str | None
    """Default preset."""
    presets: tuple[str, ...]
    options: tuple[tuple[str, str], ...] = ()
    """Options that are always set. Thread counts are fixed: the bits of x264 and x265 depend on them, and a resumed job must
    give the same bits."""
    params_key: str | None = None
    """The option that takes the encoder library's own settings, joined by colons."""
    params: tuple[str, ...] = ()
    """Settings of the library that are always set."""
    holds_hdr: bool = False
    has_range: bool = True
    """Whether the stream can state full range."""
    quality_options: Callable[[int], dict[str, str]] = _crf
    """The encoder's options for a constant quality; lower is better."""
    formats: tuple[str, ...] = ()
    """Pixel formats that upframe uses; empty for all that the encoder takes."""


_X26X = ("ultrafast", "superfast", "veryfast", "faster", "fast", "medium", "slow", "slower", "veryslow", "placebo")

CODECS: dict[str, VideoCodec] = {
    # Macroblock tree off: with it, x264 (as shipped with PyAV 18) gave different bits from run to run for widths of an odd
    # number of macroblocks, one run in ten at 208x144 and one in seventeen at 720x480; without, never.
    "h264": VideoCodec(
        "h264", "H.264", "libx264", 18, 51, "medium", _X26X, (("threads", "4"),), "x264-params", ("mbtree=0",), holds_hdr=True
    ),
    "h265": VideoCodec(
        "h265", "H.265", "libx265", 19, 51, "medium", _X26X, (), "x265-params",
        ("log-level=none", "frame-threads=2", "pools=4", "open-gop=0"), holds_hdr=True,
    ),
    "av1": VideoCodec(
        "av1", "AV1", "libsvtav1", 24, 63, "7", tuple(str(n) for n in range(-1, 14)), (), "svtav1-params", ("lp=2",),
        holds_hdr=True,
    ),
    "ffv1": VideoCodec(
        "ffv1", "FFV1", "ffv1", None, 0, None, (),
        (("level", "3"), ("g", "1"), ("slices", "4"), ("slicecrc", "1"), ("threads", "4")),
    ),
    "prores": VideoCodec("prores", "ProRes", "prores_ks", None, 0, None, (), (("threads", "4"),), has_range=False),
}  # fmt: skip


@dataclass(frozen=True)
class Container:
    """A video file format, and the tracks that it can hold."""

    name: str
    label: str
    muxer: str
    codecs: tuple[str, ...]
    """Supported codecs. The first is the default if the input's codec cannot be kept."""
    text: str
    """FFmpeg's name of the encoder for text subtitles; "" if the container copies the formats that it supports."""
    text_kept: tuple[str, ...]
    """Text subtitle codecs that can be copied."""
    holds_bitmaps: bool
    """Bitmap subtitle codecs that can be copied."""
    holds_attachments: bool
    holds_covers: bool
    holds_chapters: bool
    has_free_tags: bool
    """Whether it keeps tags with any name."""
    sound: str
    """FFmpeg's encoder for sound that it cannot hold: without loss of the decoded samples, where there is such a codec."""
    tick: Fraction | None
    """Fixed clock of the container; None takes the video's."""


CONTAINERS: dict[str, Container] = {
    "mp4": Container("mp4", "MP4", "mp4", ("h264", "h265", "av1"), "mov_text", ("mov_text",),
                     False, False, True, True, False, "flac", None),
    "mov": Container("mov", "MOV", "mov", ("h264", "h265", "prores"), "mov_text", ("mov_text",),
                     False, False, False, True, False, "alac", None),
    "mkv": Container("mkv", "Matroska", "matroska", ("h264", "h265", "av1", "ffv1", "prores"), "subrip",
                     ("subrip", "srt", "ass", "ssa", "webvtt"), True, True, True, True, True, "flac", Fraction(1, 1000)),
    "webm": Container("webm", "WebM", "webm", ("av1",), "webvtt", ("webvtt",),
                      False, False, False, True, True, "libopus", Fraction(1, 1000)),
}  # fmt: skip


def codec_named(name: str) -> VideoCodec | None:
    """Find a codec by any of its common names, including FFmpeg's names of decoders."""
    return CODECS.get(codec_name(name) or "")


def container_named(name: str) -> Container | None:
    """Find a container by its name or extension, with or without a dot."""
    return CONTAINERS.get(container_name(name) or "")


PACKED = {"yuv420p": "nv12", "yuv420p10le": "p010le"}
"""Forms with the same samples in another order: encoders of graphics chips take only these of many formats."""


def taken_format(codec: VideoCodec, pix_fmt: str) -> str:
    """The form in which the encoder takes pictures of `pix_fmt`, one of `encodable_formats`."""
    names = [f.name for f in av.Codec(codec.encoder, "w").video_formats or ()]
    return pix_fmt if pix_fmt in names else PACKED[pix_fmt]


def encodable_formats(codec: VideoCodec) -> list[str]:
    """Pixel formats that the encoder takes and upframe can make."""
    names = [f.name for f in av.Codec(codec.encoder, "w").video_formats or ()]
    names += [planar for planar, packed in PACKED.items() if packed in names and planar not in names]
    if codec.formats:
        return [n for n in codec.formats if n in names]
    return [n for n in names if not n.startswith(("yuvj", "yuva", "gbra", "nv")) and format_layout(n) is not None]


def format_layout(pix_fmt: str) -> Layout | None:
    """Layout of the planes of a picture of `pix_fmt`; None for formats that upframe does not write."""
    if pix_fmt == "bgr0":  # FFV1's only 8-bit RGB
        return layout_of("gbrp")
    return layout_of(pix_fmt) if readable_format(pix_fmt) == pix_fmt else None


def closest_format(codec: VideoCodec, *, chroma: str, bits: int) -> str:
    """Choose the pixel format of `codec` that keeps most of a source: colour resolution first, then depth, then size."""
    resolution = {"gray": 0, "420": 1, "422": 2, "440": 2, "444": 3, "rgb": 4}
    subsampled = {(1, 1): "444", (2, 1): "422", (1, 2): "440", (2, 2): "420"}

    def losses(name: str) -> tuple[int, ...]:
        layout = format_layout(name)
        assert layout is not None
        kind = subsampled[layout.across, layout.down] if layout.kind == "yuv" else layout.kind
        have, want = resolution[kind], resolution[chroma]
        differs = 0 if kind == chroma else 1
        return (max(0, want - have), max(0, bits - layout.bits), differs, max(0, have - want), layout.bits, len(name))

    return min(encodable_formats(codec), key=losses)


def encoder_options(
    codec: VideoCodec, *, crf: int | None, preset: str | None, extra: Mapping[str, str], hdr10: Hdr10 | None
) -> dict[str, str]:
    """Collect all options of the encoder, the user's `extra` last."""
    options = dict(codec.options)
    if codec.crf is not None:
        options |= codec.quality_options(codec.crf if crf is None else crf)
    if codec.preset is not None:
        options["preset"] = preset or codec.preset
    params = list(codec.params)
    if hdr10 is not None and codec.holds_hdr:
        params += _hdr_params(codec, hdr10)
    extra = dict(extra)
    if codec.params_key is not None:
        params += [extra.pop(codec.params_key)] if codec.params_key in extra else []
        if params:
            options[codec.params_key] = ":".join(params)
    if codec.name == "prores":
        options["vendor"] = "apl0"  # expected by editing programs
    return options | extra


def _hdr_params(codec: VideoCodec, hdr10: Hdr10) -> list[str]:
    """Format HDR10 metadata in the syntax of x264, x265 (integers in the units of the SEI message) and SVT-AV1 (plain
    numbers)."""
    plain = codec.name == "av1"
    params = []
    if hdr10.primaries is not None:
        red, green, blue, white = hdr10.primaries
        low, high = hdr10.luminance or (Fraction(0), Fraction(0))

        def pair(value: tuple[Fraction, Fraction], scale: int) -> str:
            numbers = [f"{float(v):.6f}" if plain else str(round(v * scale)) for v in value]
            return f"({','.join(numbers)})"

        points = "".join(f"{k}{pair(v, 50000)}" for k, v in (("G", green), ("B", blue), ("R", red), ("WP", white)))
        name = "mastering-display" if codec.name != "h265" else "master-display"
        params.append(f"{name}={points}L{pair((high, low), 10000)}")
    if hdr10.light_level is not None:
        name = {"h264": "cll", "h265": "max-cll", "av1": "content-light"}[codec.name]
        params.append(f"{name}={hdr10.light_level[0]},{hdr10.light_level[1]}")
    return params


def open_encoder(
    stream: Any,
    *,
    size: tuple[int, int],
    pix_fmt: str,
    time_base: Fraction,
    tags: Any,
    sample_aspect: Fraction | None,
) -> None:
    """Set the picture properties of a new video stream, before the first picture is encoded."""
    context = stream.codec_context
    context.height, context.width = size
    context.pix_fmt = pix_fmt
    context.time_base = time_base
    stream.time_base = time_base
    tag_stream(stream, tags=tags, sample_aspect=sample_aspect)


def tag_stream(stream: Any, *, tags: Any, sample_aspect: Fraction | None) -> None:
    """Set colour and sample aspect of a stream; unspecified values stay unspecified."""
    context = stream.codec_context
    context.color_primaries = tags.primaries
    context.color_trc = tags.transfer
    context.colorspace = tags.matrix
    context.color_range = tags.range
    if sample_aspect is not None:
        context.sample_aspect_ratio = sample_aspect


def quiet_encoders() -> None:
    """Silence SVT-AV1, which writes to stderr unless its own variable forbids it."""
    os.environ.setdefault("SVT_LOG", "1")
