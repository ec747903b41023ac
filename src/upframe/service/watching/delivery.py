"""From a finished job to the output folder: names, moves, and the list of what failed."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path, PurePath

from upframe.errors import OutputError, UsageError
from upframe.files import atomic_text, link_file, put_in_place, writing
from upframe.service.watching.ledger import Entry, Ledger

FAILED = "failed"
"""Folder below the output's with the reason of each failure."""


def output_name(entry: Entry, made: Path, ledger: Ledger) -> str:
    """Path of an output below the output folder: the input's, with the extension of what was made. If another input has that
    output already, the input's extension stays in the name."""
    own = PurePath(entry.path)
    usual = str(own.with_suffix(made.suffix))
    holder = ledger.of_output(usual)
    if holder is None or holder.path == entry.path:
        return usual
    return str(own.with_name(own.name + made.suffix))


def deliver(made: Path, target: Path, *, replace: bool) -> None:
    """Move an output to its place, which the output folder's disk holds too.

    Raises:
        OutputError: if that is refused.
        UsageError: if there is a file which must not be replaced.
    """
    with writing(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        if replace:
            put_in_place(made, target)
            return
        try:
            link_file(made, target)
        except FileExistsError:
            raise taken(target) from None
        made.unlink()


def taken(target: Path) -> UsageError:
    """A refusal which the next start may not have: the user moves the file away, or adds -y."""
    return UsageError(target, "exists already, and this watch has not made it", "move it away, or add -y")


def move_done(source: Path, folder: Path, relative: str) -> Path:
    """Move an input out of the watched folder, next to others of its name, never over them.

    Returns:
        Its new place.

    Raises:
        OutputError: if it cannot be moved.
    """
    wanted = folder / relative
    for place in (wanted, *(wanted.with_stem(f"{wanted.stem} ({number})") for number in range(2, 1000))):
        with writing(place), contextlib.suppress(FileExistsError):
            place.parent.mkdir(parents=True, exist_ok=True)
            link_file(source, place)
            source.unlink()
            return place
    raise OutputError(wanted, "exists already, as do 998 others of its name", "empty the folder")


class Failures:
    """`failed/` in the output folder: a text file with the reason for each input that was set aside."""

    def __init__(self, output: Path) -> None:
        self._folder = output / FAILED

    def add(self, entry: Entry, reason: str) -> None:
        place = self._place(entry.path)
        with writing(place):
            place.parent.mkdir(parents=True, exist_ok=True)
        atomic_text(place, f"{reason}\nsize {entry.stamp.size}, sha256 {entry.digest}\n")

    def remove(self, path: str) -> None:
        """Forget an input that is well now, or gone."""
        place = self._place(path)
        with contextlib.suppress(OSError):
            place.unlink()
            for folder in place.parents:
                if not folder.is_relative_to(self._folder):
                    break
                folder.rmdir()

    def _place(self, path: str) -> Path:
        return self._folder / f"{path}.txt"


def exists(path: Path) -> bool:
    return os.path.lexists(path)
