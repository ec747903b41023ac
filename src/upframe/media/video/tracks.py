"""Routes from the tracks of the source to those of the output: copied packet by packet, or converted."""

from __future__ import annotations

import hashlib
import logging
from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import av
import av.error
from av.subtitles.subtitle import SubtitleSet

from upframe.media.video.frames import fraction
from upframe.media.video.info import plain
from upframe.media.video.sink import exact_ticks
from upframe.media.video.written import Carried

_LOG = logging.getLogger(__name__)

_MILLISECOND = Fraction(1, 1000)


@dataclass(frozen=True)
class Span:
    """The part of the source's time that is copied, and its shift."""

    start: Fraction | None
    """Tracks are copied from this time of the source on; None copies all."""
    end: Fraction | None
    shift_ticks: int
    """Shift of video timestamps in ticks."""
    shift: Fraction
    """The same in seconds."""

    def takes(self, time: Fraction) -> bool:
        return (self.start is None or time >= self.start) and (self.end is None or time < self.end)


@dataclass
class ExpectedTrack:
    """A track of the output beside the video."""

    kind: str
    codec: str
    """FFmpeg's decoder."""
    times: array[float] = field(default_factory=lambda: array("d"))
    """Seconds of each packet: where the time of the source puts it beside the pictures."""
    longest: Fraction = Fraction(0)
    """Duration of the longest packet in seconds: the tolerance of its times."""
    sha256: str | None = None
    """Digest of all payloads in order; None for converted text."""


class Route:
    """Copies a track of the source."""

    def __init__(self, track: Carried, stream: Any, template: Any, span: Span, codec: str) -> None:
        self.track, self.stream, self.template, self.span = track, stream, template, span
        self.expected = ExpectedTrack(track.kind, codec)
        self.refused = 0
        """Packets that could not be copied."""
        self.moved = 0
        """Packets whose times ran back, so that they had to be moved apart."""
        self._digest = hashlib.sha256()
        self._waiting: list[Any] = []
        self._due: int | None = None
        self._last_dts: int | None = None

    def take(self, packet: Any) -> Iterator[tuple[float, Any]]:
        """Yield the packets of the output for a packet of the source, each with its decoding time in seconds."""
        for timed in self._with_times(packet):
            base = fraction(timed.time_base) or _MILLISECOND
            if not self.span.takes(timed.pts * base):
                continue
            ticks = exact_ticks(self.span.shift, base)
            timed.pts += ticks
            timed.dts += ticks
            yield from self._made(timed, base)

    def rest(self) -> Iterator[tuple[float, Any]]:
        """Yield the packets that are left at the end of the source."""
        self.refused += len(self._waiting)  # no packet of the track has a time
        yield from ()

    def mux(self, out: Any, packet: Any) -> None:
        """Write a packet; one that is too damaged for the container is skipped and counted."""
        wanted_s = float(packet.pts * (fraction(packet.time_base) or _MILLISECOND))
        duration = (packet.duration or 0) * (fraction(packet.time_base) or _MILLISECOND)
        try:
            out.mux_one(packet)
        except (av.error.InvalidDataError, av.error.ArgumentError, av.error.PatchWelcomeError) as error:
            _LOG.warning("%s track %d: a damaged packet is skipped (%s)", self.track.kind, self.track.index, plain(error))
            self.refused += 1
            return
        if packet.size == 0:
            return
        self.expected.times.append(wanted_s)
        self.expected.longest = max(self.expected.longest, duration)
        self._digest.update(payload(packet, self.expected.codec))

    def finish(self) -> ExpectedTrack:
        self.expected.sha256 = self._digest.hexdigest()
        return self.expected

    def _with_times(self, packet: Any) -> Iterator[Any]:
        """Give packets without a time one: after the packet before them, or, at the beginning, back from the first time."""
        stamp = packet.pts if packet.pts is not None else packet.dts
        if stamp is None and self._due is None:
            self._waiting.append(packet)
            return
        packet.pts = stamp if stamp is not None else self._due
        packet.dts = packet.pts if packet.dts is None else packet.dts
        self._due = packet.pts + (packet.duration or 0)
        ahead = sum(waiting.duration or 0 for waiting in self._waiting)
        for waiting in self._waiting:
            waiting.pts = waiting.dts = packet.dts - ahead
            ahead -= waiting.duration or 0
            yield waiting
        self._waiting.clear()
        yield packet

    def _made(self, packet: Any, base: Fraction) -> Iterator[tuple[float, Any]]:
        if self._last_dts is not None and packet.dts <= self._last_dts:
            packet.dts = self._last_dts + 1  # no container accepts times that run back
            self.moved += packet.pts < packet.dts
        packet.pts = max(packet.pts, packet.dts)
        self._last_dts = packet.dts
        packet.stream = self.stream
        yield float(packet.dts * base), packet


