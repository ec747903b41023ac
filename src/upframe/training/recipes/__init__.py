"""Recipes: networks, data, stages, schedules, and the published figures."""
