"""Files are written whole, verified, streamed, and carries what the input had (faults A8, A10, A11, A13, A14, A18, 5.2)."""

from __future__ import annotations

import errno
import io
import os
import struct
import subprocess
import sys
import tracemalloc
import zlib
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from PIL import Image, ImageCms

from conftest import make_photo
from image_files import chunk, exif, noise, png, put, saved
from upframe.errors import InputError, OutputError, UsageError, VerifyError
from upframe.files import part_path
from upframe.media.frames import MediaInfo
from upframe.media.image.files import (
    ImageSink,
    Metadata,
    OutputPlan,
    check_output_size,
    plan_output,
    verify_output,
    write_pixels,
)
from upframe.media.image.source import ImageSource, probe, read_pixels


def planned(format: str, pixels: NDArray[Any]) -> OutputPlan:
    return OutputPlan(format, f".{format}", pixels.dtype, pixels.shape[2])


def write(path: Path, pixels: NDArray[Any], format: str, metadata: Metadata | None = None, *, band: int = 7) -> Path:
    with ImageSink(path, planned(format, pixels), metadata) as sink:
        sink.write((pixels[i : i + band] for i in range(0, len(pixels), band)), pixels.shape[:2])
    return path


def info_of(name: str, *, channels: int = 3, dtype: str = "uint8", frames: int = 1, animated: bool = False) -> MediaInfo:
    format = {"jpg": "jpeg", "tif": "tiff"}.get(name.split(".")[-1].lower(), name.split(".")[-1].lower())
    return MediaInfo(Path(name), format, (10, 10), channels, np.dtype(dtype), frames, animated)


# Pixels ---------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_eight_bit_png_is_read_exactly_by_pillow(tmp_path: Path, channels: int) -> None:
    for pixels in (noise(40, 30, channels), make_photo(130, 50)[..., [0, 1, 2, 0][:channels]]):
        with Image.open(write(tmp_path / "x.png", pixels, "png")) as image:
            assert len(image.getbands()) == channels
            np.testing.assert_array_equal(np.asarray(image).reshape(pixels.shape), pixels)


@pytest.mark.parametrize(("channels", "layout"), [(1, "gray16be"), (2, "ya16be"), (3, "rgb48be"), (4, "rgba64be")])
def test_sixteen_bit_png_is_read_exactly_by_ffmpeg(tmp_path: Path, channels: int, layout: str) -> None:
    pixels = make_photo(70, 31, dtype="uint16")[..., [0, 1, 2, 0][:channels]]
    pixels = np.ascontiguousarray(pixels)
    path = write(tmp_path / "x.png", pixels, "png")
    with av.open(str(path)) as container:
        frame = next(container.decode(video=0))
        assert frame.format.name == layout
        plane = np.frombuffer(frame.planes[0], ">u2").reshape(70, -1)[:, : 31 * channels]
    np.testing.assert_array_equal(plane.reshape(pixels.shape), pixels)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_tiff_is_read_exactly_by_tifffile(tmp_path: Path, dtype: str, channels: int) -> None:
    pixels = noise(90, 31, channels, dtype)
    path = write(tmp_path / "x.tif", pixels, "tiff")
    with tifffile.TiffFile(path) as tiff:
        page = tiff.pages.first
        np.testing.assert_array_equal(page.asarray().reshape(pixels.shape), pixels)
        assert [int(kind) for kind in page.extrasamples] == ([2] if channels in (2, 4) else [])


@pytest.mark.parametrize(("format", "tolerance"), [("bmp", 0), ("jpeg", 2), ("avif", 3), ("webp", 6)])
def test_lossy_formats_stay_close_by_default(tmp_path: Path, format: str, tolerance: float) -> None:
    """Mean error in codes on a smooth picture; WebP has no full-resolution colour."""
    y, x = np.mgrid[0:48, 0:64]
    pixels = np.stack([3 * x + 20, 4 * y + 10, 255 - 2 * x - y], -1).astype(np.uint8)
    with Image.open(write(tmp_path / f"x.{format}", pixels, format)) as image:
        error = np.abs(np.asarray(image.convert("RGB")).astype(int) - pixels).mean()
    assert error <= tolerance


def test_jpeg_keeps_full_colour_resolution(tmp_path: Path) -> None:
    """Single red columns on green vanish under 4:2:0."""
    pixels = np.zeros((32, 32, 3), np.uint8)
    pixels[:, ::2, 0] = 255
    pixels[:, 1::2, 1] = 255
    out = read_pixels(write(tmp_path / "x.jpg", pixels, "jpeg")).astype(int)
    assert (out[:, ::2, 0] - out[:, 1::2, 0]).min() > 180


