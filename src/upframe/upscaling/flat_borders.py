"""Flat margins: bars around a film, paper around a drawing, the ground behind a product. Enlarged once, then repeated.

Rows of one colour at a border look alike to a network as soon as neither the border nor the content is within its sight: what
it makes of one of them it makes of each. So all but a few are left out of what it is given, and what it made of the middle one
stands for them. The same holds for columns.

            border | outer | 1 | inner | content …            what the network is given
            border | outer | 1 1 1 1 1 1 1 | inner | content …  what is made of it

Where the network sees no farther than that this is exact to rounding; else it differs as tiles do (docs/tiling.md).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from upframe.media.frames import Pixels
from upframe.models.spec import Place
from upframe.upscaling.tiling import Tile

LEAST_SHARE = 1 / 16  # of an axis that must be left out: putting less back costs what it saves
AT_ONCE_ROWS = 16  # input rows whose output is copied at once: margins must not make large bands of narrow ones


@dataclass(frozen=True)
class Axis:
    """One axis of a picture, in input pixels."""

    length: int
    before: int = 0
    """Pixels left out of the margin at its beginning."""
    after: int = 0
    """Pixels left out of the margin at its end."""
    outer: int = 0
    """Pixels of a margin that stay between a border and the pixel that is repeated."""

    def common(self, other: Axis) -> Axis:
        """Return the rows that both skip, of one length and with the same `outer`; nothing if that is not worth it."""
        axis = replace(self, before=min(self.before, other.before), after=min(self.after, other.after))
        return axis if axis.before + axis.after >= LEAST_SHARE * axis.length else Axis(axis.length)

    @property
    def kept(self) -> int:
        """Length of what the network is given."""
        return self.length - self.before - self.after

    @property
    def repeats(self) -> list[tuple[int, int]]:
        """(index in what is kept, further times) of the pixels that stand for those left out."""
        marks = [(self.outer, self.before), (self.kept - 1 - self.outer, self.after)]
        return [(index, count) for index, count in marks if count]


@dataclass(frozen=True)
class Trim:
    """The flat borders that are skipped along both axes."""

    rows: Axis
    columns: Axis

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of what the network is given."""
        return self.rows.kept, self.columns.kept

    @property
    def whole_size(self) -> tuple[int, int]:
        """(height, width) of the picture."""
        return self.rows.length, self.columns.length

    def common(self, other: Trim) -> Trim:
        """Return the part that both skip, of pictures of one size."""
        return Trim(self.rows.common(other.rows), self.columns.common(other.columns))

    def cut(self, plane: Pixels) -> Pixels:
        """Return the part of (H, W, C) pixels for the network, without the outermost pixels of flat borders, all alike."""
        rows, columns = self.rows, self.columns
        return plane[rows.before : rows.length - rows.after, columns.before : columns.length - columns.after]

    def place(self, tile: Tile) -> Place | None:
        """Where a tile of what is given lies in the picture; None when it reads the whole picture.

        The content's place is right, that of a margin's outer part is off by what was left out; there all places are alike.
        """
        if tile.read_size == self.whole_size:
            return None
        return Place((self.rows.before + tile.rows.read_start, self.columns.before + tile.columns.read_start), self.whole_size)

    def restored(self, bands: Iterator[Tensor], scale: int) -> Iterator[Tensor]:
        """Bands of what the network made, (C, rows, s·kept width) and whole input rows each, with what was left out."""
        start = 0  # input rows of the bands before
        for band in bands:
            rows = band.shape[1] // scale
            done = 0
            for index, count in self.rows.repeats:
                end = index + 1 - start
                if not 0 < end <= rows:
                    continue
                yield from self._wide_parts(band[:, done * scale : end * scale], scale)
                block = self._widened(band[:, (end - 1) * scale : end * scale], scale)
                for first in range(0, count, AT_ONCE_ROWS):
                    yield block.repeat(1, min(AT_ONCE_ROWS, count - first), 1)
                done = end
            yield from self._wide_parts(band[:, done * scale :], scale)
            start += rows

    def _wide_parts(self, band: Tensor, scale: int) -> Iterator[Tensor]:
        """A band with what was left out of its columns; in parts, since they are copies."""
        if band.shape[1] and not self.columns.repeats:
            yield band
        elif band.shape[1]:
            for part in torch.split(band, AT_ONCE_ROWS * scale, dim=1):
                yield self._widened(part, scale)

    def _widened(self, band: Tensor, scale: int) -> Tensor:
        parts, done = [], 0
        for index, count in self.columns.repeats:
            end = (index + 1) * scale
            parts += [band[:, :, done:end], band[:, :, end - scale : end].repeat(1, 1, count)]
            done = end
        return torch.cat([*parts, band[:, :, done:]], dim=2)


def whole(size: tuple[int, int]) -> Trim:
    """Nothing left out of a picture of `size` (height, width)."""
    return Trim(Axis(size[0]), Axis(size[1]))


def trim(planes: Sequence[Pixels], *, outer_px: int, inner_px: int, phase_px: int = 1) -> Trim:
    """Find the flat borders of a picture that can be skipped, given as planes (H, W, C) of one size.

    Args:
        outer_px: Pixels of a margin from where on the network is taken to see nothing of the border.
        inner_px: The same of the content.
        phase_px: What is left out before the content is a multiple of this (ModelSpec.phase_px).
    """
    rows = _axis(planes, outer_px, inner_px, phase_px)
    columns = _axis([plane.swapaxes(0, 1) for plane in planes], outer_px, inner_px, phase_px)
    return Trim(rows, columns)


def _axis(planes: Sequence[Pixels], outer_px: int, inner_px: int, phase_px: int) -> Axis:
    length = planes[0].shape[0]
    before = min(_of_one_colour(plane) for plane in planes)
    after = min(_of_one_colour(plane[::-1]) for plane in planes)
    if before == length:  # nothing else
        before, after = length // 2, length - length // 2
    stays = outer_px + 1 + inner_px
    axis = Axis(length, max(before - stays, 0) // phase_px * phase_px, max(after - stays, 0), outer_px)
    return axis if axis.before + axis.after >= LEAST_SHARE * length else Axis(length)


def _of_one_colour(plane: Pixels) -> int:
    """How many rows at the beginning are of the colour of their first pixel."""
    start, step = 0, 1
    while start < len(plane):
        block = plane[start : start + step]
        flat = (block == plane[0, 0]).reshape(len(block), -1).all(axis=1)
        if not flat.all():
            return start + int(np.argmin(flat))
        start, step = start + step, min(2 * step, 64)
    return len(plane)
