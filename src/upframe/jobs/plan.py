"""The plan of a job: its inputs and outputs, names, sizes, formats, models, and every loss that headers tell.

Planning reads headers only, so that a bad flag or a name clash stops a job before any pixel is computed.
"""

from __future__ import annotations

import contextlib
import re
import threading
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from upframe.errors import (
    InputError,
    Notice,
    OutputError,
    UpframeError,
    UsageError,
)
from upframe.jobs import naming
from upframe.jobs.items import Film, FilmItem, Item, Outcome
from upframe.jobs.naming import Found
from upframe.jobs.options import JobOptions
from upframe.jobs.video import plan as film_plan
from upframe.media.image.files import Limits, OutputPlan, check_output_size, plan_output, verify_output
from upframe.media.image.formats import SNIFF_BYTES, format_of_name, sniff
from upframe.media.image.source import ImageSource, probe
from upframe.media.video.files import container_named, is_video_name
from upframe.models.registry import DEFAULT_SCALE, Model, default_model, load
from upframe.models.spec import Task
from upframe.upscaling.images import Upscaler
from upframe.upscaling.options import UpscaleOptions

MADE: Mapping[Task, str] = {
    "upscale": "upscaled",
    "deblur": "deblurred",
    "denoise": "denoised",
    "interpolate": "interpolated",
}
"""Names of folders of outputs, by task."""


@dataclass(frozen=True)
class Plan:
    items: tuple[Item | FilmItem, ...]
    failed: tuple[Outcome, ...]
    """Inputs that cannot be done, known from their headers."""
    models: Mapping[str, Model]
    """The models that the items name, loaded."""

    def upscalers(self, options: UpscaleOptions, *, cancel: threading.Event | None = None) -> dict[str, Upscaler]:
        """An upscaler for each model that is to enlarge single pictures.

        Raises:
            UsageError: for a device or precision that the model cannot be run with.
            ResourceError: for a device that is not there.
        """
        used = {item.model for item in self.items if isinstance(item, Item)}
        return {name: Upscaler(self.models[name], options, cancel=cancel) for name in sorted(used)}


def plan(inputs: Iterable[str | Path], output: Path | None, options: JobOptions) -> Plan:
    """Decide what will be made of `inputs`: files, folders and glob patterns.

    Raises:
        InputError: when nothing is there to be done, or the only input is unusable.
        UsageError: for flags that contradict each other or the inputs, and under `strict` for any foreseen loss.
        ModelError: when the model cannot be loaded.
    """
    options.target.check()
    found = naming.find_inputs(
        inputs,
        output=output,
        recursive=options.recursive,
        include=options.include,
        exclude=options.exclude,
        is_clip=lambda folder: _is_clip(folder, output, options),
    )
    naming.check_output(found, output)
    models = _Models(options)
    is_upscaled = options.task == "upscale"
    names = naming.Namer(output, template=options.name, made=MADE[options.task], with_scale=is_upscaled)
    items: list[Item | FilmItem] = []
    failed: list[Outcome] = []
    for one in found:
        if one.error is not None:
            failed.append(Outcome(one.path, "failed", error=one.error))
            continue
        try:
            plan_one = _plan_film if _is_film(one.path, options) else _plan_item
            items.append(plan_one(one, names, models, options))
        except InputError as error:
            failed.append(Outcome(one.path, "failed", error=error))
            # Its name is kept free: once the file is mended, a rerun must not find another input's output there.
            names.reserve(one, options.format, model=models.label(), scale=options.target.label(models.native))
        except OutputError as error:
            failed.append(Outcome(one.path, "failed", error=error))
        except UsageError as error:
            if len(found) == 1:
                raise
            failed.append(Outcome(one.path, "failed", error=error))
    if options.strict:
        for item in items:
            for notice in item.notices:
                raise notice.as_error()
    _refuse_changed_inputs(items, found)
    if not items and len(failed) == 1 and failed[0].error is not None:
        raise failed[0].error
    used = {item.model for item in items}
    return Plan(tuple(items), tuple(failed), {name: model for name, model in models.loaded.items() if name in used})


def _plan_item(found: Found, names: naming.Namer, models: _Models, options: JobOptions) -> Item:
    with open_image(found.path, options) as source:
        info, metadata, notices = source.info, source.metadata, list(source.notices)
    size = options.target.size_for(info.size, native=models.native)
    factor = max(size[0] / info.size[0], size[1] / info.size[1])
    model = models.name_for(factor)
    spec_scale = models.get(model).spec.scale
    if factor > spec_scale * 1.001:
        message = f"enlarged {spec_scale}x by the network and {factor / spec_scale:.2f}x by resampling"
        notices.append(Notice("beyond-model-scale", str(found.path), message))
    made = plan_output(info, requested=names.wanted_format(options.format), metadata=metadata)
    notices += made.notices
    check_output_size(made.format, size, subject=found.path, channels=made.channels, dtype=made.dtype)
    path, renamed = names.choose(found, made.extension, model=models.label(model), scale=options.target.label(spec_scale))
    notices += renamed
    skip = _is_taken(path, found.path) and not options.overwrite and _is_done(path, found.path, made, size, info.frames)
    return Item(found.path, path, info, made, size, model, models.native, tuple(notices), skip)


