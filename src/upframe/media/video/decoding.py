"""Decode the pictures of a stream, damaged ones too, with their times on the time line of the file."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import av
import av.error

from upframe.media.video.clock import Clock, ClockFinder, demuxed
from upframe.media.video.survey import Surveyor


class Picture(NamedTuple):
    """One decoded picture."""

    frame: av.VideoFrame
    is_bad: bool
    """Whether the decoder concealed damaged data."""


class Decoding:
    """Decodes the pictures of one stream in display order, every packet in its own `try`.

    A damaged packet ends FFmpeg's own loops; this class counts it and decodes the next one.

    Args:
        threads: Number of threads; 0 takes one per processor.
        clock: Moves the packets to the time line; None leaves the file's time.
        finder: Sees the packets of all its tracks.
    """

    def __init__(
        self,
        container: av.container.InputContainer,
        stream: av.VideoStream,
        *,
        threads: int,
        clock: Clock | None = None,
        finder: ClockFinder | None = None,
        surveyor: Surveyor | None = None,
    ) -> None:
        self.container, self.stream, self._surveyor = container, stream, surveyor
        self._clock, self._finder = clock or Clock(), finder
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
        watched = [self.stream.index] if self._finder is None else self._finder.tracks
        try:
            for packet in demuxed(self.container, [self.container.streams[index] for index in watched], self._clock):
                if self._finder is not None:
                    self._finder.see(packet.stream_index, packet.pts, packet.dts, packet.duration)
                if packet.stream_index == self.stream.index:
                    yield packet
        except av.error.FFmpegError as error:
            self.ended_by = (error.strerror or str(error)).lower()
        yield None
