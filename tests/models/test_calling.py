"""A `Model` as a function of tensors, and models of the user's own modules."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import upframe
from upframe.engines import TorchEngine, TorchOptions
from upframe.models.spec import Window


class Strict(nn.Module):
    """×2 of sides that are multiples of 4 and at least 8, as many networks demand; notes what it was called on."""

    def __init__(self) -> None:
        super().__init__()
        self.called_on: list[torch.Size] = []

    def forward(self, x: Tensor) -> Tensor:
        if min(x.shape[-2:]) < 8 or x.shape[-1] % 4 or x.shape[-2] % 4:
            raise ValueError("an unfit size")
        self.called_on.append(x.shape)
        return x.repeat_interleave(2, -1).repeat_interleave(2, -2)


@pytest.mark.parametrize("size", [(1, 1), (7, 9), (8, 8), (13, 30)])
def test_every_size_is_taken(size: tuple[int, int]) -> None:
    model = upframe.Model.from_module(Strict(), size_minimum=8, size_multiple=4)
    x = torch.rand(2, 3, *size)
    torch.testing.assert_close(model(x), x.repeat_interleave(2, -1).repeat_interleave(2, -2), rtol=0, atol=0)


def test_the_scale_is_measured_and_facts_are_as_stated() -> None:
    module = Strict()
    model = upframe.Model.from_module(module, size_minimum=8, size_multiple=4, name="strict", precisions=("bf16",))
    assert (model.scale, model.name, model.spec.precisions) == (2, "strict", ("fp32", "bf16"))
    assert not module.called_on, "the caller's own module is left alone"


def test_a_shipped_model_is_what_its_engine_makes_clamped() -> None:
    model = upframe.load("photo", scale=2)
    x = torch.rand(2, 3, 17, 11, generator=torch.Generator().manual_seed(1))
    engine = TorchEngine(model, TorchOptions(device="cpu", precision="fp32"))
    torch.testing.assert_close(model(x), engine(x[:, None])[:, 0].clamp(0, 1), rtol=0, atol=0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_the_result_has_the_dtype_of_the_input_and_no_gradient(dtype: torch.dtype, weights: Path) -> None:
    x = torch.rand(1, 3, 5, 4).to(dtype).requires_grad_()
    made = upframe.load(weights)(x)
    assert made.dtype == dtype and not made.requires_grad and made.is_inference()
    assert made.min() >= 0 and made.max() <= 1


def test_bfloat16_is_near_float32_and_the_model_stays_as_it_was() -> None:
    model = upframe.load("photo-x2")
    x = torch.rand(1, 3, 24, 24, generator=torch.Generator().manual_seed(2))
    exact = model(x)
    reduced = model.bfloat16()
    difference = (reduced(x) - exact).abs().mean()
    assert 0 < difference < 0.01  # bfloat16 keeps 8 bits: some 0.004 a rounding
    assert (model.precision, reduced.precision, reduced.float().precision) == ("fp32", "bf16", "fp32")
    torch.testing.assert_close(model(x), exact, rtol=0, atol=0)


def test_an_upscaler_computes_in_what_the_model_was_moved_to() -> None:
    up = upframe.Upscaler(upframe.load("photo-x2").to("cpu").bfloat16())
    assert up.options.engine == TorchOptions(device="cpu", precision="bf16")
    stated = upframe.Upscaler(upframe.load("photo-x2").bfloat16(), precision="fp32")
    assert isinstance(stated.options.engine, TorchOptions) and stated.options.engine.precision == "fp32"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
def test_a_model_on_a_gpu_takes_tensors_there() -> None:
    model = upframe.load("photo-x2").to("cuda")
    x = torch.rand(1, 3, 20, 20, device="cuda")
    torch.testing.assert_close(model(x).cpu(), upframe.load("photo-x2")(x.cpu()), rtol=0, atol=2e-3)  # TF32 may be on
    assert upframe.upscale(x, model="photo-x2").device == x.device
    with pytest.raises(upframe.errors.UsageError, match="x: is on cpu"):
        model(x.cpu())


@pytest.mark.parametrize("name", ["video-x4"])
def test_a_video_network_takes_clips(name: str) -> None:
    model = upframe.load(name)
    assert model(torch.rand(1, 2, 3, 16, 20)).shape == (1, 2, 3, 64, 80)
    with pytest.raises(upframe.errors.UsageError, match=r"\(N, T, C, H, W\)"):
        model(torch.rand(1, 3, 16, 20))


class Shift(nn.Module):
    """A video network whose frames, called with `sigma`, tell the noise that it was told."""

    def forward(self, clip: Tensor, sigma: float = 0.0) -> Tensor:
        return clip * 0 + sigma


def test_noise_is_stated_on_the_scale_of_code_values() -> None:
    from dataclasses import replace

    plain = upframe.Model.from_module(Shift(), video=True)
    model = replace(plain, spec=replace(plain.spec, takes_sigma=True))
    assert torch.all(model(torch.zeros(1, 2, 3, 4, 4), sigma=51) == 51 / 255)
    for sigma in (None, -1, 300, float("nan")):
        with pytest.raises(upframe.errors.OptionError, match="sigma"):
            model(torch.zeros(1, 2, 3, 4, 4), sigma=sigma)


class Middle(nn.Module):
    def forward(self, clip: Tensor) -> Tensor:
        return clip.mean(1, keepdim=True)


def test_a_network_that_interpolates_makes_the_middle_of_its_window() -> None:
    from dataclasses import replace

    plain = upframe.Model.from_module(nn.Identity(), video=True)
    spec = replace(plain.spec, task="interpolate", window=Window(frames=4, overlap=3))
    model = replace(plain, spec=spec, network=Middle())
    assert model(torch.rand(2, 4, 3, 5, 5)).shape == (2, 1, 3, 5, 5)
    with pytest.raises(upframe.errors.UsageError, match="has 3 frames"):
        model(torch.rand(2, 3, 3, 5, 5))
    for session in (upframe.Upscaler, upframe.VideoUpscaler):
        with pytest.raises(upframe.errors.OptionError, match="frames between frames"):
            session(model)


def test_a_module_for_planes_takes_gray_tensors_and_colour_pictures() -> None:
    import numpy as np

    model = upframe.Model.from_module(nn.Upsample(scale_factor=2), channels=1)
    assert model(torch.rand(1, 1, 4, 5)).shape == (1, 1, 8, 10)
    x: Any = np.random.default_rng(0).integers(0, 255, (4, 5, 3), np.uint8)
    np.testing.assert_array_equal(upframe.upscale(x, model=model), x.repeat(2, 0).repeat(2, 1))
