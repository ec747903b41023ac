"""The watched folder: which files are inputs, when one has stopped growing, and what tells of changes."""

from __future__ import annotations

import asyncio
import ctypes
import errno
import fnmatch
import hashlib
import logging
import os
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from watchfiles import awatch

from upframe.errors import Cancelled
from upframe.media.image.listing import is_image_name
from upframe.media.names import is_video_name

log = logging.getLogger(__name__)

_BLOCK_BYTES = 1 << 20
_IN_CREATE = 0x100  # of <sys/inotify.h>
_MOUNTS = Path("/proc/mounts")
_REMOTE = (
    "nfs",
    "cifs",
    "smb",
    "9p",
    "afs",
    "ceph",
    "gluster",
    "lustre",
    "fuse",
    "vboxsf",
    "virtiofs",
    "prl_fs",
    "vmhgfs",
    "davfs",
)
"""Beginnings of the kinds of file systems that do not tell of what other machines write."""


@dataclass(frozen=True)
class Stamp:
    """Size and time of a file, which change when it does."""

    size: int
    mtime_ns: int


@dataclass(frozen=True)
class Tree:
    """Inputs below a folder. Links are not followed: they may lead out of it, or in circles.

    Args:
        skipped: Folders that are not looked into, such as the output's.
        include, exclude: Patterns on names.
    """

    top: Path
    skipped: frozenset[Path]
    include: Sequence[str] = ()
    exclude: Sequence[str] = ()

    def files(self, below: Path | None = None) -> Iterator[tuple[str, Stamp]]:
        """Every input with its path below the top, in the order of names; folders that vanish meanwhile are empty."""
        folder = below or self.top
        try:
            with os.scandir(folder) as found:
                entries = sorted(found, key=lambda entry: entry.name)
        except OSError as error:
            log.info("%s: cannot be listed (%s)", folder, error.strerror)
            return
        for entry in entries:
            path = Path(entry.path)
            if entry.is_dir(follow_symlinks=False):
                if not entry.name.startswith(".") and path not in self.skipped:
                    yield from self.files(path)
            elif (stamp := self._stamp_of(path)) is not None:
                yield str(path.relative_to(self.top)), stamp

    def below(self, changed: Path) -> Iterator[tuple[str, Stamp]]:
        """Inputs that a change at this path may be about: the file itself, or all of a folder that was moved in."""
        if not self._is_inside(changed):
            return
        if changed.is_dir() and not changed.is_symlink():
            yield from self.files(changed)
        elif (stamp := self._stamp_of(changed)) is not None:
            yield str(changed.relative_to(self.top)), stamp

    def stamp(self, relative: str) -> Stamp | None:
        """The stamp of an input now; None if it is gone or no input any more."""
        return self._stamp_of(self.top / relative)

    def _is_inside(self, path: Path) -> bool:
        """Whether no folder on the way is hidden, skipped or a link."""
        if not path.is_relative_to(self.top) or path in self.skipped:
            return False
        return not any(
            folder in self.skipped or folder.name.startswith(".") or folder.is_symlink()
            for folder in path.parents
            if folder.is_relative_to(self.top) and folder != self.top
        )

    def _stamp_of(self, path: Path) -> Stamp | None:
        if not self._is_wanted(path.name):
            return None
        try:
            status = path.lstat()
        except OSError:
            return None
        is_file = status.st_mode & 0o170000 == 0o100000
        return Stamp(status.st_size, status.st_mtime_ns) if is_file else None

    def _is_wanted(self, name: str) -> bool:
        if name.startswith(".") or any(fnmatch.fnmatch(name, pattern) for pattern in self.exclude):
            return False
        if self.include and not any(fnmatch.fnmatch(name, pattern) for pattern in self.include):
            return False
        if not (is_image_name(name) or is_video_name(name)):
            return False
        try:
            name.encode()
        except UnicodeEncodeError:
            log.warning("%s: its name is not UTF-8, so it is skipped", name.encode(errors="backslashreplace").decode())
            return False
        return True


class Settling:
    """Files that may still grow.

    Args:
        settle_s: How long a file must be unchanged.
    """

    def __init__(self, settle_s: float) -> None:
        self._settle_s = settle_s
        self._since: dict[str, tuple[Stamp, float]] = {}

    def __len__(self) -> int:
        return len(self._since)

    def see(self, relative: str, stamp: Stamp, now: float) -> None:
        """Note the stamp of a file; its time begins anew if it has changed."""
        known = self._since.get(relative)
        if known is None or known[0] != stamp:
            self._since[relative] = (stamp, now)

    def settled(self, tree: Tree, now: float) -> Iterator[tuple[str, Stamp]]:
        """Yield files that are unchanged for long enough, once, and forget those that are gone."""
        for relative, (before, since) in tuple(self._since.items()):
            if now - since < self._settle_s:
                continue
            stamp = tree.stamp(relative)
            if stamp == before:
                del self._since[relative]
                yield relative, stamp
            elif stamp is None:
                del self._since[relative]
            else:
                self._since[relative] = (stamp, now)

    def next_look(self, now: float) -> float | None:
        """Seconds until the next file may have settled; None if no file is waited for."""
        if not self._since:
            return None
        return max(min(since for _, since in self._since.values()) + self._settle_s - now, 0.0)


def digest_of(path: Path, stop: threading.Event) -> str:
    """SHA-256 of a file.

    Raises:
        Cancelled: if `stop` is set meanwhile.
        OSError: if it cannot be read.
    """
    made = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK_BYTES):
            if stop.is_set():
                raise Cancelled(path, "stopped on request")
            made.update(block)
    return made.hexdigest()


def tells_no_changes(folder: Path) -> bool:
    """Whether the file system of a folder tells nothing of changes that other machines make, so that it must be looked at."""
    try:
        mounts = [line.split() for line in _MOUNTS.read_text(errors="replace").splitlines()]
    except OSError:
        return False
    place, kind = "", ""
    for fields in mounts:
        mounted = fields[1].replace("\\040", " ")
        if folder.is_relative_to(mounted) and len(mounted) >= len(place):
            place, kind = mounted, fields[2]
    return kind.startswith(_REMOTE)


async def follow(tree: Tree, on_change: Callable[[set[Path]], None]) -> None:
    """Call `on_change` with the paths that have changed, as the system tells of them, until this task is cancelled.

    Raises:
        OSError: if the system cannot tell of the folder, or of one that has come later.
    """
    stop = asyncio.Event()
    try:
        async for changes in awatch(tree.top, stop_event=stop, step=50, debounce=400, watch_filter=None, rust_timeout=1000):
            changed = {Path(path) for _, path in changes}
            on_change(changed)
            if not all(_may_be_watched(path) for path in changed if path.is_dir()):  # watchfiles keeps silent about it
                raise OSError(errno.ENOSPC, "it watches no more folders")
    finally:
        stop.set()


def _may_be_watched(folder: Path) -> bool:
    """Whether Linux watches one more folder for this user; other systems have no limit on their number."""
    if not sys.platform.startswith("linux"):
        return True
    libc = ctypes.CDLL(None, use_errno=True)
    handle = libc.inotify_init()
    if handle < 0:  # a limit on something else
        return True
    try:
        return libc.inotify_add_watch(handle, os.fsencode(folder), _IN_CREATE) >= 0 or ctypes.get_errno() != errno.ENOSPC
    finally:
        os.close(handle)
