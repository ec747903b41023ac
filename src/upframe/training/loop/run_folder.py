"""The folder of a run: its files, written so that no crash can spoil them.

    recipe.json          the resolved recipe
    environment.jsonl    one line for every start: versions, machine, device, seed, processes, git state
    log.jsonl            losses, rates, speed, notices and validations, a line each; a resumed run continues it exactly
    last.pth             everything needed to go on; also a weights file for `upframe upscale -m` and `evaluate`
    previous.pth         the checkpoint before, kept in case the last one is damaged
    stages/NAME.pth      the end of each stage, where there are several
    validation/          contact sheets of the newest validations
    lock                 held by the process that trains here

A checkpoint appears whole or not at all. Its archive holds a checksum of every
part, which is compared before anything in it is used.
"""

from __future__ import annotations

import json
import logging
import math
import os
import pickle
import shutil
import subprocess
import zipfile
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import torch

from upframe.errors import InputError, UsageError
from upframe.files import Lock, atomic_file, atomic_text, put_in_place, sync_file, writing
from upframe.machine import environment

log = logging.getLogger(__name__)

LAST, PREVIOUS, LOG = "last.pth", "previous.pth", "log.jsonl"
_GIT_SECONDS = 10


class RunFolder:
    """A context manager: entered by one process at a time, which alone writes.

    Raises:
        UsageError: on entering, if another process trains there, or the path is a file.
        OutputError: when the folder cannot be made.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = Lock(path / "lock")

    def __enter__(self) -> Self:
        if self.path.is_file():
            raise UsageError(self.path, "is a file, and a run needs a folder", "choose another --out")
        with writing(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
            try:
                self._lock.__enter__()
            except BlockingIOError:
                raise UsageError(
                    self.path, "another process is training in it", "wait for it, stop it or choose --out"
                ) from None
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._lock.release()

    # Checkpoints --------------------------------------------------------------------------------------------------------
    def checkpoint(self) -> dict[str, Any] | None:
        """The newest checkpoint that is whole; None where there is none.

        A damaged last one is renamed to `last.pth.damaged`, and the one before takes its place.

        Raises:
            InputError: when there are checkpoints and none of them is whole.
        """
        last, previous = self.path / LAST, self.path / PREVIOUS
        if not last.exists():
            return read_checkpoint(previous) if previous.exists() else None
        try:
            return read_checkpoint(last)
        except InputError as error:
            if not previous.exists():
                raise
            content = read_checkpoint(previous)
            log.warning("%s The run resumes from %s, which is at step %s.", error, PREVIOUS, content.get("step", "?"))
            put_in_place(last, last.with_name(f"{LAST}.damaged"))
            put_in_place(previous, last)
            return content

    def save(self, content: Mapping[str, Any]) -> None:
        """Make `content` the last checkpoint, and the last one the one before.

        Raises:
            OutputError: when it cannot be written; both earlier ones are still there then.
        """
        last = self.path / LAST
        with atomic_file(last, keep=self.path / PREVIOUS) as file:
            torch.save(dict(content), file)  # type: ignore[arg-type]  # all that it uses of a file

    def save_stage(self, content: Mapping[str, Any], name: str) -> None:
        """Keep `content` as the end of the stage of that name."""
        path = self.path / "stages" / f"{name}.pth"
        with writing(path):
            path.parent.mkdir(exist_ok=True)
        with atomic_file(path) as file:
            torch.save(dict(content), file)  # type: ignore[arg-type]  # all that it uses of a file

    # Log ----------------------------------------------------------------------------------------------------------------
    def append(self, row: Mapping[str, Any]) -> None:
        """Add a line to the log. Numbers that are not finite are written as text, since JSON has none."""
        with writing(self.path / LOG), (self.path / LOG).open("a", encoding="utf-8") as file:
            file.write(json.dumps(finite(row), ensure_ascii=False, allow_nan=False) + "\n")

    def log_bytes(self) -> int:
        """The length of the log, which is on the disk when this returns: a checkpoint that refers to it may be written."""
        path = self.path / LOG
        with writing(path):
            path.touch()
            sync_file(path)
            return path.stat().st_size

    def cut_log(self, length: int, *, step: int) -> bool:
        """Cut the log back to the checkpoint of `step`, and drop an incomplete last line.

        The validation of that checkpoint comes after it and is kept. Returns whether it exists.
        """
        path = self.path / LOG
        if not path.exists():
            return False
        content = path.read_bytes()
        if len(content) < length:
            log.warning("%s is shorter than when the checkpoint was written; its end is lost", path)
            length = content.rfind(b"\n") + 1
        end, validated = content.find(b"\n", length) + 1, False
        if end:
            with suppress(ValueError):
                row = json.loads(content[length:end])
                validated = "validation" in row and row["step"] == step
        length = end if validated else length
        if length < len(content):
            with writing(path):
                os.truncate(path, length)
        return validated

    # Facts --------------------------------------------------------------------------------------------------------------
    def write_recipe(self, text: str) -> None:
        atomic_text(self.path / "recipe.json", text)

    def record_start(self, *, device: str, precision: str, facts: Mapping[str, Any]) -> None:
        """Add a line to `environment.jsonl`: when, on what, with which versions, from which commit."""
        row = {
            "started": datetime.now(UTC).isoformat(timespec="seconds"),
            **facts,
            "environment": environment(device=device, precision=precision),
            "git": git_state(Path(__file__).parent),
        }
        path = self.path / "environment.jsonl"
        with writing(path), path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Return the content of a checkpoint, on the CPU, after every byte of it was checked; nothing in it is executed.

    Raises:
        InputError: it is missing, damaged, or no checkpoint of a run.
    """
    advice = "remove it to start again, or choose another --out"
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = _odd_part(archive) or archive.testzip()  # torch writes checksums, but does not compare them
        if damaged is not None:
            raise InputError(path, f"is damaged: its part {damaged} is not as it was written", advice)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, EOFError, RuntimeError, ValueError, pickle.UnpicklingError, zipfile.BadZipFile) as error:
        raise InputError(path, f"is no readable checkpoint ({error})", advice) from error
    if not isinstance(content, dict) or "recipe" not in content or "step" not in content:
        raise InputError(path, "is a weights file, not a checkpoint of a run", advice)
    return content


