"""Pixels and facts are read as the file holds them: depth, channels, alpha, colour, orientation (faults A3, A7 to A15)."""

from __future__ import annotations

import io
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import av
import numpy as np
import pytest
import tifffile
from PIL import Image, ImageCms

from conftest import make_photo
from image_files import chunk, exif, filtered, interlaced_png, noise, png, put, saved
from upframe.errors import InputError
from upframe.media.image.lzw import lzw_decode
from upframe.media.image.source import ImageSource, probe, read_pixels


def notice_ids(path: Path) -> set[str]:
    return {notice.id for notice in probe(path).notices}


# PNG ------------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
@pytest.mark.parametrize("size", [(1, 1), (7, 1), (1, 9), (13, 11), (1100, 3)])
def test_png_of_every_depth_and_filter_is_read_exactly(
    tmp_path: Path, channels: int, dtype: str, size: tuple[int, int]
) -> None:
    pixels = noise(*size, channels, dtype)
    path = put(tmp_path / "x.png", png(pixels))
    info = probe(path)
    assert (info.size, info.channels, info.dtype, info.format) == (size, channels, np.dtype(dtype), "png")
    np.testing.assert_array_equal(read_pixels(path), pixels)


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
@pytest.mark.parametrize("size", [(1, 1), (3, 5), (8, 8), (17, 21)])
def test_interlaced_png_is_read_exactly(tmp_path: Path, dtype: str, size: tuple[int, int]) -> None:
    pixels = noise(*size, 3, dtype)
    np.testing.assert_array_equal(read_pixels(put(tmp_path / "x.png", interlaced_png(pixels))), pixels)


@pytest.mark.parametrize(("channels", "layout"), [(1, "gray16be"), (3, "rgb48be"), (4, "rgba64be")])
def test_sixteen_bit_png_equals_what_ffmpeg_reads(tmp_path: Path, channels: int, layout: str) -> None:
    pixels = noise(40, 30, channels, "uint16")
    path = put(tmp_path / "x.png", png(pixels))
    with av.open(str(path)) as container:
        theirs = next(container.decode(video=0))
        assert theirs.format.name == layout
        array = theirs.to_ndarray().reshape(40, 30, channels)
    np.testing.assert_array_equal(read_pixels(path), array)


def test_dark_sixteen_bit_png_stays_sixteen_bit(tmp_path: Path) -> None:
    pixels = noise(9, 9, 3, "uint16") % 200
    out = read_pixels(put(tmp_path / "x.png", png(pixels.astype(np.uint16))))
    assert out.dtype == np.uint16 and out.max() < 200


