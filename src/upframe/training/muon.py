"""Muon: steps of matrices whose singular values have all been brought to about one."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

MOMENTUM = 0.95
"""Decay of the averaged gradient; the step looks one decay ahead (Nesterov)."""
_COEFFICIENTS = (3.4445, -4.7750, 2.0315)
_ITERATIONS = 5


def orthogonalised(matrix: Tensor) -> Tensor:
    """About U Vᵀ of a matrix U S Vᵀ: five Newton-Schulz iterations bring singular values between roughly 0.7 and 1.2.

    Those below about a hundredth of the matrix's Frobenius norm end lower.

    Args:
        matrix: (rows, columns), float32.

    Source: Jordan et al., "Muon: An optimizer for hidden layers in neural networks", 2024, for the coefficients.
    """
    wide = matrix.T if matrix.shape[0] > matrix.shape[1] else matrix
    x: Tensor = wide / wide.norm().clamp_min(1e-30)
    a, b, c = _COEFFICIENTS
    for _ in range(_ITERATIONS):
        gram = x @ x.T
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x if wide is matrix else x.T


class Muon(torch.optim.Adam):
    """Adam, but for weights that mix channels: those of convolutions with several input channels a group, of linear layers.

    Such a weight is taken as a matrix (outputs, everything else), its step is the `orthogonalised` averaged gradient times
    0.2 √(the longer side): about as long, root mean square, as Adam's steps are, so that one learning rate serves both. L2
    penalties are added to the gradient, as in Adam. Takes Adam's arguments.

    Sources: Jordan et al. 2024; Liu et al., "Muon is scalable for LLM training", arXiv 2502.16982, equation 4, for the length.
    """

    def __init__(self, params: Iterable[dict[str, Any]], **settings: Any) -> None:
        super().__init__(params, fused=True, **settings)
        # A gradient scaler then leaves out steps with infinite gradients itself, of matrices too.
        self._step_supports_amp_scaling = False

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Step all parameters that have a gradient."""
        mixing: list[tuple[nn.Parameter, Tensor]] = []
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None or not mixes_channels(parameter):
                    continue
                mixing.append((parameter, parameter.grad))
                self._step_matrix(parameter, parameter.grad, group["lr"], group["weight_decay"])
                parameter.grad = None  # Adam's own step passes it over
        try:
            return super().step(closure)
        finally:
            for parameter, gradient in mixing:
                parameter.grad = gradient

    def _step_matrix(self, parameter: nn.Parameter, gradient: Tensor, rate: float, weight_decay: float) -> None:
        if weight_decay:
            gradient = gradient.add(parameter, alpha=weight_decay)
        state = self.state[parameter]
        if not state:
            # Adam reads "step" of every state that it loads.
            state["step"] = torch.zeros((), dtype=torch.float32)
            state["momentum"] = torch.zeros_like(parameter)
        state["step"] += 1
        momentum = state["momentum"].lerp_(gradient, 1 - MOMENTUM)
        step = orthogonalised(gradient.lerp(momentum, MOMENTUM).flatten(1))
        parameter.add_(step.view_as(parameter), alpha=-rate * 0.2 * max(step.shape) ** 0.5)


def mixes_channels(parameter: Tensor) -> bool:
    """Whether a weight is a matrix between channels; not so biases, scales and kernels of single channels."""
    return parameter.dim() > 1 and parameter.shape[1] > 1
