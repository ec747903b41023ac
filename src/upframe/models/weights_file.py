"""Weights files, read safely: what lies in them, under the names they came with.

Reading never executes what a file contains. safetensors hold no code; PyTorch files are interpreted as data (`torch_file`);
MindSpore's are a list of tensors. Nothing is concluded from a file's name. Reading takes at most about three times the
size of the file and 64 MB of memory, whatever its bytes are.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import re
import stat
import struct
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from upframe.errors import ModelError
from upframe.models import mindspore
from upframe.models.cards import Card, ValueRange, card_path
from upframe.models.pickled import MOST_OPCODES, MalformedError, Placeholder, StoredTensor, UnsafeError
from upframe.models.torch_file import TorchFile

log = logging.getLogger(__name__)

State = dict[str, Tensor]


@dataclass(frozen=True)
class WeightsFile:
    """Content of a file, before the network is recognised."""

    path: Path
    state: State
    """Parameters under the file's own names less wrappers and prefixes; floating ones are float32 on the CPU."""
    sha256: str
    card: Card | None
    value_range: ValueRange | None
    """Range of the pixels the weights work on, where the file states it."""


def read(path: str | Path) -> WeightsFile:
    """Read a weights file without executing anything in it.

    Accepts safetensors, PyTorch's zip and legacy formats and MindSpore checkpoints, whose names become those of PyTorch.
    Of several sets of weights in a file the averaged (EMA) one is taken, wherever it lies. Objects beside the weights are
    skipped without being built. upframe's own training checkpoints are such files.

    Raises:
        ModelError: the file is missing, damaged, unsafe or of another kind, holds no weights, or is not the one its
            card was written for.
    """
    path = Path(path)
    with _opened(path) as (file, size, kind):
        sha256 = _digest(file)
        if kind == "safetensors":
            state, metadata = _read_safetensors(path, file, size)
            card = _card(path, metadata, sha256)
            stated: object = card.value_range if card else metadata.get("value_range")
        elif kind == "mindspore":
            file.seek(0)
            names = mindspore.torch_names(mindspore.parse(file.read(), path))
            state, card, stated = _clean(_named(names, path), lambda value: value, path), None, None
        else:
            state, stated = _read_torch(path, file, size)
            card = None
    if stated not in (None, "0-1", "0-255"):
        shown = _short(stated) if isinstance(stated, str) else f"({type(stated).__name__})"  # a list may be endless as text
        raise ModelError(path, f"states the unknown value range {shown}", 'known are "0-1" and "0-255"')
    return WeightsFile(path, state, sha256, card, stated)


def read_state(path: str | Path) -> State:
    """The parameters in a file under its own names, less wrappers and prefixes; see `read`."""
    return read(path).state


_Kind = Literal["safetensors", "torch", "mindspore"]

