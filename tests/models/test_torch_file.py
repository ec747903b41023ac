"""PyTorch files read as data: the same tensors that torch gives, nothing called, and bounds that hold for any bytes."""

from __future__ import annotations

import bz2
import collections
import datetime
import io
import json
import pickle
import random
import struct
import subprocess
import sys
import types
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from upframe.errors import ModelError
from upframe.models.pickled import MOST_OPCODES, MalformedError, Placeholder, StoredTensor, UnsafeError
from upframe.models.torch_file import TorchFile
from upframe.models.weights_file import read, read_state

LAYOUTS = pytest.mark.parametrize("is_archive", [True, False], ids=["zip", "legacy"])


def opened(path: Path) -> TorchFile:
    return TorchFile(path.open("rb"), path.stat().st_size)


def saved(path: Path, content: object, *, is_archive: bool = True) -> Path:
    torch.save(content, path, _use_new_zipfile_serialization=is_archive)
    return path


# The same tensors as torch's -------------------------------------------------------------------------------------------
@LAYOUTS
@pytest.mark.parametrize(
    "dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int16, torch.uint8, torch.bool]
)
def test_tensors_are_those_that_torch_reads(tmp_path: Path, dtype: torch.dtype, is_archive: bool) -> None:
    base = (torch.randn(6, 5, 4, generator=torch.Generator().manual_seed(1)) * 50).to(dtype)
    content = {
        "whole": base,
        "transposed": base.permute(2, 0, 1),
        "part": base[2:5, 1::2],
        "scalar": base[0, 0, 0],
        "last": base.clone().to(memory_format=torch.contiguous_format).unsqueeze(0).to(memory_format=torch.channels_last),
        "parameter": nn.Parameter(base.clone(), requires_grad=False),
    }
    path = saved(tmp_path / "w.pth", content, is_archive=is_archive)
    expected = torch.load(path, weights_only=True)
    file = opened(path)
    assert isinstance(file.content, dict)
    for name, tensor in expected.items():
        found = file.content[name]
        assert isinstance(found, StoredTensor)
        assert found.dtype == tensor.dtype
        assert torch.equal(file.tensor(found), tensor.detach())


@LAYOUTS
def test_everything_else_becomes_itself_or_a_placeholder(tmp_path: Path, is_archive: bool) -> None:
    content = {
        "numbers": [1, 2**70, -3, 0.5, True, None],
        "text": ("a", "ö"),
        "nested": OrderedDict(a={"b": ["c"]}),
        "date": datetime.datetime(2024, 1, 1),
        "array": np.arange(3),
        "namespace": types.SimpleNamespace(a=1),
    }
    file = opened(saved(tmp_path / "w.pth", content, is_archive=is_archive))
    assert isinstance(file.content, dict)
    for name in ("numbers", "text", "nested"):
        assert file.content[name] == content[name]
    for name, kind in (("date", "datetime.datetime"), ("array", "_reconstruct"), ("namespace", "types.SimpleNamespace")):
        found = file.content[name]
        assert isinstance(found, Placeholder)
        assert kind in found.name


def test_tied_weights_share_their_memory(tmp_path: Path) -> None:
    tied = torch.ones(3, 3)
    state = read_state(saved(tmp_path / "w.pth", {"a.weight": tied, "b.weight": tied}))
    assert state["a.weight"].data_ptr() == state["b.weight"].data_ptr()


def test_views_of_one_flat_storage_are_read(tmp_path: Path) -> None:
    flat = torch.arange(1000.0)
    content = {f"{i}.weight": flat[10 * i : 10 * i + 10].view(2, 5) for i in range(100)}
    state = read_state(saved(tmp_path / "w.pth", content))
    assert all(torch.equal(state[name], value) for name, value in content.items())


# Where the weights are ------------------------------------------------------------------------------------------------
WEIGHTS = {"conv.weight": torch.ones(2, 2), "conv.bias": torch.zeros(2)}
OTHER = {"conv.weight": torch.zeros(2, 2), "conv.bias": torch.ones(2)}


