"""Child processes, which do everything that reads a user's file. They take one request after the other.

A request and its answers are lines of JSON on the child's standard input and output, so that nothing a damaged child says is
executed here. A child that ends costs the request it was at; the next request starts another child.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from upframe.errors import Cancelled
from upframe.service import wire
from upframe.service.problems import Gone, Refused, wire_error

log = logging.getLogger(__name__)

LONGEST_LINE = 32 << 20
"""Bytes of one message; a ledger of thousands of entries is far below."""
GRACE_S = 1.2
"""How long a child may take to stop after a request was cancelled; then it is killed."""
_LOG_BYTES = 1 << 20
_SOURCE = Path(__file__).resolve().parents[2]
# Modules come from where the server's own came from, and never from the folder in which it was started (-P).
_BEGIN = "import sys; sys.path.append(sys.argv.pop(1)); from upframe.service.child.main import main; main()"

Listener = Callable[[str, dict[str, Any]], None]


class _Answer(BaseModel):
    """One line of a child: an event, or the result or error that ends a request."""

    number: int
    event: str | None = None
    data: dict[str, Any] = {}
    result: dict[str, Any] | None = None
    error: wire.Error | None = None


class Child:
    """A child process, started when it is needed.

    Args:
        name: For the log file and the child's own lock.
        device: The device that it computes on.
    """

    def __init__(self, name: str, *, root: Path, logs: Path, device: str = "auto") -> None:
        self.name = name
        self._command = [sys.executable, "-P", "-c", _BEGIN, str(_SOURCE), name, device, str(root)]
        self._log = logs / f"{name}.log"
        self._process: asyncio.subprocess.Process | None = None
        self._lock, self._starting = asyncio.Lock(), asyncio.Lock()
        self._number = 0
        self._is_asked = False
        self._cancelled = 0
        """Number of the latest request that was cancelled."""

    @property
    def pid(self) -> int | None:
        return None if self._process is None or self._process.returncode is not None else self._process.pid

    async def start(self) -> asyncio.subprocess.Process:
        """Start the process if it does not run. The first request need not wait for its imports then.

        Raises:
            OSError: if it cannot be started.
        """
        async with self._starting:
            if self._process is None or self._process.returncode is not None:
                self._process = await self._begun()
            return self._process

    async def _begun(self) -> asyncio.subprocess.Process:
        if self._log.exists() and self._log.stat().st_size > _LOG_BYTES:
            self._log.unlink()
        with self._log.open("ab") as errors:
            return await asyncio.create_subprocess_exec(
                *self._command,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=errors,
                limit=LONGEST_LINE,
                start_new_session=True,  # Ctrl-C in the terminal is for the server alone, which ends its children itself
            )

    async def ask(
        self, task: str, request: dict[str, Any], *, on_event: Listener | None = None, timeout_s: float | None = None
    ) -> dict[str, Any]:
        """Have a task done, and return its result.

        Args:
            on_event: Called with the name and data of each event.
            timeout_s: A child that takes longer is ended; None waits for ever.

        Raises:
            Refused: if the child answered with an error.
            Gone: if the child ended.
        """
        async with self._lock:
            self._number += 1
            self._is_asked = True
            try:
                process = await self.start()
                if self._cancelled == self._number:
                    raise Refused(wire_error(Cancelled(task, "stopped on request")))
                message = {"number": self._number, "task": task, "request": request}
                async with asyncio.timeout(timeout_s):
                    return await self._ask(process, message, on_event)
            except TimeoutError:
                self._kill()
                raise Gone(f"took longer than {timeout_s:g} s and was ended") from None
            except OSError as error:
                raise Gone(f"could not be started ({error.strerror})") from error
            except asyncio.CancelledError:
                await self._abandon(self._number)
                raise
            finally:
                self._is_asked = False

    async def _ask(
        self, process: asyncio.subprocess.Process, message: dict[str, Any], on_event: Listener | None
    ) -> dict[str, Any]:
        assert process.stdin is not None and process.stdout is not None
        try:
            process.stdin.write(json.dumps(message).encode() + b"\n")
            await process.stdin.drain()
            while line := await process.stdout.readline():
                answer = _Answer.model_validate_json(line)
                if answer.number != message["number"]:  # of a request that nobody waits for any more
                    continue
                if answer.result is not None:
                    return answer.result
                if answer.error is not None:
                    raise Refused(answer.error)
                if on_event is not None and answer.event is not None:
                    on_event(answer.event, answer.data)
        except (ConnectionError, ValueError) as error:  # it ended while it was asked, or its line is no answer
            log.warning("%s: %s", self.name, error)
        self._kill()
        raise Gone(_cause(await process.wait()))

    async def _abandon(self, number: int) -> None:
        """Stop a request that nobody waits for any more. The next one finds a child that listens, or none that is dying."""
        process = self._process
        if process is None or process.stdin is None or process.stdout is None:
            return
        try:
            async with asyncio.timeout(GRACE_S):
                process.stdin.write(json.dumps({"cancel": number}).encode() + b"\n")
                await process.stdin.drain()
                while line := await process.stdout.readline():
                    answer = _Answer.model_validate_json(line)
                    if answer.number == number and (answer.result is not None or answer.error is not None):
                        return
        except (TimeoutError, ConnectionError, ValueError) as error:
            log.info("%s: did not stop in time and is killed (%s)", self.name, type(error).__name__)
        self._kill()
        await process.wait()

    async def cancel(self) -> None:
        """Stop the request at hand: politely at first, then by ending the process."""
        if not self._is_asked:
            return
        process, number = self._process, self._number
        self._cancelled = number
        if process is not None and process.stdin is not None:
            with contextlib.suppress(ConnectionError):
                process.stdin.write(json.dumps({"cancel": number}).encode() + b"\n")
                await process.stdin.drain()
        for _ in range(int(GRACE_S / 0.05)):
            await asyncio.sleep(0.05)
            if not self._is_asked or self._number != number:
                return
        log.info("%s: did not stop in time and is killed", self.name)
        self._kill()

    async def end(self) -> None:
        """End the process."""
        self._kill()
        if self._process is not None:
            await self._process.wait()

    def _kill(self) -> None:
        if self.pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, getattr(signal, "SIGKILL", signal.SIGTERM))


def _cause(code: int) -> str:
    """Why a process ended, as one clause."""
    if code < 0:
        names = {signal.SIGSEGV: "crashed", signal.SIGABRT: "was aborted", signal.SIGBUS: "crashed"}
        name = names.get(signal.Signals(-code), "was killed")
        hint = ", perhaps because memory ran out" if -code == getattr(signal, "SIGKILL", 9) else ""
        return f"{name} ({signal.Signals(-code).name}{hint})"
    return f"ended with exit code {code}"
