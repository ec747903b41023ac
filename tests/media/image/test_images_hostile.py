"""Bad, damaged and hostile inputs end in one clear error, fast and small (faults A1, A2, A4 to A6, A20, A21, A23, A24)."""

from __future__ import annotations

import os
import random
import re
import socket
import struct
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from PIL import Image

from conftest import make_photo
from image_files import (
    DISPARITY,
    MP4,
    PANORAMA,
    PNG_SIGNATURE,
    PREVIEW,
    UNDEFINED,
    chunk,
    exif,
    multi_picture,
    noise,
    photo_xmp,
    png,
    put,
    saved,
)
from upframe.errors import InputError
from upframe.media.image.files import Limits
from upframe.media.image.source import ImageSource, probe, read_pixels


# Not an image (A1, A2, A21, A23) --------------------------------------------------------------------------------------
def test_missing_and_empty_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        probe(tmp_path / "none.png")
    with pytest.raises(InputError, match=r"empty \(0 bytes\)"):
        probe(put(tmp_path / "x.png", b""))
    with pytest.raises(InputError, match="not a file name"):
        probe(tmp_path / "null\0byte.png")


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"just some text\n", "text"),
        (b"\n<!DOCTYPE html><html><body>404</body></html>", "HTML"),
        (b"%PDF-1.7\n", "PDF"),
        (b"\0\0\0\x18ftypisom\0\0\0\0isommp42", "video"),
        (bytes(100), "unknown data"),
        (b"8BPS\0\1", "Photoshop"),
    ],
)
def test_what_is_no_image_is_called_by_its_kind(tmp_path: Path, content: bytes, kind: str) -> None:
    with pytest.raises(InputError, match=rf"not an image that upframe can read \(it holds {kind}\)"):
        probe(put(tmp_path / "x.png", content))


@pytest.mark.parametrize(
    ("content", "extra"),
    [
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", r"upframe\[heif\]"),
        (b"\0\0\0\x0cJXL \r\n\x87\n", r"upframe\[jxl\]"),
        (b"\xff\x0a\0\0", r"upframe\[jxl\]"),
    ],
)
def test_formats_of_plugins_name_the_extra(tmp_path: Path, content: bytes, extra: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pillow_heif", None)  # absent, also where it is installed
    monkeypatch.setitem(sys.modules, "pillow_jxl", None)
    with pytest.raises(InputError, match=extra):
        probe(put(tmp_path / "x.heic", content))


def test_camera_raw_is_not_mistaken_for_tiff(tmp_path: Path) -> None:
    for name in ("x.tif", "y.dng"):
        tifffile.imwrite(tmp_path / name, noise(8, 8, 1)[..., 0], extratags=[(50706, 1, 4, bytes([1, 4, 0, 0]), True)])
        with pytest.raises(InputError, match="camera RAW"):
            probe(tmp_path / name)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
@pytest.mark.timeout(20)  # the claim is that nothing waits; without a limit a failure would hang
def test_pipes_devices_sockets_folders_and_loops_are_refused_without_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "loop.png").symlink_to(tmp_path / "loop.png")
    with socket.socket(socket.AF_UNIX) as listener:
        os.chdir(tmp_path)  # socket paths are short
        listener.bind("s.png")
        for name, reason in {
            tmp_path / "pipe.png": "named pipe",
            tmp_path / "s.png": "socket",
            Path("/dev/zero"): "device",
            tmp_path / "folder.png": "folder",
            tmp_path / "loop.png": "leads back to itself",
        }.items():
            with pytest.raises(InputError, match=reason):
                probe(name)


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="no such permissions here")
def test_unreadable_file_says_permission_denied(tmp_path: Path) -> None:
    path = put(tmp_path / "x.png", png(noise(2, 2, 3)))
    path.chmod(0)
    if os.geteuid() == 0:  # root reads everything: become nobody in a child process
        for folder in (tmp_path, *tmp_path.parents[:2]):
            folder.chmod(0o755)
        code = (
            "import os, sys; from upframe.media.image.files import probe; from upframe.errors import InputError\n"
            "os.setuid(65534)\ntry: probe(sys.argv[1])\nexcept InputError as error: print(error)"
        )
        result = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True)
        assert "permission denied" in result.stdout
    else:
        with pytest.raises(InputError, match="permission denied"):
            probe(path)


