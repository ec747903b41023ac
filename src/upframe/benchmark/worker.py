"""Run one form of a network in its own process, line by line: `python -m upframe.benchmark.worker`.

In a shared process, one form would affect the other: through the allocator's settings, its free memory, the peak of resident
memory, and chosen and cached kernels. The parent writes one JSON object per line and gets one back for each: first the `Job`,
then any number of {"do": "run"}, last {"do": "finish"}.
"""

from __future__ import annotations

import ctypes
import gc
import inspect
import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import safetensors.torch
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from upframe.engines import GraphEngine, TorchEngine, engine_options, keep_freed_memory, make_engine_as_named
from upframe.machine import forget_peak, peak_bytes, resident_bytes
from upframe.models import checkpoints
from upframe.models.networks import FAMILIES, MODELS, family_of
from upframe.models.registry import Model
from upframe.models.spec import ModelSpec, Precision

Kind = Literal["reference", "upframe", "limits"]

TURN_S = 0.5
"""A turn lasts this long, with at least one pass; the median of its passes is its time. Caches and threads lose a process's
state during the turns of the others."""


@dataclass(frozen=True)
class Job:
    """Task of a worker."""

    kind: Kind
    """"reference" is float32 with the default allocator, "upframe" runs as in production, "limits" measures the machine."""
    device: str
    threads: int
    precision: Precision = "fp32"
    family: str = ""
    model: str = ""
    """Registry id; for an unpublished size any other word, and the weights determine the size."""
    folder: str = ""
    """Folder of weights and input, and of the output."""
    weights: str = ""
    output: str = ""
    sigma: float | None = None
    engine: str = "torch"
    """Name of the engine, for "upframe"."""

    def to_line(self) -> str:
        return json.dumps(asdict(self))


# Networks -------------------------------------------------------------------------------------------------------------
def reference_form(spec: ModelSpec, state: dict[str, Tensor]) -> nn.Module:
    """Return the reference form of a network with the weights of upframe's network, whose memory it shares.

    Raises:
        LookupError: if there is no reference form of this family.
        ValueError: if the network is not a published one, and the reference form lacks a part of it.
    """
    family = family_of(spec)
    if family.reference is None:
        raise LookupError(f"there is no reference form of {family.name}")
    build, arguments = family.reference(), family.configuration(_shapes(state))
    if others := sorted(arguments.keys() - inspect.signature(build).parameters.keys()):
        raise ValueError(f"the reference form of {spec.family} has no {', '.join(others)}")
    with torch.device("meta"):
        network = build(**arguments)
    network.load_state_dict(state, assign=True)
    return network.eval().requires_grad_(False)


def _shapes(state: dict[str, Tensor]) -> Mapping[str, tuple[int, ...]]:
    return {name: tuple(value.shape) for name, value in state.items()}


def _loaded(path: Path) -> dict[str, Tensor]:
    """Load the tensors of a file without mapping it, because pages read later would count as memory of a run."""
    return {name: tensor.clone() for name, tensor in safetensors.torch.load_file(path).items()}


def _run_of(job: Job) -> Callable[[Tensor], Tensor]:
    """Return the function of a job: from a clip (N, T, C, H, W) to the result, both float32 in host memory."""
    state = _loaded(Path(job.folder) / job.weights)
    facts: dict[str, Any] = {} if job.sigma is None else {"sigma": job.sigma}
    spec = MODELS.get(job.model)
    if spec is None:
        family = next(family for family in FAMILIES if family.name == job.family)
        spec = family.spec_for(**family.configuration(_shapes(state)))
    if job.kind == "upframe":
        model = Model(spec, checkpoints.instantiate(spec, state), None, "", "")
        options = engine_options(job.engine, device=job.device, precision=job.precision, threads=job.threads)
        engine = make_engine_as_named(model, options)
        if isinstance(engine, TorchEngine):
            return lambda clip: engine(clip, **facts)
        assert isinstance(engine, GraphEngine)
        engine.load()  # now, so that time and memory of compiling do not count
        return engine
    network = reference_form(spec, state).to(job.device)
    by_frame = spec.window is None

    def run(clip: Tensor) -> Tensor:
        given = clip.to(job.device)
        with torch.inference_mode():
            out: Tensor = network(given.flatten(0, 1)).unflatten(0, clip.shape[:2]) if by_frame else network(given, **facts)
            return out.cpu()

    return run


