"""NIQE: distance of a picture's statistics from those of pristine photographs. Lower is better; no truth is needed.

Paper: A. Mittal, R. Soundararajan, A. C. Bovik, "Making a 'completely blind' image quality analyzer", IEEE Signal
Processing Letters 20(3), 2013. Every 96×96 block of the picture, at full and at half size, gives 18 numbers: the shapes
and widths of asymmetric generalised Gaussians (AGGD) fitted to its locally normalised luma and to products of
neighbouring values. Their mean and covariance over the blocks are compared with those of the pristine model.

The score depends on the model. Published scores use the model of the authors' release: mean (1, 36), covariance (36, 36) and
the 7×7 window. It is not part of upframe. Pass its file, or fit your own model with `fit_niqe`, whose scores must not be
compared with published ones.

Where the paper states nothing, the conventions follow published descriptions and measurements of the authors' MATLAB release:
blocks are counted from the top left, and incomplete blocks are ignored; borders are repeated; neighbours wrap around within a
block; shapes are found by searching a table from 0.2 to 10 in steps of 0.001; half size is MATLAB's bicubic; a block without
variation has shapes of 0.2 and no widths, so it counts in the mean of the shapes only; the covariance divides by the number of
whole blocks − 1.

Correctness: equal to reference values of pictures with 6 and 2 blocks, colour and gray, to 1e-3. With fewer than 37 blocks, the
picture's covariance is singular. Only the pristine covariance keeps the sum invertible, and the score is less stable.
"""

from __future__ import annotations

import hashlib
import json
import math
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save
from torch import Tensor

from upframe import pixels
from upframe.errors import InputError
from upframe.files import atomic_bytes
from upframe.metrics.fidelity import Picture, planes, white_of

BLOCK_PX = 96
FEATURES = 36
WINDOW_PX = 7
WINDOW_SIGMA = 7 / 6
SHARPNESS_THRESHOLD = 0.75
"""Mittal et al. 2013, §II.B: a pristine patch is used if its sharpness exceeds this fraction of the sharpest one's."""

Colour = Literal["y", "gray"]


@dataclass(frozen=True, eq=False)
class NiqeModel:
    """The multivariate Gaussian of pristine pictures."""

    name: str
    """Name of the model in reports."""
    mean: NDArray[np.float64]
    """(36,): 18 features at full size, 18 at half size."""
    covariance: NDArray[np.float64]
    """(36, 36)."""
    window: NDArray[np.float64]
    """(7, 7): weights of the local mean and deviation, with the sum 1."""

    def __post_init__(self) -> None:
        shapes = (self.mean.shape, self.covariance.shape, self.window.shape)
        if shapes != ((FEATURES,), (FEATURES, FEATURES), (WINDOW_PX, WINDOW_PX)):
            raise ValueError(f"a NIQE model has shapes (36,), (36, 36) and (7, 7), found {shapes}")
        if not all(np.isfinite(part).all() for part in (self.mean, self.covariance, self.window)):
            raise ValueError("a NIQE model must be finite")

    @property
    def digest(self) -> str:
        """Return a hash of the numbers: models with equal digests give equal scores, whatever their files."""
        parts = (self.mean, self.covariance, self.window)
        return hashlib.sha256(b"".join(np.ascontiguousarray(p, "<f8").tobytes() for p in parts)).hexdigest()


