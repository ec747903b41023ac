"""The command line in a real terminal: live lines, results, colours, widths, and what other streams get."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from pathlib import Path

import pytest

from conftest import make_photo
from terminals import Seen, run_in_terminal, set_columns
from upframe.cli import wording
from upframe.media.image.files import write_pixels

pytestmark = [pytest.mark.slow, pytest.mark.skipif(os.name == "nt", reason="Windows has no pseudo-terminals")]

SLOW = ("-t", "16", "--overlap", "2")
"""Tiles so small that a picture takes some seconds: long enough to be seen."""
RED = {"31", "91", "41", "1;31"}
LONG = "a long walk in the mountains at dawn {n}.png"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two pictures with long names, and a file that is none."""
    made = tmp_path / "in"
    made.mkdir()
    for n in range(2):
        write_pixels(made / LONG.format(n=n), make_photo(160, 240, seed=n))
    (made / "bad [red].png").write_text("text")
    return made


@pytest.fixture(scope="module", params=[60, 80, 200])
def batch(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, weights: Path) -> tuple[int, Seen]:
    """A batch with a failure in terminals of several widths, standard output piped."""
    made = tmp_path_factory.mktemp("batch") / "in"
    made.mkdir()
    for n in range(2):
        write_pixels(made / LONG.format(n=n), make_photo(160, 240, seed=n))
    (made / "bad [red].png").write_text("text")
    command = (made, "-m", weights, "-s", "3", *SLOW)
    return request.param, run_in_terminal(command, columns=request.param, is_out_piped=True)


def live(seen: Seen) -> list[list[str]]:
    """The live lines of each frame that has some."""
    return [lines for frame in seen.frames if (lines := [line for line in frame if re.search(r"[━─]{3}", line)])]


@pytest.mark.slow
def test_a_batch_shows_a_bar_for_the_file_and_one_for_the_job(batch: tuple[int, Seen]) -> None:
    _, seen = batch
    assert seen.code == 8
    pairs = [lines for lines in live(seen) if len(lines) == 2]
    assert pairs
    for file, job in pairs:
        assert re.match(r".*\.png +[━─]+ +\d+%", file), file
        assert re.match(r"[23]/3 +[━─]+ +\d+%  .*1 failed", job), job
        assert file.index("%") == job.index("%")  # the bars stand below each other
    assert any("upscaling" in file for file, _ in pairs)


