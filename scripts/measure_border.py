"""Measure what the mirrored border of shipped weights costs (`Card.border_px`): runs in turns with it and without, medians.

Usage: python scripts/measure_border.py [MODEL] [--sizes 320x180 640x360 1200x800] [--runs 11]
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

import upframe
from upframe.machine import processor_name
from upframe.upscaling.images import Upscaler


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", default="photo-x2")
    parser.add_argument("--sizes", nargs="+", default=["320x180", "640x360", "1200x800"])
    parser.add_argument("--runs", type=int, default=11)
    chosen = parser.parse_args(arguments)
    model = upframe.load(chosen.model)
    if model.card is None or not model.card.border_px:
        raise SystemExit(f"{chosen.model} has no border")
    forms = (Upscaler(model), Upscaler(replace(model, card=replace(model.card, border_px=0))))
    print(f"{chosen.model}, border of {forms[0].border_px} px, {processor_name()}")  # noqa: T201
    for size in chosen.sizes:
        width, height = map(int, size.split("x"))
        picture = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
        seconds: tuple[list[float], list[float]] = ([], [])
        for run in range(chosen.runs + 1):
            for up, times in zip(forms, seconds, strict=True):
                began = time.perf_counter()
                up(picture)
                if run:  # the first one prepares kernels and memory
                    times.append(time.perf_counter() - began)
        with_it, without = map(statistics.median, seconds)
        print(f"{size}: {1000 * with_it:.0f} ms with, {1000 * without:.0f} ms without, ratio {with_it / without:.3f}")  # noqa: T201


if __name__ == "__main__":
    main()
