"""Depth, luma, resizing and padding: reference values, every published LR file, and exact toys."""

from __future__ import annotations

import itertools
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from conftest import SHARED, make_photo, needs_shared
from upframe import pixels

# (set, scale) whose LR files were published; B100 has x4 only.
PUBLISHED = [("Set5", 2), ("Set5", 3), ("Set5", 4), ("Set14", 2), ("Set14", 3), ("Set14", 4), ("B100", 4)]


def chw(array: np.ndarray) -> torch.Tensor:
    """(H, W, C) or (H, W) → (C, H, W) or (H, W)."""
    tensor = torch.from_numpy(np.ascontiguousarray(array))
    return tensor if tensor.ndim == 2 else tensor.permute(2, 0, 1)


# Resizing -------------------------------------------------------------------------------------------------------------
def test_imresize_equals_the_reference(golden: ModuleType) -> None:
    """All sizes, scales and both antialias settings; the reference computed in float32, hence 5e-6."""
    fixture = golden.Golden("common/imresize")
    assert len(fixture.meta["cases"]) == 25
    for name, case in fixture.meta["cases"].items():
        picture = chw(fixture.tensors[f"in.{case['input']}"].numpy()).double()
        out = pixels.imresize(picture, case["scale"], antialias=case["antialiasing"])
        expected = chw(fixture.tensors[name].numpy()).double()
        assert out.shape == expected.shape, name
        assert (out - expected).abs().max().item() < 5e-6, name


@pytest.mark.slow
@needs_shared
@pytest.mark.parametrize(("dataset", "scale"), PUBLISHED)
def test_every_published_lr_file_is_reproduced_bit_for_bit(dataset: str, scale: int) -> None:
    folder = SHARED / "testsets" / dataset
    files = sorted((folder / f"LRbicX{scale}").glob("*.png"))
    assert len(files) == {"Set5": 5, "Set14": 14, "B100": 100}[dataset]
    for path in files:
        hr = chw(read_rgb(folder / "HR" / path.name))
        lr = pixels.matlab_bicubic_8bit(pixels.crop_to_multiple(hr, scale), scale)
        assert torch.equal(lr, chw(read_rgb(path))), path.name


def read_rgb(path: Path) -> np.ndarray:
    """Read without upframe's own reader, so that this test depends on pixels alone."""
    with Image.open(path) as image:
        return np.array(image.convert("RGB"))


@needs_shared
def test_float32_input_gives_the_same_integers() -> None:
    """Training makes its LR patches in float32."""
    hr = pixels.crop_to_multiple(chw(read_rgb(SHARED / "testsets" / "Set5" / "HR" / "butterfly.png")), 12)
    for scale in (2, 3, 4):
        exact = pixels.matlab_bicubic_8bit(hr, scale)
        assert torch.equal(pixels.matlab_bicubic_8bit(hr.float(), scale), exact)


def test_8bit_bicubic_refuses_sizes_that_do_not_divide() -> None:
    with pytest.raises(ValueError, match="10x9 is not a multiple of 2"):
        pixels.matlab_bicubic_8bit(torch.zeros(3, 10, 9, dtype=torch.uint8), 2)


def test_halves_round_away_from_zero_as_in_matlab() -> None:
    """A two-level checkerboard shrunk by 2 sits exactly on a half."""
    board = torch.tensor([[0.0, 255.0], [255.0, 0.0]]).repeat(8, 8)
    assert pixels.matlab_bicubic_8bit(board.double()[None], 2)[0, 3, 3].item() == 128


@pytest.mark.slow
@settings(max_examples=40, deadline=None)
@given(
    size=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    out=st.tuples(st.integers(1, 60), st.integers(1, 60)),
    kernel=st.sampled_from(["cubic", "lanczos3"]),
)
def test_resizing_keeps_constant_pictures_and_gives_the_size_asked(
    size: tuple[int, int], out: tuple[int, int], kernel: pixels.Kernel
) -> None:
    flat = torch.full((1, *size), 0.37, dtype=torch.float64)
    resized = pixels.resize(flat, out, kernel=kernel)
    assert resized.shape == (1, *out)
    torch.testing.assert_close(resized, torch.full_like(resized, 0.37))


