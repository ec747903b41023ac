"""The file form of `upscale`: a job with one input."""

from __future__ import annotations

import logging
import os
import threading
from dataclasses import replace
from pathlib import Path

from upframe.api import jobs
from upframe.api.arguments import Progress, Size, checked_name, checked_path, chosen_options
from upframe.errors import InputError, OptionError, UsageError, check_flag
from upframe.jobs.events import Event
from upframe.jobs.options import JobOptions
from upframe.models.registry import Model
from upframe.upscaling.options import Target, UpscaleOptions

log = logging.getLogger(__name__)


def upscale_path(
    x: str | Path,
    *,
    output: str | Path | None,
    overwrite: bool,
    size: Size,
    model: object,
    device: str,
    precision: str,
    options: JobOptions | UpscaleOptions | None,
    on_progress: Progress | None,
    cancel: threading.Event | None,
) -> Path:
    """Enlarge one picture or video file and return the path of the result.

    Raises:
        UpframeError: if the output cannot be made; a file that had its name before is unchanged.
    """
    source = checked_path("x", x)
    target = None if output is None else checked_path("output", output)
    if options is not None and not isinstance(options, JobOptions | UpscaleOptions):
        raise OptionError("options", options, "must be an upframe.UpscaleOptions or an upframe.JobOptions")
    check_flag("overwrite", overwrite)
    if os.path.isdir(source):  # noqa: PTH112 (Path.is_dir raises for names that are too long)
        raise UsageError("x", f"is a folder: {source}", "use upframe.plan and upframe.run for many files")
    if not os.path.exists(source):  # noqa: PTH110 (as above)
        raise InputError(source, "there is no such file", "check the path passed as x")
    job = options if isinstance(options, JobOptions) else JobOptions()
    compute = job.upscale if isinstance(options, JobOptions) else options
    used = chosen_options(compute, device, precision, model=model if isinstance(model, Model) else None)
    job = replace(job, upscale=used, overwrite=overwrite or job.overwrite)
    if model is not None:
        job = replace(job, model=_name_of(model))
    if size != Size():
        job = replace(job, target=_target(size))
    return _carried_out(source, target, job, on_progress, cancel)


def _target(size: Size) -> Target:
    if size.size is not None:
        return Target(height=size.size[0], width=size.size[1])
    return Target(size.scale, size.width, size.height, size.long_side, size.short_side, size.megapixels)


def _name_of(model: object) -> str | Path:
    """Name or path of a model for a job. Jobs keep names, so that they can be resumed."""
    if not isinstance(model, Model):
        return checked_name(model)
    if not model.source:
        advice = "enlarge pixels instead, or save the weights and load them by path"
        raise OptionError("model", model.name, "has no weights file, which a job on files needs", advice)
    return Path(model.source)


def _carried_out(
    source: Path, output: Path | None, job: JobOptions, on_progress: Progress | None, cancel: threading.Event | None
) -> Path:
    def listen(event: Event) -> None:
        if event.event == "notice":
            log.warning("%s: %s [%s]", event.input, event.data["message"], event.data["id"])
        if on_progress is not None and event.event in ("progress", "done", "skipped"):
            on_progress(float(event.data["done"]) if event.event == "progress" else 1.0)

    report = jobs.run(jobs.plan(source, output, job), on_event=listen, cancel=cancel)
    if report.error is not None:
        raise report.error
    made = report.outcomes[0].output
    assert made is not None
    return made
