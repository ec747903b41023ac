"""Write files whole or not at all: the only module that makes temporary names, renames, syncs, locks and checks disk room.

    with atomic_file(path) as file:      write through a handle; the file gets its name when the block ends
    with atomic_path(path) as part:      the same for libraries that write by name
    with atomic_folder(path) as folder:  the same for a folder
    atomic_bytes(path, data), atomic_text(path, text)
    put_in_place(made, path)             rename a finished file or folder to its final name
    with scratch_folder() as folder:     temporary files; the next process removes those of killed processes
    with Lock(path): ...                 one process at a time; the lock of a killed process is released
    parsed_json(text)                    read JSON that anyone may have written
    check_room(path, needed_bytes)       refuse to write more than the disk can hold
    with writing(path): ...              turn system errors into `OutputError` with advice

The order is always the same: sync the bytes to the disk, check them, rename the file, sync the folder. After an error no new
file is left, and a file that was at `path` before is unchanged. One long module on purpose: `scripts/check_house.py` refuses
these calls of the system in every other one.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import json
import logging
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, BinaryIO, Self, TypeVar, cast

from upframe.errors import BusyError, OutputError, UpframeError

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer
    from typing_extensions import Buffer

log = logging.getLogger(__name__)

_T = TypeVar("_T")

NAME_BYTES = 255
"""Longest name of a file or folder on every file system in common use."""

Check = Callable[[Path], None]
"""Checks a finished part file before it is renamed; if the check raises, the file is not renamed."""

_UNFINISHED: dict[Path, Callable[[], None]] = {}
"""Part files and scratch folders of this process, and what removes them."""

_SPARE = 1.2  # factor on the bytes needed: estimates are rough, and file systems need room of their own
_BUFFER_BYTES = 1 << 20
_SCRATCH = ".upframe-tmp-"
_LOCK = "lock"


# Errors ---------------------------------------------------------------------------------------------------------------
_ADVICE = {
    errno.ENOSPC: "free some space, or write to another disk",
    errno.EDQUOT: "free some space, or write to another disk",
    errno.EFBIG: "write to a disk that supports larger files",
    errno.EACCES: "choose a folder that you may write to",
    errno.EPERM: "choose a folder that you may write to",
    errno.EROFS: "choose a folder that you may write to",
    errno.ENOENT: "make the folder first",
    errno.ENOTDIR: "choose another name",
    errno.EISDIR: "choose another name",
    errno.ENAMETOOLONG: "choose a shorter name",
}


def output_error(path: Path, error: OSError, *, advice: str = "") -> OutputError:
    """Make the error to raise when the system refuses to write `path`.

    Args:
        advice: Replaces the advice that fits the system's error number.
    """
    if isinstance(error, BlockingIOError):
        return BusyError(path, "is being written by another run", "wait for it to end")
    reason = (error.strerror or str(error)).lower()
    return OutputError(path, f"cannot be written ({reason})", advice or _ADVICE.get(error.errno or 0, "check the disk"))


@contextlib.contextmanager
def writing(path: Path, *, advice: str = "") -> Iterator[None]:
    """Turn system errors of the block into an `OutputError` about `path`; see `output_error`."""
    try:
        yield
    except OSError as error:
        raise output_error(path, error, advice=advice) from error


# Files ----------------------------------------------------------------------------------------------------------------
def part_path(path: Path) -> Path:
    """Path of the part file for `path`: hidden, and in the same folder so that the rename is atomic."""
    return hidden_beside(path, "part")


def hidden_beside(path: Path, ending: str) -> Path:
    """`.<name>.<ending>` beside `path`; a hash replaces a name that would be too long."""
    name = f".{path.name}.{ending}"
    if len(os.fsencode(name)) > NAME_BYTES:
        name = f".{hashlib.sha256(os.fsencode(path.name)).hexdigest()[:32]}.{ending}"
    return path.with_name(name)


class PartFile(io.RawIOBase):
    """The part file that `atomic_file` yields: buffered, readable, and it remembers the first system error.

    It has no `fileno`: with one, Pillow, tifffile and torch would bypass this class and hide a full disk behind errors of their
    own.
    """

    def __init__(self, file: io.BufferedRandom) -> None:
        super().__init__()
        self._file = file
        self.failure: OSError | None = None
        """The first system error; errors that a library raises afterwards are its consequences."""

    def write(self, data: Buffer, /) -> int:
        return self._remembering(lambda: self._file.write(data))

    def read(self, size: int = -1, /) -> bytes:
        return self._file.read(size)

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        return self._file.readinto(buffer)

    def seek(self, offset: int, whence: int = 0, /) -> int:
        return self._remembering(lambda: self._file.seek(offset, whence))

    def tell(self) -> int:
        return self._file.tell()

    def flush(self) -> None:
        if not self._file.closed:
            self._remembering(self._file.flush)

    def readable(self) -> bool:
        return True

    def writable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def sync(self) -> None:
        """Write all bytes to the disk, so that a power cut after the rename cannot leave an empty file."""
        self.flush()
        self._remembering(lambda: os.fsync(self._file.fileno()))

    def close(self) -> None:
        if not self.closed:
            try:
                super().close()  # flushes
            finally:
                self._file.close()

    def abandon(self) -> None:
        """Close the file; ignore errors in writing the last bytes."""
        try:
            self.close()
        except OSError as error:
            log.debug("closing an abandoned file: %s", error)

    def _remembering(self, action: Callable[[], _T]) -> _T:
        try:
            return action()
        except OSError as error:
            self.failure = self.failure or error
            raise


@contextlib.contextmanager
def atomic_file(path: Path, *, check: Check | None = None, keep: Path | None = None, advice: str = "") -> Iterator[PartFile]:
    """Yield a handle to write and read; when the block ends, its bytes become the file `path`.

    If the block raises, the part file is removed and the error passes unchanged. But if the handle met a system error before,
    that error is raised instead.

    Args:
        check: Called with the part file once it is complete and synced.
        keep: New name for a file that is at `path` already; None replaces that file.
        advice: As for `output_error`.

    Raises:
        OutputError: if the file cannot be written, or another process is writing it.
    """
    part = part_path(path)
    with writing(path, advice=advice):
        handle = _open_part(path, part)
    file = PartFile(io.BufferedRandom(io.FileIO(handle, "r+b"), _BUFFER_BYTES))
    # A second handle keeps the lock until the rename is done. The file itself is closed before: Windows cannot rename open
    # files.
    held = None if sys.platform == "win32" else os.dup(handle)
    try:
        with _unfinished(part):
            yield file
            with writing(path, advice=advice):
                file.sync()
                if held is None:
                    _unlock(handle)
                file.close()
                _give_name(part, path, check=check, keep=keep)
    except BaseException as error:
        file.abandon()
        remove_quietly(part)
        if file.failure is not None and isinstance(error, Exception) and not isinstance(error, UpframeError):
            raise output_error(path, file.failure, advice=advice) from error
        raise
    finally:
        if held is not None:
            os.close(held)


@contextlib.contextmanager
def atomic_path(path: Path, *, check: Check | None = None, advice: str = "") -> Iterator[Path]:
    """Yield the name of an empty part file to write; when the block ends, it becomes the file `path`.

    For libraries that write by name. Errors of the block pass unchanged. On Windows the part file is not locked, since a lock
    there would also shut out the library that opens the file by name.

    Args:
        check: Called with the part file once it is complete and synced.
        advice: As for `output_error`.

    Raises:
        OutputError: if the file cannot be written, or another process is writing it.
    """
    part = part_path(path)
    with writing(path, advice=advice):
        held = _open_part(path, part)
    if sys.platform == "win32":
        _unlock(held)
        os.close(held)
    try:
        with _unfinished(part):
            yield part
            with writing(path, advice=advice):
                sync_file(part)
                _give_name(part, path, check=check)
    except BaseException:
        remove_quietly(part)
        raise
    finally:
        if sys.platform != "win32":
            os.close(held)


def atomic_bytes(path: Path, data: bytes, *, advice: str = "") -> None:
    """Write `data` to `path`, whole or not at all. Devices, pipes and links are written to and not replaced.

    Raises:
        OutputError: if the file cannot be written.
    """
    if path.is_symlink() or (path.exists() and not path.is_file() and not path.is_dir()):
        with writing(path, advice=advice):
            path.write_bytes(data)
        return
    with atomic_file(path, advice=advice) as file:
        file.write(data)


def atomic_text(path: Path, text: str, *, advice: str = "") -> None:
    """Write `text` to `path` in UTF-8; see `atomic_bytes`."""
    atomic_bytes(path, text.encode(), advice=advice)


@contextlib.contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Yield an empty folder to fill; when the block ends, it becomes the folder `path`.

    If two processes make the same folder, the first one to finish wins, and the other's folder is removed.

    Raises:
        OutputError: if the folder cannot be made.
    """
    with scratch_folder(path.parent) as scratch:
        made = scratch / path.name
        with writing(path):
            made.mkdir()
        yield made
        try:
            put_in_place(made, path)
        except OutputError:
            if not path.is_dir():
                raise


