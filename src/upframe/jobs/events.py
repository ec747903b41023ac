"""Events of a running job, and the report at its end."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from upframe.errors import BatchError, Notice, UpframeError
from upframe.media.ledger import EMPTY, Ledger
from upframe.models.spec import Precision


@dataclass(frozen=True)
class Event:
    """One event of a job, for progress bars and JSON lines."""

    event: Literal["start", "progress", "notice", "video", "done", "skipped", "failed"]
    input: Path
    data: dict[str, Any] = field(default_factory=dict)
    """JSON-ready."""
    error: UpframeError | None = None
    """For "failed": the error that `data` describes."""


@dataclass(frozen=True)
class Outcome:
    """Result of one input."""

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
    """The engine that ran the network, a name of `engines.ENGINES`; None if no network ran."""
    precision: Precision | None = None
    ledger: Ledger = EMPTY
    """Everything that the input held, and its fate; empty for an input that was not read."""


@dataclass(frozen=True)
class Report:
    """Results of all inputs of a job, in order."""

    outcomes: tuple[Outcome, ...]
    seconds: float

    def of(self, status: str) -> list[Outcome]:
        return [o for o in self.outcomes if o.status == status]

    @property
    def error(self) -> UpframeError | None:
        """Error of the whole job: the input's own error if there is only one input, else a BatchError with the number of
        failures."""
        failed = self.of("failed")
        if not failed:
            return None
        if len(self.outcomes) == 1:
            return failed[0].error
        first = failed[0].error
        return BatchError(f"{len(failed)} of {len(self.outcomes)} inputs", f"failed; the first: {first}".rstrip("."))


def error_data(error: UpframeError | None) -> dict[str, Any]:
    """Data of the event "failed"."""
    if error is None:
        return {}
    return {"error": str(error), "kind": type(error).__name__, "exit_code": error.exit_code}


def failed_event(source: Path, error: UpframeError | None) -> Event:
    return Event("failed", source, error_data(error), error)


def notice_event(source: Path, notice: Notice) -> Event:
    return Event("notice", source, {"id": notice.id, "message": notice.message})
