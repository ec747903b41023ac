"""Weights files: what is accepted, what is refused and why, and that nothing in a file is ever executed."""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import os
import pickle
import re
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

from upframe.errors import ModelError, OutputError, UsageError
from upframe.models.architectures.realbasicvsr import BasicVSR, RealBasicVSR
from upframe.models.architectures.rlfn import RLFN
from upframe.models.architectures.vapsr import VapSR
from upframe.models.cards import Card, card_path
from upframe.models.checkpoints import (
    convert,
    instantiate,
    measured_value_range,
    recognise,
    save,
)
from upframe.models.families import rlfn as rlfn_family
from upframe.models.networks import MODELS
from upframe.models.weights_file import read, read_state

State = dict[str, Tensor]


def small_rlfn(seed: int = 0, **arguments: int) -> State:
    torch.manual_seed(seed)
    return dict(RLFN(**{"channels": 8, "blocks": 2, "scale": 2, **arguments}).state_dict())


def small_vapsr(seed: int = 0, **arguments: int) -> State:
    torch.manual_seed(seed)
    return dict(VapSR(**{"channels": 8, "attention_channels": 12, "blocks": 2, "scale": 3, **arguments}).state_dict())


def small_realbasicvsr(seed: int = 0) -> State:
    torch.manual_seed(seed)
    return dict(RealBasicVSR(channels=6, propagation_blocks=2, cleaning_blocks=1).state_dict())


def equal(a: State, b: State) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def refused(path: Path) -> str:
    """The message with which `read` refuses `path`."""
    with pytest.raises(ModelError) as caught:
        read(path)
    assert caught.value.exit_code == 4
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# Reading --------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", ["w.pth", "w.safetensors", "w", "w.exe"])
@pytest.mark.parametrize("kind", ["zip", "legacy", "safetensors"])
def test_the_content_decides_the_format_and_not_the_name(tmp_path: Path, kind: str, name: str) -> None:
    state, path = small_vapsr(), tmp_path / name
    if kind == "safetensors":
        safetensors.torch.save_file(state, path)
    else:
        torch.save(state, path, _use_new_zipfile_serialization=kind == "zip")
    assert equal(read_state(path), state)
    assert read(path).sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize(
    "wrapper", ["params_ema", "ema", "ema_state_dict", "params", "state_dict", "model_state_dict", "model", "net", "generator"]
)
def test_wrappers_are_opened(tmp_path: Path, wrapper: str) -> None:
    state, path = small_rlfn(), tmp_path / "w.pth"
    torch.save({"epoch": 7, wrapper: state, "optimizer": {"state": {0: {"exp_avg": torch.zeros(3)}}, "lr": 1e-3}}, path)
    assert equal(read_state(path), state)


def test_averaged_weights_are_preferred(tmp_path: Path) -> None:
    live, averaged, path = small_rlfn(0), small_rlfn(1), tmp_path / "w.pth"
    for wrapper in ("params_ema", "ema"):
        torch.save({"params": live, "model": live, wrapper: averaged}, path)
        assert equal(read_state(path), averaged)


def test_wrappers_may_be_nested(tmp_path: Path) -> None:
    state, path = small_rlfn(), tmp_path / "w.pth"
    torch.save({"model": {"state_dict": {f"module.{name}": value for name, value in state.items()}}}, path)
    assert equal(read_state(path), state)


@pytest.mark.parametrize(
    "prefix", ["module.", "_orig_mod.", "model.", "network.", "net_g.", "netG.", "generator.", "generator_ema.", "module.net."]
)
def test_prefixes_are_stripped(tmp_path: Path, prefix: str) -> None:
    state, path = small_vapsr(), tmp_path / "w.pth"
    torch.save({"state_dict": {prefix + name: value for name, value in state.items()}}, path)
    assert equal(read_state(path), state)


