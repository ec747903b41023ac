"""Metrics of pictures and clips, each with its convention and its paper.

`fidelity` compares a picture with the true one (PSNR, SSIM), `niqe` scores a picture without a true one, and `temporal` scores
the motion of a clip along the flow of `motion` or any other `FlowEstimator`. This module lists them and is their public
interface.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Literal, Protocol

from upframe.errors import UsageError
from upframe.metrics.fidelity import SSIM_K1, SSIM_K2, SSIM_SIGMA, SSIM_WINDOW, Picture, psnr, ssim
from upframe.metrics.motion import FlowEstimator, LucasKanade
from upframe.metrics.niqe import NiqeModel, fit_niqe, load_niqe, niqe, save_niqe
from upframe.metrics.temporal import (
    flicker,
    lr_consistency,
    occluded,
    temporal_flow_difference,
    warping_error,
)

__all__ = [
    "MEASURES",
    "METRICS",
    "SSIM_K1",
    "SSIM_K2",
    "SSIM_SIGMA",
    "SSIM_WINDOW",
    "FlowEstimator",
    "LucasKanade",
    "Measure",
    "Metric",
    "MetricFunction",
    "NiqeModel",
    "Picture",
    "fit_niqe",
    "flicker",
    "list_metrics",
    "load_niqe",
    "lr_consistency",
    "metric",
    "niqe",
    "occluded",
    "psnr",
    "save_niqe",
    "ssim",
    "temporal_flow_difference",
    "warping_error",
]


@dataclass(frozen=True)
class Measure:
    """Name, unit and direction of a score."""

    name: str
    """Key in `MEASURES`."""
    title: str
    """Heading in tables."""
    citation: str
    higher_is_better: bool
    unit: Literal["dB", "px", ""]
    digits: int
    """Decimals that published tables print."""

    def format(self, value: float) -> str:
        """Format `value` with the decimals of published tables."""
        return f"{value:.{self.digits}f}"


class MetricFunction(Protocol):
    def __call__(self, a: Picture, b: Picture, *, peak: float | None = None, crop_border: int = 0) -> float: ...


@dataclass(frozen=True)
class Metric(Measure):
    """A full-reference measure of pictures: call it with the picture and the truth."""

    function: MetricFunction = field(repr=False)

    def __call__(self, a: Picture, b: Picture, *, peak: float | None = None, crop_border: int = 0) -> float:
        return self.function(a, b, peak=peak, crop_border=crop_border)


_WANG = (
    "Z. Wang, A. C. Bovik, H. R. Sheikh, E. P. Simoncelli, Image quality assessment: from error visibility to structural "
    "similarity, IEEE TIP 13(4), 2004"
)
_PSNR = "10 log10(peak² / mean squared error)"
_BT601 = "Y as in ITU-R BT.601 (16 to 235), not rounded"


def _metric(name: str, title: str, citation: str, *, digits: int, function: Callable[..., float]) -> Metric:
    unit: Literal["dB", ""] = "dB" if name.startswith("psnr") else ""
    return Metric(name, title, citation, higher_is_better=True, unit=unit, digits=digits, function=function)


METRICS: dict[str, Metric] = {
    m.name: m
    for m in (
        _metric("psnr-y", "PSNR (Y)", f"{_PSNR}; {_BT601}", digits=2, function=partial(psnr, luma=True)),
        _metric("ssim-y", "SSIM (Y)", f"{_WANG}; {_BT601}", digits=4, function=partial(ssim, luma=True)),
        _metric("psnr-rgb", "PSNR (RGB)", f"{_PSNR}, over the three channels together", digits=2, function=psnr),
        _metric("ssim-rgb", "SSIM (RGB)", f"{_WANG}; mean over the channels", digits=4, function=ssim),
    )
}
"""Full-reference measures of single pictures, by name."""

MEASURES: dict[str, Measure] = {
    **METRICS,
    **{
        m.name: m
        for m in (
            Measure(
                "niqe",
                "NIQE",
                "A. Mittal, R. Soundararajan, A. C. Bovik, Making a completely blind image quality analyzer, IEEE SPL 20(3), "
                "2013; on rounded BT.601 Y",
                higher_is_better=False,
                unit="",
                digits=4,
            ),
            Measure(
                "lr-psnr",
                "LR-PSNR",
                "PSNR (RGB) between the input and the output shrunk by MATLAB bicubic, as in A. Lugmayr et al., NTIRE 2021 "
                "learning the super-resolution space challenge, CVPRW 2021",
                higher_is_better=True,
                unit="dB",
                digits=2,
            ),
            Measure(
                "warp-error",
                "E_warp",
                "W.-S. Lai et al., Learning blind video temporal consistency, ECCV 2018; RGB in [0, 1], without occlusions",
                higher_is_better=False,
                unit="",
                digits=6,
            ),
            Measure(
                "tof",
                "tOF",
                "M. Chu et al., Learning temporal coherence via self-supervision for GAN-based video generation (TecoGAN), "
                "ACM TOG 39(4), 2020",
                higher_is_better=False,
                unit="px",
                digits=3,
            ),
            Measure(
                "flicker",
                "flicker",
                "mean |2 Y(t) − Y(t−1) − Y(t+1)| / 2 along the motion, in code values of 255; upframe's definition",
                higher_is_better=False,
                unit="",
                digits=3,
            ),
        )
    },
}
"""All measures of tables, by name. Those that are not in `METRICS` need more than a picture and its truth: NIQE needs a model
of pristine pictures, the temporal measures need a clip. See the functions of the same names."""


def metric(name: str) -> Metric:
    """Return the metric called `name`. Case does not matter, and `_` stands for `-`.

    Raises:
        UsageError: if the name is unknown; the message suggests the nearest ones.

    Example:
        >>> white = np.full((16, 16, 3), 255, np.uint8)
        >>> round(metric("psnr-rgb")(white, white - np.uint8(1)), 2)
        48.13
    """
    key = name.lower().replace("_", "-")
    if key not in METRICS:
        near = difflib.get_close_matches(key, METRICS, n=3, cutoff=0.3) or list(METRICS)
        raise UsageError(name, "is not a known metric", f"did you mean {', '.join(near)}?")
    return METRICS[key]


def list_metrics() -> list[str]:
    """Names that `metric` takes."""
    return list(METRICS)
