"""Draw curves of training runs: loss, validation scores and learning rate over the steps."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from upframe.drawing.chart import Curve, Panel, line_charts
from upframe.errors import InputError, UsageError
from upframe.media.image.files import write_pixels
from upframe.training.loop.report import flat_numbers
from upframe.training.loop.run_folder import LOG, read_log


@dataclass(frozen=True)
class History:
    """Curves from a run's log, without the steps that roll-backs undid."""

    loss: tuple[tuple[int, float], ...]
    """Pairs (step, value), as in all curves."""
    learning_rate: tuple[tuple[int, float], ...]
    scores: Mapping[str, tuple[tuple[int, float], ...]]
    """Scores by set and metric, as "Set5 psnr"."""
    rollbacks: tuple[int, ...]
    """Steps at which the run rolled back."""


def read_history(run: Path) -> History:
    """Read the curves from a run folder.

    Raises:
        InputError: if the folder has no log.
    """
    loss: dict[int, float] = {}
    rate: dict[int, float] = {}
    scores: dict[str, dict[int, float]] = {}
    rollbacks = []
    for number, row in enumerate(read_log(run), start=1):
        try:
            _check_row(row)
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError, RecursionError) as error:
            raise InputError(run / LOG, f"line {number} is not as training writes it", "remove that line") from error
        step = int(row.get("step", 0))
        if "notice" in row:
            rollbacks.append(step)
            for values in (loss, rate, *scores.values()):
                for undone in [at for at in values if at > row["to"]]:
                    del values[undone]
        elif "validation" in row:
            for name, value in flat_numbers(row["validation"]).items():
                scores.setdefault(name, {})[step] = value
        elif "loss" in row:
            loss[step], rate[step] = _number(row["loss"]), _number(row["learning_rate"])
    return History(
        tuple(loss.items()), tuple(rate.items()), {name: tuple(v.items()) for name, v in scores.items()}, tuple(rollbacks)
    )


def _check_row(row: Mapping[str, Any]) -> None:
    """Refuse a row of a log that was changed by hand: with the error of the first value that does not fit."""
    steps = [row.get("step", 0), *([row["to"]] if "notice" in row else [])]
    if not all(type(step) is int and 0 <= step < _MOST_STEPS for step in steps):
        raise ValueError
    if "validation" in row and "notice" not in row:
        if not all(name.isprintable() and len(name) <= _LONGEST_NAME for name in flat_numbers(row["validation"])):
            raise ValueError
    elif "loss" in row and "notice" not in row:
        _number(row["loss"])
        _number(row["learning_rate"])


def plot(runs: Sequence[Path], target: Path, *, metric: str = "psnr") -> None:
    """Draw the curves of one or more runs into a picture.

    Args:
        target: A file name of a picture format, such as curves.png. An existing file is replaced.
        metric: Score to draw, for every set that has it; "psnr" also matches "psnr-y" and "psnr-rgb".

    Raises:
        UsageError: if no run is named, or no validation has `metric`.
        InputError: if a folder has no log, or nothing has been logged yet.
        OutputError: if the picture cannot be written.
    """
    if not runs:
        raise UsageError("plot", "no run is named", "name one or more run folders")
    histories = dict(zip(labels(runs), (read_history(run) for run in runs), strict=True))
    if not any(history.loss for history in histories.values()):
        raise InputError(runs[0], "nothing has been logged yet", "wait for the first report")
    marks = tuple(float(step) for history in histories.values() for step in history.rollbacks)
    sets = sorted(
        {name for history in histories.values() for name in history.scores if f"{name.split()[-1]}-".startswith(f"{metric}-")}
    )
    there = sorted({name.split()[-1] for history in histories.values() for name in history.scores})
    if there and not sets:
        raise UsageError(f"metric {metric}", "no validation has it", f"there are {', '.join(there)}")
    panels = [Panel("loss", _curves((label, h.loss) for label, h in histories.items()), logarithmic=True, marks=marks)]
    for name in sets:
        chosen = ((label, h.scores.get(name, ())) for label, h in histories.items())
        panels.append(Panel(f"{name} in validation", _curves(chosen), marks=marks))
    rates = _curves((label, h.learning_rate) for label, h in histories.items())
    panels.append(Panel("learning rate", rates, logarithmic=True, marks=marks))
    try:
        drawn = line_charts(panels, x_title="optimiser steps")
    except ValueError as error:  # all losses are 0 or not finite
        raise InputError(runs[0], "has logged nothing that can be drawn", "look at log.jsonl") from error
    write_pixels(target, drawn)


def labels(runs: Sequence[Path]) -> list[str]:
    """Return a name for each run: its folder's name, with as many parent folders as needed to tell the runs apart."""
    parts = [run.resolve().parts for run in runs]
    for depth in range(1, max(map(len, parts)) + 1):
        names = ["/".join(p[-depth:]) for p in parts]
        if len(set(names)) == len(set(parts)):
            return names
    return [str(run) for run in runs]


def _curves(named: Iterable[tuple[str, Sequence[tuple[int, float]]]]) -> tuple[Curve, ...]:
    return tuple(Curve(label, [step for step, _ in points], [value for _, value in points]) for label, points in named)


_MOST_STEPS = 10**12
_LONGEST_NAME = 200


def _number(value: Any) -> float:
    """Read a number from the log, which stores numbers that are not finite as text."""
    return float(value) if value is not None else math.nan
