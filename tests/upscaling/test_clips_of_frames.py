"""Video networks: whole segments against tiles, memory that runs out at any moment, context, cleaning, stopping."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from conftest import make_photo
from echo import ECHO, Echo, echo
from upframe.engines import TorchEngine, TorchOptions
from upframe.errors import Cancelled, OutOfMemoryError, ResourceError, UsageError, VerifyError
from upframe.models.cards import Card
from upframe.models.families.realbasicvsr import realbasicvsr_spec_for
from upframe.models.registry import Model
from upframe.models.spec import Cleaning, Memory, Window
from upframe.upscaling import tiling
from upframe.upscaling.clips import ClipUpscaler
from upframe.upscaling.options import UpscaleOptions
from windowed import WindowMean, blended, middle, window_mean

Clip = Sequence[NDArray[np.uint16]]


@pytest.fixture(scope="module")
def real() -> Model:
    """RealBasicVSR as it is, of a small size, with random weights."""
    torch.manual_seed(0)
    spec = realbasicvsr_spec_for(channels=8, propagation_blocks=1, cleaning_blocks=1)
    network = spec.build().eval().requires_grad_(False)
    return Model(spec, network, None, None, "random")


def moving(count: int, size: tuple[int, int], *, seed: int = 0) -> list[NDArray[np.uint16]]:
    """A photograph that slides by 2 px a frame."""
    scene = make_photo(size[0], size[1] + 2 * count, seed=seed, dtype="uint16")
    return [np.ascontiguousarray(scene[:, 2 * n : 2 * n + size[1]]).astype(np.uint16) for n in range(count)]


def made(model: Model, clip: Clip, options: UpscaleOptions | None = None, **arguments: Any) -> NDArray[np.uint16]:
    return np.stack(list(ClipUpscaler(model, options).frames(clip, **arguments)))


WHOLE = UpscaleOptions(tile="off")


def code_values(a: NDArray[np.uint16], b: NDArray[np.uint16]) -> float:
    """Largest difference in steps of 8 bits."""
    return float(np.abs(a.astype(int) - b).max() / 257)


# Tiles ----------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("tile", [32, (40, 33), 70])
def test_tiles_are_as_the_whole_clip_where_the_halo_covers_all_steps(tile: int | tuple[int, int]) -> None:
    clip = moving(6, (70, 90))
    whole, tiled = made(echo(), clip, WHOLE), made(echo(), clip, UpscaleOptions(tile=tile, halo=16))
    assert whole.shape == (6, 140, 180, 3)
    assert code_values(whole, tiled) <= 2 / 257  # rounding at 16 bits


@pytest.mark.parametrize("tile", ["off", 32])
def test_a_border_is_what_mirroring_by_hand_and_cutting_off_gives(tile: int | str) -> None:
    """For weights that print a rim where the network pads with zeros."""
    clip = moving(3, (40, 53))
    options = UpscaleOptions(tile=tile, halo=16)  # type: ignore[arg-type]
    bordered = replace(echo(), card=Card(name="echo", arch="echo", scale=echo().scale, border_px=5))
    by_hand = [np.pad(frame, ((5, 5), (5, 5), (0, 0)), mode="reflect") for frame in clip]
    expected = made(echo(), by_hand, options)[:, 10:-10, 10:-10]
    assert code_values(made(bordered, clip, options), expected) <= 2 / 257  # rounding at 16 bits


@pytest.mark.slow
def test_tiles_of_the_real_network_are_close_to_the_whole(real: Model) -> None:
    clip = moving(4, (48, 80))
    whole = made(real, clip, WHOLE)
    assert whole.shape == (4, 192, 320, 3)
    assert code_values(whole, made(real, clip, UpscaleOptions(tile=48, halo=64))) <= 1
    # A halo as large as the picture leaves nothing out.
    assert code_values(whole, made(real, clip, UpscaleOptions(tile=32, halo=96))) <= 2 / 257


@pytest.mark.slow
def test_whole_clip_is_what_the_network_makes_of_it(real: Model) -> None:
    clip = moving(3, (33, 47))
    tensor = torch.from_numpy(np.stack(clip).astype(np.float32) / 65535).permute(0, 3, 1, 2)[None]
    with torch.inference_mode():
        wanted = real.network(tensor)[0].clamp(0, 1).permute(0, 2, 3, 1).numpy()
    assert np.abs(made(real, clip, WHOLE) / 65535 - wanted).max() <= 1 / 65535


@pytest.mark.slow
def test_same_result_whether_features_are_kept_or_computed_again(real: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    clip = moving(7, (32, 40))
    kept = made(real, clip, WHOLE)
    choice = ClipUpscaler.choice
    monkeypatch.setattr(ClipUpscaler, "choice", lambda *given: replace(choice(*given), keep="recompute"))
    np.testing.assert_array_equal(made(real, clip, WHOLE), kept)


def test_other_sizes_are_resampled_from_the_full_one() -> None:
    clip = moving(2, (20, 30))
    assert made(echo(), clip, WHOLE, size=(30, 45)).shape == (2, 30, 45, 3)
    flat = [np.full((20, 30, 3), 777, np.uint16)] * 2
    assert (made(echo(), flat, WHOLE, size=(30, 45)) == 777).all()


@pytest.mark.parametrize("count", [1, 2, 3])
def test_the_shortest_clips(real: Model, count: int) -> None:
    assert made(real, moving(count, (17, 23))).shape == (count, 68, 92, 3)


def test_black_stays_black() -> None:
    assert not made(echo(), [np.zeros((20, 30, 3), np.uint16)] * 3).any()


# Context --------------------------------------------------------------------------------------------------------------
def test_context_counts_and_is_left_out() -> None:
    clip = moving(9, (24, 32))
    inner = made(echo(), clip, WHOLE, first=3, end=6)
    np.testing.assert_array_equal(inner, made(echo(), clip, WHOLE)[3:6])
    assert code_values(inner, made(echo(), clip[3:6], WHOLE)) > 1  # the frames around do matter


def test_input_is_never_changed(real: Model) -> None:
    clip = moving(3, (24, 32))
    before = [frame.copy() for frame in clip]
    made(real, clip, UpscaleOptions(tile=32), first=1)
    assert all((a == b).all() for a, b in zip(clip, before, strict=True))


# Memory ---------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("call", range(1, 9))
def test_memory_that_runs_out_at_any_frame_changes_no_pixel(monkeypatch: pytest.MonkeyPatch, call: int) -> None:
    """Two tiles of four frames: whichever step fails, the tile is redone in halves, and its neighbour never notices."""
    clip = moving(4, (32, 72))
    options = UpscaleOptions(tile=(32, 40), halo=16)
    undisturbed = made(echo(), clip, options)
    calls = 0
    stream = TorchEngine.stream

    def short(self: TorchEngine, region: Tensor, **rest: Any) -> Iterator[Tensor]:
        nonlocal calls
        for frame in stream(self, region, **rest):
            calls += 1
            if calls == call:
                raise OutOfMemoryError("echo", "a clip did not fit")
            yield frame

    monkeypatch.setattr(TorchEngine, "stream", short)
    up = ClipUpscaler(echo(), options)
    again = np.stack(list(up.frames(clip)))
    assert code_values(undisturbed, again) <= 2 / 257
    assert [notice.id for notice in up.notices] == ["tile-halved"]


def test_memory_that_never_suffices_is_an_error_that_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def none(self: TorchEngine, region: Tensor, **rest: Any) -> Iterator[Tensor]:
        raise OutOfMemoryError("echo", "a clip did not fit")
        yield

    monkeypatch.setattr(TorchEngine, "stream", none)
    with pytest.raises(ResourceError, match=r"does not fit into memory.*shorter segments"):
        made(echo(), moving(3, (40, 40)))


@pytest.mark.slow
def test_real_errors_of_torch_are_taken_for_what_they_are(real: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not only our own: what torch's allocator says, once, in the middle of the second pass."""
    clip = moving(4, (32, 48))
    options = UpscaleOptions(tile="off", halo=64)
    undisturbed = made(real, clip, options)
    convolution, calls, left = F.conv2d, 0, 1

    def short(*arguments: Any, **rest: Any) -> Tensor:
        nonlocal calls, left
        calls += 1
        if calls > 60 and left:
            left = 0
            raise RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: not enough memory: you tried to allocate")
        return convolution(*arguments, **rest)

    monkeypatch.setattr(nn.Conv2d, "_conv_forward", lambda self, x, w, b: short(x, w, b, self.stride, self.padding))
    up = ClipUpscaler(real, options)
    assert code_values(undisturbed, np.stack(list(up.frames(clip)))) <= 1
    assert left == 0


