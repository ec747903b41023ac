"""The compiled parts make what their counterparts in numpy and torch make, byte for byte."""

from __future__ import annotations

import io
import zlib
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from conftest import make_photo
from upframe import kernels, pixels
from upframe.media.image import png_data, png_writer
from upframe.media.image.metadata import Metadata
from upframe.media.video import colour

needs_kernels = pytest.mark.skipif(kernels.library() is None, reason="upframe's kernels are not built here")


def rows_of(kind: str, count: int, pixels_wide: int, pixel_bytes: int) -> NDArray[np.uint8]:
    rng = np.random.default_rng(count)
    if kind == "noise":
        return rng.integers(0, 256, (count, pixels_wide * pixel_bytes), np.uint8)
    if kind == "flat":  # every filter costs the same: the first of equals is to be taken
        return np.full((count, pixels_wide * pixel_bytes), 77, np.uint8)
    ramp = np.add.outer(np.arange(count) * 3, np.arange(pixels_wide) * 2)[..., None] + np.arange(pixel_bytes) * 40
    return (ramp + rng.integers(-2, 3, ramp.shape)).astype(np.uint8).reshape(count, -1)


@needs_kernels
@pytest.mark.parametrize("kind", ["noise", "flat", "smooth"])
@pytest.mark.parametrize("pixel_bytes", [1, 2, 3, 4, 6, 8])
@pytest.mark.parametrize("pixels_wide", [1, 5, 1500])
def test_rows_are_filtered_as_numpy_filters_them(kind: str, pixel_bytes: int, pixels_wide: int) -> None:
    rows = rows_of(kind, 9, pixels_wide, pixel_bytes)
    above = rows_of("noise", 1, pixels_wide, pixel_bytes)[0]
    made = png_writer.filter_rows(rows, above, pixel_bytes)
    np.testing.assert_array_equal(made, png_writer._filtered_in_numpy(rows, above, pixel_bytes))
    np.testing.assert_array_equal(png_data.unfilter(made, pixel_bytes, above), rows)


def test_without_kernels_many_rows_are_filtered_in_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    rows, above = rows_of("smooth", 200, 1500, 3), rows_of("noise", 1, 1500, 3)[0]  # seven slices
    monkeypatch.setattr(png_writer, "library", lambda: None)
    np.testing.assert_array_equal(png_writer.filter_rows(rows, above, 3), png_writer._filtered_in_numpy(rows, above, 3))


@needs_kernels
@pytest.mark.parametrize("pixel_bytes", [1, 2, 3, 4, 6, 8])
def test_all_filters_are_undone_as_numpy_undoes_them(pixel_bytes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(pixel_bytes)
    coded = rng.integers(0, 256, (40, 1 + 31 * pixel_bytes), np.uint8)
    coded[:, 0] = rng.integers(0, 5, 40)
    above = rng.integers(0, 256, 31 * pixel_bytes, np.uint8)
    made = png_data.unfilter(coded, pixel_bytes, above)
    monkeypatch.setattr(png_data, "library", lambda: None)
    np.testing.assert_array_equal(made, png_data.unfilter(coded, pixel_bytes, above))


@needs_kernels
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("layout", ["planar", "last", "part"])
def test_values_become_codes_as_torch_makes_them(channels: int, layout: str, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    values = torch.rand(channels, 13, 67) * 1.2 - 0.1  # some are to be clipped
    values[0, 0] = (torch.arange(67) + 0.5) / 255  # halves, to even
    values[0, 1, :4] = torch.tensor([1e30, -1e30, 0.0, 1.0])
    if layout == "last":
        values = values.permute(1, 2, 0).contiguous().permute(2, 0, 1)
    elif layout == "part":
        values = torch.cat([values, values], 2)[:, 2:-1, 5:60]
    made = pixels.from_unit(values, np.uint8)
    monkeypatch.setattr(pixels, "library", lambda: None)
    expected = pixels.from_unit(values, np.uint8)
    np.testing.assert_array_equal(made, expected)


@pytest.mark.parametrize("lengths", [(0, 1), (1, 0), (5, 70000), (70000, 65521), (1 << 20, 3)])
def test_checksums_of_parts_make_that_of_the_whole(lengths: tuple[int, int]) -> None:
    first, second = (np.random.default_rng(n).integers(0, 256, n, np.uint8).tobytes() for n in lengths)
    combined = png_writer._adler32_combined(zlib.adler32(first), zlib.adler32(second), len(second))
    assert combined == zlib.adler32(first + second)


def written(photo: NDArray[np.generic], cuts: list[int]) -> bytes:
    out = io.BytesIO()
    writer = png_writer.PngWriter(out, Metadata())
    writer.frame(np.split(photo, cuts), photo.shape[:2], channels=photo.shape[2], dtype=photo.dtype, duration=Fraction(0))
    writer.finish()
    return out.getvalue()


@pytest.mark.slow
@pytest.mark.parametrize("codec", ["isal", "zlib"])
def test_a_picture_of_many_parts_comes_back(codec: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if codec == "zlib":
        monkeypatch.setattr(png_writer, "isal_zlib", None)
    elif png_writer.isal_zlib is None:
        pytest.skip("isal is not installed")
    photo = make_photo(1100, 1000)  # 3.3 MB: seven parts, made by several threads
    data = written(photo, [1, 64, 65, 600, 1099])
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(data))), photo)
    assert data == written(photo, [300])  # however it is handed over, and whatever thread is first


def test_sixteen_bits_in_parts(tmp_path: Path) -> None:
    photo = make_photo(500, 400, dtype="uint16")
    (tmp_path / "a.png").write_bytes(written(photo, [77]))
    from upframe.media.image.source import read_pixels

    np.testing.assert_array_equal(read_pixels(tmp_path / "a.png"), photo)


@needs_kernels
@pytest.mark.parametrize("bits", [8, 10, 16])
@pytest.mark.parametrize(("down", "across"), [(2, 2), (1, 2), (2, 1), (1, 1)])
@pytest.mark.parametrize("siting", ["left", "centre"])
def test_frames_are_coded_as_numpy_codes_them(bits: int, down: int, across: int, siting: colour.Siting) -> None:
    layout = colour.Layout("yuv", bits, down, across)
    for matrix in colour.WEIGHTS:
        for is_full_range in (False, True):
            coding = colour.Coding(matrix, is_full_range, siting)
            for height, width in ((1, 1), (1, 2), (2, 3), (37, 51), (64, 66)):
                rgb = np.random.default_rng(height).integers(0, 65536, (height, width, 3), np.uint16)
                rgb[0, 0], rgb[-1, -1] = 0, 65535
                made, expected = colour.from_rgb(rgb, layout, coding), colour._from_rgb_in_numpy(rgb, layout, coding)
                for plane, other in zip(made, expected, strict=True):
                    assert plane.dtype == other.dtype
                    np.testing.assert_array_equal(plane, other)
