"""The flag of every option: the one table by which the command line puts its own words into the library's messages.

The library names options as a Python user writes them. `OptionError` carries the option and its value; elsewhere a message
has them in backticks: `video.restart`, `video.audio=False`.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

from upframe.cli.stated import HELD
from upframe.errors import OptionError, UpframeError, number_text, one_line

if TYPE_CHECKING:
    from upframe.jobs import Event

FLAGS: Mapping[str, str] = {
    # Sizes
    "scale": "--scale",
    "width": "--width",
    "height": "--height",
    "long_side": "--long-side",
    "short_side": "--short-side",
    "megapixels": "--megapixels",
    # Inputs and outputs
    "task": "upframe",
    "model": "-m",
    "output": "-o",
    "format": "--format",
    "quality": "--quality",
    "name": "--name",
    "overwrite": "-y",
    "strict": "--strict",
    "recursive": "-r",
    "include": "--include",
    "exclude": "--exclude",
    "allow_truncated": "--allow-truncated",
    "first_frame": "--first-frame",
    "limits.max_pixels": "--max-pixels",
    "as_clip": "--clip",
    # Computing
    "tile": "--tile",
    "halo": "--halo",
    "blend": "--overlap",
    "window": "--window",
    "sigma": "--sigma",
    "as_published": "--as-published",
    "engine": "--engine",
    "device": "--device",
    "precision": "--precision",
    "threads": "--threads",
    # Videos
    "video.codec": "--codec",
    "video.crf": "--crf",
    "video.preset": "--preset",
    "video.pix_fmt": "--pix-fmt",
    "video.encoder": "-e",
    "video.odd": "--odd",
    "video.audio": "--audio",
    "video.subtitles": "--subs",
    "video.start": "--start",
    "video.end": "--end",
    "video.stream": "--stream",
    "video.deinterlace": "--deinterlace",
    "video.on_bad_frame": "--on-bad-frame",
    "video.allow_truncated": "--allow-truncated",
    "video.rate": "--fps",
    "video.segment_frames": "--window",
    "video.context": "--temporal-overlap",
    "video.cleaning": "--clean-threshold, --clean-max and --clean-strength",
    "video.restart": "--restart",
    "cleaning.threshold": "--clean-threshold",
    "cleaning.max_passes": "--clean-max",
    "cleaning.strength": "--clean-strength",
    # The service
    "port": "--port",
    "data": "--data",
    "allow": "--allow",
    "keep": "--keep",
    "quota": "--quota",
    "max_upload": "--max-upload",
    # Watched folders
    "settle": "--settle",
    "move_done": "--move-done",
    # Training, evaluation and data
    "changes": "--set",
    "out": "--out",
    "until": "--until",
    "tensorboard": "--tensorboard",
    "datasets": "--datasets",
    "limit": "--limit",
    "save_images": "--save-images",
    "contact_sheet": "--contact-sheet",
    "niqe_params": "--niqe-params",
    "precisions": "--precision",
    "partial_set": "--partial",
}

_OPTION = re.compile(r"`([a-z_]+(?:\.[a-z_]+)?)(?:=([^`]*))?`")


def worded(text: str) -> str:
    """A message of the library with flags in place of the options it names in backticks."""

    def flag(found: re.Match[str]) -> str:
        option, value = found[1], found[2]
        if option not in FLAGS:
            return found[0]
        text = None if value is None else value.removeprefix("'").removesuffix("'")
        return _stated(option, {"True": True, "False": False}.get(text or "", text))

    return _OPTION.sub(flag, text)


def worded_error(error: UpframeError) -> UpframeError:
    """An error with flags in place of options; of the same kind, and caused by the same."""
    made = copy.copy(error)
    if isinstance(error, OptionError) and error.option in FLAGS:
        made.subject = one_line(_stated(error.option, error.value) + _origin(error.option))
    else:
        made.subject = worded(error.subject)
    made.happened, made.advice = worded(error.happened), worded(error.advice)
    made.__cause__, made.__traceback__ = error.__cause__, error.__traceback__
    return made


def worded_event(event: Event) -> Event:
    """An event whose text names flags instead of options."""
    from upframe.jobs import failed_event

    if event.error is not None:
        return failed_event(event.input, worded_error(event.error))
    return replace(event, data=worded_data(event.data))


def worded_data(data: Mapping[str, Any]) -> dict[str, Any]:
    """The data of an event, with flags in place of the options that its message names."""
    return {key: worded(value) if key == "message" and isinstance(value, str) else value for key, value in data.items()}


def _origin(option: str) -> str:
    """The place of an option's value, if no flag states it: ` (upframe.toml)`."""
    names = (FLAGS[option].removeprefix("--"), option.rpartition(".")[2].replace("_", "-"))
    setting = next((HELD.get()[name] for name in names if name in HELD.get()), None)
    return "" if setting is None else f" ({setting.source})"


def _stated(option: str, value: object) -> str:
    """An option as it stands on a command line: `--tile 200x100`, `--no-audio`, `--set steps=100`."""
    flag = FLAGS[option]
    if value is None or value is True:
        return flag
    if value is False:
        return f"--no-{flag.removeprefix('--')}"
    if isinstance(value, Mapping):
        return " ".join(f"{flag} {key}={one}" for key, one in value.items())
    if isinstance(value, tuple):  # sizes are (height, width); other tuples are repeated flags
        if option == "tile" and len(value) == 2:
            return f"{flag} {value[1]}x{value[0]}"
        return " ".join(f"{flag} {'='.join(one) if isinstance(one, tuple) else one}" for one in value)
    return f"{flag} {number_text(value)}" if isinstance(value, str | int | float | Fraction | Path) else flag
