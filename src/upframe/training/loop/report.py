"""Reports of a run, for the log, the screen and, on request, TensorBoard."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from upframe.errors import OptionError
from upframe.training.loop.state import TrainState

MEASURED = ("images_per_s", "waiting", "memory_bytes")
"""Fields of a report that depend on the machine and the moment. All other fields are the same however often a run was
interrupted."""


@dataclass(frozen=True)
class Progress:
    """One report of a run. Losses and the norm are means over the steps since the last report."""

    step: int
    """Steps done in the whole run."""
    stage: str
    steps: int
    """Steps of the whole run."""
    batch: int
    """Samples a step."""
    loss: float
    """Weighted sum of the terms, which training minimises."""
    terms: Mapping[str, float]
    """Each term of the loss without its weight; for a discriminator "d_real" and "d_fake"."""
    learning_rate: float
    grad_norm: float
    """Norm of the gradient before clipping; infinite if float16 overflowed in one of the steps."""
    images_per_s: float
    """Samples per second of all processes together."""
    waiting: float
    """Fraction of the time that the first process waited for data."""
    memory_bytes: int
    """Peak memory allocated on the GPU; without a GPU, peak memory of the process."""

    @property
    def seconds_left(self) -> float:
        """Time until the end of the run at the current speed."""
        return (self.steps - self.step) * self.batch / max(self.images_per_s, 1e-9)


class Clock:
    """Measures the speed between two reports."""

    def __init__(self) -> None:
        self._since, self._images, self._waited = time.perf_counter(), 0, 0.0

    def count(self, images: int) -> None:
        self._images += images

    def wait(self, seconds: float) -> None:
        """Count time spent waiting for data."""
        self._waited += seconds

    def pause(self, seconds: float) -> None:
        """Exclude time spent on something else, such as validation."""
        self._since += seconds

    def take(self) -> tuple[float, float]:
        """Return images per second and the fraction of time spent waiting, since the last call."""
        now = time.perf_counter()
        elapsed = max(now - self._since, 1e-9)
        speed, waiting = self._images / elapsed, min(self._waited / elapsed, 1.0)
        self._since, self._images, self._waited = now, 0, 0.0
        return speed, waiting


def make_report(
    state: TrainState, *, stage: str, steps: int, batch: int, learning_rate: float, clock: Clock, device: torch.device
) -> Progress:
    """Summarise the steps since the last report, and reset the sums in `state`."""
    means, (speed, waiting) = state.sums.take(), clock.take()
    return Progress(
        stage=stage,
        step=state.step,
        steps=steps,
        batch=batch,
        loss=means.pop("loss"),
        grad_norm=means.pop("grad_norm"),
        terms=means,
        learning_rate=learning_rate,
        images_per_s=speed,
        waiting=waiting,
        memory_bytes=peak_memory_bytes(device),
    )


def as_row(report: Progress) -> dict[str, Any]:
    """Return a report as a line of the log, with the measured values last."""
    row = asdict(report)
    return {**{k: v for k, v in row.items() if k not in MEASURED}, **{k: row[k] for k in MEASURED}}


def peak_memory_bytes(device: torch.device) -> int:
    """Return the peak memory in bytes: torch's on the GPU, else that of the whole process; 0 if the system does not report
    it."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if sys.platform == "win32":
        return 0
    import resource  # absent on Windows

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


class TensorBoard:
    """Writes reports and scores for TensorBoard.

    Raises:
        OptionError: if TensorBoard is not installed.
    """

    def __init__(self, folder: Path, *, from_step: int) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter  # only with the extra "train"
        except ImportError as error:
            advice = 'install it with: pip install "upframe[train]"'
            raise OptionError("tensorboard", True, "TensorBoard is not installed", advice) from error
        # Steps that an interrupted run wrote after its last checkpoint are removed from the curves.
        self._writer = SummaryWriter(str(folder), purge_step=from_step + 1)

    def report(self, report: Progress) -> None:
        values = {"loss": report.loss, **{f"loss/{name}": value for name, value in report.terms.items()}}
        values |= {"rate": report.learning_rate, "gradient norm": report.grad_norm, "images a second": report.images_per_s}
        self._add(values, report.step)

    def scores(self, scores: Mapping[str, Any], step: int) -> None:
        """Write the numbers of a validation, named by their path in `scores`."""
        self._add({f"validation/{name}": value for name, value in flat_numbers(scores).items()}, step)

    def close(self) -> None:
        self._writer.close()

    def _add(self, values: Mapping[str, float], step: int) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)


def flat_numbers(tree: Mapping[str, Any], *, prefix: str = "") -> dict[str, float]:
    """Return the numbers in nested mappings by their joined keys: {"Set5": {"psnr": 30}} → {"Set5 psnr": 30}."""
    found: dict[str, float] = {}
    for key, value in tree.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            found |= flat_numbers(value, prefix=f"{name} ")
        elif isinstance(value, int | float) and not isinstance(value, bool):
            found[name] = float(value)
    return found
