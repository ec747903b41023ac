"""Menus of file managers: they are well formed, call commands that exist, and pass every file name as it is."""

from __future__ import annotations

import configparser
import os
import plistlib
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import make_photo
from test_packaging import assert_flags_exist
from upframe.media.image.files import write_pixels

DESKTOP = Path(__file__).resolve().parents[1] / "packaging" / "desktop"
ENTRIES = sorted(DESKTOP.glob("*.desktop"))
WORKFLOW = DESKTOP / "Upscale with upframe.workflow" / "Contents"


def mac_command() -> str:
    (action,) = plistlib.loads((WORKFLOW / "document.wflow").read_bytes())["actions"]
    parameters = action["action"]["ActionParameters"]
    assert (parameters["shell"], parameters["inputMethod"]) == ("/bin/bash", 1)  # files come as arguments, not as text
    return str(parameters["COMMAND_STRING"])


@pytest.mark.parametrize("path", ENTRIES, ids=lambda path: path.name)
def test_an_entry_runs_a_command_that_exists(path: Path) -> None:
    entry = configparser.ConfigParser(interpolation=None)
    entry.optionxform = str  # type: ignore[assignment, method-assign]
    entry.read_string(path.read_text())
    main = entry["Desktop Entry"]
    actions = [f"Desktop Action {name}" for name in main["Actions"].rstrip(";").split(";")]
    commands = [entry[name]["Exec"] for name in ("Desktop Entry", *actions) if "Exec" in entry[name]]
    assert len(commands) >= 2 and set(entry.sections()) == {"Desktop Entry", *actions}
    for command in commands:
        words = shlex.split(command)
        assert_flags_exist(words[words.index("upframe") + 1 :])
        assert words[-1] == "%F"


@pytest.mark.skipif(shutil.which("desktop-file-validate") is None, reason="desktop-file-utils are not here")
@pytest.mark.parametrize("path", ENTRIES, ids=lambda path: path.name)
def test_the_validator_takes_the_entry(path: Path) -> None:
    done = subprocess.run(["desktop-file-validate", str(path)], capture_output=True, text=True)
    # KDE's menus have these keys in services, of which the validator does not know.
    unknown = [
        line for line in done.stdout.splitlines() if not re.search(r'key "(MimeType|Actions)" is present.*"Service"', line)
    ]
    assert unknown == []


def test_the_shortcut_of_windows_starts_the_program_with_a_command_that_exists() -> None:
    """Itself, and not by cmd, which would run what stands behind & in the name of a file."""
    text = (DESKTOP / "install-send-to.ps1").read_text()
    (arguments,) = re.findall(r"\$shortcut\.Arguments = '(.*)'", text)
    assert_flags_exist(arguments.split())
    assert "Get-Command upframe.exe" in text and "$shortcut.TargetPath = $program" in text


def test_the_quick_action_is_offered_for_pictures_and_videos() -> None:
    (service,) = plistlib.loads((WORKFLOW / "Info.plist").read_bytes())["NSServices"]
    assert service["NSSendFileTypes"] == ["public.image", "public.movie"]
    kind = plistlib.loads((WORKFLOW / "document.wflow").read_bytes())["workflowMetaData"]["workflowTypeIdentifier"]
    assert kind == "com.apple.Automator.servicesMenu"


@pytest.mark.slow
@pytest.mark.parametrize("menu", ["nautilus", "mac"])
def test_files_of_any_name_are_enlarged(tmp_path: Path, menu: str) -> None:
    programs = tmp_path / ".local" / "bin"
    programs.mkdir(parents=True)
    program = programs / "upframe"
    program.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m upframe "$@"\n')
    program.chmod(0o755)
    names = ["-s 3; touch x.png", "$(touch y) & z.png"]
    for name in names:
        write_pixels(tmp_path / name, make_photo(16, 16))
    run = [str(DESKTOP / "upframe-nautilus.sh")] if menu == "nautilus" else ["bash", "-c", mac_command(), "bash"]
    environment = {**os.environ, "HOME": str(tmp_path), "PATH": f"{programs}:{os.environ['PATH']}"}
    environment.pop("XDG_STATE_HOME", None)
    done = subprocess.run([*run, *names], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    made = {path.name for path in tmp_path.glob("*.png")} - set(names)
    assert made == {name.replace(".png", "_photo_x4.png") for name in names}
    assert not (tmp_path / "y").exists()
