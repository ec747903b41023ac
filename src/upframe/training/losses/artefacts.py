"""The loss against artefacts: the absolute error, weighted by how much the error varies around a pixel.

Source: J. Liang, H. Zeng, L. Zhang, "Details or Artifacts: A Locally Discriminative Learning Approach to Realistic Image
Super-Resolution", CVPR 2022, arXiv 2203.09195, equations 3 to 6. Artefacts of adversarial training vary more from pixel to
pixel than the error of a blurred result. The weight is σ · v: v the variance of the error in a window around the pixel, σ the
fifth root of its variance in the whole picture.

Difference from the article: it also sets the weight to 0 where the averaged network errs more than the trained one. That takes
a second forward pass of the network, and the other half of the weight works without it.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from upframe.pixels import mirror_pad
from upframe.training.losses.comparison import as_pictures, comparable

WINDOW_PX = 7
ROOT = 5


class ArtefactLoss(nn.Module):
    """Mean of weight · |prediction - target|; the weight carries no gradient.

    Args:
        window_px: Side of the window, odd.

    Raises:
        ValueError: if it is even, or below 3.
    """

    def __init__(self, *, window_px: int = WINDOW_PX) -> None:
        super().__init__()
        if window_px < 3 or window_px % 2 == 0:
            raise ValueError(f"window_px must be an odd number of 3 or more, not {window_px}")
        self.window_px = window_px

    def forward(self, prediction: Tensor, target: Tensor) -> Tensor:
        """(N, 3, H, W) or (N, T, 3, H, W), twice → scalar."""
        prediction, target = comparable(as_pictures(prediction), as_pictures(target))
        weight = self.weights(prediction.detach(), target)
        return (weight * (prediction - target).abs()).mean()

    def weights(self, prediction: Tensor, target: Tensor) -> Tensor:
        """Return the weight of each pixel, (N, 1, H, W)."""
        error = (target - prediction).abs().sum(1, keepdim=True)
        overall = error.var(dim=(1, 2, 3), keepdim=True) ** (1 / ROOT)
        return overall * self._local_variance(error)

    def _local_variance(self, error: Tensor) -> Tensor:
        reach, count = self.window_px // 2, self.window_px**2
        padded = mirror_pad(error, top=reach, bottom=reach, left=reach, right=reach)
        mean, mean_square = (F.avg_pool2d(x, self.window_px, stride=1) for x in (padded, padded.square()))
        return (mean_square - mean.square()).clamp_min(0) * (count / (count - 1))