def test_messages_stay_one_line_whatever_the_name(tmp_path: Path) -> None:
    path = put(tmp_path / "two\nlines\x1b[31m.png", b"text")
    with pytest.raises(InputError) as caught:
        probe(path)
    assert "\n" not in str(caught.value) and "\x1b" not in str(caught.value)


@pytest.mark.parametrize("name", ["é.png", "e\u0301.png", "😀 x.png", "a#%&'\".png", "-x.png", "50%_off.PNG", "new\nline.png"])
def test_names_of_any_kind_work(tmp_path: Path, name: str) -> None:
    pixels = noise(2, 3, 3)
    np.testing.assert_array_equal(read_pixels(put(tmp_path / name, png(pixels))), pixels)


# Bombs (A6) -----------------------------------------------------------------------------------------------------------
def test_limit_can_be_raised_and_lowered(tmp_path: Path) -> None:
    path = put(tmp_path / "x.png", png(noise(10, 10, 3)))
    with pytest.raises(InputError, match=r"`limits\.max_pixels=100`"):
        probe(path, limits=Limits(max_pixels=99))
    assert probe(path, limits=Limits(max_pixels=100)).size == (10, 10)


@pytest.mark.slow
def test_decompression_of_png_stops_at_the_size_of_the_picture(tmp_path: Path) -> None:
    """A megapixel header over gigabytes of zeros: read as far as needed, never inflated into memory at once."""
    import tracemalloc

    stream = zlib.compressobj(9)
    data = b"".join(stream.compress(bytes(1 << 20)) for _ in range(200)) + stream.flush()
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", 100, 100, 8, 0, 0, 0, 0))
    path = put(tmp_path / "x.png", PNG_SIGNATURE + head + chunk(b"IDAT", data) + chunk(b"IEND", b""))
    tracemalloc.start()
    out = read_pixels(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert out.shape == (100, 100, 1) and peak < 20e6


def test_huge_compressed_text_is_left_out(tmp_path: Path) -> None:
    bomb = chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(50_000_000)))
    with ImageSource(put(tmp_path / "x.png", png(noise(2, 2, 3), before=bomb))) as source:
        assert source.metadata.text == ()


# Truncated and damaged (A4, A5) ---------------------------------------------------------------------------------------
def test_truncated_jpeg_says_how_much_was_decoded(tmp_path: Path) -> None:
    whole = saved(Image.fromarray(make_photo(200, 160)), "JPEG", quality=90)
    expected = read_pixels(put(tmp_path / "whole.jpg", whole))
    path = put(tmp_path / "x.jpg", whole[: int(len(whole) * 0.6)])
    with pytest.raises(InputError, match=r"truncated, (\d+) % decoded") as caught:
        read_pixels(path)
    percent = int(str(caught.value).split("truncated, ")[1].split(" ")[0])
    assert 45 <= percent <= 75, "of evenly detailed rows, 60 % of the bytes hold about 60 %"
    with ImageSource(path, allow_truncated=True) as source:
        (frame,) = source
    assert [notice.id for notice in source.notices] == ["truncated"]
    assert frame.pixels.shape == expected.shape
    rows = 200 * percent // 100 - 16  # the last row of blocks may be partial
    np.testing.assert_array_equal(frame.pixels[:rows], expected[:rows])


