"""Keep compiled networks in a folder of the user, each under a name made from everything that it depends on."""

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
from upframe.files import ScratchFolder, atomic_folder, is_closed, is_own, writing
from upframe.machine import cpu_flags, processor_name
from upframe.version import __version__

log = logging.getLogger(__name__)

FOLDER_VARIABLE = "UPFRAME_CACHE"
"""Environment variable with the folder for compiled networks."""

_MODELS = Path(__file__).parents[1] / "models"


def default_folder() -> Path:
    """Folder for compiled networks: $UPFRAME_CACHE, or the system's folder for caches."""
    named = os.environ.get(FOLDER_VARIABLE)
    if named:
        return Path(named)
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local") / "upframe" / "cache"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "upframe"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "upframe"


def key(network: nn.Module, facts: Mapping[str, object]) -> str:
    """Digest of the network's code and weights, upframe's version, the CPU, and `facts`."""
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


def _danger(root: Path, place: Path) -> str:
    """Describe why code in `place` is not to be run: somebody else could have written it. Empty if nobody could."""
    if is_closed(root):
        return ""
    paths = [root, place, *sorted(place.rglob("*"))] if place.is_dir() else [root]
    foreign = next((path for path in paths if not path.is_symlink() and not is_own(path)), None)
    return f"others may have written {foreign.name}, whose code would be run" if foreign is not None else ""


def kept(folder: Path | None, name: str, make: Callable[[Path], None]) -> Path:
    """Return the folder `name` of the cache; if it does not exist, `make` fills it.

    `make` gets an empty folder, which gets its name only when it is complete; if two processes make the same folder, the first
    to finish wins. If the cache cannot be written, the result lives as long as the process, and a line is logged. Files of the
    cache are executed, so upframe makes the folder for its owner alone, and uses nothing in it that others could have written.
    """
    root = folder or default_folder()
    place = root / name
    with ExitStack() as stack:
        try:
            with writing(root):
                root.mkdir(mode=0o700, parents=True, exist_ok=True)
            happened = _danger(root, place)
            if not happened and place.is_dir():
                return place
            if not happened:
                made = stack.enter_context(atomic_folder(place))
        except OutputError as error:
            happened = error.happened
        if not happened:
            make(made)
            stack.close()  # it gets its name here
            return place
    log.warning("%s: %s; compiled networks cannot be kept there, set $%s", root, happened, FOLDER_VARIABLE)
    scratch = ScratchFolder()
    atexit.register(scratch.remove)
    make(scratch.path)
    return scratch.path
