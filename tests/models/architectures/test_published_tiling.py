"""The published ways to cut clips: equal to the programs they come from, and sensible where those break."""

from __future__ import annotations

from types import ModuleType

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from upframe.models.architectures._published_tiling import Piece, Run, mirrored_windows, vrt_tiles, vsrt_crops, vsrt_pieces

VRT_CASES = ["all", "no_time_tile", "whole_clip_pad", "short_clip", "odd_overlap"]
ROUNDING = 1e-6
"""Sums of up to eight float32 values near 1, divided once."""


def enlarged(x: Tensor, scale: int) -> Tensor:
    return x.repeat_interleave(scale, -2).repeat_interleave(scale, -1)


def placed(scale: int) -> Run:
    """The network the reference results were made with: what it makes depends on the tile and the place in it."""

    def run(x: Tensor) -> Tensor:
        made = enlarged(x[:, :, :3], scale) + 0.5 * x[:, :, :3].mean((2, 3, 4), keepdim=True)
        _, t, _, h, w = made.shape
        ramps = 0.1 * torch.linspace(0, 1, h)[:, None] + 0.2 * torch.linspace(0, 1, w)
        return made + ramps + 0.3 * torch.linspace(0, 1, t)[:, None, None, None]

    return run


def numbered(scale: int) -> tuple[Run, list[tuple[int, ...]]]:
    """A network that fills what it makes with the number of the call, and the sizes it was called with."""
    sizes: list[tuple[int, ...]] = []

    def run(x: Tensor) -> Tensor:
        sizes.append(tuple(x.shape))
        return torch.full_like(enlarged(x, scale), len(sizes) - 1)

    return run, sizes


def clip_of(t: int, h: int, w: int, *, channels: int = 1) -> Tensor:
    return torch.rand(1, t, channels, h, w, generator=torch.Generator().manual_seed(0))


# VRT ------------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", VRT_CASES)
def test_vrt_tiles_equal_the_published_program(golden: ModuleType, name: str) -> None:
    reference = golden.Golden("common/tiling_vrt")
    assert list(reference.meta["cases"]) == VRT_CASES
    case, clip = reference.meta["cases"][name], reference.input(name)
    if case["nonblind_denoising"]:
        clip = torch.cat([clip, torch.full_like(clip[:, :, :1], 0.1)], 2)
    before = clip.clone()
    tile, overlap, window = (tuple(case[key]) for key in ("tile", "tile_overlap", "window_size"))
    made = vrt_tiles(clip, placed(case["scale"]), tile=tile, overlap=overlap, scale=case["scale"], window=window)
    reference.check(f"out.{name}", made, atol=1e-5)  # the tolerance that the reference states
    assert torch.equal(clip, before)


@pytest.mark.slow
@given(
    size=st.tuples(st.integers(1, 9), st.integers(1, 30), st.integers(1, 30)),
    tile=st.tuples(st.integers(0, 5), st.integers(0, 12), st.integers(0, 12)),
    overlap=st.tuples(st.integers(0, 6), st.integers(0, 11), st.integers(0, 11)),
    scale=st.integers(1, 3),
)
def test_a_network_without_context_is_reproduced_at_any_size(
    size: tuple[int, int, int], tile: tuple[int, int, int], overlap: tuple[int, int, int], scale: int
) -> None:
    shared = tuple(min(o, max(t - 1, 0)) for o, t in zip(overlap, tile, strict=True))
    clip = clip_of(*size)
    made = vrt_tiles(clip, lambda x: enlarged(x, scale), tile=tile, overlap=shared, scale=scale, window=(4, 8, 8))  # type: ignore[arg-type]
    torch.testing.assert_close(made, enlarged(clip, scale), atol=ROUNDING, rtol=0)


def test_vrt_tiles_are_those_of_the_paper_by_default() -> None:
    run, sizes = numbered(1)
    vrt_tiles(torch.zeros(1, 100, 1, 180, 320), run, scale=1, window=(6, 8, 8))
    assert len(sizes) == 3 * 2 * 3  # starts 0, 38, 60 in time, 0, 52 in rows, 0, 108, 192 in columns
    assert set(sizes) == {(1, 40, 1, 128, 128)}


def test_vrt_tiles_meet_in_the_middle_of_their_overlap() -> None:
    run, _ = numbered(1)
    made = vrt_tiles(torch.zeros(1, 1, 1, 1, 12), run, tile=(1, 1, 8), overlap=(0, 0, 4), scale=1, window=(1, 1, 1))
    assert made.flatten().tolist() == [0] * 6 + [1] * 6


