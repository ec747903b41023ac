"""VSR-Transformer against the reference tensors, its windows at other sizes, and the promises of memory and precision."""

from __future__ import annotations

import json
import math
from collections import defaultdict
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from conftest import make_photo
from upframe.errors import ModelError
from upframe.models import checkpoints
from upframe.models.architectures import vsr_transformer
from upframe.models.architectures._position_code import PositionEncoding
from upframe.models.architectures._window_blend import Windows, windows_along
from upframe.models.architectures.vsr_transformer import Attention, FeedForward, Flows, PlainBlock, VSRTransformer, WindowNorm
from upframe.models.families import vsr_transformer as vsr_transformer_family
from upframe.pixels import to_unit

DTYPES = [torch.float32, torch.float64]
SMALL = ["vsrt_small_5f", "vsrt_small_7f", "vsrt_small_heads2_patch16_b2", "vsrt_small_patch4"]
FULL = "vsrt_reds_full_config"
PARTS = ["boff", "flow_wrapper", "positional_encoding", "stcsa_heads1", "stcsa_heads4"]
OVERLAP = vsr_transformer_family.OVERLAP_PX


def test_every_reference_fixture_is_listed_here(shared: Path) -> None:
    present = {path.stem for path in (shared / "golden" / "vsrt").glob("*.json")}
    assert present == {*SMALL, FULL, *PARTS, "vsrt_grad"}


def shapes_of(state: dict[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(value.shape) for name, value in state.items()}


def loaded(fixture: Any, dtype: torch.dtype) -> VSRTransformer:
    """The network of a fixture, as found from the shapes of its weights."""
    given = fixture.meta["ctor_args"]
    weights = vsr_transformer_family.complete(fixture.weights())
    if given["num_frame"] == 7:  # with one layer, unlike the published ones, and its buffer is not among the weights
        weights["pos_embedding.penc.inv_freq"] = torch.tensor([1.0, 0.01])
    found = vsr_transformer_family.configuration(shapes_of(weights))
    network = VSRTransformer(**(found | {"frames": given["num_frame"]}), heads=given["heads"], patch_px=given["patch_size"])
    network.load_state_dict(weights)
    return network.to(dtype).eval()


def record_outputs(network: nn.Module) -> dict[str, list[Any]]:
    """Filled while `network` runs: the outputs of each submodule's calls, before any in-place activation."""
    seen: dict[str, list[Any]] = defaultdict(list)

    def keep(name: str, module: nn.Module, given: object, result: Any) -> None:
        seen[name].append(result.clone() if isinstance(result, Tensor) else result)

    for name, module in network.named_modules():
        module.register_forward_hook(partial(keep, name))
    return seen


def check_recorded(fixture: Any, seen: dict[str, list[Any]]) -> set[str]:
    """Compare what was recorded, and return the names of what was compared.

    A module may take its frames in several calls. Frames of a batch are an axis of their own in some reference tensors.
    """
    compared = set()
    for key in fixture.names("mid."):
        name = key.removeprefix("mid.").removesuffix("#0")
        if name in seen and all(isinstance(result, Tensor) for result in seen[name]):
            fixture.check(key, torch.cat(seen[name]).view(fixture.meta["tensors"][key]["shape"]))
            compared.add(name)
    return compared


# The reference --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("name", "dtype"),
    # The published size in float64 passes as well (its error is a hundredth of the tolerance), but takes minutes.
    [*((name, dtype) for name in SMALL for dtype in DTYPES), (FULL, torch.float32)],
)
def test_network_equals_the_reference(golden: ModuleType, name: str, dtype: torch.dtype) -> None:
    fixture = golden.Golden(f"vsrt/{name}")
    network, clip = loaded(fixture, dtype), fixture.input("lr", dtype)
    before, seen = clip.clone(), record_outputs(network)
    with torch.inference_mode():
        fixture.check("out.sr", network(clip))
    layer = "transformer.layers.0"
    assert check_recorded(fixture, seen) == {
        *("feature_extraction", "reconstruction"),
        *(f"{layer}.0{part}" for part in ("", ".fn.norm", ".fn.fn", ".fn.fn.to_q")),
        *(f"{layer}.1{part}" for part in ("", ".fn.fn", ".fn.fn.backward_resblocks", ".fn.fn.forward_resblocks")),
    }
    forward, backward = seen["spynet"][0]
    fixture.check("mid.spynet#0.0", forward)
    fixture.check("mid.spynet#0.1", backward)
    assert torch.equal(clip, before)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("heads", [1, 4])
