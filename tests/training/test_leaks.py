"""The guard against test pictures in the training set finds copies, and our own training set has none."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from conftest import make_photo
from upframe.media.images import iter_files, read_pixels, write_pixels
from upframe.pixels import from_unit, resize, to_unit
from upframe.training.data import load_photos
from upframe.training.leaks import ALIKE_BITS, find_leaks, perceptual_hash
from upframe.training.recipes import RECIPES

TRAIN = {f"t{i}": make_photo(90, 120, seed=i) for i in range(20)}


def test_a_planted_copy_is_found_by_its_pixels() -> None:
    leaks = find_leaks(TRAIN, {"planted": TRAIN["t7"].copy(), "new": make_photo(90, 120, seed=99)})
    assert [(leak.train, leak.test, leak.kind) for leak in leaks] == [("t7", "planted", "exact")]


@pytest.mark.parametrize("change", ["half", "jpeg", "darker", "turned", "mirrored"])
def test_a_changed_copy_is_found_by_what_it_shows(change: str, tmp_path: Path) -> None:
    original = TRAIN["t3"]
    if change == "half":
        unit = resize(to_unit(original), (45, 60))
        copy = from_unit(unit, np.uint8)
    elif change == "jpeg":
        write_pixels(tmp_path / "copy.jpg", original, quality=60)
        copy = read_pixels(tmp_path / "copy.jpg")
    elif change == "darker":
        copy = (original * 0.8).astype(np.uint8)
    elif change == "turned":
        copy = np.rot90(original).copy()
    else:
        copy = original[:, ::-1].copy()
    assert [(leak.train, leak.kind) for leak in find_leaks(TRAIN, {"copy": copy})] == [("t3", "alike")]


def test_different_pictures_are_far_apart() -> None:
    hashes = [perceptual_hash(make_photo(80, 80, seed=i)) for i in range(30)]
    distances = [(a ^ b).bit_count() for i, a in enumerate(hashes) for b in hashes[:i]]
    assert min(distances) > ALIKE_BITS
    assert 26 < np.mean(distances) < 38  # about half of 64


def test_no_test_picture_is_among_the_photographs_the_shipped_weights_were_trained_on(shared: Path) -> None:
    torch.set_num_threads(1)
    train = load_photos(shared / "train" / "photos", exclude=RECIPES["photo-x4"]().exclude, minimum_px=1)
    assert len(train) > 70
    tests = {
        f"{name}/{path.name}": read_pixels(path)
        for name in ("Set5", "Set14", "B100")
        for path in iter_files(shared / "testsets" / name / "HR")
    }
    assert len(tests) == 119
    assert find_leaks(train, tests) == []
