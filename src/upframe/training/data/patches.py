"""Patches: crops of photos and clips in a random pose, with inputs that are stored, reduced or randomly degraded."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from upframe.datasets.clips import BD_RADIUS, DEGRADATIONS
from upframe.datasets.footage import Footage, FootageSet
from upframe.datasets.stores import FrameStore
from upframe.errors import InputError
from upframe.training.data.samples import Sample
from upframe.training.degradations.pipeline import mirrored
from upframe.training.recipes.recipe import DataRecipe

log = logging.getLogger(__name__)

Degrade = Callable[[Tensor, np.random.Generator], Tensor]
"""(T, 3, H, W) float32 in [0, 1] → (T, 3, h, w) of the same kind."""

# The cubic kernel widened by s reaches 2·s pixels of the ground truth, so 3 low-resolution pixels of context are enough.
_CUBIC_CONTEXT_PX = 3


class Patches:
    """Draws patches; a `samples.Source`.

    Every pixel of the training set is equally likely to be in a patch, in any clip or picture, except near borders. Inputs by
    "bicubic" or "bd" equal, bit for bit, the same part of the whole picture's stored input: patches lie on multiples of the
    scale and are cut with context.

    Args:
        footage: Clips that are too short or too small are skipped with a warning.
        scale: Ground-truth pixels per input pixel.
        degrade: Makes the input: of the ground truth for "degraded", of the stored input for "paired" with a degradation.

    Raises:
        InputError: if no clip is long and large enough. While drawing: if a file is damaged, or its size differs from its
            clip's or does not fit its counterpart.
    """

    def __init__(self, footage: FootageSet, data: DataRecipe, *, scale: int, degrade: Degrade | None = None) -> None:
        if (data.degradation is None) != (degrade is None):
            raise ValueError(f"{data.low_quality} inputs with{'out' if degrade is None else ''} a degradation")
        if (data.low_quality == "paired") != (footage.input_store is not None):
            raise ValueError(f"{data.low_quality} inputs with{'out' if footage.input_store is None else ''} stored ones")
        self.footage = footage
        self._data, self._scale, self._degrade = data, scale, degrade
        self._context_px = _context_px(data, scale)
        self._side = (data.patch_px + 2 * self._context_px) * scale
        self._span = (data.frames_read - 1) * min(data.intervals) + 1
        self._clips = [clip for clip in footage.clips if self._is_usable(clip)]
        if not self._clips:
            needed = f"{self._side} px" + (f" and {self._span} frames" if self._span > 1 else "")
            raise InputError("training data", f"no clip in it has {needed}", "use smaller patches or shorter clips")
        sizes = [footage.store.size(clip.frames[0]) for clip in self._clips]
        pixels = [h * w * len(clip.frames) for (h, w), clip in zip(sizes, self._clips, strict=True)]
        self._share = np.cumsum(pixels) / np.sum(pixels)

    def __call__(self, rng: np.random.Generator, /) -> Sample:
        data = self._data
        drawn = [self._draw(rng) for _ in range(data.draws)]
        clip, order, gt_codes, top, left = drawn[0] if len(drawn) == 1 else max(drawn, key=lambda place: _detail(place[2][0]))
        pose = tuple(bool(number < 0.5) for number in rng.random(3))
        pose = (pose[0] and data.hflip, pose[1] and data.vflip, pose[2] and data.transpose)
        gt = gt_codes.float() / 255
        if data.low_quality == "degraded":
            lq = gt = self._full_length(_posed(gt, *pose)).contiguous()
        else:
            lq = self._stored_input(clip, order, top, left) if data.low_quality == "paired" else self._reduced(gt_codes)
            edge = self._context_px * self._scale
            gt = gt[..., edge : gt.shape[-2] - edge, edge : gt.shape[-1] - edge]
            lq, gt = (self._full_length(_posed(x, *pose)).contiguous() for x in (lq, gt))
        lq = lq if self._degrade is None else self._degrade(lq, rng)
        return Sample(lq, gt) if data.kind == "clips" else Sample(lq[0], gt[0])

    def _is_usable(self, clip: Footage) -> bool:
        size = self.footage.store.size(clip.frames[0])
        if len(clip.frames) < self._span or min(size) < self._side:
            log.warning(
                "skipped %s (%d frames of %dx%d): %d px and %d frames are needed",
                *(clip.name, len(clip.frames), *size, self._side, self._span),
            )
            return False
        return True

    # Drawing ----------------------------------------------------------------------------------------------------------
    def _draw(self, rng: np.random.Generator) -> tuple[Footage, list[int], Tensor, int, int]:
        """Draw a clip, positions of its frames, and a part of their ground truth with its place."""
        clip = self._clips[int(np.searchsorted(self._share, rng.random(), side="right"))]
        order = self._draw_frames(clip, rng)
        return clip, order, *self._crop(clip, order, rng)

    def _draw_frames(self, clip: Footage, rng: np.random.Generator) -> list[int]:
        """Draw the positions of the frames to read, in the order of the sample."""
        data, count = self._data, len(clip.frames)
        fitting = [i for i in data.intervals if (data.frames_read - 1) * i < count]
        interval = fitting[int(rng.integers(len(fitting)))]
        span = (data.frames_read - 1) * interval + 1
        start = int(rng.integers(count - span + 1))
        order = list(range(start, start + span, interval))
        reverse = bool(rng.random() < 0.5)  # always drawn, so that the switch changes no other random number
        return order[::-1] if data.time_reversal and reverse else order

    def _crop(self, clip: Footage, order: list[int], rng: np.random.Generator) -> tuple[Tensor, int, int]:
        """Draw a part of the ground truth with its context, (T, 3, side, side) uint8, and return it with its place."""
        store, s, side = self.footage.store, self._scale, self._side
        height, width = store.size(clip.frames[0])
        # Multiples of the scale, so that the patch has the pixel grid of the whole picture's input.
        top = int(rng.integers((height - side) // s + 1)) * s
        left = int(rng.integers((width - side) // s + 1)) * s
        frames = [self._read(store, clip.frames[i], (height, width)) for i in order]
        return _stacked([frame[top : top + side, left : left + side] for frame in frames]), top, left

    def _read(self, store: FrameStore, key: str, size: tuple[int, int]) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
        frame = store.read(key)
        if frame.shape[:2] != size:
            h, w = frame.shape[:2]
            raise InputError(Path(key), f"is {h}x{w}, not {size[0]}x{size[1]} (height x width)", "check the folder")
        return frame

    # Inputs -----------------------------------------------------------------------------------------------------------
    def _reduced(self, codes: Tensor) -> Tensor:
        """Reduce the ground truth to the input that a stored set would hold here, without the context."""
        reduce = DEGRADATIONS["bicubic" if self._data.low_quality == "bicubic" else "gaussian"]
        edge = self._context_px
        lq = reduce(codes.float(), self._scale)
        return lq[..., edge : lq.shape[-2] - edge, edge : lq.shape[-1] - edge].float() / 255

    def _stored_input(self, clip: Footage, order: list[int], top: int, left: int) -> Tensor:
        store, s, side = self.footage.input_store, self._scale, self._data.patch_px
        assert store is not None
        height, width = self.footage.store.size(clip.frames[0])
        frames = [self._read(store, clip.inputs[i], (height // s, width // s)) for i in order]
        top, left = top // s, left // s
        return _stacked([frame[top : top + side, left : left + side] for frame in frames]).float() / 255

    def _full_length(self, clip: Tensor) -> Tensor:
        return mirrored(clip) if self._data.mirrored else clip


def _context_px(data: DataRecipe, scale: int) -> int:
    """Return the context in input pixels: how far around a patch its input depends on the picture."""
    if data.low_quality == "bicubic":
        return _CUBIC_CONTEXT_PX
    return math.ceil(BD_RADIUS / scale) if data.low_quality == "bd" else 0


def patch_side_px(data: DataRecipe, *, scale: int) -> int:
    """Return the side of the part of a picture that one patch needs; smaller pictures cannot be used."""
    return (data.patch_px + 2 * _context_px(data, scale)) * scale


def _stacked(frames: list[np.ndarray[tuple[int, ...], np.dtype[np.uint8]]]) -> Tensor:
    return torch.from_numpy(np.stack(frames)).permute(0, 3, 1, 2)  # (T, 3, H, W)


def _detail(codes: Tensor) -> float:
    """Return the mean difference of neighbouring pixels of a (3, H, W) picture."""
    green = codes[1].float()
    return float((green[1:] - green[:-1]).abs().mean() + (green[:, 1:] - green[:, :-1]).abs().mean())


def _posed(x: Tensor, hflip: bool, vflip: bool, transpose: bool) -> Tensor:
    axes = [axis for axis, flip in ((-1, hflip), (-2, vflip)) if flip]
    x = x.flip(axes) if axes else x
    return x.transpose(-2, -1) if transpose else x
