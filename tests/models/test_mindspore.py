"""MindSpore checkpoints: read whole and under PyTorch's names, and never a crash or a huge allocation on what is damaged.

The files are made by an encoder of their own here, from the declaration of the format.
"""

from __future__ import annotations

import json
import re
import struct
import tracemalloc
import zlib
from collections.abc import Iterable
from pathlib import Path

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from torch import Tensor

from upframe.errors import ModelError
from upframe.models.architectures.vapsr import VapSR
from upframe.models.cards import WEIGHTS_SUFFIXES
from upframe.models.checkpoints import recognise
from upframe.models.mindspore import ENCRYPTED, looks_like_checkpoint, parse, torch_names
from upframe.models.weights_file import read, read_state

State = dict[str, Tensor]
PATH = Path("net.ckpt")

TYPE_NAMES = {
    torch.float64: "Float64",
    torch.float32: "Float32",
    torch.float16: "Float16",
    torch.bfloat16: "BFloat16",
    torch.int64: "Int64",
    torch.int32: "Int32",
    torch.int16: "Int16",
    torch.int8: "Int8",
    torch.uint64: "UInt64",
    torch.uint32: "UInt32",
    torch.uint16: "UInt16",
    torch.uint8: "UInt8",
    torch.bool: "Bool",
}


# A writer -------------------------------------------------------------------------------------------------------------
def varint(number: int) -> bytes:
    out = b""
    number &= (1 << 64) - 1  # negative numbers are stored as their two's complement
    while number > 0x7F:
        out += bytes([number & 0x7F | 0x80])
        number >>= 7
    return out + bytes([number])


def chunk(number: int, content: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(content)) + content


def tensor_proto(dims: Iterable[int], type_name: str, content: bytes) -> bytes:
    return b"".join(varint(1 << 3) + varint(d) for d in dims) + chunk(2, type_name.encode()) + chunk(3, content)


def value(tag: str, dims: Iterable[int], type_name: str, content: bytes) -> bytes:
    return chunk(1, chunk(1, tag.encode()) + chunk(2, tensor_proto(dims, type_name, content)))


def content_of(tensor: Tensor) -> bytes:
    return tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


def values(tag: str, tensor: Tensor, *, slice_bytes: int = 1 << 29) -> bytes:
    content, dims = content_of(tensor), list(tensor.shape) or [0]
    parts = [content[i : i + slice_bytes] for i in range(0, len(content), slice_bytes)]
    return b"".join(value(tag, dims, TYPE_NAMES[tensor.dtype], part) for part in parts)


def checkpoint(state: State) -> bytes:
    return b"".join(values(name, tensor) for name, tensor in state.items())


def with_checksum(content: bytes) -> bytes:
    return content + b"crc_num" + zlib.crc32(content).to_bytes(10, "big")


def equal(a: State, b: State) -> bool:
    return a.keys() == b.keys() and all(a[n].dtype == b[n].dtype and torch.equal(a[n], b[n]) for n in a)


def refused(data: bytes) -> str:
    """The message with which `parse` refuses these bytes."""
    with pytest.raises(ModelError) as caught:
        parse(data, PATH)
    assert str(caught.value).startswith("net.ckpt: ")
    assert caught.value.advice
    return str(caught.value)


WEIGHT = torch.arange(12.0).view(3, 4)
GOOD = checkpoint({"conv.weight": WEIGHT, "norm.gamma": torch.ones(4)})


# Values ---------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("dtype", TYPE_NAMES, ids=str)
def test_every_type_is_read_as_it_is(dtype: torch.dtype) -> None:
    state = {"a": torch.tensor([[0, 1, 1], [1, 0, 1]]).to(dtype)}
    assert equal(parse(checkpoint(state), PATH), state)


@pytest.mark.parametrize("shape", [(), (1,), (5,), (2, 3, 1, 3, 3), (1, 2, 1, 1, 1, 3, 1, 1)], ids=str)
def test_shapes_are_kept_and_scalars_are_scalars(shape: tuple[int, ...]) -> None:
    state = {"a": torch.rand(shape), "b": torch.rand(3)}
    assert equal(parse(checkpoint(state), PATH), state)


def test_a_large_parameter_comes_in_slices_of_one_tag() -> None:
    large = torch.rand(100, 7)
    data = values("first", WEIGHT) + values("large", large, slice_bytes=1000) + values("last", WEIGHT)
    assert data.count(b"large") == 3
    assert equal(parse(data, PATH), {"first": WEIGHT, "large": large, "last": WEIGHT})


def test_slices_may_end_within_a_number() -> None:
    assert equal(parse(values("a", WEIGHT, slice_bytes=5), PATH), {"a": WEIGHT})