_NOT_WEIGHTS: tuple[tuple[bytes, str, str], ...] = (  # how files start that are often taken for weights
    (b"MZ", "is a Windows program, not weights", "do not run it; get the weights from their publisher"),
    (b"\x7fELF", "is a program, not weights", "do not run it; get the weights from their publisher"),
    (b"\xcf\xfa\xed\xfe", "is a program, not weights", "do not run it; get the weights from their publisher"),
    (b"<", "is a web page (HTML), not weights", "download the file itself rather than the page that shows it"),
    (b"version https://git-lfs", "is a Git LFS pointer, not the weights", "fetch the file with `git lfs pull`"),
    *(
        (start, "is an encrypted MindSpore checkpoint", "decrypt it with MindSpore and pass that")
        for start in mindspore.ENCRYPTED
    ),
)


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[tuple[BinaryIO, int, _Kind]]:
    """A file that starts like weights, its size and its format."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # opening a FIFO would wait for ever
            raise ModelError(path, "is not a file", "pass a weights file")
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            yield file, size, _kind(file.read(64), size, path)
    except FileNotFoundError as error:
        raise ModelError(path, "no such file", "check the path; `upframe models list` shows the names") from error
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        raise ModelError(path, f"cannot be read ({error})", "check the path and its permissions") from error


def _digest(file: BinaryIO) -> str:
    file.seek(0)
    digest = hashlib.sha256()
    while part := file.read(1 << 20):
        digest.update(part)
    return digest.hexdigest()


def _kind(start: bytes, size: int, path: Path) -> _Kind:
    if not start:
        raise ModelError(path, "is empty (0 bytes)", "download it again")
    # First of all: the length of a header may begin with the very byte that pickles begin with.
    if start[8:9] == b"{" and struct.unpack("<Q", start[:8])[0] <= size - 8:
        return "safetensors"
    if start.startswith((b"PK\x03\x04", b"\x80")):  # a zip archive or a pickle, torch's two formats
        return "torch"
    if mindspore.looks_like_checkpoint(start):
        return "mindspore"
    for beginning, happened, advice in _NOT_WEIGHTS:
        if start.lstrip().startswith(beginning):
            raise ModelError(path, happened, advice)
    if start[8:9] == b"{":
        raise ModelError(path, "is truncated: its header is incomplete", "download it again")
    raise ModelError(
        path, "is neither a safetensors nor a PyTorch file nor a MindSpore checkpoint", "pass a .safetensors or .pth file"
    )


_MOST_HEADER_BYTES = 4 << 20  # of safetensors: 40,000 tensors


def _read_safetensors(path: Path, file: BinaryIO, size: int) -> tuple[State, dict[str, str]]:
    file.seek(0)
    if struct.unpack("<Q", file.read(8))[0] > min(_MOST_HEADER_BYTES, size - 8):
        raise ModelError(path, "is damaged: its header is larger than that of any checkpoint", "download it again")
    try:
        with safe_open(path, framework="pt") as tensors:
            metadata = tensors.metadata() or {}
            entries: dict[str, object] = {name: name for name in tensors.keys()}  # noqa: SIM118 (it is no mapping)
            return _clean(_named(entries, path, kind=str), tensors.get_tensor, path), metadata
    except (SafetensorError, ValueError, KeyError, RuntimeError, json.JSONDecodeError) as error:
        raise ModelError(path, f"is damaged or truncated ({_short(error)})", "download it again") from error


_UNSAFE_ADVICE = "use a .safetensors version, or another publisher's file"


def _read_torch(path: Path, file: BinaryIO, size: int) -> tuple[State, object]:
    """The weights in a PyTorch file, and the value range that it states."""
    try:
        found = TorchFile(file, size)
        stated = found.content.get("value_range") if isinstance(found.content, dict) else None  # upframe's checkpoints
        return _clean(_named(_weights(found.content, path), path, kind=StoredTensor), found.tensor, path), stated
    except UnsafeError as error:
        raise ModelError(path, f"is unsafe: {_short(error)}", _UNSAFE_ADVICE) from error
    except MalformedError as error:
        raise ModelError(
            path, f"is damaged, truncated or no PyTorch checkpoint ({_short(error)})", "download it again"
        ) from error


def _card(path: Path, metadata: Mapping[str, str], sha256: str) -> Card | None:
    """The card beside a safetensors file, else the one in its header."""
    beside = card_path(path)
    if beside.is_file():
        card = Card.read(beside)
        if card.sha256 and card.sha256 != sha256:
            raise ModelError(
                path,
                f"is not the file its card was written for (SHA-256 {sha256[:12]}…, the card says {card.sha256[:12]}…)",
                f"restore the file, or remove {beside.name} if the change is meant",
            )
        return card
    return Card.from_json(metadata["card"], subject=path) if "card" in metadata else None


# Finding the weights --------------------------------------------------------------------------------------------------
_MOST_DEPTH = 8
_MOST_MODULES_DEEP = 40
_LONGEST_NAME = 1000
_LONGEST_WRAPPER = 100  # characters; longer keys are nobody's word for weights

# Where training programs put the weights, in order of preference.
_WRAPPERS = ("params", "state_dict", "model_state_dict", "model", "generator", "net_g", "network", "net", "weights")
_AVERAGED = re.compile(r"(^|[_\-.])ema($|[_\-.])|shadow|averaged", re.IGNORECASE)
_BESIDE = re.compile(r"optim|scheduler|scaler|discriminator|(^|[_\-.])(net_?)?d($|[_\-.])|loss|vgg|rng", re.IGNORECASE)


@dataclass(frozen=True)
class _Candidate:
    """A set of named tensors somewhere in a file."""

    keys: tuple[str, ...]
    """The keys that lead to it."""
    tensors: dict[str, object]

    @property
    def is_beside(self) -> bool:
        """Whether it belongs to something beside the network: an optimiser, a discriminator."""
        return self._has_key(_BESIDE)

    @property
    def rank(self) -> tuple[bool, bool, int, int]:
        """The smallest is the one that is meant."""
        known = [_WRAPPERS.index(key) for key in self.keys if key in _WRAPPERS]
        averaged = self._has_key(_AVERAGED)
        return self.is_beside, not averaged, min(known, default=len(_WRAPPERS)), -len(self.tensors)

    def _has_key(self, words: re.Pattern[str]) -> bool:
        return any(len(key) <= _LONGEST_WRAPPER and words.search(key) for key in self.keys)


def _weights(content: object, path: Path) -> dict[str, object]:
    """The one set of named tensors in a checkpoint that is the network's, averaged if there is such a set."""
    found = list(_Search().candidates(content))
    if not found:
        if isinstance(content, dict):
            entries = ", ".join(_short(name) for name in list(content)[:5]) or "none"
            raise ModelError(path, f"holds no weights (its entries: {entries})", "pass a checkpoint with a state dict")
        kind = content.name if isinstance(content, Placeholder) else type(content).__name__
        raise ModelError(path, f"holds a {_short(kind)}, not named weights", "pass a checkpoint with a state dict")
    # A decay or a few statistics may be named like an average.
    most = max((len(one.tensors) for one in found if not one.is_beside), default=0)
    return min((one for one in found if 2 * len(one.tensors) > most), key=lambda one: one.rank).tensors


