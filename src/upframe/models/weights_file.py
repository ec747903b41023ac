"""Weights files, read safely: what lies in them, under the names they came with.

Reading never executes what a file contains: safetensors hold no code, and PyTorch files go through torch's restricted
unpickler. MindSpore's are a list of tensors, and stay one. Nothing is concluded from a file's name.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import logging
import os
import pickle
import re
import stat
import struct
import threading
import warnings
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from upframe.errors import ModelError
from upframe.models import mindspore
from upframe.models.cards import Card, ValueRange, card_path

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
    Of several sets of weights in a file the averaged (EMA) one is taken. Our own training checkpoints are such files. The
    whole file is held in memory while it is read.

    Raises:
        ModelError: the file is missing, damaged, unsafe or of another kind, holds no weights, or is not the one its
            card was written for.
    """
    path = Path(path)
    data, kind = _bytes(path)
    sha256 = hashlib.sha256(data).hexdigest()
    content: object
    card: Card | None = None
    stated: object = None
    if kind == "safetensors":
        content, metadata = _parse_safetensors(data, path)
        card = _card(path, metadata, sha256)
        stated = card.value_range if card else metadata.get("value_range")
    elif kind == "mindspore":
        content = mindspore.torch_names(mindspore.parse(data, path))
    else:
        content = _parse_torch(data, path)
        stated = content.get("value_range") if isinstance(content, Mapping) else None  # upframe's training checkpoints state it
    if stated not in (None, "0-1", "0-255"):
        raise ModelError(path, f"states the unknown value range {stated!r}", 'known are "0-1" and "0-255"')
    return WeightsFile(path, _clean(_unwrap(content, path), path), sha256, card, stated)


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


def _bytes(path: Path) -> tuple[bytes, _Kind]:
    """The content of a file that starts like weights, and its format."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # opening a FIFO would wait for ever
            raise ModelError(path, "is not a file", "pass a weights file")
        with path.open("rb") as file:
            start = file.read(64)
            size = os.fstat(file.fileno()).st_size
            kind = _kind(start, size, path)
            file.seek(0)
            return file.read(), kind
    except FileNotFoundError as error:
        raise ModelError(path, "no such file", "check the path; `upframe models list` shows the names") from error
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        raise ModelError(path, f"cannot be read ({error})", "check the path and its permissions") from error


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


def _parse_safetensors(data: bytes, path: Path) -> tuple[State, dict[str, str]]:
    try:
        state = safetensors.torch.load(data)
    except (SafetensorError, ValueError, KeyError, RuntimeError) as error:
        raise ModelError(path, f"is damaged or truncated ({error})", "download it again") from error
    length = struct.unpack("<Q", data[:8])[0]
    return state, json.loads(data[8 : 8 + length]).get("__metadata__") or {}


# Harmless classes that research checkpoints hold beside the tensors: the run's options and scores.
_numpy_scalar: Any = np.float64(0).__reduce__()[0]  # the function that pickles of NumPy scalars call
_SAFE_GLOBALS: list[Any] = [
    argparse.Namespace,
    _numpy_scalar,
    (_numpy_scalar, "numpy.core.multiarray.scalar"),  # its name before NumPy 2
    np.dtype,
    np.dtypes.Float64DType,
    np.dtypes.Float32DType,
    np.dtypes.Int64DType,
]
_TORCH_LOAD_LOCK = threading.Lock()  # the lists of safe globals and of warning filters belong to the process
_CONVERT_ADVICE = "use a .safetensors version, or convert it where you trust it and pass that"


def _parse_torch(data: bytes, path: Path) -> object:
    if data.startswith(b"PK"):
        _check_archive(data, path)
    try:
        with _TORCH_LOAD_LOCK, warnings.catch_warnings(), torch.serialization.safe_globals(_SAFE_GLOBALS):
            warnings.simplefilter("ignore")  # on old formats; what cannot be read is refused below
            return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        found = re.search(r"GLOBAL ([\w.]+)", str(error))
        what = f"it refers to {found[1]}, which could run code" if found else "it is a pickle that holds more than weights"
        raise ModelError(path, f"is unsafe: {what}", _CONVERT_ADVICE) from error
    except Exception as error:
        # On bytes made by anyone the unpickler raises nearly anything (EOFError, struct.error, KeyError, IndexError,
        # TypeError, RuntimeError, ...), and all of it means the same.
        raise ModelError(path, "is damaged, truncated or no PyTorch checkpoint", "download it again") from error


def _check_archive(data: bytes, path: Path) -> None:
    """Refuse archives that hold programs, are not torch's, or would unpack to more than they are."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = archive.infolist()
    except (zipfile.BadZipFile, ValueError, NotImplementedError) as error:
        raise ModelError(path, "is damaged or truncated", "download it again") from error
    names = [member.filename for member in members]
    if any(name.endswith("/constants.pkl") or "/code/" in name for name in names):
        raise ModelError(path, "is unsafe: a TorchScript archive, which holds a program", _CONVERT_ADVICE)
    if not any(name.endswith("/data.pkl") for name in names):
        raise ModelError(path, "is a ZIP archive but no PyTorch checkpoint", "unpack it and pass the weights file in it")
    if sum(member.file_size for member in members) > len(data):
        raise ModelError(path, "is unsafe: its parts are compressed or overlap, as torch never writes them", _CONVERT_ADVICE)


