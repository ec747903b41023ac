"""Measure the error of a halo, of tiled against untiled output, for the tables of docs/tiling.md.

Usage: python scripts/measure_halo.py PICTURES_FOLDER MODEL... [--tile 128] [--limit 6] [--border 300]

With --border, it measures the error of flat borders instead: corners of the pictures, 160x160 px, between two bars of this many
rows of black, of two grays or of white, at the default halo. All in float32.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from upframe.engines import TorchOptions, keep_freed_memory
from upframe.media.frames import Pixels
from upframe.media.image.files import iter_files
from upframe.media.image.source import read_pixels
from upframe.models.registry import Model, load
from upframe.upscaling.images import Upscaler
from upframe.upscaling.options import TileSize, UpscaleOptions


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("models", nargs="+")
    parser.add_argument("--tile", type=int, default=128)
    parser.add_argument("--limit", type=int, default=6)
    parser.add_argument("--border", type=int, help="rows of each bar")
    arguments = parser.parse_args()
    keep_freed_memory()
    pictures = [read_pixels(p) for p in list(iter_files(arguments.folder))[: arguments.limit]]
    pictures = [p.astype(np.float32) / 255 for p in pictures if p.dtype == np.uint8]
    print("| model | halo [px] | PSNR to untiled [dB] | largest error [of 255] | 99.9 % within [of 255] |")  # noqa: T201
    print("|---|---:|---:|---:|---:|")  # noqa: T201
    for name in arguments.models:
        model = load(name)
        if arguments.border:
            bars = ((arguments.border, arguments.border), (0, 0), (0, 0))
            framed = [np.pad(p[:160, :160], bars, constant_values=c / 255) for p in pictures for c in (0, 90, 200, 255)]
            report(model, framed, [model.spec.halo_px], tile="auto")
            continue
        halos = [0, 4, 8, 16, 24, 32, 48, *([model.spec.exact_halo_px] if model.spec.exact_halo_px else [])]
        report(model, pictures, halos, tile=arguments.tile)


def report(model: Model, pictures: Sequence[Pixels], halos: Sequence[int], *, tile: TileSize) -> None:
    """Print a line for each halo: the tiled pictures against the untiled ones."""
    exact = TorchOptions(precision="fp32")
    whole = [Upscaler(model, UpscaleOptions(tile="off", engine=exact))(p) for p in pictures]
    for halo in halos:
        up = Upscaler(model, UpscaleOptions(tile=tile, halo=halo, engine=exact))
        errors = np.concatenate([np.abs(up(p) - w).ravel() for p, w in zip(pictures, whole, strict=True)])
        psnr = -10 * np.log10(np.mean(errors.astype(np.float64) ** 2))
        print(  # noqa: T201
            f"| {model.name} | {halo} | {psnr:.1f} | {errors.max() * 255:.3f} | {np.quantile(errors, 0.999) * 255:.3f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
