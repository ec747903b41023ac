"""A real server in its own process, on a free port of this machine."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx

from upframe.client import Client

START_S = 60
"""A loaded machine takes long to start Python."""


class Server:
    """`upframe serve` as a user starts it.

    Args:
        flags: Further flags of the command line.
        cwd: The folder in which it is started.
    """

    def __init__(self, data: Path, *flags: str, token: str | None = None, cwd: Path | None = None) -> None:
        self.data, self.flags, self.token, self.cwd = data, flags, token, cwd
        self.process: subprocess.Popen[str] | None = None
        self.address = ""
        self.port = 0
        """Where it starts; 0 takes a free one."""

    def start(self) -> Server:
        flags = ["serve", "--port", str(self.port), "--data", str(self.data), "--json", *self.flags]
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-m", "upframe", *flags],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=self.cwd,
        )
        assert self.process.stdout is not None and self.process.stderr is not None
        line = self.process.stdout.readline()
        assert line, self.process.stderr.read()
        self.address = json.loads(line)["address"].rstrip("/")
        return self

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def children(self) -> list[int]:
        """Processes that the server has started."""
        found = []
        for entry in Path("/proc").glob("[0-9]*/stat"):
            with contextlib.suppress(OSError):
                fields = entry.read_text().rpartition(")")[2].split()
                if int(fields[1]) == self.pid and fields[0] != "Z":
                    found.append(int(entry.parent.name))
        return found

    def child(self, name: str) -> int | None:
        """The child of this name, if it runs."""
        for pid in self.children():
            with contextlib.suppress(OSError):
                words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
                if any(word.startswith(name.encode()) for word in words):
                    return pid
        return None

    def client(self, **given: float) -> Client:
        return Client(self.address, token=self.token, **given)

    def http(self, **given: object) -> httpx.Client:
        """A bare client, for requests that the typed one would not send."""
        return httpx.Client(base_url=self.address, trust_env=False, timeout=60, **given)  # type: ignore[arg-type]

    def fetched(self, path: str) -> bytes:
        """The content of a view, as soon as it is made."""
        with self.http() as http:
            while (answer := http.get(path)).status_code == 202:
                time.sleep(0.02)
        assert answer.status_code == 200, answer.text
        return answer.content

    def stop(self) -> tuple[int, float]:
        """End it as a service manager does; its exit code, and how long it took."""
        assert self.process is not None
        began = time.monotonic()
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(30)
        return code, time.monotonic() - began

    def kill(self, *, children: bool = True) -> None:
        """Kill it, and its children too, as a power cut would."""
        assert self.process is not None
        pids = self.children() if children else []
        for pid in (self.process.pid, *pids):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait(30)

    def __enter__(self) -> Server:
        return self.start()

    def __exit__(self, *_: object) -> None:
        if self.process is not None and self.process.poll() is None:
            self.kill()
        for stream in (self.process.stdout, self.process.stderr) if self.process is not None else ():
            if stream is not None:
                stream.close()


@contextlib.contextmanager
def within(seconds: float) -> Iterator[None]:
    """Fail if the block takes longer."""
    began = time.monotonic()
    yield
    taken = time.monotonic() - began
    assert taken <= seconds, f"took {taken:.2f} s, more than {seconds:g}"


def until(condition: object, seconds: float = 60) -> None:
    """Wait until `condition()` holds."""
    assert callable(condition)
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.02)