def _plan_film(found: Found, names: naming.Namer, models: _Models, options: JobOptions) -> FilmItem:
    info = film_plan.probe_film(found.path, options.film)
    size = options.target.size_for(info.size, native=models.native)
    factor = max(size[0] / info.size[0], size[1] / info.size[1])
    model = models.name_for(factor)
    spec_scale = models.get(model).spec.scale
    wanted = names.wanted_format(options.format)
    if wanted is None and found.path.is_dir():
        wanted = ".png"  # a folder of frames becomes one
    is_doubled = options.task == "interpolate"
    plan, notices = film_plan.plan_film_output(info, size, options.film, container=wanted, is_doubled=is_doubled)
    if plan is None and names.is_file:
        raise UsageError(f"-o {names.output}", "is one picture, not a film", "give a folder with -f png, or a video name")
    if factor > spec_scale * 1.001:
        message = f"enlarged {spec_scale}x by the network and {factor / spec_scale:.2f}x by resampling"
        notices = (*notices, Notice("beyond-model-scale", str(found.path), message))
    scale = options.target.label(spec_scale)
    if plan is not None:
        same = plan.container == found.path.suffix.lower().lstrip(".")
        extension = wanted if wanted and wanted.startswith(".") else found.path.suffix if same else plan.extension
        path, renamed = names.choose(found, extension, model=models.label(model), scale=scale)
    else:
        path, renamed = names.choose_folder(found, model=models.label(model), scale=scale)
    film = Film(found.path, path, info, plan, size, notices, is_doubled)
    skip = False
    if _is_taken(path, found.path):
        film_plan.check_place(film)
        skip = not options.overwrite and film_plan.is_done(film, options.film)
    return FilmItem(film, model, (*notices, *renamed), skip)


def _is_film(path: Path, options: JobOptions) -> bool:
    """Whether an input is a film: by its name, or if that says nothing, as with a pipe, by its content."""
    if path.is_dir() or is_video_name(path):
        return True
    if format_of_name(path.suffix) is not None or not path.is_file():
        return False
    with path.open("rb") as file:
        if sniff(file.read(SNIFF_BYTES)) not in ("video", "unknown"):
            return False
    try:
        film_plan.probe_film(path, options.film)
    except InputError:
        return False
    return True


def _is_clip(folder: Path, output: Path | None, options: JobOptions) -> bool:
    """Whether a folder is one clip: if the user says so, or a video is to be made and no video lies in it."""
    if options.as_clip:
        return True
    with contextlib.suppress(OSError):  # what cannot be listed is refused when it is read
        return _means_video(output, options.format) and not any(is_video_name(p) for p in folder.iterdir())
    return True


def _means_video(output: Path | None, format: str | None) -> bool:
    """Whether the output is to be a video, so that a folder given as input is its frames."""
    if format is not None:
        return container_named(format) is not None
    return output is not None and not output.is_dir() and is_video_name(output)


class _Models:
    """Which model serves which enlargement, each loaded once."""

    def __init__(self, options: JobOptions) -> None:
        self._task = options.task
        self._given = None if str(options.model).lower() == "photo" else options.model
        if self._given is None and self._task != "upscale":
            advice = "pass weights for it: -m PATH; `upframe models list` names the networks"
            raise UsageError(f"upframe {self._task}", "no model for it is shipped", advice)
        self.loaded: dict[str, Model] = {}
        self.native = DEFAULT_SCALE if self._given is None else self.get(str(self._given)).spec.scale
        """The enlargement when none is asked for: that of the model the user chose, or of the default one."""

    def name_for(self, factor: float) -> str:
        return default_model(factor) if self._given is None else str(self._given)

    def get(self, name: str) -> Model:
        if name not in self.loaded:
            model = load(name)
            if model.spec.task != self._task:
                raise UsageError(name, f"is a network to {model.spec.task}", f"use upframe {model.spec.task}")
            self.loaded[name] = model
        return self.loaded[name]

    def label(self, name: str | None = None) -> str:
        """How the model is called in output names; the scale is left out, since the name says the real one.

        Args:
            name: None for the one that serves when no size is asked for.

        The name of a weights file's card is the work of a stranger: nothing in it may lead to another folder.
        """
        return (
            re.sub(r"[^\w.+-]+", "-", re.sub(r"-x\d+$", "", self.get(name or self.name_for(self.native)).name)).strip(".-")
            or "model"
        )


def open_image(path: Path, options: JobOptions) -> ImageSource:
    return ImageSource(path, limits=options.limits, allow_truncated=options.allow_truncated, first_frame=options.first_frame)