def _odd_part(archive: zipfile.ZipFile) -> str | None:
    """Find a part of a checkpoint whose directory entry has values that torch never writes; None if there is none.

    No checksum covers the directory. A single changed bit there turns a part into a folder, and torch then reads uninitialised
    memory.
    """
    parts = archive.infolist()
    return next((part.filename for part in parts if part.compress_type != zipfile.ZIP_STORED or part.external_attr), None)


def read_log(run: Path) -> list[dict[str, Any]]:
    """The lines of a run's log, without one that broke off at its end.

    Raises:
        InputError: when the folder holds no log, or a line in it is no JSON object.
    """
    path = run / LOG
    try:
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(path, "cannot be read", "pass the folder of a training run") from error
    rows = []
    for number, line in enumerate(lines, start=1):
        if not line.endswith("\n"):
            break  # of a run that was killed, or is writing it just now
        try:
            row = json.loads(line)
        except ValueError as error:
            raise InputError(path, f"line {number} is no JSON", "remove that line") from error
        if not isinstance(row, dict):
            raise InputError(path, f"line {number} is no JSON object", "remove that line")
        rows.append(row)
    return rows


def git_state(folder: Path) -> dict[str, Any] | None:
    """Commit of the checkout that holds `folder`, and whether tracked files differ from it; None outside a checkout."""
    git = shutil.which("git")
    if git is None:
        return None

    def ask(*arguments: str) -> str:
        command = [git, "-C", str(folder), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=_GIT_SECONDS).stdout.strip()  # noqa: S603

    try:
        # An installed package may lie inside somebody's own repository, in a virtual environment that git ignores.
        ask("ls-files", "--error-unmatch", Path(__file__).with_name("__init__.py").as_posix())
        return {"commit": ask("rev-parse", "HEAD"), "modified": bool(ask("status", "--porcelain", "--untracked-files=no"))}
    except (OSError, subprocess.SubprocessError):
        return None


def finite(value: Any) -> Any:
    """`value` with floats that are not finite as text: "nan", "inf"."""
    if isinstance(value, Mapping):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
