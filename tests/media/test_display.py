"""How HDR and wide colours are shown, against figures of the standards."""

from __future__ import annotations

import numpy as np
import pytest

from upframe.media.display import Colours, Picture, cube, peak, to_srgb

PQ_203, PQ_95, PQ_1000 = 0.5807, 0.5027, 0.7518
"""PQ values of 203, 95 and 1000 cd/m² (ITU-R BT.2408-7, table 1, and BT.2100-2, table 4)."""
BT2020_PQ, BT2020_HLG, DISPLAY_P3 = Colours(9, 16), Colours(9, 18), Colours(12, 13)


def gray(value: float, colours: Colours) -> float:
    made = to_srgb(np.full((1, 3), value, np.float32), colours)[0]
    assert np.ptp(made) < 1e-4  # gray stays gray
    return float(made[0])


def srgb(light: float) -> float:
    return 1.055 * light ** (1 / 2.4) - 0.055


def test_below_the_knee_hdr_is_shown_at_its_own_brightness() -> None:
    assert gray(0, BT2020_PQ) == pytest.approx(0, abs=1e-3)
    assert gray(PQ_95, BT2020_PQ) == pytest.approx(srgb(95 / 203), abs=0.004)  # the curve begins at 91 cd/m²


def test_highlights_end_at_white_and_never_lose_their_order() -> None:
    values = [gray(value, BT2020_PQ) for value in np.linspace(0.3, 1, 40)]
    assert values == sorted(values) and gray(PQ_1000, BT2020_PQ) == pytest.approx(1, abs=1e-3)
    assert 0.85 < gray(PQ_203, BT2020_PQ) < 0.95  # white of paper stays bright, and leaves room above
    assert gray(PQ_203, Colours(9, 16, 4000)) < gray(PQ_203, BT2020_PQ)  # brighter highlights need more of it


def test_hlg_is_the_same_light_as_pq() -> None:
    """75 % HLG is 203 cd/m² on a display of 1000 (BT.2408-7, table 1)."""
    assert gray(0.75, BT2020_HLG) == pytest.approx(gray(PQ_203, BT2020_PQ), abs=0.004)
    assert gray(1, BT2020_HLG) == pytest.approx(1, abs=1e-3)


def test_primaries_are_converted_and_white_stays_white() -> None:
    for primaries in (9, 11, 12):
        assert gray(1, Colours(primaries, 13)) == pytest.approx(1, abs=1e-3)
    # Within sRGB: the red of sRGB is (0.9175, 0.2003, 0.1387) in Display P3 (CSS Color 4).
    made = to_srgb(np.array([[0.9175, 0.2003, 0.1387]], np.float32), DISPLAY_P3)[0]
    assert made == pytest.approx([1, 0, 0], abs=0.02)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_alpha_and_type_stay_and_plain_pictures_pass(dtype: str) -> None:
    most = 1.0 if dtype == "float32" else np.iinfo(dtype).max
    pixels = (np.full((300, 2, 4), 0.5) * most).astype(dtype)
    made = Picture(pixels, colours=BT2020_PQ).shown(pixels)
    assert made.dtype == pixels.dtype and (made[..., 3] == pixels[..., 3]).all() and (made[..., 0] > pixels[..., 0]).all()
    for colours in (None, Colours(1, 1), Colours(2, 2), Colours(1, 13), Colours(6, 6)):
        assert Picture(pixels, colours=colours).shown(pixels) is pixels


def test_a_peak_is_believed_within_reason() -> None:
    assert [peak(stated) for stated in (0, 1, 600, 4000, 1e9)] == [1000, 203, 600, 4000, 10_000]


def test_the_table_holds_the_same_colours() -> None:
    header, *rows = cube(BT2020_PQ, side=5).splitlines()
    assert header == "LUT_3D_SIZE 5" and len(rows) == 125
    second = [float(word) for word in rows[1].split()]  # red varies fastest
    assert second == pytest.approx(to_srgb(np.array([[0.25, 0, 0]], np.float32), BT2020_PQ)[0].tolist(), abs=1e-5)
