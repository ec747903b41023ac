"""The objective of a stage: the forward pass of any network, and the sum of the recipe's loss terms."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from upframe.errors import UsageError
from upframe.models.architectures._flow import LEVELS
from upframe.models.spec import Cleaning, ModelSpec
from upframe.pixels import imresize
from upframe.training.data.samples import Batch
from upframe.training.degradations.sharpening import unsharp_mask
from upframe.training.losses.build import build_loss
from upframe.training.recipes.recipe import LossTerm, Sharpening, Stage

Raw = tuple[Tensor, Tensor | None, tuple[Tensor, ...]]
_ALL_FRAMES_AT_ONCE = Cleaning(sequential=False)


class Generator(nn.Module):
    """A network with the forward pass of training, so that it can be wrapped and compiled as a whole.

    Args:
        cleans: Whether to return the cleaned clip too, for networks whose spec has a `preparation`.
        views: Whether a sample is two views of a scene, as separate arguments of the network, as for flow networks.
    """

    def __init__(self, network: nn.Module, *, cleans: bool, views: bool) -> None:
        super().__init__()
        self.network = network
        self._cleans, self._views = cleans, views

    def forward(self, lq: Tensor) -> Raw:
        """(N, 3, h, w) or (N, T, 3, h, w) → the network's output, the cleaned clip (N, T, 3, h, w) if requested, and, for a
        flow network, the flows of its coarser levels."""
        if self._views:
            finest, *coarser = self.network.pyramid(lq[:, 0], lq[:, 1], scales=LEVELS)  # type: ignore[operator] # flow networks
            return finest, None, tuple(coarser)
        if not self._cleans:
            return self.network(lq), None, ()
        cleaned = self.network.prepare(lq, _ALL_FRAMES_AT_ONCE).clip  # type: ignore[operator] # models.interfaces.Prepares
        return self.network(cleaned, prepared=True), cleaned, ()


@dataclass(frozen=True)
class Outputs:
    """Outputs of the network for a batch, in float32."""

    output: Tensor
    """(N, 3, s·h, s·w) or (N, T, 3, s·h, s·w)."""
    cleaned: Tensor | None
    """(N, T, 3, h, w); None if no loss uses it."""
    coarser: tuple[Tensor, ...] = ()
    """For a flow network: the flows of its coarser levels, in pixels of their own size."""


class Objective(nn.Module):
    """The weighted sum of a stage's loss terms.

    Raises:
        UsageError: if a loss uses the cleaned clip, and the network does not clean.
        ModelError: if a loss needs a weights file that does not exist.
    """

    def __init__(self, stage: Stage, spec: ModelSpec) -> None:
        super().__init__()
        self.terms = dict(zip(_names(stage.losses), stage.losses, strict=True))
        self.losses = nn.ModuleDict({name: build_loss(term) for name, term in self.terms.items()})
        self.losses.requires_grad_(False)
        self.cleans = any(term.on == "cleaned" for term in stage.losses)
        self._sharpening, self._scale = stage.sharpening, spec.scale
        if self.cleans and spec.preparation is None:
            happened = f"a loss uses the cleaned clip, and {spec.name} does not clean"
            raise UsageError(f"stage {stage.name}", happened, "train a network that cleans, or remove that loss")

    def forward(
        self, outputs: Outputs, batch: Batch, *, discriminator: Callable[[Tensor], Tensor] | None = None, parts: int = 1
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the whole loss, and every term without its weight.

        Args:
            discriminator: Scores pictures (N, 3, H, W) for "gan" terms; its parameters must not require gradients now.
            parts: Number of equal parts into which the step's batch is divided; `batch` is one of them. Losses that sum over
                pixels are multiplied by it, so that the mean over the parts equals the sum over the whole batch.
        """
        sharp = _sharpened(batch.gt, self._sharpening)
        values: dict[str, Tensor] = {}
        total = outputs.output.new_zeros(())
        for name, term in self.terms.items():
            loss = self.losses[name]
            target = batch.gt if sharp is None or term.target == "gt" else sharp
            if term.kind == "gan":
                assert discriminator is not None
                value = loss(discriminator(folded(outputs.output)), True)
            elif term.on == "cleaned":
                assert outputs.cleaned is not None
                value = loss(outputs.cleaned, _reduced(target, outputs.cleaned))
            elif term.kind == "contrastive":
                value = loss(outputs.output, target, negative=self._enlarged(batch.lq))
            elif term.kind == "endpoint_error":
                value = loss(outputs.output, target, coarser=outputs.coarser)
            else:
                value = loss(outputs.output, target)
            if term.options.get("reduction") == "sum":
                value = value * parts
            values[name] = value.detach()
            total = total + term.weight * value
        return total, values

    def gan_loss(self, scores: Tensor, real: bool) -> Tensor:
        """Return the loss of the discriminator's scores against those of true pictures (`real`), or of generated ones."""
        name = next(name for name, term in self.terms.items() if term.kind == "gan")
        return self.losses[name](scores, real)  # type: ignore[no-any-return]

    def _enlarged(self, lq: Tensor) -> Tensor:
        """Enlarge the network's input by MATLAB's bicubic to the size of its output."""
        return imresize(lq, self._scale)


def folded(x: Tensor) -> Tensor:
    """Turn a clip's frames into pictures of a batch: (N, T, C, H, W) → (N·T, C, H, W); pictures stay as they are."""
    return x.flatten(0, 1) if x.ndim == 5 else x


def in_float32(outputs: Raw) -> Outputs:
    output, cleaned, coarser = outputs
    return Outputs(output.float(), None if cleaned is None else cleaned.float(), tuple(flow.float() for flow in coarser))


def _reduced(target: Tensor, like: Tensor) -> Tensor:
    """Reduce (N, T, 3, s·h, s·w) to (N, T, 3, h, w) by area averaging."""
    small = F.interpolate(folded(target), size=like.shape[-2:], mode="area")
    return small.reshape(*target.shape[:-2], *like.shape[-2:])


def _sharpened(gt: Tensor, how: Sharpening | None) -> Tensor | None:
    if how is None:
        return None
    with torch.no_grad():
        return unsharp_mask(gt, kernel_size=how.kernel_px, sigma=how.sigma_px, weight=how.weight, threshold=how.threshold)


def _names(terms: tuple[LossTerm, ...]) -> list[str]:
    """Return the names of the terms in the log: kind, picture unless it is the output, and a number for a repeated term."""
    names: list[str] = []
    for term in terms:
        name = term.kind if term.on == "output" else f"{term.kind}_{term.on}"
        same = sum(other.rpartition("#")[0] == name or other == name for other in names)
        names.append(f"{name}#{same + 1}" if same else name)
    return names
