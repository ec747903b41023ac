"""Networks as ONNX: the form that ONNX Runtime runs, that Vulkan's networks are made from, and that users export."""

from __future__ import annotations

import logging
import warnings
from importlib import metadata
from typing import Any

import torch
from torch import nn

from upframe.engines.graphs import missing, trace
from upframe.models.spec import ModelSpec


def check(asked_by: str, extra: str) -> None:
    """Check that torch can write ONNX here.

    Raises:
        MissingError: if a library for it is missing or does not load; it names the extra.
    """
    try:
        import onnx
        import onnxscript  # noqa: F401 (torch needs it to write ONNX)
    except Exception as error:  # a library for another system may raise anything
        raise missing(asked_by, extra, error) from error
    del onnx


def versions() -> dict[str, str]:
    """Return the versions of everything that writes the graph."""
    return {"torch": torch.__version__, **{name: metadata.version(name) for name in ("onnx", "onnxscript")}}


def converted(network: nn.Module, spec: ModelSpec, *, with_place: bool = True) -> Any:
    """Convert the network, float32, to an `onnx.ModelProto`."""
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
