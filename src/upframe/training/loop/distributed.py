"""Train one network in several processes: shared values, and work that only the first process does.

`torchrun` (or any launcher that sets its variables) starts the processes. Without it there is one process, and everything here
costs nothing. DistributedDataParallel averages the gradients, over NCCL between GPUs and over gloo between CPUs.
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
from upframe.errors import OptionError, UpframeError, UsageError

log = logging.getLogger(__name__)

T = TypeVar("T")

_PATIENCE = timedelta(hours=2)
"""How long the other processes wait for the first one, which validates and writes alone. If a process dies, torchrun notices at
once and ends the others."""


class FirstProcessError(UpframeError):
    """The first process failed and reported why. The other processes raise this and stop with its exit code."""

    def __init__(self, rank: int, error: UpframeError) -> None:
        super().__init__(f"process {rank}", f"stopped because the first process failed: {error}")
        self.exit_code = error.exit_code  # type: ignore[misc] # of this error alone, not of the class


@dataclass(frozen=True)
class Ranks:
    """This process and the number of processes in the run."""

    rank: int
    world: int
    device: torch.device

    @property
    def is_first(self) -> bool:
        """Whether this process writes the run folder, the log and the progress."""
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
            reported = (
                error if isinstance(error, UpframeError) else UpframeError("training", f"{type(error).__name__}: {error}")
            )
            dist.broadcast_object_list([reported], src=0)
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
        """Return the samples of one forward pass in this process, if `batch` is divided over processes and `accumulate` passes.

        Raises:
            OptionError: if `batch` is not a multiple of processes times passes.
        """
        parts = self.world * accumulate
        if batch % parts:
            raise OptionError(
                "batch",
                batch,
                f"cannot be divided over {self.world} process(es) and {accumulate} part(s)",
                f"use a multiple of {parts}",
            )
        return batch // parts

    def wrapped(self, module: nn.Module) -> nn.Module:
        """Wrap `module` so that backward passes average gradients over the processes; return it as it is if there is one
        process."""
        if self.world == 1 or not any(p.requires_grad for p in module.parameters()):
            return module
        ids = [self.device.index or 0] if self.device.type == "cuda" else None
        with warnings.catch_warnings():
            # Not every torch version that upframe supports has its successor.
            warnings.filterwarnings("ignore", message="`broadcast_buffers` is deprecated", category=FutureWarning)
            # Buffers are constants or follow from the weights in the same way in every process, so sending them gains nothing.
            return DistributedDataParallel(module, device_ids=ids, broadcast_buffers=False, gradient_as_bucket_view=True)


@contextmanager
def joined(device: str = "auto") -> Iterator[Ranks]:
    """Join the process group of the run, and leave it at the end.

    Args:
        device: As `engines.pick_device`; with "auto" or "cuda", every process on a machine uses its own GPU.

    Raises:
        UsageError: if the launcher's variables are incomplete, or `device` is one GPU for several processes.
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
    """Return the device of process `local_rank` on this machine."""
    chosen = pick_device(device)
    if chosen.type == "mps":
        raise OptionError("device", device, "serves one process", "use `device='cpu'`, or one process")
    if chosen.type != "cuda":
        return chosen
    if chosen.index is not None:
        raise OptionError("device", device, f"is one GPU for {processes} processes", "use `device='cuda'`: each uses its own")
    return pick_device(f"cuda:{local_rank}")


def _number(variable: str, otherwise: int) -> int:
    text = os.environ.get(variable, "")
    if text and not text.isdigit():
        raise UsageError(f"{variable}={text}", "is not a number", "start the processes with torchrun")
    return int(text or otherwise)
