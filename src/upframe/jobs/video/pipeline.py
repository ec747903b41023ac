"""Threads around a computation: one reads ahead, one writes behind, with bounded memory and no lost errors.

Decoding, the network and encoding overlap because torch, FFmpeg and zlib release the interpreter while they work.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Generator, Iterable
from types import TracebackType
from typing import Generic, Self, TypeVar

T = TypeVar("T")

_POLL_S = 0.1  # how soon a blocked thread notices that the other side has ended


class _End:
    """The last entry of a queue: the end, or the error that ended it."""

    def __init__(self, error: BaseException | None = None) -> None:
        self.error = error


def read_ahead(items: Iterable[T], *, depth: int) -> Generator[T, None, None]:
    """Yield the items of `items`, which a thread makes at most `depth` items ahead.

    An error of the iterable is raised here, after the items before it. Closing the iterator early stops the thread.
    """
    ready: queue.Queue[T | _End] = queue.Queue(maxsize=depth)
    stopped = threading.Event()

    def put(item: T | _End) -> bool:
        while not stopped.is_set():
            try:
                ready.put(item, timeout=_POLL_S)
                return True
            except queue.Full:
                continue
        return False

    def work() -> None:
        try:
            for item in items:
                if not put(item):
                    return
            put(_End())
        except BaseException as error:  # handed to the reader
            put(_End(error))

    thread = threading.Thread(target=work, name="upframe-read", daemon=True)
    thread.start()
    try:
        while True:
            item = ready.get()
            if isinstance(item, _End):
                if item.error is not None:
                    raise item.error
                return
            yield item
    finally:
        stopped.set()
        thread.join()


class WriteBehind(Generic[T]):
    """Calls `write` for each item in a thread that stays at most `depth` items behind.

    with WriteBehind(sink.write, depth=3) as behind:
        behind.put(frame)

    Leaving the block without an error waits until everything is written. An error of `write` is raised by the next `put`
    or at the end of the block. Leaving with an error drops what is not written yet.
    """

    def __init__(self, write: Callable[[T], None], *, depth: int) -> None:
        self._write = write
        self._waiting: queue.Queue[T | _End] = queue.Queue(maxsize=depth)
        self._error: BaseException | None = None
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._work, name="upframe-write", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if error is not None:
            self._stopped.set()
        else:
            self._put(_End())
        self._thread.join()
        if error is None and self._error is not None:
            raise self._error

    def put(self, item: T) -> None:
        """Queue one item; wait while `depth` items are unwritten."""
        self._put(item)
        if self._error is not None:
            raise self._error

    def _put(self, item: T | _End) -> None:
        while self._error is None:
            try:
                self._waiting.put(item, timeout=_POLL_S)
                return
            except queue.Full:
                continue

    def _work(self) -> None:
        try:
            while not self._stopped.is_set():
                try:
                    item = self._waiting.get(timeout=_POLL_S)
                except queue.Empty:
                    continue
                if isinstance(item, _End):
                    return
                self._write(item)
        except BaseException as error:  # handed to the caller
            self._error = error
