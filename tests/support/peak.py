"""Peak memory of a run of the command, told by the run itself."""

from __future__ import annotations

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
