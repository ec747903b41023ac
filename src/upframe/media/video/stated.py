"""Statements of a container's headers for which PyAV has no attribute, from the text in which FFmpeg describes an open file.

FFmpeg lists every kind of side data of every stream there, also kinds that upframe has never heard of, and programs and groups
of streams. Values of tags cannot imitate such a line: FFmpeg indents their further lines with a colon.
"""

from __future__ import annotations

import contextlib
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import av
import av.logging
from av.packet import PacketSideData, PktSideDataT

from upframe.errors import InputError

_STREAM = re.compile(r"( +)Stream #\d+:(\d+)")
_PROGRAM = re.compile(r"  Program (\d+)")
_GROUP = re.compile(r" +Stream group #\d+:\d+.*?: ([^:]+)")
_FIELD = re.compile(r" +([^:]+?) *: (.*)")

UNKNOWN = "unknown"
"""Name of side data that the FFmpeg in use does not name."""


@dataclass(frozen=True)
class StreamSideData:
    """Side data that the container states for a whole stream."""

    stream: int
    name: str
    """A name of PyAV's `PktSideDataT`, or UNKNOWN."""
    text: str
    """FFmpeg's description of the content."""


@dataclass(frozen=True)
class Stated:
    side_data: tuple[StreamSideData, ...] = ()
    programs: tuple[tuple[int, tuple[tuple[str, str], ...]], ...] = ()
    """Number and tags of each program of a transport stream."""
    groups: tuple[str, ...] = ()
    """Kind of each group of streams, such as tiles of one picture."""
    edits: tuple[int, ...] = ()
    """Number of entries of each edit list of MP4 and MOV."""

    def of_stream(self, stream: int) -> dict[str, str]:
        """Side data of one stream by name."""
        return {one.name: one.text for one in self.side_data if one.stream == stream}


NOTHING = Stated()


def stated_by(container: av.container.InputContainer) -> Stated:
    """Statements of the headers of an open file."""
    with logging_at(av.logging.INFO):
        described: Any = container
        return parsed(described.dumps_format())


def parsed(text: str) -> Stated:
    """Read FFmpeg's description of a file."""
    side_data: list[StreamSideData] = []
    programs: list[tuple[int, list[tuple[str, str]]]] = []
    groups: list[str] = []
    stream, section, depth = -1, "", 0
    for line in text.split("\n"):
        indent = len(line) - len(line.lstrip(" "))
        if section and indent <= depth:
            section = ""
        if (found := _GROUP.match(line)) is not None:
            groups.append(found[1].strip())
        elif (found := _STREAM.match(line)) is not None:
            stream = int(found[2])
        elif (found := _PROGRAM.match(line)) is not None:
            programs.append((int(found[1]), []))
            stream = -1
        elif line.strip() in ("Side data:", "Metadata:") and indent:
            section, depth = line.strip(), indent
        elif section == "Side data:" and stream >= 0:
            side_data.append(_side_data(stream, line.strip()))
        elif section == "Metadata:" and stream < 0 and programs and (found := _FIELD.match(line)) is not None:
            programs[-1][1].append((found[1], found[2]))
    return Stated(tuple(side_data), tuple((number, tuple(tags)) for number, tags in programs), tuple(groups))


def _side_data(stream: int, line: str) -> StreamSideData:
    for name in get_args(PktSideDataT):
        label = PacketSideData.from_packet(av.Packet(), name).data_desc
        if line.startswith(f"{label}:"):  # a label may hold a colon itself
            return StreamSideData(stream, name, line[len(label) + 1 :].strip())
    return StreamSideData(stream, UNKNOWN, line)


# Meaning of single statements -----------------------------------------------------------------------------------------
Crop = tuple[int, int, int, int]
"""Rows at the top and bottom, columns at the left and right."""


def crop_of(text: str, size: tuple[int, int]) -> Crop:
    """Read FFmpeg's description of the parts that a container hides; a crop that leaves nothing is ignored."""
    found = re.fullmatch(r"(\d+)/(\d+)/(\d+)/(\d+)", text)
    if found is None:
        return 0, 0, 0, 0
    left, right, top, bottom = (int(number) for number in found.groups())
    return (top, bottom, left, right) if top + bottom < size[0] and left + right < size[1] else (0, 0, 0, 0)


def refuse_dolby_vision(path: Path, record: str) -> None:
    """Refuse streams whose base layer is no Y'CbCr picture: 5, 10.0 and 20 (Dolby Vision Profiles and Levels, table 3).

    Raises:
        InputError: for such a stream; `record` is FFmpeg's description of its configuration record.
    """
    facts = dict(re.findall(r"(profile|compatibility id): (\d+)", record))
    profile = int(facts.get("profile", 0))
    if profile == 5 or (profile in (10, 20) and facts.get("compatibility id") == "0"):
        raise InputError(
            path,
            f"is Dolby Vision of profile {profile}, whose colours cannot be read without its Dolby Vision layer",
            "convert it to HDR10 or SDR first, with a program that applies the layer",
        )


# FFmpeg's log ---------------------------------------------------------------------------------------------------------
_LOGGING = threading.Lock()


@contextlib.contextmanager
def logging_at(level: int) -> Iterator[Any]:
    """Let FFmpeg log for a moment: usually its log is off, since its callback takes Python's lock in decoder threads."""
    with _LOGGING:
        before, skips = av.logging.get_level(), av.logging.get_skip_repeated()
        av.logging.set_level(level)
        av.logging.set_skip_repeated(False)
        try:
            yield
        finally:
            av.logging.set_level(before)
            av.logging.set_skip_repeated(skips)
