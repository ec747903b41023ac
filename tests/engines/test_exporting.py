"""`upframe export`: files that other programs run, and what is written into them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from conftest import Upframe, make_photo
from nearest import repeated
from upframe.engines import exporting, onnx_runtime, openvino_runtime
from upframe.engines.exporting import export
from upframe.errors import UsageError, VerifyError
from upframe.models.registry import load

try:
    ort, ov = onnx_runtime.library(), openvino_runtime.library()
except UsageError as error:
    pytest.skip(str(error), allow_module_level=True)
import onnx


def as_tensor(photo: Any) -> Any:
    return np.ascontiguousarray(photo.transpose(2, 0, 1)[None])


@pytest.mark.slow
def test_an_onnx_file_runs_without_upframe_at_any_size(weights: Path, tmp_path: Path, upframe: Upframe) -> None:
    result = upframe("export", weights, "-o", tmp_path / "nearest.onnx", "--json")
    assert result.code == 0 and result.of("exported")["files"] == [str(tmp_path / "nearest.onnx")]
    onnx.checker.check_model(str(tmp_path / "nearest.onnx"), full_check=True)
    session = ort.InferenceSession(str(tmp_path / "nearest.onnx"), providers=["CPUExecutionProvider"])
    for height, width in ((40, 70), (33, 32)):
        photo = make_photo(height, width, dtype="float32")
        (made,) = session.run(None, {session.get_inputs()[0].name: as_tensor(photo)})
        np.testing.assert_allclose(made[0].transpose(1, 2, 0), repeated(photo, 2), atol=1e-6)


@pytest.mark.slow
def test_an_openvino_file_runs_without_upframe_at_any_size(weights: Path, tmp_path: Path) -> None:
    made = export(load(weights), tmp_path / "nearest.xml")
    assert made.files == (tmp_path / "nearest.xml", tmp_path / "nearest.bin")
    core = ov.Core()
    compiled = core.compile_model(tmp_path / "nearest.xml", "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    for height, width in ((40, 70), (33, 32)):
        photo = make_photo(height, width, dtype="float32")
        out = compiled([as_tensor(photo)])[0]
        np.testing.assert_allclose(out[0].transpose(1, 2, 0), repeated(photo, 2), atol=1e-6)
    about = core.read_model(tmp_path / "nearest.xml").get_rt_info(["upframe", "scale"])
    assert str(about.value if hasattr(about, "value") else about) == "2"


@pytest.mark.slow
def test_the_file_says_what_a_program_has_to_know(tmp_path: Path) -> None:
    model = load("photo-x2")
    made = export(model, tmp_path / "photo.onnx")
    stored = {p.key: p.value for p in onnx.load(str(tmp_path / "photo.onnx")).metadata_props}
    assert made.metadata.items() <= stored.items()
    expected = {
        "upframe.model": "photo-x2",
        "upframe.network": "rlfn-ntire-x2",
        "upframe.weights_sha256": model.sha256,
        "upframe.scale": "2",
        "upframe.halo_px": str(model.spec.halo_px),
    }
    assert expected.items() <= stored.items()
    assert stored["upframe.value_range"].startswith("0 to 1")
    assert made.max_difference < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("taken", ["a.onnx", "a.xml", "a.bin"])
def test_nothing_is_overwritten_unasked(weights: Path, tmp_path: Path, upframe: Upframe, taken: str) -> None:
    (tmp_path / taken).write_text("mine")
    target = tmp_path / ("a.onnx" if taken == "a.onnx" else "a.xml")
    result = upframe("export", weights, "-o", target)
    assert result.code == 2 and "exists" in result.err
    assert [p.name for p in tmp_path.iterdir()] == [taken] and (tmp_path / taken).read_text() == "mine"
    if taken == "a.onnx":
        assert upframe("export", weights, "-o", target, "-y").code == 0
        assert target.read_bytes() != b"mine"


@pytest.mark.slow
def test_a_file_that_makes_other_pixels_is_not_left_there(
    weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = onnx_runtime.runner

    def off(model: Any, threads: int) -> Any:
        run = real(model, threads)
        return lambda given: run(given) + 1e-3

    monkeypatch.setattr(onnx_runtime, "runner", off)
    with pytest.raises(VerifyError, match=r"off by 1\.0e-03"):
        export(load(weights), tmp_path / "a.onnx")
    monkeypatch.setattr(
        onnx_runtime, "runner", lambda *_: lambda given: torch.full_like(given[0], float("nan")).repeat(1, 1, 2, 2)
    )
    with pytest.raises(VerifyError, match="off by inf"):
        export(load(weights), tmp_path / "a.onnx")
    assert not list(tmp_path.iterdir())


def test_what_cannot_be_exported_is_refused_before_any_work(weights: Path, tmp_path: Path, upframe: Upframe) -> None:
    with pytest.raises(UsageError, match=r"end the name in \.onnx or \.xml|End the name in"):
        export(load(weights), tmp_path / "a.tflite")
    assert upframe("export", weights, "-o", tmp_path / "nowhere" / "a.onnx").code == 6


def test_the_difference_is_over_all_sizes(weights: Path) -> None:
    model = load(weights)

    def one_pixel_off(given: list[Tensor]) -> Tensor:
        out = model.network(given[0]).clone()
        if out.shape[-1] > 100:  # in the larger picture only
            out[0, 0, -1, -1] += 0.25
        return out

    assert exporting._difference(model, one_pixel_off) == pytest.approx(0.25, abs=1e-5)
