"""Help pages: short ones with examples and the common options, and on demand those for videos, or all.

Plain text without frames, as uv and ruff have it; it can be piped, and reads the same in every terminal.
"""

from __future__ import annotations

import re
import sys
import textwrap
from collections.abc import Collection, Iterable, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from upframe.cli import terminal, wording

if TYPE_CHECKING:
    from cyclopts.help import HelpEntry, HelpPanel
    from rich.console import Console, ConsoleOptions

Shown = Literal["common", "video", "all"]
HELP_FLAGS: dict[str, Shown] = {"--help": "common", "-h": "common", "--help-video": "video", "--help-all": "all"}

SHOWN: ContextVar[Shown] = ContextVar("SHOWN", default="common")
"""Which page is asked for."""

MOST_COLUMNS = 100
"""Lines are no longer, on however wide a terminal: they would be hard to read."""
NAME_COLUMNS = 26
"""Of options; a longer one gets a line of its own."""
VIDEO_PANEL = "Video"

_METAVARS = {"STR": "TEXT", "INT": "N", "FLOAT": "NUMBER", "CHOICE": "WORD", "PATH": "PATH"}
_TIMES = ("--start", "--end")
_NO_DEFAULTS = {None, "False", "None", "[]", '""'}


@dataclass
class HelpPage:
    """Writes the help of a command."""

    usage: str = ""
    """After `Usage:`; what the parser makes of the parameters unless given."""
    examples: Sequence[tuple[str, str]] = ()
    """Command lines, and what each makes."""
    common: Collection[str] = ()
    """Options on the short page; all of them if empty."""
    options: Sequence[tuple[str, str]] = ()
    """Options of another command that stand on this page too; to ask the parser for them would double what the page costs."""
    _usage: str = ""

    def render_usage(self, console: Console, options: ConsoleOptions, usage: object) -> None:
        self._usage = self.usage or _usage_of(str(usage))

    def render_description(self, console: Console, options: ConsoleOptions, description: object) -> None:
        paragraphs = [" ".join(p.split()) for p in re.split(r"\n\s*\n", _plain(description))]
        is_short = self.common and SHOWN.get() != "all"
        for paragraph in paragraphs[:1] if is_short else paragraphs:
            _write(console, *_wrapped(paragraph), "")
        for line in f"Usage: {self._usage}".split("\n"):
            _write(console, *wording.wrapped(line, _width(), indent="         "))
        if self.examples and SHOWN.get() != "video":
            _write(console, "", "Examples:", *_examples(self.examples))
        if self.options:
            _write(console, "", "Common options:", *_entries(self.options, NAME_COLUMNS))

    def __call__(self, console: Console, options: ConsoleOptions, panel: HelpPanel) -> None:
        if panel.format == "command":
            rows = [(entry.names[0], _plain(entry.description)) for entry in panel.entries if entry.names[0][0] != "-"]
            if rows:
                _write(console, "", f"{panel.title}:", *_entries(rows, max(len(name) for name, _ in rows)))
            return
        entries = [entry for entry in panel.entries if self._shows(entry, str(panel.title))]
        if entries:
            is_whole = len(entries) == len(panel.entries)
            about = " ".join(_plain(panel.description).split()) if is_whole else ""
            _write(console, "", f"{panel.title}:", *_wrapped(about, indent="  "), *_option_lines(entries))

    def _shows(self, entry: HelpEntry, title: str) -> bool:
        if SHOWN.get() == "all" or not self.common:
            return True
        if SHOWN.get() == "video":
            return title == VIDEO_PANEL
        return entry.positional_label is not None or bool({*entry.all_options} & {*self.common})


def _usage_of(parsed: str) -> str:
    """The parser's usage in words of the parameters below it: `MODEL…` for `MODELS`, a line of its own for sub-commands."""
    usage = re.sub(r"\b(MODELS|RUNS)\b", lambda label: f"{singular(label[0])}…", parsed.strip().removeprefix("Usage: "))
    program, command, rest = usage.partition(" COMMAND ")
    return f"{program} {rest}\n       {program} COMMAND …" if command else usage


def _examples(examples: Sequence[tuple[str, str]]) -> list[str]:
    """A line each; two where the terminal is too narrow."""
    lines = [f"  {line}" for line in wording.table(examples)]
    if max(map(len, lines)) <= _width():
        return lines
    return [line for command, result in examples for line in (f"  {command}", f"      {result}")]


def _option_lines(entries: Iterable[HelpEntry]) -> list[str]:
    return _entries([(_names(entry), _description(entry)) for entry in entries], NAME_COLUMNS)


def _write(console: Console, *lines: str) -> None:
    for line in lines:
        console.print(line, markup=False, highlight=False, emoji=False, soft_wrap=True)


def _width() -> int:
    return min(terminal.columns(sys.stdout), MOST_COLUMNS)


def _wrapped(text: str, *, indent: str = "") -> list[str]:
    if not text:
        return []
    return textwrap.wrap(
        text, _width(), initial_indent=indent, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    )


def _entries(rows: Iterable[tuple[str, str]], columns: int) -> list[str]:
    """Names at the left, descriptions at the right."""
    lines: list[str] = []
    indent = " " * (columns + 4)
    for name, text in rows:
        body = _wrapped(text, indent=indent) or [""]
        if len(name) <= columns:
            body[0] = f"  {name.ljust(columns)}  {body[0].lstrip()}"
        else:
            lines.append(f"  {name}")
        lines += [line.rstrip() for line in body]
    return lines


def _names(entry: HelpEntry) -> str:
    """`-o, --output PATH`, the short form first; further spellings on the whole page alone. `MODEL` for what has a position."""
    label = entry.positional_label
    if label is not None:
        name = singular(label.strip("[]").rstrip("."))
        return f"{name}…" if _takes_many(entry) else name
    if entry.default == "True":  # only what turns it off is of interest
        return ", ".join((*entry.negative_shorts, *entry.negative_names)) or ", ".join(entry.all_options)
    longs = entry.positive_names if SHOWN.get() == "all" else entry.positive_names[:1]
    shorts = entry.positive_shorts if SHOWN.get() == "all" else entry.positive_shorts[:1]
    names = ", ".join((*shorts, *longs))
    metavar = entry.metavar or ""
    bare = metavar.rstrip(".")
    if names in _TIMES:
        return f"{names} TIME"
    return f"{names} {_METAVARS.get(bare, bare)}{'…' if metavar != bare else ''}".rstrip()


def singular(label: str) -> str:
    """`MODELS` as `MODEL`."""
    return label.removesuffix("S") if label in ("MODELS", "INPUTS", "RUNS") else label


def _takes_many(entry: HelpEntry) -> bool:
    return "list" in str(entry.type)


def _description(entry: HelpEntry) -> str:
    text = _plain(entry.description)
    if entry.default == "True" and entry.negative_names:
        text = "Do not " + text[:1].lower() + text[1:]
    extras = []
    if entry.choices and not all(re.search(rf"\b{re.escape(c)}\b", text) for c in entry.choices):
        extras.append(f"[choices: {', '.join(entry.choices)}]")
    if entry.default not in (*_NO_DEFAULTS, "True") and "[default:" not in text:
        extras.append(f"[default: {entry.default}]")
    if entry.required:
        extras.append("[required]")
    return " ".join([text, *extras])


def _plain(text: object) -> str:
    """The words of whatever the parser hands over as a description."""
    inner = getattr(text, "primary_renderable", text)
    return "" if inner is None else str(getattr(inner, "plain", inner))
