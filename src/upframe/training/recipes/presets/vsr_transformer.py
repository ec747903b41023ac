"""VSR-Transformer, trained as in the authors' code and as in their article.

Cao et al., Video Super-Resolution Transformer, arXiv 2106.06847 (2021).

The authors start from warm-up checkpoints and do not describe them. Here a first stage makes them: the flow network is frozen,
and the rate rises linearly.

Data: REDS (`upframe data prepare reds`) without the four test clips of REDS4, or Vimeo-90K. Flow network: pretrained, from
the user's file: `--set flow_weights=SPYNET`; unlike in RealBasicVSR, it is trained too. Hardware: eight GPUs; hours are not
published.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from upframe.training.recipes.fields import Scalar
from upframe.training.recipes.presets.vrt import REDS4
from upframe.training.recipes.recipe import PREVIOUS, DataRecipe, LossTerm, Optimiser, ParameterGroup, Recipe, Stage
from upframe.training.recipes.schedule import Schedule

LOSS = LossTerm("charbonnier", options={"eps": 1e-12, "reduction": "sum"})
WARMUP_STEPS = 20_000

REDS_SCHEDULE = Schedule(
    "cosine_restarts", periods=(300_000,) * 4, restart_weights=(1.0, 0.5, 0.5, 0.5), final_learning_rate=1e-7
)
VIMEO_SCHEDULE = Schedule(
    "cosine_restarts", periods=(200_000,) * 6, restart_weights=(1.0, *(0.5,) * 5), final_learning_rate=1e-7
)


def _reds(frames: int) -> DataRecipe:
    return DataRecipe(kind="clips", low_quality="paired", patch_px=64, clip_frames=frames, time_reversal=True, exclude=REDS4)


def _vimeo() -> DataRecipe:
    return DataRecipe(kind="clips", low_quality="paired", patch_px=64, clip_frames=7, time_reversal=True)


def _stages(data: DataRecipe, *, batch: int, steps: int, schedule: Schedule, has_flow: bool = True) -> tuple[Stage, Stage]:
    main = Stage(
        name="main",
        steps=steps,
        losses=(LOSS,),
        data=data,
        batch=batch,
        optimiser=Optimiser(learning_rate=2e-4, betas=(0.9, 0.99)),
        schedule=schedule,
        ema_decay=None,
        start_from=PREVIOUS,
    )
    still = ParameterGroup(names=("spynet",), frozen_until=None)
    warmup = replace(
        main,
        name="warmup",
        steps=WARMUP_STEPS,
        optimiser=replace(main.optimiser, groups=(still,) if has_flow else ()),
        schedule=Schedule("constant", warmup_steps=2000),
        start_from=None,
    )
    return warmup, main


def vsrt_reds() -> Recipe:
    """REDS, 5 frames, as the authors' code: 1.2 million steps in four periods, 4 clips for each of 8 GPUs.

    Command: `upframe train vsrt-reds --data REDS/train_sharp --data-lq REDS/train_sharp_bicubic/X4 --out runs/vsrt-reds --set
    flow_weights=SPYNET`. To reach: REDS4-RGB 31.19 dB.
    """
    stages = _stages(_reds(5), batch=32, steps=1_200_000, schedule=REDS_SCHEDULE)
    return Recipe(name="vsrt-reds", model="vsrt-reds-x4", stages=stages, protocol="reds4-rgb")


def vsrt_reds_paper() -> Recipe:
    """REDS, 5 frames, as the article: 600 000 steps in one cosine, 2 clips for each of 8 GPUs, activation slope 0.01, and no
    random time reversal.

    Command: as `vsrt-reds`. To compare with it.
    """
    stages = _stages(
        replace(_reds(5), time_reversal=False),
        batch=16,
        steps=600_000,
        schedule=Schedule("cosine", final_learning_rate=1e-7),
    )
    options = {"slope": 0.01}
    return Recipe(name="vsrt-reds-paper", model="vsrt-reds-x4", model_options=options, stages=stages, protocol="reds4-rgb")


def vsrt_vimeo() -> Recipe:
    """Vimeo-90K, 7 frames, as the authors' code: 1.2 million steps in six periods, 2 clips for each of 8 GPUs.

    Command: `upframe train vsrt-vimeo --data VIMEO --data-lq VIMEO/sequences_LRx4 --out runs/vsrt-vimeo --set
    flow_weights=SPYNET`. To reach: Vimeo-90K-T 37.71, Vid4 27.36 dB on Y.
    """
    stages = _stages(_vimeo(), batch=16, steps=1_200_000, schedule=VIMEO_SCHEDULE)
    return Recipe(name="vsrt-vimeo", model="vsrt-vimeo-x4", stages=stages, protocol="vimeo-y-c4")


def vsrt_reds_frames_3() -> Recipe:
    """`vsrt-reds` with 3 frames, for the article's study of the number of frames.

    Command: as `vsrt-reds`. To reach: less than it.
    """
    return _with_frames(3)


def vsrt_reds_frames_7() -> Recipe:
    """`vsrt-reds` with 7 frames, for the article's study of the number of frames.

    Command: as `vsrt-reds`. To reach: more than it.
    """
    return _with_frames(7)


def vsrt_reds_no_flow() -> Recipe:
    """`vsrt-reds` without flow: feed-forward layers see the features of neighbouring frames without alignment.

    Command: `upframe train vsrt-reds-no-flow --data REDS/train_sharp --data-lq REDS/train_sharp_bicubic/X4 --out
    runs/vsrt-no-flow`. To reach: less than `vsrt-reds`.
    """
    return _ablated("vsrt-reds-no-flow", {"flow": False}, has_flow=False)


def vsrt_reds_no_attention() -> Recipe:
    """`vsrt-reds` without attention: a residual block of nearly as many parameters replaces each attention layer.

    Command: as `vsrt-reds`. To reach: less than it.
    """
    return _ablated("vsrt-reds-no-attention", {"attention": False})


def vsrt_reds_no_boff() -> Recipe:
    """`vsrt-reds` with feed-forward layers that see one frame, so that only attention combines frames; there is no flow
    network.

    Command: as `vsrt-reds-no-flow`. To reach: less than `vsrt-reds`.
    """
    return _ablated("vsrt-reds-no-boff", {"directions": "none"}, has_flow=False)


def _with_frames(frames: int) -> Recipe:
    return _ablated(f"vsrt-reds-frames-{frames}", {"frames": frames}, frames=frames)


def _ablated(name: str, options: dict[str, Scalar], *, frames: int = 5, has_flow: bool = True) -> Recipe:
    stages = _stages(_reds(frames), batch=32, steps=1_200_000, schedule=REDS_SCHEDULE, has_flow=has_flow)
    return Recipe(name=name, model="vsrt-reds-x4", model_options=options, stages=stages, protocol="reds4-rgb")


RECIPES: dict[str, Callable[[], Recipe]] = {
    "vsrt-reds": vsrt_reds,
    "vsrt-reds-paper": vsrt_reds_paper,
    "vsrt-reds-frames-3": vsrt_reds_frames_3,
    "vsrt-reds-frames-7": vsrt_reds_frames_7,
    "vsrt-reds-no-flow": vsrt_reds_no_flow,
    "vsrt-reds-no-attention": vsrt_reds_no_attention,
    "vsrt-reds-no-boff": vsrt_reds_no_boff,
    "vsrt-vimeo": vsrt_vimeo,
}
"""The recipes of this file by name."""
