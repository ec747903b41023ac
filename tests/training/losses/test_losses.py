"""Losses: published values, gradients, precision; the extractors of the contrastive and perceptual ones; terms of recipes."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from toy_efficientnet import lite0_layer, lite0_state, write_lite0
from toy_vgg import vgg19_layer, vgg19_state, write_vgg19
from upframe.errors import ModelError, UsageError
from upframe.models.architectures.rlfn import RLFN
from upframe.models.networks import MODELS
from upframe.pixels import imresize
from upframe.training.data.samples import Batch, Source
from upframe.training.loop.train import train
from upframe.training.losses.artefacts import ArtefactLoss
from upframe.training.losses.build import CharbonnierLoss, EndpointErrorLoss, L1Loss, VanillaGanLoss, build_loss
from upframe.training.losses.contrastive import VGG_LAYERS, ContrastiveLoss, RandomFeatures, make_extractor
from upframe.training.losses.efficientnet import EfficientNetLite0Features
from upframe.training.losses.objective import Objective, Outputs
from upframe.training.losses.perceptual import PerceptualLoss, read_perceptual
from upframe.training.losses.vgg19 import VGG19Features
from upframe.training.recipes.recipe import LossTerm, Stage
from upframe.training.recipes.registry import RECIPES

RLFN_X4 = MODELS["rlfn-x4"]


def _noise(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def _stage(*terms: LossTerm) -> Stage:
    return Stage("only", steps=1, losses=terms)


# Published values -----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    ("key", "term"),
    [
        ("l1_mean", LossTerm("l1")),
        ("charbonnier_eps1e-12_sum", LossTerm("charbonnier", options={"eps": 1e-12, "reduction": "sum"})),
        ("charbonnier_eps1e-12_mean", LossTerm("charbonnier")),
        ("charbonnier_eps1e-9_mean", LossTerm("charbonnier", options={"eps": 1e-9, "reduction": "mean"})),
        ("charbonnier_eps1e-6_mean (eps=1e-3 squared)", LossTerm("charbonnier", options={"eps": 1e-6})),
    ],
)
def test_pixel_losses_match_the_reference(golden: ModuleType, key: str, term: LossTerm, dtype: torch.dtype) -> None:
    reference = golden.Golden("common/losses")
    found = build_loss(term)(reference.input("pred", dtype), reference.input("target", dtype))
    # The two smaller epsilons differ by 4e-7 of the value: float64 tells them apart, float32 cannot.
    tolerance = 1e-12 if dtype == torch.float64 else 3e-7
    assert found.item() == pytest.approx(reference.meta["values"][key], rel=tolerance)


def test_gan_loss_matches_the_reference_on_both_sides(golden: ModuleType) -> None:
    reference = golden.Golden("common/losses")
    logits, values, loss = reference.input("logits"), reference.meta["values"], build_loss(LossTerm("gan"))
    assert loss(logits, True).item() == pytest.approx(values["bce_logits_real"], rel=3e-7)
    assert loss(logits, False).item() == pytest.approx(values["bce_logits_fake"], rel=3e-7)
    assert 0.05 * loss(logits, True).item() == pytest.approx(values["generator_vanilla_gan_weight_0.05"], rel=3e-7)


def test_cleaning_loss_compares_with_the_area_average_of_the_truth(golden: ModuleType) -> None:
    """RB-6: between the cleaned clip and the ground truth at a quarter of its size."""
    reference = golden.Golden("common/losses")
    gt = reference.input("gt")  # (1, 2, 3, 16, 20)
    cleaned = _noise(1, 2, 3, 4, 5)
    objective = Objective(_stage(LossTerm("l1", on="cleaned")), MODELS["realbasicvsr-x4"])
    total, _ = objective(Outputs(output=torch.zeros_like(gt), cleaned=cleaned), Batch(cleaned, gt))
    expected = (cleaned[0] - reference.tensors["out.cleaning_target"]).abs().mean()
    assert total.item() == pytest.approx(expected.item(), rel=1e-6)  # the target is stored in float32


def test_endpoint_error_is_the_mean_length_of_the_difference() -> None:
    target = torch.zeros(1, 2, 2, 2)
    prediction = target.clone()
    prediction[0, :, 0, 0] = torch.tensor([3.0, 4.0])  # one of four pixels is off by 5
    assert EndpointErrorLoss()(prediction, target).item() == 1.25
    with pytest.raises(ValueError, match="2 channels"):
        EndpointErrorLoss()(_noise(1, 3, 4, 4), _noise(1, 3, 4, 4))


# Precision, gradients and shapes ----------------------------------------------------------------------------------------
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_added_up_in_float32(dtype: torch.dtype) -> None:
    prediction, target = _noise(4, 3, 64, 64, dtype=dtype), _noise(4, 3, 64, 64, seed=1, dtype=dtype)
    for loss in (L1Loss(), CharbonnierLoss(reduction="sum")):
        found = loss(prediction, target)
        assert found.dtype == torch.float32
        # 49152 addends of float32 in blocks: some 1e-7; half precision itself would be off by 1e-3 and overflow at 65504.
        assert found.item() == pytest.approx(loss(prediction.double(), target.double()).item(), rel=2e-6)
    assert CharbonnierLoss(eps=1e-12)(target, target).item() == pytest.approx(1e-6, rel=1e-6)  # eps is no float16


def test_autocast_changes_no_loss() -> None:
    """Convolutions of the extractors would run in bfloat16 there, and quotients of small distances lose their digits."""
    prediction, target, negative = (_noise(2, 3, 8, 8, seed=s) for s in range(3))
    contrastive = ContrastiveLoss(RandomFeatures(), layer_weights=(1, 1))
    plain = contrastive(prediction, target, negative=negative)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(contrastive(prediction, target, negative=negative), plain)
        assert torch.equal(CharbonnierLoss()(prediction, target), CharbonnierLoss()(prediction, target))
        assert VanillaGanLoss()(prediction, True).dtype == torch.float32


@pytest.mark.parametrize("loss", [L1Loss(), CharbonnierLoss(eps=1e-6), CharbonnierLoss(reduction="sum")])
def test_gradients_of_pixel_losses(loss: nn.Module) -> None:
    prediction, target = (_noise(1, 2, 3, 2, 2, seed=s, dtype=torch.float64).requires_grad_() for s in range(2))
    assert torch.autograd.gradcheck(loss, (prediction, target))


def test_gradients_of_flow_and_gan_losses() -> None:
    prediction, target = (_noise(1, 2, 3, 3, seed=s, dtype=torch.float64).requires_grad_() for s in range(2))
    assert torch.autograd.gradcheck(EndpointErrorLoss(), (prediction, target))
    for real in (True, False):
        assert torch.autograd.gradcheck(lambda scores, real=real: VanillaGanLoss()(scores, real), (prediction,))


@pytest.mark.parametrize("loss", [L1Loss(), CharbonnierLoss(), EndpointErrorLoss()])
def test_equal_pictures_have_a_finite_gradient(loss: nn.Module) -> None:
    same = _noise(1, 2, 4, 4).requires_grad_()
    loss(same, same.detach().clone()).backward()
    assert same.grad is not None and torch.equal(same.grad, torch.zeros_like(same))


@pytest.mark.parametrize("loss", [L1Loss(), CharbonnierLoss(), ContrastiveLoss(RandomFeatures(), layer_weights=(1, 1))])
def test_different_shapes_are_refused_rather_than_broadcast(loss: nn.Module) -> None:
    more = {"negative": _noise(2, 3, 8, 8)} if isinstance(loss, ContrastiveLoss) else {}
    with pytest.raises(ValueError, match="one shape"):
        loss(_noise(2, 3, 8, 8), _noise(1, 3, 8, 8), **more)


# Contrastive --------------------------------------------------------------------------------------------------------------
def _convolved(picture: NDArray[Any], weight: NDArray[Any]) -> NDArray[Any]:
    """3×3 correlation with zero padding, from its definition."""
    _, h, w = picture.shape
    padded = np.pad(picture, ((0, 0), (1, 1), (1, 1)))
    rows = [[(weight * padded[None, :, y : y + 3, x : x + 3]).sum((1, 2, 3)) for x in range(w)] for y in range(h)]
    return np.array(rows).transpose(2, 0, 1)


def test_contrastive_loss_is_equation_8() -> None:
    """RL-13 and RL-14, from the formulas: L1 quotients after Tanh and after the second convolution."""
    extractor = RandomFeatures(seed=3).double()
    layer_weights, eps = (0.25, 2.0), 1e-3
    loss = ContrastiveLoss(extractor, layer_weights=layer_weights, eps=eps)
    images = [_noise(1, 3, 5, 6, seed=s, dtype=torch.float64) for s in range(3)]
    first, second = extractor.first.numpy(), extractor.second.numpy()
    shallow = [np.tanh(_convolved(image[0].numpy(), first)) for image in images]
    deep = [_convolved(x, second) for x in shallow]
    expected = sum(
        weight * np.abs(anchor - positive).mean() / (np.abs(anchor - negative).mean() + eps)
        for weight, (anchor, positive, negative) in zip(layer_weights, (shallow, deep), strict=True)
    )
    assert loss(images[0], images[1], negative=images[2]).item() == pytest.approx(expected, rel=1e-12)


def test_contrastive_loss_falls_on_the_way_from_the_blur_to_the_truth() -> None:
    truth, blur = _noise(1, 3, 16, 16), _noise(1, 3, 16, 16, seed=1)
    loss = ContrastiveLoss(RandomFeatures(), layer_weights=(1, 1))
    values = [loss(blur + share * (truth - blur), truth, negative=blur).item() for share in (0.1, 0.3, 0.5, 0.7, 0.9)]
    assert values == sorted(values, reverse=True)
    assert values[-1] > loss(truth, truth, negative=blur).item() == 0


def test_contrastive_gradients_and_a_result_that_is_the_negative_itself() -> None:
    loss = ContrastiveLoss(RandomFeatures().double(), layer_weights=(1, 1))
    images = [_noise(1, 3, 4, 4, seed=s, dtype=torch.float64) for s in range(3)]
    anchor = images[0].clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: loss(x, images[1], negative=images[2]), (anchor,))
    loss(anchor, images[1], negative=images[0]).backward()
    assert anchor.grad is not None and bool(anchor.grad.isfinite().all())


def test_random_extractor_depends_on_its_seed_alone() -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    one = RandomFeatures(seed=5)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    same, other = RandomFeatures(seed=5), RandomFeatures(seed=6)
    assert torch.equal(one.first, same.first) and torch.equal(one.second, same.second)
    assert not torch.equal(one.first, other.first)
    assert not list(one.parameters()) and not one.state_dict()


def test_random_extractor_is_initialised_as_he_et_al() -> None:
    wide = RandomFeatures(channels=64)
    assert wide.first.shape == (64, 3, 3, 3) and wide.second.shape == (64, 64, 3, 3)
    # σ = √(2 / fan-in); 1728 and 36864 draws: 4 standard errors of σ are 4/√(2·1728) = 7 % and 1.5 %.
    assert wide.first.std().item() == pytest.approx((2 / 27) ** 0.5, rel=0.07)
    assert wide.second.std().item() == pytest.approx((2 / 576) ** 0.5, rel=0.015)


@pytest.mark.parametrize("frames", [None, 3])
def test_contrastive_term_works_for_any_network_with_its_input_enlarged_as_the_negative(frames: int | None) -> None:
    """RL-16: the loss sees pictures only. The negative is MATLAB's bicubic (RL-13)."""

    class Bare(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.shuffle = nn.Conv2d(3, 48, 3, padding=1), nn.PixelShuffle(4)

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.shuffle(self.conv(x.flatten(0, -4)))
            return y.view(*x.shape[:-2], *y.shape[-2:])

    term = LossTerm("contrastive", weight=0.5)
    lq = _noise(2, 3, 16, 16) if frames is None else _noise(1, frames, 3, 16, 16)
    gt = imresize(lq, 4) + 0.1 * _noise(*lq.shape[:-2], 64, 64, seed=1)
    networks: list[nn.Module] = [Bare()] if frames else [Bare(), RLFN(channels=8, blocks=1, scale=4)]
    for network in networks:
        objective, output = Objective(_stage(term), RLFN_X4), network(lq)
        total, values = objective(Outputs(output, None), Batch(lq, gt))
        expected = ContrastiveLoss(RandomFeatures(), layer_weights=(1, 1))(output, gt, negative=imresize(lq, 4))
        assert torch.equal(values["contrastive"], expected) and torch.equal(total, 0.5 * expected)
        total.backward()
        assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in network.parameters())


