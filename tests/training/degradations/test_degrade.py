"""Degradations: what is drawn follows the configuration, what is done is measurable, and one seed replays the same bytes."""

from __future__ import annotations

import math
import pickle
import random
from collections import Counter
from collections.abc import Callable
from functools import cache

import numpy as np
import pytest
import torch
from torch import Tensor

from conftest import make_photo
from upframe import pixels
from upframe.errors import UsageError
from upframe.training.degradations import steps
from upframe.training.degradations.pipeline import (
    DEGRADATIONS,
    Degradations,
    apply,
    degrade,
    draw,
    find_degradations,
    mirrored,
    photo_real,
    realbasicvsr,
)
from upframe.training.degradations.pixels import ResizeFilter, blurred, poisson_noise, resized
from upframe.training.degradations.steps import DrawnBlur, DrawnNoise, DrawnResize, DrawnVideoCompression, Walk

CLIPS = 4000
SIGMAS = 4.5
"""A count of n draws may be off by this many standard deviations. Seeds are fixed; of all frequencies tested here a correct
generator would miss one with a chance below 1 in 2000, should the seeds ever change."""


def make_clip(frames: int, height: int = 64, width: int = 48) -> Tensor:
    """A picture that drifts by a pixel a frame."""
    photo = make_photo(height, width + frames, seed=5)
    return torch.stack([pixels.to_unit(photo[:, t : t + width]) for t in range(frames)])


@cache
def drawn(name: str, frames: int = 1) -> list[tuple[steps.Operation, ...]]:
    config = DEGRADATIONS[name]()
    return [draw(config, frames, np.random.default_rng((7, i))) for i in range(CLIPS)]


def off_by(count: int, total: int, probability: float) -> float:
    """How many standard deviations of the binomial distribution a count is from what was asked for."""
    return abs(count - total * probability) / math.sqrt(total * probability * (1 - probability))


def check_frequencies(seen: list[str], wanted: dict[str, float]) -> None:
    counts = Counter(seen)
    assert counts.keys() == wanted.keys()
    for name, probability in wanted.items():
        assert off_by(counts[name], len(seen), probability) < SIGMAS, (name, counts[name], len(seen))


def check_uniform(values: list[float], low: float, high: float) -> None:
    """Within the range, its ends nearly reached, and in every tenth of it as many as in any other."""
    unit = (np.array(values) - low) / (high - low)
    assert unit.min() >= 0 and unit.max() <= 1
    for tenth in np.histogram(unit, bins=10, range=(0, 1))[0]:
        assert off_by(int(tenth), len(values), 0.1) < SIGMAS


# Distributions --------------------------------------------------------------------------------------------------------
# Numbers of RealBasicVSR's published configurations, written out again: a slip in the preset must not hide in the test.
KERNELS = {
    "iso": 0.405,
    "aniso": 0.225,
    "generalized_iso": 0.108,
    "generalized_aniso": 0.027,
    "plateau_iso": 0.108,
    "plateau_aniso": 0.027,
    "sinc": 0.1,
}
THIRDS = {"bilinear": 1 / 3, "area": 1 / 3, "bicubic": 1 / 3}


def first_order(operations: tuple[steps.Operation, ...]) -> tuple[steps.Operation, ...]:
    """Blur, resize, noise, JPEG, codec."""
    return operations[:5]


def second_order(operations: tuple[steps.Operation, ...]) -> tuple[steps.Operation, ...]:
    """Perhaps blur, resize, noise, JPEG."""
    end = 9 if isinstance(operations[5], DrawnBlur) else 8
    return operations[5:end]