def test_auto_never_asks_for_more_than_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    heavy = echo(memory=(Memory(per_px=10_000, feature_bytes=2),))
    monkeypatch.setattr("upframe.upscaling.clips.available_memory_bytes", lambda: 1 << 30)
    up = ClipUpscaler(heavy)
    height, width = up.choice((2000, 2000), 20).tile
    padded = (height + 2 * (16 + 8)) * (width + 2 * (16 + 8))
    assert padded * 10_000 <= 0.4 * 2**30
    assert up.choice((100, 100), 20).tile == (100, 100)
    assert up.choice((100, 100), 40).keep == "full"
    assert up.choice((1000, 1000), 100).keep == "recompute"
    assert 8 <= up.segment_frames((4000, 4000)) < up.segment_frames((500, 500)) <= 100


# Faults ---------------------------------------------------------------------------------------------------------------
def test_values_that_are_not_finite_are_never_written() -> None:
    class Broken(Echo):
        def stream(self, clip: Tensor, *, keep: str = "full") -> Iterator[Tensor]:
            for number, frame in enumerate(super().stream(clip, keep=keep)):
                yield frame * (float("nan") if number == 2 else 1)

    model = Model(ECHO, Broken().eval(), None, None, "broken")
    frames = ClipUpscaler(model).frames(moving(4, (20, 30)))
    next(frames), next(frames)
    with pytest.raises(VerifyError, match="values that are not finite"):
        next(frames)