# VGG-19 -------------------------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def vgg19(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_vgg19(tmp_path_factory.mktemp("vgg") / "vgg19.safetensors")


@pytest.mark.slow
def test_vgg_features_are_those_before_and_after_the_activations_of_configuration_e(vgg19: Path) -> None:
    state, pictures = vgg19_state(), _noise(1, 3, 20, 17)
    layers = (2, 6, 7, 16, 20, 25, 34)
    for layer, found in zip(layers, VGG19Features.read(vgg19, layers=layers)(pictures), strict=True):
        expected = vgg19_layer(pictures, state, layer)
        assert torch.allclose(found, expected, rtol=1e-4, atol=1e-4), layer  # the signal is of order 1; 16 layers of float32
        assert (found.amin() < 0) == (layer not in (6, 20)), "layers 6 and 20 are activations"


@pytest.mark.slow
def test_perceptual_loss_is_the_weighted_sum_of_published_layers(vgg19: Path) -> None:
    """RB-10, with its defaults, for pictures and for the frames of a clip."""
    state, (prediction, target) = vgg19_state(), (_noise(2, 3, 16, 16, seed=s) for s in range(2))
    loss = build_loss(LossTerm("perceptual", options={"weights": str(vgg19)}))
    published = {2: 0.1, 7: 0.1, 16: 1.0, 25: 1.0, 34: 1.0}
    features = [(vgg19_layer(prediction, state, n), vgg19_layer(target, state, n)) for n in published]
    expected = sum(w * (a - b).abs().mean() for w, (a, b) in zip(published.values(), features, strict=True))
    assert loss(prediction, target).item() == pytest.approx(float(expected), rel=1e-5)  # float32, other order of addition
    assert torch.equal(loss(prediction[None], target[None]), loss(prediction, target))


