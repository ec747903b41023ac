"""Films with a new frame between every two: exact times, what is kept, cuts, ends, parts, resuming, folders."""

from __future__ import annotations

import itertools
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import films
from films import Clip, make_clip, make_film, make_frames, make_pictures
from upframe.jobs import model_choice
from upframe.jobs.options import JobOptions, VideoOptions
from upframe.jobs.video.inputs import probe_input
from upframe.jobs.video.plan import Video, plan_video_output
from upframe.jobs.video.progress import VideoReport
from upframe.jobs.video.render import render
from upframe.jobs.video.retiming import doubled
from upframe.jobs.video.workspace import WorkFolder
from upframe.media.image.source import read_pixels
from upframe.media.video.files import FrameTimes
from windowed import middle


def interpolated(source: Path, output: Path, *, options: VideoOptions = VideoOptions(codec="ffv1"), **rest: Any) -> VideoReport:
    info = probe_input(source, options)
    plan, ledger = plan_video_output(info, info.size, options, container=output.suffix or "png", is_doubled=True)
    video = Video(source, output, info, plan, info.size, ledger.notices(str(source)), ledger, is_doubled=True)
    model = middle()
    with WorkFolder(video.output) as work:
        return render(video, model_choice.keep(model), JobOptions(task="interpolate", video=options), work, **rest)


@given(steps=st.lists(st.integers(1, 9), min_size=1, max_size=12), start=st.integers(-5, 5), data=st.data())
def test_new_frames_lie_in_the_middle_and_nothing_else_moves(steps: list[int], start: int, data: st.DataObject) -> None:
    pts = start + np.cumsum([0, *steps[:-1]])
    timing = FrameTimes(Fraction(1, 30), pts.astype(np.int64), np.array(steps, np.int64))
    first = data.draw(st.integers(0, len(pts) - 1))
    end = data.draw(st.integers(first + 1, len(pts)))
    made, chosen = doubled(timing, range(first, end))
    times = [int(p) * made.time_base for p in made.pts[chosen.start : chosen.stop]]
    old = [int(p) * timing.time_base for p in pts[first:end]]
    assert times[::2] == old
    assert times[1:-1:2] == [(a + b) / 2 for a, b in itertools.pairwise(old)]
    last = times[-1] + int(made.durations[chosen.stop - 1]) * made.time_base
    assert last == old[-1] + steps[end - 1] * timing.time_base


@pytest.mark.parametrize("longest", [None, 2, 3])
def test_old_frames_are_kept_as_they_are_and_new_ones_lie_between(tmp_path: Path, longest: int | None) -> None:
    source = make_film(tmp_path / "in.mkv", make_pictures(7, (24, 32)))
    options = VideoOptions(codec="ffv1", segment_frames=longest)
    report = interpolated(source, tmp_path / "out.mkv", options=options)
    assert report.frames == 14
    before, after = films.rgb_of(source), films.rgb_of(tmp_path / "out.mkv")
    assert len(after) == 14
    np.testing.assert_array_equal(after[13], after[12])  # there is nothing that it could lead to
    for i, frame in enumerate(before):
        assert np.abs(after[2 * i].astype(int) - frame).max() <= 1  # through YUV and back
    for i in range(6):
        mean = (before[i].astype(int) + before[i + 1]) / 2
        assert np.abs(after[2 * i + 1] - mean).max() <= 2
    times = films.shown_times(source)
    wanted = sorted([*times, *((a + b) / 2 for a, b in itertools.pairwise(times))])
    found = films.shown_times(tmp_path / "out.mkv")[:13]
    assert max(abs(a - b) for a, b in zip(wanted, found, strict=True)) <= Fraction(1, 1000)  # Matroska's clock


def test_across_a_cut_the_last_frame_is_shown_on(tmp_path: Path) -> None:
    dark, bright = make_pictures(5, (64, 96), seed=1), make_pictures(5, (64, 96), seed=2)
    pictures = [p // 6 for p in dark] + [255 - p // 6 for p in bright]
    source = make_film(tmp_path / "in.mkv", pictures)
    interpolated(source, tmp_path / "out.mkv")
    before, after = films.rgb_of(source), films.rgb_of(tmp_path / "out.mkv")
    assert len(after) == 20
    assert np.abs(after[9].astype(int) - before[4]).max() <= 1
    assert np.abs(after[8].astype(int) - before[4]).max() <= 1
    assert np.abs(after[10].astype(int) - before[5]).max() <= 1


def test_sound_and_the_end_of_the_film_stay(tmp_path: Path) -> None:
    source = make_clip(tmp_path / "in.mp4", Clip(sounds=[films.Sound()]))
    options = VideoOptions(codec="h264", preset="ultrafast")
    report = interpolated(source, tmp_path / "out.mp4", options=options)  # verified by the job: times, sound, end
    count = len(films.shown_times(source))
    assert report.frames == 2 * count
    assert probe_input(tmp_path / "out.mp4", options).rate == 2 * probe_input(source, options).rate


def test_a_part_of_a_film_starts_at_zero(tmp_path: Path) -> None:
    source = make_film(tmp_path / "in.mkv", make_pictures(9, (24, 32)))
    times = films.shown_times(source)
    options = VideoOptions(codec="ffv1", start=times[2], end=times[6])
    report = interpolated(source, tmp_path / "out.mkv", options=options)
    assert report.frames == 8
    assert films.shown_times(tmp_path / "out.mkv")[0] == 0


def test_folders_of_frames_are_numbered_anew(tmp_path: Path) -> None:
    pictures = make_pictures(4, (24, 32))
    source = make_frames(tmp_path / "frames", pictures)
    interpolated(source, tmp_path / "made")
    names = sorted(p.name for p in (tmp_path / "made").iterdir())
    assert names == [f"frame_{n:08}.png" for n in range(8)]
    for n, picture in enumerate(pictures):
        np.testing.assert_array_equal(read_pixels(tmp_path / "made" / names[2 * n]), picture)


def test_a_single_frame_has_nothing_between(tmp_path: Path) -> None:
    source = make_film(tmp_path / "in.mkv", make_pictures(1, (24, 32)))
    assert interpolated(source, tmp_path / "out.mkv").frames == 2
    first, second = films.rgb_of(tmp_path / "out.mkv")
    np.testing.assert_array_equal(first, second)
