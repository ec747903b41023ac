"""Convert nested frozen dataclasses to JSON and back, and change them by dotted paths and text. This module knows types, not
training."""

from __future__ import annotations

import collections.abc
import copy
import dataclasses
import difflib
import inspect
import json
import math
import types
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache, partial
from typing import Any, Literal, TypeVar, Union, cast, get_args, get_origin, get_type_hints

from upframe.errors import OptionError, UsageError
from upframe.files import parsed_json

Scalar = bool | int | float | str | tuple[int | float | str, ...]
"""A value in a free mapping of options."""

T = TypeVar("T")
_SUGGESTIONS = 3


# JSON -----------------------------------------------------------------------------------------------------------------
def to_plain(value: Any) -> Any:
    """Return `value` as dicts, lists, strings, numbers, booleans and None."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: to_plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {key: to_plain(item) for key, item in value.items()}
    if isinstance(value, tuple):
        return [to_plain(item) for item in value]
    return value


def from_plain(kind: type[T], plain: Any, *, subject: str) -> T:
    """Return the value of type `kind` from which `to_plain` made `plain`.

    Args:
        kind: A dataclass, or any type hint that a field of one may have.
        subject: Name of the value in errors.

    Raises:
        UsageError: if fields are unknown or missing, or values have another type.
    """
    return cast(T, _from_plain(kind, plain, subject))


def _from_plain(hint: Any, plain: Any, subject: str) -> Any:
    options = _alternatives(hint)
    if len(options) > 1:
        if plain is None and type(None) in options:
            return None
        return _from_plain(next(o for o in options if o is not type(None)), plain, subject)
    if dataclasses.is_dataclass(hint):
        return _dataclass_from(cast(type, hint), plain, subject)
    origin = get_origin(hint)
    if origin is tuple:
        return _tuple_from(hint, plain, subject)
    if _is_mapping(hint):
        if not isinstance(plain, Mapping):
            raise _mismatch(subject, plain, "an object")
        return {key: tuple(item) if isinstance(item, list) else item for key, item in plain.items()}
    if origin is Literal:
        if plain not in get_args(hint):
            raise _mismatch(subject, plain, f"one of {', '.join(map(str, get_args(hint)))}")
        return plain
    if hint is float and isinstance(plain, int) and not isinstance(plain, bool):
        return float(plain)
    if not isinstance(plain, hint) or (isinstance(plain, bool) and hint is not bool):
        raise _mismatch(subject, plain, _NAMES.get(hint, hint.__name__))
    if isinstance(plain, float) and not math.isfinite(plain):
        raise _mismatch(subject, plain, "a finite number")
    return plain


def _dataclass_from(kind: type, plain: Any, subject: str) -> Any:
    if not isinstance(plain, Mapping):
        raise _mismatch(subject, plain, "an object")
    hints = _hints(kind)
    for name in plain:
        if name not in hints:
            raise UsageError(f"{subject}.{name}", "no such field", did_you_mean(name, hints))
    required = [f.name for f in dataclasses.fields(kind) if _is_required(f)]
    missing = [name for name in required if name not in plain]
    if missing:
        raise UsageError(subject, f"lacks {', '.join(missing)}", "add it")
    return kind(**{name: _from_plain(hints[name], item, f"{subject}.{name}") for name, item in plain.items()})


def _tuple_from(hint: Any, plain: Any, subject: str) -> tuple[Any, ...]:
    kinds = get_args(hint)
    if not isinstance(plain, list | tuple):
        raise _mismatch(subject, plain, "a list")
    if Ellipsis in kinds:
        kinds = (kinds[0],) * len(plain)
    if len(plain) != len(kinds):
        raise _mismatch(subject, plain, f"{len(kinds)} values")
    return tuple(_from_plain(kind, item, f"{subject}.{i}") for i, (kind, item) in enumerate(zip(kinds, plain, strict=True)))


def _is_required(field: dataclasses.Field[Any]) -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


_NAMES = {int: "a whole number", float: "a number", str: "text", bool: "true or false"}


def _mismatch(subject: str, found: object, expected: str) -> UsageError:
    return UsageError(subject, f"is {json.dumps(to_plain(found), default=str)}", f"use {expected}")


# Changes by path ------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class _Place:
    """A field somewhere in a value."""

    path: tuple[str, ...]
    """Field names and numbers from the root."""
    spellings: tuple[frozenset[str], ...]
    """Spellings of each part of `path`. Items of a tuple have a number, and some also a name."""
    hint: Any
    one_stage: bool
    """Whether it must not be set in all items of a tuple at once."""


def override(value: T, changes: Mapping[str, str]) -> T:
    """Replace fields of `value`, named by dotted paths, by values read from text, in order; then check the result as a whole.

    Raises:
        OptionError: see `Recipe.override`.
    """
    changed = value
    for path, text in changes.items():
        try:
            for place in _meant(changed, path):
                changed = _replaced(changed, place.path, _parse(place.hint, text, path))
        except UsageError as error:
            inner = error.subject.removeprefix(path).lstrip(".")  # a field within a value in JSON
            happened = f"{inner} {error.happened}" if inner else error.happened
            raise OptionError("changes", {path: text}, happened, error.advice) from error
    try:
        # The dataclasses check their fields only now, because one change may be valid only together with the next.
        return from_plain(type(value), to_plain(changed), subject="")
    except UsageError as error:
        happened = f"{error.subject}: {error.happened}" if error.subject else error.happened
        raise OptionError("changes", dict(changes), happened, error.advice) from error


def value_at(value: Any, path: str) -> Any:
    """Return the value at a complete dotted path; items of tuples by number or by name.

    Raises:
        KeyError: if the path does not exist.
    """
    for part in path.split("."):
        if isinstance(value, Mapping):
            value = value[part]
        elif isinstance(value, tuple):
            found = [one for i, one in enumerate(value) if part in (str(i), *_names(one, value))]
            if len(found) != 1:
                raise KeyError(path)
            value = found[0]
        elif part in _hints(cast(type, type(value))):
            value = getattr(value, part)
        else:
            raise KeyError(path)
    return value


def differing(one: Any, other: Any) -> list[str]:
    """Return the paths of the fields in which two values of one type differ."""
    first, second = _leaves(to_plain(one)), _leaves(to_plain(other))
    return [path for path in {**first, **second} if first.get(path, _ABSENT) != second.get(path, _ABSENT)]


_ABSENT = object()


def _leaves(plain: Any, prefix: str = "") -> dict[str, Any]:
    if isinstance(plain, Mapping):
        items: Iterable[tuple[Any, Any]] = plain.items()
    elif isinstance(plain, list) and any(isinstance(item, Mapping) for item in plain):
        items = ((item.get("name", i), item) for i, item in enumerate(plain))
    else:
        return {prefix: plain}
    found: dict[str, Any] = {}
    for key, item in items:
        found |= _leaves(item, f"{prefix}.{key}" if prefix else str(key))
    return found


def _meant(value: Any, path: str) -> list[_Place]:
    """Return the complete paths that a path, or the end of a path, matches: one, or the same field in every item of a tuple."""
    parts = path.split(".")
    places = list(_places(value))
    whole = [p for p in places if len(p.path) == len(parts) and _fits(p, parts)]
    fitting = whole or [p for p in places if len(p.path) > len(parts) and _fits(p, parts)]
    fitting = fitting or [_item(p, parts[-1]) for p in places if _is_mapping(p.hint) and _fits(p, parts[:-1])]
    if not fitting:
        # Suggest by the whole path, and by its last word, which is misspelt most often.
        spelt = {_spelt(p): None for p in places} | {p.path[-1]: None for p in places}
        advice = did_you_mean(path, spelt, otherwise="see docs/training.md for all fields")
        raise UsageError(path, "no such field", advice)
    if len({_without_first_number(p) for p in fitting}) > 1:
        raise UsageError(path, "may mean several fields", f"write {' or '.join(map(_spelt, fitting[:4]))}")
    if len(fitting) > 1 and fitting[0].one_stage:
        raise UsageError(path, "is not the same in every stage", f"write {' or '.join(map(_spelt, fitting[:4]))}")
    return fitting


def _is_mapping(hint: Any) -> bool:
    return get_origin(hint) is collections.abc.Mapping


def _item(place: _Place, key: str) -> _Place:
    """Return the place of a key in a free mapping, present or not."""
    return _Place((*place.path, key), (*place.spellings, frozenset((key,))), Scalar, False)


def _fits(place: _Place, parts: list[str]) -> bool:
    return 0 < len(parts) <= len(place.spellings) and all(
        part in spelling for part, spelling in zip(parts, place.spellings[-len(parts) :], strict=True)
    )


def _without_first_number(place: _Place) -> tuple[str, ...]:
    first = next((i for i, part in enumerate(place.path) if part.isdigit()), len(place.path))
    return (*place.path[:first], *place.path[first + 1 :])


def _spelt(place: _Place) -> str:
    """Return the path, with names rather than numbers where there are names."""
    return ".".join(next((s for s in sorted(spelling) if not s.isdigit()), part) for part, spelling in _pairs(place))


def _pairs(place: _Place) -> Iterable[tuple[str, frozenset[str]]]:
    return zip(place.path, place.spellings, strict=True)


def _places(value: Any, path: tuple[str, ...] = (), spellings: tuple[frozenset[str], ...] = ()) -> Iterable[_Place]:
    """Yield every field in `value`; nested fields follow the fields that contain them."""
    hints = _hints(cast(type, type(value)))
    for field in dataclasses.fields(value):
        here, spelt = (*path, field.name), (*spellings, frozenset((field.name,)))
        yield _Place(here, spelt, hints[field.name], bool(field.metadata.get("one_stage")))
        item = getattr(value, field.name)
        if dataclasses.is_dataclass(item):
            yield from _places(item, here, spelt)
        elif isinstance(item, Mapping):
            yield from (_item(_Place(here, spelt, None, False), key) for key in item)
        elif isinstance(item, tuple):
            for i, one in enumerate(item):
                if dataclasses.is_dataclass(one):
                    yield from _places(one, (*here, str(i)), (*spelt, frozenset((str(i), *_names(one, item)))))


def _names(one: Any, among: tuple[Any, ...]) -> list[str]:
    """Return the name of an item of a tuple besides its number: its name, or its kind if that is unique."""
    for attribute in ("name", "kind"):
        name = getattr(one, attribute, None)
        if isinstance(name, str) and sum(getattr(other, attribute, None) == name for other in among) == 1:
            return [name]
    return []


def _replaced(value: Any, path: tuple[str, ...], new: Any) -> Any:
    """Return a copy of `value` with `new` at `path`, not yet checked by its dataclasses."""
    if not path:
        return new
    first, rest = path[0], path[1:]
    if isinstance(value, tuple):
        i = int(first)
        return (*value[:i], _replaced(value[i], rest, new), *value[i + 1 :])
    if isinstance(value, Mapping):
        return {**value, first: new}
    changed = copy.copy(value)
    object.__setattr__(changed, first, _replaced(getattr(value, first), rest, new))  # frozen, but no other code has this copy
    return changed


def _parse(hint: Any, text: str, subject: str) -> Any:
    """Convert `text` to type `hint`: words and numbers, comma-separated lists, "none", or JSON for other types."""
    options = _alternatives(hint)
    if hint == Scalar:
        return _scalar(text)
    if type(None) in options:
        if text.lower() in ("", "none", "null"):
            return None
        return _parse(next(o for o in options if o is not type(None)), text, subject)
    if get_origin(hint) is tuple and not dataclasses.is_dataclass(get_args(hint)[0]) and not text.startswith("["):
        return _from_plain(hint, [_word(get_args(hint)[0], part.strip(), subject) for part in text.split(",") if part], subject)
    if dataclasses.is_dataclass(hint) or get_origin(hint) not in (None, Literal):
        try:
            return _from_plain(hint, parsed_json(text), subject)
        except ValueError as error:
            raise UsageError(subject, f"is not JSON ({error})", "set a field of it, or write JSON") from error
    return _from_plain(hint, _word(hint, text, subject), subject)


def _word(hint: Any, text: str, subject: str) -> Any:
    if hint is bool:
        if text.lower() not in _BOOLEANS:
            raise _mismatch(subject, text, "true or false")
        return _BOOLEANS[text.lower()]
    if hint in (int, float):
        try:
            return _whole(text) if hint is int else float(text)
        except ValueError:
            raise _mismatch(subject, text, _NAMES[hint]) from None
    return text


_BOOLEANS = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}


def _whole(text: str) -> int:
    """Parse a whole number, also in the forms `3e5` and `300_000`."""
    try:
        return int(text)
    except ValueError:
        number = float(text)
        if not number.is_integer():
            raise
        return int(number)


def _scalar(text: str) -> Scalar:
    """Parse a number, a boolean or a comma-separated list; other text stays text."""
    if "," in text:
        return tuple(_number_or_text(part.strip()) for part in text.split(",") if part)
    return {"true": True, "false": False}.get(text.lower(), _number_or_text(text))


def _number_or_text(text: str) -> int | float | str:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


# Checks and messages --------------------------------------------------------------------------------------------------
def check_options(options: Mapping[str, Scalar], known: Mapping[str, type], *, subject: str) -> None:
    """Raise UsageError if an option is not `known` or its value has another type. Whole numbers are also numbers."""
    for name, value in options.items():
        if name not in known:
            raise UsageError(f"{subject}, option {name}", "no such option", did_you_mean(name, known))
        if type(value) is not known[name] and not (known[name] is float and type(value) is int):
            raise _mismatch(f"{subject}, option {name}", value, _NAMES.get(known[name], "a list"))


def check_arguments(build: Callable[..., object], arguments: Mapping[str, object], *, subject: str) -> None:
    """Raise UsageError if `build`, a class or a `partial` of one, does not take an argument."""
    takes = inspect.signature(build.func if isinstance(build, partial) else build).parameters
    for name in arguments:
        if name not in takes:
            raise UsageError(f"{subject}, model option {name}", "no such option", did_you_mean(name, takes))


def did_you_mean(name: str, known: Iterable[str], *, otherwise: str = "") -> str:
    """Return advice that names the nearest of `known`; if none is near, return `otherwise` or list all."""
    names = list(known)
    near = difflib.get_close_matches(name, names, n=_SUGGESTIONS, cutoff=0.6)
    if near:
        return f"did you mean {' or '.join(near)}?"
    return otherwise or (f"there are {', '.join(names)}" if names else "there are none")


def described(value: object) -> str:
    """Return the name of a dataclass in messages: its kind in words and, if it has one, its `name`."""
    words = "".join(f" {c.lower()}" if c.isupper() else c for c in type(value).__name__).strip()
    name = getattr(value, "name", None)
    return f"{words} {name}" if isinstance(name, str) else words


def _alternatives(hint: Any) -> tuple[Any, ...]:
    """Return the members of a union; for any other hint, the hint alone."""
    return get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)


@cache
def _hints(kind: type) -> dict[str, Any]:
    return get_type_hints(kind)
