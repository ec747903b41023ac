"""The named recipes: each can be built and says what it needs; those of publications are compared with them."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import itertools
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from upframe.cli.training import train
from upframe.errors import ModelError, UsageError
from upframe.metrics.protocols import PROTOCOLS
from upframe.models.networks import MODELS
from upframe.training.degradations.pipeline import DEGRADATIONS, degrade, find_degradations
from upframe.training.degradations.steps import (
    Blur,
    DrawnResize,
    Jpeg,
    Noise,
    Resize,
    ResizeToOutput,
    Step,
    VideoCompression,
    Walk,
)
from upframe.training.losses.build import build_loss
from upframe.training.recipes import recipe
from upframe.training.recipes.official import DEGRADATION, OFFICIAL, deviations
from upframe.training.recipes.presets import realbasicvsr, rlfn, shipped, toy
from upframe.training.recipes.recipe import LossTerm, Recipe, model_spec
from upframe.training.recipes.registry import RECIPES, find_recipe
from upframe.training.recipes.schedule import Schedule, learning_rate_at

PAGE = Path(__file__).resolve().parents[3] / "docs" / "training.md"
OWN = ("photo-", "flow", "video-", "weft-", "tricks-", "toy-")
"""How the names of recipes begin that follow nobody's publication to the letter."""


# All recipes ----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_survives_its_file_and_has_its_own_name(name: str) -> None:
    one = RECIPES[name]()
    assert one.name == name
    assert Recipe.from_json(one.to_json()) == one


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_names_a_network_protocol_and_degradations_there_are(name: str) -> None:
    one = RECIPES[name]()
    family = one.model.split("-")[0]
    if family in ("vrt", "vsrt") and not any(model.startswith(f"{family}-") for model in MODELS):
        pytest.skip(f"this installation has no network of the family {family}")
    with torch.device("meta"):
        names = [parameter for parameter, _ in model_spec(one).build().named_parameters()]
    for stage in one.stages:
        for group in stage.optimiser.groups:
            assert any(part in parameter for part in group.names for parameter in names), (stage.name, group)
        assert stage.data.degradation is None or stage.data.degradation in DEGRADATIONS
        assert (stage.data.kind == "motion") == (one.model in recipe.FLOW_NETWORKS)
    assert (one.protocol is None) == (one.model in recipe.FLOW_NETWORKS)
    assert one.protocol is None or one.protocol in PROTOCOLS


@pytest.mark.parametrize("name", RECIPES)
def test_every_loss_of_every_recipe_can_be_built(name: str) -> None:
    """But for VGG-19, whose weights are the user's: the message says how to name them."""
    for term in (term for stage in RECIPES[name]().stages for term in stage.losses):
        if term.kind == "perceptual" or term.options.get("extractor") == "vgg19":
            with pytest.raises(ModelError, match=rf"in losses\.{term.kind}\.options\.weights"):
                build_loss(term)
        else:
            assert not any(parameter.requires_grad for parameter in build_loss(term).parameters())


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_says_the_command_the_machine_and_the_number(name: str) -> None:
    function = RECIPES[name]
    text = " ".join(inspect.getdoc(function).split())  # type: ignore[union-attr]
    module = " ".join((inspect.getmodule(function).__doc__ or "").split())
    assert re.search(rf"Command: (`upframe train {name} --data [A-Z]|as `)", text), text
    assert re.search(r"(To reach|Reached|To compare)", text + module) or "as `" in text
    assert re.search(r"(cores?|GPUs?)\b", text + module) or "as `" in text


def test_the_commands_use_flags_and_fields_there_are() -> None:
    flags = {f"--{name.replace('_', '-')}" for name in inspect.signature(train).parameters}
    for name, function in RECIPES.items():
        text = " ".join(inspect.getdoc(function).split())  # type: ignore[union-attr]
        command = re.search(r"Command: `(upframe train [^`]+)`", text)
        for flag in re.findall(r"--[a-z-]+", command[1] if command else ""):
            assert flag in flags, name
        changes = dict(change.split("=", 1) for change in re.findall(r"--set ([^ `]+=[^ `]+)", text))
        RECIPES[name]().override(changes)


