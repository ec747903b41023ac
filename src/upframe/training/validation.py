"""Validation while training: the same `evaluate` that the command line runs, on the checkpoint just written."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from upframe.evaluation import evaluate
from upframe.models import load
from upframe.testsets import find_test_sets, read_rgb8


def validator(data: Path, *, datasets: Sequence[str] | None = None) -> Callable[[Path, int], dict[str, Any]]:
    """A function that scores a checkpoint under `sisr-y` on the test sets in `data`.

    Returns:
        A function of (weights file, step) that gives {set: {"psnr": dB, "ssim": ...}}.
    """

    def validate(weights: Path, step: int) -> dict[str, Any]:
        result = evaluate([load(weights)], protocol="sisr-y", data=data, datasets=datasets)
        label = result.models[0].label
        return {d.name: {m: result.mean(label, d.name, m) for m in result.metrics} for d in result.datasets}

    return validate


def held_out_pictures(data: Path, *, scale: int, datasets: Sequence[str] | None = None) -> dict[str, NDArray[Any]]:
    """The ground truth of the test sets in `data` by `set/name`, for the guard against training on them."""
    sets = find_test_sets(data, scale=scale, datasets=datasets)
    return {f"{s.name}/{image.name}": read_rgb8(image.hr) for s in sets for image in s.images}