@pytest.mark.parametrize("depth", [1, 2, 4])
def test_shallow_gray_png_is_stretched_to_eight_bits(tmp_path: Path, depth: int) -> None:
    samples = np.random.default_rng(depth).integers(0, 2**depth, (5, 13, 1))
    path = put(tmp_path / "x.png", png(samples, depth=depth, colour=0))
    np.testing.assert_array_equal(read_pixels(path), samples * 255 // (2**depth - 1))
    assert ("one-bit-to-gray" in notice_ids(path)) == (depth == 1)


@pytest.mark.parametrize("depth", [1, 2, 4, 8])
@pytest.mark.parametrize("alpha", [False, True])
def test_palette_png_becomes_full_colour(tmp_path: Path, depth: int, alpha: bool) -> None:
    rng = np.random.default_rng(depth)
    palette = rng.integers(0, 256, (2**depth, 3), np.uint8)
    alphas = rng.integers(0, 256, 2**depth - 1, np.uint8)  # the last entry has none stated: opaque
    samples = rng.integers(0, 2**depth, (6, 11, 1))
    before = chunk(b"PLTE", palette.tobytes()) + (chunk(b"tRNS", alphas.tobytes()) if alpha else b"")
    out = read_pixels(put(tmp_path / "x.png", png(samples, depth=depth, colour=3, before=before)))
    np.testing.assert_array_equal(out[..., :3], palette[samples[..., 0]])
    assert out.shape[2] == 3 + alpha
    if alpha:
        np.testing.assert_array_equal(out[..., 3], np.append(alphas, 255)[samples[..., 0]])


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
@pytest.mark.parametrize("channels", [1, 3])
def test_png_with_a_transparent_colour_gets_alpha(tmp_path: Path, dtype: str, channels: int) -> None:
    pixels = noise(4, 5, channels, dtype)
    key = pixels[2, 3]
    # In 16 bits a near miss must not count: compare at full depth.
    pixels[0, 0] = key
    pixels[0, 0, 0] ^= 1
    path = put(tmp_path / "x.png", png(pixels, before=chunk(b"tRNS", b"".join(struct.pack(">H", int(v)) for v in key))))
    out = read_pixels(path)
    full = np.iinfo(dtype).max
    np.testing.assert_array_equal(out[..., :-1], pixels)
    np.testing.assert_array_equal(out[..., -1], np.where((pixels == key).all(2), 0, full))
    assert out[0, 0, -1] == full and out[2, 3, -1] == 0


# JPEG and the rest through Pillow -------------------------------------------------------------------------------------
@pytest.mark.parametrize(("mode", "format"), [("L", "JPEG"), ("RGB", "JPEG"), ("L", "BMP"), ("RGB", "BMP")])
def test_eight_bit_formats_keep_their_channels(tmp_path: Path, mode: str, format: str) -> None:
    image = Image.fromarray(make_photo(21, 33)).convert(mode)
    data = saved(image, format)
    out = read_pixels(put(tmp_path / f"x.{format.lower()}", data))
    expected = np.asarray(Image.open(io.BytesIO(data)))
    np.testing.assert_array_equal(out.squeeze(), expected)
    assert out.shape == (21, 33, len(image.getbands()))


def test_lossless_webp_with_alpha_is_exact_even_under_full_transparency(tmp_path: Path) -> None:
    pixels = noise(12, 14, 4)
    pixels[:4, :, 3] = 0
    data = saved(Image.fromarray(pixels), "WEBP", lossless=True, exact=True)
    np.testing.assert_array_equal(read_pixels(put(tmp_path / "x.webp", data)), pixels)


def test_one_bit_bmp_becomes_gray_and_says_so(tmp_path: Path) -> None:
    bits = noise(5, 9, 1)[..., 0] > 127
    path = put(tmp_path / "x.bmp", saved(Image.fromarray(bits), "BMP"))
    assert notice_ids(path) == {"one-bit-to-gray"}
    np.testing.assert_array_equal(read_pixels(path)[..., 0], bits * np.uint8(255))


def test_content_decides_and_a_wrong_name_is_noticed(tmp_path: Path) -> None:
    path = put(tmp_path / "x.png", saved(Image.new("RGB", (8, 8), "red"), "JPEG"))
    info = probe(path)
    assert info.format == "jpeg"
    assert [notice.id for notice in info.notices] == ["ext-mismatch"]
    assert notice_ids(put(tmp_path / "x.jfif", path.read_bytes())) == set()


# CMYK and Lab (A12) ---------------------------------------------------------------------------------------------------
def cmyk_profile() -> bytes:
    """A minimal CMYK output profile made by hand: `A2B0` maps ink to Lab with 2 grid points per axis."""
    corners = np.zeros((16, 3))
    for i in range(16):
        c, m, y, k = (i >> 3) & 1, (i >> 2) & 1, (i >> 1) & 1, i & 1
        # Deliberately unlike (1 - CMY)(1 - K): pure cyan is rather dark, so that using the profile shows.
        lightness = max(0.0, 100 - 60 * c - 45 * m - 10 * y - 90 * k)
        corners[i] = lightness, (-30 * c + 60 * m) * (1 - k), (-40 * c + 80 * y) * (1 - k)
    lab = np.stack([corners[:, 0] * 652.8, (corners[:, 1] + 128) * 256, (corners[:, 2] + 128) * 256], -1)
    table = np.clip(np.round(lab), 0, 65535).astype(">u2").tobytes()
    identity = struct.pack(">9i", 65536, 0, 0, 0, 65536, 0, 0, 0, 65536)
    lut = b"mft2" + bytes(4) + bytes([4, 3, 2, 0]) + identity + struct.pack(">HH", 2, 2)
    lut += struct.pack(">HH", 0, 65535) * 4 + table + struct.pack(">HH", 0, 65535) * 3
    white = b"XYZ " + bytes(4) + struct.pack(">3i", 63190, 65536, 54061)
    text = b"text" + bytes(4) + b"test\0\0\0\0"
    desc = b"desc" + bytes(4) + struct.pack(">I", 5) + b"test\0" + bytes(78)
    desc += bytes(-len(desc) % 4)
    tags = {b"A2B0": lut + bytes(-len(lut) % 4), b"wtpt": white, b"cprt": text, b"desc": desc}
    at = 128 + 4 + 12 * len(tags)
    directory, body = struct.pack(">I", len(tags)), b""
    for name, content in tags.items():
        directory += name + struct.pack(">II", at + len(body), len(content))
        body += content
    head = struct.pack(">I4sI4s4s4s", at + len(body), b"none", 0x02400000, b"prtr", b"CMYK", b"Lab ")
    head += struct.pack(">6H", 2020, 1, 1, 0, 0, 0) + b"acsp" + bytes(28) + struct.pack(">3i", 63190, 65536, 54061)
    return head + bytes(128 - len(head)) + directory + body


@pytest.mark.parametrize("with_profile", [False, True])
def test_cmyk_jpeg_is_converted_and_never_inverted(tmp_path: Path, with_profile: bool) -> None:
    inks = np.zeros((16, 64, 4), np.uint8)  # Pillow stores them inverted with Adobe's marker, as Photoshop does
    inks[:, 16:32, 0] = 255  # cyan
    inks[:, 32:48, 3] = 255  # black
    inks[:, 48:, 1:3] = 255  # red
    options = {"icc_profile": cmyk_profile()} if with_profile else {}
    data = saved(Image.frombytes("CMYK", (64, 16), inks.tobytes()), "JPEG", quality=100, subsampling=0, **options)
    assert b"Adobe" in data
    path = put(tmp_path / "x.jpg", data)
    with ImageSource(path) as source:
        (frame,) = source
        assert source.metadata.icc is None, "an ink profile must not be attached to RGB pixels"
        assert [n.id for n in source.notices] == ["converted-from-cmyk"]
    paper, cyan, black, red = (frame.pixels[8, x].astype(int) for x in (8, 24, 40, 56))
    assert paper.min() > 245 and black.max() < 40
    assert cyan[0] < cyan[2] and red[0] > red[2] + 60
    if with_profile:
        # Lab of pure cyan in the profile is (40, -30, -40): dark, where the formula gives (0, 255, 255).
        assert cyan[1] < 140
    else:
        # 3 = rounding of a JPEG at quality 100
        np.testing.assert_allclose(cyan, [0, 255, 255], atol=3)


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_cmyk_tiff_without_profile_follows_the_formula_at_full_depth(tmp_path: Path, dtype: str) -> None:
    inks = noise(6, 7, 4, dtype)
    path = tmp_path / "x.tif"
    tifffile.imwrite(path, inks, photometric="separated")
    full = np.iinfo(dtype).max
    unit = inks / full
    expected = np.round((1 - unit[..., :3]) * (1 - unit[..., 3:]) * full)
    out = read_pixels(path)
    assert out.dtype == dtype
    # 1 = float32 against float64 rounding
    np.testing.assert_allclose(out.astype(int), expected, atol=1)
    assert notice_ids(path) == {"converted-from-cmyk"}


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_lab_tiff_is_converted(tmp_path: Path, dtype: str) -> None:
    """Known colours: L* of mid gray, and sRGB red, green, blue under D50 (Lindbloom)."""
    lab = np.array(
        [[100, 0, 0], [0, 0, 0], [53.39, 0, 0], [54.29, 80.81, 69.89], [87.82, -79.29, 80.99], [29.57, 68.30, -112.03]]
    )
    expected = np.array([[255, 255, 255], [0, 0, 0], [127, 127, 127], [255, 0, 0], [0, 255, 0], [0, 0, 255]])
    wide = dtype == "uint16"
    full, unit = (65535, 256) if wide else (255, 1)
    coded = np.concatenate([lab[:, :1] * full / 100, lab[:, 1:] * unit], 1).round().astype(np.int32) % (full + 1)
    path = tmp_path / "x.tif"
    tifffile.imwrite(path, coded.astype(dtype)[None], photometric="cielab")
    out = read_pixels(path)[0] / (257 if wide else 1)
    # A step of 8-bit a* is up to 10 codes of sRGB where a channel is near 0; 16-bit leaves the table's two decimals.
    np.testing.assert_allclose(out, expected, atol=2 if wide else 12)
    assert notice_ids(path) == {"converted-from-cmyk"}


# TIFF -----------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"compression": "zlib"},
        {"tile": (16, 32)},
        {"bigtiff": True},
        {"byteorder": ">"},
        {"planarconfig": "separate", "rowsperstrip": 7},
        {"rowsperstrip": 5, "compression": "zlib"},
    ],
    ids=str,
)
def test_tiff_of_every_layout_is_read_exactly(tmp_path: Path, dtype: str, options: dict[str, object]) -> None:
    pixels = noise(37, 45, 3, dtype)
    stored = np.moveaxis(pixels, 2, 0) if options.get("planarconfig") == "separate" else pixels
    path = tmp_path / "x.tif"
    tifffile.imwrite(path, stored, photometric="rgb", **options)  # type: ignore[arg-type]
    info = probe(path)
    assert (info.size, info.channels, info.dtype) == ((37, 45), 3, np.dtype(dtype))
    np.testing.assert_array_equal(read_pixels(path), pixels)


