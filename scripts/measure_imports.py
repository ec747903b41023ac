"""Measure which modules upscaling one photo imports, and how long the imports take.

Usage: python scripts/measure_imports.py [--json] [CASE...]

Each case runs in its own process with `-X importtime`. Its table has a row for each package loaded at the end (for upframe, for
each room), with the number of its modules and their own milliseconds, without the modules that they import in turn. The
standard library is one row. Packages that `import torch` loads count as torch's.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
from collections import Counter
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

PHOTO_SIDE = 24

_PYTHON = """
from upframe.media.image.files import read_pixels, write_pixels
from upframe.models.registry import load
from upframe.upscaling.images import Upscaler
write_pixels({target!r}, Upscaler(load("photo-x4"))(read_pixels({source!r})))
"""
_COPY = """
from upframe.media.image.files import read_pixels, write_pixels
write_pixels({target!r}, read_pixels({source!r}))
"""
_COMMAND_LINE = """
sys.argv = ["upframe", *{arguments!r}]
from upframe.cli import main
main()
"""
CASES = {
    "import upframe": "import upframe",
    "photo, read and written": _COPY,
    "photo, Python": _PYTHON,
    "photo, command line": _COMMAND_LINE,
    "upframe models list": _COMMAND_LINE,
}
_AT_EXIT = """
import atexit, json, sys
atexit.register(lambda: open({loaded!r}, "w").write(json.dumps(sorted(sys.modules))))
"""
_LINE = re.compile(r"import time:\s+(\d+) \|\s+\d+ \|\s*(\S+)")


@dataclass(frozen=True)
class Imports:
    """The modules of a process, by package: "torch", "upframe.models", "standard library"."""

    modules: tuple[str, ...]
    """Modules of upframe and third parties, sorted."""
    count: dict[str, int]
    """Modules of each package."""
    own_ms: dict[str, float]
    """Own time of these modules, without the modules that they import in turn."""


def measure(case: str) -> Imports:
    """Run a case of `CASES` and return what it imports.

    Raises:
        subprocess.CalledProcessError: if it fails.
    """
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder, "photo.png"), Path(folder, "large.png")
        _write_photo(source)
        arguments = [str(source), "-o", str(target)] if case.startswith("photo") else ["models", "list"]
        code = CASES[case].format(source=str(source), target=str(target), arguments=arguments)
        measured = _run(code, Path(folder, "loaded.json"))
        if case.startswith("photo") and not target.is_file():
            raise FileNotFoundError(f"the case {case!r} wrote no picture")
    return measured


def _run(code: str, loaded: Path) -> Imports:
    command = [sys.executable, "-X", "importtime", "-c", _AT_EXIT.format(loaded=str(loaded)) + code]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    if done.returncode:
        raise subprocess.CalledProcessError(done.returncode, command, done.stdout, done.stderr)
    names = json.loads(loaded.read_text(encoding="utf-8"))
    own_us = {name: int(us) for us, name in _LINE.findall(done.stderr)}
    count, own_ms = Counter[str](), Counter[str]()
    for name in names:
        package = _package(name)
        count[package] += 1
        own_ms[package] += own_us.get(name, 0) / 1000
    modules = tuple(name for name in names if _package(name) != "standard library")
    return Imports(modules, dict(count), {package: round(ms, 1) for package, ms in own_ms.items()})


def _package(name: str) -> str:
    head, _, rest = name.partition(".")
    if head == "upframe":
        return f"upframe.{rest.partition('.')[0]}" if rest else "upframe"
    return "standard library" if head in sys.stdlib_module_names or head == "__main__" else head


@cache
def packages_of_torch() -> frozenset[str]:
    """Return the third-party packages that `import torch` loads, torch among them."""
    with tempfile.TemporaryDirectory() as folder:
        return frozenset(map(_package, _run("import torch", Path(folder, "loaded.json")).modules))


def _write_photo(path: Path) -> None:
    import numpy as np

    from upframe.media.image.files import write_pixels

    write_pixels(path, np.random.default_rng(0).integers(0, 256, (PHOTO_SIDE, PHOTO_SIDE, 3), np.uint8))


def show(case: str, imports: Imports) -> None:
    """Print the table of one case, slowest packages first."""
    print(f"\n{case}: {sum(imports.count.values())} modules, {sum(imports.own_ms.values()):.0f} ms\n")  # noqa: T201
    print("| package | modules | ms |\n|---|---:|---:|")  # noqa: T201
    for package in sorted(imports.count, key=lambda package: -imports.own_ms[package]):
        print(f"| {package} | {imports.count[package]} | {imports.own_ms[package]:.1f} |")  # noqa: T201


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", metavar="CASE", help=f"of {', '.join(map(repr, CASES))}; all if absent")
    parser.add_argument("--json", action="store_true", help="print one object with all results")
    arguments = parser.parse_args()
    if unknown := sorted(set(arguments.cases) - set(CASES)):
        parser.error(f"no such case: {', '.join(unknown)}")
    measured = {case: measure(case) for case in arguments.cases or CASES}
    if arguments.json:
        found = {case: asdict(imports) for case, imports in measured.items()}
        print(json.dumps({"packages_of_torch": sorted(packages_of_torch()), "cases": found}))  # noqa: T201
        return
    for case, imports in measured.items():
        show(case, imports)


if __name__ == "__main__":
    main()
