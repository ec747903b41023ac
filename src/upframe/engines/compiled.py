"""The engine `compile`: torch's own compiler (AOTInductor) compiles the network ahead of time and keeps it for later runs.

It needs g++ or another C++ compiler for the first run, and no library besides torch.
"""

from __future__ import annotations

import copy
import logging
import os
import shutil
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from upframe.engines.base import check_running
from upframe.engines.graphs import Run, trace
from upframe.errors import MissingError
from upframe.models.layers import reduced
from upframe.models.spec import ModelSpec, Precision

_FILE = "network.pt2"


@dataclass(frozen=True)
class CompileOptions:
    """Options of a compiled network."""

    name: ClassVar[str] = "compile"
    device: ClassVar[str] = "cpu"
    precision: Precision | Literal["auto"] = "auto"
    """As in `TorchOptions`."""
    threads: int | None = None
    """CPU threads; None leaves the number to torch. The artefact is made for this number."""
    cache: Path | None = None
    """Folder for artefacts; None is the user's (`cache.default_folder`)."""

    def __post_init__(self) -> None:
        check_running(self.precision, self.threads)

    def backend(self) -> Compiled:
        return Compiled()


class Compiled:
    """A `graphs.Backend`."""

    keeps_pixels = True
    accelerator: str | None = None
    precisions: tuple[Precision, ...] = ("fp32", "bf16")

    def versions(self) -> dict[str, str]:
        return {"torch": torch.__version__}

    def check(self) -> None:
        compiler = os.environ.get("CXX") or ("cl" if os.name == "nt" else "g++")
        if not any(shutil.which(name) for name in (compiler, "clang++")):
            raise MissingError("`engine='compile'`", f"needs a C++ compiler, but {compiler} is not installed", "install one")

    def make(self, network: nn.Module, spec: ModelSpec, precision: Precision, folder: Path) -> None:
        from torch._inductor import aoti_compile_and_package

        if precision == "bf16":
            network = reduced(copy.deepcopy(network), torch.bfloat16)
        program = trace(network, spec)
        with warnings.catch_warnings(), _quiet("torch._inductor", "torch._export"):
            warnings.simplefilter("ignore")  # warnings of the compiler about its own internals
            # Freezing folds the weights into the layouts that the kernels want.
            aoti_compile_and_package(program, package_path=str(folder / _FILE), inductor_configs={"freezing": True})

    def load(self, folder: Path, precision: Precision, threads: int) -> Run:
        from torch._inductor import aoti_load_package

        network = aoti_load_package(str(folder / _FILE))

        def run(given: Sequence[Tensor]) -> Tensor:
            return network(*given)  # type: ignore[no-any-return]

        return run


class _quiet:  # noqa: N801 (used like a function)
    """Silences loggers of libraries below errors."""

    def __init__(self, *names: str) -> None:
        self._loggers = [logging.getLogger(name) for name in names]

    def __enter__(self) -> None:
        self._levels = [logger.level for logger in self._loggers]
        for logger in self._loggers:
            logger.setLevel(logging.ERROR)

    def __exit__(self, *_: object) -> None:
        for logger, level in zip(self._loggers, self._levels, strict=True):
            logger.setLevel(level)
