"""Every script in `examples/` runs, is short, and uses nothing but the public door."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import av
import pytest
from PIL import Image

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
SHORT = ("custom_network", "folder_job", "photo", "progress_and_cancel", "video_in_memory")


def run(name: str, *arguments: object) -> str:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(EXAMPLES / f"{name}.py"), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_these_are_all_the_examples() -> None:
    assert {path.stem for path in EXAMPLES.glob("*.py")} == {*SHORT, "demo"}


@pytest.mark.parametrize("name", SHORT)
def test_an_example_is_short_and_imports_no_inner_module(name: str) -> None:
    text = (EXAMPLES / f"{name}.py").read_text("utf-8")
    assert len(text.splitlines()) < 60
    assert not re.findall(r"^\s*(?:from|import) upframe\.|^\s*from upframe import", text, re.MULTILINE)


@pytest.mark.slow
def test_photo(tmp_path: Path) -> None:
    out = run("photo", tmp_path)
    with Image.open(tmp_path / "astronaut_x2.png") as large, Image.open(EXAMPLES / "media" / "astronaut.png") as photo:
        assert large.size == (2 * photo.width, 2 * photo.height)
    with Image.open(tmp_path / "face.png") as face:
        assert face.size == (400, 400)
    assert "(128, 128, 3) -> (512, 512, 3)" in out and "(128, 128) -> (512, 512)" in out


@pytest.mark.slow
def test_video_in_memory(tmp_path: Path) -> None:
    run("video_in_memory", tmp_path)
    with av.open(str(EXAMPLES / "media" / "bunny.mp4")) as clip, av.open(str(tmp_path / "bunny_in_memory.mp4")) as made:
        small, large = clip.streams.video[0], made.streams.video[0]
        assert (large.width, large.height) == (2 * small.width, 2 * small.height)
        assert sum(1 for _ in made.decode(video=0)) == 12


@pytest.mark.slow
def test_custom_network() -> None:
    assert run("custom_network").splitlines() == ["sharpened-x3 enlarges 3 times", "(1, 3, 93, 51)", "(500, 500)"]


@pytest.mark.slow
def test_progress_and_cancel() -> None:
    lines = run("progress_and_cancel").splitlines()
    assert lines[-2] == "100% done" and lines[-1].startswith("stopped: ")


@pytest.mark.slow
def test_folder_job(tmp_path: Path) -> None:
    out = run("folder_job", tmp_path)
    assert "2 written, 1 failed" in out and "broken.png" in out
    assert {path.name for path in (tmp_path / "large").iterdir()} == {"face.png", "gray.jpg"}
    with Image.open(tmp_path / "large" / "gray.jpg") as gray:
        assert (gray.mode, gray.size) == ("L", (256, 256))
