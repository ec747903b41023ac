"""The engine `onnx`: ONNX Runtime on the CPU, in float32. Needs the extra `onnx`."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from upframe.engines.base import check_running
from upframe.engines.graphs import Run, missing, trace
from upframe.models.spec import ModelSpec, Precision

_FILE = "network.onnx"


@dataclass(frozen=True)
class OnnxOptions:
    """Options of ONNX Runtime."""

    name: ClassVar[str] = "onnx"
    device: ClassVar[str] = "cpu"
    precision: Precision | Literal["auto"] = "auto"
    """"auto" is float32: ONNX Runtime has no bfloat16 convolutions for CPUs."""
    threads: int | None = None
    """CPU threads; None leaves the number to torch."""
    cache: Path | None = None
    """Folder for artefacts; None is the user's (`cache.default_folder`)."""

    def __post_init__(self) -> None:
        check_running(self.precision, self.threads)


def library(asked_by: str = "`engine='onnx'`") -> Any:
    """ONNX Runtime.

    Raises:
        MissingError: if it, or the library that writes its files, is missing or does not load.
    """
    try:
        import onnx
        import onnxruntime
        import onnxscript  # noqa: F401 (torch needs it to write ONNX)
    except Exception as error:  # a library for another system may raise anything
        raise missing(asked_by, "onnx", error) from error
    del onnx
    return onnxruntime


def converted(network: nn.Module, spec: ModelSpec, *, with_place: bool = True) -> Any:
    """Convert the network, float32, to an `onnx.ModelProto`."""
    library()
    quiet = logging.getLogger("torch.onnx")
    level = quiet.level
    quiet.setLevel(logging.ERROR)  # it mentions torchvision, which is not needed
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # warnings of the exporter about its own internals
            program = torch.onnx.export(trace(network, spec, with_place=with_place), dynamo=True, verbose=False)
    finally:
        quiet.setLevel(level)
    assert program is not None
    return program.model_proto


def runner(model: str | bytes, threads: int) -> Run:
    """Load a file, or the bytes of one, to run it."""
    onnxruntime = library()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    names = [one.name for one in session.get_inputs()]

    def run(given: Sequence[Tensor]) -> Tensor:
        feed = {name: tensor.contiguous().numpy() for name, tensor in zip(names, given, strict=True)}
        return torch.from_numpy(session.run(None, feed)[0])

    return run


class Onnx:
    """A `graphs.Backend`."""

    keeps_pixels = True
    precisions: tuple[Precision, ...] = ("fp32",)

    def versions(self) -> dict[str, str]:
        library()
        return {"torch": torch.__version__, **{name: metadata.version(name) for name in ("onnx", "onnxscript", "onnxruntime")}}

    def check(self) -> None:
        library()

    def make(self, network: nn.Module, spec: ModelSpec, precision: Precision, folder: Path) -> None:
        (folder / _FILE).write_bytes(converted(network, spec).SerializeToString())

    def load(self, folder: Path, precision: Precision, threads: int) -> Run:
        return runner(str(folder / _FILE), threads)
