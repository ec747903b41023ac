"""Contact sheets: the results of several methods for the same detail, side by side and enlarged."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

Pixels = NDArray[Any]

BACKGROUND, INK, FAINT, MARK = (255, 255, 255), (24, 24, 27), (113, 113, 122), (220, 38, 38)
BORDER_PX = 16
GAP_PX = 8
FONT_PX = 15
LINE_PX = 20


@dataclass(frozen=True)
class Box:
    """A rectangle in a picture, in pixels from its top left corner."""

    top: int
    left: int
    height: int
    width: int

    def cut(self, pixels: Pixels) -> Pixels:
        """Return that part of (H, W, C) pixels, as a copy."""
        return pixels[self.top : self.top + self.height, self.left : self.left + self.width].copy()


@dataclass(frozen=True)
class SheetRow:
    """One picture on a contact sheet."""

    name: str
    overview: Pixels
    """The whole picture, (H, W, 3) uint8."""
    box: Box
    """Position of the detail in `overview`."""
    details: tuple[Pixels, ...]
    """The same detail once for each heading, (h, w, 3) uint8, all of one size."""
    captions: tuple[str, ...]
    """A line below each detail; may be empty."""


def most_detailed(pixels: Pixels, *, side_px: int) -> Box:
    """Return the square of `side_px` with the strongest edges, where methods differ most.

    Args:
        pixels: (H, W, C), any depth.
        side_px: Side of the square; a smaller picture gives a smaller box.

    Returns:
        The box with the largest sum of gradient magnitudes; among equals the topmost, then leftmost.
    """
    height, width = min(side_px, pixels.shape[0]), min(side_px, pixels.shape[1])
    gray = pixels.astype(np.float64).mean(axis=2)
    edges = np.abs(np.diff(gray, axis=0, append=gray[-1:])) + np.abs(np.diff(gray, axis=1, append=gray[:, -1:]))
    area = np.pad(edges, ((1, 0), (1, 0))).cumsum(0).cumsum(1)
    total = area[height:, width:] - area[:-height, width:] - area[height:, :-width] + area[:-height, :-width]
    # Cumulative sums have rounding noise. Without rounding here, the noise would break ties instead of the position.
    top, left = np.unravel_index(int(np.argmax(np.round(total, 6))), total.shape)
    return Box(int(top), int(left), height, width)


def contact_sheet(rows: Sequence[SheetRow], *, headings: Sequence[str], title: str, panel_px: int = 240) -> Pixels:
    """Draw a sheet with one row for each picture: the whole picture with the detail marked, then the detail under every
    heading.

    Details are enlarged by whole pixels (nearest), so the sheet shows the computed pixels.

    Args:
        headings: Source of each detail, left to right, for instance "bicubic", a model, "original".
        title: One line above everything, with scale and protocol.
        panel_px: Approximate side of an enlarged detail.

    Returns:
        (H, W, 3) uint8.

    Raises:
        ValueError: if there is no row, or a row does not have one detail and one caption for each heading.
    """
    if not rows:
        raise ValueError("a contact sheet needs at least one row")
    for row in rows:
        if not len(row.details) == len(row.captions) == len(headings):
            raise ValueError(f"{row.name}: {len(row.details)} details for {len(headings)} headings")
    panels = [[_enlarged(detail, panel_px) for detail in row.details] for row in rows]
    overviews = [_fitted(row.overview, (panel_px, panel_px * 3 // 2)) for row in rows]
    font, small = ImageFont.load_default(FONT_PX), ImageFont.load_default(FONT_PX - 2)
    texts = [(heading, font) for heading in headings] + [(text, small) for row in rows for text in row.captions]
    cell = max([int(used.getlength(text)) + 1 for text, used in texts] + [p.width for line in panels for p in line])
    # All overviews get the width of the widest, so that the details of all rows align in columns.
    first = max([o.width for o in overviews] + [int(small.getlength(row.name)) + 1 for row in rows])
    heights = [max(o.height, *(p.height for p in line)) for o, line in zip(overviews, panels, strict=True)]
    width = max(2 * BORDER_PX + first + len(headings) * (GAP_PX + cell), 2 * BORDER_PX + int(font.getlength(title)) + 1)
    height = 2 * BORDER_PX + 2 * LINE_PX + sum(h + LINE_PX + GAP_PX for h in heights) + GAP_PX
    sheet = Image.new("RGB", (width, height), BACKGROUND)
    draw = ImageDraw.Draw(sheet)

    draw.text((BORDER_PX, BORDER_PX), title, fill=INK, font=font)
    y = BORDER_PX + LINE_PX + GAP_PX
    columns = [BORDER_PX + first + GAP_PX + i * (cell + GAP_PX) for i in range(len(headings))]
    for x, heading in zip(columns, headings, strict=True):
        draw.text((x, y), heading, fill=INK, font=font)
    y += LINE_PX
    for row, overview, line, tall in zip(rows, overviews, panels, heights, strict=True):
        sheet.paste(overview, (BORDER_PX, y))
        _mark(draw, row, overview, (BORDER_PX, y))
        draw.text((BORDER_PX, y + tall + 2), row.name, fill=FAINT, font=small)
        for x, panel, caption in zip(columns, line, row.captions, strict=True):
            sheet.paste(panel, (x, y))
            draw.text((x, y + tall + 2), caption, fill=FAINT, font=small)
        y += tall + LINE_PX + GAP_PX
    return np.asarray(sheet).copy()


def _enlarged(detail: Pixels, panel_px: int) -> Image.Image:
    image = Image.fromarray(detail)
    factor = max(1, round(panel_px / max(image.size)))
    return image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST)


def _fitted(picture: Pixels, size: tuple[int, int]) -> Image.Image:
    """Fit `picture` into (height, width), keeping its aspect ratio."""
    image = Image.fromarray(picture)
    factor = min(size[0] / image.height, size[1] / image.width)
    fitted = (max(1, round(image.width * factor)), max(1, round(image.height * factor)))
    return image.resize(fitted, Image.Resampling.LANCZOS)


def _mark(draw: ImageDraw.ImageDraw, row: SheetRow, overview: Image.Image, at: tuple[int, int]) -> None:
    """Frame the row's box on its overview, which is pasted `at` (x, y)."""
    factor = overview.width / row.overview.shape[1]
    left, top = at[0] + round(row.box.left * factor), at[1] + round(row.box.top * factor)
    right = min(left + round(row.box.width * factor), at[0] + overview.width) - 1
    bottom = min(top + round(row.box.height * factor), at[1] + overview.height) - 1
    draw.rectangle((left, top, right, bottom), outline=MARK, width=2)