def _card(path: Path, metadata: Mapping[str, str], sha256: str) -> Card | None:
    """The card beside a safetensors file, else the one in its header."""
    beside = card_path(path)
    if beside.is_file():
        try:
            card = Card.from_json(beside.read_text(encoding="utf-8"), subject=beside)
        except (OSError, UnicodeDecodeError) as error:
            raise ModelError(beside, f"cannot be read ({error})", "remove it or write it again with convert") from error
        if card.sha256 and card.sha256 != sha256:
            raise ModelError(
                path,
                f"is not the file its card was written for (SHA-256 {sha256[:12]}…, the card says {card.sha256[:12]}…)",
                f"restore the file, or remove {beside.name} if the change is meant",
            )
        return card
    return Card.from_json(metadata["card"], subject=path) if "card" in metadata else None


# Unwrapping -----------------------------------------------------------------------------------------------------------
# Where training programs put the weights, averaged ones first.
_WRAPPERS = (
    *("params_ema", "ema_state_dict", "model_ema", "state_dict_ema", "ema"),
    *("params", "state_dict", "model_state_dict", "model", "generator", "net_g", "network", "net", "weights"),
)
# Of several networks in one state dict the first of these is meant, and the others (a discriminator, ...) are dropped.
_CHOSEN_PREFIXES = ("generator_ema.", "net_g_ema.", "generator.", "net_g.", "netG.")
# Added to every name by whatever held the network.
_COMMON_PREFIXES = ("module.", "_orig_mod.", "ema_model.", "model.", "network.", "net.")
_NOT_PARAMETERS = ("num_batches_tracked", "n_averaged", "step_counter")


def _unwrap(content: object, path: Path) -> State:
    """Return the named tensors in the content of a file, without wrappers and prefixes."""
    for _ in range(4):  # deeper nesting has not been seen
        if not isinstance(content, Mapping):
            break
        inner = next((content[key] for key in _WRAPPERS if isinstance(content.get(key), Mapping)), None)
        if inner is None:
            break
        content = inner
    if not isinstance(content, Mapping):
        raise ModelError(path, f"holds a {type(content).__name__}, not named weights", "pass a checkpoint with a state dict")
    state = {str(name): value for name, value in content.items() if isinstance(value, Tensor)}
    state = {name: value for name, value in state.items() if name.rpartition(".")[2] not in _NOT_PARAMETERS}
    if not state:
        entries = ", ".join(str(name) for name in list(content)[:5]) or "none"
        raise ModelError(path, f"holds no weights (its entries: {entries})", "pass a checkpoint with a state dict")
    while (stripped := _strip_prefix(state)) is not None:
        state = stripped
    return state


def _strip_prefix(state: State) -> State | None:
    for prefix in _CHOSEN_PREFIXES:
        if any(name.startswith(prefix) for name in state):
            return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
    for prefix in _COMMON_PREFIXES:
        if all(name.startswith(prefix) for name in state):
            return {name.removeprefix(prefix): value for name, value in state.items()}
    return None


def _clean(state: State, path: Path) -> State:
    """`state` as dense, contiguous tensors, floating ones in float32; refuses what no network can compute with."""
    clean: State = {}
    for name, value in state.items():
        if value.layout is not torch.strided or value.is_quantized or value.is_complex() or value.is_meta:
            raise ModelError(
                path, f"holds {name} in a form that is not supported ({value.dtype}, {value.layout})", _CONVERT_ADVICE
            )
        if value.is_floating_point():
            value = value.detach().to(torch.float32)
            if not bool(torch.isfinite(value).all()):
                raise ModelError(path, f"is damaged: {name} has values that are not finite", "download it again")
        if value.numel() == 0:
            raise ModelError(path, f"is damaged: {name} is empty", "download it again")
        clean[name] = value.contiguous()
    return clean
