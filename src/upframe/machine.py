"""Facts about the machine: devices, CPU features, free memory, and how the allocator keeps freed memory."""

from __future__ import annotations

import contextlib
import ctypes
import logging
import platform
import re
import sys
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from upframe.errors import OptionError, ResourceError

if TYPE_CHECKING:  # reading a picture's header needs to know the CPU, not torch
    import torch

log = logging.getLogger(__name__)


def check_device(name: object) -> None:
    """Refuse everything that is not the name of a device: "auto", "cpu", "cuda", "cuda:N" or "mps".

    Raises:
        OptionError: for any other value; the message names the option.
    """
    if not isinstance(name, str) or not re.fullmatch(r"auto|cpu|mps|cuda(:\d+)?", name):
        raise OptionError("device", name, "no such device", "use auto, cpu, cuda, cuda:N or mps")


def pick_device(name: str) -> torch.device:
    """Find the device that `name` means on this machine.

    Raises:
        UsageError: if `name` is not the name of a device.
        ResourceError: if this machine does not have the device.
    """
    import torch

    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    check_device(name)
    device = torch.device(name)
    if device.type == "cuda":
        check_cuda(name, torch.cuda.device_count() if torch.cuda.is_available() else 0)
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise ResourceError("`device='mps'`", "not available on this machine", "use `device='cpu'`")
    return device


def device_model(device: torch.device) -> str:
    """The kind of a device, and of a CUDA device also its model: two cards of one host may be of two models."""
    import torch

    return f"cuda, {torch.cuda.get_device_name(device)}" if device.type == "cuda" else device.type


def check_cuda(name: str, count: int) -> None:
    """Refuse the name of a CUDA device that is none of the `count` first ones; other names pass.

    Raises:
        ResourceError: with the number of those that there are.
    """
    kind, _, index = name.partition(":")
    if kind == "cuda" and int(index or 0) >= count:
        raise ResourceError(f"`device={name!r}`", f"{count} CUDA devices are usable", "use `device='cpu'` or check the driver")


def available_memory_bytes() -> int:
    """Bytes that this process may still allocate: the least of free memory, the control group's limit and the address-space
    limit."""
    limits = []
    meminfo = Path("/proc/meminfo")
    if meminfo.exists():
        found = re.search(r"MemAvailable:\s+(\d+) kB", meminfo.read_text())
        if found:
            limits.append(int(found[1]) * 1024)
    group, used = Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")
    if group.exists() and used.exists() and group.read_text().strip().isdigit():
        limits.append(int(group.read_text()) - int(used.read_text()))
    limits += _address_space_left()
    return max(min(limits), 0) if limits else 4 << 30  # other systems: assume a small machine


def _address_space_left() -> list[int]:
    """Bytes left under RLIMIT_AS; None if the process has no such limit."""
    statm = Path("/proc/self/statm")
    if sys.platform == "win32" or not statm.exists():
        return []
    import resource  # absent on Windows

    soft, _ = resource.getrlimit(resource.RLIMIT_AS)
    if soft == resource.RLIM_INFINITY:
        return []
    return [soft - int(statm.read_text().split()[0]) * resource.getpagesize()]


LEAST_ADDRESS_BYTES = 800_000_000
"""Address space that PyTorch takes while it is loaded on a CPU: with 0.7 GB it aborts, with 0.9 GB a small photo is made."""


def check_address_space() -> None:
    """Refuse to load PyTorch where the process's limit would end it, in ways that no handler can catch.

    Raises:
        ResourceError: with the room there is.
    """
    for left in _address_space_left():
        if left < LEAST_ADDRESS_BYTES:
            happened = f"has {left / 1e6:.0f} MB of address space left, and PyTorch needs {LEAST_ADDRESS_BYTES / 1e6:.0f} MB"
            raise ResourceError("this process", happened, "raise the limit of its address space")


def keep_freed_memory() -> None:
    """Tell glibc to keep large freed blocks instead of returning each to the kernel and faulting its pages in again.

    At 360×640, returning them costs eager torch two thirds of its time. This setting changes the whole process, so the command
    line makes it and the library does not. Without glibc this function does nothing.
    """
    try:
        libc = ctypes.CDLL("libc.so.6")  # an OSError on systems without it
        libc.mallopt(-3, 1 << 30)  # M_MMAP_THRESHOLD
        libc.mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD
    except (OSError, AttributeError):
        log.debug("no glibc on this system; the allocator is not changed")


def has_fast_bf16() -> bool:
    """Whether the CPU multiplies bfloat16 in hardware. Emulation is 2.6 to 16 times slower than float32."""
    return not cpu_flags().isdisjoint({"avx512_bf16", "amx_bf16"})


@cache
def cpu_flags() -> frozenset[str]:
    """Return the features of the CPU by their names on Linux; empty on other systems."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return frozenset()
    found = re.search(r"^(?:flags|Features)\s*:(.*)$", text, re.MULTILINE)
    return frozenset(found[1].split()) if found else frozenset()


def process_bytes() -> int:
    """Measure the bytes in use by this process: resident memory less the blocks that its allocator keeps for reuse; 0 if
    unknown."""
    return max(resident_bytes() - _reusable_bytes(), 0)


def resident_bytes() -> int:
    """Resident bytes of this process, including blocks that its allocator keeps for reuse; 0 if unknown."""
    return _own_bytes("VmRSS")


def peak_bytes() -> int:
    """Peak resident bytes of this process since its start or the last `forget_peak`; 0 if unknown."""
    return _own_bytes("VmHWM")


def forget_peak() -> None:
    """Reset `peak_bytes`, if the system allows it."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def _own_bytes(entry: str) -> int:
    status = Path("/proc/self/status")
    found = re.search(rf"{entry}:\s+(\d+) kB", status.read_text()) if status.exists() else None
    return int(found[1]) * 1024 if found else 0


class _MallInfo2(ctypes.Structure):
    """glibc's `struct mallinfo2`."""

    _fields_ = tuple(
        (name, ctypes.c_size_t)
        for name in (
            *("arena", "ordblks", "smblks", "hblks", "hblkhd"),
            *("usmblks", "fsmblks", "uordblks", "fordblks", "keepcost"),
        )
    )


@cache
def _mallinfo2() -> Any:
    """glibc's function of this name (2.33 and later), or None."""
    if sys.platform != "linux":
        return None
    try:
        function = ctypes.CDLL("libc.so.6").mallinfo2
    except (OSError, AttributeError):
        return None
    function.restype = _MallInfo2
    return function


def _reusable_bytes() -> int:
    function = _mallinfo2()
    return 0 if function is None else int(function().fordblks)


def environment(*, device: str = "cpu", precision: str = "fp32") -> dict[str, str | int]:
    """Versions, machine, threads, device and precision; JSON-ready, without host or user names."""
    import numpy as np
    import torch

    about: dict[str, str | int] = {
        "upframe": metadata.version("upframe"),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "system": f"{platform.system()} {platform.machine()}",
        "cpu": processor_name(),
        "threads": torch.get_num_threads(),
        "device": device,
        "precision": precision,
    }
    if device.startswith("cuda"):
        about["gpu"] = torch.cuda.get_device_name(device)
        about["cuda"] = torch.version.cuda or ""
        about["tf32"] = str(torch.backends.cudnn.allow_tf32)
    return about


def processor_name() -> str:
    """Name of the CPU model, if the system reports it."""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass  # not Linux: ask `platform`
    return platform.processor() or platform.machine()
