"""Muon: an optimiser that brings all singular values of a matrix's step to about one."""

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
    """Return about U Vᵀ of a matrix U S Vᵀ. Five Newton-Schulz iterations bring its singular values to 0.68 to 1.2.

    Singular values below 0.0015 of the matrix's Frobenius norm end lower.

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
    """Adam, except that weights between channels get orthogonalised steps.

    Such a weight is treated as a matrix (outputs, everything else). Its step is the `orthogonalised` averaged gradient times
    0.2 √(the longer side). In root mean square, this is about as long as Adam's steps, so one learning rate suits both. L2
    penalties are added to the gradient, as in Adam. torch.optim.Muon accepts only matrices, no convolutions.

    Args:
        params: Groups, as for Adam; `settings` are Adam's as well.
        matrices: Weights between channels, as `matrices` finds them.

    Sources: Jordan et al. 2024; Liu et al., "Muon is scalable for LLM training", arXiv 2502.16982, equation 4, for the length.
    """

    def __init__(self, params: Iterable[dict[str, Any]], *, matrices: Iterable[nn.Parameter], **settings: Any) -> None:
        super().__init__(params, fused=True, **settings)
        self._matrices = {id(parameter) for parameter in matrices}
        for group in self.param_groups:
            group["method"] = "muon"  # so that a checkpoint records it
        # A gradient scaler then skips steps with infinite gradients, also for matrices.
        self._step_supports_amp_scaling = False

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Step all parameters that have a gradient. `closure`, if given, computes the gradients first; return its result."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        stepped: list[tuple[nn.Parameter, Tensor]] = []
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None or id(parameter) not in self._matrices:
                    continue
                stepped.append((parameter, parameter.grad))
                self._step_matrix(parameter, parameter.grad, group["lr"], group["weight_decay"])
                parameter.grad = None  # Adam's own step skips it
        try:
            super().step()
        finally:
            for parameter, gradient in stepped:
                parameter.grad = gradient
        return loss

    def _step_matrix(self, parameter: nn.Parameter, gradient: Tensor, rate: float, weight_decay: float) -> None:
        if weight_decay:
            gradient = gradient.add(parameter, alpha=weight_decay)
        state = self.state[parameter]
        if not state:
            # Adam reads "step" in every state that it loads.
            state["step"] = torch.zeros((), dtype=torch.float32)
            state["momentum"] = torch.zeros_like(parameter)
        state["step"] += 1
        momentum = state["momentum"].lerp_(gradient, 1 - MOMENTUM)
        step = orthogonalised(gradient.lerp(momentum, MOMENTUM).flatten(1))
        parameter.add_(step.view_as(parameter), alpha=-rate * 0.2 * max(step.shape) ** 0.5)


def matrices(network: nn.Module) -> list[nn.Parameter]:
    """Return the weights between channels: those of linear layers, and of convolutions (also deformable ones) with several
    input channels per group. Biases, tables of biases, scales of any shape and kernels of single channels are not among
    them."""
    return [
        parameter
        for name, parameter in network.named_parameters()
        if name.rpartition(".")[2] in {"weight", "weight_orig"} and parameter.dim() in {2, 4, 5} and parameter.shape[1] > 1
    ]
