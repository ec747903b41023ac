"""`upframe models`: list, info, verify and convert."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from upframe.cli.output import print_line
from upframe.cli.parser import (
    Reporting,
    models_app,
)
from upframe.errors import one_line


@models_app.command(name="list")
def models_list(*, reporting: Reporting = Reporting()) -> int:
    """List the shipped models and the networks whose weights you can bring."""
    from upframe.models.registry import list_models

    for entry in list_models():
        state = "shipped" if entry.shipped else "yours" if entry.weights else "bring the file"
        if entry.shipped and entry.weights is None:
            state = "missing: install upframe again"
        if reporting.json:
            row = {**vars(entry), "weights": None if entry.weights is None else str(entry.weights)}
            print_line(json.dumps(row))
        else:
            print_line(
                f"{entry.name:21} x{entry.scale}  {entry.params / 1e3:8.1f} K  {entry.family:15} {state:15} "
                f"{entry.licence or '-':12} {', '.join(entry.aliases)}"
            )
    return 0


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
        for key, value in rows.items():
            if value is not None:
                print_line(f"{key + ':':15} {json.dumps(value, indent=1) if isinstance(value, dict) else value}")
    return 0


@models_app.command(name="verify")
def models_verify(
    models: Annotated[list[str] | None, Parameter(consume_multiple=True)] = None,
    *,
    data: Path,
    datasets: Annotated[list[str] | None, Parameter(negative="", consume_multiple=True)] = None,
    reporting: Reporting = Reporting(),
) -> int:
    """Prove weights: score them on test sets and hold the result against what they are known for.

    Args:
        models: Names or weights files; the shipped models otherwise.
        data: Folder of test sets, as `upframe evaluate` takes it.
        datasets: Only these sets of it.
    """
    reporting.start()
    from upframe.engines import keep_freed_memory
    from upframe.evaluation.verify import proof_sheet
    from upframe.models.registry import SHIPPED

    keep_freed_memory()
    sheet = proof_sheet(models or list(SHIPPED), data, datasets=datasets)
    print_line(sheet.to_json() if reporting.json else sheet.to_markdown())
    return 7 if any(row.verdict == "FAIL" for row in sheet.rows) else 0


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
    """Convert any recognised weights file to safetensors with a card, in [0, 1].

    Args:
        source: Weights file in any published form.
        target: The .safetensors file to write; its card is written beside it.
        name: What to call it.
        value_range: Range of its pixels, for files that neither state it nor let it be measured.
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
