"""`upframe deblur`, `upframe denoise` and `upframe interpolate`: videos that keep their size."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from upframe.cli.help import HelpPage
from upframe.cli.parser import COMMON, COMPUTE, FILES, INPUT, MORE_HELP, Computing, Files, Reporting, Sources, Video, app
from upframe.cli.upscaling import carry_out

Inputs = Annotated[list[str] | None, Parameter(group=INPUT)]
Model = Annotated[str | None, Parameter(alias=["-m", "-n", "--model-name"], group=COMPUTE)]

WEIGHTS = "written beside it, by weights that you download (docs/models.md says where)"


@app.command(
    group=FILES,
    sort_key=1,
    help_formatter=HelpPage(
        "upframe deblur [INPUT]… -m MODEL [OPTIONS]",
        [("upframe deblur clip.mp4 -m 006_VRT_videodeblurring_GoPro.pth", WEIGHTS)],
        COMMON,
    ),
    help_epilogue=MORE_HELP,
)
def deblur(
    inputs: Inputs = None,
    /,
    *,
    files: Files = Files(),
    model: Model = None,
    computing: Computing = Computing(),
    video: Video = Video(),
    reporting: Reporting = Reporting(),
    sources: Sources = Sources(),
) -> int:
    """Remove motion blur from videos, at their own size.

    An output beside its input is called {stem}_{model}. Everything else is as in `upframe upscale`.

    Args:
        inputs: Files, folders or quoted patterns; - is standard input.
        model: Name or weights file of a network that deblurs, such as vrt-deblur-gopro. [required]
    """
    return carry_out(inputs, files, reporting, task="deblur", model=model, computing=computing, video=video)


@app.command(
    group=FILES,
    sort_key=1,
    help_formatter=HelpPage(
        "upframe denoise [INPUT]… -m MODEL [OPTIONS]",
        [("upframe denoise clip.mp4 --sigma 20 -m 008_VRT_videodenoising_DAVIS.pth", WEIGHTS)],
        COMMON,
    ),
    help_epilogue=MORE_HELP,
)
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
    sources: Sources = Sources(),
) -> int:
    """Remove noise from videos, at their own size.

    An output beside its input is called {stem}_{model}. Everything else is as in `upframe upscale`.

    Args:
        inputs: Files, folders or quoted patterns; - is standard input.
        model: Name or weights file of a network that denoises, such as vrt-denoise-davis. [required]
        sigma: Standard deviation of the noise on the 0-255 scale: 10 is slight, 50 is heavy.
    """
    return carry_out(inputs, files, reporting, task="denoise", model=model, sigma=sigma, computing=computing, video=video)


@app.command(
    group=FILES,
    sort_key=1,
    help_formatter=HelpPage(
        "upframe interpolate [INPUT]… -m MODEL [OPTIONS]",
        [("upframe interpolate clip.mp4 -m 009_VRT_videofi_Vimeo_4frames.pth", WEIGHTS)],
        COMMON,
    ),
    help_epilogue=MORE_HELP,
)
def interpolate(
    inputs: Inputs = None,
    /,
    *,
    files: Files = Files(),
    model: Model = None,
    computing: Computing = Computing(),
    video: Video = Video(),
    reporting: Reporting = Reporting(),
    sources: Sources = Sources(),
) -> int:
    """Double the frame rate of videos: a new frame in the middle between every two.

    The input's frames keep their pixels and times. No frame is made across a cut: there the last frame before it is repeated.
    An output beside its input is called {stem}_{model}. Everything else is as in `upframe upscale`.

    Args:
        inputs: Files, folders or quoted patterns; - is standard input.
        model: Name or weights file of a network that interpolates, such as vrt-interpolate-vimeo. [required]
    """
    return carry_out(inputs, files, reporting, task="interpolate", model=model, computing=computing, video=video)
