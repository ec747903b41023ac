"""Folders: images in natural order, and nothing else (faults A23, B17)."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from upframe.errors import InputError
from upframe.media.image.files import is_image_name, iter_files


def make(folder: Path, *names: str) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")


def listed(folder: Path, **options: object) -> list[str]:
    return [path.relative_to(folder).as_posix() for path in iter_files(folder, **options)]  # type: ignore[arg-type]


def test_natural_order_files_before_folders(tmp_path: Path) -> None:
    make(tmp_path, "f10.png", "f9.png", "F1.PNG", "sub/a.jpg", "a2b10.tif", "a2b9.tif")
    assert listed(tmp_path) == ["a2b9.tif", "a2b10.tif", "F1.PNG", "f9.png", "f10.png"]
    assert listed(tmp_path, recursive=True)[-1] == "sub/a.jpg"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_what_is_no_image_file_is_skipped(tmp_path: Path) -> None:
    make(tmp_path, "a.png", "Thumbs.db", "desktop.ini", ".DS_Store", ".hidden.png", ".x.png.part", "notes.txt", "noext")
    (tmp_path / "folder.png").mkdir()
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "dead.png").symlink_to(tmp_path / "nowhere.png")
    (tmp_path / "self.png").symlink_to(tmp_path / "self.png")
    (tmp_path / "link.png").symlink_to(tmp_path / "a.png")
    assert listed(tmp_path, recursive=True) == ["a.png", "link.png"]


def test_symlink_loops_end_and_linked_folders_come_once(tmp_path: Path) -> None:
    make(tmp_path, "a.png", "sub/b.png")
    (tmp_path / "sub" / "up").symlink_to(tmp_path)
    (tmp_path / "zub").symlink_to(tmp_path / "sub")
    assert listed(tmp_path, recursive=True) == ["a.png", "sub/b.png"]


def test_globs_choose_and_leave_out(tmp_path: Path) -> None:
    make(tmp_path, "a.png", "b.jpg", "c.dat", "old/d.png", "new/e.png")
    assert listed(tmp_path, recursive=True, include=["*.dat", "new/*"]) == ["c.dat", "new/e.png"]
    assert listed(tmp_path, recursive=True, exclude=["old", "b.*"]) == ["a.png", "new/e.png"]
    assert listed(tmp_path, recursive=True, exclude=["old/*"]) == ["a.png", "b.jpg", "new/e.png"]


def test_folder_that_is_none_is_an_input_error(tmp_path: Path) -> None:
    make(tmp_path, "a.png")
    for path in (tmp_path / "none", tmp_path / "a.png"):
        with pytest.raises(InputError, match="cannot be listed"):
            list(iter_files(path))


@pytest.mark.parametrize("name", ["a.png", "A.JPG", "x.y.webp", "a.heic", "a.dng", "é.tiff", "50%_off.PNG"])
def test_image_names(name: str) -> None:
    assert is_image_name(name)


@pytest.mark.parametrize("name", ["png", ".png", "a.mp4", "a.txt", "a", "a.png.part", "a."])
def test_other_names(name: str) -> None:
    assert not is_image_name(name)
