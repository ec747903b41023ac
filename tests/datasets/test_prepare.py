"""Public sets made ready: the right files at the right names, nothing overwritten, nothing half-written."""

from __future__ import annotations

import json
import os
import threading
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from conftest import Upframe, make_photo
from upframe.datasets.clips import blur_and_subsample_8bit
from upframe.datasets.lmdb_store import LmdbStore
from upframe.datasets.prepare import items as carrying
from upframe.datasets.prepare.checks import check_folder, check_videolq
from upframe.datasets.prepare.div2k import prepare_div2k
from upframe.datasets.prepare.items import carry_out
from upframe.datasets.prepare.pictures import Cut, cut_folder, reduce_folder
from upframe.datasets.prepare.reds import SPLITS, find_split, prepare_reds
from upframe.datasets.prepare.vimeo90k import prepare_vimeo90k
from upframe.errors import Cancelled, InputError, OutputError, UsageError
from upframe.files import atomic_bytes
from upframe.media.image.files import write_pixels
from upframe.media.image.source import read_pixels, read_rgb8
from upframe.pixels import matlab_bicubic_8bit
from upframe.training.data.sources import DataPaths, source_for
from upframe.training.recipes.recipe import DataRecipe


def _clip(folder: Path, frames: int, *, seed: int = 0, size: tuple[int, int] = (32, 40)) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for n in range(frames):
        write_pixels(folder / f"{n:08}.png", make_photo(*size, seed=100 * seed + n))


def _files(root: Path) -> dict[str, bytes]:
    return {p.relative_to(root).as_posix(): p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file()}


def _reduced(path: Path, scale: int) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    planes = torch.from_numpy(read_rgb8(path)).permute(2, 0, 1)
    return matlab_bicubic_8bit(planes, scale).permute(1, 2, 0).numpy()


# REDS -----------------------------------------------------------------------------------------------------------------
@pytest.fixture
def reds(tmp_path: Path) -> Path:
    """Clips 000, 001 and 239 of the training set and 000, 001 and 029 of the validation set, two frames each."""
    root = tmp_path / "REDS"
    for part, clips in (("train", (0, 1, 239)), ("val", (0, 1, 29))):
        for clip in clips:
            _clip(root / f"{part}_sharp" / f"{clip:03}", 2, seed=clip + (500 if part == "val" else 0))
            low = root / f"{part}_sharp_bicubic" / "X4" / f"{clip:03}"
            low.mkdir(parents=True)
            for n in range(2):
                write_pixels(low / f"{n:08}.png", np.full((8, 10, 3), clip, np.uint8))
    return root


def test_validation_clip_n_becomes_training_clip_240_plus_n(reds: Path) -> None:
    before = _files(reds)
    outcome = carry_out(prepare_reds(reds, partial_set=True))
    after = _files(reds)
    assert {name: after[name] for name in before} == before
    added = {name for name in after if name not in before and not name.startswith("splits/")}
    expected = {
        f"train_{kind}/{240 + n:03}/{frame:08}.png": f"val_{kind}/{n:03}/{frame:08}.png"
        for kind in ("sharp", "sharp_bicubic/X4")
        for n in (0, 1, 29)
        for frame in (0, 1)
    }
    assert added == set(expected)
    for new, old in expected.items():
        assert after[new] == before[old]
    assert outcome.made == len(expected) + 6  # six lists
    again = carry_out(prepare_reds(reds, partial_set=True))
    assert (again.made, again.kept) == (0, outcome.made)
    assert _files(reds) == after


def test_splits_are_those_of_the_field() -> None:
    """Trap 11: three protocols that are easily taken for each other."""
    assert SPLITS["REDS4"].held_out == ("000", "011", "015", "020")
    assert SPLITS["REDSofficial4"].held_out == ("240", "241", "246", "257")
    assert SPLITS["official"].held_out == tuple(f"{n:03}" for n in range(240, 270))
    assert [len(SPLITS[name].trained_on) for name in ("REDS4", "REDSofficial4", "official")] == [266, 266, 240]
    for split in SPLITS.values():
        assert not set(split.held_out) & set(split.trained_on)
        assert len(set(split.held_out) | set(split.trained_on)) == 270
    assert find_split("reds4") is SPLITS["REDS4"]
    with pytest.raises(UsageError, match="Use REDS4, REDSofficial4, official"):
        find_split("REDS5")