def test_a_checksum_is_checked() -> None:
    whole = with_checksum(GOOD)
    assert equal(parse(whole, PATH), parse(GOOD, PATH))
    flipped = bytearray(whole)
    flipped[40] ^= 1
    assert "checksum" in refused(bytes(flipped))


def test_texts_beside_the_weights_are_left_out() -> None:
    assert list(parse(GOOD + value("note", [0], "str", b"epoch 3"), PATH)) == ["conv.weight", "norm.gamma"]


def test_dims_may_be_packed() -> None:
    """proto2 writes one field a dimension, but readers must take a packed list too."""
    message = chunk(1, varint(3) + varint(4)) + chunk(2, b"Float32") + chunk(3, content_of(WEIGHT))
    assert equal(parse(chunk(1, chunk(1, b"a") + chunk(2, message)), PATH), {"a": WEIGHT})


def test_the_tensors_do_not_hold_the_file() -> None:
    data = bytearray(GOOD)
    state = parse(bytes(data), PATH)
    state["conv.weight"] += 1  # would fail or warn on memory that belongs to a bytes object
    assert torch.equal(state["conv.weight"], WEIGHT + 1)
    assert torch.equal(parse(bytes(data), PATH)["conv.weight"], WEIGHT)


# Damaged and hostile files --------------------------------------------------------------------------------------------
def _tensor_with(dims: list[int], content: bytes = b"1234") -> bytes:
    return value("a", dims, "Float32", content)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (_tensor_with([2]), "4 bytes for Float32 [2], which takes 8"),
        (_tensor_with([1 << 40, 1 << 40]), "4 bytes for Float32"),
        (_tensor_with([1 << 62, 4]), "4 bytes for Float32"),  # 2**64 in a 64-bit product would be 0
        (_tensor_with([-1]), "4 bytes for Float32"),
        (_tensor_with([-1, -1]), "4 bytes for Float32"),
        (_tensor_with([0], b""), "0 bytes"),
        (_tensor_with([3, 0], b""), "0 bytes"),
        (_tensor_with([1] * 9), "more than 8 dimensions"),
        (_tensor_with([1]) + _tensor_with([1]), "8 bytes for Float32 [1]"),  # the same tag twice is two slices
        (_tensor_with([2]) + _tensor_with([1]), "parts differ"),
        (value("a", [1], "Bool", b"\x02"), "neither 0 nor 1"),
        (value("", [1], "Int8", b"1"), "without a name"),
        (chunk(1, chunk(1, b"a")), "without a name or a tensor"),
        (chunk(1, chunk(1, b"\xff\xfe") + chunk(2, tensor_proto([1], "Int8", b"1"))), "no text"),
        (chunk(1, chunk(1, b"a" * 1001) + chunk(2, tensor_proto([1], "Int8", b"1"))), "a name of 1001 bytes"),
        (chunk(1, chunk(1, b"a") + chunk(1, b"b") + chunk(2, tensor_proto([1], "Int8", b"1"))), "unexpected field 1"),
        (chunk(1, chunk(1, b"a") + chunk(2, chunk(3, b"1"))), "without type or content"),
        (chunk(1, chunk(1, b"a") + chunk(2, chunk(2, b"Int8") * 2)), "unexpected field 2"),
        (chunk(1, chunk(1, b"a") + varint(2 << 3) + varint(7)), "a number in field 2"),
        (chunk(2, b"hello"), "field 2 instead of a value"),
        (varint(1 << 3) + varint(5), "field 1 instead of a value"),
        (b"\x0a" + varint(1 << 62) + b"abc", f"{1 << 62} bytes announced, 3 there"),
        (b"\x0a" + b"\xff" * 9 + b"\x7f", "more than 64 bits"),
        (b"\x0a" + b"\xff" * 30, "more than 64 bits"),
        (b"\x0a\x80", "ends within a number"),
        (b"\x0b", "unknown kind 3"),
        (b"\x02\x00", "without a number"),
        (GOOD[:-1], "bytes announced"),
        (chunk(1, chunk(1, b"a") + chunk(3, b"map")), "a hash table (MapTensor)"),
    ],
)
def test_what_no_checkpoint_holds_is_refused_by_what_and_where(data: bytes, says: str) -> None:
    assert says in refused(data)


def test_types_that_are_not_supported_are_named() -> None:
    message = refused(GOOD + value("table", [1], "Int4", b"1"))
    assert "'Int4'" in message
    assert "not supported" in message


