"""The five systems at toy size: a few minutes on one CPU core, enough to see the loss fall. The tests use them.

Each recipe needs only photographs or clips. Flow networks start fresh, and there is no perceptual loss.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from upframe.training.recipes.fields import Scalar
from upframe.training.recipes.presets.realbasicvsr import GAN, wogan_stage
from upframe.training.recipes.presets.rlfn import CONTRASTIVE, warm_started
from upframe.training.recipes.presets.vrt import vrt_001
from upframe.training.recipes.presets.vsr_transformer import vsrt_reds
from upframe.training.recipes.recipe import PREVIOUS, Cadence, DataRecipe, Discriminator, Optimiser, Recipe, SpikeGuard, Stage
from upframe.training.recipes.schedule import Schedule

STEPS = 200
CADENCE = Cadence(checkpoint_every=100, log_every=20)
FEW_CLIPS = SpikeGuard(factor=20.0)
"""Guard for batches of a few clips, whose losses differ by a factor of five and more: some clips show only a night sky."""


def _photo_stage(steps: int) -> Stage:
    return Stage(
        name="stage1",
        steps=steps,
        data=DataRecipe(kind="photos", patch_px=24),
        batch=4,
        optimiser=Optimiser(learning_rate=2e-3, betas=(0.9, 0.99)),
        schedule=Schedule("cosine", warmup_steps=10, final_learning_rate=1e-5),
        ema_decay=0.98,
    )


def toy_rlfn() -> Recipe:
    """RLFN with 16 channels and 2 blocks at ×2 in two stages, the second with a warm start and the contrastive loss.

    Command: `upframe train toy-rlfn --data PHOTOS --out runs/toy-rlfn`. One CPU core, under a minute. Reached: L1
    from 0.216 (mean of the first 20 steps) to 0.037 (of the last), 28.24 dB on held-back photographs.
    """
    stages = warm_started(_photo_stage(STEPS // 2), starts=1, last=CONTRASTIVE)
    options = {"channels": 16, "inner_channels": 16, "blocks": 2}
    return Recipe(name="toy-rlfn", model="rlfn-x2", model_options=options, stages=stages, protocol="sisr-y", cadence=CADENCE)


def toy_vapsr() -> Recipe:
    """VapSR with 16 channels and 2 blocks at ×2.

    Command: `upframe train toy-vapsr --data PHOTOS --out runs/toy-vapsr`. One CPU core, under a minute. Reached: L1 from
    0.243 (mean of the first 20 steps) to 0.035 (of the last), 28.47 dB on held-back photographs.
    """
    options = {"channels": 16, "attention_channels": 16, "blocks": 2}
    return Recipe(
        name="toy-vapsr",
        model="vapsr-x2",
        model_options=options,
        stages=(_photo_stage(STEPS),),
        protocol="sisr-y",
        cadence=CADENCE,
    )


def toy_realbasicvsr() -> Recipe:
    """RealBasicVSR with 8 channels and 1 block in each part, both stages, the second without the perceptual loss.

    Command: `upframe train toy-realbasicvsr --data CLIPS --out runs/toy-rbv`. One CPU core, some minutes. Reached: both
    L1 losses together from 0.158 (mean of the first 20 steps) to 0.129 (of the last), held-back clips from 21.41 to 25.19 dB.
    """
    base = wogan_stage(batch=2, clip_frames=4)
    data = replace(base.data, patch_px=32)
    first = replace(base, steps=STEPS // 2, data=data, optimiser=replace(base.optimiser, learning_rate=1e-3), ema_decay=0.98)
    second = replace(
        first,
        name="gan",
        losses=(*first.losses, GAN),
        discriminator=Discriminator(channels=8),
        optimiser=replace(first.optimiser, learning_rate=5e-4),
        start_from=PREVIOUS,
    )
    options = {"channels": 8, "propagation_blocks": 1, "cleaning_blocks": 1}
    return Recipe(
        name="toy-realbasicvsr",
        model="realbasicvsr-x4",
        model_options=options,
        stages=(first, second),
        protocol="vid4-y",
        cadence=CADENCE,
    )


def toy_vrt() -> Recipe:
    """VRT at ×2 with 24 channels and windows of 4 px; the flow network and the deformable convolutions are trained from
    half-way on.

    Blocks are not skipped at random: this prevents overfitting in long training, but makes short training noisy.

    Command: `upframe train toy-vrt --data CLIPS --out runs/toy-vrt`. One CPU core, some minutes. Reached: the loss from
    0.0210 (mean of the first 20 steps) to 0.0179 (of the last), held-back clips from 30.52 to 31.92 dB.
    """
    full = vrt_001()
    (stage,) = full.stages
    slow = replace(stage.optimiser.groups[0], frozen_until=STEPS // 2)
    short = replace(
        stage,
        steps=STEPS,
        batch=4,
        data=replace(stage.data, low_quality="bicubic", patch_px=32, clip_frames=2, exclude=()),
        optimiser=replace(stage.optimiser, learning_rate=1e-3, groups=(slow,)),
        schedule=replace(stage.schedule, periods=(STEPS,)),
        guard=FEW_CLIPS,
    )
    options: dict[str, Scalar] = {
        "scale": 2,
        "window_px": 4,
        "width": 24,
        "depth": 2,
        "mutual_depth": 1,
        "tail_width": 24,
        "tail_depth": 1,
        "tail_layers": 2,
        "single_frame_layers": 1,
        "heads": 2,
        "deformable_groups": 4,
        "stochastic_depth": 0.0,
    }
    return replace(full, name="toy-vrt", model_options=options, stages=(short,), protocol="vid4-y", cadence=CADENCE)


def toy_vsrt() -> Recipe:
    """VSR-Transformer with 16 channels, one layer and windows of 32 px: 40 steps of warm-up, then two periods.

    Command: `upframe train toy-vsrt --data CLIPS --out runs/toy-vsrt`. One CPU core, some minutes. Reached: the loss from
    40 800 (mean of the first 20 steps) to 31 500 (of the last), held-back clips from 24.90 to 27.76 dB.
    """
    full = vsrt_reds()
    warmup, main = (
        replace(
            stage,
            batch=4,
            data=replace(stage.data, low_quality="bicubic", patch_px=32, exclude=()),
            optimiser=replace(stage.optimiser, learning_rate=1e-3),
            guard=FEW_CLIPS,
        )
        for stage in full.stages
    )
    warmup = replace(warmup, steps=40, schedule=replace(warmup.schedule, warmup_steps=10))
    main = replace(main, steps=160, schedule=replace(main.schedule, periods=(80, 80), restart_weights=(1.0, 0.5)))
    options: dict[str, Scalar] = {
        "channels": 16,
        "depth": 1,
        "window_px": 32,
        "extract_blocks": 1,
        "reconstruct_blocks": 1,
        "feed_forward_blocks": 1,
    }
    stages = (warmup, main)
    return replace(full, name="toy-vsrt", model_options=options, stages=stages, protocol="vid4-y", cadence=CADENCE)


RECIPES: dict[str, Callable[[], Recipe]] = {
    "toy-rlfn": toy_rlfn,
    "toy-vapsr": toy_vapsr,
    "toy-realbasicvsr": toy_realbasicvsr,
    "toy-vrt": toy_vrt,
    "toy-vsrt": toy_vsrt,
}
"""The recipes of this file by name."""
