"""MindSpore checkpoints (`.ckpt`), read without MindSpore and with PyTorch's names.

The format is a protobuf message (https://protobuf.dev/programming-guides/encoding), declared in MindSpore's checkpoint.proto:

    message Checkpoint  { repeated Value value = 1; }
    message Value       { required string tag = 1; oneof { TensorProto tensor = 2; MapTensorProto maptensor = 3; } }
    message TensorProto { repeated int64 dims = 1; required string tensor_type = 2; required bytes tensor_content = 3; }

A parameter of more than 512 MiB is stored as several values with the same tag, each with the dims of the whole; a scalar has
the dims [0]. A file saved with `crc_check` ends in "crc_num" and the CRC-32 of all bytes before it, in ten big-endian bytes.

Files are treated as hostile: every length is compared with the existing bytes before use, and a file never causes an allocation
beyond its own size and a bounded number of tensor headers.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import NoReturn

import torch
from torch import Tensor

from upframe.errors import ModelError

_TYPES = {
    "Float64": torch.float64,
    "Float32": torch.float32,
    "Float16": torch.float16,
    "BFloat16": torch.bfloat16,
    "Int64": torch.int64,
    "Int32": torch.int32,
    "Int16": torch.int16,
    "Int8": torch.int8,
    "UInt64": torch.uint64,
    "UInt32": torch.uint32,
    "UInt16": torch.uint16,
    "UInt8": torch.uint8,
    "Bool": torch.bool,
}
_TEXT = "str"  # `append_dict` stores text as this; not a parameter

MOST_VALUES = 25_000
"""Most entries in a file. upframe's largest network has 2000; each costs a tensor header, whatever the size of the file."""
MOST_DIMS = 8
_LONGEST_NAME = 1000

_TRAILER, _TRAILER_BYTES = b"crc_num", 17

ENCRYPTED = tuple(
    number.to_bytes(4, order)
    for number in (0x7F3A5ED8, 0x7F3A5ED9, 0x7F3A5EDA)  # AES-GCM, AES-CBC, SM4-CBC
    for order in ("little", "big")
)
"""First bytes of checkpoints that MindSpore encrypted."""


def looks_like_checkpoint(start: bytes) -> bool:
    """Whether a file that starts with these bytes (64 suffice) starts like a MindSpore checkpoint.

    Such a file starts with a value that has a tag of printable text. The value may be incomplete: a truncated checkpoint is
    still a checkpoint.
    """
    try:
        key, at = _varint(start, 0)
        value_bytes, at = _varint(start, at)
        tag_key, at = _varint(start, at)
        tag_bytes, at = _varint(start, at)
    except _MalformedError:
        return False
    if (key, tag_key) != (0x0A, 0x0A) or not 0 < tag_bytes <= _LONGEST_NAME or tag_bytes >= value_bytes:
        return False
    return start[at : at + tag_bytes].decode("utf-8", "ignore").isprintable()


@dataclass
class _Parameter:
    """One parameter, collected from all values with its tag."""

    type_name: str
    dims: list[int]
    parts: list[memoryview] = field(default_factory=list)


def parse(data: bytes, path: Path) -> dict[str, Tensor]:
    """Read the parameters of a checkpoint under their own names, in their own dtypes on the CPU.

    Texts are skipped. The tensors do not share memory with `data`.

    Args:
        data: The whole file.
        path: Name of the file in messages.

    Raises:
        ModelError: the file is damaged or truncated, or contains anything but tensors.
    """
    view = _without_checksum(memoryview(data), path)
    parameters: dict[str, _Parameter] = {}
    where = "the file"
    try:
        for count, (number, value) in enumerate(_fields(view)):
            where = f"value {count}"
            if number != 1 or not isinstance(value, memoryview):
                raise _MalformedError(f"field {number} instead of a value")
            if count == MOST_VALUES:
                raise _MalformedError(f"more than {MOST_VALUES} values")
            tag, tensor = _tag_and_tensor(value)
            where = f"parameter {tag!r}"
            part = _tensor(tensor)
            known = parameters.setdefault(tag, _Parameter(part.type_name, part.dims))
            if (known.type_name, known.dims) != (part.type_name, part.dims):
                raise _MalformedError("its parts differ in shape or type")
            known.parts += part.parts
        state = {}
        for tag, parameter in parameters.items():
            where = f"parameter {tag!r}"
            if parameter.type_name != _TEXT:
                state[tag] = _as_tensor(parameter)
    except _UnsupportedError as error:
        raise ModelError(path, f"holds {where} as {error}, which is not supported", _EXPORT) from error
    except _MalformedError as error:
        _damaged(path, f"{where}: {error}", error)
    return state


