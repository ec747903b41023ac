"""Claims that hold for every image format: reading, writing, depth, alpha, metadata, orientation, damage, hostile headers.

Input files are made by Pillow, tifffile or by hand, so that what is tested does not also make its own input. A format that is
added to `formats.FORMATS` adds a line to SAMPLES.
"""

from __future__ import annotations

import io
import json
import struct
import subprocess
import sys
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from PIL import Image, ImageCms, ImageOps

from conftest import make_photo
from image_files import PNG_SIGNATURE, chunk, exif, put, saved
from upframe.errors import InputError
from upframe.media.frames import MediaInfo
from upframe.media.image.files import ImageSink, Metadata, plan_output
from upframe.media.image.formats import FORMATS, Format
from upframe.media.image.source import ImageSource, probe, read_pixels

Pixels = NDArray[Any]


@dataclass(frozen=True)
class Sample:
    """How test files of a format are made, and what of a picture survives in them."""

    pillow: str
    """Pillow's name of the format."""
    modes: tuple[str, ...]
    """Pillow's modes that a file is made of."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """For a file as close to the picture as the format allows."""
    error: float = 0
    """Largest mean error, in codes of 8 bits, of a smooth picture written by Pillow with `options` and read by upframe."""
    written_error: float = 0
    """The same for a picture written by upframe at its default quality; documented as near, not as exact."""
    orients: bool = True
    """Whether Pillow writes EXIF with it."""
    plugin: str = ""
    """Module of Pillow's plugin for it."""


SAMPLES: dict[str, Sample] = {
    "png": Sample("PNG", ("L", "LA", "RGB", "RGBA")),
    "jpeg": Sample("JPEG", ("L", "RGB"), {"quality": 95, "subsampling": 0}, error=2, written_error=2),
    "webp": Sample("WEBP", ("RGB", "RGBA"), {"lossless": True}, written_error=6),  # no full-resolution colour when lossy
    "tiff": Sample("TIFF", ("L", "LA", "RGB", "RGBA")),
    "bmp": Sample("BMP", ("L", "RGB"), orients=False),
    "avif": Sample("AVIF", ("RGB", "RGBA"), {"quality": 95, "subsampling": "4:4:4"}, error=3, written_error=3),
    "gif": Sample("GIF", ("RGB",), error=12, written_error=12, orients=False),  # 256 colours
    "tga": Sample("TGA", ("L", "RGB", "RGBA"), orients=False),
    "pcx": Sample("PCX", ("L", "RGB"), orients=False),
    "pnm": Sample("PPM", ("L", "RGB"), orients=False),
    "ico": Sample("ICO", ("RGBA",), orients=False),
    "heif": Sample("HEIF", ("RGB",), {"quality": 95, "chroma": 444}, error=3, plugin="pillow_heif"),
    "jxl": Sample("JXL", ("RGB",), {"lossless": True}, plugin="pillow_jxl"),
}

READ = pytest.mark.parametrize("name", SAMPLES)
WRITTEN = pytest.mark.parametrize("name", [name for name, facts in FORMATS.items() if facts.writable])


