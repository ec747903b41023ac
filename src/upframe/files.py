"""Files written whole or not at all: temporary names, renames, syncs, locks and disk room."""

from __future__ import annotations

import errno
import hashlib
import logging
import os
import sys
from pathlib import Path
from typing import IO

from upframe.errors import OutputError

try:
    import fcntl
except ImportError:  # Windows, where a file that is open for writing cannot be renamed anyway
    fcntl = None  # type: ignore[assignment]

log = logging.getLogger(__name__)

NAME_BYTES = 255  # of one path component, on every file system in common use


def part_path(path: Path) -> Path:
    """Where the bytes for `path` are gathered: a hidden file in the same folder, so that the rename is atomic."""
    name = f".{path.name}.part"
    if len(os.fsencode(name)) > NAME_BYTES:
        name = f".{hashlib.sha256(os.fsencode(path.name)).hexdigest()[:32]}.part"
    return path.with_name(name)


def open_alone(name: str, flags: int) -> int:
    """Open a part file that no other process writes: two runs with one output would mix their bytes.

    What a killed process left behind is taken over, since its lock died with it.

    Raises:
        BlockingIOError: if another process is writing it.
    """
    handle = os.open(name, flags & ~os.O_TRUNC, 0o666)
    try:
        if fcntl is not None:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise
            except OSError as error:  # some network file systems
                log.debug("%s: cannot be locked (%s)", name, error.strerror)
            # The other may have renamed it to the output just before.
            if not Path(name).exists() or not os.path.samestat(os.fstat(handle), os.stat(name)):  # noqa: PTH116
                raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN), name)
        os.ftruncate(handle, 0)
    except BaseException:
        os.close(handle)
        raise
    return handle


_ADVICE = {
    errno.ENOSPC: "free some space, or write to another disk",
    errno.EDQUOT: "free some space, or write to another disk",
    errno.EACCES: "choose a folder that you may write to",
    errno.EPERM: "choose a folder that you may write to",
    errno.EROFS: "choose a folder that you may write to",
    errno.ENOENT: "make the folder first",
    errno.ENOTDIR: "choose another name",
    errno.EISDIR: "choose another name",
    errno.ENAMETOOLONG: "choose a shorter name",
}


def output_error(path: Path, error: OSError) -> OutputError:
    if isinstance(error, BlockingIOError):
        return OutputError(path, "is being written by another run", "wait for it to end")
    reason = (error.strerror or str(error)).lower()
    return OutputError(path, f"cannot be written ({reason})", _ADVICE.get(error.errno or 0, "check the disk"))


def sync_folder(folder: Path) -> None:
    """Make the rename itself durable, where the system can."""
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:  # Windows cannot open folders, and needs no such call
        return
    try:
        os.fsync(handle)
    except OSError as error:  # some network file systems; the file itself is synced
        log.debug("%s: folder not synced (%s)", folder, error.strerror)
    finally:
        os.close(handle)


def sync_file(path: Path) -> None:
    """All bytes of `path` on the disk."""
    handle = os.open(path, os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


if sys.platform == "win32":

    def lock(file: IO[str]) -> None:
        """Hold `file` until it is closed, however the process ends.

        Raises:
            OSError: when another process holds it.
        """
        import msvcrt

        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)

else:

    def lock(file: IO[str]) -> None:
        """Hold `file` until it is closed, however the process ends.

        Raises:
            OSError: when another process holds it.
        """
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
