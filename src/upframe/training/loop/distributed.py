"""Several processes that train one network: shared values, and work that only the first process does.

`torchrun` (or any launcher that sets its variables) starts the processes; without it there is one, and everything here
costs nothing. Gradients are averaged by DistributedDataParallel over NCCL between GPUs, over gloo between CPUs.
"""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from upframe.engines import pick_device
from upframe.errors import UpframeError, UsageError

log = logging.getLogger(__name__)

T = TypeVar("T")

_PATIENCE = timedelta(hours=2)
"""How long the others wait for the first process, which validates and writes alone. A process that died is noticed at
once by torchrun, which ends the others."""


class FirstProcessError(UpframeError):
    """Raised in the other processes when the first failed and reported why; they stop with its exit code."""

    def __init__(self, rank: int, error: UpframeError) -> None:
        super().__init__(f"process {rank}", f"stopped because the first process did: {error}")
        self.exit_code = error.exit_code  # type: ignore[misc] # of this one error: the class has none of its own


@dataclass(frozen=True)
class Ranks:
    """This process among those of the run."""

    rank: int
    world: int
    device: torch.device

    @property
    def is_first(self) -> bool:
        """Whether this process writes: run folder, log, progress."""
        return self.rank == 0

    def mean(self, values: Tensor) -> Tensor:
        """The mean of `values` over the processes, on this device."""
        if self.world > 1:
            dist.all_reduce(values)
            values /= self.world
        return values

    def gather(self, value: T) -> list[T]:
        """`value` of every process, in the order of their ranks."""
        if self.world == 1:
            return [value]
        values: list[Any] = [None] * self.world
        dist.all_gather_object(values, value)
        return cast("list[T]", values)

    def on_first(self, work: Callable[[], T]) -> T:
        """Run `work` on the first process only, while the others wait, and return its result on all of them.

        Raises:
            FirstProcessError: on the other processes, when `work` fails on the first.
        """
        if self.world == 1:
            return work()
        if not self.is_first:
            outcome: list[Any] = [None]
            dist.broadcast_object_list(outcome, src=0)
            if isinstance(outcome[0], UpframeError):
                raise FirstProcessError(self.rank, outcome[0])
            return cast("T", outcome[0])
        try:
            result = work()
        except Exception as error:
            told = error if isinstance(error, UpframeError) else UpframeError("training", f"{type(error).__name__}: {error}")
            dist.broadcast_object_list([told], src=0)
            raise
        dist.broadcast_object_list([result], src=0)
        return result

    def together(self, work: Callable[[], T]) -> T:
        """Run `work` on every process and return its result. Only the first process reports its errors.

        Raises:
            FirstProcessError: on the other processes, when `work` fails on the first.
        """
        if self.world == 1:
            return work()
        failed: UpframeError | None = None
        try:
            result = work()
        except UpframeError as error:
            failed = error
        self.on_first(lambda: failed)  # the others raise it if it is an error
        if failed is not None:
            raise failed
        return result

    def share(self, batch: int, *, accumulate: int) -> int:
        """Samples of one forward pass here, when `batch` is divided over processes and `accumulate` passes.

        Raises:
            UsageError: when it does not divide.
        """
        parts = self.world * accumulate
        if batch % parts:
            raise UsageError(
                f"batch={batch}",
                f"cannot be divided over {self.world} process(es) and {accumulate} part(s)",
                f"use a multiple of {parts}",
            )
        return batch // parts

    def wrapped(self, module: nn.Module) -> nn.Module:
        """`module` so that backward passes average gradients over the processes; itself when there is one."""
        if self.world == 1 or not any(p.requires_grad for p in module.parameters()):
            return module
        ids = [self.device.index or 0] if self.device.type == "cuda" else None
        with warnings.catch_warnings():
            # Its successor is not in every torch that we run with.
            warnings.filterwarnings("ignore", message="`broadcast_buffers` is deprecated", category=FutureWarning)
            # Buffers are constants or follow from the weights alike in every process, so nothing is gained by sending them.
            return DistributedDataParallel(module, device_ids=ids, broadcast_buffers=False, gradient_as_bucket_view=True)


@contextmanager
def joined(device: str = "auto") -> Iterator[Ranks]:
    """Join the other processes of the run, and leave them at the end.

    Args:
        device: As `engines.pick_device`; with "auto" or "cuda" every process on a machine takes a GPU of its own.

    Raises:
        UsageError: when the launcher's variables are incomplete, or a GPU is named for several processes.
        ResourceError: if the device does not exist.
    """
    world = _number("WORLD_SIZE", 1)
    if world == 1:
        chosen = pick_device(device)
        if chosen.type == "cuda":
            torch.cuda.set_device(chosen)
        yield Ranks(0, 1, chosen)
        return
    for name in ("RANK", "MASTER_ADDR", "MASTER_PORT"):
        if name not in os.environ:
            raise UsageError(f"WORLD_SIZE={world}", f"{name} is not set", "start the processes with torchrun")
    chosen = _own_device(device, _number("LOCAL_RANK", 0), _number("LOCAL_WORLD_SIZE", 1))
    on_gpu = chosen.type == "cuda"
    if on_gpu:
        torch.cuda.set_device(chosen)
    dist.init_process_group("nccl" if on_gpu else "gloo", timeout=_PATIENCE, device_id=chosen if on_gpu else None)
    try:
        ranks = Ranks(dist.get_rank(), dist.get_world_size(), chosen)
        log.info("process %d of %d on %s", ranks.rank + 1, ranks.world, chosen)
        yield ranks
    finally:
        dist.destroy_process_group()


def _own_device(device: str, local_rank: int, processes: int) -> torch.device:
    """The device of one of the processes on this machine."""
    chosen = pick_device(device)
    if chosen.type == "mps":
        raise UsageError("--device mps", "serves one process", "use --device cpu, or one process")
    if chosen.type != "cuda":
        return chosen
    if chosen.index is not None:
        raise UsageError(f"--device {device}", f"one GPU for {processes} processes", "use --device cuda: each takes its own")
    return pick_device(f"cuda:{local_rank}")


def _number(variable: str, otherwise: int) -> int:
    text = os.environ.get(variable, "")
    if text and not text.isdigit():
        raise UsageError(f"{variable}={text}", "is no number", "start the processes with torchrun")
    return int(text or otherwise)
