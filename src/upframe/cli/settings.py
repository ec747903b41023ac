"""Defaults of flags from the environment and from settings files: a flag beats a variable, which beats a file.

Every start passes here, so nothing is read or imported where there is neither a variable nor a file.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from upframe.cli.stated import COMMANDS, EXCLUSIVE, FILE, HELD, ONLY_FLAGS, PREFIX, Layer, Setting, by_key

if TYPE_CHECKING:
    from cyclopts import App, Argument, ArgumentCollection


def apply(app: App, _: App, commands: tuple[str, ...], arguments: ArgumentCollection) -> None:
    """Fill the arguments of a command that no flag states; called by the parser.

    Args:
        app: The app that has all commands.

    Raises:
        UsageError: if a file or a setting is not valid; the line names both.
    """
    if not commands or commands[0] not in COMMANDS:
        return
    command, known = commands[0], by_key(arguments)
    layers = list(_layers(app, command, known))
    taken = {key for key, argument in known.items() if argument.tokens}
    held: dict[str, Setting] = {}
    for layer in layers:
        stated = {key: setting for key, setting in layer.items() if key in known and not _is_void(key, taken)}
        for key, setting in stated.items():
            _give(known[key], setting)
        held |= stated
        taken |= stated.keys()
    HELD.set(held)


def _is_void(key: str, taken: set[str]) -> bool:
    """Whether this question is answered already. Width and height may stand side by side, but only in one place."""
    return key in taken or any(key in group and group & taken for group in EXCLUSIVE)


def _layers(app: App, command: str, known: Mapping[str, Argument]) -> Iterator[Layer]:
    """All places of settings, the strongest first."""
    yield _environment(command, known)
    config, profile = (
        named_file(_given(known["config"])),
        _given(known["profile"]) or os.environ.get(f"{PREFIX}PROFILE") or None,
    )
    paths = settings_files(config)
    if paths or config is not None or profile is not None:
        from upframe.cli.settings_file import file_layers

        yield from file_layers(paths, app=app, command=command, profile=profile, named=config)


def _given(argument: Argument) -> str | None:
    return argument.tokens[-1].value if argument.tokens else None


def named_file(given: str | Path | None) -> str | None:
    """The one settings file to read, by the flag or the variable; None for those that lie in their places."""
    return os.environ.get(f"{PREFIX}CONFIG") or None if given is None else str(given)


def _environment(command: str, known: Mapping[str, Argument]) -> Layer:
    """Settings by variables: `UPFRAME_WATCH_SCALE` for one command, `UPFRAME_SCALE` for all that share settings."""
    if not any(name.startswith(PREFIX) for name in os.environ):
        return {}
    found: dict[str, Setting] = {}
    for key in known.keys() - ONLY_FLAGS:
        word = key.replace("-", "_").upper()
        shared = () if command == "serve" else (f"{PREFIX}{word}",)
        for variable in (f"{PREFIX}{command.upper()}_{word}", *shared):
            if os.environ.get(variable):
                found[key] = Setting(key, os.environ[variable], variable, is_variable=True)
                break
    return found


def settings_files(named: str | None) -> list[Path]:
    """Settings files that exist, the strongest first.

    Args:
        named: The one that the user names, which takes the place of all others.
    """
    if named is not None:
        return [Path(named)]
    return [path for path in (Path(FILE), user_file()) if path is not None and os.path.isfile(path)]  # noqa: PTH113


def user_file() -> Path | None:
    """The user's own settings file, where the system keeps such files; None if there is no home."""
    home = os.path.expanduser("~")  # noqa: PTH111 (Path.home raises without one)
    base = os.environ.get("XDG_CONFIG_HOME")
    if not base and sys.platform == "win32":
        base = os.environ.get("APPDATA")
    if not base and home != "~":
        base = os.path.join(home, *(("Library", "Application Support") if sys.platform == "darwin" else (".config",)))  # noqa: PTH118
    return Path(base, "upframe", FILE) if base else None


def _give(argument: Argument, setting: Setting) -> None:
    """Hand a value to the parser, as if a flag had stated it."""
    from upframe.cli.settings_file import as_flag

    for token in as_flag(argument, setting):
        argument.append(token)