@pytest.mark.fuzz
def test_a_checkpoint_cut_anywhere_is_refused(tmp_path: Path) -> None:
    path, between = tmp_path / "net.ckpt", len(values("conv.weight", WEIGHT))
    # The format does not say how many parameters a file has: of a cut between two it is the network that notices.
    for length in sorted({*range(1, len(GOOD))} - {between}):
        refused(GOOD[:length])
        path.write_bytes(GOOD[:length])
        with pytest.raises(ModelError):
            read(path)


@given(data=st.binary(max_size=200))
@example(b"")
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    looks_like_checkpoint(data)
    for content in (data, b"\x0a" + varint(len(data)) + data, chunk(1, chunk(1, b"a") + chunk(2, data))):
        try:
            parse(content, PATH)
        except ModelError:
            continue


@given(st.lists(st.tuples(st.integers(0, len(GOOD) - 1), st.integers(0, 255)), min_size=1, max_size=4))
def test_a_checkpoint_with_wrong_bytes_is_read_or_refused(changes: list[tuple[int, int]]) -> None:
    data = bytearray(GOOD)
    for at, byte in changes:
        data[at] = byte
    try:
        state = parse(bytes(data), PATH)
    except ModelError:
        return
    assert sum(tensor.nbytes for tensor in state.values()) <= len(GOOD)


def test_a_small_file_cannot_claim_much_memory() -> None:
    tracemalloc.start()
    try:
        refused(value("a", [1 << 20, 1 << 20], "Float64", b"12345678"))
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.slow
def test_the_number_of_values_is_bounded() -> None:
    """Each costs a tensor header of some hundred bytes, many times what it takes in the file."""
    assert "more than 25000 values" in refused(value("a", [1], "Int8", b"1") * 25_001)


# Names ----------------------------------------------------------------------------------------------------------------
def test_layers_get_the_names_of_torch() -> None:
    names = {
        "body.0.norm1.gamma": "body.0.norm1.weight",
        "body.0.norm1.beta": "body.0.norm1.bias",
        "body.0.bn.moving_mean": "body.0.bn.running_mean",
        "body.0.bn.moving_variance": "body.0.bn.running_var",
        "words.embedding_table": "words.weight",
        "body.0.conv.weight": "body.0.conv.weight",
        "body.0.conv.bias": "body.0.conv.bias",
        "gamma": "weight",
        "beta.weight": "beta.weight",
        "body.0.attn.relative_position_bias_table": "body.0.attn.relative_position_bias_table",
    }
    state = {name: torch.tensor(float(i)) for i, name in enumerate(names)}
    assert equal(torch_names(state), {new: state[old] for old, new in names.items()})


def test_a_gamma_beside_a_weight_keeps_its_name() -> None:
    state = {"layer.weight": torch.zeros(1), "layer.gamma": torch.ones(1)}
    assert equal(torch_names(state), state)


@pytest.mark.parametrize("prefix", ["network.", "generator.", "_backbone.", "backbone.", "network._backbone.", "network.net."])
def test_wrappers_are_stripped(prefix: str) -> None:
    state = {f"{prefix}conv.weight": WEIGHT, f"{prefix}norm.gamma": torch.ones(4)}
    assert list(torch_names(state)) == ["conv.weight", "norm.weight"]


def test_a_name_that_only_some_share_is_no_wrapper() -> None:
    state = {"generator.conv.weight": WEIGHT, "conv.weight": WEIGHT}
    assert torch_names(state).keys() == state.keys()


def test_what_only_training_needs_is_dropped() -> None:
    state = {
        "network.conv.weight": WEIGHT,
        **{
            f"{moment}network.conv.weight": WEIGHT
            for moment in ("moment1.", "moment2.", "moments.", "adam_m.", "adam_v.", "accum.")
        },
        **{f"network.optimizer.moment1.{name}": WEIGHT for name in ("conv.weight", "norm.gamma")},
        **{
            n: torch.tensor(1.0)
            for n in ("learning_rate", "global_step", "beta1_power", "beta2_power", "scale_sense", "epoch_num")
        },
    }
    assert equal(torch_names(state), {"conv.weight": WEIGHT})
    assert equal(torch_names({"momentum_net.weight": WEIGHT}), {"momentum_net.weight": WEIGHT})


def test_averaged_weights_are_preferred_and_completed() -> None:
    state = {"conv.weight": WEIGHT, "bn.moving_mean": torch.ones(3), "ema.conv.weight": WEIGHT + 1}
    assert equal(torch_names(state), {"conv.weight": WEIGHT + 1, "bn.running_mean": torch.ones(3)})