def test_truncated_progressive_jpeg_is_refused_or_coarse(tmp_path: Path) -> None:
    photo = make_photo(96, 96)
    whole = saved(Image.fromarray(photo), "JPEG", progressive=True, quality=90)
    path = put(tmp_path / "x.jpg", whole[: int(len(whole) * 0.6)])
    with pytest.raises(InputError, match="truncated"):
        read_pixels(path)
    with ImageSource(path, allow_truncated=True) as source:
        (frame,) = source
    # The first scans cover the whole picture: what is there resembles it everywhere, down to the last rows.
    assert np.abs(frame.pixels[-16:].astype(float) - photo[-16:]).mean() < 20


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_truncated_png_says_how_much_was_decoded(tmp_path: Path, dtype: str) -> None:
    pixels = noise(100, 40, 3, dtype)
    whole = png(pixels)
    path = put(tmp_path / "x.png", whole[: len(whole) // 2])
    with pytest.raises(InputError, match=r"truncated, (4[5-9]|50) % decoded"):
        read_pixels(path)
    with ImageSource(path, allow_truncated=True) as source:
        (frame,) = source
    assert [notice.id for notice in source.notices] == ["truncated"]
    np.testing.assert_array_equal(frame.pixels[:45], pixels[:45])
    assert not frame.pixels[52:].any()


@pytest.mark.parametrize("position", [0.3, 0.5, 0.97])
def test_any_flipped_bit_of_the_picture_data_of_a_png_is_noticed(tmp_path: Path, position: float) -> None:
    whole = bytearray(png(noise(30, 30, 3), before=chunk(b"tEXt", b"Author\0" + b"A" * 300)))
    whole[int(len(whole) * position)] ^= 4
    with pytest.raises(InputError, match=r"truncated|damaged"):
        read_pixels(put(tmp_path / "x.png", bytes(whole)))


# Whole pictures in damaged files --------------------------------------------------------------------------------------
def kept_with(path: Path, *notices: str, pixels: NDArray[Any]) -> None:
    """Assert that a file is read with these notices and exactly these pixels."""
    with ImageSource(path) as source:
        (frame,) = source
    assert [found.id for found in source.notices] == list(notices)
    np.testing.assert_array_equal(frame.pixels, pixels)


@pytest.mark.parametrize("name", [b"tEXt", b"gAMA", b"pHYs", b"iCCP", b"zzZz"])
def test_a_wrong_checksum_outside_the_pixels_of_a_png_costs_that_chunk_only(tmp_path: Path, name: bytes) -> None:
    pixels = noise(9, 7, 3)
    damaged = bytearray(chunk(name, b"Author\0somebody"))
    damaged[12] ^= 4
    path = put(tmp_path / "x.png", png(pixels, before=bytes(damaged) + chunk(b"tEXt", b"Title\0kept")))
    kept_with(path, "metadata-damaged", pixels=pixels)
    with ImageSource(path) as source:
        assert source.metadata.text == (("Title", "kept"),)


@pytest.mark.parametrize("name", [b"PLTE", b"tRNS", b"acTL"])
def test_a_wrong_checksum_of_what_changes_pixels_is_refused(tmp_path: Path, name: bytes) -> None:
    damaged = bytearray(chunk(name, bytes(12)))
    damaged[12] ^= 4
    with pytest.raises(InputError, match=f"checksum of its {name.decode()}"):
        read_pixels(put(tmp_path / "x.png", png(noise(9, 7, 3), before=bytes(damaged))))


@pytest.mark.parametrize("missing", [1, 11, 12, 14, 16])
def test_a_png_that_lacks_only_its_end_is_whole(tmp_path: Path, missing: int) -> None:
    """12 bytes are the closing chunk, four more the checksum of the data, which has one of its own."""
    pixels = noise(8, 8, 3)
    kept_with(put(tmp_path / "x.png", png(pixels)[:-missing]), "end-damaged", pixels=pixels)


def test_a_png_that_lacks_a_byte_of_its_data_is_not_whole(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="truncated"):
        read_pixels(put(tmp_path / "x.png", png(noise(8, 8, 3))[:-17]))


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"quality": 40}, {"subsampling": 2}], ids=str)
@pytest.mark.parametrize("size", [(24, 32), (50, 41)])
def test_a_jpeg_that_lacks_only_its_end_marker_is_whole(tmp_path: Path, size: tuple[int, int], options: dict[str, Any]) -> None:
    whole = saved(Image.fromarray(make_photo(*size)), "JPEG", **options)
    pixels = read_pixels(put(tmp_path / "whole.jpg", whole))
    for end in (b"", b"\xff", b"\0\0\0\0"):
        kept_with(put(tmp_path / "x.jpg", whole[:-2] + end), "end-damaged", pixels=pixels)


@pytest.mark.parametrize("progressive", [False, True])
def test_a_jpeg_that_lacks_bits_of_its_last_block_is_not_whole(tmp_path: Path, progressive: bool) -> None:
    whole = saved(Image.fromarray(make_photo(24, 32)), "JPEG", quality=95, progressive=progressive)
    for missing in (4, 5, 9, 30, 200):
        with pytest.raises(InputError, match="truncated"):
            read_pixels(put(tmp_path / "x.jpg", whole[:-missing]))


def test_a_progressive_jpeg_that_lacks_whole_scans_is_not_whole(tmp_path: Path) -> None:
    whole = saved(Image.fromarray(make_photo(48, 40)), "JPEG", quality=95, progressive=True)
    starts = [found.start() for found in re.finditer(rb"\xff\xda", whole)]
    assert len(starts) > 5
    for start in starts[1:]:
        with pytest.raises(InputError, match="truncated"):
            read_pixels(put(tmp_path / "x.jpg", whole[:start]))


