"""Arguments that several functions of the door share, and their checks."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, get_args

from upframe.engines import TorchOptions, on_device, pick_device
from upframe.errors import OptionError, UsageError, check_choice, option_text
from upframe.models.registry import DEFAULT_SCALE, Model, default_model, load
from upframe.models.spec import Precision
from upframe.upscaling.options import MOST_SIDE, Target, UpscaleOptions


@dataclass(frozen=True)
class Size:
    """Size of an output, in one of the ways that the door offers."""

    scale: float | None = None
    size: tuple[int, int] | None = None
    """(height, width) in pixels."""
    width: int | None = None
    height: int | None = None
    long_side: int | None = None
    short_side: int | None = None
    megapixels: float | None = None

    def __post_init__(self) -> None:
        target = self._target  # refuses wrong values and contradictions
        if self.size is None:
            return
        if not isinstance(self.size, tuple | list) or len(self.size) != 2:
            raise OptionError("size", self.size, "must be (height, width) in pixels")
        for side in self.size:
            if isinstance(side, bool) or not isinstance(side, int) or not 1 <= side <= MOST_SIDE:
                raise OptionError("size", self.size, f"must be (height, width) in pixels, each 1 to {MOST_SIDE}")
        if target != Target():
            name = next(field for field in asdict(target) if getattr(target, field) is not None)
            happened = f"contradicts `size={self.size}`; each sets the output size"
            raise OptionError(name, getattr(target, name), happened, "give one of them")

    @property
    def _target(self) -> Target:
        return Target(self.scale, self.width, self.height, self.long_side, self.short_side, self.megapixels)

    def of(self, size: tuple[int, int], *, native: int) -> tuple[int, int]:
        """Compute the output (height, width) for an input of `size`; `native` times its size if no size is stated."""
        return self._target.size_for(size, native=native) if self.size is None else (self.size[0], self.size[1])


def chosen_model(model: object, factor: float) -> Model:
    """Load the model that an argument names; None is the shipped one for an enlargement by `factor`.

    Raises:
        UsageError, ModelError: as `load`.
    """
    if isinstance(model, Model):
        return model
    return load(default_model(factor) if model is None else checked_name(model))


def checked_name(model: object) -> str | Path:
    """The name or path of a model.

    Raises:
        OptionError: for anything else.
    """
    if not isinstance(model, str | Path) or not str(model):
        raise OptionError("model", model, "must be a name, the path of a weights file, or what upframe.load returned")
    return model


def factor_of(size: Size) -> float:
    """Enlargement for choosing a default model before the input is known."""
    return size.scale if size.scale is not None else DEFAULT_SCALE


def chosen_options(
    options: UpscaleOptions | None, device: str, precision: str, *, model: Model | None, near: str | None = None
) -> UpscaleOptions:
    """Return `options` with `device` and `precision` set, if they are stated or the model was moved.

    Args:
        near: Device of the input. An input on an accelerator is computed there, unless another device is stated.

    Raises:
        UsageError: if an argument cannot be used; the message names it.
        ResourceError: if this machine does not have the device.
    """
    if options is not None and not isinstance(options, UpscaleOptions):
        raise OptionError("options", options, "must be an upframe.UpscaleOptions")
    check_choice("precision", precision, ("auto", *get_args(Precision)))
    if not isinstance(device, str):
        raise OptionError("device", device, 'must be "auto", "cpu", "cuda", "cuda:N" or "mps"')
    used = options if options is not None else UpscaleOptions()
    if device == "auto" and model is not None and model.placed_on is not None:
        device = model.placed_on
    if precision == "auto" and model is not None and model.computes_in is not None:
        precision = model.computes_in
    engine = used.engine
    changes: dict[str, Any]
    if device == "auto" and near is not None and near != "cpu" and isinstance(engine, TorchOptions) and engine.device == "auto":
        device = near
    if device == "auto" and precision == "auto":
        return used
    if not isinstance(engine, TorchOptions):
        changes = {} if precision == "auto" else {"precision": precision}
        return replace(used, engine=replace(engine if device == "auto" else on_device(engine, device), **changes))
    pick_device(device)
    changes = {} if device == "auto" else {"device": device}
    changes |= {} if precision == "auto" else {"precision": precision}
    return replace(used, engine=replace(engine, **changes))


def check_callbacks(on_progress: object, cancel: object) -> None:
    """Refuse an `on_progress` that cannot be called and a `cancel` that is not an event.

    Raises:
        OptionError: naming the argument.
    """
    check_callable("on_progress", on_progress)
    if cancel is not None and not isinstance(cancel, threading.Event):
        raise OptionError("cancel", cancel, "must be a threading.Event")


def check_callable(name: str, function: object) -> None:
    """Refuse a value that is neither None nor callable.

    Raises:
        OptionError: naming the argument.
    """
    if function is not None and not callable(function):
        raise OptionError(name, function, "must be a function")


def checked_path(name: str, path: object) -> Path:
    """A path.

    Raises:
        UsageError: if it is not a path; the message names the argument.
    """
    if not isinstance(path, str | Path) or not str(path) or "\0" in str(path):
        raise UsageError(name, f"is {option_text(path)}, expected a path (str or pathlib.Path)")
    try:
        os.fsencode(path)
    except UnicodeEncodeError:  # half of a pair of surrogates
        raise UsageError(name, f"is {option_text(path)}, which no file can be called") from None
    return Path(path)


Progress = Callable[[float], None]
"""Called with the finished share, 0 to 1."""
