"""`upframe train`: from a folder of photographs to scores and curves, refusals, and stopped by signals."""

from __future__ import annotations

import importlib.util
import json
import signal
import sys
import time
from pathlib import Path

import pytest

from conftest import Upframe, make_photo
from toys import command, log_of, start
from upframe.media.image.files import write_pixels
from upframe.media.image.source import read_pixels
from upframe.training.loop.run_folder import read_checkpoint

SMALL = ("--set", "steps=3", "--set", "log_every=2", "--set", "patch_px=16", "--workers", 1, "--device", "cpu")


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    for i in range(2):
        write_pixels(folder / f"{i}.png", make_photo(96, 100, seed=i))
    return folder


@pytest.fixture(scope="module")
def test_set(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sets")
    (folder / "Toy" / "HR").mkdir(parents=True)
    write_pixels(folder / "Toy" / "HR" / "held_out.png", make_photo(48, 64, seed=9))
    return folder


@pytest.mark.slow
def test_from_photographs_to_scores_sheets_and_curves(upframe: Upframe, photos: Path, test_set: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    arguments = ("train", "toy-rlfn", "--data", photos, "--out", run, *SMALL, "--validate-on", test_set)
    result = upframe(*arguments, "--json")
    assert result.code == 0, result.err
    events = [(line["event"], line["step"], line["stage"]) for line in result.lines]
    assert [e for e in events if e[0] == "training"] == [
        ("training", step, stage) for step, stage in ((2, "stage1"), (3, "stage1"), (4, "stage2"), (6, "stage2"))
    ]
    scores = [line["validation"]["Toy"]["psnr-y"] for line in result.lines if line["event"] == "validation"]
    assert len(scores) == 2 and all(5 < psnr < 60 for psnr in scores)
    sheets = sorted(path.name for path in (run / "validation").iterdir())
    assert sheets == ["step-00000003_Toy_x2.png", "step-00000006_Toy_x2.png"]
    assert read_pixels(run / "validation" / sheets[0]).shape[2] == 3
    assert {"contrastive", "l1"} == log_of(run)[-2]["terms"].keys()
    # Once more: there is nothing left to do.
    before = (run / "last.pth").read_bytes()
    again = upframe(*arguments)
    assert (again.code, again.out) == (0, f"trained to step 6 of 6: {run / 'last.pth'}\n")
    assert (run / "last.pth").read_bytes() == before
    assert upframe("train", "plot", run).code == 0
    loss_rate_and_scores = 3 * 240
    assert read_pixels(run / "curves.png").shape[0] > loss_rate_and_scores


def test_a_test_picture_among_the_photographs_is_refused(
    upframe: Upframe, photos: Path, test_set: Path, tmp_path: Path
) -> None:
    mixed = tmp_path / "mixed"
    mixed.mkdir()
    for path in (*photos.iterdir(), test_set / "Toy" / "HR" / "held_out.png"):
        (mixed / path.name).write_bytes(path.read_bytes())
    result = upframe("train", "toy-rlfn", "--data", mixed, "--out", tmp_path / "run", *SMALL, "--validate-on", test_set)
    assert result.code == 2 and "held_out.png" in result.err and "Toy/held_out" in result.err


def test_plain_lines_say_loss_rate_speed_and_the_time_left(upframe: Upframe, photos: Path, tmp_path: Path) -> None:
    result = upframe("train", "toy-vapsr", "--data", photos, "--out", tmp_path / "run", *SMALL)
    first, *_ = result.out.splitlines()
    assert first.startswith("step 2/3  loss 0.") and "images/s" in first and "waiting" in first and first.endswith("left")
    quiet = upframe("train", "toy-vapsr", "--data", photos, "--out", tmp_path / "quiet", *SMALL, "--quiet")
    assert (quiet.code, quiet.out, quiet.err) == (0, "", "")


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("no-such-recipe",), 2, "no-such-recipe"),
        (("toy-rlfn", "--set", "stepz=3"), 2, "--set stepz=3: no such field"),
        (("toy-rlfn", "--set", "steps"), 2, "has no value"),
        (("toy-rlfn", "--set", "nothing_like_it=3"), 2, "docs/training.md for all fields"),
        (("toy-rlfn", "--set", "seed=-1"), 2, "seed is -1"),
        (("toy-rlfn", "--workers", "-1"), 2, "--workers -1: must be 0 or more"),
        (("toy-rlfn", "--threads", "0"), 2, "--threads 0: must be 1 or more"),
        (("toy-rlfn", "--until", "third"), 2, "stages are stage1, stage2"),
        (("toy-rlfn", "--device", "tpu"), 2, "no such device"),
    ],
)
def test_what_cannot_be_run_is_refused_before_anything_is_written(
    upframe: Upframe, photos: Path, tmp_path: Path, arguments: tuple[str, ...], code: int, message: str
) -> None:
    result = upframe("train", *arguments, "--data", photos, "--out", tmp_path / "run")
    assert result.code == code and message in result.err
    assert not (tmp_path / "run" / "recipe.json").exists()


def test_sets_of_a_protocol_that_names_its_own_are_refused_before_anything_is_trained(upframe: Upframe, tmp_path: Path) -> None:
    arguments = ("--data", tmp_path, "--validate-on", tmp_path, "--datasets", "Vid4", "--out", tmp_path / "run")
    result = upframe("train", "toy-vsrt", *arguments)
    assert result.code == 2 and "--datasets: vid4-y uses only Vid4" in result.err
    assert not (tmp_path / "run").exists()


def test_tensorboard_is_asked_for_by_name_when_it_is_absent(upframe: Upframe, photos: Path, tmp_path: Path) -> None:
    arguments = ("train", "toy-vapsr", "--data", photos, "--out", tmp_path / "run", *SMALL, "--tensorboard")
    result = upframe(*arguments)
    if importlib.util.find_spec("tensorboard") is None:
        assert result.code == 2 and "upframe[train]" in result.err
    else:
        assert result.code == 0 and any((tmp_path / "run" / "tensorboard").iterdir())


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGTERM to catch")
def test_terminated_it_leaves_a_checkpoint_and_exits_with_143(photos: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    arguments = ("train", "toy-rlfn", "--data", photos, "--out", run, "--device", "cpu", "--set", "steps=100000", "--json")
    process = start(command(*arguments, "--set", "log_every=1", "--set", "patch_px=16"))
    while process.poll() is None and not (run / "log.jsonl").exists():
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 143, err
    step = read_checkpoint(run / "last.pth")["step"]
    last = json.loads(out.splitlines()[-1])
    assert last["event"] == "error" and f"stopped after step {step}" in last["error"]
    assert len(log_of(run)) == step
