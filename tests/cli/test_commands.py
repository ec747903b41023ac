"""Commands and options that are mistyped, lists, and the log file."""

from __future__ import annotations

import json
import logging
import re
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conftest import Upframe, make_photo
from upframe.cli.dry_run import plan_lines
from upframe.cli.entry import app
from upframe.cli.models import models_lines
from upframe.cli.refusals import refuse_mistyped
from upframe.errors import UsageError
from upframe.media.image.files import write_pixels
from upframe.models.registry import ModelEntry, list_models, load


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to work in."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


# Mistyped ---------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("word", "meant"),
    [
        ("upscal", "did you mean upframe upscale?"),
        ("modles", "did you mean upframe models?"),
        ("train1", "did you mean upframe train?"),
        ("Denoise", "did you mean upframe denoise?"),
        ("doctors", "did you mean"),
    ],
)
def test_a_mistyped_command_is_answered_with_those_most_alike(upframe: Upframe, here: Path, word: str, meant: str) -> None:
    result = upframe(word, "--json")
    assert result.code == 2
    assert f"{word}: no such command or file. " in result.err
    assert meant in result.err.replace("Did", "did")
    assert result.lines[-1]["exit_code"] == 2


@pytest.mark.parametrize("word", ["upscal", "doctors"])
def test_a_file_of_that_name_is_a_file(upframe: Upframe, here: Path, weights: Path, word: str) -> None:
    write_pixels(here / "a.png", make_photo(4, 5))
    (here / "a.png").rename(here / word)
    assert upframe(word, "-m", weights, "-o", "out.png").code == 0


@pytest.mark.parametrize("word", ["upscal.png", "./upscal", "upscal*", "modles/x", "~"])
def test_words_with_a_dot_slash_or_wildcard_are_files(upframe: Upframe, here: Path, word: str) -> None:
    assert upframe(word).code == 3


@given(st.text(st.characters(categories=("L", "N")), min_size=1, max_size=12))
def test_every_other_word_is_refused_with_a_suggestion(word: str) -> None:
    if word in list(app) or Path(word).exists():
        return
    with pytest.raises(UsageError, match=r"[Dd]id you mean"):
        refuse_mistyped([word], app)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["a.png", "-o"], "upscale: -o needs a file or folder. See upframe upscale --help."),
        (["a.png", "-s"], "upscale: -s needs a number."),
        (["a.png", "-s", "much"], "-s much: must be a number."),
        (["a.png", "--engine", "fast"], "--engine fast: must be auto, torch, native, compile, openvino, onnx or vulkan."),
        (["a.png", "--tiel", "4"], "--tiel: no such option. Did you mean --tile?"),
        (["a.png", "-s", "2", "-s", "3"], "-s: is given more than once."),
        (["train"], "train: needs RECIPE."),
        (["train", "plto"], "train plto: no such command. Did you mean upframe train plot?"),
        (["models", "lst"], "models lst: no such command. Did you mean upframe models list?"),
        (["models", "verify"], "models verify: needs --data."),
        (["models", "info", "a", "b"], "b: is one argument more than upframe models info takes."),
        (["evaluate"], "evaluate: needs MODEL."),
        (["bench", "photo-x4", "--runs", "x"], "--runs x: must be a whole number."),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_refusals_are_in_the_users_words(upframe: Upframe, arguments: list[str], says: str) -> None:
    result = upframe(*arguments)
    assert result.code == 2
    assert says in result.err
    assert not re.search(r"argument\b.*required|requires an argument|Parameter|unable to convert|--empty", result.err)


# Lists ------------------------------------------------------------------------------------------------------------------
def test_models_are_listed_by_purpose(upframe: Upframe) -> None:
    out = upframe("models", "list").out
    ready, _, others = out.partition("Models that need downloaded weights")
    assert ready.index("Photos") < ready.index("photo-x4") < ready.index("Degraded photos") < ready.index("photo-real-x4")
    assert ready.index("\n  Videos") < ready.index("video-x4") < ready.index("video-real-x4")
    assert others.index("Photos") < others.index("rlfn-x4") < others.index("Restoration") < others.index("vrt-deblur-dvd")
    assert "the default, also called photo" in ready
    listed = [line["name"] for line in upframe("models", "list", "--json").lines]
    assert all(re.search(rf"^    {re.escape(name)} ", out, re.MULTILINE) for name in listed)


def test_models_whose_files_are_here_are_ready_and_missing_shipped_ones_say_so() -> None:
    entries = list_models()
    changed = [
        ModelEntry(
            **{**vars(e), "weights": None if e.name == "photo-x2" else Path("w.pth") if e.name == "rlfn-x2" else e.weights}
        )
        for e in entries
    ]
    ready, _, others = "\n".join(models_lines(changed)).partition("Models that need downloaded weights")
    assert re.search(r"rlfn-x2 .*w\.pth", ready)
    assert re.search(r"photo-x2 .*missing: install upframe again", others)


