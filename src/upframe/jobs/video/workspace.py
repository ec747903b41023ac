"""The work folder: a long job keeps its finished segments there, so that it can resume after any interruption.

It lies beside the output, as `.<output name>.upframe`, and holds `job.json` (output, input and options) and one file for each
finished segment with its SHA-256. A segment file appears whole or not at all. A job that differs in a fact that could change a
pixel is refused with a message that names the difference.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from upframe.errors import OutputError, UsageError
from upframe.files import Lock, atomic_text, hidden_beside, output_error, parsed_json, put_in_place, writing

FORMAT = 2
"""Format number of work folders; those of upframe 0.1.0 have none."""

LOCK = "lock"
"""Name of the lock file."""

_CHUNK = 1 << 20
_MOST_TOLD = 3  # most differences in one message


@dataclass(frozen=True)
class Fact:
    """A fact that decides the output's bytes."""

    identity: str
    """Value to compare: two jobs agree in this fact if it is equal."""
    shown: str = ""
    """The value in words; empty if `identity` is readable."""

    @property
    def text(self) -> str:
        return self.shown or self.identity


Facts = Mapping[str, Mapping[str, Fact]]
"""Facts by name, in groups: causes before effects."""

OPTIONS = "options"
"""The group whose names are names of options."""


@dataclass(frozen=True)
class Record:
    """A job, as recorded in its work folder."""

    facts: Facts
    geometry: Mapping[str, Any]
    """The choices for all segments, made at the start of the job, JSON-ready."""


def work_path(output: Path) -> Path:
    """The work folder of `output`."""
    return hidden_beside(output, "upframe")


