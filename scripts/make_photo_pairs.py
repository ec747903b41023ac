"""Make training pairs of true photographs: sharp crops of them, and MATLAB's bicubic reduction of these.

Usage: python scripts/make_photo_pairs.py PHOTOS... --out PAIRS --scale 4 [--shrink 2] [--side 512] [--draws 4] [--seed 1]

A photo is first shrunk, because pictures from cameras are soft at the level of pixels. PAIRS/gt gets the most detailed of
several random crops, PAIRS/lq its reduction. Recipes with low_quality=paired train on them, beside pairs by
scripts/make_pattern_pairs.py in the same folders. A photo that has its pair already is skipped.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from upframe.files import atomic_path
from upframe.pixels import imresize


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", nargs="+", type=Path, help="picture files or folders of them")
    parser.add_argument("--out", required=True, type=Path, help="folder of the pairs")
    parser.add_argument("--scale", type=int, default=4)
    parser.add_argument("--shrink", type=int, default=2, help="factor by which photos are shrunk first")
    parser.add_argument("--side", type=int, default=512, help="side of a crop in pixels")
    parser.add_argument("--draws", type=int, default=4, help="crops to choose from")
    parser.add_argument("--seed", type=int, default=1)
    chosen = parser.parse_args(arguments)
    photos = [file for given in chosen.photos for file in (sorted(given.iterdir()) if given.is_dir() else [given])]
    for number, photo in enumerate(photos, 1):
        rng = np.random.default_rng((chosen.seed, number))
        targets = [chosen.out / folder / f"{photo.stem}_s{chosen.shrink}.png" for folder in ("lq", "gt")]
        made = "there already"
        if not targets[1].exists():  # written last
            sharp = sharpest(photo, shrink=chosen.shrink, side=chosen.side, draws=chosen.draws, rng=rng)
            made = "too small" if sharp is None else "written"
            if sharp is not None:
                for target, picture in zip(targets, (reduced(sharp, chosen.scale), sharp), strict=True):
                    target.parent.mkdir(parents=True, exist_ok=True)
                    with atomic_path(target) as part:
                        Image.fromarray(picture).save(part, format="PNG", compress_level=1)
        print(f"{number}/{len(photos)} {photo.name}: {made}", flush=True)  # noqa: T201


def sharpest(photo: Path, *, shrink: int, side: int, draws: int, rng: np.random.Generator) -> NDArray[np.uint8] | None:
    """Return the most detailed of `draws` random crops (side, side, 3) of the shrunk photo; None if it is smaller."""
    with Image.open(photo) as opened:
        small = np.asarray(opened.convert("RGB").reduce(shrink))
    height, width = small.shape[:2]
    if min(height, width) < side:
        return None
    places = [(int(rng.integers(height - side + 1)), int(rng.integers(width - side + 1))) for _ in range(draws)]
    return max((small[top : top + side, left : left + side] for top, left in places), key=detail)


def detail(picture: NDArray[np.uint8]) -> float:
    """Return the mean difference of neighbouring pixels in green."""
    green = picture[..., 1].astype(np.float32)
    return float(np.abs(np.diff(green, axis=0)).mean() + np.abs(np.diff(green, axis=1)).mean())


def reduced(picture: NDArray[np.uint8], scale: int) -> NDArray[np.uint8]:
    """Reduce (H, W, 3) by MATLAB's bicubic."""
    unit = torch.from_numpy(picture.copy()).permute(2, 0, 1).float() / 255
    return imresize(unit, 1 / scale).permute(1, 2, 0).clamp(0, 1).mul(255).round().to(torch.uint8).numpy()


if __name__ == "__main__":
    main()
