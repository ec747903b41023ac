"""Muon: steps of weights between channels with singular values near one, Adam's steps for all others."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from upframe.errors import UsageError
from upframe.models.architectures._deformable import FlowGuidedAlignment
from upframe.models.networks import MODELS
from upframe.training.loop.muon import Muon, matrices, orthogonalised
from upframe.training.loop.optimiser import make_optimiser
from upframe.training.recipes.recipe import Optimiser, ParameterGroup


class Mixed(nn.Module):
    """One parameter of each sort."""

    def __init__(self) -> None:
        super().__init__()
        self.mixing = nn.Conv2d(8, 12, 3)
        self.pointwise = nn.Conv2d(12, 12, 1, bias=False)
        self.alone = nn.Conv2d(12, 12, 5, groups=12)
        self.norm = nn.LayerNorm(12)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.alone(self.pointwise(self.mixing(x)))
        return self.norm(y.movedim(1, -1))


def _trained(method: Any, *, steps: int = 1, **rules: Any) -> tuple[Mixed, Mixed]:
    """The network before and after some steps on noise."""
    torch.manual_seed(0)
    before, after = Mixed(), Mixed()
    after.load_state_dict(before.state_dict())
    optimiser = make_optimiser(after, Optimiser(method=method, learning_rate=1e-3, **rules))
    for _ in range(steps):
        optimiser.zero_grad()
        after(torch.randn(2, 8, 12, 12)).square().mean().backward()
        optimiser.step()
    return before, after


@pytest.mark.parametrize("shape", [(24, 24), (16, 90), (90, 16), (1, 7)])
def test_singular_values_come_near_one_and_directions_stay(shape: tuple[int, int]) -> None:
    """Against the polar factor by torch's SVD; the iteration ends between 0.68 and 1.2."""
    u, s, vt = torch.linalg.svd(torch.randn(*shape, generator=torch.Generator().manual_seed(1)), full_matrices=False)
    matrix = u @ torch.diag(torch.linspace(2e-5, 1e-4, len(s))) @ vt  # of the size of gradients
    made = u.T @ orthogonalised(matrix) @ vt.T  # diagonal if directions stayed
    values = made.diagonal()
    assert values.min() > 0.65 and values.max() < 1.2
    torch.testing.assert_close(made, torch.diag(values), rtol=0, atol=1e-4)  # float32, a few dozen terms a sum


def test_a_transposed_matrix_gives_the_transposed_and_nothing_gives_nothing() -> None:
    matrix = torch.randn(5, 9)
    torch.testing.assert_close(orthogonalised(matrix.T), orthogonalised(matrix).T)
    assert torch.equal(orthogonalised(torch.zeros(3, 4)), torch.zeros(3, 4))


def test_weights_between_channels_take_orthogonal_steps_and_all_others_those_of_adam() -> None:
    before, muon = _trained("muon")
    _, adam = _trained("adam")
    compared = set()
    for (name, was), ours, theirs in zip(before.named_parameters(), muon.parameters(), adam.parameters(), strict=True):
        if name in {"mixing.weight", "pointwise.weight"}:
            step = (ours - was).detach().flatten(1) / (1e-3 * 0.2 * max(was.flatten(1).shape) ** 0.5)
            values = torch.linalg.svdvals(step)
            assert 0.6 < values.median() < 1.2 and values.max() < 1.25, name
            # Root mean square of a step: as long as 0.2 of the rate where all singular values are one.
            assert 0.1e-3 < (ours - was).square().mean().sqrt() < 0.25e-3, name
            compared.add(name)
        else:
            assert torch.equal(ours, theirs) and not torch.equal(ours, was), name
    assert len(compared) == 2
    assert {id(p) for p in matrices(before)} == {id(before.mixing.weight), id(before.pointwise.weight)}


@pytest.mark.parametrize("name", ["rlfn-x4", "vapsr-s-x4", "realbasicvsr-x4", "vrt-reds6-x4", "vsrt-reds-x4"])
def test_only_weights_between_channels_are_matrices_of_the_five_systems(name: str) -> None:
    """VSR-Transformer's norms have scales of three axes, VRT tables of biases with two."""
    network = MODELS[name].build()
    chosen = {id(p) for p in matrices(network)}
    for owner in network.modules():
        for leaf, parameter in owner.named_parameters(recurse=False):
            layer = isinstance(owner, nn.Linear | nn.Conv2d | nn.Conv3d | FlowGuidedAlignment)
            single = isinstance(owner, nn.Conv2d) and owner.in_channels == owner.groups
            assert (id(parameter) in chosen) == (layer and leaf == "weight" and not single), (type(owner), leaf)


