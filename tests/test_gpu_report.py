"""The report on a device, made on the CPU with small sizes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

SCRIPT = Path(__file__).resolve().parents[1] / "scripts" / "gpu_report.py"


def test_the_report_has_every_case_with_a_figure_or_a_reason(tmp_path: Path) -> None:
    command = [sys.executable, str(SCRIPT), "--device", "cpu", "--size", "32x24", "--repeats", "1"]
    done = subprocess.run([*command, "--models", "photo-x2", "--out", str(tmp_path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "gpu_report.json").read_text())
    rows = {row["precision"]: row for row in report["networks"]}
    assert rows.keys() == {"fp32", "bf16", "fp16"} and report["device"] == "cpu"
    assert all(("seconds" in row and row["seconds"] > 0) != bool(row.get("refused")) for row in rows.values())
    assert rows["fp32"]["largest_difference"] == 0  # the same computation twice
    assert report["copies"][0]["gb_per_s"] > 0
    assert (tmp_path / "gpu_report.txt").read_text() == done.stdout
