"""`upframe watch` in its own process, as a user starts it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

START_S = 60


class Watch:
    """A watch whose events are collected.

    Args:
        flags: Further flags of the command line.
        settle_s: How long a file has to be unchanged.
        before: The command that runs it, and its arguments.
    """

    def __init__(self, folder: Path, output: Path, *flags: object, settle_s: float = 0.4, before: Sequence[str] = ()) -> None:
        self.folder, self.output, self._before = folder, output, before
        self._flags = ["--json", "--settle", str(settle_s), *map(str, flags)]
        self.events: list[dict[str, Any]] = []

    def __enter__(self) -> Watch:
        program = [*self._before, sys.executable, "-P", "-m", "upframe"]
        command = [*program, "watch", str(self.folder), "-o", str(self.output), *self._flags]
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self.wait_for("watching")
        return self

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.events.append(json.loads(line) | {"at": time.monotonic()})

    def of(self, event: str) -> list[dict[str, Any]]:
        return [one for one in tuple(self.events) if one["event"] == event]

    def wait_for(self, event: str, count: int = 1, seconds: float = START_S) -> list[dict[str, Any]]:
        """Wait until this event has come so many times."""
        end = time.monotonic() + seconds
        while len(self.of(event)) < count:
            assert time.monotonic() < end, f"{event} did not come in time: {self.events}"
            assert self.process.poll() is None or self._reader.is_alive() or len(self.of(event)) >= count, self.rest()
            time.sleep(0.02)
        return self.of(event)

    def rest(self) -> str:
        assert self.process.stderr is not None
        return self.process.stderr.read()

    def stop(self, number: int = signal.SIGTERM) -> tuple[int, float]:
        """End it with a signal; its exit code, and how long it took."""
        began = time.monotonic()
        self.process.send_signal(number)
        return self.process.wait(30), time.monotonic() - began

    def kill(self) -> None:
        """Kill it alone; its workers end by themselves."""
        os.kill(self.process.pid, signal.SIGKILL)
        self.process.wait(30)

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.kill()
        self._reader.join(10)
        for stream in (self.process.stdout, self.process.stderr):
            with contextlib.suppress(OSError):
                if stream is not None:
                    stream.close()
