"""VRT for video super-resolution as KAIR trains it, and a variant as MindEditing trains it.

Liang et al., VRT: A Video Restoration Transformer, IEEE TIP 2024 (arXiv 2201.12288).

Data: REDS with its validation clips regrouped into training (`upframe data prepare reds`), without the four test clips of
REDS4; Vimeo-90K. Flow network: pretrained, from the user's file: `--set flow_weights=SPYNET`. Hardware: eight GPUs with one
clip each. Published cost on eight A100: 2.65 s a step and 29.6 GB each for 6 frames (9 days 15 hours), 5.70 s and 66.8 GB for
longer clips. Less memory: `--set accumulation=…` keeps the result, `--set clip_frames=…` does not.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from upframe.training.recipes.recipe import (
    ActivationCheckpointing,
    DataRecipe,
    LossTerm,
    Optimiser,
    ParameterGroup,
    Recipe,
    Stage,
)
from upframe.training.recipes.schedule import Schedule

STEPS = 300_000
REDS4 = ("000", "011", "015", "020")
"""Clips of REDS that are used only for testing. The public recipe does not exclude them."""
FLOW_PARTS = ("spynet", "deform")
MINDEDITING_EPOCH = 3325
"""Steps of one pass over the 26 600 frames of the training clips, 8 at a time."""


def _reds(frames: int) -> DataRecipe:
    return DataRecipe(kind="clips", low_quality="paired", patch_px=64, clip_frames=frames, exclude=REDS4)


def _vimeo(*, blurred: bool) -> DataRecipe:
    quality = DataRecipe(kind="clips", low_quality="paired", patch_px=64, clip_frames=7, time_reversal=True)
    return replace(quality, low_quality="bd") if blurred else quality


def _stage(data: DataRecipe, *, learning_rate: float = 4e-4, frozen_until: int = 20_000) -> Stage:
    slow = ParameterGroup(names=FLOW_PARTS, learning_rate_multiplier=0.125, frozen_until=frozen_until)
    return Stage(
        name="main",
        steps=STEPS,
        losses=(LossTerm("charbonnier", options={"eps": 1e-9, "reduction": "mean"}),),
        data=data,
        batch=8,
        optimiser=Optimiser(learning_rate=learning_rate, betas=(0.9, 0.99), weight_decay=0.0, groups=(slow,)),
        schedule=Schedule("cosine_warm_restarts", periods=(STEPS,), final_learning_rate=1e-7),
        ema_decay=None,
        activation_checkpointing=ActivationCheckpointing(attention=True),
    )


def vrt_001() -> Recipe:
    """Configuration 001: REDS, 6 frames. The flow network and the deformable convolutions are frozen for 20 000 steps.

    Command: `upframe train vrt-001 --data REDS/train_sharp --data-lq REDS/train_sharp_bicubic/X4 --out runs/vrt-001 --set
    flow_weights=SPYNET`. To reach: REDS4-RGB 31.60 dB.
    """
    return Recipe(name="vrt-001", model="vrt-reds6-x4", stages=(_stage(_reds(6)),), protocol="reds4-rgb")


def vrt_001_mindediting() -> Recipe:
    """Configuration 001 as MindEditing trains it: half the rate, and a freeze of one pass over the data.

    Command: as `vrt-001`. To reach: REDS4-RGB 31.63 dB.
    """
    stage = _stage(_reds(6), learning_rate=2e-4, frozen_until=MINDEDITING_EPOCH)
    return Recipe(name="vrt-001-mindediting", model="vrt-reds6-x4", stages=(stage,), protocol="reds4-rgb")


def vrt_002() -> Recipe:
    """Configuration 002: REDS, 16 frames.

    Command: as `vrt-001`. To reach: REDS4-RGB 32.19 dB.
    """
    recomputed = ActivationCheckpointing(attention=True, except_stages=(0, 1, 2, 3, 4, 5))
    stage = replace(_stage(_reds(16)), activation_checkpointing=recomputed)
    return Recipe(name="vrt-002", model="vrt-reds16-x4", stages=(stage,), protocol="reds4-rgb")


def vrt_003() -> Recipe:
    """Configuration 003: Vimeo-90K, bicubic, 7 frames, from the weights of 002 as far as they fit.

    Command: `upframe train vrt-003 --data VIMEO --data-lq VIMEO/sequences_LRx4 --out runs/vrt-003 --set
    stages.main.start_from=runs/vrt-002/last.pth`. To reach: Vimeo-90K-T 38.20, Vid4 27.93 dB on Y.
    """
    return Recipe(name="vrt-003", model="vrt-vimeo-bi-x4", stages=(_stage(_vimeo(blurred=False)),), protocol="vimeo-y-c4")


def vrt_004() -> Recipe:
    """Configuration 004: Vimeo-90K, blurred and subsampled, 7 frames, from the weights of 002 as far as they fit.

    Command: `upframe train vrt-004 --data VIMEO --out runs/vrt-004 --set
    stages.main.start_from=runs/vrt-002/last.pth`. To reach: UDM10 41.05, Vimeo-90K-T 38.72, Vid4 29.42 dB on Y.
    """
    return Recipe(name="vrt-004", model="vrt-vimeo-bd-x4", stages=(_stage(_vimeo(blurred=True)),), protocol="udm10-y")


RECIPES: dict[str, Callable[[], Recipe]] = {
    "vrt-001": vrt_001,
    "vrt-001-mindediting": vrt_001_mindediting,
    "vrt-002": vrt_002,
    "vrt-003": vrt_003,
    "vrt-004": vrt_004,
}
"""The recipes of this file by name."""
