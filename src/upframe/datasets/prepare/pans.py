"""Clips of a camera that moves over photographs: sharp frames with subpixel motion, because freely licensed videos are soft and
compressed.

A video network learns to combine neighbouring frames only from footage with preserved detail. Photographs have it, and any
camera path over them is exact. Only the camera moves, unless clips are to be lively: then some have a piece of the photo
that moves in front of it, surfaces that sway, or light that flickers.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
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

Codes = np.ndarray[tuple[int, ...], np.dtype[np.uint8]]

OVERSAMPLING = 2
"""Photo pixels per pixel of a frame: frames at every subpixel position are equally sharp."""
TURN = 0.004
"""Standard deviation of the camera's turn, in radians a frame, and of its zoom, as a share a frame."""
SHAKE_PX = 0.25
"""Standard deviation of the hand's shake, in pixels of a frame."""

# Of lively clips.
OBJECTS, SWAYING, FLICKERING = 0.5, 0.3, 0.25
"""Shares of the clips with a piece in front, with swaying surfaces, and with flickering light."""
SWAY_PX = 1.5
"""Largest standard deviation of the sway, in pixels of a frame."""
FLICKER = 0.03
"""Largest standard deviation of the light's factor."""
COVERED = (0.1, 0.4)
"""Least and largest share of the frame that the piece in front covers."""