@pytest.mark.slow
@pytest.mark.parametrize(("layers", "message"), [((2, 40), "from 0 to 36"), ((7, 2), "ascending")])
def test_layers_that_vgg_does_not_have_are_refused(vgg19: Path, layers: tuple[int, ...], message: str) -> None:
    options = {"weights": str(vgg19), "layers": layers, "layer_weights": (1.0, 1.0)}
    with pytest.raises(UsageError, match=message):
        build_loss(LossTerm("perceptual", options=options))


@pytest.mark.slow
def test_vgg_is_frozen_and_lets_gradients_through(vgg19: Path) -> None:
    before = torch.get_rng_state()
    features = VGG19Features.read(vgg19, layers=(2,))
    assert torch.equal(torch.get_rng_state(), before)
    assert not any(p.requires_grad for p in features.parameters())
    loss = PerceptualLoss(features.double(), layer_weights=(1.0,))
    prediction, target = (_noise(1, 3, 3, 3, seed=s, dtype=torch.float64) for s in range(2))
    assert torch.autograd.gradcheck(lambda x: loss(x, target), (prediction.requires_grad_(),))


@pytest.mark.slow
def test_contrastive_vgg_variant_takes_the_first_activations_of_the_five_blocks(vgg19: Path) -> None:
    """RL-15: layers 1, 3, 5, 9 and 13, counting convolutions; d in relu1_1 … relu5_1."""
    state, images = vgg19_state(), [_noise(1, 3, 16, 16, seed=s) for s in range(3)]
    loss = build_loss(LossTerm("contrastive", options={"extractor": "vgg19", "weights": str(vgg19)}))
    expected = 0.0
    convolutions = [name for name in state if name.startswith("features") and name.endswith("weight")]
    for number, weight in zip((1, 3, 5, 9, 13), (1 / 32, 1 / 16, 1 / 8, 1 / 4, 1), strict=True):
        layer = int(convolutions[number - 1].split(".")[1]) + 1  # the activation after that convolution
        anchor, positive, negative = (vgg19_layer(image, state, layer) for image in images)
        expected += weight * ((anchor - positive).abs().mean() / (anchor - negative).abs().mean()).item()
    assert loss(images[0], images[1], negative=images[2]).item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.slow
