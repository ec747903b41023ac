"""Units and Dockerfiles name commands and flags that exist, and files of the repository that are there."""

from __future__ import annotations

import configparser
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from upframe.cli.entry import app

ROOT = Path(__file__).resolve().parents[1]
UNITS = sorted((ROOT / "packaging").glob("*.service"))
DOCKERFILES = [ROOT / "packaging" / name for name in ("Dockerfile", "Dockerfile.cuda")]


def unit(path: Path) -> configparser.ConfigParser:
    parsed = configparser.ConfigParser(strict=False, interpolation=None)
    parsed.optionxform = str  # type: ignore[assignment, method-assign]
    parsed.read_string(path.read_text())
    return parsed


def assert_flags_exist(words: list[str]) -> None:
    known = {name for argument in app[words[0]].assemble_argument_collection() for name in argument.names}
    assert {word for word in words[1:] if word.startswith("-")} <= known


@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.name)
def test_a_unit_runs_a_command_that_exists_with_few_rights(path: Path) -> None:
    service = unit(path)["Service"]
    program, *words = shlex.split(service["ExecStart"])
    assert Path(program).name == "upframe"
    assert_flags_exist(words)
    assert (
        service["NoNewPrivileges"] == "yes" and service["ProtectSystem"] == "strict" and service["CapabilityBoundingSet"] == ""
    )
    assert service["SuccessExitStatus"] == "143"  # what SIGTERM ends with; else every stop would be a failure


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not here")
@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.name)
def test_systemd_takes_the_unit(path: Path, tmp_path: Path) -> None:
    """With a program and a user that exist on this machine."""
    text = re.sub(r"ExecStart=\S+", f"ExecStart={shutil.which('true')}", path.read_text()).replace("User=upframe", "User=root")
    place = tmp_path / path.name.replace("@", "@inbox")
    place.write_text(text)
    done = subprocess.run(["systemd-analyze", "verify", str(place)], capture_output=True, text=True)
    assert done.returncode == 0 and place.name not in done.stderr, done.stderr


def instructions(dockerfile: Path) -> list[tuple[str, str]]:
    text = re.sub(r"(?m)^#.*\n", "", dockerfile.read_text()).replace("\\\n", " ")
    return [(name, rest) for name, _, rest in (line.partition(" ") for line in text.splitlines() if line)]


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)
def test_a_dockerfile_copies_what_is_there_and_what_its_context_holds(path: Path) -> None:
    context = {line[1:] for line in Path(f"{path}.dockerignore").read_text().split() if line.startswith("!")}
    copied = {
        word for name, rest in instructions(path) if name == "COPY" and "--from" not in rest for word in rest.split()[:-1]
    }
    assert copied == context and all((ROOT / name).exists() for name in copied)


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)
def test_a_container_is_no_superuser_and_serves_with_flags_that_exist(path: Path) -> None:
    stated = dict(instructions(path))
    assert stated["USER"] == "upframe" and "/healthz" in stated["HEALTHCHECK"]
    assert stated["ENTRYPOINT"] == '["upframe"]'
    words = re.findall(r'"([^"]*)"', stated["CMD"])
    assert_flags_exist(words)
    assert "--token-file" in words and stated["EXPOSE"] in stated["HEALTHCHECK"]
