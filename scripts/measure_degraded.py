"""Measure models for real photographs on degraded copies of photographs that no training saw, and draw crops of the results.

Usage: python scripts/measure_degraded.py PHOTOS --models bicubic photo-real-x4 [--limit N] [--side 512]
       [--niqe-params niqe_pris_params.npz] [--sheet SHEET.jpg --crops NAME:x:y …]

Every photo is cut to its centre, reduced to a quarter and damaged in the ways of `DAMAGES`, always with the same random
numbers. A line for each damage and model gives PSNR on Y, NIQE (if its parameters are given), the PSNR of the result reduced
again against the input (consistency), and the largest shift of a mean colour in code values. `--sheet` draws crops of all
results and of the truth at 100 %.
"""

from __future__ import annotations

import argparse
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw

import upframe
from upframe.media.compression import jpeg_compressed
from upframe.metrics.fidelity import psnr
from upframe.metrics.niqe import NiqeModel, load_niqe, niqe
from upframe.pixels import imresize, resize

RGB8 = NDArray[np.uint8]
SCALE = 4


def jpeg30(small: RGB8, rng: np.random.Generator) -> RGB8:
    """A small file from the web."""
    return jpeg_compressed(small, quality=30)


def noise_jpeg50(small: RGB8, rng: np.random.Generator) -> RGB8:
    """A phone in the evening: noise of σ 8, compressed."""
    noisy = small + rng.normal(0, 8, small.shape)
    return jpeg_compressed(_codes(noisy), quality=50)


def blur_resize(small: RGB8, rng: np.random.Generator) -> RGB8:
    """Enlarged before by somebody: reduced to 70 %, enlarged bilinearly, compressed."""
    height, width = small.shape[:2]
    less = Image.fromarray(small).resize((int(width * 0.7), int(height * 0.7)), Image.Resampling.BILINEAR)
    return jpeg_compressed(np.asarray(less.resize((width, height), Image.Resampling.BILINEAR)), quality=75)


def scan(small: RGB8, rng: np.random.Generator) -> RGB8:
    """A soft print with grain."""
    soft = np.asarray(Image.fromarray(small).reduce(2).resize((small.shape[1], small.shape[0]), Image.Resampling.BICUBIC))
    soft = (soft.astype(float) + small) / 2
    return jpeg_compressed(_codes(soft + rng.normal(0, 10, (*small.shape[:2], 1))), quality=85)


DAMAGES: dict[str, Callable[[RGB8, np.random.Generator], RGB8]] = {
    "jpeg30": jpeg30,
    "noise-jpeg50": noise_jpeg50,
    "blur-resize": blur_resize,
    "scan": scan,
}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", type=Path, help="folder of PNG files")
    parser.add_argument("--models", nargs="+", default=["bicubic", "photo-real-x4"], help="names or weights files")
    parser.add_argument("--limit", type=int, help="measure only every n-th photo, so many in all")
    parser.add_argument("--side", type=int, default=512, help="longest side of the centre of a photo")
    parser.add_argument("--damages", nargs="+", default=list(DAMAGES), choices=DAMAGES)
    parser.add_argument("--niqe-params", type=Path)
    parser.add_argument("--sheet", type=Path, help="picture to write")
    parser.add_argument("--crops", nargs="+", default=[], metavar="PHOTO:DAMAGE:X:Y", help="corners in the enlarged centre")
    parser.add_argument("--crop-side", type=int, default=200)
    chosen = parser.parse_args(arguments)
    torch.set_num_threads(1)
    enlargers = {name: enlarger(name) for name in chosen.models}
    if chosen.sheet:
        sheet = drawn(chosen.photos, chosen.crops, enlargers, side=chosen.side, crop=chosen.crop_side)
        sheet.save(chosen.sheet, quality=85)
        return
    files = sorted(chosen.photos.glob("*.png"))
    files = files[:: max(len(files) // (chosen.limit or len(files)), 1)][: chosen.limit]
    model = load_niqe(chosen.niqe_params) if chosen.niqe_params else None
    print("damage model PSNR-Y NIQE consistency shift")  # noqa: T201
    for damage in chosen.damages:
        pairs = [(truth := centre(file, chosen.side), damaged(truth, damage, file.stem)) for file in files]
        for name, enlarge in enlargers.items():
            rows = np.array([measured(enlarge(small), truth, small, model) for truth, small in pairs])
            means = rows.mean(0)
            print(f"{damage} {name} {means[0]:.2f} {means[1]:.2f} {means[2]:.2f} {rows[:, 3].max():.2f}", flush=True)  # noqa: T201


def enlarger(name: str) -> Callable[[RGB8], RGB8]:
    if name == "bicubic":
        return lambda small: _codes(imresize(_planes(small), SCALE)[0].permute(1, 2, 0).numpy() * 255)
    return upframe.Upscaler(upframe.load(name))


def centre(file: Path, side: int) -> RGB8:
    """Return the centre of a photo, at most `side` px a side, in multiples of the scale."""
    with Image.open(file) as opened:
        photo = np.asarray(opened.convert("RGB"))
    height, width = (min(length, side) // SCALE * SCALE for length in photo.shape[:2])
    top, left = ((full - part) // 2 for full, part in zip(photo.shape[:2], (height, width), strict=True))
    return photo[top : top + height, left : left + width]


def damaged(truth: RGB8, damage: str, name: str) -> RGB8:
    small = _codes(imresize(_planes(truth), 1 / SCALE)[0].permute(1, 2, 0).numpy() * 255)
    return DAMAGES[damage](small, np.random.default_rng(zlib.crc32(name.encode())))


def measured(result: RGB8, truth: RGB8, small: RGB8, model: NiqeModel | None) -> tuple[float, float, float, float]:
    again = _codes(resize(_planes(result), small.shape[:2])[0].permute(1, 2, 0).numpy() * 255)
    shift = np.abs(result.mean((0, 1)) - small.mean((0, 1))).max()
    return (
        psnr(result, truth, luma=True, crop_border=SCALE),
        niqe(result, model) if model else float("nan"),
        psnr(again, small),
        float(shift),
    )


def drawn(
    photos: Path, crops: Sequence[str], enlargers: dict[str, Callable[[RGB8], RGB8]], *, side: int, crop: int
) -> Image.Image:
    """Draw a row for each crop: the results of all models, and the truth."""
    names = [*enlargers, "truth"]
    sheet = Image.new("RGB", (len(names) * (crop + 4), len(crops) * (crop + 18)), "white")
    pen = ImageDraw.Draw(sheet)
    for row, place in enumerate(crops):
        photo, damage, x, y = place.split(":")
        truth = centre(photos / f"{photo}.png", side)
        small = damaged(truth, damage, photo)
        for column, name in enumerate(names):
            result = truth if name == "truth" else enlargers[name](small)
            cut = result[int(y) : int(y) + crop, int(x) : int(x) + crop]
            at = (column * (crop + 4), row * (crop + 18))
            sheet.paste(Image.fromarray(cut), (at[0], at[1] + 14))
            pen.text(at, f"{damage}  {Path(name).stem}", fill="black")
    return sheet


def _planes(picture: RGB8) -> torch.Tensor:
    return torch.from_numpy(picture.copy()).permute(2, 0, 1)[None].double() / 255


def _codes(values: NDArray[np.floating]) -> RGB8:
    return np.rint(np.clip(values, 0, 255)).astype(np.uint8)


if __name__ == "__main__":
    main()
