"""Recipes of upframe's own weights, for one small machine.

Times marked "estimated" were not measured on this recipe: they are the number of steps times the measured time of a step. One
GPU is many times faster. The photo networks were first trained by Adam. With Muon they learn far more in each step
(docs/training.md), so their recipes use Muon.

Data: photographs and clips under licences that allow upframe to distribute the weights. Share-alike files are excluded, so that
nobody can argue that such a term extends to the weights.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Literal

from upframe.training.recipes.fields import Scalar
from upframe.training.recipes.presets.realbasicvsr import GAN, PERCEPTUAL
from upframe.training.recipes.presets.rlfn import CONTRASTIVE, single_stage, warm_started
from upframe.training.recipes.recipe import (
    PREVIOUS,
    DataRecipe,
    Discriminator,
    LossTerm,
    Optimiser,
    ParameterGroup,
    Recipe,
    Stage,
)
from upframe.training.recipes.schedule import Schedule

SHARE_ALIKE = (
    "cid22_*",
    "lomiri_bridge_by_sander_klootwijk*",
    "lomiri_dragonfly_by_bolly*",
    "lomiri_kleiber_by_lukas_baubkus*",
    "dog_phone*",
)
"""Patterns of the photographs and clips in the project's training set with share-alike licences."""


def _photo_stage(
    steps: int,
    *,
    patch_px: int = 48,
    batch: int = 16,
    learning_rate: float = 1e-3,
    method: Literal["adam", "muon"] = "adam",
) -> Stage:
    """L1 under one cosine, in bfloat16 with a float32 tail, which is fast on CPUs with avx512_bf16 and on GPUs."""
    return Stage(
        name="main",
        steps=steps,
        data=DataRecipe(kind="photos", patch_px=patch_px, exclude=SHARE_ALIKE),
        batch=batch,
        optimiser=Optimiser(method, learning_rate=learning_rate, betas=(0.9, 0.99)),
        schedule=Schedule("cosine", warmup_steps=200, final_learning_rate=1e-6),
        ema_decay=0.999,
        precision="bf16",
        fp32_tail_steps=min(1000, steps),
        channels_last=True,
    )


def _photo(name: str, model: str, steps: int) -> Recipe:
    """Muon with a peak rate of 3e-3, on the more detailed of two positions for each patch, from photographs at full and half
    size."""
    stage = replace(_photo_stage(steps, learning_rate=3e-3, method="muon"), fp32_tail_steps=200)
    data = replace(stage.data, reductions=(1, 2), draws=2)
    return Recipe(name=name, model=model, stages=(replace(stage, data=data),), protocol="sisr-y")


def _distilled(name: str, model: str, steps: int) -> Recipe:
    """Muon with a peak rate of 1.5e-3, on pairs whose target is the output of a teacher.

    The teacher's output lacks what no network can know, so the gradients are less noisy than those of the photo itself. The
    pairs come from scripts/make_teacher_pairs.py, and those of patterns, whose mean a network learns from nothing else, from
    scripts/make_pattern_pairs.py.
    """
    stage = replace(_photo_stage(steps, learning_rate=1.5e-3, method="muon"), fp32_tail_steps=200)
    data = replace(stage.data, low_quality="paired", draws=2)
    return Recipe(name=name, model=model, stages=(replace(stage, data=data),), protocol="sisr-y")


def photo_x2_distilled() -> Recipe:
    """Continue `photo-x2` on pairs by the official RLFN ×2 (Apache-2.0), for the shipped `photo-x2`.

    Command: `upframe train photo-x2-distilled --data PAIRS/gt --data-lq PAIRS/lq --out runs/x2 --set
    start_from=runs/photo-x2/last.pth --set seed=102`. Estimated: 17 minutes of one CPU core with avx512_bf16 (40 patches a
    second). Reached by two runs: Set5-Y 37.58 dB, from 37.51.
    """
    return _distilled("photo-x2-distilled", "rlfn-ntire-x2", 2_500)


