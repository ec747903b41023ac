"""Clips made by code, with PyAV alone: the tests compare what upframe makes of them with what PyAV tells of them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

TICK = Fraction(1, 90000)
VFR_PTS = [0, 3003, 6006, 7500, 12012, 12013, 30030, 33033, 36036, 39039, 60060, 63063]
"""Times of a phone: irregular, one frame a single tick long."""


@dataclass(frozen=True)
class Sound:
    codec: str = "aac"
    offset: Fraction = Fraction(0)
    seconds: Fraction = Fraction(1)
    language: str = "eng"
    seed: int = 0
    title: str = ""


@dataclass(frozen=True)
class Clip:
    """Content of the clip that `make_clip` makes."""

    pts: Sequence[int] = field(default_factory=lambda: [3600 * i for i in range(12)])
    size: tuple[int, int] = (48, 64)
    codec: str = "libx264"
    pix_fmt: str = "yuv420p"
    options: dict[str, str] = field(default_factory=dict)
    rate: int = 25
    clock: Fraction = TICK
    """Seconds per unit of `pts`."""
    tags: tuple[int, int, int, int] | None = None
    """Primaries, transfer, matrix, range."""
    sample_aspect: Fraction | None = None
    rotation: int = 0
    sounds: Sequence[Sound] = ()
    subtitles: Sequence[tuple[int, int, str]] = ()
    """Start and duration in milliseconds, and text."""
    chapters: Sequence[tuple[int, int, str]] = ()
    """Start and end in milliseconds, and title."""
    attachment: bytes | None = None
    metadata: dict[str, str] = field(default_factory=dict)
    video_metadata: dict[str, str] = field(default_factory=dict)
    matrix: Sequence[int] | None = None
    """Display matrix, in FFmpeg's nine integers."""
    cover: bool = False


def picture(number: int, size: tuple[int, int], pix_fmt: str) -> av.VideoFrame:
    """A smooth picture that differs from frame to frame."""
    height, width = size
    y, x = np.mgrid[0:height, 0:width]
    rgb = np.stack([128 + 90 * np.sin((x * (k + 1) + y * 2) / 25 + number / 3 + k) for k in range(3)], -1)
    rgb[:6, :6] = number * 17 % 256
    return av.VideoFrame.from_ndarray(rgb.astype(np.uint8), format="rgb24").reformat(format=pix_fmt)


def make_clip(path: Path, clip: Clip | None = None, **muxer: str) -> Path:
    """Write `clip`; the container follows the extension, with `muxer` options."""
    clip = clip or Clip()
    packets: list[Any] = []
    with av.open(str(path), "w", options=muxer) as out:
        out.metadata.update(clip.metadata)
        video = _add_video(out, clip)
        if clip.chapters:
            out.set_chapters([
                {"id": i + 1, "start": s, "end": e, "time_base": Fraction(1, 1000), "metadata": {"title": t}}
                for i, (s, e, t) in enumerate(clip.chapters)
            ])  # fmt: skip
        if clip.attachment is not None:
            out.add_attachment("font.ttf", "application/x-truetype-font", clip.attachment)
        sounds = [_add_sound(out, sound) for sound in clip.sounds]
        subtitles = _add_subtitles(out) if clip.subtitles else None
        for number, pts in enumerate(clip.pts):
            frame = picture(number, clip.size, clip.pix_fmt)
            frame.pts, frame.time_base = pts, clip.clock
            if clip.tags:
                frame.color_primaries, frame.color_trc, frame.colorspace, frame.color_range = clip.tags
            packets += video.encode(frame)
        packets += video.encode(None)
        for stream, sound in zip(sounds, clip.sounds, strict=True):
            packets += _sound_packets(stream, sound)
        for start, duration, text in clip.subtitles:
            packet = av.Packet(text.encode())
            packet.stream, packet.time_base = subtitles, Fraction(1, 1000)
            packet.pts = packet.dts = start
            packet.duration = duration
            packets.append(packet)
        for packet in sorted(packets, key=lambda p: p.dts * p.time_base):
            out.mux(packet)
    return path


