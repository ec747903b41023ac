"""The engine `vulkan`: ncnn, on GPUs of any make that have a Vulkan driver. Needs the extra `vulkan`.

The network is written as ONNX, and pnnx converts that to ncnn's own form, for any size. Without a GPU, Mesa's software renderer
runs it, slowly.
"""

from __future__ import annotations

import logging
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor, nn

from upframe.engines import onnx_graph
from upframe.engines.base import check_running
from upframe.engines.graphs import Run, inputs, missing
from upframe.errors import ModelError, OptionError, ResourceError
from upframe.files import unnamed_file
from upframe.models.spec import ModelSpec, Precision

log = logging.getLogger(__name__)

_PARAMETERS, _WEIGHTS = "network.param", "network.bin"
_SHAPES = ((64, 80), (96, 112))  # two sizes of which no side is that of the other: pnnx then takes all sides as free
_CONVERSION_S = 600
_NO_MEMORY = -100  # ncnn's result for an allocation that failed
_KINDS = ("discrete GPU", "integrated GPU", "virtual GPU", "software renderer")  # by `GpuInfo.type`, best first
_SWITCHED_OFF = (
    *("use_fp16_packed", "use_fp16_storage", "use_fp16_arithmetic", "use_bf16_packed", "use_bf16_storage"),
    *("use_int8_packed", "use_int8_storage", "use_int8_arithmetic", "use_int8_inference"),
)
"""Everything in ncnn that computes with less than float32."""


@dataclass(frozen=True)
class VulkanOptions:
    """Options of ncnn on Vulkan."""

    name: ClassVar[str] = "vulkan"
    device: str = "auto"
    """"auto" (the first discrete GPU, else the first integrated one, and so on) or "vulkan:N"."""
    precision: Precision | Literal["auto"] = "auto"
    """"auto" is float32, the only one."""
    threads: int | None = None
    """CPU threads; None leaves the number to torch."""
    cache: Path | None = None
    """Folder for artefacts; None is the user's (`cache.default_folder`)."""

    def __post_init__(self) -> None:
        if not isinstance(self.device, str) or not re.fullmatch(r"auto|vulkan(:\d{1,3})?", self.device):
            raise OptionError("device", self.device, "the engine vulkan does not run there", "use auto, vulkan or vulkan:N")
        check_running(self.precision, self.threads)

    def backend(self) -> Vulkan:
        return Vulkan(self.device)


@dataclass(frozen=True)
class VulkanDevice:
    """A device that a driver offers."""

    index: int
    name: str
    kind: str
    """One of "discrete GPU", "integrated GPU", "virtual GPU" and "software renderer"."""


def library(asked_by: str = "`engine='vulkan'`") -> Any:
    """The module `ncnn`.

    Raises:
        MissingError: if it is missing or does not load.
    """
    try:
        import ncnn
    except Exception as error:  # a library for another system may raise anything
        raise missing(asked_by, "vulkan", error) from error
    return ncnn


def driver_devices() -> list[list[Any]]:
    """Index, name and type of each device. Call it through `probing.ask`: drivers hang and crash."""
    ncnn = library()
    found = [ncnn.get_gpu_info(index) for index in range(ncnn.get_gpu_count())]
    return [[index, one.device_name(), one.type()] for index, one in enumerate(found)]


@cache
def devices() -> tuple[VulkanDevice, ...]:
    """The devices of this machine, asked for once in a process.

    Raises:
        MissingError: if the extra is missing.
        ProbeError: if a driver hangs or crashes.
    """
    from upframe.probing import ask

    library()
    return tuple(VulkanDevice(index, name, kind_of(number)) for index, name, number in ask(driver_devices))


def kind_of(number: int) -> str:
    """Name of a type of ncnn's `GpuInfo`."""
    return _KINDS[min(number, len(_KINDS) - 1)]


def pick(name: str) -> VulkanDevice:
    """Find the device that `name` means.

    Raises:
        MissingError: if the extra is missing.
        ResourceError: if there is no such device.
    """
    from upframe.probing import ProbeError

    advice = "install its Vulkan driver (on Debian: mesa-vulkan-drivers), or use `engine='auto'`"
    try:
        found = devices()
    except ProbeError as error:
        raise ResourceError(f"`device={name!r}`", f"asking for Vulkan's devices {error}", advice) from error
    if not found:
        raise ResourceError(f"`device={name!r}`", "no Vulkan device was found", advice)
    if name == "auto":
        return min(found, key=lambda one: _KINDS.index(one.kind))
    index = int(name.partition(":")[2] or 0)
    if index >= len(found):
        shown = ", ".join(f"vulkan:{one.index} is {one.name}" for one in found)
        raise ResourceError(f"`device={name!r}`", f"there is no such device; {shown}")
    return found[index]


