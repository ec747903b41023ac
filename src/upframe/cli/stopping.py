"""The signals that stop a command: answered at once, whatever the command is doing.

Python runs a signal's handler once the main thread returns to Python, and an encoder or a network may stay away for half a
minute. So a thread of its own hears of signals by a pipe that the system's handler writes to. It answers the first signal in
words, asks the command to stop, and ends the process if the command has not stopped soon. A second signal ends it right away.
"""

from __future__ import annotations

import contextlib
import io
import os
import select
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from types import FrameType

from upframe.cli.output import say

SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))
GRACE_S = 1.5
"""How long a command may take to stop by itself."""
_SHOW_CURSOR = b"\x1b[?25h\n"


class Stop:
    """Which signal asked us to stop."""

    code: int | None = None


def _pipe() -> tuple[io.RawIOBase, io.RawIOBase]:
    """Ends to read from and to write to without waiting. Windows can wait for sockets alone; elsewhere none is opened."""
    if sys.platform == "win32":
        ear, mouth = socket.socketpair()
        mouth.setblocking(False)
        return ear.makefile("rb", buffering=0), mouth.makefile("wb", buffering=0)
    read, write = os.pipe()
    os.set_blocking(write, False)
    return io.FileIO(read, "rb"), io.FileIO(write, "wb")


class _Listener:
    """Hears signals until it is closed."""

    def __init__(self) -> None:
        self.cancel: threading.Event | None = None
        """Asks the command to stop; without it, the first signal interrupts the main thread."""
        self.patiently: str | None = None
        """Words for how the command stops in its own time, if it has something to save."""
        self._answered = threading.Event()
        self._ear, self._mouth = _pipe()
        # What whoever started us has told us to ignore stays ignored, such as SIGHUP under nohup.
        self._before = {n: handler for n in SIGNALS if (handler := signal.getsignal(n)) is not signal.SIG_IGN}
        self._fd_before = signal.set_wakeup_fd(self._mouth.fileno(), warn_on_full_buffer=False)
        threading.Thread(target=self._listen, name="upframe-signals", daemon=True).start()
        for number in self._before:  # last: from here on a signal may come
            signal.signal(number, self._interrupt)

    def close(self) -> None:
        signal.set_wakeup_fd(self._fd_before)
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._mouth.close()

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        if self.cancel is None:
            self._answered.wait(GRACE_S)  # or the process might end before the answer is out
            raise KeyboardInterrupt

    def _listen(self) -> None:
        deadline: float | None = None
        while True:
            left = None if deadline is None or self.patiently is not None else max(deadline - time.monotonic(), 0)
            if not select.select([self._ear], [], [], left)[0]:
                _leave(Stop.code or 130)
            numbers = self._ear.read(16) or b""
            for number in numbers:
                if number in self._before:
                    deadline = time.monotonic() + GRACE_S
                    self._answer(number)
            if not numbers:
                self._ear.close()
                return

    def _answer(self, number: int) -> None:
        if Stop.code is not None:
            _leave(128 + number)
        Stop.code = 128 + number
        if self.cancel is not None:
            self.cancel.set()
        again = "; press Ctrl-C again to stop at once" if number == signal.SIGINT else ""
        say(f"stopping{'' if self.patiently is None else f' {self.patiently}'}{again}")
        self._answered.set()


_listener: _Listener | None = None


def _leave(code: int) -> None:
    """End the process without unwinding: remove its part files, and show the cursor that a progress bar has hidden."""
    from upframe.files import remove_unfinished

    remove_unfinished()
    with contextlib.suppress(OSError):
        if os.isatty(2):
            os.write(2, _SHOW_CURSOR)
    os._exit(code)


@contextlib.contextmanager
def listening() -> Iterator[None]:
    """Answer SIGINT, SIGTERM and SIGHUP. Does nothing where that is done already, nor outside the main thread."""
    global _listener  # noqa: PLW0603 (signals belong to the process)
    if _listener is not None or threading.current_thread() is not threading.main_thread():
        yield
        return
    Stop.code = None
    _listener = _Listener()
    try:
        yield
    finally:
        _listener.close()
        _listener = None


@contextlib.contextmanager
def stoppable(*, patiently: str | None = None) -> Iterator[threading.Event]:
    """The first signal sets the event instead of interrupting the main thread.

    Args:
        patiently: For a block that ends in its own time after the event is set, since it has something to save: words for
            that, as in "after this step".
    """
    cancel = threading.Event()
    with listening():
        listener = _listener
        if listener is not None:
            listener.cancel, listener.patiently = cancel, patiently
        try:
            yield cancel
        finally:
            if listener is not None:
                listener.cancel, listener.patiently = None, None
