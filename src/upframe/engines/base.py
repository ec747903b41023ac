"""The protocol of engines, and their common decisions: which precision to use, which errors mean lack of memory."""

from __future__ import annotations

import re
from typing import Literal, Protocol, get_args

import torch
from torch import Tensor

from upframe.errors import OptionError, check_choice, check_whole
from upframe.machine import has_fast_bf16
from upframe.models.calling import channels_last as channels_last
from upframe.models.calling import padded as padded
from upframe.models.spec import ModelSpec, Place, Precision

BF16_LOSS_DB = 0.015
"""Largest PSNR loss on Set5 with which "auto" chooses bfloat16."""


def check_running(precision: object, threads: object) -> None:
    """Check the options that all engines have.

    Raises:
        OptionError: naming the option.
    """
    check_choice("precision", precision, ("auto", *get_args(Precision)))
    if threads is not None:
        check_whole("threads", threads, least=1)


class Engine(Protocol):
    """Runs one network."""

    name: str
    """A name of `engines.ENGINES`."""
    spec: ModelSpec
    device: torch.device
    precision: Precision

    @property
    def processor(self) -> str:
        """The hardware that computes, in words. Results of two processors may differ in their last bits."""
        ...

    def __call__(self, clip: Tensor, place: Place | None = None) -> Tensor:
        """Run the network on (N, T, C, H, W) in [0, 1].

        Args:
            place: Position of the clip in a larger picture; None if it is the whole. Only networks with `takes_place` in their
                spec use it.

        Raises:
            OutOfMemoryError: if this clip does not fit; a smaller one may.
        """
        ...

    def in_float32(self) -> Engine:
        """Return an engine for the same network in float32; itself if it already computes in float32."""
        ...


def choose_precision(
    spec: ModelSpec, asked: Precision | Literal["auto"], device: torch.device, *, kernels: bool = False
) -> Precision:
    """Choose the precision of a network, in torch or by upframe's kernels.

    "auto" is bfloat16 if the CPU multiplies it in hardware and the network is known to lose at most `BF16_LOSS_DB`, else
    float32.

    Raises:
        UsageError: if the network is not proven in this precision.
    """
    if asked == "auto":
        loss_db = spec.kernels_bf16_loss_db if kernels else spec.bf16_loss_db
        is_cheap = loss_db is not None and loss_db <= BF16_LOSS_DB
        return "bf16" if is_cheap and device.type == "cpu" and has_fast_bf16() else "fp32"
    if asked not in spec.precisions:
        raise OptionError("precision", asked, f"not proven for {spec.name}", f"choose from {', '.join(spec.precisions)}")
    return asked


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception means that memory ran out: torch's CPU allocator and oneDNN have no type of their own for this."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    signs = r"can't allocate memory|not enough memory|out of memory|bad_alloc|could not create a (primitive|memory)"
    return isinstance(error, RuntimeError) and re.search(signs, str(error), re.IGNORECASE) is not None
