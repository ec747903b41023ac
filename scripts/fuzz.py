"""Feed damaged files to every reader, for as long as it is given, and keep those that break a promise.

    python scripts/fuzz.py --seconds 3600 --seed 7
    python scripts/fuzz.py --count 200 --kinds picture store
    python scripts/fuzz.py --seed 7 --first 1234 --count 1        # the same file again

Each file must end with a documented exit code, in bounded time and memory (`BOUNDS`). What does not is written to the folder
`--out`, with a line in failures.jsonl that says why and how to make it again. The exit code is 1 if there was any.

Readers run in a child process that lives on from file to file, and a new one follows if it dies or hangs.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import multiprocessing
import os
import random
import re
import shutil
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from fuzz_samples import KINDS, Kind, Sample, make_samples, mutated

MB = 10**6
PLENTY = 180
"""Seconds after which a child is given up, also while it starts; some times what a file may take, for a busy machine."""


@dataclass(frozen=True)
class Bound:
    """Promises for one kind of file."""

    codes: tuple[int, ...]
    seconds: float
    """Processor time, which does not depend on what else the machine does."""
    memory: int
    """Bytes beyond what the child held before."""
    memory_per_byte: int = 0
    """More bytes for each byte of the file."""


BOUNDS: dict[Kind, Bound] = {
    "picture": Bound((0, 3), 30, 2**30),
    "video": Bound((0, 3), 30, 2**30),
    "weights": Bound((0, 4), 5, 64 * MB, 3),
    "store": Bound((0, 3), 30, 2**30),
    "own": Bound((0, 2, 3, 4), 30, 2**30),
}


# The child ------------------------------------------------------------------------------------------------------------
def serve(pipe: Connection) -> None:
    """Run commands that come through `pipe`, and answer with (exit code, seconds, bytes at the peak, text)."""
    import torch

    torch.set_num_threads(1)
    import upframe.cli.entry
    import upframe.models.checkpoints  # noqa: F401

    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # C libraries complain there about each damaged file
    pipe.send("ready")
    while True:
        arguments = pipe.recv()
        before, start = _reset_peak(), time.process_time()
        code, text = _run(arguments)
        pipe.send((code, time.process_time() - start, max(_peak() - before, 0), text[-2000:]))


def _run(arguments: list[str]) -> tuple[int, str]:
    said = io.StringIO()
    code = 0
    try:
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            reader, path = READERS.get(arguments[0]), Path(arguments[1])
            code = _code_of(reader, path) if reader is not None else 0
            if arguments[0] not in READERS or (arguments[0] == "PICTURE" and code == 0):
                code = _command(arguments[arguments[0] == "PICTURE" :])
    except Exception:
        return 1, traceback.format_exc()
    return code, said.getvalue()


def _command(arguments: list[str]) -> int:
    from upframe.cli import main

    try:
        main(arguments)
    except SystemExit as end:
        return int(end.code or 0)


def _code_of(reader: Callable[[Path], None], path: Path) -> int:
    from upframe.errors import UpframeError

    try:
        reader(path)
    except UpframeError as error:
        print(error)  # noqa: T201 (the child's output is kept)
        return error.exit_code
    return 0


def _read_weights(path: Path) -> None:
    from upframe.models.weights_file import read_state

    read_state(path)


def _read_picture(path: Path) -> None:
    from upframe.media.image.files import ImageSource

    with ImageSource(path) as source:
        for _ in source:
            pass


READERS: dict[str, Callable[[Path], None]] = {"WEIGHTS": _read_weights, "PICTURE": _read_picture}


def _reset_peak() -> int:
    """Bytes that this process holds now, from which its peak is counted; 0 where the system does not tell."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
        return _status("VmRSS")
    return 0


def _peak() -> int:
    with contextlib.suppress(OSError):
        return _status("VmHWM")
    return 0