def test_pth_files_are_read_too_and_pictures_may_be_too_small(tmp_path: Path) -> None:
    torch.save(vgg19_state(), tmp_path / "vgg19.pth")
    features = VGG19Features.read(tmp_path / "vgg19.pth", layers=VGG_LAYERS)
    assert [f.shape[1] for f in features(_noise(1, 3, 16, 16))] == [64, 128, 256, 512, 512]
    with pytest.raises(ValueError, match="16 px"):
        features(_noise(1, 3, 16, 15))


@pytest.mark.slow
def test_weights_of_other_networks_are_refused(tmp_path: Path) -> None:
    state = vgg19_state()
    batch_normalised = {name.replace("features.2.", "features.3."): value for name, value in state.items()}
    sixteen = {name: value for name, value in state.items() if not name.startswith("features.34")}
    for name, wrong, missing in (("bn", batch_normalised, "features.2.weight"), ("16", sixteen, "features.34.weight")):
        torch.save(wrong, tmp_path / f"{name}.pth")
        with pytest.raises(ModelError, match=rf"{name}\.pth: holds no VGG-19: {missing}"):
            VGG19Features.read(tmp_path / f"{name}.pth", layers=(2,))


# EfficientNet-Lite0 -------------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def lite0(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_lite0(tmp_path_factory.mktemp("lite0") / "lite0.safetensors")


