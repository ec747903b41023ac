"""The local runner: one task after the other, in this process."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Iterable

from upframe.jobs.runners.base import Function, R, S, T


class LocalRunner:
    """A `Runner`. Decoding, computing and encoding overlap within a task, so one task at a time keeps the machine busy."""

    in_process = True

    def map(
        self,
        function: Function[T, S, R],
        tasks: Iterable[T],
        *,
        on_frame: Callable[[S], None] | None = None,
        cancel: threading.Event | None = None,
    ) -> Generator[R, None, None]:
        for task in tasks:
            yield function(task, on_frame=on_frame, cancel=cancel)
