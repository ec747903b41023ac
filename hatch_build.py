"""Compiles upframe's kernels when it is installed, if there is a compiler for them; without, the package is pure Python.

Set UPFRAME_KERNELS=0 to leave them out, CXX to name a compiler.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

FOLDER = Path("src/upframe/kernels")
COMMON = ("-O3", "-std=c++20", "-fPIC", "-shared", "-fvisibility=hidden", "-pthread", "-mfma")
# Library, sources, flags. Whether the CPU has these instructions is asked before a library is loaded (kernels/__init__.py).
LIBRARIES = (
    (
        "libupframe_kernels.so",
        ("vapsr.cpp", "winograd.cpp", "esa.cpp", "shuffle.cpp", "colour.cpp", "pixels.cpp"),
        ("-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-mavx512bf16"),
    ),
    (
        "libupframe_kernels_avx2.so",
        ("winograd.cpp", "shuffle.cpp", "colour.cpp"),
        ("-mavx2", "-DUPFRAME_LANES=8"),
    ),
)


class Kernels(BuildHookInterface[Any]):
    """Adds the compiled libraries to a wheel, or lays them beside their sources for an editable install."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if self.target_name != "wheel":
            return
        made = self._compile()
        if not made:
            return
        build_data["artifacts"] += [path.relative_to(self.root).as_posix() for path in made]
        build_data["pure_python"] = False
        build_data["tag"] = "py3-none-" + sysconfig.get_platform().replace("-", "_").replace(".", "_")

    def _compile(self) -> list[Path]:
        folder = Path(self.root) / FOLDER
        for name, _, _ in LIBRARIES:
            (folder / name).unlink(missing_ok=True)  # of another version, maybe
        compiler = next((c for c in (os.environ.get("CXX"), "g++", "clang++", "c++") if c and shutil.which(c)), None)
        wanted = os.environ.get("UPFRAME_KERNELS") != "0" and sys.platform == "linux" and platform.machine() == "x86_64"
        if not wanted or compiler is None:
            return []
        made = []
        for name, sources, flags in LIBRARIES:
            part = (folder / name).with_suffix(".part")
            command = [compiler, *COMMON, *flags, *(str(folder / source) for source in sources), "-o", str(part)]
            done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
            if done.returncode != 0:
                self.app.display_warning(f"{compiler} does not compile upframe's {name}; it works without, slower")
                self.app.display_debug(done.stderr)
                part.unlink(missing_ok=True)
                continue
            made.append(part.replace(folder / name))
        return made
