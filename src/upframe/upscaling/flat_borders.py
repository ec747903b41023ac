"""Flat borders: bars around a video, paper around a drawing, the background of a product. Enlarged once, then repeated.

In a flat border, all rows that are far enough from the picture's edge and from the content look alike to a network, so it makes
the same output from each. Therefore all of them but one are skipped, and its output is repeated for them. The same holds for
columns.

            edge | outer | 1 | inner | content …               input of the network
            edge | outer | 1 1 1 1 1 1 1 | inner | content …   output

If the network sees no farther than `outer` and `inner`, this is exact up to rounding; otherwise it differs as tiles do
(docs/tiling.md).
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

LEAST_SHARE = 1 / 16  # least share of an axis to skip: restoring less costs as much as it saves
AT_ONCE_ROWS = 16  # input rows whose output is copied at once, so that flat borders do not make bands large


@dataclass(frozen=True)
class Axis:
    """One axis of a picture, in input pixels."""

    length: int
    before: int = 0
    """Pixels skipped in the flat border at the beginning of the axis."""
    after: int = 0
    """Pixels skipped in the flat border at the end of the axis."""
    outer: int = 0
    """Pixels of a flat border that are kept between the picture's edge and the repeated pixel."""

    def common(self, other: Axis) -> Axis:
        """Return the pixels that both axes skip, which have one length and the same `outer`; none if it is not worth it."""
        axis = replace(self, before=min(self.before, other.before), after=min(self.after, other.after))
        return axis if axis.before + axis.after >= LEAST_SHARE * axis.length else Axis(axis.length)

    @property
    def kept(self) -> int:
        """Length of the network's input."""
        return self.length - self.before - self.after

    @property
    def repeats(self) -> list[tuple[int, int]]:
        """Repeated pixels as (index among the kept pixels, number of repetitions)."""
        marks = [(self.outer, self.before), (self.kept - 1 - self.outer, self.after)]
        return [(index, count) for index, count in marks if count]


@dataclass(frozen=True)
class Trim:
    """The flat borders that are skipped along both axes."""

    rows: Axis
    columns: Axis

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of the network's input."""
        return self.rows.kept, self.columns.kept

    @property
    def whole_size(self) -> tuple[int, int]:
        """(height, width) of the picture."""
        return self.rows.length, self.columns.length

    def common(self, other: Trim) -> Trim:
        """Return the skipped pixels that two pictures of one size share."""
        return Trim(self.rows.common(other.rows), self.columns.common(other.columns))

    def cut(self, plane: Pixels) -> Pixels:
        """Remove the skipped pixels of flat borders from (H, W, C) pixels."""
        rows, columns = self.rows, self.columns
        return plane[rows.before : rows.length - rows.after, columns.before : columns.length - columns.after]

    def place(self, tile: Tile) -> Place | None:
        """Position in the picture of a tile of the network's input; None if the tile reads the whole picture.

        The position is right for the content. In the outer part of a flat border it is off by the skipped pixels, but there all
        positions look alike.
        """
        if tile.read_size == self.whole_size:
            return None
        return Place((self.rows.before + tile.rows.read_start, self.columns.before + tile.columns.read_start), self.whole_size)

    def restored(self, bands: Iterator[Tensor], scale: int) -> Iterator[Tensor]:
        """Restore skipped pixels in bands (C, rows, s·kept width) of the network's output, each of whole input rows."""
        start = 0  # input rows of earlier bands
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
        """Yield a band with its skipped columns restored, in parts, since the parts are copies."""
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
    """Skip nothing of a picture of `size` (height, width)."""
    return Trim(Axis(size[0]), Axis(size[1]))


def trim(planes: Sequence[Pixels], *, outer_px: int, inner_px: int, phase_px: int = 1) -> Trim:
    """Find the flat borders of a picture that can be skipped, given as planes (H, W, C) of one size.

    Args:
        outer_px: Distance from the picture's edge at which the network is assumed not to see the edge.
        inner_px: The same distance from the content.
        phase_px: The number of pixels skipped before the content is a multiple of this (`ModelSpec.phase_px`).
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
    """Number of rows at the beginning that have the colour of their first pixel."""
    start, step = 0, 1
    while start < len(plane):
        block = plane[start : start + step]
        flat = (block == plane[0, 0]).reshape(len(block), -1).all(axis=1)
        if not flat.all():
            return start + int(np.argmin(flat))
        start, step = start + step, min(2 * step, 64)
    return len(plane)