# Memory ---------------------------------------------------------------------------------------------------------------
class Peak:
    """The largest amount of memory added since creation, in bytes; None if the system does not report it."""

    def __init__(self, device: str) -> None:
        self._device = device
        gc.collect()
        if device.startswith("cuda"):
            torch.cuda.synchronize(device)
            torch.cuda.reset_peak_memory_stats(device)
            self._before: int | None = torch.cuda.memory_allocated(device)
            return
        _give_back_free_memory()
        # Free memory that could not be returned counts as used, because the peak contains it too.
        self._before = resident_bytes() or None
        forget_peak()  # reset the peak of loading; some containers forbid it, and then the figure is a lower bound

    def added_bytes(self) -> int | None:
        if self._before is None:
            return None
        if self._device.startswith("cuda"):
            return int(torch.cuda.max_memory_allocated(self._device)) - self._before
        return peak_bytes() - self._before


def _give_back_free_memory() -> None:
    """Return the memory that loading left free to the system, so that a pass cannot reuse it."""
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc only
        if trim is not None:
            trim(0)


# Limits ---------------------------------------------------------------------------------------------------------------
def measure_limits(device: str) -> dict[str, float]:
    """Measure the machine's current rates: giga operations a second, two for a multiply-accumulate, and gigabytes a second of a
    copy, with read and written bytes both counted. Takes about half a second."""
    limits: dict[str, float] = {}
    on_cuda = device.startswith("cuda")
    side, maps = (8192, 64) if on_cuda else (1024, 1)
    for precision, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        square = torch.rand(side, side, device=device).to(dtype)
        limits[f"{precision}_matrix_gflops"] = 2 * side**3 / _seconds(lambda: square @ square, device) / 1e9  # noqa: B023
        pictures = torch.rand(maps, 64, 128, 128, device=device).to(dtype, memory_format=torch.channels_last)
        weight = torch.rand(64, 64, 3, 3, device=device).to(dtype, memory_format=torch.channels_last)
        seconds = _seconds(lambda: F.conv2d(pictures, weight, padding=1), device)  # noqa: B023
        limits[f"{precision}_convolution_gflops"] = 2 * pictures.numel() * weight[0].numel() / seconds / 1e9
    source = torch.rand(1 << (30 if on_cuda else 26), device=device)  # 256 MB, more than any cache
    target = torch.empty_like(source)
    limits["copy_gbytes_per_s"] = 2 * source.numel() * 4 / _seconds(lambda: target.copy_(source), device) / 1e9
    return limits


def _seconds(work: Callable[[], object], device: str) -> float:
    """Return the shortest of five times, after one run to warm up."""
    return min(_timed(work, device) for _ in range(6))


def _timed(work: Callable[[], object], device: str) -> float:
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)
    start = time.perf_counter()
    work()
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)
    return time.perf_counter() - start


# The process ----------------------------------------------------------------------------------------------------------
def main() -> None:
    """Serve one job on standard input and output."""
    # Output of libraries must not get between the lines.
    channel = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def say(answer: dict[str, Any]) -> None:
        channel.write(json.dumps(answer) + "\n")
        channel.flush()

    job = Job(**json.loads(sys.stdin.readline()))
    torch.set_num_threads(job.threads)
    try:
        _serve(job, say)
    except Exception as error:  # the parent reports it
        say({"error": f"{type(error).__name__}: {error}"})
        sys.exit(1)


def _serve(job: Job, say: Callable[[dict[str, Any]], None]) -> None:
    if job.kind == "limits":
        say({"ready": True})
        for line in sys.stdin:
            if json.loads(line)["do"] == "finish":
                return
            with torch.inference_mode():
                say({"limits": measure_limits(job.device)})
    if job.kind == "upframe":
        keep_freed_memory()  # as the command line does
    run = _run_of(job)
    clip = _loaded(Path(job.folder) / "input.safetensors")["clip"]
    peak = Peak(job.device)
    say({"ready": True})
    out: Tensor | None = None
    for line in sys.stdin:
        if json.loads(line)["do"] == "finish":
            assert out is not None
            added = peak.added_bytes()
            safetensors.torch.save_file({"out": out.contiguous()}, Path(job.folder) / job.output)
            say({"added_bytes": added})
            return
        passes: list[float] = []
        while not passes or sum(passes) < TURN_S:
            out = None  # released before the next one
            start = time.perf_counter()  # the result is copied to the host, so the device has finished
            out = run(clip)
            passes.append(time.perf_counter() - start)
        say({"seconds": statistics.median(passes)})


if __name__ == "__main__":
    main()
