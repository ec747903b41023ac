"""A folder of training pictures as people have it: other kinds are left out by name, all that is damaged is named at once."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from conftest import make_photo
from image_files import noise, png, put, saved
from upframe.datasets.footage import find_photos
from upframe.errors import InputError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    photo = Image.fromarray(make_photo(60, 70))
    rotated = Image.Exif()
    rotated[0x0112] = 6
    (tmp_path / "sub dir").mkdir()
    for name, content in {
        "good.png": saved(photo, "PNG"),
        "sub dir/ünï.JPG": saved(photo, "JPEG"),
        "rotated.jpg": saved(photo, "JPEG", exif=rotated.tobytes()),
        "palette.png": saved(photo.quantize(16), "PNG"),
        "gray.png": saved(photo.convert("L"), "PNG"),
        "alpha.png": saved(photo.convert("RGBA"), "PNG"),
        "deep.png": png(noise(60, 70, 3, "uint16")),
        "tiny.png": saved(photo.resize((20, 20)), "PNG"),
        "._good.png": b"\0\5\x16\7",
        "notes.txt": b"words",
    }.items():
        put(tmp_path / name, content)
    (tmp_path / "dead.png").symlink_to("nowhere")
    return tmp_path


def test_pictures_of_other_kinds_are_left_out_by_name(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        found = find_photos(folder, minimum_px=40)
    assert [clip.name for clip in found.clips] == ["good.png", "palette.png", "rotated.jpg", "sub dir/ünï.JPG"]
    for name in ("gray.png", "alpha.png", "deep.png", "tiny.png"):
        assert f"skipped {name}" in caplog.text
    for clip in found.clips:
        picture = found.store.read(clip.frames[0])
        assert picture.dtype == np.uint8 and picture.shape == (*found.store.size(clip.frames[0]), 3)
    assert found.store.size("rotated.jpg") == (70, 60)


def test_all_damaged_pictures_are_named_before_anything_is_trained(folder: Path) -> None:
    whole = saved(Image.fromarray(make_photo(60, 70)), "PNG")
    put(folder / "zero.png", b"")
    put(folder / "words.png", b"hello")
    put(folder / "cut.png", whole[: len(whole) // 2])
    put(folder / "cut.jpg", saved(Image.fromarray(make_photo(60, 70)), "JPEG")[:-400])
    with pytest.raises(InputError, match="4 files cannot be read") as caught:
        find_photos(folder, minimum_px=40)
    for name in ("zero.png", "words.png", "cut.png", "cut.jpg"):
        assert name in str(caught.value)
