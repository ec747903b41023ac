"""Cuts are found where they are, and nowhere else; segments cover the film once."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from conftest import make_photo
from upframe.jobs.video.segments import plan_segments
from upframe.jobs.video.shots import find_cuts, thumbnail


def shot(seed: int, frames: int, *, drift: int = 2, noise: float = 3.0) -> list[NDArray[np.uint8]]:
    """A camera drifting over one scene, with grain."""
    scene = make_photo(120, 400, seed=seed)
    rng = np.random.default_rng(seed)
    views = [scene[:, i * drift : i * drift + 200] for i in range(frames)]
    return [np.clip(v + rng.normal(0, noise, v.shape), 0, 255).astype(np.uint8) for v in views]


def cuts_of(frames: list[NDArray[np.uint8]]) -> list[int]:
    return find_cuts(thumbnail(f[..., 1], 255) for f in frames)


def test_hard_cuts_are_found_to_the_frame() -> None:
    assert cuts_of(shot(1, 12) + shot(2, 9) + shot(3, 15)) == [12, 21]


def test_a_single_shot_has_none_even_when_it_is_fast_or_grainy() -> None:
    assert cuts_of(shot(1, 30)) == []
    assert cuts_of(shot(1, 30, drift=6)) == []
    assert cuts_of(shot(1, 30, noise=25)) == []


def test_a_flash_is_no_cut_but_the_shot_after_it_is() -> None:
    frames = shot(4, 20)
    frames[8] = np.full_like(frames[8], 250)
    frames[9] = np.full_like(frames[9], 240)
    assert cuts_of(frames) == []
    assert cuts_of(frames + shot(5, 10)) == [20]


def test_a_fade_to_black_is_no_cut() -> None:
    frames = shot(6, 40, drift=1)
    faded = [(f * max(0.0, 1 - i / 30)).astype(np.uint8) for i, f in enumerate(frames)]
    assert cuts_of(faded) == []


@pytest.mark.parametrize("count", [0, 1, 2])
def test_the_shortest_films_have_no_cut(count: int) -> None:
    assert cuts_of(shot(1, count)) == []


def test_a_thumbnail_is_the_mean_of_equal_areas_at_any_depth() -> None:
    picture = np.zeros((72, 128), np.uint16)
    picture[:36] = 1023
    small = thumbnail(picture, 1023)
    np.testing.assert_allclose(small[:18], 1, atol=1e-6)
    assert (small[18:] == 0).all()
    assert thumbnail(np.full((1, 1), 255, np.uint8), 255).shape == small.shape


@given(
    frames=st.integers(0, 500),
    raw=st.sets(st.integers(1, 499), max_size=12),
    longest=st.integers(1, 120),
    context=st.integers(0, 15),
)
def test_segments_cover_every_frame_once_and_respect_cuts(frames: int, raw: set[int], longest: int, context: int) -> None:
    cuts = sorted(c for c in raw if c < frames)
    segments = plan_segments(frames, cuts, longest=longest, context=context)
    assert [f for s in segments for f in range(s.first, s.end)] == list(range(frames))
    assert [s.index for s in segments] == list(range(len(segments)))
    for s in segments:
        assert 1 <= s.frames <= longest
        assert s.first - context <= s.read_first <= s.first
        assert s.end <= s.read_end <= s.end + context
        assert not any(s.read_first < c < s.read_end for c in cuts)


def test_cuts_outside_the_film_are_refused() -> None:
    with pytest.raises(ValueError, match="cuts must rise"):
        plan_segments(10, [3, 3], longest=5, context=0)
    with pytest.raises(ValueError, match="cuts must rise"):
        plan_segments(10, [10], longest=5, context=0)