def test_of_a_generator_and_a_discriminator_the_averaged_generator_is_taken(tmp_path: Path) -> None:
    live, averaged, path = small_rlfn(0), small_rlfn(1), tmp_path / "w.pth"
    both = {f"generator.{name}": value for name, value in live.items()}
    both |= {f"generator_ema.{name}": value for name, value in averaged.items()}
    both |= {"discriminator.conv_0.weight": torch.zeros(3), "step_counter": torch.tensor([5])}
    torch.save({"meta": {"time": "today"}, "state_dict": both}, path)
    assert equal(read_state(path), averaged)
    torch.save({"state_dict": {key: value for key, value in both.items() if "_ema" not in key}}, path)
    assert equal(read_state(path), live)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_float_types_become_float32(tmp_path: Path, dtype: torch.dtype) -> None:
    state, path = small_rlfn(), tmp_path / "w.pth"
    stored = {name: value.to(dtype) for name, value in state.items()}
    torch.save(stored, path)
    assert equal(read_state(path), {name: value.float() for name, value in stored.items()})
    safetensors.torch.save_file(stored, tmp_path / "w.safetensors")
    assert equal(read_state(tmp_path / "w.safetensors"), {name: value.float() for name, value in stored.items()})


def test_counters_and_other_entries_that_are_no_parameters_are_dropped(tmp_path: Path) -> None:
    state, path = small_rlfn(), tmp_path / "w.pth"
    counters = {"n_averaged": torch.tensor(3), "bn.num_batches_tracked": torch.tensor(9), "iteration": 12, "name": "run 4"}
    torch.save({**state, **counters}, path)
    assert equal(read_state(path), state)


def test_options_and_numpy_numbers_beside_the_weights_are_accepted(tmp_path: Path) -> None:
    """They make `weights_only` loading fail out of the box and are common in research checkpoints."""
    state, path = small_rlfn(), tmp_path / "w.pth"
    options = argparse.Namespace(lr=1e-3, name="run")
    torch.save({"state_dict": state, "args": options, "best": np.float64(32.1), "loss": np.float32(1), "i": np.int64(3)}, path)
    assert equal(read_state(path), state)


@pytest.mark.slow
def test_our_own_training_checkpoints_are_weights_files(tmp_path: Path) -> None:
    live, averaged, path = small_rlfn(0), small_rlfn(1), tmp_path / "last.pth"
    network = RLFN(channels=8, blocks=2, scale=2)
    optimiser = torch.optim.Adam(network.parameters())
    network(torch.rand(1, 3, 16, 16)).mean().backward()
    optimiser.step()
    content = {"params": live, "params_ema": averaged, "optimiser": optimiser.state_dict(), "step": 9, "value_range": "0-1"}
    torch.save(content, path)
    weights = read(path)
    assert equal(weights.state, averaged)
    assert weights.value_range == "0-1"
    found = recognise(weights.state, value_range=weights.value_range)
    assert found.found_range == "0-1"
    assert equal(found.state, averaged), "weights that are said to work on 0-1 must not be folded"