def test_lists_of_the_splits_name_the_clips_that_are_there(reds: Path) -> None:
    carry_out(prepare_reds(reds, partial_set=True))
    lists = {p.stem: p.read_text().split() for p in (reds / "splits").iterdir()}
    assert lists["REDS4_train"] == ["001", "239", "240", "241", "269"]
    assert lists["REDS4_test"] == ["000"]
    assert lists["REDSofficial4_test"] == ["240", "241"]
    assert lists["official_train"] == ["000", "001", "239"]


def test_recipes_for_reds_leave_the_four_test_clips_out(reds: Path) -> None:
    """The published recipe of VRT kept them in by a misspelt name."""
    carry_out(prepare_reds(reds, partial_set=True))
    data = DataRecipe(kind="clips", patch_px=6, clip_frames=2, low_quality="paired", exclude=SPLITS["REDS4"].held_out)
    paths = DataPaths(reds / "train_sharp", reds / "train_sharp_bicubic" / "X4")
    assert {clip.name for clip in source_for(data, paths, scale=4).footage.clips} == {"001", "239", "240", "241", "269"}


def test_missing_inputs_of_reds_are_made_exactly(reds: Path) -> None:
    import shutil

    shutil.rmtree(reds / "train_sharp_bicubic")
    shutil.rmtree(reds / "val_sharp_bicubic")
    carry_out(prepare_reds(reds, lmdb=True, partial_set=True))
    for clip in ("000", "269"):
        made = read_pixels(reds / "train_sharp_bicubic" / "X4" / clip / "00000001.png")
        assert np.array_equal(made, _reduced(reds / "train_sharp" / clip / "00000001.png", 4))
    sharp, low = LmdbStore(reds / "train_sharp.lmdb"), LmdbStore(reds / "train_sharp_bicubic_X4.lmdb")
    assert list(sharp.names()) == list(low.names())
    assert sharp.names()[0] == "000/00000000"
    assert len(sharp.names()) == 12
    assert np.array_equal(low.read("269/00000001"), read_pixels(reds / "train_sharp_bicubic" / "X4" / "269" / "00000001.png"))


def test_the_nested_folders_of_the_download_are_found(reds: Path) -> None:
    nested = reds / "train_sharp" / "train"
    (reds / "train_sharp").rename(reds / "moved")
    nested.mkdir(parents=True)
    (reds / "moved").rename(nested / "train_sharp")
    carry_out(prepare_reds(reds, partial_set=True))
    assert (nested / "train_sharp" / "240" / "00000000.png").is_file()


def test_a_set_that_is_not_complete_is_refused(reds: Path) -> None:
    with pytest.raises(InputError, match="has 3 training clips, and the set has 240"):
        prepare_reds(reds)
    (reds / "val_sharp" / "000" / "00000000.png").rename(reds / "val_sharp" / "000" / "00000005.png")
    with pytest.raises(InputError, match="frame 2 is missing"):
        prepare_reds(reds, partial_set=True)


def test_another_clip_240_is_not_overwritten(reds: Path) -> None:
    _clip(reds / "train_sharp" / "240", 2, seed=7)
    before = _files(reds)
    with pytest.raises(OutputError, match=r"240/00000000\.png: already exists and differs"):
        carry_out(prepare_reds(reds, partial_set=True))
    assert _files(reds) == before


# Vimeo-90K ------------------------------------------------------------------------------------------------------------
@pytest.fixture
def vimeo(tmp_path: Path) -> Path:
    root = tmp_path / "vimeo_septuplet"
    for seed, name in enumerate(("00001/0001", "00001/0266", "00096/0001")):
        folder = root / "sequences" / name
        folder.mkdir(parents=True)
        for n in range(1, 8):
            write_pixels(folder / f"im{n}.png", make_photo(32, 56, seed=10 * seed + n))
    (root / "sep_trainlist.txt").write_text("00001/0001\n00096/0001\n")
    (root / "sep_testlist.txt").write_text("00001/0266\n")
    return root


