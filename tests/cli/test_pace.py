"""How much of a job is done and how long the rest takes, on a clock of our own."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from upframe.cli.pace import SETTLING_S, Kind, Pace, Work


class Job:
    """A job that is worked through on a clock that only this moves."""

    def __init__(self, works: list[Work]) -> None:
        self.now = 0.0
        self.paths = [Path(f"{n}") for n in range(len(works))]
        self.pace = Pace(dict(zip(self.paths, works, strict=True)), clock=lambda: self.now)
        self.told: list[tuple[float, float]] = []
        """When a time was shown, and the end that it meant."""

    def work(self, path: Path, seconds: float, *, steps: int = 10, overhead_s: float = 0.0) -> None:
        self.pace.start(path)
        for step in range(1, steps + 1):
            self.now += seconds / steps
            self.pace.advance(path, step / steps)
            left = self.pace.seconds_left()
            if left is not None:
                self.told.append((self.now, self.now + left))
        self.now += overhead_s
        self.pace.close(path, is_done=True)


def pictures(count: int, pixels: float = 1e6) -> list[Work]:
    return [Work("picture", pixels)] * count


@pytest.mark.slow
@given(
    st.lists(st.floats(0.6, 1.6), min_size=30, max_size=60),
    st.floats(0.5, 20),
)
def test_time_left_does_not_swing(noise: list[float], seconds: float) -> None:
    """Each picture takes up to 60 % longer or 40 % less than the others: the end that is shown stays near the true one."""
    job = Job(pictures(len(noise)))
    for path, factor in zip(job.paths, noise, strict=True):
        job.work(path, seconds * factor)
    # Whatever was seen so far, the whole lies between all pictures as fast as the fastest and all as slow as the slowest.
    fastest, slowest = (len(noise) * seconds * limit for limit in (min(noise), max(noise)))
    slack = 1e-6 * slowest  # rounding
    assert all(fastest - slack <= told <= slowest + slack for _, told in job.told)
    for (before, first), (after, second) in zip(job.told, job.told[1:], strict=False):
        # Within a second the end moves by no more than a tenth of what it is wrong by.
        assert abs(second - first) <= (after - before) / SETTLING_S * (slowest - fastest) + slack
    assert job.pace.share == pytest.approx(1)


def test_an_even_job_counts_down_steadily() -> None:
    job = Job(pictures(40))
    for path in job.paths:
        job.work(path, 2.0)
    assert job.told and job.told[0][0] >= 5  # not before it is known
    assert all(end == pytest.approx(80, abs=0.5) for _, end in job.told)


def test_nothing_is_told_before_it_is_steady() -> None:
    """Speeds that double from picture to picture tell nothing yet."""
    job = Job(pictures(8))
    for n, path in enumerate(job.paths[:4]):
        job.work(path, 1.0 * 4**n, steps=2)
    assert job.told == []


def test_larger_pictures_count_for_more() -> None:
    small, large = Work("picture", 1e6), Work("picture", 9e6)
    job = Job([small] * 10 + [large])
    for path in job.paths[:10]:
        job.work(path, 2.0)
    assert job.pace.share == pytest.approx(10 / 19)
    assert job.told[-1][1] - job.now == pytest.approx(18, rel=0.1)


def test_the_time_of_videos_is_not_told_from_pictures() -> None:
    job = Job([*pictures(20), Work("video", 1e6)])
    for path in job.paths[:20]:
        job.work(path, 2.0)
    assert job.told == []


def test_frames_of_an_earlier_run_are_not_taken_for_speed() -> None:
    kind: Kind = "video"
    job = Job([Work(kind, 1e6)])
    path = job.paths[0]
    job.pace.start(path)
    job.now += 30
    job.pace.advance(path, 0.0, counts=False)  # read
    for n in range(26):
        job.now += 1.0
        job.pace.advance(path, 0.5 + n / 100)  # half was there
    assert job.pace.share == pytest.approx(0.75)
    assert job.pace.seconds_left() == pytest.approx(25, abs=2)


def test_skipped_and_failed_files_leave_no_work_and_take_no_time() -> None:
    job = Job(pictures(4))
    for path in job.paths[:2]:
        job.pace.close(path, is_done=False)
    job.work(job.paths[2], 10.0, steps=20)
    assert job.pace.share == pytest.approx(0.5)
    assert job.pace.seconds_left() == pytest.approx(10, rel=0.1)
