"""Each of the five systems learns: short runs through the command line, scored on held-back data; the checkpoint enlarges."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from numpy.typing import NDArray

from conftest import Upframe, make_photo
from films import make_film, make_frames, rgb_of
from upframe.media.image.files import write_pixels
from upframe.media.image.source import read_pixels
from upframe.training.recipes.registry import find_recipe

PARTS = 5
"""Of a run: reports, and validations."""


@dataclass(frozen=True)
class System:
    recipe: str
    data: Literal["photos", "clips"]
    scale: int
    term: str
    """The loss that is looked at: one that all stages have."""
    share: float
    """Least share that has to be kept: the root of the reference, which is halfway to nothing learnt."""
    gain_db: float
    """PSNR that is gained from the first validation to the last, at least: half of what is."""
    shorter: tuple[str, ...] = ()
    """Fields that make the toy shorter still."""


SYSTEMS = (
    System("toy-rlfn", "photos", 2, "l1", 0.5, 2.8),
    System("toy-vapsr", "photos", 2, "l1", 0.5, 3.0),
    System("toy-realbasicvsr", "clips", 4, "l1", 0.9, 1.3, ("steps=15", "patch_px=16")),
    System("toy-vrt", "clips", 2, "charbonnier", 0.54, 1.5, ("steps=20", "batch=2", "frozen_until=10", "periods=20")),
    System(
        *("toy-vsrt", "clips", 4, "charbonnier", 0.53, 1.0),
        ("stages.warmup.steps=10", "stages.main.steps=20", "batch=2", "periods=10,10"),
    ),
)


def pan(count: int, *, size: tuple[int, int], seed: int) -> list[NDArray[np.uint8]]:
    """Frames of a scene that moves by two pixels a frame, seen from near: what is lost at a quarter of its size is little."""
    height, width = size
    scene = make_photo(4 * height, 4 * (width + 2 * count), seed=seed)
    return [np.ascontiguousarray(scene[height : 2 * height, width + 2 * n : 2 * (width + n)], np.uint8) for n in range(count)]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`photos` and `clips`, each with `data` to train on, `sets` that are held back, and something small to enlarge."""
    root = tmp_path_factory.mktemp("made")
    for seed in (0, 1, 2, 3, 7, 8):
        is_data = seed < 4
        pictures = root / "photos" / ("data" if is_data else "sets/HeldBack/HR")
        pictures.mkdir(parents=True, exist_ok=True)
        write_pixels(pictures / f"{seed}.png", make_photo(96, 100, seed=seed))
        side, count = (160, 8) if is_data else (64, 3)
        frames = root / "clips" / ("data" if is_data else "sets/GT") / f"{seed:03d}"
        make_frames(frames, pan(count, size=(side, side), seed=seed))
    write_pixels(root / "photos" / "small.png", make_photo(32, 40, seed=9))
    make_film(root / "clips" / "small.mkv", pan(3, size=(32, 40), seed=9))
    return root


@pytest.mark.slow
@pytest.mark.parametrize("system", SYSTEMS, ids=lambda system: system.recipe)
def test_the_loss_falls_the_scores_rise_and_the_checkpoint_enlarges(
    upframe: Upframe, made: Path, tmp_path: Path, system: System
) -> None:
    folder, run = made / system.data, tmp_path / "run"
    every = find_recipe(system.recipe).override(dict(pair.split("=", 1) for pair in system.shorter)).steps // PARTS
    changes = (*system.shorter, f"log_every={every}", f"validate_every={every}")
    trained = upframe(
        *("train", system.recipe, "--data", folder / "data", "--out", run, "--validate-on", folder / "sets"),
        *(part for change in changes for part in ("--set", change)),
        *("--device", "cpu", "--threads", 1, "--workers", 1, "--json"),
    )
    assert trained.code == 0, trained.err
    assert not any(line["event"] == "notice" for line in trained.lines)  # of roll-backs
    losses = [line["terms"][system.term] for line in trained.lines if line["event"] == "training"]
    scores = [next(iter(line["validation"].values())) for line in trained.lines if line["event"] == "validation"]
    assert losses[-1] < system.share * losses[0]
    assert scores[-1]["psnr-y"] > scores[0]["psnr-y"] + system.gain_db

    (source,) = folder.glob("small.*")
    large = tmp_path / f"large{source.suffix}"
    enlarged = upframe("upscale", source, "-m", run / "last.pth", "-o", large)
    assert enlarged.code == 0, enlarged.err
    frames = [read_pixels(large)] if system.data == "photos" else rgb_of(large)
    assert [frame.shape for frame in frames] == [(32 * system.scale, 40 * system.scale, 3)] * (
        1 if system.data == "photos" else 3
    )