class _Search:
    """Looks for sets of named tensors. What several containers hold may be met along endlessly many paths."""

    def __init__(self) -> None:
        self._left = MOST_OPCODES

    def _count(self, items: int) -> None:
        self._left -= items
        if self._left < 0:
            raise MalformedError("it holds far more than weights")

    def candidates(self, content: object) -> Iterator[_Candidate]:
        """Every set of named tensors, breadth first. Of a module that was pickled whole, its parameters and buffers.

        Raises:
            MalformedError: there is more to look at than opcodes could have made without sharing.
        """
        level: list[tuple[tuple[str, ...], object]] = [((), content)]
        seen: set[int] = set()
        for _ in range(_MOST_DEPTH):
            below: list[tuple[tuple[str, ...], object]] = []
            for keys, node in level:
                if id(node) in seen:
                    continue
                seen.add(id(node))
                self._count(1 + len(node) if isinstance(node, dict | list | tuple) else 1)
                if isinstance(node, Placeholder):
                    if module := dict(self._module_tensors(node)):
                        yield _Candidate(keys, module)
                        continue
                    parts = node.state if isinstance(node.state, tuple) else (node.state,)
                    self._count(len(parts))
                    below += [(keys, part) for part in (node.items, *parts) if isinstance(part, dict) and part]
                elif isinstance(node, dict):
                    if tensors := {name: value for name, value in node.items() if _is_tensor(value)}:
                        yield _Candidate(keys, tensors)
                    below += [((*keys, name), value) for name, value in node.items() if isinstance(value, _CONTAINERS)]
                elif isinstance(node, list | tuple):
                    below += [(keys, value) for value in node if isinstance(value, _CONTAINERS)]
            level = below

    def _module_tensors(self, module: Placeholder, prefix: str = "", depth: int = 0) -> Iterator[tuple[str, object]]:
        """Names and values of the state dict of a pickled `nn.Module`. A module that is a part of several has several names."""
        state = module.state
        self._count(1)
        if not isinstance(state, dict) or not isinstance(state.get("_parameters"), dict):
            return
        if depth > _MOST_MODULES_DEEP or len(prefix) > _LONGEST_NAME:
            return
        for part in ("_parameters", "_buffers"):
            values = state.get(part)
            if isinstance(values, dict):
                self._count(len(values))
                yield from ((f"{prefix}{name}", value) for name, value in values.items() if _is_tensor(value))
        children = state.get("_modules")
        for name, child in children.items() if isinstance(children, dict) else ():
            if isinstance(child, Placeholder):
                yield from self._module_tensors(child, f"{prefix}{name}.", depth + 1)


