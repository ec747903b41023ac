"""Score one image or clip under a protocol: apply each measure to its frames."""

from __future__ import annotations

import hashlib
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from upframe import pixels
from upframe.datasets.images import Sample
from upframe.errors import InputError, UsageError
from upframe.media.image.source import RGB8
from upframe.metrics import (
    METRICS,
    SSIM_WINDOW,
    FlowEstimator,
    NiqeModel,
    flicker,
    load_niqe,
    lr_consistency,
    niqe,
    temporal_flow_difference,
    warping_error,
)
from upframe.metrics.niqe import BLOCK_PX
from upframe.metrics.protocols import Protocol

log = logging.getLogger(__name__)


def bicubic(lr: RGB8, scale: int) -> RGB8:
    """Enlarge (h, w, 3) by MATLAB-exact bicubic in float64, rounded once at the end."""
    unit = pixels.imresize(torch.from_numpy(lr).permute(2, 0, 1).to(torch.float64) / 255, scale)
    return pixels.from_unit(unit, np.uint8)


@dataclass(frozen=True)
class Judge:
    """Computes the scores of a protocol.

    Raises:
        UsageError: on creation, if the protocol needs a pristine model of NIQE and there is none.
    """

    rule: Protocol
    scale: int
    pristine: NiqeModel | None
    flow: FlowEstimator

    def __post_init__(self) -> None:
        if "niqe" in self.rule.metrics and self.pristine is None:
            raise UsageError(
                self.rule.name,
                "NIQE compares with a model of pristine pictures, and none was given",
                "name one with `niqe_params`: niqe_pris_params.npz as published with the metric, or a model that fit_niqe made",
            )

    @property
    def basis(self) -> dict[str, str]:
        """Return the conditions of the scores besides the protocol; empty if there are none."""
        basis = {}
        if "niqe" in self.rule.metrics and self.pristine is not None:
            basis["niqe"] = f"{self.pristine.name} (sha256 {self.pristine.digest[:12]})"
        if {"warp-error", "tof", "flicker"} & set(self.rule.metrics):
            basis["motion"] = self.flow.name
        return basis

    def check_size(self, sample: Sample, subject: Path) -> None:
        """Refuse samples that are too small for the measures, before a network runs.

        Raises:
            InputError: if the sample is too small; the message names `subject`.
        """
        height, width = (side * self.scale for side in sample.lr[0].shape[:2])
        border = 2 * self.rule.border_px(self.scale)
        needed = SSIM_WINDOW + border
        if sample.truth and min(height, width) < needed:
            raise InputError(subject, f"is too small to score at x{self.scale}", f"{needed} pixels a side are needed")
        if "niqe" in self.rule.metrics and ((height - border) // BLOCK_PX) * ((width - border) // BLOCK_PX) < 2:
            happened = f"becomes {height}x{width} at x{self.scale}, too small for NIQE"
            raise InputError(subject, happened, f"two blocks of {BLOCK_PX}x{BLOCK_PX} pixels are needed")

    def sitting(self, sample: Sample) -> Sitting:
        """Return a scorer for the outputs of several models on one image or clip."""
        return Sitting(self, sample)


@dataclass(frozen=True)
class Sitting:
    """Scores outputs for one sample. Motion that is common to all outputs is estimated once."""

    judge: Judge
    sample: Sample

    def scores(self, outputs: Sequence[RGB8]) -> dict[str, float]:
        """Return metric → value for the outputs of the scored frames, in their order.

        Raises:
            ValueError: if an output has a wrong size.
        """
        height, width = (side * self.judge.scale for side in self.sample.lr[0].shape[:2])
        wrong = next((o.shape for o in outputs if o.shape != (height, width, 3)), None)
        if wrong is not None or len(outputs) != len(self.sample.scored):
            raise ValueError(
                f"{len(self.sample.scored)} outputs of {height}x{width} pixels are needed, found {len(outputs)}"
                + (f" and a shape of {wrong}" if wrong else "")
            )
        return {name: _SCORERS[name](self, outputs) for name in self.judge.rule.metrics}

    @cached_property
    def guide(self) -> Sequence[RGB8]:
        """The clip whose motion the temporal measures follow, the same for all outputs: the truth, else the bicubic
        enlargement."""
        return self.sample.truth or [bicubic(self.sample.lr[i], self.judge.scale) for i in self.sample.scored]

    @cached_property
    def flow(self) -> FlowEstimator:
        return _Remembering(self.judge.flow)


class _Remembering:
    """A flow estimator that does not compute the motion between two frames twice."""

    def __init__(self, flow: FlowEstimator) -> None:
        self.name = flow.name
        self._flow = flow
        self._found: dict[tuple[bytes, bytes], Tensor] = {}

    def __call__(self, first: Tensor, second: Tensor) -> Tensor:
        key = (_content(first), _content(second))
        if key not in self._found:
            self._found[key] = self._flow(first, second)
        return self._found[key]


def _content(frame: Tensor) -> bytes:
    return hashlib.blake2b(frame.contiguous().numpy().tobytes(), digest_size=16).digest()


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


def _fidelity(sitting: Sitting, outputs: Sequence[RGB8], *, name: str) -> float:
    border = sitting.judge.rule.border_px(sitting.judge.scale)
    truth = sitting.sample.truth
    return _mean([METRICS[name](sr, hr, crop_border=border) for sr, hr in zip(outputs, truth, strict=True)])


def _niqe(sitting: Sitting, outputs: Sequence[RGB8]) -> float:
    judge = sitting.judge
    assert judge.pristine is not None
    try:
        return _mean([niqe(sr, judge.pristine, crop_border=judge.rule.border_px(judge.scale)) for sr in outputs])
    except ValueError as error:  # the size was checked, so this is a picture without any variation
        log.warning("%s has no NIQE: %s", sitting.sample.files[0], error)
        return math.nan


def _lr_consistency(sitting: Sitting, outputs: Sequence[RGB8]) -> float:
    inputs = [sitting.sample.lr[i] for i in sitting.sample.scored]
    return _mean([lr_consistency(sr, lr) for sr, lr in zip(outputs, inputs, strict=True)])


_SCORERS: Mapping[str, Callable[[Sitting, Sequence[RGB8]], float]] = {
    **{name: partial(_fidelity, name=name) for name in METRICS},
    "niqe": _niqe,
    "lr-psnr": _lr_consistency,
    "warp-error": lambda sitting, outputs: warping_error(outputs, motion=sitting.guide, flow=sitting.flow),
    "tof": lambda sitting, outputs: temporal_flow_difference(outputs, sitting.sample.truth, flow=sitting.flow),
    "flicker": lambda sitting, outputs: flicker(outputs, motion=sitting.guide, flow=sitting.flow),
}


def pristine_model(given: NiqeModel | str | Path | None) -> NiqeModel | None:
    """Return the given pristine model of NIQE, read from its file if it is a path."""
    return load_niqe(given) if isinstance(given, str | Path) else given
