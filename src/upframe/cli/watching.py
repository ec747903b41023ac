"""`upframe watch`."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from upframe.cli.flags import worded
from upframe.cli.help import HelpPage
from upframe.cli.output import print_line, say
from upframe.cli.parser import (
    COMPUTE,
    FILES,
    INPUT,
    OUTPUT,
    Computing,
    Reporting,
    Size,
    Sources,
    VideoFile,
    app,
    device_name,
    need,
    tile_size,
)
from upframe.cli.stopping import Stop, stoppable
from upframe.errors import OptionError, UsageError

if TYPE_CHECKING:
    from upframe.service.wire import Options


@app.command(group=FILES, help_epilogue="", help_formatter=HelpPage("upframe watch FOLDER -o FOLDER [OPTIONS]"))
def watch(
    folder: Annotated[Path, Parameter(group=INPUT)],
    /,
    *,
    output: Annotated[Path, Parameter(alias="-o", group=OUTPUT)],
    task: Annotated[Literal["upscale", "deblur", "denoise", "interpolate"], Parameter(group=COMPUTE)] = "upscale",
    model: Annotated[str | None, Parameter(alias=["-m", "-n", "--model-name"], group=COMPUTE)] = None,
    sigma: Annotated[float | None, Parameter(group=COMPUTE)] = None,
    settle: Annotated[float, Parameter(group=INPUT)] = 2.0,
    once: Annotated[bool, Parameter(negative="", group=INPUT)] = False,
    poll: Annotated[bool, Parameter(negative="", group=INPUT)] = False,
    move_done: Annotated[Path | None, Parameter(group=OUTPUT)] = None,
    include: Annotated[list[str] | None, Parameter(negative="", group=INPUT)] = None,
    exclude: Annotated[list[str] | None, Parameter(negative="", group=INPUT)] = None,
    format: Annotated[str | None, Parameter(alias=["-f", "--ext"], group=OUTPUT)] = None,
    quality: Annotated[int | None, Parameter(group=OUTPUT)] = None,
    overwrite: Annotated[bool, Parameter(alias="-y", negative="", group=OUTPUT)] = False,
    strict: Annotated[bool, Parameter(negative="", group=OUTPUT)] = False,
    allow_truncated: Annotated[bool, Parameter(negative="", group=INPUT)] = False,
    first_frame: Annotated[bool, Parameter(negative="", group=INPUT)] = False,
    max_pixels: Annotated[int, Parameter(group=INPUT)] = 500_000_000,
    size: Size = Size(),
    computing: Computing = Computing(),
    video: VideoFile = VideoFile(),
    reporting: Reporting = Reporting(),
    sources: Sources = Sources(),
) -> int:
    """Make every picture and video that comes into a folder, once. See docs/watch.md.

    Sub-folders are watched, too, and outputs keep their tree. Inputs stay as they are. A watch that was killed goes on where it
    was.

    Args:
        folder: Folder to watch.
        output: Folder for outputs.
        task: Kind of work.
        model: Name (see `upframe models list`) or weights file. [default: the shipped photo model]
        sigma: For denoise: standard deviation of the noise on the 0-255 scale.
        settle: Seconds for which a file must be unchanged before it is taken.
        once: Stop when everything in the folder is done.
        poll: Look at the folder every few seconds instead of waiting for the system to tell of changes.
        move_done: Move inputs that are done to this folder.
        include: Take only files whose names match this pattern; may be repeated.
        exclude: Skip files whose names match this pattern; may be repeated.
        format: Output format. [default: the input's]
        quality: 1 to 100, for lossy formats. [default: 95, AVIF 90]
        overwrite: Overwrite files in the output folder that this watch has not made.
        strict: Treat every note (see docs/notices.md) as an error.
        allow_truncated: Read damaged files as far as they go.
        first_frame: Read only the first frame or page.
        max_pixels: Refuse larger input pictures.
    """
    reporting.start()
    need("upframe watch", "pydantic", "watchfiles", extra="serve")
    from upframe.service.watching.watch import WatchSettings
    from upframe.service.watching.watch import watch as run

    given = {"task": task, "model": _model(model), "sigma": sigma, "format": format, "quality": quality}
    given |= {"strict": strict, "allow_truncated": allow_truncated, "first_frame": first_frame}
    settings = WatchSettings(
        folder=folder,
        output=output,
        options=_options(given, size, computing, video),
        devices=() if computing.device == "auto" else (device_name(computing.device),),
        settle_s=settle,
        once=once,
        poll=poll,
        overwrite=overwrite,
        move_done=move_done,
        max_pixels=max_pixels,
        include=tuple(include or ()),
        exclude=tuple(exclude or ()),
    )
    with stoppable(patiently="the watch") as stop:
        counts = run(settings, stop=stop, tell=_Teller(reporting))
    if reporting.json:
        print_line(json.dumps({"event": "summary", **counts}))
    return Stop.code or (8 if once and (counts["failed"] or counts["left"]) else 0)


def _model(name: str | None) -> str | None:
    """A weights file by its full path: workers run in another folder."""
    from upframe.models.registry import file_of_name

    path = None if name is None else file_of_name(name)
    return name if path is None else str(path.absolute())


def _options(given: dict[str, Any], size: Size, computing: Computing, video: VideoFile) -> Options:
    """The flags as options of jobs in the queue.

    Raises:
        UsageError: for a value that is not valid, or that a watch does not take.
    """
    from upframe.service.watching.options import checked_options

    tile, target, chosen = tile_size(computing.tile), size.target(), video.options(allow_truncated=False)
    if isinstance(tile, tuple):
        raise UsageError(f"--tile {computing.tile}", "has two sides, and upframe watch takes square tiles", "give one number")
    of_video = {name: getattr(chosen, name) for name in ("codec", "crf", "preset", "pix_fmt", "odd", "audio", "subtitles")}
    of_video |= {name: getattr(chosen, name) for name in ("stream", "deinterlace", "on_bad_frame", "segment_frames", "context")}
    of_video |= {name: None if (at := getattr(chosen, name)) is None else float(at) for name in ("start", "end")}
    of_video["encoder"] = dict(chosen.encoder)
    if chosen.cleaning is not None:
        of_video["cleaning"] = vars(chosen.cleaning)
    sizes = {name: getattr(target, name) for name in ("scale", "width", "height", "long_side", "short_side", "megapixels")}
    network: dict[str, Any] = {"tile": tile, "halo": computing.halo, "blend": computing.overlap, "engine": computing.engine}
    network |= {"precision": computing.number_format(), "threads": computing.threads}
    network |= {"window": video.window, "as_published": video.as_published}
    try:
        return checked_options(given | sizes | network | {"video": of_video}, device=device_name(computing.device))
    except OptionError as error:
        if error.option != "task":
            raise
        raise UsageError(f"--task {error.value}", error.happened, error.advice) from None
    except UsageError as error:
        raise UsageError(error.subject, error.happened, _with_task(error.advice)) from None


def _with_task(text: str) -> str:
    """A message about tasks, which are commands elsewhere, in the words of this one."""
    return re.sub(r"`task='(\w+)'`", r"`--task \1`", text)


class _Teller:
    """Prints the events of a watch."""

    def __init__(self, reporting: Reporting) -> None:
        self._reporting = reporting

    def __call__(self, event: str, data: dict[str, Any]) -> None:
        if self._reporting.json:
            print_line(json.dumps({"event": event, **data}))
            return
        is_bad = event in ("failed", "later")
        is_hidden = self._reporting.quiet or (event in ("found", "gone") and not self._reporting.verbose)
        if is_hidden and not is_bad:
            return
        (say if is_bad else print_line)(worded(_with_task(_sentence(event, data))))
        for notice in data.get("notices", ()):
            say(f"  {worded(notice['message'])} [{notice['id']}]")


def _sentence(event: str, data: dict[str, Any]) -> str:
    match event:
        case "watching":
            doing = "making all of" if data["once"] else "looking every few seconds at" if data["polls"] else "watching"
            return f"{doing} {data['folder']}; outputs go to {data['output']}"
        case "done":
            return f"{data['input']}: made {data['output']}" + (f", moved to {data['moved']}" if data["moved"] else "")
        case "later":
            return f"{data['input']}: {data['error']} Trying again in {data['pause_s']:.0f} s."
        case "failed":
            return f"{data['input']}: set aside: {data['error']}"
        case "known":
            return f"{data['input']}: was done as {data['was']}"
        case _:
            return f"{data['input']}: {event}"