def test_momentum_is_nesterovs_with_095() -> None:
    """Two steps against the rule written out: m = 0.95 m + 0.05 g, step along 0.95 m + 0.05 g."""
    weight = nn.Parameter(torch.zeros(6, 10))
    muon = Muon([{"params": [weight]}], matrices=[weight], lr=0.5)
    momentum, expected = torch.zeros(6, 10), torch.zeros(6, 10)
    for seed in (1, 2):
        gradient = torch.randn(6, 10, generator=torch.Generator().manual_seed(seed))
        weight.grad = gradient.clone()
        muon.step()
        assert torch.equal(weight.grad, gradient)  # is still there to be looked at
        momentum = 0.95 * momentum + 0.05 * gradient
        expected -= 0.5 * 0.2 * 10**0.5 * orthogonalised(0.95 * momentum + 0.05 * gradient)
    torch.testing.assert_close(weight.detach(), expected, rtol=0, atol=1e-4)


def test_l2_penalty_joins_the_gradient() -> None:
    weight = nn.Parameter(torch.randn(6, 10))
    was = weight.detach().clone()
    weight.grad = torch.zeros(6, 10)
    Muon([{"params": [weight]}], matrices=[weight], lr=0.5, weight_decay=0.1).step()
    torch.testing.assert_close(weight.detach(), was - 0.5 * 0.2 * 10**0.5 * orthogonalised(was), rtol=0, atol=1e-4)


def test_a_frozen_group_stands_still_and_has_no_state() -> None:
    network = Mixed()
    optimiser = make_optimiser(network, Optimiser(method="muon", groups=(ParameterGroup(("pointwise",), frozen_until=9),)))
    before = network.pointwise.weight.detach().clone()
    network.pointwise.requires_grad_(False)  # as set_frozen does
    network(torch.randn(1, 8, 12, 12)).square().sum().backward()
    optimiser.step()
    assert torch.equal(network.pointwise.weight, before)
    assert network.pointwise.weight not in optimiser.state and network.mixing.weight in optimiser.state


def test_a_group_has_a_rate_of_its_own() -> None:
    weight = nn.Parameter(torch.zeros(6, 10))
    slow = nn.Parameter(torch.zeros(6, 10))
    muon = Muon([{"params": [weight]}, {"params": [slow], "lr": 0.25}], matrices=[weight, slow], lr=0.5)
    weight.grad = torch.randn(6, 10)
    slow.grad = weight.grad.clone()
    muon.step()
    torch.testing.assert_close(slow * 2, weight)


def test_a_step_with_an_infinite_gradient_is_left_out_by_the_scaler() -> None:
    weight, bias = nn.Parameter(torch.ones(4, 4)), nn.Parameter(torch.ones(4))
    muon = Muon([{"params": [weight, bias]}], matrices=[weight], lr=0.1)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0)
    scaler.scale((weight.sum() + bias.sum()) * 1.0).backward()  # type: ignore[no-untyped-call] # absent from torch's stubs
    assert weight.grad is not None
    weight.grad[0, 0] = torch.inf
    scaler.step(muon)
    scaler.update()
    assert torch.equal(weight, torch.ones(4, 4)) and torch.equal(bias, torch.ones(4))
    assert scaler.get_scale() == 1.0


def test_a_closure_makes_the_gradients_that_are_stepped_along() -> None:
    torch.manual_seed(1)
    one, two = nn.Linear(5, 7), nn.Linear(5, 7)
    two.load_state_dict(one.state_dict())
    first, second = (make_optimiser(network, Optimiser(method="muon")) for network in (one, two))
    x = torch.randn(3, 5)

    def closure() -> float:
        second.zero_grad()
        loss = two(x).square().mean()
        loss.backward()
        return loss.item()

    for _ in range(2):
        first.zero_grad()
        expected = one(x).square().mean()
        expected.backward()
        first.step()
        assert second.step(closure) == expected.item()
    assert torch.equal(one.weight, two.weight) and torch.equal(one.bias, two.bias)


def test_another_method_is_refused() -> None:
    from upframe.training.recipes.registry import find_recipe

    with pytest.raises(UsageError, match="adam"):
        find_recipe("toy-rlfn").override({"optimiser.method": "sgd"})
