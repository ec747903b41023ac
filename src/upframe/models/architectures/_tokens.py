"""Layers that work on one token (one pixel of one frame) at a time, in pieces that fit into the processor's cache.

Transformers for clips spend most of their time between these layers: a hidden tensor of a whole clip is written to memory and
read back several times for a few operations per value. Here a piece of a few thousand tokens passes through all successive
layers before the next one starts, so hidden values never leave the cache and never exist for the whole clip. Results equal
those of the reference form except for rounding.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

CPU_TOKENS = 3072
"""Tokens in a piece on a CPU: 180 channels of them in float32 take 2 MB. Up to four times as many take the same time."""
GPU_TOKENS = 1 << 17
"""Tokens in a piece elsewhere, where only memory limits it and small pieces would leave most of the device idle."""


def tokens_at_once(device: torch.device) -> int:
    return CPU_TOKENS if device.type == "cpu" else GPU_TOKENS


def on_onednn(x: Tensor) -> bool:
    """Whether convolutions of such values run on oneDNN."""
    if x.device.type != "cpu" or x.dtype not in (torch.float32, torch.bfloat16):
        return False
    return bool(torch.backends.mkldnn.is_available())  # type: ignore[no-untyped-call]  # of torch


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """(M, C) → (M, K), as `F.linear`.

    On CPUs, float32 and bfloat16 go through oneDNN's 1×1 convolution. It is twice as fast as torch's library for float32
    matrix products on processors that the library is not tuned for, and no slower on others.
    """
    if not on_onednn(x):
        return F.linear(x, weight, bias)
    count, channels = x.shape
    batch = 1 if count % 16 else 16  # torch takes oneDNN for these on a single thread only in batches of 16 and more
    pixels = x.view(batch, count // batch, 1, channels).permute(0, 3, 1, 2)  # channels-last without a copy
    return F.conv2d(pixels, weight[:, :, None, None], bias).permute(0, 2, 3, 1).reshape(-1, weight.shape[0])


def layer_norm(x: Tensor, layer: nn.LayerNorm, dtype: torch.dtype | None = None) -> Tensor:
    """Apply `layer` in the dtype of `x`, which may be wider than that of its parameters; the result has `dtype`."""
    weight, bias = layer.weight.to(x.dtype), layer.bias.to(x.dtype)
    return F.layer_norm(x, layer.normalized_shape, weight, bias, layer.eps).to(dtype or x.dtype)


def norm_linear(x: Tensor, norm: nn.LayerNorm, layer: nn.Linear) -> Tensor:
    """(M, C) → (M, K): normalise, then apply a linear layer; in the dtype of `layer`."""
    return linear(layer_norm(x, norm, layer.weight.dtype), layer.weight, layer.bias)


def tokenwise(function: Callable[..., Tensor], *inputs: Tensor, into: Tensor | None = None) -> Tensor:
    """Apply `function` to the tokens of all inputs, piece by piece.

    Args:
        function: (M, C_1), (M, C_2), … → (M, K), each row independently.
        inputs: (..., C_1), (..., C_2), … with the same leading sizes.
        into: Tensor for the result; contiguous, and may be one of the inputs. Ignored when gradients are on.

    Returns:
        (..., K): `into`, or a new tensor.
    """
    leading = inputs[0].shape[:-1]
    rows = [x.reshape(-1, x.shape[-1]) for x in inputs]
    if torch.is_grad_enabled():
        return function(*rows).view(*leading, -1)
    count, step = rows[0].shape[0], tokens_at_once(inputs[0].device)
    out = None if into is None else into.view(count, -1)
    for start in range(0, count, step):
        made = function(*(x[start : start + step] for x in rows))
        if out is None:
            if count <= step:
                return made.view(*leading, -1)
            out = made.new_empty(count, made.shape[1])
        out[start : start + step] = made
    assert out is not None
    return out.view(*leading, -1)


def framewise(function: Callable[[int], Tensor], frames: int, *, dtype: torch.dtype) -> Tensor:
    """Apply `function` to the number of each frame, and stack the results (N, ...) to (N, frames, ...) of this dtype."""
    if torch.is_grad_enabled():
        return torch.stack([function(i).to(dtype) for i in range(frames)], dim=1)
    first = function(0)
    out = first.new_empty(first.shape[0], frames, *first.shape[1:], dtype=dtype)
    out[:, 0] = first
    for i in range(1, frames):
        out[:, i] = function(i)
    return out


class GatedMLP(nn.Module):
    """fc2(GELU(fc11(x)) · fc12(x)): (M, C) → (M, K) for tokens of any precision; the result in that of the parameters.

    N. Shazeer, "GLU Variants Improve Transformer", https://arxiv.org/abs/2002.05202, with the exact GELU.
    """

    def __init__(self, channels_in: int, hidden: int, channels_out: int) -> None:
        super().__init__()
        self.fc11 = nn.Linear(channels_in, hidden)
        self.fc12 = nn.Linear(channels_in, hidden)
        self.fc2 = nn.Linear(hidden, channels_out)

    def forward(self, x: Tensor) -> Tensor:
        x = x.to(self.fc11.weight.dtype)
        gate = F.gelu(linear(x, self.fc11.weight, self.fc11.bias))
        value = linear(x, self.fc12.weight, self.fc12.bias)
        hidden = gate * value if torch.is_grad_enabled() else gate.mul_(value)
        return linear(hidden, self.fc2.weight, self.fc2.bias)
