"""A folder of nasty images, made by code, and what is promised for each of them."""

from __future__ import annotations

import io
import os
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image, ImageCms

Pixels = NDArray[Any]


@dataclass(frozen=True)
class Written:
    """The promise of an output."""

    size: tuple[int, int]
    """(height, width) of the input, upright; the output has twice that."""
    channels: int
    format: str = "png"
    dtype: str = "uint8"
    frames: int = 1
    notices: tuple[str, ...] = ()
    """Ids, in order of appearance."""
    exact: Pixels | None = None
    """Upright (H, W, C) input; when given, each of its pixels is found four times in the output, bit for bit."""
    output: str | None = None
    """Name of the output where it is not that of the input."""


@dataclass(frozen=True)
class Failed:
    """The promise of a failure of this one item."""

    exit_code: int
    says: str
    """Part of the message."""


@dataclass(frozen=True)
class Ignored:
    """The promise that it is not taken for an input at all."""


@dataclass(frozen=True)
class Nasty:
    """One entry of the folder."""

    name: str
    """Path below the folder, with forward slashes."""
    make: Callable[[Path], None]
    promise: Written | Failed | Ignored


# Pictures -------------------------------------------------------------------------------------------------------------
def _noise(height: int, width: int, channels: int, dtype: str = "uint8", *, top: int | None = None) -> Pixels:
    """Random samples, none of them 0, so that no alpha is fully transparent."""
    rng = np.random.default_rng((height, width, channels))
    return rng.integers(1, top or np.iinfo(dtype).max, (height, width, channels), dtype, endpoint=True)


def _smooth(height: int, width: int) -> Pixels:
    y, x = np.mgrid[0:height, 0:width]
    return np.stack([x * 200 // width + 20, y * 200 // height + 20, (x + y) * 100 // (height + width) + 40], -1).astype(
        np.uint8
    )


def _image(pixels: Pixels) -> Image.Image:
    return Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)