class TextRoute(Route):
    """Converts text subtitles to the output's format."""

    def _made(self, packet: Any, base: Fraction) -> Iterator[tuple[float, Any]]:
        text = self.template.codec_context.decode2(packet)
        lines = [bytes(rect.ass) for rect in text or () if getattr(rect, "ass", None)]
        if not lines:
            return
        milliseconds = exact_ticks((packet.duration or 0) * base, _MILLISECOND)
        start = exact_ticks(packet.pts * base, _MILLISECOND)
        made = self.stream.codec_context.encode_subtitle(SubtitleSet.create(b"\\N".join(lines), 0, milliseconds))
        made.pts = made.dts = start
        made.duration = milliseconds
        made.time_base = _MILLISECOND
        made.stream = self.stream
        yield start / 1000, made

    def finish(self) -> ExpectedTrack:
        return self.expected  # containers add empty packets, so bytes cannot be compared


class SoundRoute(Route):
    """Decodes sound and encodes it in a codec that the output holds."""

    _end = Fraction(0)
    """End of the last frame in seconds."""
    _base = Fraction(1, 90000)
    """Time base of the last frame."""
    _after = 0
    """End of the last packet in ticks of the encoder."""

    def _made(self, packet: Any, base: Fraction) -> Iterator[tuple[float, Any]]:
        yield from self._decoded(packet)

    def rest(self) -> Iterator[tuple[float, Any]]:
        yield from super().rest()
        yield from self._decoded(None)
        yield from self._encoded(None)

    def _decoded(self, packet: Any) -> Iterator[tuple[float, Any]]:
        try:
            frames = self.template.codec_context.decode(packet)
        except av.error.FFmpegError as error:
            _LOG.warning("audio track %d: a damaged packet is skipped (%s)", self.track.index, plain(error))
            self.refused += 1
            return
        for frame in frames:
            yield from self._encoded(frame)

    def _encoded(self, frame: Any) -> Iterator[tuple[float, Any]]:
        if frame is not None:
            if frame.pts is None:  # what a decoder holds back to the end has no time of its own
                frame.pts, frame.time_base = round(self._end / self._base), self._base
            self._base = fraction(frame.time_base) or self._base
            self._end = frame.pts * self._base + Fraction(frame.samples, frame.sample_rate)
        for packet in self.stream.encode(frame):
            if packet.dts is None:  # FLAC's last packet, which only completes the header
                packet.pts = packet.dts = self._after
            self._after = packet.dts + (packet.duration or 0)
            packet.stream = self.stream
            yield float(packet.dts * (fraction(packet.time_base) or _MILLISECOND)), packet


class CoverRoute(Route):
    """Copies a picture that is a packet of its own, as in MP4."""

    def take(self, packet: Any) -> Iterator[tuple[float, Any]]:
        packet.pts = packet.dts = 0
        packet.stream = self.stream
        yield 0.0, packet


def route_of(track: Carried, stream: Any, template: Any, span: Span, codec: str) -> Route:
    """The route of a track.

    Args:
        stream: Of the output.
        template: Stream of the source.
        codec: FFmpeg's decoder of the output's stream.
    """
    kind = CoverRoute if track.kind == "cover" else Route
    if track.convert is not None:
        kind = TextRoute if track.kind == "subtitle" else SoundRoute
    return kind(track, stream, template, span, codec)


def payload(packet: Any, codec: str) -> bytes:
    """Payload of a packet, without the ADTS header of AAC in transport streams, which other containers do not have."""
    data = bytes(packet)
    # ISO/IEC 13818-7, 6.2: 12 bits of sync; with the checksum flag the header has 9 bytes instead of 7
    if codec in ("aac", "aac_fixed") and len(data) > 9 and data[0] == 0xFF and data[1] & 0xF6 == 0xF0:
        return data[7 if data[1] & 1 else 9 :]
    return data