def photo_x3_distilled() -> Recipe:
    """Continue `photo-x3` on pairs by the official RLFN ×4 (Apache-2.0), for the shipped `photo-x3`.

    There is no official RLFN ×3. Reduced by bicubic to three quarters, the output of the ×4 teacher has 34.46 dB on Set5 ×3,
    where `photo-x3` had 33.80, so it teaches ×3 (`scripts/make_teacher_pairs.py --target-scale 3`). Command: `upframe train
    photo-x3-distilled --data PAIRS/gt --data-lq PAIRS/lq --out runs/x3 --set start_from=runs/photo-x3/last.pth --set seed=106`.
    Estimated: 17 minutes of one CPU core with avx512_bf16. Reached: Set5-Y 33.93 dB.
    """
    return _distilled("photo-x3-distilled", "rlfn-ntire-x3", 2_500)


def photo_x4_distilled() -> Recipe:
    """Continue `photo-x4` on pairs by the official RLFN ×4 (Apache-2.0), for the shipped `photo-x4`.

    Command: `upframe train photo-x4-distilled --data PAIRS/gt --data-lq PAIRS/lq --out runs/x4 --set
    start_from=runs/photo-x4/last.pth --set seed=101`. Estimated: 27 minutes of one CPU core with avx512_bf16 (39 patches a
    second). Reached by four runs, the last with `--set seed=113`, and scripts/fit_tones.py: Set5-Y 31.87 dB, from 31.57.
    """
    return _distilled("photo-x4-distilled", "rlfn-ntire-x4", 4_000)


def photo_vapsr_x2_distilled() -> Recipe:
    """Continue `photo-vapsr-x2` on the pairs of `photo-x2-distilled`, for the shipped `photo-vapsr-x2`.

    Command: as `photo-x2-distilled`. Estimated: 17 minutes of one CPU core with avx512_bf16. Reached after
    1,000 steps, `--set seed=108 --set steps=1000`: Set5-Y 37.36 dB.
    """
    return _distilled("photo-vapsr-x2-distilled", "vapsr-s-x2", 1_500)


def photo_vapsr_x3_distilled() -> Recipe:
    """Continue `photo-vapsr-x3` on the pairs of `photo-x3-distilled`, for the shipped `photo-vapsr-x3`.

    Command: as `photo-x3-distilled`. Estimated: 17 minutes of one CPU core with avx512_bf16. Reached after
    1,000 steps, `--set seed=109 --set steps=1000`: Set5-Y 33.83 dB.
    """
    return _distilled("photo-vapsr-x3-distilled", "vapsr-s-x3", 1_500)


def photo_vapsr_x4_distilled() -> Recipe:
    """Continue `photo-vapsr-x4` on the pairs of `photo-x4-distilled`, for the shipped `photo-vapsr-x4`.

    Command: as `photo-x4-distilled`. Estimated: 22 minutes of one CPU core with avx512_bf16. Reached by two
    runs, `--set seed=107 --set steps=1600` and `--set seed=112`, and scripts/fit_tones.py: Set5-Y 31.69 dB.
    """
    return _distilled("photo-vapsr-x4-distilled", "vapsr-s-x4", 2_000)


def photo_x2() -> Recipe:
    """RLFN's NTIRE variant at ×2 for the shipped `photo-x2`.

    Command: `upframe train photo-x2 --data PHOTOS --out runs/photo-x2`. Estimated: 45 minutes of one CPU core with
    avx512_bf16. The shipped weights saw 12,000 steps of Adam at 1e-3 and then 3,500 of these. Reached: Set5-Y 37.51 dB.
    """
    return _photo("photo-x2", "rlfn-ntire-x2", 12_000)


def photo_x3() -> Recipe:
    """RLFN's NTIRE variant at ×3 for the shipped `photo-x3`, started from the ×4 weights (all but the upsampler).

    Command: `upframe train photo-x3 --data PHOTOS --out runs/photo-x3 --set start_from=runs/photo-x4/last.pth`. Estimated:
    45 minutes of one CPU core with avx512_bf16. The shipped weights saw 12,000 steps of Adam at 1e-3 and then 3,500 of these.
    Reached: Set5-Y 33.79 dB.
    """
    return _photo("photo-x3", "rlfn-ntire-x3", 12_000)


def photo_x4() -> Recipe:
    """RLFN's NTIRE variant at ×4 for the shipped `photo-x4`, started from the ×2 weights (all but the upsampler).

    Command: `upframe train photo-x4 --data PHOTOS --out runs/photo-x4 --set start_from=runs/photo-x2/last.pth`. Estimated: an
    hour of one CPU core with avx512_bf16. The shipped weights saw 16,000 steps of Adam at 1e-3 and then 8,000 of Muon, in
    three runs. Reached: Set5-Y 31.57 dB.
    """
    return _photo("photo-x4", "rlfn-ntire-x4", 16_000)


