"""Compiled networks are kept in a folder of the user's, under a name made of everything they depend on."""

from __future__ import annotations

import atexit
import hashlib
import json
import logging
import os
import sys
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path

from torch import nn

from upframe.errors import OutputError
from upframe.files import ScratchFolder, atomic_folder, writing
from upframe.machine import cpu_flags, processor_name
from upframe.version import __version__

log = logging.getLogger(__name__)

FOLDER_VARIABLE = "UPFRAME_CACHE"
"""Environment variable that names the folder for compiled networks."""

_MODELS = Path(__file__).parents[1] / "models"


def default_folder() -> Path:
    """Where compiled networks are kept: $UPFRAME_CACHE, or the place the system has for such things."""
    named = os.environ.get(FOLDER_VARIABLE)
    if named:
        return Path(named)
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local") / "upframe" / "cache"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "upframe"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "upframe"


def key(network: nn.Module, facts: Mapping[str, object]) -> str:
    """A digest of the network's code and weights, of upframe's version, of the CPU, and of `facts`."""
    digest = hashlib.sha256()
    machine = [__version__, processor_name(), sorted(cpu_flags())]
    digest.update(json.dumps([machine, sorted(facts.items())], default=str).encode())
    own = sys.modules[type(network).__module__].__file__
    networks = {*(_MODELS / "architectures").glob("*.py"), _MODELS / "layers.py"}
    for source in sorted({*networks, *([Path(own)] if own else [])}):
        digest.update(source.read_bytes())
    for name, tensor in network.state_dict().items():
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:32]


def kept(folder: Path | None, name: str, make: Callable[[Path], None]) -> Path:
    """The folder `name` within the cache, filled by `make` unless it is there.

    `make` gets an empty folder, which appears under its name only when it is whole; of two processes that make the same
    one the first wins. Where the cache cannot be written the result lives as long as the process, and that is logged.
    What is loaded from here is run, so the cache is a folder that only its owner can read and write.
    """
    root = folder or default_folder()
    place = root / name
    if place.is_dir():
        return place
    with ExitStack() as stack:
        try:
            with writing(root):
                root.mkdir(mode=0o700, parents=True, exist_ok=True)
            made = stack.enter_context(atomic_folder(place))
        except OutputError as error:
            happened = error.happened
        else:
            make(made)
            stack.close()  # it gets its name
            return place
    log.warning("%s: %s; compiled networks cannot be kept there, set $%s", root, happened, FOLDER_VARIABLE)
    scratch = ScratchFolder()
    atexit.register(scratch.remove)
    make(scratch.path)
    return scratch.path