def recorded(output: Path) -> Record | None:
    """Read the interrupted job of `output`; None if there is none that can be read.

    Raises:
        UsageError: if another version of upframe left it in another format.
    """
    try:
        job = parsed_json((work_path(output) / "job.json").read_text())
        form = job.get("format", 1)
        if type(form) is int and form != FORMAT:
            found = f"format {form}, expected {FORMAT}"
            happened = f"an interrupted run of another version of upframe left its work ({found})"
            raise UsageError(output, happened, "use `video.restart` to discard it, or that version to finish it")
        facts = {group: {name: Fact(*fact) for name, fact in held.items()} for group, held in job["facts"].items()}
        return Record(facts, job["geometry"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def kept_bytes(output: Path) -> int:
    """Bytes that an interrupted job of `output` has written so far."""
    folder = work_path(output)
    return sum(f.stat().st_size for f in folder.rglob("*") if f.is_file()) if folder.is_dir() else 0


def remove_leftover(output: Path) -> None:
    """Delete the work folder of a finished `output`. It is left if the process was killed between renaming the output and
    removing the folder.

    A work folder that is newer than the output belongs to a later, interrupted job and stays.
    """
    folder = work_path(output)
    if not folder.is_dir():
        return
    with contextlib.suppress(OSError, UsageError, OutputError):
        made = output.stat().st_mtime
        if all(f.stat().st_mtime <= made for f in folder.rglob("*") if f.is_file() and f.name != LOCK):
            with WorkFolder(output) as work:  # not while another process works in it
                work.remove()


class SegmentStore:
    """The segment files of a work folder. Any process may write the segments that it renders; one process at a time owns the
    folder."""

    def __init__(self, output: Path) -> None:
        self.output = output
        self.path = work_path(output)

    def segment(self, index: int) -> Path:
        """Path of the finished segment `index`."""
        return self.path / f"{index:06d}.seg"

    def scratch(self, index: int) -> Path:
        """Path of segment `index` while it is being written."""
        return self.path / f"{index:06d}.new"

    def commit(self, index: int) -> None:
        """Turn the scratch file into the finished segment.

        Raises:
            OutputError: if that fails, for instance on a full disk.
        """
        scratch, kept = self.scratch(index), self.segment(index)
        with writing(kept):
            checksum = _sha256(scratch)
        atomic_text(kept.with_suffix(".sha256"), checksum)
        put_in_place(scratch, kept)

    def is_done(self, index: int) -> bool:
        """Whether segment `index` is finished and undamaged; a damaged file is removed."""
        kept = self.segment(index)
        known = kept.with_suffix(".sha256")
        if not kept.exists():
            return False
        if kept.is_file() and known.is_file() and known.read_bytes() == _sha256(kept).encode():
            return True
        with writing(kept):
            _remove(kept)
        return False


class WorkFolder(SegmentStore):
    """The work folder as a context manager that one process at a time can enter. A folder in which nothing was begun goes when
    it is left.

    Args:
        output: The file the job makes.

    Raises:
        BusyError: on entering, if another process makes this output.
        OutputError: on entering, if the folder cannot be made.
    """

    def __init__(self, output: Path) -> None:
        super().__init__(output)
        self._lock = Lock(self.path / LOCK)

    def __enter__(self) -> Self:
        try:
            self._take()
        except BlockingIOError as error:
            raise output_error(self.output, error) from None
        except OSError as error:
            raise OutputError(self.path, f"cannot be made ({error.strerror})", "choose another output folder") from error
        return self

    def _take(self) -> None:
        """Make the folder and lock it, also while its last owner removes it."""
        while True:
            self.path.mkdir(parents=True, exist_ok=True)
            with contextlib.suppress(FileNotFoundError):
                self._lock.__enter__()
                return

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._lock.is_held and all(entry.name == LOCK for entry in self.path.iterdir()):
            self.remove()
        self._lock.release()

    def begin(self, record: Record, *, restart: bool = False) -> None:
        """Begin a job in the folder, or resume it.

        Args:
            record: The job; its facts are compared with those of an interrupted run.
            restart: Discard the work of an interrupted run.

        Raises:
            UsageError: if the interrupted run differs.
            OutputError: if the folder cannot be written.
        """
        with writing(self.path):
            self._begin(record, restart=restart)

    def remove(self) -> None:
        """Delete the folder of the finished job."""
        shutil.rmtree(self.path, ignore_errors=True)
        self._lock.release(remove=True)
        with contextlib.suppress(OSError):  # the lock file kept the folder on Windows; elsewhere it is gone
            self.path.rmdir()

    def _begin(self, record: Record, *, restart: bool) -> None:
        job = self.path / "job.json"
        if restart:
            self._empty()
        if job.exists():
            earlier = recorded(self.output)
            if earlier is None:
                self._empty()  # a power failure cut it short, before any segment was finished
            elif happened := difference(earlier.facts, record.facts):
                raise UsageError(self.output, happened, "use `video.restart` to discard its work, or its options to resume it")
        facts = {
            group: {name: [fact.identity, fact.shown] for name, fact in held.items()} for group, held in record.facts.items()
        }
        atomic_text(job, json.dumps({"format": FORMAT, "facts": facts, "geometry": record.geometry}, indent=1))

    def _empty(self) -> None:
        for entry in self.path.iterdir():
            if entry.name != LOCK:
                _remove(entry)


def _remove(path: Path) -> None:
    """Remove a file, or a folder with all that is in it."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


def difference(earlier: Facts, now: Facts) -> str:
    """Describe the facts in which an interrupted run differs from this one; empty if it does not.

    Only the first group that differs is described: later groups follow from it.
    """
    for group in dict.fromkeys((*now, *earlier)):
        old, new = earlier.get(group, {}), now.get(group, {})
        names = [n for n in dict.fromkeys((*new, *old)) if old.get(n, _NONE).identity != new.get(n, _NONE).identity]
        if names:
            pairs = [(name, old.get(name, _NONE), new.get(name, _NONE)) for name in names[:_MOST_TOLD]]
            return "; ".join(_told(*pair, is_option=group == OPTIONS) for pair in pairs)
    return ""


_NONE = Fact("none")


def _told(name: str, old: Fact, new: Fact, *, is_option: bool) -> str:
    words = name.rpartition(".")[2].replace("_", " ")
    if old.text == new.text:
        return f"the {words} is not the same as in an interrupted run"
    return f"{words} was {old.text} in an interrupted run and is {new.text} now" + (f" (`{name}`)" if is_option else "")


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()