def put_in_place(made: Path, path: Path) -> None:
    """Sync the finished file or folder `made` and rename it to `path`, on the same file system.

    A file at `path` is replaced; a folder there has to be empty.

    Raises:
        OutputError: if it cannot be renamed.
    """
    with writing(path):
        for file in _files_within(made) if made.is_dir() else (made,):
            sync_file(file)
        _give_name(made, path)


def sync_file(path: Path) -> None:
    """Wait until all bytes of `path` are on the disk."""
    handle = os.open(path, os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def remove_quietly(path: Path) -> None:
    """Remove a file that is no longer needed; log an error instead of raising it, since the caller has a more important one."""
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        log.warning("%s: cannot be removed (%s)", path, error.strerror)


def link_file(source: Path, path: Path) -> None:
    """Make `path` a hard link to `source`; copy the file if the file system has no hard links.

    Raises:
        FileExistsError: if there is a file at `path`.
        OSError: if the link cannot be made for another reason.
        OutputError: if the copy cannot be written.
    """
    _refuse_taken(path)
    try:
        os.link(source, path)
    except OSError as error:
        if error.errno not in (errno.EXDEV, errno.EPERM, errno.EMLINK, errno.ENOTSUP, errno.EOPNOTSUPP):
            raise
        with atomic_path(path, check=lambda part: _refuse_taken(path)) as part:
            shutil.copyfile(source, part)


def _refuse_taken(path: Path) -> None:
    if os.path.lexists(path):
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path))


