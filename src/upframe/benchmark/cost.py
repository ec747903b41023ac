"""Cost of a network: parameters, operations, activations, memory and time, as an NTIRE efficiency card.

Counting runs the network once on shapes alone (torch's meta device) and counts every operation, so functional calls count like
modules. With these conventions, the published NTIRE 2022 card of RLFN (0.317 M parameters, 19.70 G FLOPs, 80.05 M activations,
39 convolutions at 256×256) is reproduced to the last digit:

* **MACs**: multiply-accumulates of convolutions and matrix products, without bias (RLFN: 19.66 G).
* **FLOPs, as NTIRE 2022 prints them**: the MACs plus one for every output of a ReLU-like activation (RLFN: 19.70 G). It
  is *not* twice the MACs. Later challenges counted a little differently (RLFN: 19.67 G).
* **Activations**: output elements of all convolutions.
* **Convolutions**: convolution calls in one forward pass.

The card lists all other arithmetic as not counted, with its calls and elements. It warns of operations from outside torch
(custom kernels), because they can hide most of a network's work.

Peak memory is counted at the allocator. On the CPU it is the most bytes of live tensors at any moment of one forward pass
(weights, input and activations, without the kernels' scratch space), which is the same on every machine. On CUDA it is
`torch.cuda.max_memory_allocated` (which NTIRE prints). Both include only the weights of the measured network.
"""

from __future__ import annotations

import copy
import json
import logging
import math
import statistics
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from upframe.engines import GraphEngine, TorchEngine, engine_options, make_engine_as_named, pick_device
from upframe.errors import UsageError
from upframe.machine import environment
from upframe.models.registry import Model
from upframe.models.spec import Precision

log = logging.getLogger(__name__)

DTYPES: dict[str, torch.dtype] = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
INPUT_SIZE = (256, 256)  # NTIRE efficient super-resolution challenges
REPEATS = 10

_RELU_LIKE = {"relu", "relu_", "leaky_relu", "leaky_relu_", "_prelu_kernel", "elu", "elu_", "hardtanh", "hardtanh_"}
# Operations that only move, shape or create data. They do no arithmetic, so the card does not list them.
_MOVES = {
    "view", "_unsafe_view", "reshape", "permute", "transpose", "t", "expand", "slice", "select", "split",
    "split_with_sizes", "chunk", "unbind", "unsqueeze", "squeeze", "cat", "stack", "clone", "copy_", "contiguous",
    "detach", "alias", "as_strided", "pixel_shuffle", "pixel_unshuffle", "constant_pad_nd", "reflection_pad2d",
    "replication_pad2d", "roll", "flip", "index_select", "index", "gather", "empty", "empty_like", "new_empty", "zeros",
    "zeros_like", "ones", "full", "arange", "_to_copy", "lift_fresh", "scalar_tensor", "native_dropout",
}  # fmt: skip


# Counting -------------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Cost:
    """Cost of one forward pass, counted and not timed."""

    parameters: int
    macs: int
    """Multiply-accumulates of convolutions and matrix products."""
    flops_ntire: int
    """MACs + outputs of ReLU-like activations: "FLOPs" of the NTIRE 2022 card."""
    activations: int
    """Output elements of all convolutions."""
    convolutions: int
    peak_bytes: int
    """Most bytes of live tensors at any moment, weights and input included."""
    uncounted: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    """Operation → (calls, output elements) for arithmetic that is in neither MACs nor FLOPs."""
    custom: tuple[str, ...] = ()
    """Operations in `uncounted` that are not torch's; their work is unknown."""