# Scoring --------------------------------------------------------------------------------------------------------------
def niqe(picture: Picture, model: NiqeModel, *, colour: Colour = "y", peak: float | None = None, crop_border: int = 0) -> float:
    """Return the NIQE of a picture, 0 at best; natural photographs have 2 to 5.

    Args:
        picture: (H, W) luma, (H, W, 1 or 3) gray or RGB, or a tensor (C, H, W).
        model: From `load_niqe` or `fit_niqe`.
        colour: Conversion of RGB: BT.601 studio Y rounded to whole code values, as in tables of restoration, or MATLAB's
            `rgb2gray` (0.299, 0.587, 0.114, rounded) as in the authors' release.
        peak: Code value of white; by default that of the dtype. NIQE itself is defined on 0 to 255.
        crop_border: Excluded pixels along every edge.

    Raises:
        ValueError: if fewer than two whole 96×96 blocks, or two blocks with any variation, are in the picture.
    """
    features, _ = _block_features(_luma(picture, colour=colour, peak=peak, crop_border=crop_border), model.window)
    mean, covariance = _gaussian_of(features)
    gap = model.mean - mean
    return float(math.sqrt(gap @ np.linalg.pinv((model.covariance + covariance) / 2) @ gap))


def _gaussian_of(features: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the mean over the finite numbers, and the sample covariance over the blocks (n, 36) without missing numbers."""
    whole = features[np.isfinite(features).all(axis=1)]
    if len(whole) < 2:
        raise ValueError(f"NIQE needs two {BLOCK_PX}x{BLOCK_PX} blocks with any variation, found {len(whole)}")
    return np.nanmean(features, axis=0), np.cov(whole, rowvar=False)


def _luma(picture: Picture, *, colour: Colour, peak: float | None, crop_border: int) -> Tensor:
    """Return (H, W) float64 luma in whole code values of 0 to 255."""
    x = planes(picture) / (peak if peak is not None else white_of(picture))
    if x.shape[0] != 1:
        raise ValueError(f"NIQE judges one picture at a time, found {x.shape[0]}")
    if x.shape[1] not in (1, 3):
        raise ValueError(f"NIQE needs 1 or 3 channels, found {x.shape[1]}")
    height, width = x.shape[-2:]
    if not 0 <= 2 * crop_border < min(height, width):
        raise ValueError(f"a border of {crop_border} leaves nothing of {height}x{width} pixels")
    x = x[0, :, crop_border : height - crop_border, crop_border : width - crop_border]
    if x.shape[0] == 3:
        weights = torch.tensor([0.299, 0.587, 0.114], dtype=x.dtype).view(3, 1, 1)
        x = pixels.rgb_to_y(x) if colour == "y" else (x * weights).sum(0, keepdim=True)
    return torch.floor(x[0] * 255 + (0.5 + 1e-9))  # rounds halves up, also those that are slightly less in binary


def _block_features(luma: Tensor, window: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return 36 features (n, 36) and the mean local deviation at full size (n,) of the whole blocks in (H, W)."""
    rows, columns = luma.shape[0] // BLOCK_PX, luma.shape[1] // BLOCK_PX
    if rows * columns < 2:
        raise ValueError(
            f"NIQE needs at least two blocks of {BLOCK_PX}x{BLOCK_PX} pixels, found {luma.shape[0]}x{luma.shape[1]}"
        )
    luma = luma[: rows * BLOCK_PX, : columns * BLOCK_PX]
    weights = torch.from_numpy(window)
    scales = []
    sharpness: Tensor | None = None
    for side in (BLOCK_PX, BLOCK_PX // 2):
        normalised, deviation = _normalise(luma, weights)
        scales.append(_features(_blocks(normalised, side)))
        if sharpness is None:
            sharpness = _blocks(deviation, side).mean(dim=(1, 2))
            luma = pixels.imresize(luma, 0.5)
    assert sharpness is not None
    return torch.cat(scales, dim=1).numpy(), sharpness.numpy()


def _normalise(luma: Tensor, window: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean-subtracted, contrast-normalised luma (MSCN) and the local deviation, both (H, W)."""
    border = WINDOW_PX // 2
    padded = F.pad(luma[None, None], (border,) * 4, mode="replicate")
    both = torch.cat([padded, padded**2])
    # 49 shifted sums, because torch does not optimise float64 convolution.
    sums = torch.zeros(2, *luma.shape, dtype=luma.dtype)
    for y in range(WINDOW_PX):
        for x in range(WINDOW_PX):
            sums.add_(both[:, 0, y : y + luma.shape[0], x : x + luma.shape[1]], alpha=float(window[y, x]))
    mean = sums[0]
    deviation = (sums[1] - mean**2).abs().sqrt()
    return (luma - mean) / (deviation + 1), deviation


def _blocks(x: Tensor, side: int) -> Tensor:
    """(H, W) → (n, side, side), row by row."""
    rows, columns = x.shape[0] // side, x.shape[1] // side
    return x.reshape(rows, side, columns, side).permute(0, 2, 1, 3).flatten(0, 1)


def _features(blocks: Tensor) -> Tensor:
    """(n, side, side) MSCN values → (n, 18)."""
    shape, left, right = _fit_aggd(blocks)
    columns = [shape, (left + right) / 2]
    for shift in ((0, 1), (1, 0), (1, 1), (1, -1)):
        shape, left, right = _fit_aggd(blocks * torch.roll(blocks, shift, dims=(1, 2)))
        mean = (right - left) * torch.exp(torch.lgamma(2 / shape) - torch.lgamma(1 / shape))
        columns += [shape, mean, left, right]
    return torch.stack(columns, dim=1)


def _fit_aggd(samples: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Fit asymmetric generalised Gaussians by moment matching: shape, and scale on either side of zero, (n,) each.

    Source: N.-E. Lasmar, Y. Stitou, Y. Berthoumieu, ICIP 2009, as used by Mittal et al.
    """
    x = samples.flatten(1)
    below, above = x.clamp_max(0), x.clamp_min(0)
    left = ((below**2).sum(1) / (x < 0).sum(1)).sqrt()  # 0 / 0 if nothing is below zero: deliberately not a number
    right = ((above**2).sum(1) / (x > 0).sum(1)).sqrt()
    ratio = left / right
    moments = x.abs().mean(1) ** 2 / (x**2).mean(1)
    wanted = moments * (ratio**3 + 1) * (ratio + 1) / (ratio**2 + 1) ** 2
    shapes, moments_of_shapes = _shape_table()
    shape = shapes[((moments_of_shapes - wanted[:, None]) ** 2).argmin(1)]
    # Without variation there is nothing to fit: MATLAB's search then stops at the first shape, and the scales are not numbers.
    shape = torch.where(torch.isfinite(wanted), shape, shapes[0])
    to_scale = torch.exp((torch.lgamma(1 / shape) - torch.lgamma(3 / shape)) / 2)
    return shape, left * to_scale, right * to_scale


@cache
def _shape_table() -> tuple[Tensor, Tensor]:
    """Return shapes 0.2, 0.201 … 10 and Γ(2/a)² / (Γ(1/a) Γ(3/a)) of each."""
    shapes = torch.arange(200, 10001, dtype=torch.float64) / 1000
    return shapes, torch.exp(2 * torch.lgamma(2 / shapes) - torch.lgamma(1 / shapes) - torch.lgamma(3 / shapes))


# Models ---------------------------------------------------------------------------------------------------------------
def gaussian_window() -> NDArray[np.float64]:
    """Return a (7, 7) Gaussian of σ 7/6 with the sum 1."""
    at = np.arange(WINDOW_PX) - WINDOW_PX // 2
    weights = np.exp(-(at[:, None] ** 2 + at[None, :] ** 2) / (2 * WINDOW_SIGMA**2))
    return np.asarray(weights / weights.sum(), np.float64)


def fit_niqe(pictures: Iterable[Picture], *, name: str, colour: Colour = "y") -> NiqeModel:
    """Fit a pristine model to sharp, undistorted photographs, as in §II.B of the paper.

    From each picture, blocks with more than 0.75 of the sharpness of its sharpest block are used. The authors used 125
    photographs of 480×320 to 1280×720; a model of fewer than some hundred blocks is singular. Scores compare only with scores
    of the same model.

    Args:
        pictures: As for `niqe`; pictures without two whole blocks are ignored.
        name: Name of the model in reports.

    Raises:
        ValueError: if all pictures together have fewer than 37 blocks, so that the covariance is singular.
    """
    window = gaussian_window()
    chosen: list[NDArray[np.float64]] = []
    for picture in pictures:
        luma = _luma(picture, colour=colour, peak=None, crop_border=0)
        if (luma.shape[0] // BLOCK_PX) * (luma.shape[1] // BLOCK_PX) < 2:
            continue
        features, sharpness = _block_features(luma, window)
        chosen.append(features[sharpness > SHARPNESS_THRESHOLD * sharpness.max()])
    features = np.concatenate(chosen) if chosen else np.empty((0, FEATURES))
    whole = features[np.isfinite(features).all(axis=1)]
    if len(whole) <= FEATURES:
        raise ValueError(f"a pristine model needs more than {FEATURES} sharp blocks, found {len(whole)}; give more photographs")
    mean, covariance = _gaussian_of(features)
    return NiqeModel(name, mean, covariance, window)


_KEYS = ("mu_pris_param", "cov_pris_param", "gaussian_window")


def load_niqe(path: str | Path) -> NiqeModel:
    """Load a pristine model from a file: .npz or .safetensors with mu_pris_param and cov_pris_param.

    The window is the file's gaussian_window, if it has one, else the paper's. Nothing in the file is executed.

    Raises:
        InputError: if the file does not exist or holds something else.
    """
    path = Path(path)
    advice = (
        "pass niqe_pris_params.npz as published with the metric (mu_pris_param 1x36, cov_pris_param 36x36), or a model "
        "that fit_niqe made"
    )
    try:
        found, name = _read_arrays(path)
    except FileNotFoundError as error:
        raise InputError(path, "no such file", advice) from error
    except (OSError, ValueError, KeyError, zipfile.BadZipFile, SafetensorError) as error:
        raise InputError(path, f"cannot be read as NIQE parameters ({error})", advice) from error
    missing = [key for key in _KEYS[:2] if key not in found]
    if missing:
        raise InputError(path, f"holds no {' and no '.join(missing)}", advice)
    try:
        return NiqeModel(
            name=name,
            mean=found["mu_pris_param"].astype(np.float64).reshape(-1),
            covariance=found["cov_pris_param"].astype(np.float64),
            window=found.get("gaussian_window", gaussian_window()).astype(np.float64),
        )
    except (ValueError, TypeError) as error:
        raise InputError(path, f"does not hold a NIQE model ({error})", advice) from error


def _read_arrays(path: Path) -> tuple[dict[str, NDArray[np.float64]], str]:
    if path.suffix.lower() == ".safetensors":
        if not path.is_file():
            raise FileNotFoundError(path)
        with safe_open(path, framework="np") as file:
            metadata = file.metadata() or {}
            return {key: file.get_tensor(key) for key in file.keys()}, metadata.get("name", path.stem)  # noqa: SIM118 (no dict)
    with np.load(path, allow_pickle=False) as file:
        if not isinstance(file, np.lib.npyio.NpzFile):
            raise ValueError("a single array")
        return {key: file[key] for key in file.files if key in _KEYS}, path.stem


def save_niqe(model: NiqeModel, path: str | Path, *, about: str = "") -> None:
    """Write a model as .safetensors under the published keys.

    Args:
        about: Description of the training pictures; stored in the file.

    Raises:
        OutputError: if the file cannot be written.
    """
    arrays = dict(zip(_KEYS, (model.mean.reshape(1, -1), model.covariance, model.window), strict=True))
    metadata = {"format": "upframe-niqe/1", "name": model.name, "about": json.dumps(about, ensure_ascii=False)}
    atomic_bytes(Path(path), save({key: np.ascontiguousarray(value) for key, value in arrays.items()}, metadata=metadata))
