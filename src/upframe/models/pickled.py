"""Pickles of PyTorch's files read as data: the tensors that they record, without unpickling them.

A pickle is a small program for a stack machine. Unpickling runs that program, and even a restricted unpickler calls what is on
its list with arguments that a stranger chose. This module interprets the opcodes itself and calls nothing. Dicts, lists,
tuples, strings and numbers become themselves; the few calls by which torch records tensors become `StoredTensor`; every other
object becomes an inert `Placeholder`.

A file is taken for hostile. Its pickles may hold at most `MOST_OPCODES` opcodes and `MOST_PICKLE_BYTES` bytes together, so that
reading takes seconds and some tens of megabytes whatever the bytes are. No text in them is longer than `LONGEST_TEXT`, since it
may be used as often as there are opcodes.
"""

from __future__ import annotations

import pickletools
import struct
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import BinaryIO, cast

import torch

MOST_OPCODES = 400_000
"""Most opcodes of a file's pickles. A checkpoint of the largest network here with the state of its optimiser has 200,000."""

MOST_PICKLE_BYTES = 16 << 20
"""Most bytes of a file's pickles; those of that checkpoint take 4 MB. The values of tensors lie outside of them."""

LONGEST_TEXT = 1000
"""Characters of the longest text that is kept; a longer one becomes a `Placeholder`."""

_LONGEST_ARGUMENT = 4 << 20  # bytes of one opcode
_MOST_DIMS = 8

_STORAGES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
    "UntypedStorage": torch.uint8,
}
"""Data types by the class that a file names for a storage."""

_DTYPES = {name: getattr(torch, name) for name in ("float64", "float32", "float16", "bfloat16", "uint16", "uint32", "uint64")}
"""Data types that a tensor of an untyped storage may state."""

_DANGEROUS = frozenset(
    (
        *("os", "posix", "nt", "subprocess", "commands", "sys", "shutil", "socket"),
        *("importlib", "runpy", "pty", "webbrowser", "ctypes", "code"),
    )
)
"""Modules that nothing beside weights has a reason to name; refusing them warns, the interpreter would call nothing."""

_DANGEROUS_BUILTINS = frozenset(("eval", "exec", "compile", "__import__", "getattr", "open", "apply", "execfile", "input"))


class MalformedError(Exception):
    """The bytes are not what torch writes."""


class UnsafeError(Exception):
    """The file names something that could only be meant to run code; the message is that name."""


@dataclass(frozen=True, slots=True)
class Storage:
    """The flat values that tensors look into."""

    key: str
    dtype: torch.dtype
    values: int
    """Number of values that the file states."""


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """A tensor as the pickle records it. Its values are read by `TorchFile.tensor`."""

    storage: Storage
    dtype: torch.dtype
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]

    def __hash__(self) -> int:
        """That of a text, which is salted: a stranger can choose tuples of numbers that all hash alike."""
        return hash(f"{self.storage.key} {self.offset} {self.size} {self.stride}")

    @property
    def values(self) -> int:
        """Number of its values."""
        count = 1
        for side in self.size:
            count *= side
        return count


@dataclass(eq=False, slots=True)
class Placeholder:
    """An object that was not built: a class, a function, or the result of a call."""

    name: str
    """Dotted name of the class or function."""
    arguments: tuple[object, ...] = ()
    items: dict[str, object] | None = None
    """Items with text keys that the pickle would have set on it; None if there are none."""
    state: object = None
    """State that the pickle would have handed to it."""


# The stack machine ----------------------------------------------------------------------------------------------------
_MARK = object()
MORE_THAN_WEIGHTS = "it holds far more than weights"


