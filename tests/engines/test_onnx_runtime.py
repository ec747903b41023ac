"""Devices of ONNX Runtime: which the installed one has, and those that do not start."""

from __future__ import annotations

from typing import Any

import pytest

from upframe.engines import OnnxOptions, make_engine_as_named
from upframe.engines.onnx_runtime import PROVIDERS, check_provider
from upframe.errors import OptionError, ResourceError
from upframe.models.registry import load

onnxruntime = pytest.importorskip("onnxruntime")


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
