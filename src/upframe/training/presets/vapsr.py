"""VapSR as the authors' option files train it.

Zhou et al., Efficient Image Super-Resolution using Vast-Receptive-Field Attention, ECCVW 2022 (arXiv 2210.05960).

Data: DF2K, the sub-images of DIV2K (`upframe data prepare div2k`) and of Flickr2K (`upframe data prepare sub-images`) in one
folder. Hardware: two GPUs with 32 patches each (three with 64 for VapSR-S); batches here are global, so any number of GPUs
does: `torchrun --nproc-per-node 2 -m upframe train …`. How long the authors trained is not published.
"""

from __future__ import annotations

from upframe.training.recipe import DataRecipe, LossTerm, Optimiser, Recipe, SpikeGuard, Stage
from upframe.training.schedule import Schedule

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
    """VapSR ×2. Its rate falls at 60 000 steps, since training crashed at the full one; the guard catches what is left.

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
