"""Temporal measures on clips whose scores are known, the built-in flow on analytic motion, and warping."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from conftest import make_photo
from upframe import pixels
from upframe.metrics import LucasKanade, flicker, lr_consistency, occluded, temporal_flow_difference, warping_error
from upframe.metrics.motion import inside, warp

Clip = list[NDArray[np.uint8]]


def moving(frames: int, step: tuple[int, int], *, size: tuple[int, int] = (72, 90), seed: int = 3) -> Clip:
    """A textured picture that moves by `step` (x, y) whole pixels a frame."""
    big = make_photo(200, 220, seed=seed)
    (u, v), (h, w) = step, size
    return [big[60 - v * t : 60 - v * t + h, 60 - u * t : 60 - u * t + w] for t in range(frames)]


class TrueFlow:
    """Knows that the content of a clip moves by `step` from each frame to the next."""

    name = "true"

    def __init__(self, clip: Sequence[NDArray[np.uint8]], step: tuple[int, int]) -> None:
        self._frames = [torch.from_numpy(f.copy()).permute(2, 0, 1).double() / 255 for f in clip]
        self._step = torch.tensor(step, dtype=torch.float64)

    def __call__(self, first: Tensor, second: Tensor) -> Tensor:
        i, j = (next(k for k, known in enumerate(self._frames) if torch.equal(known, f)) for f in (first, second))
        return (self._step * (j - i)).view(2, 1, 1).expand(2, *first.shape[-2:])


def still(first: Tensor, second: Tensor) -> Tensor:
    return torch.zeros(2, *first.shape[-2:], dtype=first.dtype)


still.name = "still"  # type: ignore[attr-defined]


def with_noise(clip: Clip, sigma: float) -> Clip:
    rng = np.random.default_rng(1)
    return [np.clip(f + rng.normal(0, sigma, f.shape), 0, 255).astype(np.uint8) for f in clip]


def with_blur(clip: Clip) -> Clip:
    planes = [torch.from_numpy(f.copy()).permute(2, 0, 1).double() / 255 for f in clip]
    return [pixels.from_unit(pixels.imresize(pixels.imresize(p, 0.5), 2), np.uint8) for p in planes]


def with_jitter(clip: Clip, amplitude: int) -> Clip:
    """Every other frame moved aside by `amplitude` pixels."""
    return [np.roll(f, amplitude * (t % 2), axis=1) for t, f in enumerate(clip)]


# Clips whose answer is known ------------------------------------------------------------------------------------------
@pytest.mark.slow
def test_a_static_clip_scores_zero_exactly() -> None:
    clip = [make_photo(64, 80)] * 4
    assert warping_error(clip) == 0
    assert flicker(clip) == 0
    assert temporal_flow_difference(clip, clip) == 0


@pytest.mark.parametrize("step", [(3, -2), (0, 5)])
def test_whole_pixel_translation_along_its_true_flow_scores_zero_exactly(step: tuple[int, int]) -> None:
    clip = moving(4, step)
    flow = TrueFlow(clip, step)
    assert warping_error(clip, flow=flow) == 0
    assert flicker(clip, flow=flow) == 0
    assert warping_error(clip, flow=still) > 1e-3  # the motion matters


def test_translation_along_the_flow_found_scores_little() -> None:
    """The rest is bilinear reading at fractional places: a hundredth of following no motion."""
    clip = moving(3, (3, -2))
    assert warping_error(clip) < warping_error(clip, flow=still) / 50
    assert flicker(clip) < flicker(clip, flow=still) / 5


def test_alternating_brightness_scores_as_computed_by_hand() -> None:
    """Frames of 100 and 110: E_warp is (10/255)², and Y alternates by 10 · 219/255, all of which counts."""
    clip = [np.full((32, 32, 3), 100 + 10 * (t % 2), np.uint8) for t in range(5)]
    assert warping_error(clip, flow=still) == pytest.approx((10 / 255) ** 2, abs=1e-15)
    assert flicker(clip, flow=still) == pytest.approx(10 * 219 / 255, abs=1e-9)


def test_a_steady_fade_does_not_flicker() -> None:
    clip = [np.full((32, 32, 3), 100 + 5 * t, np.uint8) for t in range(6)]
    assert flicker(clip, flow=still) == pytest.approx(0, abs=1e-9)
    assert warping_error(clip, flow=still) == pytest.approx((5 / 255) ** 2, abs=1e-15)


@pytest.mark.slow
def test_noise_in_each_frame_costs_more_than_blur_and_blur_hides_it() -> None:
    """Why these measures must not be read alone: the blurred noisy clip is worse to look at and scores better."""
    clip = moving(4, (2, 1))
    noisy = with_noise(clip, 8)
    for measure in (warping_error, flicker):
        scores = [measure(c, motion=clip) for c in (with_blur(clip), with_blur(noisy), noisy)]
        assert scores[0] < scores[1] / 2 < scores[2] / 4, scores


@pytest.mark.slow
def test_scores_grow_with_jitter() -> None:
    clip = moving(5, (1, 0))
    jittered = [with_jitter(clip, amplitude) for amplitude in range(4)]
    flow = TrueFlow(clip, (1, 0))
    for scores in (
        [warping_error(c, motion=clip, flow=flow) for c in jittered],
        [flicker(c, motion=clip, flow=flow) for c in jittered],
        [temporal_flow_difference(c, clip) for c in jittered],
    ):
        assert scores[0] == 0
        assert all(a < b for a, b in pairwise(scores)), scores


def test_flow_difference_is_the_mean_over_pixels_of_both_components() -> None:
    """The clip moves (3, −1) a frame, the truth (1, 1): |2| + |−2|."""
    clip, truth = moving(3, (3, -1)), moving(3, (1, 1), seed=5)
    true_flows = TrueFlow(clip + truth, (3, -1)), TrueFlow(truth, (1, 1))
    ids = {f.tobytes() for f in clip}

    def flow(first: Tensor, second: Tensor) -> Tensor:
        array = np.ascontiguousarray((first * 255).round().permute(1, 2, 0).numpy().astype(np.uint8))
        return true_flows[0 if array.tobytes() in ids else 1](first, second)

    flow.name = "both"  # type: ignore[attr-defined]
    assert temporal_flow_difference(clip, truth, flow=flow) == pytest.approx(4, abs=1e-12)


def test_covered_background_is_left_out() -> None:
    """A square moves 4 pixels to the right over a background that stays: the 4 columns it covers are occluded, no more."""
    forward, backward = torch.zeros(2, 40, 50), torch.zeros(2, 40, 50)
    forward[0, 10:20, 15:25] = 4
    backward[0, 10:20, 19:29] = -4
    expected = torch.zeros(40, 50, dtype=torch.bool)
    expected[10:20, 25:29] = True
    assert torch.equal(occluded(forward, backward), expected)

    background, square = make_photo(40, 50, seed=1), make_photo(10, 10, seed=2)
    clip = [background.copy(), background.copy()]
    clip[0][10:20, 15:25], clip[1][10:20, 19:29] = square, square
    first = torch.from_numpy(clip[0]).permute(2, 0, 1).double() / 255

    def flow(a: Tensor, _: Tensor) -> Tensor:
        return forward if torch.equal(a, first) else backward

    flow.name = "square"  # type: ignore[attr-defined]
    assert warping_error(clip, flow=flow) == 0
    assert warping_error(clip, flow=still) > 0


def test_pixels_that_leave_the_frame_are_left_out() -> None:
    flow = torch.zeros(2, 8, 10)
    flow[0] = 3
    assert torch.equal(occluded(flow, -flow), torch.arange(10).expand(8, 10) > 6)
    gone = torch.full((2, 8, 10), 20.0)
    gone_flow = lambda a, b: gone  # noqa: E731
    assert math.isnan(warping_error([make_photo(8, 10)] * 2, flow=gone_flow))


# LR-consistency -------------------------------------------------------------------------------------------------------
def test_a_truth_is_consistent_with_its_input_to_infinity() -> None:
    hr = make_photo(48, 64)
    planes = torch.from_numpy(hr).permute(2, 0, 1)
    lr = pixels.matlab_bicubic_8bit(planes, 4).permute(1, 2, 0).numpy()
    assert lr_consistency(hr, lr) == math.inf
    assert lr_consistency(hr, lr + np.uint8(1)) == pytest.approx(20 * math.log10(255), abs=1e-9)  # no value is near 255
    unit = planes.double() / 255
    assert lr_consistency(unit, pixels.imresize(unit, 0.25)) > 250  # float64 rounding


def test_detail_is_free_and_wrong_brightness_is_not() -> None:
    """A checkerboard within each input pixel vanishes when shrunk; one level of brightness does not."""
    lr = np.full((12, 12, 3), 100, np.uint8)
    flat = np.full((48, 48, 3), 100, np.uint8)
    board = flat + np.where(np.indices((48, 48)).sum(0) % 2, 20, -20)[..., None]
    assert lr_consistency(board.astype(np.uint8), lr) == math.inf
    assert lr_consistency(flat + np.uint8(2), lr) == pytest.approx(20 * math.log10(255 / 2), abs=1e-9)


def test_sizes_without_a_scale_are_refused() -> None:
    lr = make_photo(10, 12)
    for output in (make_photo(40, 47), make_photo(5, 6), make_photo(40, 48, dtype="uint16")):
        with pytest.raises(ValueError, match="by a whole scale"):
            lr_consistency(output, lr)


# The built-in flow ----------------------------------------------------------------------------------------------------
def texture(y: Tensor, x: Tensor) -> Tensor:
    """An analytic picture (3, H, W), defined between pixels too: waves of many directions, 5 to 60 pixels long."""
    generator = torch.Generator().manual_seed(0)
    planes = []
    for _ in range(3):
        plane = torch.full_like(x, 0.5)
        for _ in range(14):
            angle, phase, octave = torch.rand(3, generator=generator, dtype=torch.float64).tolist()
            length = 5 * 12**octave
            along = x * math.cos(6.3 * angle) + y * math.sin(6.3 * angle)
            plane = plane + 0.05 * torch.sin(2 * math.pi * along / length + 6.3 * phase)
        planes.append(plane)
    return torch.stack(planes)


Motion = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


def endpoint_error(motion: Motion) -> Tensor:
    y, x = torch.meshgrid(torch.arange(96.0).double(), torch.arange(120.0).double(), indexing="ij")
    u, v = motion(y - 48, x - 60)
    flow = LucasKanade()(texture(y + v, x + u), texture(y, x))  # what stands at x in the first is at x + u in the second
    return ((flow[0] - u) ** 2 + (flow[1] - v) ** 2).sqrt()


@pytest.mark.parametrize(
    ("motion", "bound"),
    [
        (lambda y, x: (0 * x + 0.3, 0 * y - 0.6), 0.1),
        (lambda y, x: (0 * x + 5.0, 0 * y - 3.0), 0.1),
        (lambda y, x: (0 * x + 12.0, 0 * y + 7.5), 0.4),
        (lambda y, x: (0.03 * x - 0.035 * y, 0.03 * y + 0.035 * x), 0.1),  # 2° and 3 %
    ],
    ids=["part of a pixel", "pixels", "far", "rotation and zoom"],
)
def test_flow_is_as_accurate_as_it_says(motion: Motion, bound: float) -> None:
    assert float(endpoint_error(motion).mean()) < bound


def test_flow_of_a_frame_to_itself_is_zero_exactly() -> None:
    frame = torch.rand(3, 50, 60, generator=torch.Generator().manual_seed(0))
    assert torch.equal(LucasKanade()(frame, frame), torch.zeros(2, 50, 60))


@pytest.mark.parametrize("size", [(1, 1), (2, 3), (7, 33), (64, 17)])
def test_flow_takes_any_size(size: tuple[int, int]) -> None:
    frame = torch.rand(3, *size, generator=torch.Generator().manual_seed(0))
    assert LucasKanade()(frame, frame.roll(1, -1)).shape == (2, *size)


def test_warping_reads_between_pixels_and_repeats_the_edge() -> None:
    frame = torch.arange(12, dtype=torch.float64).view(1, 3, 4)
    flow = torch.zeros(2, 3, 4, dtype=torch.float64)
    flow[0], flow[1] = 0.25, 0.5
    expected = frame + 0.25 + 0.5 * 4
    assert torch.allclose(warp(frame, flow)[0, :2, :3], expected[0, :2, :3], rtol=0, atol=1e-12)
    assert warp(frame, flow + 9)[0, 0, 0] == 11
    assert inside(flow).tolist() == [[True] * 3 + [False]] * 2 + [[False] * 4]


# Misuse ---------------------------------------------------------------------------------------------------------------
def test_clips_that_do_not_fit_are_refused() -> None:
    clip = [make_photo(32, 40, seed=s) for s in range(3)]
    with pytest.raises(ValueError, match="2 frames or more are needed, found 1"):
        warping_error(clip[:1])
    with pytest.raises(ValueError, match="3 frames or more are needed, found 2"):
        flicker(clip[:2])
    with pytest.raises(ValueError, match="differ in their number of frames"):
        temporal_flow_difference(clip, clip[:2])
    with pytest.raises(ValueError, match="of one size"):
        warping_error([clip[0], clip[1][:16]], flow=still)
    with pytest.raises(ValueError, match="of one size"):
        warping_error(clip, motion=[c[:16] for c in clip], flow=still)
    with pytest.raises(ValueError, match="two frames"):
        LucasKanade()(torch.zeros(3, 8, 8), torch.zeros(3, 8, 9))


def test_frames_are_left_as_they_were() -> None:
    clip = [torch.rand(3, 40, 40, dtype=torch.float64) for _ in range(3)]
    before = [frame.clone() for frame in clip]
    warping_error(clip)
    flicker(clip)
    temporal_flow_difference(clip, clip[::-1])
    assert all(torch.equal(a, b) for a, b in zip(clip, before, strict=True))
