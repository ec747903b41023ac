"""The discriminator: outputs and norms of the published ones, any size, and the game it is played in."""

from __future__ import annotations

from types import ModuleType

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from upframe.training.losses.build import VanillaGanLoss
from upframe.training.losses.discriminator import SpectralConv2d, UNetDiscriminator


def _noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def _toy(*, seed: int = 0) -> UNetDiscriminator:
    torch.manual_seed(seed)
    return UNetDiscriminator(channels=4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", ["unet_disc_mm", "unet_disc_basicsr"])
def test_matches_both_published_implementations(golden: ModuleType, name: str, dtype: torch.dtype) -> None:
    """Their names load as they are; outputs in training and evaluation, and the vectors of the power iteration."""
    reference = golden.Golden(f"common/{name}")
    network = UNetDiscriminator(channels=8).to(dtype)
    weights = reference.weights(dtype)
    network.load_state_dict(weights)
    reference.check("out.train_first_call", network(reference.input("x", dtype)))
    reference.check("out.eval_after_train_call", network.eval()(reference.input("x", dtype)))
    state = network.state_dict()
    updated = reference.names("mid.after_train.")
    assert len(updated) == 16  # u and v of eight convolutions
    for entry in updated:
        reference.check(entry, state[entry.removeprefix("mid.after_train.").replace("conv_", "conv")])
    assert sum(p.numel() for p in network.parameters()) == reference.meta["param_count"]
    assert len(state) == reference.meta["state_dict_entries"]


def test_loading_changes_no_state_of_the_caller_and_works_inside_another_module() -> None:
    network = _toy()
    theirs = {name.replace("conv", "conv_"): value for name, value in network.state_dict().items()}
    names = list(theirs)
    _toy(seed=1).load_state_dict(theirs)
    assert list(theirs) == names
    holder = nn.ModuleDict({"judge": _toy(seed=1)})
    holder.load_state_dict({f"judge.{name}": value for name, value in theirs.items()})
    x = _noise(1, 3, 8, 8)
    assert torch.equal(holder["judge"].eval()(x), network.eval()(x))
    with pytest.raises(RuntimeError, match="conv3"):
        network.load_state_dict({name: value for name, value in theirs.items() if "conv_3" not in name})


def test_spectral_norm_is_that_of_torch_over_passes_and_gradients() -> None:
    """Output, gradient and buffers of two passes that come before their backward passes, as in the discriminator's step."""
    torch.manual_seed(0)
    ours = SpectralConv2d(3, 5, 4, stride=2)
    theirs = torch.nn.utils.spectral_norm(nn.Conv2d(3, 5, 4, stride=2, padding=1, bias=False))
    theirs.load_state_dict(ours.state_dict())
    real, fake = _noise(2, 3, 8, 8), _noise(2, 3, 8, 8, seed=1)
    for module in (ours, theirs):
        (module(real).square().sum() - module(fake).square().sum()).backward()
    for (name, a), b in zip(ours.state_dict().items(), theirs.state_dict().values(), strict=True):
        assert torch.allclose(a, b, atol=1e-6), name  # values of order 1, products in another order
    expected = theirs.weight_orig.grad
    assert ours.weight_orig.grad is not None and isinstance(expected, Tensor)
    assert torch.allclose(ours.weight_orig.grad, expected, rtol=1e-4, atol=1e-4 * expected.abs().max().item())


def test_the_largest_singular_value_becomes_one() -> None:
    torch.manual_seed(0)
    convolution = SpectralConv2d(4, 6, 3).double()
    for _ in range(300):
        convolution.weight()
    values = torch.linalg.svdvals(convolution.eval().weight().detach().flatten(1))
    assert values.amax().item() == pytest.approx(1, abs=1e-9)


def test_evaluation_does_not_move_the_estimate_and_autocast_does_not_blur_it() -> None:
    convolution = SpectralConv2d(4, 6, 3).eval()
    before = {name: value.clone() for name, value in convolution.state_dict().items()}
    weight = convolution.weight()
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(convolution.weight(), weight)
        assert convolution(_noise(1, 4, 8, 8)).dtype == torch.bfloat16
    assert all(torch.equal(value, before[name]) for name, value in convolution.state_dict().items())


def test_gradients_reach_every_weight_and_the_pictures() -> None:
    network = _toy().double().eval()
    x = _noise(1, 3, 8, 8).double().requires_grad_()
    assert torch.autograd.gradcheck(network, (x,), fast_mode=True)
    network(x).sum().backward()
    assert all(p.grad is not None and bool(p.grad.any()) for p in network.parameters())


@pytest.mark.parametrize("size", [(8, 8), (9, 13), (31, 16), (50, 34)])
def test_scores_every_pixel_of_any_size(size: tuple[int, int]) -> None:
    assert _toy()(_noise(2, 3, *size)).shape == (2, 1, *size)


def test_smaller_pictures_are_refused() -> None:
    with pytest.raises(ValueError, match="8 px"):
        _toy()(_noise(1, 3, 7, 20))


@pytest.mark.slow
def test_it_learns_to_tell_and_its_scores_teach_the_generator() -> None:
    """Smooth pictures are true, noise is made: the discriminator's loss falls well below guessing, 2·ln 2, and following its
    gradient makes the made pictures pass."""
    network, loss = _toy(), VanillaGanLoss()
    optimiser = torch.optim.Adam(network.parameters(), lr=1e-2)
    smooth = F.interpolate(_noise(8, 3, 3, 3), size=(16, 16), mode="bilinear")
    made = _noise(8, 3, 16, 16, seed=1)
    for _ in range(50):
        optimiser.zero_grad()
        judged = loss(network(smooth), True) + loss(network(made), False)
        judged.backward()
        optimiser.step()
    assert judged.item() < 0.7
    network.eval().requires_grad_(False)
    made.requires_grad_()
    before = loss(network(made), True)
    (gradient,) = torch.autograd.grad(before, made)
    assert loss(network(made - gradient / gradient.abs().max() * 0.05), True) < before