@contextlib.contextmanager
def _unfinished(part: Path) -> Iterator[None]:
    """Remember a part file until the block ends, for `remove_unfinished`."""
    _UNFINISHED[part] = lambda: remove_quietly(part)
    try:
        yield
    finally:
        _UNFINISHED.pop(part, None)


def remove_unfinished() -> None:
    """Remove the part files and scratch folders of this process, which is about to end without unwinding."""
    for remove in tuple(_UNFINISHED.values()):
        remove()


def _give_name(made: Path, path: Path, *, check: Check | None = None, keep: Path | None = None) -> None:
    """Rename a file or folder that is already synced."""
    if check is not None:
        check(made)
    if keep is not None and path.exists():
        path.replace(keep)
    made.replace(path)
    _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    """Make the rename itself durable, if the system can."""
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:  # Windows cannot open folders, and does not need this call
        return
    try:
        os.fsync(handle)
    except OSError as error:  # some network file systems; the file itself is synced
        log.debug("%s: folder not synced (%s)", folder, error.strerror)
    finally:
        os.close(handle)


def _files_within(folder: Path) -> Iterator[Path]:
    return (path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())


# Contents --------------------------------------------------------------------------------------------------------------
def folder_bytes(folder: Path) -> int:
    """Size of all files in a folder, which need not be there, and in its sub-folders. A file with several names counts once, a
    link as itself, and what cannot be read not at all."""
    seen: set[tuple[int, int]] = set()
    total = 0
    for inside, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):  # removed meanwhile
                status = os.lstat(os.path.join(inside, name))  # noqa: PTH118 (a hot loop)
                key = (status.st_dev, status.st_ino)
                total += 0 if key in seen else status.st_size
                seen.add(key)
    return total


