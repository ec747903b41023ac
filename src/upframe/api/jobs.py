"""`plan` and `run`: jobs on files, with their arguments checked."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from pathlib import Path

from upframe.api.arguments import check_callable, check_callbacks, checked_path
from upframe.errors import OptionError, UsageError
from upframe.jobs import Event, JobOptions, Plan, Report
from upframe.jobs import plan as make_plan
from upframe.jobs import run as carry_out


def plan(
    inputs: str | Path | Iterable[str | Path], output: str | Path | None = None, options: JobOptions | None = None
) -> Plan:
    """Plan a job: output names, sizes, formats, models, and every loss that headers show. Nothing is written.

    Args:
        inputs: Files, folders and patterns, one or several.
        output: A folder, or for one input a file; None puts results beside the inputs.
        options: All other options; None is the defaults.

    Returns:
        The plan: `items`, each with `input`, `output` and `size`, and `failed`, the inputs that cannot be processed.

    Raises:
        UsageError: naming the argument that does not fit.
        InputError: there is no input, or the only input is unusable.
        ModelError: the model cannot be loaded.

    Example:
        >>> import tempfile, upframe
        >>> from pathlib import Path
        >>> from PIL import Image
        >>> photo = Path(tempfile.mkdtemp()) / "photo.png"
        >>> Image.new("RGB", (30, 20)).save(photo)
        >>> upframe.plan(photo, options=upframe.JobOptions(target=upframe.Target(scale=2))).items[0].size
        (40, 60)
    """
    if isinstance(inputs, str | Path):
        inputs = [inputs]
    try:
        paths = [checked_path("inputs", path) for path in inputs]
    except TypeError:
        raise UsageError("inputs", f"is of type {type(inputs).__name__}, expected paths") from None
    if not paths:
        raise UsageError("inputs", "is empty, expected one path or more")
    if options is not None and not isinstance(options, JobOptions):
        raise OptionError("options", options, "must be an upframe.JobOptions")
    return make_plan(paths, None if output is None else checked_path("output", output), options)


def run(planned: Plan, *, on_event: Callable[[Event], None] | None = None, cancel: threading.Event | None = None) -> Report:
    """Carry out a plan. The report holds the result or error of each item; a failed item does not stop the others.

    Args:
        planned: From `plan`.
        on_event: Called with every event; docs/upscale.md lists them. An error that it raises ends the job and is raised here.
        cancel: A `threading.Event`; once it is set, `Cancelled` is raised. Finished outputs stay, and the same call resumes
            an unfinished video.

    Returns:
        The report: `of("written")`, `of("skipped")`, `of("failed")`, and `error`, None if nothing failed.

    Raises:
        Cancelled: `cancel` was set.
        UsageError: naming the argument that does not fit.

    Example:
        >>> import tempfile, upframe
        >>> from pathlib import Path
        >>> from PIL import Image
        >>> folder = Path(tempfile.mkdtemp())
        >>> Image.new("RGB", (30, 20)).save(folder / "photo.png")
        >>> report = upframe.run(upframe.plan(folder, options=upframe.JobOptions(model="photo-x2")))
        >>> [outcome.output.name for outcome in report.of("written")]
        ['photo.png']
    """
    if not isinstance(planned, Plan):
        raise UsageError("planned", f"is of type {type(planned).__name__}, expected what upframe.plan returned")
    check_callable("on_event", on_event)
    check_callbacks(None, cancel)
    return carry_out(planned, on_event=on_event, cancel=cancel)