# Safety ---------------------------------------------------------------------------------------------------------------
class Malicious:
    """Unpickled without care, it makes a file."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
        return os.system, (f"touch '{self.target}'",)


@pytest.mark.parametrize("name", ["evil.pth", "evil.safetensors", "evil.ckpt"])
@pytest.mark.parametrize("kind", ["zip", "legacy", "pickle-2", "pickle-5", "pickle-0"])
def test_a_malicious_pickle_is_refused_and_never_executed(tmp_path: Path, kind: str, name: str) -> None:
    trap, path = tmp_path / "executed", tmp_path / name
    content = {"params": small_rlfn(), "extra": Malicious(trap)}
    if kind.startswith("pickle"):
        path.write_bytes(pickle.dumps(content if kind != "pickle-0" else Malicious(trap), protocol=int(kind[-1])))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=kind == "zip")
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # a user sees our one line and none of torch's
        message = refused(path)
    assert not trap.exists()
    if kind in ("zip", "legacy"):
        assert "unsafe" in message
        assert f"{os.name}.system" in message
        assert "safetensors" in message
    # The trap works: without our reader the file would have been made.
    pickle.loads(pickle.dumps(Malicious(trap)))
    assert trap.exists()


def test_a_module_that_was_pickled_whole_is_read_as_its_state_dict(tmp_path: Path) -> None:
    network = MODELS["rlfn-x2"].build()
    torch.save(network, tmp_path / "whole.pth")
    assert equal(read_state(tmp_path / "whole.pth"), dict(network.state_dict()))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_torchscript_archive_is_refused(tmp_path: Path) -> None:
    torch.jit.save(torch.jit.script(nn.Linear(2, 2)), tmp_path / "script.pth")
    message = refused(tmp_path / "script.pth")
    assert "TorchScript" in message
    assert "safetensors" in message


def test_an_archive_that_unpacks_to_more_than_it_is_is_refused(tmp_path: Path) -> None:
    torch.save({"a": torch.zeros(100_000)}, tmp_path / "plain.pth")
    with zipfile.ZipFile(tmp_path / "plain.pth") as plain, zipfile.ZipFile(tmp_path / "bomb.pth", "w") as bomb:
        for member in plain.infolist():
            bomb.writestr(member.filename, plain.read(member), compress_type=zipfile.ZIP_DEFLATED)
    assert "compressed" in refused(tmp_path / "bomb.pth")


def _zip_of(name: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(name, "hello")
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "empty"),
        (b"MZ\x90\x00" + bytes(200), "Windows program"),
        (b"\x7fELF" + bytes(200), "is a program"),
        (b"\n <!DOCTYPE html><html>Not found</html>", "web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00", "Git LFS"),
        (b"just some text, long enough to hold any header", "neither"),
        (b"\x00", "neither"),
        (_zip_of("picture.txt"), "ZIP archive"),
        (b"PK\x03\x04" + bytes(50), "cut off"),
        (b"\x80\x02", "no PyTorch checkpoint"),
        (b"\x80\x02junk that is no pickle", "."),
        ((2**40).to_bytes(8, "little") + b'{"a":1}', "truncated"),
        ((7).to_bytes(8, "little") + b'{"a":1}', "damaged"),
    ],
    ids=["empty", "exe", "elf", "html", "lfs", "text", "nul", "zip", "pk", "pickle", "junk", "st-header", "st-body"],
)
def test_files_that_are_no_weights_are_told_apart(tmp_path: Path, content: bytes, expected: str) -> None:
    path = tmp_path / "weights.pth"
    path.write_bytes(content)
    assert expected in refused(path)


@pytest.mark.fuzz
@pytest.mark.parametrize("kind", ["zip", "legacy", "safetensors"])
def test_a_file_cut_anywhere_is_refused(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "w"
    if kind == "safetensors":
        safetensors.torch.save_file(small_vapsr(), path)
    else:
        torch.save(small_vapsr(), path, _use_new_zipfile_serialization=kind == "zip")
    whole = path.read_bytes()
    for length in (1, 9, 70, len(whole) // 3, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        refused(path)


def test_missing_files_folders_and_pipes_are_refused_without_waiting(tmp_path: Path) -> None:
    assert "no such file" in refused(tmp_path / "absent.pth")
    assert "not a file" in refused(tmp_path)
    os.mkfifo(tmp_path / "pipe.pth")
    assert "not a file" in refused(tmp_path / "pipe.pth")


@pytest.mark.parametrize("content", [[1, 2], torch.zeros(3), "text", {"epoch": 3}, {"params": {}}, OrderedDict()], ids=repr)
def test_a_checkpoint_without_named_weights_is_refused(tmp_path: Path, content: object) -> None:
    torch.save(content, tmp_path / "w.pth")
    assert "holds" in refused(tmp_path / "w.pth")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused(tmp_path: Path, value: float) -> None:
    state = small_rlfn()
    state["conv_2.bias"] = torch.full((8,), value)
    torch.save(state, tmp_path / "w.pth")
    assert "conv_2.bias has values that are not finite" in refused(tmp_path / "w.pth")


def test_sparse_and_empty_tensors_are_refused(tmp_path: Path) -> None:
    torch.save({"a.weight": torch.eye(3).to_sparse()}, tmp_path / "sparse.pth")
    assert "a.weight" in refused(tmp_path / "sparse.pth")
    torch.save({"a.weight": torch.zeros(0, 3)}, tmp_path / "empty.pth")
    assert "a.weight is empty" in refused(tmp_path / "empty.pth")


# Recognising ----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("network", "name"),
    [
        (RLFN(channels=32, blocks=3, scale=2), "rlfn-c32b3-x2"),
        (RLFN(channels=12, inner_channels=20, blocks=2, scale=3), "rlfn-c12i20b2-x3"),
        (RLFN(colours=1), "rlfn-c52b6-gray-x4"),
        (RLFN(channels=8, blocks=1, scale=1), "rlfn-c8b1-x1"),
        (VapSR(channels=24, attention_channels=32, blocks=4, scale=3), "vapsr-c24a32b4-x3"),
        (VapSR(channels=32, blocks=11, groups=4), "vapsr-c32a64b11g4-x4"),
        (VapSR(blocks=20, scale=2, colours=1), "vapsr-c48a64b20-gray-x2"),
        (BasicVSR(channels=6, blocks=2), "basicvsr-c6b2-x4"),
        (RealBasicVSR(channels=6, propagation_blocks=2, cleaning_blocks=1), "realbasicvsr-c6b2r1-x4"),
    ],
)
def test_unpublished_sizes_get_a_spec_of_their_own(network: nn.Module, name: str) -> None:
    state = dict(network.state_dict())
    found = recognise(state, value_range="0-1")
    assert found.spec.name == name
    assert equal(found.state, state)
    frames = (1, 2) if found.spec.window else (1,)
    picture = torch.rand(*frames, found.spec.channels, 16, 17)
    with torch.inference_mode():
        result = instantiate(found.spec, found.state)(picture)
        assert torch.equal(result, network.eval()(picture))
    assert result.shape == (*frames, found.spec.channels, 16 * found.spec.scale, 17 * found.spec.scale)


def test_the_names_of_the_ntire_repository_are_understood() -> None:
    state = dict(rlfn_family.spec_for(channels=46, blocks=4, scale=4, inner_channels=48).build().state_dict())
    theirs = {}
    for name, value in state.items():
        head, _, tail = name.partition(".")
        head = {"conv_1": "fea_conv", "conv_2": "LR_conv"}.get(head, head.replace("block_", "B"))
        theirs[f"{head}.{tail}"] = value
    assert "B4.esa.conv_f.weight" in theirs
    found = recognise(theirs, value_range="0-1")
    assert found.spec.name == "rlfn-ntire-x4"
    assert equal(found.state, state)


@pytest.mark.parametrize("prefix", ["sr.", "a.b.c.", "lightning_module.upscaler."])
def test_a_prefix_that_nobody_has_listed_is_found(prefix: str) -> None:
    state = small_rlfn()
    found = recognise({prefix + name: value for name, value in state.items()}, value_range="0-1")
    assert equal(found.state, state)


def test_a_network_is_found_beside_another_one_and_averaged_first() -> None:
    live, averaged = small_rlfn(1), small_rlfn(2)
    other = {"critic.0.weight": torch.ones(3, 3), "critic.0.bias": torch.ones(3)}
    mixed = {f"sr.{name}": value for name, value in live.items()} | other
    mixed |= {f"sr_ema.{name}": value for name, value in averaged.items()}
    assert equal(recognise(mixed, value_range="0-1").state, averaged)


def test_the_given_state_is_left_alone() -> None:
    state = small_rlfn()
    before = {name: value.clone() for name, value in state.items()}
    recognise(state, value_range="0-255")
    assert equal(state, before)
    state = {name: value for name, value in small_realbasicvsr().items() if not name.endswith("spynet.mean")}
    before = dict(state)
    recognise(state)
    assert equal(state, before)


def official_realbasicvsr(live: State, averaged: State | None) -> dict[str, Any]:
    """A training checkpoint laid out like the published one: several networks under prefixes, counters, notes."""
    both = {f"generator.{name}": value for name, value in live.items()}
    both |= {f"generator_ema.{name}": value for name, value in (averaged or {}).items()}
    both |= {
        "step_counter": torch.tensor([150_000]),
        "discriminator.conv_0.weight": torch.zeros(8, 3, 3, 3),
        "discriminator.conv_1.weight_orig": torch.zeros(16, 8, 4, 4),
        "perceptual_loss.vgg.mean": torch.zeros(1, 3, 1, 1),
    }
    return {"meta": {"iter": 150_000, "time": "today"}, "state_dict": both}


@pytest.mark.slow
@pytest.mark.parametrize("constants", [True, False], ids=["with constants", "without constants"])
@pytest.mark.parametrize("layout", ["mm", "plain"])
@pytest.mark.parametrize("has_average", [True, False], ids=["averaged", "live only"])
def test_official_realbasicvsr_checkpoints_load(tmp_path: Path, has_average: bool, layout: str, constants: bool) -> None:
    live, averaged = small_realbasicvsr(0), small_realbasicvsr(1)
    expected = averaged if has_average else live

    def as_published(state: State) -> State:
        left = {key: value for key, value in state.items() if constants or not key.endswith(("spynet.mean", "spynet.std"))}
        return {_plain_flow_name(key) if layout == "plain" else key: value for key, value in left.items()}

    path = tmp_path / "RealBasicVSR_x4.pth"
    torch.save(official_realbasicvsr(as_published(live), as_published(averaged) if has_average else None), path)
    found = recognise(read_state(path), subject=path)
    assert found.spec.name == "realbasicvsr-c6b2r1-x4"
    assert found.found_range == "0-1"
    assert equal(found.state, expected)
    clip = torch.rand(1, 2, 3, 9, 8)
    reference = RealBasicVSR(channels=6, propagation_blocks=2, cleaning_blocks=1).eval()
    reference.load_state_dict(expected)
    with torch.inference_mode():
        assert torch.equal(instantiate(found.spec, found.state)(clip), reference(clip))


def _plain_flow_name(name: str) -> str:
    """basic_module.L.basic_module.K.conv.weight → basic_module.L.basic_module.2K.weight, as VRT's SPyNet is published."""
    return re.sub(r"(basic_module\.\d\.basic_module)\.(\d)\.conv", lambda m: f"{m[1]}.{2 * int(m[2])}", name)


