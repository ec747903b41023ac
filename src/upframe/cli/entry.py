"""The way in: it fixes what users type, runs the command and turns errors into exit codes."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import sys
import traceback
from collections.abc import Sequence

from cyclopts import CycloptsError

from upframe.cli import (  # noqa: F401 (each adds its commands)
    completing,
    configuring,
    data,
    data_preview,
    difference_map,
    doctor,
    exporting,
    measuring,
    models,
    restoring,
    serving,
    training,
    upscaling,
    watching,
)
from upframe.cli.flags import worded_error
from upframe.cli.help import HELP_FLAGS, SHOWN
from upframe.cli.logs import ARGUMENTS, log_end, stop_logs
from upframe.cli.output import print_line, say
from upframe.cli.parser import (
    PIPE,
    app,
)
from upframe.cli.stopping import Stop
from upframe.cli.terminal import fitted
from upframe.errors import Cancelled, OutputError, ResourceError, UpframeError, one_line

TASKS = ("upscale", "deblur", "denoise", "interpolate")  # the commands whose inputs may be standard input


def run(given: list[str]) -> int:
    """Run the command of the arguments `given`, and return the documented exit code."""
    if not os.environ.keys() & {"GOMP_SPINCOUNT", "OMP_WAIT_POLICY"}:
        # Threads that wait for each other spin, some milliseconds by default. Beside other work that takes the very cores
        # they wait for: three times as long here, where 10,000 turns cost a quiet machine 2 %. To be set before torch loads.
        os.environ["GOMP_SPINCOUNT"] = "10000"
    tokens = _normalised(given)
    ARGUMENTS.set(tuple(given))
    SHOWN.set(next((HELP_FLAGS[token] for token in given if token in HELP_FLAGS), "common"))
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a name that the terminal's encoding lacks must not stop a batch
            stream.reconfigure(errors="backslashreplace")
    code = _code_of(given, tokens)
    log_end("finished" if code == 0 else "ended", code=code)
    stop_logs()
    try:
        if sys.stdout is not None:  # it is None when it was closed from the start
            sys.stdout.flush()
    except OSError:  # also a full disk: keep the interpreter from complaining at exit, with a code of its own
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = code or 6
    return code


def _code_of(given: list[str], tokens: list[str]) -> int:
    """Run the command of `tokens`, which are `given` as the parser takes them, and return its exit code."""
    try:
        if given and given[0][:1] != "-":
            from upframe.cli.refusals import refuse_mistyped

            refuse_mistyped(given, app)
        return int(app(tokens, print_error=False) or 0)  # its own console would break long messages into lines
    except CycloptsError as error:
        from upframe.cli.refusals import refusal

        refused = refusal(error)
        code = refused.exit_code
        _report_error(refused, code, tokens)
    except Cancelled as error:
        code = Stop.code or error.exit_code
        _report_error(error, code, tokens)
    except UpframeError as error:
        code = error.exit_code
        _report_error(error, code, tokens)
    except BrokenPipeError:  # whoever read our output went away; leave quietly
        code = 6
    except Exception as error:
        if _is_lack_of_memory(error):
            lacking = ResourceError("this machine", "memory ran out while upframe was loaded", "raise its limit (`ulimit -v`)")
            _report_error(lacking, lacking.exit_code, tokens, cause=error)
            return lacking.exit_code
        code = 1
        text = one_line(f"{type(error).__name__}: {error}")
        _report_error(UpframeError("internal error", text, "run again with --debug and report it"), code, tokens, cause=error)
    return code


def _is_lack_of_memory(error: Exception) -> bool:
    """Whether memory ran out, also while a library was loaded: the system's loader has only words for it."""
    signs = r"cannot allocate memory|failed to map segment|cannot create .*thread|can't start new thread|out of memory"
    return isinstance(error, MemoryError) or re.search(signs, str(error), re.IGNORECASE) is not None


def _normalised(tokens: list[str]) -> list[str]:
    """Accept `--tile_size` for `--tile-size`, files without a command as files to upscale, `-` among them, `--list-devices`
    as one of the doctor, and all pages of help as one: `SHOWN` has which."""
    end = tokens.index("--") if "--" in tokens else len(tokens)
    fixed = [re.sub(r"^--[^=]*", lambda m: m[0].replace("_", "-"), t) for t in tokens[:end]] + tokens[end:]
    if fixed and fixed[0] not in {*app, "--help", "-h", "--version", "-V"}:
        fixed.insert(0, "doctor" if fixed[0] == "--list-devices" else "upscale")
    fixed = ["--help" if t in HELP_FLAGS and i < len(fixed) - len(tokens) + end else t for i, t in enumerate(fixed)]
    return [PIPE if t == "-" else t for t in fixed] if fixed[:1] and fixed[0] in TASKS else fixed


def _report_error(error: UpframeError, code: int, tokens: Sequence[str], *, cause: Exception | None = None) -> None:
    error = worded_error(error)
    if "--debug" in tokens:
        traceback.print_exception(cause or error)
    log_end(str(error), code=code)
    _report_json(str(error), type(error).__name__, code, tokens)
    say(fitted(f"upframe: {error}", start="upframe:", style="error"))


def _report_json(message: str, kind: str, code: int, tokens: Sequence[str]) -> None:
    if "--json" in tokens:
        # What went wrong may be that standard output takes nothing more.
        with contextlib.suppress(OutputError, BrokenPipeError):
            print_line(json.dumps({"event": "error", "error": message, "kind": kind, "exit_code": code}))