def test_resizing_does_not_shift_the_picture() -> None:
    """A straight ramp stays the same ramp at pixel centres: u = (x + 0.5) / n."""
    n = 40
    ramp = ((torch.arange(n, dtype=torch.float64) + 0.5) / n).expand(1, 20, n)
    for m in (80, 100, 60, 20):
        resized = pixels.resize(ramp, (20, m))[0, 0]
        expected = (torch.arange(m, dtype=torch.float64) + 0.5) / m
        inner = slice(m // 8, -(m // 8))  # borders mirror, where a ramp is no ramp
        torch.testing.assert_close(resized[inner], expected[inner], atol=1e-9, rtol=0)


def test_whole_number_upscaling_agrees_with_imresize() -> None:
    picture = chw(make_photo(17, 23, dtype="float32")).double()
    torch.testing.assert_close(pixels.resize(picture, (51, 69)), pixels.imresize(picture, 3))


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(
    size=st.tuples(st.integers(1, 50), st.integers(1, 20)),
    out=st.tuples(st.integers(1, 90), st.integers(1, 30)),
    cuts=st.lists(st.integers(0, 50), max_size=8),
)
def test_banded_resizing_equals_resizing_whole(size: tuple[int, int], out: tuple[int, int], cuts: list[int]) -> None:
    """Whatever the heights of the bands."""
    picture = chw(make_photo(*size, dtype="float32"))
    edges = sorted({0, size[0], *(c for c in cuts if c < size[0])})
    bands = [picture[:, a:b] for a, b in itertools.pairwise(edges)]
    banded = torch.cat(list(pixels.resize_bands(iter(bands), size, out)), dim=1)
    whole = pixels.resize(picture, out, kernel="lanczos3")
    # The axes are resampled in the other order, so float32 rounding differs.
    torch.testing.assert_close(banded, whole, atol=2e-6, rtol=0)


def test_banded_resizing_holds_few_rows() -> None:
    """Rows come out while later rows have not yet been asked for."""
    asked = 0

    def rows():
        nonlocal asked
        for _ in range(400):
            asked += 1
            yield torch.rand(3, 1, 8)

    bands = pixels.resize_bands(rows(), (400, 8), (200, 4))
    produced = 0
    for band in bands:
        produced += band.shape[1]
        assert asked - 2 * produced <= 10  # half the widened Lanczos window and a row of slack
    assert produced == 200


def test_banded_resizing_notices_missing_rows() -> None:
    with pytest.raises(ValueError, match="bands held 5 rows, expected 9"):
        list(pixels.resize_bands(iter([torch.zeros(3, 5, 4)]), (9, 4), (18, 8)))


def test_crop_to_multiple_keeps_the_top_left() -> None:
    picture = torch.arange(5 * 7).view(1, 5, 7)
    assert torch.equal(pixels.crop_to_multiple(picture, 3), picture[:, :3, :6])


# Luma -----------------------------------------------------------------------------------------------------------------
def test_luma_and_chroma_equal_the_reference(golden: ModuleType) -> None:
    fixture = golden.Golden("common/color")
    rgb = chw(fixture.tensors["in.f"].numpy()).double()
    expected = chw(fixture.tensors["out.rgb2ycbcr_f"].numpy()).double()
    # The reference computes in float32 and stores float32.
    torch.testing.assert_close(pixels.rgb_to_ycbcr(rgb), expected, atol=1e-6, rtol=0)
    torch.testing.assert_close(pixels.rgb_to_y(rgb)[0], fixture.tensors["out.rgb2ycbcr_f_y"].double(), atol=1e-6, rtol=0)


def test_luma_of_8_bit_pixels_rounds_to_the_reference(golden: ModuleType) -> None:
    fixture = golden.Golden("common/color")
    unit = pixels.to_unit(fixture.tensors["in.u8"].numpy()).double()
    y = pixels.rgb_to_y(unit)[0] * 255
    assert torch.equal(y.round().to(torch.uint8), fixture.tensors["out.rgb2ycbcr_u8_y"])
    ycbcr = (pixels.rgb_to_ycbcr(unit) * 255).round().to(torch.uint8)
    assert torch.equal(ycbcr, chw(fixture.tensors["out.rgb2ycbcr_u8"].numpy()))


def test_luma_runs_from_16_to_235() -> None:
    white, black = torch.ones(3, 1, 1, dtype=torch.float64), torch.zeros(3, 1, 1, dtype=torch.float64)
    assert pixels.rgb_to_y(white).item() * 255 == pytest.approx(235, abs=1e-9)
    assert pixels.rgb_to_y(black).item() * 255 == pytest.approx(16, abs=1e-9)


# Depth ----------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_every_code_value_survives_the_round_trip(dtype: str) -> None:
    codes = np.arange(np.iinfo(dtype).max + 1, dtype=dtype).reshape(-1, 64, 1)
    back = pixels.from_unit(pixels.to_unit(codes), np.dtype(dtype))
    assert back.dtype == dtype
    assert np.array_equal(back, codes)


def test_range_follows_the_dtype_never_the_values() -> None:
    """A dark 16-bit picture must not be taken for an 8-bit one, nor a float picture above 1 be rescaled."""
    dark = np.full((2, 2, 3), 200, np.uint16)
    assert pixels.to_unit(dark).max().item() == pytest.approx(200 / 65535)
    bright = np.full((2, 2, 3), 3.5, np.float32)
    assert pixels.to_unit(bright).max().item() == 3.5
    assert pixels.from_unit(pixels.to_unit(bright), np.float32).max() == 3.5


def test_out_of_range_values_are_clipped_and_halves_do_not_wrap() -> None:
    unit = torch.tensor([-0.5, 0.0, 1.0, 1.5, 254.6 / 255]).view(1, 1, 5)
    assert pixels.from_unit(unit, np.uint8).ravel().tolist() == [0, 0, 255, 255, 255]
    assert pixels.from_unit(unit, np.uint16).ravel()[[0, 3]].tolist() == [0, 65535]


def test_other_dtypes_are_refused() -> None:
    with pytest.raises(TypeError, match="not int32"):
        pixels.to_unit(np.zeros((2, 2, 3), np.int32))


def test_conversion_copies_and_takes_any_memory_layout() -> None:
    picture = make_photo(6, 8)
    picture.setflags(write=False)
    flipped = picture[::-1, ::-1]
    unit = pixels.to_unit(flipped)
    unit.zero_()
    assert np.array_equal(pixels.from_unit(pixels.to_unit(flipped), np.uint8), flipped)
    assert picture.any()


# Padding --------------------------------------------------------------------------------------------------------------
@settings(max_examples=60, deadline=None)
@given(
    size=st.tuples(st.integers(1, 6), st.integers(1, 6)),
    amounts=st.tuples(*[st.integers(0, 15)] * 4),
)
def test_mirror_padding_equals_numpy_reflect(size: tuple[int, int], amounts: tuple[int, int, int, int]) -> None:
    top, bottom, left, right = amounts
    picture = np.arange(size[0] * size[1]).reshape(1, *size)
    padded = pixels.mirror_pad(torch.from_numpy(picture), top=top, bottom=bottom, left=left, right=right)
    assert np.array_equal(padded.numpy(), np.pad(picture, ((0, 0), (top, bottom), (left, right)), mode="reflect"))
