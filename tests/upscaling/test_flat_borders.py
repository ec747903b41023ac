"""Flat borders: the skipped pixels, and that the result is the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from conftest import make_photo, needs_shared
from upframe.engines import TorchOptions
from upframe.media.image.source import read_pixels
from upframe.models.registry import Model, load
from upframe.models.spec import ModelSpec
from upframe.upscaling import flat_borders, tiling
from upframe.upscaling.images import Upscaler
from upframe.upscaling.options import UpscaleOptions

SIGHT = 3  # of Blurred


class Blurred(nn.Module):
    """A 7×7 mean with zeros around, as networks have them, then ×2 with a pattern of its own; notes what it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[int, ...]] = []

    def forward(self, x: Tensor) -> Tensor:
        self.seen.append(tuple(x.shape[-2:]))
        mean = F.conv2d(x, torch.full((3, 1, 7, 7), 1 / 49), padding=3, groups=3)
        pattern = torch.tensor([[1.0, 0.5], [0.25, 0.75]])
        return F.interpolate(mean, scale_factor=2, mode="nearest") * pattern.repeat(x.shape[-2], x.shape[-1])


def blurred(**facts: Any) -> Model:
    spec = ModelSpec(
        name="toy", family="toy", build=Blurred, scale=2, halo_px=SIGHT, exact_halo_px=SIGHT, tiling="exact", paper="",
        licence="", activation_bytes_per_px=100, **facts,
    )  # fmt: skip
    return Model(spec, Blurred(), None, "toy", "")


def framed(content: NDArray[Any], top: int, bottom: int, left: int, right: int, colour: int = 16) -> NDArray[Any]:
    widths = ((top, bottom), (left, right), (0, 0))
    return np.pad(content, widths, constant_values=colour)


def enlarged(model: Model, pixels: NDArray[Any], **options: Any) -> NDArray[Any]:
    return Upscaler(model, UpscaleOptions(engine=TorchOptions(precision="fp32"), **options))(pixels)


# Exact ----------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("tile", ["auto", 32, (34, 40)])
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
@pytest.mark.parametrize(
    "margin",
    [(40, 40, 0, 0), (0, 50, 0, 0), (0, 0, 60, 40), (30, 41, 52, 0), (33, 0, 0, 70)],
    ids=lambda m: "-".join(map(str, m)),
)
def test_pixels_are_those_of_the_whole(margin: tuple[int, int, int, int], dtype: str, tile: Any) -> None:
    picture = framed(make_photo(44, 52, dtype=dtype), *margin)
    if dtype == "float32":
        picture = picture.clip(0, 1)
    whole = enlarged(blurred(), picture, tile="off")
    model = blurred()
    up = Upscaler(model, UpscaleOptions(tile=tile, engine=TorchOptions(precision="fp32")))
    got = up(picture)
    assert got.shape == whole.shape and up.flat.part > 0
    # A convolution of another size may add in another order: one rounding of float32, at most one code value of 16 bits.
    np.testing.assert_allclose(got.astype(np.float64), whole.astype(np.float64), rtol=0, atol=1e-6 if dtype == "float32" else 1)


def test_the_network_sees_a_few_rows_of_a_bar_only() -> None:
    model = blurred()
    enlarged(model, framed(make_photo(64, 64), 50, 60, 0, 0))
    stays = SIGHT + 1 + 2 * SIGHT  # of each bar
    assert model.network.seen == [(64 + 2 * stays, 64)]  # type: ignore[comparison-overlap] # a module's attribute


def test_each_border_has_a_colour_of_its_own_and_corners_may_belong_to_any() -> None:
    picture = framed(make_photo(40, 40), 40, 0, 0, 0, colour=200)
    picture = framed(picture, 0, 45, 0, 0, colour=0)
    whole = enlarged(blurred(), picture, tile="off")
    up = Upscaler(blurred())
    np.testing.assert_allclose(up(picture).astype(int), whole.astype(int), atol=1)
    assert up.flat.part == (40 - 10 + 45 - 10) * 40