def lzw_encode(data: bytes) -> bytes:
    """TIFF 6.0, section 13, the encoder's pseudo-code: an independent partner of the decoder."""
    table: dict[bytes, int] = {bytes([i]): i for i in range(256)}
    bits, width, following, prefix = "", 9, 258, b""
    bits += format(256, "09b")
    for i in range(len(data)):
        byte = data[i : i + 1]
        if prefix + byte in table:
            prefix += byte
            continue
        bits += format(table[prefix], f"0{width}b")
        table[prefix + byte] = following
        following += 1
        if following == 4095:
            bits += format(256, f"0{width}b")
            table, width, following = {bytes([i]): i for i in range(256)}, 9, 258
        elif following in (512, 1024, 2048):
            width += 1
        prefix = byte
    bits += format(table[prefix], f"0{width}b")
    following += 1
    if following in (512, 1024, 2048):
        width += 1
    bits += format(257, f"0{width}b")
    bits += "0" * (-len(bits) % 8)
    return int(bits, 2).to_bytes(len(bits) // 8, "big")


@pytest.mark.parametrize("repeats", [1, 40])
def test_lzw_inverts_its_encoder(repeats: int) -> None:
    data = noise(1, 6000 // repeats, 1).tobytes() * repeats
    assert lzw_decode(lzw_encode(data), len(data)) == data
    assert lzw_decode(lzw_encode(data), 100) == data[:100]


def test_lzw_tiff_of_libtiff_is_read_exactly(tmp_path: Path) -> None:
    """libtiff writes it with the predictor; a photo large enough for codes of every width."""
    photo = make_photo(150, 170)
    path = put(tmp_path / "x.tif", saved(Image.fromarray(photo), "TIFF", compression="tiff_lzw", tiffinfo={317: 2}))
    np.testing.assert_array_equal(read_pixels(path), photo)
    deep = noise(60, 50, 1, "uint16")[..., 0]
    path = put(tmp_path / "y.tif", saved(Image.fromarray(deep), "TIFF", compression="tiff_lzw"))
    np.testing.assert_array_equal(read_pixels(path)[..., 0], deep)


@pytest.mark.parametrize("orientation", [1, 6, 7])
def test_jpeg_compressed_tiff_is_read_once_upright(tmp_path: Path, orientation: int) -> None:
    data = saved(Image.fromarray(make_photo(40, 56)), "TIFF", compression="jpeg", tiffinfo={274: orientation})
    path = put(tmp_path / "x.tif", data)
    expected = np.asarray(Image.open(path).convert("RGB"))  # Pillow turns TIFFs upright itself
    np.testing.assert_array_equal(read_pixels(path), expected)
    assert probe(path).size == expected.shape[:2]


@pytest.mark.parametrize("compression", ["group4", "group3"])
def test_fax_tiff_becomes_gray(tmp_path: Path, compression: str) -> None:
    bits = Image.fromarray(make_photo(30, 41)).convert("1")
    path = put(tmp_path / "x.tif", saved(bits, "TIFF", compression=compression))
    np.testing.assert_array_equal(read_pixels(path)[..., 0], np.asarray(bits) * np.uint8(255))
    assert notice_ids(path) == {"one-bit-to-gray"}


def test_min_is_white_is_inverted(tmp_path: Path) -> None:
    pixels = noise(5, 6, 1, "uint16")
    tifffile.imwrite(tmp_path / "x.tif", pixels[..., 0], photometric="miniswhite")
    np.testing.assert_array_equal(read_pixels(tmp_path / "x.tif"), 65535 - pixels)


def test_palette_tiff_becomes_colour(tmp_path: Path) -> None:
    image = Image.fromarray(make_photo(20, 24)).quantize(16)
    path = put(tmp_path / "x.tif", saved(image, "TIFF"))
    np.testing.assert_array_equal(read_pixels(path), np.asarray(image.convert("RGB")))


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
@pytest.mark.parametrize("kind", ["assocalpha", "unassalpha"])
def test_tiff_alpha_becomes_straight(tmp_path: Path, dtype: str, kind: str) -> None:
    full = 1.0 if dtype == "float32" else np.iinfo(dtype).max
    straight = noise(6, 7, 4, dtype)
    straight[0, 0, 3] = 0
    stored = straight.copy()
    if kind == "assocalpha":
        product = straight[..., :3] * (straight[..., 3:].astype(np.float64) / full)
        stored[..., :3] = product if dtype == "float32" else np.round(product)
    tifffile.imwrite(tmp_path / "x.tif", stored, photometric="rgb", extrasamples=[kind])
    out = read_pixels(tmp_path / "x.tif")
    np.testing.assert_array_equal(out[..., 3], straight[..., 3])
    if kind == "unassalpha":
        np.testing.assert_array_equal(out, straight)
        return
    assert not out[0, 0, :3].any()
    # Half a code lost in the product is full/(2 alpha) codes after the division; 1e-6 for float32 rounding.
    bound = 1e-6 if dtype == "float32" else full / (2 * np.maximum(straight[..., 3:].astype(np.float64), 1)) + 1
    error = np.abs(out[..., :3].astype(np.float64) - straight[..., :3])
    visible = straight[..., 3] > 0
    assert (error <= bound)[visible].all()


def test_float_tiff_keeps_values_beyond_one(tmp_path: Path) -> None:
    pixels = noise(4, 4, 3, "float32") * 5 - 1
    tifffile.imwrite(tmp_path / "x.tif", pixels, photometric="rgb")
    np.testing.assert_array_equal(read_pixels(tmp_path / "x.tif"), pixels)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_float_tiff_with_non_finite_pixels_is_refused_with_their_count(tmp_path: Path, bad: float) -> None:
    pixels = noise(4, 5, 3, "float32")
    pixels[1, 2, 0] = pixels[1, 2, 1] = pixels[3, 3, 2] = bad  # two pixels, three samples
    tifffile.imwrite(tmp_path / "x.tif", pixels, photometric="rgb")
    with pytest.raises(InputError, match="2 of 20 pixels are NaN or infinite"):
        read_pixels(tmp_path / "x.tif")


@pytest.mark.parametrize("dtype", ["int16", "uint32", "complex64"])
def test_sample_types_that_are_no_picture_are_refused(tmp_path: Path, dtype: str) -> None:
    tifffile.imwrite(tmp_path / "x.tif", np.zeros((4, 4), dtype), photometric="minisblack")
    with pytest.raises(InputError, match="samples of"):
        probe(tmp_path / "x.tif")


def test_unknown_tiff_compression_names_the_extra(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "x.tif", noise(8, 8, 3, "uint16"), photometric="rgb", compression="zlib")
    with tifffile.TiffFile(tmp_path / "x.tif", mode="r+") as tiff:
        tiff.pages.first.tags["Compression"].overwrite(34712)  # JPEG 2000
    with pytest.raises(InputError, match=r"upframe\[tiff-all\]"):
        read_pixels(tmp_path / "x.tif")


# Orientation (A15) ----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("bad", [(3, 1, b"\0\0\0\0"), (3, 1, b"\0\x09\0\0"), (2, 4, b"6ab\0")], ids=["0", "9", "string"])
def test_invalid_orientation_counts_as_one(tmp_path: Path, bad: tuple[int, int, bytes]) -> None:
    pixels = noise(5, 8, 3)
    path = put(tmp_path / "x.png", png(pixels, before=chunk(b"eXIf", exif(bad))))
    np.testing.assert_array_equal(read_pixels(path), pixels)
    assert notice_ids(path) == {"bad-orientation"}


def test_exif_after_the_picture_data_counts_too(tmp_path: Path) -> None:
    """The specification allows it there, and some writers do it."""
    pixels = noise(5, 8, 3)
    path = put(tmp_path / "x.png", png(pixels, after=chunk(b"eXIf", exif())))
    assert probe(path).size == (8, 5)
    np.testing.assert_array_equal(read_pixels(path), np.rot90(pixels, -1))


# Metadata found (A13, A14) --------------------------------------------------------------------------------------------
def test_sound_profile_is_kept_and_damaged_one_is_ignored(tmp_path: Path) -> None:
    pixels = noise(4, 4, 3)
    sound = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for profile, expected in ((sound, sound), (sound[:100], None), (b"garbage" * 60, None)):
        path = put(tmp_path / "x.png", png(pixels, before=chunk(b"iCCP", b"name\0\0" + zlib.compress(profile))))
        with ImageSource(path) as source:
            (frame,) = source
        assert source.metadata.icc == expected
        assert [notice.id for notice in source.notices] == ([] if expected else ["bad-icc"])
        np.testing.assert_array_equal(frame.pixels, pixels)


def test_exif_loses_its_thumbnail_and_nothing_else(tmp_path: Path) -> None:
    block = exif()
    path = put(tmp_path / "x.jpg", saved(Image.new("RGB", (30, 20)), "JPEG", exif=b"Exif\0\0" + block))
    with ImageSource(path) as source:
        kept = source.metadata.exif
    assert kept is not None
    assert b"THUMBNAIL" not in kept
    assert kept.index(b"MAKERNOTE") == block.index(b"MAKERNOTE"), "maker notes must not move: they hold offsets"
    parsed = Image.Exif()
    parsed.load(kept)
    assert parsed[0x010F] == "Acme" and parsed[0x0112] == 1
    assert not parsed.get_ifd(0x0201), "no second directory is linked"


def test_png_text_and_colour_chunks_are_found(tmp_path: Path) -> None:
    before = chunk(b"gAMA", struct.pack(">I", 50000)) + chunk(b"cICP", bytes([9, 16, 0, 1])) + chunk(b"sRGB", b"\0")
    before += chunk(b"pHYs", struct.pack(">IIB", 11811, 5906, 1)) + chunk(b"tEXt", b"Author\0Ada")
    before += chunk(b"zTXt", b"Title\0\0" + zlib.compress(b"A title"))
    before += chunk(b"iTXt", b"Description\0\0\0de\0\0" + "Grün".encode())
    before += chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0<x/>")
    with ImageSource(put(tmp_path / "x.png", png(noise(3, 3, 3), before=before))) as source:
        found = source.metadata
    assert found.text == (("Author", "Ada"), ("Title", "A title"), ("Description", "Grün"))
    assert dict(found.colour_chunks) == {"gAMA": struct.pack(">I", 50000), "cICP": bytes([9, 16, 0, 1]), "sRGB": b"\0"}
    assert found.xmp == b"<x/>"
    assert found.dpi is not None
    np.testing.assert_allclose(found.dpi, (300, 150), atol=0.02)  # pHYs counts whole pixels per metre


def test_a_filter_row_at_a_time_equals_the_wavefront() -> None:
    """The two ways of `unfilter` meet: Sub and Up alone take the short way, one Paeth row the long one."""
    from upframe.media.image.png_data import unfilter

    raw = noise(9, 14, 3).reshape(9, -1)
    zero = np.zeros(42, np.uint8)
    for kinds in ([1, 2, 0], [1, 2, 4], [3], [4]):
        coded = np.frombuffer(filtered(raw, 3, kinds), np.uint8).reshape(9, -1)
        np.testing.assert_array_equal(unfilter(coded, 3, zero), raw)


@pytest.mark.slow
def test_importing_media_does_not_import_torch() -> None:
    code = "import sys, upframe.media.image.files; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
