"""What a measurement ran on, recorded beside every score and every time."""

from __future__ import annotations

import platform
from importlib import metadata
from pathlib import Path

import numpy as np
import torch


def environment(*, device: str = "cpu", precision: str = "fp32") -> dict[str, str | int]:
    """Versions, machine, threads, device and precision; JSON-ready, without host or user names."""
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
    """The CPU as its maker calls it, where the system tells."""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass  # not Linux: platform knows instead
    return platform.processor() or platform.machine()