@pytest.mark.parametrize("size", [(200, 10), (10, 200), (120, 130), (1, 1), (1, 90)])
def test_a_picture_of_one_colour_keeps_its_size(size: tuple[int, int]) -> None:
    picture = np.full((*size, 3), 77, np.uint8)
    np.testing.assert_array_equal(enlarged(blurred(), picture), enlarged(blurred(), picture, tile="off"))


def test_one_other_pixel_ends_a_margin() -> None:
    picture = framed(make_photo(40, 40), 60, 0, 0, 0)
    assert flat_borders.trim([picture], outer_px=4, inner_px=8).rows.before == 60 - 13
    picture[45, 17, 1] += 1
    assert flat_borders.trim([picture], outer_px=4, inner_px=8).rows.before == 45 - 13
    picture[0, 39, 2] += 1
    assert flat_borders.trim([picture], outer_px=4, inner_px=8) == flat_borders.whole((100, 40))


def test_stripes_are_no_margin() -> None:
    """The result of a network on them may change for farther than it does in one colour."""
    picture = make_photo(90, 60)
    picture[:50] = picture[0]
    assert flat_borders.trim([picture], outer_px=4, inner_px=8) == flat_borders.whole((90, 60))


def test_what_is_left_out_before_the_content_keeps_the_phase() -> None:
    picture = framed(make_photo(40, 40), 61, 62, 63, 64)
    trim = flat_borders.trim([picture], outer_px=3, inner_px=5, phase_px=6)
    assert (trim.rows.before, trim.rows.after) == (48, 53) and (trim.columns.before, trim.columns.after) == (54, 55)
    assert trim.size == (163 - 101, 167 - 109) and trim.whole_size == (163, 167)


def test_little_is_not_worth_it() -> None:
    picture = framed(make_photo(400, 40), 20, 0, 0, 0)
    assert flat_borders.trim([picture], outer_px=4, inner_px=8) == flat_borders.whole((420, 40))


# With the rest of the upscaler ----------------------------------------------------------------------------------------
def test_off_means_the_whole_picture() -> None:
    model = blurred()
    enlarged(model, framed(make_photo(40, 40), 60, 60, 0, 0), tile="off")
    assert model.network.seen == [(160, 40)]  # type: ignore[comparison-overlap]


def test_a_margin_is_flat_in_its_transparency_too() -> None:
    rgba = np.dstack([framed(make_photo(40, 40), 60, 0, 0, 0), np.full((100, 40), 255, np.uint8)])
    up = Upscaler(blurred())
    up(rgba)
    assert up.flat.part == (60 - 10) * 40
    rgba[30:40, :, 3] = 128
    np.testing.assert_allclose(up(rgba).astype(int), enlarged(blurred(), rgba, tile="off").astype(int), atol=1)
    assert up.flat.part == (60 - 10) * 40 + (30 - 10) * 40


def test_other_sizes_are_made_of_the_restored_picture() -> None:
    picture = framed(make_photo(40, 40), 60, 33, 0, 0)
    options = [UpscaleOptions(tile=tile) for tile in ("auto", "off")]  # type: ignore[arg-type] # mypy widens the literals
    one, two = (Upscaler(blurred(), o)(picture, size=(300, 111)) for o in options)
    np.testing.assert_allclose(one.astype(int), two.astype(int), atol=1)


def frames_reused(frames: list[NDArray[Any]], **options: Any) -> Upscaler:
    """Each frame checked against the whole."""
    up = Upscaler(blurred(phase_px=6), UpscaleOptions(engine=TorchOptions(precision="fp32"), **options), reuse=True)
    for frame in frames:
        np.testing.assert_allclose(up(frame).astype(int), enlarged(blurred(), frame, tile="off").astype(int), atol=1)
    return up


def test_nothing_is_copied_from_where_borders_were_wider() -> None:
    content = make_photo(40, 40)
    wide, narrow = framed(content, 60, 60, 0, 0), framed(content, 40, 80, 0, 0)
    assert frames_reused([wide, narrow, wide, wide]).reused.part == 1  # the last frame, given as the one before


