"""Difference maps: the formula, the blur, the sheet and the command."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from conftest import Upframe, make_photo
from toy_vgg import write_vgg19
from upframe.media.image.files import write_pixels
from upframe.media.image.source import read_pixels
from upframe.training.losses.contrastive import RandomFeatures
from upframe.training.losses.difference_map import as_sheet, blurred, difference_maps


def test_a_map_is_the_mean_over_channels_of_the_absolute_difference_of_features() -> None:
    """RL-18, with features whose differences are known: 1 and −3 in two channels; 4 in the one of the second layer."""

    def extractor(pictures: Tensor) -> list[Tensor]:
        red = pictures[:, :1]
        return [torch.cat([red, -3 * red], dim=1), 4 * red[..., ::2, ::2]]

    one = torch.zeros(1, 3, 4, 6)
    other = one.clone()
    other[0, 0, 2, 4] = 1
    first, second = difference_maps(one, other, extractor)
    assert first.shape == (1, 1, 4, 6) and second.shape == (1, 1, 2, 3)
    assert first[0, 0, 2, 4] == 2 and first.sum() == 2
    assert second[0, 0, 1, 2] == 4 and second.sum() == 4


def test_equal_pictures_have_no_difference_and_their_sheet_is_black() -> None:
    picture = torch.rand(1, 3, 8, 8)
    maps = difference_maps(picture, picture, RandomFeatures())
    assert not as_sheet(maps, (8, 8)).any()


def test_the_sheet_shows_layers_side_by_side_each_up_to_white() -> None:
    first = torch.tensor([[[[0.0, 2.0], [1.0, 0.0]]]])
    second = torch.tensor([[[[0.25]]]])
    sheet = as_sheet([first, second], (2, 2))
    assert torch.equal(sheet, torch.tensor([[[0.0, 1.0, 1.0, 1.0], [0.5, 0.0, 1.0, 1.0]]]))


def test_the_blur_is_a_gaussian_that_keeps_flat_areas_to_the_border() -> None:
    spot = torch.zeros(1, 3, 21, 21)
    spot[..., 10, 10] = 1
    sigma = 1.5
    found = blurred(spot, sigma_px=sigma)
    weights = [math.exp(-(d**2) / (2 * sigma**2)) for d in range(-5, 6)]  # cut off at ⌈3σ⌉ = 5 px
    expected = np.outer(weights, weights) / sum(weights) ** 2
    assert np.allclose(found[0, 1, 5:16, 5:16].numpy(), expected, atol=1e-7)  # float32 of values below 0.1
    assert torch.allclose(blurred(torch.full((1, 3, 4, 5), 0.7), sigma_px=2.0), torch.tensor(0.7))
    with pytest.raises(ValueError, match="above 0"):
        blurred(spot, sigma_px=0)


# The command --------------------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def photo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("photo") / "photo.png"
    write_pixels(path, make_photo(24, 32))
    return path


def test_the_command_draws_two_maps_of_the_random_extractor(upframe: Upframe, photo: Path, tmp_path: Path) -> None:
    out = tmp_path / "map.png"
    result = upframe("train", "difference-map", photo, "--out", out, "--json")
    assert result.code == 0
    pixels = read_pixels(out)
    assert pixels.shape == (24, 64, 1) and pixels[:, :32].max() == pixels[:, 32:].max() == 255
    assert [line["layer"] for line in result.lines] == [1, 2]
    assert all(0 < line["mean"] < line["max"] for line in result.lines)


def test_more_blur_makes_a_larger_difference(upframe: Upframe, photo: Path, tmp_path: Path) -> None:
    means = []
    for blur in ("0.5", "1", "4"):
        result = upframe("train", "difference-map", photo, "-o", tmp_path / "map.png", "-y", "--blur", blur, "--json")
        means.append([line["mean"] for line in result.lines])
    assert means == sorted(means)


@pytest.mark.slow
def test_the_command_draws_five_maps_of_vgg(upframe: Upframe, photo: Path, tmp_path: Path) -> None:
    vgg = write_vgg19(tmp_path / "vgg19.safetensors")
    out = tmp_path / "map.png"
    result = upframe("train", "difference-map", photo, "-o", out, "--extractor", "vgg19", "--vgg", vgg)
    assert result.code == 0, result.err
    assert read_pixels(out).shape == (24, 160, 1)
    small = tmp_path / "small.png"
    write_pixels(small, make_photo(12, 12))
    result = upframe("train", "difference-map", small, "-o", out, "-y", "--extractor", "vgg19", "--vgg", vgg)
    assert result.code == 2 and "needs 16 px a side" in result.err


def test_grey_and_transparent_pictures_are_drawn(upframe: Upframe, tmp_path: Path) -> None:
    colour = make_photo(16, 16)
    for name, pixels in (("grey", colour[..., :1]), ("alpha", np.dstack([colour, colour[..., :1]]))):
        write_pixels(tmp_path / f"{name}.png", pixels)
        out = tmp_path / f"{name}-map.png"
        assert upframe("train", "difference-map", tmp_path / f"{name}.png", "-o", out).code == 0
        assert read_pixels(out).max() == 255


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--extractor", "vgg19"), "needs weights"),
        (("--vgg", "vgg.pth"), "the random extractor has no weights"),
        (("--extractor", "vgg19", "--vgg", "vgg.pth", "--seed", "1"), "no seed"),
        (("--blur", "0"), "above 0"),
        (("--channels", "0"), "1 or more"),
    ],
)
def test_flags_that_make_no_sense_are_refused(
    upframe: Upframe, photo: Path, tmp_path: Path, flags: tuple[str, ...], message: str
) -> None:
    result = upframe("train", "difference-map", photo, "-o", tmp_path / "map.png", *flags)
    assert result.code == 2 and message in result.err.lower()
    assert not (tmp_path / "map.png").exists()


def test_a_picture_that_is_there_is_kept(upframe: Upframe, photo: Path, tmp_path: Path) -> None:
    out = tmp_path / "map.png"
    out.write_bytes(b"mine")
    result = upframe("train", "difference-map", photo, "-o", out)
    assert result.code == 2 and out.read_bytes() == b"mine"
