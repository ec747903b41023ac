"""Measure models on degraded clips: sharpness and steadiness.

Usage: python scripts/measure_degraded_clips.py CLIP... --models photo-real-x4 video-real-x4 [--degradation video-mild]
       [--seed 1] [--frames 10]

A CLIP is a folder of frames. They are cut to a multiple of four, reduced and damaged by the chain of the seed. A line for each
clip and model gives PSNR-Y, the mean over the frames without 4 px at the border; the warping error along the truth's motion
(`upframe.metrics.temporal`); and the flicker, the mean difference of what changes from frame to frame to what changes in the
truth, in code values. Photo networks enlarge frame by frame. The last lines are means over the clips.
"""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from upframe.engines import TorchOptions
from upframe.media.image.source import read_pixels
from upframe.metrics.fidelity import psnr
from upframe.metrics.temporal import warping_error
from upframe.models.registry import Model, load
from upframe.training.degradations.pipeline import find_degradations
from upframe.upscaling.clips import ClipUpscaler
from upframe.upscaling.images import Upscaler
from upframe.upscaling.options import UpscaleOptions

RGB8 = NDArray[np.uint8]
SCALE, BORDER_PX = 4, 4


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clips", nargs="+", type=Path, help="folders of frames")
    parser.add_argument("--models", nargs="+", default=["photo-real-x4", "video-real-x4"], help="names or weights files")
    parser.add_argument("--degradation", default="video-mild")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--frames", type=int, default=10)
    chosen = parser.parse_args(arguments)
    torch.set_num_threads(1)
    models = {name: load(Path(name) if Path(name).is_file() else name) for name in chosen.models}
    rows: dict[str, list[tuple[float, float, float]]] = {name: [] for name in models}
    for folder in chosen.clips:
        truth = clip(folder, chosen.frames)
        small = degraded(truth, chosen.degradation, chosen.seed)
        for name, model in models.items():
            rows[name].append(measured(enlarged(model, small), truth))
            print(folder, name, "{:.2f} {:.6f} {:.3f}".format(*rows[name][-1]), flush=True)  # noqa: T201
    for name, of_model in rows.items():
        print("mean", name, "{:.2f} {:.6f} {:.3f}".format(*np.mean(of_model, axis=0)))  # noqa: T201


def clip(folder: Path, frames: int) -> RGB8:
    """The first frames, (T, H, W, 3), with sides that the scale divides."""
    files = sorted(folder.glob("*.png"))[:frames]
    if not files:
        raise SystemExit(f"{folder} holds no PNG files")
    made = np.stack([read_pixels(file) for file in files])
    height, width = (side // SCALE * SCALE for side in made.shape[1:3])
    return made[:, :height, :width, :3]


def degraded(truth: RGB8, degradation: str, seed: int) -> RGB8:
    frames = torch.from_numpy(truth).permute(0, 3, 1, 2).float() / 255
    made = find_degradations(degradation, scale=SCALE)(frames, np.random.default_rng(seed))
    return (made.clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1).numpy()


def enlarged(model: Model, small: RGB8) -> RGB8:
    options = UpscaleOptions(engine=TorchOptions(device="cpu", precision="fp32"))
    if model.spec.window is None:
        with Upscaler(model, options) as upscaler:
            return np.stack([upscaler(frame) for frame in small])
    with contextlib.closing(ClipUpscaler(model, options)) as upscaler:
        return np.stack(list(upscaler.frames(list(small))))


def measured(made: RGB8, truth: RGB8) -> tuple[float, float, float]:
    """PSNR-Y, warping error and flicker."""
    levels = [psnr(one, other, luma=True, crop_border=BORDER_PX) for one, other in zip(made, truth, strict=True)]
    flicker = np.abs(np.diff(made.astype(float), axis=0) - np.diff(truth.astype(float), axis=0)).mean()
    ours, theirs = ([torch.from_numpy(frame).permute(2, 0, 1) for frame in frames] for frames in (made, truth))
    return float(np.mean(levels)), warping_error(ours, motion=theirs), float(flicker)


if __name__ == "__main__":
    main()