_EXPORT = "save the parameters alone, as plain tensors, with MindSpore and pass that"


class _MalformedError(Exception):
    """The bytes are not a valid message; the argument states the reason."""


class _UnsupportedError(Exception):
    """A valid message with content that upframe does not read."""


def _damaged(path: Path, what: str, cause: BaseException | None = None) -> NoReturn:
    raise ModelError(path, f"is a damaged or truncated MindSpore checkpoint ({what})", "download it again") from cause


def _without_checksum(view: memoryview, path: Path) -> memoryview:
    if bytes(view[-_TRAILER_BYTES:-10]) != _TRAILER:
        return view
    content, stated = view[:-_TRAILER_BYTES], int.from_bytes(view[-10:], "big")
    if zlib.crc32(content) != stated:
        _damaged(path, "its checksum does not match")
    return content


# The wire format ------------------------------------------------------------------------------------------------------
def _varint(view: memoryview | bytes, at: int) -> tuple[int, int]:
    """Read the unsigned number at `at`; return it and the position of its end."""
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(view):
            raise _MalformedError("it ends within a number")
        byte = view[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            if value >= 1 << 64:
                break
            return value, at
    raise _MalformedError("a number of more than 64 bits")


def _fields(view: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Yield (number, value) of each field: numbers as int, other values as a part of `view`."""
    at = 0
    while at < len(view):
        key, at = _varint(view, at)
        number, wire = key >> 3, key & 7
        if number == 0:
            raise _MalformedError("a field without a number")
        if wire == 0:
            value, at = _varint(view, at)
            yield number, value
            continue
        if wire == 2:
            length, at = _varint(view, at)
        elif wire in (1, 5):  # fixed 64 and 32 bits
            length = 8 if wire == 1 else 4
        else:
            raise _MalformedError(f"a field of the unknown kind {wire}")
        if length > len(view) - at:
            raise _MalformedError(f"{length} bytes announced, {len(view) - at} there")
        yield number, view[at : at + length]
        at += length


def _tag_and_tensor(value: memoryview) -> tuple[str, memoryview]:
    tag = tensor = None
    for number, content in _fields(value):
        if number == 3:
            raise _UnsupportedError("a hash table (MapTensor)")
        if not isinstance(content, memoryview):
            raise _MalformedError(f"a number in field {number}")
        if number == 1 and tag is None:
            tag = _text(content)
        elif number == 2 and tensor is None:
            tensor = content
        else:
            raise _MalformedError(f"an unexpected field {number}")
    if not tag or tensor is None:
        raise _MalformedError("a value without a name or a tensor")
    return tag, tensor


def _tensor(message: memoryview) -> _Parameter:
    dims: list[int] = []
    type_name = content = None
    for count, (number, value) in enumerate(_fields(message)):
        if count > MOST_DIMS + 2:
            raise _MalformedError("a tensor of more parts than type, content and dimensions")
        if number == 1:
            dims += _packed(value) if isinstance(value, memoryview) else [value]
            if len(dims) > MOST_DIMS:
                raise _MalformedError(f"more than {MOST_DIMS} dimensions")
        elif number == 2 and type_name is None and isinstance(value, memoryview):
            type_name = _text(value)
        elif number == 3 and content is None and isinstance(value, memoryview):
            content = value
        else:
            raise _MalformedError(f"an unexpected field {number} in the tensor")
    if type_name is None or content is None:
        raise _MalformedError("a tensor without type or content")
    if type_name not in _TYPES and type_name != _TEXT:
        raise _UnsupportedError(f"{type_name!r}")
    return _Parameter(type_name, dims, [content])


def _packed(view: memoryview) -> list[int]:
    """Read numbers packed in one field, as newer writers of protobuf may store a list."""
    numbers: list[int] = []
    at = 0
    while at < len(view) and len(numbers) <= MOST_DIMS:
        number, at = _varint(view, at)
        numbers.append(number)
    return numbers


def _text(view: memoryview) -> str:
    if len(view) > _LONGEST_NAME:
        raise _MalformedError(f"a name of {len(view)} bytes")
    try:
        return str(view, "utf-8")
    except UnicodeDecodeError as error:
        raise _MalformedError("a name that is no text") from error


def _as_tensor(parameter: _Parameter) -> Tensor:
    dtype = _TYPES[parameter.type_name]
    shape = [] if parameter.dims == [0] else parameter.dims
    stored, wanted = sum(map(len, parameter.parts)), prod(shape) * dtype.itemsize
    if stored != wanted or stored == 0:  # a negative dimension is a huge one here
        raise _MalformedError(f"{stored} bytes for {parameter.type_name} {parameter.dims}, which takes {wanted}")
    content = bytearray().join(parameter.parts)
    if dtype is torch.bool and max(content) > 1:
        raise _MalformedError("a Bool that is neither 0 nor 1")
    return torch.frombuffer(content, dtype=dtype).reshape(shape)


# Names ----------------------------------------------------------------------------------------------------------------
# Names of parameters of normalisation and embedding layers in mindspore.nn and in torch.nn. Those of Dense and Conv agree.
_TORCH_NAMES = {
    "gamma": "weight",
    "beta": "bias",
    "moving_mean": "running_mean",
    "moving_variance": "running_var",
    "embedding_table": "weight",
}
_OF_TRAINING = re.compile(
    r"(?:(?:network|optimizer)\.)*(?:"
    # prefixes of the copies of each parameter that optimisers of mindspore.nn keep
    r"(?:moments?|moment[12]|adam_[mv]|accum|accumulation|stat|mean_square|mean_grad|accu_grads)\..*"
    # scalars of the optimisers and the training loop
    r"|learning_rate|global_step|beta[12]_power|momentum|weight_decay|scale_sense|loss_scale|epoch_num|step_num"
    r"|current_iterator_step|last_overflow_iterator_step)"
)
_WRAPPERS = ("network.", "_network.", "net.", "backbone.", "_backbone.", "generator.", "_generator.", "model.")


def torch_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename the parameters of a network to the names of the same network in PyTorch.

    Entries that only training needs (moments of the optimiser, learning rate, counters) are skipped, prefixes of wrappers
    (`network.`, `_backbone.`) are removed, and `gamma` and `beta` become `weight` and `bias` and so on. If averaged weights
    (`ema.`) exist beside the others, they are used. Shapes are the same in both libraries. Constants that a PyTorch network
    keeps as buffers may be absent: they are not added here.

    Args:
        state: As `parse` returns it; it is not changed, and tensors are shared.
    """
    named = {name: value for name, value in state.items() if not _OF_TRAINING.fullmatch(name)}
    averaged = {name.removeprefix("ema."): value for name, value in named.items() if name.startswith("ema.")}
    if averaged:
        named = {name: value for name, value in named.items() if not name.startswith("ema.")} | averaged
    while prefix := next((p for p in _WRAPPERS if named and all(name.startswith(p) for name in named)), None):
        named = {name.removeprefix(prefix): value for name, value in named.items()}
    result: dict[str, Tensor] = {}
    for name, value in named.items():
        layer, dot, last = name.rpartition(".")
        new = layer + dot + _TORCH_NAMES.get(last, last)
        # a layer with both weight and gamma is the network's own: its names stay
        result[name if new != name and new in named else new] = value
    return result
