"""The devices of this machine, found without loading torch."""

from __future__ import annotations

import ctypes
import os
import sys
from collections import Counter
from collections.abc import Sequence

from upframe.machine import check_cuda


def devices_for(chosen: tuple[str, ...]) -> tuple[str, ...]:
    """Devices for workers: those that were chosen, else every CUDA device, else "auto", which is MPS or the CPU.

    Raises:
        ResourceError: if this machine does not have a chosen one. Every job would fail on it.
    """
    count = cuda_devices()
    for name in chosen:
        check_cuda(name, count)
    return chosen or tuple(f"cuda:{number}" for number in range(count)) or ("auto",)


def workers_for(devices: Sequence[str]) -> list[tuple[str, str]]:
    """Name and device of a worker for each device. A device that is there twice has two, whose locks and logs must differ."""
    made, seen = list[tuple[str, str]](), Counter[str]()
    for device in devices:
        seen[device] += 1
        number = f"-{seen[device]}" if seen[device] > 1 else ""
        made.append((f"worker-{device.replace(':', '-')}{number}", device))
    return made


def cuda_devices() -> int:
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
