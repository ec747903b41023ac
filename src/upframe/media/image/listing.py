"""List the image files of a folder in natural order."""

from __future__ import annotations

import fnmatch
import logging
import os
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from upframe.errors import InputError
from upframe.media.image.formats import format_of_name

_LOG = logging.getLogger(__name__)

_SYSTEM_FILES = {"thumbs.db", "desktop.ini", "ehthumbs.db", ".ds_store"}


def is_image_name(path: str | Path) -> bool:
    """Whether the name has the extension of an image format, including formats that need an extra."""
    suffix = Path(path).suffix
    return bool(suffix) and format_of_name(suffix) is not None


def natural_key(name: str) -> tuple[tuple[int, int, str], ...]:
    """Sort key that puts f9 before f10 and ignores case."""
    parts = re.split(r"([0-9]+)", name.casefold())
    return tuple((0, int(part), "") if part.isdecimal() and part.isascii() else (1, 0, part) for part in parts)


def iter_files(
    folder: Path,
    *,
    recursive: bool = False,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    is_wanted: Callable[[str], bool] | None = None,
) -> Iterator[Path]:
    """List image files in `folder` in natural order, the files of a folder before its sub-folders.

    Hidden and system files, upframe's part files, and everything that is not a regular file (a folder named x.png, a named
    pipe, a dead link) are skipped. Linked folders are followed, each real folder once.

    Args:
        recursive: Also look into sub-folders.
        include: Globs on the name or on the path below `folder`; when given, they replace the test of the extension.
        exclude: Globs of the same kind for files and folders to skip.
        is_wanted: Test of names, by default `is_image_name`.

    Raises:
        InputError: if `folder` is not a readable folder.
    """
    try:
        status = folder.stat()
        with os.scandir(folder):
            pass
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise InputError(folder, f"cannot be listed ({reason})", "pass a readable folder") from error
    wanted = is_wanted or is_image_name
    yield from _walk(folder, folder, recursive, tuple(include), tuple(exclude), wanted, {(status.st_dev, status.st_ino)})


def _walk(
    top: Path,
    folder: Path,
    recursive: bool,
    include: Sequence[str],
    exclude: Sequence[str],
    is_wanted: Callable[[str], bool],
    seen: set[tuple[int, int]],
) -> Iterator[Path]:
    try:
        with os.scandir(folder) as entries:
            names = sorted((entry.name for entry in entries), key=lambda name: (natural_key(name), name))
    except OSError as error:
        _LOG.warning("%s: skipped, cannot be listed (%s)", folder, error.strerror)
        return
    folders = []
    for name in names:
        path = folder / name
        if name.startswith(".") or name.lower() in _SYSTEM_FILES or _matches(path, top, exclude):
            continue
        if path.is_dir():  # False for a link that leads to itself
            folders.append(path)
        elif path.is_file() and (_matches(path, top, include) if include else is_wanted(name)):
            yield path
    for path in folders if recursive else ():
        status = path.stat()
        if (status.st_dev, status.st_ino) not in seen:
            seen.add((status.st_dev, status.st_ino))
            yield from _walk(top, path, recursive, include, exclude, is_wanted, seen)


def _matches(path: Path, top: Path, globs: Sequence[str]) -> bool:
    below = path.relative_to(top).as_posix()
    return any(fnmatch.fnmatch(path.name, glob) or fnmatch.fnmatch(below, glob) for glob in globs)