def test_an_unknown_recipe_is_answered_with_the_nearest() -> None:
    with pytest.raises(UsageError, match="Did you mean photo-x4"):
        find_recipe("photo-4")
    assert find_recipe("PHOTO_X4").name == "photo-x4"


def test_recipes_are_listed_without_torch() -> None:
    """`upframe train` answers a mistyped name at once."""
    program = "import sys, upframe.training.recipes.registry as r; r.find_recipe('photo-x2'); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


# Published recipes ----------------------------------------------------------------------------------------------------
def test_every_recipe_of_a_publication_is_compared_with_it() -> None:
    assert {name for name in RECIPES if not name.startswith(OWN)} == set(OFFICIAL)


@pytest.mark.parametrize("name", OFFICIAL)
def test_a_preset_says_what_its_source_says(name: str) -> None:
    """RL-7 to RL-15, VA-10 to VA-13, RB-6 to RB-15 and RB-21 to RB-23, VR-6 to VR-12, VT-6 to VT-12."""
    assert deviations(RECIPES[name](), OFFICIAL[name]) == []


@pytest.mark.parametrize(
    ("name", "path", "text", "source"),
    [
        ("vrt-001", "stages.main.optimiser.groups.0.frozen_until", "19999", "fix_iter"),
        ("realbasicvsr-x4", "stages.gan.losses.gan.weight", "0.1", "RB-11: ckkelvinchan/RealBasicVSR"),
        ("rlfn-x4", "stages.stage2.keep_optimiser", "true", "RL-11"),
        ("vapsr-x2", "stages.main.schedule.gamma", "0.5", "VapSR_X2.yml"),
        ("vsrt-reds", "stages.main.losses.0.options.eps", "1e-9", "VT-10"),
    ],
)
def test_a_changed_value_is_reported_with_its_source(name: str, path: str, text: str, source: str) -> None:
    (line,) = deviations(RECIPES[name]().override({path: text}), OFFICIAL[name])
    assert line.startswith(f"{path} is ")
    assert source in line


def test_a_missing_part_is_reported_too() -> None:
    lines = deviations(RECIPES["realbasicvsr-x4-wogan"](), OFFICIAL["realbasicvsr-x4"])
    assert any(line.startswith("stages.gan.losses.perceptual.weight is absent; 1.0 by RB-10") for line in lines)


# What the ablations keep equal ------------------------------------------------------------------------------------------
@pytest.mark.parametrize("start", ["rlfn-x4", "tricks"])
def test_a_warm_start_and_its_rivals_are_equally_long(start: str) -> None:
    """RL-12: `e2000` and `clr` take the steps of one warm start, and differ in nothing else but what their name says."""
    warm, long, cyclical = (find_recipe(f"{start}-{end}") for end in ("ws-1", "e2000", "clr"))
    assert warm.steps == long.steps == cyclical.steps
    assert warm.same_training(cyclical) == ["name", "stages.stage2.keep_optimiser"]
    (only,) = long.stages
    first = warm.stages[0]
    # Stretched: at each share of its length the long run has the rate of a single stage.
    for share in (0.0, 0.19, 0.21, 0.5, 0.99):
        assert only.learning_rate_at(int(share * only.steps)) == first.learning_rate_at(int(share * first.steps))


def test_contrastive_on_and_off_differ_in_that_loss_alone() -> None:
    on, off = find_recipe("rlfn-x4"), find_recipe("rlfn-x4-ws-2")
    differing = on.same_training(off)
    assert all(path == "name" or path.startswith("stages.stage3.losses.1.") for path in differing)
    assert "stages.stage3.losses.1.kind" in differing


