"""Draw line charts: panels below one another over a common axis, for any data."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

Pixels = NDArray[Any]
RGB = tuple[int, int, int]

BACKGROUND, INK, FAINT, GRID, MARK = (255, 255, 255), (24, 24, 27), (113, 113, 122), (228, 228, 231), (220, 38, 38)
# Distinguishable with any colour vision. M. Okabe, K. Ito, "Color Universal Design", 2008; no yellow on white.
COLOURS: tuple[RGB, ...] = (
    *((0, 114, 178), (230, 159, 0), (0, 158, 115), (213, 94, 0)),
    *((204, 121, 167), (86, 180, 233), (24, 24, 27)),
)
_DENSE = 2  # everything is drawn this many times larger and then reduced, which smooths the lines
_FONT_PX = 14
_LEFT_PX, _RIGHT_PX, _TOP_PX, _BOTTOM_PX = 76, 20, 30, 30  # around the plot of a panel
_LEGEND_PX = 22


@dataclass(frozen=True)
class Curve:
    """Points joined by lines; points that are not finite, or not positive on a logarithmic axis, are skipped."""

    label: str
    x: Sequence[float]
    y: Sequence[float]


@dataclass(frozen=True)
class Panel:
    """One chart."""

    title: str
    curves: tuple[Curve, ...]
    logarithmic: bool = False
    """Whether the vertical axis is logarithmic."""
    marks: tuple[float, ...] = ()
    """Positions of events on the common axis, drawn as dashed vertical lines."""


def line_charts(panels: Sequence[Panel], *, x_title: str, width_px: int = 960, panel_px: int = 240) -> Pixels:
    """Draw the panels below one another; a label has the same colour in all of them.

    Args:
        x_title: Title of the common axis.
        panel_px: Height of each panel.

    Returns:
        (H, W, 3) uint8.

    Raises:
        ValueError: if there is no point to draw.
    """
    points = [[_points(curve, panel.logarithmic) for curve in panel.curves] for panel in panels]
    every_x = [x for panel in points for curve in panel for x, _ in curve]
    if not every_x:
        raise ValueError("there is no point to draw")
    labels = list(dict.fromkeys(curve.label for panel in panels for curve in panel.curves))
    colours = {label: COLOURS[i % len(COLOURS)] for i, label in enumerate(labels)}
    legend_rows = _legend_rows(labels, width_px - _LEFT_PX - _RIGHT_PX)
    header = _LEGEND_PX * len(legend_rows) + 8
    size = (width_px, header + panel_px * len(panels) + _LEGEND_PX)
    image = Image.new("RGB", (size[0] * _DENSE, size[1] * _DENSE), BACKGROUND)
    pen = _Pen(ImageDraw.Draw(image))
    for row, row_labels in enumerate(legend_rows):
        _draw_legend(pen, row_labels, colours, top=6 + row * _LEGEND_PX)
    across = _Axis(min(every_x), max(every_x), _LEFT_PX, width_px - _RIGHT_PX)
    for i, (panel, curves) in enumerate(zip(panels, points, strict=True)):
        _draw_panel(pen, panel, curves, colours, across, top=header + i * panel_px, height=panel_px)
    pen.text((width_px / 2, size[1] - _LEGEND_PX / 2 - 2), x_title, FAINT, anchor="mm")
    return np.asarray(image.resize(size, Image.Resampling.BOX)).copy()


# Axes -----------------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class _Axis:
    """Maps values between `low` and `high` to pixels."""

    low: float
    high: float
    first_px: float
    last_px: float
    logarithmic: bool = False

    def __call__(self, value: float) -> float:
        low, high, at = (math.log10(v) if self.logarithmic else v for v in (self.low, self.high, value))
        share = (at - low) / (high - low) if high > low else 0.5
        return self.first_px + share * (self.last_px - self.first_px)

    def ticks(self) -> list[float]:
        return log_ticks(self.low, self.high) if self.logarithmic else ticks(self.low, self.high)


def ticks(low: float, high: float, *, about: int = 5) -> list[float]:
    """Return about `about` round numbers between `low` and `high`, in steps of 1, 2 or 5 times a power of ten."""
    if not high > low:
        return [low]
    raw = (high - low) / about
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= raw * (1 - 1e-9))
    first = math.ceil(low / step - 1e-9)
    return [i * step for i in range(first, math.floor(high / step + 1e-9) + 1)]


def log_ticks(low: float, high: float) -> list[float]:
    """Return the powers of ten between `low` and `high`; if there are fewer than three, also 2 and 5 times these."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    decades = [10.0**k for k in range(first, last + 1) if low * (1 - 1e-9) <= 10.0**k <= high * (1 + 1e-9)]
    if len(decades) >= 3:
        return decades[:: -(-len(decades) // 6)]
    finer = [m * 10.0**k for k in range(first, last + 1) for m in (1, 2, 5)]
    found = [value for value in finer if low * (1 - 1e-9) <= value <= high * (1 + 1e-9)]
    return found if len(found) >= 2 else ticks(low, high)


def _points(curve: Curve, logarithmic: bool) -> list[tuple[float, float]]:
    both = zip(curve.x, curve.y, strict=True)
    return [(x, y) for x, y in both if math.isfinite(x) and math.isfinite(y) and (y > 0 or not logarithmic)]


def _number(value: float) -> str:
    if value and not 1e-3 <= abs(value) < 1e6:
        return f"{value:.0e}".replace("e-0", "e-").replace("e+0", "e")
    return f"{value:.6g}"


# Drawing --------------------------------------------------------------------------------------------------------------
class _Pen:
    """Draws in pixels of the finished picture."""

    def __init__(self, draw: ImageDraw.ImageDraw) -> None:
        self._draw = draw
        self._font = ImageFont.load_default(_FONT_PX * _DENSE)

    def line(self, points: Sequence[tuple[float, float]], colour: RGB, width_px: float) -> None:
        dense = [(x * _DENSE, y * _DENSE) for x, y in points]
        self._draw.line(dense, fill=colour, width=max(1, round(width_px * _DENSE)), joint="curve")

    def dot(self, at: tuple[float, float], colour: RGB, radius_px: float) -> None:
        x, y, r = at[0] * _DENSE, at[1] * _DENSE, radius_px * _DENSE
        self._draw.ellipse((x - r, y - r, x + r, y + r), fill=colour)

    def text(self, at: tuple[float, float], text: str, colour: RGB, *, anchor: str) -> None:
        self._draw.text((at[0] * _DENSE, at[1] * _DENSE), text, fill=colour, font=self._font, anchor=anchor)


def _text_width(text: str) -> float:
    return ImageFont.load_default(_FONT_PX).getlength(text)


def _legend_rows(labels: Sequence[str], width_px: float) -> list[list[str]]:
    """Divide the labels into rows that fit."""
    rows: list[list[str]] = [[]]
    used = 0.0
    for label in labels:
        needed = 24 + _text_width(label) + 16
        if rows[-1] and used + needed > width_px:
            rows.append([])
            used = 0.0
        rows[-1].append(label)
        used += needed
    return rows


def _draw_legend(pen: _Pen, labels: Sequence[str], colours: dict[str, RGB], *, top: float) -> None:
    x = float(_LEFT_PX)
    for label in labels:
        pen.line([(x, top + 9), (x + 18, top + 9)], colours[label], 3)
        pen.text((x + 24, top + 9), label, INK, anchor="lm")
        x += 24 + _text_width(label) + 16


def _draw_panel(
    pen: _Pen,
    panel: Panel,
    curves: Sequence[Sequence[tuple[float, float]]],
    colours: dict[str, RGB],
    across: _Axis,
    *,
    top: float,
    height: float,
) -> None:
    pen.text((_LEFT_PX, top + 14), panel.title, INK, anchor="lm")
    values = [y for curve in curves for _, y in curve]
    if not values:
        pen.text((_LEFT_PX + 8, top + height / 2), "nothing logged yet", FAINT, anchor="lm")
        return
    up = _Axis(min(values), max(values), top + height - _BOTTOM_PX, top + _TOP_PX, panel.logarithmic)
    for value in up.ticks():
        pen.line([(across.first_px, up(value)), (across.last_px, up(value))], GRID, 1)
        pen.text((across.first_px - 8, up(value)), _number(value), FAINT, anchor="rm")
    for value in across.ticks():
        pen.line([(across(value), up.first_px), (across(value), up.last_px)], GRID, 1)
        pen.text((across(value), up.first_px + 14), _number(value), FAINT, anchor="mm")
    for mark in panel.marks:
        dashes = np.arange(up.last_px, up.first_px, 8)
        for y in dashes:
            pen.line([(across(mark), float(y)), (across(mark), float(y) + 4)], MARK, 1)
    for curve, points in zip(panel.curves, curves, strict=True):
        drawn = [(across(x), up(y)) for x, y in points]
        if len(drawn) > 1:
            pen.line(drawn, colours[curve.label], 2)
        if len(drawn) <= 30:
            for at in drawn:
                pen.dot(at, colours[curve.label], 3)
