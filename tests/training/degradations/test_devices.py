"""Phones, web pages and scans: the ways are drawn as asked for, each step does what it says, and clean inputs stay clean."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from conftest import make_photo
from upframe import pixels
from upframe.training.degradations.devices import Denoising, DrawnSequence, OneOf, ResizeToMultiple, Sharpening, sometimes
from upframe.training.degradations.pipeline import degrade, draw, phone_and_web
from upframe.training.degradations.steps import Jpeg, Noise, Walk

DRAWS = 2000


def photo(height: int = 64, width: int = 48) -> Tensor:
    return pixels.to_unit(make_photo(height, width, seed=3))


def applied(step: object, frames: list[Tensor], *, size: tuple[int, int] = (16, 12), seed: int = 0) -> list[Tensor]:
    rng = np.random.default_rng(seed)
    operation = step.draw(len(frames), rng)  # type: ignore[attr-defined]
    out: list[Tensor] = operation.apply(frames, size=size, rng=rng)
    return out


# Ways -----------------------------------------------------------------------------------------------------------------
def test_each_way_is_taken_as_often_as_asked_for() -> None:
    ways = OneOf(((0.2, (Jpeg(Walk(50, 50)),)), (0.5, (Noise(Walk(1, 1), Walk(1, 1)), Jpeg(Walk(70, 70)))), (0.3, ())))
    lengths = np.array([len(ways.draw(1, np.random.default_rng(i)).operations) for i in range(DRAWS)])
    for length, share in ((1, 0.2), (2, 0.5), (0, 0.3)):
        # Four and a half standard deviations of a binomial distribution.
        assert abs((lengths == length).mean() - share) < 4.5 * (share * (1 - share) / DRAWS) ** 0.5


def test_the_way_that_does_nothing_returns_the_frames_and_says_so() -> None:
    drawn = sometimes(0.0, Jpeg(Walk(20, 20))).draw(1, np.random.default_rng(0))
    frame = photo()
    assert drawn.apply([frame], size=(16, 12), rng=np.random.default_rng(0))[0] is frame
    assert drawn.describe(0) == "nothing"


def test_ways_whose_probabilities_do_not_sum_to_one_are_refused() -> None:
    for wrong in (((0.5, ()),), ((1.5, ()), (-0.5, ()))):
        with pytest.raises(ValueError, match="sum to"):
            OneOf(wrong)


# Steps ----------------------------------------------------------------------------------------------------------------
def test_once_the_output_size_is_the_bicubic_reduction_or_the_frame_itself() -> None:
    once = ResizeToMultiple(Walk(1, 1))
    frame = photo()
    expected = pixels.imresize(frame, 0.25).clamp(0, 1)
    torch.testing.assert_close(applied(once, [frame])[0], expected, rtol=0, atol=1e-6)
    assert applied(once, [frame], size=(64, 48))[0] is frame
    assert applied(ResizeToMultiple(Walk(1.5, 1.5)), [frame])[0].shape == (3, 24, 18)


def test_denoising_takes_more_noise_from_the_colour_than_from_the_brightness() -> None:
    noise = torch.randn(3, 64, 64, generator=torch.Generator().manual_seed(0)) * 0.05 + 0.5
    (soft,) = applied(Denoising(luma_sigma=Walk(0.4, 0.4), colour_sigma=Walk(1.5, 1.5)), [noise])
    weights = torch.tensor([0.299, 0.587, 0.114]).view(3, 1, 1)

    def spread(frame: Tensor) -> tuple[float, float]:
        light = (frame * weights).sum(0, keepdim=True)
        return light.std().item(), (frame - light).std().item()

    (light, colour), (light_after, colour_after) = spread(noise), spread(soft)
    assert 0.5 * light < light_after < light  # a Gaussian of 0.4 px keeps most of it
    assert colour_after < 0.3 * colour
    torch.testing.assert_close(soft.mean((1, 2)), noise.mean((1, 2)), rtol=0, atol=2e-3)  # the border is mirrored
    (same,) = applied(Denoising(luma_sigma=Walk(0, 0), colour_sigma=Walk(0, 0)), [noise])
    torch.testing.assert_close(same, noise, rtol=0, atol=1e-6)


def test_sharpening_steepens_an_edge_and_leaves_flat_areas() -> None:
    edge = torch.full((3, 20, 20), 0.3)
    edge[..., 10:] = 0.6
    (sharp,) = applied(Sharpening(Walk(1, 1), Walk(1, 1)), [edge])
    assert sharp[0, 5, 10] > 0.65 and sharp[0, 5, 9] < 0.25
    torch.testing.assert_close(sharp[..., :4], edge[..., :4], rtol=0, atol=1e-3)
    (clipped,) = applied(Sharpening(Walk(1, 1), Walk(9, 9)), [edge])
    assert clipped.min() == 0 and clipped.max() == 1


# The whole ------------------------------------------------------------------------------------------------------------
@pytest.mark.slow
@pytest.mark.parametrize("scale", [1, 4])
def test_an_eighth_of_the_inputs_is_clean_and_one_seed_replays(scale: int) -> None:
    config = phone_and_web(scale=scale)
    clip = photo()[None]
    clean = (pixels.imresize(clip, 1 / scale).clamp(0, 1) * 255).round() / 255 if scale > 1 else clip
    draws = 400
    results = [degrade(clip, config, np.random.default_rng(i)) for i in range(draws)]
    assert all(torch.equal(lq, degrade(clip, config, np.random.default_rng(i))) for i, lq in enumerate(results[:20]))
    assert {tuple(lq.shape) for lq in results} == {(1, 3, 64 // scale, 48 // scale)}
    untouched = sum((lq - clean).abs().max().item() < 1.5 / 255 for lq in results)  # the last digit of float32 may round
    assert abs(untouched / draws - 0.125) < 4.5 * (0.125 * 0.875 / draws) ** 0.5
    colours = torch.stack([lq.mean((0, 2, 3)) for lq in results]).mean(0)
    assert (colours - clip.mean((0, 2, 3))).abs().max() < 0.01  # else a network that undoes the damage would shift colours


def test_its_ways_have_names_for_previews() -> None:
    config = phone_and_web()
    for seed in range(20):
        first, last = draw(config, 1, np.random.default_rng(seed))
        assert isinstance(first, DrawnSequence) and first.describe(0).isascii()
        assert last.describe(0).endswith("to size")