def test_the_tricks_run_on_any_network() -> None:
    """RL-16: stages are made without knowing the network."""
    other = rlfn.warm_started(find_recipe("vapsr-x4").stages[0], starts=2, last=rlfn.CONTRASTIVE)
    assert [stage.start_from for stage in other] == [None, "previous", "previous"]
    assert [len(stage.losses) for stage in other] == [1, 1, 2]


def test_the_sweep_keeps_frames_or_clips_equal() -> None:
    """RB-22."""
    frames = [(r.stages[0].batch, r.stages[0].data.clip_frames) for r in realbasicvsr.batch_length_sweep()]
    assert frames == [(48, 10), (24, 20), (16, 30)]
    clips = realbasicvsr.batch_length_sweep(lengths=(4, 8), total_frames=None, batch=5)
    assert [(r.stages[0].batch, r.stages[0].data.clip_frames) for r in clips] == [(5, 4), (5, 8)]
    with pytest.raises(ValueError, match="whole number"):
        realbasicvsr.batch_length_sweep(lengths=(7,))


def test_warmed_up_weights_are_made_by_a_recorded_stage_with_still_flow() -> None:
    """VT-13: how the published warm-up files were made is not known."""
    warmup, main = find_recipe("vsrt-reds").stages
    assert (warmup.optimiser.groups[0].names, warmup.optimiser.groups[0].frozen_until) == (("spynet",), None)
    assert main.start_from == "previous"
    assert main.optimiser.groups == ()  # VT-5: the flow network is trained along


# Degradations ---------------------------------------------------------------------------------------------------------
def _weights(choices: tuple[tuple[str, float], ...]) -> tuple[float, ...]:
    return tuple(weight for _, weight in choices)


def _range(walk: Walk) -> tuple[float, float]:
    return walk.low, walk.high


def _order(blur: Blur, resize: Resize, noise: Noise, jpeg: Jpeg) -> dict[str, Any]:
    assert [mode for mode, _ in resize.modes] == ["up", "down", "keep"]
    assert [kind for kind, _ in resize.filters] == ["bilinear", "area", "bicubic"]
    assert [kind for kind, _ in noise.kinds] == ["gaussian", "poisson"]
    return {
        "blur.probability": blur.probability,
        "blur.kernel_px": blur.sizes,
        "blur.kind_probabilities": _weights(blur.kinds),
        "blur.sigma_px": _range(blur.sigma),
        "resize.up_down_keep": _weights(resize.modes),
        "resize.scale": _range(resize.scale),
        "resize.bilinear_area_bicubic": _weights(resize.filters),
        "walk.resize": resize.scale.step,
        "noise.gaussian_poisson": _weights(noise.kinds),
        "noise.gaussian_sigma": _range(noise.gaussian_sigma),
        "noise.poisson_scale": _range(noise.poisson_scale),
        "noise.grey_probability": noise.gray_probability,
        "jpeg.quality": _range(jpeg.quality),
    }


def _walks(blur: Blur, noise: Noise, jpeg: Jpeg) -> dict[str, Any]:
    return {
        "walk.blur_sigma": blur.sigma.step,
        "walk.blur_rotation": blur.rotation.step,
        "walk.blur_beta_gaussian": blur.beta_generalized.step,
        "walk.blur_beta_plateau": blur.beta_plateau.step,
        "walk.sinc_omega": blur.cutoff.step,
        "walk.gaussian_sigma": noise.gaussian_sigma.step,
        "walk.poisson_scale": noise.poisson_scale.step,
        "walk.jpeg_quality": jpeg.quality.step,
    }


def _only(kind: type, steps: tuple[Step, ...]) -> Any:
    (found,) = (step for step in steps if isinstance(step, kind))
    return found


