"""Every kind of picture comes back as it came, only larger. The network repeats each pixel, so results are known exactly."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image, ImageCms

import upframe
from conftest import make_photo
from image_files import photo_xmp


@pytest.fixture(scope="module")
def up(weights: Path) -> upframe.Upscaler:
    options = upframe.UpscaleOptions(engine=upframe.TorchOptions(device="cpu", precision="fp32"))
    return upframe.Upscaler(upframe.load(weights), options=options)


def picture(*shape: int, dtype: str = "uint8") -> NDArray[Any]:
    values = np.random.default_rng(sum(shape)).random(shape)
    if dtype.startswith("uint"):
        return np.rint(values * np.iinfo(dtype).max).astype(dtype)
    return values.astype(dtype)


def doubled(x: NDArray[Any], row_axis: int) -> NDArray[Any]:
    return x.repeat(2, row_axis).repeat(2, row_axis + 1)


def tolerance(dtype: str) -> float:
    """Of values in [0, 1]: one float32 rounding, or one of the type itself if that is coarser. Integers are exact."""
    return {"float16": 1e-3, "bfloat16": 8e-3}.get(dtype, 1e-6)


# Arrays ---------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float16", "float32", "float64"])
@pytest.mark.parametrize("shape", [(6, 7), (6, 7, 1), (6, 7, 3), (1, 1, 3), (2, 6, 7, 1), (3, 6, 7, 3)])
def test_an_array_comes_back_with_its_dtype_and_axes(dtype: str, shape: tuple[int, ...], up: upframe.Upscaler) -> None:
    x = picture(*shape, dtype=dtype)
    made = up(x)
    expected = doubled(x, 1 if x.ndim == 4 else 0)
    assert type(made) is np.ndarray and made.dtype == x.dtype and made.shape == expected.shape
    if dtype.startswith("uint"):
        # Gray is taken from three equal channels by weights whose sum is 1 only up to rounding: one code of 65,535 at most.
        np.testing.assert_allclose(made.astype(int), expected.astype(int), atol=int(dtype == "uint16"))
    else:
        np.testing.assert_allclose(made, expected, atol=tolerance(dtype))


@pytest.mark.parametrize("shape", [(6, 7, 2), (6, 7, 4), (2, 6, 7, 4)])
def test_alpha_is_kept(shape: tuple[int, ...], up: upframe.Upscaler) -> None:
    x = picture(*shape)
    x[..., -1] = 255
    made = up(x)
    assert made.shape[-1] == shape[-1]
    np.testing.assert_array_equal(made, doubled(x, len(shape) - 3))


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda x: x[::-1, ::-1], id="negative strides"),
        pytest.param(lambda x: x[::2, 1::2], id="steps"),
        pytest.param(np.asfortranarray, id="Fortran order"),
        pytest.param(lambda x: np.broadcast_to(x[:1], (6, *x.shape[1:])), id="broadcast, read-only"),
        pytest.param(lambda x: x.astype(">u2"), id="big-endian"),
        pytest.param(lambda x: (x.astype(np.float32) / 65535).astype(">f4"), id="big-endian floats"),
    ],
)
def test_the_layout_in_memory_does_not_matter(change: Any, up: upframe.Upscaler) -> None:
    x = change(picture(6, 8, 3, dtype="uint16"))
    before = x.copy()
    made = up(x)
    assert made.dtype == x.dtype
    np.testing.assert_allclose(made.astype(np.float64), doubled(x, 0).astype(np.float64), atol=1e-6)
    np.testing.assert_array_equal(x, before)


def test_rounding_beyond_the_range_is_accepted_and_clipped(up: upframe.Upscaler) -> None:
    made = up(np.full((6, 7, 3), 1.0005, np.float32))
    assert made.max() <= 1.0005


def test_sizes_are_those_asked_for(up: upframe.Upscaler) -> None:
    x = picture(20, 30, 3)
    asked: list[tuple[dict[str, Any], tuple[int, int]]] = [
        ({"scale": 1.5}, (30, 45)),
        ({"size": (11, 13)}, (11, 13)),
        ({"width": 90}, (60, 90)),
        ({"height": 10}, (10, 15)),
        ({"width": 90, "height": 10}, (10, 90)),
        ({"long_side": 60}, (40, 60)),
        ({"short_side": 60}, (60, 90)),
        ({"megapixels": 0.0054}, (60, 90)),
    ]
    for arguments, size in asked:
        assert up(x, **arguments).shape == (*size, 3), arguments


def test_bands_are_the_rows_of_the_whole(up: upframe.Upscaler) -> None:
    for x in (picture(90, 20, 3), picture(90, 20)):
        np.testing.assert_array_equal(np.concatenate(list(up.bands(x))), up(x))


# Tensors --------------------------------------------------------------------------------------------------------------
TENSOR_DTYPES = ["uint8", "uint16", "float16", "bfloat16", "float32", "float64"]


@pytest.mark.parametrize("dtype", TENSOR_DTYPES)
@pytest.mark.parametrize("shape", [(3, 6, 7), (1, 6, 7), (2, 3, 6, 7), (2, 2, 3, 6, 7)])
def test_a_tensor_comes_back_with_its_dtype_and_axes(dtype: str, shape: tuple[int, ...], up: upframe.Upscaler) -> None:
    kind = getattr(torch, dtype)
    whole = dtype.startswith("uint")
    x = torch.from_numpy(picture(*shape, dtype=dtype)) if whole else torch.from_numpy(picture(*shape, dtype="float64")).to(kind)
    made = up(x)
    values = torch.from_numpy(doubled(x.double().numpy() if not whole else x.numpy().astype(np.float64), x.ndim - 2))
    assert isinstance(made, torch.Tensor) and made.dtype == kind and made.device == x.device
    assert made.is_contiguous() and not made.requires_grad
    torch.testing.assert_close(made.double(), values, rtol=0, atol=int(dtype == "uint16") if whole else tolerance(dtype))


def test_channels_last_tensors_stay_so_and_gradients_are_cut(up: upframe.Upscaler) -> None:
    x = torch.rand(2, 3, 6, 7).contiguous(memory_format=torch.channels_last).requires_grad_()
    made = up(x)
    assert made.is_contiguous(memory_format=torch.channels_last) and not made.requires_grad
    torch.testing.assert_close(made, x.detach().repeat_interleave(2, 2).repeat_interleave(2, 3), rtol=0, atol=1e-6)


# Pillow ---------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("mode", ["L", "RGB", "LA", "RGBA", "I;16", "F"])
def test_an_image_keeps_its_mode(mode: str, up: upframe.Upscaler) -> None:
    bands = {"L": (), "RGB": (3,), "LA": (2,), "RGBA": (4,), "I;16": (), "F": ()}[mode]
    pixels = picture(6, 7, *bands, dtype={"I;16": "uint16", "F": "float32"}.get(mode, "uint8"))
    if mode.endswith("A"):
        pixels[..., -1] = 255
    made = up(Image.fromarray(pixels))
    assert isinstance(made, Image.Image) and made.mode == mode and made.size == (14, 12)
    np.testing.assert_allclose(np.asarray(made), doubled(pixels, 0), atol={"I;16": 1, "F": 1e-6}.get(mode, 0))


@pytest.mark.parametrize("order", ["I;16B", "I;16L"])
def test_16_bit_images_of_any_byte_order_are_read(order: str, up: upframe.Upscaler) -> None:
    pixels = picture(6, 7, dtype="uint16")
    image = Image.frombytes(order, (7, 6), pixels.astype(">u2" if order.endswith("B") else "<u2").tobytes())
    made = up(image)
    assert made.mode == "I;16"
    np.testing.assert_allclose(np.asarray(made).astype(int), doubled(pixels, 0).astype(int), atol=1)


@pytest.mark.parametrize(("mode", "becomes"), [("1", "L"), ("P", "RGB"), ("PA", "RGBA")])
def test_palettes_and_bits_become_colours_and_gray(mode: str, becomes: str, up: upframe.Upscaler) -> None:
    image = Image.fromarray(picture(6, 7, 3)).convert("P" if mode == "PA" else mode)
    assert up(image.convert(mode)).mode == becomes


def test_a_transparent_colour_becomes_alpha(up: upframe.Upscaler) -> None:
    image = Image.new("RGB", (7, 6), (255, 0, 0))
    image.putpixel((0, 0), (0, 255, 0))
    image.info["transparency"] = (255, 0, 0)
    made = up(image)
    assert made.mode == "RGBA" and "transparency" not in made.info
    assert made.getpixel((0, 0))[3] == 255 and made.getpixel((13, 11))[3] == 0


def test_an_image_keeps_profile_resolution_and_exif_without_thumbnail(up: upframe.Upscaler, tmp_path: Path) -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    exif = Image.Exif()
    exif[0x010F], exif[0x0112], exif[0x0100] = "Camera", 6, 7
    path = tmp_path / "photo.jpg"
    Image.fromarray(make_photo(6, 7)).save(path, icc_profile=profile, dpi=(300, 300), exif=exif)
    with Image.open(path) as image:
        made = up(image)
    made.save(tmp_path / "large.png", **{key: made.info[key] for key in ("icc_profile", "exif", "dpi")})
    with Image.open(tmp_path / "large.png") as large:
        assert large.info["icc_profile"] == profile and round(large.info["dpi"][0]) == 300
        found = large.getexif()
        assert (found[0x010F], found[0x0112], found[0x0100]) == ("Camera", 6, 14)


def test_a_damaged_file_behind_an_image_is_an_input_error(up: upframe.Upscaler, tmp_path: Path) -> None:
    path = tmp_path / "cut.png"
    Image.fromarray(make_photo(60, 70)).save(path)
    path.write_bytes(path.read_bytes()[:2000])
    with Image.open(path) as image, pytest.raises(upframe.errors.InputError, match=r"cut\.png"):
        up(image)


# Paths ----------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("form", [str, Path])
def test_a_path_gives_the_path_of_the_result(form: Any, up: upframe.Upscaler, tmp_path: Path) -> None:
    photo = make_photo(6, 7)
    Image.fromarray(photo).save(tmp_path / "photo.png")
    made = up(form(tmp_path / "photo.png"))
    assert made == tmp_path / "photo_nearest_x2.png"
    np.testing.assert_array_equal(np.asarray(Image.open(made)), doubled(photo, 0))
    named = up(form(tmp_path / "photo.png"), output=form(tmp_path / "large.png"), scale=1)
    assert named == tmp_path / "large.png" and Image.open(named).size == (7, 6)


def test_an_existing_output_is_returned_and_replaced_when_asked(up: upframe.Upscaler, tmp_path: Path) -> None:
    Image.fromarray(make_photo(6, 7)).save(tmp_path / "photo.png")
    first = up(tmp_path / "photo.png")
    stamp = first.stat().st_mtime_ns
    assert up(tmp_path / "photo.png") == first and first.stat().st_mtime_ns == stamp
    with pytest.raises(upframe.errors.UsageError, match="is a different file"):
        up(tmp_path / "photo.png", output=first, scale=3)
    assert up(tmp_path / "photo.png", output=first, scale=3, overwrite=True) == first
    assert Image.open(first).size == (21, 18)


@pytest.mark.slow
def test_upscale_chooses_the_model_by_the_size_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    x = make_photo(9, 8)
    for arguments, name in (({"scale": 2}, "photo-x2"), ({"width": 20}, "photo-x3"), ({}, "photo-x4")):
        np.testing.assert_array_equal(upframe.upscale(x, **arguments), upframe.upscale(x, model=name, **arguments))


def test_xmp_of_an_image_says_nothing_of_what_stayed_in_its_file(up: upframe.Upscaler) -> None:
    image = Image.fromarray(picture(6, 7, 3))
    image.info["xmp"] = photo_xmp('GCamera:MotionPhoto="1" GPano:FullPanoWidthPixels="7" dc:title="kept"')
    xmp = up(image).info["xmp"].decode()
    assert "MotionPhoto" not in xmp and 'GPano:FullPanoWidthPixels="14"' in xmp and 'dc:title="kept"' in xmp
