"""The recipes upframe's own weights are trained with. Each docstring says command, hardware, hours and the number to reach."""

from __future__ import annotations

import difflib
from collections.abc import Callable

from upframe.errors import UsageError
from upframe.training.recipe import Recipe

# Images under a share-alike licence are left out so that no such term can be argued to follow into the weights.
SHARE_ALIKE = (
    "cid22_*",
    "lomiri_bridge_by_sander_klootwijk*",
    "lomiri_dragonfly_by_bolly*",
    "lomiri_kleiber_by_lukas_baubkus*",
)


def photo_x2() -> Recipe:
    """RLFN's NTIRE variant at ×2 for the shipped `photo-x2`.

    Command: `upframe train photo-x2 --data PHOTOS --out runs/photo-x2`. The shipped weights took 57 minutes on two shared
    CPU cores with avx512_bf16 (130 patches a second when undisturbed: 25 minutes). Reached: Set5-Y 37.39 dB.
    """
    return Recipe(
        name="photo-x2",
        model="rlfn-ntire-x2",
        steps=12_000,
        batch=16,
        patch_px=48,
        learning_rate=1e-3,
        betas=(0.9, 0.99),
        warmup_steps=200,
        precision="bf16",
        fp32_tail_steps=1000,
        exclude=SHARE_ALIKE,
    )


def photo_x4() -> Recipe:
    """RLFN's NTIRE variant at ×4 for the shipped `photo-x4`, started from the ×2 weights (all but the upsampler).

    Command: `upframe train photo-x4 --data PHOTOS --out runs/photo-x4 --set start_from=runs/photo-x2/last.pth`. The
    shipped weights took 66 minutes on two shared CPU cores with avx512_bf16. Reached: Set5-Y 31.41 dB.
    """
    return Recipe(
        name="photo-x4",
        model="rlfn-ntire-x4",
        steps=16_000,
        batch=16,
        patch_px=48,
        learning_rate=1e-3,
        betas=(0.9, 0.99),
        warmup_steps=200,
        precision="bf16",
        fp32_tail_steps=1000,
        exclude=SHARE_ALIKE,
    )


RECIPES: dict[str, Callable[[], Recipe]] = {"photo-x2": photo_x2, "photo-x4": photo_x4}


def find_recipe(name: str) -> Recipe:
    """The recipe called `name`.

    Raises:
        UsageError: for an unknown name, with the nearest.
    """
    key = name.lower().replace("_", "-")
    if key not in RECIPES:
        near = difflib.get_close_matches(key, RECIPES, n=1, cutoff=0) or list(RECIPES)
        raise UsageError(f"recipe {name}", "no such recipe", f"did you mean {near[0]}? There are: {', '.join(RECIPES)}")
    return RECIPES[key]()
