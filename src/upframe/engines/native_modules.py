"""Modules that replace modules of a network and call upframe's own kernels; for inference."""

from __future__ import annotations

import ctypes
import math
import os
import weakref
from collections.abc import Callable, Sequence
from functools import cache, lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from upframe import kernels
from upframe.models.interfaces import Enlargement, HasKernelForm, KernelForm, PixelAttentionBlocks, SpatialAttention
from upframe.models.layers import OneStepConv2d, PixelConv2d
from upframe.models.spec import Place, Precision

_CHANNELS = (32, 48)
_ATTENTION_CHANNELS = 64
_DTYPES: dict[Precision, torch.dtype] = {"fp32": torch.float32, "bf16": torch.bfloat16}
_LEAST_INPUTS, _LEAST_OUTPUTS = 16, 8  # least channels of a convolution for which the transforms pay off
_LANES = 16
SHUFFLES = (2, 3, 4)
"""Factors of the last shuffle that have a kernel."""
BAND_PX = 1 << 14
"""Pixels of the last convolution that are held at once."""


@cache
def library() -> ctypes.CDLL | None:
    """Load `kernels.best()` and let it run on torch's threads; None if there are no kernels."""
    return on_torchs_threads(kernels.best())


def on_torchs_threads(found: ctypes.CDLL | None) -> ctypes.CDLL | None:
    if found is not None and (parallel := _parallel()) is not None:
        found.upframe_use_threads_of(parallel)
    return found


def _has(function: str) -> bool:
    """Whether the kernels are available and include this one."""
    found = library()
    return found is not None and hasattr(found, function)


def in_bf16() -> bool:
    """Whether there are kernels for bfloat16."""
    return _has("upframe_esa_make")


def _parallel() -> ctypes.c_void_p | None:
    """Address of GOMP_parallel in the OpenMP library that torch runs on; None if torch uses another library."""
    near = Path(torch.__file__).parent
    for path in (*near.glob("lib/libgomp*.so*"), *near.parent.glob("torch.libs/libgomp*.so*")):
        try:
            loaded = ctypes.CDLL(str(path), mode=os.RTLD_NOLOAD)
            return ctypes.cast(loaded.GOMP_parallel, ctypes.c_void_p)
        except (OSError, AttributeError):
            continue
    return None