class Pickles:
    """The pickles of a file, one after the other. What they may hold is limited for all of them together.

    Args:
        file: At the place of the first one.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._bytes_left = MOST_PICKLE_BYTES
        self._text_left = MOST_PICKLE_BYTES
        self._opcodes_left = MOST_OPCODES

    def next(self, storages: dict[str, Storage] | None = None) -> object:
        """The value that the next pickle describes; the file is read up to its end.

        Args:
            storages: Filled with the storages that it names.

        Raises:
            MalformedError, UnsafeError: as `TorchFile`.
        """
        machine = _Machine(self, {} if storages is None else storages)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # on what a text of the file escapes
                return machine.run(pickletools.genops(self))  # type: ignore[arg-type] # calls `read` and `readline` alone
        except (IndexError, KeyError, TypeError, ValueError, AttributeError, OverflowError, struct.error, EOFError) as error:
            raise MalformedError("it is damaged, cut off or no PyTorch checkpoint") from error

    def read(self, size: int) -> bytes:
        """As a file's; called for each opcode and its argument."""
        if size > _LONGEST_ARGUMENT:
            raise MalformedError(MORE_THAN_WEIGHTS)
        return self._counted(self._file.read(size))

    def readline(self) -> bytes:
        """As a file's; called for each argument that is a line. One that is too long lacks its end, which is refused."""
        return self._counted(self._file.readline(_LONGEST_ARGUMENT))

    def _counted(self, part: bytes) -> bytes:
        self._bytes_left -= len(part)
        if self._bytes_left < 0:
            raise MalformedError(MORE_THAN_WEIGHTS)
        return part

    def count(self, opcodes: int) -> None:
        """Count opcodes, or as much work as theirs."""
        self._opcodes_left -= opcodes
        if self._opcodes_left < 0:
            raise MalformedError(MORE_THAN_WEIGHTS)

    def kept(self, argument: object) -> object:
        """An argument of an opcode as it is kept: of long text and of bytes, which say nothing about weights, only the kind."""
        if isinstance(argument, bytes | bytearray):
            return _A_BYTES
        if isinstance(argument, str):
            if len(argument) > LONGEST_TEXT:
                return _A_LONG_TEXT
            self._text_left -= 4 * len(argument) if not argument.isascii() else len(argument)
            if self._text_left < 0:
                raise MalformedError(MORE_THAN_WEIGHTS)
        return argument


