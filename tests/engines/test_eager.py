"""The torch engine on video networks: shapes, preparation on whole frames, streaming, memory. Photos: test_upscale."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from upframe.engines import MIN_PREPARE_PX, TorchEngine, TorchOptions
from upframe.errors import OutOfMemoryError
from upframe.models.architectures.realbasicvsr import RealBasicVSR
from upframe.models.families.realbasicvsr import realbasicvsr_spec_for
from upframe.models.interfaces import Cleaned, Keep
from upframe.models.registry import Model
from upframe.models.spec import Cleaning, ModelSpec, SizeRule, Window


class Recursive(nn.Module):
    """A toy for clips: each frame plus half of the next one's result, pixels doubled. `prepare` adds the clip's mean."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes: list[tuple[int, ...]] = []
        self.fits_px = 1 << 30

    def forward(self, clip: Tensor, *, prepared: bool = False) -> Tensor:
        return torch.stack(list(self.stream(clip if prepared else self.prepare(clip).clip)), dim=1)

    def stream(self, clip: Tensor, *, keep: Keep = "full") -> Iterator[Tensor]:
        self.sizes.append(tuple(clip.shape))
        results = [clip[:, -1]]
        for i in reversed(range(clip.shape[1] - 1)):
            results.append(clip[:, i] + results[-1] / 2)
        for frame in reversed(results):
            yield F.interpolate(frame, scale_factor=2, mode="nearest")

    def prepare(self, clip: Tensor, options: Cleaning | None = None, *, max_px: int | None = None) -> Cleaned:
        h, w = clip.shape[-2:]
        if min(max_px or h * w, h * w) > self.fits_px:
            raise RuntimeError("[enforce fail] not enough memory: you tried to allocate 12345 bytes")
        return Cleaned(clip + clip.mean() * (options or Cleaning()).strength, 1, (float(clip.mean()),))


def toy(**facts: Any) -> tuple[TorchEngine, Recursive]:
    network = Recursive()
    given: dict[str, Any] = {"window": Window(None, 2), "preparation": Cleaning(), "streams": True, **facts}
    spec = ModelSpec(
        name="toy", family="toy", build=Recursive, scale=2, halo_px=0, exact_halo_px=0, tiling="exact", paper="", licence="",
        **given,
    )  # fmt: skip
    return TorchEngine(Model(spec, network, None, "toy", ""), TorchOptions(device="cpu")), network


def test_a_network_for_clips_gets_the_time_axis_and_frame_wise_ones_a_batch() -> None:
    clip = torch.rand(2, 3, 3, 5, 4)
    engine, network = toy()
    assert engine(clip).shape == (2, 3, 3, 10, 8)
    assert network.sizes == [(2, 3, 3, 5, 4)]


def test_clips_are_padded_by_mirroring_to_a_size_the_network_accepts() -> None:
    clip = torch.rand(1, 3, 3, 5, 9)
    engine, network = toy(size=SizeRule(minimum=8, multiple=4))
    plain, _ = toy()
    assert torch.equal(engine(clip, prepared=True), plain(clip, prepared=True))
    assert torch.equal(torch.stack(list(engine.stream(clip)), 1), plain(clip, prepared=True))
    assert network.sizes == [(1, 3, 3, 8, 12)] * 2


def test_tiles_of_a_prepared_clip_make_what_the_whole_makes() -> None:
    """The mean that `prepare` adds is that of the whole clip, which no tile could know."""
    clip = torch.rand(1, 4, 3, 6, 8)
    before = clip.clone()
    engine, _ = toy()
    prepared = engine.prepare(clip).clip
    left, right = engine(prepared[..., :3], prepared=True), engine(prepared[..., 3:], prepared=True)
    assert torch.equal(torch.cat([left, right], dim=-1), engine(clip))
    assert not torch.equal(torch.cat([engine(clip[..., :3]), engine(clip[..., 3:])], dim=-1), engine(clip))
    assert torch.equal(clip, before)


def test_options_reach_the_preparation() -> None:
    clip = torch.rand(1, 2, 3, 4, 4)
    engine, _ = toy()
    assert torch.equal(engine.prepare(clip, Cleaning(strength=0)).clip, clip)
    assert not torch.equal(engine.prepare(clip).clip, clip)


