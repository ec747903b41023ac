"""A recipe: everything that decides how a network is trained, as one frozen value.

    Recipe ── stages: Stage ── data: DataRecipe
                            ── optimiser: Optimiser ── groups: ParameterGroup
                            ── schedule: Schedule (schedule.py)
                            ── losses: LossTerm
                            ── discriminator: Discriminator | None
                            ── guard: SpikeGuard
              cadence: Cadence   (how often something is written; changes nothing that is trained)

Paths of data are no part of a recipe: they are given when it is run. Fields and `--set` paths are explained in
docs/training.md; how text and JSON become values is in `fields.py`.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

from upframe.errors import UsageError
from upframe.models.spec import ModelSpec, Precision
from upframe.training.recipes import fields
from upframe.training.recipes.fields import Scalar
from upframe.training.recipes.schedule import Schedule, learning_rate_at

LossKind = Literal["l1", "charbonnier", "contrastive", "perceptual", "gan", "endpoint_error"]
DataKind = Literal["photos", "clips", "motion"]
LowQuality = Literal["bicubic", "bd", "paired", "degraded"]

FLOW_NETWORKS = ("correlation-flow", "spynet")
"""Values of `Recipe.model` that train the flow network that the video networks contain, alone."""
PREVIOUS = "previous"
"""Value of `Stage.start_from` that begins with the weights that the stage before it ended with."""

# Options of each loss and the type of each. Those that are left out have the defaults of the loss (losses.py).
LOSS_OPTIONS: Mapping[LossKind, Mapping[str, type]] = {
    "l1": {},
    "charbonnier": {"eps": float, "reduction": str},
    "contrastive": {"extractor": str, "channels": int, "layer_weights": tuple, "eps": float, "seed": int, "weights": str},
    "perceptual": {"layers": tuple, "layer_weights": tuple, "weights": str},
    "gan": {},
    "endpoint_error": {},
}


def _check(claim: bool, subject: str, happened: str, advice: str) -> None:
    if not claim:
        raise UsageError(subject, happened, advice)


def _check_least(value: object, least: float, *names: str) -> None:
    """Each named field of the dataclass `value` is at least `least`."""
    for name in names:
        number = getattr(value, name)
        _check(number >= least, fields.described(value), f"{name} is {number}", f"use a number of {least:g} or more")


@dataclass(frozen=True)
class ParameterGroup:
    """Parameters that are trained at a rate of their own, or not from the beginning, or never."""

    names: tuple[str, ...]
    """A parameter belongs here if one of these is a part of its name, as "spynet" is of "spynet.basic_module.0.weight".
    It belongs to the first group that matches."""
    learning_rate_multiplier: float = 1.0
    """Times the optimiser's `learning_rate`. The schedule's `final_learning_rate` is not multiplied."""
    frozen_until: int | None = 0
    """Step of the stage (0-based) from which they are trained; until then they keep their values and their optimiser has
    no state. None: never."""

    def __post_init__(self) -> None:
        _check(bool(self.names), "parameter group", "names is empty", "name a part of a parameter's name")
        _check_least(self, 0, "learning_rate_multiplier")
        if self.frozen_until is not None:
            _check_least(self, 0, "frozen_until")


@dataclass(frozen=True)
class Optimiser:
    """Adam or Muon, for a network or a discriminator."""

    method: Literal["adam", "muon"] = "adam"
    """"muon" brings the singular values of each step of a weight between channels to about one (Jordan et al. 2024), and
    leaves all other parameters to Adam; `betas` and `eps` are theirs."""
    learning_rate: float = 1e-3
    """Peak of the schedule."""
    betas: tuple[float, float] = (0.9, 0.999)
    """Decays of the averages of the gradient and of its square."""
    eps: float = 1e-8
    """Added to the root of the averaged square."""
    weight_decay: float = 0.0
    """L2 penalty added to the gradient, as in Adam; not decoupled."""
    groups: tuple[ParameterGroup, ...] = ()
    """Exceptions; all other parameters are trained at `learning_rate` from the first step."""

    def __post_init__(self) -> None:
        _check_least(self, 0, "learning_rate", "eps", "weight_decay")


@dataclass(frozen=True)
class LossTerm:
    """One addend of the loss."""

    kind: LossKind
    """"l1", "charbonnier", "contrastive" (RLFN's, negative: the input enlarged bicubically), "perceptual" (VGG-19), "gan"
    (the generator's side; the stage needs a `discriminator`), "endpoint_error" (of flows)."""
    weight: float = 1.0
    """Factor in the sum."""
    on: Literal["output", "cleaned"] = "output"
    """The result to compare with the target: the network's output, or the cleaned low-resolution clip of a network that
    cleans first; its target is then the ground truth reduced to that size by area averaging."""
    target: Literal["gt", "sharpened"] = "gt"
    """The ground truth, or the ground truth after the stage's `sharpening`."""
    options: Mapping[str, Scalar] = field(default_factory=dict)
    """Arguments of the loss by name (`LOSS_OPTIONS`): eps, reduction ("mean" or "sum"), layers, weights (a file) …"""

    def __post_init__(self) -> None:
        fields.check_options(self.options, LOSS_OPTIONS[self.kind], subject=f"loss {self.kind}")
        object.__setattr__(self, "options", dict(self.options))  # the caller may change theirs


@dataclass(frozen=True)
class Discriminator:
    """The spectral-norm U-Net that a "gan" loss plays against, and how it is trained."""

    optimiser: Optimiser = Optimiser(learning_rate=1e-4, betas=(0.9, 0.99))
    """Of the discriminator."""
    schedule: Schedule = field(default_factory=Schedule)
    """Of its learning rate."""
    channels: int = 64
    """Width of its first layer."""
    start_from: str | None = None
    """Its weights file; None for fresh weights, or those of the stage before if that had a discriminator and
    the stage starts from it."""

    def __post_init__(self) -> None:
        _check_least(self, 1, "channels")


@dataclass(frozen=True)
class Sharpening:
    """Unsharp mask on the ground truth, on the 0 to 255 scale: gt + weight·(gt - blurred) where that differs by more than
    `threshold`, with a soft border."""

    kernel_px: int = 51
    """Side of the Gaussian kernel; odd."""
    sigma_px: float = 0.0
    """Standard deviation of the Gaussian; 0 derives it from the side: 0.3·((kernel_px - 1)/2 - 1) + 0.8."""
    weight: float = 0.5
    """Share of the difference that is added."""
    threshold: float = 10.0
    """On the 0 to 255 scale."""

    def __post_init__(self) -> None:
        _check(self.kernel_px % 2 == 1, "sharpening", f"kernel_px is {self.kernel_px}", "use an odd number")


@dataclass(frozen=True)
class DataRecipe:
    """The kind of a training sample, and how it is made. The folders are given when the recipe is run."""

    kind: DataKind = "photos"
    """"photos": single pictures. "clips": folders of frames or video files. "motion": two views of one photo under a random
    smooth motion whose flow is known exactly; the target is the flow."""
    low_quality: LowQuality = "bicubic"
    """Where the network's input comes from. "bicubic": MATLAB-exact reduction of the ground truth, rounded to 8 bits. "bd":
    Gaussian blur of 1.6 px and subsampling. "paired": a second folder beside the ground truth. "degraded": made by
    `degradation` from the ground truth."""
    patch_px: int = 48
    """Side of the patch given to the network; the ground truth is `scale` times as large."""
    clip_frames: int = 1
    """Frames given to the network at once; 1 for photos, whose samples then have no time axis."""
    mirrored: bool = False
    """Whether only the first half of the `clip_frames` frames are read and the other half is their reverse. With "degraded"
    both halves are degraded, differently: RealBasicVSR's stochastic degradation scheme."""
    intervals: tuple[int, ...] = (1,)
    """Distances in time between neighbouring frames of a clip; one is drawn for each clip."""
    hflip: bool = True
    """Whether samples are mirrored left to right with probability ½."""
    vflip: bool = True
    """Whether samples are mirrored top to bottom with probability ½."""
    transpose: bool = True
    """Whether rows and columns change places with probability ½. All three: each of the eight poses is equally likely, which
    is what "flip and rotate by 90°" means elsewhere."""
    time_reversal: bool = False
    """Whether clips are reversed in time with probability ½."""
    exclude: tuple[str, ...] = ()
    """Glob patterns of photos, or of clips, to leave out."""
    reductions: tuple[int, ...] = (1,)
    """Whole factors by which photos are reduced before patches are cut: (1, 2) takes each as it is and at half its size,
    where the same scene is crisper. For "bicubic", "bd" and "degraded" photos."""
    draws: int = 1
    """Places that are drawn for each patch; the one whose ground truth has the most detail is taken, since flat sky teaches
    little. Not for "motion"."""
    degradation: str | None = None
    """Name of a preset of `degrade.py`, for "degraded"."""

    def __post_init__(self) -> None:
        _check_least(self, 1, "patch_px", "clip_frames", "draws")
        _check(bool(self.intervals) and min(self.intervals) >= 1, "data", f"intervals are {self.intervals}", "use 1 or more")
        advice = "name a preset for degraded data, and none for other data"
        _check((self.low_quality == "degraded") == (self.degradation is not None), "data", "degradation does not fit", advice)
        _check(self.kind == "clips" or self.clip_frames == 1, "data", "photos have one frame", "use clip_frames=1")
        reductions = self.reductions
        _check(bool(reductions) and min(reductions) >= 1, "data", f"reductions are {reductions}", "use 1 or more")
        plain = self.kind == "photos" and self.low_quality != "paired"
        _check(reductions == (1,) or plain, "data", "reductions are of single photographs", "leave reductions at 1")
        _check(self.draws == 1 or self.kind != "motion", "data", "motion takes the first draw", "leave draws at 1")
        odd = self.mirrored and self.clip_frames % 2 == 1
        _check(not odd, "data", f"{self.clip_frames} frames cannot be a mirrored half", "use an even clip_frames")

    @property
    def frames_read(self) -> int:
        """Frames of the file that one sample takes."""
        return self.clip_frames // 2 if self.mirrored else self.clip_frames


@dataclass(frozen=True)
class SpikeGuard:
    """Reaction to a loss that leaps or is not finite: back to the last good state, and on at a lower rate."""

    factor: float = 5.0
    """A loss above this many times the median of the last `window` losses is a spike."""
    window: int = 100
    """Steps; no finite loss is taken for a spike before as many were seen."""
    rate_multiplier: float = 0.5
    """The learning rates of the rest of the stage are multiplied by this at each roll-back."""
    max_rollbacks: int = 5
    """One more ends the run with an error; 0 turns rolling back off, and then only a loss that is not finite is an error."""

    def __post_init__(self) -> None:
        _check(self.factor > 1, "guard", f"factor is {self.factor}", "use a number above 1")
        _check(0 < self.rate_multiplier <= 1, "guard", f"rate_multiplier is {self.rate_multiplier}", "use 0 to 1")
        _check_least(self, 1, "window")
        _check_least(self, 0, "max_rollbacks")


@dataclass(frozen=True)
class ActivationCheckpointing:
    """Which parts of a transformer are computed again in the backward pass instead of kept: less memory, more time."""

    attention: bool = False
    """Of all stages of the network."""
    feed_forward: bool = False
    """Of all stages of the network."""
    except_stages: tuple[int, ...] = ()
    """Indices of the network's stages whose attention is kept all the same."""


@dataclass(frozen=True)
class Stage:
    """One run of the optimiser from its first to its last step."""

    name: str = field(metadata={"one_stage": True})
    """Names the checkpoint of its end, `stages/NAME.pth`, and the stage in `--set stages.NAME.field=value`."""
    steps: int
    """Optimiser steps."""
    losses: tuple[LossTerm, ...] = (LossTerm("l1"),)
    """Added up with their weights."""
    data: DataRecipe = DataRecipe()
    """Training data."""
    batch: int = 16
    """Samples of one optimiser step, over all processes and accumulated parts."""
    accumulation: int = 1
    """Parts, one after the other, in which each process runs its share of a batch; they save memory and change nothing
    but rounding, save for the contrastive loss, whose quotient is taken of each part by itself."""
    optimiser: Optimiser = Optimiser()
    """Of the network."""
    schedule: Schedule = field(default_factory=Schedule)
    """Of the network's learning rate."""
    discriminator: Discriminator | None = None
    """For a "gan" loss."""
    sharpening: Sharpening | None = None
    """For losses whose target is "sharpened"."""
    start_from: str | None = field(default=None, metadata={"one_stage": True})
    """Weights to begin with: "previous" for those the stage before ended with, or the path of a weights file or checkpoint.
    Averaged weights are taken where there are any, unless the optimiser is kept. Parameters whose shapes differ (the
    upsampler of another scale) start afresh. None: fresh weights."""
    keep_optimiser: bool = field(default=False, metadata={"one_stage": True})
    """Whether the optimiser's state comes with the weights of `start_from`; else it starts afresh."""
    ema_decay: float | None = 0.999
    """Decay of the averaged weights, which are the ones that are validated and shipped; None: no average."""
    ema_warmup: bool = True
    """Whether the average follows quickly at first, with decay min(ema_decay, (1 + step)/(10 + step)): a fixed one remembers
    the random start for thousands of steps."""
    precision: Precision = "fp32"
    """Arithmetic of the forward and backward pass; parameters and optimiser are always float32."""
    fp32_tail_steps: int = 0
    """Last steps that run in float32 whatever `precision` says, to take out the rounding of reduced precision."""
    clip_grad_norm: float | None = None
    """Largest norm of the network's whole gradient; None: not limited."""
    guard: SpikeGuard = SpikeGuard()
    """Against losses that leap."""
    channels_last: bool = False
    """Whether convolutions of photos run in channels-last memory order; changes nothing but speed and rounding."""
    compile: bool = False
    """Whether the network runs through torch.compile."""
    activation_checkpointing: ActivationCheckpointing | None = None
    """For networks that offer it; None: everything is kept."""

    def __post_init__(self) -> None:
        subject = f"stage {self.name}"
        named = re.fullmatch(r"[a-z0-9][a-z0-9_-]*", self.name) is not None and not self.name.isdigit()
        _check(named, subject, "is no name of a stage", "use small letters, digits, - and _, not digits alone")
        _check_least(self, 1, "steps", "batch", "accumulation")
        _check_least(self, 0, "fp32_tail_steps")
        uneven = self.batch % self.accumulation != 0
        _check(not uneven, subject, f"batch {self.batch} has no {self.accumulation} equal parts", "change accumulation")
        _check(bool(self.losses), subject, "has no losses", "add one")
        _check(self.ema_decay is None or 0 <= self.ema_decay < 1, subject, f"ema_decay is {self.ema_decay}", "use 0 to 1")
        plays = any(term.kind == "gan" for term in self.losses)
        _check(plays == (self.discriminator is not None), subject, "gan and discriminator come together", "add the other")
        sharpens = any(term.target == "sharpened" for term in self.losses)
        _check(not sharpens or self.sharpening is not None, subject, "has sharpened targets and no sharpening", "add it")
        advice = "say where the state comes from"
        _check(not self.keep_optimiser or self.start_from is not None, subject, "keeps the optimiser of nothing", advice)

    def learning_rate_at(self, step: int, *, multiplier: float = 1.0, steps_before: int = 0) -> float:
        """The network's rate at the stage's optimiser step `step` (0-based).

        Args:
            multiplier: Of a group: `learning_rate_multiplier`.
            steps_before: As for `schedule.learning_rate_at`.
        """
        peak = self.optimiser.learning_rate * multiplier
        return learning_rate_at(self.schedule, step, peak=peak, steps=self.steps, steps_before=steps_before)


@dataclass(frozen=True)
class Cadence:
    """How often something is written, in optimiser steps. Changes nothing that is trained."""

    validate_every: int = 0
    """0 validates at the end of each stage only."""
    checkpoint_every: int = 1000
    """Between two checkpoints."""
    log_every: int = 100
    """Between two lines of the log."""

    def __post_init__(self) -> None:
        _check_least(self, 0, "validate_every")
        _check_least(self, 1, "checkpoint_every", "log_every")


@dataclass(frozen=True)
class Recipe:
    """A network to train, and how to train it. Saved, resolved, beside and inside each checkpoint."""

    name: str
    """Its name in messages."""
    model: str
    """Name in `MODELS`, or "correlation-flow" or "spynet": a flow network alone, on "motion"."""
    stages: tuple[Stage, ...]
    """One after the other."""
    model_options: Mapping[str, Scalar] = field(default_factory=dict)
    """Arguments of the network that differ from those of `model`: {"channels": 32}."""
    flow_weights: str | None = None
    """Weights file of the flow network inside the network, read before the first stage; None: fresh ones, or those that
    come with `start_from`."""
    protocol: str | None = None
    """Under which scores are taken while training, as `upframe evaluate --protocol`; None for flow networks."""
    seed: int = 1
    """Of fresh weights, samples and degradations."""
    cadence: Cadence = Cadence()
    """How often something is written."""

    def __post_init__(self) -> None:
        subject = f"recipe {self.name}"
        _check(bool(self.stages), subject, "has no stages", "add one")
        names = [stage.name for stage in self.stages]
        _check(len(set(names)) == len(names), subject, f"stages {', '.join(names)} are not all different", "rename one")
        previous = self.stages[0].start_from == PREVIOUS
        _check(not previous, subject, "its first stage starts from the previous one", "name a file or nothing")
        _check_least(self, 0, "seed")
        object.__setattr__(self, "model_options", dict(self.model_options))

    @property
    def steps(self) -> int:
        """Optimiser steps of all stages."""
        return sum(stage.steps for stage in self.stages)

    def override(self, changes: Mapping[str, str]) -> Recipe:
        """This recipe with fields replaced by values given as text (`--set path=value`).

        A path is a full one, `stages.gan.optimiser.learning_rate` with stages and losses by name or number, or the end of
        one: `steps`, `patch_px`, `optimiser.learning_rate`. An end that fits a place in each stage is set in all of them.

        Raises:
            UsageError: for a path that fits nothing (with the nearest) or several different things, and for a value of
                another type or out of range.
        """
        return fields.override(self, changes)

    def same_training(self, other: Recipe) -> list[str]:
        """Paths of the fields that decide what is trained and differ; empty if a run of one may go on as the other."""
        aside = dataclasses.replace(other, cadence=self.cadence)
        return fields.differing(self, aside)

    def to_json(self) -> str:
        return json.dumps(fields.to_plain(self), indent=1)

    @staticmethod
    def from_json(text: str) -> Recipe:
        """The recipe that `to_json` wrote.

        Raises:
            UsageError: unknown or missing fields, values of another type.
        """
        try:
            plain: Any = json.loads(text)
        except json.JSONDecodeError as error:
            raise UsageError("recipe", f"is not JSON ({error})", "use a file that upframe train wrote") from error
        return fields.from_plain(Recipe, plain, subject="recipe")


def model_spec(recipe: Recipe) -> ModelSpec:
    """The network to be trained, with the recipe's `model_options`; its `build` makes it with fresh weights.

    Raises:
        UsageError: for an unknown model, or options that the network does not take.
    """
    # These bring torch, which reading and listing recipes does not need.
    import torch

    from upframe.models.networks import ARCHITECTURES, MODELS

    if recipe.model in FLOW_NETWORKS:
        return _flow_spec(recipe)
    if recipe.model not in MODELS:
        raise UsageError(
            f"recipe {recipe.name}",
            f"there is no model {recipe.model} in this version",
            fields.did_you_mean(recipe.model, MODELS),
        )
    spec = MODELS[recipe.model]
    if not recipe.model_options:
        return spec
    fields.check_arguments(spec.build, recipe.model_options, subject=f"recipe {recipe.name}")
    build = partial(spec.build, **recipe.model_options)
    architecture = next(one for one in ARCHITECTURES if one.family == spec.family)
    try:
        with torch.device("meta"):
            shapes = {name: tuple(value.shape) for name, value in build().state_dict().items()}
        made = architecture.spec_for(**architecture.configuration(shapes))
    except (LookupError, RuntimeError, TypeError, ValueError) as error:
        happened = f"{recipe.model} cannot be built with its model_options ({error})"
        raise UsageError(f"recipe {recipe.name}", happened, "change them") from error
    return dataclasses.replace(made, build=build)  # which also has what leaves no trace in the parameters


def _flow_spec(recipe: Recipe) -> ModelSpec:
    """A flow network as a model: two pictures go in and a flow of their size comes out, nothing is enlarged or tiled."""
    from upframe.models.architectures._correlation_flow import CorrelationFlow
    from upframe.models.architectures._flow import SPyNet

    is_ours = recipe.model == "correlation-flow"
    build: Callable[..., Any] = CorrelationFlow if is_ours else SPyNet
    fields.check_arguments(build, recipe.model_options, subject=f"recipe {recipe.name}")
    return ModelSpec(
        name=recipe.model,
        family=(CorrelationFlow if is_ours else SPyNet).__name__,
        build=partial(build, **recipe.model_options),
        scale=1,
        halo_px=0,
        exact_halo_px=None,
        tiling="never",
        paper=(
            "Sun et al.: PWC-Net, CVPR 2018, arXiv 1709.02371"
            if is_ours
            else "Ranjan, Black: Optical Flow Estimation using a Spatial Pyramid Network, CVPR 2017, arXiv 1611.00850"
        ),
        licence="Apache-2.0" if is_ours else "non-commercial research only, no redistribution",
    )