def pick(kind: type, of: Callable[[tuple[steps.Operation, ...]], tuple[steps.Operation, ...]]) -> list:  # type: ignore[type-arg]
    return [o for operations in drawn("realbasicvsr") for o in of(operations) if type(o) is kind]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("order", "blurs", "sigma", "modes", "gaussian", "poisson", "up", "down"),
    [
        (first_order, 1.0, 3.0, {"up": 0.2, "down": 0.7, "keep": 0.1}, 30, 3.0, 1.5, 0.15),
        (second_order, 0.8, 1.5, {"up": 0.3, "down": 0.4, "keep": 0.3}, 25, 2.5, 1.2, 0.3),
    ],
)
def test_each_order_is_drawn_as_published(
    order: Callable[[tuple[steps.Operation, ...]], tuple[steps.Operation, ...]],
    blurs: float,
    sigma: float,
    modes: dict[str, float],
    gaussian: float,
    poisson: float,
    up: float,
    down: float,
) -> None:
    blur: list[DrawnBlur] = pick(DrawnBlur, order)
    assert len(blur) == CLIPS if blurs == 1 else off_by(len(blur), CLIPS, blurs) < SIGMAS
    check_frequencies([o.kind for o in blur], KERNELS)
    check_frequencies([str(o.size) for o in blur], {str(k): 1 / 8 for k in range(7, 22, 2)})
    check_uniform([o.sigma_x[0] for o in blur], 0.2, sigma)
    check_uniform([o.sigma_y[0] for o in blur], 0.2, sigma)
    check_uniform([o.rotation[0] for o in blur], -math.pi, math.pi)
    check_uniform([o.beta[0] for o in blur if o.kind.startswith("generalized")], 0.5, 4)
    check_uniform([o.beta[0] for o in blur if o.kind.startswith("plateau")], 1, 2)
    check_uniform([o.cutoff[0] for o in blur if o.kind == "sinc" and o.size < 13], math.pi / 3, math.pi)
    check_uniform([o.cutoff[0] for o in blur if o.kind == "sinc" and o.size >= 13], math.pi / 5, math.pi)

    resize: list[DrawnResize] = pick(DrawnResize, order)
    assert len(resize) == CLIPS
    check_frequencies([o.mode for o in resize], modes)
    check_frequencies([o.filter for o in resize], THIRDS)
    check_uniform([o.scale[0] for o in resize if o.mode == "up"], 1, up)
    check_uniform([o.scale[0] for o in resize if o.mode == "down"], down, 1)
    assert {o.scale[0] for o in resize if o.mode == "keep"} == {1.0}

    noise: list[DrawnNoise] = pick(DrawnNoise, order)
    assert len(noise) == CLIPS
    check_frequencies([o.kind for o in noise], {"gaussian": 0.5, "poisson": 0.5})
    check_frequencies([str(o.is_gray) for o in noise], {"True": 0.4, "False": 0.6})
    check_uniform([o.strength[0] for o in noise if o.kind == "gaussian"], 1, gaussian)
    check_uniform([o.strength[0] for o in noise if o.kind == "poisson"], 0.05, poisson)

    quality = [o.quality[0] for o in pick(steps.DrawnJpeg, order)]
    assert len(quality) == CLIPS and min(quality) == 30 and max(quality) == 95


@pytest.mark.slow
def test_codecs_and_the_shuffled_end_are_drawn_as_published() -> None:
    ends, codecs, cutoffs, filters = [], [], [], []
    for operations in drawn("realbasicvsr"):
        codecs += [o for o in operations if isinstance(o, DrawnVideoCompression)]
        end = operations[len(first_order(operations)) + len(second_order(operations)) :]
        assert [type(o) for o in first_order(operations)][1:] == [
            DrawnResize,
            DrawnNoise,
            steps.DrawnJpeg,
            DrawnVideoCompression,
        ]
        ends.append(" ".join(type(o).__name__.removeprefix("Drawn") for o in end))
        filters += [o.filter for o in end if isinstance(o, steps.DrawnResizeToOutput)]
        cutoffs += [o.cutoff[0] for o in end if isinstance(o, DrawnBlur) and o.kind == "sinc"]
    wanted = {
        "VideoCompression ResizeToOutput Blur": 0.4,
        "VideoCompression ResizeToOutput": 0.1,
        "ResizeToOutput Blur VideoCompression": 0.4,
        "ResizeToOutput VideoCompression": 0.1,
    }
    check_frequencies(ends, wanted)
    check_frequencies(filters, THIRDS)
    check_uniform(cutoffs, math.pi / 3, math.pi)
    assert len(codecs) == 2 * CLIPS
    check_frequencies([o.encoder for o in codecs], {"libx264": 1 / 3, "h264": 1 / 3, "mpeg4": 1 / 3})
    check_uniform([o.bit_rate for o in codecs], 10_000, 100_000)
    assert {o.frame_rate for o in codecs} == {1}


