"""Curves of runs: what is read from logs, and that what is drawn lies where it should."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from upframe.drawing.chart import COLOURS, MARK, Curve, Panel, line_charts, log_ticks, ticks
from upframe.errors import InputError, UsageError
from upframe.media.image.source import read_pixels
from upframe.training.loop.plot import labels, plot, read_history


def _run(folder: Path, *rows: dict[str, Any]) -> Path:
    folder.mkdir(parents=True)
    (folder / "log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def _report(step: int, loss: float | str, rate: float = 1e-3) -> dict[str, Any]:
    return {"step": step, "stage": "one", "loss": loss, "learning_rate": rate}


def _colour(pixels: np.ndarray[Any, Any], colour: tuple[int, int, int]) -> np.ndarray[Any, Any]:
    """Where a colour is: (row, column) of each pixel."""
    return np.argwhere((pixels == np.array(colour)).all(axis=2))


# Charts ---------------------------------------------------------------------------------------------------------------
def test_a_rising_line_rises_across_the_panel() -> None:
    curve = Curve("a", list(range(101)), list(range(101)))
    pixels = line_charts([Panel("p", (curve,))], x_title="x", width_px=600, panel_px=240)
    assert pixels.dtype == np.uint8 and pixels.shape[1:] == (600, 3)
    at = _colour(pixels, COLOURS[0])
    at = at[at[:, 0] > 40]  # below the legend
    left, right = at[np.argmin(at[:, 1])], at[np.argmax(at[:, 1])]
    assert right[0] < left[0] - 100 and right[1] > left[1] + 400
    middle = at[np.abs(at[:, 1] - (left[1] + right[1]) / 2) < 2]
    assert abs(middle[:, 0].mean() - (left[0] + right[0]) / 2) < 3


def test_a_logarithmic_axis_makes_a_power_of_ten_a_straight_line() -> None:
    x = list(range(101))
    straight = line_charts([Panel("p", (Curve("a", x, x),))], x_title="x")
    powers = line_charts([Panel("p", (Curve("a", x, [10 ** (v / 50) for v in x]),), logarithmic=True)], x_title="x")
    first, second = (_colour(p, COLOURS[0]) for p in (straight, powers))
    assert {tuple(v) for v in first} == {tuple(v) for v in second}


def test_what_cannot_be_drawn_is_left_out_and_nothing_at_all_is_an_error() -> None:
    curve = Curve("a", [0, 1, 2, 3], [1.0, math.nan, -1.0, 100.0])
    assert _colour(line_charts([Panel("p", (curve,), logarithmic=True)], x_title="x"), COLOURS[0]).size
    with pytest.raises(ValueError, match="no point"):
        line_charts([Panel("p", (Curve("a", [1], [math.inf]),))], x_title="x")


def test_marks_are_drawn_where_they_are() -> None:
    pixels = line_charts([Panel("p", (Curve("a", [0, 100], [1, 1]),), marks=(25.0,))], x_title="x", width_px=496)
    columns = {int(column) for _, column in _colour(pixels, MARK)}
    assert columns and all(abs(column - (76 + 0.25 * 400)) <= 1 for column in columns)


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(0, 10, [0, 2, 4, 6, 8, 10]), (0.13, 0.29, [0.15, 0.2, 0.25]), (-1, 1, [-1, -0.5, 0, 0.5, 1]), (3, 3, [3])],
)
def test_ticks_are_round(low: float, high: float, expected: list[float]) -> None:
    assert ticks(low, high) == pytest.approx(expected)


def test_logarithmic_ticks_are_powers_or_their_doubles_and_fivefolds() -> None:
    assert log_ticks(1e-4, 1) == pytest.approx([1e-4, 1e-3, 1e-2, 1e-1, 1])
    assert log_ticks(0.03, 0.6) == pytest.approx([0.05, 0.1, 0.2, 0.5])
    assert log_ticks(0.041, 0.049) == pytest.approx([0.042, 0.044, 0.046, 0.048])


# Runs -----------------------------------------------------------------------------------------------------------------
def test_what_a_roll_back_undid_is_not_drawn(tmp_path: Path) -> None:
    run = _run(
        tmp_path / "run",
        _report(4, 0.5),
        {"step": 4, "stage": "one", "validation": {"Set5": {"psnr": 30.0}}},
        _report(8, 0.9),
        {"step": 8, "stage": "one", "validation": {"Set5": {"psnr": 20.0}}},
        {"step": 11, "stage": "one", "notice": "rolled-back", "to": 4, "message": "the loss is nan"},
        _report(8, 0.4, 5e-4),
        {"step": 8, "stage": "one", "validation": {"Set5": {"psnr": 31.0, "ssim": 0.9}, "Set14": {"psnr": "inf"}}},
    )
    history = read_history(run)
    assert history.loss == ((4, 0.5), (8, 0.4))
    assert history.learning_rate == ((4, 1e-3), (8, 5e-4))
    assert history.scores == {"Set5 psnr": ((4, 30.0), (8, 31.0)), "Set5 ssim": ((8, 0.9),)}
    assert history.rollbacks == (11,)


def test_two_runs_are_drawn_into_the_same_panels(tmp_path: Path) -> None:
    one = _run(tmp_path / "one", _report(1, 1.0), _report(2, 0.5), {"step": 2, "validation": {"Set5": {"psnr": 30.0}}})
    two = _run(tmp_path / "two", _report(1, 2.0), _report(2, 0.1))
    plot([one, two], tmp_path / "curves.png")
    pixels = read_pixels(tmp_path / "curves.png")
    for colour in COLOURS[:2]:
        assert len(_colour(pixels, colour)) > 100
    assert not len(_colour(pixels, COLOURS[2]))
    assert pixels.shape[0] > 3 * 240  # loss, Set5 psnr, rate


def test_runs_are_told_apart_by_as_much_of_their_paths_as_it_takes(tmp_path: Path) -> None:
    assert labels([tmp_path / "a" / "run", tmp_path / "b" / "run"]) == ["a/run", "b/run"]
    assert labels([tmp_path / "a", tmp_path / "b"]) == ["a", "b"]


def test_what_is_no_run_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"log\.jsonl"):
        plot([tmp_path], tmp_path / "curves.png")
    with pytest.raises(InputError, match="nothing has been logged yet"):
        plot([_run(tmp_path / "empty")], tmp_path / "curves.png")
    with pytest.raises(UsageError, match="no run is named"):
        plot([], tmp_path / "curves.png")
    scored = _run(tmp_path / "scored", _report(1, 1.0), {"step": 1, "validation": {"Set5": {"psnr-y": 30.0, "ssim-y": 0.9}}})
    with pytest.raises(UsageError, match=r"metric niqe: no validation has it\. There are psnr-y, ssim-y"):
        plot([scored], tmp_path / "curves.png", metric="niqe")
    (_run(tmp_path / "bad") / "log.jsonl").write_text('{"step": 1}\nnot json\n')
    with pytest.raises(InputError, match="line 2 is not JSON"):
        plot([tmp_path / "bad"], tmp_path / "curves.png")


@pytest.mark.parametrize(
    "line",
    [
        '{"step": "one", "loss": 1, "learning_rate": 1}',
        '{"step": 1, "loss": 1}',
        '{"step": 1, "loss": [], "learning_rate": 1}',
        '{"step": 1, "notice": "x"}',
        '{"step": 1, "validation": null}',
        '{"step": 1, "validation": ' + '{"a": ' * 900 + "1" + "}" * 901,
        "[" * 200_000,
    ],
    ids=lambda line: line[:60],
)
def test_a_line_changed_by_hand_is_named(tmp_path: Path, line: str) -> None:
    run = _run(tmp_path / "run", _report(1, 0.5))
    with (run / "log.jsonl").open("a") as file:
        file.write(line + "\n")
    with pytest.raises(InputError, match="line 2 is"):
        plot([run], tmp_path / "curves.png")


def test_a_run_with_nothing_to_draw_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nothing that can be drawn"):
        plot([_run(tmp_path / "run", _report(1, 0.0, rate=0.0))], tmp_path / "curves.png")