@pytest.mark.parametrize(
    "content",
    [
        {"params-ema": WEIGHTS, "params": OTHER},
        {"ema": {"shadow": WEIGHTS, "decay": 0.999}, "model": OTHER},
        {"G": WEIGHTS, "D": OTHER},
        [OTHER | WEIGHTS],
        {"net_g": WEIGHTS, "net_d": {f"{i}.weight": torch.ones(1) for i in range(9)}},
        {"state_dict": WEIGHTS, "optimizer": {"state": {0: {"exp_avg": torch.ones(1)}}, "extra": OTHER}},
        {"model": WEIGHTS, "ema": {"decay": torch.tensor(0.9)}},
        {"state_dict": {"params." + name: value for name, value in WEIGHTS.items()}},
        types.SimpleNamespace(anything=WEIGHTS),
    ],
    ids=["params-ema", "shadow", "unknown", "list", "discriminator", "optimiser", "decay-alone", "prefix", "object"],
)
def test_the_network_is_found_wherever_a_trainer_put_it(tmp_path: Path, content: object) -> None:
    state = read_state(saved(tmp_path / "w.pth", content))
    assert state.keys() == WEIGHTS.keys()
    assert all(torch.equal(state[name], value) for name, value in WEIGHTS.items())


# Nothing is called ----------------------------------------------------------------------------------------------------
class Calls:
    """Unpickled, it calls."""

    def __init__(self, function: Callable[..., Any], *arguments: object) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


def test_calls_beside_the_weights_are_not_made(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    content = {
        "params": WEIGHTS,
        "hooks": [Calls(print, "called"), Calls(collections.Counter, "aab"), Calls(bytearray, 1 << 40)],
    }
    assert read_state(saved(tmp_path / "w.pth", content)).keys() == WEIGHTS.keys()
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("function", [eval, exec, getattr, subprocess.run, sys.exit], ids=lambda f: f.__name__)
def test_what_can_only_be_meant_to_run_code_is_refused_by_name(tmp_path: Path, function: Callable[..., Any]) -> None:
    path = saved(tmp_path / "w.pth", {"params": WEIGHTS, "x": Calls(function, "1")})
    with pytest.raises(UnsafeError, match=function.__name__):
        opened(path)


# Bounds that hold for any bytes ---------------------------------------------------------------------------------------
def legacy(*opcodes: bytes) -> bytes:
    """A file of the old layout whose object is these opcodes."""
    head = b"".join(pickle.dumps(part, protocol=2) for part in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}))
    return head + b"\x80\x02" + b"".join(opcodes) + b"." + pickle.dumps([], protocol=2)


def rebuilt(*, size: tuple[int, ...], stride: tuple[int, ...], offset: int = 0, values: int = 4) -> bytes:
    """Opcodes of a tensor in a storage of so many float32 values."""

    def number(n: int) -> bytes:
        return b"\x8a\x08" + struct.pack("<q", n)

    def row(numbers: tuple[int, ...]) -> bytes:
        return b"(" + b"".join(map(number, numbers)) + b"t"

    storage = b"(X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpu" + number(values) + b"tQ"
    return b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + number(offset) + row(size) + row(stride) + b"\x89}tR"


def with_storage(tensor: bytes, values: int = 4) -> bytes:
    """A file with that tensor as `w.weight` and a storage of zeros."""
    head = legacy(b"}X\x08\x00\x00\x00w.weight" + tensor + b"s").removesuffix(pickle.dumps([], protocol=2))
    return head + pickle.dumps(["0"], protocol=2) + struct.pack("<q", values) + bytes(4 * values)


def doubling(times: int) -> bytes:
    """Opcodes of a list that holds a list twice, which holds a list twice, and so on."""
    return b"]" + b"".join(b"q%c0](h%ch%ce" % (i, i, i) for i in range(times))


def rebuilt_v3(dtype: bytes) -> bytes:
    """Opcodes of a tensor of a data type that these opcodes push."""
    known = rebuilt(size=(1,), stride=(1,)).removesuffix(b"\x89}tR")
    return known.replace(b"_v2", b"_v3") + b"\x89}" + dtype + b"tR"