VRT_CONFIGURATIONS = [  # 004 has the parameters of 003, and 006 and 007 those of 005
    "001_VRT_videosr_bi_REDS_6frames",
    "002_VRT_videosr_bi_REDS_16frames",
    "003_VRT_videosr_bi_Vimeo_7frames",
    "005_VRT_videodeblurring_DVD",
    "008_VRT_videodenoising_DAVIS",
    "009_VRT_videofi_Vimeo_4frames",
]


@pytest.mark.parametrize("wrapper", ["", "network._backbone."])
@pytest.mark.parametrize("name", VRT_CONFIGURATIONS)
def test_every_parameter_of_vrt_gets_its_official_name(shared: Path, tmp_path: Path, name: str, wrapper: str) -> None:
    """Names, number of dimensions and order; each parameter is one number, for 35 million would only cost time."""
    official = json.loads((shared / "golden" / "state_dicts" / f"{name}.json").read_text())["parameters"]
    written: State = {}
    for i, (parameter, shape) in enumerate(official.items()):
        layer, _, last = parameter.rpartition(".")
        is_norm = len(official.get(f"{layer}.weight", [])) == 1  # all that VRT has in one dimension are layer norms
        called = f"{layer}.{'gamma' if last == 'weight' else 'beta'}" if is_norm else parameter
        written[wrapper + called] = torch.full([1] * len(shape), float(i))
    assert sum(parameter.endswith(".gamma") for parameter in written) > 100
    training = {f"moment1.{parameter}": tensor for parameter, tensor in written.items()}
    training["global_step"] = torch.tensor([7], dtype=torch.int32)
    path = tmp_path / "vrt.ckpt"
    path.write_bytes(checkpoint(written | training))
    found = read(path).state
    assert list(found) == list(official)
    assert [tensor.item() for tensor in found.values()] == list(range(len(official)))
    assert [tensor.ndim for tensor in found.values()] == [len(shape) for shape in official.values()]


# As weights files -----------------------------------------------------------------------------------------------------
def vapsr() -> State:
    torch.manual_seed(0)
    return dict(VapSR(channels=8, attention_channels=12, blocks=2, scale=3).state_dict())


def in_mindspore_terms(state: State) -> State:
    """Layer norms of VapSR are called `pixel_norm` or `norm`, and their parameters here gamma and beta."""
    return {
        re.sub(r"(norm\w*\.)(weight|bias)$", lambda m: m[1] + {"weight": "gamma", "bias": "beta"}[m[2]], name): tensor
        for name, tensor in state.items()
    }


@pytest.mark.parametrize("file_name", ["net.ckpt", "net.pth", "net"])
def test_a_checkpoint_is_known_by_its_content_and_loads_as_a_network(tmp_path: Path, file_name: str) -> None:
    state = vapsr()
    written = in_mindspore_terms(state)
    assert any(name.endswith(".gamma") for name in written)
    path = tmp_path / file_name
    path.write_bytes(with_checksum(checkpoint({f"network.{name}": tensor for name, tensor in written.items()})))
    assert equal(read_state(path), state)
    assert recognise(read_state(path), subject=path).spec.name == "vapsr-c8a12b2-x3"


def test_half_precision_becomes_float32(tmp_path: Path) -> None:
    state = {name: tensor.half() for name, tensor in vapsr().items()}
    (tmp_path / "net.ckpt").write_bytes(checkpoint(state))
    assert equal(read_state(tmp_path / "net.ckpt"), {name: tensor.float() for name, tensor in state.items()})


def test_a_ckpt_of_pytorch_still_is_one(tmp_path: Path) -> None:
    assert ".ckpt" in WEIGHTS_SUFFIXES
    state = vapsr()
    lightning = {"epoch": 3, "state_dict": {f"model.{name}": tensor for name, tensor in state.items()}}
    for new in (True, False):
        torch.save(lightning, tmp_path / "net.ckpt", _use_new_zipfile_serialization=new)
        assert equal(read_state(tmp_path / "net.ckpt"), state)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        *((start + bytes(100), "encrypted MindSpore checkpoint") for start in ENCRYPTED),
        (GOOD[:50], "damaged or truncated MindSpore checkpoint"),
        (checkpoint({"conv.weight": torch.full((2,), float("nan"))}), "not finite"),
        (checkpoint({"moment1.conv.weight": WEIGHT}), "holds no weights"),
        (b"\n\n\n\n\nlines of text that begin with empty ones", "neither"),
        (struct.pack("<Q", 10) + b"{not json}", "damaged"),  # safetensors, although its first byte is ours
    ],
)
def test_other_files_are_told_apart(tmp_path: Path, content: bytes, says: str) -> None:
    path = tmp_path / "net.ckpt"
    path.write_bytes(content)
    with pytest.raises(ModelError, match=says) as caught:
        read(path)
    assert caught.value.exit_code == 4
