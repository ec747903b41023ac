"""RLFN as its article describes it, with the switches of its ablations.

Kong et al., Residual Local Feature Network for Efficient Super-Resolution, CVPRW 2022 (arXiv 2205.07514). The article counts
in epochs; here an epoch has 1000 steps, as in the code that it builds on (EDSR, RFDN). So a stage of 1000 epochs has 1 000 000
steps and its rate is halved four times.

Data: DIV2K, 800 photographs; inputs by MATLAB's bicubic, made during training. Hardware: any one GPU with 8 GB; the authors'
training time is not published. With `--set steps=…` and `--set schedule.every=…` the same stages are shorter.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from upframe.training.recipes.fields import Scalar
from upframe.training.recipes.recipe import PREVIOUS, DataRecipe, LossTerm, Optimiser, Recipe, Stage
from upframe.training.recipes.schedule import Schedule

STAGE_STEPS = 1_000_000
HALVE_EVERY = 200_000
HR_PATCH_PX = 256

# The article gives neither the weight nor the width of the extractor: upframe chose them. With the shipped photo-x4, the
# gradient of the unweighted term has 60 to 885 times the norm of L1's on single crops of Set5, at an angle of 65° to 81° to
# it. The norm grows as the result comes closer to bicubic; it is 1800 times L1's on a batch of eight training crops, and
# 0.0002 reduces that to a third.
CONTRASTIVE = LossTerm(
    "contrastive",
    weight=0.0002,
    options={"extractor": "random", "channels": 3, "layer_weights": (1.0, 1.0), "eps": 1e-7, "seed": 0},
)
# Features after layers 1, 3, 5, 9 and 13 of VGG-19, weighted as in AECR-Net and CSD; the weight of the whole term is not tuned.
CONTRASTIVE_VGG = LossTerm(
    "contrastive",
    weight=0.0002,
    options={"extractor": "vgg19", "layer_weights": (1 / 32, 1 / 16, 1 / 8, 1 / 4, 1.0), "eps": 1e-7},
)


def single_stage(*, scale: int, steps: int = STAGE_STEPS) -> Stage:
    """Return a training from scratch for any network: L1, Adam at 5e-4, halved after each fifth of the stage."""
    return Stage(
        name="stage1",
        steps=steps,
        losses=(LossTerm("l1"),),
        data=DataRecipe(kind="photos", patch_px=HR_PATCH_PX // scale),
        batch=64,
        optimiser=Optimiser(learning_rate=5e-4, betas=(0.9, 0.999), eps=1e-8),
        schedule=Schedule("halve_every", every=max(steps * HALVE_EVERY // STAGE_STEPS, 1), gamma=0.5),
        ema_decay=None,
    )


def warm_started(first: Stage, *, starts: int, keep_optimiser: bool = False, last: LossTerm | None = None) -> tuple[Stage, ...]:
    """Return `first` and `starts` repetitions of it, each from the final weights of the stage before; for any network.

    Args:
        keep_optimiser: Whether to keep Adam's state while the schedule starts fresh: the article's `clr`.
        last: Loss to add in the last stage.
    """
    again = [replace(first, name=f"stage{i + 2}", start_from=PREVIOUS, keep_optimiser=keep_optimiser) for i in range(starts)]
    stages = [first, *again]
    if last is not None:
        stages[-1] = replace(stages[-1], losses=(*stages[-1].losses, last))
    return tuple(stages)


def _recipe(name: str, model: str, stages: tuple[Stage, ...]) -> Recipe:
    return Recipe(name=name, model=model, stages=stages, protocol="sisr-y")


def rlfn_x2() -> Recipe:
    """RLFN ×2 in three stages, the third with the contrastive loss.

    Command: `upframe train rlfn-x2 --data DIV2K_train_HR --out runs/rlfn-x2`. To reach: Set5-Y 38.07, Set14-Y 33.72 dB.
    """
    first = single_stage(scale=2)
    return _recipe("rlfn-x2", "rlfn-x2", warm_started(first, starts=2, last=CONTRASTIVE))


def rlfn_x4() -> Recipe:
    """RLFN ×4 in three stages, the third with the contrastive loss.

    Command: `upframe train rlfn-x4 --data DIV2K_train_HR --out runs/rlfn-x4`. To reach: Set5-Y 32.24, Set14-Y 28.62 dB.
    """
    first = single_stage(scale=4)
    return _recipe("rlfn-x4", "rlfn-x4", warm_started(first, starts=2, last=CONTRASTIVE))


def rlfn_s_x2() -> Recipe:
    """RLFN-S ×2, as `rlfn-x2`.

    Command: `upframe train rlfn-s-x2 --data DIV2K_train_HR --out runs/rlfn-s-x2`. To reach: Set5-Y 38.05, Set14-Y 33.63 dB.
    """
    first = single_stage(scale=2)
    return _recipe("rlfn-s-x2", "rlfn-s-x2", warm_started(first, starts=2, last=CONTRASTIVE))


def rlfn_s_x4() -> Recipe:
    """RLFN-S ×4, as `rlfn-x4`.

    Command: `upframe train rlfn-s-x4 --data DIV2K_train_HR --out runs/rlfn-s-x4`. To reach: Set5-Y 32.24, Set14-Y 28.63 dB.
    """
    first = single_stage(scale=4)
    return _recipe("rlfn-s-x4", "rlfn-s-x4", warm_started(first, starts=2, last=CONTRASTIVE))


def ws_0(*, steps: int = STAGE_STEPS) -> Recipe:
    """The ablation's starting point: one stage, L1 only.

    Command: `upframe train rlfn-x4-ws-0 --data DIV2K_train_HR --out runs/ws-0`. To reach: less than `rlfn-x4-ws-1`.
    """
    return _recipe("rlfn-x4-ws-0", "rlfn-x4", (single_stage(scale=4, steps=steps),))


def ws_1(*, steps: int = STAGE_STEPS) -> Recipe:
    """One warm start, L1 only.

    Command: `upframe train rlfn-x4-ws-1 --data DIV2K_train_HR --out runs/ws-1`. To reach: more than `rlfn-x4-e2000` and
    `rlfn-x4-clr`, which are as long.
    """
    first = single_stage(scale=4, steps=steps)
    return _recipe("rlfn-x4-ws-1", "rlfn-x4", warm_started(first, starts=1))


def ws_2(*, steps: int = STAGE_STEPS) -> Recipe:
    """Two warm starts, L1 only: `rlfn-x4` without its contrastive loss.

    Command: `upframe train rlfn-x4-ws-2 --data DIV2K_train_HR --out runs/ws-2`. To compare with `rlfn-x4`.
    """
    first = single_stage(scale=4, steps=steps)
    return _recipe("rlfn-x4-ws-2", "rlfn-x4", warm_started(first, starts=2))


def e2000(*, steps: int = STAGE_STEPS) -> Recipe:
    """One stage of twice the length with a stretched schedule, to compare with the warm start.

    Command: `upframe train rlfn-x4-e2000 --data DIV2K_train_HR --out runs/e2000`. To reach: less than `rlfn-x4-ws-1`.
    """
    return _recipe("rlfn-x4-e2000", "rlfn-x4", (single_stage(scale=4, steps=2 * steps),))


def clr(*, steps: int = STAGE_STEPS) -> Recipe:
    """The schedule restarts and Adam's state stays: a cyclical learning rate, also to compare with the warm start.

    Command: `upframe train rlfn-x4-clr --data DIV2K_train_HR --out runs/clr`. To reach: less than `rlfn-x4-ws-1`.
    """
    first = single_stage(scale=4, steps=steps)
    return _recipe("rlfn-x4-clr", "rlfn-x4", warm_started(first, starts=1, keep_optimiser=True))


def rlfn_x4_vgg() -> Recipe:
    """`rlfn-x4` with features of VGG-19 instead of the random extractor; in the article, this lowers PSNR.

    Command: `upframe train rlfn-x4-vgg --data DIV2K_train_HR --out runs/vgg --set
    losses.contrastive.options.weights=VGG19.pth`. To reach: less than `rlfn-x4`.
    """
    first = single_stage(scale=4)
    return _recipe("rlfn-x4-vgg", "rlfn-x4", warm_started(first, starts=2, last=CONTRASTIVE_VGG))


# Blocks ---------------------------------------------------------------------------------------------------------------------
# Where the article's names leave details open, upframe chose them: all train like `ws_0`. Their ESA has three convolutions on
# its pooled map, as in RFDB, and a quarter of the channels inside unless the article states 16.
def _block(name: str, block: str, *, channels: int, esa_channels: int) -> Recipe:
    options: dict[str, Scalar] = {
        "block": block,
        "channels": channels,
        "inner_channels": channels,
        "esa_channels": esa_channels,
        "esa_convs": 3,
    }
    return replace(ws_0(), name=name, model_options=options)


def rfdb() -> Recipe:
    """RFDB with 48 channels in place of RLFB.

    Command: `upframe train rlfn-x4-rfdb --data DIV2K_train_HR --out runs/rfdb`. To compare with `rlfn-x4-ws-0`.
    """
    return _block("rlfn-x4-rfdb", "rfdb", channels=48, esa_channels=12)


def rfdbr48() -> Recipe:
    """RFDB without distillation, 48 channels: the article's RFDBR48.

    Command: `upframe train rlfn-x4-rfdbr48 --data DIV2K_train_HR --out runs/rfdbr48`. To compare with `rlfn-x4-rfdb`.
    """
    return _block("rlfn-x4-rfdbr48", "rfdbr", channels=48, esa_channels=12)


def rfdbr52() -> Recipe:
    """RFDB without distillation, 52 channels, 16 in ESA: the article's RFDBR52.

    Command: `upframe train rlfn-x4-rfdbr52 --data DIV2K_train_HR --out runs/rfdbr52`. To compare with `rlfn-x4-ws-0`.
    """
    return _block("rlfn-x4-rfdbr52", "rfdbr", channels=52, esa_channels=16)


RECIPES: dict[str, Callable[[], Recipe]] = {
    "rlfn-x2": rlfn_x2,
    "rlfn-x4": rlfn_x4,
    "rlfn-s-x2": rlfn_s_x2,
    "rlfn-s-x4": rlfn_s_x4,
    "rlfn-x4-ws-0": ws_0,
    "rlfn-x4-ws-1": ws_1,
    "rlfn-x4-ws-2": ws_2,
    "rlfn-x4-e2000": e2000,
    "rlfn-x4-clr": clr,
    "rlfn-x4-vgg": rlfn_x4_vgg,
    "rlfn-x4-rfdb": rfdb,
    "rlfn-x4-rfdbr48": rfdbr48,
    "rlfn-x4-rfdbr52": rfdbr52,
}
"""The recipes of this file by name."""
