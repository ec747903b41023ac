"""Settings files: read, checked, and laid one over the other."""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from cyclopts import App, Argument
from cyclopts.token import Token

from upframe.cli import wording
from upframe.cli.refusals import ALIKE, needs, value_type
from upframe.cli.stated import COMMANDS, FILE, ONLY_FLAGS, TASKS, Layer, Setting, by_key
from upframe.errors import UsageError

MOST_BYTES = 1 << 20
"""Of a settings file; nobody writes a longer one by hand."""

FOLDER_MAY = frozenset((
    "model", "scale", "size", "width", "height", "long-side", "short-side", "megapixels", "sigma", "task",
    "format", "name", "suffix", "quality", "strict", "recursive", "include", "exclude", "allow-truncated", "first-frame",
    "tile", "halo", "overlap", "device", "engine", "precision", "fp32", "threads", "window", "as-published",
    "start", "end", "codec", "crf", "preset", "pix-fmt", "odd", "audio", "subs", "stream", "deinterlace", "on-bad-frame",
    "fps", "clip", "temporal-overlap", "clean-threshold", "clean-max", "clean-strength",
    "verbose", "quiet", "progress", "settle", "poll",
))  # fmt: skip
"""Keys of a file that merely lies in the current folder, and may be anybody's: how outputs are made, and nothing that writes
elsewhere, raises a limit or opens a port."""

_TABLES = ("profiles", *COMMANDS)
_TRUE, _FALSE = ("1", "true", "yes", "on"), ("0", "false", "no", "off")


def file_layers(paths: Sequence[Path], *, app: App, command: str, profile: str | None, named: str | None) -> list[Layer]:
    """Layers of settings, the strongest first: the profile of each file, then what the files state for every run.

    Args:
        app: The app that has all commands.
        named: The file that the user names, if any; it has the rights of the user's own.

    Raises:
        UsageError: if a file cannot be read, a key is not known, or no file has the profile.
    """
    flags = _Flags(app)
    files = [_File(path, flags, is_own=named is not None or path != Path(FILE)) for path in paths]
    layers: list[Layer] = []
    if profile is not None:
        having = [file for file in files if profile in file.profiles]
        if not having:
            raise _no_profile(profile, files)
        layers += [layer for file in having for layer in file.layers_of(command, profile)]
    return layers + [layer for file in files for layer in file.layers_of(command, None)]


def _no_profile(name: str, files: Sequence[_File]) -> UsageError:
    known = sorted({profile for file in files for profile in file.profiles})
    near = difflib.get_close_matches(name, known, n=1, cutoff=ALIKE)
    if near:
        return UsageError(f"--profile {name}", "no such profile", f"did you mean {near[0]}?")
    advice = f"the profiles are {wording.listed(known)}" if known else f"write [profiles.{name}] in {FILE}"
    return UsageError(f"--profile {name}", "no such profile", advice)


class _File:
    """A settings file whose keys are known."""

    def __init__(self, path: Path, flags: _Flags, *, is_own: bool) -> None:
        self._path, self._flags, self._is_own = path, flags, is_own
        self._content = _read(path)
        profiles = self._content.get("profiles", {})
        self.profiles: dict[str, dict[str, Any]] = profiles
        tables: list[tuple[str, Any]] = [("", self._content)]
        if not isinstance(profiles, dict):
            raise UsageError(path, "profiles is not a table", "write [profiles.NAME] above its settings")
        tables += [(f"profiles.{name}", table) for name, table in profiles.items()]
        for place, table in tables:
            self._check(place, table)

    def layers_of(self, command: str, profile: str | None) -> Iterator[Layer]:
        """Settings of one profile, or of none: those for the command before those for all."""
        top = self._content if profile is None else self.profiles[profile]
        place = "" if profile is None else f"profiles.{profile}"
        inner = f"{place}.{command}".strip(".")
        yield self._layer(inner, top.get(command, {}))
        if command != "serve":
            yield self._layer(place, {key: value for key, value in top.items() if key not in _TABLES})

    def _layer(self, place: str, table: Mapping[str, Any]) -> Layer:
        source = f"{self._path} [{place}]" if place else str(self._path)
        return {_key(key): Setting(_key(key), value, source) for key, value in table.items()}

    def _check(self, place: str, table: Any) -> None:
        """Refuse what no command knows, in the file's own table or in that of a profile."""
        where = f"{self._path} [{place}]" if place else str(self._path)
        if not isinstance(table, dict):
            raise UsageError(where, "is not a table", f"write [{place}] above its settings")
        for key, value in table.items():
            if key in COMMANDS:
                inner = f"{self._path} [{f'{place}.{key}'.strip('.')}]"
                if not isinstance(value, dict):
                    raise UsageError(inner, "is not a table", "write its settings below it")
                for one in value:
                    self._check_key(inner, one, (key,))
            elif place or key != "profiles":
                self._check_key(where, key, TASKS)

    def _check_key(self, where: str, key: str, commands: tuple[str, ...]) -> None:
        known = {name for command in commands for name in self._flags.of(command)}
        plain = _key(key)
        if plain not in known:
            words = [*sorted(known - ONLY_FLAGS), *(_TABLES if len(commands) > 1 else ())]
            near = difflib.get_close_matches(plain, words, n=1, cutoff=ALIKE)
            raise UsageError(f"{where} {key}", "no such setting", f"did you mean {near[0]}?" if near else "see docs/config.md")
        if plain in ONLY_FLAGS:
            raise UsageError(f"{where} {key}", "is never read from a file", f"give --{plain} on the command line")
        if not self._is_own and (plain not in FOLDER_MAY or commands == ("serve",)):
            advice = "put it into your own settings file, or name this one with --config"
            raise UsageError(f"{where} {key}", "is not read from a file of the current folder", advice)


