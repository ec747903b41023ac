"""Vulkan through ncnn, on any driver: Mesa's llvmpipe will do. The claims of all engines are in test_every_engine.py."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from conftest import make_photo
from upframe.engines import TorchEngine, TorchOptions, VulkanOptions, make_engine_as_named, vulkan
from upframe.engines.vulkan import VulkanDevice
from upframe.errors import MissingError, OptionError, ResourceError
from upframe.models.registry import list_models, load
from upframe.models.spec import Place
from upframe.probing import ProbeError
from upframe.upscaling.images import Upscaler
from upframe.upscaling.options import UpscaleOptions

pytestmark = pytest.mark.slow

PHOTOS = [entry.name for entry in list_models() if entry.name.startswith("photo-")]

ROUNDING = {"RLFN": 5e-6, "VapSR": 2e-3}
"""Measured on llvmpipe: 1.3e-6, and 1.1e-3 because Vulkan's GELU is the approximation by tanh. A step of 8 bits is 3.9e-3."""

DISCRETE = VulkanDevice(1, "Big", "discrete GPU")
SOFTWARE = VulkanDevice(0, "llvmpipe", "software renderer")
INTEGRATED = VulkanDevice(2, "Small", "integrated GPU")


@pytest.fixture
def driver() -> None:
    try:
        vulkan.pick("auto")
    except (MissingError, ResourceError) as error:
        pytest.skip(str(error))


def offering(monkeypatch: pytest.MonkeyPatch, answer: Callable[[], Any]) -> None:
    monkeypatch.setattr(vulkan, "devices", answer)


@pytest.mark.usefixtures("driver")
@pytest.mark.parametrize("name", PHOTOS)
def test_every_shipped_network_makes_the_pixels_of_torch(name: str, tmp_path: Path) -> None:
    model = load(name)
    engine = make_engine_as_named(model, VulkanOptions(cache=tmp_path, threads=1))
    exact = TorchEngine(model, TorchOptions("cpu", "fp32"))
    photo = torch.from_numpy(make_photo(61, 83, dtype="float32")).permute(2, 0, 1)[None, None]
    for clip, place in [(photo, None), (photo[..., :33, :47], Place((36, 72), (300, 400)))]:
        torch.testing.assert_close(engine(clip, place), exact(clip, place), atol=ROUNDING[model.spec.family], rtol=0)
    assert engine.name == "vulkan"


@pytest.mark.usefixtures("driver")
def test_a_second_run_takes_the_network_from_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, clip = load("photo-x2"), torch.rand(1, 1, 3, 40, 40)
    first = make_engine_as_named(model, VulkanOptions(cache=tmp_path, threads=1))(clip)
    (folder,) = tmp_path.iterdir()
    assert sorted(path.name for path in folder.iterdir()) == ["network.bin", "network.param"]

    def made_again(*_: object) -> None:
        raise AssertionError("the network was converted again")

    monkeypatch.setattr(vulkan.Vulkan, "make", made_again)
    assert torch.equal(make_engine_as_named(model, VulkanOptions(cache=tmp_path, threads=1))(clip), first)


@pytest.mark.usefixtures("driver")
def test_a_device_without_memory_gets_smaller_tiles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The real device, behind an allocator that has room for 64×64 pixels."""
    real = vulkan.runner

    def small(*arguments: Any) -> Any:
        run = real(*arguments)

        def limited(given: Any) -> Any:
            if given[0].shape[-1] * given[0].shape[-2] > 64 * 64:
                raise MemoryError("the device has no memory left")
            return run(given)

        return limited

    monkeypatch.setattr(vulkan, "runner", small)
    model, photo = load("photo-x2"), make_photo(70, 100, dtype="float32")
    engine = make_engine_as_named(model, VulkanOptions(cache=tmp_path, threads=1))
    up = Upscaler(model, UpscaleOptions(tile=96, halo=12, blend=0), engine=engine)
    made = up(photo)
    assert [notice.id for notice in up.notices] == ["tile-halved"]
    whole = Upscaler(model, UpscaleOptions(tile="off"))(photo)
    np.testing.assert_allclose(made, whole, atol=0.03)  # a halo of 12 px is not the exact one


# Devices --------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("found", "asked", "expected"),
    [
        ([SOFTWARE, DISCRETE, INTEGRATED], "auto", DISCRETE),
        ([SOFTWARE, INTEGRATED], "auto", INTEGRATED),
        ([SOFTWARE], "auto", SOFTWARE),
        ([SOFTWARE, DISCRETE], "vulkan:0", SOFTWARE),
        ([SOFTWARE, DISCRETE], "vulkan", SOFTWARE),
    ],
)
def test_the_best_device_is_chosen_unless_one_is_named(
    found: list[VulkanDevice], asked: str, expected: VulkanDevice, monkeypatch: pytest.MonkeyPatch
) -> None:
    offering(monkeypatch, lambda: tuple(found))
    assert vulkan.pick(asked) == expected


def test_a_device_that_is_not_there_is_refused_with_those_that_are(monkeypatch: pytest.MonkeyPatch) -> None:
    offering(monkeypatch, lambda: (SOFTWARE,))
    with pytest.raises(ResourceError, match=r"vulkan:3.*vulkan:0 is llvmpipe"):
        vulkan.pick("vulkan:3")


def test_without_a_driver_the_error_names_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    offering(monkeypatch, tuple)
    with pytest.raises(ResourceError, match=r"no Vulkan device.*mesa-vulkan-drivers"):
        vulkan.pick("auto")


def test_a_driver_that_hangs_is_an_error_and_no_hang(monkeypatch: pytest.MonkeyPatch) -> None:
    def hangs() -> tuple[VulkanDevice, ...]:
        raise ProbeError("did not answer within 30 s")

    offering(monkeypatch, hangs)
    with pytest.raises(ResourceError, match=r"devices did not answer within 30 s"):
        vulkan.pick("auto")


@pytest.mark.parametrize("device", ["cuda", "vulkan:", "vulkan:-1", "vulkan:1000000", "", 3])
def test_names_that_are_no_devices_of_vulkan_are_refused(device: Any) -> None:
    with pytest.raises(OptionError, match="does not run there"):
        VulkanOptions(device)


@pytest.mark.parametrize("code", ["raise SystemExit(3)", "import time; time.sleep(60)", None])
def test_a_converter_that_fails_hangs_or_is_not_there_is_told(
    code: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vulkan, "_CONVERSION_S", 1)
    command = [sys.executable, "-c", code] if code else [str(tmp_path / "absent")]
    assert not vulkan._converts(command, tmp_path)
    assert vulkan._converts([sys.executable, "-c", ""], tmp_path)
