"""Torch with upframe's own kernels for the parts they were written for: so far VapSR's blocks (kernels/vapsr.cpp)."""

from __future__ import annotations

import copy
import math
import weakref
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from upframe.engines.base import Engine, choose_precision
from upframe.engines.eager import TorchEngine, TorchOptions
from upframe.engines.machine import pick_device
from upframe.kernels import NEEDS, cpu_flags, library
from upframe.models import Model
from upframe.nets.vapsr import VAB, PixelNorm, VapSR, VastAttention
from upframe.spec import Precision

_FLAGS: dict[Precision, frozenset[str]] = {
    "fp32": NEEDS,
    "bf16": NEEDS | {"avx512_bf16"},
}
_CHANNELS = (32, 48)
_ATTENTION_CHANNELS = 64
_DTYPES: dict[Precision, torch.dtype] = {"fp32": torch.float32, "bf16": torch.bfloat16}


def obstacle(model: Model, options: TorchOptions) -> str | None:
    """Why the kernels cannot run a model; None if they can.

    Raises:
        UsageError: for a precision in which the network was not proven, or a device that is none.
        ResourceError: for a device that is not there.
    """
    device = pick_device(options.device)
    if device.type != "cpu":
        return f"runs on the CPU, not on {device.type}"
    if not _has_kernels(model.network):
        return f"has no kernels for {model.spec.name}"
    precision = choose_precision(model.spec, options.precision, device)
    needed = _FLAGS.get(precision)
    if needed is None:
        return f"does not compute in {precision}"
    if not needed <= cpu_flags():
        return f"needs a CPU with {', '.join(sorted(needed - cpu_flags()))} for {precision}"
    if library() is None:
        return "was not built when upframe was installed; reinstall it with a C++ compiler (g++) at hand"
    return None


class NativeEngine(TorchEngine):
    """Torch with the parts that kernels were written for replaced by them."""

    name = "native"

    def __init__(self, model: Model, options: TorchOptions) -> None:
        """The model and options must be such that `obstacle` finds none."""
        super().__init__(replace(model, network=copy.deepcopy(model.network)), options)
        self._model = model
        assert isinstance(self._network, VapSR) and isinstance(model.network, VapSR)
        self._network.body = FusedBlocks(model.network.body, self.precision)  # type: ignore[assignment] # same shapes

    def in_float32(self) -> Engine:
        if self.precision == "fp32":
            return self
        if self._float32 is None:
            options = replace(self.options, precision="fp32")
            fits = obstacle(self._model, options) is None
            self._float32 = (NativeEngine if fits else TorchEngine)(self._model, options)
        return self._float32


class FusedBlocks(nn.Module):
    """VapSR's body in one call: (N, C, H, W) → the same shape, channels-last, float32 or bfloat16.

    In bfloat16 factors of products are rounded, sums and the maps between blocks are not, so it is closer to float32 than
    torch's. The same pixels come out whatever the number of threads.

    Raises:
        MemoryError: when its buffers do not fit.
    """

    def __init__(self, body: nn.Sequential, precision: Precision) -> None:
        super().__init__()
        found = library()
        assert found is not None
        self._library, self._dtype = found, _DTYPES[precision]
        weights = _weights(body)
        table = gelu_table(degree=3 if precision == "bf16" else 5)
        first = body[0]
        assert isinstance(first, VAB)
        attention, channels = first.proj_1.weight.shape[:2]
        self._handle = found.upframe_vapsr_make(
            channels, attention, len(body), precision == "bf16", weights.ctypes.data, table.ctypes.data
        )
        if not self._handle:
            raise MemoryError("the weights of VapSR's blocks do not fit")
        self._free = weakref.finalize(self, found.upframe_vapsr_free, self._handle)

    def forward(self, x: Tensor) -> Tensor:
        x = x.to(self._dtype).contiguous(memory_format=torch.channels_last)
        out = torch.empty_like(x)
        h, w = x.shape[-2:]
        is_bf16, threads = x.dtype == torch.bfloat16, torch.get_num_threads()
        for frame, made in zip(x, out, strict=True):
            if self._library.upframe_vapsr_run(self._handle, frame.data_ptr(), made.data_ptr(), is_bf16, h, w, threads):
                raise MemoryError("VapSR's blocks: not enough memory for their buffers")
        return out


def gelu_table(*, degree: int) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    """Coefficients of t·(1 - Φ(t)), which GELU falls short of max(x, 0) by: (degree + 1, 16), rising powers by segments.

    Segment i lies around i/2 and is half a unit wide; each polynomial meets the function at Chebyshev's points. Up to degree
    3 they are of t, above of the distance from the middle, which rounds less.
    """
    powers = np.arange(degree + 1)
    offsets = np.cos((powers + 0.5) * np.pi / (degree + 1)) / 4
    table = np.empty((degree + 1, 16))
    for segment in range(16):
        t = segment / 2 + offsets
        values = [x * math.erfc(x / math.sqrt(2)) / 2 for x in t]
        table[:, segment] = np.linalg.solve(np.vander(t if degree <= 3 else offsets, increasing=True), values)
    return np.ascontiguousarray(table, np.float32)


def _has_kernels(network: nn.Module) -> bool:
    """Whether every block is of the published kind, and of a size that is compiled."""
    if not isinstance(network, VapSR):
        return False
    return all(
        isinstance(block, VAB)
        and block.proj_1.weight.shape[1] in _CHANNELS
        and block.proj_1.weight.shape[0] == _ATTENTION_CHANNELS
        and block.proj_1.weight.shape[2:] == (1, 1)
        and isinstance(block.atten_branch, VastAttention)
        and block.atten_branch.depthwise_dilated.weight.shape[-1] == 5
        and isinstance(block.last_atten_branch, nn.Identity)
        and isinstance(block.pixel_norm, PixelNorm)
        for block in network.body
    )


def _weights(body: nn.Sequential) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    """The parameters of all blocks, one after the other, in the order of `Block` in the C++ file."""
    parts: list[Tensor] = []
    for block in body:
        assert isinstance(block, VAB) and isinstance(block.atten_branch, VastAttention)
        attention = block.atten_branch
        layers: list[Any] = [block.proj_1, attention.pointwise, attention.depthwise, attention.depthwise_dilated]
        for layer in (*layers, block.proj_2, block.pixel_norm):
            parts += [layer.weight.detach().float().flatten(), layer.bias.detach().float().flatten()]
    return np.ascontiguousarray(torch.cat(parts).numpy())