def photo_vapsr_x2() -> Recipe:
    """VapSR-S at ×2, a size its authors did not publish, for the shipped `photo-vapsr-x2`.

    Command: `upframe train photo-vapsr-x2 --data PHOTOS --out runs/photo-vapsr-x2`. Estimated: 2 hours of one CPU core with
    avx512_bf16. The shipped weights saw 9,000 steps of Adam at 1e-3, from a body of ×4, and then 6,000 of these. Reached:
    Set5-Y 37.45 dB with half the parameters of `photo-x2`.
    """
    return _photo("photo-vapsr-x2", "vapsr-s-x2", 16_000)


def photo_vapsr_x3() -> Recipe:
    """VapSR-S at ×3, started from the ×4 weights (all but the upsampler), for the shipped `photo-vapsr-x3`.

    Command: `upframe train photo-vapsr-x3 --data PHOTOS --out runs/photo-vapsr-x3 --set
    start_from=runs/photo-vapsr-x4/last.pth`. Estimated: 2 hours of one CPU core with avx512_bf16; the shipped weights saw 6,000
    of these steps. Reached: Set5-Y 33.78 dB with half the parameters of `photo-x3`.
    """
    return _photo("photo-vapsr-x3", "vapsr-s-x3", 16_000)


def photo_vapsr_x4() -> Recipe:
    """VapSR-S at ×4 for the shipped `photo-vapsr-x4`.

    Command: `upframe train photo-vapsr-x4 --data PHOTOS --out runs/photo-vapsr-x4`. Estimated: 2 hours of one CPU core with
    avx512_bf16. The shipped weights saw 23,300 steps of Adam at 1e-3 and then 9,500 of Muon, in four runs. Reached: Set5-Y
    31.45 dB with half the parameters of `photo-x4`.
    """
    return _photo("photo-vapsr-x4", "vapsr-s-x4", 16_000)


def photo_real_x4() -> Recipe:
    """RLFN's NTIRE variant at ×4 for real photographs: blurred, noisy and compressed twice. L1 only.

    Command: `upframe train photo-real-x4 --data PHOTOS --out runs/photo-real-x4 --set start_from=runs/photo-x4/last.pth`.
    About an hour of one CPU core (22 patches per second on an idle machine). The shipped weights saw 2,000 of these steps and
    then 1,500 with a peak rate of 3e-4. Reached: 28.38 dB on Set5-Y degraded in the same way, where `photo-x4` reaches 27.68.
    """
    stage = replace(_photo_stage(5_000, learning_rate=5e-4), fp32_tail_steps=200)
    data = replace(stage.data, low_quality="degraded", degradation="photo-mild")
    return Recipe(name="photo-real-x4", model="rlfn-ntire-x4", stages=(replace(stage, data=data),), protocol="sisr-y")


def photo_real_x4_distilled() -> Recipe:
    """RLFN's NTIRE variant at ×4 for photographs from phones, web pages and scans, for the shipped `photo-real-x4`.

    The target of a patch is what the official RLFN (Apache-2.0) makes of the clean input; the network sees the input degraded
    by `phone-and-web`. Pairs of patterns (scripts/make_pattern_pairs.py) keep the tones. Command: `upframe train
    photo-real-x4-distilled --data PAIRS/gt --data-lq PAIRS/lq --out runs/real --set start_from=runs/photo-x4/last.pth`.
    Estimated: 12 minutes of one CPU core with avx512_bf16. Reached by four runs: on 12 damaged photos 23.12 to 23.77 dB, where
    bicubic has 22.37 to 23.45; Set5-Y, clean, 30.85 dB.
    """
    stage = _distilled("photo-real-x4-distilled", "rlfn-ntire-x4", 2_800).stages[0]
    data = replace(stage.data, degradation="phone-and-web")
    stage = replace(stage, data=data, batch=8, optimiser=replace(stage.optimiser, learning_rate=1e-3))
    return Recipe(name="photo-real-x4-distilled", model="rlfn-ntire-x4", stages=(stage,), protocol="sisr-y")


