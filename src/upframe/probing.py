"""Ask a driver or a library in a child process: it may hang or crash there, and takes nobody with it."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

TIMEOUT_S = 30.0
"""Time for an answer. A GPU that sleeps takes some seconds to wake, and a first import on a cold disk as many."""

_MARK = "upframe-answer:"
_CHILD = "import json\nfrom {module} import {name} as ask\nprint('\\n{mark}' + json.dumps(ask()), flush=True)"


class ProbeError(Exception):
    """There was no answer; the text gives the reason."""


def ask(function: Callable[[], Any], *, timeout_s: float = TIMEOUT_S) -> Any:
    """Return what `function`, of the top level of a module, returns in a child process.

    The answer passes as JSON: it has lists instead of tuples.

    Raises:
        ProbeError: if the child fails, is killed, or is not ready in time.
    """
    code = _CHILD.format(module=function.__module__, name=function.__qualname__, mark=_MARK)
    given = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    with subprocess.Popen(  # noqa: S603 (this very Python, and names of functions of this program)
        [sys.executable, "-c", code],
        env=given,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
    ) as child:
        try:
            out, complaints = child.communicate(timeout=timeout_s)
        except subprocess.TimeoutExpired:
            child.kill()
            # A process that waits inside a driver may not even die: its pipes are not waited for.
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.communicate(timeout=1)
            raise ProbeError(f"did not answer within {timeout_s:g} s") from None
    answers = [line.removeprefix(_MARK) for line in out.splitlines() if line.startswith(_MARK)]
    if child.returncode == 0 and answers:
        return json.loads(answers[-1])
    raise ProbeError(_reason(child.returncode, complaints))


def _reason(code: int, complaints: str) -> str:
    if code < 0:
        return f"crashed (signal {-code})"
    lines = [line.strip() for line in complaints.splitlines() if line.strip()]
    return lines[-1] if lines else f"ended with code {code}"
