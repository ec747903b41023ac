"""`upframe train` and `upframe train plot`."""

from __future__ import annotations

import contextlib
import json
import os
import re
import sys
import textwrap
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Protocol

from cyclopts import App, Parameter

from upframe.cli import terminal, wording
from upframe.cli.help import HelpPage
from upframe.cli.output import print_line
from upframe.cli.parser import TRAINING, Reporting, app, device_name
from upframe.cli.stopping import stoppable
from upframe.errors import UsageError, one_line

if TYPE_CHECKING:
    from upframe.training.loop.report import Progress as TrainingProgress
    from upframe.training.recipes.recipe import Recipe

train_app = App(
    name="train",
    help="Train a network by a recipe; `upframe train list` lists the recipes.",
    group=TRAINING,
    help_epilogue="",
    help_formatter=HelpPage(),
)
app.command(train_app)


@train_app.default
def train(
    recipe: str,
    *,
    data: Path,
    out: Annotated[Path, Parameter(alias="-o")],
    set: Annotated[list[str] | None, Parameter(negative="")] = None,
    data_lq: Path | None = None,
    cache: Path | None = None,
    validate_on: Path | None = None,
    datasets: Annotated[list[str] | None, Parameter(negative="", consume_multiple=True)] = None,
    until: str | None = None,
    device: Annotated[str, Parameter(alias=["-d", "-g", "--gpu-id"], allow_leading_hyphen=True)] = "auto",
    threads: int | None = None,
    workers: int = 2,
    worker_kind: Literal["thread", "process"] = "thread",
    tensorboard: Annotated[bool, Parameter(negative="")] = False,
    reporting: Reporting = Reporting(),
) -> int:
    """Train a network on a folder of photographs or clips; the same command again goes on where it stopped.

    Several GPUs or machines: torchrun --nproc-per-node N -m upframe train … An interruption leaves a checkpoint and exits with
    130 (Ctrl-C) or 143 (terminated).

    Args:
        recipe: Name of a recipe; `upframe train list` lists them.
        data: Folder of photographs, of clips or of videos.
        out: Folder of the run: checkpoints, log and resolved recipe.
        set: Change a field of the recipe: --set steps=500.
        data_lq: Folder of inputs, for recipes that are trained on pairs.
        cache: Where videos are kept decoded.
        validate_on: Folder of test sets to score on, as `upframe evaluate` takes it.
        datasets: Only these sets of it; not for clips.
        until: Stop after this stage.
        device: auto, cpu, cuda, cuda:N or mps.
        threads: CPU threads of the network in each process.
        workers: Threads or processes that make samples, in each process.
        worker_kind: thread shares pictures in memory; process is for data that keep Python busy.
        tensorboard: Also write curves for TensorBoard into the run's folder.
    """
    reporting.start()
    for flag, number, least in (("--threads", threads, 1), ("--workers", workers, 0)):
        if number is not None and number < least:
            raise UsageError(f"{flag} {number}", f"must be {least} or more")
    from upframe.machine import check_address_space

    check_address_space()
    from upframe.engines import keep_freed_memory
    from upframe.training.loop.distributed import FirstProcessError
    from upframe.training.loop.train import DataPaths
    from upframe.training.loop.train import train as run_training
    from upframe.training.recipes.registry import find_recipe

    keep_freed_memory()
    chosen = find_recipe(recipe).override(_assignments(set or []))
    checks = {} if validate_on is None else _checks(chosen, validate_on, datasets, device=device_name(device), out=out)
    with stoppable(patiently="after this step") as cancel, _training_display(reporting, chosen.steps) as display:
        try:
            state = run_training(
                chosen,
                data=DataPaths(data, data_lq, cache),
                out=out,
                on_progress=display.progress,
                on_event=display.event,
                device=device_name(device),
                threads=threads,
                workers=workers,
                worker_kind=worker_kind,
                until=until,
                tensorboard=tensorboard,
                cancel=cancel,
                **checks,
            )
        except FirstProcessError as error:
            return error.exit_code  # the first process says what happened, once
    if not (reporting.quiet or reporting.json) and os.environ.get("RANK", "0") == "0":  # of all processes the first one
        print_line(f"trained to step {state.step} of {chosen.steps}: {one_line(str(out / 'last.pth'))}")
    return 0


@train_app.command(name="list")
def train_list(*, reporting: Reporting = Reporting()) -> int:
    """List the recipes by the network they train."""
    reporting.start()
    from upframe.training.recipes.registry import RECIPES

    facts = {name: (_group_of(make), _first_sentence(make)) for name, make in RECIPES.items()}
    if reporting.json:
        for name, (group, text) in facts.items():
            print_line(json.dumps({"name": name, "group": group, "summary": text}))
        return 0
    is_terminal = sys.stdout is not None and sys.stdout.isatty()
    for line in recipe_lines(facts, width=terminal.columns(sys.stdout) if is_terminal else None):
        print_line(line)
    return 0


def recipe_lines(facts: Mapping[str, tuple[str, str]], *, width: int | None = None) -> list[str]:
    """Recipes under headings.

    Args:
        facts: Heading and summary by name.
        width: Columns of the terminal, at which summaries are broken; None for no limit.
    """
    indent = max(map(len, facts)) + 4
    lines: list[str] = []
    for group in dict.fromkeys(group for group, _ in facts.values()):
        lines += ["", group] if lines else [group]
        for name, (of, text) in facts.items():
            if of == group:
                body = textwrap.wrap(text, width - indent) if width is not None else [text]
                lines += [f"  {name.ljust(indent - 2)}{body[0]}", *(" " * indent + more for more in body[1:])]
    return lines


