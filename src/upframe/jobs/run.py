"""From what the user typed to files on disk: plan, run, report.

Planning touches headers only. It decides every output name, size and format, and finds every loss that can be known, so
that a bad flag or a name clash stops the run before any pixel is computed. Running then turns each item into a verified
file or a named failure; one bad item never stops the others.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from upframe.engines import is_out_of_memory
from upframe.errors import (
    Cancelled,
    InputError,
    Notice,
    OutputError,
    ResourceError,
    UpframeError,
)
from upframe.files import check_room
from upframe.jobs.events import Event, Report, error_data
from upframe.jobs.items import FilmItem, Item, Outcome
from upframe.jobs.options import JobOptions
from upframe.jobs.plan import Plan, estimated_file_bytes, estimated_memory_bytes, open_image, plan, plan_row
from upframe.jobs.video import plan as film_plan
from upframe.jobs.video.render import FilmProgress
from upframe.jobs.video.render import render as render_film
from upframe.jobs.video.workspace import remove_leftover
from upframe.media.image.files import ImageSink
from upframe.models.registry import Model
from upframe.models.spec import Precision
from upframe.upscaling.images import Upscaler

__all__ = [
    "Event",
    "FilmItem",
    "Item",
    "JobOptions",
    "Outcome",
    "Plan",
    "Report",
    "error_data",
    "estimated_file_bytes",
    "estimated_memory_bytes",
    "plan",
    "plan_row",
    "render",
    "run",
    "upscale_file",
]

log = logging.getLogger(__name__)

STAGE_PROGRESS_S = 1.0  # how often a film that is read or checked says so


def run(
    planned: Plan,
    options: JobOptions,
    *,
    on_event: Callable[[Event], None] | None = None,
    cancel: threading.Event | None = None,
) -> Report:
    """Carry out a plan. Whatever happens to a single item is in the report.

    Raises:
        Cancelled: when `cancel` was set; finished outputs stay, the one at hand leaves nothing.
        UsageError, ResourceError: for a device or precision that cannot be used; nothing was done then.
    """
    began = time.perf_counter()
    tell = on_event or (lambda event: None)
    outcomes = list(planned.failed)
    with contextlib.ExitStack() as stack:
        upscalers = planned.upscalers(options.upscale, cancel=cancel)
        for up in upscalers.values():
            stack.enter_context(up)
        for failed in planned.failed:
            log.debug("%s", failed.input, exc_info=failed.error)
            tell(Event("failed", failed.input, error_data(failed.error)))
        for item in planned.items:
            if isinstance(item, Item):
                make = partial(render, item, upscalers[item.model], options, tell)
            else:
                make = partial(_render_film, item, planned.models[item.model], options, tell, cancel)
            outcomes.append(_run_item(item, make, tell))
    return Report(tuple(outcomes), time.perf_counter() - began)


def _run_item(item: Item | FilmItem, make: Callable[[], Made], tell: Callable[[Event], None]) -> Outcome:
    if item.skip:
        if isinstance(item, FilmItem):
            remove_leftover(item.output)
        tell(Event("skipped", item.input, {"output": str(item.output)}))
        return Outcome(item.input, "skipped", output=item.output, size=item.size, model=item.model)
    start = time.perf_counter()
    tell(Event("start", item.input, {"output": str(item.output), "size": list(item.size), "model": item.model}))
    for notice in item.notices:
        tell(Event("notice", item.input, {"id": notice.id, "message": notice.message}))
    failure: UpframeError
    try:
        made = make()
    except (Cancelled, BrokenPipeError):  # the user's wish, or nobody listens to us any more
        raise
    except UpframeError as error:
        failure = error
    except Exception as error:
        if is_out_of_memory(error):
            failure = ResourceError(
                item.input, "memory ran out", "close other programs, or write PNG or TIFF, which are streamed"
            )
        else:  # a bug of ours must not cost the user the rest of the batch; it is reported as one
            happened = f"internal error ({type(error).__name__}: {error})"
            failure = UpframeError(item.input, happened, "run again with --debug and report it")
        failure.__cause__ = error
    else:
        seconds = time.perf_counter() - start
        done = {"output": str(item.output), "size": list(item.size), "seconds": round(seconds, 3)}
        tell(Event("done", item.input, {**done, "engine": made.engine, "precision": made.precision}))
        notices = item.notices + made.notices
        return Outcome(
            item.input, "written", item.output, None, notices, seconds, item.size, item.model, made.engine, made.precision
        )
    log.debug("%s", item.input, exc_info=failure)
    tell(Event("failed", item.input, error_data(failure)))
    return Outcome(item.input, "failed", error=failure, notices=item.notices)


@dataclass(frozen=True)
class Made:
    """How an output came about."""

    engine: str
    """As `--engine` calls it."""
    precision: Precision
    notices: tuple[Notice, ...]
    """Those that only came up on the way."""


def render(item: Item, up: Upscaler, options: JobOptions, tell: Callable[[Event], None]) -> Made:
    """Make one output file.

    Raises:
        UpframeError: of any kind; nothing is left at the output's name that was not there before.
    """
    up.notices.clear()
    check_room(item.output, estimated_file_bytes(item))
    with open_image(item.input, options) as source, _folder(item.output.parent):
        if source.info != item.info:
            raise InputError(item.input, "changed while reading (since it was planned)", "run it again")
        sink = ImageSink(
            item.output,
            item.plan,
            source.metadata,
            frames=item.frames,
            animated=item.info.animated,
            quality=options.quality,
        )
        with sink:
            for number, frame in enumerate(source):
                up.on_tile = partial(_tell_progress, tell, item, number)
                # Pages of a document may differ in size; the target is applied to each.
                height, width = frame.pixels.shape[:2]
                size = options.target.size_for((height, width), native=item.native)
                bands = up.bands(frame.pixels, size=size, dtype=item.plan.dtype, subject=str(item.input))
                sink.write(bands, size, time=frame.time, duration=frame.duration)
            late = tuple(n for n in (*source.notices, *up.notices) if n not in item.notices)
            for notice in late:
                tell(Event("notice", item.input, {"id": notice.id, "message": notice.message}))
                if options.strict:
                    raise notice.as_error()
    return Made(up.engine.name, up.engine.precision, late)


def _render_film(
    item: FilmItem,
    model: Model,
    options: JobOptions,
    tell: Callable[[Event], None],
    cancel: threading.Event | None,
) -> Made:
    """Make a film's output."""
    check_room(item.output, film_plan.estimated_room_bytes(item.film, options.film))
    told = 0.0

    def progress(at: FilmProgress) -> None:
        nonlocal told
        if at.stage != "upscaling":  # a thousand frames a second: tell of some
            if time.monotonic() - told < STAGE_PROGRESS_S:
                return
            told = time.monotonic()
        rate, share = round(at.frames_per_s, 3), {"reading": 0.0, "upscaling": at.frame / at.frames, "checking": 1.0}
        data = {"done": round(share[at.stage], 4), "stage": at.stage, "frame": at.frame, "frames": at.frames}
        tell(Event("progress", item.input, {**data, "frames_per_s": rate}))

    def notice(late: Notice) -> None:
        if late in item.notices:
            return
        tell(Event("notice", item.input, {"id": late.id, "message": late.message}))
        if options.strict:
            raise late.as_error()

    with _folder(item.output.parent):
        report = render_film(
            item.film, model, options.upscale, options.film, on_progress=progress, on_notice=notice, cancel=cancel
        )
    data = {
        "frames": report.frames,
        "frames_resumed": report.resumed,
        "segments": report.segments,
        "cleaning_passes": list(report.cleaning_passes),
        "tiles_reused": round(report.tiles_reused, 4),
        "margins_repeated": round(report.margins_repeated, 4),
    }
    tell(Event("film", item.input, data))
    return Made(report.engine, report.precision, tuple(n for n in report.notices if n not in item.notices))