def test_stopping_takes_no_longer_than_a_step_of_the_network(real: Model) -> None:
    """Asked to stop in the middle of the pass through all frames, before the first of them is done."""
    cancel, steps = threading.Event(), 0

    def step(*_: object) -> None:
        nonlocal steps
        steps += 1
        if steps == 40:
            cancel.set()

    hooks = [part.register_forward_hook(step) for part in real.network.modules() if isinstance(part, nn.Conv2d)]
    try:
        with pytest.raises(Cancelled):
            list(ClipUpscaler(real, cancel=cancel).frames(moving(12, (24, 32))))
    finally:
        for hook in hooks:
            hook.remove()
    assert steps <= 42
    assert not any(part._forward_pre_hooks for part in real.network.modules())


def test_each_kind_of_network_has_its_own_upscaler() -> None:
    with pytest.raises(UsageError, match="not for videos"):
        ClipUpscaler(echo(window=None))
    with pytest.raises(UsageError, match="does not clean"):
        ClipUpscaler(echo(), cleaning=Cleaning())
    with pytest.raises(UsageError, match="not proven"):
        ClipUpscaler(echo(), UpscaleOptions(engine=TorchOptions(precision="fp16")))


# Cleaning -------------------------------------------------------------------------------------------------------------
def cleaned(model: Model, clip: Clip, cleaning: Cleaning) -> tuple[NDArray[np.uint16], list[int]]:
    up = ClipUpscaler(model, cleaning=cleaning)
    return np.stack(list(up.frames(clip))), up.passes


@pytest.mark.slow
def test_cleaning_is_decided_once_for_the_segment_and_told(real: Model) -> None:
    clip = moving(3, (32, 40))
    one, passes = cleaned(real, clip, Cleaning())
    assert passes == [1]
    all_of_them, passes = cleaned(real, clip, Cleaning(threshold=0, max_passes=3))
    assert passes == [3]
    none, passes = cleaned(real, clip, Cleaning(max_passes=0))
    assert passes == [0]
    assert len({one.tobytes(), all_of_them.tobytes(), none.tobytes()}) == 3
    weak, _ = cleaned(real, clip, Cleaning(strength=0))
    np.testing.assert_array_equal(weak, none)
    # In tiles, passes are those of the whole: half of the picture that is clean already does not change them.
    half = [np.concatenate([frame[:, :20], np.full_like(frame[:, 20:], 30000)], 1) for frame in clip]
    up = ClipUpscaler(real, UpscaleOptions(tile=32), cleaning=Cleaning(threshold=0, max_passes=2))
    list(up.frames(half))
    assert up.passes == [2]


def test_each_segment_decides_for_itself(real: Model) -> None:
    up = ClipUpscaler(real)
    for clip in (moving(2, (24, 32)), moving(3, (24, 32), seed=1)):
        list(up.frames(clip))
    assert up.passes == [1, 1]


def test_progress_counts_the_frames_that_are_kept() -> None:
    told: list[tuple[int, int]] = []
    up = ClipUpscaler(echo(), on_frame=lambda done, total: told.append((done, total)))
    list(up.frames(moving(6, (20, 30)), first=1, end=4))
    assert told == [(1, 3), (2, 3), (3, 3)]


# Windows in time ------------------------------------------------------------------------------------------------------
def as_tensor(clip: Clip) -> Tensor:
    return torch.from_numpy(np.stack(clip).astype(np.float32) / 65535).permute(0, 3, 1, 2)


@pytest.mark.parametrize("tile", ["off", 24])
def test_a_clip_longer_than_a_window_is_blended_from_several(tile: Any) -> None:
    clip = moving(11, (40, 50))
    model, network = window_mean(Window(frames=6, overlap=2, multiple=3))
    found = made(model, clip, UpscaleOptions(tile=tile, halo=0, blend=4))
    assert set(network.lengths) == {6}
    expected = blended(as_tensor(clip), [range(6), range(2, 8), range(5, 11)]).permute(0, 2, 3, 1).numpy()
    assert np.abs(found / 65535 - expected).max() <= 1 / 65535 + 1e-6  # rounding at 16 bits, and of float32


