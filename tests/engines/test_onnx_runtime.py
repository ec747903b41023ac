"""Devices of ONNX Runtime: which the installed one has, and those that do not start."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch

from upframe.engines import OnnxOptions, make_engine_as_named
from upframe.engines.onnx_runtime import PROVIDERS, check_provider, runner
from upframe.errors import OptionError, ResourceError
from upframe.models.registry import load

onnxruntime = pytest.importorskip("onnxruntime")
helper = pytest.importorskip("onnx.helper")
TensorProto = pytest.importorskip("onnx").TensorProto


@pytest.mark.parametrize("device", [name for name in PROVIDERS if name != "cpu"])
def test_a_device_that_the_runtime_lacks_is_named_before_any_work(device: str) -> None:
    if PROVIDERS[device] in onnxruntime.get_available_providers():
        pytest.skip(f"this ONNX Runtime has {device}")
    with pytest.raises(ResourceError, match=rf"has no {PROVIDERS[device]}, only .*cpu.*[Ii]nstall onnxruntime") as caught:
        make_engine_as_named(load("photo-x2"), OnnxOptions(device))
    assert caught.value.exit_code == 5


def test_a_runtime_for_gpus_may_use_them() -> None:
    check_provider("cuda:1", ["CUDAExecutionProvider", "CPUExecutionProvider"])


@pytest.mark.parametrize("device", ["mps", "cpu:0", "coreml:1", "cuda:x", "", None])
def test_names_that_are_no_devices_of_onnx_are_refused(device: Any) -> None:
    with pytest.raises(OptionError, match="does not run there"):
        OnnxOptions(device)


def test_a_provider_that_does_not_start_is_named_instead_of_the_cpu_doing_its_work() -> None:
    """The runtime itself falls back to the CPU, with a warning of Python's at most."""
    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this ONNX Runtime has CUDA")
    identity = helper.make_model(
        helper.make_graph(
            [helper.make_node("Identity", ["x"], ["y"])],
            "identity",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])],
        ),
        ir_version=10,
        opset_imports=[helper.make_opsetid("", 20)],
    ).SerializeToString()
    assert runner(identity, 1)([torch.ones(1)]) == 1
    with warnings.catch_warnings(), pytest.raises(ResourceError, match=r"cuda:1.*CUDAExecutionProvider did not start"):
        warnings.simplefilter("ignore")
        runner(identity, 1, "cuda:1")


def test_whatever_a_provider_raises_while_it_starts_is_one_line() -> None:
    with pytest.raises(ResourceError, match=r"did not start: .+protobuf"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        runner(b"no graph at all", 1, "cuda")