@pytest.mark.slow
def test_recipes_are_listed_in_groups_without_torch(upframe: Upframe) -> None:
    from upframe.training.recipes.registry import RECIPES

    code = (
        "import sys\nfrom upframe import cli\ntry:\n    cli.main(['train', 'list'])\nexcept SystemExit: pass\n"
        "sys.exit('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    names = re.findall(r"^  (\S+)  ", done.stdout, re.MULTILINE)
    assert sorted(names) == sorted(RECIPES)
    assert done.stdout.index("\nRLFN\n") < done.stdout.index("  rlfn-x2 ") < done.stdout.index("\nVapSR\n")
    assert {line["name"] for line in upframe("train", "list", "--json").lines} == {*RECIPES}


# Dry run ----------------------------------------------------------------------------------------------------------------
def test_dry_run_aligns_rows_and_says_what_is_not_read_and_why(upframe: Upframe, here: Path, weights: Path) -> None:
    (here / "in" / "sub").mkdir(parents=True)
    for name, size in (("a.png", (20, 30)), ("much-longer.png", (200, 300))):
        write_pixels(here / "in" / name, make_photo(*size))
    (here / "in" / "notes.txt").write_text("x")
    result = upframe("in", "-m", weights, "-o", "out", "--dry-run")
    assert result.code == 0 and result.err == ""
    lines = result.out.splitlines()
    assert [line.split()[0] for line in lines[:3]] == ["Input", "in/a.png", "in/much-longer.png"]
    assert lines[0].index("Output") == lines[1].index("out/a.png") == lines[2].index("out/much-longer.png")
    assert lines[0].index("Size") == lines[1].index("30x20 -> 60x40") == lines[2].index("300x200 -> 600x400")
    assert "  in/notes.txt (no picture or video)" in lines
    assert "  in/sub/ (a folder; add -r)" in lines
    assert lines[-1].startswith("Total: 2 pictures of 0.2 megapixels, ")
    upframe("in/a.png", "-m", weights, "-o", "out/a.png")
    again = upframe("in", "-m", weights, "-o", "out", "--dry-run").out
    assert "Skipped, since the output is there already and verified" in again
    assert "in/a.png  ->  out/a.png" in again
    assert again.rstrip().endswith("; 1 skipped.")


def test_dry_run_of_a_video_says_duration_rate_sound_and_interlacing() -> None:
    row = {
        "input": "clip.mkv", "output": "out.mkv", "model": "m", "size": [1440, 1920], "skip": False, "notices": [],
        "input_size": [480, 640], "format": "mkv, h264 yuv420p", "frames": 3750, "engine": "torch", "precision": "fp32",
        "tile": [480, 640], "window": 14, "memory_bytes": 2**31, "file_bytes": 2**30, "seconds": None,
        "video": {"seconds": 150.0, "rate": 25.0, "audio": ["aac", "ac3"], "subtitles": 1, "interlaced": True},
    }  # fmt: skip
    lines = plan_lines([row], [])
    says = "  2:30, 25 fps, 3,750 frames, h264 yuv420p; sound: 2 tracks (aac, ac3); subtitles: 1 track; interlaced"
    assert f"{says}; 14 frames at once" in lines
    assert lines[-1] == "Total: 1 video of 3,750 frames, 1.0 GiB on disk, 2.0 GiB of memory at most."
    lines = plan_lines([row | {"seconds": 150.0}] * 2, [])
    assert lines[-1].endswith("2.0 GiB of memory at most, about 5:00 for the network here.")


def test_dry_run_with_nothing_to_do_says_so() -> None:
    assert plan_lines([], ["a.png: is bad."]) == [
        "Cannot be done:",
        "  a.png: is bad.",
        "",
        "Total: nothing to do; 1 cannot be done.",
    ]


# Log file ---------------------------------------------------------------------------------------------------------------
def test_the_log_file_has_times_and_levels_whatever_the_screen_shows(upframe: Upframe, here: Path, weights: Path) -> None:
    write_pixels(here / "a.png", make_photo(4, 5))
    (here / "bad\n.png").write_text("text")
    log = here / "logs" / "run.log"
    result = upframe("a.png", "bad\n.png", "-m", weights, "-s", "3", "--log", log, "-q")
    assert result.code == 8
    assert (result.out, result.err.count("\n")) == ("", 1)
    text = log.read_text()
    entries = re.findall(r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} (\w+) +(\S+): (.*)$", text, re.MULTILINE)
    assert entries[0][2].startswith("upframe ") and "--log" in entries[0][2]
    levels = {(level, message.split()[0]) for level, name, message in entries if name == "upframe.run"}
    assert {("INFO", "start"), ("INFO", "done"), ("WARNING", "notice"), ("ERROR", "failed")} <= levels
    assert entries[-1][2].endswith("(exit code 8)")
    assert upframe("a.png", "-m", weights, "--log", log, "-y").code == 0
    assert log.read_text().startswith(text)  # appended
    files = [h.baseFilename for h in logging.getLogger().handlers if isinstance(h, logging.FileHandler)]
    assert str(log) not in files  # closed


def test_a_log_file_that_cannot_be_written_is_6_before_any_work(upframe: Upframe, here: Path, weights: Path) -> None:
    write_pixels(here / "a.png", make_photo(4, 5))
    result = upframe("a.png", "-m", weights, "--log", here / "a.png" / "x.log")
    assert result.code == 6
    assert "a.png/x.log: cannot be written" in result.err
    assert json.dumps(sorted(p.name for p in here.iterdir())) == '["a.png"]'


def test_info_is_plain_lines_and_says_where_weights_are(upframe: Upframe) -> None:
    shipped, absent = upframe("models", "info", "photo-x4").out, upframe("models", "info", "vrt-deblur-gopro").out
    assert not set("[]{}\"'") & set(shipped.partition("card:")[0])
    card = load("photo-x4").card
    assert card is not None
    psnr = card.scores["sisr-y"]["Set5"]["psnr"]
    assert re.search(rf"^      Set5:\n        psnr: +{psnr}$", shipped, re.MULTILINE)
    assert re.search(r"^weights: +not shipped; docs/models.md", absent, re.MULTILINE)