@pytest.mark.slow
def test_pictures_get_no_video_codec() -> None:
    kinds = {type(o) for operations in drawn("photo-real")[:500] for o in operations}
    assert DrawnVideoCompression not in kinds
    assert len(kinds) == 5
    last = Counter(type(operations[-1]) is steps.DrawnJpeg for operations in drawn("photo-real"))
    assert off_by(last[True], CLIPS, 0.5) < SIGMAS  # the last JPEG before or after the sinc


# The walk -------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("operation", "field", "low", "high", "step"),
    [
        (DrawnBlur, "sigma_x", 0.2, 3.0, 0.02),
        (DrawnBlur, "sigma_y", 0.2, 3.0, 0.02),
        (DrawnBlur, "rotation", -math.pi, math.pi, 0.31416),
        (DrawnBlur, "cutoff", math.pi / 5, math.pi, 0.0628),
        (DrawnResize, "scale", 0.15, 1.5, 0.015),
    ],
)
def test_parameters_walk_in_the_published_steps(operation: type, field: str, low: float, high: float, step: float) -> None:
    """Uniform steps within the limit; only at the ends of the range is one cut short."""
    first = [next(o for o in operations if type(o) is operation) for operations in drawn("realbasicvsr", 30)[:300]]
    values = np.stack([getattr(o, field) for o in first])
    assert values.shape == (300, 30)
    assert values.min() >= low and values.max() <= high
    changes = np.diff(values, axis=1)
    assert np.abs(changes).max() <= step + 1e-12
    inner = changes[(values[:, 1:] > low) & (values[:, 1:] < high)]
    # Inner steps next to an end lean away from it, by less than a tenth of the spread.
    assert abs(inner.mean()) < 0.1 * step
    assert inner.std() == pytest.approx(step / math.sqrt(3), rel=0.03)


def test_walks_that_depend_on_the_kind_have_their_own_steps() -> None:
    seen = set()
    for operations in drawn("realbasicvsr", 30)[:600]:
        second = second_order(operations)
        for o in operations:
            if isinstance(o, DrawnBlur) and o.kind.startswith(("generalized", "plateau")):
                limits = {"generalized": (0.5, 4.0, 0.05), "plateau": (1.0, 2.0, 0.1)}[o.kind.split("_")[0]]
                values, key = o.beta, o.kind.split("_")[0]
            elif isinstance(o, DrawnNoise):
                strongest = {True: (25, 2.5), False: (30, 3.0)}[any(o is other for other in second)]
                gaussian = o.kind == "gaussian"
                limits = (1.0, strongest[0], 0.1) if gaussian else (0.05, strongest[1], 0.005)
                values, key = o.strength, o.kind
            elif isinstance(o, steps.DrawnJpeg):
                limits, values, key = (30, 95, 4), o.quality.astype(float), "jpeg"  # 3 before rounding: at most 4 after
            elif isinstance(o, DrawnResize) and any(o is other for other in second):
                limits, values, key = (0.3, 1.2, 0.03), o.scale, "resize"
            else:
                continue
            low, high, step = limits
            assert low <= values.min() and values.max() <= high
            assert 0 < np.abs(np.diff(values)).max() <= step + 1e-12
            seen.add(key)
    assert seen == {"generalized", "plateau", "gaussian", "poisson", "jpeg", "resize"}


def test_a_walk_without_steps_stays_and_one_at_its_end_is_clipped() -> None:
    rng = np.random.default_rng(0)
    still = Walk(1.0, 5.0).draw(6, rng)
    assert np.unique(still).size == 1
    values = Walk(0.0, 1.0, 0.6).draw(200, rng)
    assert values.min() == 0.0 and values.max() == 1.0