def test_the_degradations_are_the_published_ones() -> None:
    """RB-15 to RB-20, field by field."""
    config = find_degradations("realbasicvsr")
    kinds = [type(step) for step in config.steps]
    assert kinds == [Blur, Resize, Noise, Jpeg, VideoCompression, Blur, Resize, Noise, Jpeg]
    first, video, second = config.steps[:4], config.steps[4], config.steps[5:]
    codec, tail = config.shuffled
    sinc = _only(Blur, tail)
    sizes = DrawnResize("down", "area", np.array([0.37])).apply(
        [torch.zeros(3, 30, 50)], size=(1, 1), rng=np.random.default_rng(0)
    )
    small = degrade(torch.rand(2, 3, 256, 256), config, np.random.default_rng(0))
    assert [kind for kind, _ in sinc.kinds] == ["sinc"]
    assert isinstance(_only(ResizeToOutput, tail), ResizeToOutput)
    assert codec == (video,)
    observed = {
        **{f"first.{name}": value for name, value in _order(*first).items()},  # type: ignore[arg-type]
        **{f"second.{name}": value for name, value in _order(*second).items()},  # type: ignore[arg-type]
        "frames_read": RECIPES["realbasicvsr-x4"]().stages[0].data.frames_read,
        "first.resize.even_sizes": all(side % 2 == 0 for frame in sizes for side in frame.shape[-2:]),
        "first.video": video == VideoCompression(),
        "last.shuffled": len(config.shuffled) == 2,
        "last.size_px": small.shape[-1],
        "last.sinc_probability": sinc.probability,
        "last.sinc_omega": _range(sinc.cutoff),
        "last.quantised": torch.equal(small, (small * 255).round() / 255),
        "video.codecs": tuple(name for name, _ in video.encoders),  # type: ignore[attr-defined]
        "video.codec_probabilities": _weights(video.encoders),  # type: ignore[attr-defined]
        "video.bit_rate": video.bit_rate,  # type: ignore[attr-defined]
        "video.frame_rate": video.frame_rate,  # type: ignore[attr-defined]
    }
    wrong = {
        name: (observed.get(name), fact)
        for name, fact in DEGRADATION.items()
        if name in observed and observed[name] != fact.value
    }
    assert not wrong
    walked = [_walks(steps[0], steps[2], steps[3]) for steps in (first, second)]  # type: ignore[arg-type]
    for name, value in walked[0].items():
        assert value == walked[1][name] == DEGRADATION[name].value, DEGRADATION[name].source
    assert sinc.cutoff.step == DEGRADATION["walk.sinc_omega"].value
    assert set(DEGRADATION) <= set(observed) | set(walked[0]), "a fact that nothing is compared with"


# Our own --------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", [name for name in RECIPES if name.startswith(("photo-", "video-", "flow", "tricks-"))])
def test_share_alike_files_stay_out_of_what_is_shipped(name: str) -> None:
    for stage in RECIPES[name]().stages:
        assert set(shipped.SHARE_ALIKE) <= set(stage.data.exclude)


@pytest.mark.parametrize("name", [f"photo-{kind}x{scale}" for kind in ("", "vapsr-") for scale in (2, 3, 4)])
def test_what_shipped_weights_were_trained_with_last_has_not_changed(name: str) -> None:
    """Their cards name these settings: rates at chosen steps, as they were."""
    (one,) = find_recipe(name).override({"steps": "6000"}).stages
    schedule = Schedule("cosine", warmup_steps=200, final_learning_rate=1e-6)
    for step in (0, 199, 200, 3000, 5999):
        assert one.learning_rate_at(step) == learning_rate_at(schedule, step, peak=3e-3, steps=6000)
    assert (one.batch, one.data.patch_px, one.data.draws, one.data.reductions) == (16, 48, 2, (1, 2))
    assert (one.optimiser.method, one.optimiser.betas, one.ema_decay) == ("muon", (0.9, 0.99), 0.999)
    assert (one.precision, one.losses) == ("bf16", (LossTerm("l1"),))


def test_what_is_trained_on_degraded_photos_stays_with_adam() -> None:
    """As photo-real-x4 was."""
    (one,) = find_recipe("photo-real-x4").stages
    assert (one.optimiser.method, one.optimiser.learning_rate, one.data.draws, one.data.reductions) == ("adam", 5e-4, 1, (1,))