def test_inputs_of_listed_septuplets(vimeo: Path) -> None:
    carry_out(prepare_vimeo90k(vimeo, partial_set=True, lmdb="4th"))
    made = {name for name in _files(vimeo / "sequences_LRx4") if name.endswith(".png")}
    assert made == {f"{clip}/im{n}.png" for clip in ("00001/0001", "00096/0001") for n in range(1, 8)}
    frame = vimeo / "sequences" / "00096/0001" / "im5.png"
    assert np.array_equal(read_pixels(vimeo / "sequences_LRx4" / "00096/0001" / "im5.png"), _reduced(frame, 4))
    assert list(LmdbStore(vimeo / "vimeo90k_train_GT_only4th.lmdb").names()) == ["00001/0001/im4", "00096/0001/im4"]
    assert len(LmdbStore(vimeo / "vimeo90k_train_LR4x.lmdb").names()) == 14
    data = DataRecipe(kind="clips", patch_px=6, clip_frames=7, low_quality="paired")
    sample = source_for(data, DataPaths(vimeo, vimeo / "sequences_LRx4"), scale=4)(np.random.default_rng(0))
    assert sample.gt.shape == (7, 3, 24, 24)


def test_bd_inputs_and_all_seven_frames(vimeo: Path) -> None:
    carry_out(prepare_vimeo90k(vimeo, reduction="bd", part="test", partial_set=True, lmdb="all"))
    planes = torch.from_numpy(read_rgb8(vimeo / "sequences" / "00001/0266" / "im2.png")).permute(2, 0, 1)
    expected = blur_and_subsample_8bit(planes, 4).permute(1, 2, 0).numpy()
    assert np.array_equal(read_pixels(vimeo / "BDx4" / "00001/0266" / "im2.png"), expected)
    assert list(LmdbStore(vimeo / "vimeo90k_test_GT.lmdb").names()) == [f"00001/0266/im{n}" for n in range(1, 8)]
    assert list(LmdbStore(vimeo / "vimeo90k_test_BD4x.lmdb").names()) == [f"00001/0266/im{n}" for n in range(1, 8)]


def test_septuplets_that_are_not_there_or_not_seven_are_named(vimeo: Path) -> None:
    with pytest.raises(InputError, match="has 2 clips, and the set has 64612"):
        prepare_vimeo90k(vimeo)
    (vimeo / "sequences" / "00096/0001" / "im7.png").unlink()
    with pytest.raises(InputError, match="00096/0001: has 6 frames"):
        prepare_vimeo90k(vimeo, partial_set=True)


# DIV2K and sub-images -------------------------------------------------------------------------------------------------
def test_places_of_sub_images_are_those_of_the_field() -> None:
    """A DIV2K picture of 2040×1404 has 8 × 5 sub-images; the last of a row and column ends at the picture's edge."""
    places = Cut().places(1404, 2040)
    assert len(places) == 40
    assert sorted({x for _, x in places}) == [0, 240, 480, 720, 960, 1200, 1440, 1560]
    assert sorted({y for y, _ in places}) == [0, 240, 480, 720, 924]
    assert places[:2] == [(0, 0), (0, 240)]
    assert Cut().places(480, 480) == [(0, 0)]
    assert Cut().places(479, 900) == []
    assert Cut(480, 240).reduced(4) == Cut(120, 60)
    with pytest.raises(UsageError, match="no multiples of 3"):
        Cut(100, 60).reduced(3)


@pytest.fixture
def div2k(tmp_path: Path) -> Path:
    root = tmp_path / "DIV2K"
    (root / "DIV2K_train_HR").mkdir(parents=True)
    write_pixels(root / "DIV2K_train_HR" / "0001.png", make_photo(60, 85, seed=1))
    write_pixels(root / "DIV2K_train_HR" / "0002.png", make_photo(48, 48, seed=2))
    return root


