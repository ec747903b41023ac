"""`upframe upscale`."""

from __future__ import annotations

import contextlib
import gc
import json
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from upframe.cli.flags import worded_error
from upframe.cli.help import HelpPage
from upframe.cli.output import SHOWN_AS, print_line
from upframe.cli.parser import (
    COMMON,
    COMPUTE,
    EXAMPLES,
    FILES,
    INPUT,
    MORE_HELP,
    OUTPUT,
    PIPE,
    Computing,
    Files,
    Reporting,
    Size,
    Sources,
    Video,
    app,
    device_name,
    tile_size,
)
from upframe.cli.stopping import Stop, stoppable
from upframe.errors import Cancelled, UsageError

if TYPE_CHECKING:
    from upframe.jobs import JobOptions, Report, Task, UpscaleOptions


DOING: dict[Task, str] = {
    "upscale": "upscaling",
    "deblur": "deblurring",
    "denoise": "denoising",
    "interpolate": "interpolating",
}
"""The word for the main stage of a command."""


@app.command(
    group=FILES,
    sort_key=0,
    help_formatter=HelpPage("upframe [upscale] [INPUT]… [OPTIONS]", EXAMPLES, COMMON),
    help_epilogue=MORE_HELP,
)
def upscale(
    inputs: Annotated[list[str] | None, Parameter(group=INPUT)] = None,
    /,
    *,
    files: Files = Files(),
    model: Annotated[str | None, Parameter(alias=["-m", "-n", "--model-name"], group=COMPUTE)] = None,
    size: Size = Size(),
    computing: Computing = Computing(),
    quality: Annotated[int | None, Parameter(group=OUTPUT)] = None,
    first_frame: Annotated[bool, Parameter(negative="", group=INPUT)] = False,
    max_pixels: Annotated[int | None, Parameter(group=INPUT)] = None,
    video: Video = Video(),
    reporting: Reporting = Reporting(),
    sources: Sources = Sources(),
) -> int:
    """Enlarge pictures and videos.

    An output beside its input is called {stem}_{model}_x{scale}. In an output folder it keeps its name, and so do the files of
    an input folder, whose output folder is FOLDER_upscaled unless -o names one. Nothing is overwritten without -y. Outputs that
    exist already and verify are skipped.

    Args:
        inputs: Files, folders or quoted patterns; - is standard input.
        model: Name (see `upframe models list`) or weights file. [default: the shipped photo model]
        quality: 1 to 100, for lossy formats. [default: 95, AVIF 90]
        first_frame: Read only the first frame or page.
        max_pixels: Refuse larger input pictures. [default: 500000000]
    """
    return carry_out(
        inputs,
        files,
        reporting,
        model=model,
        size=size,
        computing=computing,
        quality=quality,
        first_frame=first_frame,
        max_pixels=max_pixels,
        video=video,
    )


def carry_out(inputs: list[str] | None, files: Files, reporting: Reporting, **chosen: Any) -> int:
    """Plan and run what a command asks for, and return the exit code.

    Args:
        chosen: What `_job_options` takes.
    """
    reporting.start()
    from upframe.jobs import check_address_space

    check_address_space()
    with _without_collections():
        from upframe.jobs import keep_freed_memory, plan, run
    from upframe.cli.dry_run import show_plan, show_sources
    from upframe.cli.progress import display

    keep_freed_memory()
    options = _job_options(files, **chosen)
    everything = [*(inputs or []), *(files.input or [])]
    if not everything:
        raise UsageError(options.task, "no input is given", f"name files or folders; see upframe {options.task} --help")
    with _piped(everything, files.output, as_json=reporting.json) as (paths, place):
        planned = plan(paths, place, options)
        if files.dry_run:
            show_sources(as_json=reporting.json)
            show_plan(planned, inputs=everything, output=files.output, as_json=reporting.json)
            return 8 if planned.failed else 0
        with stoppable() as cancel, display(reporting, planned, doing=DOING[options.task]) as show:
            report = run(planned, on_event=show, cancel=cancel)
        if cancel.is_set():  # too late to change anything, but whoever asked must see that it was heard
            return Stop.code or Cancelled.exit_code
        code = 0 if report.error is None else report.error.exit_code
        if reporting.json:
            _print_json_summary(report, code)
        return code


@contextlib.contextmanager
def _without_collections() -> Iterator[None]:
    """For imports: torch makes hundreds of thousands of objects that stay. Looking through them for some that could go takes
    0.64 of the 2.38 s of CPU that a photo of 256x256 pixels needs (medians of 9 runs in turns). Does nothing where they are
    imported already, or nothing is collected anyway."""
    if "upframe.jobs.running" in sys.modules or not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()  # nor are they looked through later
        gc.enable()


