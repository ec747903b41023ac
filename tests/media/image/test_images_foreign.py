"""Old formats that upframe reads and does not write, and formats that it only knows by name."""

from __future__ import annotations

import logging
import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from conftest import make_photo
from image_files import noise, put, saved
from upframe.errors import InputError
from upframe.jobs.naming import find_inputs
from upframe.media.image.formats import sniff
from upframe.media.image.source import ImageSource, probe, read_pixels


# Netpbm ---------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
@pytest.mark.parametrize("text", [True, False])
def test_netpbm_is_read_exactly_at_its_own_depth(tmp_path: Path, channels: int, dtype: str, text: bool) -> None:
    pixels = noise(5, 7, channels, dtype)
    kind = (2 if channels == 1 else 3) + (0 if text else 3)
    head = b"P%d\n# made by hand\n7 5\n%d\n" % (kind, np.iinfo(dtype).max)
    body = (
        " ".join(str(v) for v in pixels.ravel()).encode() if text else pixels.astype(pixels.dtype.newbyteorder(">")).tobytes()
    )
    path = put(tmp_path / "x.pnm", head + body)
    read = read_pixels(path)
    assert read.dtype == dtype
    np.testing.assert_array_equal(read, pixels)
    with ImageSource(path) as source:
        assert source.metadata.comment == b"made by hand"


def test_netpbm_of_any_range_fills_that_of_its_type(tmp_path: Path) -> None:
    np.testing.assert_array_equal(read_pixels(put(tmp_path / "x.pgm", b"P5 3 1 4 " + bytes([0, 1, 4])))[0, :, 0], [0, 64, 255])
    deep = read_pixels(put(tmp_path / "y.pgm", b"P5 2 1 1023 " + struct.pack(">2H", 512, 1023)))
    assert deep.dtype == np.uint16 and deep[0, :, 0].tolist() == [round(512 * 65535 / 1023), 65535]


@pytest.mark.parametrize("data", [b"P1 10 2 0101010101 1111100000", b"P4 10 2 " + bytes([0x55, 0x40, 0xF8, 0x00])])
def test_one_bit_netpbm_is_black_where_it_says_1(tmp_path: Path, data: bytes) -> None:
    expected = 255 * (1 - np.array([[0, 1] * 5, [1] * 5 + [0] * 5]))
    path = put(tmp_path / "x.pbm", data)
    np.testing.assert_array_equal(read_pixels(path)[..., 0], expected)
    assert [notice.id for notice in probe(path).notices] == ["one-bit-to-gray"]


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"P5 4 4 255 " + bytes(8), "truncated, 50 % decoded"),
        (b"P2 4 4 255 1 2 3 4", "truncated, 25 % decoded"),
        (b"P5 4 4 0 " + bytes(16), "largest value"),
        (b"P5 4 4 70000 " + bytes(32), "largest value"),
        (b"P2 2 1 9 3 10", "above 9"),
        (b"P5 999999 999999 255 ", "megapixels"),
        (b"Pf 4 4 -1.0 " + bytes(64), "another kind"),
        (b"P7\nWIDTH 4\n", "another kind"),
    ],
)
def test_damaged_and_foreign_netpbm_is_refused(tmp_path: Path, data: bytes, says: str) -> None:
    with pytest.raises(InputError, match=says):
        read_pixels(put(tmp_path / "x.ppm", data))


# Others through Pillow ------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("format", "options"), [("TGA", {}), ("TGA", {"compression": "tga_rle"}), ("PCX", {})])
def test_textures_are_read_exactly(tmp_path: Path, format: str, options: dict[str, str]) -> None:
    photo = make_photo(25, 38)
    data = saved(Image.fromarray(photo), format, **options)
    assert sniff(data) == format.lower()
    np.testing.assert_array_equal(read_pixels(put(tmp_path / f"x.{format.lower()}", data)), photo)


def test_the_largest_picture_of_an_icon_is_read_and_the_others_are_named(tmp_path: Path) -> None:
    large = Image.fromarray(np.concatenate([make_photo(48, 48), np.full((48, 48, 1), 200, np.uint8)], -1))
    path = put(tmp_path / "x.ico", saved(large, "ICO", sizes=[(16, 16), (48, 48), (32, 32)]))
    np.testing.assert_array_equal(read_pixels(path), np.asarray(large))
    (notice,) = probe(path).notices
    assert notice.id == "embedded-dropped" and "2 smaller" in notice.message


def test_an_icon_that_states_a_poster_is_damaged(tmp_path: Path) -> None:
    icon = bytearray(saved(Image.fromarray(make_photo(48, 48)), "ICO", sizes=[(48, 48)]))
    icon[icon.index(b"IHDR") + 4 : icon.index(b"IHDR") + 12] = struct.pack(">II", 30000, 9000)
    with pytest.raises(InputError, match="no icon"):
        probe(put(tmp_path / "x.ico", bytes(icon)))


@pytest.mark.parametrize("data", [b"", bytes(18), bytes(600), b"\x00\x01\x01" + bytes(500), b"\x00\x00\x02" + bytes(15)])
def test_zeros_and_headers_without_a_size_are_no_tga(data: bytes) -> None:
    assert sniff(data) != "tga"


# Formats that upframe only knows by name --------------------------------------------------------------------------------
def test_a_folder_says_which_pictures_it_passed_over(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    saved_png = saved(Image.fromarray(make_photo(8, 8)), "PNG")
    put(tmp_path / "a.png", saved_png)
    for name in ("wall.dds", "art.psd", "notes.txt"):
        put(tmp_path / name, b"x")
    with caplog.at_level(logging.WARNING):
        found = find_inputs([tmp_path], output=None, recursive=False)
    assert [one.path.name for one in found] == ["a.png"]
    assert "passed over 2 files" in caplog.text and "wall.dds (DirectDraw surface)" in caplog.text
    assert "notes.txt" not in caplog.text


def test_a_folder_of_nothing_else_is_refused_by_the_names_of_formats(tmp_path: Path) -> None:
    put(tmp_path / "photo.jp2", b"x")
    with pytest.raises(InputError, match=r"only photo\.jp2 \(JPEG 2000\)\. Convert"):
        find_inputs([tmp_path], output=None, recursive=False)
