"""The guard against test pictures in the training set finds copies, and our own training set has none."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from conftest import make_photo
from upframe.datasets.footage import find_clips, find_photos
from upframe.datasets.leaks import ALIKE_BITS, find_leaks, fingerprints, perceptual_hash, refuse_leaks, sampled_frames
from upframe.errors import UsageError
from upframe.media.image.files import iter_files, write_pixels
from upframe.media.image.source import read_pixels
from upframe.pixels import from_unit, resize, to_unit
from upframe.training.recipes.registry import RECIPES

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


def test_every_pair_is_compared_also_block_by_block(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("upframe.datasets.leaks._BLOCK", 7)
    test = {f"v{i}": np.rot90(TRAIN[f"t{i}"], i).copy() for i in (3, 8, 13)}
    many = dict(TRAIN) | {f"n{i}": make_photo(40, 50, seed=1000 + i) for i in range(60)}
    leaks = find_leaks(fingerprints(many.items()), test)
    assert [(leak.train, leak.test) for leak in leaks] == [("t3", "v3"), ("t8", "v8"), ("t13", "v13")]


def test_black_frames_of_fades_are_no_leak() -> None:
    black = {"black": np.zeros((90, 120, 3), np.uint8)}
    assert find_leaks(black, {"dark": np.full((80, 100, 3), 1, np.uint8)}) == []
    assert [leak.kind for leak in find_leaks(black, {"same": black["black"]})] == ["exact"]


# Training sets --------------------------------------------------------------------------------------------------------
def _clips(root: Path, *, frames: int = 12) -> Path:
    for clip in range(3):
        (root / f"{clip:03}").mkdir(parents=True)
        for n in range(frames):
            write_pixels(root / f"{clip:03}" / f"{n:08}.png", make_photo(48, 64, seed=100 * clip + n))
    return root


@pytest.mark.parametrize("planted", ["copy", "recompressed"])
def test_a_test_frame_planted_into_a_clip_stops_the_run(tmp_path: Path, planted: str) -> None:
    clips = _clips(tmp_path / "train")
    frame = make_photo(48, 64, seed=777)
    if planted == "recompressed":
        write_pixels(tmp_path / "frame.jpg", frame[:, ::-1].copy(), quality=70)
        write_pixels(clips / "001" / "00000007.png", read_pixels(tmp_path / "frame.jpg"))
    else:
        write_pixels(clips / "001" / "00000007.png", frame)
    footage = find_clips(clips)
    held_out = {"REDS4/000/00000011": frame, "REDS4/011/00000002": make_photo(48, 64, seed=778)}
    with pytest.raises(UsageError, match=r"1 test pictures are in it: 001/00000007\.png shows the same as REDS4/000/00000011"):
        refuse_leaks(footage, held_out)
    refuse_leaks(find_clips(clips, exclude=("001",)), held_out)


def test_of_large_sets_evenly_spaced_frames_of_every_clip_are_compared(tmp_path: Path) -> None:
    footage = find_clips(_clips(tmp_path))
    assert len(list(sampled_frames(footage, most_frames=36))) == 36
    sampled = list(sampled_frames(footage, most_frames=10))
    assert sampled == [f"{clip:03}/{n:08}.png" for clip in range(3) for n in (0, 4, 8)]
    assert len(list(sampled_frames(footage, most_frames=1))) == 3


def test_no_test_picture_is_among_the_photographs_the_shipped_weights_were_trained_on(shared: Path) -> None:
    torch.set_num_threads(1)
    data = RECIPES["photo-x4"]().stages[0].data
    train = find_photos(shared / "train" / "photos", exclude=data.exclude)
    assert len(train.clips) > 70
    tests = {
        f"{name}/{path.name}": read_pixels(path)
        for name in ("Set5", "Set14", "B100")
        for path in iter_files(shared / "testsets" / name / "HR")
    }
    assert len(tests) == 119
    refuse_leaks(train, tests)
