"""The devices of this machine, found without loading torch."""

from __future__ import annotations

import ctypes
import os
import sys


def devices_here() -> tuple[str, ...]:
    """Devices for workers: every CUDA device, else "auto", which is MPS or the CPU."""
    count = _cuda_devices()
    return tuple(f"cuda:{number}" for number in range(count)) if count else ("auto",)


def _cuda_devices() -> int:
    """Number of CUDA devices, by the driver."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return len([name for name in visible.split(",") if name.strip() not in ("", "-1")]) if _driver_devices() else 0
    return _driver_devices()


def _driver_devices() -> int:
    name = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
    try:
        driver = ctypes.CDLL(name)
        count = ctypes.c_int(0)
        if driver.cuInit(0) != 0 or driver.cuDeviceGetCount(ctypes.byref(count)) != 0:
            return 0
    except (OSError, AttributeError):
        return 0
    return count.value
