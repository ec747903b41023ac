"""Y'CbCr to R'G'B' and back: against the formulas of the standards, and against itself."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from upframe.media.video.colour import WEIGHTS, Coding, Layout, from_rgb, to_rgb
from upframe.media.video.frames import frame_of, layout_of, planes_of, readable_format

BARS = [(191, 191, 191), (191, 191, 0), (0, 191, 191), (0, 191, 0), (191, 0, 191), (191, 0, 0), (0, 0, 191), (16, 16, 16)]

FORMATS = [
    "yuv420p", "yuv422p", "yuv440p", "yuv444p", "yuv420p10le", "yuv422p10le", "yuv444p10le", "yuv420p12le", "yuv422p12le",
    "yuv444p12le", "yuv444p16le", "gray", "gray10le", "gray16le", "gbrp", "gbrp10le", "gbrp12le", "gbrp16le",
]  # fmt: skip


def smooth(height: int, width: int) -> np.ndarray:
    y, x = np.mgrid[0:height, 0:width]
    waves = [0.5 + 0.35 * np.sin(x / (17 + 6 * k) + y / (13 + 5 * k) + k) for k in range(3)]
    return np.round(np.stack(waves, -1) * 65535).astype(np.uint16)


def bars(height: int, width: int) -> np.ndarray:
    """75 % bars, as wide as a test picture's."""
    columns = np.arange(width) * 8 // width
    row = np.array(BARS, np.uint16)[columns] * np.uint16(257)
    return np.broadcast_to(row, (height, width, 3)).copy()


@pytest.mark.parametrize("matrix", [1, 6, 9])
@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("bits", [8, 10, 12, 16])
def test_conversion_follows_the_standard_to_half_a_code_value(matrix: int, full: bool, bits: int) -> None:
    """The definition of BT.709, 3.2 to 3.5, and its kin, in float64, written out independently."""
    rgb = np.random.default_rng(matrix + bits).integers(0, 65536, (8, 8, 3)).astype(np.uint16)
    kr, kb = WEIGHTS[matrix]
    r, g, b = np.moveaxis(rgb / 65535, -1, 0)
    y = kr * r + (1 - kr - kb) * g + kb * b
    cb, cr = (b - y) / (2 - 2 * kb), (r - y) / (2 - 2 * kr)
    if full:
        wanted = [y * (2**bits - 1), cb * (2**bits - 1) + 2 ** (bits - 1), cr * (2**bits - 1) + 2 ** (bits - 1)]
    else:
        wanted = [(219 * y + 16) * 2 ** (bits - 8), *((224 * c + 128) * 2 ** (bits - 8) for c in (cb, cr))]
    found = from_rgb(rgb, Layout("yuv", bits), Coding(matrix, full))
    for plane, exact in zip(found, wanted, strict=True):
        # Half a code for rounding; float32 adds a little at 16 bits.
        assert np.abs(plane - np.clip(exact, 0, 2**bits - 1)).max() <= 0.5 + 2.0 ** (bits - 21)


@pytest.mark.parametrize("bits", [8, 10, 12])
def test_white_and_black_are_exact(bits: int) -> None:
    """swscale makes 0.996 of white here."""
    for value, y in ((65535, 235), (0, 16)):
        rgb = np.full((4, 4, 3), value, np.uint16)
        planes = from_rgb(rgb, Layout("yuv", bits, 2, 2), Coding(1))
        assert (planes[0] == y << (bits - 8)).all() and (planes[1] == 128 << (bits - 8)).all()
        assert (to_rgb(planes, Layout("yuv", bits, 2, 2), Coding(1)) == value).all()


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("size", [(48, 64), (37, 51)])
@pytest.mark.parametrize("coding", [Coding(1), Coding(6, True), Coding(9, False, "centre")])
def test_decoding_and_encoding_changes_no_code_value_of_smooth_content(
    form: str, size: tuple[int, int], coding: Coding
) -> None:
    layout = layout_of(form)
    assert layout is not None
    planes = from_rgb(smooth(*size), layout, coding)
    again = from_rgb(to_rgb(planes, layout, coding), layout, coding)
    for before, after in zip(planes, again, strict=True):
        # 16-bit R'G'B' holds less than 16-bit Y'CbCr: one code.
        assert np.abs(before.astype(int) - after).max() <= (1 if layout.bits == 16 and layout.kind != "rgb" else 0)