def is_own(path: Path) -> bool:
    """Whether only this user, and the superuser, can have written `path`; always True where files have no such owner."""
    if not hasattr(os, "geteuid"):
        return True
    status = path.lstat()
    return status.st_uid in (os.geteuid(), 0) and not status.st_mode & 0o022


def is_closed(folder: Path) -> bool:
    """Whether only this user, and the superuser, can reach what lies in `folder`."""
    return is_own(folder) and not (hasattr(os, "geteuid") and folder.stat().st_mode & 0o077)


def parsed_json(text: str | bytes) -> Any:
    """The value that JSON text has.

    Raises:
        ValueError: it is no JSON, no UTF-8, has a number of thousands of digits, or is nested too deeply.
    """
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


# Locks ----------------------------------------------------------------------------------------------------------------
class Lock:
    """A context manager that one thread of one process can enter at a time. The system frees the lock of a killed process.

    Args:
        path: The lock file, created if absent.
        wait: Wait until the lock is free.
        remove: Remove the lock file when the lock is released.

    Raises:
        BlockingIOError: on entering, if another thread or process holds the lock and `wait` is not set.
        OSError: on entering, if the file cannot be opened.
    """

    def __init__(self, path: Path, *, wait: bool = False, remove: bool = False) -> None:
        self.path = path
        self._wait, self._remove = wait, remove
        self._handle: int | None = None

    def __enter__(self) -> Self:
        while self._handle is None:
            handle = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o666)
            try:
                _lock(handle, self.path, wait=self._wait)
                if _is_at(handle, self.path):
                    self._handle = handle
            finally:
                if self._handle is None:  # refused, or the previous holder has removed the file
                    os.close(handle)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.release(remove=self._remove)

    @property
    def is_held(self) -> bool:
        return self._handle is not None

    def release(self, *, remove: bool = False) -> None:
        """Release the lock. Does nothing if the lock is not held."""
        if self._handle is None:
            return
        handle, self._handle = self._handle, None
        if sys.platform != "win32" and remove and _is_at(handle, self.path):
            remove_quietly(self.path)  # remove it while locked: a waiting process then sees that its file has lost the name
        _unlock(handle)
        os.close(handle)
        if sys.platform == "win32" and remove:  # Windows removes no open file; another process may hold it by now
            with contextlib.suppress(OSError):
                self.path.unlink(missing_ok=True)


def _lock(handle: int, path: Path, *, wait: bool = False) -> None:
    """Lock an open file until it is closed.

    Does nothing on a file system without locks.

    Raises:
        BlockingIOError: if another process holds the lock.
    """
    from filelock import lock_descriptor  # imported here: reading files takes no lock and should not pay for this import

    try:
        held = lock_descriptor(handle, blocking=wait)
    except OSError as error:  # some network file systems
        log.debug("%s: cannot be locked (%s)", path, error.strerror)
        return
    if not held:
        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN), str(path))


def _unlock(handle: int) -> None:
    from filelock import unlock_descriptor

    with contextlib.suppress(OSError):  # errors of a file system without locks
        unlock_descriptor(handle)


def _is_at(handle: int, path: Path) -> bool:
    """Whether `path` still names the open file."""
    try:
        return os.path.samestat(os.fstat(handle), path.stat())
    except FileNotFoundError:
        return False


def _open_part(path: Path, part: Path) -> int:
    """Open a part file and lock it: two runs with one output would mix their bytes.

    A part file of a killed process is used again, since its lock is released.

    Raises:
        BlockingIOError: if another process is writing it.
        IsADirectoryError: if `path` is a folder.
    """
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    handle = os.open(part, os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o666)
    try:
        _lock(handle, part)
        if not _is_at(handle, part):  # the other process has just renamed it to the output
            raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN), str(part))
        try:
            os.ftruncate(handle, 0)
        except OSError:
            remove_quietly(part)
            raise
    except BaseException:
        os.close(handle)
        raise
    return handle