def test_a_generator_of_basicvsr_is_told_from_one_of_realbasicvsr(tmp_path: Path) -> None:
    state, path = dict(BasicVSR(channels=6, blocks=2).state_dict()), tmp_path / "basicvsr_reds4.pth"
    torch.save({"state_dict": {f"generator.{name}": value for name, value in state.items()}}, path)
    found = recognise(read_state(path))
    assert found.spec.family == "BasicVSR"
    assert equal(found.state, state)


def test_a_video_network_said_to_work_on_0_255_is_refused() -> None:
    with pytest.raises(ModelError, match="RealBasicVSR does not"):
        recognise(small_realbasicvsr(), value_range="0-255")


OFFICIAL_RLFN = ["rlfn_x2", "rlfn_x4", "rlfn_s_x2", "rlfn_s_x4", "rlfn_ntire_x4"]


@pytest.mark.parametrize("name", OFFICIAL_RLFN)
def test_the_value_range_is_measured_on_official_files_as_published_and_folded(shared: Path, name: str) -> None:
    found = recognise(read_state(shared / "weights" / "RLFN" / f"{name}.pth"))
    assert found.found_range == "0-255"
    again = recognise(found.state)
    assert again.found_range == "0-1"
    assert equal(again.state, found.state), "folded weights must not be folded twice"