def test_sub_images_and_their_inputs_lie_at_the_same_places(div2k: Path) -> None:
    outcome = carry_out(prepare_div2k(div2k, cut=Cut(48, 24), scales=(2, 4), lmdb=True, partial_set=True))
    names = [f"0001_s{n:03}.png" for n in range(1, 7)] + ["0002_s001.png"]
    assert sorted(_files(div2k / "DIV2K_train_HR_sub")) == [*names, "prepared.json"]
    whole = read_rgb8(div2k / "DIV2K_train_HR" / "0001.png")
    # 84 of 85 columns are covered by inputs of both scales: places 0, 24 and 36; rows 0 and 12.
    assert np.array_equal(read_pixels(div2k / "DIV2K_train_HR_sub" / "0001_s006.png"), whole[12:60, 36:84])
    for scale in (2, 4):
        low = read_pixels(div2k / "DIV2K_train_LR_bicubic" / f"X{scale}" / f"0001x{scale}.png")
        part = read_pixels(div2k / "DIV2K_train_LR_bicubic" / f"X{scale}_sub" / "0001_s006.png")
        assert np.array_equal(part, low[12 // scale : 60 // scale, 36 // scale : 84 // scale])
    assert list(LmdbStore(div2k / "DIV2K_train_HR_sub.lmdb").names()) == [name[:-4] for name in names]
    assert "7 sub-images of 48 px every 24 px" in outcome.facts
    paths = DataPaths(div2k / "DIV2K_train_HR_sub.lmdb", div2k / "DIV2K_train_LR_bicubic_X4_sub.lmdb")
    source = source_for(DataRecipe(patch_px=8, low_quality="paired"), paths, scale=4)
    assert source(np.random.default_rng(0)).lq.shape == (3, 8, 8)
    raw = DataPaths(div2k / "DIV2K_train_HR", div2k / "DIV2K_train_LR_bicubic" / "X4")
    assert len(source_for(DataRecipe(patch_px=8, low_quality="paired"), raw, scale=4).footage.clips) == 2


def test_another_cut_is_not_mixed_with_the_first(div2k: Path) -> None:
    carry_out(prepare_div2k(div2k, cut=Cut(48, 24), scales=(4,), partial_set=True))
    with pytest.raises(OutputError, match=r"made differently: step_px \(24 there, 12 requested\)"):
        carry_out(prepare_div2k(div2k, cut=Cut(48, 12), scales=(4,), partial_set=True))


def test_an_input_of_another_size_is_named(div2k: Path) -> None:
    low = div2k / "DIV2K_train_LR_bicubic" / "X4"
    low.mkdir(parents=True)
    write_pixels(low / "0002x4.png", make_photo(12, 13))
    with pytest.raises(InputError, match=r"0002x4\.png: is 12x13, not 12x12"):
        carry_out(prepare_div2k(div2k, cut=Cut(48, 24), scales=(4,), partial_set=True))


def test_sub_images_of_a_clip_are_clips(tmp_path: Path) -> None:
    _clip(tmp_path / "in" / "000", 2, size=(48, 72))
    carry_out(cut_folder(tmp_path / "in", tmp_path / "out", cut=Cut(48, 24), of_clips=True))
    made = set(_files(tmp_path / "out"))
    assert made == {f"000_s00{i}/0000000{n}.png" for i in (1, 2) for n in (0, 1)} | {"prepared.json"}
    with pytest.raises(InputError, match="smaller than a sub-image of 100 px"):
        cut_folder(tmp_path / "in", tmp_path / "other", cut=Cut(100, 50))


# Carrying out ---------------------------------------------------------------------------------------------------------
def test_a_dry_run_writes_nothing_and_tells_the_same(div2k: Path) -> None:
    before = _files(div2k)
    planned = carry_out(prepare_div2k(div2k, cut=Cut(48, 24), scales=(4,), partial_set=True), dry_run=True)
    assert _files(div2k) == before
    assert carry_out(prepare_div2k(div2k, cut=Cut(48, 24), scales=(4,), partial_set=True)).made == planned.made == 16


def test_a_stopped_preparation_goes_on_and_ends_the_same(div2k: Path, tmp_path: Path) -> None:
    whole, out = tmp_path / "whole", tmp_path / "parts"
    for n in range(6):
        write_pixels(div2k / "DIV2K_train_HR" / f"01{n:02}.png", make_photo(24, 24, seed=n))
    carry_out(reduce_folder(div2k, whole, scale=4))
    cancel = threading.Event()
    with pytest.raises(Cancelled, match="stopped after 3 of 8"):
        carry_out(
            reduce_folder(div2k, out, scale=4),
            threads=1,
            cancel=cancel,
            on_progress=lambda done, due: cancel.set() if done == 3 else None,
        )
    outcome = carry_out(reduce_folder(div2k, out, scale=4))
    assert (outcome.made, outcome.kept) == (5, 3)
    assert _files(out) == _files(whole)


def test_a_damaged_picture_stops_the_preparation_by_name_and_leaves_whole_files_only(tmp_path: Path) -> None:
    for n in range(3):
        write_pixels(tmp_path / f"{n}.png" if n else tmp_path / "a.png", make_photo(40, 40, seed=n))
    (tmp_path / "in").mkdir()
    for name in ("a.png", "1.png", "2.png"):
        (tmp_path / name).rename(tmp_path / "in" / name)
    (tmp_path / "in" / "2.png").write_bytes((tmp_path / "in" / "2.png").read_bytes()[:-40])
    with pytest.raises(InputError, match=r"2\.png"):
        carry_out(reduce_folder(tmp_path / "in", tmp_path / "out", scale=4), threads=1)
    for path in (tmp_path / "out").rglob("*.png"):
        read_pixels(path)
    assert not list((tmp_path / "out").rglob("*.part"))


def test_a_folder_of_other_files_is_not_written_into(tmp_path: Path) -> None:
    _clip(tmp_path / "in", 1)
    _clip(tmp_path / "out", 1, seed=3)
    before = _files(tmp_path / "out")
    with pytest.raises(OutputError, match="was not made by this command"):
        carry_out(reduce_folder(tmp_path / "in", tmp_path / "out", scale=4))
    assert _files(tmp_path / "out") == before
    with pytest.raises(UsageError, match="contain one another"):
        reduce_folder(tmp_path / "in", tmp_path / "in" / "low", scale=4)


def test_a_disk_without_room_is_refused_before_anything_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import shutil

    _clip(tmp_path / "in", 2)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(1000, 990, 10))  # type: ignore[attr-defined]
    with pytest.raises(OutputError, match="are free"):
        carry_out(reduce_folder(tmp_path / "in", tmp_path / "out", scale=4))
    assert not (tmp_path / "out").exists()


def test_files_are_copied_where_they_cannot_be_linked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import errno

    def refuse(source: Path, target: Path) -> None:
        raise OSError(errno.EXDEV, "another device")

    monkeypatch.setattr(os, "link", refuse)
    (tmp_path / "a").write_bytes(b"frame")
    carrying.link_or_copy(tmp_path / "a", tmp_path / "b")
    assert (tmp_path / "b").read_bytes() == b"frame"
    assert not (tmp_path / "b").samefile(tmp_path / "a")


def test_a_write_that_fails_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    preparation = carrying.Preparation(
        "one", (carrying.Item((tmp_path / "a",), partial(atomic_bytes, tmp_path / "a", b"x"), 1),), {}
    )
    with pytest.raises(OutputError, match="no space left"):
        carry_out(preparation)
    assert list(tmp_path.iterdir()) == []


# Checking -------------------------------------------------------------------------------------------------------------
def test_every_bad_file_is_listed(tmp_path: Path) -> None:
    _clip(tmp_path / "clips" / "000", 3)
    bad = tmp_path / "clips" / "000" / "00000001.png"
    whole = bad.read_bytes()
    bad.write_bytes(whole[: len(whole) // 2])
    (tmp_path / "film.mp4").write_bytes(b"no film")
    count, found = check_folder(tmp_path)
    assert count == 4
    assert {one.name for one in found} == {"clips/000/00000001.png", "film.mp4"}
    bad.write_bytes(whole)
    (tmp_path / "film.mp4").unlink()
    assert check_folder(tmp_path) == (3, ())


def test_bad_pictures_in_a_store_are_listed_by_key(tmp_path: Path) -> None:
    import lmdb

    environment = lmdb.open(str(tmp_path / "a.lmdb"), map_size=1 << 22)
    write_pixels(tmp_path / "a.lmdb" / "good.png", make_photo(8, 8))
    with environment.begin(write=True) as transaction:
        transaction.put(b"000/00000000", (tmp_path / "a.lmdb" / "good.png").read_bytes())
        transaction.put(b"000/00000001", b"no picture")
    environment.close()
    (tmp_path / "a.lmdb" / "good.png").unlink()
    count, found = check_folder(tmp_path / "a.lmdb")
    assert count == 2
    assert [one.name for one in found] == ["000/00000001"]


def test_videolq_is_fifty_clips_of_up_to_a_hundred_frames(tmp_path: Path) -> None:
    for clip in ("000", "001"):
        _clip(tmp_path / "VideoLQ" / clip, 2, size=(8, 8))
    assert check_videolq(tmp_path / "VideoLQ", partial_set=True).facts == ("2 clips", "4 frames")
    with pytest.raises(InputError, match="has 2 clips, and the set has 50"):
        check_videolq(tmp_path / "VideoLQ")


# The command line -----------------------------------------------------------------------------------------------------
def test_the_command_prepares_and_says_what_it_did(reds: Path, upframe: Upframe) -> None:
    planned = upframe("data", "prepare", "reds", reds, "--partial", "--dry-run", "--json").of("prepared")
    assert planned["dry_run"] is True
    assert not (reds / "train_sharp" / "240").exists()
    done = upframe("data", "prepare", "reds", reds, "--partial", "--json").of("prepared")
    assert done["made"] == planned["made"] == 18
    plain = upframe("data", "prepare", "reds", reds, "--partial")
    assert plain.code == 0
    assert "0 files made, 18 were there" in plain.out
    refused = upframe("data", "prepare", "reds", reds)
    assert refused.code == 3
    assert "--partial" in refused.err


@pytest.mark.parametrize(
    "arguments",
    [
        ("lq", "{root}/DIV2K_train_HR", "{root}/low", "--scale", "4", "--degradation", "bd", "--suffix", "x4"),
        ("sub-images", "{root}/DIV2K_train_HR", "{root}/sub", "--size", "48", "--step", "24"),
        ("lmdb", "{root}/DIV2K_train_HR", "{root}/hr.lmdb"),
        ("div2k", "{root}", "--size", "48", "--step", "24", "--scales", "2", "--partial"),
    ],
)
def test_every_preparation_can_be_given_twice(div2k: Path, upframe: Upframe, arguments: tuple[str, ...]) -> None:
    command = [argument.format(root=div2k) for argument in arguments]
    first = upframe("data", "prepare", *command, "--json").of("prepared")
    second = upframe("data", "prepare", *command, "--json").of("prepared")
    assert first["made"] > 0
    assert second["made"] == 0
    assert second["kept"] == first["made"] + first["kept"]


def test_the_check_command_lists_bad_files_and_fails(tmp_path: Path, upframe: Upframe) -> None:
    _clip(tmp_path, 2)
    assert upframe("data", "check", tmp_path).code == 0
    (tmp_path / "00000001.png").write_bytes(b"")
    result = upframe("data", "check", tmp_path, "--json")
    assert result.code == 3
    assert result.of("bad")["file"] == "00000001.png"
    assert result.of("checked") == {"event": "checked", "files": 2, "bad": 1}
    assert json.dumps("00000001.png") in result.out
