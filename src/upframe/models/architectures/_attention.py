"""Attention with a bias on the logits, in the form that is fastest on the device.

torch's fused kernel is correct everywhere, and is used except on CPUs without gradients. On CPUs it multiplies small matrices
by a library that reaches less than half of the processor's speed in float32, and hardly more in bfloat16. oneDNN, which torch
uses for convolutions, needs a fifth to half less time for windows of some hundred tokens. It gets a few windows at a time, so
that their logits stay in the cache. Softmax is float32 in every form.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from upframe.models.architectures._tokens import on_onednn

LOGITS = 1 << 20  # held at once: 4 MB
CONVOLUTION_FROM = 256  # tokens in a window; with fewer the fused kernel is as fast


def quick_head(channels: int, device: torch.device) -> int:
    """Channels of a head as computed: padded with zeros where an odd number would cost more than they do."""
    if device.type != "cpu":
        return -(-channels // 8) * 8  # fused kernels take no others
    padded = -(-channels // 16) * 16  # 32 take a quarter less time than 30; 24 gain nothing over 20
    return padded if padded <= 1.1 * channels else channels


def attend(q: Tensor, k: Tensor, v: Tensor, *, scale: float, bias: Tensor | None = None) -> Tensor:
    """softmax(scale · q kᵀ + bias) v.

    Args:
        q, k, v: (B, L, heads, head), strided as may be.
        bias: (heads, L, L) or (L, L), for all of B; at least float32.

    Returns:
        (B, L, heads * head).
    """
    form = _fused
    if on_onednn(q) and not torch.is_grad_enabled():
        length, head = q.shape[1], q.shape[3]
        if q.dtype == torch.bfloat16:
            form = _by_products
        elif length >= CONVOLUTION_FROM and length % 16 == 0 and head % 16 == 0:
            form = _by_convolution
    if form is _fused:
        return form(q, k, v, scale, bias)
    step = max(1, LOGITS // (q.shape[1] ** 2 * q.shape[2]))
    parts = [slice(i, i + step) for i in range(0, len(q), step)]
    made = [form(q[part], k[part], v[part], scale, bias) for part in parts]
    return made[0] if len(made) == 1 else torch.cat(made)


def _fused(q: Tensor, k: Tensor, v: Tensor, scale: float, bias: Tensor | None) -> Tensor:
    mask = None if bias is None else bias.to(q.dtype).expand(1, q.shape[2], -1, -1)
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=scale)
    return out.transpose(1, 2).flatten(2)


def _by_products(q: Tensor, k: Tensor, v: Tensor, scale: float, bias: Tensor | None) -> Tensor:
    """As two batches of matrix products."""
    b, length, heads, head = q.shape
    q, k, v = (x.transpose(1, 2).reshape(b * heads, length, head) for x in (q * scale, k, v))
    logits = torch.bmm(q, k.transpose(1, 2)).float()
    if bias is not None:
        logits.view(b, heads, length, length).add_(bias)
    weights = torch.softmax(logits, dim=-1, out=logits).to(v.dtype)
    return torch.bmm(weights, v).view(b, heads, length, head).transpose(1, 2).flatten(2)


def _by_convolution(q: Tensor, k: Tensor, v: Tensor, scale: float, bias: Tensor | None) -> Tensor:
    """As two 1×1 convolutions with a group for each head: queries are pixels, keys and then values the weights."""
    b, length, heads, head = q.shape
    groups = b * heads
    # In a batch of 16, or torch would not take oneDNN on a single thread.
    pixels = (q * scale).transpose(0, 1).reshape(16, length // 16, 1, groups * head).permute(0, 3, 1, 2)
    keys = k.transpose(1, 2).reshape(groups * length, head, 1, 1)
    logits = F.conv2d(pixels, keys, groups=groups).permute(0, 2, 3, 1).reshape(length, b, heads, length)
    if bias is not None:
        logits.add_(bias.transpose(0, 1)[:, None] if bias.dim() == 3 else bias[:, None, None])
    weights = torch.softmax(logits, dim=-1, out=logits).view(16, length // 16, 1, groups * length).permute(0, 3, 1, 2)
    values = v.permute(0, 2, 3, 1).reshape(groups * head, length, 1, 1)
    seen = F.conv2d(weights, values, groups=groups).permute(0, 2, 3, 1)
    return seen.reshape(length, b, heads * head).transpose(0, 1)