def _add_video(out: Any, clip: Clip) -> Any:
    options = {"threads": "1", **clip.options}
    if clip.codec == "libx264":  # its macroblock tree gives different bits from run to run
        options["x264-params"] = ":".join(filter(None, (options.get("x264-params"), "mbtree=0")))
    video = out.add_stream(clip.codec, rate=clip.rate, options=options)
    video.height, video.width, video.pix_fmt = *clip.size, clip.pix_fmt
    video.time_base = video.codec_context.time_base = clip.clock
    if clip.tags:
        context = video.codec_context
        context.color_primaries, context.color_trc, context.colorspace, context.color_range = clip.tags
    if clip.sample_aspect:
        video.codec_context.sample_aspect_ratio = clip.sample_aspect
    if clip.rotation:
        video.set_display_rotation(clip.rotation)
    if clip.matrix:
        video.set_display_matrix(clip.matrix)
    video.metadata.update(clip.video_metadata)
    return video


def _add_sound(out: Any, sound: Sound) -> Any:
    stream = out.add_stream(sound.codec, rate=48000)
    stream.metadata["language"] = sound.language
    if sound.title:
        stream.metadata["title"] = sound.title
    return stream


def _sound_packets(stream: Any, sound: Sound) -> list[Any]:
    rng = np.random.default_rng(sound.seed)
    packets, at, total = [], round(sound.offset * 48000), round(sound.seconds * 48000)
    format = {"aac": "fltp", "flac": "s16", "pcm_s16le": "s16", "libopus": "s16", "mp2": "s16"}[sound.codec]
    if sound.codec == "libopus":
        stream.codec_context.format = "s16"
    size = 960 if sound.codec == "libopus" else 1152 if sound.codec == "mp2" else 1024
    for start in range(0, total, size):
        wave = np.sin(np.arange(start, start + size) / 30) / 3 + rng.normal(0, 0.01, size)
        if format == "fltp":
            frame = av.AudioFrame.from_ndarray(np.stack([wave, wave]).astype(np.float32), "fltp", "stereo")
        else:
            frame = av.AudioFrame.from_ndarray((np.repeat(wave, 2)[None] * 32000).astype(np.int16), "s16", "stereo")
        frame.sample_rate, frame.pts, frame.time_base = 48000, at + start, Fraction(1, 48000)
        packets += stream.encode(frame)
    return packets + stream.encode(None)


def _add_subtitles(out: Any) -> Any:
    stream = out.add_stream("srt")
    stream.codec_context.subtitle_header = b"[Script Info]\n[V4+ Styles]\n[Events]\n"
    stream.codec_context.time_base = stream.time_base = Fraction(1, 1000)
    return stream


def shown_times(path: Path) -> list[Fraction]:
    """Times of all frames as PyAV decodes them."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        return [frame.pts * frame.time_base for frame in container.decode(stream)]


def sound_payloads(path: Path) -> list[tuple[int, str]]:
    """Number and hash of the packets of each audio track."""
    found = []
    with av.open(str(path)) as container:
        count = len(container.streams.audio)
    for track in range(count):
        with av.open(str(path)) as container:
            packets = [bytes(p) for p in container.demux(audio=track) if p.size]
        found.append((len(packets), hashlib.sha256(b"".join(packets)).hexdigest()))
    return found


def sound_starts(path: Path) -> list[Fraction]:
    """When the first packet of each audio track is heard."""
    starts = []
    with av.open(str(path)) as container:
        count = len(container.streams.audio)
    for track in range(count):
        with av.open(str(path)) as container:
            packet = next(p for p in container.demux(audio=track) if p.size)
            starts.append(packet.pts * packet.time_base)
    return starts


def damage(path: Path, packet_number: int) -> Path:
    """Overwrite most of one video packet with noise; the first bytes too, so that it cannot be taken for a picture."""
    with av.open(str(path)) as container:
        packets = [p for p in container.demux(video=0) if p.size]
        where, size = packets[packet_number].pos, packets[packet_number].size
    data = bytearray(path.read_bytes())
    data[where + 1 : where + size] = bytes([255]) * (size - 1)
    path.write_bytes(bytes(data))
    return path
