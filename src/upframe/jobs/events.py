"""Events of a running job, and its report."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from upframe.errors import (
    BatchError,
    UpframeError,
)
from upframe.jobs.items import Outcome

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Report:
    outcomes: tuple[Outcome, ...]
    seconds: float

    def of(self, status: str) -> list[Outcome]:
        return [o for o in self.outcomes if o.status == status]

    @property
    def error(self) -> UpframeError | None:
        """The error of the whole job: an only input's own error, or BatchError naming how many failed."""
        failed = self.of("failed")
        if not failed:
            return None
        if len(self.outcomes) == 1:
            return failed[0].error
        first = failed[0].error
        return BatchError(f"{len(failed)} of {len(self.outcomes)} inputs", f"failed; the first: {first}".rstrip("."))


@dataclass(frozen=True)
class Event:
    """One thing that happened, for progress bars and `--json`."""

    event: Literal["start", "progress", "notice", "film", "done", "skipped", "failed"]
    input: Path
    data: dict[str, Any] = field(default_factory=dict)


def error_data(error: UpframeError | None) -> dict[str, Any]:
    """Return the data of the event "failed" for an error."""
    if error is None:
        return {}
    return {"error": str(error), "kind": type(error).__name__, "exit_code": error.exit_code}
