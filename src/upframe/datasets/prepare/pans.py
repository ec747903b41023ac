"""Clips of a camera that moves over photographs: sharp frames with subpixel motion, because freely licensed videos are soft and
compressed.

A video network learns to combine neighbouring frames only from footage with preserved detail. Photographs have it, and any
camera path over them is exact. No object moves in them, so training needs real clips too.
"""

from __future__ import annotations

import hashlib
import math
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from upframe.datasets.prepare.items import Item, Preparation, require_apart
from upframe.datasets.prepare.pictures import pictures_below
from upframe.errors import InputError, UsageError
from upframe.media.image.files import write_pixels
from upframe.media.image.source import probe, read_rgb8

OVERSAMPLING = 2
"""Photo pixels per pixel of a frame: frames at every subpixel position are equally sharp."""
TURN = 0.004
"""Standard deviation of the camera's turn, in radians a frame, and of its zoom, as a share a frame."""
SHAKE_PX = 0.25
"""Standard deviation of the hand's shake, in pixels of a frame."""


def prepare_pans(
    folder: Path, out: Path, *, frames: int = 12, size_px: int = 288, per_photo: int = 2, speed_px: float = 6.0, seed: int = 0
) -> Preparation:
    """Make clips `out/PHOTO_p1/00000000.png` and so on, one folder for each camera path; photos that are too small are skipped.

    Args:
        folder: Folder of photographs, with sub-folders.
        frames: Number of frames in each clip.
        size_px: Side of the frames.
        per_photo: Number of clips from each photo.
        speed_px: Fastest motion, in pixels a frame; half of the clips move slower than a quarter of it.
        seed: The same seed gives the same clip of a photo, whatever other photos there are.

    Raises:
        InputError: if no photo is large enough.
        UsageError: if a number is out of range.
    """
    if min(frames, size_px, per_photo) < 1 or speed_px < 0:
        raise UsageError("pans", "need frames, size and clips of at least 1, and a speed of at least 0", "change them")
    files = pictures_below(folder)
    require_apart(folder, out)
    # Half of the path lies to each side of the middle; turn, zoom and shake need a few more pixels.
    border_px = math.ceil(speed_px * (frames - 1) / 2 + 4 * SHAKE_PX + 3 * TURN * frames / 2 * size_px) + 2
    side = (size_px + 2 * border_px) * OVERSAMPLING
    items = []
    for name, path in files.items():
        if min(probe(path, first_frame=True).size) < side:
            continue
        for number in range(1, per_photo + 1):
            clip = f"{name.rpartition('.')[0]}_p{number}"
            targets = tuple(out / clip / f"{i:08}.png" for i in range(frames))
            make = partial(
                _write_clip, path, targets, size_px=size_px, border_px=border_px, speed_px=speed_px, seed=(seed, clip)
            )
            items.append(Item(targets, make, 2 * frames * size_px**2))
    if not items:
        raise InputError(folder, f"no photo in it holds {side} px", "use smaller frames, fewer of them, or a lower speed")
    how = {"frames": frames, "size_px": size_px, "per_photo": per_photo, "speed_px": speed_px, "seed": seed}
    facts = (f"{len(files)} photos", f"{len(items)} clips", f"{len(files) - len(items) // per_photo} photos are too small")
    return Preparation(
        f"pans over {folder} in {out}",
        tuple(items),
        {out: {"made": "pans", "source": str(folder.resolve()), **how}},
        facts,
    )


def camera_path(frames: int, *, speed_px: float, rng: np.random.Generator) -> Tensor:
    """Draw (frames, 2, 3) affine maps from pixels of a frame, relative to its middle, to those of the middle frame.

    The path has a steady shift, whose random speed is more often slow, a steady turn and zoom, and the shake of a hand.
    """
    speed = speed_px * float(rng.random()) ** 2
    heading = rng.uniform(0, 2 * math.pi)
    turn, zoom = rng.normal(0, TURN, 2).clip(-2 * TURN, 2 * TURN)
    time = np.arange(frames) - (frames - 1) / 2
    shake = rng.normal(0, SHAKE_PX, (frames, 2)).clip(-3 * SHAKE_PX, 3 * SHAKE_PX)
    angle, scale = time * turn, np.exp(time * zoom)
    cos, sin = scale * np.cos(angle), scale * np.sin(angle)
    shift = time[:, None] * speed * np.array([math.cos(heading), math.sin(heading)]) + shake
    rows = np.stack([np.stack([cos, -sin, shift[:, 0]], -1), np.stack([sin, cos, shift[:, 1]], -1)], 1)
    return torch.from_numpy(rows).float()


def _write_clip(
    path: Path, targets: tuple[Path, ...], *, size_px: int, border_px: int, speed_px: float, seed: tuple[int, str]
) -> None:
    number, clip = seed
    rng = np.random.default_rng([number, *hashlib.sha256(clip.encode()).digest()[:8]])
    side = (size_px + 2 * border_px) * OVERSAMPLING
    photo = read_rgb8(path)
    top, left = (int(rng.integers(length - side + 1)) for length in photo.shape[:2])
    crop = np.ascontiguousarray(photo[top : top + side, left : left + side])
    whole = torch.from_numpy(crop).permute(2, 0, 1)[None].float()
    # A box as wide as a pixel of the frames, so that they do not alias.
    whole = F.avg_pool2d(F.pad(whole, (0, 1, 0, 1), mode="replicate"), OVERSAMPLING, stride=1)
    for view, target in zip(
        _views(whole, camera_path(len(targets), speed_px=speed_px, rng=rng), size_px), targets, strict=True
    ):
        if not target.exists():
            write_pixels(target, view)


def _views(photo: Tensor, path: Tensor, size_px: int) -> list[np.ndarray[tuple[int, ...], np.dtype[np.uint8]]]:
    """Sample the photo (1, 3, S, S), 0 to 255, at each point of the path: (size_px, size_px, 3) each."""
    at = torch.arange(size_px, dtype=torch.float32) - (size_px - 1) / 2
    y, x = torch.meshgrid(at, at, indexing="ij")
    places = torch.stack([x, y, torch.ones_like(x)], dim=-1)
    views = []
    for affine in path:
        centred = (places @ affine.T) * OVERSAMPLING  # from the middle of the photo, in its pixels
        grid = (centred * 2 / (photo.shape[-1] - 1))[None]
        view = F.grid_sample(photo, grid, mode="bicubic", padding_mode="border", align_corners=True)
        views.append(np.ascontiguousarray(view[0].round().clamp(0, 255).byte().permute(1, 2, 0).numpy()))
    return views
