"""VapSR as the authors' option files train it.

Zhou et al., Efficient Image Super-Resolution using Vast-Receptive-Field Attention, ECCVW 2022 (arXiv 2210.05960).

Data: DF2K, the sub-images of DIV2K (`upframe data prepare div2k`) and of Flickr2K (`upframe data prepare sub-images`) in one
folder. Hardware: two GPUs with 32 patches each (three with 64 for VapSR-S); batches here are global, so any number of GPUs
works: `torchrun --nproc-per-node 2 -m upframe train …`. The authors' training time is not published.

The article reaches its network in five steps. The parts of its text that were available give parameters and scores: pixel
attention 846 K; a large kernel 4123 K, 0.15 dB better; depth-wise separable 240 K, 28.48 dB; pixel normalisation 241 K, 28.92
dB; the attention between the projections 28.95 dB. The sizes were derived from the parameters: 4123 K - 846 K is ten blocks'
worth of 64² · (9² - 1), 241 K - 240 K ten norms of 64 channels. 3×3 projections and an attention without bias, later 1×1 ones
and a 5×5 and a 7×7 dilated depth-wise convolution, with three convolutions around them, give all four numbers. The layers of
the steps are inferred, not published; their training is not published either. Here they train like `vapsr-x4`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from upframe.training.recipes.fields import Scalar
from upframe.training.recipes.recipe import DataRecipe, LossTerm, Optimiser, Recipe, SpikeGuard, Stage
from upframe.training.recipes.schedule import Schedule

STEPS = 1_000_000


def _recipe(name: str, *, patch_px: int, batch: int = 64, schedule: Schedule | None = None) -> Recipe:
    stage = Stage(
        name="main",
        steps=STEPS,
        losses=(LossTerm("l1"),),
        data=DataRecipe(kind="photos", patch_px=patch_px),
        batch=batch,
        optimiser=Optimiser(learning_rate=1e-3, betas=(0.9, 0.99)),
        schedule=schedule or Schedule("multistep", milestones=(STEPS,), gamma=0.5),
        ema_decay=0.999,
        ema_warmup=False,
        # "Prone to crash with large learning rate" (VapSR_X2.yml).
        guard=SpikeGuard(factor=3.0, window=200, rate_multiplier=0.7),
    )
    return Recipe(name=name, model=name, stages=(stage,), protocol="sisr-y")


def vapsr_x2() -> Recipe:
    """VapSR ×2. Its rate falls at 60 000 steps, because training crashed at the full rate; the guard catches remaining spikes.

    Command: `upframe train vapsr-x2 --data DF2K --out runs/vapsr-x2`. To reach: Set5-Y 38.11, Set14-Y 33.74 dB.
    """
    return _recipe("vapsr-x2", patch_px=48, schedule=Schedule("multistep", milestones=(60_000, STEPS), gamma=0.7))


def vapsr_x3() -> Recipe:
    """VapSR ×3.

    Command: `upframe train vapsr-x3 --data DF2K --out runs/vapsr-x3`. To reach: Set5-Y 34.53, Set14-Y 30.52 dB.
    """
    return _recipe("vapsr-x3", patch_px=48)


def vapsr_x4() -> Recipe:
    """VapSR ×4.

    Command: `upframe train vapsr-x4 --data DF2K --out runs/vapsr-x4`. To reach: Set5-Y 32.40, Set14-Y 28.77 dB.
    """
    return _recipe("vapsr-x4", patch_px=48)


def vapsr_s_x4() -> Recipe:
    """VapSR-S ×4, with larger patches and batches than the others.

    Command: `upframe train vapsr-s-x4 --data DF2K --out runs/vapsr-s-x4`. To reach: Set5-Y 32.17, Set14-Y 28.65 dB.
    """
    return _recipe("vapsr-s-x4", patch_px=64, batch=192)


# The steps of the article's design ------------------------------------------------------------------------------------------
def _step(name: str, options: dict[str, Scalar]) -> Recipe:
    size: dict[str, Scalar] = {"channels": 64, "attention_channels": 64, "blocks": 10, "one_shuffle": True}
    return replace(vapsr_x4(), name=name, model_options={**size, **options})


def pixel_attention() -> Recipe:
    """First step, 846 K parameters: every pixel of a block's result times a 1×1 convolution of itself.

    Command: `upframe train vapsr-x4-pixel-attention --data DF2K --out runs/pixel-attention`. To compare with
    `vapsr-x4-large-kernel`.
    """
    options: dict[str, Scalar] = {"projection_px": 3, "dense_px": 1, "attention_last": True, "pixel_norm": False}
    return _step("vapsr-x4-pixel-attention", options)


def large_kernel() -> Recipe:
    """Second step, 4123 K parameters: the attention looks at 9×9 pixels.

    Command: `upframe train vapsr-x4-large-kernel --data DF2K --out runs/large-kernel`. To reach: 0.15 dB more than
    `vapsr-x4-pixel-attention`.
    """
    options: dict[str, Scalar] = {"projection_px": 3, "dense_px": 9, "attention_last": True, "pixel_norm": False}
    return _step("vapsr-x4-large-kernel", options)


def separable() -> Recipe:
    """Third step, 240 K parameters: a decomposed large kernel and 1×1 projections.

    Command: `upframe train vapsr-x4-separable --data DF2K --out runs/separable`. To reach: less than `vapsr-x4-pixel-norm`, by
        0.44 dB in the article.
    """
    return _step("vapsr-x4-separable", {"dilated_px": 7, "attention_last": True, "pixel_norm": False})


def pixel_norm() -> Recipe:
    """Fourth step, 241 K parameters: every block normalises each pixel.

    Command: `upframe train vapsr-x4-pixel-norm --data DF2K --out runs/pixel-norm`. To reach: less than
        `vapsr-x4-attention-inside`, by 0.03 dB in the article.
    """
    return _step("vapsr-x4-pixel-norm", {"dilated_px": 7, "attention_last": True})


def attention_inside() -> Recipe:
    """Fifth step: the attention comes between the projections, as in the published networks.

    Command: `upframe train vapsr-x4-attention-inside --data DF2K --out runs/attention-inside`. To compare with the steps
    before it.
    """
    return _step("vapsr-x4-attention-inside", {"dilated_px": 7})


RECIPES: dict[str, Callable[[], Recipe]] = {
    "vapsr-x2": vapsr_x2,
    "vapsr-x3": vapsr_x3,
    "vapsr-x4": vapsr_x4,
    "vapsr-s-x4": vapsr_s_x4,
    "vapsr-x4-pixel-attention": pixel_attention,
    "vapsr-x4-large-kernel": large_kernel,
    "vapsr-x4-separable": separable,
    "vapsr-x4-pixel-norm": pixel_norm,
    "vapsr-x4-attention-inside": attention_inside,
}
"""The recipes of this file by name."""
