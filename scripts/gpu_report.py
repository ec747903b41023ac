"""Measure what a device does with upframe's networks, and write gpu_report.json and gpu_report.txt.

Usage: python scripts/gpu_report.py [--device cuda] [--size 1280x720] [--repeats 5] [--models NAME...] [--out FOLDER]
       [--compile]

For each network and precision: seconds of one picture through the engine, and the largest difference from float32 in 8-bit code
values. For the device: the rate of copies to it, from ordinary and from pinned memory. --compile also times torch.compile, with
CUDA graphs on CUDA. A case that the device refuses is in the report with the reason.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor

from upframe.engines import TorchEngine, TorchOptions
from upframe.errors import UpframeError
from upframe.machine import device_model, pick_device
from upframe.models.calling import channels_last
from upframe.models.registry import load
from upframe.version import __version__

MODELS = ("photo-x4", "photo-vapsr-x4", "photo-x2")
PRECISIONS = ("fp32", "bf16", "fp16")
COPY_BYTES = 256 << 20
SMALL_COPY_BYTES = 1 << 20
"""On the CPU, where there is nothing to learn from a copy."""

Row = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--size", default="1280x720")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--models", nargs="+", default=MODELS)
    parser.add_argument("--out", type=Path, default=Path())
    parser.add_argument("--compile", action="store_true")
    asked = parser.parse_args()
    width, height = (int(side) for side in asked.size.split("x"))
    device = pick_device(asked.device)
    frame = torch.rand(1, 1, 3, height, width, generator=torch.Generator().manual_seed(0))
    report = {
        "upframe": __version__,
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "device": device_model(device),
        "size": [width, height],
        "repeats": asked.repeats,
        "networks": [row for name in asked.models for row in network_rows(name, frame, device, asked.repeats, asked.compile)],
        "copies": copy_rows(device, asked.repeats),
    }
    asked.out.mkdir(parents=True, exist_ok=True)
    (asked.out / "gpu_report.json").write_text(json.dumps(report, indent=1) + "\n")
    (asked.out / "gpu_report.txt").write_text(table(report))
    print(table(report), end="")  # noqa: T201


def network_rows(name: str, frame: Tensor, device: torch.device, repeats: int, compiles: bool) -> list[Row]:
    model, rows = load(name), []
    right = TorchEngine(model, TorchOptions(device="cpu", precision="fp32"))(frame)
    for precision in PRECISIONS:
        row: Row = {"model": name, "form": "engine", "precision": precision}
        try:
            engine = TorchEngine(model, TorchOptions(device=str(device), precision=precision))
            made = engine(frame)
            row["seconds"] = seconds(lambda engine=engine: engine(frame), device, repeats)
            row["largest_difference"] = round(255 * float((made - right).abs().max()), 3)
        except (UpframeError, RuntimeError) as error:
            row["refused"] = str(error)
        rows.append(row)
    return rows + ([compiled_row(name, frame, device, repeats)] if compiles else [])


def compiled_row(name: str, frame: Tensor, device: torch.device, repeats: int) -> Row:
    """The network alone in float32, without the copies of an engine."""
    mode = "reduce-overhead" if device.type == "cuda" else "default"  # the former are CUDA graphs
    row: Row = {"model": name, "form": f"torch.compile, {mode}", "precision": "fp32"}
    try:
        network = torch.compile(load(name).network.to(device), mode=mode)
        given = channels_last(frame[0], torch.float32, device)
        with torch.inference_mode():
            row["seconds"] = seconds(lambda: network(given), device, repeats)
    except Exception as error:  # a compiler raises nearly anything, and the other figures stand
        row["refused"] = f"{type(error).__name__}: {error}"[:200]
    return row


def copy_rows(device: torch.device, repeats: int) -> list[Row]:
    on_gpu = device.type == "cuda"
    count, rows = COPY_BYTES if on_gpu else SMALL_COPY_BYTES, []
    for pinned in (False, True) if on_gpu else (False,):
        source = torch.empty(count, dtype=torch.uint8, pin_memory=pinned)
        target = torch.empty(count, dtype=torch.uint8, device=device)
        taken = seconds(lambda s=source, t=target, p=pinned: t.copy_(s, non_blocking=p), device, repeats)
        rows.append({"memory": "pinned" if pinned else "ordinary", "gb_per_s": round(count / taken / 1e9, 2)})
    return rows


def seconds(work: Callable[[], object], device: torch.device, repeats: int) -> float:
    """Median of `repeats` runs, after one that warms up; each waits for the device."""
    taken = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        taken.append(time.perf_counter() - start)
    return median(taken[1:])


def table(report: dict[str, Any]) -> str:
    lines = [f"{report['device']}, torch {report['torch']}, {report['size'][0]}x{report['size'][1]}"]
    for row in report["networks"]:
        end = row.get("refused") or f"{1000 * row['seconds']:9.1f} ms   differs by {row.get('largest_difference', '-')}"
        lines.append(f"{row['model']:<16} {row['precision']:<5} {row['form']:<30} {end}")
    lines += [f"copies from {row['memory']} memory: {row['gb_per_s']} GB/s" for row in report["copies"]]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
