"""Signals are answered whatever the command is doing: here while a picture is encoded, which Python cannot interrupt."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from nearest import nearest_weights
from upframe.cli.stopping import GRACE_S
from upframe.media.image.files import write_pixels

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such signals to send"),
]

SOON_S = GRACE_S + 4
"""Longest time to stop: a busy machine takes seconds to end a process, and the encoder alone takes far longer than this."""


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    return nearest_weights(tmp_path / "x4.safetensors", scale=4)


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    noise = np.random.default_rng(0).integers(0, 256, (200, 300, 3), dtype=np.uint8)
    folder = tmp_path / "in"
    folder.mkdir()
    write_pixels(folder / "photo.png", noise)
    return folder / "photo.png"


def started(photo: Path, weights: Path, *options: str, ignoring: signal.Signals | None = None) -> subprocess.Popen[str]:
    def ignore() -> None:
        if ignoring is not None:
            signal.signal(ignoring, signal.SIG_IGN)

    command = [sys.executable, "-m", "upframe", photo, "-m", weights, *options]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=ignore)


@pytest.fixture
def encoding(photo: Path, weights: Path) -> Iterator[subprocess.Popen[str]]:
    """A run that encodes an AVIF of 54 megapixels."""
    process = started(photo, weights, "-o", str(photo.with_name("out.avif")), "--width", "9000")
    part = photo.with_name(".out.avif.part")
    while not part.exists():
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    time.sleep(1)
    yield process
    process.kill()
    process.communicate()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_stops_an_encoder(encoding: subprocess.Popen[str], photo: Path, number: signal.Signals, code: int) -> None:
    encoding.send_signal(number)
    _, told = encoding.communicate(timeout=SOON_S)
    assert encoding.returncode == code
    assert "stopping" in told
    assert [path.name for path in photo.parent.iterdir()] == ["photo.png"]


def test_a_second_signal_ends_the_process_right_away(encoding: subprocess.Popen[str], photo: Path) -> None:
    encoding.send_signal(signal.SIGINT)
    time.sleep(0.2)
    encoding.send_signal(signal.SIGINT)
    assert encoding.wait(timeout=GRACE_S) == 130
    assert [path.name for path in photo.parent.iterdir()] == ["photo.png"]


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads from /proc when the signal is caught")
def test_a_signal_while_modules_are_loaded_leaves_no_traceback(photo: Path, weights: Path) -> None:
    process = started(photo, weights, "-o", str(photo.with_name("out.png")))
    for status in iter(lambda: Path(f"/proc/{process.pid}/status").read_text(), ""):
        if int(status.partition("SigCgt:\t")[2].split()[0], 16) >> (signal.SIGTERM - 1) & 1:  # from now on it is caught
            break
    process.send_signal(signal.SIGTERM)
    _, told = process.communicate(timeout=SOON_S)
    assert (process.returncode, told) == (143, "stopping\n")


def test_what_the_caller_ignores_is_ignored(photo: Path, weights: Path) -> None:
    """`nohup upframe …` goes on after logout."""
    process = started(photo, weights, "-o", str(photo.with_name("out.png")), "--width", "3000", ignoring=signal.SIGHUP)
    while not photo.with_name(".out.png.part").exists():
        assert process.poll() is None, process.communicate()
        process.send_signal(signal.SIGHUP)
        time.sleep(0.02)
    process.send_signal(signal.SIGHUP)
    process.communicate()
    assert process.returncode == 0
    assert photo.with_name("out.png").exists()
