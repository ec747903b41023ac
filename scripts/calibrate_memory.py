"""Measure the memory of video networks, and print the laws for their specs (`spec.Memory`).

Each call runs in its own process with the allocator settings of the command line and one thread. The added memory is the peak
of resident memory minus the memory of the process just before the call (`memory_plan.process_bytes`). The peak includes the
input, the memory before does not. Fragmentation of the allocator is random; `--repeat` shows how much it varies.

Usage: python scripts/calibrate_memory.py MODEL [--precision fp32] [--keep full] [--shapes 5x64x64,2x160x208] [--repeat 1]
           [--parameters '{"blocks": 1}']

Shapes are FRAMESxHEIGHTxWIDTH. A law has up to four terms, so more shapes than that are needed, from small to large and from
short to long. Memory does not depend on the number of blocks of a network; only time does. `--parameters` replaces arguments of
the network, so that one with few blocks is measured in a fraction of the time.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch

from upframe.engines import TorchEngine, TorchOptions, keep_freed_memory
from upframe.machine import forget_peak, peak_bytes, process_bytes
from upframe.models.networks import MODELS
from upframe.models.registry import Model
from upframe.models.spec import ModelSpec, Precision
from upframe.upscaling import memory

SHAPES = "5x64x64,2x64x64,12x64x64,5x112x112,5x160x208,2x160x208,12x112x112"


@dataclass(frozen=True)
class Measured:
    """One call."""

    frames: int
    size: tuple[int, int]
    held_bytes: int
    """Memory of the process before the call, in bytes."""
    added_bytes: int


def measure(
    model: str, shape: tuple[int, int, int], *, precision: str = "fp32", keep: str = "full", parameters: str = "{}"
) -> Measured:
    """Measure the bytes that one call adds, in a new process.

    Args:
        model: Key of `MODELS`.
        shape: (frames, height, width).
        keep: As `models.interfaces.Keep`, for a network that streams.
        parameters: Arguments of the network that replace those of the model, as JSON.
    """
    command = [sys.executable, __file__, model, "--precision", precision, "--keep", keep, "--parameters", parameters]
    command += ["--here", "x".join(map(str, shape))]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603  # this very script
    if done.returncode:
        raise RuntimeError(done.stderr)
    held, added = json.loads(done.stdout)
    return Measured(shape[0], (shape[1], shape[2]), held, added)


def spec_with(model: str, parameters: str) -> ModelSpec:
    """Return the model's spec, with a network built with other arguments."""
    spec, given = MODELS[model], json.loads(parameters)
    return replace(spec, build=partial(spec.build, **given)) if given else spec


def _measure_here(spec: ModelSpec, shape: tuple[int, int, int], precision: Precision, keep: Any) -> tuple[int, int]:
    keep_freed_memory()
    torch.manual_seed(0)
    network = spec.build().eval().requires_grad_(False)
    engine = TorchEngine(Model(spec, network, None, "", ""), TorchOptions("cpu", precision, 1))
    clip = torch.rand(1, shape[0], 3, *shape[1:])
    held = process_bytes()
    forget_peak()
    if spec.streams:
        for frame in engine.stream(clip, keep=keep):
            del frame
    else:
        engine(clip, prepared=True, sigma=0.1 if spec.takes_sigma else None)
    return held, peak_bytes() - held


# Laws -----------------------------------------------------------------------------------------------------------------
def fitted(spec: ModelSpec, measured: list[Measured], keep: Any) -> dict[str, float]:
    """Return the law's terms that fit the measurements best, by the error relative to the whole process.

    The spec determines the terms: it may have a chunk and waiting features.
    """
    law = next(iter(spec.memory), None)
    chunk = law.chunk if law is not None else None
    names = ["fixed", "per_px", "feature_bytes" if spec.streams else "per_px_frame", *(["chunk"] if chunk else [])]
    rows = []
    for one in measured:
        px = spec.size.padded(one.size[0]) * spec.size.padded(one.size[1])
        held = memory.held_frames(one.frames, keep)
        rows.append([1, px, px * held, *([chunk.worked_px(px, one.frames)] if chunk else [])])
    added = np.array([one.added_bytes for one in measured], np.float64)
    whole = added + [one.held_bytes for one in measured]
    terms = np.linalg.lstsq(np.array(rows, np.float64) / whole[:, None], added / whole, rcond=None)[0]
    return dict(zip(names, map(float, terms), strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", choices=[name for name, spec in MODELS.items() if spec.window is not None])
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--keep", default="full")
    parser.add_argument("--shapes", default=SHAPES)
    parser.add_argument("--repeat", type=int, default=1)
    parser.add_argument("--parameters", default="{}")
    parser.add_argument("--here", help=argparse.SUPPRESS)  # one shape, in this process
    given = parser.parse_args()
    spec = spec_with(given.model, given.parameters)
    if given.here:
        print(json.dumps(_measure_here(spec, _shape(given.here), given.precision, given.keep)))  # noqa: T201
        return
    measured: list[Measured] = []
    print("| frames | size | added [MiB] | by the spec | error, of the whole process |\n|---:|---|---:|---:|---:|")  # noqa: T201
    for shape in [_shape(text) for text in given.shapes.split(",") for _ in range(given.repeat)]:
        one = measure(given.model, shape, precision=given.precision, keep=given.keep, parameters=given.parameters)
        measured.append(one)
        predicted = memory.call_bytes(spec, one.size, one.frames, precision=given.precision, keep=given.keep)
        error = (predicted - one.added_bytes) / (one.held_bytes + one.added_bytes)
        size = f"{one.size[1]}x{one.size[0]}"
        row = f"| {one.frames} | {size} | {one.added_bytes / 2**20:.0f} | {predicted / 2**20:.0f} | {error:+.1%} |"
        print(row, flush=True)  # noqa: T201
    print(f"\n{given.precision}: " + ", ".join(f"{k}={v:.4g}" for k, v in fitted(spec, measured, given.keep).items()))  # noqa: T201


def _shape(text: str) -> tuple[int, int, int]:
    frames, height, width = map(int, text.split("x"))
    return frames, height, width


if __name__ == "__main__":
    main()
