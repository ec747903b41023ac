"""Recipes as named functions, one module for each system. `registry.py` lists all of them; `official.py` holds the published
values against which a test checks them. Ids such as RL-9 in comments are those of `official.py`."""