def test_the_value_range_of_networks_that_return_no_picture_is_unclear() -> None:
    spec = recognise(small_rlfn(), value_range="0-1").spec
    assert measured_value_range(spec, small_rlfn()) is None
    huge = {name: value * 1e20 for name, value in small_rlfn().items()}  # overflows to NaN
    assert measured_value_range(spec, huge) is None


def test_weights_of_unclear_range_are_taken_as_official_ones_with_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    state = small_rlfn()
    found = recognise(state, subject="mine.pth")
    assert found.found_range == "0-255"
    assert equal(found.state, rlfn_family.fold_value_range(state))
    assert "mine.pth" in caplog.text
    assert "taken as 0-255" in caplog.text


def test_a_vapsr_said_to_work_on_0_255_is_refused() -> None:
    with pytest.raises(ModelError, match="0-255, which VapSR does not"):
        recognise(small_vapsr(), value_range="0-255")


def _without(state: State, *names: str) -> State:
    return {name: value for name, value in state.items() if name not in names}


def refusal(state: State) -> str:
    with pytest.raises(ModelError) as caught:
        recognise(state, subject="w.pth")
    return str(caught.value)


def test_missing_extra_and_misshapen_entries_are_named() -> None:
    state = dict(RLFN().state_dict())
    message = refusal(
        {**_without(state, "block_3.c5.weight"), "conv_2.weight": torch.zeros(52, 52, 1, 1), "odd": torch.ones(1)}
    )
    assert "looks like rlfn-x4 (RLFN ×4)" in message
    assert "block_3.c5.weight is missing" in message
    assert "conv_2.weight is 52×52×1×1 instead of 52×52×3×3" in message
    assert "odd is not part of it" in message


