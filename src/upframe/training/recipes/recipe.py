"""A recipe: everything that decides how a network is trained, as one frozen value.

    Recipe ── stages: Stage ── data: DataRecipe
                            ── optimiser: Optimiser ── groups: ParameterGroup
                            ── schedule: Schedule (schedule.py)
                            ── losses: LossTerm
                            ── discriminator: Discriminator | None
                            ── guard: SpikeGuard
              cadence: Cadence   (how often a run writes; does not affect training)

A recipe contains no paths of data; the run receives them. docs/training.md explains fields and `--set` paths; `fields.py`
converts text and JSON to values.
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
from upframe.files import parsed_json
from upframe.models.spec import ModelSpec, Precision
from upframe.training.recipes import fields
from upframe.training.recipes.fields import Scalar
from upframe.training.recipes.schedule import Schedule, learning_rate_at

LossKind = Literal["l1", "charbonnier", "contrastive", "perceptual", "artefacts", "gan", "endpoint_error"]
DataKind = Literal["photos", "clips", "motion"]
LowQuality = Literal["bicubic", "bd", "paired", "degraded"]

FLOW_NETWORKS = ("correlation-flow", "spynet")
"""Values of `Recipe.model` that train only the flow network of a video network."""
PREVIOUS = "previous"
"""The value of `Stage.start_from` that begins with the final weights of the previous stage."""

# Options of each loss and their types. Options that a recipe does not set have the defaults of the loss (losses/build.py).
LOSS_OPTIONS: Mapping[LossKind, Mapping[str, type]] = {
    "l1": {},
    "charbonnier": {"eps": float, "reduction": str},
    "contrastive": {"extractor": str, "channels": int, "layer_weights": tuple, "eps": float, "seed": int, "weights": str},
    "perceptual": {"layers": tuple, "layer_weights": tuple, "weights": str},
    "artefacts": {"window_px": int},
    "gan": {},
    "endpoint_error": {},
}


def _check(claim: bool, subject: str, happened: str, advice: str) -> None:
    if not claim:
        raise UsageError(subject, happened, advice)


def _check_least(value: object, least: float, *names: str) -> None:
    """Raise UsageError unless each named field of the dataclass `value` is at least `least`."""
    for name in names:
        number = getattr(value, name)
        _check(number >= least, fields.described(value), f"{name} is {number}", f"use a number of {least:g} or more")


@dataclass(frozen=True)
class ParameterGroup:
    """Parameters with their own learning rate, or frozen for a while or for ever."""

    names: tuple[str, ...]
    """A parameter belongs to this group if its name contains one of these: "spynet" matches "spynet.basic_module.0.weight".
    The first matching group counts."""
    learning_rate_multiplier: float = 1.0
    """Factor of the optimiser's `learning_rate`. It does not apply to the schedule's `final_learning_rate`."""
    frozen_until: int | None = 0
    """First step of the stage (0-based) that trains these parameters. Until then they keep their values and have no state
    in the optimiser. None: never."""

    def __post_init__(self) -> None:
        _check(bool(self.names), "parameter group", "names is empty", "name a part of a parameter's name")
        _check_least(self, 0, "learning_rate_multiplier")
        if self.frozen_until is not None:
            _check_least(self, 0, "frozen_until")


@dataclass(frozen=True)
class Optimiser:
    """Adam or Muon, for a network or a discriminator."""

    method: Literal["adam", "muon"] = "adam"
    """Adam, or "muon": it brings the singular values of each step of a weight between channels to about one (Jordan et al.
    2024) and trains all other parameters by Adam, with `betas` and `eps`."""
    learning_rate: float = 1e-3
    """Peak of the schedule."""
    betas: tuple[float, float] = (0.9, 0.999)
    """Decay of the average of the gradient, and of the average of its square."""
    eps: float = 1e-8
    """Number added to the root of the averaged square."""
    weight_decay: float = 0.0
    """L2 penalty added to the gradient, as in Adam (not decoupled as in AdamW)."""
    groups: tuple[ParameterGroup, ...] = ()
    """Exceptions. All other parameters train at `learning_rate` from the first step."""

    def __post_init__(self) -> None:
        _check_least(self, 0, "learning_rate", "eps", "weight_decay")


@dataclass(frozen=True)
class LossTerm:
    """One term of the loss."""

    kind: LossKind
    """"l1", "charbonnier", "contrastive" (RLFN's; the negative is the bicubic enlargement of the input), "perceptual"
    (VGG-19 or EfficientNet-Lite0), "artefacts" (the error where it varies), "gan" (the generator's loss; the stage needs a
    `discriminator`) or "endpoint_error" (for flows)."""
    weight: float = 1.0
    """Factor of this term in the sum."""
    on: Literal["output", "cleaned"] = "output"
    """Picture to compare with the target: the network's output, or the cleaned low-resolution clip of a network that cleans
    first. For "cleaned", the target is the ground truth reduced to that size by area averaging."""
    target: Literal["gt", "sharpened"] = "gt"
    """Ground truth ("gt"), or the ground truth after the stage's `sharpening`."""
    options: Mapping[str, Scalar] = field(default_factory=dict)
    """Arguments of the loss by name (`LOSS_OPTIONS`), such as eps, reduction ("mean" or "sum"), layers, weights (a file)."""

    def __post_init__(self) -> None:
        fields.check_options(self.options, LOSS_OPTIONS[self.kind], subject=f"loss {self.kind}")
        object.__setattr__(self, "options", dict(self.options))  # a copy, because the caller may change its mapping


@dataclass(frozen=True)
class Discriminator:
    """The spectral-norm U-Net of a "gan" loss, and its training."""

    optimiser: Optimiser = Optimiser(learning_rate=1e-4, betas=(0.9, 0.99))
    """Optimiser of the discriminator."""
    schedule: Schedule = field(default_factory=Schedule)
    """Schedule of its learning rate."""
    channels: int = 64
    """Width of its first layer."""
    start_from: str | None = None
    """Its weights file. None: the weights of the previous stage's discriminator if this stage starts from that stage, else
    fresh weights."""

    def __post_init__(self) -> None:
        _check_least(self, 1, "channels")


@dataclass(frozen=True)
class Sharpening:
    """Unsharp mask of the ground truth, on the 0 to 255 scale: gt + weight·(gt - blurred) where the difference exceeds
    `threshold`, with a soft border."""

    kernel_px: int = 51
    """Side of the Gaussian kernel; odd."""
    sigma_px: float = 0.0
    """Standard deviation of the Gaussian. 0 derives it from the side: 0.3·((kernel_px - 1)/2 - 1) + 0.8."""
    weight: float = 0.5
    """Factor of the added difference."""
    threshold: float = 10.0
    """Least difference that is sharpened, on the 0 to 255 scale."""

    def __post_init__(self) -> None:
        _check(self.kernel_px % 2 == 1, "sharpening", f"kernel_px is {self.kernel_px}", "use an odd number")


@dataclass(frozen=True)
class DataRecipe:
    """How a training sample is made. The run receives the folders."""

    kind: DataKind = "photos"
    """"photos": single pictures. "clips": folders of frames, or video files. "motion": two views of one photo under a random
    smooth motion with exactly known flow; the target is the flow."""
    low_quality: LowQuality = "bicubic"
    """Source of the network's input. "bicubic": MATLAB-exact reduction of the ground truth, rounded to 8 bits. "bd":
    Gaussian blur of 1.6 px and subsampling. "paired": a second folder beside the ground truth, degraded further if a
    `degradation` is named. "degraded": `degradation` makes it from the ground truth."""
    patch_px: int = 48
    """Side of the network's input patch. The side of the ground truth is `scale` times as long."""
    clip_frames: int = 1
    """Frames in one input of the network. 1 for photos, whose samples have no time axis."""
    mirrored: bool = False
    """Whether a sample reads half of `clip_frames` frames and appends them in reverse. With "degraded", both halves get
    different degradations: RealBasicVSR's stochastic degradation scheme."""
    intervals: tuple[int, ...] = (1,)
    """Possible distances between neighbouring frames of a sample, in frames. Each clip draws one of them."""
    hflip: bool = True
    """Whether samples are mirrored left to right with probability ½."""
    vflip: bool = True
    """Whether samples are mirrored top to bottom with probability ½."""
    transpose: bool = True
    """Whether rows and columns are swapped with probability ½. With `hflip` and `vflip`, each of the eight poses is equally
    likely; elsewhere this is called "flip and rotate by 90°"."""
    time_reversal: bool = False
    """Whether clips are reversed in time with probability ½."""
    exclude: tuple[str, ...] = ()
    """Glob patterns of photos or clips to exclude."""
    reductions: tuple[int, ...] = (1,)
    """Whole factors by which photos are reduced before patches are cut. (1, 2) uses each photo at full size and at half size,
    where the same scene is sharper. For "bicubic", "bd" and "degraded" photos."""
    draws: int = 1
    """Positions drawn for each patch. The one with the most detail in its ground truth is used, because flat areas teach
    little. Not for "motion"."""
    degradation: str | None = None
    """Name in `DEGRADATIONS` (`degradations/pipeline.py`), for "degraded" and, if wished, "paired"."""

    def __post_init__(self) -> None:
        _check_least(self, 1, "patch_px", "clip_frames", "draws")
        _check(bool(self.intervals) and min(self.intervals) >= 1, "data", f"intervals are {self.intervals}", "use 1 or more")
        fits = self.low_quality in ("degraded", "paired") if self.degradation else self.low_quality != "degraded"
        advice = "name a preset for degraded data, and none for bicubic and bd"
        _check(fits, "data", "degradation does not fit", advice)
        _check(self.kind == "clips" or self.clip_frames == 1, "data", "photos have one frame", "use clip_frames=1")
        reductions = self.reductions
        _check(bool(reductions) and min(reductions) >= 1, "data", f"reductions are {reductions}", "use 1 or more")
        plain = self.kind == "photos" and self.low_quality != "paired"
        _check(reductions == (1,) or plain, "data", "reductions need unpaired photos", "keep reductions at 1")
        _check(self.draws == 1 or self.kind != "motion", "data", "motion does not support draws", "keep draws at 1")
        odd = self.mirrored and self.clip_frames % 2 == 1
        _check(not odd, "data", f"mirrored needs an even number of frames, not {self.clip_frames}", "use an even clip_frames")

    @property
    def frames_read(self) -> int:
        """Frames of the file that one sample reads."""
        return self.clip_frames // 2 if self.mirrored else self.clip_frames


@dataclass(frozen=True)
class SpikeGuard:
    """Return to the last good state and continue at a lower rate, if the loss jumps or is not finite."""

    factor: float = 5.0
    """A loss is a spike if it exceeds this factor times the median of the last `window` losses."""
    window: int = 100
    """Number of steps in the median. No finite loss counts as a spike before this many steps."""
    rate_multiplier: float = 0.5
    """Factor by which each roll-back multiplies the learning rates of the rest of the stage."""
    max_rollbacks: int = 5
    """Most roll-backs; one more ends the run with an error. 0 disables roll-backs, and only a loss that is not finite is an
    error."""

    def __post_init__(self) -> None:
        _check(self.factor > 1, "guard", f"factor is {self.factor}", "use a number above 1")
        _check(0 < self.rate_multiplier <= 1, "guard", f"rate_multiplier is {self.rate_multiplier}", "use 0 to 1")
        _check_least(self, 1, "window")
        _check_least(self, 0, "max_rollbacks")


@dataclass(frozen=True)
class ActivationCheckpointing:
    """Parts of a transformer that the backward pass computes again instead of keeping them: less memory, more time."""

    attention: bool = False
    """Whether the attention of all network stages is computed again."""
    feed_forward: bool = False
    """Whether the feed-forward layers of all network stages are computed again."""
    except_stages: tuple[int, ...] = ()
    """Indices of network stages whose attention is kept."""


@dataclass(frozen=True)
class Stage:
    """One run of the optimiser, from its first to its last step."""

    name: str = field(metadata={"one_stage": True})
    """Name of the stage in its final checkpoint, `stages/NAME.pth`, and in `--set stages.NAME.field=value`."""
    steps: int
    """Number of optimiser steps."""
    losses: tuple[LossTerm, ...] = (LossTerm("l1"),)
    """Terms of the loss, summed with their weights."""
    data: DataRecipe = DataRecipe()
    """Training samples."""
    batch: int = 16
    """Samples in one optimiser step, over all processes and accumulated parts."""
    accumulation: int = 1
    """Number of parts into which each process divides its share of a batch, to save memory. Only rounding changes, and the
    contrastive loss, which takes its quotient over each part."""
    optimiser: Optimiser = Optimiser()
    """Optimiser of the network."""
    schedule: Schedule = field(default_factory=Schedule)
    """Schedule of the network's learning rate."""
    discriminator: Discriminator | None = None
    """Discriminator of a "gan" loss."""
    sharpening: Sharpening | None = None
    """Sharpening of the ground truth, for losses with the target "sharpened"."""
    start_from: str | None = field(default=None, metadata={"one_stage": True})
    """First weights: "previous" for the final weights of the previous stage, or the path of a weights file or checkpoint.
    Averaged weights are preferred, unless `keep_optimiser` is set. Parameters with other shapes (the upsampler of another
    scale) start fresh. None: fresh weights."""
    keep_optimiser: bool = field(default=False, metadata={"one_stage": True})
    """Whether the optimiser also keeps its state from `start_from`; otherwise it starts fresh."""
    ema_decay: float | None = 0.999
    """Decay of the averaged weights, which are validated and shipped. None: no average."""
    ema_warmup: bool = True
    """Whether the decay is min(ema_decay, (1 + step)/(10 + step)), so that the average follows quickly at first. A fixed decay
    would remember the random start for thousands of steps."""
    precision: Precision = "fp32"
    """Arithmetic of the forward and backward pass. Parameters and optimiser are always float32."""
    fp32_tail_steps: int = 0
    """Number of last steps in float32, whatever `precision` is, to remove the rounding of reduced precision."""
    clip_grad_norm: float | None = None
    """Largest norm of the network's whole gradient. None: no limit."""
    guard: SpikeGuard = SpikeGuard()
    """Guard against spikes of the loss."""
    channels_last: bool = False
    """Whether convolutions of photos use channels-last memory order. This changes only speed and rounding."""
    compile: bool = False
    """Whether the network runs through torch.compile."""
    activation_checkpointing: ActivationCheckpointing | None = None
    """For networks that support it. None: the backward pass keeps everything."""

    def __post_init__(self) -> None:
        subject = f"stage {self.name}"
        named = re.fullmatch(r"[a-z0-9][a-z0-9_-]*", self.name) is not None and not self.name.isdigit()
        _check(named, subject, "is not a valid name of a stage", "use lower-case letters, digits, - and _, not only digits")
        _check_least(self, 1, "steps", "batch", "accumulation")
        _check_least(self, 0, "fp32_tail_steps")
        uneven = self.batch % self.accumulation != 0
        _check(not uneven, subject, f"batch {self.batch} is no multiple of accumulation {self.accumulation}", "change one")
        _check(bool(self.losses), subject, "has no losses", "add one")
        _check(self.ema_decay is None or 0 <= self.ema_decay < 1, subject, f"ema_decay is {self.ema_decay}", "use 0 to 1")
        plays = any(term.kind == "gan" for term in self.losses)
        _check(plays == (self.discriminator is not None), subject, "needs both a gan loss and a discriminator", "add the other")
        sharpens = any(term.target == "sharpened" for term in self.losses)
        _check(not sharpens or self.sharpening is not None, subject, "has sharpened targets but no sharpening", "add it")
        advice = "set start_from, or keep_optimiser=false"
        _check(not self.keep_optimiser or self.start_from is not None, subject, "has keep_optimiser without start_from", advice)

    def learning_rate_at(self, step: int, *, multiplier: float = 1.0, steps_before: int = 0) -> float:
        """Return the network's learning rate at the stage's optimiser step `step` (0-based).

        Args:
            multiplier: The `learning_rate_multiplier` of a group.
            steps_before: As for `schedule.learning_rate_at`.
        """
        peak = self.optimiser.learning_rate * multiplier
        return learning_rate_at(self.schedule, step, peak=peak, steps=self.steps, steps_before=steps_before)


@dataclass(frozen=True)
class Cadence:
    """How often a run validates and writes, in optimiser steps. It does not affect training."""

    validate_every: int = 0
    """Steps between two validations. 0: only at the end of each stage."""
    checkpoint_every: int = 1000
    """Steps between two checkpoints."""
    log_every: int = 100
    """Steps between two lines of the log."""

    def __post_init__(self) -> None:
        _check_least(self, 0, "validate_every")
        _check_least(self, 1, "checkpoint_every", "log_every")


@dataclass(frozen=True)
class Recipe:
    """A network and its training. Every checkpoint contains the complete recipe, and a file beside it too."""

    name: str
    """Name of the recipe in messages."""
    model: str
    """Name in `MODELS`; or "correlation-flow" or "spynet", a flow network alone, for "motion"."""
    stages: tuple[Stage, ...]
    """Stages, in order."""
    model_options: Mapping[str, Scalar] = field(default_factory=dict)
    """Arguments of the network that differ from those of `model`, such as {"channels": 32}."""
    flow_weights: str | None = None
    """Weights file of the flow network inside the network, read before the first stage. None: the weights of `start_from`,
    else fresh weights."""
    trunk_weights: str | None = None
    """Weights file of the network for photos inside a video network, its trunk, read likewise. None: as `flow_weights`."""
    protocol: str | None = None
    """Protocol of the scores during training, as in `upframe evaluate --protocol`. None for flow networks."""
    seed: int = 1
    """Seed of fresh weights, samples and degradations."""
    cadence: Cadence = Cadence()
    """How often the run validates and writes."""

    def __post_init__(self) -> None:
        subject = f"recipe {self.name}"
        _check(bool(self.stages), subject, "has no stages", "add one")
        names = [stage.name for stage in self.stages]
        _check(len(set(names)) == len(names), subject, f"stages {', '.join(names)} are not all different", "rename one")
        previous = self.stages[0].start_from == PREVIOUS
        _check(not previous, subject, "its first stage starts from the previous stage", "name a file, or none")
        _check_least(self, 0, "seed")
        object.__setattr__(self, "model_options", dict(self.model_options))

    @property
    def steps(self) -> int:
        """Number of optimiser steps in all stages."""
        return sum(stage.steps for stage in self.stages)

    def override(self, changes: Mapping[str, str]) -> Recipe:
        """Return this recipe with fields replaced by values in text (`--set path=value`).

        A path is complete, `stages.gan.optimiser.learning_rate` with stages and losses by name or number, or the end of a
        path: `steps`, `patch_px`, `optimiser.learning_rate`. An end that matches once in each stage sets all of them.

        Raises:
            UsageError: if a path matches nothing (the message names the nearest) or several different fields, or a value has
                another type or is out of range.
        """
        return fields.override(self, changes)

    def same_training(self, other: Recipe) -> list[str]:
        """Return the paths of differing fields that affect training; empty if a run of one recipe may resume as the other."""
        aside = dataclasses.replace(other, cadence=self.cadence)
        return fields.differing(self, aside)

    def to_json(self) -> str:
        return json.dumps(fields.to_plain(self), indent=1)

    @staticmethod
    def from_json(text: str) -> Recipe:
        """Return the recipe that `to_json` wrote.

        Raises:
            UsageError: if fields are unknown or missing, or values have another type.
        """
        try:
            plain: Any = parsed_json(text)
        except (ValueError, TypeError) as error:
            raise UsageError("recipe", f"is not JSON ({error})", "use a file that upframe train wrote") from error
        return fields.from_plain(Recipe, plain, subject="recipe")


def model_spec(recipe: Recipe) -> ModelSpec:
    """Return the spec of the recipe's network with its `model_options`; `build` makes it with fresh weights.

    Raises:
        UsageError: if the model is unknown, or the network does not take these options.
    """
    import torch  # reading and listing recipes does not need it

    from upframe.models.networks import MODELS, family_of

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
    family = family_of(spec)
    fields.check_arguments(family.network(), recipe.model_options, subject=f"recipe {recipe.name}")
    build = partial(spec.build, **recipe.model_options)
    try:
        with torch.device("meta"):
            shapes = {name: tuple(value.shape) for name, value in build().state_dict().items()}
        made = family.spec_for(**family.configuration(shapes))
    except (LookupError, RuntimeError, TypeError, ValueError) as error:
        happened = f"{recipe.model} cannot be built with its model_options ({error})"
        raise UsageError(f"recipe {recipe.name}", happened, "change them") from error
    return dataclasses.replace(made, build=build)  # options such as `frames` leave no trace in the shapes


def _flow_spec(recipe: Recipe) -> ModelSpec:
    """Return the spec of a flow network: two pictures in, a flow of their size out, without enlarging or tiling."""
    from upframe.models.architectures._correlation_flow import CorrelationFlow
    from upframe.models.architectures._flow import SPyNet

    is_own = recipe.model == "correlation-flow"
    build: Callable[..., Any] = CorrelationFlow if is_own else SPyNet
    fields.check_arguments(build, recipe.model_options, subject=f"recipe {recipe.name}")
    return ModelSpec(
        name=recipe.model,
        family=(CorrelationFlow if is_own else SPyNet).__name__,
        build=partial(build, **recipe.model_options),
        scale=1,
        halo_px=0,
        exact_halo_px=None,
        tiling="never",
        paper=(
            "Sun et al.: PWC-Net, CVPR 2018, arXiv 1709.02371"
            if is_own
            else "Ranjan, Black: Optical Flow Estimation using a Spatial Pyramid Network, CVPR 2017, arXiv 1611.00850"
        ),
        licence="Apache-2.0" if is_own else "non-commercial research only, no redistribution",
    )