def remove_parts(folder: Path) -> None:
    """Remove the part files in `folder`, but not below it, that killed processes have left."""
    for part in folder.glob(".*.part"):
        with contextlib.suppress(OSError), Lock(part, remove=True):
            log.debug("removed %s", part)


# Temporary files ------------------------------------------------------------------------------------------------------
class ScratchFolder:
    """A private folder for temporary files, until `remove` is called.

    The folder is locked while it is in use. Creating one removes the scratch folders in `parent` that nobody locks: those of
    killed processes.

    Args:
        parent: The folder to create it in; None is the system's folder for temporary files.

    Raises:
        OutputError: if the folder cannot be made.
    """

    def __init__(self, parent: Path | None = None) -> None:
        advice = "set TMPDIR to a disk with room" if parent is None else ""
        parent = Path(tempfile.gettempdir()) if parent is None else parent
        self._process = os.getpid()
        with writing(parent, advice=advice):
            _remove_abandoned(parent)
            while True:
                self._root = Path(tempfile.mkdtemp(prefix=_SCRATCH, dir=parent))
                self._lock = Lock(self._root / _LOCK)
                try:
                    self._lock.__enter__()
                except (BlockingIOError, FileNotFoundError):  # another process removed it before it was locked
                    continue
                break
            self.path = self._root / "files"
            """Path of the folder, which is empty at first."""
            self.path.mkdir(mode=0o700)
        _UNFINISHED[self._root] = self.remove

    def remove(self) -> None:
        """Delete the folder with everything in it. Does nothing in a fork of the process that made the folder."""
        if os.getpid() != self._process:
            return
        _UNFINISHED.pop(self._root, None)
        shutil.rmtree(self.path, ignore_errors=True)
        self._lock.release(remove=True)
        shutil.rmtree(self._root, ignore_errors=True)


@contextlib.contextmanager
def scratch_folder(parent: Path | None = None) -> Iterator[Path]:
    """Yield an empty private folder that is removed when the block ends; see `ScratchFolder`."""
    scratch = ScratchFolder(parent)
    try:
        yield scratch.path
    finally:
        scratch.remove()


def unnamed_file() -> BinaryIO:
    """Open a temporary file without a name; closing it deletes it."""
    return cast("BinaryIO", tempfile.TemporaryFile())


def _remove_abandoned(parent: Path) -> None:
    """Remove the scratch folders of killed processes: those that no process locks."""
    for folder in parent.glob(f"{_SCRATCH}*"):
        if (folder / _LOCK).is_file():
            with contextlib.suppress(OSError), Lock(folder / _LOCK, remove=True):
                shutil.rmtree(folder / "files", ignore_errors=True)
            with contextlib.suppress(OSError):
                folder.rmdir()


# Room -----------------------------------------------------------------------------------------------------------------
def free_bytes(path: Path) -> int:
    """Free bytes on the disk where `path` is or would be.

    Raises:
        OutputError: if the disk cannot be asked.
    """
    existing = next(p for p in (path.absolute(), *path.absolute().parents) if p.exists())
    with writing(path):
        return shutil.disk_usage(existing).free


def check_room(path: Path, needed_bytes: int) -> None:
    """Refuse work that needs more room than the disk of `path` has; a fifth more than `needed_bytes` must be free.

    Args:
        path: A file or folder that will be written. Neither it nor its parent folders need to exist.

    Raises:
        OutputError: if too little is free; the message gives both amounts.
    """
    wanted, free = needed_bytes * _SPARE, free_bytes(path)
    if wanted > free:
        happened = f"about {amount(wanted)} are needed and {amount(free)} are free"
        raise OutputError(path, happened, _ADVICE[errno.ENOSPC])


def amount(size: float) -> str:
    """For messages: `1.2 GB`, `34 MB`, `560 kB`: whole numbers below a gigabyte, and no unit in which an amount is zero."""
    if size >= 1e9:
        return f"{size / 1e9:.1f} GB"
    return f"{size / 1e6:.0f} MB" if size >= 1e6 else f"{size / 1e3:.0f} kB"
