"""PyTorch files read as data: the same tensors that torch gives, nothing called, and bounds that hold for any bytes."""

from __future__ import annotations

import collections
import datetime
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
from torch import Tensor, nn

from upframe.errors import ModelError
from upframe.models.torch_file import MOST_OPCODES, MalformedError, Placeholder, StoredTensor, TorchFile, UnsafeError
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
    "another persistent id": legacy(b"(X\x04\x00\x00\x00evilX\x01\x00\x00\x000tQ"),
}


def directory_bomb() -> bytes:
    """A ZIP archive with 200,000 empty members."""
    entry = struct.pack("<4s4B4H3L5H2L", b"PK\x01\x02", 20, 3, 20, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0) + b"a"
    directory = entry * 200_000
    return b"PK\x03\x04" + directory + struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 65535, 65535, len(directory), 4, 0)


HOSTILE["a directory of 200,000 members"] = directory_bomb()
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


@needs_linux
@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_files_are_refused_within_their_bounds(hostile_costs: dict[str, tuple[str, int, float]], name: str) -> None:
    """Memory at most three times the file and 64 MB, and five seconds: what a file may cost, whatever its bytes are."""
    ended, memory, seconds = hostile_costs[name]
    kind, _, length = ended.rpartition(" of ")
    assert kind == "ModelError"
    assert int(length) < 400, "the message is one line for people"
    assert memory <= 3 * len(HOSTILE[name]) + MOST_MEMORY
    assert seconds <= MOST_SECONDS


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