def smooth(height: int, width: int, channels: int = 3) -> Pixels:
    """A smooth picture; alpha, where asked for, is opaque above and half transparent below."""
    y, x = np.mgrid[0:height, 0:width]
    planes = [40 + 100 * x // width, 60 + 90 * y // height, 200 - 60 * (x + y) // (height + width)]
    colours = planes if channels > 2 else planes[:1]
    alpha = [np.where(y < height // 2, 255, 128)] if channels in (2, 4) else []
    return np.stack([*colours, *alpha], -1).astype(np.uint8)


def made(name: str, pixels: Pixels, **options: Any) -> bytes:
    """A file of (H, W, C) 8-bit pixels in this format, by Pillow; skips where its plugin is not installed."""
    sample = SAMPLES[name]
    if sample.plugin:
        module = pytest.importorskip(sample.plugin, reason=f"{sample.plugin} is not installed")
        if hasattr(module, "register_heif_opener"):
            module.register_heif_opener()
    image = Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
    sized = {"sizes": [image.size]} if name == "ico" else {}  # else Pillow makes smaller ones as well
    return saved(image, sample.pillow, **{**sample.options, **sized, **options})


def planned(name: str, pixels: Pixels, metadata: Metadata | None = None) -> Any:
    info = MediaInfo(Path(f"x{FORMATS[name].extensions[0]}"), name, pixels.shape[:2], pixels.shape[2], pixels.dtype)
    return plan_output(info, requested=name, metadata=metadata)


def write(path: Path, pixels: Pixels, plan: Any, metadata: Metadata | None = None) -> Path:
    with ImageSink(path, plan, metadata) as sink:
        sink.write([pixels[:9], pixels[9:]] if len(pixels) > 9 else [pixels], pixels.shape[:2])
    return path


def mean_error(a: Pixels, b: Pixels) -> float:
    return float(np.abs(a.astype(float) - b).mean())


# The table ------------------------------------------------------------------------------------------------------------
def test_every_format_has_a_sample() -> None:
    assert SAMPLES.keys() == FORMATS.keys() - {"raw"}, "camera RAW is recognised only to be refused"
    assert not FORMATS["raw"].writable


@pytest.mark.parametrize("facts", FORMATS.values(), ids=lambda facts: facts.name)
def test_facts_agree(facts: Format) -> None:
    assert facts.extensions and all(e.startswith(".") and e == e.lower() for e in facts.extensions)
    others = {e for other in FORMATS.values() if other is not facts for e in other.extensions}
    assert not others & set(facts.extensions), "an extension names one format"
    assert facts.dtypes[0] == "uint8" and set(facts.dtypes) <= {"uint8", "uint16", "float32"}


# Reading --------------------------------------------------------------------------------------------------------------
@READ
def test_a_foreign_file_is_read_with_its_channels(tmp_path: Path, name: str) -> None:
    sample = SAMPLES[name]
    for mode in sample.modes:
        pixels = smooth(25, 38, len(mode))
        path = put(tmp_path / f"{mode}{FORMATS[name].extensions[0]}", made(name, pixels))
        info = probe(path)
        read = read_pixels(path)
        assert (info.format, info.size, info.frames, info.animated) == (name, (25, 38), 1, False)
        assert info.channels == read.shape[2] == pixels.shape[2] and read.dtype == info.dtype == np.uint8
        if sample.error:
            assert mean_error(read, pixels) <= sample.error
        else:
            np.testing.assert_array_equal(read, pixels)


@READ
def test_content_decides_and_not_the_name(tmp_path: Path, name: str) -> None:
    content = made(name, smooth(12, 17))
    other = ".png" if name != "png" else ".bmp"
    info = probe(put(tmp_path / f"x{other}", content))
    assert info.format == name and probe(put(tmp_path / "none", content)).format == name
    assert [notice.id for notice in info.notices] == ["ext-mismatch"]


@READ
def test_bytes_behind_the_picture_change_nothing(tmp_path: Path, name: str) -> None:
    """Phones and cameras append previews and records; whatever follows the end is not part of the picture. A file of boxes
    has no end of its own: there it is a box more, and anything else counts as a box that is cut off."""
    content = made(name, smooth(25, 38))
    expected = read_pixels(put(tmp_path / "whole", content))
    appended = bytes(range(1, 200))
    if name in ("avif", "heif"):
        with pytest.raises(InputError, match=r"truncated|damaged"):
            read_pixels(put(tmp_path / "cut", content + appended))
        appended = struct.pack(">I4s", 8 + len(appended), b"free") + appended
    np.testing.assert_array_equal(read_pixels(put(tmp_path / "longer", content + appended)), expected)


@READ
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_applied_exactly_once(tmp_path: Path, name: str, orientation: int) -> None:
    if not SAMPLES[name].orients:
        pytest.skip("holds no orientation")
    photo = make_photo(24, 40)
    tag = Image.Exif()
    tag[0x0112] = orientation
    if name == "tiff":
        buffer = io.BytesIO()
        tifffile.imwrite(buffer, photo, photometric="rgb", extratags=[(274, 3, 1, orientation, True)])
        content, stored = buffer.getvalue(), Image.fromarray(photo)
    else:
        content = made(name, photo, exif=tag.tobytes())
        stored = Image.fromarray(read_pixels(put(tmp_path / "plain", made(name, photo))))
    stored.getexif()[0x0112] = orientation
    path = put(tmp_path / f"x{FORMATS[name].extensions[0]}", content)
    with ImageSource(path) as source:
        (frame,) = source
        cleaned = Image.Exif()
        cleaned.load(source.metadata.exif or b"")
    np.testing.assert_array_equal(frame.pixels, np.asarray(ImageOps.exif_transpose(stored)))
    assert source.info.size == frame.pixels.shape[:2]
    assert cleaned.get(0x0112, 1) == 1
    assert "bad-orientation" not in {notice.id for notice in source.notices}


# Damage ---------------------------------------------------------------------------------------------------------------
@READ
@pytest.mark.parametrize("share", [0.02, 0.3, 0.6, 0.9])
def test_a_truncated_file_is_refused_or_kept_with_a_notice(tmp_path: Path, name: str, share: float) -> None:
    """Never pixels without a word. What can be kept has the size of the whole."""
    content = made(name, make_photo(120, 90))
    path = put(tmp_path / "x", content[: int(len(content) * share)])
    with pytest.raises(InputError, match=r"truncated|damaged|not an image" if share < 0.1 else r"truncated|damaged"):
        read_pixels(path)
    try:
        with ImageSource(path, allow_truncated=True) as source:
            (frame,) = source
    except InputError:
        return
    assert [notice.id for notice in source.notices] == ["truncated"]
    assert frame.pixels.shape == (120, 90, 3)


def bombs() -> dict[str, bytes]:
    """A few hundred bytes each that say they are a picture of gigabytes."""
    side = 100_000
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 6, 0, 0, 0))
    jpeg = bytearray(saved(Image.new("RGB", (8, 8)), "JPEG"))
    at = jpeg.index(b"\xff\xc0")
    jpeg[at + 5 : at + 9] = struct.pack(">HH", 65000, 65000)
    bmp = bytearray(saved(Image.new("RGB", (8, 8)), "BMP"))
    bmp[18:26] = struct.pack("<ii", side, side)
    gif = bytearray(saved(Image.new("P", (8, 8)), "GIF"))
    gif[6:10] = struct.pack("<HH", 65535, 65535)
    webp = b"VP8X" + struct.pack("<I", 10) + bytes(4) + b"\xff\xff\xff"[:3] * 2
    webp = b"RIFF" + struct.pack("<I", len(webp) + 12) + b"WEBP" + webp + bytes(8)
    avif = bytearray(saved(Image.new("RGB", (8, 8)), "AVIF"))
    at = avif.index(b"ispe") + 8
    avif[at : at + 8] = struct.pack(">II", side, side)
    tiff = struct.pack("<2sHIH", b"II", 42, 8, 8)
    for tag, kind, value in (
        (256, 4, side), (257, 4, side), (258, 3, 8), (259, 3, 1), (262, 3, 1), (273, 4, 8), (277, 3, 1), (279, 4, 8)
    ):  # fmt: skip
        tiff += struct.pack("<HHII", tag, kind, 1, value)
    return {
        "png": PNG_SIGNATURE + head + chunk(b"IDAT", zlib.compress(bytes(100))) + chunk(b"IEND", b""),
        "jpeg": bytes(jpeg),
        "bmp": bytes(bmp),
        "gif": bytes(gif),
        "webp": webp,
        "avif": bytes(avif),
        "tiff": tiff + bytes(4),
    }


PROBE = """
import json, resource, sys
import upframe.media.image.files as files
from upframe.errors import InputError

answers = {}
now = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (now + 100_000_000,) * 2)
for path in sys.argv[1:]:
    try:
        answers[path] = f"taken: {files.probe(path, limits=files.Limits(max_pixels=100_000_000)).size}"
    except InputError as error:
        answers[path] = str(error)
    except MemoryError:
        answers[path] = "memory ran out"
print(json.dumps(answers))
"""


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Format → what `probe` says of its bomb, in a process whose address space may not grow by 100 MB."""
    if not Path("/proc/self/statm").exists():
        pytest.skip("address space is measured through /proc")
    folder = tmp_path_factory.mktemp("bombs")
    paths = [str(put(folder / name, content)) for name, content in bombs().items()]
    done = subprocess.run([sys.executable, "-c", PROBE, *paths], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return {Path(path).name: answer for path, answer in json.loads(done.stdout).items()}


@WRITTEN
def test_a_bomb_is_refused_before_allocation(answers: dict[str, str], name: str) -> None:
    assert "megapixels, more than the limit of 100" in answers[name]
    assert "Raise the limit" in answers[name]


# Writing --------------------------------------------------------------------------------------------------------------
@WRITTEN
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_pixels_come_back_or_the_plan_says_what_is_lost(tmp_path: Path, name: str, dtype: str, channels: int) -> None:
    """Depth and transparency: kept, or reported before anything is written, and then another format may be chosen."""
    facts = FORMATS[name]
    pixels: Pixels = smooth(21, 34, channels)
    if dtype == "uint16":
        pixels = pixels.astype(np.uint16) * 257 + 1
    elif dtype == "float32":
        pixels = (pixels / 255).astype(np.float32)
    plan = planned(name, pixels)
    told = [notice.id for notice in plan.notices]
    needs_png = channels in (2, 4) and not facts.holds_alpha
    assert plan.format == ("png" if needs_png else name)
    assert ("alpha-needs-png" in told) == needs_png
    holds = FORMATS[plan.format].dtypes
    assert ("depth-reduced" in told) == (dtype not in holds or plan.format == "gif")
    assert plan.dtype == (dtype if dtype in holds else holds[-1])
    if plan.dtype != pixels.dtype:
        return  # the caller converts, as upscaling does
    read = read_pixels(write(tmp_path / f"x{plan.extension}", pixels, plan))
    assert read.dtype == pixels.dtype and read.shape[:2] == (21, 34)
    tolerance = SAMPLES[plan.format].written_error
    if not tolerance:
        np.testing.assert_array_equal(read, pixels)
        return
    shown = [np.asarray(_image(one).convert("RGBA")).astype(float) for one in (read, pixels)]
    visible = shown[1][..., 3:] > 0
    if plan.format != "gif" or channels in (1, 3):  # GIF has no half transparency
        assert mean_error(shown[0] * visible, shown[1] * visible) <= tolerance
    if plan.format != "gif":
        assert np.abs(shown[0][..., 3] - shown[1][..., 3]).max() <= 2, "transparency stays"


def _image(pixels: Pixels) -> Image.Image:
    return Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)


@WRITTEN
def test_the_smallest_pictures_can_be_written(tmp_path: Path, name: str) -> None:
    for channels in (1, 2, 3, 4) if FORMATS[name].holds_alpha else (1, 3):
        for size in ((1, 1), (1, 5), (7, 1), (2, 3)):
            pixels = np.full((*size, channels), 255, np.uint8)
            assert read_pixels(write(tmp_path / "x", pixels, planned(name, pixels))).shape[:2] == size


@WRITTEN
def test_metadata_come_back_or_the_plan_says_what_is_lost(tmp_path: Path, name: str) -> None:
    icc = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><d tiff:Orientation="1"/></x:xmpmeta>'
    upright = exif((3, 1, b"\0\1\0\0"), size=(20, 30))
    metadata = Metadata(icc=icc, exif=upright, xmp=xmp, dpi=(300.0, 300.0))
    pixels = smooth(20, 30)
    plan = planned(name, pixels, metadata)
    lost = " ".join(notice.message for notice in plan.notices if notice.id == "metadata-dropped")
    with ImageSource(write(tmp_path / "x", pixels, plan, metadata)) as source:
        found = source.metadata
    for value, word in ((found.icc, "colour profile"), (found.exif, "EXIF"), (found.xmp, "XMP")):
        assert (value is None) == (word in lost), word
    assert found.icc in (None, icc)
    if found.exif is not None:
        parsed = Image.Exif()
        parsed.load(found.exif)
        assert parsed[0x010F] == "Acme"
    if found.dpi is not None:
        np.testing.assert_allclose(found.dpi, (300, 300), atol=0.02)
    else:  # WebP and AVIF keep it in EXIF
        assert "resolution" in lost or name in ("webp", "avif")


@WRITTEN
def test_the_same_picture_gives_the_same_bytes(tmp_path: Path, name: str) -> None:
    pixels = make_photo(40, 50)
    plan = planned(name, pixels)
    first, second = (write(tmp_path / part, pixels, plan).read_bytes() for part in ("a", "b"))
    assert first == second


def test_upframe_writes_no_format_that_needs_a_plugin() -> None:
    assert not [name for name, sample in SAMPLES.items() if sample.plugin and FORMATS[name].writable]