def test_a_gif_that_lacks_only_its_closing_byte_is_whole(tmp_path: Path) -> None:
    frames = [Image.fromarray(make_photo(20, 16, seed=i)) for i in range(3)]
    whole = saved(frames[0], "GIF", save_all=True, append_images=frames[1:], duration=40)
    with ImageSource(put(tmp_path / "whole.gif", whole)) as source:
        expected = [frame.pixels for frame in source]
    with ImageSource(put(tmp_path / "x.gif", whole[:-1])) as source:
        kept = [frame.pixels for frame in source]
    assert [notice.id for notice in source.notices] == ["end-damaged"]
    np.testing.assert_array_equal(kept, expected)


@pytest.mark.parametrize(("missing", "notices"), [(1, ["end-damaged"]), (30, ["end-damaged", "metadata-damaged"])])
def test_a_webp_that_lacks_only_metadata_behind_its_picture_is_whole(tmp_path: Path, missing: int, notices: list[str]) -> None:
    whole = saved(Image.fromarray(make_photo(20, 16)), "WEBP", lossless=True, xmp=b"<x>" + b"a" * 100 + b"</x>")
    pixels = read_pixels(put(tmp_path / "whole.webp", whole))
    kept_with(put(tmp_path / "x.webp", whole[:-missing]), *notices, pixels=pixels)


def test_a_webp_that_states_gigabytes_is_read_at_once(tmp_path: Path) -> None:
    whole = bytearray(saved(Image.fromarray(make_photo(20, 16)), "WEBP", lossless=True))
    whole[4:8] = b"\xfe\xff\xff\xff"
    kept_with(put(tmp_path / "x.webp", bytes(whole)), "end-damaged", pixels=make_photo(20, 16))


def gif(size: tuple[int, int], place: tuple[int, int] = (0, 0), frames: int = 2) -> bytes:
    """An animation of one gray colour whose canvas is `size` (height, width); its frames of 8x8 lie at `place`."""
    frame = b"!\xf9\x04\0\x05\0\0\0," + struct.pack("<4HB", place[1], place[0], 8, 8, 0)
    data = saved(Image.new("L", (8, 8), 0), "GIF")
    coded = data[data.index(b",") + 10 : -1]
    return b"GIF89a" + struct.pack("<HHBBB", size[1], size[0], 0xF0, 0, 0) + bytes(6) + (frame + coded) * frames + b";"


def test_impossible_sizes_of_a_gif_are_damage_and_not_a_wrong_request(tmp_path: Path) -> None:
    assert probe(put(tmp_path / "x.gif", gif((8, 8)))).frames == 2
    assert probe(put(tmp_path / "x.gif", gif((90, 700)))).size == (90, 700), "frames may cover a part"
    for data in (gif((8, 40000)), gif((40000, 8)), gif((9, 9), place=(0, 65530))):
        with pytest.raises(InputError, match="damaged"):
            probe(put(tmp_path / "x.gif", data))


@pytest.mark.parametrize("format", ["WEBP", "BMP", "TIFF"])
def test_other_truncated_formats_can_be_kept_in_part(tmp_path: Path, format: str) -> None:
    options = {"lossless": False} if format == "WEBP" else {}
    whole = saved(Image.fromarray(make_photo(120, 90)), format, **options)
    path = put(tmp_path / "x", whole[: int(len(whole) * 0.6)])
    if format == "TIFF":  # written by Pillow with the directory behind the data; the directory must be there
        tifffile.imwrite(path, make_photo(120, 90), photometric="rgb", rowsperstrip=10)
        path.write_bytes(path.read_bytes()[:20_000])
    with ImageSource(path, allow_truncated=True) as source:
        (frame,) = source
    assert [notice.id for notice in source.notices] == ["truncated"]
    assert frame.pixels.shape == (120, 90, 3)
    assert frame.pixels.any()


