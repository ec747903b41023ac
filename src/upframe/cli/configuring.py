"""`upframe config`: the settings that hold, and where they come from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import App, Parameter
from cyclopts.token import Token

from upframe.cli.help import HelpPage
from upframe.cli.output import print_line
from upframe.cli.parser import MODELS, Sources, app
from upframe.cli.settings import apply, named_file, settings_files, user_file
from upframe.cli.stated import HELD, ONLY_FLAGS, by_key
from upframe.cli.wording import table

if TYPE_CHECKING:
    from cyclopts import Argument

config_app = App(
    name="config", help="Show the settings of files and variables.", group=MODELS, help_epilogue="", help_formatter=HelpPage()
)
app.command(config_app)

DEFAULT = "default"


@config_app.command(help_formatter=HelpPage())
def show(
    command: Literal["upscale", "deblur", "denoise", "interpolate", "watch", "serve"] = "upscale",
    /,
    *,
    as_json: Annotated[bool, Parameter(name="--json", negative="")] = False,
    sources: Sources = Sources(),
) -> int:
    """Print every setting of a command that holds, and where it comes from.

    A flag beats a variable (UPFRAME_SCALE), a variable beats a profile, and a profile beats what the files state for every run.
    See docs/config.md.

    Args:
        command: Command whose settings are shown.
        as_json: Print JSON, one object a line.
    """
    rows, files = _rows(command, sources), settings_files(named_file(sources.config))
    if as_json:
        settings = {key: {"value": value, "from": source} for key, value, source in rows}
        names = [str(path) for path in files]
        print_line(json.dumps({"event": "settings", "command": command, "files": names, "settings": settings}))
        return 0
    for path in files:
        print_line(f"file: {path}")
    own = user_file()
    if own is not None and not own.is_file():
        print_line(f"your own file would be {own}")
    for line in table([("setting", "value", "from"), *((key, _text(value), source) for key, value, source in rows)]):
        print_line(line)
    return 0


def _rows(command: str, sources: Sources) -> list[tuple[str, Any, str]]:
    """Name, value and source of each setting that has a value; those that are stated come first."""
    arguments = app[command].assemble_argument_collection()
    known = by_key(arguments)
    for name, value in (("profile", sources.profile), ("config", sources.config)):
        if value is not None:
            known[name].append(Token(keyword=f"--{name}", value=str(value)))
    apply(app, app[command], (command,), arguments)
    held = HELD.get()
    rows = [(key, setting.value, setting.source) for key, setting in held.items()]
    defaults = ((key, _default(argument)) for key, argument in known.items() if key not in held and key not in ONLY_FLAGS)
    return rows + [(key, value, DEFAULT) for key, value in defaults if value not in (None, False)]


def _default(argument: Argument) -> Any:
    value = argument.field_info.default
    return None if value is argument.field_info.empty else str(value) if isinstance(value, Path) else value


def _text(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return str(value).lower() if isinstance(value, bool) else str(value)
