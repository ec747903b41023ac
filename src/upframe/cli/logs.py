"""Logging: short lines on the screen, and with `--log` a file with times and levels."""

from __future__ import annotations

import logging
import shlex
import sys
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING

from upframe.errors import OutputError, one_line
from upframe.version import __version__

if TYPE_CHECKING:
    from upframe.jobs import Event

FILE_FORMAT = "%(asctime)s %(levelname)-7s %(name)s: %(message)s"
_run = logging.getLogger("upframe.run")  # for the file alone: the screen has its own display
_run.propagate = False
_LEVELS = {"notice": logging.WARNING, "failed": logging.ERROR, "progress": logging.DEBUG}
ARGUMENTS: ContextVar[tuple[str, ...]] = ContextVar("ARGUMENTS", default=())
"""The command line, for the first line of a log file."""
_added: list[logging.Handler] = []


class _Screen(logging.Handler):
    """Writes to the standard error of the moment: live lines replace it, and move out of the way."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            print(self.format(record), file=sys.stderr, flush=True)  # noqa: T201
        except OSError:
            self.handleError(record)


def start_logs(*, screen: int, debug: bool, file: Path | None) -> None:
    """Send the log records of this process to the screen from level `screen` on, and all of them to `file`.

    Args:
        debug: Whether the screen shows all records of upframe.
        file: Appended to; its folder is made.

    Raises:
        OutputError: if the file cannot be written.
    """
    stop_logs()
    root, upframe = logging.getLogger(), logging.getLogger("upframe")
    shown = _Screen(level=logging.DEBUG if debug else screen)
    # A reader of --debug wants to know where a line comes from; anybody else, who speaks.
    shown.setFormatter(logging.Formatter("%(name)s: %(message)s" if debug else "upframe: %(message)s"))
    _add(root, shown)
    root.setLevel(screen if file is None else min(screen, logging.INFO))
    upframe.setLevel(logging.DEBUG if debug or file is not None else screen)
    if file is None:
        return
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        handler = logging.FileHandler(file, encoding="utf-8", errors="backslashreplace")
    except OSError as error:
        raise OutputError(file, f"cannot be written ({error.strerror})", "choose another log file") from error
    handler.setFormatter(logging.Formatter(FILE_FORMAT))
    _add(root, handler)
    _run.addHandler(handler)
    _run.setLevel(logging.DEBUG)
    _run.info("upframe %s: %s", __version__, one_line(shlex.join(["upframe", *ARGUMENTS.get()])))


def stop_logs() -> None:
    """Close the log file, and take away what `start_logs` added."""
    for handler in _added:
        logging.getLogger().removeHandler(handler)
        _run.removeHandler(handler)
        handler.close()
    _added.clear()


def log_event(event: Event) -> None:
    """Note an event of a job in the log file, if there is one."""
    if _run.handlers:
        data = event.data
        short = ", ".join(f"{key} {value}" for key, value in data.items() if key != "ledger")
        facts = data.get("error") or data.get("message") or short
        _run.log(_LEVELS.get(event.event, logging.INFO), "%s", one_line(f"{event.event} {event.input}: {facts}"))


def log_end(text: str, *, code: int) -> None:
    """Note in the log file how the command ended."""
    if _run.handlers:
        _run.log(logging.ERROR if code else logging.INFO, "%s", one_line(f"{text} (exit code {code})"))


def _add(logger: logging.Logger, handler: logging.Handler) -> None:
    logger.addHandler(handler)
    _added.append(handler)