def test_recipes_for_real_photos_degrade_stored_inputs() -> None:
    """So that pairs of patterns serve as well: their inputs do not follow from their targets."""
    for name in ("photo-real-x4-distilled", "photo-real-perceptual-x4"):
        (one,) = find_recipe(name).stages
        assert (one.data.low_quality, one.data.degradation) == ("paired", "phone-and-web"), name
    assert [term.kind for term in one.losses] == ["l1", "perceptual", "artefacts", "gan"]


@pytest.mark.parametrize("name", [name for name in RECIPES if name.startswith("toy-")])
def test_toys_are_short_and_need_no_files(name: str) -> None:
    one = RECIPES[name]()
    assert one.steps == toy.STEPS
    assert one.flow_weights is None
    assert all(term.kind != "perceptual" for stage in one.stages for term in stage.losses)
    assert all(stage.data.low_quality != "paired" for stage in one.stages)


# The page -------------------------------------------------------------------------------------------------------------
def _rows(heading: str) -> list[list[str]]:
    """Cells of the table below `### heading`, without its head."""
    text = re.split(r"\n##+ ", PAGE.read_text("utf-8").split(f"\n### {heading}\n", 1)[1], maxsplit=1)[0]
    lines = [line for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def test_the_page_lists_every_recipe_as_it_is() -> None:
    rows = {row[0].strip("`"): row[1:] for row in _rows("All recipes")}
    assert list(rows) == list(RECIPES)
    for name, row in rows.items():
        one = RECIPES[name]()
        stages = ", ".join(f"{stage.name} {stage.steps}" for stage in one.stages)
        batches = "/".join(dict.fromkeys(str(stage.batch) for stage in one.stages))
        sizes = "/".join(dict.fromkeys(f"{s.data.clip_frames} × {s.data.patch_px}" for s in one.stages))
        assert row == [one.model, stages, batches, sizes], name


PARTS = (
    recipe.Recipe,
    recipe.Stage,
    recipe.DataRecipe,
    recipe.Optimiser,
    recipe.ParameterGroup,
    Schedule,
    recipe.LossTerm,
    recipe.Discriminator,
    recipe.Sharpening,
    recipe.SpikeGuard,
    recipe.ActivationCheckpointing,
    recipe.Cadence,
)


@pytest.mark.parametrize("kind", PARTS, ids=lambda kind: kind.__name__)
def test_the_page_explains_every_field_as_the_code_does(kind: type) -> None:
    heading = re.sub(r"(?<=.)([A-Z])", lambda capital: f" {capital[1].lower()}", kind.__name__)
    expected = [[f"`{name}`", default, meaning] for name, default, meaning in _fields(kind)]
    assert _rows(heading) == expected


def _fields(kind: type) -> list[tuple[str, str, str]]:
    """Name, default and docstring of each field of a dataclass, as the page shows them."""
    (body,) = (node for node in ast.parse(inspect.getsource(kind)).body if isinstance(node, ast.ClassDef))
    meanings: dict[str, str] = {}
    for field, after in itertools.pairwise(body.body):
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name):
            is_text = isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant)
            text = str(after.value.value) if is_text else ""  # type: ignore[attr-defined]
            meanings[field.target.id] = re.sub(r'"([^"]+)"', r"`\1`", " ".join(text.split()))
    return [(field.name, _shown(field), meanings[field.name]) for field in dataclasses.fields(kind)]


def _shown(field: dataclasses.Field[Any]) -> str:
    default = field.default
    if field.default_factory is not dataclasses.MISSING:
        default = field.default_factory()
    if default is dataclasses.MISSING:
        return "to be given"
    if dataclasses.is_dataclass(default):
        return "see below"
    if default is None:
        return "none"
    if isinstance(default, bool):
        return str(default).lower()
    if isinstance(default, tuple | dict):
        return ", ".join(getattr(one, "kind", str(one)) for one in default) or "empty"
    return str(default)