@pytest.mark.slow
@pytest.mark.parametrize("size", [(32, 40), (33, 47)])
def test_lite0_features_are_those_of_the_walk_through_the_names(lite0: Path, size: tuple[int, int]) -> None:
    state, pictures = lite0_state(), _noise(1, 3, *size)
    layers = (0, 1, 2, 3, 5, 8, 13, 17)
    for layer, found in zip(layers, EfficientNetLite0Features.read(lite0, layers=layers)(pictures), strict=True):
        expected = lite0_layer(pictures, state, layer)
        assert torch.allclose(found, expected, rtol=1e-4, atol=1e-4), layer  # normalisation is folded: other rounding
        assert expected.std() > 0.01, layer


@pytest.mark.slow
def test_the_file_decides_the_network_of_the_perceptual_loss(lite0: Path, tmp_path: Path) -> None:
    state, (prediction, target) = lite0_state(), (_noise(2, 3, 32, 32, seed=s) for s in range(2))
    loss = build_loss(LossTerm("perceptual", options={"weights": str(lite0)})).eval()
    weights = dict(zip(EfficientNetLite0Features.default_layers, EfficientNetLite0Features.default_weights, strict=True))
    features = [(lite0_layer(prediction, state, n), lite0_layer(target, state, n)) for n in weights]
    expected = sum(w * (a - b).abs().mean() for w, (a, b) in zip(weights.values(), features, strict=True))
    assert loss(prediction, target).item() == pytest.approx(float(expected), rel=1e-4)
    assert not any(p.requires_grad for p in loss.parameters())
    options = {"weights": str(lite0), "layers": (3, 18), "layer_weights": (1.0, 1.0)}
    with pytest.raises(UsageError, match="from 0 to 17"):
        build_loss(LossTerm("perceptual", options=options))
    torch.save({"conv.weight": torch.ones(2)}, tmp_path / "other.pth")
    with pytest.raises(ModelError, match=r"other\.pth: holds no VGG-19 or EfficientNet-Lite0"):
        read_perceptual(tmp_path / "other.pth")
    torch.save({name: value for name, value in state.items() if name != "_blocks.4._bn1.bias"}, tmp_path / "half.pth")
    with pytest.raises(ModelError, match=r"half\.pth: holds no EfficientNet-Lite0: _blocks\.4\._depthwise_conv\.weight"):
        read_perceptual(tmp_path / "half.pth")


