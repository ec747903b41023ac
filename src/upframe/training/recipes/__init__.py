"""Recipes: what is trained, on what, how long, and the published figures."""
