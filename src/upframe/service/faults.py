"""Faults that pydantic finds in a request, as upframe's errors: about options in the command line's own words."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args, get_origin

from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError
from pydantic.fields import FieldInfo

from upframe.errors import OptionError, UsageError, check_choice, check_flag, check_number, check_whole
from upframe.service import wire

OPTIONS = "options"
"""The field of a request that holds `wire.Options`."""


def invalid_body(error: ValidationError) -> RequestValidationError:
    """The error as FastAPI raises it where it reads a body itself."""
    return RequestValidationError([{**fault, "loc": ("body", *fault["loc"])} for fault in error.errors()])


def fault_error(fault: Mapping[str, Any], place: Sequence[str | int]) -> UsageError:
    """The error for one fault.

    Args:
        fault: As `ValidationError.errors()` has it.
        place: Names of fields from the request's body, or the parameter, to the fault.
    """
    happened = fault["msg"][:1].lower() + fault["msg"][1:]
    if len(place) < 2 or place[0] != OPTIONS:
        return UsageError(".".join(map(str, place)) or "body", happened, "see /api/docs")
    known = _fields(place[1:])
    if fault["type"] == "extra_forbidden":
        return OptionError(".".join(map(str, place[1:])), fault["input"], "is no option", f"use one of {_names(known)}")
    option = ".".join(name for name, _ in known)
    try:
        _check(option, fault["input"], known[-1][1])
    except OptionError as error:
        return error
    return OptionError(option, fault["input"], happened)


def _fields(path: Sequence[str | int]) -> list[tuple[str, FieldInfo]]:
    """Name and description of each field on the way to an option; pydantic adds the kinds of a union, which are skipped."""
    model: type[wire.Wire] | None = wire.Options
    found = list[tuple[str, FieldInfo]]()
    for name in path:
        if model is None or name not in model.model_fields:
            break
        found.append((str(name), model.model_fields[str(name)]))
        model = _model_of(found[-1][1])
    return found


def _model_of(field: FieldInfo) -> type[wire.Wire] | None:
    kinds = (field.annotation, *get_args(field.annotation))
    return next((kind for kind in kinds if isinstance(kind, type) and issubclass(kind, wire.Wire)), None)


def _names(known: Sequence[tuple[str, FieldInfo]]) -> str:
    model = _model_of(known[-1][1]) if known else wire.Options
    return ", ".join(model.model_fields) if model is not None else ""


def _check(option: str, value: object, field: FieldInfo) -> None:
    """Check a value by the bounds of its field, as upframe's options check themselves.

    Raises:
        OptionError: if it does not fit.
    """
    kinds = get_args(field.annotation) or (field.annotation,)
    bounds = {name: getattr(one, name) for one in field.metadata for name in ("ge", "le", "gt") if hasattr(one, name)}
    if get_origin(field.annotation) is dict:
        raise OptionError(option, value, "must be pairs of key and value")
    if get_origin(field.annotation) is Literal:
        check_choice(option, value, kinds)
    elif bool in kinds:
        check_flag(option, value)
    elif int in kinds and "ge" in bounds:
        check_whole(option, value, least=bounds["ge"], most=bounds.get("le"))
    elif float in kinds:
        least, most, above = bounds.get("ge", -math.inf), bounds.get("le", math.inf), bounds.get("gt", -math.inf)
        check_number(option, value, least=least, most=most, above=above)
