"""Reading ahead and writing behind: order, bounds, errors, and no thread left over."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from upframe.jobs.video.pipeline import WriteBehind, read_ahead


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    before = threading.active_count()
    yield
    assert threading.active_count() == before


def test_items_come_in_order_and_only_so_many_ahead() -> None:
    made: list[int] = []

    def source() -> Iterator[int]:
        for i in range(20):
            made.append(i)
            yield i

    seen = []
    for item in read_ahead(source(), depth=3):
        time.sleep(0.002)
        assert len(made) <= item + 1 + 3 + 1  # this one, three in the queue, one in the making
        seen.append(item)
    assert seen == list(range(20))


def test_an_error_while_reading_comes_after_the_items_before_it() -> None:
    def source() -> Iterator[int]:
        yield from (1, 2)
        raise ValueError("damaged")

    seen = []
    with pytest.raises(ValueError, match="damaged"):
        for item in read_ahead(source(), depth=2):
            seen.append(item)
    assert seen == [1, 2]


def test_a_reader_that_stops_early_stops_the_source() -> None:
    closed = threading.Event()

    def endless() -> Iterator[int]:
        try:
            while True:
                yield 1
        finally:
            closed.set()

    source = endless()
    ahead = read_ahead(source, depth=2)
    assert next(ahead) == 1
    ahead.close()
    source.close()
    assert closed.is_set()


def test_everything_put_is_written_in_order() -> None:
    written: list[int] = []
    with WriteBehind(written.append, depth=2) as behind:
        for i in range(30):
            behind.put(i)
    assert written == list(range(30))


def test_an_error_while_writing_reaches_the_caller() -> None:
    def write(item: int) -> None:
        if item == 3:
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"), WriteBehind(write, depth=1) as behind:
        for i in range(1000):
            behind.put(i)


def test_an_error_at_the_last_item_is_not_lost() -> None:
    def write(item: int) -> None:
        time.sleep(0.05)
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"), WriteBehind(write, depth=4) as behind:
        behind.put(1)


def test_an_error_of_the_caller_is_kept_and_drops_the_rest() -> None:
    written: list[int] = []

    def slow(item: int) -> None:
        time.sleep(0.05)
        written.append(item)

    with pytest.raises(KeyError, match="mine"), WriteBehind(slow, depth=10) as behind:
        for i in range(10):
            behind.put(i)
        raise KeyError("mine")
    assert len(written) < 10