def photo_real_perceptual_x4() -> Recipe:
    """`photo-real-x4` trained further against a discriminator, with perceptual and artefact loss.

    Targets are true photographs (scripts/make_photo_pairs.py), beside pairs of patterns. Command: `upframe train
    photo-real-perceptual-x4 --data PAIRS/gt --data-lq PAIRS/lq --out runs/perceptual --set
    stages.main.start_from=runs/real/last.pth --set losses.perceptual.options.weights=efficientnet-lite0-57934424.pth`. For one
    GPU; not run to its end, and no weights of it ship. A step takes 1.2 seconds of one CPU core. Four runs of 180 to 700 steps
    printed a grid, the last the faintest; docs/training.md tells why. To reach: NIQE 5.0 on degraded photos, and no grid in
    skies.
    """
    stage = _photo_stage(20_000, patch_px=32, batch=8, learning_rate=1e-4)
    data = replace(stage.data, low_quality="paired", degradation="phone-and-web", draws=2)
    losses = (LossTerm("l1"), LossTerm("perceptual", 0.02), LossTerm("artefacts", 10.0), LossTerm("gan", 0.02))
    judge = Discriminator(optimiser=Optimiser(learning_rate=1e-4, betas=(0.9, 0.99)), channels=24)
    stage = replace(stage, data=data, losses=losses, discriminator=judge, fp32_tail_steps=0)
    return Recipe(name="photo-real-perceptual-x4", model="rlfn-ntire-x4", stages=(stage,), protocol="sisr-y")


def flow() -> Recipe:
    """upframe's own flow network, trained on photographs under random smooth motion with exactly known flow.

    Command: `upframe train flow --data PHOTOS --out runs/flow`. 19 minutes of one CPU core. Reached: on 200 pairs from 183
    held-back photos an endpoint error of 0.82 px (median 0.46) where zero flow has 3.85 (2.95).
    """
    stage = replace(
        _photo_stage(2_000, patch_px=96, batch=8),
        losses=(LossTerm("endpoint_error"),),
        data=DataRecipe(kind="motion", patch_px=96, exclude=SHARE_ALIKE),
        # Flows are differences of pixel positions: eight bits of mantissa are too few.
        precision="fp32",
        fp32_tail_steps=0,
        clip_grad_norm=1.0,
    )
    return Recipe(name="flow", model="correlation-flow", stages=(stage,))


# The video network -------------------------------------------------------------------------------------------------------
OWN_FLOW = ParameterGroup(names=("correlation_flow",), frozen_until=None)
NO_CLEANING = ParameterGroup(names=("image_cleaning",), frozen_until=None)
VIDEO_OPTIONS: dict[str, Scalar] = {
    "channels": 32,
    "propagation_blocks": 6,
    "cleaning_blocks": 4,
    "reconstruction_channels": 24,
    "flow": "correlation",
    "idle_cleaning": True,
}


def _video_stage(name: str, steps: int, *, learning_rate: float, groups: tuple[ParameterGroup, ...]) -> Stage:
    """Charbonnier on clips of eight frames reduced bicubically; the flow network keeps its trained weights."""
    return Stage(
        name=name,
        steps=steps,
        losses=(LossTerm("charbonnier"),),
        data=DataRecipe(kind="clips", patch_px=48, clip_frames=8, time_reversal=True, exclude=SHARE_ALIKE),
        batch=2,
        optimiser=Optimiser(learning_rate=learning_rate, betas=(0.9, 0.99), groups=groups),
        schedule=Schedule("cosine", warmup_steps=100, final_learning_rate=1e-6),
        ema_decay=0.999,
        precision="bf16",
        fp32_tail_steps=min(200, steps),
    )


def video_x4() -> Recipe:
    """A small RealBasicVSR (32 channels, 6 blocks a direction) with upframe's own flow network, for clean videos: the first
    weights of `video-real-x4`. Its cleaning network keeps its initial weights, which change nothing.

    Command:
    `upframe train video-x4 --data CLIPS --out runs/video-x4 --set flow_weights=runs/flow/last.pth`. One CPU core, an hour.
    Reached: on the Vid4 parts 26.84 dB, warping error 0.00054. The weights that `video-real-x4` began with saw 6,000 more
    steps, also on sharper clips: 27.09 dB and 0.00046, where an earlier `photo-x4` has 27.06 and 0.00065. The shipped
    `video-x4` is now made by `weft-x4`.
    """
    stage = _video_stage("clean", 4_400, learning_rate=7e-4, groups=(OWN_FLOW, NO_CLEANING))
    return Recipe(name="video-x4", model="realbasicvsr-x4", model_options=VIDEO_OPTIONS, stages=(stage,), protocol="vid4-y")


