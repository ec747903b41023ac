"""`upframe export`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from upframe.cli.help import HelpPage
from upframe.cli.output import print_line
from upframe.cli.parser import MODELS, Reporting, app
from upframe.errors import one_line


@app.command(group=MODELS, help_epilogue="", help_formatter=HelpPage())
def export(
    model: str,
    *,
    output: Annotated[Path, Parameter(alias="-o")],
    overwrite: Annotated[bool, Parameter(alias="-y", negative="")] = False,
    reporting: Reporting = Reporting(),
) -> int:
    """Export a network for pictures to ONNX or OpenVINO.

    The file takes pictures of any size. Value range, scale, halo, model and hash of the weights stand in its metadata. It is
    run and compared with torch before it gets its name.

    Args:
        model: Name or weights file.
        output: File to write: .onnx, or .xml for OpenVINO, with its weights in a .bin beside it.
        overwrite: Overwrite existing files.
    """
    reporting.start()
    from upframe.engines.exporting import export as run_export
    from upframe.models.registry import load

    made = run_export(load(model), output, overwrite=overwrite)
    if reporting.json:
        row = {"event": "exported", "files": [str(path) for path in made.files], "max_difference": made.max_difference}
        print_line(json.dumps({**row, "metadata": made.metadata}))
    elif not reporting.quiet:
        files = " and ".join(one_line(str(path)) for path in made.files)
        print_line(f"{one_line(model)} -> {files} (at most {made.max_difference:.1e} from torch, of 1)")
    return 0
