"""upframe: upscale photos and videos with published networks, and train and measure them.

    import upframe

    upframe.upscale("photo.jpg", scale=2)          # a path, a Pillow image, an array, a tensor: the same kind comes back
    model = upframe.load("photo-x4")               # a function of tensors
    upframe.run(upframe.plan("scans/", "large/"))  # many files

The names below are all that is promised; everything else may change. They are loaded on first use: `import upframe` imports
neither torch nor any codec.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from upframe import errors as errors
from upframe.version import __version__ as __version__

_DOOR = {
    "Cleaning": "upframe.models.spec",
    "Event": "upframe.jobs.events",
    "JobOptions": "upframe.jobs.options",
    "Model": "upframe.models.registry",
    "Target": "upframe.upscaling.options",
    "TorchOptions": "upframe.engines",
    "UpscaleOptions": "upframe.upscaling.options",
    "Upscaler": "upframe.api.pictures",
    "VideoOptions": "upframe.jobs.options",
    "VideoUpscaler": "upframe.api.videos",
    "evaluate": "upframe.api.measuring",
    "list_models": "upframe.api.models",
    "load": "upframe.api.models",
    "metric": "upframe.api.measuring",
    "plan": "upframe.api.jobs",
    "run": "upframe.api.jobs",
    "train": "upframe.api.training",
    "upscale": "upframe.api.pictures",
}
"""Public names, and the module that each is loaded from on first use."""

if TYPE_CHECKING:
    from upframe.api.jobs import plan as plan
    from upframe.api.jobs import run as run
    from upframe.api.measuring import evaluate as evaluate
    from upframe.api.measuring import metric as metric
    from upframe.api.models import list_models as list_models
    from upframe.api.models import load as load
    from upframe.api.pictures import Upscaler as Upscaler
    from upframe.api.pictures import upscale as upscale
    from upframe.api.training import train as train
    from upframe.api.videos import VideoUpscaler as VideoUpscaler
    from upframe.engines import TorchOptions as TorchOptions
    from upframe.jobs.events import Event as Event
    from upframe.jobs.options import JobOptions as JobOptions
    from upframe.jobs.options import VideoOptions as VideoOptions
    from upframe.models.registry import Model as Model
    from upframe.models.spec import Cleaning as Cleaning
    from upframe.upscaling.options import Target as Target
    from upframe.upscaling.options import UpscaleOptions as UpscaleOptions

__all__ = ["__version__", "errors", *sorted(_DOOR)]  # noqa: PLE0604 (names are resolved by __getattr__)


def __getattr__(name: str) -> Any:
    if name in _DOOR:
        return getattr(import_module(_DOOR[name]), name)
    raise AttributeError(f"module 'upframe' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