def _group_of(make: Callable[[], Recipe]) -> str:
    """The heading of a recipe: that of its module."""
    from upframe.training.recipes.registry import HEADINGS

    return HEADINGS[make.__module__.rpartition(".")[2]]


def _first_sentence(make: Callable[[], Recipe]) -> str:
    paragraph = " ".join((make.__doc__ or "").strip().split("\n\n")[0].split())
    return re.split(r"(?<=[^.]{3}\.) (?=[A-Z0-9])", paragraph)[0].replace("`", "")


@train_app.command
def plot(
    runs: Annotated[list[Path], Parameter(consume_multiple=True)],
    *,
    out: Annotated[Path | None, Parameter(alias="-o")] = None,
    metric: str = "psnr",
) -> int:
    """Draw loss, validation scores and learning rate of one or more runs into a picture.

    Args:
        runs: Folders of runs; several are drawn into the same charts.
        out: The picture; curves.png in the first run's folder otherwise.
        metric: Which score of the validations.
    """
    from upframe.training.loop.plot import plot as draw

    target = out if out is not None else runs[0] / "curves.png"
    draw(runs, target, metric=metric)
    print_line(f"{one_line(str(target))}")
    return 0


def _assignments(texts: list[str]) -> dict[str, str]:
    pairs = [text.partition("=") for text in texts]
    for field, equals, _ in pairs:
        if not equals:
            raise UsageError(f"--set {field}", "has no value", "write --set field=value")
    return {field: value for field, _, value in pairs}


def _checks(recipe: Recipe, data: Path, datasets: list[str] | None, *, device: str, out: Path) -> dict[str, Any]:
    """Build the validation of a run, and the check that no test picture is among its data."""
    from upframe.training.loop.validation import HeldOut, validator
    from upframe.training.recipes.recipe import model_spec

    if recipe.protocol is None:
        raise UsageError("--validate-on", f"{recipe.name} has no protocol to score by", "leave it out")
    protocol = recipe.protocol
    return {
        "validate": validator(data, protocol=protocol, datasets=datasets, device=device, sheets=out / "validation"),
        "held_out": HeldOut(data, model_spec(recipe).scale, protocol, datasets),
    }


# Display --------------------------------------------------------------------------------------------------------------
class _Display(Protocol):
    def progress(self, report: TrainingProgress) -> None: ...

    def event(self, row: Mapping[str, Any]) -> None: ...


@contextlib.contextmanager
def _training_display(reporting: Reporting, steps: int) -> Iterator[_Display]:
    """JSON lines, a live bar on a terminal, lines elsewhere, or nothing."""
    if reporting.json:
        yield _JsonLines()
    elif reporting.quiet:
        yield _Lines(lambda text: None, progress=False)
    elif reporting.progress and terminal.is_terminal(sys.stderr):
        with _live_bar(steps) as display:
            yield display
    else:
        yield _Lines(print_line, progress=reporting.progress)


class _JsonLines:
    def progress(self, report: TrainingProgress) -> None:
        from upframe.training.loop.report import as_row

        self._show({"event": "training", **as_row(report)})

    def event(self, row: Mapping[str, Any]) -> None:
        self._show({"event": "notice" if "notice" in row else "validation", **row})

    def _show(self, row: Mapping[str, Any]) -> None:
        from upframe.training.loop.run_folder import finite

        print_line(json.dumps(finite(row), allow_nan=False))


class _Lines:
    def __init__(self, show: Callable[[str], None], *, progress: bool) -> None:
        self._show, self._progress = show, progress

    def progress(self, report: TrainingProgress) -> None:
        if self._progress:
            self._show(f"step {report.step}/{report.steps}  {_numbers(report)}  {wording.about(report.seconds_left)} left")

    def event(self, row: Mapping[str, Any]) -> None:
        if "validation" in row:
            self._show(f"step {row['step']}  {_scores(row['validation'])}")


@contextlib.contextmanager
def _live_bar(steps: int) -> Iterator[_Display]:
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (BarColumn(), TextColumn("{task.completed}/{task.total}  {task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("starting", total=steps)

        class Live:
            def progress(self, report: TrainingProgress) -> None:
                text = f"{_numbers(report)}  {wording.about(report.seconds_left)} left"
                bar.update(task, completed=report.step, total=report.steps, description=escape(text))

            def event(self, row: Mapping[str, Any]) -> None:
                if "validation" in row:
                    bar.console.print(escape(f"step {row['step']}  {_scores(row['validation'])}"), highlight=False)

        yield Live()


def _numbers(report: TrainingProgress) -> str:
    return (
        f"loss {report.loss:.5f}  rate {report.learning_rate:.2e}  "
        f"{report.images_per_s:.3g} images/s  waiting {report.waiting:.0%}"
    )


def _scores(scores: Mapping[str, Mapping[str, float]]) -> str:
    return "  ".join(f"{name}: {', '.join(f'{m} {value:.4f}' for m, value in found.items())}" for name, found in scores.items())