class _Machine:
    """Interprets opcodes. Only text may be a key of a dict: other keys are dropped with their values, since a stranger can
    choose numbers that all hash alike, or tuples too deep to hash."""

    def __init__(self, pickles: Pickles, storages: dict[str, Storage]) -> None:
        self._stack: list[object] = []
        self._memo: dict[int, object] = {}
        self._pickles = pickles
        self._storages = storages

    def run(self, opcodes: Iterator[tuple[pickletools.OpcodeInfo, object, int | None]]) -> object:
        for opcode, argument, _ in opcodes:
            self._pickles.count(1)
            name = opcode.name
            if name == "STOP":
                return self._stack.pop()
            self._step(name, argument)
        raise MalformedError("it is cut off")

    def _step(self, name: str, argument: object) -> None:
        stack = self._stack
        if name in _PUSHED:
            stack.append(self._pickles.kept(argument))
        elif name in _CONSTANTS:
            stack.append(_CONSTANTS[name])
        elif name in _NOTHING:
            pass
        elif name in ("BINPUT", "LONG_BINPUT", "PUT"):
            self._memo[_index(argument)] = stack[-1]
        elif name == "MEMOIZE":
            self._memo[len(self._memo)] = stack[-1]
        elif name in ("BINGET", "LONG_BINGET", "GET"):
            stack.append(self._memo[_index(argument)])
        elif name == "MARK":
            stack.append(_MARK)
        elif name == "POP":
            stack.pop()
        elif name == "POP_MARK":
            self._marked()
        elif name == "DUP":
            stack.append(stack[-1])
        elif name in _TUPLES:
            count = _TUPLES[name]
            if len(stack) < count:
                raise MalformedError("it is damaged")
            stack[len(stack) - count :] = [tuple(stack[len(stack) - count :])]
        else:
            _STEPS[name](self, argument)

    def _marked(self) -> list[object]:
        """Everything above the last mark, taken off together with it."""
        stack = self._stack
        at = len(stack) - 1
        while stack[at] is not _MARK:  # an IndexError below the bottom
            at -= 1
            if at < 0:
                raise MalformedError("it is damaged")
        items = stack[at + 1 :]
        del stack[at:]
        return items

    def make_tuple(self, _: object) -> None:
        self._stack.append(tuple(self._marked()))

    def make_list(self, _: object) -> None:
        self._stack.append(self._marked())

    def make_empty_list(self, _: object) -> None:
        self._stack.append([])

    def make_empty_dict(self, _: object) -> None:
        self._stack.append({})

    def make_dict(self, _: object) -> None:
        items = self._marked()
        made: dict[str, object] = {}
        _set_items(made, items)
        self._stack.append(made)

    def append(self, _: object) -> None:
        value = self._stack.pop()
        _extend(self._stack[-1], [value])

    def appends(self, _: object) -> None:
        items = self._marked()
        _extend(self._stack[-1], items)

    def set_item(self, _: object) -> None:
        value, key = self._stack.pop(), self._stack.pop()
        _set_items(self._stack[-1], [key, value])

    def set_items(self, _: object) -> None:
        items = self._marked()
        _set_items(self._stack[-1], items)

    def global_by_text(self, argument: object) -> None:
        module, _, name = str(argument).partition(" ")
        self._stack.append(_named(module, name))

    def global_by_stack(self, _: object) -> None:
        name, module = self._stack.pop(), self._stack.pop()
        if not isinstance(name, str) or not isinstance(module, str):
            raise MalformedError("it is damaged")
        self._stack.append(_named(module, name))

    def call(self, _: object) -> None:
        """REDUCE and NEWOBJ: a callable and a tuple of arguments."""
        arguments, function = self._stack.pop(), self._stack.pop()
        self._append_called(function, arguments)

    def call_with_keywords(self, _: object) -> None:
        self._stack.pop()  # the keywords
        self.call(None)

    def call_marked(self, _: object) -> None:
        """OBJ: a class and its arguments, all above a mark."""
        function, *arguments = self._marked()
        self._append_called(function, tuple(arguments))

    def call_named(self, argument: object) -> None:
        """INST: a class by its name, arguments above a mark."""
        module, _, name = str(argument).partition(" ")
        self._append_called(_named(module, name), tuple(self._marked()))

    def _append_called(self, function: object, arguments: object) -> None:
        # Python 2 pickled the items of an `OrderedDict` as one list, which may be an argument again and again.
        if isinstance(arguments, tuple) and arguments and isinstance(arguments[0], list):
            self._pickles.count(len(arguments[0]))
        self._stack.append(_called(function, arguments))

    def build(self, _: object) -> None:
        state, target = self._stack.pop(), self._stack[-1]
        if isinstance(target, Placeholder):
            target.state = state

    def extension(self, argument: object) -> None:
        self._stack.append(Placeholder(f"extension {argument}"))

    def persistent(self, _: object) -> None:
        """BINPERSID: torch writes a storage as ("storage", class, key, location, number of values)."""
        record = self._stack.pop()
        if not (isinstance(record, tuple) and len(record) >= 5 and record[0] == "storage"):
            raise MalformedError("it refers to something outside itself")
        kind, key, values = record[1], record[2], record[4]
        known = isinstance(kind, Placeholder) and _STORAGES.get(kind.name.rpartition(".")[2])
        if not isinstance(key, str) or not isinstance(values, int) or isinstance(values, bool):
            raise MalformedError("a storage is damaged")
        if not isinstance(known, torch.dtype):
            name = kind.name if isinstance(kind, Placeholder) else "unknown"
            self._stack.append(Placeholder(name))
            return
        self._stack.append(self._storages.setdefault(key, Storage(key, known, values)))


_A_LONG_TEXT, _A_BYTES = Placeholder("long text"), Placeholder("bytes")