def doubled_modules(times: int) -> bytes:
    """Opcodes of an `nn.Module` that holds a module under two names, which holds a module under two names, and so on."""

    def text(word: bytes) -> bytes:
        return b"X" + struct.pack("<I", len(word)) + word

    empty = b"}" + text(b"_parameters") + b"}s" + text(b"_modules") + b"}"
    made = b"ctorch.nn\nModule\n)\x81" + empty + b"sb"
    for i in range(times):
        children = text(b"a") + b"h%cs" % i + text(b"b") + b"h%cs" % i
        made += b"q%c0ctorch.nn\nModule\n)\x81" % i + empty + children + b"sb"
    return made


HOSTILE: dict[str, bytes] = {
    "stride 0": with_storage(rebuilt(size=(1 << 30, 4), stride=(0, 1))),
    "beyond the storage": with_storage(rebuilt(size=(2, 2), stride=(1 << 40, 1))),
    "negative stride": with_storage(rebuilt(size=(2, 2), stride=(-1, 1))),
    "offset outside": with_storage(rebuilt(size=(2, 2), stride=(2, 1), offset=1)),
    "storage longer than the file": with_storage(rebuilt(size=(4,), stride=(1,)))[:-5],
    "storage of 2^62 values": with_storage(rebuilt(size=(4,), stride=(1,)))[:-24] + struct.pack("<q", 1 << 62) + bytes(16),
    "many empty lists": legacy(b"(" + b"]" * 3_000_000 + b"t"),
    "many empty dicts": legacy(b"(" + b"}" * 3_000_000 + b"t"),
    "many empty sets": legacy(b"(" + b"\x8f" * 3_000_000 + b"t"),
    "deep tuples": legacy(b"N" + b"\x85" * 900_000),
    "deep tuple as a key": legacy(b"}N" + b"\x85" * 900_000 + b"Ns"),
    "keys that hash alike": legacy(
        b"}("
        + b"".join(b"\x8a\x09" + ((i * ((1 << 61) - 1)) % (1 << 70)).to_bytes(9, "little") + b"N" for i in range(60_000))
        + b"u"
    ),
    "a long number": legacy(b"L" + b"9" * 4_000_000 + b"L\n"),
    "a bytearray of a terabyte": legacy(b"c__builtin__\nbytearray\n\x8a\x06" + struct.pack("<Q", 1 << 40)[:6] + b"\x85R"),
    "memo without end": legacy(b"N" + b"".join(b"r" + struct.pack("<I", i) for i in range(1_200_000))),
    "stack underflow": legacy(b"000s"),
    "unknown memo": legacy(b"h\x05"),
    "a mark too few": legacy(b"Nt"),
    "no end": legacy(b"N").replace(b"N.", b"N"),
    "bytes of two exabytes": legacy(b"\x8e" + struct.pack("<Q", 1 << 61)),
    "text of a terabyte": legacy(b"\x8d" + struct.pack("<Q", 1 << 40)),
    "no values and sides beyond counting": with_storage(rebuilt(size=((1 << 47),) * 3 + (0,), stride=(1,) * 4)),
    "a name that is a deep list": legacy(b"]" * 300_000 + b"a" * 299_999 + b"N\x93"),
    "a name that holds itself many times over": legacy(doubling(60) + b"N\x93"),
    "a data type that holds itself many times over": legacy(
        doubling(60) + b"q\xff0" + rebuilt_v3(b"h\xff"),
    ),
    "a long name many times over": legacy(
        b"X" + struct.pack("<I", 900_000) + b"a" * 900_000 + b"q\x00" + b"h\x00\x93h\x00" * 200_000
    ),
    "many classes": legacy(b"(" + b"\x82\x01" * 900_000 + b"t"),
    "a dict of many items many times over": legacy(
        b"ccollections\nOrderedDict\nq\x000]("
        + b"".join(b"X\x05\x00\x00\x00%05dN\x86" % i for i in range(90_000))
        + b"e\x85q\x010"
        + b"h\x00h\x01R0" * 100_000
        + b"N"
    ),
    "a module that holds itself many times over": legacy(doubled_modules(50)),
    "a value range that holds itself many times over": with_storage(
        rebuilt(size=(2, 2), stride=(2, 1)) + b"sX\x0b\x00\x00\x00value_range" + doubling(60)
    ),
    "long keys many times over": legacy(
        b"X" + struct.pack("<I", 900_000) + b"a" * 900_000 + b"q\x000(" + b"}h\x00}s" * 150_000 + b"t"
    ),
    "another persistent id": legacy(b"(X\x04\x00\x00\x00evilX\x01\x00\x00\x000tQ"),
}


