"""`upframe models`: list, info, verify and convert."""

from __future__ import annotations

import json
import sys
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from upframe.cli import terminal, wording
from upframe.cli.help import HelpPage
from upframe.cli.output import print_line
from upframe.cli.parser import (
    Reporting,
    models_app,
)
from upframe.errors import one_line

if TYPE_CHECKING:
    from upframe.models.registry import ModelEntry, Purpose


@models_app.command(name="list")
def models_list(*, reporting: Reporting = Reporting()) -> int:
    """List the models by what they are for."""
    reporting.start()
    from upframe.models.registry import list_models

    entries = list_models()
    if reporting.json:
        for entry in entries:
            print_line(json.dumps({**vars(entry), "weights": None if entry.weights is None else str(entry.weights)}))
        return 0
    for line in models_lines(
        entries, width=terminal.columns(sys.stdout) if sys.stdout is not None and sys.stdout.isatty() else None
    ):
        print_line(line)
    return 0


PURPOSES: dict[Purpose, str] = {
    "photos": "Photos",
    "degraded photos": "Degraded photos",
    "drawings": "Anime and drawings",
    "videos": "Videos",
    "degraded videos": "Degraded videos",
    "restoration": "Restoration: deblur, denoise, interpolate",
}
"""Headings, in the order of the list."""


def models_lines(entries: Sequence[ModelEntry], *, width: int | None = None) -> list[str]:
    """Models under headings: first those that are ready, then those whose weights have to be downloaded.

    Args:
        width: Columns of the terminal, at which long licences end; None for no limit.
    """
    ready = [e for e in entries if e.weights is not None]
    others = [e for e in entries if e.weights is None]
    cells = {e.name: (e.name, f"x{e.scale}", _parameters(e.params), e.family, _facts(e)) for e in entries}
    rows = dict(zip(cells, wording.table(list(cells.values()), right=(2,)), strict=True))
    lines: list[str] = []
    for heading, group in (("Ready to use", ready), ("Models that need downloaded weights", others)):
        lines += ["", heading] if lines else [heading]
        for purpose, title in PURPOSES.items():
            named = [rows[e.name] for e in group if e.purpose == purpose]
            if named:
                lines += [f"  {title}", *(_cut(f"    {row}", width) for row in named)]
    advice = "Weights: `upframe models info NAME` says more, docs/models.md where to find them; use them with -m FILE."
    return [*lines, "", *(textwrap.wrap(advice, width) if width else [advice])]


def _facts(entry: ModelEntry) -> str:
    facts = [entry.licence or "licence not stated"]
    if entry.shipped:
        facts += ["missing: install upframe again"] if entry.weights is None else []
        facts += [f"the default, also called {name}" for name in entry.aliases]
    elif entry.weights is not None:
        facts.insert(0, one_line(str(entry.weights)))
    return "; ".join(facts)


def _parameters(number: int) -> str:
    return f"{number / 1e6:.1f} M" if number >= 1e6 else f"{number / 1e3:.0f} K"


def _cut(line: str, width: int | None) -> str:
    return line if width is None or len(line) <= width else line[: width - 1].rstrip(" ;,") + "…"


@models_app.command(name="info")
def models_info(model: str, *, reporting: Reporting = Reporting()) -> int:
    """Show everything known about a model or a weights file.

    Args:
        model: Name or weights file.
    """
    reporting.start()
    from upframe.models.registry import info

    found = info(model)
    window = found.spec.window
    rows: dict[str, object] = {
        "name": found.name,
        "network": found.spec.name,
        "family": found.spec.family,
        "paper": found.spec.paper,
        "task": found.spec.task,
        "scale": found.spec.scale,
        "aliases": list(found.spec.aliases) or None,
        "parameters": found.params,
        "precisions": list(found.spec.precisions),
        "tiling": found.spec.tiling,
        "halo_px": found.spec.halo_px,
        "exact_halo_px": found.spec.exact_halo_px,
        "frames_at_once": None if window is None else window.frames or "a whole shot",
        "frames_shared": None if window is None else window.overlap,
        "licence": found.spec.licence if found.card is None else None,  # a card has its own
        "weights": found.source,
        "sha256": found.sha256,
    }
    if found.official is not None:
        rows["official"] = f"{found.official.file} of {found.official.source}, licence: {found.official.licence}"
    if found.card is not None:
        rows["card"] = json.loads(found.card.to_json())
    if reporting.json:
        print_line(json.dumps(rows))
    else:
        if found.source is None:
            rows["weights"] = "not shipped; docs/models.md says where to find them"
        for line in _fact_lines(rows):
            print_line(line)
    return 0


def _fact_lines(facts: Mapping[str, object], indent: str = "") -> list[str]:
    """A line for each fact that is known, and those of a group below its name."""
    lines: list[str] = []
    for key, value in facts.items():
        if isinstance(value, dict):
            lines += [f"{indent}{key}:", *_fact_lines(value, indent + "  ")] if value else []
        elif value not in (None, ""):
            text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
            lines.append(f"{indent}{wording.padded(key + ':', 15)} {text}")
    return lines


@models_app.command(name="verify", help_formatter=HelpPage("upframe models verify --data PATH [OPTIONS] [MODEL]…"))
def models_verify(
    models: Annotated[list[str] | None, Parameter(consume_multiple=True)] = None,
    *,
    data: Path,
    datasets: Annotated[list[str] | None, Parameter(negative="", consume_multiple=True)] = None,
    reporting: Reporting = Reporting(),
) -> int:
    """Score models on test sets and compare the scores with the published ones.

    Args:
        models: Names or weights files. [default: the shipped models]
        data: Folder of test sets, as `upframe evaluate` takes it.
        datasets: Only these sets of it. [default: all]
    """
    reporting.start()
    from upframe.engines import keep_freed_memory
    from upframe.evaluation.verify import proof_sheet
    from upframe.models.registry import SHIPPED

    keep_freed_memory()
    sheet = proof_sheet(models or list(SHIPPED), data, datasets=datasets)
    print_line(sheet.to_json() if reporting.json else sheet.to_markdown())
    return 7 if sheet.failed else 0


@models_app.command(name="convert")
def models_convert(
    source: Path,
    target: Path,
    *,
    name: str | None = None,
    value_range: Literal["0-1", "0-255"] | None = None,
    notes: str | None = None,
    overwrite: Annotated[bool, Parameter(alias="-y", negative="")] = False,
    reporting: Reporting = Reporting(),
) -> int:
    """Convert a weights file to safetensors with a card.

    Args:
        source: Weights file in any published form.
        target: The .safetensors file to write; its card is written beside it.
        name: Name on the card. [default: the network's]
        value_range: Range of its pixels, 0-1 or 0-255. [default: as stated or measured]
        notes: A remark for the card.
        overwrite: Overwrite an existing target.
    """
    reporting.start()
    from upframe.models.registry import convert

    card = convert(source, target, name=name, value_range=value_range, notes=notes, overwrite=overwrite)
    if reporting.json:
        print_line(json.dumps({"event": "converted", "output": str(target), "card": json.loads(card.to_json())}))
    else:
        print_line(
            f"{one_line(str(source))} -> {one_line(str(target))} ({card.arch}, x{card.scale}, sha256 {card.sha256[:12]})"
        )
    return 0