def only(*chosen: steps.Step) -> Degradations:
    """These steps on whole frames."""
    return Degradations("test", steps=chosen, shuffled=((steps.ResizeToOutput(),),), scale=1)


def test_the_mirrored_half_differs_under_the_walk_only() -> None:
    """The point of the scheme: half the frames are read, and still every frame is a new one.

    No noise and no codec here: they differ between the halves whether parameters walk or not.
    """
    half = make_clip(4)
    whole = mirrored(half)
    assert whole.shape[0] == 8 and torch.equal(whole[4:], half.flip(0))
    config = only(
        steps.Blur(kinds=(("aniso", 1.0),), sigma=Walk(1.0, 3.0, 0.2)),
        steps.Resize((("up", 0.0), ("down", 1.0), ("keep", 0.0)), Walk(0.5, 1.0, 0.1)),
        steps.Jpeg(Walk(30, 60, 3)),
    )
    walking = degrade(whole, config, np.random.default_rng(1))
    assert all(not torch.equal(walking[i], walking[7 - i]) for i in range(4))
    still = degrade(whole, config.without_walk(), np.random.default_rng(1))
    assert torch.equal(still[:4], still[4:].flip(0))


def test_without_walk_reaches_every_parameter() -> None:
    operations = draw(realbasicvsr().without_walk(), 10, np.random.default_rng(0))
    for operation in operations:
        for value in vars(operation).values():
            assert not isinstance(value, np.ndarray) or np.unique(value).size == 1


# Replay ---------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", DEGRADATIONS)
def test_one_seed_replays_the_same_bytes_and_leaves_everything_else_alone(name: str) -> None:
    clip = make_clip(1 if name.startswith("photo") else 5)
    before = clip.clone()
    numpy_state, torch_state, python_state = np.random.get_state()[1].copy(), torch.get_rng_state(), random.getstate()
    config = find_degradations(name)
    results = [degrade(clip, config, np.random.default_rng((3, i))) for i in range(4)]
    elsewhere = pickle.loads(pickle.dumps(config))  # as a worker process gets it
    again = [elsewhere(clip, np.random.default_rng((3, i))) for i in range(4)]
    assert all(torch.equal(a, b) for a, b in zip(results, again, strict=True))
    different = {lq.numpy().tobytes() for lq in results}
    assert len(different) >= (2 if name == "phone-and-web" else 4)  # its clean inputs, here three, are alike
    assert torch.equal(clip, before)
    assert np.array_equal(np.random.get_state()[1], numpy_state)
    assert torch.equal(torch.get_rng_state(), torch_state)
    assert random.getstate() == python_state


