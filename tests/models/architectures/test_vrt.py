"""VRT against the reference tensors; what it promises about clips, precision, training and weights files."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from upframe.models.architectures import _clip_flows, _deformable, _tokens, vrt
from upframe.models.architectures._clip_flows import clip_flows, corners_of_neighbours
from upframe.models.architectures._vrt_stages import Block, Checkpointing, Reshape, folded, unfolded
from upframe.models.architectures.vrt import VRT, Upsample
from upframe.models.families import vrt as vrt_family
from upframe.models.families.vrt import SPECS
from upframe.models.registry import count_parameters

DTYPES = [torch.float32, torch.float64]
NETWORKS = [
    *("vrt_001_full_config", "vrt_deblur_b2", "vrt_denoise", "vrt_sr_pa2", "vrt_sr_pa2_d8", "vrt_sr_pa4_d7"),
    *("vrt_sr_pa6_d8", "vrt_sr_win4_pad", "vrt_sr_x2_noqkvbias", "vrt_vfi"),
]
# The others take ten seconds each in float64; what sets them apart is in the fixtures of the parts.
IN_FLOAT64 = ["vrt_sr_win4_pad", "vrt_sr_x2_noqkvbias", "vrt_vfi"]
PARTS = [
    *("mod_reshape_down", "mod_reshape_up", "mod_upsample_x2", "mod_upsample_x3", "mod_upsample_x4"),
    *("mod_compute_mask", "mod_geglu", "mod_tmsag_mutual_shift", "mod_tmsag_shift_pad"),  # test_window_attention.py
    *("mod_window_attn_mutual", "mod_window_attn_self", "mod_window_attn_short_d"),
    *("mod_deform_conv2d", "mod_flow_composition"),  # test_deformable.py
    *("mod_flow_deform_pa2", "mod_flow_deform_pa4", "mod_flow_deform_pa6"),
]


def test_every_reference_fixture_is_listed_here(shared: Path) -> None:
    present = {path.stem for path in (shared / "golden" / "vrt").glob("*.json")}
    assert present == {*NETWORKS, *PARTS, "vrt_grad"}


def loaded(fixture: Any, dtype: torch.dtype) -> VRT:
    """The network of a fixture, as found from the shapes of its weights, without gradients."""
    weights = vrt_family.complete(fixture.weights())
    network = VRT(**vrt_family.configuration({name: tuple(value.shape) for name, value in weights.items()}))  # type: ignore[arg-type]
    network.load_state_dict(weights)
    return network.to(dtype).eval().requires_grad_(False)


def record_outputs(network: nn.Module) -> dict[str, Tensor]:
    """Filled while `network` runs: the output of each submodule's first call."""
    seen: dict[str, Tensor] = {}

    def record(name: str, made: Tensor) -> None:
        seen.setdefault(name, made.clone())

    for name, module in network.named_modules():
        if name.startswith("stage") and not name.endswith((".attn", ".mlp", ".pa_fuse", ".pa_deform")):
            module.register_forward_hook(lambda module, given, made, name=name: record(name, made))
    return seen


# The reference --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("name", "dtype"),
    [*itertools.product(NETWORKS, DTYPES[:1]), *itertools.product(IN_FLOAT64, DTYPES[1:])],
    ids=lambda value: value if isinstance(value, str) else str(value),
)
def test_every_network_equals_the_reference(golden: ModuleType, name: str, dtype: torch.dtype) -> None:
    fixture = golden.Golden(f"vrt/{name}")
    network, clip = loaded(fixture, dtype), fixture.input("lq", dtype)
    before = clip.clone()
    seen = record_outputs(network)
    given = {"sigma": fixture.input("sigma", dtype)} if "in.sigma" in fixture.tensors else {}
    with torch.inference_mode():
        fixture.check("out.sr", network(clip, **given))
    assert torch.equal(clip, before)
    compared = 0
    for key in fixture.names("mid.stage"):
        part = key.removeprefix("mid.").partition("#")[0]
        if part in seen:  # (N, D, H, W, C) here; parts of a block do not run on the whole clip
            channels_last = seen[part]
            stored = fixture.meta["tensors"][key]["shape"]
            as_stored = channels_last if list(channels_last.shape) == stored else channels_last.permute(0, 4, 1, 2, 3)
            fixture.check(key, as_stored)
            compared += 1
    assert compared >= 3


