"""Torch with upframe's own kernels (native_modules.py) for modules that declare a kernel form."""

from __future__ import annotations

import copy
from dataclasses import replace

from upframe.engines.base import Engine, choose_precision
from upframe.engines.eager import TorchEngine, TorchOptions
from upframe.engines.native_modules import in_bf16, library, replace_in, suits
from upframe.kernels import NEEDS
from upframe.machine import cpu_flags, pick_device
from upframe.models.registry import Model
from upframe.models.spec import Precision

_FLAGS: dict[Precision, frozenset[str]] = {
    "fp32": NEEDS["avx2"],
    "bf16": NEEDS["avx512"] | {"avx512_bf16"},
}


def obstacle(model: Model, options: TorchOptions) -> str | None:
    """The reason why the kernels cannot run a model; None if they can.

    Raises:
        UsageError: if the network is not proven in this precision, or `device` is not the name of a device.
        ResourceError: if this machine does not have the device.
    """
    device = pick_device(options.device)
    if device.type != "cpu":
        return f"runs on the CPU, not on {device.type}"
    if not suits(model.network):
        return f"has no kernels for {model.spec.name}"
    precision = choose_precision(model.spec, options.precision, device, kernels=True)
    needed = _FLAGS.get(precision)
    if needed is None:
        return f"does not compute in {precision}"
    if not needed <= cpu_flags():
        return f"needs a CPU with {', '.join(sorted(needed - cpu_flags()))} for {precision}"
    if library() is None or (precision == "bf16" and not in_bf16()):
        return "was not built when upframe was installed; reinstall it with a C++ compiler (g++) at hand"
    return None


class NativeEngine(TorchEngine):
    """Torch, with kernels in place of the modules that have them."""

    name = "native"
    by_kernels = True

    def __init__(self, model: Model, options: TorchOptions) -> None:
        """The model and options must be such that `obstacle` finds none."""
        super().__init__(replace(model, network=copy.deepcopy(model.network)), options)
        self._model = model
        replace_in(self._network, model.network, self.precision)

    def in_float32(self) -> Engine:
        if self.precision == "fp32":
            return self
        if self._float32 is None:
            options = replace(self.options, precision="fp32")
            fits = obstacle(self._model, options) is None
            self._float32 = (NativeEngine if fits else TorchEngine)(self._model, options)
        return self._float32
