"""Make training pairs whose target is the output of a teacher: reduced pictures, and the teacher's enlargements of them.

Usage: python scripts/make_teacher_pairs.py PHOTOS... --teacher WEIGHTS --out PAIRS [--reduce 4] [--poses 0 5]
       [--target-scale 3] [--threads N]

PAIRS/lq gets each photo reduced by MATLAB's bicubic, PAIRS/gt the teacher's enlargement of it: the mean over some of the
eight poses (rotations by quarter turns, mirrored from 4 on), rounded to 8 bits. Recipes with low_quality=paired train on
them: `upframe train photo-x4-distilled --data PAIRS/gt --data-lq PAIRS/lq`. A photo that has its pair already is skipped,
so the same command resumes. A pair needs no true picture, so any sharp photo will do.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

import upframe
from upframe.files import atomic_path
from upframe.pixels import imresize

LEAST_PX = 64  # a smaller input holds no patch of 48 px with its context


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", nargs="+", type=Path, help="picture files or folders of them")
    parser.add_argument("--teacher", required=True, help="name or weights file of the network that makes the targets")
    parser.add_argument("--out", required=True, type=Path, help="folder of the pairs")
    parser.add_argument("--reduce", type=int, default=4, help="factor by which photos are reduced to inputs")
    parser.add_argument(
        "--target-scale", type=int, help="scale of the targets, if the teacher's is larger: they are reduced to it"
    )
    parser.add_argument("--poses", type=int, nargs="+", default=list(range(8)), choices=range(8), help="poses to average")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    chosen = parser.parse_args(arguments)
    torch.set_num_threads(chosen.threads)
    with upframe.Upscaler(upframe.load(chosen.teacher)) as teacher:
        photos = [file for given in chosen.photos for file in (sorted(given.iterdir()) if given.is_dir() else [given])]
        for number, photo in enumerate(photos, 1):
            made = make_pair(
                photo, teacher, chosen.out, reduce=chosen.reduce, poses=chosen.poses, target_scale=chosen.target_scale
            )
            print(f"{number}/{len(photos)} {photo.name}: {made}", flush=True)  # noqa: T201


def make_pair(
    photo: Path,
    teacher: upframe.Upscaler,
    out: Path,
    *,
    reduce: int,
    poses: Sequence[int],
    target_scale: int | None = None,
) -> str:
    """Write the pair of one photo, and say what became of it."""
    name = f"{photo.stem}_r{reduce}.png"
    lq_path, gt_path = out / "lq" / name, out / "gt" / name
    if gt_path.exists():  # written last
        return "there already"
    pixels = np.asarray(Image.open(photo).convert("RGB"))
    height, width = (side // reduce * reduce for side in pixels.shape[:2])
    if min(height, width) // reduce < LEAST_PX:
        return f"too small, needs {LEAST_PX * reduce} px"
    unit = torch.from_numpy(pixels[:height, :width].copy()).permute(2, 0, 1)[None].float() / 255
    small = imresize(unit, 1 / reduce)[0].permute(1, 2, 0).clamp(0, 1).mul(255).round().to(torch.uint8).numpy()
    target = enlarged(small.astype(np.float32) / 255, teacher, poses)
    if target_scale is not None:
        target = reduced(target, target_scale * small.shape[0] / target.shape[0])
    for path, picture in ((lq_path, small), (gt_path, np.rint(target * 255).astype(np.uint8))):
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(path) as part:
            Image.fromarray(picture).save(part, format="PNG", compress_level=1)
    return f"{small.shape[1]}x{small.shape[0]} -> {target.shape[1]}x{target.shape[0]}"


def enlarged(picture: NDArray[np.float32], teacher: upframe.Upscaler, poses: Sequence[int]) -> NDArray[np.float32]:
    """(H, W, 3) in [0, 1] → the mean of the teacher's results over the poses, turned back."""
    total = np.zeros((), np.float32)
    for pose in poses:
        posed = np.rot90(picture, pose % 4)
        result = teacher(np.ascontiguousarray(posed[:, ::-1] if pose >= 4 else posed))
        total = total + np.rot90(result[:, ::-1] if pose >= 4 else result, -(pose % 4))
    return np.clip(total / len(poses), 0, 1)


def reduced(picture: NDArray[np.float32], factor: float) -> NDArray[np.float32]:
    """(H, W, 3) in [0, 1] resized by MATLAB's bicubic."""
    resized = imresize(torch.from_numpy(picture.copy()).permute(2, 0, 1)[None], factor)
    return resized[0].permute(1, 2, 0).clamp(0, 1).numpy()


if __name__ == "__main__":
    main()
