"""The compiled part: C++ kernels for operations that are slow in numpy and torch on CPUs; always optional.

`hatch_build.py` compiles it during installation if there is a compiler; without it, `library()` is None, and every caller has
an alternative in Python. Both give the same results, except for rounding in sums of floats.
"""

from __future__ import annotations

import ctypes
import logging
from functools import cache
from pathlib import Path
from typing import Literal

from upframe.machine import cpu_flags

log = logging.getLogger(__name__)

Level = Literal["avx512", "avx2"]
LIBRARIES: dict[Level, Path] = {
    "avx512": Path(__file__).parent / "libupframe_kernels.so",
    "avx2": Path(__file__).parent / "libupframe_kernels_avx2.so",
}
"""The second library contains only kernels that are worthwhile without AVX-512: 3×3 convolutions in float32, the last shuffle
and the coding of frames."""
NEEDS: dict[Level, frozenset[str]] = {
    "avx512": frozenset({"avx512f", "avx512bw", "avx512dq", "avx512vl"}),
    "avx2": frozenset({"avx2", "fma"}),
}
"""CPU flags that all kernels need."""
VERSION = 3
"""Version of the interface; raise it together with the one in kernels.h."""

_POINTER, _INT, _LONG, _FLOAT = ctypes.c_void_p, ctypes.c_int, ctypes.c_int64, ctypes.c_float
_FUNCTIONS: dict[str, tuple[type | None, list[type]]] = {
    "upframe_vapsr_make": (_POINTER, [_INT, _INT, _INT, _INT, _POINTER, _POINTER]),
    "upframe_vapsr_run": (_INT, [_POINTER, _POINTER, _POINTER, _INT, _INT, _INT, _INT]),
    "upframe_vapsr_free": (None, [_POINTER]),
    "upframe_winograd_make": (_POINTER, [_INT, _INT, _POINTER, _POINTER, _INT]),
    "upframe_winograd_run": (_INT, [*[_POINTER] * 4, *[_INT] * 5, _FLOAT, _INT]),
    "upframe_winograd_free": (None, [_POINTER]),
    "upframe_esa_make": (_POINTER, [_INT, _INT, _POINTER]),
    "upframe_esa_first": (_INT, [*[_POINTER] * 4, _LONG, _INT]),
    "upframe_esa_second": (_INT, [*[_POINTER] * 6, *[_INT] * 5]),
    "upframe_esa_free": (None, [_POINTER]),
    "upframe_shuffle": (_INT, [_POINTER, _POINTER, *[_INT] * 7]),
    "upframe_use_threads_of": (None, [_POINTER]),
    "upframe_png_filter": (_INT, [_POINTER, _POINTER, _LONG, _LONG, _LONG, _POINTER]),
    "upframe_png_unfilter": (_INT, [_POINTER, _POINTER, _LONG, _LONG, _LONG, _POINTER]),
    "upframe_from_rgb16": (_INT, [*[_POINTER] * 4, *[_INT] * 5, _POINTER]),
    "upframe_codes8": (None, [_POINTER, *[_LONG] * 6, _POINTER]),
}


@cache
def library(level: Level = "avx512") -> ctypes.CDLL | None:
    """Load the kernels; None if they were not built, cannot run on this CPU, have another version, or do not load."""
    path = LIBRARIES[level]
    if not path.is_file() or not cpu_flags() >= NEEDS[level]:
        return None
    try:
        loaded = ctypes.CDLL(str(path))
        version: int = loaded.upframe_kernels_version()
    except (OSError, AttributeError) as error:
        log.info("%s does not load (%s)", path.name, error)
        return None
    if version != VERSION:
        log.info("%s is of version %d and not %d; reinstall upframe", path.name, version, VERSION)
        return None
    for name, (result, arguments) in _FUNCTIONS.items():
        if level == "avx512" or hasattr(loaded, name):
            function = getattr(loaded, name)
            function.restype, function.argtypes = result, arguments
    return loaded


def best() -> ctypes.CDLL | None:
    """Load the kernels of the highest level available on this machine. Lower levels lack some functions."""
    return library("avx512") or library("avx2")
