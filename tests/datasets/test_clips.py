"""Video test sets: every usual layout, frames in order and without holes, and the pixels they give."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from conftest import make_photo
from upframe import pixels
from upframe.datasets.clips import LAYOUTS, blur_and_subsample_8bit, find_clip_set, list_frames, load_clip
from upframe.errors import InputError
from upframe.metrics.protocols import PROTOCOLS, ClipRule

Rows = NDArray[np.uint8]


def rule_of(protocol: str) -> ClipRule:
    rule = PROTOCOLS[protocol].clips
    assert rule is not None
    return rule


def frame(clip: str, number: int, *, height: int = 16, width: int = 24) -> Rows:
    """A picture that no other frame of any clip has."""
    return np.asarray(make_photo(height, width, seed=sum(map(ord, clip)) * 1000 + number), np.uint8)


def shrunk(hr: Rows, scale: int = 4) -> Rows:
    return pixels.matlab_bicubic_8bit(torch.from_numpy(hr).permute(2, 0, 1), scale).permute(1, 2, 0).numpy()


def put(folder: Path, name: str, picture: Rows) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture).save(folder / name)


def put_clip(folder: Path, clip: str, numbers: Sequence[int], *, name: str = "{:08d}.png", low: bool = False) -> None:
    for number in numbers:
        put(folder, name.format(number), shrunk(frame(clip, number)) if low else frame(clip, number))


# Layouts --------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("truth", "inputs"),
    [("GT/{}", "BIx4/{}"), ("HR/{}", "LRbicX4/{}"), ("{}/HR", "{}/LRbicX4"), ("GT/{}", None), ("{}", None)],
)
def test_vid4_is_found_in_its_layouts(tmp_path: Path, truth: str, inputs: str | None) -> None:
    for clip in ("walk", "calendar"):
        put_clip(tmp_path / truth.format(clip), clip, range(3))
        if inputs:
            put_clip(tmp_path / inputs.format(clip), clip, range(3), low=True)
    found = find_clip_set(tmp_path, rule_of("vid4-y"), scale=4)
    assert found.name == "Vid4 (2 of 4 clips, 6 of 171 frames)"
    assert [c.name for c in found.clips] == ["calendar", "walk"]
    assert all(bool(c.inputs) == (inputs is not None) and c.scored == (0, 1, 2) for c in found.clips)
    sample = load_clip(found.clips[1], scale=4)
    for i in range(3):
        assert np.array_equal(sample.truth[i], frame("walk", i))
        assert np.array_equal(sample.lr[i], shrunk(frame("walk", i)))  # shipped or made: the same
    assert sample.files == ("walk/00000000", "walk/00000001", "walk/00000002")


def test_one_clip_alone_is_a_set(tmp_path: Path) -> None:
    put_clip(tmp_path / "vid4_city" / "HR", "city", range(2))
    put_clip(tmp_path / "vid4_city" / "LRbicX4", "city", range(2), low=True)
    found = find_clip_set(tmp_path / "vid4_city", rule_of("vid4-y"), scale=4)
    assert [(c.name, c.frames, len(c.inputs)) for c in found.clips] == [("vid4_city", 2, 2)]


REDS_LAYOUTS = [
    ("train_sharp/train/train_sharp/{}", "train_sharp_bicubic/train/train_sharp_bicubic/X4/{}"),
    ("train/train_sharp/{}", "train/train_sharp_bicubic/X4/{}"),
    ("train_sharp/{}", "train_sharp_bicubic/X4/{}"),
    ("GT/{}", "sharp_bicubic/{}"),
    ("GT/{}", "BIx4/{}"),
]


@pytest.mark.parametrize(("truth", "inputs"), REDS_LAYOUTS)
def test_reds4_takes_its_four_clips_only(tmp_path: Path, truth: str, inputs: str) -> None:
    for clip in ("000", "001", "011", "015", "020", "240"):
        put_clip(tmp_path / truth.format(clip), clip, range(2))
        put_clip(tmp_path / inputs.format(clip), clip, range(2), low=True)
    found = find_clip_set(tmp_path, rule_of("reds4-rgb"), scale=4)
    assert [c.name for c in found.clips] == ["000", "011", "015", "020"]
    assert found.name == "REDS4 (4 of 4 clips, 8 of 400 frames)"
    assert all(c.inputs for c in found.clips)


@pytest.mark.parametrize(
    ("truth", "inputs", "offset"),
    [
        ("train_sharp/{}", "train_sharp_bicubic/X4/{}", 0),  # joined to the training clips
        ("val_sharp/{}", "val_sharp_bicubic/X4/{}", 240),
        ("val/val_sharp/{}", "val/val_sharp_bicubic/X4/{}", 240),
    ],
)
def test_official_validation_clips_are_known_by_both_numbers(tmp_path: Path, truth: str, inputs: str, offset: int) -> None:
    for number in range(240, 270):
        folder = f"{number - offset:03d}"
        put_clip(tmp_path / truth.format(folder), str(number), [0])
        put_clip(tmp_path / inputs.format(folder), str(number), [0], low=True)
    four = find_clip_set(tmp_path, rule_of("redsofficial4-rgb"), scale=4)
    assert [c.name for c in four.clips] == ["240", "241", "246", "257"]
    assert np.array_equal(load_clip(four.clips[3], scale=4).truth[0], frame("257", 0))
    assert len(find_clip_set(tmp_path, rule_of("redsval-rgb"), scale=4).clips) == 30


def vimeo(root: Path, *, truth: Sequence[int] = range(1, 8), inputs: str | None = "sequences_LRx4") -> None:
    root.mkdir(parents=True, exist_ok=True)
    (root / "sep_testlist.txt").write_text("00001/0266\n00002/0003\n\n")
    (root / "sep_trainlist.txt").write_text("00001/0001\n")
    for clip in ("00001/0001", "00001/0266", "00002/0003"):
        put_clip(root / "sequences" / clip, clip, truth, name="im{}.png")
        if inputs:
            put_clip(root / inputs / clip, clip, range(1, 8), name="im{}.png", low=True)


@pytest.mark.parametrize(("truth", "inputs"), [(range(1, 8), "sequences_LRx4"), ([4], "BIx4"), (range(1, 8), None)])
def test_vimeo_scores_the_fourth_frame_of_listed_septuplets(tmp_path: Path, truth: Sequence[int], inputs: str | None) -> None:
    vimeo(tmp_path, truth=truth, inputs=inputs)
    found = find_clip_set(tmp_path, rule_of("vimeo-y-c4"), scale=4)
    assert [c.name for c in found.clips] == ["00001/0266", "00002/0003"]
    assert found.name == "Vimeo-90K-T (2 of 7824 clips, 2 of 7824 frames)"
    sample = load_clip(found.clips[0], scale=4)
    assert (len(sample.lr), sample.scored, len(sample.truth)) == (7, (3,), 1)
    assert np.array_equal(sample.truth[0], frame("00001/0266", 4))
    assert [np.array_equal(sample.lr[i], shrunk(frame("00001/0266", i + 1))) for i in range(7)] == [True] * 7
    assert sample.files == ("00001/0266/im4",)


@pytest.mark.parametrize(("truth", "inputs"), [("GT/{}", "BDx4/{}"), ("{}/truth", "{}/blur4"), ("GT/{}", None)])
def test_udm10_takes_blurred_inputs_or_makes_them(tmp_path: Path, truth: str, inputs: str | None) -> None:
    put_clip(tmp_path / truth.format("archwall"), "archwall", range(2), name="{:04d}.png")
    expected = [blur_and_subsample_8bit(torch.from_numpy(frame("archwall", i)).permute(2, 0, 1), 4) for i in range(2)]
    lr = [e.permute(1, 2, 0).numpy() for e in expected]
    if inputs:
        for i in range(2):
            put(tmp_path / inputs.format("archwall"), f"{i:04d}.png", lr[i])
    found = find_clip_set(tmp_path, rule_of("udm10-y"), scale=4)
    assert bool(found.clips[0].inputs) == (inputs is not None)
    assert all(np.array_equal(a, b) for a, b in zip(load_clip(found.clips[0], scale=4).lr, lr, strict=True))


@pytest.mark.parametrize("folder", ["{}", "LQ/{}"])
def test_videolq_scores_three_frames_without_truth(tmp_path: Path, folder: str, caplog: pytest.LogCaptureFixture) -> None:
    put_clip(tmp_path / folder.format("000"), "000", range(100))
    put_clip(tmp_path / folder.format("001"), "001", range(60))
    with caplog.at_level(logging.WARNING):
        found = find_clip_set(tmp_path, rule_of("videolq-3frame"), scale=4)
    assert [c.scored for c in found.clips] == [(0, 50, 99), (0, 50)]
    assert "001: only frames 0, 50 are scored, the clip has 60" in caplog.text
    sample = load_clip(found.clips[0], scale=4)
    assert (len(sample.lr), sample.truth) == (100, ())
    assert sample.files == ("000/00000000", "000/00000050", "000/00000099")
    everything = find_clip_set(tmp_path, rule_of("videolq-temporal"), scale=4)
    assert [len(c.scored) for c in everything.clips] == [100, 60]


def test_a_whole_set_bears_its_name_alone(tmp_path: Path) -> None:
    for clip, count in (("calendar", 41), ("city", 34), ("foliage", 49), ("walk", 47)):
        for number in range(count):
            put(tmp_path / "GT" / clip, f"{number:03d}.png", np.full((8, 8, 3), number, np.uint8))
    rule = rule_of("vid4-y")
    assert find_clip_set(tmp_path, rule, scale=4).name == "Vid4"
    assert find_clip_set(tmp_path, rule, scale=4, limit=1).name == "Vid4 (1 of 4 clips, 41 of 171 frames)"


def test_every_protocol_on_clips_has_a_layout() -> None:
    assert {p.clips.layout for p in PROTOCOLS.values() if p.clips is not None} == set(LAYOUTS)


# Order and holes ------------------------------------------------------------------------------------------------------
def test_frames_come_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    for number in (10, 9, 8, 11):
        put(tmp_path, f"f{number}.png", frame("f", number))
    assert list(list_frames(tmp_path)) == [8, 9, 10, 11]
    put_clip(tmp_path / "truth", "f", [8, 9, 10, 11], name="f{}.png")
    clip = find_clip_set(tmp_path, rule_of("vid4-y"), scale=4).clips[0]
    assert np.array_equal(load_clip(clip, scale=4).truth[2], frame("f", 10))


def test_folders_that_are_no_clip_are_named(tmp_path: Path) -> None:
    put_clip(tmp_path / "gap", "x", [0, 1, 3])
    with pytest.raises(InputError, match=r"gap: frame 2 is missing after 00000001\.png"):
        list_frames(tmp_path / "gap")
    put_clip(tmp_path / "twice", "x", [1])
    put(tmp_path / "twice", "1.png", frame("x", 1))
    with pytest.raises(InputError, match="has the same number as"):
        list_frames(tmp_path / "twice")
    put(tmp_path / "mixed", "a_1.png", frame("a", 1))
    put(tmp_path / "mixed", "b_2.png", frame("b", 2))
    with pytest.raises(InputError, match=r"b_2\.png: seems to belong to another clip than a_"):
        list_frames(tmp_path / "mixed")
    put(tmp_path / "unnumbered", "cover.png", frame("a", 1))
    with pytest.raises(InputError, match=r"cover\.png: has no number"):
        list_frames(tmp_path / "unnumbered")


def test_input_and_truth_must_have_the_same_frames(tmp_path: Path) -> None:
    put_clip(tmp_path / "GT" / "city", "city", range(3))
    put_clip(tmp_path / "BIx4" / "city", "city", range(2), low=True)
    with pytest.raises(InputError, match=r"BIx4.city: frame 2 is missing"):
        find_clip_set(tmp_path, rule_of("vid4-y"), scale=4)
    put_clip(tmp_path / "BIx4" / "city", "city", range(2, 4), low=True)
    with pytest.raises(InputError, match=r"GT.city: frame 3 is missing"):
        find_clip_set(tmp_path, rule_of("vid4-y"), scale=4)


def test_frames_of_other_sizes_are_named(tmp_path: Path) -> None:
    put_clip(tmp_path / "GT" / "city", "city", range(2))
    put(tmp_path / "GT" / "city", "00000002.png", frame("city", 2, height=20))
    clip = find_clip_set(tmp_path, rule_of("vid4-y"), scale=4).clips[0]
    with pytest.raises(InputError, match=r"00000002\.png: is 5x6, but the clip began with 4x6"):
        load_clip(clip, scale=4)
    put_clip(tmp_path / "BIx4" / "city", "city", range(3), low=True)
    clip = find_clip_set(tmp_path, rule_of("vid4-y"), scale=4).clips[0]
    with pytest.raises(InputError, match=r"00000002\.png: is 4x6, but 00000002\.png at x4 needs 5x6"):
        load_clip(clip, scale=4)


# Missing data ---------------------------------------------------------------------------------------------------------
def test_missing_data_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nowhere: no such folder\. Pass the folder of Vid4"):
        find_clip_set(tmp_path / "nowhere", rule_of("vid4-y"), scale=4)
    with pytest.raises(InputError, match=r"no clips of Vid4 found here.*GT/<clip>/\*\.png"):
        find_clip_set(tmp_path, rule_of("vid4-y"), scale=4)
    put_clip(tmp_path / "GT" / "000", "000", range(2))
    put_clip(tmp_path / "GT" / "011", "011", range(2))
    with pytest.raises(InputError, match=r"clip 015, 020 of REDS4 is missing\. Add it as GT/<clip>"):
        find_clip_set(tmp_path, rule_of("reds4-rgb"), scale=4)
    put_clip(tmp_path / "BIx4" / "000", "000", range(2), low=True)
    with pytest.raises(InputError, match=r"BIx4.011: clip 011 has no input frames"):
        find_clip_set(tmp_path, rule_of("vid4-y"), scale=4)


def test_the_list_of_septuplets_must_be_there_and_stay_inside(tmp_path: Path) -> None:
    vimeo(tmp_path)
    (tmp_path / "sep_testlist.txt").write_text("00001/0266\n../../elsewhere\n")
    with pytest.raises(InputError, match=r"does not list clips \(\.\./\.\./elsewhere\)"):
        find_clip_set(tmp_path, rule_of("vimeo-y-c4"), scale=4)
    (tmp_path / "sep_testlist.txt").unlink()
    with pytest.raises(InputError, match=r"sep_testlist\.txt: the list of test clips cannot be read"):
        find_clip_set(tmp_path, rule_of("vimeo-y-c4"), scale=4)


# Degradation ----------------------------------------------------------------------------------------------------------
def test_blurred_inputs_are_those_of_the_formula() -> None:
    """Each kept pixel as a double sum over 13×13 weights, indices mirrored without repeating the edge."""
    hr = np.random.default_rng(0).integers(0, 256, (16, 20))
    at = np.arange(-6, 7)
    weights = np.exp(-(at[:, None] ** 2 + at[None, :] ** 2) / (2 * 1.6**2))
    weights /= weights.sum()
    padded = np.pad(hr, 6, mode="reflect")
    expected = [[(weights * padded[y : y + 13, x : x + 13]).sum() for x in range(0, 20, 4)] for y in range(0, 16, 4)]
    found = blur_and_subsample_8bit(torch.from_numpy(hr.astype(np.uint8))[None], 4)[0].numpy()
    assert np.array_equal(found, np.floor(np.array(expected) + 0.5).astype(np.uint8))
    flat = torch.full((3, 12, 12), 255, dtype=torch.uint8)
    assert torch.equal(blur_and_subsample_8bit(flat, 4), flat[:, :3, :3])