class _Counter(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch leaves it unannotated
    """Counts each operation that reaches torch's dispatcher, and tracks the lifetime of every tensor."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.macs = self.relu_outputs = self.activations = self.convolutions = 0
        self.uncounted: dict[str, tuple[int, int]] = {}
        self.custom: set[str] = set()
        self.live: dict[int, int] = {}
        self.live_bytes = self.peak_bytes = 0

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        del types
        out = func(*args, **(kwargs or {}))
        made = [t for t in (out if isinstance(out, tuple | list) else (out,)) if isinstance(t, Tensor)]
        self._count(func.namespace, func.overloadpacket.__name__, args, made)
        for tensor in made:
            self.follow(tensor)
        return out

    def _count(self, namespace: str, name: str, args: tuple[Any, ...], made: list[Tensor]) -> None:
        elements = made[0].numel() if made else 0
        if name == "convolution":
            x, weight, transposed = args[0], args[1], args[6]
            # Every output (in a transposed convolution, every input) is multiplied by one filter of weight[0].
            self.macs += (x.numel() if transposed else elements) * weight[0].numel()
            self.activations += elements
            self.convolutions += 1
        elif name in ("mm", "bmm"):
            self.macs += elements * args[0].shape[-1]
        elif name in ("addmm", "baddbmm"):
            self.macs += elements * args[1].shape[-1]
        elif name in _RELU_LIKE:
            self.relu_outputs += elements
        elif name not in _MOVES and elements:
            label = name.rstrip("_") if namespace == "aten" else f"{namespace}::{name}"
            calls, total = self.uncounted.get(label, (0, 0))
            self.uncounted[label] = (calls + 1, total + elements)
            if namespace != "aten":
                self.custom.add(label)

    def follow(self, tensor: Tensor) -> None:
        """Count the memory of `tensor` until it is released. Views share memory, which counts once."""
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self.live:
            return
        self.live[key] = storage.nbytes()
        self.live_bytes += self.live[key]
        self.peak_bytes = max(self.peak_bytes, self.live_bytes)
        weakref.finalize(storage, self._release, key).atexit = False

    def _release(self, key: int) -> None:
        self.live_bytes -= self.live.pop(key)


def count(network: nn.Module, shape: Sequence[int], *, dtype: torch.dtype = torch.float32) -> Cost:
    """Count the cost of one forward pass of `network` on an input of `shape`, from shapes alone if every operation allows it.

    Args:
        shape: (N, C, H, W), or another shape that the network takes.

    Returns:
        The counts; `network` is not changed.
    """
    try:
        counter = _counted_pass(network, shape, dtype=dtype, device="meta")
    except NotImplementedError as error:
        # An operation without a shape rule, such as many custom kernels, has to run on real data.
        log.info("counting runs on real data: %s", error)
        counter = _counted_pass(network, shape, dtype=dtype, device="cpu")
    return Cost(
        parameters=sum(p.numel() for p in network.parameters()),
        macs=counter.macs,
        flops_ntire=counter.macs + counter.relu_outputs,
        activations=counter.activations,
        convolutions=counter.convolutions,
        peak_bytes=counter.peak_bytes,
        uncounted=dict(sorted(counter.uncounted.items(), key=lambda item: -item[1][1])),
        custom=tuple(sorted(counter.custom)),
    )


def threads_text(threads: object) -> str:
    return f"{threads} thread{'' if threads == 1 else 's'}"


def _counted_pass(network: nn.Module, shape: Sequence[int], *, dtype: torch.dtype, device: str) -> _Counter:
    counter = _Counter()
    # inference_mode keeps composite operations whole; no_grad shows their parts, which the counter needs.
    with torch.inference_mode(False), torch.no_grad():
        replica = copy.deepcopy(network).to(device=device, dtype=dtype).eval()
        x = torch.zeros(tuple(shape), device=device, dtype=dtype)
        for tensor in (*replica.parameters(), *replica.buffers(), x):
            counter.follow(tensor)
        with counter:
            replica(x)
    return counter


# Timing ---------------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Timing:
    """Times of single forward passes, in seconds."""

    runs_s: tuple[float, ...]

    @property
    def median_s(self) -> float:
        return statistics.median(self.runs_s)

    @property
    def quartiles_s(self) -> tuple[float, float]:
        """Return the first and third quartile; the single time twice if there is only one."""
        if len(self.runs_s) == 1:
            return self.runs_s[0], self.runs_s[0]
        low, _, high = statistics.quantiles(self.runs_s, n=4, method="inclusive")
        return low, high


@dataclass(frozen=True)
class Card:
    """The efficiency card of one model."""

    model: str
    sha256: str
    scale: int
    input_size: tuple[int, int]
    """(height, width)."""
    cost: Cost
    timing: Timing
    peak_bytes: int
    memory_method: str
    """How `peak_bytes` was measured."""

    @property
    def output_px_per_s(self) -> float:
        height, width = self.input_size
        return height * width * self.scale**2 / self.timing.median_s

    def rows(self) -> list[tuple[str, str]]:
        """Return (quantity with its unit, value) in NTIRE's order."""
        low, high = self.timing.quartiles_s
        return [
            ("Runtime [ms], median", f"{self.timing.median_s * 1e3:.2f}"),
            ("Runtime [ms], quartiles", f"{low * 1e3:.2f} to {high * 1e3:.2f}"),
            ("Throughput [output Mpx/s]", f"{self.output_px_per_s / 1e6:.2f}"),
            ("Params [M]", f"{self.cost.parameters / 1e6:.3f}"),
            ("FLOPs [G], NTIRE", f"{self.cost.flops_ntire / 1e9:.2f}"),
            ("MACs [G]", f"{self.cost.macs / 1e9:.2f}"),
            ("Activations [M]", f"{self.cost.activations / 1e6:.2f}"),
            ("Peak memory [MiB]", f"{self.peak_bytes / 2**20:.1f}"),
            ("Convolutions", str(self.cost.convolutions)),
        ]

    @property
    def not_counted(self) -> str:
        """Return one line on the arithmetic that the FLOPs do not count."""
        if not self.cost.uncounted:
            return "The FLOPs count every arithmetic operation."
        listed = ", ".join(f"{name} {elements / 1e6:.2f} M" for name, (_, elements) in self.cost.uncounted.items())
        warning = (
            f" Custom operations ({', '.join(self.cost.custom)}) can hide most of the work: trust the time, not the FLOPs."
            if self.cost.custom
            else ""
        )
        return f"Not in the FLOPs (output elements): {listed}.{warning}"


@dataclass(frozen=True)
class Bench:
    """Cards of models, timed in turns on one machine."""

    cards: tuple[Card, ...]
    environment: dict[str, str | int]

    def to_text(self) -> str:
        """Return the NTIRE card of several models side by side."""
        (height, width), runs = self.cards[0].input_size, len(self.cards[0].timing.runs_s)
        tables = [card.rows() for card in self.cards]
        names = [label for label, _ in tables[0]]
        first = max(map(len, names))
        widths = [
            max(len(card.model), *(len(value) for _, value in table)) for card, table in zip(self.cards, tables, strict=True)
        ]
        machine = self.environment.get("gpu") or f"{self.environment['cpu']}, {threads_text(self.environment['threads'])}"
        how = f"{self.environment['precision']}, {self.environment.get('engine', 'torch')}"
        lines = [
            f"Input 3x{height}x{width}, {how}, {runs} runs in turns on {self.environment['device']}"
            f" ({machine}), torch {self.environment['torch']}",
            "",
            " ".join([" " * first, *(f"{card.model:>{w}}" for card, w in zip(self.cards, widths, strict=True))]),
        ]
        for i, name in enumerate(names):
            lines.append(" ".join([f"{name:<{first}}", *(f"{t[i][1]:>{w}}" for t, w in zip(tables, widths, strict=True))]))
        lines += ["", "FLOPs: MACs of convolutions and matrix products + one per ReLU output (NTIRE 2022); not 2 x MACs."]
        lines += [f"Memory: {method}." for method in dict.fromkeys(card.memory_method for card in self.cards)]
        lines += [f"{card.model}: {card.not_counted}" for card in self.cards]
        return "\n".join(lines)

    def to_json(self) -> str:
        """Return all figures as JSON, with units in the names, and the times of single runs."""
        cards = []
        for card in self.cards:
            low, high = card.timing.quartiles_s
            cards.append(
                {
                    "model": card.model,
                    "sha256": card.sha256,
                    "scale": card.scale,
                    "input_size": list(card.input_size),
                    **{k: v for k, v in asdict(card.cost).items() if k not in ("peak_bytes", "uncounted")},
                    "uncounted": {
                        name: {"calls": calls, "output_elements": elements}
                        for name, (calls, elements) in card.cost.uncounted.items()
                    },
                    "peak_memory_bytes": card.peak_bytes,
                    "memory_method": card.memory_method,
                    "runtime_s": {"median": card.timing.median_s, "quartile_1": low, "quartile_3": high},
                    "runs_s": list(card.timing.runs_s),
                    "output_px_per_s": card.output_px_per_s,
                }
            )
        return json.dumps({"format": "upframe-bench/1", "environment": self.environment, "cards": cards}, indent=1)


def bench(
    models: Sequence[Model],
    *,
    size: tuple[int, int] = INPUT_SIZE,
    repeats: int = REPEATS,
    warmup: int = 2,
    device: str = "cpu",
    precision: Precision = "fp32",
    engine: str = "torch",
    on_event: Callable[[str, int, int], None] | None = None,
) -> Bench:
    """Count and time `models` on one random picture.

    The models take turns, one forward pass each, so that a slow moment of the machine affects all of them equally. Inputs are
    channels-last, as the engine passes them; the time does not include loading, tiling and file formats.

    Args:
        size: (height, width) of the input.
        device: As `engines.pick_device` takes it.
        engine: Name of the engine that runs the networks; the counts are those of the network in torch.
        repeats: Timed passes per model.
        warmup: Passes before these, not timed.
        on_event: Called after every pass with the model's name, the number of passes done, and their total.

    Raises:
        UsageError: if there is no model or no repeat, or a model does not accept the size.
        ResourceError: if the device does not exist.
    """
    if not models:
        raise UsageError("bench", "no model was named", "name one or more, for instance rlfn-x4")
    if repeats < 1 or warmup < 0:
        raise UsageError(
            "bench", f"cannot time {repeats} passes after {warmup}", "use at least one repeat and no negative warm-up"
        )
    device = str(pick_device(device))
    for model in models:
        bad = [side for side in size if model.spec.size.padded(side) != side]
        if bad:
            raise UsageError(
                model.name,
                f"cannot take an input of {size[0]}x{size[1]}",
                f"sides must be {model.spec.size.minimum} or more and multiples of {model.spec.size.multiple}",
            )
    dtype = DTYPES[precision]
    compiled = [_compiled(model, engine, device=device, precision=precision) for model in models]
    shapes = [(1, model.spec.channels, *size) for model in models]
    costs = [count(model.network, shape, dtype=dtype) for model, shape in zip(models, shapes, strict=True)]
    networks = [copy.deepcopy(model.network).to(device=device, dtype=dtype).eval() for model in models]
    generator = torch.Generator().manual_seed(0)
    inputs = [
        torch.rand(shape, generator=generator).to(device=device, dtype=dtype).contiguous(memory_format=torch.channels_last)
        for shape in shapes
    ]
    passes = [network if own is None else own for network, own in zip(networks, compiled, strict=True)]
    peaks = [
        _cuda_peak(*pair, device=device) if device.startswith("cuda") else None for pair in zip(networks, inputs, strict=True)
    ]

    times: list[list[float]] = [[] for _ in models]
    total, done = len(models) * (warmup + repeats), 0
    for turn in range(warmup + repeats):
        for model, run, x, runs in zip(models, passes, inputs, times, strict=True):
            elapsed = _time_once(run, x, device=device)
            if turn >= warmup:
                runs.append(elapsed)
            done += 1
            if on_event is not None:
                on_event(model.name, done, total)
    cards = tuple(
        Card(
            model=model.name,
            sha256=model.sha256,
            scale=model.spec.scale,
            input_size=size,
            cost=cost,
            timing=Timing(tuple(runs)),
            peak_bytes=cost.peak_bytes if peak is None else peak,
            memory_method="most bytes of live tensors in one pass, weights and input included, kernel scratch excluded"
            if peak is None
            else "torch.cuda.max_memory_allocated in one pass, weights and input included",
        )
        for model, cost, runs, peak in zip(models, costs, times, peaks, strict=True)
    )
    return Bench(cards=cards, environment={**environment(device=device, precision=precision), "engine": engine})


def _compiled(model: Model, engine: str, *, device: str, precision: Precision) -> Callable[[Tensor], Tensor] | None:
    """Return one pass of an engine other than torch, compiled at once; None for torch."""
    made = make_engine_as_named(model, engine_options(engine, device=device, precision=precision))
    if type(made) is TorchEngine:
        return None
    if isinstance(made, GraphEngine):
        made.load()
    return lambda x: made(x[:, None])


def _time_once(network: Callable[[Tensor], Tensor], x: Tensor, *, device: str) -> float:
    """Return the seconds of one forward pass, with a wait for the device before and after."""
    on_cuda = device.startswith("cuda")
    with torch.inference_mode():
        if on_cuda:
            torch.cuda.synchronize(device)
        start = time.perf_counter()
        network(x)
        if on_cuda:
            torch.cuda.synchronize(device)
        return time.perf_counter() - start


def _cuda_peak(network: nn.Module, x: Tensor, *, device: str) -> int:
    """Return the peak bytes of the CUDA allocator in one pass, without the memory of other networks."""
    own = sum(t.numel() * t.element_size() for t in (*network.parameters(), *network.buffers(), x))
    with torch.inference_mode():
        network(x)  # libraries allocate their workspace once
        torch.cuda.synchronize(device)
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        network(x)
        torch.cuda.synchronize(device)
        return own + math.ceil(torch.cuda.max_memory_allocated(device) - before)
