"""A folder of nasty images goes through one run of the command with exactly the promised results."""

from __future__ import annotations

import hashlib
import json
import os
import struct
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import tifffile
from PIL import Image

from nasty import Failed, Ignored, Nasty, Pixels, Written, all_entries, nasty_folder
from nearest import nearest_weights, repeated

ENTRIES = all_entries()


@dataclass(frozen=True)
class Run:
    folder: Path
    out: Path
    returncode: int
    lines: list[dict[str, Any]]
    stderr: str
    before: dict[str, str]
    """Hash of every regular file of the folder before the run."""

    @property
    def summary(self) -> dict[str, Any]:
        return self.lines[-1]

    def item(self, entry: Nasty) -> dict[str, Any] | None:
        found = [item for item in self.summary["items"] if item["input"] == str(self.folder / entry.name)]
        assert len(found) <= 1
        return found[0] if found else None


def hashes(folder: Path) -> dict[str, str]:
    files = (path for path in folder.rglob("*") if path.is_file() and os.access(path, os.R_OK))
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    home = tmp_path_factory.mktemp("nasty")
    folder, out = home / "in", home / "out"
    folder.mkdir()
    nasty_folder(folder)
    before = hashes(folder)
    weights = nearest_weights(home / "x2.safetensors", scale=2)
    command = [sys.executable, "-m", "upframe", "upscale", "-r", str(folder), "-o", str(out), "--json", "-m", str(weights)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    return Run(folder, out, done.returncode, [json.loads(line) for line in done.stdout.splitlines()], done.stderr, before)


def facts(path: Path) -> tuple[str, tuple[int, int], int, str, int]:
    """Format, (height, width), channels, sample type and number of frames, found by other means than upframe's."""
    head = path.read_bytes()[:26]
    if head.startswith(b"\x89PNG"):
        width, height, depth, colour = struct.unpack(">IIBB", head[16:26])
        with Image.open(path) as image:
            return "png", (height, width), {0: 1, 4: 2, 2: 3, 6: 4}[colour], f"uint{depth}", getattr(image, "n_frames", 1)
    if head[:2] in (b"II", b"MM"):
        with tifffile.TiffFile(path) as tiff:
            page = tiff.pages.first
            return "tiff", (page.imagelength, page.imagewidth), page.samplesperpixel, str(page.dtype), len(tiff.pages)
    with Image.open(path) as image:
        channels = len(image.getbands())
        if image.format == "GIF":  # a palette has a transparent entry whether it is used or not
            channels = 4 if np.asarray(image.convert("RGBA"))[..., 3].min() < 255 else 3
        assert image.format is not None
        return image.format.lower(), (image.height, image.width), channels, "uint8", getattr(image, "n_frames", 1)


def pixels(path: Path) -> Pixels:
    """(H, W, C) of the first frame, read by other means than upframe's."""
    format, size, channels, dtype, _ = facts(path)
    if format == "tiff":
        return np.asarray(tifffile.imread(path, key=0)).reshape(*size, channels)
    if dtype == "uint16":
        layout = {1: "gray16le", 2: "ya16le", 3: "rgb48le", 4: "rgba64le"}[channels]
        with av.open(str(path)) as container:
            frame = next(container.decode(video=0))
            plane = frame.reformat(format=layout).planes[0]
            rows = np.frombuffer(bytes(plane), "<u2").reshape(size[0], -1)
            return rows[:, : size[1] * channels].reshape(*size, channels)
    with Image.open(path) as image:
        return np.asarray(image).reshape(*size, channels)


@pytest.mark.slow
def test_the_batch_ends_with_8_and_the_counts_are_those_of_the_table(run: Run) -> None:
    kinds = [type(entry.promise) for entry in ENTRIES]
    assert run.returncode == 8, run.stderr
    assert run.summary["event"] == "summary"
    assert run.summary["exit_code"] == 8
    counts = {key: run.summary[key] for key in ("written", "skipped", "failed")}
    assert counts == {"written": kinds.count(Written), "skipped": 0, "failed": kinds.count(Failed)}
    assert len(run.summary["items"]) == counts["written"] + counts["failed"]


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: ascii(entry.name)[:40])
def test_promise_is_kept(run: Run, entry: Nasty) -> None:
    item = run.item(entry)
    promise = entry.promise
    if isinstance(promise, Ignored):
        assert item is None
        return
    assert item is not None
    if isinstance(promise, Failed):
        assert (item["status"], item["output"]) == ("failed", None)
        assert promise.says in item["error"]
        assert "\n" not in item["error"]
        event = next(line for line in run.lines if line["event"] == "failed" and line["input"] == item["input"])
        assert event["exit_code"] == promise.exit_code
        assert not (run.out / entry.name).exists()
        return
    expected = run.out / Path(entry.name).with_name(promise.output or Path(entry.name).name)
    assert (item["status"], item["error"], item["notices"]) == ("written", None, list(promise.notices))
    assert Path(item["output"]) == expected
    height, width = promise.size
    found = facts(expected)
    assert found == (promise.format, (2 * height, 2 * width), promise.channels, promise.dtype, promise.frames)
    if promise.exact is not None:
        np.testing.assert_array_equal(pixels(expected), repeated(promise.exact, 2))


def test_output_folder_holds_what_is_reported_and_nothing_else(run: Run) -> None:
    reported = {item["output"] for item in run.summary["items"] if item["output"]}
    assert {str(path) for path in run.out.rglob("*") if not path.is_dir()} == reported


def test_inputs_are_as_they_were(run: Run) -> None:
    assert hashes(run.folder) == run.before


def test_standard_error_is_silent_under_json(run: Run) -> None:
    assert run.stderr == ""


def test_orientation_is_applied_to_the_pixels_and_reset(run: Run) -> None:
    """Orientation 6 shows the stored picture turned clockwise: its bottom left corner comes to the top left."""
    with Image.open(run.folder / "orientation6.jpg") as image:
        stored = np.asarray(image).astype(int)
    with Image.open(run.out / "orientation6.jpg") as image:
        assert image.getexif().get(0x0112, 1) == 1
        turned = np.asarray(image).astype(int)
    # Two JPEG generations of a smooth picture.
    assert np.abs(turned - repeated(np.rot90(stored, -1), 2)).max() <= 8


def test_profile_and_text_are_carried(run: Run) -> None:
    with Image.open(run.folder / "profile.png") as before, Image.open(run.out / "profile.png") as after:
        assert after.info["icc_profile"] == before.info["icc_profile"]
        assert after.info["Author"] == "somebody"


@pytest.mark.parametrize("name", ["moving.gif", "moving.png", "moving.webp"])
def test_animations_keep_their_timing_and_their_frames(run: Run, name: str) -> None:
    with Image.open(run.folder / name) as before, Image.open(run.out / name) as after:
        assert after.info["loop"] == before.info["loop"]
        for index in range(4):
            before.seek(index)
            after.seek(index)
            before.load()
            after.load()
            assert after.info["duration"] == before.info["duration"]
            difference = np.asarray(after.convert("RGB"))[::2, ::2].astype(int) - np.asarray(before.convert("RGB"))
            assert np.abs(difference).max() <= 3  # one-coloured frames; only WebP is lossy