@pytest.mark.parametrize("name", ["vrt_sr_pa2", "vrt_denoise"])
def test_flows_and_first_features_are_those_of_the_reference(golden: ModuleType, name: str) -> None:
    fixture = golden.Golden(f"vrt/{name}")
    network, clip = loaded(fixture, torch.float32), fixture.input("lq")
    with torch.inference_mode():
        flows = clip_flows(network.spynet, clip, distances=1)
        given = torch.cat([clip, *corners_of_neighbours(clip, flows)], dim=2)
    for call, found in enumerate((flows.backward, flows.forward)):
        for scale in range(4):
            fixture.check(f"mid.spynet#{call}.{scale}", found[0][scale].flatten(0, 1))
    if "in.sigma" in fixture.tensors:
        given = torch.cat([given, fixture.input("sigma").expand_as(clip[:, :, :1])], dim=2)
    fixture.check("mid.conv_first_input", given.transpose(1, 2))


def test_gradients_equal_the_reference_with_activations_computed_twice(golden: ModuleType) -> None:
    fixture, base = golden.Golden("vrt/vrt_grad"), golden.Golden("vrt/vrt_sr_win4_pad")
    network = loaded(base, torch.float64).requires_grad_(True)
    network.checkpointing = "all"
    restored = network(base.input("lq", torch.float64))
    base.check("out.sr", restored)
    loss = ((restored - 0.5).square() + 1e-6).sqrt().mean()
    loss.backward()
    fixture.check("out.loss", loss.view(1))
    parameters = dict(network.named_parameters())
    names = [name.removeprefix("out.grad.") for name in fixture.names("out.grad.")]
    for name in names:
        gradient = parameters[name].grad
        assert gradient is not None
        fixture.check(f"out.grad.{name}", gradient)
    assert len(names) == 11
    assert fixture.meta["parameters_without_gradient"] == [name for name, p in parameters.items() if p.grad is None] == []


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("name", "channels_in", "resizing"), [("down", 3, "down"), ("up", 12, "up")])
def test_changes_of_scale_equal_the_reference(
    golden: ModuleType, name: str, channels_in: int, resizing: Any, dtype: torch.dtype
) -> None:
    fixture = golden.Golden(f"vrt/mod_reshape_{name}")
    reshape = Reshape(channels_in, 5, resizing)
    reshape.load_state_dict(fixture.weights())
    made = reshape.to(dtype)(fixture.input("x", dtype).permute(0, 2, 3, 4, 1).contiguous())
    fixture.check("out.y", made.permute(0, 4, 1, 2, 3))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("scale", [2, 3, 4])
def test_enlarging_equals_the_reference(golden: ModuleType, scale: int, dtype: torch.dtype) -> None:
    fixture = golden.Golden(f"vrt/mod_upsample_x{scale}")
    upsample = Upsample(scale, 8)
    upsample.load_state_dict(fixture.weights())
    frames = fixture.input("x", dtype).unbind(2)
    fixture.check("out.y", torch.stack([upsample.to(dtype)(frame) for frame in frames], dim=2))


def test_unfolding_undoes_folding() -> None:
    x = torch.randn(1, 2, 4, 6, 3)
    assert torch.equal(unfolded(folded(x)), x)


# Published configurations ---------------------------------------------------------------------------------------------
def published(shared: Path, alias: str) -> dict[str, Any]:
    folder = shared / "golden" / "state_dicts"
    facts: dict[str, Any] = json.loads((folder / f"{alias}.json").read_text())
    if "same_as" in facts:
        same = json.loads((folder / f"{facts['same_as']}.json").read_text())
        facts |= {key: same[key] for key in ("parameters", "buffers")}
    return facts


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.name)
def test_parameters_have_the_published_names_shapes_and_order(shared: Path, spec: Any) -> None:
    facts = published(shared, spec.aliases[0])
    with torch.device("meta"):
        network = spec.build()
    parameters = {name: list(value.shape) for name, value in network.named_parameters()}
    buffers = {name: list(value.shape) for name, value in network.named_buffers()}
    assert list(parameters.items()) == list(facts["parameters"].items())
    assert list(buffers.items()) == [(name, entry["shape"]) for name, entry in facts["buffers"].items()]
    assert len(network.state_dict()) == facts["state_dict_entries"]
    assert count_parameters(spec) == facts["param_count"]


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.name)
def test_a_file_of_parameters_alone_is_completed_and_recognised(shared: Path, spec: Any) -> None:
    """Files for the same shapes cannot be told apart: the first published of them is taken."""
    facts = published(shared, spec.aliases[0])
    state = {name: torch.empty(shape, device="meta") for name, shape in facts["parameters"].items()}
    completed = vrt_family.complete(state)
    assert set(completed) == {*facts["parameters"], *facts["buffers"]}
    assert {str(completed[name].dtype).removeprefix("torch.") for name in facts["buffers"]} <= {"int64", "float32"}
    arguments = vrt_family.configuration({name: tuple(value.shape) for name, value in completed.items()})
    found = vrt_family.spec_for(**arguments)
    same = facts.get("same_as", spec.aliases[0])
    assert found.aliases == (same,)
    assert (found.scale, found.task, found.takes_sigma, found.window) == (spec.scale, spec.task, spec.takes_sigma, spec.window)