MEMBER = struct.pack("<4s4B4H3L5H2L", b"PK\x01\x02", 20, 3, 20, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0) + b"a"
"""Entry of an empty member in the directory of a ZIP archive."""


def directory_bomb(members: int) -> bytes:
    """A ZIP archive with so many empty members."""
    directory = MEMBER * members
    return b"PK\x03\x04" + directory + struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 65535, 65535, len(directory), 4, 0)


HOSTILE["a directory of 200,000 members"] = directory_bomb(200_000)


def text(value: bytes) -> bytes:
    """Opcode of a text."""
    return b"X" + struct.pack("<I", len(value)) + value


def memo(index: int, *, put: bool = False) -> bytes:
    """Opcode that puts the top of the stack under a number, or gets what is there."""
    return (b"r" if put else b"j") + struct.pack("<I", index)


def doubled(times: int) -> bytes:
    """Opcodes of a list that holds a list twice, which holds a list twice, and so on."""
    return text(b"x" * 100) + b"".join(memo(i, put=True) + b"0](" + memo(i) * 2 + b"e" for i in range(times))


def modules(state: bytes) -> bytes:
    """Opcodes of a pickled module with that state."""
    return b"ctorch.nn\nModule\n)\x81" + state + b"b"


def nested_modules() -> bytes:
    """Modules each of which has the next one as two of its parts: 2^35 paths lead to the weights."""
    made = modules(b"}(" + text(b"_parameters") + b"}" + text(b"w") + rebuilt(size=(2, 2), stride=(2, 1)) + b"su")
    for i in range(35):
        parts = b"}(" + text(b"a") + memo(i) + text(b"b") + memo(i) + b"u"
        made += memo(i, put=True) + b"0" + modules(b"}(" + text(b"_parameters") + b"}" + text(b"_modules") + parts + b"u")
    return made


def state_in_many_modules() -> bytes:
    """20,000 modules with one state of 5,000 tensors."""
    tensors = rebuilt(size=(2, 2), stride=(2, 1)) + memo(0, put=True) + b"0}("
    tensors += b"".join(text(b"%d" % i) + memo(0) for i in range(5_000)) + b"u" + memo(1, put=True) + b"0"
    state = b"}" + text(b"_parameters") + memo(1) + b"s" + memo(2, put=True) + b"0"
    return tensors + state + b"]((" + modules(memo(2)) * 20_000 + b"le"


def tensors(count: int) -> bytes:
    """A file with so many tensors of one value, none the same as another."""
    first = rebuilt(size=(1,), stride=(1,))
    function, storage = first[: first.index(b"(")], first[first.index(b"(X") : first.index(b"tQ") + 2]
    made = b"}" + function + memo(0, put=True) + b"0" + storage + memo(1, put=True) + b"0K\x01\x85" + memo(2, put=True) + b"0("
    rest = b"h\x02h\x02tR"
    made += b"".join(text(b"%d" % i) + b"h\x00(h\x01J" + struct.pack("<i", i) + rest for i in range(count)) + b"u"
    head = legacy(made).removesuffix(pickle.dumps([], protocol=2))
    return head + pickle.dumps(["0"], protocol=2) + struct.pack("<q", count) + bytes(4 * count)