def _saved(image: Image.Image, format: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def _chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def png(samples: Pixels, *, extra: bytes = b"") -> bytes:
    """A PNG of (H, W, C) uint8 or uint16 samples, written by hand: Pillow has no 16-bit RGB."""
    height, width, channels = samples.shape
    depth = samples.dtype.itemsize * 8
    rows = samples.astype(samples.dtype.newbyteorder(">")).reshape(height, -1).view(np.uint8)
    data = zlib.compress(np.hstack([np.zeros((height, 1), np.uint8), rows]).tobytes())
    head = struct.pack(">IIBBBBB", width, height, depth, {1: 0, 2: 4, 3: 2, 4: 6}[channels], 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", head) + extra + _chunk(b"IDAT", data) + _chunk(b"IEND", b"")


def _tiff(*pages: Pixels, **options: Any) -> bytes:
    buffer = io.BytesIO()
    with tifffile.TiffWriter(buffer) as writer:
        for page in pages:
            writer.write(
                page if page.shape[2] > 1 else page[..., 0], photometric="rgb" if page.shape[2] == 3 else None, **options
            )
    return buffer.getvalue()


def _exif(orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif.tobytes()


def _frames(count: int) -> list[Image.Image]:
    return [Image.fromarray(np.full((12, 10, 3), 40 + 50 * i, np.uint8)) for i in range(count)]


def _animation(format: str, **options: Any) -> bytes:
    first, *others = _frames(4)
    return _saved(first, format, save_all=True, append_images=others, duration=[30, 100, 250, 40], loop=2, **options)


def _icc() -> bytes:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def _palette(**options: Any) -> bytes:
    indexed = Image.new("P", (9, 6))
    indexed.putpalette([10, 20, 30, 200, 100, 50, 0, 255, 0])
    indexed.putdata([i % 3 for i in range(54)])
    return _saved(indexed, "PNG", **options)


def _palette_pixels(alpha: tuple[int, ...] | None = None) -> Pixels:
    colours = [(10, 20, 30), (200, 100, 50), (0, 255, 0)]
    entries = np.array([c if alpha is None else (*c, a) for c, a in zip(colours, alpha or (0, 0, 0), strict=True)], np.uint8)
    return entries[np.arange(54) % 3].reshape(6, 9, -1)


# The folder -----------------------------------------------------------------------------------------------------------
def _file(name: str, data: bytes, promise: Written | Failed | Ignored) -> Nasty:
    def make(path: Path) -> None:
        path.write_bytes(data)

    return Nasty(name, make, promise)


def _good() -> list[Nasty]:
    """Pictures of every kind of sample, each to be enlarged exactly."""
    made = []
    for name, pixels in {
        "rgb8.png": _noise(7, 5, 3),
        "rgba8.png": _noise(7, 5, 4),
        "gray8.png": _noise(8, 6, 1),
        "gray_alpha8.png": _noise(8, 7, 2),
        "rgb16_dark.png": _noise(6, 9, 3, "uint16", top=256),
        "rgba16.png": _noise(6, 8, 4, "uint16"),
        "gray16.png": _noise(5, 9, 1, "uint16"),
        "gray_alpha16.png": _noise(5, 7, 2, "uint16"),
        "one_pixel.png": _noise(1, 1, 3),
        "one_row.png": _noise(1, 97, 3),
        "one_column.png": _noise(89, 1, 1),
        "prime.png": _noise(31, 13, 3),
        "UPPER.PNG": _noise(4, 4, 3),
        "sub/deep/nested.png": _noise(4, 5, 3),
        "folder.png/inner.png": _noise(5, 4, 3),
        "été 東京 🌅.png": _noise(3, 4, 3),
        "e\u0301 in two code points.png": _noise(4, 3, 3),
        "a 'quoted' \"name\" & 100%d #1 50%_off.png": _noise(3, 3, 3),
        "two\nlines.png": _noise(3, 5, 3),
        "-rf.png": _noise(5, 3, 3),
        "trailing dot..png": _noise(2, 3, 3),
        "l" * 251 + ".png": _noise(2, 2, 3),
    }.items():
        promise = Written(pixels.shape[:2], pixels.shape[2], dtype=pixels.dtype.name, exact=pixels)  # type: ignore[arg-type]
        made.append(_file(name, png(pixels), promise))
    opaque = np.concatenate([_noise(6, 6, 3), np.full((6, 6, 1), 255, np.uint8)], -1)
    made.append(_file("opaque.png", png(opaque), Written((6, 6), 4, exact=opaque)))
    hidden = np.concatenate([_noise(6, 7, 3), np.zeros((6, 7, 1), np.uint8)], -1)
    made.append(_file("transparent.png", png(hidden), Written((6, 7), 4, exact=hidden)))
    float_pixels = np.random.default_rng(0).random((6, 5, 3), np.float32)
    made.append(_file("float.tif", _tiff(float_pixels), Written((6, 5), 3, "tiff", "float32", exact=float_pixels)))
    deep = _noise(7, 6, 3, "uint16")
    made.append(_file("rgb16.tiff", _tiff(deep), Written((7, 6), 3, "tiff", "uint16", exact=deep)))
    pages = [_noise(5, 6, 3), _noise(5, 6, 3)[::-1], _noise(3, 9, 3)]
    made.append(_file("pages.tif", _tiff(*pages), Written((5, 6), 3, "tiff", frames=3, exact=pages[0])))
    upright = _noise(9, 4, 3)
    bitmap = _saved(_image(upright), "BMP")
    return [*made, _file("plain.bmp", bitmap, Written((9, 4), 3, "bmp", exact=upright))]


def _odd() -> list[Nasty]:
    """Pictures that lose or change something on the way, and say so."""
    smooth, jpeg = _smooth(24, 32), _saved(_image(_smooth(24, 32)), "JPEG", quality=95)
    bits = _noise(6, 10, 1) > 128
    icc, texts = _chunk(b"iCCP", b"x\0\0" + zlib.compress(_icc())), _chunk(b"tEXt", b"Author\0somebody")
    beyond = np.array([[[-0.5, 0.25, 3.0], [0.5, 0.75, 1.0]]], np.float32)
    above = np.array([[[0, 0.25, 3.0], [0.5, 0.75, 1.0]]], np.float32)
    same = _noise(4, 3, 3)
    return [
        _file("palette.png", _palette(), Written((6, 9), 3, exact=_palette_pixels())),
        _file(
            "palette_alpha.png",
            _palette(transparency=bytes([255, 128, 7])),
            Written((6, 9), 4, exact=_palette_pixels((255, 128, 7))),
        ),
        _file(
            "one_bit.png",
            _saved(Image.fromarray(bits[..., 0]), "PNG"),
            Written((6, 10), 1, notices=("one-bit-to-gray",), exact=bits.astype(np.uint8) * 255),
        ),
        _file("photo.jpg", jpeg, Written((24, 32), 3, "jpeg")),
        _file("gray.jpeg", _saved(_image(smooth).convert("L"), "JPEG"), Written((24, 32), 1, "jpeg")),
        _file("orientation6.jpg", _saved(_image(smooth), "JPEG", exif=_exif(6)), Written((32, 24), 3, "jpeg")),
        _file(
            "orientation9.jpg",
            _saved(_image(smooth), "JPEG", exif=_exif(9)),
            Written((24, 32), 3, "jpeg", notices=("bad-orientation",)),
        ),
        _file(
            "cmyk.jpg",
            _saved(_image(smooth).convert("CMYK"), "JPEG"),
            Written((24, 32), 3, "jpeg", notices=("converted-from-cmyk",)),
        ),
        _file("profile.png", png(smooth, extra=icc + texts), Written((24, 32), 3, exact=smooth)),
        _file(
            "bad_profile.png",
            png(smooth, extra=_chunk(b"iCCP", b"x\0\0" + zlib.compress(b"no profile at all" * 20))),
            Written((24, 32), 3, notices=("bad-icc",), exact=smooth),
        ),
        _file("lossless.webp", _saved(_image(smooth), "WEBP", lossless=True), Written((24, 32), 3, "webp")),
        _file("photo.avif", _saved(_image(smooth), "AVIF"), Written((24, 32), 3, "avif")),
        _file("moving.gif", _animation("GIF"), Written((12, 10), 3, "gif", frames=4, notices=("depth-reduced",))),
        _file("moving.png", _animation("PNG"), Written((12, 10), 3, frames=4)),
        _file("moving.webp", _animation("WEBP", lossless=True), Written((12, 10), 3, "webp", frames=4)),
        _file("really_jpeg.png", jpeg, Written((24, 32), 3, notices=("ext-mismatch",))),
        _file(
            "float_beyond.tif",
            _tiff(beyond),
            Written((1, 2), 3, "tiff", "float32", notices=("values-clipped",), exact=above),
        ),
        _file("Case.png", png(same), Written((4, 3), 3, exact=same)),
        _file("case.png", png(same), Written((4, 3), 3, notices=("name-collision",), exact=same, output="case.png.png")),
    ]


def _bad() -> list[Nasty]:
    """Files that no picture can be made of."""
    photo = _saved(_image(_noise(48, 64, 3)), "JPEG")
    whole = png(_noise(40, 30, 3))
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 0x10
    bomb = b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", struct.pack(">IIBBBBB", 100_000, 100_000, 8, 2, 0, 0, 0))
    bomb += _chunk(b"IDAT", zlib.compress(bytes(1000))) + _chunk(b"IEND", b"")
    first, second = _frames(2)
    return [
        _file("zero.png", b"", Failed(3, "empty (0 bytes)")),
        _file("text.png", b"this is no picture\n", Failed(3, "it holds text")),
        _file("page.png", b"<!DOCTYPE html><html>not found</html>", Failed(3, "it holds HTML")),
        _file("foreign.png", b"8BPS\0\1" + bytes(100), Failed(3, "it holds Photoshop")),
        _file("truncated.jpg", photo[: len(photo) * 6 // 10], Failed(3, "truncated")),
        _file("truncated.png", whole[: len(whole) * 6 // 10], Failed(3, "truncated")),
        _file("flipped.png", bytes(flipped), Failed(3, "truncated")),
        _file("bomb.png", bomb, Failed(3, "more than the limit")),
        _file("nan.tif", _tiff(np.full((2, 3, 3), np.nan, np.float32)), Failed(3, "6 of 6 pixels are NaN")),
        _file("stereo.jpg", _saved(first, "MPO", save_all=True, append_images=[second]), Failed(3, "multi-picture")),
        _file("cut_header.tif", b"II*\0\xff\xff\0\0", Failed(3, "damaged")),
        _file("camera.dng", b"II*\0\x08\0\0\0\0\0" + bytes(20), Failed(3, "camera RAW")),
    ]


def _no_files() -> list[Nasty]:
    """Entries that lie about in folders beside pictures."""
    picture = png(_noise(3, 3, 3))

    def unreadable(path: Path) -> None:
        path.write_bytes(picture)
        path.chmod(0)

    made = [
        _file("Thumbs.db", b"system", Ignored()),
        _file(".DS_Store", b"system", Ignored()),
        _file("desktop.ini", b"system", Ignored()),
        _file(".hidden.png", picture, Ignored()),
        _file(".photo.png.part", b"cut off", Ignored()),
        _file("notes.txt", b"text", Ignored()),
        Nasty("pipe.png", lambda path: os.mkfifo(path), Ignored()),
        Nasty("loop.png", lambda path: path.symlink_to(path.name), Ignored()),
        Nasty("dead_link.png", lambda path: path.symlink_to("nowhere.png"), Ignored()),
        Nasty("sub/back", lambda path: path.symlink_to("../.."), Ignored()),
        Nasty("link.png", lambda path: path.symlink_to("rgb8.png"), Written((7, 5), 3, exact=_noise(7, 5, 3))),
    ]
    if os.geteuid() != 0:  # nothing is unreadable to the superuser
        made.append(Nasty("unreadable.png", unreadable, Failed(3, "permission denied")))
    return made


def nasty_folder(folder: Path) -> list[Nasty]:
    """Make the folder; returns its entries with what is promised for each when it is enlarged twice."""
    entries = all_entries()
    for entry in entries:
        path = folder / entry.name
        path.parent.mkdir(parents=True, exist_ok=True)
        entry.make(path)
    return entries


def all_entries() -> list[Nasty]:
    return [*_good(), *_odd(), *_bad(), *_no_files()]
