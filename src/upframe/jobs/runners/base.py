"""The contract of runners, which carry out tasks here or elsewhere."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Iterable
from typing import Protocol, TypeVar

TaskType = TypeVar("TaskType", contravariant=True)
StepType = TypeVar("StepType", covariant=True)
ResultType = TypeVar("ResultType", covariant=True)
T = TypeVar("T")
S = TypeVar("S")
R = TypeVar("R")


class Function(Protocol[TaskType, StepType, ResultType]):
    """Work that any process can do: a function of a module, whose task and result can be pickled.

    The result and the files that it writes depend on the task alone.
    """

    def __call__(
        self,
        task: TaskType,
        *,
        on_frame: Callable[[StepType], None] | None = None,
        cancel: threading.Event | None = None,
    ) -> ResultType:
        """Do one task.

        Args:
            on_frame: Called as frames are finished; an exception from it ends the task.
            cancel: Once it is set, the task soon raises `Cancelled`.
        """
        ...


class Runner(Protocol):
    """Carries out tasks."""

    in_process: bool
    """Whether functions run in this process and use its devices and caches."""

    def map(
        self,
        function: Function[T, S, R],
        tasks: Iterable[T],
        *,
        on_frame: Callable[[S], None] | None = None,
        cancel: threading.Event | None = None,
    ) -> Generator[R, None, None]:
        """Yield the results of `function` for `tasks`, in order, each as soon as it and all earlier ones are ready.

        A task is taken from the iterable when a worker is free. Closing the generator abandons unfinished tasks.

        Args:
            on_frame: Called in this process with the function's reports as frames are finished, if the runner can forward them.
                Other runners report nothing before a result.
            cancel: Once it is set, tasks soon end.

        Raises:
            Cancelled: if `cancel` was set.
            Exception: the exception that the function raised for a task, after all earlier results were yielded.
        """
        ...
