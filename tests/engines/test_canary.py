"""Devices that make wrong pixels: refused at the start, and a black frame later on counts as lack of memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from conftest import make_photo
from upframe.engines import GraphEngine, OnnxOptions, TorchOptions
from upframe.engines.graphs import Run
from upframe.errors import ResourceError
from upframe.models.registry import Model, load
from upframe.models.spec import ModelSpec, Precision
from upframe.upscaling.images import Upscaler
from upframe.upscaling.options import UpscaleOptions


@dataclass
class Device:
    """A backend whose device is the CPU with a driver that has a fault."""

    network: nn.Module
    fault: Callable[[Tensor, Tensor], Tensor]
    """From input and right output to what the driver returns."""
    keeps_pixels = True
    precisions: tuple[Precision, ...] = ("fp32",)
    accelerator: str | None = "Toy GPU"

    def versions(self) -> dict[str, str]:
        return {}

    def check(self) -> None:
        pass

    def make(self, network: nn.Module, spec: ModelSpec, precision: Precision, folder: Path) -> None:
        pass

    def load(self, folder: Path, precision: Precision, threads: int) -> Run:
        def run(given: Sequence[Tensor]) -> Tensor:
            return self.fault(given[0], self.network(given[0]))

        return run


@pytest.fixture
def model() -> Model:
    return load("photo-vapsr-x2")


def engine(model: Model, tmp_path: Path, fault: Callable[[Tensor, Tensor], Tensor]) -> GraphEngine:
    return GraphEngine(model, OnnxOptions(cache=tmp_path), Device(model.network, fault))


def test_a_graph_names_the_device_that_computes(model: Model, tmp_path: Path) -> None:
    """Its tensors are on the CPU, but a video that one device began must not be ended by another."""
    made = engine(model, tmp_path, lambda given, right: right)
    assert (made.processor, made.device.type) == ("Toy GPU", "cpu")


@pytest.mark.parametrize(
    "fault",
    [
        lambda given, made: torch.zeros_like(made),
        lambda given, made: made * torch.nan,
        lambda given, made: made.roll(1, dims=-1),
        lambda given, made: torch.cat([made[..., :-8], torch.ones_like(made[..., -8:]) * 9], dim=-1),
    ],
    ids=["black", "not a number", "shifted", "torn"],
)
def test_a_device_that_makes_wrong_pixels_is_refused(
    fault: Callable[[Tensor, Tensor], Tensor], model: Model, tmp_path: Path
) -> None:
    with pytest.raises(ResourceError, match=r"onnx on Toy GPU: makes wrong pixels.*its driver") as caught:
        engine(model, tmp_path, fault)(torch.rand(1, 1, 3, 40, 40))
    assert caught.value.exit_code == 5


def test_rounding_of_tf32_is_no_fault(model: Model, tmp_path: Path) -> None:
    clip = torch.rand(1, 1, 3, 40, 40)
    made = engine(model, tmp_path, lambda given, made: made * (1 + 2**-11))(clip)
    torch.testing.assert_close(made[0], model.network(clip[0]), atol=2**-10, rtol=0)


def exhausted(given: Tensor, made: Tensor) -> Tensor:
    """A driver that has memory for 64×64 pixels and fails without a word beyond."""
    return torch.zeros_like(made) if given.shape[-1] * given.shape[-2] > 64 * 64 else made


def test_tiles_that_come_out_black_are_made_smaller(model: Model, tmp_path: Path) -> None:
    photo = make_photo(96, 120, dtype="float32")
    options = UpscaleOptions(tile=96, blend=0)
    up = Upscaler(model, options, engine=engine(model, tmp_path, exhausted))
    made = up(photo)
    assert [notice.id for notice in up.notices] == ["tile-halved"]
    healthy = Upscaler(model, UpscaleOptions(tile="off", engine=TorchOptions("cpu", "fp32")))(photo)
    np.testing.assert_allclose(made, healthy, atol=2 / 255)  # tiles with the usual halo are that close


def test_a_black_picture_may_be_black(tmp_path: Path) -> None:
    spec = ModelSpec(
        name="zero-x1", family="Zero", build=lambda: nn.Identity(), scale=1, halo_px=0, exact_halo_px=0, tiling="exact",
        paper="", licence="", exports=True,
    )  # fmt: skip
    same = Model(spec, nn.Identity(), None, "", "")
    clip = torch.zeros(1, 1, 3, 40, 40)
    assert torch.equal(engine(same, tmp_path, lambda given, made: made)(clip), clip)
