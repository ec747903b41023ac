"""Engines run a network: clip in, clip out, with device, precision and memory faults hidden.

Every engine takes (N, T, C, H, W) in [0, 1], any size ≥ 1×1, and returns (N, T, C, s·H, s·W) float32 on the CPU.
"""

from __future__ import annotations

from dataclasses import replace

from upframe.engines.base import BF16_LOSS_DB, Engine, choose_precision, is_out_of_memory
from upframe.engines.eager import MIN_PREPARE_PX, TorchEngine, TorchOptions
from upframe.engines.machine import available_memory_bytes, has_fast_bf16, keep_freed_memory, pick_device
from upframe.models import Model

__all__ = [
    "BF16_LOSS_DB",
    "MIN_PREPARE_PX",
    "Engine",
    "EngineOptions",
    "TorchEngine",
    "TorchOptions",
    "available_memory_bytes",
    "choose_precision",
    "exact",
    "has_fast_bf16",
    "is_out_of_memory",
    "keep_freed_memory",
    "make_clip_engine",
    "make_engine",
    "pick_device",
]

EngineOptions = TorchOptions


def make_engine(model: Model, options: EngineOptions) -> Engine:
    """The engine that these options are for.

    Raises:
        UsageError: for a device or precision that the model cannot be run with.
        ResourceError: for a device that is not there.
    """
    return TorchEngine(model, options)


def make_clip_engine(model: Model, options: EngineOptions) -> TorchEngine:
    """`make_engine` for networks that take clips."""
    return TorchEngine(model, options)


def exact(options: EngineOptions) -> EngineOptions:
    """`options` with float32 in place of a precision chosen by itself, for scores that others compare with."""
    return replace(options, precision="fp32") if options.precision == "auto" else options