def test_the_trim_of_vrt_counts_output_pixels() -> None:
    """As published: at ×2 the seam of an overlap of 4 pixels (8 made) loses 2 and 2 of them, and 4 are averaged."""
    run, _ = numbered(2)
    made = vrt_tiles(torch.zeros(1, 1, 1, 1, 12), run, tile=(1, 1, 8), overlap=(0, 0, 4), scale=2, window=(1, 1, 1))
    assert made[0, 0, 0, 0].tolist() == [0] * 10 + [0.5] * 4 + [1] * 10


def test_vrt_tiles_without_overlap_simply_meet() -> None:
    run, _ = numbered(1)
    made = vrt_tiles(torch.zeros(1, 4, 1, 2, 4), run, tile=(2, 2, 2), overlap=(0, 0, 0), scale=1, window=(2, 2, 2))
    assert made[0, :, 0, 0].tolist() == [[0, 0, 1, 1], [0, 0, 1, 1], [2, 2, 3, 3], [2, 2, 3, 3]]


def test_time_is_averaged_where_pieces_overlap() -> None:
    run, _ = numbered(1)
    made = vrt_tiles(torch.zeros(1, 7, 1, 1, 1), run, tile=(3, 0, 0), overlap=(1, 0, 0), scale=1, window=(1, 1, 1))
    assert made.flatten().tolist() == [0, 0, 0.5, 1, 1.5, 2, 2]


@pytest.mark.parametrize(
    ("frames", "seen"), [(1, [0] * 6), (2, [0, 1, 1, 0, 0, 1]), (4, [0, 1, 2, 3, 3, 2]), (6, [0, 1, 2, 3, 4, 5])]
)
def test_a_whole_clip_is_mirrored_at_its_end_to_a_multiple_of_the_window(frames: int, seen: list[int]) -> None:
    given: list[list[float]] = []

    def run(x: Tensor) -> Tensor:
        given.append(x.flatten().tolist())
        return x

    clip = torch.arange(float(frames)).view(1, frames, 1, 1, 1)
    made = vrt_tiles(clip, run, tile=(0, 0, 0), scale=1, window=(6, 1, 1))
    assert given == [seen]
    assert torch.equal(made, clip)


def test_half_precision_results_are_summed_in_float32() -> None:
    clip = clip_of(9, 20, 20).half()
    assert vrt_tiles(clip, lambda x: x, tile=(4, 8, 8), overlap=(2, 4, 4), scale=1, window=(2, 8, 8)).dtype == torch.float32
    exact = vrt_tiles(clip.double(), lambda x: x, tile=(4, 8, 8), overlap=(2, 4, 4), scale=1, window=(2, 8, 8))
    torch.testing.assert_close(exact, clip.double(), atol=1e-15, rtol=0)  # rounding of float64 sums


@pytest.mark.parametrize("overlap", [(0, 8, 0), (0, 9, 0), (4, 0, 0), (0, 0, -1)])
def test_pieces_that_would_not_advance_are_refused(overlap: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match="cannot share"):
        vrt_tiles(clip_of(8, 20, 20), lambda x: x, tile=(4, 8, 8), overlap=overlap, scale=1, window=(2, 8, 8))


def test_a_network_that_makes_another_size_is_refused() -> None:
    with pytest.raises(ValueError, match=r"made \(1, 2, 1, 8, 8\).* not \(1, 2, C, 16, 16\)"):
        vrt_tiles(clip_of(2, 8, 8), lambda x: x, scale=2, window=(2, 8, 8))
    with pytest.raises(ValueError, match=r"made \(1, 1, 1, 64, 64\)"):
        vsrt_crops(clip_of(5, 64, 64), lambda x: x[:, 2:3], scale=1)


# VSR-Transformer ------------------------------------------------------------------------------------------------------
def test_vsrt_crops_lie_where_the_published_program_puts_them(golden: ModuleType) -> None:
    tables = golden.Golden("common/tiling_vsrt").meta["boxes_by_overlap_and_length"]
    assert sum(map(len, tables.values())) > 30
    for overlap, by_length in tables.items():
        for length, table in by_length.items():
            pieces = vsrt_pieces(int(length), tile=64, overlap=int(overlap), scale=4)
            assert len(pieces) == table["n"]
            assert [[p.read_start, p.read_end] for p in pieces] == table["lr"]
            places = [[p.start, p.end, p.within(4).start, p.within(4).stop] for p in pieces]
            assert places == table["hr_start_end_patchstart_patchend"], (overlap, length)


@pytest.mark.parametrize("overlap", [16, 32])
@pytest.mark.parametrize("name", ["a", "b"])
def test_vsrt_crops_equal_the_published_program(golden: ModuleType, name: str, overlap: int) -> None:
    reference = golden.Golden("common/tiling_vsrt")
    clip = reference.input(name)
    before = clip.clone()
    reference.check(f"out.{name}_overlap{overlap}", vsrt_crops(clip, placed(4), scale=4, overlap=overlap), atol=1e-5)
    assert torch.equal(clip, before)