@pytest.mark.parametrize("form", ["yuv420p", "yuv422p", "yuv444p", "yuv420p10le", "yuv422p10le", "yuv444p12le"])
def test_colour_bars_survive_within_one_code(form: str) -> None:
    """All of 4:4:4; of subsampled bars all but the columns whose interpolated chroma meets the other bar's luma: such
    colours lie outside of R'G'B' and are clipped there, by any converter."""
    layout = layout_of(form)
    assert layout is not None
    planes = from_rgb(bars(32, 256), layout, Coding(1))
    again = from_rgb(to_rgb(planes, layout, Coding(1)), layout, Coding(1))
    for before, after in zip(planes, again, strict=True):
        width = before.shape[1]
        edge = width // 8
        inner = np.ones(width, bool)
        if layout.across == 2:
            for k in range(1, 8):
                inner[k * edge - 4 : k * edge + 4] = False
        assert np.abs(before.astype(int) - after)[:, inner].max() <= 1


def test_chroma_is_sited_on_even_columns_and_between_rows() -> None:
    """A ramp of chroma comes back as that ramp: any error of siting would shift it."""
    x, y = np.arange(8) * 2.0, np.arange(6) * 2 + 0.5
    cr = np.round(1000 + 8 * x[None, :] + 16 * y[:, None]).astype(np.uint16) * 16
    luma = np.full((12, 16), 32768, np.uint16)
    cb = np.full((6, 8), 32768, np.uint16)
    layout, coding = Layout("yuv", 16, 2, 2), Coding(1, True)
    rgb = to_rgb([luma, cb, cr], layout, coding).astype(float)
    kr = WEIGHTS[1][0]
    found = (rgb[..., 0] - 32768 * 65535 / 65535) / (2 - 2 * kr) + 32768
    columns, rows = np.arange(16), np.arange(12)
    wanted = (1000 + 8 * columns[None, :] + 16 * rows[:, None]) * 16.0
    # Half a code of the plane's own rounding (16) and of R'G'B'; edges repeat and are left out.
    assert np.abs(found - wanted)[2:-2, :-2].max() <= 9


def test_formats_in_other_arrangements_are_repacked_exactly() -> None:
    for packed, planar in (("nv12", "yuv420p"), ("uyvy422", "yuv422p"), ("p010le", "yuv420p10le"), ("rgb24", "gbrp")):
        layout = layout_of(planar)
        assert layout is not None and readable_format(packed) == planar
        planes = from_rgb(smooth(16, 32), layout, Coding(1))
        frame = frame_of(planes, planar, pts=0, time_base=Fraction(1, 25)).reformat(format=packed)
        for before, after in zip(planes, planes_of(frame)[0], strict=True):
            assert np.array_equal(before, after), packed
    assert readable_format("yuv420p10be") == "yuv420p10le"
    assert readable_format("bayer_bggr8") is None


def test_agrees_with_swscale_on_eight_bit_444() -> None:
    """An independent converter, where it is known to be right: 8-bit 4:4:4, to one code of 255."""
    layout, coding = Layout("yuv", 8), Coding(6)
    planes = from_rgb(smooth(32, 48), layout, coding)
    frame = frame_of(planes, "yuv444p", pts=0, time_base=Fraction(1, 25))
    other = frame.to_ndarray(format="rgb24", src_colorspace="ITU601", interpolation="ACCURATE_RND")
    ours = to_rgb(planes, layout, coding) / 257
    assert np.abs(ours - other).max() <= 1.01
