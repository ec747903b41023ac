"""`train`: run or resume a recipe."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from upframe.api.arguments import check_callable, check_callbacks, checked_path
from upframe.errors import OptionError, check_flag, check_whole
from upframe.machine import pick_device
from upframe.training.loop import train as loop
from upframe.training.loop.report import Progress
from upframe.training.loop.run_folder import LAST
from upframe.training.loop.validation import HeldOut, validator
from upframe.training.recipes.recipe import Recipe, model_spec
from upframe.training.recipes.registry import find_recipe


def train(
    recipe: str,
    *,
    data: str | Path,
    out: str | Path,
    changes: Mapping[str, object] | None = None,
    data_lq: str | Path | None = None,
    cache: str | Path | None = None,
    validate_on: str | Path | None = None,
    datasets: Sequence[str] | None = None,
    until: str | None = None,
    stop_after: int | None = None,
    device: str = "auto",
    threads: int | None = None,
    workers: int = 1,
    tensorboard: bool = False,
    on_progress: Callable[[Progress], None] | None = None,
    on_event: Callable[[Mapping[str, Any]], None] | None = None,
    cancel: threading.Event | None = None,
) -> Path:
    """Train a network by a recipe and return its weights file. The same call resumes an interrupted run exactly.

    Args:
        recipe: Name of a recipe; docs/training.md lists them.
        data: Folder of photographs, of clips or of videos.
        out: Folder of the run: checkpoints, log and resolved recipe.
        changes: Fields of the recipe to change: `{"steps": 500}`, with dots for inner ones.
        data_lq: Folder of inputs, for recipes that train on pairs.
        cache: Folder for decoded videos.
        validate_on: Folder of test sets for scores during training, as for `evaluate`.
        datasets: Only these sets of it; not for clips.
        until: Name of the stage to stop after.
        stop_after: Return after this step of the run, leaving a checkpoint.
        device: "auto", "cpu", "cuda", "cuda:N" or "mps".
        threads: CPU threads of torch.
        workers: Threads that make samples.
        tensorboard: Whether to write curves for TensorBoard into `out`.
        on_progress: Called with every report: step, loss, learning rate, speed.
        on_event: Called with notices and validations.
        cancel: A `threading.Event`; once it is set, a checkpoint is written and `Cancelled` raised.

    Returns:
        The last checkpoint, which `load` and `upscale` take as a model.

    Raises:
        UsageError: naming the argument that does not fit, or when `out` holds a run of another recipe.
        InputError: the data cannot be used.

    Example:
        >>> import tempfile, numpy as np, upframe
        >>> from pathlib import Path
        >>> from PIL import Image
        >>> folder = Path(tempfile.mkdtemp())
        >>> for number in range(2):
        ...     noise = np.random.default_rng(number).integers(0, 255, (64, 64, 3), np.uint8)
        ...     Image.fromarray(noise).save(folder / f"{number}.png")
        >>> weights = upframe.train("toy-rlfn", data=folder, out=folder / "run", changes={"steps": 2}, device="cpu")
        >>> upframe.load(weights).scale
        2
    """
    chosen = _recipe(recipe, changes)
    check_callbacks(on_progress, cancel)
    check_callable("on_event", on_event)
    for name, number, least in (("threads", threads, 1), ("stop_after", stop_after, 1), ("workers", workers, 0)):
        if number is not None:
            check_whole(name, number, least=least)
    check_flag("tensorboard", tensorboard)
    if not isinstance(device, str):
        raise OptionError("device", device, 'must be "auto", "cpu", "cuda", "cuda:N" or "mps"')
    pick_device(device)
    if until is not None and until not in (stages := [stage.name for stage in chosen.stages]):
        raise OptionError("until", until, f"is no stage of {chosen.name}", f"use one of {', '.join(stages)}")
    folder = checked_path("out", out)
    lq, kept = (None if p is None else checked_path(n, p) for n, p in (("data_lq", data_lq), ("cache", cache)))
    loop.train(
        chosen,
        data=loop.DataPaths(checked_path("data", data), lq, kept),
        out=folder,
        on_progress=on_progress,
        on_event=on_event,
        device=device,
        threads=threads,
        workers=workers,
        until=until,
        stop_after=stop_after,
        tensorboard=tensorboard,
        cancel=cancel,
        **_checks(chosen, validate_on, datasets, device=device, out=folder),
    )
    return folder / LAST


def _recipe(name: object, changes: object) -> Recipe:
    if not isinstance(name, str):
        raise OptionError("recipe", name, "must be the name of a recipe")
    if changes is not None and not isinstance(changes, Mapping):
        raise OptionError("changes", changes, 'must be a dict such as {"steps": 500}')
    return find_recipe(name).override({str(field): str(value) for field, value in (changes or {}).items()})


def _checks(
    recipe: Recipe, data: str | Path | None, datasets: Sequence[str] | None, *, device: str, out: Path
) -> dict[str, Any]:
    """Make the loop's arguments for scoring, and for the pictures that must not be in the training data."""
    if data is None:
        if datasets is not None:
            raise OptionError("datasets", datasets, "names sets of validate_on, which is not given", "pass validate_on")
        return {}
    folder = checked_path("validate_on", data)
    if isinstance(datasets, str):
        raise OptionError("datasets", datasets, "must be a list of names")
    if recipe.protocol is None:
        raise OptionError("validate_on", folder, f"{recipe.name} has no protocol to score by", "remove this argument")
    sets = None if datasets is None else list(datasets)
    return {
        "validate": validator(folder, protocol=recipe.protocol, datasets=sets, device=device, sheets=out / "validation"),
        "held_out": HeldOut(folder, model_spec(recipe).scale, recipe.protocol, sets),
    }