class Vulkan:
    """A `graphs.Backend`."""

    keeps_pixels = True
    precisions: tuple[Precision, ...] = ("fp32",)

    def __init__(self, device: str) -> None:
        self._asked = device
        self._device: VulkanDevice | None = None

    @property
    def accelerator(self) -> str | None:
        return self._picked().name

    def versions(self) -> dict[str, str]:
        library()
        self._picked()
        self.check()
        return {**onnx_graph.versions(), **{name: metadata.version(name) for name in ("ncnn", "pnnx")}}

    def check(self) -> None:
        _converter()
        onnx_graph.check("`engine='vulkan'`", "vulkan")

    def make(self, network: nn.Module, spec: ModelSpec, precision: Precision, folder: Path) -> None:
        source = folder / "network.onnx"
        source.write_bytes(onnx_graph.converted(network, spec).SerializeToString())
        shapes = [_shapes_text(network, spec, size) for size in _SHAPES]
        results = {"ncnnparam": _PARAMETERS, "ncnnbin": _WEIGHTS}
        others = ("pnnxparam", "pnnxbin", "pnnxpy", "pnnxonnx", "ncnnpy")
        given = [f"inputshape={shapes[0]}", f"inputshape2={shapes[1]}", "fp16=0"]
        given += [f"{key}={value}" for key, value in (*results.items(), *((key, f"unused.{key}") for key in others))]
        command = [_converter(), source.name, *given]
        if not _converts(command, folder) or any(not (folder / name).is_file() for name in results.values()):
            raise ModelError(spec.name, "pnnx could not convert it for Vulkan", "use `engine='auto'`, and report it")
        for path in folder.iterdir():
            if path.name not in results.values():
                path.unlink()

    def load(self, folder: Path, precision: Precision, threads: int) -> Run:
        device = self._picked()
        if device.kind == _KINDS[-1]:
            log.warning("engine vulkan: %s computes on the CPU; `engine='auto'` is faster there", device.name)
        return runner(folder, device.index, threads)

    def _picked(self) -> VulkanDevice:
        if self._device is None:
            self._device = pick(self._asked)
        return self._device


def runner(folder: Path, index: int, threads: int) -> Run:
    """Load the files in `folder` onto a device."""
    ncnn = library()
    with _quiet():
        ncnn.create_gpu_instance()
        net = ncnn.Net()
        net.opt.use_vulkan_compute = True
        net.opt.num_threads = threads
        for name in _SWITCHED_OFF:
            setattr(net.opt, name, False)
        net.set_vulkan_device(index)
        if net.load_param(str(folder / _PARAMETERS)) or net.load_model(str(folder / _WEIGHTS)):
            raise ModelError(folder, "ncnn could not load the converted network", "delete the folder")

    def run(given: Sequence[Tensor]) -> Tensor:
        # ncnn has no batches: a frame is (C, H, W).
        arrays = [(tensor[0] if tensor.dim() == 4 else tensor).contiguous().numpy() for tensor in given]
        with net.create_extractor() as extractor:
            for number, array in enumerate(arrays):
                extractor.input(f"in{number}", ncnn.Mat(array).clone())  # its own memory is aligned
            result, made = extractor.extract("out0")
            if result == _NO_MEMORY:
                raise MemoryError("the device has no memory left")
            if result:
                raise ResourceError("engine vulkan", f"the device failed (ncnn: {result})", "use `engine='auto'`")
            return torch.from_numpy(np.array(made))[None]

    return run


def _converter() -> str:
    """Path of the program pnnx.

    Raises:
        MissingError: if it is missing.
    """
    try:
        import pnnx
    except Exception as error:  # a library for another system may raise anything
        raise missing("`engine='vulkan'`", "vulkan", error) from error
    return str(pnnx.EXEC_PATH)


def _converts(command: Sequence[str], folder: Path) -> bool:
    """Run pnnx in a folder; whether it ended well."""
    try:
        done = subprocess.run(  # noqa: S603 (the program of the package pnnx)
            command, cwd=folder, capture_output=True, text=True, errors="replace", timeout=_CONVERSION_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:  # it does not start, or hangs
        log.debug("pnnx: %s", error)
        return False
    log.debug("pnnx: %s%s", done.stdout, done.stderr)
    return done.returncode == 0


def _shapes_text(network: nn.Module, spec: ModelSpec, size: tuple[int, int]) -> str:
    """Shapes of the graph's inputs as pnnx reads them: [1,3,64,80]f32,[64,9]f32."""
    given = inputs(network, spec, torch.zeros(1, spec.channels, *size), None)
    return ",".join(f"[{','.join(map(str, tensor.shape))}]f32" for tensor in given)


@contextmanager
def _quiet() -> Iterator[None]:
    """Send to the log what ncnn writes on standard error about every device it finds."""
    sys.stderr.flush()
    kept = os.dup(2)
    with unnamed_file() as caught:
        os.dup2(caught.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(kept, 2)
            os.close(kept)
            caught.seek(0)
            log.debug("ncnn: %s", caught.read().decode(errors="replace"))
