"""scripts/fit_tones.py: flat colours come out as they went in, and photographs stay."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import nn

import fit_tones
from conftest import make_photo
from upframe.models.architectures.rlfn import RLFN
from upframe.models.registry import Model, load

pytestmark = pytest.mark.slow


def flat_error(network: nn.Module, colour: tuple[int, int, int]) -> float:
    given = torch.tensor(colour).view(1, 3, 1, 1).expand(1, 3, 40, 40) / 255
    with torch.inference_mode():
        made = network(given.float())[..., 48:-48, 48:-48].clamp(0, 1)
    return float((made - given[..., :1, :1]).abs().max()) * 255


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Four photographs; and fewer colours, which take less time."""
    monkeypatch.setattr(fit_tones, "LEVELS", (0, 128, 255))
    for number in range(4):
        Image.fromarray(make_photo(96, 110, seed=number)).save(tmp_path / f"{number}.png")
    return tmp_path


def fitted(model: Model, photos: Path) -> nn.Module:
    network = model.network.double()
    with torch.no_grad():
        fit_tones.fit(model, photos, patches=4, seed=1)
    return network.float()


def test_colours_that_were_off_are_mended(photos: Path) -> None:
    model = load("photo-x4")
    last = [part for part in model.network.modules() if isinstance(part, nn.Conv2d)][-1]
    assert last.bias is not None
    with torch.no_grad():
        last.bias[16:32] += 5 / 255  # all green pixels, as in a network that never saw a flat colour
    assert flat_error(model.network, (128, 128, 128)) > 4
    network = fitted(model, photos)
    assert max(flat_error(network, colour) for colour in ((128, 128, 128), (0, 255, 0))) < 2.5
    assert max(flat_error(network, colour) for colour in ((0, 0, 0), (255, 255, 255))) < 0.5, "they round to themselves"


def test_a_sound_network_stays(photos: Path) -> None:
    photo = torch.from_numpy(make_photo(48, 64, seed=0)).permute(2, 0, 1)[None].float() / 255
    model = load("photo-x4")
    with torch.inference_mode():
        before = model.network(photo)
        moved = (fitted(model, photos)(photo) - before).square().mean().sqrt()
    assert float(moved) * 255 < 0.5, "less than rounding"


def test_a_network_that_ends_otherwise_is_refused() -> None:
    with pytest.raises(SystemExit, match="plain one of 3x3"):
        fit_tones.LastLayer(nn.Sequential(nn.Conv2d(3, 3, 1)))


def test_the_matrix_of_the_last_layer_is_the_layer() -> None:
    network = RLFN(scale=2, channels=8, blocks=1, inner_channels=8).double()
    last = fit_tones.LastLayer(network)
    picture = torch.rand(1, 3, 20, 24, dtype=torch.float64)
    with torch.no_grad():
        columns = last.columns(picture, border=4)
        made = nn.functional.pixel_unshuffle(network(picture), 2)[..., 4:-4, 4:-4]
        assert torch.allclose(columns @ last.matrix, made.flatten(2)[0].T)
        matrix = last.matrix
        last.matrix = 2 * matrix
        assert torch.equal(last.matrix, 2 * matrix)


def test_the_command_writes_weights_that_load(photos: Path, tmp_path: Path) -> None:
    fit_tones.main(["photo-x2", str(tmp_path / "made.pth"), str(photos), "--patches", "1"])
    assert load(tmp_path / "made.pth").spec.name == "rlfn-ntire-x2"
