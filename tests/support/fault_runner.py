"""Run command lines of upframe in forked processes whose n-th change to the disk fails: `python fault_runner.py`.

Started with faults.c preloaded. Torch is imported once, so that a run takes tenths of a second. Reads JSON from standard input,
a line for each run: {"command": [...], "below": folder, "at": n, "error": errno}, with `at` -1 to count and error 0 to kill.
Answers with {"status": exit code or -signal, "seen": number of changes, "call": the one that failed}.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import json
import os
import sys
from pathlib import Path

PRELOADED = (
    *("upframe.api.pictures", "upframe.jobs.image", "upframe.jobs.video.render", "upframe.jobs.video.outputs"),
    *("upframe.api.training", "upframe.training.loop.train", "upframe.engines.exporting"),
    *("onnx", "onnxscript", "onnxruntime", "torch.onnx._internal.exporter._core"),
)
"""Imports of the commands, which take longer than their work."""


def run(command: list[str], log: Path) -> None:
    """Run one command line in this process, which then ends."""
    with log.open("wb") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    from upframe import cli

    code = 1
    try:
        cli.main(command)
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    finally:
        sys.stdout.flush()
        os._exit(code)


def main() -> None:
    faults = ctypes.CDLL(None)
    faults.fault_set.argtypes = [ctypes.c_long, ctypes.c_int]
    faults.fault_seen.restype = ctypes.c_long
    faults.fault_last.restype = ctypes.c_char_p
    import torch

    torch.set_num_threads(1)  # a pool of threads would not survive the fork
    for name in PRELOADED:
        with contextlib.suppress(ImportError):  # extras
            importlib.import_module(name)
    log = Path(sys.argv[1])
    for line in sys.stdin:
        asked = json.loads(line)
        os.environ["FAULTS_BELOW"] = asked["below"]
        faults.fault_set(asked["at"], asked["error"])
        child = os.fork()
        if child == 0:
            run(asked["command"], log)
        _, status = os.waitpid(child, 0)
        answer = {
            "status": os.waitstatus_to_exitcode(status),
            "seen": faults.fault_seen(),
            "call": faults.fault_last().decode(),
        }
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