def _key(key: str) -> str:
    return key.replace("_", "-")


class _Flags:
    """Flags of every command, without dashes. To list those of one takes milliseconds, so each is asked once."""

    def __init__(self, app: App) -> None:
        self._app = app
        self._of: dict[str, frozenset[str]] = {}

    def of(self, command: str) -> frozenset[str]:
        if command not in self._of:
            self._of[command] = frozenset(by_key(self._app[command].assemble_argument_collection()))
        return self._of[command]


def _read(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            data = file.read(MOST_BYTES + 1)
        if len(data) > MOST_BYTES:
            raise UsageError(path, "is larger than any settings file", "check the name")
        return tomllib.loads(data.decode("utf-8"))
    except FileNotFoundError:
        raise UsageError(path, "no such file", "check the path after --config") from None
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise UsageError(path, f"cannot be read ({reason})", "check the file") from error
    except tomllib.TOMLDecodeError as error:
        found = re.fullmatch(r"(.*?) \(at (?:line (\d+), column \d+|end of document)\)", str(error), re.DOTALL)
        what, line = (found[1], found[2]) if found else (str(error), None)
        where = f"line {line}" if line else "its end"
        raise UsageError(path, f"is not valid TOML at {where} ({what[:1].lower()}{what[1:]})", "see docs/config.md") from error
    except RecursionError:
        raise UsageError(path, "is nested too deeply", "see docs/config.md") from None


# Values ---------------------------------------------------------------------------------------------------------------
def as_flag(argument: Argument, setting: Setting) -> list[Token]:
    """The tokens that a flag with this value has.

    Raises:
        UsageError: if the value has another type than the flag.
    """
    values = _values(argument, setting)
    hint = value_type(argument.field_info.annotation)
    tokens = []
    for index, value in enumerate(values):
        plain = _from_text(value, hint) if setting.is_variable else value
        if not _fits(plain, hint):
            raise UsageError(f"{_place(setting)} = {_shown(value)}", f"must be {_kind(argument, hint)}")
        keyword = f"--{setting.key}"
        if hint is bool:
            tokens.append(Token(keyword=keyword, implicit_value=plain, source=setting.source))
        else:
            tokens.append(Token(keyword=keyword, value=str(plain), source=setting.source, index=index))
    return tokens


def _values(argument: Argument, setting: Setting) -> list[Any]:
    if not _is_list(argument.field_info.annotation):
        return [setting.value]
    if isinstance(setting.value, list):
        return setting.value
    return str(setting.value).split(",") if setting.is_variable else [setting.value]


def _is_list(hint: Any) -> bool:
    return get_origin(hint) is list or (get_origin(hint) is not Literal and any(map(_is_list, get_args(hint))))


def _from_text(text: Any, hint: Any) -> Any:
    """The value of a variable, as a file would state it; the text itself where it does not fit."""
    try:
        if hint is bool:
            return True if text.lower() in _TRUE else False if text.lower() in _FALSE else text
        return hint(text) if hint in (int, float) else text
    except ValueError:
        return text


def _fits(value: Any, hint: Any) -> bool:
    if get_origin(hint) is Literal:
        return not isinstance(value, bool) and str(value) in map(str, get_args(hint))
    if hint is bool or isinstance(value, bool):
        return hint is bool and isinstance(value, bool)
    kinds: dict[Any, tuple[type, ...]] = {int: (int,), float: (int, float), str: (str, int, float)}
    return isinstance(value, kinds.get(hint, (str,)))


def _kind(argument: Argument, hint: Any) -> str:
    return "true or false" if hint is bool else needs(argument)


def _place(setting: Setting) -> str:
    return setting.source if setting.is_variable else f"{setting.source} {setting.key}"


def _shown(value: Any) -> str:
    text = f'"{value}"' if isinstance(value, str) else str(value).lower() if isinstance(value, bool) else str(value)
    return text if len(text) <= 60 else f"{text[:59]}…"
