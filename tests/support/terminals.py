"""Programs run in a real pseudo-terminal, and the screen that a person would see."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from upframe.cli import wording

_TOKEN = re.compile(r"\x1b\[(\??[\d;]*)([A-Za-z])|\x1b.|[\r\n]|[^\x1b\r\n]")


@dataclass
class Screen:
    """The text on a terminal: enough of one for lines, colours, cursor up and erase. It scrolls without end."""

    columns: int
    lines: list[str] = field(default_factory=lambda: [""])
    row: int = 0
    column: int = 0
    colours: set[str] = field(default_factory=set)
    """Every rendition that was asked for, such as `31` for red."""
    wrapped: list[str] = field(default_factory=list)
    """Lines that ran over the right edge, as far as they fit."""

    def feed(self, text: str) -> None:
        for found in _TOKEN.finditer(text):
            token, arguments, letter = found[0], found[1], found[2]
            if token == "\r":
                self.column = 0
            elif token == "\n":
                self._down()
            elif letter is not None:
                self._control(arguments, letter)
            elif not token.startswith("\x1b"):
                self._put(token)

    def _control(self, arguments: str, letter: str) -> None:
        if letter == "A":
            self.row = max(self.row - int(arguments or 1), 0)
        elif letter == "K":
            line = self.lines[self.row]
            self.lines[self.row] = "" if arguments == "2" else line[: self.column]
        elif letter == "m":
            self.colours |= set(arguments.split(";")) - {"0", ""}

    def _down(self) -> None:
        self.row += 1
        while len(self.lines) <= self.row:
            self.lines.append("")

    def _put(self, character: str) -> None:
        width = wording.cells(character)
        if self.column + width > self.columns:
            self.wrapped.append(self.lines[self.row])
            self._down()
            self.column = 0
        line = self.lines[self.row].ljust(self.column)
        self.lines[self.row] = line[: self.column] + character + line[self.column + 1 :]
        self.column += width

    @property
    def shown(self) -> list[str]:
        """The lines that are not empty."""
        return [line.rstrip() for line in self.lines if line.strip()]


@dataclass(frozen=True)
class Seen:
    """A program's run in a terminal."""

    code: int
    raw: str
    """All that it sent to the terminal."""
    out: str
    """Standard output, where that was no terminal."""
    frames: list[list[str]]
    """The screen each time that something was sent."""
    screen: Screen
    """The screen at its end."""

    @property
    def final(self) -> list[str]:
        return self.screen.shown


def run_in_terminal(
    arguments: Sequence[object],
    *,
    columns: int = 80,
    environment: Mapping[str, str] | None = None,
    is_out_piped: bool = False,
    on_frame: Callable[[int, list[str], subprocess.Popen[bytes]], object] | None = None,
) -> Seen:
    """Run upframe in a terminal of its own.

    Args:
        environment: Changes to the environment; TERM is xterm-256color otherwise.
        is_out_piped: Whether standard output is a pipe, so that standard error alone is the terminal.
        on_frame: Called with the terminal, the screen and the process each time that something was sent.
    """
    ours, theirs = pty.openpty()
    set_columns(ours, columns)
    clean = {k: v for k, v in os.environ.items() if k not in ("COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR")}
    process = subprocess.Popen(
        [sys.executable, "-m", "upframe", *map(str, arguments)],
        stdin=theirs,
        stdout=subprocess.PIPE if is_out_piped else theirs,
        stderr=theirs,
        env={**clean, "TERM": "xterm-256color", "PYTHONIOENCODING": "utf-8", **(environment or {})},
        start_new_session=True,
    )
    os.close(theirs)
    screen, frames, raw, rest = Screen(columns), [], "", b""
    with contextlib.suppress(OSError):  # how Linux says that the other end is closed
        while piece := os.read(ours, 65536):
            rest += piece
            text = rest.decode("utf-8", "ignore")
            rest = rest[len(text.encode()) :]
            raw += text
            screen.feed(text)
            frames.append(screen.shown)
            if on_frame is not None:
                on_frame(ours, screen.shown, process)
    os.close(ours)
    out = b""
    if process.stdout is not None:
        with process.stdout:
            out = process.stdout.read()
    return Seen(process.wait(60), raw, out.decode(), frames, screen)


def set_columns(terminal: int, columns: int, *, rows: int = 40) -> None:
    """Resize a terminal, as dragging its window does."""
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