def test_five_misfits_are_named_and_the_rest_counted() -> None:
    state = dict(VapSR().state_dict())
    gone = [name for name in state if name.startswith("body.20.") and not name.endswith("proj_1.weight")]
    message = refusal(_without(state, *gone))
    assert "looks like vapsr-x4 (VapSR ×4)" in message
    assert message.count("is missing") == 5
    assert f"and {len(gone) - 5} more" in message


@pytest.mark.slow
@pytest.mark.parametrize("key", ["conv_1.weight", "upsampler.0.weight"])
def test_a_file_that_lacks_what_tells_its_size_is_likened_to_the_nearest_network(key: str) -> None:
    message = refusal(_without(dict(RLFN(scale=2).state_dict()), key))
    assert "looks like rlfn-x2" in message
    assert f"{key} is missing" in message


@pytest.mark.slow
def test_realbasicvsr_weights_that_are_not_whole_are_likened_to_it() -> None:
    state = dict(RealBasicVSR().state_dict())
    message = refusal(_without(state, "basicvsr.fusion.weight"))
    assert "looks like realbasicvsr-x4 (RealBasicVSR ×4) but does not fit it: basicvsr.fusion.weight is missing" in message
    message = refusal(_without(state, "basicvsr.backward_resblocks.main.0.weight"))
    assert "looks like realbasicvsr-x4" in message


