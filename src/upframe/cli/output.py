"""The two streams, and text files."""

from __future__ import annotations

import contextlib
import json
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from upframe.errors import InputError, OutputError

if TYPE_CHECKING:
    from upframe.jobs import Event


SHOWN_AS: dict[str, str] = {}
"""Names of files of upframe's own, as patterns, and what a user calls them: `-` is read into a file and written from one."""


def shown(text: str) -> str:
    """`text` in the user's names."""
    for pattern, name in SHOWN_AS.items():
        text = re.sub(pattern, name, text)
    return text


def print_line(text: str) -> None:
    """One line on standard output.

    Raises:
        BrokenPipeError: if nobody reads it any more.
        OutputError: if it cannot be written, such as to a file on a full disk.
    """
    try:
        print(shown(text), flush=True)  # noqa: T201
    except BrokenPipeError:
        raise
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise OutputError("standard output", f"cannot be written ({reason})", "check where it leads") from error


def say(text: str) -> None:
    """One line for a person on standard error, if there is one."""
    with contextlib.suppress(OSError):
        print(shown(text), file=sys.stderr, flush=True)  # noqa: T201


def read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise InputError(path, "no such file", "check the path") from error
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(path, "cannot be read as text", "pass a results.json that upframe evaluate wrote") from error


def write_text(path: Path, text: str) -> None:
    from upframe.files import atomic_text, writing

    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    atomic_text(path, text)


def show_json(event: Event) -> None:
    print_line(json.dumps({"event": event.event, "input": str(event.input), **event.data}))