def test_constants_are_those_that_a_fresh_network_has() -> None:
    network = small()
    state = network.state_dict()
    buffers = {name for name, _ in network.named_buffers()}
    completed = vrt_family.complete({name: value for name, value in state.items() if name not in buffers})
    assert set(completed) == set(state)
    assert all(torch.equal(completed[name], state[name]) for name in buffers)


def test_an_unpublished_size_gets_a_name_of_its_own() -> None:
    network = small(takes_sigma=True, scale=1)
    shapes = {name: tuple(value.shape) for name, value in network.state_dict().items()}
    spec = vrt_family.spec_for(**vrt_family.configuration(shapes))
    assert (spec.name, spec.task, spec.takes_sigma) == ("vrt-c12d2-denoise", "denoise", True)
    rebuilt = spec.build()
    assert {n: v.shape for n, v in rebuilt.state_dict().items()} == {n: v.shape for n, v in network.state_dict().items()}


def test_parameters_of_something_else_are_not_taken() -> None:
    with pytest.raises(KeyError):
        vrt_family.configuration({"conv_first.weight": (64, 3, 3, 3)})
    shapes = {name: tuple(value.shape) for name, value in small().state_dict().items()}
    shapes["stage1.residual_group1.blocks.0.attn.relative_position_bias_table"] = (100, 2)
    with pytest.raises(ValueError, match="100 relative positions"):
        vrt_family.configuration(shapes)


@pytest.mark.slow
def test_a_network_made_without_memory_runs_once_weights_are_put_in() -> None:
    network, clip = small(), torch.rand(1, 2, 3, 32, 32)
    with torch.device("meta"):
        empty = VRT(**SMALL)
    empty.load_state_dict(network.state_dict(), strict=True, assign=True)
    with torch.inference_mode():
        assert torch.equal(empty.eval()(clip), network(clip))


# Any clip -------------------------------------------------------------------------------------------------------------
SMALL: dict[str, Any] = {
    "window_frames": 4,
    "window_px": 4,
    "width": 12,
    "depth": 2,
    "mutual_depth": 1,
    "tail_width": 16,
    "tail_depth": 2,
    "tail_layers": 2,
    "single_frame_layers": 1,
    "heads": 2,
    "deformable_groups": 2,
}


def small(**arguments: Any) -> VRT:
    """A small network with weights that make every part of it count."""
    torch.manual_seed(0)
    network = VRT(**SMALL | arguments).eval().requires_grad_(False)
    for name, parameter in network.named_parameters():
        if "bias_table" in name or "conv_offset.6" in name or ("stage" in name and parameter.dim() == 2):
            nn.init.normal_(parameter, std=0.1)
    return network


@pytest.mark.slow
@pytest.mark.parametrize(("frames", "warped"), [(2, 2), (3, 2), (3, 4), (4, 6), (5, 2), (9, 6), (13, 2)])
def test_any_number_of_frames_from_the_least_on(frames: int, warped: int) -> None:
    network = small(warped_frames=warped, deformable_groups=6)
    with torch.inference_mode():
        made = network(torch.rand(1, frames, 3, 32, 40))
    assert made.shape == (1, frames, 3, 128, 160)
    assert torch.isfinite(made).all()


@pytest.mark.slow
@pytest.mark.parametrize("frames", [3, 4, 7])
def test_inference_and_training_compute_the_same(frames: int) -> None:
    network, clip = small(warped_frames=4), torch.rand(2, frames, 3, 32, 40)
    with torch.inference_mode():
        made = network(clip)
    with torch.enable_grad():
        torch.testing.assert_close(made, network(clip), atol=1e-4, rtol=0)  # sums in another order; values reach 5


