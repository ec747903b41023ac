"""Imports by task: a photo needs no video, no training, no measuring, and one network; a list of models no torch.

The lists are exact, so that a new import for every photo is a decision and not an accident. `scripts/measure_imports.py`
prints them with their times.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow  # as a whole: `make test-fast` has a minute and a half for everything

ROOT = Path(__file__).resolve().parents[1]

PHOTO_PACKAGES = {"filelock", "isal", "numpy", "safetensors", "torch"}
PHOTO_ROOMS = {"engines", "errors", "files", "kernels", "machine", "media", "models", "pixels", "upscaling", "version"}
COMMAND_LINE_PACKAGES = {"attr", "attrs", "cyclopts"}  # rich comes with a terminal
VIDEO = ("upframe.media.video", "upframe.jobs.video", "upframe.upscaling.clips")


@pytest.fixture(scope="module")
def measured() -> dict[str, Any]:
    command = [sys.executable, str(ROOT / "scripts" / "measure_imports.py"), "--json"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "COLUMNS": "100"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def third_parties(measured: dict[str, Any], case: str) -> set[str]:
    """Packages other than upframe and what torch imports of its own accord, which its version decides; torch if it is there."""
    heads = {module.partition(".")[0] for module in measured["cases"][case]["modules"]} - {"upframe"}
    of_torch = set(measured["packages_of_torch"]) - {"torch", "numpy"}
    return {head for head in heads - of_torch if not head.startswith("_")}


def rooms(measured: dict[str, Any], case: str) -> set[str]:
    modules = measured["cases"][case]["modules"]
    return {module.split(".")[1] for module in modules if module.startswith("upframe.")}


def networks(measured: dict[str, Any], case: str) -> set[str]:
    start = "upframe.models.architectures."
    modules = measured["cases"][case]["modules"]
    return {m.removeprefix(start) for m in modules if m.startswith(start) and not m.startswith(f"{start}_")}


def video(measured: dict[str, Any], case: str) -> set[str]:
    return {module for module in measured["cases"][case]["modules"] if module.startswith(VIDEO)}


@pytest.mark.slow
def test_importing_upframe_imports_nothing_else(measured: dict[str, Any]) -> None:
    assert third_parties(measured, "import upframe") == set()
    assert rooms(measured, "import upframe") == {"errors", "version"}


@pytest.mark.slow
def test_reading_and_writing_a_photo_imports_neither_torch_nor_a_codec_of_another_format(measured: dict[str, Any]) -> None:
    case = "photo, read and written"
    assert third_parties(measured, case) | {"isal"} == {"filelock", "isal", "numpy"}  # a file that is written is locked
    assert rooms(measured, case) == {"errors", "files", "kernels", "machine", "media", "version"}
    assert video(measured, case) == set()


def test_a_photo_through_python_imports_one_network_and_these_packages(measured: dict[str, Any]) -> None:
    case = "photo, Python"
    # isal is optional: where there is no wheel of it, zlib compresses.
    assert third_parties(measured, case) | {"isal"} == PHOTO_PACKAGES
    assert rooms(measured, case) == PHOTO_ROOMS
    assert networks(measured, case) == {"rlfn"}
    assert video(measured, case) == set()


def test_a_photo_on_the_command_line_imports_the_same_and_a_parser(measured: dict[str, Any]) -> None:
    case = "photo, command line"
    assert third_parties(measured, case) | {"isal"} == PHOTO_PACKAGES | COMMAND_LINE_PACKAGES
    assert rooms(measured, case) == PHOTO_ROOMS | {"cli", "jobs"}
    assert networks(measured, case) == {"rlfn"}
    assert video(measured, case) == set()


def test_listing_models_imports_no_torch_and_no_network(measured: dict[str, Any]) -> None:
    case = "upframe models list"
    assert third_parties(measured, case) == COMMAND_LINE_PACKAGES
    assert networks(measured, case) == set()
    assert rooms(measured, case) == {"cli", "errors", "files", "models", "version"}