def plan_row(item: Item | FilmItem, planned: Plan, options: JobOptions) -> dict[str, Any]:
    """Describe the plan for one input, JSON-ready, with rough estimates of memory and disk."""
    row: dict[str, Any] = {
        "event": "plan",
        "input": str(item.input),
        "output": str(item.output),
        "model": item.model,
        "size": list(item.size),
        "skip": item.skip,
        "notices": [{"id": n.id, "message": n.message} for n in item.notices],
    }
    model = planned.models[item.model]
    if isinstance(item, Item):
        up = Upscaler(model, options.upscale)
        return row | {
            "input_size": list(item.info.size),
            "format": item.plan.format,
            "frames": item.frames,
            "engine": up.engine.name,
            "precision": up.engine.precision,
            "tile": list(up.tile_px(item.info.size)),
            "window": None,
            "memory_bytes": estimated_memory_bytes(item, up),
            "file_bytes": estimated_file_bytes(item),
        }
    film = item.film
    rendering = film_plan.planned_rendering(film, model, options.upscale, options.film)
    return row | {
        "input_size": list(film.info.size),
        "format": "png" if film.plan is None else f"{film.plan.container}, {film.plan.codec} {film.plan.pix_fmt}",
        "frames": film_plan.frames_taken(film, options.film) or 1,
        "engine": rendering.engine,
        "precision": rendering.precision,
        "tile": list(rendering.tile),
        "window": rendering.window,
        "memory_bytes": rendering.memory_bytes,
        "file_bytes": film_plan.estimated_file_bytes(film, options.film),
    }


# Estimates ------------------------------------------------------------------------------------------------------------
def estimated_file_bytes(item: Item) -> int:
    """Rough size of the output file, on the high side for photographs."""
    raw = item.size[0] * item.size[1] * item.plan.channels * item.plan.dtype.itemsize * item.frames
    share = {"png": 0.8, "tiff": 0.9, "bmp": 1.0, "gif": 0.5}.get(item.plan.format, 0.25)
    return int(raw * share) + 65_536


def estimated_memory_bytes(item: Item, up: Upscaler) -> int:
    """Rough peak memory the item adds: the decoded input, one row of tiles, one tile's activations, the encoder."""
    height, width = item.info.size
    core_h, core_w = up.tile_px((height, width))
    margin = 2 * (up.halo_px + up.options.blend)
    tile_px = min(core_h + margin, height) * min(core_w + margin, width)
    s = up.model.spec.scale
    band = min(core_h + margin, height) * width * s * s * 3 * 4 * 3
    decoded = height * width * item.info.channels * item.info.dtype.itemsize * 2
    streamed = item.plan.format in ("png", "tiff") and not item.info.animated
    gathered = 0 if streamed else item.size[0] * item.size[1] * item.plan.channels * 2
    return tile_px * up.model.spec.activation_bytes_per_px + band + decoded + gathered


# Names that are taken -------------------------------------------------------------------------------------------------
def _is_taken(output: Path, source: Path) -> bool:
    """Whether something is at `output` already.

    Raises:
        UsageError: if it is the input itself, by this or another name.
        OutputError: if the system cannot even look.
    """
    try:
        if not output.exists():
            return False
        same = source.samefile(output)
    except OSError as error:
        raise OutputError(output, f"cannot be written ({error.strerror})", "choose another output") from error
    if same:
        raise UsageError(output, "is the input itself", "choose another output; inputs are never changed")
    return True


def _refuse_changed_inputs(items: Iterable[Item | FilmItem], found: Iterable[Found]) -> None:
    """Refuse a job that would overwrite one input with the result of another; on a rerun of `upframe *.png -y` they meet."""
    inputs = {one.path.resolve() for one in found}
    for item in items:
        if not item.skip and item.output.resolve() in inputs:
            advice = "leave it out or choose another output; inputs are never changed"
            raise UsageError(item.output, f"is an input, and the output of {item.input}", advice)


def _is_done(output: Path, source: Path, made: OutputPlan, size: tuple[int, int], frames: int) -> bool:
    """Whether an existing output is what this job would make: then it is skipped. A damaged one is redone.

    Raises:
        UsageError: when something else stands at that name.
    """
    if not output.is_file():
        raise UsageError(output, "exists and is not a file", "choose another output")
    overwrite = "use -y to overwrite it or choose another name"
    try:
        there = probe(output, limits=Limits(max_pixels=2**62))  # only its header is read
    except InputError as error:
        if _is_wreck(output, made.format):
            return False
        raise UsageError(output, f"exists and is something else ({error.happened})", overwrite) from error
    if there.size != size or there.format != made.format or there.frames != frames:
        found = f"{there.format}, {there.size[1]}x{there.size[0]}"
        raise UsageError(output, f"exists and is something else ({found})", overwrite)
    try:
        verify_output(output, made, size, frames)
    except UpframeError:
        return False
    # A camera with a wrong clock makes inputs of the future; they are no newer than what was made of them.
    if output.stat().st_mtime < source.stat().st_mtime <= time.time():
        raise UsageError(output, "exists and is older than the input", "use -y to make it again or choose another name")
    return True


def _is_wreck(output: Path, format: str) -> bool:
    """Whether an unreadable file is what an earlier, interrupted attempt by some tool left: empty, zeros, or a part."""
    try:
        with output.open("rb") as file:
            head = file.read(SNIFF_BYTES)
    except OSError:
        return False
    return not any(head) or sniff(head) == format
