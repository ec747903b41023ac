"""Settings that no flag states: their names, their places, and those that hold in this run."""

from __future__ import annotations

from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cyclopts import Argument, ArgumentCollection

TASKS = ("upscale", "deblur", "denoise", "interpolate", "watch")
"""Commands that make pictures and videos, and share settings."""
COMMANDS = (*TASKS, "serve")
FILE = "upframe.toml"
PREFIX = "UPFRAME_"

ONLY_FLAGS = frozenset((
    "input", "output", "overwrite", "restart", "dry-run", "once", "move-done", "config", "profile", "debug",
))  # fmt: skip
"""Nothing but the command line says where outputs go, what they replace, and that an input is moved."""

EXCLUSIVE = (
    frozenset(("scale", "size", "width", "height", "long-side", "short-side", "megapixels")),
    frozenset(("name", "suffix")),
    frozenset(("precision", "fp32")),
)
"""Options of which one answers the same question as another: where a flag states the width, a file's scale is void."""


@dataclass(frozen=True)
class Setting:
    """A value, and the place that states it."""

    key: str
    """The flag without its dashes."""
    value: Any
    source: str
    """Where it stands, for people: `UPFRAME_SCALE`, or `upframe.toml [profiles.talk]`."""
    is_variable: bool = False
    """Whether the value is the text of a variable, which has no types, rather than TOML's."""


Layer = Mapping[str, Setting]

HELD: ContextVar[Layer] = ContextVar("HELD", default={})  # noqa: B039 (it is replaced, never changed)
"""Settings of this run that come from no flag, by key."""


def by_key(arguments: ArgumentCollection) -> dict[str, Argument]:
    """The flags of a command by name without dashes."""
    return {a.name.removeprefix("--"): a for a in arguments if a.index is None and a.parse and a.name.startswith("--")}


def sources_held() -> dict[str, list[str]]:
    """Flags of this run that are stated by no flag, by the place that states them."""
    found: dict[str, list[str]] = {}
    for setting in HELD.get().values():
        found.setdefault(setting.source, []).append(f"--{setting.key}")
    return found
