"""Every recipe by name. The docstring of each function states command, hardware, hours and the score to reach. The docstring of
its module in `presets/` states what the recipes of a system share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib import import_module

from upframe.errors import UsageError
from upframe.models.networks import FAMILIES
from upframe.training.recipes.fields import did_you_mean
from upframe.training.recipes.presets import shipped, toy
from upframe.training.recipes.presets.shipped import SHARE_ALIKE
from upframe.training.recipes.recipe import Recipe

__all__ = ["HEADINGS", "RECIPES", "SHARE_ALIKE", "find_recipe"]

Preset = Callable[[], Recipe]


def _of_families() -> Iterator[tuple[str, Preset]]:
    """Yield the recipes of every family, from the module that its registration names (`Family.recipes`)."""
    for family in FAMILIES:
        if family.recipes is not None:
            yield from import_module(family.recipes).RECIPES.items()


RECIPES: dict[str, Preset] = {**shipped.RECIPES, **dict(_of_families()), **toy.RECIPES}
"""upframe's own weights, each family as published, and toys."""

HEADINGS: dict[str, str] = {
    "shipped": "upframe's own models",
    "rlfn": "RLFN",
    "vapsr": "VapSR",
    "realbasicvsr": "RealBasicVSR",
    "vrt": "VRT",
    "vsr_transformer": "VSR-Transformer",
    "toy": "Toys: minutes on one core",
}
"""Headings of the list of recipes, by the module of `presets` they stand in."""


def find_recipe(name: str) -> Recipe:
    """Return the recipe called `name`. Case does not matter, and `_` stands for `-`.

    Raises:
        UsageError: if the name is unknown; the message suggests the nearest one.
    """
    key = name.lower().replace("_", "-")
    if key not in RECIPES:
        raise UsageError(f"recipe {name}", "no such recipe", did_you_mean(key, RECIPES))
    return RECIPES[key]()