def test_an_upsampler_of_another_layout_is_refused() -> None:
    """VapSR ×4 has two shuffles; one with a single ×4 shuffle in the layout of ×2 is not a published layout."""
    state = dict(VapSR(scale=2).state_dict())
    state |= {"upsampler.2.weight": torch.zeros(48, 56, 3, 3), "upsampler.2.bias": torch.zeros(48)}
    assert "upsampler.3.weight is missing" in refusal(state)


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["model.0.weight", "model.1.sub.0.RDB1.conv1.0.weight"], "ESRGAN"),
        (["conv_first.weight", "body.0.rdb1.conv1.weight"], "ESRGAN"),
        (["conv_first.weight", "layers.0.residual_group.blocks.0.attn.qkv.weight"], "SwinIR"),
        (["backbone.backward_1.main.0.weight", "conv_last.weight"], "BasicVSR++"),
        (["head.0.weight", "body.0.body.0.weight", "tail.1.weight"], "EDSR"),
        (["fea_conv.weight", "B1.c1_d.weight", "B1.c1_r.weight", "upsampler.0.weight"], "RFDN"),
        (["body.0.weight", "body.1.weight", "body.2.weight"], "SRVGG"),
        (["linear.weight"], "a network that upframe knows"),
    ],
)
def test_other_networks_are_called_by_their_name(tmp_path: Path, names: list[str], expected: str) -> None:
    torch.save({name: torch.ones(3) for name in names}, tmp_path / "w.pth")
    message = refusal(read_state(tmp_path / "w.pth"))
    assert expected in message
    assert "Expected RLFN, VapSR, BasicVSR, RealBasicVSR, VRT, VSR-Transformer or Weft weights" in message
    assert names[-1].removeprefix("model.") in message


def test_instantiate_leaves_the_random_numbers_alone_and_needs_no_gradients() -> None:
    state = small_rlfn()
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    network = instantiate(recognise(state, value_range="0-1").spec, state)
    assert torch.equal(torch.rand(3), expected)
    assert not network.training
    assert not any(parameter.requires_grad for parameter in network.parameters())


# Cards ----------------------------------------------------------------------------------------------------------------
CARD = Card(
    name="photo-x4",
    arch="rlfn-ntire-x4",
    parameters={"channels": 46, "blocks": 4, "block": "rlfb"},
    scale=4,
    trained_on="266 photographs – CC0",
    recipe="photo",
    scores={"sisr-y": {"Set5": {"psnr": 31.5, "ssim": 0.89}}},
    sha256="ab" * 32,
    licence_weights="Apache-2.0",
    created="2026-01-02",
)


def test_a_card_survives_json() -> None:
    assert Card.from_json(CARD.to_json(), subject="c") == CARD
    assert set(json.loads(CARD.to_json())) == set(vars(CARD))


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"licence": "MIT", "psnr": 3}, "unknown card entries: licence, psnr"),
        ({"scale": "4"}, "wrong type: scale"),
        ({"scale": True}, "wrong type: scale"),
        ({"value_range": "0-65535"}, "wrong type: value_range"),
        ({"scores": {"sisr-y": 31.5}}, "wrong type: scores"),
        ({"parameters": {"channels": [46]}}, "wrong type: parameters"),
        ({"notes": None}, "wrong type: notes"),
        ({"arch": ...}, "lacks the card entries arch"),
    ],
)
def test_a_card_with_wrong_entries_is_refused(change: dict[str, Any], expected: str) -> None:
    content = {key: value for key, value in {**json.loads(CARD.to_json()), **change}.items() if value is not ...}
    with pytest.raises(ModelError, match=expected):
        Card.from_json(json.dumps(content), subject="c.card.json")


@pytest.mark.parametrize("text", ["", "{", "[1]", "7"])
def test_a_card_that_is_no_json_object_is_refused(text: str) -> None:
    with pytest.raises(ModelError, match=r"c\.card\.json"):
        Card.from_json(text, subject="c.card.json")


# Writing --------------------------------------------------------------------------------------------------------------
def test_saved_weights_come_back_bit_equal_with_their_card(tmp_path: Path) -> None:
    state = small_rlfn()
    written = save(tmp_path / "a.b.safetensors", state, CARD)
    assert {path.name for path in tmp_path.iterdir()} == {"a.b.safetensors", "a.b.card.json"}
    weights = read(tmp_path / "a.b.safetensors")
    assert equal(weights.state, state)
    assert weights.card == written == replace(CARD, sha256=weights.sha256)
    assert weights.value_range == "0-1"


def test_the_same_weights_give_the_same_bytes(tmp_path: Path) -> None:
    first = save(tmp_path / "a.safetensors", small_rlfn(), CARD)
    second = save(tmp_path / "b.safetensors", dict(reversed(small_rlfn().items())), CARD)
    assert first.sha256 == second.sha256