class WinogradConv2d(OneStepConv2d):
    """A 3×3 convolution that keeps the size, by Winograd's minimal filtering (kernels/winograd.cpp).

    Sums and products are float32 even if maps are bfloat16. In float32 the result differs from torch's by some 1e-6 of the
    largest value. The pixels do not depend on the number of threads.

    Args:
        conv: With the weights.
        place: The module to replace. Its maps have the dtype of its weights, except maps made from pixels.
        slope: Slope of a LeakyReLU after it.
        enlarged: The factor of a pixel shuffle after it, each pixel of which has a multiple of 16 channels.
        exact: Whether the result is float32 if maps are bfloat16.

    Raises:
        MemoryError: if its buffers do not fit.
    """

    def __init__(self, conv: nn.Conv2d, place: nn.Conv2d, *, slope: float = 1, enlarged: int = 1, exact: bool = False) -> None:
        super().__init__(conv.in_channels, conv.out_channels, 3, padding=1, bias=conv.bias is not None, device="meta")
        self.weight, self.bias = place.weight, place.bias
        found = library()
        assert found is not None
        self._library, self._slope, self._enlarged = found, slope, enlarged
        maps = place.maps if isinstance(place, PixelConv2d) and place.maps is not None else place.weight.dtype
        self._out_dtype = torch.float32 if exact else maps
        weight = conv.weight.detach().float().contiguous()
        bias = None if conv.bias is None else conv.bias.detach().float().contiguous()
        made = found.upframe_winograd_make(
            conv.in_channels, conv.out_channels, weight.data_ptr(), None if bias is None else bias.data_ptr(), enlarged
        )
        self._handle = _owned(self, made, found.upframe_winograd_free)

    @staticmethod
    def suits(module: nn.Module) -> bool:
        """Whether it can take the place of `module`, and is faster."""
        return (
            type(module) in (nn.Conv2d, PixelConv2d)
            and isinstance(module, nn.Conv2d)
            and (module.kernel_size, module.stride, module.dilation) == ((3, 3), (1, 1), (1, 1))
            and (module.padding, module.padding_mode, module.groups) == ((1, 1), "zeros", 1)
            and (module.in_channels >= _LEAST_INPUTS or isinstance(module, PixelConv2d))
            and module.out_channels >= _LEAST_OUTPUTS
        )

    def forward(self, input: Tensor) -> Tensor:
        return self.in_one_step(input, slope=self._slope)

    def in_one_step(self, x: Tensor, *, slope: float = 1, other: Tensor | None = None, into_other: bool = False) -> Tensor:
        x, s = _rows_of_channels(x.to(self.weight.dtype)), self._enlarged
        n, _, h, w = x.shape
        shape = (n, self.out_channels // s**2, h * s, w * s)
        if other is not None:
            assert other.shape == shape
            into_other &= other.dtype == self._out_dtype and other.permute(0, 2, 3, 1).is_contiguous()
            other = _rows_of_channels(other.to(self._out_dtype))
        out = other if other is not None and into_other else _new_rows_of_channels(shape, self._out_dtype)
        _check(
            x.numel()
            and self._library.upframe_winograd_run(
                *(self._handle, x.data_ptr(), None if other is None else other.data_ptr(), out.data_ptr()),
                *(x.dtype == torch.bfloat16, out.dtype == torch.bfloat16, n, h, w, slope, torch.get_num_threads()),
            )
        )
        return out


class EnlargingConvolution(nn.Module):
    """An `Enlargement` in one step."""

    def __init__(self, original: Enlargement, place: Enlargement) -> None:
        super().__init__()
        self._factor, self._slope = original.factor, original.slope
        self.convolution = WinogradConv2d(original.convolution, place.convolution, enlarged=original.factor)

    @staticmethod
    def suits(form: KernelForm | None) -> TypeGuard[Enlargement]:
        return isinstance(form, Enlargement) and form.convolution.out_channels % (form.factor**2 * _LANES) == 0

    def forward(self, x: Tensor, *, kept: slice = slice(None), slope: float = 1) -> Tensor:
        made = self.convolution.in_one_step(x, slope=slope)
        start, stop, _ = kept.indices(x.shape[2])
        return made[:, :, self._factor * start : self._factor * stop]

    def activated(self, x: Tensor, *, kept: slice = slice(None)) -> Tensor:
        return self(x, kept=kept, slope=self._slope)  # type: ignore[no-any-return]


class LastConvolution(nn.Module):
    """The convolution and the pixel shuffle that end a network: (N, C, H, W) → (N, C', s·H, s·W) float32, plane by plane.

    It works on bands of rows, and so never holds the whole input of the shuffle.
    """

    def __init__(self, conv: nn.Conv2d, place: nn.Conv2d, scale: int) -> None:
        super().__init__()
        found = library()
        assert found is not None and scale in SHUFFLES
        self._library, self._scale = found, scale
        self.convolution = WinogradConv2d(conv, place, exact=True)

    def forward(self, x: Tensor) -> Tensor:
        s, (n, _, h, w) = self._scale, x.shape
        colours = self.convolution.out_channels // s**2
        out = x.new_empty((n, colours, s * h, s * w), dtype=torch.float32)
        rows = max(1, BAND_PX // (4 * w)) * 4 - 2  # with the rows above and below, these make whole tiles
        for frame, planes in zip(torch.split(x, 1), out, strict=True):
            for top in range(0, h, rows):
                bottom, first = min(top + rows, h), max(top - 1, 0)
                made: Tensor = self.convolution(frame[:, :, first : bottom + 1])[:, :, top - first : bottom - first]
                _check(
                    self._library.upframe_shuffle(
                        *(made.data_ptr(), planes.data_ptr(), top, h, bottom - top, w),
                        *(colours, s, torch.get_num_threads()),
                    )
                )
        return out


Spread = tuple[Tensor, Tensor]
"""Result of `SpatialAttention.spread_in_place`."""


class FusedSpatialAttention(nn.Module):
    """A block with `SpatialAttention`: its own convolutions, then fusion and attention by kernels/esa.cpp.

    Args:
        original: With the weights.
        place: The `SpatialAttention` of the module that this one replaces.
        block: That module, whose convolutions run first.

    Raises:
        MemoryError: if its weights do not fit.
    """

    def __init__(self, original: SpatialAttention, place: SpatialAttention, block: nn.Module) -> None:
        super().__init__()
        self.block = block
        found = library()
        assert found is not None
        self._library, self._form = found, place
        layers = (original.fusion, original.reduce, original.skip, original.expand)
        weights = torch.cat([p.detach().float().flatten() for layer in layers for p in layer.parameters()])
        in_bf16 = place.fusion.weight.dtype == torch.bfloat16
        made = found.upframe_esa_make(original.fusion.out_channels, in_bf16, weights.data_ptr())
        self._handle = _owned(self, made, found.upframe_esa_free)

    @staticmethod
    def suits(form: KernelForm | None) -> TypeGuard[SpatialAttention]:
        return (
            _has("upframe_esa_make")
            and isinstance(form, SpatialAttention)
            and form.reduce.out_channels == _LANES
            and form.fusion.out_channels <= 4 * _LANES
        )

    def forward(self, x: Tensor, spread: Spread | None = None) -> Tensor:
        y = _rows_of_channels(self._form.refined(x))
        n, _, h, w = y.shape
        reduced = _new_rows_of_channels((n, _LANES, h, w), y.dtype)
        handle, threads = self._handle, torch.get_num_threads()
        _check(
            self._library.upframe_esa_first(
                *(handle, y.data_ptr(), y.data_ptr(), reduced.data_ptr(), n * h * w, threads)  # a tensor of our own
            )
        )
        pooled = self._form.pooled(reduced).float()
        rows, across = (
            _spread_of_whole(self._form.spread_in_place, h, w)
            if spread is None
            else (_rows_between(spread[0]), spread[1].float())
        )
        wide = _rows_of_channels(pooled @ across)
        _check(
            self._library.upframe_esa_second(
                *(handle, y.data_ptr(), reduced.data_ptr(), wide.data_ptr(), rows[0].data_ptr(), rows[1].data_ptr()),
                *(n, h, w, wide.shape[2], threads),
            )
        )
        return y


Rows = tuple[Tensor, Tensor]
"""(H,) int32: the cell that lies above each row of pixels; (H,) float32: the share of the next one."""


def _rows_between(down: Tensor) -> Rows:
    """Convert (H, cells) weights, of which at most two neighbours per row are not zero."""
    cell = (down > 0).int().argmax(1)
    share = F.pad(down, (0, 1)).gather(1, cell[:, None] + 1)[:, 0]
    return cell.int(), share.float()


@lru_cache(maxsize=16)
def _spread_of_whole(spread_in_place: Callable[[Sequence[int], Place], Spread], h: int, w: int) -> tuple[Rows, Tensor]:
    with torch.inference_mode(False):
        down, across = spread_in_place((h, w), Place((0, 0), (h, w)))
        return _rows_between(down), across.float()


def _owned(owner: object, made: int | None, free: Callable[[int], None]) -> int:
    """Tie the packed weights of a kernel to their owner, so that both are freed together.

    Raises:
        MemoryError: if the kernel could not allocate them.
    """
    if not made:
        raise MemoryError("the weights of a kernel do not fit")
    weakref.finalize(owner, free, made)
    return made


def _check(failed: int) -> None:
    if failed:
        raise MemoryError("not enough memory for the buffers of a kernel")


def _new_rows_of_channels(shape: Sequence[int], dtype: torch.dtype) -> Tensor:
    return torch.empty(*shape, dtype=dtype, memory_format=torch.channels_last)


def _rows_of_channels(x: Tensor) -> Tensor:
    """(N, C, H, W), in memory (N, H, W, C) without gaps."""
    return x.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)


# What is put in place of what -----------------------------------------------------------------------------------------


def suits(network: nn.Module) -> bool:
    """Whether kernels can replace any part of a network."""
    return any(WinogradConv2d.suits(module) or FusedBlocks.suits(_form(module)) for module in network.modules())


def replace_in(place: nn.Module, original: nn.Module, precision: Precision) -> None:
    """Replace modules of `place`, a copy of `original` in `precision`, by kernels with the weights of `original`."""
    modules = list(original.named_modules())
    for name, module in modules:
        if FusedBlocks.suits(form := _form(module)):
            place.set_submodule(name, FusedBlocks(form, precision))
    for name, module in modules:
        here = _found(place, name)
        if isinstance(module, nn.Sequential) and isinstance(here, nn.Sequential):
            _replace_before_shuffles(here, module)
        elif EnlargingConvolution.suits(form := _form(module)) and EnlargingConvolution.suits(its := _form(here)):
            place.set_submodule(name, EnlargingConvolution(form, its))
        elif WinogradConv2d.suits(module) and WinogradConv2d.suits(here):
            place.set_submodule(name, WinogradConv2d(module, here))  # type: ignore[arg-type]
    for name, module in modules:
        here = _found(place, name)
        if FusedSpatialAttention.suits(form := _form(module)) and FusedSpatialAttention.suits(its := _form(here)):
            place.set_submodule(name, FusedSpatialAttention(form, its, here))


def _form(module: nn.Module) -> KernelForm | None:
    return module.kernel_form() if isinstance(module, HasKernelForm) else None


def _found(network: nn.Module, name: str) -> nn.Module:
    """Return the submodule of that name, or an empty one if a module that contained it has been replaced."""
    try:
        return network.get_submodule(name)
    except AttributeError:
        return nn.Identity()


def _replace_before_shuffles(place: nn.Sequential, original: nn.Sequential) -> None:
    """Convolutions with the pixel shuffle that follows them, and a LeakyReLU after that."""
    layers = list(original)
    for i, (conv, shuffle) in enumerate(pairwise(layers)):
        here = place[i]
        if not isinstance(shuffle, nn.PixelShuffle) or not (WinogradConv2d.suits(conv) and WinogradConv2d.suits(here)):
            continue
        assert isinstance(conv, nn.Conv2d) and isinstance(here, nn.Conv2d)
        s = shuffle.upscale_factor
        if conv.out_channels % (s**2 * _LANES) == 0:
            activation = layers[i + 2] if i + 2 < len(layers) else None
            slope = activation.negative_slope if isinstance(activation, nn.LeakyReLU) else 1
            place[i], place[i + 1] = WinogradConv2d(conv, here, enlarged=s, slope=slope), nn.Identity()
            if isinstance(activation, nn.LeakyReLU):
                place[i + 2] = nn.Identity()
        elif i + 2 == len(layers) and s in SHUFFLES:
            place[i], place[i + 1] = LastConvolution(conv, here, s), nn.Identity()


class FusedBlocks(nn.Module):
    """`PixelAttentionBlocks` in one call of kernels/vapsr.cpp: (N, C, H, W) → the same shape, channels-last, in float32 or
    bfloat16.

    In bfloat16, factors of products are rounded, but sums and the maps between blocks are not, so the result is closer to
    float32 than torch's. The pixels do not depend on the number of threads.

    Raises:
        MemoryError: if its buffers do not fit.
    """

    def __init__(self, form: PixelAttentionBlocks, precision: Precision) -> None:
        super().__init__()
        found = library()
        assert found is not None
        self._library, self._dtype = found, _DTYPES[precision]
        weights = _weights(form)
        table = gelu_table(degree=3 if precision == "bf16" else 5)
        project = form.blocks[0].project
        made = found.upframe_vapsr_make(
            *(project.in_channels, project.out_channels, len(form.blocks)),
            *(precision == "bf16", weights.ctypes.data, table.ctypes.data),
        )
        self._handle = _owned(self, made, found.upframe_vapsr_free)

    @staticmethod
    def suits(form: KernelForm | None) -> TypeGuard[PixelAttentionBlocks]:
        """Whether every block has a size for which a kernel was compiled."""
        return (
            _has("upframe_vapsr_make")
            and isinstance(form, PixelAttentionBlocks)
            and all(
                block.project.in_channels in _CHANNELS and block.project.out_channels == _ATTENTION_CHANNELS
                for block in form.blocks
            )
        )

    def forward(self, x: Tensor) -> Tensor:
        x = x.to(self._dtype).contiguous(memory_format=torch.channels_last)
        out = torch.empty_like(x)
        h, w = x.shape[-2:]
        is_bf16, threads = x.dtype == torch.bfloat16, torch.get_num_threads()
        for frame, made in zip(x, out, strict=True):
            _check(self._library.upframe_vapsr_run(self._handle, frame.data_ptr(), made.data_ptr(), is_bf16, h, w, threads))
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


def _weights(form: PixelAttentionBlocks) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    """The parameters of all blocks, one after the other, in the order of `Block` in the C++ file."""
    parts: list[Tensor] = []
    for block in form.blocks:
        layers: list[Any] = [block.project, block.pointwise, block.depthwise, block.depthwise_dilated]
        for layer in (*layers, block.project_back, block.norm):
            parts += [layer.weight.detach().float().flatten(), layer.bias.detach().float().flatten()]
    return np.ascontiguousarray(torch.cat(parts).numpy())