def test_no_live_line_wraps_and_long_names_keep_their_ends(batch: tuple[int, Seen]) -> None:
    columns, seen = batch
    assert seen.screen.wrapped == []
    names = {line.partition(".png")[0] for lines in live(seen) for line in lines[:1]}
    assert names == {wording.shorten(LONG.format(n=n), max((columns - 1) // 4, 12)).removesuffix(".png") for n in range(2)}


def test_the_live_lines_are_gone_at_the_end(batch: tuple[int, Seen]) -> None:
    _, seen = batch
    assert not any(re.search(r"[━─]{3}", line) for line in seen.final)
    assert seen.raw.count("\x1b[?25l") == seen.raw.count("\x1b[?25h") > 0  # the cursor is back


def test_notes_are_folded_and_each_failure_is_printed_once_after_the_summary(batch: tuple[int, Seen]) -> None:
    columns, seen = batch
    text = " ".join(line.strip() for line in seen.final)
    assert text.count("note:") == 1
    assert "note: 2 pictures: enlarged 2x by the network and 1.50x by resampling [beyond-model-scale]" in text
    end = r"2 written, 1 failed in [\d.:]+( s)?\. failed: .*bad \[red\]\.png"
    assert re.search(end, text)
    assert text.count("is not an image") == 1
    assert all(wording.cells(line) < columns for line in seen.final)


def test_standard_output_gets_the_results_alone_and_whole(batch: tuple[int, Seen]) -> None:
    _, seen = batch
    lines = seen.out.splitlines()
    assert [Path(line.partition(" -> ")[0]).name for line in lines] == [LONG.format(n=n) for n in range(2)]
    assert "\x1b" not in seen.out
    assert all("720x480, fp32" in line for line in lines)


@pytest.mark.slow
def test_red_is_for_failures_alone(folder: Path, weights: Path) -> None:
    (folder / "bad [red].png").unlink()
    fine = run_in_terminal((folder, "-m", weights, "-s", "3", *SLOW))
    assert fine.code == 0
    assert fine.screen.colours and not fine.screen.colours & RED
    failed = run_in_terminal((folder / "missing.png", "-m", weights))
    assert failed.code == 3
    assert failed.screen.colours & RED


@pytest.mark.slow
@pytest.mark.parametrize(
    ("environment", "is_live", "has_colour"),
    [
        ({}, True, True),
        ({"NO_COLOR": "1"}, True, False),
        ({"TERM": "dumb"}, False, False),
        ({"TERM": "dumb", "FORCE_COLOR": "1"}, False, True),
        ({"NO_COLOR": "1", "FORCE_COLOR": "1"}, True, False),
    ],
    ids=str,
)
def test_colours_and_live_lines_follow_the_environment(
    folder: Path, weights: Path, environment: dict[str, str], is_live: bool, has_colour: bool
) -> None:
    seen = run_in_terminal((folder, "-m", weights, *SLOW), environment=environment)
    assert seen.code == 8
    assert bool(live(seen)) == is_live
    assert bool(seen.screen.colours & {str(n) for n in range(30, 38)} | seen.screen.colours & {"90"}) == has_colour


@pytest.mark.slow
def test_results_fit_a_terminal_that_is_standard_output_too(folder: Path, weights: Path) -> None:
    seen = run_in_terminal((folder, "-m", weights), columns=60)
    results = [line for line in seen.final if " -> " in line]
    assert len(results) == 2
    assert all(line.endswith(".png") and wording.cells(line) <= 60 for line in results)
    assert seen.screen.wrapped == []


@pytest.mark.slow
def test_a_terminal_without_symbols_gets_ascii(folder: Path, weights: Path) -> None:
    seen = run_in_terminal((folder, "-m", weights, *SLOW), environment={"PYTHONIOENCODING": "ascii"})
    assert any(re.search(r"\.\.\..* #*-+ +\d+%", line) for frame in seen.frames for line in frame)
    assert seen.raw.isascii()


@pytest.mark.slow
def test_a_resized_terminal_gets_lines_of_its_new_width(folder: Path, weights: Path) -> None:
    widths: list[int] = []

    def shrink(terminal: int, shown: list[str], process: subprocess.Popen[bytes]) -> None:
        lines = [line for line in shown if re.search(r"[━─]{3}", line)]
        if lines:
            widths.append(max(map(wording.cells, lines[-2:])))
            set_columns(terminal, 60)

    seen = run_in_terminal((folder, "-m", weights, "-t", "16", "--overlap", "2"), columns=120, on_frame=shrink)
    assert seen.code == 8
    assert widths[0] > 60 >= widths[-1]


@pytest.mark.slow
def test_an_interrupted_batch_says_what_is_done_and_how_to_go_on(folder: Path, weights: Path) -> None:
    sent: list[bool] = []

    def interrupt(terminal: int, shown: list[str], process: subprocess.Popen[bytes]) -> None:
        if not sent and any(line.startswith("3/3") for line in shown):  # a second signal would end it without a word
            sent.append(True)
            process.send_signal(signal.SIGINT)

    seen = run_in_terminal((folder, "-m", weights, *SLOW), columns=120, on_frame=interrupt)
    assert seen.code == 130
    text = "\n".join(seen.final)
    assert re.search(r"1 written, 1 failed, 1 not done in .* Run the same command again to go on\.\n  failed: ", text)


@pytest.mark.slow
@pytest.mark.parametrize("columns", [60, 80, 200])
@pytest.mark.parametrize("command", [(), ("upscale",), ("train",), ("models", "info"), ("data", "prepare", "lq")], ids=" ".join)
def test_help_fits_the_terminal(command: tuple[str, ...], columns: int) -> None:
    for flag in ("--help", "--help-all"):
        seen = run_in_terminal((*command, flag), columns=columns)
        assert seen.code == 0
        assert seen.screen.wrapped == []


@pytest.mark.slow
@pytest.mark.parametrize("columns", [60, 80, 200])
@pytest.mark.parametrize("command", [("models", "list"), ("train", "list")], ids=" ".join)
def test_lists_fit_the_terminal(command: tuple[str, ...], columns: int) -> None:
    seen = run_in_terminal(command, columns=columns)
    assert seen.code == 0
    assert seen.screen.wrapped == []