def test_a_light_that_blinks_in_a_margin_narrows_it_once() -> None:
    still = framed(make_photo(40, 40), 60, 60, 60, 60)
    lit = still.copy()
    lit[30:34, 76:80] = 255
    up = frames_reused([still, lit, still, lit, still, lit], tile=32)
    assert up.flat.part > 6 * 160 * 90  # of 160 rows; those above the light come back with the second frame
    assert up.reused.part > up.reused.total / 4


def test_a_cursor_that_moves_ever_farther_into_a_margin_ends_it() -> None:
    """Or it would move all tiles with every frame; as it is, those that it does not touch are taken over."""
    still = framed(make_photo(40, 40), 60, 60, 60, 60)
    frames = [still]
    for i in range(8):
        frames.append(still.copy())
        frames[-1][30 + i : 34 + i, 100 + 4 * i : 103 + 4 * i] = 0
    up = frames_reused(frames, tile=32)
    assert up.reused.part > 5 * 25 / 2  # of 5 x 5 tiles, from the fifth frame on


def test_every_segment_begins_with_borders_of_its_own() -> None:
    up = frames_reused([framed(make_photo(40, 40), 30, 30, 0, 0)])
    first = (18 + 20) * 40  # of 30 rows each 10 stay; what goes before the content goes by sixes
    assert up.flat.part == first
    frame = framed(make_photo(20, 40), 40, 40, 0, 0)
    up(frame)
    assert up.flat.part == 2 * first
    up.forget()
    up(frame)
    assert up.flat.part == 2 * first + (30 + 30) * 40


def test_bands_of_what_is_widened_stay_small() -> None:
    picture = framed(make_photo(300, 40), 0, 0, 400, 400)
    bands = list(Upscaler(blurred()).bands(picture))
    assert max(len(band) for band in bands) <= 2 * flat_borders.AT_ONCE_ROWS
    np.testing.assert_allclose(np.concatenate(bands).astype(int), enlarged(blurred(), picture, tile="off").astype(int), atol=1)


def test_stated_tiles_that_only_the_whole_picture_carries_get_the_whole() -> None:
    picture = framed(make_photo(30, 48), 70, 70, 0, 0)
    np.testing.assert_allclose(enlarged(blurred(), picture, tile=33), enlarged(blurred(), picture, tile="off"), atol=1)


def test_networks_are_told_the_place_of_the_content() -> None:
    picture = framed(make_photo(40, 52), 61, 50, 63, 40)
    trim = flat_borders.trim([picture], outer_px=4, inner_px=8, phase_px=6)
    ((tile,),) = tiling.grid(trim.size, core_px=trim.size, blend_px=8, halo_px=16, phase_px=6)
    place = trim.place(tile)
    assert place is not None and place.size == (151, 155)
    np.testing.assert_array_equal(
        picture[place.origin[0] :, place.origin[1] :][: trim.size[0], : trim.size[1]], trim.cut(picture)
    )
    whole = flat_borders.whole((151, 155))
    ((tile,),) = tiling.grid(whole.size, core_px=whole.size, blend_px=8, halo_px=16)
    assert whole.place(tile) is None


@needs_shared
@pytest.mark.parametrize("colour", [0, 128, 255])
@pytest.mark.parametrize("file", ["VapSR/VapSR-S.pth", "RLFN/rlfn_ntire_x4.pth", "RLFN/rlfn_x4.pth"])
def test_official_weights_stay_within_one_code_value(file: str, colour: int, shared: Path) -> None:
    """The bound of docs/tiling.md, at the default halo. RLFN's attention reads cells that a border moves by a fraction."""
    model = load(shared / "weights" / file)
    bird = read_pixels(shared / "testsets" / "Set5" / "HR" / "bird.png")[40:136, 40:168]
    picture = framed(bird, 180, 170, 0, 150, colour).astype(np.float32) / 255
    up = Upscaler(model, UpscaleOptions(engine=TorchOptions(precision="fp32")))
    got = up(picture)
    assert up.flat.part > 0.5 * up.flat.total
    whole = enlarged(model, picture, tile="off")
    assert np.abs(got - whole).max() * 255 < 1
    assert np.sqrt(np.square(got - whole).mean()) * 255 < 0.01  # 88 dB; tiles of 96 px have 93 (docs/tiling.md)
