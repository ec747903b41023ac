"""Small networks with windows in time, whose exact results are known: a mean over the window, and a frame in between."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from upframe.models.registry import Model
from upframe.models.spec import ModelSpec, SizeRule, Window


class WindowMean(nn.Module):
    """Each frame plus the mean of all frames it is called with: what windows it was cut into can be told from the result.
    `lengths` and `sigmas` record the calls."""

    def __init__(self) -> None:
        super().__init__()
        self.lengths: list[int] = []
        self.sigmas: list[float | None] = []

    def forward(self, clip: Tensor, *, sigma: float | None = None) -> Tensor:
        self.lengths.append(clip.shape[1])
        self.sigmas.append(sigma)
        return 0.5 * clip + 0.5 * clip.mean(1, keepdim=True)


class Middle(nn.Module):
    """Four frames → the mean of the inner two."""

    def forward(self, clip: Tensor) -> Tensor:
        assert clip.shape[1] == 4
        return clip[:, 1:3].mean(1, keepdim=True)


def _model(network: nn.Module, window: Window, **facts: Any) -> Model:
    spec = ModelSpec(
        name="windowed",
        family="Windowed",
        build=type(network),
        scale=1,
        halo_px=0,
        exact_halo_px=0,
        tiling="exact",
        window=window,
        paper="",
        licence="",
        **facts,
    )
    return Model(spec, network.eval(), None, None, "windowed")


def window_mean(window: Window, **facts: Any) -> tuple[Model, WindowMean]:
    network = WindowMean()
    return _model(network, window, **facts), network


def middle() -> Model:
    return _model(Middle(), Window(frames=4, overlap=3, minimum=4), task="interpolate", size=SizeRule(8, 8))


def blended(clip: Tensor, cut: list[range]) -> Tensor:
    """Return the result of `WindowMean` for a clip (T, ...) cut into windows, by the definition of the weights."""
    total, weights = torch.zeros_like(clip), torch.zeros(len(clip))
    for k, window in enumerate(cut):
        before = cut[k - 1].stop - window.start if k else 0
        after = window.stop - cut[k + 1].start if k + 1 < len(cut) else 0
        part = clip[window.start : window.stop]
        made = 0.5 * part + 0.5 * part.mean(0, keepdim=True)
        for i, t in enumerate(window):
            weight = min(1.0, (i + 1) / (before + 1), (len(window) - i) / (after + 1))
            total[t] += weight * made[i]
            weights[t] += weight
    return total / weights.view(-1, *[1] * (clip.ndim - 1))
