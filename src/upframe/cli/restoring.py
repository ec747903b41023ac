"""`upframe deblur`, `upframe denoise` and `upframe interpolate`: videos that keep their size."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from upframe.cli.parser import COMPUTE, INPUT, Computing, Files, Reporting, Video, app
from upframe.cli.upscaling import carry_out

Inputs = Annotated[list[str] | None, Parameter(group=INPUT)]
Model = Annotated[str | None, Parameter(alias=["-m", "-n", "--model-name"], group=COMPUTE)]


@app.command
def deblur(
    inputs: Inputs = None,
    /,
    *,
    files: Files = Files(),
    model: Model = None,
    computing: Computing = Computing(),
    video: Video = Video(),
    reporting: Reporting = Reporting(),
) -> int:
    """Sharpen videos blurred by motion, at their own size.

    Beside the input an output is called {stem}_{model}. Everything else is as in `upframe upscale`.

    Args:
        inputs: Files, folders or quoted patterns; - is standard input.
        model: Name or weights file of a network to deblur, for instance vrt-deblur-gopro.
    """
    return carry_out(inputs, files, reporting, task="deblur", model=model, computing=computing, video=video)


@app.command
def denoise(
    inputs: Inputs = None,
    /,
    *,
    files: Files = Files(),
    model: Model = None,
    sigma: Annotated[float | None, Parameter(group=COMPUTE)] = None,
    computing: Computing = Computing(),
    video: Video = Video(),
    reporting: Reporting = Reporting(),
) -> int:
    """Take noise out of videos, at their own size.

    Beside the input an output is called {stem}_{model}. Everything else is as in `upframe upscale`.

    Args:
        inputs: Files, folders or quoted patterns; - is standard input.
        model: Name or weights file of a network to denoise, for instance vrt-denoise-davis.
        sigma: Standard deviation of the noise on the 0-255 scale; 10 is slight, 50 is heavy.
    """
    return carry_out(inputs, files, reporting, task="denoise", model=model, sigma=sigma, computing=computing, video=video)


@app.command
def interpolate(
    inputs: Inputs = None,
    /,
    *,
    files: Files = Files(),
    model: Model = None,
    computing: Computing = Computing(),
    video: Video = Video(),
    reporting: Reporting = Reporting(),
) -> int:
    """Make videos smoother: a new frame in the middle between every two, at twice the rate.

    The frames that were there are kept as they are, at their times. No frame is made across a cut: there the last one
    before it is shown on. Beside the input an output is called {stem}_{model}. Everything else is as in `upframe upscale`.

    Args:
        inputs: Files, folders or quoted patterns; - is standard input.
        model: Name or weights file of a network to interpolate, for instance vrt-interpolate-vimeo.
    """
    return carry_out(inputs, files, reporting, task="interpolate", model=model, computing=computing, video=video)
