"""The promises of SECURITY.md that no other test holds upframe to."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from conftest import Upframe, make_photo
from nearest import nearest_weights
from upframe.media.image.files import write_pixels
from upframe.models.checkpoints import save
from upframe.models.weights_file import read

WATCHED = """
import sys

def refuse(event, arguments):
    if event.startswith(("socket.", "urllib.", "http.", "ftplib.", "smtplib.")):
        raise SystemExit(f"{event} {arguments}")

sys.addaudithook(refuse)
from upframe import cli
cli.main(sys.argv[1:])
"""


@pytest.mark.slow
def test_upscaling_opens_no_connection(tmp_path: Path, weights: Path) -> None:
    """In a process of its own: an audit hook sees what any library does, and cannot be removed."""
    write_pixels(tmp_path / "a.png", make_photo(16, 20))
    command = [sys.executable, "-c", WATCHED, "upscale", tmp_path / "a.png", "-m", weights, "-o", tmp_path / "b.png"]
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "b.png").is_file()
    planted = subprocess.run(
        [sys.executable, "-c", WATCHED.replace("from upframe import cli", "import socket; socket.socket()")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert planted.returncode == 1 and planted.stderr.startswith("socket."), "the hook sees no sockets"


def test_a_name_within_a_weights_file_leads_no_output_out_of_its_folder(tmp_path: Path, upframe: Upframe) -> None:
    plain = nearest_weights(tmp_path / "plain.safetensors", scale=2)
    file = read(plain)
    assert file.card is not None
    save(tmp_path / "hostile.safetensors", file.state, replace(file.card, name="../../away/x"))
    inside = tmp_path / "one" / "two"
    inside.mkdir(parents=True)
    (tmp_path / "away").mkdir()
    write_pixels(inside / "a.png", make_photo(16, 20))
    before = {path for path in tmp_path.rglob("*") if not path.is_relative_to(inside)}
    for flags in ([], ["--name", "{model}"]):
        assert upframe("upscale", inside / "a.png", "-m", tmp_path / "hostile.safetensors", *flags).code == 0
    assert len(list(inside.iterdir())) == 3
    assert {path for path in tmp_path.rglob("*") if not path.is_relative_to(inside)} == before