def prepare_pans(
    folder: Path,
    out: Path,
    *,
    frames: int = 12,
    size_px: int = 288,
    per_photo: int = 2,
    speed_px: float = 6.0,
    lively: bool = False,
    seed: int = 0,
) -> Preparation:
    """Make clips `out/PHOTO_p1/00000000.png` and so on, one folder for each camera path; photos that are too small are skipped.

    Args:
        folder: Folder of photographs, with sub-folders.
        frames: Number of frames in each clip.
        size_px: Side of the frames.
        per_photo: Number of clips from each photo.
        speed_px: Fastest motion, in pixels a frame; half of the clips move slower than a quarter of it.
        lively: Whether some clips also have a moving piece in front, swaying surfaces or flickering light.
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
                _write_clip,
                path,
                targets,
                size_px=size_px,
                border_px=border_px,
                speed_px=speed_px,
                lively=lively,
                seed=(seed, clip),
            )
            items.append(Item(targets, make, 2 * frames * size_px**2))
    if not items:
        raise InputError(folder, f"no photo in it holds {side} px", "use smaller frames, fewer of them, or a lower speed")
    how = {"frames": frames, "size_px": size_px, "per_photo": per_photo, "speed_px": speed_px, "seed": seed}
    how |= {"lively": True} if lively else {}  # folders of older versions do not state it
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
    path: Path,
    targets: tuple[Path, ...],
    *,
    size_px: int,
    border_px: int,
    speed_px: float,
    lively: bool,
    seed: tuple[int, str],
) -> None:
    number, clip = seed
    rng = np.random.default_rng([number, *hashlib.sha256(clip.encode()).digest()[:8]])
    side = (size_px + 2 * border_px) * OVERSAMPLING
    photo = read_rgb8(path)
    whole = _part(photo, side, rng)
    camera = camera_path(len(targets), speed_px=speed_px, rng=rng)
    if lively:
        other = _part(photo, side, rng) if rng.random() < OBJECTS else None
        views = _lively_views(whole, camera, size_px, other=other, speed_px=speed_px, rng=rng)
    else:
        views = _views(whole, camera, size_px)
    for view, target in zip(views, targets, strict=True):
        if not target.exists():
            write_pixels(target, _codes(view))


def _part(photo: Codes, side: int, rng: np.random.Generator) -> Tensor:
    """Cut a square from a photo and average it: (1, 3, side, side), 0 to 255."""
    top, left = (int(rng.integers(length - side + 1)) for length in photo.shape[:2])
    crop = np.ascontiguousarray(photo[top : top + side, left : left + side])
    return _averaged(torch.from_numpy(crop).permute(2, 0, 1)[None].float())


def _averaged(photo: Tensor) -> Tensor:
    """Average over a box as wide as a pixel of the frames, so that they do not alias."""
    return F.avg_pool2d(F.pad(photo, (0, 1, 0, 1), mode="replicate"), OVERSAMPLING, stride=1)


def _views(photo: Tensor, path: Tensor, size_px: int, *, sway: Tensor | None = None) -> Iterator[Tensor]:
    """Sample the photo (1, C, S, S) at each point of the path: (C, size_px, size_px) each.

    Args:
        sway: (frames, size_px, size_px, 2), added to the places, in pixels of a frame.
    """
    at = torch.arange(size_px, dtype=torch.float32) - (size_px - 1) / 2
    y, x = torch.meshgrid(at, at, indexing="ij")
    places = torch.stack([x, y, torch.ones_like(x)], dim=-1)
    for i, affine in enumerate(path):
        seen = places @ affine.T
        centred = (seen if sway is None else seen + sway[i]) * OVERSAMPLING  # from the middle of the photo, in its pixels
        grid = (centred * 2 / (photo.shape[-1] - 1))[None]
        yield F.grid_sample(photo, grid, mode="bicubic", padding_mode="border", align_corners=True)[0]


def _codes(view: Tensor) -> Codes:
    return np.ascontiguousarray(view.round().clamp(0, 255).byte().permute(1, 2, 0).numpy())


# Lively clips ---------------------------------------------------------------------------------------------------------
def _lively_views(
    photo: Tensor, camera: Tensor, size_px: int, *, other: Tensor | None, speed_px: float, rng: np.random.Generator
) -> Iterator[Tensor]:
    """As `_views`, with what else moves.

    Args:
        other: The picture that a piece in front shows, of the size of `photo`; None for no piece.
    """
    frames = len(camera)
    sway = _sway(frames, size_px, rng) if rng.random() < SWAYING else None
    light = 1 + rng.normal(0, FLICKER * rng.random(), frames) if rng.random() < FLICKERING else np.ones(frames)
    behind = _views(photo, camera, size_px, sway=sway)
    if other is None:
        yield from (view * factor for view, factor in zip(behind, light, strict=True))
        return
    opacity = _piece(photo.shape[-1], size_px * OVERSAMPLING, rng)
    cut = torch.cat([other * opacity, opacity], dim=1)
    in_front = _views(cut, camera_path(frames, speed_px=speed_px, rng=rng), size_px)
    for view, front, factor in zip(behind, in_front, light, strict=True):
        colours, covered = front[:3], front[3:].clamp(0, 1)
        yield (view * (1 - covered) + colours) * factor


def _sway(frames: int, size_px: int, rng: np.random.Generator) -> Tensor:
    """Draw a smooth field that swings once in 4 to 20 frames: (frames, size_px, size_px, 2)."""
    cells = int(rng.integers(3, 9))
    coarse = torch.from_numpy(rng.normal(0, SWAY_PX * rng.random(), (2, 2, cells, cells))).float()
    sine, cosine = F.interpolate(coarse, size=(size_px, size_px), mode="bicubic", align_corners=True).permute(0, 2, 3, 1)
    phase = torch.arange(frames).view(-1, 1, 1, 1) * (2 * math.pi / rng.uniform(4, 20))
    sway: Tensor = phase.sin() * sine + phase.cos() * cosine
    return sway


def _piece(side: int, seen_px: int, rng: np.random.Generator) -> Tensor:
    """Draw the opacity of an irregular piece near the middle: (1, 1, side, side), 0 to 1, with edges as sharp as a photo's."""
    cells = int(rng.integers(4, 10))
    coarse = torch.from_numpy(rng.standard_normal((1, 1, cells, cells))).float()
    field = F.interpolate(coarse, size=(seen_px, seen_px), mode="bicubic", align_corners=True)
    least = float(field.flatten().quantile(1 - rng.uniform(*COVERED)))
    border = side - seen_px
    inside = F.pad((field > least).float(), (border // 2, border - border // 2, border // 2, border - border // 2))
    return _averaged(inside)