@pytest.mark.parametrize("name", DEGRADATIONS)
@pytest.mark.parametrize(("frames", "scale"), [(1, 4), (3, 2)])
def test_the_result_is_8_bit_and_smaller_by_the_scale(name: str, frames: int, scale: int) -> None:
    clip = make_clip(frames, 52, 36)  # odd sides of the result: 13x9
    config = find_degradations(name, scale=scale)
    for seed in range(4):
        lq = degrade(clip, config, np.random.default_rng(seed))
        assert lq.shape == (frames, 3, 52 // scale, 36 // scale)
        assert lq.dtype == torch.float32 and not lq.requires_grad
        assert lq.min() >= 0 and lq.max() <= 1
        assert torch.equal(lq, (lq * 255).round() / 255)
        # It still shows the picture: the strongest noise and blur leave the mean colour.
        assert (lq.mean((0, 2, 3)) - clip.mean((0, 2, 3))).abs().max() < 0.15


@pytest.mark.slow
def test_milder_settings_are_milder() -> None:
    clip = torch.linspace(0.1, 0.9, 128).expand(1, 3, 128, 128).clone()
    clip[..., 32:96, 32:96] = 0.5  # large areas and a few edges, as photographs have; shrinking alone loses little of them
    small = pixels.imresize(clip, 0.25)

    def error(name: str) -> float:
        results = [degrade(clip, find_degradations(name), np.random.default_rng(i)) for i in range(24)]
        return float(np.median([(lq - small).square().mean() for lq in results]))

    assert error("photo-mild") < 0.6 * error("photo-real")


# Single steps ---------------------------------------------------------------------------------------------------------
def test_each_frame_is_blurred_by_its_own_kernel() -> None:
    """Against a sum over shifted copies in float64; six frames take one way to compute it, one frame the other."""
    clip = make_clip(6, 20, 33)
    kernels = torch.rand(6, 13, 13, generator=torch.Generator().manual_seed(0))
    kernels /= kernels.sum((1, 2), keepdim=True)
    together = blurred(list(clip), kernels)
    alone = [blurred([frame], kernel[None])[0] for frame, kernel in zip(clip, kernels, strict=True)]
    for i, frame in enumerate(clip):
        wide = np.pad(frame.double().numpy(), ((0, 0), (6, 6), (6, 6)), mode="reflect")
        want = sum(kernels[i, y, x].item() * wide[:, y : y + 20, x : x + 33] for y in range(13) for x in range(13))
        for got in (together[i], alone[i]):
            assert np.abs(got.double().numpy() - want).max() < 2e-6  # float32 sums of 169 terms


def test_frames_of_several_sizes_keep_their_order_and_kernels() -> None:
    frames = [torch.full((3, side, side), side / 10) for side in (4, 4, 6, 4)]
    kernels = torch.zeros(4, 3, 3)
    kernels[:, 1, 1] = torch.tensor([1.0, 2.0, 3.0, 4.0])
    out = blurred(frames, kernels)
    assert [frame.shape[-1] for frame in out] == [4, 4, 6, 4]
    assert [round(frame.mean().item(), 5) for frame in out] == [0.4, 0.8, 1.8, 1.6]


@pytest.mark.parametrize("size", [(7, 5), (20, 31), (4, 24)])
def test_area_resizing_averages_what_a_pixel_covers(size: tuple[int, int]) -> None:
    """Against pixels split into n·m equal parts, which both grids share."""
    frame = make_clip(1, 10, 12)[0]
    fine = frame.double().repeat_interleave(size[0], 1).repeat_interleave(size[1], 2)
    want = fine.view(3, size[0], 10, size[1], 12).mean((2, 4))
    assert torch.allclose(resized(frame, size, filter="area").double(), want, atol=1e-6)


@pytest.mark.parametrize("filter", ["bilinear", "area", "bicubic"])
def test_resizing_keeps_flat_areas_and_the_position_of_things(filter: ResizeFilter) -> None:
    flat = torch.full((3, 9, 14), 0.3)
    assert torch.allclose(resized(flat, (17, 5), filter=filter), torch.tensor(0.3), atol=1e-6)
    ramp = torch.linspace(0, 1, 64).expand(3, 8, 64)
    half = resized(ramp, (4, 32), filter=filter)
    assert torch.allclose(half[0, 1, 2:-2], ramp[0, 0].view(32, 2).mean(1)[2:-2], atol=1e-5)  # centres are aligned
    assert resized(ramp, (8, 64), filter=filter) is ramp


def test_sizes_are_even_and_follow_the_scale() -> None:
    operation = DrawnResize("down", "area", np.array([0.5, 0.33, 0.01, 1.0]))
    out = operation.apply([torch.rand(3, 50, 30)] * 4, size=(1, 1), rng=np.random.default_rng(0))
    assert [tuple(frame.shape[1:]) for frame in out] == [(24, 14), (16, 8), (2, 2), (50, 30)]


@pytest.mark.parametrize("is_gray", [False, True])
def test_gaussian_noise_has_its_strength_in_every_frame(is_gray: bool) -> None:
    flat = [torch.full((3, 200, 200), 0.5)] * 2
    out = DrawnNoise("gaussian", np.array([5.0, 20.0]), is_gray).apply(flat, size=(1, 1), rng=np.random.default_rng(2))
    for frame, sigma in zip(out, (5.0, 20.0), strict=True):
        # 40 000 samples of each channel: the standard deviation is known to 0.35 %.
        assert (frame[0] * 255).std().item() == pytest.approx(sigma, rel=0.02)
        assert torch.equal(frame[0], frame[1]) is is_gray
    assert not torch.equal(out[0] - 0.5, (out[1] - 0.5) / 4)


def test_poisson_noise_grows_with_brightness() -> None:
    """A frame of 4 values counts 4 photons at white: the variance at brightness x is x / 4."""
    levels = torch.tensor([0.0, 51.0, 102.0, 204.0]) / 255
    frame = levels.view(1, 4, 1).expand(1, 4, 50_000)
    noise = poisson_noise(frame, np.random.default_rng(0))[0]
    assert noise[0].abs().max() == 0
    for x, row in zip(levels.tolist()[1:], noise[1:], strict=True):
        assert row.mean().item() == pytest.approx(0, abs=5 * math.sqrt(x / 4 / 50_000))
        assert row.var().item() == pytest.approx(x / 4, rel=0.05)


def test_gray_poisson_noise_is_the_same_in_all_channels() -> None:
    frame = make_clip(1)[0]
    out = DrawnNoise("poisson", np.array([2.0]), True).apply([frame], size=(1, 1), rng=np.random.default_rng(0))[0]
    difference = out - frame
    assert difference.abs().max() > 0.01
    assert torch.allclose(difference[0], difference[1], atol=1e-6)  # the addition to different pixels rounds differently


def test_lower_jpeg_quality_loses_more() -> None:
    frame = make_clip(1)[0]
    out = steps.DrawnJpeg(np.array([95, 60, 30])).apply([frame] * 3, size=(1, 1), rng=np.random.default_rng(0))
    errors = [(one - frame).square().mean().item() for one in out]
    assert 0 < errors[0] < errors[1] < errors[2]


def test_a_film_is_compressed_at_the_size_of_its_first_frame() -> None:
    frames = [torch.rand(3, side, side) for side in (24, 22, 26)]
    out = DrawnVideoCompression("mpeg4", 50_000, 1).apply(frames, size=(1, 1), rng=np.random.default_rng(0))
    assert [tuple(frame.shape) for frame in out] == [(3, 24, 24)] * 3


# Misuse ---------------------------------------------------------------------------------------------------------------
def test_clips_of_another_shape_are_refused() -> None:
    rng = np.random.default_rng(0)
    with pytest.raises(ValueError, match="50x48 is not a multiple of 4"):
        degrade(torch.rand(2, 3, 50, 48), photo_real(), rng)
    with pytest.raises(ValueError, match=r"\(T, 3, H, W\) float32, not \(3, 48, 48\)"):
        degrade(torch.rand(3, 48, 48), photo_real(), rng)
    with pytest.raises(ValueError, match="uint8"):
        apply((), torch.zeros(1, 3, 8, 8, dtype=torch.uint8), scale=4, rng=rng)


def test_configurations_that_make_no_sense_are_refused() -> None:
    with pytest.raises(ValueError, match="exactly one step"):
        Degradations("twice", steps=(), shuffled=())
    with pytest.raises(ValueError, match=r"sum to 0\.9"):
        steps.Blur(kinds=(("iso", 0.9),), sigma=Walk(1, 2))
    with pytest.raises(ValueError, match="box is none of iso"):
        steps.Blur(kinds=(("box", 1.0),), sigma=Walk(1, 2))
    with pytest.raises(ValueError, match="no range: 3 to 2"):
        Walk(3, 2)
    with pytest.raises(ValueError, match="do not contain 1"):
        steps.Resize((("up", 1.0),), Walk(1.5, 2.0))
    with pytest.raises(ValueError, match="not a probability"):
        steps.Blur(kinds=(("iso", 1.0),), sigma=Walk(1, 2), probability=1.5)


def test_unknown_names_are_answered_with_the_nearest() -> None:
    assert find_degradations("Photo_Real", scale=2).scale == 2
    with pytest.raises(UsageError, match="Did you mean photo-mild"):
        find_degradations("photo-mld")
