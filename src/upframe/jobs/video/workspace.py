"""The folder in which a long job keeps what is finished, so that it can go on after any interruption.

It lies beside the output, as `.<output name>.upframe`, and holds `job.json` (what is being made, of what, with what) and
one file for each finished segment with its SHA-256. A segment file appears whole or not at all. A job that differs in
anything that could change a pixel is refused, naming what differs.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from upframe.errors import OutputError, UsageError
from upframe.files import Lock, atomic_text, hidden_beside, put_in_place, writing

_CHUNK = 1 << 20


def work_path(output: Path) -> Path:
    """The work folder of `output`."""
    return hidden_beside(output, "upframe")


def recorded_key(output: Path) -> Mapping[str, Any]:
    """The key of an interrupted job that was to make `output`; empty where there is none."""
    try:
        key = json.loads((work_path(output) / "job.json").read_text())
    except (OSError, ValueError):
        return {}
    return key if isinstance(key, dict) else {}


def kept_bytes(output: Path) -> int:
    """Size of what an interrupted job has made of `output` so far."""
    folder = work_path(output)
    return sum(f.stat().st_size for f in folder.rglob("*") if f.is_file()) if folder.is_dir() else 0


def remove_leftover(output: Path) -> None:
    """Delete the work folder of a finished `output`, which a kill between its renaming and the tidying left behind.

    One that was written to after the output is of a later, interrupted job and stays.
    """
    folder = work_path(output)
    if not folder.is_dir():
        return
    with contextlib.suppress(OSError, UsageError, OutputError):
        made = output.stat().st_mtime
        if all(f.stat().st_mtime <= made for f in folder.rglob("*") if f.is_file() and f.name != "lock"):
            with WorkFolder(output, recorded_key(output)) as work:  # not while somebody works in it
                work.remove()


class WorkFolder:
    """A context manager: opened by one process at a time.

    Args:
        output: The file the job makes.
        key: Everything that decides the output, JSON-ready; compared with that of an earlier, interrupted run.
        restart: Throw away what an earlier run left.

    Raises:
        UsageError: on entering, when another process works there, or an earlier run had another key.
        OutputError: when the folder cannot be made.
    """

    def __init__(self, output: Path, key: Mapping[str, Any], *, restart: bool = False) -> None:
        self.path = work_path(output)
        self._output = output
        self._key = json.loads(json.dumps(key))
        self._restart = restart
        self._lock = Lock(self.path / "lock")

    def __enter__(self) -> Self:
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock.__enter__()
        except BlockingIOError:
            raise UsageError(self._output, "another process is making it", "wait for it or stop it") from None
        except OSError as error:
            raise OutputError(self.path, f"cannot be made ({error.strerror})", "choose another output folder") from error
        try:
            with writing(self.path):
                self._check_key()
        except BaseException:
            self._lock.release()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._lock.release()

    def segment(self, index: int) -> Path:
        """Where segment `index` is kept once it is finished."""
        return self.path / f"{index:06d}.seg"

    def scratch(self, index: int) -> Path:
        """Where segment `index` is written until then."""
        return self.path / f"{index:06d}.new"

    def commit(self, index: int) -> None:
        """Keep the scratch file as the finished segment.

        Raises:
            OutputError: when that fails, for instance on a full disk.
        """
        scratch, kept = self.scratch(index), self.segment(index)
        with writing(kept):
            checksum = _sha256(scratch)
        atomic_text(kept.with_suffix(".sha256"), checksum)
        put_in_place(scratch, kept)

    def is_done(self, index: int) -> bool:
        """Whether segment `index` is there and whole; a damaged one is removed."""
        kept = self.segment(index)
        known = kept.with_suffix(".sha256")
        if not kept.exists():
            return False
        if known.exists() and known.read_text() == _sha256(kept):
            return True
        kept.unlink()
        return False

    def remove(self) -> None:
        """Delete the folder: the job is finished."""
        shutil.rmtree(self.path, ignore_errors=True)
        self._lock.release(remove=True)
        with contextlib.suppress(OSError):  # on Windows it holds the lock file till now; elsewhere it is gone
            self.path.rmdir()

    def _check_key(self) -> None:
        job = self.path / "job.json"
        if self._restart:
            self._empty()
        if job.exists():
            earlier = recorded_key(self._output)
            if not earlier:
                self._empty()  # cut short by a power failure before anything else could be kept
                earlier = self._key
            differing = sorted(k for k in {*earlier, *self._key} if earlier.get(k) != self._key.get(k))
            if differing:
                changes = ", ".join(f"{k} was {earlier.get(k)!r}, is {self._key.get(k)!r}" for k in differing[:3])
                raise UsageError(
                    self._output, f"an interrupted run differs: {changes}", "use --restart to throw it away, or its options"
                )
        atomic_text(job, json.dumps(self._key, indent=1))

    def _empty(self) -> None:
        for entry in self.path.iterdir():
            if entry.is_dir():
                shutil.rmtree(entry)
            elif entry.name != "lock":
                entry.unlink()


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()