def test_the_user_chooses_how_many_frames_are_seen_at_once() -> None:
    model, network = window_mean(Window(frames=6, overlap=1))
    made(model, moving(9, (16, 16)), UpscaleOptions(tile="off", window=9))
    assert network.lengths == [9]
    with pytest.raises(UsageError, match="share 1 frames"):
        made(model, moving(9, (16, 16)), UpscaleOptions(tile="off", window=1))


@pytest.mark.parametrize(("count", "seen"), [(1, 4), (2, 4), (3, 4), (4, 4), (5, 8)])
def test_short_clips_are_mirrored_to_what_the_network_takes(count: int, seen: int) -> None:
    model, network = window_mean(Window(frames=8, overlap=2, minimum=2, multiple=4))
    clip = moving(count, (16, 20))
    found = made(model, clip, WHOLE)
    assert network.lengths == [seen]
    assert len(found) == count
    mirrored = [*range(count), *reversed(range(count))]
    whole = as_tensor([clip[mirrored[i % (2 * count)]] for i in range(seen)])
    expected = (0.5 * whole + 0.5 * whole.mean(0, keepdim=True))[:count].permute(0, 2, 3, 1).numpy()
    assert np.abs(found / 65535 - expected).max() <= 1 / 65535


def test_the_network_is_told_the_noise_on_its_own_scale() -> None:
    model, network = window_mean(Window(frames=8, overlap=2), task="denoise", takes_sigma=True)
    made(model, moving(2, (16, 20)), UpscaleOptions(tile="off", sigma=51.0))
    assert network.sigmas == [pytest.approx(0.2)]
    with pytest.raises(UsageError, match="Add `sigma`"):
        ClipUpscaler(model)
    with pytest.raises(UsageError, match="not an option of"):
        ClipUpscaler(window_mean(Window(frames=8, overlap=2))[0], UpscaleOptions(sigma=1.0))


def test_windows_become_shorter_where_tiles_cannot_become_smaller(monkeypatch: pytest.MonkeyPatch) -> None:
    clip = moving(9, (16, 16))
    model, network = window_mean(Window(frames=8, overlap=2, minimum=2))
    forward = WindowMean.forward

    def full(self: WindowMean, clip: Tensor, *, sigma: float | None = None) -> Tensor:
        if clip.shape[1] > 4:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory")
        return forward(self, clip, sigma=sigma)

    monkeypatch.setattr(WindowMean, "forward", full)
    up = ClipUpscaler(model, UpscaleOptions(tile="off"))
    found = np.stack(list(up.frames(clip)))
    assert set(network.lengths) == {3}  # 7, halved
    assert [n.id for n in up.notices] == ["window-halved"]
    cut = tiling.windows(9, longest=3, overlap=2)
    expected = blended(as_tensor(clip), cut).permute(0, 2, 3, 1).numpy()
    assert np.abs(found / 65535 - expected).max() <= 1 / 65535 + 1e-6


def test_frames_are_made_in_the_middle_between_two() -> None:
    clip = moving(5, (40, 56))
    up = ClipUpscaler(middle(), UpscaleOptions(tile=32, halo=0))
    found = np.stack(list(up.frames(clip, first=1, end=4)))
    expected = (np.stack(clip[1:4]).astype(np.float64) + np.stack(clip[2:5])) / 2
    assert np.abs(found - expected).max() <= 1  # rounding at 16 bits


def test_a_window_for_frames_around_a_gap_is_refused() -> None:
    with pytest.raises(UsageError, match="window=6"):
        ClipUpscaler(middle(), UpscaleOptions(window=6))


def test_published_cutting_is_used_on_request_only() -> None:
    def halves(clip: Tensor, run: Any) -> Iterator[Tensor]:
        for part in (clip[:, :2], clip[:, 2:]):
            yield from run(part).unbind(1)

    clip = moving(4, (16, 20))
    model, network = window_mean(Window(frames=8, overlap=2), score_scheme=halves)
    made(model, clip, WHOLE)
    assert network.lengths == [4]
    found = made(model, clip, UpscaleOptions(as_published=True))
    assert network.lengths == [4, 2, 2]
    expected = blended(as_tensor(clip), [range(2), range(2, 4)]).permute(0, 2, 3, 1).numpy()
    assert np.abs(found / 65535 - expected).max() <= 1 / 65535
    with pytest.raises(UsageError, match="whole clips"):
        ClipUpscaler(echo(), UpscaleOptions(as_published=True))
