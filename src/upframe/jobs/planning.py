"""Plan a job: names, sizes, formats, models, and every loss that headers show.

Planning reads headers only, so that a bad option or a name clash stops a job before any pixel is computed.

This module and `running` do not have the names of their functions: the package exports those as `jobs.plan` and `jobs.run`, and
importing a module of the same name would replace them.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from upframe.errors import InputError, OutputError, UpframeError, UsageError
from upframe.jobs import naming
from upframe.jobs.events import Outcome
from upframe.jobs.image import plan_image
from upframe.jobs.items import Estimate, Item, unexpected
from upframe.jobs.model_choice import ModelChoice
from upframe.jobs.naming import Found
from upframe.jobs.options import JobOptions
from upframe.media.image.formats import SNIFF_BYTES, format_of_name, sniff
from upframe.media.names import container_name, is_video_name
from upframe.models.spec import Task

log = logging.getLogger(__name__)

MADE: Mapping[Task, str] = {
    "upscale": "upscaled",
    "deblur": "deblurred",
    "denoise": "denoised",
    "interpolate": "interpolated",
}
"""Ending of the names of output folders, by task."""


@dataclass(frozen=True)
class Plan:
    """The items of a job. A plan can be pickled: it names models and does not hold them."""

    items: tuple[Item, ...]
    failed: tuple[Outcome, ...]
    """Inputs that cannot be processed, as their headers show."""
    options: JobOptions
    """The options for planning and rendering the items."""

    def estimate(self, item: Item) -> Estimate:
        """Describe how one of the items will be made, with estimates of memory and disk room."""
        return item.estimate(self.options)


def plan(inputs: Iterable[str | Path], output: str | Path | None = None, options: JobOptions | None = None) -> Plan:
    """Plan the outputs of `inputs`: files, folders and glob patterns.

    Args:
        output: File or folder to write; None derives names beside the inputs.

    Raises:
        InputError: if there is no input, or the only input is unusable.
        UsageError: if options contradict each other or the inputs; under `strict` also for any predicted loss.
        ModelError: if the model cannot be loaded.
    """
    options = options or JobOptions()
    place = None if output is None else Path(output)
    found = naming.find_inputs(
        inputs,
        output=place,
        recursive=options.recursive,
        include=options.include,
        exclude=options.exclude,
        is_clip=lambda folder: _is_clip(folder, place, options),
    )
    naming.check_output(found, place)
    models = ModelChoice(options)
    names = naming.Namer(place, template=options.name, made=MADE[options.task], with_scale=options.task == "upscale")
    items: list[Item] = []
    failed: list[Outcome] = []
    for one in found:
        try:
            items.append(_plan_one(one, names, models, options))
        except (InputError, OutputError) as error:
            failed.append(Outcome(one.path, "failed", error=error))
            if isinstance(error, InputError) and one.error is None:
                # Its name is reserved: after the user repairs the file, a rerun must not find another input's output there.
                model, scale = models.usual_labels()
                names.reserve(one, options.format, model=model, scale=scale)
        except UsageError as error:
            if len(found) == 1:
                raise
            failed.append(Outcome(one.path, "failed", error=error))
        except UpframeError:  # of the model or the machine: it would meet every item
            raise
        except Exception as error:
            failure = unexpected(one.path, error)
            log.debug("%s", one.path, exc_info=failure)
            failed.append(Outcome(one.path, "failed", error=failure))
    if options.strict:
        for item in items:
            for notice in item.notices:
                raise notice.as_error()
    _refuse_changed_inputs(items, found)
    if not items and len(failed) == 1 and failed[0].error is not None:
        raise failed[0].error
    return Plan(tuple(items), tuple(failed), options)


def _plan_one(found: Found, names: naming.Namer, models: ModelChoice, options: JobOptions) -> Item:
    if found.error is not None:
        raise found.error
    if _may_be_video(found.path):
        # imported for videos only: a picture needs no video codec
        from upframe.jobs.video.item import is_video, plan_video

        if is_video(found.path, options.video):
            return plan_video(found, names, models, options)
    return plan_image(found, names, models, options)


def _may_be_video(path: Path) -> bool:
    """Whether an input may be a video, by its extension; without one, as with a pipe, by its first bytes."""
    if naming.is_folder(path) or is_video_name(path):
        return True
    with contextlib.suppress(OSError):  # what cannot be read is refused when it is opened as a picture
        if format_of_name(path.suffix) is None and path.is_file():
            with path.open("rb") as file:
                return sniff(file.read(SNIFF_BYTES)) in ("video", "unknown")
    return False


def _is_clip(folder: Path, output: Path | None, options: JobOptions) -> bool:
    """Whether a folder is one clip: the user asks for it, or the output is a video and no video lies in the folder."""
    if options.as_clip:
        return True
    with contextlib.suppress(OSError):  # a folder that cannot be listed is refused when it is read
        return _means_video(output, options.format) and not any(is_video_name(p) for p in folder.iterdir())
    return True


def _means_video(output: Path | None, format: str | None) -> bool:
    """Whether the output is a video, so that an input folder holds its frames."""
    if format is not None:
        return container_name(format) is not None
    return output is not None and not naming.is_folder(output) and is_video_name(output)


def _refuse_changed_inputs(items: Iterable[Item], found: Iterable[Found]) -> None:
    """Refuse a job that would overwrite one of its inputs with the output of another.

    This happens if a job with `overwrite` runs again on all pictures of a folder that also holds earlier results.
    """
    inputs = {one.path.resolve() for one in found}
    for item in items:
        if not item.skip and item.output.resolve() in inputs:
            advice = "remove that input or choose another output; inputs are never changed"
            raise UsageError(item.output, f"is an input, and the output of {item.input}", advice)
