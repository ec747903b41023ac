"""Refusals: upframe's errors as answers of the service."""

from __future__ import annotations

from starlette.exceptions import HTTPException

from upframe.errors import (
    BusyError,
    Cancelled,
    InputError,
    MissingError,
    ModelError,
    OptionError,
    OutputError,
    ResourceError,
    UpframeError,
    UsageError,
)
from upframe.service import wire


class Problem(HTTPException):
    """A refusal with its status. FastAPI lets an `HTTPException` pass where it would hide others behind a 400.

    Args:
        subject, happened, advice: As of `UpframeError`.
        headers: Of the answer, besides the usual ones.
    """

    def __init__(
        self, status: int, subject: str, happened: str, advice: str = "", *, headers: dict[str, str] | None = None
    ) -> None:
        self.error = UsageError(subject, happened, advice)
        super().__init__(status, str(self.error), headers)


class Gone(Exception):  # noqa: N818
    """A child process ended before it answered.

    Args:
        reason: One clause, as in "was killed by signal 9".
    """

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(reason)

    def as_error(self, subject: str) -> wire.Error:
        return wire_error(ResourceError(subject, f"its worker {self.reason}", "try a smaller size, or tiles"))


class Refused(Exception):  # noqa: N818
    """A child process answered with an error of upframe's."""

    def __init__(self, error: wire.Error) -> None:
        self.error = error
        super().__init__(error.error)


_STATUS: dict[str, int] = {
    kind.__name__: status
    for kind, status in {
        UsageError: 422,
        OptionError: 422,
        MissingError: 422,
        InputError: 422,
        ModelError: 422,
        ResourceError: 507,
        OutputError: 507,
        BusyError: 409,
        Cancelled: 409,
    }.items()
}


def status_of(error: wire.Error) -> int:
    """The status of an answer with this error."""
    return _STATUS.get(error.kind, 500)


def wire_error(error: UpframeError) -> wire.Error:
    return wire.Error(
        error=str(error),
        kind=type(error).__name__,
        exit_code=error.exit_code,
        subject=error.subject,
        happened=error.happened,
        advice=error.advice,
        option=error.option if isinstance(error, OptionError) else None,
    )
