"""Networks of other publishers (extra `community`): computed as spandrel computes them, in tiles as whole, and read safely."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tests.support import community as made

from upframe.errors import ModelError
from upframe.models import halos
from upframe.models.registry import load
from upframe.upscaling.images import Upscaler
from upframe.upscaling.options import UpscaleOptions

pytestmark = pytest.mark.slow

LOOKS_AT_ALL = {"OmniSR"}
"""It weighs channels by their means over the whole picture so strongly that no context of a tile suffices."""


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


def picture(channels: int, height: int = 92, width: int = 150) -> np.ndarray:
    """A picture that the measurement of halos has not seen: edges, a gradient and grain, in 16 bits."""
    y, x = np.mgrid[:height, :width]
    planes = [0.25 + 0.3 * ((x // 9 + y // 7) % 2) + 0.3 * x / width + 0.02 * i for i in range(channels)]
    grain = np.random.default_rng(3).uniform(-0.1, 0.1, (height, width, channels))
    return ((np.stack(planes, axis=-1) + grain).clip(0, 1) * 65535).round().astype(np.uint16)


@pytest.mark.parametrize("name", made.NAMES)
def test_a_network_computes_as_spandrel_does_whole_and_in_tiles(
    name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        model = load(made.file(name, tmp_path))
    pixels = picture(model.spec.channels)
    x = torch.from_numpy(pixels.astype(np.float32) / 65535).permute(2, 0, 1)[None]
    # Its copy, since RCAN writes into its input; in the order of memory that upframe uses, so that sums have one order.
    expected = made.reference(name)(x.clone(memory_format=torch.channels_last))
    given = x.clone()

    assert (model(x) - expected).abs().max() < 2e-5  # about a step of 16 bits
    assert torch.equal(x, given)
    truth = expected[0].permute(1, 2, 0).numpy() * 65535
    whole = Upscaler(model, UpscaleOptions(tile="off"))(pixels)
    tiled = Upscaler(model, UpscaleOptions(tile=64))(pixels)
    assert (
        np.abs(whole.astype(float) - truth).max() < 8
    )  # steps of 16 bits; SPAN computes in 0 to 255, where float32 rounds more coarsely
    if name in LOOKS_AT_ALL:
        assert "depends on the whole picture" in caplog.text
    else:
        assert np.abs(tiled.astype(float) - truth).max() <= 257  # one code value of 8 bits
        assert "whole picture" not in caplog.text


def test_a_halo_is_measured_once_and_kept_by_the_hash(tmp_path: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = made.file("Compact", tmp_path)
    first = load(file)
    (kept,) = (own_cache / "upframe" / "halos").iterdir()
    assert kept.stem == first.sha256

    content = json.loads(kept.read_text())
    kept.write_text(json.dumps({**content, "halo_px": 48}))
    assert load(file).spec.halo_px == 48  # it was read
    kept.write_text("[" * 9999)
    assert load(file).spec.halo_px == first.spec.halo_px  # what is damaged is measured again

    monkeypatch.setattr(halos, "_file", lambda sha256: None)
    assert load(file).spec.halo_px == first.spec.halo_px  # without a home folder, too


def test_a_network_with_a_wider_view_gets_a_wider_halo(tmp_path: Path) -> None:
    deep = made.state("SAFMN")
    torch.save(deep, tmp_path / "safmn.pth")
    torch.save(made.state("Compact"), tmp_path / "compact.pth")
    assert load(tmp_path / "safmn.pth").spec.halo_px > load(tmp_path / "compact.pth").spec.halo_px


def test_a_network_that_needs_more_than_a_picture_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="DRUNet"):  # it takes a map of the noise beside the picture
        load(made.file("DRUNet", tmp_path))


def test_weights_that_do_not_fit_are_refused_in_one_line(tmp_path: Path) -> None:
    state = made.state("SPAN")
    name = next(name for name, value in state.items() if value.ndim == 4)
    state[name] = state[name][:, :1]
    torch.save(state, tmp_path / "broken.pth")
    with pytest.raises(ModelError) as refusal:
        load(tmp_path / "broken.pth")
    assert "\n" not in str(refusal.value)


# Through the command line ---------------------------------------------------------------------------------------------
def upframe(*arguments: str | Path, before: str = "pass") -> subprocess.CompletedProcess[str]:
    code = f"import sys; {before}; from upframe.cli import main; sys.exit(main())"
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)], capture_output=True, text=True, timeout=120, check=False
    )


def test_a_photo_with_alpha_is_enlarged_by_a_file_of_another_publisher(tmp_path: Path) -> None:
    pixels = (picture(4, 40, 56) // 257).astype(np.uint8)
    Image.fromarray(pixels, "RGBA").save(tmp_path / "in.png")
    run = upframe(tmp_path / "in.png", "-m", made.file("Compact", tmp_path), "-o", tmp_path / "out.png")
    assert run.returncode == 0, run.stderr
    with Image.open(tmp_path / "out.png") as result:
        assert (result.mode, result.size) == ("RGBA", (112, 80))


def test_a_network_of_scale_1_keeps_the_size(tmp_path: Path) -> None:
    Image.fromarray((picture(3, 40, 56) // 257).astype(np.uint8)).save(tmp_path / "in.png")
    run = upframe(tmp_path / "in.png", "-m", made.file("NAFNet", tmp_path), "-o", tmp_path / "out.png")
    assert run.returncode == 0, run.stderr
    with Image.open(tmp_path / "out.png") as result:
        assert result.size == (56, 40)


def test_without_the_extra_the_error_names_it(tmp_path: Path) -> None:
    Image.fromarray((picture(3, 20, 20) // 257).astype(np.uint8)).save(tmp_path / "in.png")
    file = made.file("ESRGAN", tmp_path)
    run = upframe(tmp_path / "in.png", "-m", file, "-o", tmp_path / "out.png", before="sys.modules['spandrel'] = None")
    assert run.returncode == 4
    assert 'pip install "upframe[community]"' in run.stderr
    assert not (tmp_path / "out.png").exists()
