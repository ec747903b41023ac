"""Questions that a driver or a library answers, each asked by `probing.ask` in its own process.

They return what JSON can carry. Each imports only what it asks: torch alone takes two seconds to load.
"""

from __future__ import annotations

KNOWN = (0.498932, 0.750049, 0.466704, 0.439656)
"""Result of `self_test` with the shipped weights of photo-x2, in float32; new weights need new values."""
ROUNDING = 1e-4
"""Largest difference of a sound machine: sums in other orders make 1e-6."""

_NETWORK = "photo-x2"
_SIDE = 40
_PLACES = ((0, 5, 7), (1, 40, 50), (2, 63, 63))  # (channel, row, column)


def torch_devices() -> list[str]:
    """Names of torch's devices besides the CPU."""
    import torch

    found = [f"cuda:{n} {torch.cuda.get_device_name(n)}" for n in range(torch.cuda.device_count())]
    return found + (["mps"] if torch.backends.mps.is_available() else [])


def onnx_devices() -> list[str]:
    """Devices of the installed ONNX Runtime."""
    from upframe.engines import onnx_runtime

    available = onnx_runtime.library().get_available_providers()
    return [name for name, provider in onnx_runtime.PROVIDERS.items() if provider in available]


def encoder_faults() -> dict[str, str | None]:
    """Why each codec cannot be written here; None for those that can."""
    from upframe.media.video.hardware import ENCODERS
    from upframe.media.video.trial import encoder_fault

    return {name: encoder_fault(name) for name in ENCODERS}


def kernel_level() -> str | None:
    """The instruction set of the kernels that this machine uses; None without kernels."""
    from upframe import kernels

    return next((level for level in kernels.LIBRARIES if kernels.library(level) is not None), None)


def self_test() -> dict[str, list[float]]:
    """Enlarge a picture by torch and, where they run here, by the kernels: the mean of each result, and three of its values."""
    import torch

    from upframe.engines import NativeEngine, TorchEngine, TorchOptions
    from upframe.engines.native import obstacle
    from upframe.models.registry import load

    model = load(_NETWORK)
    rows, columns = torch.meshgrid(torch.arange(_SIDE), torch.arange(_SIDE), indexing="ij")
    waves = [torch.sin(rows * 0.9) * torch.cos(columns * step) / 2 + 0.5 for step in (0.3, 0.7, 1.1)]
    options = TorchOptions("cpu", "fp32")
    engines = [TorchEngine(model, options)]
    if obstacle(model, options) is None:
        engines.append(NativeEngine(model, options))
    made = {engine.name: engine(torch.stack(waves)[None, None])[0, 0] for engine in engines}
    return {name: [float(one.mean()), *(float(one[place]) for place in _PLACES)] for name, one in made.items()}
