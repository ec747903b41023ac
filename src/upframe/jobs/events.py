"""Events while a job runs, and its report."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from upframe.errors import BatchError, Notice, UpframeError
from upframe.models.spec import Precision


@dataclass(frozen=True)
class Event:
    """One thing that happened, for progress bars and JSON lines."""

    event: Literal["start", "progress", "notice", "video", "done", "skipped", "failed"]
    input: Path
    data: dict[str, Any] = field(default_factory=dict)
    """JSON-ready."""
    error: UpframeError | None = None
    """Of "failed": what `data` says in words."""


@dataclass(frozen=True)
class Outcome:
    """How one input ended."""

    input: Path
    status: Literal["written", "skipped", "failed"]
    output: Path | None = None
    error: UpframeError | None = None
    notices: tuple[Notice, ...] = ()
    seconds: float = 0.0
    size: tuple[int, int] | None = None
    """(height, width) of the output."""
    model: str | None = None
    engine: str | None = None
    """The engine that ran the network, a name of `engines.ENGINES`; None where nothing ran."""
    precision: Precision | None = None


@dataclass(frozen=True)
class Report:
    """How all inputs of a job ended, in order."""

    outcomes: tuple[Outcome, ...]
    seconds: float

    def of(self, status: str) -> list[Outcome]:
        return [o for o in self.outcomes if o.status == status]

    @property
    def error(self) -> UpframeError | None:
        """Why the whole job failed: an only input's own error, or BatchError naming how many failed."""
        failed = self.of("failed")
        if not failed:
            return None
        if len(self.outcomes) == 1:
            return failed[0].error
        first = failed[0].error
        return BatchError(f"{len(failed)} of {len(self.outcomes)} inputs", f"failed; the first: {first}".rstrip("."))


def error_data(error: UpframeError | None) -> dict[str, Any]:
    """The data of the event "failed"."""
    if error is None:
        return {}
    return {"error": str(error), "kind": type(error).__name__, "exit_code": error.exit_code}


def failed_event(source: Path, error: UpframeError | None) -> Event:
    return Event("failed", source, error_data(error), error)


def notice_event(source: Path, notice: Notice) -> Event:
    return Event("notice", source, {"id": notice.id, "message": notice.message})