WOVEN = ParameterGroup(names=("trunk", "correlation_flow"), frozen_until=None)


def _weft(name: str, model: str, steps: int) -> Recipe:
    """Muon on clips of seven frames reduced bicubically; trunk and flow network keep the weights they are given.

    The rate is low: the error of a frame that its neighbours can mend is small beside the rest, and a peak of 2e-3 lost it.
    """
    stage = _video_stage("clean", steps, learning_rate=5e-4, groups=(WOVEN,))
    stage = replace(
        stage,
        data=replace(stage.data, clip_frames=7),
        optimiser=replace(stage.optimiser, method="muon"),
        schedule=replace(stage.schedule, warmup_steps=30),
        fp32_tail_steps=min(30, steps),
    )
    return Recipe(name=name, model=model, model_options={"idle": True}, stages=(stage,), protocol="vid4-y")


def weft_x4() -> Recipe:
    """Weft on `photo-x4`, for the shipped `video-x4`, from first weights by scripts/fit_weft.py.

    Command: `upframe train weft-x4 --data CLIPS --out runs/weft-x4 --set start_from=fitted.pth`, after `python
    scripts/fit_weft.py CLIPS fitted.pth --trunk photo-x4 --flow video-x4`, with clips as for `video-x4` and lively pans. The
    shipped weights saw 300 steps at 4e-4, seven minutes of a shared CPU core, and are the mean with the first weights. Reached:
    on the Vid4 parts 27.53 dB, warping error 0.00033, where `photo-x4` has 27.19 and 0.00057.
    """
    return _weft("weft-x4", "weft-x4", 1_000)


def weft_x2() -> Recipe:
    """Weft on `photo-x2`; no weights yet.

    Command: as `weft-x4`, with `--scale 2 --trunk photo-x2`. To reach: more than `photo-x2` on the Vid4 parts at ×2.
    """
    return _weft("weft-x2", "weft-x2", 1_000)


def _real_stage() -> Stage:
    """Output and cleaning loss on degraded clips, mirrored: the stochastic degradation scheme (section 3.4 of the paper)."""
    stage = _video_stage("wogan", 1_500, learning_rate=3e-4, groups=(OWN_FLOW,))
    data = replace(stage.data, low_quality="degraded", degradation="video-mild", mirrored=True, time_reversal=False)
    return replace(stage, data=data, losses=(LossTerm("l1"), LossTerm("l1", on="cleaned")))


def weft_real_x4() -> Recipe:
    """Weft on `photo-real-x4` for degraded videos, from first weights by scripts/fit_weft.py.

    Command: `upframe train weft-real-x4 --data CLIPS --out runs/weft-real-x4 --set start_from=fitted.pth`, after `python
    scripts/fit_weft.py CLIPS fitted.pth --trunk photo-real-x4 --flow video-real-x4 --degradation video-mild`. Estimated: 25
    minutes of a CPU core. Reached after 600 steps, 7 minutes: on the Vid4 parts degraded by `video-mild` 26.02 dB, where
    `photo-real-x4` has 25.43.
    """
    recipe = _weft("weft-real-x4", "weft-x4", 1_000)
    stage = recipe.stages[0]
    data = replace(stage.data, low_quality="degraded", degradation="video-mild", time_reversal=False)
    return replace(recipe, stages=(replace(stage, data=data),))


def video_real_x4() -> Recipe:
    """`video-x4` trained further for degraded videos, together with its cleaning network; without a discriminator.

    Command: `upframe train video-real-x4 --data CLIPS --out runs/video-real-x4 --set start_from=runs/video-x4/last.pth`.
    Half an hour of one CPU core. Reached: on the Vid4 parts 26.52 dB where the `photo-real-x4` of that day has 26.38 frame by
    frame, warping error 0.00029 (0.00035); today's has 26.86 and 0.00054.
    """
    return Recipe(
        name="video-real-x4", model="realbasicvsr-x4", model_options=VIDEO_OPTIONS, stages=(_real_stage(),), protocol="vid4-y"
    )


