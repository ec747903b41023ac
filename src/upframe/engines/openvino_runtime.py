"""The engine `openvino`: Intel's runtime, for any x86 and ARM CPU. Needs the extra `openvino`."""

from __future__ import annotations

import sys
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
from upframe.machine import has_fast_bf16
from upframe.models.spec import ModelSpec, Precision

_FILE = "network.xml"


@dataclass(frozen=True)
class OpenVinoOptions:
    """Options of OpenVINO."""

    name: ClassVar[str] = "openvino"
    device: ClassVar[str] = "cpu"
    precision: Precision | Literal["auto"] = "auto"
    """"auto" is float32: OpenVINO's bfloat16 rounds pixels as well, which costs more than others' (docs/speed.md)."""
    threads: int | None = None
    """CPU threads; None leaves the number to torch."""
    cache: Path | None = None
    """Folder for artefacts; None is the user's (`cache.default_folder`)."""

    def __post_init__(self) -> None:
        check_running(self.precision, self.threads)

    def backend(self) -> OpenVino:
        return OpenVino()


def library(asked_by: str = "`engine='openvino'`") -> Any:
    """The library.

    Raises:
        MissingError: if it is missing or does not load.
    """
    # On import, OpenVINO reports to its makers over the network; without this package it does not.
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type] # None is how to say "not to be found"
    try:
        import openvino
    except Exception as error:  # a library for another system may raise anything
        raise missing(asked_by, "openvino", error) from error
    return openvino


def converted(network: nn.Module, spec: ModelSpec, *, with_place: bool = True) -> Any:
    """Convert the network, float32, to OpenVINO's own model."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # warnings of the converter about torch's internals
        return library().convert_model(trace(network, spec, with_place=with_place))


def runner(model: Any, precision: Precision, threads: int) -> Run:
    """Load a model, or the path of one, to run it."""
    hints = {
        # Without this hint OpenVINO uses bfloat16 on every CPU that has it, with an error of 3e-3.
        "INFERENCE_PRECISION_HINT": "bf16" if precision == "bf16" else "f32",
        "INFERENCE_NUM_THREADS": threads,
        "PERFORMANCE_HINT": "LATENCY",
    }
    compiled = library().Core().compile_model(model, "CPU", hints)

    def run(given: Sequence[Tensor]) -> Tensor:
        # Graphs take float32; the hint decides the precision inside.
        return torch.from_numpy(compiled([tensor.float().contiguous().numpy() for tensor in given])[0].copy())

    return run


class OpenVino:
    """A `graphs.Backend`."""

    keeps_pixels = False
    accelerator: str | None = None

    @property
    def precisions(self) -> tuple[Precision, ...]:
        return ("fp32", "bf16") if has_fast_bf16() else ("fp32",)  # other CPUs would silently compute in float32

    def versions(self) -> dict[str, str]:
        library()
        return {"torch": torch.__version__, "openvino": metadata.version("openvino")}

    def check(self) -> None:
        library()

    def make(self, network: nn.Module, spec: ModelSpec, precision: Precision, folder: Path) -> None:
        library().save_model(converted(network, spec), folder / _FILE, compress_to_fp16=False)

    def load(self, folder: Path, precision: Precision, threads: int) -> Run:
        return runner(folder / _FILE, precision, threads)