def test_a_network_without_preparation_is_given_the_clip_as_it_is() -> None:
    clip = torch.rand(1, 2, 3, 4, 4)
    engine, _ = toy(preparation=None)
    done = engine.prepare(clip)
    assert done.clip is clip
    assert (done.passes, done.residues) == (0, ())


def test_preparation_goes_on_in_smaller_parts_when_memory_runs_out() -> None:
    clip = torch.rand(1, 1, 3, 256, 256)
    engine, network = toy()
    expected = engine.prepare(clip)
    network.fits_px = MIN_PREPARE_PX
    again = engine.prepare(clip)
    assert torch.equal(again.clip, expected.clip)
    network.fits_px = MIN_PREPARE_PX - 1
    with pytest.raises(OutOfMemoryError):
        engine.prepare(clip)


@pytest.mark.parametrize("facts", [{}, {"streams": False, "preparation": None}], ids=["streaming", "not streaming"])
def test_streamed_frames_are_those_of_the_whole(facts: dict[str, Any]) -> None:
    clip = torch.rand(2, 4, 3, 6, 8)
    engine, _ = toy(**facts)
    prepared = engine.prepare(clip).clip
    assert torch.equal(torch.stack(list(engine.stream(prepared)), dim=1), engine(prepared, prepared=True))


def test_streaming_leaves_the_callers_gradient_mode_alone() -> None:
    engine, _ = toy()
    for _ in engine.stream(torch.rand(1, 3, 3, 4, 4)):
        assert torch.is_grad_enabled()
        assert not torch.is_inference_mode_enabled()


def test_memory_that_runs_out_between_frames_is_named() -> None:
    class Failing(Recursive):
        def stream(self, clip: Tensor, *, keep: Keep = "full") -> Iterator[Tensor]:
            yield clip[:, 0]
            raise MemoryError

    engine, _ = toy()
    engine._network = Failing()
    frames = engine.stream(torch.rand(1, 2, 3, 4, 4))
    next(frames)
    with pytest.raises(OutOfMemoryError):
        next(frames)


@pytest.mark.slow
@pytest.mark.parametrize("keep", ["full", "half", "recompute"])
def test_realbasicvsr_runs_prepared_in_parts_and_whole(keep: Keep) -> None:
    torch.manual_seed(0)
    parameters = {"channels": 6, "propagation_blocks": 1, "cleaning_blocks": 1}
    network = RealBasicVSR(**parameters).eval().requires_grad_(False)
    engine = TorchEngine(Model(realbasicvsr_spec_for(**parameters), network, None, "", ""), TorchOptions(device="cpu"))
    clip = torch.rand(1, 5, 3, 9, 8)
    prepared = engine.prepare(clip, Cleaning(threshold=0, max_passes=2))
    assert prepared.passes == 2
    with torch.inference_mode():
        expected = network(prepared.clip, prepared=True)
    streamed = torch.stack(list(engine.stream(prepared.clip, keep=keep)), dim=1)
    tolerance = 1 / 2 / 255 if keep == "half" else 0  # half a code value
    torch.testing.assert_close(streamed, expected, atol=tolerance, rtol=0)
    assert torch.equal(engine(clip), engine(engine.prepare(clip).clip, prepared=True))


class Weighing(Recursive):
    """With a weight, so that it has a precision."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1), requires_grad=False)

    def stream(self, clip: Tensor, *, keep: Keep = "full") -> Iterator[Tensor]:
        assert (clip.dtype, self.weight.dtype) == (torch.float32, torch.bfloat16)
        return super().stream(clip, keep=keep)


def test_in_half_precision_networks_for_clips_are_given_float32() -> None:
    """1/3 is not rounded on its way through."""
    engine, _ = toy(precisions=("fp32", "bf16"))
    model = Model(engine.spec, Weighing(), None, "toy", "")
    reduced = TorchEngine(model, TorchOptions(device="cpu", precision="bf16"))
    clip = torch.full((1, 1, 3, 2, 2), 1 / 3)
    prepared = reduced.prepare(clip).clip
    assert torch.equal(prepared, clip + clip.mean())
    assert torch.equal(reduced(prepared, prepared=True), torch.full((1, 1, 3, 4, 4), float(prepared[0, 0, 0, 0, 0])))
    assert torch.equal(next(reduced.stream(prepared))[None], reduced(prepared, prepared=True))