def video_real_x4_gan() -> Recipe:
    """`video-real-x4` and a second stage against a discriminator, with the perceptual loss.

    Command: as `video-real-x4`, and `--set losses.perceptual.options.weights=VGG19.pth`. For one GPU; not run yet. To
    reach: a lower NIQE on real clips than `video-real-x4`.
    """
    first = _real_stage()
    second = replace(
        first,
        name="gan",
        steps=20_000,
        losses=(*first.losses, replace(PERCEPTUAL, target="gt"), GAN),
        optimiser=replace(first.optimiser, learning_rate=5e-5),
        schedule=Schedule(),
        discriminator=Discriminator(),
        start_from=PREVIOUS,
    )
    return Recipe(
        name="video-real-x4-gan",
        model="realbasicvsr-x4",
        model_options=VIDEO_OPTIONS,
        stages=(first, second),
        protocol="vid4-y",
    )


# RLFN's ablations at a size that allows three seeds ------------------------------------------------------------------------
def _trick(name: str, *stages: Stage) -> Recipe:
    small = tuple(
        replace(
            stage,
            data=replace(stage.data, patch_px=32, exclude=SHARE_ALIKE),
            batch=8,
            channels_last=True,
            precision="bf16",
        )
        for stage in stages
    )
    return Recipe(name=name, model="rlfn-ntire-x4", model_options=TRICK_OPTIONS, stages=small, protocol="sisr-y")


TRICK_OPTIONS = {"channels": 24, "inner_channels": 24, "blocks": 3}
TRICK_STEPS = 1500


def _trick_stage(steps: int = TRICK_STEPS) -> Stage:
    return single_stage(scale=4, steps=steps)


def tricks_ws_1() -> Recipe:
    """One warm start, 1500 steps in each stage, for a small RLFN (24 channels, 3 blocks): a small `rlfn-x4-ws-1`.

    Command: `upframe train tricks-ws-1 --data PHOTOS --out runs/ws-1-seed1 --set seed=1`, also with seeds 2 and 3.
    Two minutes on an idle CPU core. To compare with `tricks-e2000` and `tricks-clr`, which are as long.
    """
    return _trick("tricks-ws-1", *warm_started(_trick_stage(), starts=1))


def tricks_e2000() -> Recipe:
    """One stage of twice the length: a small `rlfn-x4-e2000`.

    Command: as `tricks-ws-1`.
    """
    return _trick("tricks-e2000", _trick_stage(2 * TRICK_STEPS))


def tricks_clr() -> Recipe:
    """The schedule restarts and Adam's state stays: a small `rlfn-x4-clr`.

    Command: as `tricks-ws-1`.
    """
    return _trick("tricks-clr", *warm_started(_trick_stage(), starts=1, keep_optimiser=True))


def tricks_contrastive() -> Recipe:
    """`tricks-ws-1` with the contrastive loss in its last stage.

    Command: as `tricks-ws-1`. To compare with it.
    """
    return _trick("tricks-contrastive", *warm_started(_trick_stage(), starts=1, last=CONTRASTIVE))


RECIPES: dict[str, Callable[[], Recipe]] = {
    "photo-x2": photo_x2,
    "photo-x2-distilled": photo_x2_distilled,
    "photo-x3": photo_x3,
    "photo-x3-distilled": photo_x3_distilled,
    "photo-x4": photo_x4,
    "photo-x4-distilled": photo_x4_distilled,
    "photo-vapsr-x2": photo_vapsr_x2,
    "photo-vapsr-x2-distilled": photo_vapsr_x2_distilled,
    "photo-vapsr-x3": photo_vapsr_x3,
    "photo-vapsr-x3-distilled": photo_vapsr_x3_distilled,
    "photo-vapsr-x4": photo_vapsr_x4,
    "photo-vapsr-x4-distilled": photo_vapsr_x4_distilled,
    "photo-real-x4": photo_real_x4,
    "photo-real-x4-distilled": photo_real_x4_distilled,
    "photo-real-perceptual-x4": photo_real_perceptual_x4,
    "flow": flow,
    "video-x4": video_x4,
    "weft-x4": weft_x4,
    "weft-x2": weft_x2,
    "weft-real-x4": weft_real_x4,
    "video-real-x4": video_real_x4,
    "video-real-x4-gan": video_real_x4_gan,
    "tricks-ws-1": tricks_ws_1,
    "tricks-e2000": tricks_e2000,
    "tricks-clr": tricks_clr,
    "tricks-contrastive": tricks_contrastive,
}
"""The recipes of this file by name."""
