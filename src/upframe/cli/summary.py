"""The end of a job: outcomes counted, notes folded, failures listed once."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from upframe.cli import terminal, wording
from upframe.cli.flags import worded
from upframe.errors import NOTICES, InputError, one_line

if TYPE_CHECKING:
    from upframe.jobs import Event, Plan

Say = Callable[[str], None]
Told = tuple[Path, str, str]
"""Input, id and message of a note."""


@dataclass
class Tally:
    """Collects what is to be printed once, at the end."""

    total: int
    """Inputs of the job."""
    nouns: dict[Path, str]
    """`picture` or `video`, by input."""
    planned: list[Told] = field(default_factory=list)
    """Notes that are known before the first file."""
    each: bool = False
    """Whether every note is printed by itself."""
    began: float = field(default_factory=time.monotonic)
    written: int = 0
    skipped: int = 0
    failures: list[str] = field(default_factory=list)
    mendable: int = 0
    """Failures that the same command may not meet again: all but those of bad inputs."""
    late: list[Told] = field(default_factory=list)

    @classmethod
    def of_plan(cls, planned: Plan, *, each: bool = False) -> Tally:
        nouns = {item.input: "picture" if item.is_unit else "video" for item in planned.items}
        told = [(item.input, n.id, worded(n.message)) for item in planned.items if not item.skip for n in item.notices]
        return cls(len(planned.items) + len(planned.failed), nouns, told, each)

    def take(self, event: Event) -> None:
        if event.event == "done":
            self.written += 1
        elif event.event == "skipped":
            self.skipped += 1
        elif event.event == "failed":
            self.failures.append(event.data["error"])
            self.mendable += event.data["exit_code"] != InputError.exit_code
        elif event.event == "notice":
            told = (event.input, event.data["id"], event.data["message"])
            if told not in self.planned:
                self.late.append(told)

    def say_planned_notices(self, say: Say) -> None:
        for line in folded(self.planned, self.nouns, each=self.each):
            say(terminal.fitted(f"note: {line}", start="note:", style="note"))

    def say_end(self, say: Say, *, stopped: bool) -> None:
        """Notes that came up on the way, then the summary with its failures; an only input has no summary."""
        for line in folded(self.late, self.nouns, each=self.each):
            say(terminal.fitted(f"note: {line}", start="note:", style="note"))
        if self.total == 1:
            for error in self.failures:
                say(failure_line(error))
            return
        say(terminal.fitted(self.sentence(time.monotonic() - self.began, stopped=stopped)))
        for error in self.failures:
            say(terminal.fitted(f"  failed: {error}", start="  failed:", style="error"))

    def sentence(self, seconds: float, *, stopped: bool = False) -> str:
        """`31 written, 6 skipped, 1 failed in 2:31. Run the same command again to go on.`"""
        failed = len(self.failures)
        parts = [f"{n} {word}" for n, word in ((self.written, "written"), (self.skipped, "skipped"), (failed, "failed")) if n]
        rest = self.total - self.written - self.skipped - failed
        if stopped and rest:
            parts.append(f"{rest} not done")
        advice = " Run the same command again to go on." if self.mendable or stopped else ""
        return f"{', '.join(parts) or 'nothing done'} in {wording.clock(seconds)}.{advice}"


def failure_line(error: str) -> str:
    return terminal.fitted(f"upframe: {error}", start="upframe:", style="error")


def folded(told: Iterable[Told], nouns: dict[Path, str], *, each: bool = False) -> list[str]:
    """A line for each kind of note: the file's own words where it is one, else how many files it is about.

    Args:
        each: A line for each note all the same.
    """
    kinds: dict[str, list[Told]] = {}
    for one in dict.fromkeys(told):
        kinds.setdefault(one[1], []).append(one)
    lines = []
    for id, notes in kinds.items():
        paths = list(dict.fromkeys(path for path, _, _ in notes))
        if each or len(paths) == 1:
            lines += [f"{one_line(str(path))}: {message} [{id}]" for path, _, message in notes]
            continue
        messages = {message for _, _, message in notes}
        found = {nouns.get(path, "file") for path in paths}
        noun = found.pop() if len(found) == 1 else "file"
        text = messages.pop() if len(messages) == 1 else NOTICES[id].meaning
        lines.append(f"{wording.count(len(paths), noun)}: {text} [{id}]")
    return lines