@pytest.mark.slow
def test_in_training_lite0_sees_pictures_from_changing_offsets_so_that_its_stride_prints_no_grid(lite0: Path) -> None:
    state, (prediction, target) = lite0_state(), (_noise(1, 3, 40, 40, seed=s) for s in range(2))
    options = {"weights": str(lite0), "layers": (0,), "layer_weights": (1.0,)}
    loss = build_loss(LossTerm("perceptual", options=options))
    expected = {
        round(
            float((lite0_layer(prediction[..., y:, x:], state, 0) - lite0_layer(target[..., y:, x:], state, 0)).abs().mean()), 5
        )
        for y in range(8)
        for x in range(8)
    }
    torch.manual_seed(0)
    found = [round(loss(prediction, target).item(), 5) for _ in range(24)]
    assert all(min(abs(value - other) for other in expected) < 2e-5 for value in found)
    assert len(set(found)) > 8  # 24 draws of 64 places
    torch.manual_seed(0)
    assert round(loss(prediction, target).item(), 5) == found[0]  # a resumed run restores the generator


# Artefacts ------------------------------------------------------------------------------------------------------------------
def test_the_artefact_loss_is_the_weighted_error_of_equations_3_to_6() -> None:
    """Again by loops over windows, on a picture whose windows lie inside for the compared pixel."""
    prediction, target = (_noise(1, 3, 9, 9, seed=s, dtype=torch.float64) for s in range(2))
    error = (prediction - target).abs().sum(1)[0]
    weights = ArtefactLoss(window_px=3).weights(prediction, target)[0, 0]
    for y, x in ((1, 1), (4, 4), (7, 3)):
        window = error[y - 1 : y + 2, x - 1 : x + 2]
        assert weights[y, x].item() == pytest.approx((error.var() ** 0.2 * window.var()).item(), rel=1e-9)
    loss = ArtefactLoss(window_px=3)(prediction, target)
    assert loss.item() == pytest.approx((weights * (prediction - target).abs()).mean().item(), rel=1e-9)


def test_the_artefact_loss_sees_an_error_that_varies_and_hardly_one_that_is_even() -> None:
    target = torch.full((1, 3, 32, 32), 0.5)
    even, speckled = target + 0.1, target.clone()
    speckled[..., ::4, ::4] += 0.4  # a sixteenth of the pixels
    loss = build_loss(LossTerm("artefacts"))
    assert loss(even, target).item() < 1e-9 < 1e-4 < loss(speckled, target).item()
    clip = torch.stack([even, speckled], 1)
    assert loss(clip, target[:, None].expand_as(clip)).item() == pytest.approx(loss(speckled, target).item() / 2, rel=1e-5)


def test_the_weight_of_the_artefact_loss_has_no_gradient() -> None:
    target = _noise(1, 3, 12, 12)
    prediction = _noise(1, 3, 12, 12, seed=1).requires_grad_()
    loss = ArtefactLoss()
    loss(prediction, target).backward()
    expected = loss.weights(prediction.detach(), target) * (prediction.detach() - target).sign() / prediction.numel()
    torch.testing.assert_close(prediction.grad, expected)


