"""Options of a watch, checked before it begins."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from upframe.jobs import check_model
from upframe.service import wire
from upframe.service.child.planning import job_options
from upframe.service.faults import OPTIONS, fault_error


def checked_options(values: Mapping[str, Any], *, device: str) -> wire.Options:
    """Options of the queue's jobs, from fields as `wire.Options` has them.

    Raises:
        UsageError: for a value that would fail every file.
    """
    try:
        options = wire.Options.model_validate(values)
    except ValidationError as error:
        fault = error.errors()[0]
        raise fault_error(fault, (OPTIONS, *fault["loc"])) from None
    check_model(job_options(options, device=device, pixels=1))
    return options
