"""Features of a pass from the last frame to the first, handed out first frame first."""

from __future__ import annotations

import pytest
import torch

from upframe.models.architectures._two_passes import Features, first_frame_first
from upframe.models.interfaces import Keep


class Counted:
    """A step whose feature is one third of the next frame's, plus the number of the frame."""

    def __init__(self) -> None:
        self.frames: list[int] = []

    def __call__(self, i: int, later: Features | None) -> Features:
        self.frames.append(i)
        return (torch.tensor([i + (0.0 if later is None else float(later[0]) / 3)]),)


def expected(count: int) -> list[float]:
    made: list[float] = []
    for i in reversed(range(count)):
        made.insert(0, float(torch.tensor(i + (made[0] / 3 if made else 0.0))))
    return made


@pytest.mark.parametrize("count", [1, 2, 7, 9, 10])
@pytest.mark.parametrize("keep", ["full", "recompute", "half"])
def test_every_frame_gets_what_comes_after_it(count: int, keep: Keep) -> None:
    made = [float(feature[0]) for feature in first_frame_first(count, Counted(), keep=keep)]
    tolerance = 2**-11 if keep == "half" else 2**-22  # of float16 and float32, of the value
    assert made == pytest.approx(expected(count), rel=tolerance)


def test_only_recomputing_runs_twice_and_holds_few() -> None:
    once, twice = Counted(), Counted()
    list(first_frame_first(16, once, keep="full"))
    list(first_frame_first(16, twice, keep="recompute"))
    assert once.frames == list(range(15, -1, -1))
    assert twice.frames[:16] == once.frames
    # Blocks of four: the first is held, and of each other one the first frame.
    assert twice.frames[16:] == [7, 6, 5, 11, 10, 9, 15, 14, 13]


def test_half_precision_comes_back_in_its_own_type() -> None:
    def step(i: int, later: Features | None) -> Features:
        return torch.full((2,), 1 / 3, dtype=torch.float64), torch.full((2,), 1 / 3, dtype=torch.bfloat16)

    exact, reduced = next(first_frame_first(2, step, keep="half"))
    assert exact.dtype == torch.float64 and reduced.dtype == torch.bfloat16
    assert torch.equal(exact, torch.full((2,), 1 / 3).half().double())
    assert torch.equal(reduced, torch.full((2,), 1 / 3, dtype=torch.bfloat16))
