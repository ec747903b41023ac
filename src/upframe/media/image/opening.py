"""Open a file safely: never a folder, a named pipe or a device, and without blocking."""

from __future__ import annotations

import errno
import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from upframe.errors import InputError


@dataclass(frozen=True)
class Stamp:
    """Identity of a file, which shows whether it has changed since it was opened."""

    size_bytes: int
    mtime_ns: int
    inode: tuple[int, int]


def stamp(path: Path) -> Stamp:
    """Read the stamp of the file that `path` names now.

    Raises:
        OSError: if there is none.
    """
    status = path.stat()
    return Stamp(status.st_size, status.st_mtime_ns, (status.st_dev, status.st_ino))


_REASONS = {
    errno.ENOENT: ("no such file", "check the name"),
    errno.ENOTDIR: ("no such file", "check the name"),
    errno.ELOOP: ("is a symbolic link that leads back to itself", "remove the link"),
    errno.EACCES: ("permission denied", "make the file readable"),
    errno.EPERM: ("permission denied", "make the file readable"),
    errno.ENAMETOOLONG: ("the name is too long for this system", "rename the file"),
}


def open_regular(path: Path) -> BinaryIO:
    """Open `path` for reading if it is a regular file that is not empty.

    Raises:
        InputError: for everything else, before anything is read. A named pipe or device is not opened. If one replaces the file
            at the last moment, it is opened without blocking and refused.
    """
    try:
        status = path.stat()
        _refuse_irregular(path, status)
        file = open(path, "rb", opener=_open_at_once)  # noqa: SIM115  (Path.open has no opener; the caller closes)
    except ValueError as error:  # a null byte in the name
        raise InputError(path, f"not a file name ({error})", "check the name") from error
    except OSError as error:
        happened, advice = _REASONS.get(error.errno or 0, (f"cannot be opened ({error.strerror})", ""))
        raise InputError(path, happened, advice) from error
    try:
        _refuse_irregular(path, os.fstat(file.fileno()))
    except InputError:
        file.close()
        raise
    return file


def _open_at_once(name: str, flags: int) -> int:
    return os.open(name, flags | getattr(os, "O_NONBLOCK", 0))  # opening a pipe would wait for its writer


def _refuse_irregular(path: Path, status: os.stat_result) -> None:
    mode = status.st_mode
    if stat.S_ISDIR(mode):
        raise InputError(path, "is a folder, not an image", "pass a file, or use a command that takes folders")
    if not stat.S_ISREG(mode):
        kinds = ((stat.S_ISFIFO, "a named pipe"), (stat.S_ISSOCK, "a socket"), (stat.S_ISCHR, "a device"))
        kind = next((name for test, name in kinds if test(mode)), "a device")
        raise InputError(path, f"is {kind}, not an image file", "copy its content to a file first")
    if status.st_size == 0:
        raise InputError(path, "is empty (0 bytes), not an image", "get the file again")
