"""Contact sheets of degradations, to look at before training."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from upframe import pixels
from upframe.drawing.sheet import Box, SheetRow, contact_sheet, most_detailed
from upframe.errors import InputError
from upframe.media.image.files import is_image_name, iter_files
from upframe.media.image.source import read_rgb8
from upframe.media.video.source import VideoSource
from upframe.training.degradations.pipeline import Degradations, apply, draw, mirrored

CROP_PX = 256
"""Side of the shown part: that of the training crops for which the degradations were published."""


@dataclass(frozen=True)
class Preview:
    """A sheet and its description."""

    sheet: NDArray[np.uint8]
    """(H, W, 3)."""
    drawn: tuple[str, ...]
    """Seed of each row, and the operations on its first frame, in order."""


def read_frames(path: Path, *, limit: int) -> Tensor:
    """Read the first frames of a picture, a folder of pictures in natural order, or a video.

    Returns:
        (T, 3, H, W) float32 in [0, 1], T at most `limit`.

    Raises:
        InputError: if a file cannot be read or is not RGB or gray, frames differ in size, or a folder has no frames.
    """
    if path.is_dir() or is_image_name(path):
        files = list(islice(iter_files(path), limit)) if path.is_dir() else [path]
        frames = [pixels.to_unit(read_rgb8(file)) for file in files]
    else:
        with VideoSource(path) as video:
            frames = [pixels.to_unit(frame.pixels) for frame in islice(video, limit)]
    if not frames:
        raise InputError(path, "holds no pictures", "pass a picture, a folder of frames or a video")
    if len({frame.shape for frame in frames}) > 1:
        raise InputError(path, "its pictures differ in size", "pass the frames of one clip")
    return torch.stack(frames)


def preview(clip: Tensor, config: Degradations, *, seed: int, rows: int = 4, name: str = "clip") -> Preview:
    """Degrade the most detailed part of a clip under several seeds.

    A clip of two or more frames is mirrored as in training. A row shows the first and the last frame read, each with its
    mirrored copy; the two differ by the walk of the parameters.

    Args:
        clip: (T, 3, H, W) float32 in [0, 1], the frames read.
        seed: Seed of the first row; each further row adds 1.
        rows: Number of seeds.
        name: Name of the clip in the title.

    Raises:
        InputError: if frames are smaller than a pixel of the output.
    """
    truth = pixels.from_unit(clip[0], np.uint8)
    side = min(CROP_PX, *truth.shape[:2]) // config.scale * config.scale
    if side == 0:
        raise InputError(name, f"is smaller than {config.scale} pixels", "pass larger frames")
    box = most_detailed(truth, side_px=side)
    crop = clip[..., box.top : box.top + side, box.left : box.left + side]
    whole = mirrored(crop) if len(crop) > 1 else crop
    shown = [0, len(crop) - 1, len(crop), len(whole) - 1] if len(crop) > 1 else [0]
    made = [_row(truth, box, whole, config, seed=seed + i, shown=shown) for i in range(rows)]
    again = {len(crop): f" = {len(crop) - 1} again", len(whole) - 1: " = 0 again"} if len(crop) > 1 else {}
    headings = ["ground truth", *(f"frame {i}{again.get(i, '')}" for i in shown)]
    title = f"{config.name} x{config.scale} on {name}, {len(crop)} of {len(whole)} frames read"
    sheet = contact_sheet([row for row, _ in made], headings=headings, title=title)
    return Preview(sheet, tuple(words for _, words in made))


def _row(
    truth: NDArray[np.uint8], box: Box, clip: Tensor, config: Degradations, *, seed: int, shown: list[int]
) -> tuple[SheetRow, str]:
    rng = np.random.default_rng(seed)
    operations = draw(config, len(clip), rng)
    degraded = apply(operations, clip, scale=config.scale, rng=rng)
    enlarged = degraded[shown].repeat_interleave(config.scale, -1).repeat_interleave(config.scale, -2)
    details = [box.cut(truth), *(pixels.from_unit(frame, np.uint8) for frame in enlarged)]
    # The caption has room for the first order only.
    captions = [f"seed {seed}", *(", ".join(o.describe(i) for o in operations[:3]) for i in shown)]
    row = SheetRow(f"seed {seed}", truth, box, tuple(details), tuple(captions))
    return row, f"seed {seed}: " + ", ".join(operation.describe(0) for operation in operations)
