"""A short run of scripts/fuzz.py: damaged files of every kind end with documented exit codes, in bounded time and memory."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

import pytest

from fuzz import BOUNDS, Bound, Child, attempt, fuzz
from fuzz_samples import KINDS, Sample, make_samples, mutated

pytestmark = [pytest.mark.fuzz, pytest.mark.slow]


def test_damaged_files_of_every_kind_keep_the_promises(tmp_path: Path) -> None:
    samples = make_samples(tmp_path / "samples")
    assert {sample.kind for sample in samples} == {*KINDS} == {*BOUNDS}
    tried, failures = fuzz(samples, tmp_path / "failures", seed=11, count=60)
    kept = tmp_path / "failures" / "failures.jsonl"
    assert (tried, failures) == (60, 0), kept.read_text()


def test_sound_samples_are_read(tmp_path: Path) -> None:
    """Else the damaged ones would all be refused for another reason than their damage."""
    child = Child()
    try:
        for sample in make_samples(tmp_path / "samples", ("picture", "weights", "store")):
            work = tmp_path / sample.path.name
            work.mkdir()
            code, _, _, text = child.run(_arguments(sample, work))
            assert code == 0, f"{sample.path.name}: {text}"
    finally:
        child.close()


def _arguments(sample: Sample, work: Path) -> list[str]:
    names = {"INPUT": str(sample.root), "OUTPUT.png": str(work / "out.png")}
    return [names.get(word, word) for word in sample.command]


def test_the_same_seed_damages_the_same_way() -> None:
    data = bytes(range(256)) * 20
    first, again, other = (mutated(data, random.Random(seed)) for seed in ("1/5", "1/5", "1/6"))
    assert first == again != other


def test_what_breaks_a_promise_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With an impossible promise every file breaks it: the run notices, keeps the file, and ends with 1."""
    monkeypatch.setitem(BOUNDS, "picture", Bound((0, 3), 1e-9, 1 << 30))
    (sample, *_) = make_samples(tmp_path, ("picture",))
    child = Child()
    try:
        (tmp_path / "work").mkdir()
        assert attempt(child, sample, sample.path.read_bytes(), tmp_path / "work").startswith("took ")
    finally:
        child.close()
    done = subprocess.run(
        [sys.executable, str(Path(__file__).parents[1] / "scripts" / "fuzz.py"), "--seed", "1"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2 and "--seconds or --count" in done.stderr
