"""Recipes: typed overrides, schedules, round trips."""

from __future__ import annotations

import math

import pytest

from upframe.errors import UsageError
from upframe.models import MODELS
from upframe.training.recipe import Recipe
from upframe.training.recipes import RECIPES, find_recipe


def test_overrides_are_typed_and_leave_the_original_alone() -> None:
    recipe = Recipe("r", "rlfn-ntire-x4", steps=10)
    changed = recipe.override(
        {"steps": "20", "betas": "0.9,0.99", "precision": "bf16", "milestones": "5,9", "start_from": "a.pth"}
    )
    assert (changed.steps, changed.betas, changed.precision, changed.milestones) == (20, (0.9, 0.99), "bf16", (5, 9))
    assert changed.start_from == "a.pth"
    assert recipe.steps == 10


@pytest.mark.parametrize(
    ("field", "value"), [("stepz", "3"), ("steps", "many"), ("precision", "fp8"), ("betas", "0.9"), ("steps", "0")]
)
def test_a_typo_or_a_value_of_another_type_is_a_usage_error(field: str, value: str) -> None:
    with pytest.raises(UsageError):
        Recipe("r", "rlfn-ntire-x4", steps=10).override({field: value})


def test_cosine_rises_to_its_peak_and_ends_at_its_end() -> None:
    recipe = Recipe("r", "m", steps=1000, learning_rate=1e-3, warmup_steps=100, final_learning_rate=1e-6)
    assert recipe.learning_rate_at(0) == pytest.approx(1e-5)
    assert recipe.learning_rate_at(99) == pytest.approx(1e-3)
    assert recipe.learning_rate_at(550) == pytest.approx(1e-6 + (1e-3 - 1e-6) / 2)
    assert recipe.learning_rate_at(999) == pytest.approx(1e-6 + (1e-3 - 1e-6) * 0.5 * (1 + math.cos(math.pi * 899 / 900)))


def test_multistep_halves_at_its_milestones() -> None:
    """RLFN's published schedule: 5e-4, halved every 200 000 iterations."""
    recipe = Recipe("r", "m", steps=1_000_000, schedule="multistep", milestones=(200_000, 400_000))
    rates = [recipe.learning_rate_at(step) for step in (0, 199_999, 200_000, 399_999, 400_000)]
    assert rates == pytest.approx([5e-4, 5e-4, 2.5e-4, 2.5e-4, 1.25e-4])


@pytest.mark.parametrize("name", RECIPES)
def test_recipes_round_trip_and_name_a_model_there_is(name: str) -> None:
    recipe = RECIPES[name]()
    assert Recipe.from_json(recipe.to_json()) == recipe
    assert recipe.model in MODELS
    assert recipe.name == name


def test_an_unknown_recipe_is_answered_with_the_nearest() -> None:
    with pytest.raises(UsageError, match="Did you mean photo-x4"):
        find_recipe("photo-4")
    assert find_recipe("PHOTO_X4").name == "photo-x4"