# Terms of recipes ---------------------------------------------------------------------------------------------------------
def test_every_term_of_every_recipe_builds_or_asks_for_vgg() -> None:
    for name, recipe in RECIPES.items():
        for stage in recipe().stages:
            for term in stage.losses:
                if term.kind == "perceptual" or term.options.get("extractor") == "vgg19":
                    with pytest.raises(ModelError, match=f"in losses.{term.kind}.options.weights"):
                        build_loss(term)
                else:
                    assert not list(build_loss(term).parameters()), name


def test_missing_vgg_weights_are_said_before_any_data_is_read(tmp_path: Path) -> None:
    def source(stage: Stage) -> Source:
        raise AssertionError("the data came first")

    recipe = RECIPES["toy-rlfn"]()
    perceptual = LossTerm("perceptual")
    recipe = dataclasses.replace(recipe, stages=(dataclasses.replace(recipe.stages[0], losses=(perceptual,)),))
    with pytest.raises(ModelError, match="needs VGG-19"):
        train(recipe, data=source, out=tmp_path / "run")
    gone = LossTerm("perceptual", options={"weights": str(tmp_path / "gone.pth")})
    recipe = dataclasses.replace(recipe, stages=(dataclasses.replace(recipe.stages[0], losses=(gone,)),))
    with pytest.raises(ModelError, match=r"gone\.pth.*no such file"):
        train(recipe, data=source, out=tmp_path / "run")


@pytest.mark.parametrize(
    ("term", "message"),
    [
        (LossTerm("charbonnier", options={"eps": 0.0}), "eps must be above"),
        (LossTerm("charbonnier", options={"eps": float("nan")}), "eps must be above"),
        (LossTerm("charbonnier", options={"reduction": "none"}), "mean or sum"),
        (LossTerm("contrastive", options={"extractor": "resnet"}), "there is no extractor resnet"),
        (LossTerm("contrastive", options={"weights": "vgg.pth"}), "random extractor takes no weights"),
        (LossTerm("contrastive", options={"extractor": "vgg19", "seed": 1}), "belong to the random extractor"),
        (LossTerm("contrastive", options={"layer_weights": (1.0,)}), "1 numbers for 2 layers"),
        (LossTerm("contrastive", options={"layer_weights": (0.0, 0.0)}), "one of them above 0"),
        (LossTerm("contrastive", options={"layer_weights": (1.0, -1.0)}), "0 or more"),
        (LossTerm("contrastive", options={"eps": 0.0}), "eps must be above 0"),
        (LossTerm("contrastive", options={"channels": 0}), "channels must be 1 or more"),
        (LossTerm("perceptual", options={"layers": (2, 7), "weights": "x"}), "layers without layer_weights"),
        (LossTerm("artefacts", options={"window_px": 4}), "odd number of 3 or more"),
    ],
)
def test_options_that_make_no_sense_are_refused(term: LossTerm, message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        build_loss(term)
    assert f"loss {term.kind}" in str(caught.value)


def test_an_extractor_of_ones_own_size() -> None:
    loss = build_loss(LossTerm("contrastive", options={"channels": 5, "seed": 7}))
    assert isinstance(loss, ContrastiveLoss)
    expected = make_extractor("random", channels=5, seed=7)
    assert isinstance(expected, RandomFeatures) and isinstance(loss.extractor, RandomFeatures)
    assert torch.equal(loss.extractor.second, expected.second) and expected.second.shape[0] == 5


def test_endpoint_error_of_coarser_flows_counts_in_pixels_of_the_full_size() -> None:
    target = torch.zeros(1, 2, 8, 8)
    target[:, 0] = 4.0
    exact = [torch.tensor([4.0 / k, 0.0]).view(1, 2, 1, 1).expand(1, 2, 8 // k, 8 // k) for k in (2, 4)]
    loss = EndpointErrorLoss()
    assert loss(target, target, coarser=exact) == 0
    off = [exact[0], exact[1] + torch.tensor([0.0, 0.5]).view(1, 2, 1, 1)]  # half a pixel of a quarter of the size
    assert loss(target, target, coarser=off) == pytest.approx((0 + 4 * 0.5) / 2)
    assert loss(target + 1, target, coarser=exact) == pytest.approx(2**0.5)
