"""Geometry of tiles and of windows in time: everything made once in the sum, nothing read beyond the picture."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from upframe.upscaling import tiling
from upframe.upscaling.tiling import grid, ramp, seen_px, spans


@given(
    length=st.integers(1, 400),
    core=st.integers(20, 150),
    blend=st.integers(0, 5),
    halo=st.integers(0, 40),
    phase=st.sampled_from([1, 2, 6]),
)
def test_weights_of_all_tiles_sum_to_one_everywhere(length: int, core: int, blend: int, halo: int, phase: int) -> None:
    scale = 3
    total = torch.zeros(length * scale)
    for span in spans(length, core_px=core, blend_px=blend, halo_px=halo, phase_px=phase):
        total[span.start * scale : span.end * scale] += ramp(span, scale)
    torch.testing.assert_close(total, torch.ones(length * scale), atol=1e-6, rtol=0)  # float32 rounding of w + (1 - w)


@given(length=st.integers(1, 400), core=st.integers(20, 150), halo=st.integers(0, 40), phase=st.sampled_from([1, 6]))
def test_tiles_read_their_halo_but_nothing_beyond_the_picture(length: int, core: int, halo: int, phase: int) -> None:
    for span in spans(length, core_px=core, blend_px=4, halo_px=halo, phase_px=phase):
        assert 0 <= span.read_start <= max(span.start - halo, 0)
        assert span.read_start % phase == 0
        assert span.read_end == min(span.end + halo, length)
        assert span.core_end - span.core_start <= core


@pytest.mark.parametrize("border", [0, 1, 5, 6, 8])
@pytest.mark.parametrize("phase", [1, 6])
def test_reads_begin_at_the_phase_of_the_picture_with_its_border(phase: int, border: int) -> None:
    cut = spans(200, core_px=50, blend_px=4, halo_px=9, phase_px=phase, border_px=border)
    assert cut[0].read_start == 0
    assert all((span.read_start + border) % phase == 0 for span in cut[1:])
    assert all(span.read_start <= span.start - 9 for span in cut[1:])
    seen = [seen_px(span, 200, border) for span in cut]
    assert seen == [s.read_end - s.read_start + border * ((s is cut[0]) + (s is cut[-1])) for s in cut]


def test_cores_cover_the_picture_once_and_are_of_one_size() -> None:
    cores = [(s.core_start, s.core_end) for s in spans(1000, core_px=256, blend_px=8, halo_px=16)]
    assert cores == [(0, 250), (250, 500), (500, 750), (750, 1000)]


def test_a_picture_that_fits_is_one_tile_without_overlap() -> None:
    (row,) = grid((100, 120), core_px=(128, 128), blend_px=8, halo_px=16)
    assert [t.read_size for t in row] == [(100, 120)]
    assert torch.equal(ramp(row[0].rows, 2), torch.ones(200))


def test_cores_too_narrow_for_the_blend_are_refused() -> None:
    with pytest.raises(ValueError, match="too narrow to blend 20 px"):
        spans(100, core_px=30, blend_px=20, halo_px=0)


# Windows in time ------------------------------------------------------------------------------------------------------
@given(
    frames=st.integers(1, 90),
    longest=st.integers(2, 40),
    overlap=st.integers(0, 6),
    multiple=st.sampled_from([1, 4, 6, 8]),
)
def test_windows_cover_every_frame_share_enough_and_are_of_one_length(
    frames: int, longest: int, overlap: int, multiple: int
) -> None:
    assume(overlap < longest)
    found = tiling.windows(frames, longest=longest, overlap=overlap, multiple=multiple)
    assert found[0].start == 0
    assert found[-1].stop == frames
    assert len({len(w) for w in found}) == 1
    assert len(found[0]) <= longest
    for a, b in pairwise(found):
        assert a.start < b.start
        assert a.stop - b.start >= overlap
    if len(found) > 1 and longest % multiple == 0:
        assert len(found[0]) % multiple == 0


def test_a_clip_as_long_as_a_window_is_one() -> None:
    assert tiling.windows(12, longest=12, overlap=2, multiple=6) == [range(12)]
    assert tiling.windows(22, longest=12, overlap=2, multiple=6) == [range(12), range(10, 22)]
    with pytest.raises(ValueError, match="cannot share 12"):
        tiling.windows(13, longest=12, overlap=12)


@given(frames=st.integers(1, 40), longest=st.integers(2, 16), overlap=st.integers(0, 5))
def test_blended_windows_return_what_does_not_depend_on_the_window(frames: int, longest: int, overlap: int) -> None:
    assume(overlap < longest)
    clip = torch.arange(frames, dtype=torch.float64)[None, :, None]
    cut = tiling.windows(frames, longest=longest, overlap=overlap)
    before = clip.clone()
    made = list(tiling.blend_windows(cut, lambda w: clip[:, w.start : w.stop] * 2))
    assert torch.allclose(torch.stack(made, 1), 2 * clip, rtol=0, atol=1e-12)  # a few roundings in float64
    assert torch.equal(clip, before)


def test_shared_frames_pass_linearly_from_one_window_to_the_next() -> None:
    cut = [range(5), range(3, 8)]
    made = list(tiling.blend_windows(cut, lambda w: torch.full((1, 5, 1), float(w.start > 0))))
    assert [round(float(f), 6) for f in made] == [0, 0, 0, 0.333333, 0.666667, 1, 1, 1]
