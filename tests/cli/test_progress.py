"""The live lines and the summary as text: they fit any terminal, and the words are right for any numbers."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from upframe.cli import wording
from upframe.cli.pace import Pace, Work
from upframe.cli.progress import Board, fit_result
from upframe.cli.summary import Tally, Told, folded
from upframe.jobs import Event

NAMES = st.text(st.characters(exclude_categories=("Cc", "Cs", "Cn"), exclude_characters="/"), min_size=1, max_size=90)


def board_of(*names: str, kind: str = "picture") -> Board:
    paths = [Path(name) for name in names]
    work = {path: Work("picture" if kind == "picture" else "video", 1e6) for path in paths}
    return Board(Pace(work, clock=lambda: 12.0), total=len(paths))


def text_of(board: Board, width: int, *, symbols: bool = True) -> list[str]:
    return ["".join(text for text, _ in line) for line in board.lines(width, symbols=symbols)]


@given(
    st.lists(NAMES, min_size=1, max_size=3, unique=True),
    st.integers(60, 200),
    st.booleans(),
    st.sampled_from(["reading", "upscaling", "checking"]),
    st.integers(0, 10**6),
    st.floats(0, 1e5),
)
def test_live_lines_fit_every_terminal(
    names: list[str], width: int, symbols: bool, stage: str, frame: int, rate: float
) -> None:
    for kind in ("picture", "video"):
        board = board_of(*names, kind=kind)
        first = Path(names[0])
        board.take(Event("start", first))
        frames = {"stage": stage, "frame": frame, "frames": 10**6, "frames_per_s": rate} if kind == "video" else {}
        board.take(Event("progress", first, {"done": 0.5, **frames}))
        lines = text_of(board, width, symbols=symbols)
        assert all(wording.cells(line) <= width for line in lines)
        assert " 50%" in lines[0]
        assert len(lines) == (2 if len(names) > 1 or kind == "video" else 1)
        if len(names) > 1:
            assert lines[1].startswith(f"1/{len(names)} ")
        if kind == "video":
            assert any(f"frame {frame}/1000000" in line for line in lines)


def test_live_lines_of_a_batch() -> None:
    board = board_of("a.png", "clip.mkv", kind="video")
    board.take(Event("failed", Path("a.png"), {"error": "bad"}))
    board.take(Event("start", Path("clip.mkv")))
    data = {"done": 0.25, "stage": "upscaling", "frame": 10, "frames": 40, "frames_per_s": 3.21}
    board.take(Event("progress", Path("clip.mkv"), data))
    first, second = text_of(board, 80, symbols=False)
    assert first == "clip.mkv  ########----------------------   25%  upscaling, frame 10/40, 3.21 fps"
    assert second == "2/2       ########----------------------   25%  0 s so far, 1 failed"


@given(NAMES, NAMES, st.integers(60, 200))
def test_a_result_fits_one_line(name: str, output: str, width: int) -> None:
    line = fit_result(f"{name} -> {output} (30x20, fp32, 1.0 s)", width)
    assert wording.cells(line) <= width
    assert " -> " in line


# Notes and summary ----------------------------------------------------------------------------------------------------
def told(count: int, message: str = "enlarged 4x by the network and 1.25x by resampling") -> list[Told]:
    return [(Path(f"{n}.png"), "beyond-model-scale", message) for n in range(count)]


def test_repeated_notes_are_folded_into_one() -> None:
    nouns = {path: "picture" for path, _, _ in told(38)}
    assert folded(told(1), nouns) == ["0.png: enlarged 4x by the network and 1.25x by resampling [beyond-model-scale]"]
    assert folded(told(38), nouns) == ["38 pictures: enlarged 4x by the network and 1.25x by resampling [beyond-model-scale]"]
    different = [*told(2), (Path("x.png"), "beyond-model-scale", "enlarged 4x by the network and 2.00x by resampling")]
    (line,) = folded(different, {**nouns, Path("x.png"): "video"})
    assert line.startswith("3 files: the enlargement exceeds the network's scale")
    assert len(folded(told(3), nouns, each=True)) == 3


@pytest.mark.parametrize(
    ("written", "skipped", "failed", "stopped", "sentence"),
    [
        (31, 6, 1, False, "31 written, 6 skipped, 1 failed in 2:31."),
        (1, 0, 0, False, "1 written in 2:31."),
        (0, 7, 0, False, "7 skipped in 2:31."),
        (3, 0, 0, True, "3 written, 4 not done in 2:31. Run the same command again to go on."),
    ],
)
def test_the_summary_counts_and_says_how_to_go_on(
    written: int, skipped: int, failed: int, stopped: bool, sentence: str
) -> None:
    tally = Tally(7 if stopped else written + skipped + failed, {})
    for _ in range(written):
        tally.take(Event("done", Path("a")))
    for _ in range(skipped):
        tally.take(Event("skipped", Path("a")))
    for _ in range(failed):
        tally.take(Event("failed", Path("a"), {"error": "bad", "exit_code": 3}))
    assert tally.sentence(151, stopped=stopped) == sentence


def test_the_summary_advises_to_go_on_only_where_that_can_help() -> None:
    """A broken file is broken the next time, too; a full disk may have room by then."""
    tally = Tally(2, {})
    tally.take(Event("failed", Path("a"), {"error": "broken", "exit_code": 3}))
    assert "again" not in tally.sentence(1)
    tally.take(Event("failed", Path("b"), {"error": "no room", "exit_code": 6}))
    assert tally.sentence(1) == "2 failed in 1.0 s. Run the same command again to go on."


def test_late_notes_are_told_once_and_planned_ones_not_again() -> None:
    tally = Tally(2, {}, planned=told(1))
    path, id, message = told(1)[0]
    for _ in range(2):
        tally.take(Event("notice", path, {"id": id, "message": message}))
        tally.take(Event("notice", path, {"id": "tile-halved", "message": "halved"}))
    said: list[str] = []
    tally.say_end(said.append, stopped=False)
    assert [line for line in said if "note:" in line] == ["note: 0.png: halved [tile-halved]"]