@pytest.mark.slow
@pytest.mark.parametrize("at_once", [50, 1000, 1 << 20])
def test_work_in_pieces_gives_the_same(monkeypatch: pytest.MonkeyPatch, at_once: int) -> None:
    network, clip = small(), torch.rand(1, 5, 3, 40, 32)
    with torch.inference_mode():
        expected = network(clip)
        monkeypatch.setattr(_tokens, "CPU_TOKENS", at_once)
        monkeypatch.setattr(_deformable, "BAND_VALUES", at_once)
        monkeypatch.setattr(_clip_flows, "PAIRS_PX", at_once)
        monkeypatch.setattr(vrt, "TAIL_PX", at_once)
        torch.testing.assert_close(network(clip), expected, atol=1e-4, rtol=0)


@pytest.mark.slow
@pytest.mark.parametrize("scale", [2, 3, 4])
def test_bands_of_rows_reach_as_far_as_the_convolutions(monkeypatch: pytest.MonkeyPatch, scale: int) -> None:
    network, clip = small(scale=scale), torch.rand(1, 2, 3, 40, 32)
    with torch.inference_mode():
        whole = network(clip)
        monkeypatch.setattr(vrt, "TAIL_PX", 1)
        torch.testing.assert_close(network(clip), whole, atol=1e-5, rtol=0)


@pytest.mark.slow
def test_clips_of_a_batch_do_not_mix() -> None:
    network, clips = small(), torch.rand(2, 5, 3, 32, 32)
    with torch.inference_mode():
        alone = torch.cat([network(clip[None]) for clip in clips])
        torch.testing.assert_close(network(clips), alone, atol=1e-4, rtol=0)


@pytest.mark.parametrize("arguments", [{}, {"scale": 1}, {"scale": 1, "warped_frames": 0}])
def test_the_callers_clip_stays_as_it_is(arguments: dict[str, int]) -> None:
    network, clip = small(**arguments), torch.rand(1, 4, 3, 32, 32)
    before = clip.clone()
    with torch.inference_mode():
        network(clip)
    assert torch.equal(clip, before)


@pytest.mark.slow
def test_the_noise_level_may_be_a_number_one_for_each_clip_or_a_map() -> None:
    network, clips = small(scale=1, takes_sigma=True), torch.rand(2, 2, 3, 32, 32)
    with torch.inference_mode():
        expected = network(clips, sigma=0.1)
        assert torch.equal(network(clips, sigma=torch.tensor([0.1, 0.1])), expected)
        assert torch.equal(network(clips, sigma=torch.full((1, 1, 1, 32, 32), 0.1)), expected)
        assert not torch.equal(network(clips, sigma=torch.tensor([0.1, 0.2]))[1], expected[1])


@pytest.mark.parametrize(
    ("arguments", "shape", "given", "complaint"),
    [
        ({}, (1, 1, 3, 32, 32), {}, "at least 2 frames"),
        ({"warped_frames": 6, "deformable_groups": 6}, (1, 3, 3, 32, 32), {}, "at least 4 frames"),
        ({"scale": 1, "warped_frames": 0}, (1, 3, 3, 32, 32), {}, "interpolated from 4"),
        ({}, (1, 2, 3, 24, 32), {}, "multiples of 8 from 32 px"),
        ({}, (1, 2, 3, 32, 36), {}, "multiples of 8 from 32 px"),
        ({}, (1, 2, 3, 32, 32), {"sigma": 0.1}, "takes no sigma"),
        ({"scale": 1, "takes_sigma": True}, (1, 2, 3, 32, 32), {}, "is needed"),
    ],
)
def test_what_it_cannot_take_is_refused(
    arguments: dict[str, Any], shape: tuple[int, ...], given: dict[str, float], complaint: str
) -> None:
    with pytest.raises(ValueError, match=complaint):
        small(**arguments)(torch.rand(shape), **given)


@pytest.mark.parametrize("arguments", [{"scale": 5}, {"warped_frames": 3}, {"warped_frames": 0}])
def test_impossible_networks_are_refused(arguments: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="no network enlarges"):
        VRT(**SMALL | arguments)


@pytest.mark.slow
@pytest.mark.parametrize("arguments", [{}, {"scale": 1, "takes_sigma": True}, {"scale": 1, "warped_frames": 0}])
def test_half_precision_stays_close_and_returns_float32(arguments: dict[str, Any]) -> None:
    network, clip = small(**arguments), torch.rand(1, 4, 3, 32, 32)
    given = {"sigma": 0.1} if network.takes_sigma else {}
    with torch.inference_mode():
        expected = network(clip, **given)
        made = network.to(torch.bfloat16)(clip, **given)
    assert made.dtype == torch.float32
    # Eight binary digits at every step through some sixty of them; a wrong pixel here and there would make it several times
    # as much, as what is learnt here is noise.
    assert float((made - expected).square().mean().sqrt()) < 0.08 * float(expected.std())


