"""Choose the model for an enlargement, and keep the networks that this process has loaded.

Plans and tasks name models; rendering code gets the network here. Each network is loaded once per process, and the last few
used are kept. Engines may hold device memory. An engine belongs to the thread that asked for it until that thread calls
`release`.
"""

from __future__ import annotations

import math
import os
import re
import threading
import time
import weakref
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from upframe.engines import Engine, EngineOptions, TorchEngine, make_clip_engine, make_engine
from upframe.errors import ModelError, Notice, OptionError, UsageError
from upframe.jobs.options import JobOptions
from upframe.models.registry import DEFAULT_SCALE, USER_FOLDER_VARIABLE, Model, default_model, load, spec_of_name
from upframe.models.spec import ModelSpec, Task
from upframe.upscaling.images import Upscaler

MOST_NETWORKS = 4  # kept in a process: a batch without a stated model takes up to three, ×2, ×3 and ×4
NOTABLE_FACTOR = 1.001  # enlargement beyond the network's, from which on it is noted

_Stamp = tuple[int, int]
_Key = tuple[str, str | None, str]


class _Networks:
    """Models by name, each loaded once; the last few used are kept."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loaded: OrderedDict[_Key, tuple[Model, _Stamp | None]] = OrderedDict()
        self._kept: weakref.WeakValueDictionary[str, Model] = weakref.WeakValueDictionary()

    def keep(self, model: Model) -> str:
        name = f"kept:{id(model)}"
        self._kept[name] = model
        return name

    def get(self, name: str) -> Model:
        kept = self._kept.get(name)
        if kept is not None:
            return kept
        key = (name, os.environ.get(USER_FOLDER_VARIABLE), os.getcwd())  # noqa: PTH109 (a name may depend on all three)
        with self._lock:
            if key in self._loaded:
                model, stamp = self._loaded[key]
                if stamp is not None and stamp == _stamp(model.source):
                    self._loaded.move_to_end(key)
                    return model
                del self._loaded[key]
            model = load(name)
            self._loaded[key] = (model, _stamp(model.source))
            while len(self._loaded) > MOST_NETWORKS:
                self._loaded.popitem(last=False)
            return model


def _stamp(source: str | None) -> _Stamp | None:
    """Size and modification time of a weights file, which show whether it has changed since it was read; None if unknown."""
    try:
        status = os.stat(source or "")  # noqa: PTH116 (the source is text)
    except OSError:
        return None
    return status.st_size, status.st_mtime_ns


_NETWORKS = _Networks()


def network(name: str, *, sha256: str | None = None) -> Model:
    """Load the model of that name, once per process.

    Args:
        sha256: Required hash of its weights file; None accepts any.

    Raises:
        UsageError, ModelError: as `models.registry.load`.
        ModelError: if the file has another hash than `sha256`.
    """
    model = _NETWORKS.get(name)
    if sha256 is not None and model.sha256 != sha256:
        raise ModelError(name, "its weights changed since the job was planned", "run it again")
    return model


def keep(model: Model) -> str:
    """Name a model that was built in this process. The name is valid while the caller holds the model, and in this process
    alone."""
    return _NETWORKS.keep(model)


# Engines --------------------------------------------------------------------------------------------------------------
class _Engines(threading.local):
    def __init__(self) -> None:
        self.made: OrderedDict[tuple[Model, EngineOptions], Engine] = OrderedDict()


_ENGINES = _Engines()
_RATES: weakref.WeakKeyDictionary[Model, dict[EngineOptions, float]] = weakref.WeakKeyDictionary()
"""Measured seconds for each input pixel. Unlike engines they hold no memory, so a process that runs many jobs keeps them."""


def engine(model: Model, options: EngineOptions) -> Engine:
    """Return the engine for single pictures; each thread makes it once until `release`.

    Raises:
        UsageError: if the model cannot run with this device, precision or engine.
        ResourceError: if this machine does not have the device.
    """
    return _kept_engine(model, options, make_engine)


def clip_engine(model: Model, options: EngineOptions) -> TorchEngine:
    """Like `engine`, for networks that take clips.

    Raises:
        UsageError, ResourceError: as `engine`.
    """
    found = _kept_engine(model, options, make_clip_engine)
    assert isinstance(found, TorchEngine)
    return found


def _kept_engine(model: Model, options: EngineOptions, make: Callable[[Model, EngineOptions], Engine]) -> Engine:
    made, key = _ENGINES.made, (model, options)
    if key not in made:
        made[key] = make(model, options)
        while len(made) > MOST_NETWORKS:
            made.popitem(last=False)
    made.move_to_end(key)
    return made[key]


_TIMED_PX = 128  # side of the picture that is timed: larger ones take no less time for each pixel
_TIMED_RUNS = 2


def seconds_per_px(up: Upscaler) -> float | None:
    """Time an upscaler on a small noisy picture: seconds for each input pixel, files not included. A model with the same
    options is timed once.

    Returns:
        None for engines that compile the network anew for this size, which would take longer than it tells.
    """
    if up.engine.name not in ("torch", "native"):
        return None
    rates, options = _RATES.setdefault(up.model, {}), up.options.engine
    if options not in rates:
        noise = np.random.default_rng(0).integers(0, 256, (_TIMED_PX, _TIMED_PX, 3), dtype=np.uint8)
        up(noise)  # the first run prepares kernels and memory
        best = math.inf
        for _ in range(_TIMED_RUNS):
            began = time.perf_counter()
            up(noise)
            best = min(best, time.perf_counter() - began)
        rates[options] = best / _TIMED_PX**2
    return rates[options]


def release() -> None:
    """Release the memory that the engines of this thread hold."""
    _ENGINES.made.clear()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


# Choice ---------------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Enlargement:
    """The size of one output, and the model that makes it."""

    size: tuple[int, int]
    """(height, width) of the output."""
    model: str
    """Name or path."""
    model_sha256: str
    model_label: str
    """Name of the model in output names."""
    scale_label: str
    """Enlargement in output names."""
    native: int
    """Enlargement if the target states none."""
    notices: tuple[Notice, ...]
    """Whether resampling does a part of the enlargement."""


def check_model(options: JobOptions) -> None:
    """Refuse a model that suits no input, as far as its name tells: no weights are read.

    Raises:
        UsageError: if no model has that name, it is for another task, or none is named and upframe ships none for the task.
    """
    given = _given_model(options)
    spec = None if given is None else spec_of_name(given)
    if given is not None and spec is not None:
        _check_task(given, spec, options.task)


def _given_model(options: JobOptions) -> str | None:
    """The model that the user names; None for the default one."""
    given = None if options.model is None or str(options.model).lower() == "photo" else str(options.model)
    if given is None and options.task != "upscale":
        advice = "pass weights for it: `model='PATH'`; `upframe models list` names the networks"
        raise OptionError("task", options.task, "upframe ships no model for this task", advice)
    return given


def _check_task(name: str, spec: ModelSpec, task: Task) -> None:
    if spec.task != task:
        raise UsageError(name, f"is a network to {spec.task}", f"use `task='{spec.task}'`")


class ModelChoice:
    """Choose the model for each enlargement of a job.

    Raises:
        UsageError: if no model is named and upframe ships none for the task, or if the named model is for another task.
        ModelError: if the model cannot be loaded.
    """

    def __init__(self, options: JobOptions) -> None:
        self._task, self._target = options.task, options.target
        self._given = _given_model(options)
        self.native = DEFAULT_SCALE if self._given is None else self._get(self._given).spec.scale
        """Enlargement if the target states none: that of the model that the user chose, or of the default model."""

    def enlarge(self, size: tuple[int, int], subject: Path) -> Enlargement:
        """Choose the output of a picture of `size` (height, width)."""
        made = self._target.size_for(size, native=self.native)
        factor = max(made[0] / size[0], made[1] / size[1])
        name = self._name_for(factor)
        model = self._get(name)
        scale = model.spec.scale
        notices: tuple[Notice, ...] = ()
        if factor > scale * NOTABLE_FACTOR:
            message = f"enlarged {scale}x by the network and {factor / scale:.2f}x by resampling"
            notices = (Notice("beyond-model-scale", str(subject), message),)
        return Enlargement(made, name, model.sha256, _label(model), self._target.label(scale), self.native, notices)

    def usual_labels(self) -> tuple[str, str]:
        """Model and enlargement in output names if the target states no size."""
        return _label(self._get(self._name_for(self.native))), self._target.label(self.native)

    def _name_for(self, factor: float) -> str:
        return default_model(factor) if self._given is None else self._given

    def _get(self, name: str) -> Model:
        model = network(name)
        _check_task(name, model.spec, self._task)
        return model


def _label(model: Model) -> str:
    """Name of a model in output names, without its scale: output names give the actual enlargement.

    The name in the card of a weights file is untrusted: it must not lead to another folder.
    """
    return re.sub(r"[^\w.+-]+", "-", re.sub(r"-x\d+$", "", model.name)).strip(".-") or "model"