def test_gray_alpha_reaches_formats_without_gray_alpha(tmp_path: Path) -> None:
    pixels = np.full((16, 16, 2), 200, np.uint8)
    pixels[:8, :, 1] = 0
    for format in ("webp", "avif"):
        out = read_pixels(write(tmp_path / f"x.{format}", pixels, format))
        np.testing.assert_array_equal(out[..., 3], pixels[..., 1])


def test_constant_alpha_stays_exact(tmp_path: Path) -> None:
    for value in (0, 255):
        pixels = noise(20, 20, 4)
        pixels[..., 3] = value
        for format in ("png", "tiff", "webp"):
            out = read_pixels(write(tmp_path / f"x.{format}", pixels, format))
            assert out.shape[2] == 3 or (out[..., 3] == value).all()
            assert out.shape[2] == 4 or value == 255, "only an opaque alpha channel may be left out"


def test_png_size_is_near_pillows(tmp_path: Path) -> None:
    """Fast must not mean large: within a fifth of Pillow's slower default."""
    photo = make_photo(300, 400)
    path = write(tmp_path / "x.png", photo, "png")
    assert path.stat().st_size < 1.2 * len(saved(Image.fromarray(photo), "PNG"))


@pytest.mark.slow
@pytest.mark.parametrize("format", ["png", "tiff"])
def test_tall_picture_is_streamed(tmp_path: Path, format: str) -> None:
    """120 MB of pixels from a generator; what is held stays a fraction."""
    height, width = 40_000, 1000
    band = make_photo(100, width)

    def bands() -> Iterator[NDArray[Any]]:
        for _ in range(height // 100):
            yield band

    plan = planned(format, band)
    tracemalloc.start()
    with ImageSink(tmp_path / "x", plan) as sink:
        sink.write(bands(), (height, width))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 25e6
    assert probe(tmp_path / "x").size == (height, width)


def test_tiff_beyond_four_gigabytes_becomes_bigtiff(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The limit is lowered instead of writing 4 GB."""
    pixels = noise(30, 40, 3)
    for limit, big in ((3600, False), (3599, True)):
        monkeypatch.setattr("upframe.media.image.tiff_writer._CLASSIC_TIFF_BYTES", limit)
        path = write(tmp_path / "x.tif", pixels, "tiff", Metadata(exif=exif()))
        with tifffile.TiffFile(path) as tiff:
            assert tiff.is_bigtiff == big
        with ImageSource(path) as source:
            (frame,) = source
        np.testing.assert_array_equal(frame.pixels, pixels)


# Metadata (A13, A14) --------------------------------------------------------------------------------------------------
def full_metadata() -> Metadata:
    icc = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    data = saved(Image.new("RGB", (30, 20)), "JPEG", exif=b"Exif\0\0" + exif(), icc_profile=icc, dpi=(300, 300))
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><d tiff:Orientation="6" exif:PixelXDimension="30"/></x:xmpmeta>'
    path = Path("x.jpg")
    from upframe.media.image.decoder import Reading

    reading = Reading(path, io.BytesIO(data))
    cleaned, orientation = reading.carry(Metadata(icc=icc, exif=exif(), xmp=xmp, dpi=(300.0, 300.0)))
    assert orientation == 6 and not reading.notices
    return cleaned


@pytest.mark.parametrize("format", ["png", "jpeg", "webp", "avif", "tiff"])
def test_profile_exif_xmp_and_resolution_are_carried(tmp_path: Path, format: str) -> None:
    metadata = full_metadata()
    path = write(tmp_path / f"x.{format}", make_photo(80, 120), format, metadata)
    with ImageSource(path) as source:
        found = source.metadata
    assert found.icc == metadata.icc
    assert found.xmp is not None
    assert b'tiff:Orientation="1"' in found.xmp and b'exif:PixelXDimension="120"' in found.xmp
    assert found.exif is not None and b"THUMBNAIL" not in found.exif
    parsed = Image.Exif()
    parsed.load(found.exif)
    assert parsed[0x010F] == "Acme"
    assert parsed.get(0x0112, 1) == 1
    sizes = parsed.get_ifd(0x8769)
    assert (sizes[0xA002], sizes[0xA003]) == (120, 80), "PixelXDimension, PixelYDimension"
    if format in ("png", "jpeg", "tiff"):
        assert found.dpi is not None
        np.testing.assert_allclose(found.dpi, (300, 300), atol=0.02)


@pytest.mark.parametrize("format", ["webp", "avif"])
def test_resolution_alone_becomes_exif(tmp_path: Path, format: str) -> None:
    path = write(tmp_path / "x", make_photo(8, 8), format, Metadata(dpi=(240.0, 120.0)))
    with Image.open(path) as image:
        tags = image.getexif()
    assert (float(tags[282]), float(tags[283]), tags[296]) == (240, 120, 2)


def test_png_chunks_survive_and_stand_before_the_picture(tmp_path: Path) -> None:
    chunks = (("cICP", bytes([9, 16, 0, 1])), ("gAMA", struct.pack(">I", 50000)))
    texts = (("Author", "Ada"), ("Title", "日本"))
    path = write(tmp_path / "x.png", noise(5, 5, 3), "png", Metadata(text=texts, colour_chunks=chunks))
    data = path.read_bytes()
    for name in (b"cICP", b"gAMA"):
        assert data.index(name) < data.index(b"IDAT")
    with ImageSource(path) as source:
        assert source.metadata.text == texts
        assert source.metadata.colour_chunks == chunks
    with Image.open(path) as image:
        image.load()
        assert image.info["Title"] == "日本" and image.info["gamma"] == 0.5


def test_jpeg_comment_survives_to_jpeg_and_png(tmp_path: Path) -> None:
    source_path = put(tmp_path / "x.jpg", saved(Image.new("RGB", (8, 8)), "JPEG", comment=b"hello"))
    with ImageSource(source_path) as source:
        metadata = source.metadata
    with Image.open(write(tmp_path / "y.jpg", noise(8, 8, 3), "jpeg", metadata)) as image:
        assert image.info["comment"] == b"hello"
    with Image.open(write(tmp_path / "y.png", noise(8, 8, 3), "png", metadata)) as image:
        assert image.info["Comment"] == "hello"


def test_same_input_gives_same_bytes(tmp_path: Path) -> None:
    metadata = full_metadata()
    for format in ("png", "tiff", "jpeg", "webp", "avif"):
        first, second = (write(tmp_path / n, make_photo(40, 40), format, metadata).read_bytes() for n in "ab")
        assert first == second


# Planning (A8, A11, A18) ----------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("name", "facts", "requested", "expected"),
    [
        ("a.png", {}, None, ("png", ".png", "uint8", [])),
        ("a.JPG", {}, None, ("jpeg", ".JPG", "uint8", [])),
        ("a.jpeg", {}, "jpg", ("jpeg", ".jpg", "uint8", [])),
        ("a.png", {}, ".tiff", ("tiff", ".tiff", "uint8", [])),
        ("a.png", {"dtype": "uint16"}, None, ("png", ".png", "uint16", [])),
        ("a.tif", {"dtype": "float32"}, None, ("tiff", ".tif", "float32", [])),
        ("a.tif", {"dtype": "float32"}, "png", ("png", ".png", "uint16", ["depth-reduced"])),
        ("a.tif", {"dtype": "float32"}, "jpg", ("jpeg", ".jpg", "uint8", ["depth-reduced"])),
        ("a.png", {"dtype": "uint16"}, "jpg", ("jpeg", ".jpg", "uint8", ["depth-reduced"])),
        ("a.png", {"dtype": "uint16"}, "webp", ("webp", ".webp", "uint8", ["depth-reduced"])),
        ("a.png", {"dtype": "uint16"}, "avif", ("avif", ".avif", "uint8", ["depth-reduced"])),
        ("a.png", {"dtype": "uint16"}, "bmp", ("bmp", ".bmp", "uint8", ["depth-reduced"])),
        ("a.png", {"channels": 4}, "jpg", ("png", ".png", "uint8", ["alpha-needs-png"])),
        ("a.png", {"channels": 2}, "bmp", ("png", ".png", "uint8", ["alpha-needs-png"])),
        ("a.png", {"channels": 4, "dtype": "uint16"}, "jpg", ("png", ".png", "uint16", ["alpha-needs-png"])),
        ("a.png", {"channels": 4}, "webp", ("webp", ".webp", "uint8", [])),
        ("a.gif", {"frames": 4, "animated": True}, "jpg", ("webp", ".webp", "uint8", ["animation-needs-webp"])),
        ("a.gif", {"frames": 4, "animated": True}, "tiff", ("webp", ".webp", "uint8", ["animation-needs-webp"])),
        ("a.gif", {"frames": 4, "animated": True}, "png", ("png", ".png", "uint8", [])),
        ("a.gif", {"frames": 4, "animated": True}, None, ("gif", ".gif", "uint8", ["depth-reduced"])),
        ("a.tif", {"frames": 3}, None, ("tiff", ".tif", "uint8", [])),
        ("a.tif", {"frames": 3}, "png", ("tiff", ".tif", "uint8", ["pages-need-tiff"])),
        ("a.heic", {}, None, ("png", ".png", "uint8", [])),
        ("noextension", {}, None, ("png", ".png", "uint8", [])),
    ],
)
def test_format_follows_request_then_name_and_says_what_is_lost(
    name: str, facts: dict[str, Any], requested: str | None, expected: tuple[str, str, str, list[str]]
) -> None:
    plan = plan_output(info_of(name, **facts), requested=requested)
    assert (plan.format, plan.extension, plan.dtype.name, [n.id for n in plan.notices]) == expected
    assert plan.channels == facts.get("channels", 3)


def test_content_under_a_wrong_name_keeps_the_visible_extension(tmp_path: Path) -> None:
    path = put(tmp_path / "x.png", saved(Image.new("RGB", (8, 8)), "JPEG"))
    assert plan_output(probe(path)).format == "png"


@pytest.mark.parametrize(
    ("metadata", "format", "lost"),
    [
        (Metadata(exif=b"x"), "bmp", "EXIF"),
        (Metadata(icc=b"x"), "gif", "colour profile"),
        (Metadata(exif=bytes(70_000)), "jpeg", "EXIF"),
        (Metadata(text=(("Author", "Ada"),)), "jpeg", "Author"),
        (Metadata(colour_chunks=(("cICP", b"1234"),)), "webp", "colour chunks"),
        (Metadata(exif=bytes(70_000), text=(("Author", "Ada"),), colour_chunks=(("cICP", b"1234"),)), "png", ""),
        (Metadata(colour_chunks=(("sRGB", b"\0"), ("gAMA", struct.pack(">I", 45455)))), "jpeg", ""),
    ],
)
def test_metadata_that_will_not_fit_is_announced(metadata: Metadata, format: str, lost: str) -> None:
    messages = [n.message for n in plan_output(info_of("a.png"), requested=format, metadata=metadata).notices
                if n.id == "metadata-dropped"]  # fmt: skip
    assert (len(messages) == 1 and lost in messages[0]) if lost else not messages


@pytest.mark.parametrize("requested", ["heic", "xyz", "mp4", "raw", ""])
def test_format_that_cannot_be_written_is_a_usage_error_with_the_list(requested: str) -> None:
    with pytest.raises(UsageError, match="png, jpeg, webp, tiff, bmp, avif, gif"):
        plan_output(info_of("a.png"), requested=requested)


@pytest.mark.parametrize(
    ("format", "size", "fits"),
    [
        ("webp", (16383, 10), True),
        ("webp", (10, 16384), False),
        ("jpeg", (65500, 10), True),
        ("jpeg", (65501, 10), False),
        ("gif", (65536, 1), False),
        ("avif", (20000, 20000), False),
        ("bmp", (40000, 40000), False),
        ("png", (100_000, 100_000), True),
        ("tiff", (100_000, 100_000), True),
    ],
)
def test_size_limits_are_known_before_any_work(format: str, size: tuple[int, int], fits: bool) -> None:
    if fits:
        check_output_size(format, size, subject="x")
        return
    with pytest.raises(UsageError, match=r"png'` or tiff"):
        check_output_size(format, size, subject="x")


@pytest.mark.parametrize(("format", "side"), [("webp", 16383), ("jpeg", 65500), ("gif", 65535)])
def test_largest_side_can_really_be_written(tmp_path: Path, format: str, side: int) -> None:
    write(tmp_path / "x", np.zeros((1, side, 3), np.uint8), format)
    assert probe(tmp_path / "x").size == (1, side)


# Whole or not at all (5.2) --------------------------------------------------------------------------------------------
def contents(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_nothing_is_at_the_final_path_before_commit(tmp_path: Path) -> None:
    pixels = noise(8, 8, 3)
    with ImageSink(tmp_path / "x.png", planned("png", pixels)) as sink:
        sink.write([pixels], (8, 8))
        assert contents(tmp_path) == [".x.png.part"]
    assert contents(tmp_path) == ["x.png"]


@pytest.mark.parametrize("format", ["png", "tiff", "jpeg"])
def test_error_of_the_producer_passes_unchanged_and_leaves_the_old_file(tmp_path: Path, format: str) -> None:
    path = put(tmp_path / "x", b"old")
    pixels = noise(8, 8, 3)

    def bands() -> Iterator[NDArray[Any]]:
        yield pixels[:4]
        raise OSError("of the producer")

    with (
        pytest.raises(OSError, match="of the producer") as caught,
        ImageSink(path, planned(format, pixels)) as sink,
    ):
        sink.write(bands(), (8, 8))
    assert not isinstance(caught.value, OutputError)
    assert path.read_bytes() == b"old" and contents(tmp_path) == ["x"]


@pytest.mark.parametrize(
    ("bands", "size"),
    [
        ([np.zeros((8, 8, 3), np.uint16)], (8, 8)),
        ([np.zeros((8, 8, 4), np.uint8)], (8, 8)),
        ([np.zeros((7, 8, 3), np.uint8)], (8, 8)),
        ([np.zeros((8, 8, 3), np.uint8), np.zeros((1, 8, 3), np.uint8)], (8, 8)),
        ([np.zeros((8, 9, 3), np.uint8)], (8, 8)),
    ],
)
@pytest.mark.parametrize("format", ["png", "tiff", "jpeg"])
def test_bands_that_do_not_fit_are_refused(
    tmp_path: Path, format: str, bands: list[NDArray[Any]], size: tuple[int, int]
) -> None:
    plan = OutputPlan(format, f".{format}", np.dtype(np.uint8), 3)
    with pytest.raises(ValueError, match="band"), ImageSink(tmp_path / "x", plan) as sink:
        sink.write(bands, size)
    assert contents(tmp_path) == []


def test_nan_is_never_written(tmp_path: Path) -> None:
    pixels = noise(8, 8, 3, "float32")
    pixels[3, 3, 0] = np.nan
    with pytest.raises(VerifyError, match="NaN"):
        write(tmp_path / "x.tif", pixels, "tiff")
    assert contents(tmp_path) == []


def test_missing_frames_are_noticed(tmp_path: Path) -> None:
    pixels = noise(8, 8, 3)
    with (
        pytest.raises(VerifyError, match="1 of 2 frames"),
        ImageSink(tmp_path / "x.png", planned("png", pixels), frames=2, animated=True) as sink,
    ):
        sink.write([pixels], (8, 8))
    assert contents(tmp_path) == []


def test_folders_that_cannot_take_the_file_are_output_errors(tmp_path: Path) -> None:
    pixels = noise(4, 4, 3)
    (tmp_path / "folder.png").mkdir()
    put(tmp_path / "file", b"x")
    for path in (tmp_path / "none" / "x.png", tmp_path / "folder.png", tmp_path / "file" / "x.png"):
        with pytest.raises(OutputError, match="cannot be written"):
            write(path, pixels, "png")
    assert contents(tmp_path) == ["file", "folder.png"]


@pytest.mark.slow
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
@pytest.mark.parametrize("format", ["png", "tiff", "jpeg", "bmp", "webp", "avif", "gif"])
def test_full_disk_is_an_output_error(tmp_path: Path, format: str) -> None:
    """A limit on the file size makes the system refuse bytes part-way, as a full disk does."""
    code = (
        "import resource, signal, sys, numpy as np; from pathlib import Path\n"
        "from upframe.media.image.files import ImageSink, OutputPlan; from upframe.errors import OutputError\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))\n"
        "a = np.random.default_rng(0).integers(0, 256, (300, 300, 3), np.uint8)\n"
        "try:\n"
        "    with ImageSink(Path(sys.argv[1]), OutputPlan(sys.argv[2], '.x', a.dtype, 3)) as sink:\n"
        "        sink.write([a[:150], a[150:]], (300, 300))\n"
        "except OutputError as error: print(error.exit_code, error)\n"
    )
    put(tmp_path / "x", b"old")
    command = [sys.executable, "-c", code, str(tmp_path / "x"), format]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert result.stdout.startswith("6 ") and "cannot be written" in result.stdout, result.stderr
    assert result.stdout.count("\n") == 1 and not result.stderr
    assert contents(tmp_path) == ["x"] and (tmp_path / "x").read_bytes() == b"old"


def test_disk_full_error_number_gives_advice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutputError, match=r"no space left on device.*Free some space"):
        write(tmp_path / "x.png", noise(4, 4, 3), "png")
    assert contents(tmp_path) == []


def test_names_near_the_limit_can_be_written(tmp_path: Path) -> None:
    for name in ("n" * 251 + ".png", "é" * 125 + ".png", "-x.png", "a\nb.png"):
        assert len(os.fsencode(part_path(tmp_path / name).name)) <= 255
        write(tmp_path / name, noise(4, 4, 3), "png")
    assert len(contents(tmp_path)) == 4


# Verification ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("format", ["png", "tiff", "jpeg", "webp", "bmp", "avif", "gif"])
def test_verification_accepts_the_whole_and_notices_every_cut(tmp_path: Path, format: str) -> None:
    pixels = make_photo(60, 50)
    path = write(tmp_path / "x", pixels, format)
    plan = planned(format, pixels)
    verify_output(path, plan, (60, 50), 1)
    whole = path.read_bytes()
    for keep in (0, 10, len(whole) // 3, len(whole) - 40, len(whole) - 1):
        path.write_bytes(whole[:keep])
        if format == "tiff" and keep == len(whole) - 1:
            continue  # the last byte of a directory's padding carries nothing
        with pytest.raises(VerifyError):
            verify_output(path, plan, (60, 50), 1)


def test_verification_names_what_differs(tmp_path: Path) -> None:
    pixels = noise(6, 5, 3)
    path = write(tmp_path / "x.png", pixels, "png")
    for plan, size, frames, reason in (
        (planned("png", pixels), (5, 6), 1, "size 5x6 instead of 6x5"),
        (planned("png", pixels), (6, 5), 2, "1 frames instead of 2"),
        (planned("tiff", pixels), (6, 5), 1, "format png instead of tiff"),
        (planned("png", pixels.astype(np.uint16)), (6, 5), 1, "uint8 samples instead of uint16"),
        (planned("png", pixels[..., :1]), (6, 5), 1, "3 channels instead of 1"),
    ):
        with pytest.raises(VerifyError, match=reason):
            verify_output(path, plan, size, frames)


def test_flipped_bit_in_png_data_fails_verification(tmp_path: Path) -> None:
    pixels = noise(50, 50, 3)
    path = write(tmp_path / "x.png", pixels, "png")
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(VerifyError, match="checksum"):
        verify_output(path, planned("png", pixels), (50, 50), 1)


# The short way in and out ---------------------------------------------------------------------------------------------
@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_write_pixels_then_read_pixels_is_the_identity(tmp_path: Path, dtype: str) -> None:
    for name in ("x.png", "x.tif"):
        pixels = noise(7, 9, 3, dtype)
        write_pixels(tmp_path / name, pixels)
        np.testing.assert_array_equal(read_pixels(tmp_path / name), pixels)
    write_pixels(tmp_path / "gray.png", noise(4, 4, 1, dtype)[..., 0])
    assert read_pixels(tmp_path / "gray.png").shape == (4, 4, 1)


def test_write_pixels_refuses_what_the_format_cannot_hold(tmp_path: Path) -> None:
    for name, pixels in (("x.jpg", noise(4, 4, 4)), ("x.webp", noise(4, 4, 3, "uint16")), ("x", noise(4, 4, 3))):
        with pytest.raises(UsageError):
            write_pixels(tmp_path / name, pixels)
    with pytest.raises(ValueError, match="pixels must be"):
        write_pixels(tmp_path / "x.png", noise(4, 4, 3).astype(np.int64))
    assert contents(tmp_path) == []


# Animations and pages (A19, A20) --------------------------------------------------------------------------------------
DURATIONS = [Fraction(n, 1000) for n in (30, 100, 250, 40)]


def animation(channels: int) -> list[NDArray[Any]]:
    """Frames with flat areas (exact under quantisation), the third equal to the second; binary alpha."""
    frames = []
    for i in (0, 1, 1, 2):
        frame = np.full((12, 16, channels), 40, np.uint8)
        frame[2:8, 3 * i : 3 * i + 5, :3] = (250, 60 * i, 10)[:3]
        if channels == 4:
            frame[..., 3] = 255
            frame[8:, 4 * i : 4 * i + 4, 3] = 0
        frames.append(frame)
    return frames


@pytest.mark.parametrize("channels", [3, 4])
@pytest.mark.parametrize("format", ["png", "webp", "gif", "avif"])
def test_animation_keeps_frames_durations_loop_and_alpha(tmp_path: Path, format: str, channels: int) -> None:
    frames = animation(channels)
    path = tmp_path / f"x.{format}"
    plan = planned(format, frames[0])
    with ImageSink(path, plan, Metadata(loop=3), frames=4, animated=True, quality=100) as sink:
        for frame, duration in zip(frames, DURATIONS, strict=True):
            sink.write([frame[:5], frame[5:]], frame.shape[:2], duration=duration)
    # read by Pillow, which composes animations independently of our writer
    with Image.open(path) as image:
        assert getattr(image, "n_frames", 1) == 4
        for i, frame in enumerate(frames):
            image.seek(i)
            image.load()
            assert image.info["duration"] == DURATIONS[i] * 1000
            shown = np.asarray(image.convert("RGBA")).astype(int)
            if channels == 4:
                np.testing.assert_array_equal(shown[..., 3], frame[..., 3])
            visible = shown[..., 3] > 0
            # WebP halves colour resolution, AVIF rounds; flat areas away from edges are what is compared
            error = np.abs(shown[..., :3] - frame[..., :3])[visible]
            assert np.median(error) <= 3 and (format in ("webp", "avif") or error.max() == 0)
    # and by our own reader
    with ImageSource(path) as source:
        read = list(source)
        assert source.info.animated and source.info.frames == 4
        assert source.metadata.loop == (None if format == "avif" else 3)
    assert [frame.duration for frame in read] == DURATIONS
    assert [frame.time for frame in read] == [sum(DURATIONS[:i], Fraction(0)) for i in range(4)]


@pytest.mark.parametrize("loop", [0, 1, 2, None])
@pytest.mark.parametrize("format", ["png", "webp", "gif"])
def test_loop_count_survives(tmp_path: Path, format: str, loop: int | None) -> None:
    frames = animation(3)
    with ImageSink(tmp_path / "x", planned(format, frames[0]), Metadata(loop=loop), frames=4, animated=True) as sink:
        for frame in frames:
            sink.write([frame], frame.shape[:2], duration=Fraction(1, 10))
    with ImageSource(tmp_path / "x") as source:
        assert source.metadata.loop == (loop or 0), "what is not stated plays forever"


@pytest.mark.parametrize("format", ["GIF", "WEBP", "PNG", "AVIF"])
def test_foreign_animation_is_read_composited_with_exact_times(tmp_path: Path, format: str) -> None:
    """Written by Pillow with partial frames and disposal; the expected pictures are the full ones it was given."""
    frames = [Image.fromarray(frame) for frame in animation(4 if format != "AVIF" else 3)]
    frames[2] = frames[2].transpose(Image.Transpose.FLIP_LEFT_RIGHT)  # Pillow would merge equal neighbours
    options: dict[str, Any] = {"disposal": 2} if format == "GIF" else {"lossless": True} if format == "WEBP" else {}
    durations = [30, 100, 250, 40]
    data = saved(frames[0], format, save_all=True, append_images=frames[1:], duration=durations, **options)
    with ImageSource(put(tmp_path / "x", data)) as source:
        read = list(source)
        assert source.info.animated and source.info.frames == 4
        assert (source.info.channels == 4) == (format != "AVIF")
    assert [frame.duration for frame in read] == DURATIONS
    for frame, expected in zip(read, frames, strict=True):
        full = np.asarray(expected).astype(int)
        if format == "AVIF":
            assert np.median(np.abs(frame.pixels - full)) <= 4
            continue
        np.testing.assert_array_equal(frame.pixels[..., 3], full[..., 3])
        visible = full[..., 3] > 0
        np.testing.assert_array_equal(frame.pixels[visible], full[visible])


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
@pytest.mark.parametrize("dispose", [0, 1, 2])
@pytest.mark.parametrize("blend", [0, 1])
def test_apng_disposal_and_blending_follow_the_specification(tmp_path: Path, dtype: str, dispose: int, blend: int) -> None:
    """Three frames by hand, the second and third partial and half transparent; the canvas is computed here in floats."""
    full = np.iinfo(dtype).max
    first, second, third = noise(6, 8, 4, dtype, 1), noise(3, 4, 4, dtype, 2), noise(4, 3, 4, dtype, 3)
    places = [(0, 0), (2, 1), (1, 4)]

    def data(pixels: NDArray[Any]) -> bytes:
        whole = png(pixels, idat_bytes=1 << 20)
        at = whole.index(b"IDAT")
        return whole[at + 4 : at + 4 + int.from_bytes(whole[at - 4 : at], "big")]

    def control(sequence: int, pixels: NDArray[Any], place: tuple[int, int], disposal: int, mode: int) -> bytes:
        height, width = pixels.shape[:2]
        body = struct.pack(">IIIIIHHBB", sequence, width, height, place[1], place[0], 1, 25, disposal, mode)
        return chunk(b"fcTL", body)

    before = chunk(b"acTL", struct.pack(">II", 3, 7)) + control(0, first, places[0], 0, 0)
    after = control(1, second, places[1], dispose, blend) + chunk(b"fdAT", struct.pack(">I", 2) + data(second))
    after += control(3, third, places[2], 0, blend) + chunk(b"fdAT", struct.pack(">I", 4) + data(third))
    path = put(tmp_path / "x.png", png(first, before=before, after=after))

    canvas = first / full
    expected = [canvas.copy()]
    for pixels, (y, x), disposal in ((second, places[1], dispose), (third, places[2], 0)):
        area = canvas[y : y + pixels.shape[0], x : x + pixels.shape[1]]
        kept = area.copy()
        top = pixels / full
        if blend:
            alpha = top[..., 3:] + area[..., 3:] * (1 - top[..., 3:])
            colour = top[..., :3] * top[..., 3:] + area[..., :3] * area[..., 3:] * (1 - top[..., 3:])
            area[...] = np.concatenate([colour / np.maximum(alpha, 1e-12), alpha], 2)
        else:
            area[...] = top
        expected.append(canvas.copy())
        if disposal == 1:
            area[...] = 0
        elif disposal == 2:
            area[...] = kept
    with ImageSource(path) as source:
        read = list(source)
        assert source.metadata.loop == 7
    for frame, wanted in zip(read, expected, strict=True):
        assert frame.pixels.dtype == dtype and frame.duration == Fraction(1, 25)
        # one code: the second composition starts from rounded values
        np.testing.assert_allclose(frame.pixels.astype(float), wanted * full, atol=1.01)


def test_first_frame_of_an_animation_is_a_still(tmp_path: Path) -> None:
    frames = [Image.fromarray(frame) for frame in animation(3)]
    for format in ("GIF", "WEBP", "PNG"):
        path = put(tmp_path / "x", saved(frames[0], format, save_all=True, append_images=frames[1:], duration=50))
        info = probe(path, first_frame=True)
        assert (info.frames, info.animated) == (1, False)
        with ImageSource(path, first_frame=True) as source:
            assert len(list(source)) == 1


def test_pages_are_written_as_pages(tmp_path: Path) -> None:
    pages = [noise(8, 9, 3, "uint16", seed=1), noise(20, 5, 3, "uint16", seed=2)]
    with ImageSink(tmp_path / "x.tif", planned("tiff", pages[0]), full_metadata(), frames=2) as sink:
        for page in pages:
            sink.write([page], page.shape[:2])
    with tifffile.TiffFile(tmp_path / "x.tif") as tiff:
        assert len(tiff.pages) == 2
        for page, expected in zip(tiff.pages, pages, strict=True):
            np.testing.assert_array_equal(page.asarray(), expected)


def test_corrupt_reading_side_never_reaches_the_writer(tmp_path: Path) -> None:
    """Source into sink, as a job does it: a truncated input leaves no output."""
    whole = png(noise(40, 40, 3))
    path = put(tmp_path / "in.png", whole[: len(whole) // 2])
    with pytest.raises(InputError), ImageSource(path) as source:
        plan = plan_output(source.info, metadata=source.metadata)
        with ImageSink(tmp_path / "out.png", plan, source.metadata) as sink:
            for frame in source:
                sink.write([frame.pixels], frame.pixels.shape[:2])
    assert contents(tmp_path) == ["in.png"]


def test_idat_of_a_written_png_is_one_valid_stream(tmp_path: Path) -> None:
    """By hand, without any PNG reader: signature, checksums, and a stream of exactly the right length."""
    pixels = noise(33, 21, 3, "uint16")
    data = write(tmp_path / "x.png", pixels, "png").read_bytes()
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    at, stream, names = 8, b"", []
    while at < len(data):
        length = int.from_bytes(data[at : at + 4], "big")
        body = data[at + 4 : at + 8 + length]
        assert zlib.crc32(body) == int.from_bytes(data[at + 8 + length : at + 12 + length], "big")
        names.append(body[:4])
        stream += body[4:] if body[:4] == b"IDAT" else b""
        at += 12 + length
    assert names[0] == b"IHDR" and names[-1] == b"IEND"
    assert len(zlib.decompress(stream)) == 33 * (1 + 21 * 6)