def test_attention_equals_the_reference(golden: ModuleType, heads: int, dtype: torch.dtype) -> None:
    fixture = golden.Golden(f"vsrt/stcsa_heads{heads}")
    attention = Attention(8, patch_px=8, heads=heads)
    attention.load_state_dict(fixture.weights())
    x = fixture.input("x", dtype)
    seen = record_outputs(attention)
    with torch.inference_mode():
        y = attention.to(dtype)(x.flatten(0, 1), 5, Windows((64, 64), 64, 0))
    fixture.check("out.y", y.view(x.shape))
    assert check_recorded(fixture, seen) == {"to_q", "to_k", "to_v", "conv"}


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_feed_forward_equals_the_reference(golden: ModuleType, dtype: torch.dtype) -> None:
    fixture = golden.Golden("vsrt/boff")
    feed_forward = FeedForward(8, 30, slope=0.1)
    feed_forward.load_state_dict(fixture.weights())
    x, frames, *flows = (fixture.input(name, dtype) for name in ("x", "lrs", "flow_forward", "flow_backward"))
    seen = record_outputs(feed_forward)
    with torch.inference_mode():
        y = feed_forward.to(dtype)(x.flatten(0, 1), frames.flatten(0, 1), tuple(flow.flatten(0, 1) for flow in flows), 5)
    fixture.check("out.y", y.view(x.shape))
    assert check_recorded(fixture, seen) == {"backward_resblocks", "forward_resblocks", "fusion"}


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_flows_equal_the_reference(golden: ModuleType, dtype: torch.dtype) -> None:
    fixture = golden.Golden("vsrt/flow_wrapper")
    flows = Flows()
    flows.load_state_dict(flows.state_dict() | fixture.weights())
    with torch.inference_mode():
        forward, backward = flows.to(dtype)(fixture.input("lr", dtype))
    fixture.check("out.flows_forward", forward)
    fixture.check("out.flows_backward", backward)


def whole_code(encoding: PositionEncoding, t: int, channels: int, size: tuple[int, int], side: int = 64) -> Tensor:
    """(T, C, H, W) in float64."""
    summands = encoding(t, channels, Windows(size, side, min(OVERLAP, side - 1)), torch.float64, torch.device("cpu"))
    return sum(summands, torch.zeros(t, channels, *size, dtype=torch.float64))


@pytest.mark.parametrize("t", [3, 4, 5, 6, 7, 9, 10])
def test_position_code_equals_the_reference(golden: ModuleType, t: int) -> None:
    fixture = golden.Golden("vsrt/positional_encoding")
    code = whole_code(PositionEncoding(frames=t, variant="code"), t, 6, (11, 11), side=11)
    fixture.check(f"out.frames{t}", code[None, :, :, :9].float())


def test_gradients_equal_the_reference(golden: ModuleType) -> None:
    fixture, base = golden.Golden("vsrt/vsrt_grad"), golden.Golden("vsrt/vsrt_small_5f")
    network = loaded(base, torch.float64)
    loss = (network(base.input("lr", torch.float64)) - 0.5).square().add(1e-6).sqrt().mean()
    loss.backward()
    fixture.check("out.loss", loss.view(1))
    parameters = dict(network.named_parameters())
    for key in fixture.names("out.grad."):
        gradient = parameters[key.removeprefix("out.grad.")].grad
        assert gradient is not None
        fixture.check(key, gradient)
    assert fixture.meta["parameters_without_gradient"] == []
    assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in parameters.values())


