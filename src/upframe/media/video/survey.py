"""A survey of a video stream: every kind of data beside the pictures that its packets and frames hold, over all of them."""

from __future__ import annotations

import contextlib
import itertools
import time
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import av
import av.error

from upframe.media.video.frame_facts import (
    UNSPECIFIED,
    ColourTags,
    Hdr10,
    Matrix,
    colour_tags,
    hdr10_of,
    matrix_of,
    side_data_kind,
    side_data_of,
)
from upframe.media.video.frames import fraction
from upframe.media.video.stated import UNKNOWN

_PACKETS_PER_PLACE = 600  # without a keyframe among them, the place is skipped
_LOOK_S = 2.0
_RUNNING = ("GOP_TIMECODE",)


@dataclass(frozen=True)
class Survey:
    """Findings over the frames that were looked at."""

    interlaced: int = 0
    """Number of frames that are marked as interlaced."""
    colours: tuple[ColourTags, ...] = ()
    """All that frames state, in the order of their first frames."""
    hdr10: tuple[Hdr10, ...] = ()
    matrices: tuple[Matrix | None, ...] = ()
    """Display matrices; None is a frame without one."""
    frame_data: tuple[str, ...] = ()
    """Kinds of side data of frames (`side_data_kind`), sorted."""
    packet_data: tuple[str, ...] = ()
    """Kinds of side data of packets, sorted: names of PyAV's `PktSideDataT`."""


UNSEEN = Survey()
"""The survey of no frame."""


class Surveyor:
    """Collects a `Survey`. Cost: microseconds per frame."""

    def __init__(self) -> None:
        self._interlaced = 0
        self._colours: dict[ColourTags, None] = {}
        self._hdr10: dict[Hdr10, None] = {}
        self._matrices: dict[Matrix | None, None] = {}
        self._frame_data: dict[str, str] = {}
        """Kind by name and addition; of time codes, which run on, only the first counts."""
        self._packet_data: set[str] = set()

    def see_packet(self, packet: Any) -> None:
        """Note the side data of a packet."""
        try:
            for data in packet.iter_sidedata():
                self._packet_data.add(_packet_kind(data))
        except (ValueError, IndexError):  # a type that is newer than PyAV
            self._packet_data.add(UNKNOWN)

    def see_frame(self, frame: av.VideoFrame, fallback: Any) -> None:
        """Note all that a frame states; colour tags that it does not state are those of `fallback`, a codec context."""
        self._interlaced += bool(frame.interlaced_frame)
        self._colours[colour_tags(frame, fallback)] = None
        side = side_data_of(frame)
        for name, contents in side.items():
            for content in contents:
                kind = side_data_kind(name, content)
                self._frame_data.setdefault(name if name in _RUNNING else kind, kind)
        self._matrices[matrix_of(side)] = None
        hdr10 = hdr10_of(side)
        if hdr10 is not None:
            self._hdr10[hdr10] = None

    def survey(self) -> Survey:
        return Survey(
            self._interlaced,
            tuple(self._colours),
            tuple(self._hdr10),
            tuple(self._matrices),
            tuple(sorted(self._frame_data.values())),
            tuple(sorted(self._packet_data)),
        )


def _packet_kind(data: Any) -> str:
    """Name of side data of a packet; alpha in Matroska is the addition with the number 1 (RFC 9559, 5.1.4.1.28.53)."""
    name = str(data.data_type)
    is_alpha = name == "matroska_block_additional" and bytes(data)[:8] == (1).to_bytes(8, "big")
    return f"{name} (alpha)" if is_alpha else name


def look_around(container: av.container.InputContainer, stream: av.VideoStream, surveyor: Surveyor, places: int) -> None:
    """Survey one keyframe at each of several places, spread evenly over the file; stop at an error or after two seconds."""
    context: Any = stream.codec_context
    length, base = stream.duration or 0, fraction(stream.time_base)
    if not length and container.duration and base is not None:
        length = int(Fraction(container.duration, av.time_base) / base)
    began = time.monotonic()
    with contextlib.suppress(av.error.FFmpegError, EOFError):
        for place in range(places if length else 0):
            container.seek((stream.start_time or 0) + length * place // places, stream=stream)
            for packet in itertools.islice(container.demux(stream), _PACKETS_PER_PLACE):
                surveyor.see_packet(packet)
                if packet.is_keyframe and packet.size:
                    for frame in (*context.decode(packet), *context.decode(None)):
                        surveyor.see_frame(frame, context)
                    break
            if time.monotonic() - began > _LOOK_S:
                return


def differs(one: ColourTags, other: ColourTags) -> bool:
    """Whether two frames state different colours; a tag that one of them does not state is no difference."""
    pairs = ((one.primaries, other.primaries), (one.transfer, other.transfer), (one.matrix, other.matrix))
    if any(a != b and UNSPECIFIED not in (a, b) for a, b in pairs):
        return True
    return one.range != other.range and 0 not in (one.range, other.range)