@pytest.mark.fuzz
@pytest.mark.filterwarnings("error")
def test_mutated_files_end_in_an_input_error_or_in_pixels(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A small fuzz of every decoder: flips, cuts and overwritten runs, seeded. Anything but InputError fails, and
    so do warnings and log lines of the codecs, which users would see."""
    photo = Image.fromarray(make_photo(24, 20))
    seeds = {format: saved(photo, format) for format in ("JPEG", "WEBP", "GIF", "BMP", "AVIF", "TIFF", "PNG")}
    seeds["PNG16"] = png(noise(12, 12, 4, "uint16"), before=chunk(b"eXIf", exif()))
    seeds["LZW"] = saved(photo, "TIFF", compression="tiff_lzw")
    seeds["EXIF"] = saved(photo, "JPEG", exif=b"Exif\0\0" + exif())
    seeds["APNG"] = saved(photo, "PNG", save_all=True, append_images=[photo.rotate(90)], duration=50)
    rng = random.Random(1)
    outcomes = {"pixels": 0, "refused": 0}
    for seed in seeds.values():
        for _ in range(60):
            data = bytearray(seed)
            for _ in range(rng.randint(1, 6)):
                at = rng.randrange(len(data))
                action = rng.randrange(3)
                if action == 0:
                    data[at] ^= 1 << rng.randrange(8)
                elif action == 1:
                    data[at : at + 4] = rng.choice([b"\xff" * 4, bytes(4), rng.randbytes(4)])
                elif len(data) > 40 and rng.random() < 0.3:
                    del data[at:]
                    data += b"\0"
            path = put(tmp_path / "x", bytes(data))
            try:
                with ImageSource(path, limits=Limits(max_pixels=10_000_000), allow_truncated=rng.random() < 0.5) as source:
                    for frame in source:
                        assert frame.pixels.dtype == source.info.dtype
                        assert frame.pixels.shape[2] == source.info.channels
                outcomes["pixels"] += 1
            except InputError:
                outcomes["refused"] += 1
    assert min(outcomes.values()) > 50, outcomes
    assert not caplog.records


# Several pictures in one file (A20) -----------------------------------------------------------------------------------
def test_multi_picture_jpeg_is_refused_unless_the_first_is_enough(tmp_path: Path) -> None:
    first, second = (Image.fromarray(make_photo(16, 24, seed=i)) for i in (1, 2))
    path = put(tmp_path / "x.jpg", saved(first, "MPO", save_all=True, append_images=[second]))
    with pytest.raises(InputError, match=r"multi-picture JPEG.*2 pictures") as caught:
        probe(path)
    assert "`first_frame`" in str(caught.value)
    with ImageSource(path, first_frame=True) as source:
        (frame,) = source
    assert frame.pixels.shape == (16, 24, 3)
    to_first, to_second = (np.abs(frame.pixels.astype(float) - np.asarray(image)).mean() for image in (first, second))
    assert to_first < to_second / 2


def jpeg(size: tuple[int, int], *, seed: int = 1, gray: bool = False, **options: Any) -> bytes:
    photo = Image.fromarray(make_photo(*size, seed=seed))
    return saved(photo.convert("L") if gray else photo, "JPEG", quality=92, **options)


GAIN_MAP = jpeg((24, 32), gray=True, xmp=photo_xmp('hdrgm:Version="1.0"'))


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize(
    ("kind", "data", "says"),
    [
        (PREVIEW, jpeg((24, 32)), "its preview of 32x24"),
        (UNDEFINED, GAIN_MAP, "its gain map of 32x24"),
        (UNDEFINED, jpeg((48, 64), gray=True, xmp=photo_xmp('dc:format="HDRGainMap"')), "its gain map of 64x48"),
        (UNDEFINED, jpeg((24, 32), gray=True), "a smaller picture of 32x24"),
        (DISPARITY, jpeg((24, 32), gray=True), "its disparity map of 32x24"),
        (DISPARITY, jpeg((48, 64), gray=True), "its disparity map of 64x48"),
    ],
)
def test_what_belongs_to_the_picture_is_named_and_the_picture_is_read(
    tmp_path: Path, kind: int, data: bytes, says: str, order: str
) -> None:
    first = jpeg((48, 64))
    path = put(tmp_path / "DSC01234.JPG", multi_picture(first, (kind, data), order=order))
    pixels = read_pixels(put(tmp_path / "alone.jpg", first))
    kept_with(path, "embedded-dropped", pixels=pixels)
    (notice,) = probe(path).notices
    assert says in notice.message


@pytest.mark.parametrize(
    ("kind", "data"),
    [(UNDEFINED, jpeg((48, 64), seed=2)), (DISPARITY, jpeg((48, 64), seed=2)), (PANORAMA, jpeg((48, 32), seed=2))],
)
def test_pictures_in_their_own_right_are_not_dropped_in_passing(tmp_path: Path, kind: int, data: bytes) -> None:
    path = put(tmp_path / "x.jpg", multi_picture(jpeg((48, 64)), (kind, data)))
    with pytest.raises(InputError, match=r"multi-picture JPEG.*2 pictures"):
        probe(path)
    assert probe(path, first_frame=True).notices == ()


@pytest.mark.parametrize(
    ("tail", "says"),
    [
        (MP4, "the video of its motion photo"),
        (b"MotionPhoto_Data" + MP4, "the video of its motion photo"),
        (b"a record of the phone", "21 bytes behind its end"),
        (jpeg((12, 16)), "a further JPEG"),
    ],
)
def test_what_lies_behind_the_end_of_a_jpeg_is_named(tmp_path: Path, tail: bytes, says: str) -> None:
    first = jpeg((48, 64))
    pixels = read_pixels(put(tmp_path / "alone.jpg", first))
    path = put(tmp_path / "x.jpg", first + tail)
    kept_with(path, "embedded-dropped", pixels=pixels)
    assert says in probe(path).notices[0].message
    assert probe(put(tmp_path / "padded.jpg", first + bytes(5000))).notices == (), "padding is no loss"


def test_a_damaged_index_of_pictures_costs_nothing(tmp_path: Path) -> None:
    whole = multi_picture(jpeg((48, 64)), (PREVIEW, jpeg((24, 32))))
    pixels = read_pixels(put(tmp_path / "whole.jpg", whole))
    at = whole.index(b"MPF\0")
    for position in range(at + 4, at + 86):
        path = put(tmp_path / "x.jpg", whole[:position] + bytes([whole[position] ^ 0xFF]) + whole[position + 1 :])
        kept_with(path, "embedded-dropped", pixels=pixels)


def test_all_pages_of_a_tiff_come_in_order_and_previews_do_not(tmp_path: Path) -> None:
    pages = [noise(8, 9, 3, "uint16", seed=i) for i in range(3)]
    with tifffile.TiffWriter(tmp_path / "x.tif") as writer:
        for i, page in enumerate(pages):
            writer.write(page, photometric="rgb", metadata=None)
            if i == 0:
                writer.write(page[::2, ::2], photometric="rgb", subfiletype=1, metadata=None)
    info = probe(tmp_path / "x.tif")
    assert (info.frames, info.animated) == (3, False)
    with ImageSource(tmp_path / "x.tif") as source:
        for frame, page in zip(source, pages, strict=True):
            np.testing.assert_array_equal(frame.pixels, page)
    with ImageSource(tmp_path / "x.tif", first_frame=True) as source:
        assert source.info.frames == len(list(source)) == 1


def test_pages_of_unlike_kind_are_refused_by_number(tmp_path: Path) -> None:
    with tifffile.TiffWriter(tmp_path / "x.tif") as writer:
        writer.write(noise(8, 9, 3), photometric="rgb", metadata=None)
        writer.write(noise(8, 9, 1, "uint16")[..., 0], photometric="minisblack", metadata=None)
    with pytest.raises(InputError, match=r"page 2 has 1 of uint16.*`first_frame`"):
        probe(tmp_path / "x.tif")
    assert probe(tmp_path / "x.tif", first_frame=True).channels == 3


# Changes while reading (A24) ------------------------------------------------------------------------------------------
def test_change_while_reading_is_detected(tmp_path: Path) -> None:
    for change in (
        lambda p: p.write_bytes(p.read_bytes() + b"x"),
        lambda p: os.utime(p, ns=(1, 1)),
        lambda p: (p.with_name("new").write_bytes(p.read_bytes()), p.with_name("new").replace(p)),
        lambda p: p.unlink(),
    ):
        path = put(tmp_path / "x.png", png(noise(4, 4, 3)))
        with ImageSource(path) as source:
            change(path)
            with pytest.raises(InputError, match="changed while reading"):
                list(source)


def test_change_between_frames_is_detected(tmp_path: Path) -> None:
    images = [Image.fromarray(make_photo(8, 8, seed=i)) for i in range(3)]
    path = put(tmp_path / "x.png", saved(images[0], "PNG", save_all=True, append_images=images[1:], duration=40))
    with ImageSource(path) as source:
        frames = iter(source)
        next(frames)
        path.write_bytes(path.read_bytes()[:-20])
        with pytest.raises(InputError, match="changed while reading"):
            list(frames)
