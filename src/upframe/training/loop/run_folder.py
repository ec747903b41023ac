"""The folder of a run: its files, written so that no crash can damage them.

    recipe.json          the resolved recipe
    environment.jsonl    a line for each start: versions, machine, device, seed, processes, git state
    log.jsonl            a line for each report, notice and validation; a resumed run continues it exactly
    last.pth             everything needed to resume; also a weights file for `upframe upscale -m` and `evaluate`
    previous.pth         the previous checkpoint, kept in case the last one is damaged
    stages/NAME.pth      the end of each stage, if there are several
    validation/          contact sheets of the newest validations
    lock                 held by the process that trains in this folder

A checkpoint appears whole or not at all. Its archive holds a checksum of every part, and reading compares all checksums first.
"""

from __future__ import annotations

import json
import logging
import math
import os
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
from upframe.files import Lock, atomic_file, atomic_text, parsed_json, put_in_place, remove_parts, sync_file, writing
from upframe.machine import environment

log = logging.getLogger(__name__)

LAST, PREVIOUS, LOG = "last.pth", "previous.pth", "log.jsonl"
STAGES, VALIDATION = "stages", "validation"
_GIT_SECONDS = 10


class RunFolder:
    """The folder of a run, as a context manager. One process at a time can enter it, and only this process writes.

    Raises:
        UsageError: on entering, if another process trains in the folder, or the path is a file.
        OutputError: if the folder cannot be made.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = Lock(path / "lock", remove=True)
        self._is_new = False

    def __enter__(self) -> Self:
        if self.path.is_file():
            raise UsageError(self.path, "is a file, and a run needs a folder", "choose another `out`")
        self._is_new = not self.path.exists()
        with writing(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
            try:
                self._lock.__enter__()
            except BlockingIOError:
                raise UsageError(
                    self.path, "another process is training in it", "wait for it, stop it or choose another `out`"
                ) from None
        for folder in (self.path, self.path / STAGES, self.path / VALIDATION):
            remove_parts(folder)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._lock.release(remove=True)
        if self._is_new:
            with suppress(OSError):  # only an empty folder goes: a run that was refused leaves none
                self.path.rmdir()

    # Checkpoints --------------------------------------------------------------------------------------------------------
    def checkpoint(self) -> dict[str, Any] | None:
        """Return the newest checkpoint that is whole; None if there is no checkpoint.

        A damaged `last.pth` is renamed to `last.pth.damaged`, and `previous.pth` takes its place.

        Raises:
            InputError: if there are checkpoints and none is whole.
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
        """Write `content` as the last checkpoint, and keep the former last one as the previous one.

        Raises:
            OutputError: if it cannot be written; both earlier checkpoints then still exist.
        """
        last = self.path / LAST
        with atomic_file(last, keep=self.path / PREVIOUS) as file:
            torch.save(dict(content), file)  # type: ignore[arg-type]  # all that it uses of a file

    def save_stage(self, content: Mapping[str, Any], name: str) -> None:
        """Write `content` as the end of the stage `name`."""
        path = self.path / STAGES / f"{name}.pth"
        with writing(path):
            path.parent.mkdir(exist_ok=True)
        with atomic_file(path) as file:
            torch.save(dict(content), file)  # type: ignore[arg-type]  # all that it uses of a file

    # Log ----------------------------------------------------------------------------------------------------------------
    def append(self, row: Mapping[str, Any]) -> None:
        """Add a line to the log. Numbers that are not finite are written as text, because JSON has no such numbers."""
        with writing(self.path / LOG), (self.path / LOG).open("a", encoding="utf-8") as file:
            file.write(json.dumps(finite(row), ensure_ascii=False, allow_nan=False) + "\n")

    def log_bytes(self) -> int:
        """Sync the log to disk and return its length, so that a checkpoint may refer to it."""
        path = self.path / LOG
        with writing(path):
            path.touch()
            sync_file(path)
            return path.stat().st_size

    def cut_log(self, length: int, *, step: int) -> bool:
        """Cut the log to its length at the checkpoint of `step`, and drop an incomplete last line.

        The validation of that checkpoint follows in the log and is kept. Return whether it exists.
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
                row = parsed_json(content[length:end])
                validated = isinstance(row, dict) and "validation" in row and row.get("step") == step
        length = end if validated else length
        if length < len(content):
            with writing(path):
                os.truncate(path, length)
        return validated

    # Facts --------------------------------------------------------------------------------------------------------------
    def write_recipe(self, text: str) -> None:
        atomic_text(self.path / "recipe.json", text)

    def record_start(self, *, device: str, precision: str, facts: Mapping[str, Any]) -> None:
        """Add a line to `environment.jsonl`: time, machine, device, versions and commit."""
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
    """Check every byte of a checkpoint and return its content, on the CPU. Nothing in the file is executed.

    Raises:
        InputError: if it is missing, damaged, or not a checkpoint of a run.
    """
    advice = "remove it to start again, or choose another `out`"
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = _odd_part(archive) or archive.testzip()  # torch writes checksums, but does not compare them
        if damaged is not None:
            raise InputError(path, f"is damaged: its part {damaged} has changed", advice)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch's unpickler and zipfile raise nearly anything on bytes made by anyone
        if isinstance(error, InputError):
            raise
        raise InputError(path, f"is not a readable checkpoint ({error})", advice) from error
    if not isinstance(content, dict) or not isinstance(content.get("recipe"), str) or not isinstance(content.get("step"), int):
        raise InputError(path, "is a weights file, not a checkpoint of a run", advice)
    return content


def _odd_part(archive: zipfile.ZipFile) -> str | None:
    """Return a part of a checkpoint whose directory entry has values that torch never writes; None if there is none.

    No checksum covers the directory. A single changed bit there turns a part into a folder, and torch then reads uninitialised
    memory.
    """
    parts = archive.infolist()
    return next((part.filename for part in parts if part.compress_type != zipfile.ZIP_STORED or part.external_attr), None)


def read_log(run: Path) -> list[dict[str, Any]]:
    """Return the lines of a run's log, without an incomplete last one.

    Raises:
        InputError: if the folder has no log, or a line is not a JSON object.
    """
    path = run / LOG
    try:
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(path, "cannot be read", "pass the folder of a training run") from error
    rows = []
    for number, line in enumerate(lines, start=1):
        if not line.endswith("\n"):
            break  # the run was killed, or is writing the line now
        try:
            row = parsed_json(line)
        except ValueError as error:
            raise InputError(path, f"line {number} is not JSON", "remove that line") from error
        if not isinstance(row, dict):
            raise InputError(path, f"line {number} is not a JSON object", "remove that line")
        rows.append(row)
    return rows


def git_state(folder: Path) -> dict[str, Any] | None:
    """Return the commit of the checkout that holds `folder`, and whether tracked files differ from it; None outside a
    checkout."""
    git = shutil.which("git")
    if git is None:
        return None

    def ask(*arguments: str) -> str:
        command = [git, "-C", str(folder), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=_GIT_SECONDS).stdout.strip()  # noqa: S603

    try:
        # An installed package may lie inside another repository, in a virtual environment that git ignores.
        ask("ls-files", "--error-unmatch", Path(__file__).with_name("__init__.py").as_posix())
        return {"commit": ask("rev-parse", "HEAD"), "modified": bool(ask("status", "--porcelain", "--untracked-files=no"))}
    except (OSError, subprocess.SubprocessError):
        return None


def finite(value: Any) -> Any:
    """Return `value` with floats that are not finite as text: "nan", "inf"."""
    if isinstance(value, Mapping):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
