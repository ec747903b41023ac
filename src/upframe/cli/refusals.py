"""Refusals of the parser in the user's words, and of words that are neither a command nor a file."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, get_args, get_origin

from cyclopts import App, CycloptsError
from cyclopts.exceptions import (
    CoercionError,
    MissingArgumentError,
    RepeatArgumentError,
    UnknownCommandError,
    UnknownOptionError,
    UnusedCliTokensError,
)

from upframe.cli import wording
from upframe.cli.help import singular
from upframe.errors import UsageError

if TYPE_CHECKING:
    from cyclopts import Argument

ALIKE = 0.6
"""How alike two words have to be for one to be a slip of the other, 0 to 1."""
VERY_ALIKE = 0.75

_KINDS: dict[type, str] = {int: "a whole number", float: "a number", str: "a value"}
_NEEDS = {
    "--output": "a file or folder",
    "--out": "a file or folder",
    "--input": "a file, folder or pattern",
    "--model": "a name or weights file",
    "--data": "a folder",
    "--log": "a file",
    "--size": "WIDTHxHEIGHT",
    "--encoder": "KEY=VALUE",
    "--set": "FIELD=VALUE",
    "--start": "a time",
    "--end": "a time",
    "--fps": "a rate",
    "--include": "a pattern",
    "--exclude": "a pattern",
    "--device": "a device",
}
"""The values of the most used options, where their type says little."""


def refusal(error: CycloptsError) -> UsageError:
    """The parser's error as one of upframe."""
    command = " ".join(error.command_chain or ())
    see = f"see upframe {command} --help"
    match error:
        case UnknownOptionError():
            return _unknown_option(error, see)
        case MissingArgumentError(argument=argument) if argument is not None:
            return _missing(error, argument, command, see)
        case CoercionError(argument=argument, token=token) if argument is not None and token is not None:
            name = token.keyword or _label(argument)
            return UsageError(f"{name} {token.value}", f"must be {needs(argument)}")
        case RepeatArgumentError(token=token):
            return UsageError(str(token.keyword), "is given more than once", "give it once")
        case UnknownCommandError(app=parent, unused_tokens=[word, *_]) if parent is not None:
            commands = _commands(parent)
            return UsageError(f"{command} {word}", "no such command", did_you_mean(word, commands, before=f"upframe {command}"))
        case UnusedCliTokensError(unused_tokens=[word, *_]):
            return UsageError(word, f"is one argument more than upframe {command} takes", see)
        case _:
            lines = str(error).splitlines()
            return UsageError(command or "upframe", (lines[-1] if lines else type(error).__name__).rstrip("."), see)


def _unknown_option(error: UnknownOptionError, see: str) -> UsageError:
    given = (error.token.keyword or error.token.value).partition("=")[0]
    if not given.startswith("--") and len(given) > 2:
        return UsageError(given, "no such option", f"{given[:2]} is none; {see}")
    known = [name for argument in error.argument_collection if argument.parse for name in argument.names if name[0] == "-"]
    near = difflib.get_close_matches(given, known, n=1, cutoff=ALIKE)
    return UsageError(given, "no such option", f"did you mean {near[0]}?" if near else see)


def _missing(error: MissingArgumentError, argument: Argument, command: str, see: str) -> UsageError:
    given = error.keyword or next((t.keyword for t in reversed(argument.tokens) if t.keyword), None)
    if given is not None:
        return UsageError(command, f"{given} needs {needs(argument)}", see)
    return UsageError(command, f"needs {_label(argument)}", see)


def _label(argument: Argument) -> str:
    """`--data FOLDER` as `--data`; what is given by position as `MODEL`."""
    return singular(argument.name.lstrip("-").upper()) if argument.index is not None else argument.name


def needs(argument: Argument) -> str:
    """The kind of value that a flag takes, as in "must be a number"."""
    if argument.name in _NEEDS:
        return _NEEDS[argument.name]
    hint = value_type(argument.field_info.annotation)
    if get_origin(hint) is Literal:
        return wording.listed([str(choice) for choice in get_args(hint)], last="or")
    return _KINDS.get(hint, "a file or folder")


def value_type(hint: Any) -> Any:
    """The type of a single value: of `list[int] | None` int."""
    while get_args(hint) and get_origin(hint) is not Literal:
        hint = next(inner for inner in get_args(hint) if inner is not type(None))
    return hint


# Mistyped commands ----------------------------------------------------------------------------------------------------
def refuse_mistyped(tokens: Sequence[str], app: App) -> None:
    """Refuse a command line whose first word is neither a command nor a file, but could be meant as one.

    Words with a dot, a slash or a wildcard are files. So is every other word of which there is a file.

    Raises:
        UsageError: with the commands that are most alike.
    """
    if not tokens or not _is_word(tokens[0]):
        return
    word = tokens[0]
    commands = _commands(app)
    if word not in commands:
        if not os.path.lexists(word):
            raise UsageError(word, "no such command or file", did_you_mean(word, commands))
        return
    # A command with arguments of its own beside its sub-commands would take a mistyped one for such an argument.
    inside = app[word]
    if len(tokens) > 1 and inside.default_command is not None and _is_word(tokens[1]):
        below = _commands(inside)
        near = difflib.get_close_matches(tokens[1], below, n=1, cutoff=VERY_ALIKE)
        if near and near[0] != tokens[1]:
            raise UsageError(f"{word} {tokens[1]}", "no such command", f"did you mean upframe {word} {near[0]}?")


def _is_word(token: str) -> bool:
    return re.fullmatch(r"\w[\w-]*", token) is not None


def _commands(app: App) -> list[str]:
    return [name for name in app if not name.startswith("-")]


def did_you_mean(word: str, commands: Sequence[str], *, before: str = "upframe") -> str:
    """The most alike of `commands` as a question; all of them where none is alike."""
    near = difflib.get_close_matches(word.lower(), commands, n=2, cutoff=ALIKE)
    if near:
        return f"did you mean {wording.listed([f'{before} {name}' for name in near], last='or')}?"
    return f"did you mean one of {wording.listed(commands, last='or')}?"
