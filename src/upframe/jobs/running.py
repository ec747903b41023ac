"""Carry out a plan: each item becomes a verified file or a reported failure; a bad item never stops the others."""

from __future__ import annotations

import contextlib
import itertools
import logging
import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from upframe.errors import BusyError, Cancelled, OptionError
from upframe.jobs import model_choice
from upframe.jobs.events import Event, Outcome, Report, failed_event, notice_event
from upframe.jobs.items import Item, ListenerError, Work, outcome
from upframe.jobs.options import JobOptions
from upframe.jobs.planning import Plan, plan
from upframe.jobs.runners.base import Runner
from upframe.jobs.runners.local import LocalRunner
from upframe.upscaling.options import Target

log = logging.getLogger(__name__)

BUSY_S = 0.5  # between two looks at an output that another run is making


def run(
    plan: Plan,
    *,
    on_event: Callable[[Event], None] | None = None,
    cancel: threading.Event | None = None,
    runner: Runner | None = None,
) -> Report:
    """Carry out a plan. The report holds the result or error of each item.

    Args:
        on_event: Called in this thread with every event. An error that it raises ends the job and is raised here.
        runner: Carries out pictures and segments of videos; None runs them in this process.

    Raises:
        Cancelled: if `cancel` was set; finished outputs stay, an unfinished picture leaves no file.
        UsageError, ResourceError: if the device or precision cannot be used; no item has been started then.
    """
    began = time.perf_counter()

    def tell(event: Event) -> None:
        try:
            if on_event is not None:
                on_event(event)
        except Exception as error:
            raise ListenerError(error) from error

    try:
        outcomes = _carry_out(plan, Work(runner or LocalRunner(), tell, cancel))
    except ListenerError as passed:
        raised = passed.error
    else:
        return Report(outcomes, time.perf_counter() - began)
    raise raised


def _carry_out(plan: Plan, work: Work) -> tuple[Outcome, ...]:
    try:
        if work.runner.in_process:
            _try_engines(plan)
        for failed in plan.failed:
            log.debug("%s", failed.input, exc_info=failed.error)
            work.tell(failed_event(failed.input, failed.error))
        return (*plan.failed, *_run_items(plan, work))
    finally:
        model_choice.release()


def _try_engines(plan: Plan) -> None:
    """Make the engine for pictures, so that a device or precision that cannot be used is refused before any item starts."""
    for item in plan.items:
        if item.is_unit and not item.skip:
            model_choice.engine(model_choice.network(item.model, sha256=item.model_sha256), plan.options.upscale.engine)


def _run_items(plan: Plan, work: Work) -> Iterator[Outcome]:
    """Yield the outcomes of all items and report each, in order. Consecutive items that are units go to the runner together;
    those whose output another run is making come after them."""
    for is_unit, group in itertools.groupby(plan.items, key=lambda item: item.is_unit and not item.skip):
        items, busy = list(group), []
        made = (_units if is_unit else _one_by_one)(items, plan.options, work)
        with contextlib.closing(made):
            for item, done in made:
                if isinstance(done.error, BusyError):
                    busy.append(item)
                else:
                    yield _told(done, work)
        for item in busy:
            yield _told(_awaited(item, plan.options, work), work)


_Made = Generator[tuple[Item, Outcome], None, None]


def _units(items: Sequence[Item], options: JobOptions, work: Work) -> _Made:
    tasks = _told_of(items, options, work)
    with contextlib.closing(work.runner.map(render_unit, tasks, on_frame=work.tell, cancel=work.cancel)) as results:
        yield from zip(items, results, strict=True)


def _one_by_one(items: Iterable[Item], options: JobOptions, work: Work) -> _Made:
    for item in items:
        if item.skip:
            item.tidy()
            yield item, Outcome(item.input, "skipped", output=item.output, size=item.size, model=item.model)
        else:
            _tell_start(item, work)
            yield item, outcome(item, options, work)


def _awaited(item: Item, options: JobOptions, work: Work) -> Outcome:
    """The outcome of an item whose output another run is making, once that run has made it or has ended.

    Raises:
        Cancelled: when `cancel` was set.
    """
    cancel = work.cancel or threading.Event()
    log.warning("%s: another run is making it; waiting for that", item.output)
    while True:
        done = outcome(item, options, work)
        if not isinstance(done.error, BusyError):
            return done
        if cancel.wait(BUSY_S):
            raise Cancelled(item.input, "stopped on request")


@dataclass(frozen=True)
class UnitTask:
    """One unit of work: an item and the options that it needs. It can be pickled."""

    item: Item
    options: JobOptions


def render_unit(
    task: UnitTask, *, on_frame: Callable[[Event], None] | None = None, cancel: threading.Event | None = None
) -> Outcome:
    """Render one item that is a unit of work, in any process; the outcome holds any error.

    Args:
        on_frame: Called with the events of the item.

    Raises:
        Cancelled: when `cancel` was set.
    """
    return outcome(task.item, task.options, Work(LocalRunner(), on_frame or (lambda event: None), cancel))


def _told_of(items: Iterable[Item], options: JobOptions, work: Work) -> Iterator[UnitTask]:
    """Yield tasks for a runner, and report each as it is taken."""
    for item in items:
        _tell_start(item, work)
        yield UnitTask(item, options)


def _tell_start(item: Item, work: Work) -> None:
    work.tell(Event("start", item.input, {"output": str(item.output), "size": list(item.size), "model": item.model}))
    for notice in item.notices:
        work.tell(notice_event(item.input, notice))


def _told(done: Outcome, work: Work) -> Outcome:
    if done.error is not None:
        work.tell(failed_event(done.input, done.error))
    elif done.status == "skipped":
        work.tell(Event("skipped", done.input, {"output": str(done.output)}))
    else:
        size = list(done.size or ())
        data: dict[str, Any] = {"output": str(done.output), "size": size, "seconds": round(done.seconds, 3)}
        data |= {"engine": done.engine, "precision": done.precision, "ledger": done.ledger.rows()}
        work.tell(Event("done", done.input, data))
    return done


def upscale_file(
    source: str | Path, output: str | Path | None = None, *, options: JobOptions | None = None, **target: Any
) -> Outcome:
    """Enlarge one file, as `upframe upscale` does.

    Args:
        output: File to write; None derives a name beside the input.
        target: Fields of `Target`, for instance `scale=2`.

    Raises:
        UpframeError: if the output cannot be made.

    Example:
        >>> upscale_file("photo.jpg", scale=2).output  # doctest: +SKIP
        PosixPath('photo_photo_x2.jpg')
    """
    chosen = options or JobOptions()
    for name, value in target.items():
        if name not in Target.__dataclass_fields__:
            raise OptionError(name, value, "is no way to state a size", f"use one of {', '.join(Target.__dataclass_fields__)}")
    if target:
        chosen = replace(chosen, target=replace(chosen.target, **target))
    report = run(plan([source], output, chosen))
    if report.error is not None:
        raise report.error
    return report.outcomes[0]
