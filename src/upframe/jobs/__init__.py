"""Plan and carry out jobs. A door (command line, Python, server, cluster) imports this package and nothing below it.

    planned = jobs.plan(["holiday/"], "large/", JobOptions(target=Target(scale=2)))
    report = jobs.run(planned, on_event=print)

Each name below is loaded on first use, so that a door that only shows its help loads nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from upframe.engines import ENGINES as ENGINES
    from upframe.engines import EngineOptions as EngineOptions
    from upframe.engines import engine_options as engine_options
    from upframe.jobs.events import Event as Event
    from upframe.jobs.events import Outcome as Outcome
    from upframe.jobs.events import Report as Report
    from upframe.jobs.events import error_data as error_data
    from upframe.jobs.events import failed_event as failed_event
    from upframe.jobs.items import Estimate as Estimate
    from upframe.jobs.items import Item as Item
    from upframe.jobs.model_choice import check_model as check_model
    from upframe.jobs.options import JobOptions as JobOptions
    from upframe.jobs.options import VideoOptions as VideoOptions
    from upframe.jobs.planning import Plan as Plan
    from upframe.jobs.planning import plan as plan
    from upframe.jobs.runners.base import Runner as Runner
    from upframe.jobs.runners.local import LocalRunner as LocalRunner
    from upframe.jobs.running import run as run
    from upframe.jobs.running import upscale_file as upscale_file
    from upframe.machine import check_address_space as check_address_space
    from upframe.machine import keep_freed_memory as keep_freed_memory
    from upframe.media.image.files import Limits as Limits
    from upframe.models.spec import Cleaning as Cleaning
    from upframe.models.spec import Task as Task
    from upframe.upscaling.options import Target as Target
    from upframe.upscaling.options import TileSize as TileSize
    from upframe.upscaling.options import UpscaleOptions as UpscaleOptions

_HOMES = {
    "ENGINES": "upframe.engines",
    "Cleaning": "upframe.models.spec",
    "EngineOptions": "upframe.engines",
    "Estimate": "upframe.jobs.items",
    "Event": "upframe.jobs.events",
    "Item": "upframe.jobs.items",
    "JobOptions": "upframe.jobs.options",
    "Limits": "upframe.media.image.files",
    "LocalRunner": "upframe.jobs.runners.local",
    "Outcome": "upframe.jobs.events",
    "Plan": "upframe.jobs.planning",
    "Report": "upframe.jobs.events",
    "Runner": "upframe.jobs.runners.base",
    "Target": "upframe.upscaling.options",
    "Task": "upframe.models.spec",
    "TileSize": "upframe.upscaling.options",
    "UpscaleOptions": "upframe.upscaling.options",
    "VideoOptions": "upframe.jobs.options",
    "check_address_space": "upframe.machine",
    "check_model": "upframe.jobs.model_choice",
    "engine_options": "upframe.engines",
    "error_data": "upframe.jobs.events",
    "failed_event": "upframe.jobs.events",
    "keep_freed_memory": "upframe.machine",
    "plan": "upframe.jobs.planning",
    "run": "upframe.jobs.running",
    "upscale_file": "upframe.jobs.running",
}

__all__ = sorted(_HOMES)  # noqa: PLE0605 (names are resolved by __getattr__)


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
