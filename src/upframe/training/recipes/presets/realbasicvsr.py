"""RealBasicVSR: a stage for distortion, a stage against a discriminator, and the studies of the article.

Chan et al., Investigating Tradeoffs in Real-World Video Super-Resolution, CVPR 2022 (arXiv 2111.12704).

Data: REDS `train_sharp` cut into sub-images of 480 px every 240 px (`upframe data prepare sub-images REDS/train_sharp
REDS/train_sharp_sub --clips`); upframe degrades clips during training. Flow network: pretrained and frozen, from the user's
file: `--set flow_weights=SPYNET`; the licence of its published weights forbids redistribution. Perceptual loss: `--set
losses.perceptual.options.weights=VGG19.pth`; without it, `--until wogan` trains the first stage. Hardware: eight GPUs with two
clips each in the first stage and one in the second; hours are not published. The published network scores NIQE 3.766 on VideoLQ
(protocol `videolq-3frame`) after both stages.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from upframe.training.recipes.recipe import (
    PREVIOUS,
    DataRecipe,
    Discriminator,
    LossKind,
    LossTerm,
    Optimiser,
    ParameterGroup,
    Recipe,
    Sharpening,
    Stage,
)

FROZEN_FLOW = ParameterGroup(names=("spynet",), frozen_until=None)
PERCEPTUAL = LossTerm(
    "perceptual",
    weight=1.0,
    target="sharpened",
    options={"layers": (2, 7, 16, 25, 34), "layer_weights": (0.1, 0.1, 1.0, 1.0, 1.0)},
)
GAN = LossTerm("gan", weight=0.05, target="gt")
TOTAL_FRAMES = 480


def wogan_stage(*, kind: LossKind = "l1", batch: int = 16, clip_frames: int = 30) -> Stage:
    """The first stage: output and cleaned clip against the sharpened truth."""
    losses = (LossTerm(kind, target="sharpened"), LossTerm(kind, on="cleaned", target="sharpened"))
    return Stage(
        name="wogan",
        steps=300_000,
        losses=losses,
        data=DataRecipe(
            kind="clips",
            low_quality="degraded",
            degradation="realbasicvsr",
            patch_px=64,
            clip_frames=clip_frames,
            mirrored=True,
        ),
        batch=batch,
        optimiser=Optimiser(learning_rate=1e-4, betas=(0.9, 0.99), groups=(FROZEN_FLOW,)),
        sharpening=Sharpening(kernel_px=51, sigma_px=0.0, weight=0.5, threshold=10.0),
        ema_decay=0.999,
        ema_warmup=False,
    )


def gan_stage(first: Stage) -> Stage:
    """The second stage: `first` at half the rate and batch, with perceptual and adversarial losses."""
    return replace(
        first,
        name="gan",
        steps=150_000,
        losses=(*first.losses, PERCEPTUAL, GAN),
        batch=8,
        optimiser=replace(first.optimiser, learning_rate=5e-5),
        discriminator=Discriminator(optimiser=Optimiser(learning_rate=1e-4, betas=(0.9, 0.99)), channels=64),
        start_from=PREVIOUS,
    )


def _recipe(name: str, *stages: Stage, model: str = "realbasicvsr-x4") -> Recipe:
    return Recipe(name=name, model=model, stages=stages, protocol="udm10-bi-rgb")


def realbasicvsr_x4() -> Recipe:
    """Both stages as in the authors' configurations, with L1 for output and cleaning.

    Command: `upframe train realbasicvsr-x4 --data REDS/train_sharp_sub --out runs/rbv --set flow_weights=SPYNET
    --set losses.perceptual.options.weights=VGG19.pth`. To reach: NIQE 3.766 on VideoLQ.
    """
    first = wogan_stage()
    return _recipe("realbasicvsr-x4", first, gan_stage(first))


def realbasicvsr_x4_paper() -> Recipe:
    """Both stages as in the article: Charbonnier for output and cleaning; everything else as in `realbasicvsr-x4`.

    Command: as `realbasicvsr-x4`. To compare with it.
    """
    first = wogan_stage(kind="charbonnier")
    return _recipe("realbasicvsr-x4-paper", first, gan_stage(first))


def realbasicvsr_x4_wogan() -> Recipe:
    """The first stage alone, which needs no VGG weights.

    Command: `upframe train realbasicvsr-x4-wogan --data REDS/train_sharp_sub --out runs/wogan --set flow_weights=SPYNET`.
    To reach: higher PSNR, smoother pictures than both stages.
    """
    return _recipe("realbasicvsr-x4-wogan", wogan_stage())


def realbasicvsr_x4_no_cleaning_loss() -> Recipe:
    """Both stages without the cleaning loss; in the article, the network then enlarges noise and artefacts.

    Command: as `realbasicvsr-x4`. To reach: a higher (worse) NIQE than it.
    """
    first = wogan_stage()
    first = replace(first, losses=first.losses[:1])
    return _recipe("realbasicvsr-x4-no-cleaning-loss", first, gan_stage(first))


def realbasicvsr_x4_no_cleaning() -> Recipe:
    """Both stages without the cleaning module: BasicVSR under the same degradations.

    Command: as `realbasicvsr-x4`. To reach: a higher (worse) NIQE than it.
    """
    first = wogan_stage()
    first = replace(first, losses=first.losses[:1])
    return _recipe("realbasicvsr-x4-no-cleaning", first, gan_stage(first), model="basicvsr-x4")


def realbasicvsr_x4_recurrent_cleaning() -> Recipe:
    """Both stages with a cleaning network that is recurrent in time; the article finds it worse than cleaning single frames.

    Command: as `realbasicvsr-x4`. To reach: a higher (worse) NIQE than it.
    """
    return replace(realbasicvsr_x4(), name="realbasicvsr-x4-recurrent-cleaning", model_options={"recurrent_cleaning": True})


def batch_length_sweep(
    *, lengths: Sequence[int] = (10, 20, 30), total_frames: int | None = TOTAL_FRAMES, batch: int = 16
) -> list[Recipe]:
    """First stages that differ in batch and clip length, for the article's study: longer clips win.

    Args:
        lengths: Frames of a clip, even numbers.
        total_frames: Batch times length, the same for all recipes; None keeps `batch` constant instead.

    Raises:
        ValueError: if a length does not divide `total_frames`.
    """
    recipes = []
    for frames in lengths:
        if total_frames is not None and total_frames % frames:
            raise ValueError(f"{total_frames} frames are not a whole number of clips of {frames}")
        clips = batch if total_frames is None else total_frames // frames
        recipes.append(_recipe(f"realbasicvsr-x4-b{clips}-l{frames}", wogan_stage(batch=clips, clip_frames=frames)))
    return recipes


def b48_l10() -> Recipe:
    """48 clips of 10 frames: one end of the study at 480 frames a step.

    Command: `upframe train realbasicvsr-x4-b48-l10 --data REDS/train_sharp_sub --out runs/b48-l10 --set
    flow_weights=SPYNET`. To reach: less than `realbasicvsr-x4-wogan`, which is its 16 clips of 30.
    """
    return batch_length_sweep(lengths=(10,))[0]


def b24_l20() -> Recipe:
    """24 clips of 20 frames: the middle of the study at 480 frames a step.

    Command: as `realbasicvsr-x4-b48-l10`. To reach: between it and `realbasicvsr-x4-wogan`.
    """
    return batch_length_sweep(lengths=(20,))[0]


def b16_l10() -> Recipe:
    """16 clips of 10 frames: the study at 16 clips a step.

    Command: as `realbasicvsr-x4-b48-l10`. To reach: less than `realbasicvsr-x4-b16-l20`.
    """
    return batch_length_sweep(lengths=(10,), total_frames=None)[0]


def b16_l20() -> Recipe:
    """16 clips of 20 frames: the study at 16 clips a step.

    Command: as `realbasicvsr-x4-b48-l10`. To reach: less than `realbasicvsr-x4-wogan`, which is its 16 clips of 30.
    """
    return batch_length_sweep(lengths=(20,), total_frames=None)[0]


RECIPES: dict[str, Callable[[], Recipe]] = {
    "realbasicvsr-x4": realbasicvsr_x4,
    "realbasicvsr-x4-paper": realbasicvsr_x4_paper,
    "realbasicvsr-x4-wogan": realbasicvsr_x4_wogan,
    "realbasicvsr-x4-no-cleaning-loss": realbasicvsr_x4_no_cleaning_loss,
    "realbasicvsr-x4-no-cleaning": realbasicvsr_x4_no_cleaning,
    "realbasicvsr-x4-recurrent-cleaning": realbasicvsr_x4_recurrent_cleaning,
    "realbasicvsr-x4-b48-l10": b48_l10,
    "realbasicvsr-x4-b24-l20": b24_l20,
    "realbasicvsr-x4-b16-l10": b16_l10,
    "realbasicvsr-x4-b16-l20": b16_l20,
}
"""The recipes of this file by name."""
