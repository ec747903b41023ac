"""The loader: threads or processes prepare the batches of any step in advance. Their number does not change a bit."""

from __future__ import annotations

import multiprocessing
import multiprocessing.connection
import os
import signal
import threading
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from itertools import count, islice
from types import TracebackType
from typing import Any, Literal, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from upframe.errors import ResourceError
from upframe.training.data.samples import Batch, Sample, Source, stack

WorkerKind = Literal["thread", "process"]


class Loader:
    """Batches of the steps of a run. A context manager; `close` ends its workers.

    Sample i of step s is `source(np.random.default_rng((seed, s * batch + i)))`: it depends on nothing else. So a resumed run
    needs only the number of its step, and one process with batch 8 trains on the same samples as two with 4 each.

    Args:
        batch: Samples of one optimiser step over all processes and accumulated parts, a multiple of `world`.
        rank: Index of this process among `world`; its samples begin at `rank * batch / world`.
        workers: Threads or processes that draw samples in advance; 0 draws them in the calling thread on demand.
        kind: "thread" shares the decoded pictures and starts at once; decoding, resampling and codecs release the
            interpreter's lock. "process" is for sources that spend their time in Python.
        prefetch: Number of batches prepared in advance.

    Raises:
        ValueError: if `batch` is not a multiple of `world`, or another number is out of range.
    """

    def __init__(
        self,
        source: Source,
        *,
        batch: int,
        seed: int,
        rank: int = 0,
        world: int = 1,
        workers: int = 1,
        kind: WorkerKind = "thread",
        prefetch: int = 2,
    ) -> None:
        if batch < 1 or world < 1 or batch % world:
            raise ValueError(f"a batch of {batch} cannot be shared by {world} processes")
        if not 0 <= rank < world:
            raise ValueError(f"rank {rank} of {world}")
        if workers < 0 or prefetch < 1:
            raise ValueError(f"{workers} workers, {prefetch} batches ahead")
        self.batch, self.rank, self.world = batch, rank, world
        self._source, self._seed = source, seed
        self._workers, self._kind, self._prefetch = workers, kind, prefetch
        self._executor: Executor | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def batches(self, first: int, last: int | None = None) -> Iterator[Batch]:
        """Yield this process's share of the batches of steps `first` to `last` - 1, or without end.

        Raises:
            InputError: if a file is missing or damaged; the message names it.
            ResourceError: if a worker process was killed.
        """
        share = self.batch // self.world
        steps = count(first) if last is None else range(first, last)
        numbers = (step * self.batch + self.rank * share + i for step in steps for i in range(share))
        pending: deque[_Pending] = deque()
        try:
            while True:
                ahead = max(self._prefetch * share if self._workers else 0, share)
                pending.extend(self._submit(number) for number in islice(numbers, ahead - len(pending)))
                if not pending:
                    return
                yield stack([self._take(pending.popleft()) for _ in range(share)])
        finally:
            for one in pending:
                if isinstance(one, Future):
                    one.cancel()

    def close(self) -> None:
        """End the workers after their current samples. Nothing keeps running; closing twice is allowed."""
        executor, self._executor = self._executor, None
        if executor is not None:
            executor.shutdown(wait=True, cancel_futures=True)

    def _submit(self, number: int) -> _Pending:
        if not self._workers:
            return number
        try:
            if self._kind == "thread":
                self._executor = self._executor or ThreadPoolExecutor(self._workers, thread_name_prefix="upframe-data")
                return self._executor.submit(_draw, self._source, self._seed, number)
            self._executor = self._executor or _processes(self._workers, self._source, self._seed)
            return self._executor.submit(_draw_packed, number)
        except BrokenProcessPool as error:
            raise _worker_died() from error

    def _take(self, pending: _Pending) -> Sample:
        try:
            drawn = _draw(self._source, self._seed, pending) if isinstance(pending, int) else pending.result()
        except BrokenProcessPool as error:
            raise _worker_died() from error
        return drawn if isinstance(drawn, Sample) else Sample(_unpack(drawn[0]), _unpack(drawn[1]))


Packed = tuple[NDArray[Any], bool]
_Pending = int | Future[Sample] | Future[tuple[Packed, Packed]]


def _draw(source: Source, seed: int, number: int) -> Sample:
    return source(np.random.default_rng((seed, number)))


def _worker_died() -> ResourceError:
    return ResourceError(
        "training data",
        "a worker process ended unexpectedly, most likely for lack of memory",
        "use fewer workers, or workers of kind thread",
    )


# Worker processes -----------------------------------------------------------------------------------------------------
_drawn_from: tuple[Source, int] | None = None
"""Source and seed of this worker process."""


def _processes(workers: int, source: Source, seed: int) -> ProcessPoolExecutor:
    # Not fork: torch has threads in the parent, and a lock held by one of them would never open in the child.
    has_server = "forkserver" in multiprocessing.get_all_start_methods()
    context = multiprocessing.get_context("forkserver" if has_server else "spawn")
    if has_server:
        context.set_forkserver_preload([__name__])  # the server imports torch once, instead of each worker
    return ProcessPoolExecutor(workers, mp_context=context, initializer=_begin_worker, initargs=(source, seed))


def _begin_worker(source: Source, seed: int) -> None:
    global _drawn_from  # noqa: PLW0603 (the state of a worker process; an executor offers no other place)
    _drawn_from = source, seed
    torch.set_num_threads(1)  # the workers are the parallelism
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent ends the workers
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """End this worker when its parent is killed; otherwise it would wait for work for ever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        multiprocessing.connection.wait([parent.sentinel])
        os._exit(1)


def _draw_packed(number: int) -> tuple[Packed, Packed]:
    assert _drawn_from is not None
    sample = _draw(*_drawn_from, number)
    return _pack(sample.lq), _pack(sample.gt)


def _pack(x: Tensor) -> Packed:
    """Convert to bytes if this is exact, for a quarter of the traffic between processes."""
    codes = (x * 255).round().clamp(0, 255).to(torch.uint8)
    exact = torch.equal(codes.float() / 255, x)
    return (codes if exact else x).numpy(), exact


def _unpack(packed: Packed) -> Tensor:
    array, is_bytes = packed
    x = torch.from_numpy(array)
    return x.float() / 255 if is_bytes else x
