"""`upframe doctor`: what it finds, and that nothing broken hides anything or hangs."""

from __future__ import annotations

import json
import time
import tomllib
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from conftest import Upframe
from upframe.diagnosis import examination, probes
from upframe.machine import cpu_flags
from upframe.probing import ask

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]


def broken_question() -> None:
    raise OSError("libgpu.so: cannot open")


def hanging_question() -> None:
    time.sleep(600)


def wrong_answer() -> dict[str, list[float]]:
    return {"torch": [*probes.KNOWN[:-1], probes.KNOWN[-1] + 0.01]}


def no_number() -> dict[str, list[float]]:
    return {"torch": [float("nan")] * len(probes.KNOWN)}


def test_the_command_reports_every_part_and_a_sound_machine(
    upframe: Upframe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UPFRAME_CACHE", str(tmp_path / "cache"))
    result = upframe("doctor", "--json")
    assert result.code == 0, result.out
    report = json.loads(result.out)
    assert report["event"] == "doctor" and report["healthy"] is True
    assert {one["part"] for one in report["findings"]} == {
        *("versions", "machine", "devices", "codecs", "extras", "disk", "self-test")
    }
    assert not [one for one in report["findings"] if one["state"] == "broken"]
    tested = [one["name"] for one in report["findings"] if one["part"] == "self-test"]
    assert tested[0] == "torch", "new shipped weights of photo-x2 need new values in diagnosis/probes.py"
    assert not list((tmp_path / "cache").iterdir()), "the trial file is gone"


def test_devices_alone_are_listed_and_a_broken_one_is_exit_code_7(upframe: Upframe, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probes, "torch_devices", broken_question)
    result = upframe("--list-devices")
    lines = result.out.splitlines()
    assert result.code == 7 and lines[0] == "devices" and lines[1].split()[0] == "cpu"
    assert [line.split()[:2] for line in lines if line.startswith("  !")] == [["!", "torch"]]
    assert "libgpu.so: cannot open" in result.out and "self-test" not in result.out


def test_a_driver_that_hangs_is_reported() -> None:
    begun = time.monotonic()
    impatient = partial(ask, timeout_s=1)
    (torch,) = examination._devices_of(impatient, "torch", "torch", hanging_question)
    assert (torch.state, torch.detail) == ("broken", "asking for its devices did not answer within 1 s")
    assert time.monotonic() - begun < 60, "it sleeps for ten minutes"


@pytest.mark.parametrize("answer", [wrong_answer, no_number])
def test_a_machine_that_computes_wrongly_is_broken(answer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probes, "self_test", answer)
    (finding,) = examination._self_test(ask)
    assert finding.state == "broken"


def test_a_cache_that_cannot_be_written_is_broken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = tmp_path / "cache"
    place.write_text("a file where the folder should be")
    monkeypatch.setenv("UPFRAME_CACHE", str(place))
    cache = next(one for one in examination._disk() if one.name == "cache")
    assert cache.state == "broken" and "UPFRAME_CACHE" in cache.detail


@pytest.mark.skipif(not cpu_flags() >= {"avx2", "fma"}, reason="no CPU for kernels")
def test_kernels_that_do_not_load_are_broken(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    built = tmp_path / "kernels.so"
    built.write_bytes(b"")
    monkeypatch.setattr(examination, "LIBRARIES", dict.fromkeys(examination.LIBRARIES, built))
    kernels = next(one for one in examination._machine(lambda question: None) if one.name == "kernels")
    assert kernels.state == "broken" and "reinstall" in kernels.detail


def test_the_extras_are_those_of_the_package() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    stated = {name: {one.split(">=")[0] for one in needs} for name, needs in project["optional-dependencies"].items()}
    known = {name: set(packages) for name, packages in examination.EXTRAS.items()}
    assert known == {name: needs for name, needs in stated.items() if name not in ("dev", "browser")}


def test_a_folder_that_was_removed_hides_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    found = {one.name: one.state for one in examination._disk()}
    assert found == {"cache": "ok", "free for the cache": "ok", "free here": "broken"}
