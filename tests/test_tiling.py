"""Geometry of tiles: every pixel made once in the sum, nothing read beyond the picture."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from upframe.tiling import grid, ramp, spans


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


def test_cores_cover_the_picture_once_and_are_of_one_size() -> None:
    cores = [(s.core_start, s.core_end) for s in spans(1000, core_px=256, blend_px=8, halo_px=16)]
    assert cores == [(0, 250), (250, 500), (500, 750), (750, 1000)]


def test_a_picture_that_fits_is_one_tile_without_overlap() -> None:
    (row,) = grid((100, 120), core_px=(128, 128), blend_px=8, halo_px=16)
    assert [t.read_size for t in row] == [(100, 120)]
    assert torch.equal(ramp(row[0].rows, 2), torch.ones(200))


def test_cores_too_narrow_for_the_blend_are_refused() -> None:
    with pytest.raises(ValueError, match="blend margin of 20 px"):
        spans(100, core_px=30, blend_px=20, halo_px=0)
