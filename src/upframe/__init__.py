"""upframe: upscale photos and videos with published networks, and train and measure them.

The names below are loaded on first use: `import upframe` imports neither torch nor any codec.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from upframe.version import __version__

_DOOR = {
    "load": "upframe.models.registry",
    "list_models": "upframe.models.registry",
    "Upscaler": "upframe.upscaling.images",
    "upscale_file": "upframe.jobs",
    "metric": "upframe.metrics",
    "evaluate": "upframe.evaluation.evaluate",
}

if TYPE_CHECKING:
    from upframe.evaluation.evaluate import evaluate as evaluate
    from upframe.jobs import upscale_file as upscale_file
    from upframe.metrics import metric as metric
    from upframe.models.registry import list_models as list_models
    from upframe.models.registry import load as load
    from upframe.upscaling.images import Upscaler as Upscaler

__all__ = ["__version__", *sorted(_DOOR)]  # noqa: PLE0604 (names are resolved by __getattr__)


def __getattr__(name: str) -> Any:
    if name in _DOOR:
        return getattr(import_module(_DOOR[name]), name)
    raise AttributeError(f"module 'upframe' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
