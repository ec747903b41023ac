"""The contact sheet of degradations, from pictures, folders and videos."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from conftest import Upframe, make_photo
from upframe import pixels
from upframe.drawing.sheet import most_detailed
from upframe.errors import InputError
from upframe.media.compression import encoded_mp4
from upframe.media.image.files import write_pixels
from upframe.media.image.source import read_pixels
from upframe.training.degradations.pipeline import degrade, mirrored, photo_real, realbasicvsr
from upframe.training.degradations.preview import preview, read_frames


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    photo = make_photo(48, 70).astype(np.uint8)
    (tmp_path / "clip").mkdir()
    for i in range(3):
        write_pixels(tmp_path / "clip" / f"{i + 8}.png", photo[:, i : i + 64])  # 10 comes after 9
    return tmp_path / "clip"


def test_the_sheet_shows_what_training_would_see(folder: Path) -> None:
    """Every degraded panel is found in the sheet pixel by pixel."""
    clip = read_frames(folder, limit=3)
    sheet = preview(clip, realbasicvsr(), seed=5, rows=1).sheet
    box = most_detailed(pixels.from_unit(clip[0], np.uint8), side_px=48)
    whole = mirrored(clip[..., box.top : box.top + 48, box.left : box.left + 48])
    lq = degrade(whole, realbasicvsr(), np.random.default_rng(5))
    assert all(is_shown(lq[i], sheet) for i in (0, 2, 3, 5))
    assert not is_shown(degrade(whole, realbasicvsr(), np.random.default_rng(6))[0], sheet)


def is_shown(lq: torch.Tensor, sheet: NDArray[np.uint8]) -> bool:
    """Whether every row of a 12x12 frame is somewhere in the sheet, each pixel 20 times as wide (240 / 12)."""
    lines = [line.tobytes() for line in sheet]
    rows = [row.repeat(20, axis=0).tobytes() for row in pixels.from_unit(lq, np.uint8)]
    return all(any(row in line for line in lines) for row in rows)


def test_pictures_folders_and_videos_are_read_alike(folder: Path, tmp_path: Path) -> None:
    clip = read_frames(folder, limit=15)
    assert clip.shape == (3, 3, 48, 64)
    assert torch.equal(clip[2, :, :, 0], clip[0, :, :, 2])  # natural order: 8, 9, 10
    assert read_frames(folder, limit=2).shape[0] == 2
    assert torch.equal(read_frames(folder / "9.png", limit=9), clip[1:2])
    frames = np.stack([pixels.from_unit(frame, np.uint8) for frame in clip])
    (tmp_path / "film.mp4").write_bytes(encoded_mp4(frames, encoder="mpeg4", bit_rate=10_000_000))
    film = read_frames(tmp_path / "film.mp4", limit=2)
    assert film.shape == (2, 3, 48, 64)
    assert (pixels.rgb_to_y(film) - pixels.rgb_to_y(clip[:2])).abs().mean() < 0.02  # luma: colour has half the resolution


@pytest.mark.slow
def test_the_command_writes_a_sheet_and_says_what_was_drawn(folder: Path, tmp_path: Path, upframe: Upframe) -> None:
    result = upframe("data", "preview", folder, "--out", tmp_path / "sheet.png", "--seed", 2, "--rows", 2)
    assert result.code == 0
    assert [line.split(":")[0] for line in result.out.splitlines()] == ["seed 2", "seed 3"]
    sheet = read_pixels(tmp_path / "sheet.png")
    assert sheet.shape[0] > 2 * 200 and sheet.shape[1] > 5 * 200 and np.unique(sheet).size > 100
    assert upframe("data", "preview", folder, "--out", tmp_path / "again.png", "--seed", 2, "--rows", 2).code == 0
    assert np.array_equal(read_pixels(tmp_path / "again.png"), sheet)
    picture = upframe("data", "preview", folder / "8.png", "-o", tmp_path / "picture.png", "--rows", 1, "--json")
    (line,) = picture.lines
    assert line["event"] == "preview" and "264" not in line["drawn"]  # a picture gets no video codec


def test_misuse_is_named(folder: Path, tmp_path: Path, upframe: Upframe) -> None:
    (tmp_path / "there.png").touch()
    for flags, message in (
        (("-o", tmp_path / "sheet.png", "--rows", 0), "--rows 0: must be 1 or more"),
        (("-o", tmp_path / "sheet.png", "--degradations", "fog"), "no such degradations"),
        (("-o", tmp_path / "there.png"), "exists already"),
    ):
        result = upframe("data", "preview", folder, *flags)
        assert result.code == 2 and message in result.err
    assert not (tmp_path / "sheet.png").exists()
    with pytest.raises(InputError, match="smaller than 4 pixels"):
        preview(torch.rand(1, 3, 3, 9), photo_real(), seed=0)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="holds no pictures"):
        read_frames(tmp_path / "empty", limit=1)
    write_pixels(folder / "11.png", make_photo(20, 20))
    with pytest.raises(InputError, match="differ in size"):
        read_frames(folder, limit=9)
    with pytest.raises(InputError):
        read_frames(tmp_path / "nothing.png", limit=1)
