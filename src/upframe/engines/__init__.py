"""Engines run a network on clips, and hide devices, precision and memory errors.

Every engine takes (N, T, C, H, W) in [0, 1], any size ≥ 1×1, and returns (N, T, C, s·H, s·W) float32 on the CPU.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Literal

import torch

from upframe.engines.base import BF16_LOSS_DB, Engine, choose_precision, is_out_of_memory
from upframe.engines.compiled import CompileOptions
from upframe.engines.eager import MIN_PREPARE_PX, TorchEngine, TorchOptions
from upframe.engines.graphs import GraphEngine
from upframe.engines.native import NativeEngine, obstacle
from upframe.engines.onnx_runtime import OnnxOptions
from upframe.engines.openvino_runtime import OpenVinoOptions
from upframe.engines.vulkan import VulkanOptions
from upframe.errors import MissingError, OptionError
from upframe.machine import available_memory_bytes, has_fast_bf16, keep_freed_memory, pick_device
from upframe.models.registry import Model
from upframe.models.spec import Precision

log = logging.getLogger(__name__)

__all__ = [
    "BACKENDS",
    "BF16_LOSS_DB",
    "ENGINES",
    "MIN_PREPARE_PX",
    "CompileOptions",
    "Engine",
    "EngineOptions",
    "GraphEngine",
    "NativeEngine",
    "OnnxOptions",
    "OpenVinoOptions",
    "TorchEngine",
    "TorchOptions",
    "VulkanOptions",
    "available_memory_bytes",
    "choose_precision",
    "engine_options",
    "exact",
    "has_fast_bf16",
    "is_out_of_memory",
    "keep_freed_memory",
    "make_clip_engine",
    "make_engine",
    "make_engine_as_named",
    "on_device",
    "pick_device",
]

GraphOptions = CompileOptions | OpenVinoOptions | OnnxOptions | VulkanOptions
EngineOptions = TorchOptions | GraphOptions

ENGINES = ("auto", "torch", "native", "compile", "openvino", "onnx", "vulkan")
"""Names of engines, for `engine_options`."""


_FUSED = {"auto": None, "native": True, "torch": False}

BACKENDS: dict[str, type[GraphOptions]] = {
    kind.name: kind for kind in (CompileOptions, OpenVinoOptions, OnnxOptions, VulkanOptions)
}
"""Options of engines that run graphs instead of torch; their method `backend` makes the program for that."""


def engine_options(
    engine: str, *, device: str = "auto", precision: Precision | Literal["auto"] = "auto", threads: int | None = None
) -> EngineOptions:
    """Make the options of the engine of that name.

    "auto" is torch, which starts at once and runs every network on every device, with upframe's own kernels for the networks
    that have them. "native" is the same, but logs a line if the kernels cannot be used; "torch" is torch alone.

    Raises:
        UsageError: if there is no such engine, or it does not run on the device.
    """
    if engine in _FUSED:
        return TorchOptions(device, precision, threads, fused=_FUSED[engine])
    if engine not in BACKENDS:
        raise OptionError("engine", engine, "no such engine", f"use one of {', '.join(ENGINES)}")
    options = BACKENDS[engine](precision=precision, threads=threads)
    return options if device == "auto" else on_device(options, device)


def on_device(options: GraphOptions, device: str) -> GraphOptions:
    """Return the options with another device.

    Raises:
        UsageError: if the engine does not run on it.
    """
    if isinstance(options, OnnxOptions | VulkanOptions):
        return replace(options, device=device)
    if device not in ("auto", "cpu"):
        raise OptionError("engine", options.name, f"runs on the CPU, not on {device}", "use `engine='torch'`")
    return options


def make_engine(model: Model, options: EngineOptions) -> Engine:
    """Make the engine for these options; if it is not available, torch, with a line in the log.

    Raises:
        UsageError: if the model cannot run with this device, precision or engine.
        ResourceError: if this machine does not have the device.
    """
    if isinstance(options, TorchOptions):
        hindered = "was not asked for" if options.fused is False else obstacle(model, options)
        if options.fused and hindered:
            log.warning("the native engine %s; torch runs %s", hindered, model.spec.name)
        return TorchEngine(model, options) if hindered else NativeEngine(model, options)
    try:
        return _graph_engine(model, options)
    except MissingError as error:
        log.warning("%s %s runs in torch", error, model.spec.name)
        return make_engine(model, TorchOptions("cpu", options.precision, options.threads))


def make_engine_as_named(model: Model, options: EngineOptions) -> Engine:
    """Like `make_engine`, for measuring: torch never runs under another engine's name.

    Raises:
        UsageError: also if `options` ask for kernels that cannot be used.
        MissingError: if an extra is missing.
    """
    if isinstance(options, TorchOptions) and options.fused:
        hindered = obstacle(model, options)
        if hindered:
            raise OptionError("engine", "native", hindered, "use `engine='auto'`")
    return make_engine(model, options) if isinstance(options, TorchOptions) else _graph_engine(model, options)


def _graph_engine(model: Model, options: GraphOptions) -> GraphEngine:
    if options.threads:
        torch.set_num_threads(options.threads)
    return GraphEngine(model, options, options.backend())


def make_clip_engine(model: Model, options: EngineOptions) -> TorchEngine:
    """Like `make_engine`, for video networks, which run in torch.

    Raises:
        UsageError: also for any other engine.
    """
    if not isinstance(options, TorchOptions):
        raise OptionError("engine", options.name, f"{model.spec.name} is a video network", "use `engine='torch'`")
    made = make_engine(model, options)
    assert isinstance(made, TorchEngine)
    return made


def exact(options: EngineOptions) -> EngineOptions:
    """Replace "auto" in `options` by float32 and torch, for scores that others compare with."""
    options = replace(options, precision="fp32") if options.precision == "auto" else options
    return replace(options, fused=False) if isinstance(options, TorchOptions) and options.fused is None else options