def _status(name: str) -> int:
    found = re.search(rf"{name}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return int(found[1]) * 1024 if found else 0


class Child:
    """A child that runs commands, and is replaced when it dies or hangs."""

    def __init__(self) -> None:
        self._context = multiprocessing.get_context("spawn")
        self._start()

    def _start(self) -> None:
        self._pipe, other = self._context.Pipe()
        self._process = self._context.Process(target=serve, args=(other,), daemon=True)
        self._process.start()
        other.close()
        if not self._pipe.poll(PLENTY):
            raise RuntimeError("the child does not start")
        self._pipe.recv()

    def run(self, arguments: list[str]) -> tuple[int | None, float, int, str]:
        """Exit code (None if it hung or died), seconds, bytes, and the text that it printed."""
        try:
            self._pipe.send(arguments)
            if self._pipe.poll(PLENTY):
                code, took, size, text = self._pipe.recv()
                return code, took, size, text
            why = "hangs"
        except (EOFError, OSError):
            self._process.join(10)
            why = f"died with {self._process.exitcode}"
        self.close()
        self._start()
        return None, 0.0, 0, why

    def close(self) -> None:
        self._process.kill()
        self._process.join()
        self._pipe.close()


# One file -------------------------------------------------------------------------------------------------------------
def attempt(child: Child, sample: Sample, data: bytes, work: Path) -> str:
    """Read a damaged copy of `sample`; describe the broken promise, or return nothing."""
    root = work / sample.root.name
    if sample.root.is_dir():
        shutil.copytree(sample.root, root)
        (root / sample.path.relative_to(sample.root)).write_bytes(data)
    else:
        root.write_bytes(data)
    names = {"INPUT": str(root), "OUTPUT.png": str(work / "out.png"), "OUTPUT.mkv": str(work / "out.mkv")}
    arguments = [names.get(word, word.replace("INPUT/", f"{root}/")) for word in sample.command]
    bound = BOUNDS[sample.kind]
    code, seconds, size, text = child.run(arguments)
    if code is None:
        return text
    if code not in bound.codes:
        return f"exit code {code}: {text.strip()}"
    if seconds > bound.seconds:
        return f"took {seconds:.1f} s"
    most = bound.memory + bound.memory_per_byte * len(data)
    return f"took {size / MB:.0f} MB, allowed {most / MB:.0f}" if size > most else ""


def fuzz(
    samples: list[Sample], out: Path, *, seed: int, first: int = 0, count: int | None = None, seconds: float | None = None
) -> tuple[int, int]:
    """Try damaged files until `count` or `seconds` is reached; return how many were tried and how many broke a promise."""
    begin, number, failures = time.monotonic(), first, 0
    child = Child()
    try:
        while (count is None or number < first + count) and (seconds is None or time.monotonic() - begin < seconds):
            chance = random.Random(f"{seed}/{number}")  # noqa: S311 (no secret)
            sample = chance.choice(samples)
            data = mutated(sample.path.read_bytes(), chance)
            with tempfile.TemporaryDirectory(prefix="fuzz-") as work:
                broken = attempt(child, sample, data, Path(work))
            if broken:
                failures += 1
                _keep(out, sample, data, seed, number, broken)
            number += 1
    finally:
        child.close()
    return number - first, failures


def _keep(out: Path, sample: Sample, data: bytes, seed: int, number: int, broken: str) -> None:
    out.mkdir(parents=True, exist_ok=True)
    name = f"{seed}_{number}_{sample.path.name}"
    (out / name).write_bytes(data)
    with (out / "failures.jsonl").open("a", encoding="utf-8") as log:
        log.write(json.dumps({"file": name, "kind": sample.kind, "seed": seed, "number": number, "broken": broken}) + "\n")
    print(f"{name}: {broken.splitlines()[-1] if broken else ''}", flush=True)  # noqa: T201


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seconds", type=float, help="stop after this time")
    parser.add_argument("--count", type=int, help="stop after this many files")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0, help="number of the first file")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS)
    parser.add_argument("--out", type=Path, default=Path("fuzz-failures"))
    given = parser.parse_args()
    if given.seconds is None and given.count is None:
        parser.error("pass --seconds or --count")
    with tempfile.TemporaryDirectory(prefix="fuzz-samples-") as folder:
        samples = make_samples(Path(folder), tuple(given.kinds))
        tried, failures = fuzz(samples, given.out, seed=given.seed, first=given.first, count=given.count, seconds=given.seconds)
    print(f"{tried} damaged files, {failures} broken promises, seed {given.seed}")  # noqa: T201
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
