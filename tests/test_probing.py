"""Questions to drivers: answers, and what becomes of drivers that fail, crash or hang."""

from __future__ import annotations

import os
import signal
import sys
import time

import pytest

from upframe.probing import ProbeError, ask

pytestmark = pytest.mark.slow


def talkative() -> dict[str, list[int]]:
    sys.stdout.write("a driver's banner\n")
    return {"found": [1, 2]}


def broken() -> None:
    raise OSError("libgpu.so: cannot open")


def crashing() -> None:
    os.kill(os.getpid(), signal.SIGSEGV)


def hanging() -> None:
    time.sleep(600)


def test_the_answer_comes_through_a_drivers_own_output() -> None:
    assert ask(talkative) == {"found": [1, 2]}


def test_a_driver_that_fails_is_named() -> None:
    with pytest.raises(ProbeError, match=r"libgpu\.so: cannot open"):
        ask(broken)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such signal")
def test_a_driver_that_crashes_takes_nobody_with_it() -> None:
    with pytest.raises(ProbeError, match=r"crashed \(signal 11\)"):
        ask(crashing)


def test_a_driver_that_hangs_is_given_up() -> None:
    begun = time.monotonic()
    with pytest.raises(ProbeError, match="did not answer within 1 s"):
        ask(hanging, timeout_s=1)
    assert time.monotonic() - begun < 60, "it sleeps for ten minutes"