_CONTAINERS = (dict, list, tuple, Placeholder)


def _is_tensor(value: object) -> bool:
    """Also one in a form that is not supported, which `_clean` names."""
    return isinstance(value, StoredTensor) or (
        isinstance(value, Placeholder) and value.name.startswith("torch._utils._rebuild")
    )


# Names ----------------------------------------------------------------------------------------------------------------
# Of several networks in one state dict the first of these is meant, and the others (a discriminator, ...) are dropped.
_CHOSEN_PREFIXES = ("generator_ema.", "net_g_ema.", "generator.", "net_g.", "netG.")
# Added to every name by whatever held the network.
_COMMON_PREFIXES = ("module.", "_orig_mod.", "ema_model.", "model.", "network.", "net.", "params_ema.", "params.")
_MOST_PREFIXES = 16
_CHECKED_VALUES = 1 << 18
_NOT_PARAMETERS = ("num_batches_tracked", "n_averaged", "step_counter")


def _named(entries: Mapping[str, object], path: Path, *, kind: type = Tensor) -> dict[str, object]:
    """The parameters among `entries`, without prefixes."""
    state = {str(name): value for name, value in entries.items() if isinstance(value, kind | Placeholder)}
    state = {name: value for name, value in state.items() if name.rpartition(".")[2] not in _NOT_PARAMETERS}
    if not state:
        shown = ", ".join(_short(name) for name in list(entries)[:5]) or "none"
        raise ModelError(path, f"holds no weights (its entries: {shown})", "pass a checkpoint with a state dict")
    if len(state) > mindspore.MOST_VALUES:
        raise ModelError(path, f"holds more than {mindspore.MOST_VALUES} tensors", "pass the weights of one network")
    if any(len(name) > _LONGEST_NAME for name in state):
        raise ModelError(path, f"is damaged: it has a name of more than {_LONGEST_NAME} characters", "download it again")
    for _ in range(_MOST_PREFIXES):
        stripped = _strip_prefix(state)
        if stripped is None:
            break
        state = stripped
    return state


def _strip_prefix(state: dict[str, object]) -> dict[str, object] | None:
    for prefix in _CHOSEN_PREFIXES:
        if any(name.startswith(prefix) for name in state):
            return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
    for prefix in _COMMON_PREFIXES:
        if all(name.startswith(prefix) for name in state):
            return {name.removeprefix(prefix): value for name, value in state.items()}
    return None


def _clean(state: dict[str, object], load: Callable[..., Tensor], path: Path) -> State:
    """`state` as dense, contiguous tensors, floating ones in float32; refuses what no network can compute with.

    Args:
        load: Makes a tensor of a value of `state`.
    """
    clean: State = {}
    made: dict[object, Tensor] = {}  # weights that are tied share their memory
    for name, value in state.items():
        if isinstance(value, Placeholder):
            raise ModelError(
                path, f"holds {_short(name)} in a form that is not supported ({_short(value.name)})", _UNSAFE_ADVICE
            )
        if value not in made:
            made[value] = _usable(load(value), name, path)
        clean[name] = made[value]
    return clean


def _usable(value: Tensor, name: str, path: Path) -> Tensor:
    if (
        value.layout is not torch.strided
        or value.is_quantized
        or value.is_complex()
        or value.dtype.itemsize < 2 < value.ndim
        or value.ndim > mindspore.MOST_DIMS
    ):
        raise ModelError(path, f"holds {_short(name)} in a form that is not supported ({value.dtype})", _UNSAFE_ADVICE)
    if value.numel() == 0:
        raise ModelError(path, f"is damaged: {_short(name)} is empty", "download it again")
    if not value.is_floating_point():
        return value.contiguous()
    value = value.detach().to(torch.float32).contiguous()
    # In parts: looking at all at once takes as much memory again.
    if not all(bool(torch.isfinite(part).all()) for part in torch.split(value.view(-1), _CHECKED_VALUES)):
        raise ModelError(path, f"is damaged: {_short(name)} has values that are not finite", "download it again")
    return value


def _short(text: object, length: int = 80) -> str:
    """Text by a stranger, short enough for one line."""
    plain = str(text)
    return plain if len(plain) <= length else f"{plain[: length - 1]}…"