@pytest.mark.parametrize("spec", vsr_transformer_family.SPECS, ids=lambda spec: spec.name)
def test_parameters_have_the_published_names_shapes_and_order(shared: Path, golden: ModuleType, spec: Any) -> None:
    published = json.loads((shared / "golden" / "state_dicts" / f"{spec.name.replace('-', '_')}.json").read_text())
    expected = published["parameters"] | {key: entry["shape"] for key, entry in published["buffers"].items()}
    with torch.device("meta"):
        network = spec.build()
    assert {key: list(value.shape) for key, value in network.state_dict().items()} == expected
    assert list(dict(network.named_parameters())) == list(published["parameters"])
    assert sum(parameter.numel() for parameter in network.parameters()) == published["param_count"]


def test_order_of_parameters_and_buffers_is_the_published_one(golden: ModuleType) -> None:
    fixture = golden.Golden("vsrt/vsrt_small_5f")
    assert list(loaded(fixture, torch.float32).state_dict()) == [entry["name"] for entry in fixture.entries]


# Position -------------------------------------------------------------------------------------------------------------
def test_position_code_of_the_paper_is_its_formula() -> None:
    """Thirds of the channels for frame, row and column; sine and cosine alternate; 1 / 10000^(2k / (d / 3))."""
    t, channels, size = 4, 18, (64, 64)
    code = whole_code(PositionEncoding(frames=5, variant="paper"), t, channels, size)
    for c in range(channels):
        axis, k = divmod(c, 6)
        wave = math.cos if k % 2 else math.sin
        for place in ((0, 0, 0), (3, 7, 50), (2, 63, 1)):
            angle = place[axis] / 10000 ** (2 * (k // 2) / 6)
            frame, row, column = place
            assert float(code[frame, c, row, column]) == pytest.approx(wave(angle), abs=1e-12)


@pytest.mark.slow
def test_the_variant_of_the_position_code_changes_the_result_but_no_parameter() -> None:
    torch.manual_seed(0)
    code = small(position="code")
    paper = small(position="paper")
    paper.load_state_dict(code.state_dict(), strict=True)
    clip = torch.rand(1, 3, 3, 64, 64)
    assert not torch.equal(code(clip), paper(clip))


@pytest.mark.parametrize(("variant", "axis"), [("code", 0), ("paper", 1)])
def test_short_waves_run_through_the_frame_and_long_ones_start_anew(variant: Any, axis: int) -> None:
    """Short: at most a window. Both equal the trained code in the first window, and the long ones in the last as well."""
    encoding = PositionEncoding(frames=12, variant=variant)
    one, wide = (whole_code(encoding, 12, 12, (64, width)) for width in (64, 112))  # 4 sines an axis: 1 and 0.01
    columns = range(8, 12)  # the last third of the frames or channels
    short, long = ([8, 10], [9, 11]) if variant == "code" else ([8, 9], [10, 11])
    assert {*short, *long} == {*columns}
    for i in columns:
        trained, made = one.select(axis, i), wide.select(axis, i)
        torch.testing.assert_close(made[..., :48], trained[..., :48])
        if i in long:
            torch.testing.assert_close(made[..., 64:], trained[..., 16:])
        else:
            wave = torch.sin if i == short[0] else torch.cos
            torch.testing.assert_close(made, wave(torch.arange(112, dtype=torch.float64)).expand_as(made))


def test_frames_beyond_the_trained_number_take_the_codes_of_the_first_ones_again() -> None:
    encoding = PositionEncoding(frames=5, variant="code")
    code = whole_code(encoding, 14, 4, (64, 64))
    torch.testing.assert_close(code[6:12], code[:6])
    torch.testing.assert_close(code[:5], whole_code(encoding, 5, 4, (64, 64)))


# Any clip -------------------------------------------------------------------------------------------------------------
def small(seed: int = 0, **arguments: Any) -> VSRTransformer:
    """A small network with fresh weights, apart from the norms, which differ from place to place."""
    torch.manual_seed(seed)
    sizes = {"channels": 8, "depth": 2, "extract_blocks": 1, "reconstruct_blocks": 1, "feed_forward_blocks": 1}
    network = VSRTransformer(**(sizes | arguments)).eval().requires_grad_(False)
    for module in network.modules():
        if isinstance(module, WindowNorm):
            nn.init.normal_(module.weight, mean=1, std=0.1)
            nn.init.normal_(module.bias, std=0.1)
    return network


@pytest.mark.slow
@pytest.mark.parametrize(("size", "frames"), [((1, 1), 2), ((9, 2), 1), ((33, 65), 2), ((64, 64), 1), ((70, 113), 2)])
def test_any_size_and_number_of_frames_is_accepted(size: tuple[int, int], frames: int) -> None:
    with torch.inference_mode():
        result = small()(torch.rand(1, frames, 3, *size))
    assert result.shape == (1, frames, 3, 4 * size[0], 4 * size[1])
    assert torch.isfinite(result).all()


@pytest.mark.slow
def test_more_frames_than_trained_are_accepted() -> None:
    with torch.inference_mode():
        assert torch.isfinite(small()(torch.rand(1, 9, 3, 64, 64))).all()


@pytest.mark.slow
def test_clips_of_a_batch_do_not_mix() -> None:
    network, clips = small(), torch.rand(2, 2, 3, 66, 64)
    with torch.inference_mode():
        alone = torch.cat([network(clip[None]) for clip in clips])
        torch.testing.assert_close(network(clips), alone, atol=1e-5, rtol=0)  # rounding


@pytest.mark.slow
@pytest.mark.parametrize("limit", ["FEATURE_PX", "FLOW_PX", "RECONSTRUCTION_PX"])
@pytest.mark.parametrize("gradients", [False, True])
def test_parts_change_nothing_but_rounding(monkeypatch: pytest.MonkeyPatch, limit: str, gradients: bool) -> None:
    network, clip = small(depth=1), torch.rand(1, 3, 3, 64, 64)
    with torch.inference_mode():
        expected = network(clip)
    monkeypatch.setattr(vsr_transformer, limit, 20 * 64 if limit == "RECONSTRUCTION_PX" else 2 * 64 * 64)
    with torch.set_grad_enabled(gradients):
        torch.testing.assert_close(network(clip), expected, atol=1e-5, rtol=0)  # rounding


@pytest.mark.slow
def test_the_callers_clip_is_never_written_to() -> None:
    network, clip = small(), torch.rand(1, 2, 3, 64, 80)
    before = clip.clone()
    with torch.inference_mode():
        network(clip)
    assert torch.equal(clip, before)


@pytest.mark.slow
def test_a_network_made_without_memory_gives_the_same() -> None:
    """Nothing is kept from construction but parameters and buffers."""
    network, clip = small(), torch.rand(1, 2, 3, 64, 64)
    with torch.device("meta"):
        empty = small()
    empty.load_state_dict(network.state_dict(), strict=True, assign=True)
    with torch.inference_mode():
        assert torch.equal(empty(clip), network(clip))


@pytest.mark.parametrize("wrong", [{"heads": 3}, {"patch_px": 24}])
def test_arguments_that_do_not_divide_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="must divide"):
        small(**wrong)


@pytest.mark.parametrize("window_px", [8, OVERLAP])
def test_windows_that_are_all_overlap_are_refused(window_px: int) -> None:
    with pytest.raises(ValueError, match=f"window_px is {window_px}; windows overlap by {OVERLAP} px"):
        small(window_px=window_px)
    with pytest.raises(ValueError, match="cannot overlap"):
        Windows((40, 40), window_px, OVERLAP)


def test_the_smallest_windows_that_are_accepted_work() -> None:
    network = small(window_px=24, depth=1)
    with torch.inference_mode():
        assert network(torch.rand(1, 2, 3, 30, 24)).isfinite().all()


def test_a_frame_smaller_than_a_window_is_refused() -> None:
    with pytest.raises(ValueError, match="40x30 is smaller than a window of 32 px"):
        Windows((30, 40), 32, OVERLAP)


# Windows --------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("overlap", [0, 8, 16, 32])
@pytest.mark.parametrize("length", [64, 65, 100, 112, 160, 161, 320])
def test_windows_cover_an_axis_and_weigh_one(length: int, overlap: int) -> None:
    axis = windows_along(length, 64, overlap)
    total = torch.zeros(length, dtype=torch.float64)
    for start, weight in zip(axis.starts, axis.weights, strict=True):
        assert float(weight.min()) > 0
        total[start : start + 64] += weight
    torch.testing.assert_close(total, torch.ones_like(total))
    steps = {b - a for a, b in zip(axis.starts, axis.starts[1:], strict=False)}
    assert axis.starts[0] == 0 and axis.starts[-1] == length - 64
    assert all(step <= 64 - overlap for step in steps)


def blended(size: tuple[int, int], side: int, results: dict[tuple[int, int], Tensor]) -> Tensor:
    """Straightforward: results (B, C, side, side) by window, each weighted by its distance from the edges that others
    overlap, divided by the sum of the weights."""
    rows, columns = (windows_along(length, side, OVERLAP).starts for length in size)

    def weight(starts: tuple[int, ...], index: int) -> Tensor:
        ramp = torch.ones(side, dtype=torch.float64)
        for i in range(side):
            if index > 0:
                ramp[i] = min(ramp[i], (i + 0.5) / (starts[index - 1] + side - starts[index]))
            if index + 1 < len(starts):
                ramp[i] = min(ramp[i], (side - i - 0.5) / (starts[index] + side - starts[index + 1]))
        return ramp

    like = next(iter(results.values()))
    total, weights = like.new_zeros(*like.shape[:2], *size), torch.zeros(size, dtype=torch.float64)
    for y, row in enumerate(rows):
        for x, column in enumerate(columns):
            both = torch.outer(weight(rows, y), weight(columns, x))
            total[..., row : row + side, column : column + side] += both * results[row, column]
            weights[row : row + side, column : column + side] += both
    return total / weights


SIZE = (70, 113)  # two and three windows, the last of each flush with the edge


def windows_of(size: tuple[int, int]) -> list[tuple[int, int]]:
    rows, columns = (windows_along(length, 64, OVERLAP).starts for length in size)
    return [(row, column) for row in rows for column in columns]


@pytest.mark.parametrize("heads", [1, 2])
def test_attention_at_another_size_is_the_straightforward_one_blended(heads: int) -> None:
    torch.manual_seed(0)
    t, n, c, p = 2, 2, 4, 8
    attention = Attention(c, patch_px=p, heads=heads).double().requires_grad_(False)
    x = torch.randn(n * t, c, *SIZE, dtype=torch.float64)
    q, k, v = (conv(x) for conv in (attention.to_q, attention.to_k, attention.to_v))

    def tokens(values: Tensor) -> Tensor:
        """(n, heads, tokens, features), each of a patch's values channel by channel."""
        patches = F.unfold(values, p, stride=p).view(n, t, heads, c * p * p // heads, 64)
        return patches.permute(0, 2, 1, 4, 3).flatten(2, 3)

    results = {}
    for row, column in windows_of(SIZE):
        cut = (..., slice(row, row + 64), slice(column, column + 64))
        scores = tokens(q[cut]) @ tokens(k[cut]).transpose(-1, -2) / math.sqrt(c * p * p / heads)
        mixed = (scores.softmax(-1) @ tokens(v[cut])).unflatten(2, (t, 64))
        patches = mixed.permute(0, 2, 1, 4, 3).reshape(n * t, c * p * p, 64)
        results[row, column] = F.fold(patches, (64, 64), p, stride=p)
    expected = attention.conv(blended(SIZE, 64, results)) + x
    torch.testing.assert_close(attention(x, t, Windows(SIZE, 64, OVERLAP)), expected, atol=1e-12, rtol=0)


def test_norm_at_another_size_is_that_of_each_window_blended() -> None:
    torch.manual_seed(0)
    norm = WindowNorm(4, 64).double().requires_grad_(False)
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    x = torch.randn(2, 4, *SIZE, dtype=torch.float64)
    results = {}
    for row, column in windows_of(SIZE):
        window = x[..., row : row + 64, column : column + 64]
        mean, variance = (f(window, dim=(1, 2, 3), keepdim=True) for f in (torch.mean, partial(torch.var, correction=0)))
        results[row, column] = (window - mean) / (variance + 1e-5).sqrt() * norm.weight + norm.bias
    actual = norm(x, Windows(SIZE, 64, OVERLAP))
    torch.testing.assert_close(actual, blended(SIZE, 64, results), atol=1e-12, rtol=0)


def test_what_windows_make_of_a_slope_has_no_seams() -> None:
    """Each window pulls its own part of a slope to mean 0; side by side they would jump by 2.6 where they meet."""
    norm = WindowNorm(1, 64).requires_grad_(False)
    x = torch.linspace(0, 1, 112).expand(1, 1, 64, 112)
    steps = norm(x, Windows((64, 112), 64, OVERLAP))[0, 0, 0].diff()
    own = float(steps[:40].mean())  # of a window by itself
    jump = 48 * own  # between what two windows make of the same pixel
    assert float(steps.abs().max()) < own + 1.01 * jump / OVERLAP


@pytest.mark.slow
def test_small_frames_are_those_of_a_mirrored_one() -> None:
    network, clip = small(), torch.rand(1, 2, 3, 40, 70)
    rows = [*range(40), *range(38, 14, -1)]
    with torch.inference_mode():
        assert torch.equal(network(clip), network(clip[..., rows, :])[..., :160, :])


@pytest.mark.slow
def test_attention_never_sees_more_than_a_window(monkeypatch: pytest.MonkeyPatch) -> None:
    """So its memory does not grow with the square of the frame."""
    seen = set()
    attend = F.scaled_dot_product_attention

    def record(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        seen.add(tuple(q.shape))
        return attend(q, k, v)

    monkeypatch.setattr(F, "scaled_dot_product_attention", record)
    with torch.inference_mode():
        small()(torch.rand(1, 2, 3, 64, 150))
    assert seen == {(1, 1, 2 * 64, 8 * 64)}


# Training and precision -----------------------------------------------------------------------------------------------
@pytest.mark.slow
@pytest.mark.parametrize("size", [(64, 64), (64, 80)])
def test_checkpointing_changes_no_gradient(size: tuple[int, int]) -> None:
    network, clip = small().requires_grad_(True).train(), torch.rand(1, 2, 3, *size)
    gradients = []
    for again in (False, True):
        network.checkpoint_activations(attention=again, feed_forward=again)
        network.zero_grad()
        network(clip).square().mean().backward()
        gradients.append({name: parameter.grad for name, parameter in network.named_parameters()})
    for name, gradient in gradients[0].items():
        assert gradient is not None and gradient.isfinite().all() and gradient.abs().max() > 0, name
        torch.testing.assert_close(gradients[1][name], gradient, atol=1e-6, rtol=1e-4)  # rounding


@pytest.mark.slow
def test_a_training_step_lowers_the_loss() -> None:
    network, clip = small().requires_grad_(True).train(), torch.rand(1, 2, 3, 64, 64)
    optimiser = torch.optim.SGD(network.parameters(), lr=1e-3)
    losses = []
    for _ in range(2):
        loss = (network(clip) - 0.5).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert losses[1] < losses[0]


@pytest.mark.slow
def test_bfloat16_keeps_flow_in_float32_and_stays_close() -> None:
    network = small()
    clip = to_unit(make_photo(64, 80)).unsqueeze(0).expand(1, 2, 3, 64, 80)
    with torch.inference_mode():
        expected = network(clip)
        half = network.to(torch.bfloat16)
        made = half(clip.to(torch.bfloat16))
        assert [flow.dtype for flow in half.spynet(clip.to(torch.bfloat16))] == [torch.float32] * 2
    assert made.dtype == torch.bfloat16
    error = (made.float() - expected).square().mean().sqrt()
    assert error < 0.01 * expected.std()  # bfloat16 has 8 bits


# Ablations (VT-16) ----------------------------------------------------------------------------------------------------
ABLATIONS: list[tuple[dict[str, Any], str]] = [
    ({"attention": False}, "vsrt-c8d2f5-blocks-x4"),
    ({"flow": False}, "vsrt-c8d2f5-noflow-x4"),
    ({"directions": "backward"}, "vsrt-c8d2f5-backward-x4"),
    ({"directions": "forward", "flow": False}, "vsrt-c8d2f5-forward-noflow-x4"),
    ({"attention": False, "directions": "none"}, "vsrt-c8d2f5-blocks-none-x4"),
]


@pytest.mark.parametrize(("ablations", "name"), ABLATIONS, ids=str)
def test_ablations_are_found_in_the_shapes(ablations: dict[str, Any], name: str) -> None:
    state = small(**ablations).state_dict()
    found = vsr_transformer_family.configuration(shapes_of(state))
    assert {key: found[key] for key in found if key in ("attention", "directions", "flow")} == ablations
    spec = vsr_transformer_family.spec_for(**found)
    assert spec.name == name
    recognised = checkpoints.recognise(vsr_transformer_family.complete(state))
    assert (recognised.spec.name, recognised.parameters) == (name, found)


@pytest.mark.parametrize(("ablations", "name"), ABLATIONS, ids=str)
def test_no_ablation_has_parameters_that_do_nothing(ablations: dict[str, Any], name: str) -> None:
    network = small(depth=1, window_px=24, **ablations).requires_grad_(True)
    network(torch.rand(1, 3, 3, 24, 24)).square().mean().backward()
    without = [key for key, parameter in network.named_parameters() if parameter.grad is None]
    assert not without
    has_flow = any(key.startswith("spynet.") for key in network.state_dict())
    assert has_flow == (ablations.get("flow", True) and ablations.get("directions") != "none")


def test_weights_that_lack_their_flow_network_are_no_network_without_flow() -> None:
    state = small().state_dict()
    stripped = {name: value for name, value in state.items() if not name.startswith("spynet.")}
    assert "flow" not in vsr_transformer_family.configuration(shapes_of(stripped))
    with pytest.raises(ModelError, match="spynet"):
        checkpoints.recognise(stripped)


@pytest.mark.parametrize(
    ("directions", "changed"),
    [("both", {1, 2, 3}), ("backward", {1, 2}), ("forward", {2, 3}), ("none", {2})],
)
@pytest.mark.parametrize("flow", [False, True])
def test_a_feed_forward_sees_the_frames_it_is_to_see(directions: Any, changed: set[int], flow: bool) -> None:
    """A change of the third of five frames changes these: input and features, of which neighbours see the features."""
    torch.manual_seed(0)
    feed_forward = FeedForward(4, 1, slope=0.1, directions=directions, flow=flow).requires_grad_(False)
    x, frames = torch.randn(5, 4, 9, 8), torch.rand(5, 3, 9, 8)
    flows = (torch.rand(5, 2, 9, 8), torch.rand(5, 2, 9, 8)) if flow else None
    before = feed_forward(x, frames, flows, 5)
    x[2] += 1
    frames[2] += 1
    after = feed_forward(x, frames, flows, 5)
    assert {i for i in range(5) if not torch.equal(before[i], after[i])} == changed


def test_without_flow_features_are_taken_from_where_they_lie() -> None:
    """As if nothing had moved."""
    torch.manual_seed(0)
    moving, still = FeedForward(4, 1, slope=0.1).double(), FeedForward(4, 1, slope=0.1, flow=False).double()
    renamed = {name.removeprefix("unwarped_"): name for name in still.state_dict()}
    still.load_state_dict({renamed[name]: value for name, value in moving.state_dict().items()}, strict=True)
    x, frames = torch.randn(6, 4, 9, 8, dtype=torch.float64), torch.rand(6, 3, 9, 8, dtype=torch.float64)
    zero = torch.zeros(6, 2, 9, 8, dtype=torch.float64)
    torch.testing.assert_close(still(x, frames, None, 3), moving(x, frames, (zero, zero), 3), atol=1e-12, rtol=0)


def test_without_attention_and_feed_forward_every_frame_is_by_itself() -> None:
    network, clip = small(depth=1, window_px=24, attention=False, directions="none"), torch.rand(1, 3, 3, 24, 30)
    changed = clip.clone()
    changed[:, 1] = 0.5
    with torch.inference_mode():
        same = (network(clip) == network(changed)).flatten(2).all(-1)
    assert same.tolist() == [[True, False, True]]


def test_what_stands_in_for_attention_is_of_nearly_the_same_size() -> None:
    sizes = [sum(p.numel() for p in part.parameters()) for part in (PlainBlock(64), Attention(64, patch_px=8, heads=1))]
    assert sizes == [73_856, 75_136]


def test_without_a_position_code_nothing_is_added() -> None:
    code = small(position="code", depth=1, window_px=24)
    none = small(position="none", depth=1, window_px=24)
    none.load_state_dict(code.state_dict(), strict=True)
    assert whole_code(PositionEncoding(frames=5, variant="none"), 3, 4, (64, 80)).count_nonzero() == 0
    clip = torch.rand(1, 2, 3, 24, 24)
    with torch.inference_mode():
        assert not torch.equal(none(clip), code(clip))


@pytest.mark.parametrize("wrong", [{"directions": "sideways"}, {"position": "sines"}])
def test_unknown_choices_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"sideways|sines"):
        small(**wrong)


def test_tiles_begin_where_a_window_of_their_own_size_does() -> None:
    """A network with other windows has another grid."""
    arguments = {"extract_blocks": 1, "reconstruct_blocks": 1, "feed_forward_blocks": 1}
    spec = vsr_transformer_family.spec_for(channels=8, frames=5, depth=1, window_px=40, **arguments)
    assert (spec.phase_px, spec.halo_px) == (24, 24)
    assert (vsr_transformer_family.REDS.phase_px, vsr_transformer_family.REDS.halo_px) == (48, 48)


# Weights and claims of the specs --------------------------------------------------------------------------------------
def test_arguments_are_found_in_the_shapes() -> None:
    arguments = {
        "channels": 8,
        "frames": 11,
        "depth": 3,
        "window_px": 32,
        "extract_blocks": 1,
        "reconstruct_blocks": 4,
        "feed_forward_blocks": 2,
    }
    with torch.device("meta"):
        state = VSRTransformer(**arguments).state_dict()
        found = vsr_transformer_family.configuration(shapes_of(state))
        assert vsr_transformer_family.spec_for(**found).build().state_dict().keys() == state.keys()
    assert found == arguments


@pytest.mark.slow
@pytest.mark.parametrize("spec", vsr_transformer_family.SPECS, ids=lambda spec: spec.name)
def test_a_published_file_is_recognised_without_its_constants(spec: Any) -> None:
    with torch.device("meta"):
        state = spec.build().state_dict()
    constants = ("spynet.spynet.mean", "spynet.spynet.std", "pos_embedding.penc.inv_freq")
    completed = vsr_transformer_family.complete({name: value for name, value in state.items() if name not in constants})
    assert shapes_of(completed) == shapes_of(state)
    assert vsr_transformer_family.spec_for(**vsr_transformer_family.configuration(shapes_of(completed))) is spec


def test_other_weights_are_not_completed_and_not_recognised() -> None:
    state = {"conv_first.weight": torch.zeros(64, 3, 3, 3)}
    assert vsr_transformer_family.complete(state).keys() == state.keys()
    with pytest.raises(KeyError):
        vsr_transformer_family.configuration(shapes_of(state))


def test_a_flow_network_in_the_other_layout_gets_our_names() -> None:
    plain = "spynet.spynet.basic_module.3.basic_module.4.weight"
    assert vsr_transformer_family.parameter_name(plain) == "spynet.spynet.basic_module.3.basic_module.2.conv.weight"
    ours = small().state_dict()
    assert [vsr_transformer_family.parameter_name(name) for name in ours] == list(ours)


def test_published_scores_are_of_the_middle_of_mirrored_windows_in_crops() -> None:
    clip = torch.rand(1, 4, 3, 70, 64, generator=torch.Generator().manual_seed(0))
    shapes = []

    def enlarge(part: Tensor) -> Tensor:
        shapes.append(tuple(part.shape))
        return part.repeat_interleave(4, -1).repeat_interleave(4, -2)

    scheme = vsr_transformer_family.REDS.score_scheme
    assert scheme is not None
    made = torch.stack(list(scheme(clip, enlarge)), 1)
    assert set(shapes) == {(1, 5, 3, 64, 64)}
    torch.testing.assert_close(made, enlarge(clip), rtol=0, atol=0)