@contextlib.contextmanager
def _piped(inputs: list[str], output: Path | None, *, as_json: bool) -> Iterator[tuple[list[str], Path | None]]:
    """`inputs` and `output` with `-` replaced by files in a private folder: codecs seek, and verification reads back.

    Standard input is read to its end first. On a clean exit what was made is copied to standard output, where nothing
    else is printed meanwhile.
    """
    to_stdout = str(output) == PIPE
    if PIPE not in inputs and not to_stdout:
        yield inputs, output
        return
    if PIPE in inputs and output is None:
        raise UsageError("-", "is standard input, and no output is given", "add -o FILE, or -o - for standard output")
    if to_stdout and (len(inputs) > 1 or Path(inputs[0]).is_dir() or as_json or sys.stdout.isatty()):
        raise UsageError("-o -", "takes one picture, no --json, and needs standard output to be a file or pipe")
    from upframe.files import scratch_folder

    with scratch_folder() as folder:
        _show_as_streams(folder)
        if PIPE in inputs:
            with Path(folder, "stdin").open("wb") as file:
                shutil.copyfileobj(sys.stdin.buffer, file)
        files = [str(Path(folder, "stdin")) if given == PIPE else given for given in inputs]
        if not to_stdout:
            yield files, output
            return
        made = Path(folder, "made")
        made.mkdir()
        with contextlib.redirect_stdout(sys.stderr):
            yield files, made
        if len(results := list(made.iterdir())) > 1:
            raise UsageError("-o -", f"{inputs[0]} means {len(results)} pictures", "give a folder instead")
        for path in results:
            with path.open("rb") as file:
                shutil.copyfileobj(file, sys.stdout.buffer)


def _show_as_streams(folder: Path) -> None:
    """Show the private files of `_piped` as what they stand for. The names last as long as the process: errors are shown at its
    end."""
    SHOWN_AS.clear()
    SHOWN_AS[re.escape(str(folder / "stdin"))] = "standard input"
    SHOWN_AS[re.escape(str(folder / "made")) + r"(/[^\s:]+)?"] = "standard output"


def _job_options(
    files: Files,
    *,
    model: str | None,
    computing: Computing,
    video: Video,
    size: Size = Size(),
    task: Task = "upscale",
    sigma: float | None = None,
    quality: int | None = None,
    first_frame: bool = False,
    max_pixels: int | None = None,
) -> JobOptions:
    from upframe.jobs import JobOptions, Limits

    return JobOptions(
        model=model,
        task=task,
        target=size.target(),
        upscale=_upscale_options(computing, video, sigma),
        limits=Limits() if max_pixels is None else Limits(max_pixels=max_pixels),
        format=files.format,
        quality=quality,
        name=files.template(),
        overwrite=files.overwrite,
        recursive=files.recursive,
        include=tuple(files.include or ()),
        exclude=tuple(files.exclude or ()),
        allow_truncated=files.allow_truncated,
        first_frame=first_frame,
        strict=files.strict,
        video=video.options(allow_truncated=files.allow_truncated),
        as_clip=video.clip,
    )


def _upscale_options(computing: Computing, video: Video, sigma: float | None) -> UpscaleOptions:
    from upframe.jobs import UpscaleOptions, engine_options

    return UpscaleOptions(
        tile=tile_size(computing.tile),
        halo=computing.halo,
        blend=computing.overlap,
        engine=engine_options(
            computing.engine,
            device=device_name(computing.device),
            precision=computing.number_format(),
            threads=computing.threads,
        ),
        window=video.window,
        sigma=sigma,
        as_published=video.as_published,
    )


def _print_json_summary(report: Report, code: int) -> None:
    written, skipped, failed = (len(report.of(s)) for s in ("written", "skipped", "failed"))
    rows = [
        {
            "input": str(o.input),
            "status": o.status,
            "output": None if o.output is None else str(o.output),
            "error": None if o.error is None else str(worded_error(o.error)),
            "notices": [n.id for n in o.notices],
            "ledger": o.ledger.rows(),
        }
        for o in report.outcomes
    ]
    counts = {"written": written, "skipped": skipped, "failed": failed}
    print_line(
        json.dumps({"event": "summary", "exit_code": code, **counts, "seconds": round(report.seconds, 3), "items": rows})
    )
