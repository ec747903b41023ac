"""`upframe data preview`: what degradations do to a clip, on one sheet."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from upframe.cli.data import data_app
from upframe.cli.output import print_line
from upframe.cli.parser import Reporting
from upframe.errors import UsageError


@data_app.command
def preview(
    clip: Path,
    *,
    out: Annotated[Path, Parameter(alias="-o")],
    seed: int = 0,
    degradations: str | None = None,
    scale: Annotated[int, Parameter(alias="-s")] = 4,
    frames: int = 15,
    rows: int = 4,
    overwrite: Annotated[bool, Parameter(alias="-y", negative="")] = False,
    reporting: Reporting = Reporting(),
) -> int:
    """Show what training would make of a clip or picture: one row of a contact sheet for each seed.

    Args:
        clip: A picture, a folder of frames, or a video.
        out: The sheet, a picture file such as sheet.png.
        seed: Of the first row; the next rows count on.
        degradations: realbasicvsr, video-mild, photo-real or photo-mild; by default the first for clips, photo-real for
            pictures.
        scale: How much smaller the degraded frames are.
        frames: Frames that are read; twice as many are degraded, as in training.
        rows: Number of seeds.
        overwrite: Overwrite an existing sheet.
    """
    reporting.start()
    from upframe.media.image.files import write_pixels
    from upframe.training.degradations.pipeline import find_degradations
    from upframe.training.degradations.preview import preview as make_preview
    from upframe.training.degradations.preview import read_frames

    for flag, value, least in (("--seed", seed, 0), ("--scale", scale, 1), ("--frames", frames, 1), ("--rows", rows, 1)):
        if value < least:
            raise UsageError(f"{flag} {value}", f"must be {least} or more")
    if out.exists() and not overwrite:
        raise UsageError(out, "exists already", "choose another name or add -y")
    chosen = None if degradations is None else find_degradations(degradations, scale=scale)
    read = read_frames(clip, limit=frames)
    if chosen is None:
        chosen = find_degradations("realbasicvsr" if len(read) > 1 else "photo-real", scale=scale)
    result = make_preview(read, chosen, seed=seed, rows=rows, name=clip.name)
    write_pixels(out, result.sheet)
    for words in result.drawn:
        if reporting.json:
            print_line(json.dumps({"event": "preview", "out": str(out), "drawn": words}))
        elif not reporting.quiet:
            print_line(words)
    return 0
