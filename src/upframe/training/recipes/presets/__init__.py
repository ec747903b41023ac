"""Recipes as named functions, one module a system. `recipes.py` lists them all; `official.py` holds the values they are
checked against. Requirement ids (RL-9 …) in comments are those of `official.py`."""
