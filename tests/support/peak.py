"""Peak memory of a run, told by the run itself."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

# `wait4` would tell the larger of the child's own peak and that of the test process it was forked from.
_CODE = """
import atexit, re, sys
from pathlib import Path
peak = Path(sys.argv[1])
status = Path("/proc/self/status")
atexit.register(lambda: peak.write_text(re.search(r"VmHWM:\\s+(\\d+) kB", status.read_text())[1]))
sys.argv = ["upframe", *sys.argv[2:]]
from upframe.cli import main
main()
"""

_PLANNED = """
import json, sys
from upframe import machine
from upframe.jobs import JobOptions, Target, keep_freed_memory, plan, run
keep_freed_memory()
source, output, model, options = json.loads(sys.argv[1])
planned = plan([source], output, JobOptions(model=model, target=Target(**options)))
estimate = planned.estimate(planned.items[0])
report = run(planned)
assert report.error is None, report.error
print(json.dumps([estimate.memory_bytes, machine.peak_bytes()]))
"""

needs_proc = pytest.mark.skipif(
    not Path("/proc/self/status").exists(), reason="a process can read its own peak memory on Linux only"
)


def run_and_measure(folder: Path, *arguments: object) -> tuple[int, str]:
    """Run `upframe` with `arguments`; its peak resident memory in bytes, and what it printed.

    Args:
        folder: For a small file.
    """
    peak = folder / "peak"
    command = [sys.executable, "-c", _CODE, str(peak), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return int(peak.read_text()) * 1024, done.stdout


def planned_and_peak(source: Path, output: Path, *, model: Path, **target: float) -> tuple[int, int]:
    """Plan and make an output in a process with the command's allocator; the planned memory and the peak, in bytes."""
    task = json.dumps([str(source), str(output), str(model), target])
    done = subprocess.run([sys.executable, "-c", _PLANNED, task], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    planned, peak = json.loads(done.stdout)
    return planned, peak