# Training -------------------------------------------------------------------------------------------------------------
TASKS: dict[str, dict[str, Any]] = {
    "upscale": {},
    "four frames": {"warped_frames": 4},
    "six frames": {"warped_frames": 6, "deformable_groups": 6},
    "deblur": {"scale": 1},
    "denoise": {"scale": 1, "takes_sigma": True},
    "interpolate": {"scale": 1, "warped_frames": 0},
}


def gradients(network: VRT, clip: Tensor, *, seed: int = 0) -> dict[str, Tensor | None]:
    network.zero_grad()
    torch.manual_seed(seed)
    given = {"sigma": 0.1} if network.takes_sigma else {}
    with torch.enable_grad():
        network(clip, **given).square().mean().backward()
    return {name: None if value.grad is None else value.grad.clone() for name, value in network.named_parameters()}


@pytest.mark.slow
@pytest.mark.parametrize("task", TASKS)
def test_a_training_step_gives_every_parameter_a_finite_gradient(task: str) -> None:
    network = small(stochastic_depth=0, **TASKS[task]).train().requires_grad_(True)
    made = gradients(network, torch.rand(1, 4, 3, 32, 32))
    wanting = [name for name, value in made.items() if value is None or not torch.isfinite(value).all() or not value.any()]
    assert wanting == []


@pytest.mark.slow
@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("kind", ["attention", "all"])
def test_computing_activations_twice_gives_the_same_gradients(kind: Checkpointing, training: bool) -> None:
    """With stochastic depth too: what is skipped is drawn outside of what is computed twice."""
    network, clip = small(stochastic_depth=0.5).train(training).requires_grad_(True), torch.rand(2, 3, 3, 32, 32)
    assert network.checkpointing == "none"
    expected = gradients(network, clip)
    network.checkpointing = kind
    for name, gradient in gradients(network, clip).items():
        torch.testing.assert_close(gradient, expected[name], atol=1e-6, rtol=1e-4)


def test_layers_can_be_spared_from_computing_twice() -> None:
    network = small()
    network.checkpoint("attention", spared=range(6))
    kinds = {name: module.checkpointing for name, module in network.named_modules() if isinstance(module, Block)}
    assert {kind for name, kind in kinds.items() if name < "stage7"} == {"none"}
    assert {kind for name, kind in kinds.items() if name >= "stage7"} == {"attention"}
    assert network.checkpointing == "attention"
    with pytest.raises(ValueError, match="not 'everything'"):
        network.checkpoint("everything")  # type: ignore[arg-type]


def test_stochastic_depth_grows_from_block_to_block() -> None:
    drops = [module.drop for module in small(stochastic_depth=0.17).modules() if isinstance(module, Block)]
    assert drops == pytest.approx([0.01 * i for i in range(7 * 2 + 2 * 2)])


def test_stochastic_depth_skips_a_part_for_a_sample_or_makes_up_for_it() -> None:
    torch.manual_seed(0)
    block = Block(12, heads=2, window=(2, 4, 4), shifted=False, mutual=False, mlp_ratio=2, qkv_bias=True, drop=0.5).train()
    x = torch.randn(1, 2, 4, 4, 12).expand(40, -1, -1, -1, -1).contiguous()
    with torch.no_grad():
        made = block(x)
        attended = x[:1] + 2 * (block.eval()._attended(x[:1].flatten(0, 3), *_only_window(block, x[:1]))).view(x[:1].shape)
        possible = [start + 2 * kept * block._mixed(start) for start in (x[:1], attended) for kept in (0, 1)]
    counts = [sum(torch.allclose(sample, one[0], atol=1e-5) for sample in made) for one in possible]
    assert sum(counts) == 40
    assert min(counts) >= 2  # ten of each are expected; with seeded draws this is no matter of luck
    assert torch.equal(block.eval()(x[:1].clone()), block(x[:1].clone()))


def _only_window(block: Block, x: Tensor) -> tuple[Any, Any]:
    from upframe.models.architectures._window_attention import plan_windows

    plan = plan_windows((1, 2, 4, 4), block.window, shifted=False, device=x.device)
    return plan.groups[0], block.attn.prepared(plan.tokens)