def test_the_header_carries_the_card_when_the_one_beside_is_lost(tmp_path: Path) -> None:
    save(tmp_path / "a.safetensors", small_rlfn(), CARD)
    card_path(tmp_path / "a.safetensors").unlink()
    assert read(tmp_path / "a.safetensors").card == replace(CARD, sha256="")


def test_weights_that_are_not_those_of_the_card_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    save(path, small_rlfn(0), CARD)
    safetensors.torch.save_file(small_rlfn(1), path)
    assert "not the file its card was written for" in refused(path)


def test_nothing_is_overwritten_unless_allowed(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    save(path, small_rlfn(0), CARD)
    with pytest.raises(UsageError, match="exists already"):
        save(path, small_rlfn(1), CARD)
    assert equal(read_state(path), small_rlfn(0))
    save(path, small_rlfn(1), CARD, overwrite=True)
    assert equal(read_state(path), small_rlfn(1))


def test_other_suffixes_than_safetensors_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="safetensors"):
        save(tmp_path / "a.pth", small_rlfn(), CARD)


@pytest.mark.parametrize("failing", ["fsync", "replace"])
def test_a_failed_write_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    if failing == "fsync":
        monkeypatch.setattr(os, "fsync", full)
    else:
        monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(OutputError, match="no space left"):
        save(tmp_path / "a.safetensors", small_rlfn(), CARD)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_does_not_exist_is_an_output_error(tmp_path: Path) -> None:
    with pytest.raises(OutputError):
        save(tmp_path / "absent" / "a.safetensors", small_rlfn(), CARD)


def test_conversion_keeps_every_bit_and_is_not_repeated(tmp_path: Path) -> None:
    state = small_rlfn()
    torch.save({"state_dict": {f"module.{name}": value for name, value in state.items()}}, tmp_path / "theirs.pth")
    card = convert(tmp_path / "theirs.pth", tmp_path / "ours.safetensors", value_range="0-255", notes="mine")
    assert (card.arch, card.scale, card.value_range, card.notes) == ("rlfn-c8b2-x2", 2, "0-1", "mine")
    assert card.parameters == {"channels": 8, "blocks": 2, "scale": 2, "inner_channels": 8, "colours": 3}
    assert card.source == "theirs.pth"
    assert card.created
    assert equal(read_state(tmp_path / "ours.safetensors"), rlfn_family.fold_value_range(state))

    again = convert(tmp_path / "ours.safetensors", tmp_path / "again.safetensors", created=card.created)
    assert equal(read_state(tmp_path / "again.safetensors"), rlfn_family.fold_value_range(state)), "the card says it is 0-1"
    assert again == card, "same tensors, same card, same file"


def test_conversion_refuses_to_replace_its_own_input(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    save(path, small_vapsr(), replace(CARD, arch="vapsr-c8a12b2-x3", scale=3))
    before = path.read_bytes()
    with pytest.raises(UsageError, match="itself"):
        convert(path, path, overwrite=True)
    assert path.read_bytes() == before


def test_conversion_of_a_foreign_network_writes_nothing(tmp_path: Path) -> None:
    torch.save({"head.0.weight": torch.ones(3)}, tmp_path / "edsr.pth")
    with pytest.raises(ModelError, match="EDSR"):
        convert(tmp_path / "edsr.pth", tmp_path / "ours.safetensors")
    assert [path.name for path in tmp_path.iterdir()] == ["edsr.pth"]


@pytest.mark.parametrize("length", [0x80, 0x180, 0x1080, 0x2880])
def test_a_safetensors_header_whose_length_begins_like_a_pickle_is_read(tmp_path: Path, length: int) -> None:
    header = json.dumps({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode().ljust(length)
    path = tmp_path / "weights.safetensors"
    path.write_bytes(length.to_bytes(8, "little") + header + b"\0\0\x80\x3f")
    assert read_state(path)["a"].tolist() == [1.0]
