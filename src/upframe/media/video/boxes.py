"""The structure of MP4 and MOV files that FFmpeg applies without telling: edit lists (ISO/IEC 14496-12, 8.6.6)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from upframe.media.image.opening import open_regular

_WAY = (b"moov", b"trak", b"edts", b"elst")
"""A box and the boxes within it."""
_MOST_BOXES = 100_000


def edit_lists(path: Path) -> tuple[int, ...]:
    """Number of entries of each edit list of an MP4 or MOV file."""
    with open_regular(path) as file:
        size = file.seek(0, 2)
        return tuple(_edits(file, 0, size, _WAY, [_MOST_BOXES]))


def _edits(file: BinaryIO, at: int, end: int, way: tuple[bytes, ...], left: list[int]) -> Iterator[int]:
    """Yield the numbers of entries below the boxes from `at` to `end`; `left` counts down the boxes that may be read."""
    while at + 8 <= end and left[0] > 0:
        left[0] -= 1
        file.seek(at)
        head = file.read(16)
        length, name, body = int.from_bytes(head[:4], "big"), head[4:8], at + 8
        if length == 1:
            length, body = int.from_bytes(head[8:16], "big"), at + 16
        after = end if length == 0 else min(at + length, end)
        if after < body:
            return
        if name == way[0] and len(way) > 1:
            yield from _edits(file, body, after, way[1:], left)
        elif name == way[0]:
            file.seek(body + 4)
            yield int.from_bytes(file.read(4), "big")
        at = after
