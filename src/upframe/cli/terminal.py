"""The terminal behind a stream: whether there is one, how wide it is, and whether it takes colours."""

from __future__ import annotations

import os
import sys
from typing import Literal, TextIO

from upframe.cli import wording

LEAST_COLUMNS = 40
"""Narrower terminals are treated as this wide: nothing useful fits."""

Style = Literal["error", "note", "done", "dim", "bold"]
_CODES: dict[Style, str] = {"error": "1;31", "note": "36", "done": "32", "dim": "2", "bold": "1"}


def is_terminal(stream: TextIO | None) -> bool:
    """Whether a person sees `stream` as it is written, on something that can move its cursor."""
    return stream is not None and not stream.closed and stream.isatty() and os.environ.get("TERM", "dumb") != "dumb"


def takes_colour(stream: TextIO | None) -> bool:
    """Whether to colour: never with NO_COLOR, always with FORCE_COLOR, else on a terminal (https://no-color.org)."""
    if os.environ.get("NO_COLOR"):
        return False
    if os.environ.get("FORCE_COLOR", "0") not in ("", "0"):
        return True
    return is_terminal(stream)


def columns(stream: TextIO | None) -> int:
    """Columns of the terminal behind `stream`, 80 where there is none; COLUMNS overrides them, as everywhere."""
    stated = os.environ.get("COLUMNS", "")
    if stated.isdecimal() and int(stated) > 0:
        return max(int(stated), LEAST_COLUMNS)
    try:
        return max(os.get_terminal_size(stream.fileno()).columns or 80, LEAST_COLUMNS) if stream is not None else 80
    except (OSError, ValueError):  # no terminal, or not even a file
        return 80


def takes_symbols(stream: TextIO | None) -> bool:
    """Whether lines and dots beyond ASCII can be written to `stream`."""
    try:
        "━─…×".encode(getattr(stream, "encoding", None) or "ascii")
    except (UnicodeError, LookupError):
        return False
    return True


def styled(text: str, style: Style, stream: TextIO | None = None) -> str:
    """`text` in the colour for `style` where `stream` (standard error unless given) takes colours."""
    return f"\x1b[{_CODES[style]}m{text}\x1b[0m" if takes_colour(stream or sys.stderr) else text


def fitted(text: str, *, start: str = "", style: Style = "bold") -> str:
    """A line for standard error: on a terminal broken between words, its start in the colour for `style`.

    Args:
        start: What `text` begins with and is coloured, such as `note:`.
    """
    if is_terminal(sys.stderr):
        text = "\n".join(wording.wrapped(text, columns(sys.stderr) - 1, indent="    "))
    return styled(start, style) + text.removeprefix(start) if start else text
