"""A runner whose tasks run in fresh processes, as those of another machine would."""

from __future__ import annotations

import multiprocessing
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ProcessPoolExecutor
from typing import Self

import torch

from upframe.errors import Cancelled
from upframe.jobs.runners.base import Function, R, S, T


class SpawnRunner:
    """A `Runner`: nothing but tasks and results goes between the processes. It tells nothing before a result."""

    in_process = False

    def __init__(self, processes: int = 1) -> None:
        self._processes = processes
        context = multiprocessing.get_context("spawn")
        self._pool = ProcessPoolExecutor(processes, mp_context=context, initializer=torch.set_num_threads, initargs=(1,))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(cancel_futures=True)

    def map(
        self,
        function: Function[T, S, R],
        tasks: Iterable[T],
        *,
        on_frame: Callable[[S], None] | None = None,
        cancel: threading.Event | None = None,
    ) -> Generator[R, None, None]:
        waiting: deque[Future[R]] = deque()
        left = iter(tasks)
        try:
            while True:
                if cancel is not None and cancel.is_set():
                    raise Cancelled("tasks", "stopped on request")
                while len(waiting) <= self._processes and (task := next(left, None)) is not None:
                    waiting.append(self._pool.submit(function, task))
                if not waiting:
                    return
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
