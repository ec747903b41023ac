"""upframe: upscale photos and videos with published networks, and train and measure them.

The names below are loaded on first use: `import upframe` imports neither torch nor any codec.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_DOOR = {
    "load": "upframe.models",
    "list_models": "upframe.models",
    "Upscaler": "upframe.upscale",
    "upscale_file": "upframe.job",
    "metric": "upframe.metrics",
    "evaluate": "upframe.evaluation",
}

if TYPE_CHECKING:
    from upframe.evaluation import evaluate as evaluate
    from upframe.job import upscale_file as upscale_file
    from upframe.metrics import metric as metric
    from upframe.models import list_models as list_models
    from upframe.models import load as load
    from upframe.upscale import Upscaler as Upscaler

__all__ = ["__version__", *sorted(_DOOR)]  # noqa: PLE0604 (names are resolved by __getattr__)


def __getattr__(name: str) -> Any:
    if name in _DOOR:
        return getattr(import_module(_DOOR[name]), name)
    raise AttributeError(f"module 'upframe' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