def archive(content: bytes, *members: tuple[str, bytes], compression: int = zipfile.ZIP_STORED, padding: int = 0) -> bytes:
    """A ZIP archive with those opcodes as its pickle."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as opened_archive:
        opened_archive.writestr("a/data.pkl", content)
        for name, data in members:
            opened_archive.writestr(name, data)
        if padding:
            opened_archive.writestr(zipfile.ZipInfo("padding"), bytes(padding))
    return file.getvalue()


def hidden_directory() -> bytes:
    """A ZIP archive with 200,000 members, whose ZIP64 locator points at a record of a small directory."""
    directory = MEMBER * 200_000

    def record(length: int) -> bytes:
        return struct.pack("<4sQ2H2L4Q", b"PK\x06\x06", 44, 45, 45, 0, 0, 9, 9, length, 4 + 56)

    end = struct.pack("<4sLQL", b"PK\x06\x07", 0, 4, 1) + struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 9, 9, 47, 60, 0)
    return b"PK\x03\x04" + record(47) + directory + record(len(directory)) + end


def zip_of_a_bomb() -> bytes:
    """A ZIP archive whose pickle is 1.5 GB of zeros in 1 KB, and stated to be short."""
    packer = bz2.BZ2Compressor(9)
    packed = b"".join(packer.compress(bytes(1 << 24)) for _ in range(20)) + packer.flush()
    made = bytearray(archive(b"N.", compression=zipfile.ZIP_STORED, padding=100_000))
    at = made.index(b"N.")
    made[at : at + 2] = packed
    shift = len(packed) - 2
    directory = made.index(b"PK\x01\x02")
    struct.pack_into("<H", made, 8, 12)
    struct.pack_into("<L", made, 18, len(packed))
    struct.pack_into("<H", made, directory + 10, 12)
    struct.pack_into("<LL", made, directory + 20, len(packed), 2)
    second = made.index(b"PK\x01\x02", directory + 4)
    struct.pack_into("<L", made, second + 42, struct.unpack_from("<L", made, second + 42)[0] + shift)
    end = made.rindex(b"PK\x05\x06")
    struct.pack_into("<L", made, end + 16, struct.unpack_from("<L", made, end + 16)[0] + shift)
    return bytes(made)


FACTORY = b"ccollections\nOrderedDict\n" + memo(0, put=True) + b"0]("
HOSTILE |= {
    "many classes": legacy(b"(" + b"".join(b"ca\n%x\n" % i for i in range(1_000_000)) + b"t"),
    "many calls": legacy(b"ca\nb\n" + memo(0, put=True) + b"0(" + b"h\x00)R" * 330_000 + b"t"),
    "many extensions": legacy(b"(" + b"\x82\x01" * 990_000 + b"t"),
    "many dicts of one item": legacy(b"(" + b"}U\x00Ns" * 249_000 + b"t"),
    "many lists of one item": legacy(b"(" + b"]Na" * 330_000 + b"t"),
    "dicts made of one long list": legacy(
        FACTORY
        + b"".join(text(b"%d" % i) + b"N\x86" for i in range(20_000))
        + b"e\x85"
        + memo(1, put=True)
        + b"0("
        + b"h\x00h\x01R" * 100_000
        + b"t"
    ),
    "a long class name called often": legacy(
        b"c" + b"x" * 4_000_000 + b"\nb\n" + memo(0, put=True) + b"0(" + b"h\x00)R" * 300_000 + b"t"
    ),
    "a long module name with many classes": legacy(
        text(b"x" * 4_000_000) + memo(0, put=True) + text(b"y") + memo(1, put=True) + b"(" + b"h\x00h\x01\x93" * 100_000 + b"t"
    ),
    "a list doubled as a class name": legacy(doubled(40) + b"N\x93"),
    "a list doubled as a value range": with_storage(
        rebuilt(size=(2, 2), stride=(2, 1)) + b"s" + text(b"value_range") + doubled(40)
    ),
    "a list doubled as a data type": legacy(
        rebuilt(size=(2, 2), stride=(2, 1)).replace(b"tensor_v2", b"tensor_v3").removesuffix(b"tR") + doubled(40) + b"tR"
    ),
    "nested modules": legacy(nested_modules()),
    "one state in many modules": legacy(state_in_many_modules()),
    "a name of a million prefixes": with_storage(rebuilt(size=(2, 2), stride=(2, 1))).replace(
        text(b"w.weight"), text(b"net." * 1_000_000 + b"w.weight")
    ),
    "100,000 tensors": tensors(100_000),
    "text of four bytes a character": legacy(text(b"x" * 40_000_000 + "\U0001f600".encode())),
    "text of four bytes a character in an archive": archive(text(b"x" * 40_000_000 + "\U0001f600".encode()) + b"."),
    "a number of 40 MB": legacy(b"\x8b" + struct.pack("<i", 40_000_000) + b"\x7f" * 40_000_000),
    "a long line": legacy(b"F" + b"1" * 60_000_000 + b"\n"),
    "five long pickles": b"".join(
        b"\x80\x02(" + b"]" * 990_000 + b"t0" + pickle.dumps(part, 2)[2:] for part in (0x1950A86A20F9469CFC6C, 1001)
    )
    + (b"(" + b"]" * 990_000 + b"t.") * 3,
    "a size whose product overflows": with_storage(rebuilt(size=(1 << 47, 1 << 47, 0), stride=(1, 1, 1))),
    "deep calls": legacy(b"ca\nb\n" + memo(0, put=True) + b"0N" + (b"\x85" + memo(1, put=True) + b"0h\x00h\x01R") * 150_000),
    "a hidden directory": hidden_directory(),
    "a compressed bomb": zip_of_a_bomb(),
    "an archive with 85,000 members": directory_bomb(85_000),
}
MOST_SECONDS, MOST_MEMORY = 5, 64 << 20

_CHILD = """
import json, sys, time
from upframe.errors import ModelError
from upframe.machine import forget_peak, peak_bytes, resident_bytes
from upframe.models.weights_file import read
first, *rest = sys.argv[1:]
read(first)  # what is imported and allocated once is not the file's
found = {}
for path in rest:
    forget_peak()
    before, began = resident_bytes(), time.process_time()
    try:
        ended = len(next(iter(read(path).state)))
    except ModelError as error:
        ended = f"ModelError of {len(str(error)) - len(path)}"
    found[path] = [str(ended), peak_bytes() - before, time.process_time() - began]