_PUSHED = frozenset(
    (
        *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1"),
        *("LONG4", "FLOAT", "BINFLOAT", "STRING", "BINSTRING", "SHORT_BINSTRING"),
        *("UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "BINBYTES", "SHORT_BINBYTES"),
        *("BINBYTES8", "BYTEARRAY8"),
    )
)
_CONSTANTS: Mapping[str, object] = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
_NOTHING = frozenset(("PROTO", "FRAME", "READONLY_BUFFER"))
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_STEPS = {
    "TUPLE": _Machine.make_tuple,
    "LIST": _Machine.make_list,
    "EMPTY_LIST": _Machine.make_empty_list,
    "EMPTY_SET": _Machine.make_empty_list,  # as lists: what is in a set may be too deep to hash
    "FROZENSET": _Machine.make_list,
    "EMPTY_DICT": _Machine.make_empty_dict,
    "DICT": _Machine.make_dict,
    "APPEND": _Machine.append,
    "APPENDS": _Machine.appends,
    "ADDITEMS": _Machine.appends,
    "SETITEM": _Machine.set_item,
    "SETITEMS": _Machine.set_items,
    "GLOBAL": _Machine.global_by_text,
    "STACK_GLOBAL": _Machine.global_by_stack,
    "REDUCE": _Machine.call,
    "NEWOBJ": _Machine.call,
    "NEWOBJ_EX": _Machine.call_with_keywords,
    "OBJ": _Machine.call_marked,
    "INST": _Machine.call_named,
    "BUILD": _Machine.build,
    "EXT1": _Machine.extension,
    "EXT2": _Machine.extension,
    "EXT4": _Machine.extension,
    "BINPERSID": _Machine.persistent,
}


def _index(argument: object) -> int:
    index = int(argument)  # type: ignore[call-overload] # of an opcode whose argument is a number
    if not 0 <= index < 1 << 32:
        raise MalformedError("it is damaged")
    return int(index)


def _extend(target: object, items: list[object]) -> None:
    if isinstance(target, list):
        target.extend(items)
    elif not isinstance(target, Placeholder):
        raise MalformedError("it is damaged")


def _set_items(target: object, items: list[object]) -> None:
    into = target
    if isinstance(target, Placeholder):
        into = target.items = {} if target.items is None else target.items
    if not isinstance(into, dict) or len(items) % 2:
        raise MalformedError("it is damaged")
    for key, value in zip(items[::2], items[1::2], strict=True):
        if isinstance(key, str):
            into[key] = value


def _named(module: str, name: str) -> Placeholder:
    if len(module) + len(name) > LONGEST_TEXT:
        raise MalformedError("it names a class by thousands of characters")
    top = module.partition(".")[0]
    if top in _DANGEROUS or (top in ("builtins", "__builtin__") and name in _DANGEROUS_BUILTINS):
        raise UnsafeError(f"it refers to {module}.{name}, which could run code")
    return Placeholder(f"{module}.{name}")


def _called(function: object, arguments: object) -> object:
    """The result of a call, recorded instead of made."""
    if not isinstance(function, Placeholder) or not isinstance(arguments, tuple):
        raise MalformedError("it is damaged")
    if function.name == "collections.OrderedDict":
        made: dict[str, object] = {}
        if arguments:  # Python 2 pickled the items as one list of pairs
            pairs = arguments[0] if isinstance(arguments[0], list) else []
            _set_items(made, [part for pair in pairs if isinstance(pair, list | tuple) and len(pair) == 2 for part in pair])
        return made
    module, _, name = function.name.rpartition(".")
    if module == "torch._utils":
        if name in ("_rebuild_tensor", "_rebuild_tensor_v2", "_rebuild_tensor_v3"):
            return _tensor(name, arguments)
        if name in ("_rebuild_parameter", "_rebuild_parameter_with_state"):
            return arguments[0]
    return Placeholder(function.name, arguments)


def _tensor(function: str, arguments: tuple[object, ...]) -> object:
    """`_rebuild_tensor_v2(storage, offset, size, stride, requires_grad, hooks)`; version 3 adds the data type."""
    storage, offset, size, stride = arguments[:4]
    if isinstance(storage, Placeholder):
        return Placeholder(storage.name, arguments)
    dtype = storage.dtype if isinstance(storage, Storage) else None
    if function == "_rebuild_tensor_v3":
        stated = arguments[6]
        dtype = _DTYPES.get(stated.name.removeprefix("torch.")) if isinstance(stated, Placeholder) else None
        if dtype is None:
            return Placeholder(f"tensor of {stated.name if isinstance(stated, Placeholder) else 'an unknown type'}", arguments)
    numbers = [offset, *_sides(size), *_sides(stride)]
    if not isinstance(storage, Storage) or dtype is None or len(_sides(size)) != len(_sides(stride)):
        raise MalformedError("a tensor is damaged")
    if not all(type(n) is int and 0 <= n < 1 << 48 for n in numbers):
        raise MalformedError("a tensor is damaged")
    return StoredTensor(storage, dtype, cast("int", offset), _sides(size), _sides(stride))


def _sides(size: object) -> tuple[int, ...]:
    if isinstance(size, Placeholder) and size.name == "torch.Size" and size.arguments:
        size = size.arguments[0]
    if not isinstance(size, tuple) or len(size) > _MOST_DIMS:
        raise MalformedError("a tensor is damaged")
    return cast("tuple[int, ...]", size)  # `_tensor` looks at each
