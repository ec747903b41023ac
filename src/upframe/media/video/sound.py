"""Ways for sound whose codec a container has no code for: by its RIFF tag, without loss as PCM, or converted."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from upframe.media.video.codecs import Container
from upframe.media.video.riff_sound import wave_header
from upframe.media.video.written import Carried

_PCM = {"u8": "pcm_u8", "s16": "pcm_s16le", "s32": "pcm_s24le", "flt": "pcm_f32le", "dbl": "pcm_f64le"}
"""FFmpeg's encoder for decoded PCM, which keeps every sample. Discs have 24 of 32 bits."""
_WIDE = ("pcm_s32le", "pcm_s32be", "pcm_u32le", "pcm_u32be")
_LOSSLESS = frozenset(("s16", "s32", "u8"))
"""Sample formats of PCM that FLAC and ALAC hold without loss."""
_OPUS_RATE = 48000
_OPUS_RATE_PER_CHANNEL = 96000  # bits per second: no difference is heard
_USUAL_LAYOUTS = {1: "mono", 2: "stereo", 3: "3.0", 4: "4.0", 5: "5.0", 6: "5.1", 7: "6.1", 8: "7.1"}


def sound_ways(index: int, template: Any, held: Container) -> Iterator[tuple[Carried, bool]]:
    """Yield ways to write a track that cannot be copied as it is, best first; each with whether it loses nothing."""
    if held.muxer == "matroska":
        wave = wave_header(template)
        if wave is not None:
            yield Carried(index, "audio", wave=wave), True
    context = template.codec_context
    is_pcm, form = context.name.startswith("pcm_"), context.format.name.removesuffix("p")
    if is_pcm and held.muxer != "webm":
        yield Carried(index, "audio", "pcm_s32le" if context.name in _WIDE else _PCM[form]), True
    is_whole = is_pcm and form in _LOSSLESS and context.name not in _WIDE
    yield Carried(index, "audio", held.sound), is_whole and held.sound != "libopus"


def sound_stream(out: Any, template: Any, encoder: str) -> Any:
    """Add a stream for sound that is encoded again."""
    context = template.codec_context
    stream = out.add_stream(encoder, rate=_OPUS_RATE if encoder == "libopus" else context.rate)
    layout = context.layout
    is_named = not layout.name.endswith(" channels")  # AVI and WMV state a number alone
    stream.codec_context.layout = layout.name if is_named else _USUAL_LAYOUTS.get(layout.nb_channels, layout.name)
    deep = context.format.bytes > 2
    form = {"flac": "s32" if deep else "s16", "alac": "s32p" if deep else "s16p", "libopus": "flt"}.get(encoder)
    if form is not None:
        stream.codec_context.format = form
    if encoder == "libopus":
        stream.codec_context.bit_rate = _OPUS_RATE_PER_CHANNEL * layout.nb_channels
    return stream