print(json.dumps(found))
"""


def costs(folder: Path, files: dict[str, Path]) -> dict[str, tuple[str, int, float]]:
    """How reading each file ended in a process of its own, and the bytes of memory and seconds that it took."""
    good = saved(folder / "good.pth", WEIGHTS)
    command = [sys.executable, "-c", _CHILD, good, *files.values()]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    return {name: tuple(found[str(path)]) for name, path in files.items()}


@pytest.fixture(scope="module")
def hostile_costs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[str, int, float]]:
    folder = tmp_path_factory.mktemp("hostile")
    files = {name: folder / f"{number}.pth" for number, name in enumerate(HOSTILE)}
    for name, path in files.items():
        path.write_bytes(HOSTILE[name])
    return costs(folder, files)


needs_linux = pytest.mark.skipif(sys.platform != "linux", reason="peak memory is read as Linux reports it")


@pytest.mark.slow
@needs_linux
@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_files_are_refused_within_their_bounds(hostile_costs: dict[str, tuple[str, int, float]], name: str) -> None:
    """Memory at most three times the file and 64 MB, and five seconds: what a file may cost, whatever its bytes are."""
    assert_refused_within_bounds(hostile_costs[name], HOSTILE[name])


def assert_refused_within_bounds(cost: tuple[str, int, float], content: bytes) -> None:
    ended, memory, seconds = cost
    kind, _, length = ended.rpartition(" of ")
    assert kind == "ModelError"
    assert int(length) < 600, "the message is one line for people"
    assert memory <= 3 * len(content) + MOST_MEMORY
    assert seconds <= MOST_SECONDS


@pytest.mark.slow
@needs_linux
def test_large_files_take_three_times_their_size(tmp_path: Path) -> None:
    files = {}
    for dtype in (torch.float32, torch.float16, torch.bfloat16, torch.float64):
        tensors = {"a.weight": torch.ones(12_000_000, dtype=dtype), "b.weight": torch.ones(9, dtype=dtype)}
        files[str(dtype)] = saved(tmp_path / f"{dtype}.pth", tensors)
    for name, (ended, memory, _) in costs(tmp_path, files).items():
        assert ended == str(len("a.weight"))
        assert memory <= 3 * files[name].stat().st_size + (8 << 20), name


@LAYOUTS
def test_mutated_files_end_in_a_model_error_or_load(tmp_path: Path, is_archive: bool) -> None:
    source = saved(
        tmp_path / "w.pth", {"params": WEIGHTS, "epoch": 3, "date": datetime.date(2024, 1, 1)}, is_archive=is_archive
    )
    whole, path = source.read_bytes(), tmp_path / "mutated.pth"
    rng = random.Random(5)
    refusals = 0
    for _ in range(600):
        data = bytearray(whole)
        for _ in range(rng.choice((1, 1, 2, 8))):
            at = rng.randrange(len(data))
            if rng.random() < 0.3:
                del data[at : at + rng.randrange(1, 40)]
            else:
                data[at] = rng.randrange(256)
        path.write_bytes(data)
        try:
            read(path)
        except ModelError:
            refusals += 1
    assert refusals > 100, "the mutations hit nothing"


@pytest.mark.slow
def test_more_opcodes_than_any_checkpoint_has_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    path.write_bytes(legacy(b"N" + b"0N" * (MOST_OPCODES // 2)))
    with pytest.raises(MalformedError, match="more than weights"):
        opened(path)


def test_tensors_that_take_turns_in_sharing_storages_are_refused(tmp_path: Path) -> None:
    """Each would be read anew for each of them: a small file could keep the disk busy for hours."""
    a, b = torch.ones(100_000), torch.ones(100_000)
    content: dict[str, Tensor] = {}
    for i in range(100):
        content[f"a{i}.weight"], content[f"b{i}.weight"] = a[i : i + 1], b[i : i + 1]
    with pytest.raises(ModelError, match="take turns"):
        read(saved(tmp_path / "w.pth", content))


@pytest.mark.parametrize("name", ["w" * 1001, "net." * 1000 + "w"])
def test_names_of_thousands_of_characters_are_refused(tmp_path: Path, name: str) -> None:
    save_file({name: torch.ones(2, 2)}, tmp_path / "w.safetensors")
    with pytest.raises(ModelError, match="characters"):
        read(tmp_path / "w.safetensors")


@LAYOUTS
def test_long_texts_and_bytes_beside_the_weights_do_no_harm(tmp_path: Path, is_archive: bool) -> None:
    content = {"params": WEIGHTS, "config": "x" * 100_000, "picture": bytes(100_000), "array": np.arange(100_000)}
    assert read_state(saved(tmp_path / "w.pth", content, is_archive=is_archive)).keys() == WEIGHTS.keys()


@pytest.mark.slow
def test_hashes_of_tensors_are_salted() -> None:
    """Numbers can be chosen so that their tuples hash alike; 40,000 such tensors would take minutes to be told apart."""
    command = [sys.executable, "-c", (
        "import torch; from upframe.models.pickled import *;"
        "print(hash(StoredTensor(Storage('0', torch.float32, 1), torch.float32, 0, (1, 2), (2, 1))))"
    )]  # fmt: skip
    assert len({subprocess.run(command, capture_output=True, text=True, check=True).stdout for _ in range(2)}) == 2


def test_a_damaged_member_is_named(tmp_path: Path) -> None:
    path = saved(tmp_path / "w.pth", WEIGHTS)
    with zipfile.ZipFile(path) as archive:
        member = next(m for m in archive.infolist() if m.filename.endswith("/data/0"))
    data = bytearray(path.read_bytes())
    data[data.index(struct.pack("<f", 1.0) * 4)] ^= 0xFF
    path.write_bytes(data)
    with pytest.raises(ModelError, match=r"data/0 is damaged"):
        read(path)
    assert member.compress_type == zipfile.ZIP_STORED


# The other formats ----------------------------------------------------------------------------------------------------
def safetensors_file(header: object, data: bytes) -> bytes:
    head = json.dumps(header).encode()
    return struct.pack("<Q", len(head)) + head + data


def entry(index: int, shape: list[int]) -> dict[str, object]:
    """Header of a tensor with one float32 value, the one at that place."""
    return {"dtype": "F32", "shape": shape, "data_offsets": [4 * index, 4 * index + 4]}


def mindspore_value(tag: bytes, dims: bytes) -> bytes:
    """One value of a MindSpore checkpoint with the field of dims as it is given."""
    tensor = dims + b"\x12\x07Float32\x1a\x04" + bytes(4)
    length = len(tag) + 2
    sized = b"\x12" + varint(len(tensor)) + tensor
    return b"\x0a" + varint(length + len(sized)) + b"\x0a" + varint(len(tag)) + tag + sized


def varint(number: int) -> bytes:
    made = b""
    while number > 127:
        made, number = made + bytes([number & 127 | 128]), number >> 7
    return made + bytes([number])


OTHERS: dict[str, bytes] = {
    "150,000 tensors": safetensors_file({str(i): entry(i, [1]) for i in range(150_000)}, bytes(600_000)),
    "30,000 tensors": safetensors_file({str(i): entry(i, [1]) for i in range(30_000)}, bytes(120_000)),
    "a tensor of a million sides": safetensors_file({"a": entry(0, [1] * 1_000_000)}, bytes(4)),
    "an endless card": safetensors_file(
        {"__metadata__": {"card": json.dumps({f"k{i}": 1 for i in range(100_000)})}, "a": entry(0, [1])}, bytes(4)
    ),
    "a card of long unknown entries": safetensors_file(
        {"__metadata__": {"card": json.dumps({f"k{i}" * 500: 1 for i in range(100)})}, "a": entry(0, [1])}, bytes(4)
    ),
    "99,000 values of MindSpore": b"".join(mindspore_value(b"a%d" % i, b"\x08\x01") for i in range(99_000)),
    "dims without numbers of MindSpore": mindspore_value(b"abc", b"\x0a\x00" * 9_000_000),
}


@pytest.fixture(scope="module")
def other_costs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[str, int, float]]:
    folder = tmp_path_factory.mktemp("others")
    files = {name: folder / f"{number}.safetensors" for number, name in enumerate(OTHERS)}
    for name, path in files.items():
        path.write_bytes(OTHERS[name])
    return costs(folder, files)


@pytest.mark.slow
@needs_linux
@pytest.mark.parametrize("name", OTHERS)
def test_hostile_files_of_other_formats_are_refused_too(other_costs: dict[str, tuple[str, int, float]], name: str) -> None:
    assert_refused_within_bounds(other_costs[name], OTHERS[name])


def test_a_card_as_large_as_the_memory_is_not_read(tmp_path: Path) -> None:
    weights, card = tmp_path / "w.safetensors", tmp_path / "w.card.json"
    save_file({"w": torch.ones(2, 2)}, weights)
    with card.open("wb") as file:
        file.write(b'{"name": "')
        file.truncate(1 << 40)  # takes no room on the disk
    with pytest.raises(ModelError, match="too long"):
        read(weights)


def test_a_card_of_deep_nesting_is_refused(tmp_path: Path) -> None:
    save_file({"w": torch.ones(2, 2)}, tmp_path / "w.safetensors")
    (tmp_path / "w.card.json").write_text("[" * 200_000)
    with pytest.raises(ModelError, match="nested too deeply"):
        read(tmp_path / "w.safetensors")
