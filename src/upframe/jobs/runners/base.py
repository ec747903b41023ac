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

    Its result and what it writes follow from the task alone.
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
            on_frame: Called as frames are finished; what it raises ends the task.
            cancel: When set, the task ends soon with `Cancelled`.
        """
        ...


class Runner(Protocol):
    """Carries out tasks."""

    in_process: bool
    """Whether functions run in this process, so that devices and caches here are those that they use."""

    def map(
        self,
        function: Function[T, S, R],
        tasks: Iterable[T],
        *,
        on_frame: Callable[[S], None] | None = None,
        cancel: threading.Event | None = None,
    ) -> Generator[R, None, None]:
        """The results of `function` for `tasks`, in order, each as soon as it and those before it are there.

        Tasks are taken from the iterable as there is room to run them. Closing the generator gives up what is not done.

        Args:
            on_frame: Called in this process with what the function says as frames are finished, by runners that can tell;
                others say nothing before a result.
            cancel: When set, tasks end soon.

        Raises:
            Cancelled: when `cancel` was set.
            Exception: what the function raised for a task, once the results before it were given.
        """
        ...