@given(
    height=st.integers(1, 60),
    width=st.integers(1, 60),
    frames=st.integers(1, 4),
    overlap=st.integers(0, 15),
    scale=st.sampled_from([1, 2, 4]),
)
def test_crops_cover_any_picture_at_any_overlap(height: int, width: int, frames: int, overlap: int, scale: int) -> None:
    """Including sides below a crop and overlaps of more than half, where the published program fails."""
    clip = clip_of(frames, height, width)
    sizes = set()

    def run(x: Tensor) -> Tensor:
        sizes.add(x.shape[3:])
        return enlarged(x, scale)

    made = vsrt_crops(clip, run, scale=scale, overlap=overlap, tile=16)
    assert torch.equal(made, enlarged(clip[:, frames // 2], scale))
    assert sizes == {(16, 16)}


def test_a_small_picture_is_mirrored_to_the_size_of_a_crop() -> None:
    given: list[Tensor] = []

    def run(x: Tensor) -> Tensor:
        given.append(x)
        return x

    clip = torch.arange(3.0).view(1, 1, 1, 1, 3)
    assert torch.equal(vsrt_crops(clip, run, scale=1, overlap=4, tile=8), clip[:, 0])
    assert given[0][0, 0, 0, 5].tolist() == [0, 1, 2, 2, 1, 0, 0, 1]


@pytest.mark.parametrize(("side", "published", "ours"), [(64, 4, 1), (128, 16, 9), (180, 25, 25)])
def test_no_crop_is_computed_twice(side: int, published: int, ours: int) -> None:
    run, sizes = numbered(1)
    vsrt_crops(torch.zeros(1, 3, 1, side, side), run, scale=1)
    assert len(vsrt_pieces(side, tile=64, overlap=32, scale=1)) ** 2 == published
    assert len(sizes) == ours


def test_the_later_crop_counts() -> None:
    pieces = vsrt_pieces(20, tile=8, overlap=2, scale=1)  # stride 6, remainder 2: no extra piece
    assert pieces == [Piece(0, 8, 0, 7), Piece(6, 14, 7, 13), Piece(12, 20, 13, 20)]
    assert vsrt_pieces(17, tile=8, overlap=2, scale=1)[2] == Piece(9, 17, 12, 17)  # remainder 5: from 2 · 6 on
    run, _ = numbered(1)
    made = vsrt_crops(torch.zeros(1, 1, 1, 8, 17), run, scale=1, overlap=2, tile=8)
    assert made[0, 0, 0].tolist() == [0] * 7 + [1] * 5 + [2] * 5


# Windows --------------------------------------------------------------------------------------------------------------
def test_windows_take_what_follows_them_for_what_is_missing() -> None:
    windows = mirrored_windows(8, frames=5)
    assert windows[:3] == [(4, 3, 0, 1, 2), (4, 0, 1, 2, 3), (0, 1, 2, 3, 4)]
    assert windows[-2:] == [(4, 5, 6, 7, 3), (5, 6, 7, 4, 3)]


def test_windows_can_be_plainly_mirrored() -> None:
    windows = mirrored_windows(8, frames=5, padding="reflection")
    assert windows[:3] == [(2, 1, 0, 1, 2), (1, 0, 1, 2, 3), (0, 1, 2, 3, 4)]
    assert windows[-2:] == [(4, 5, 6, 7, 6), (5, 6, 7, 6, 5)]


def test_a_clip_as_long_as_the_window_fills_every_window_with_all_frames() -> None:
    """Vid4 and Vimeo windows: seven frames, each once."""
    assert all(sorted(window) == list(range(7)) for window in mirrored_windows(7, frames=7))


@given(length=st.integers(1, 12), half=st.integers(0, 6), padding=st.sampled_from(["reflection", "reflection_circle"]))
def test_windows_have_their_frame_in_the_middle_and_stay_in_the_clip(length: int, half: int, padding: str) -> None:
    windows = mirrored_windows(length, frames=2 * half + 1, padding=padding)  # type: ignore[arg-type]
    assert [window[half] for window in windows] == list(range(length))
    assert all(len(window) == 2 * half + 1 and set(window) <= set(range(length)) for window in windows)
    if padding == "reflection_circle" and length >= 2 * half + 1:
        assert all(len(set(window)) == len(window) for window in windows)


def test_short_clips_are_mirrored_as_often_as_needed() -> None:
    assert mirrored_windows(1, frames=5) == [(0, 0, 0, 0, 0)]
    assert mirrored_windows(2, frames=7, padding="reflection")[0] == (1, 0, 1, 0, 1, 0, 1)


@pytest.mark.parametrize(("length", "frames"), [(5, 4), (5, 0), (0, 5)])
def test_windows_without_a_middle_are_refused(length: int, frames: int) -> None:
    with pytest.raises(ValueError, match="no middle"):
        mirrored_windows(length, frames=frames)
