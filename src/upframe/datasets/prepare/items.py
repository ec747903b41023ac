"""Run a preparation: write many files, each whole or not at all. Existing files are kept and never overwritten."""

from __future__ import annotations

import filecmp
import json
import logging
import os
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path

from upframe.errors import Cancelled, InputError, OutputError, UsageError
from upframe.files import atomic_text, check_room, link_file, output_error, parsed_json, writing

log = logging.getLogger(__name__)

MANIFEST = "prepared.json"
"""File in each prepared folder that records source and method. upframe does not write into a folder without it."""


@dataclass(frozen=True)
class Item:
    """Files that are made together."""

    targets: tuple[Path, ...]
    make: Callable[[], None]
    """Makes the missing targets, each whole or not at all."""
    size_bytes: int
    """Approximate size of the targets."""
    phase: int = 0
    """Items of a phase begin when those of earlier phases are done."""

    def missing(self) -> list[Path]:
        return [target for target in self.targets if not target.exists()]


@dataclass(frozen=True)
class Preparation:
    """Plan of a preparation, made before anything is written."""

    title: str
    items: tuple[Item, ...]
    manifests: Mapping[Path, Mapping[str, object]]
    """Record for each prepared folder."""
    facts: tuple[str, ...] = ()
    """Checked counts, for the report."""


@dataclass(frozen=True)
class Outcome:
    """Outcome of a preparation, or of its plan with `dry_run`."""

    title: str
    made: int
    kept: int
    """Files that already existed, from an earlier or interrupted run."""
    size_bytes: int
    """Approximate size of the files made."""
    facts: tuple[str, ...]


def carry_out(
    preparation: Preparation,
    *,
    dry_run: bool = False,
    threads: int | None = None,
    on_progress: Callable[[int, int], None] | None = None,
    cancel: threading.Event | None = None,
) -> Outcome:
    """Make the missing files. A call after an interruption resumes; a call after the end makes nothing.

    Args:
        dry_run: Check everything that can be checked and write nothing.
        threads: Number of threads that decode, resample and encode; by default the number of cores.
        on_progress: Called with the number of files made and the total.
        cancel: Once set, the preparation stops after the current files.

    Raises:
        OutputError: if a folder was made differently, the disk has no room, or a file cannot be written.
        InputError: if a file is damaged; the message names it.
        Cancelled: if `cancel` was set.
    """
    for folder, manifest in preparation.manifests.items():
        _check_manifest(folder, manifest)
    due = [item for item in preparation.items if item.missing()]
    room_bytes = sum(item.size_bytes for item in due)
    made = sum(len(item.missing()) for item in due)
    kept = sum(len(item.targets) for item in preparation.items) - made
    outcome = Outcome(preparation.title, made, kept, room_bytes, preparation.facts)
    if due:
        check_room(due[0].targets[0].parent, room_bytes)
    if dry_run:
        return outcome
    for folder, manifest in preparation.manifests.items():
        _write_manifest(folder, manifest)
    _make(due, threads=threads or os.cpu_count() or 1, on_progress=on_progress, cancel=cancel or threading.Event())
    absent = [target for item in preparation.items for target in item.missing()]
    if absent:
        raise OutputError(absent[0], f"and {len(absent) - 1} others disappeared after they were written", "check the disk")
    return outcome


def _make(
    items: Sequence[Item], *, threads: int, on_progress: Callable[[int, int], None] | None, cancel: threading.Event
) -> None:
    failed = threading.Event()
    lock = threading.Lock()
    done, due = 0, sum(len(item.targets) for item in items)

    def one(item: Item) -> None:
        nonlocal done
        if failed.is_set() or cancel.is_set():
            return
        try:
            for folder in {target.parent for target in item.targets}:
                folder.mkdir(parents=True, exist_ok=True)
            item.make()
        except OSError as error:
            failed.set()
            raise output_error(item.targets[0], error) from error
        except BaseException:
            failed.set()
            raise
        with lock:
            done += len(item.targets)
            if on_progress:
                on_progress(done, due)

    with ThreadPoolExecutor(threads) as pool:
        for phase in sorted({item.phase for item in items}):
            futures = [pool.submit(one, item) for item in items if item.phase == phase]
            finished, _ = wait(futures, return_when=FIRST_EXCEPTION)
            for future in finished:
                future.result()
    if cancel.is_set() and done < due:
        raise Cancelled("preparing data", f"stopped after {done} of {due} files", "run it again to resume")


# Records of folders ----------------------------------------------------------------------------------------------------
def _check_manifest(folder: Path, wanted: Mapping[str, object]) -> None:
    if not folder.exists():
        return
    path = folder / MANIFEST
    try:
        found = parsed_json(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        if any(True for _ in folder.iterdir()):
            raise OutputError(folder, "already exists and was not made by this command", "choose another folder") from None
        return
    except (OSError, ValueError) as error:
        raise OutputError(path, f"cannot be read ({error})", "remove the folder to make it again") from error
    if not isinstance(found, dict):
        raise OutputError(path, "is no JSON object", "remove the folder to make it again")
    differing = sorted(k for k in wanted.keys() | found.keys() if wanted.get(k) != found.get(k))
    if differing:
        what = ", ".join(f"{k} ({found.get(k)} there, {wanted.get(k)} requested)" for k in differing)
        raise OutputError(folder, f"was made differently: {what}", "choose another folder, or remove it")


def _write_manifest(folder: Path, manifest: Mapping[str, object]) -> None:
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    atomic_text(folder / MANIFEST, json.dumps(manifest, indent=1, sort_keys=True) + "\n")


# Files ----------------------------------------------------------------------------------------------------------------
def link_or_copy(source: Path, target: Path) -> None:
    """Make `target` a hard link to `source`, or a copy if the file system has no hard links.

    Raises:
        OutputError: if `target` exists with other content.
    """
    try:
        link_file(source, target)
    except FileExistsError:
        require_same(source, target)


def require_same(source: Path, target: Path) -> None:
    """Refuse a `target` whose content differs from that of `source`.

    Raises:
        OutputError: if the contents differ; the message names both files.
    """
    if not filecmp.cmp(source, target, shallow=False):
        raise OutputError(target, f"already exists and differs from {source}", "remove or rename it")


def require_count(found: Iterable[object], expected: int, *, subject: Path, what: str, partial: bool = False) -> None:
    """Refuse a set that is not complete.

    Args:
        partial: Accept an incomplete set and report it.

    Raises:
        InputError: if there are not `expected` items and `partial` is not set.
    """
    count = sum(1 for _ in found)
    if count == expected:
        return
    if not partial or not count:
        advice = "copy the set again, or set `partial_set=True` to use the existing files" if count else "check the folder"
        raise InputError(subject, f"has {count} {what}, and the set has {expected}", advice)
    log.warning("%s has %d %s, and the set has %d", subject, count, what, expected)


def require_folder(path: Path, *, advice: str) -> Path:
    """Return `path` if it is a folder.

    Raises:
        InputError: otherwise.
    """
    if not path.is_dir():
        raise InputError(path, "no such folder", advice)
    return path


def require_apart(source: Path, out: Path) -> None:
    """Refuse to write into the source folder.

    Raises:
        UsageError: if one lies in the other.
    """
    a, b = source.resolve(), out.resolve()
    if a == b or a in b.parents or b in a.parents:
        raise UsageError(out, f"and {source} contain one another", "choose a folder beside it")
