"""Train a recipe on random pictures: `python toy_run.py RECIPE.json OUT [STOP_AFTER]`; tests start it, also by torchrun."""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from toys import Noise
from upframe.training.loop.train import train
from upframe.training.recipes.recipe import Recipe, model_spec

if __name__ == "__main__":
    torch.set_num_threads(1)
    recipe = Recipe.from_json(Path(sys.argv[1]).read_text())
    data = recipe.stages[0].data
    noise = Noise(
        scale=model_spec(recipe).scale,
        side=data.patch_px,
        frames=data.clip_frames if data.kind == "clips" else None,
        seed=recipe.seed,
    )
    stop_after = int(sys.argv[3]) if len(sys.argv) > 3 else None
    train(recipe, data=lambda stage: noise, out=Path(sys.argv[2]), device="cpu", stop_after=stop_after)
