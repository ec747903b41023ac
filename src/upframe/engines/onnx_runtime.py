"""The engine `onnx`: ONNX Runtime in float32, on the CPU or on a device that the installed runtime supports.

Needs the extra `onnx`, and for a device the build of ONNX Runtime that has it, such as onnxruntime-gpu.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from upframe.engines import onnx_graph
from upframe.engines.base import check_running, is_out_of_memory
from upframe.engines.graphs import Run, missing
from upframe.errors import OptionError, ResourceError, one_line
from upframe.models.spec import ModelSpec, Precision

_FILE = "network.onnx"

PROVIDERS = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
    "openvino": "OpenVINOExecutionProvider",
    "coreml": "CoreMLExecutionProvider",
    "directml": "DmlExecutionProvider",
}
"""ONNX Runtime's name of each device."""

_PACKAGES = {
    "cuda": "onnxruntime-gpu",
    "tensorrt": "onnxruntime-gpu and TensorRT",
    "openvino": "onnxruntime-openvino",
    "coreml": "onnxruntime on a Mac",
    "directml": "onnxruntime-directml, or the runtime of Windows ML",
}
"""The build that has the device."""


@dataclass(frozen=True)
class OnnxOptions:
    """Options of ONNX Runtime."""

    name: ClassVar[str] = "onnx"
    device: str = "auto"
    """"auto" is the CPU, as "cpu"; "cuda", "tensorrt", "directml", each also with ":N", "openvino" (Intel's GPUs) or
    "coreml"."""
    precision: Precision | Literal["auto"] = "auto"
    """"auto" is float32: ONNX Runtime has no bfloat16 convolutions for CPUs."""
    threads: int | None = None
    """CPU threads; None leaves the number to torch."""
    cache: Path | None = None
    """Folder for artefacts; None is the user's (`cache.default_folder`)."""

    def __post_init__(self) -> None:
        names = r"auto|cpu|openvino|coreml|(cuda|tensorrt|directml)(:\d{1,3})?"
        if not isinstance(self.device, str) or not re.fullmatch(names, self.device):
            raise OptionError("device", self.device, "the engine onnx does not run there", f"use auto, {', '.join(PROVIDERS)}")
        check_running(self.precision, self.threads)

    def backend(self) -> Onnx:
        return Onnx(self.device)


def library(asked_by: str = "`engine='onnx'`") -> Any:
    """ONNX Runtime.

    Raises:
        MissingError: if it, or the library that writes its files, is missing or does not load.
    """
    onnx_graph.check(asked_by, "onnx")
    try:
        import onnxruntime
    except Exception as error:  # a library for another system may raise anything
        raise missing(asked_by, "onnx", error) from error
    return onnxruntime


def check_provider(device: str, available: Sequence[str]) -> None:
    """Refuse a device that is not among the providers of the installed runtime.

    Raises:
        ResourceError: naming the devices that it has, and the build that has this one.
    """
    kind = device.partition(":")[0]
    if PROVIDERS[kind] not in available:
        able = ", ".join(name for name, provider in PROVIDERS.items() if provider in available)
        happened = f"the installed ONNX Runtime has no {PROVIDERS[kind]}, only {able}"
        raise ResourceError(f"`device={device!r}`", happened, f"install {_PACKAGES[kind]}")


def runner(model: str | bytes, threads: int, device: str = "cpu", folder: Path | None = None) -> Run:
    """Load a file, or the bytes of one, to run it.

    Args:
        folder: TensorRT keeps there what it compiles.

    Raises:
        ResourceError: if the runtime does not start the device; it would compute on the CPU and say nothing.
    """
    onnxruntime = library()
    kind, _, number = device.partition(":")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    if kind == "directml":
        options.enable_mem_pattern = False  # DirectML refuses it
    wanted = [(PROVIDERS[kind], _settings(kind, int(number or 0), folder))]
    if kind == "tensorrt":  # what it cannot run goes to CUDA
        wanted.append((PROVIDERS["cuda"], _settings("cuda", int(number or 0), folder)))
    try:
        session = onnxruntime.InferenceSession(model, options, providers=wanted)
    except Exception as error:  # its exceptions have no common type of their own
        if kind == "cpu":
            raise
        raise _not_started(device, f": {one_line(str(error))[:200]}") from error
    if PROVIDERS[kind] not in session.get_providers():
        raise _not_started(device)
    names = [one.name for one in session.get_inputs()]

    def run(given: Sequence[Tensor]) -> Tensor:
        feed = {name: tensor.contiguous().numpy() for name, tensor in zip(names, given, strict=True)}
        try:
            return torch.from_numpy(session.run(None, feed)[0])
        except Exception as error:  # its exceptions have no common type of their own
            if is_out_of_memory(RuntimeError(str(error))):
                raise MemoryError(str(error)) from error
            raise

    return run


def _not_started(device: str, why: str = "") -> ResourceError:
    happened = f"{PROVIDERS[device.partition(':')[0]]} did not start{why}"
    return ResourceError(f"`device={device!r}`", happened, "check its driver and libraries, or use `device='cpu'`")


def _settings(kind: str, number: int, folder: Path | None) -> dict[str, str]:
    """Settings of a provider: float32 stays float32, and nothing is compiled twice."""
    numbered = {"device_id": str(number)}
    if kind == "cuda":
        return {**numbered, "use_tf32": "0"}
    if kind == "tensorrt":
        kept = {"trt_engine_cache_enable": "True", "trt_engine_cache_path": str(folder)} if folder else {}
        return {**numbered, **kept}
    if kind == "openvino":
        return {"device_type": "GPU"}
    return numbered if kind == "directml" else {}


class Onnx:
    """A `graphs.Backend`."""

    keeps_pixels = True
    precisions: tuple[Precision, ...] = ("fp32",)

    def __init__(self, device: str) -> None:
        self._device = "cpu" if device == "auto" else device

    @property
    def accelerator(self) -> str | None:
        return None if self._device == "cpu" else self._device

    def versions(self) -> dict[str, str]:
        runtime = library()
        check_provider(self._device, runtime.get_available_providers())
        return {**onnx_graph.versions(), "onnxruntime": runtime.__version__, "device": self._device}

    def check(self) -> None:
        library()

    def make(self, network: nn.Module, spec: ModelSpec, precision: Precision, folder: Path) -> None:
        (folder / _FILE).write_bytes(onnx_graph.converted(network, spec).SerializeToString())

    def load(self, folder: Path, precision: Precision, threads: int) -> Run:
        return runner(str(folder / _FILE), threads, self._device, folder)
