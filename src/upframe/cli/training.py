"""`upframe train`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from upframe.cli.output import print_line
from upframe.cli.parser import (
    Reporting,
    app,
)
from upframe.errors import UsageError

if TYPE_CHECKING:
    from upframe.training.loop import Progress as TrainingProgress


@app.command
def train(
    recipe: str,
    *,
    data: Path,
    out: Annotated[Path, Parameter(alias="-o")],
    set: Annotated[list[str] | None, Parameter(negative="")] = None,
    validate_on: Path | None = None,
    datasets: Annotated[list[str] | None, Parameter(negative="", consume_multiple=True)] = None,
    threads: int | None = None,
    reporting: Reporting = Reporting(),
) -> int:
    """Train a network on a folder of photographs; the same command again goes on where it stopped.

    Args:
        recipe: Name of a recipe: photo-x2 or photo-x4.
        data: Folder of photographs.
        out: Folder of the run: checkpoints, log and resolved recipe.
        set: Change a field of the recipe: --set steps=500.
        validate_on: Folder of test sets to score on, as `upframe evaluate` takes it.
        datasets: Only these sets of it.
        threads: CPU threads.
    """
    reporting.start()
    from upframe.engines import keep_freed_memory
    from upframe.models import MODELS
    from upframe.training.loop import train as run_training
    from upframe.training.recipes import find_recipe
    from upframe.training.validation import held_out_pictures, validator

    keep_freed_memory()
    pairs = [assignment.partition("=") for assignment in set or []]
    for field, equals, _ in pairs:
        if not equals:
            raise UsageError(f"--set {field}", "has no value", "write --set field=value")
    chosen = find_recipe(recipe).override({field: value for field, _, value in pairs})
    check, held_out = None, None
    if validate_on is not None:
        check = validator(validate_on, datasets=datasets)
        held_out = held_out_pictures(validate_on, scale=MODELS[chosen.model].scale, datasets=datasets)
    show = _training_display(reporting)
    run_training(chosen, data=data, out=out, validate=check, held_out=held_out, on_progress=show, threads=threads)
    return 0


def _training_display(reporting: Reporting) -> Any:
    def show(progress: TrainingProgress) -> None:
        if reporting.json:
            print_line(json.dumps({"event": "training", **vars(progress)}))
        elif not reporting.quiet:
            left = (progress.steps - progress.step) * progress.batch / progress.images_per_s
            print_line(
                f"step {progress.step}/{progress.steps}  loss {progress.loss:.5f}  rate {progress.learning_rate:.2e}  "
                f"{progress.images_per_s:.0f} images/s  waiting {progress.waiting:.0%}  {left / 60:.0f} min left"
            )

    return show