@contextlib.contextmanager
def _folder(folder: Path) -> Iterator[None]:
    """`folder`, made with its parents; those that were made are removed again if nothing comes of it.

    Raises:
        OutputError: if it cannot be made.
    """
    made: list[Path] = []
    try:
        for one in (*reversed(folder.parents), folder):
            if not one.is_dir():
                one.mkdir(exist_ok=True)
                made.append(one)
    except OSError as error:
        raise OutputError(folder, f"cannot be made ({error.strerror})", "choose another output folder") from error
    try:
        yield
    except BaseException:
        with contextlib.suppress(OSError):  # another item's output is in it by now
            for one in reversed(made):
                one.rmdir()
        raise


def _tell_progress(tell: Callable[[Event], None], item: Item, frame: int, done: int, total: int) -> None:
    tell(Event("progress", item.input, {"done": round((frame + done / total) / item.frames, 4)}))


def upscale_file(
    source: str | Path, output: str | Path | None = None, *, options: JobOptions | None = None, **target: Any
) -> Outcome:
    """Enlarge one image file; the Python form of `upframe upscale`.

    Args:
        output: File to write; None derives a name beside the input.
        target: Fields of `Target`, for instance `scale=2`.

    Raises:
        UpframeError: when the output could not be made.

    Example:
        >>> upscale_file("photo.jpg", scale=2).output  # doctest: +SKIP
        PosixPath('photo_photo_x2.jpg')
    """
    chosen = options or JobOptions()
    if target:
        chosen = replace(chosen, target=replace(chosen.target, **target))
    report = run(plan([source], None if output is None else Path(output), chosen), chosen)
    if report.error is not None:
        raise report.error
    return report.outcomes[0]
