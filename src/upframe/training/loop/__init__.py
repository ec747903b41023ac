"""Run the stages of a recipe, with exact resume."""
