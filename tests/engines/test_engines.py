"""Choosing an engine, keeping what it compiled, and what happens without compilers, extras or a folder to write to."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from conftest import Upframe, make_photo
from nearest import repeated
from upframe.engines import (
    CompileOptions,
    GraphEngine,
    OnnxOptions,
    OpenVinoOptions,
    TorchEngine,
    TorchOptions,
    VulkanOptions,
    cache,
    compiled,
    engine_options,
    make_clip_engine,
    make_engine,
    onnx_runtime,
)
from upframe.engines.compiled import Compiled
from upframe.engines.graphs import Run, trace
from upframe.errors import MissingError, ResourceError, UsageError
from upframe.media.image.files import write_pixels
from upframe.media.image.source import read_pixels
from upframe.models.families import realbasicvsr, vapsr
from upframe.models.registry import Model, load
from upframe.models.spec import ModelSpec, Precision

SPEC = vapsr.spec_for(channels=8, attention_channels=8, blocks=1, scale=2)


@pytest.fixture
def model() -> Model:
    torch.manual_seed(3)
    return Model(SPEC, SPEC.build().eval().requires_grad_(False), None, "", "")


class Traced:
    """A backend that executes the traced graph as it is, and counts what it is asked for."""

    precisions: tuple[Precision, ...] = ("fp32",)
    keeps_pixels = True
    accelerator: str | None = None

    def __init__(self) -> None:
        self.made = 0

    def versions(self) -> dict[str, str]:
        return {"traced": "1"}

    def check(self) -> None:
        pass

    def make(self, network: nn.Module, spec: ModelSpec, precision: Precision, folder: Path) -> None:
        self.made += 1
        torch.export.save(trace(network, spec), folder / "graph.pt2")

    def load(self, folder: Path, precision: Precision, threads: int) -> Run:
        graph = torch.export.load(folder / "graph.pt2").module()

        def run(given: Sequence[Tensor]) -> Tensor:
            return graph(*given)

        return run


def without(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setitem(sys.modules, name, None)  # importing it raises ImportError


# Choosing -------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("auto", TorchOptions),
        ("torch", TorchOptions),
        ("compile", CompileOptions),
        ("openvino", OpenVinoOptions),
        ("onnx", OnnxOptions),
        ("vulkan", VulkanOptions),
    ],
)
def test_names_of_engines(name: str, kind: type) -> None:
    options = engine_options(name, precision="bf16", threads=1)
    assert type(options) is kind and (options.precision, options.threads) == ("bf16", 1)


def test_a_picture_gets_the_strides_of_channels_last(model: Model) -> None:
    """Convolutions run at half the speed on a picture that only passes for channels-last, as one out of an array does."""
    photo = torch.from_numpy(make_photo(20, 24).copy()).permute(2, 0, 1)[None, None].float() / 255
    assert photo[0].is_contiguous(memory_format=torch.channels_last) and photo[0].stride(0) != 3 * 20 * 24
    seen: list[tuple[int, ...]] = []
    engine = TorchEngine(model, TorchOptions("cpu", "fp32"))
    hook = model.network.register_forward_pre_hook(lambda _, given: seen.append(given[0].stride()))
    made = engine(photo)
    hook.remove()
    assert seen == [(3 * 20 * 24, 1, 3 * 24, 3)]
    torch.testing.assert_close(made, engine(photo.contiguous()), atol=0, rtol=0)


def test_compiled_engines_run_on_the_cpu_only() -> None:
    with pytest.raises(UsageError, match=r"not on cuda.*`engine='torch'`"):
        engine_options("compile", device="cuda")


def test_a_network_for_clips_names_the_engine_that_runs_it() -> None:
    spec = realbasicvsr.BASICVSR
    clip_model = Model(spec, nn.Identity(), None, "", "")
    for make in (make_engine, make_clip_engine):
        with pytest.raises(UsageError, match=r"a video network\. Use `engine='torch'`") as caught:
            make(clip_model, CompileOptions())  # type: ignore[operator]
        assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("engine", "module", "extra"),
    [("openvino", "openvino", "openvino"), ("onnx", "onnxruntime", "onnx"), ("onnx", "onnxscript", "onnx")],
)
def test_without_an_extra_torch_runs_and_one_line_says_how_to_get_it(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    upframe: Upframe,
    caplog: pytest.LogCaptureFixture,
    engine: str,
    module: str,
    extra: str,
) -> None:
    pytest.importorskip("onnx", reason="the extra onnx is not installed")
    without(monkeypatch, module)
    write_pixels(tmp_path / "a.png", make_photo(36, 40))
    for name in (engine, "torch"):
        result = upframe("upscale", tmp_path / "a.png", "-o", tmp_path / f"{name}.png", "--engine", name, "--precision", "fp32")
        assert result.code == 0
    (said,) = caplog.messages
    assert f'pip install "upframe[{extra}]"' in said and said.endswith("rlfn-ntire-x4 runs in torch")
    # By torch with kernels and without, so values may round to either side.
    made, expected = (read_pixels(tmp_path / f"{name}.png").astype(int) for name in (engine, "torch"))
    assert abs(made - expected).max() <= 1


@pytest.mark.parametrize(("engine", "module"), [("openvino", "openvino"), ("onnx", "onnxruntime")])
def test_figures_of_a_missing_engine_are_refused(
    monkeypatch: pytest.MonkeyPatch, upframe: Upframe, engine: str, module: str
) -> None:
    without(monkeypatch, module)
    for flags in ((), ("--compare",)):
        result = upframe("bench", "rlfn-ntire-x4", "--engine", engine, *flags)
        assert result.code == 2 and "pip install" in result.err and len(result.err.splitlines()) == 1


def test_onnx_runtime_computes_in_float32(model: Model) -> None:
    try:
        onnx_runtime.library()
    except UsageError as error:
        pytest.skip(str(error))
    assert make_engine(load("photo-x2"), OnnxOptions()).precision == "fp32"
    with pytest.raises(UsageError, match="supports fp32"):
        make_engine(model, OnnxOptions(precision="bf16"))


def test_without_a_compiler_torch_runs_and_one_line_says_so(
    monkeypatch: pytest.MonkeyPatch, model: Model, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(compiled.shutil, "which", lambda name: None)
    engine = make_engine(model, CompileOptions("fp32", cache=tmp_path))
    clip = torch.rand(1, 1, 3, 40, 40)
    with pytest.raises(MissingError, match=r"needs a C\+\+ compiler"):
        engine.load()  # type: ignore[attr-defined] # what measures calls this
    for _ in range(2):
        assert torch.equal(engine(clip), TorchEngine(model, TorchOptions("cpu", "fp32"))(clip))
    assert [("needs a C++ compiler" in line and "runs in torch" in line) for line in caplog.messages] == [True]
    assert engine.name == "torch" and not list(tmp_path.iterdir())


# The cache ------------------------------------------------------------------------------------------------------------
@pytest.mark.slow
def test_what_was_compiled_is_taken_again(model: Model, tmp_path: Path) -> None:
    backend = Traced()
    clip = torch.rand(1, 1, 3, 40, 44)
    expected = TorchEngine(model)(clip)
    for _ in range(2):
        engine = GraphEngine(model, CompileOptions(cache=tmp_path), backend)
        torch.testing.assert_close(engine(clip), expected, atol=1e-6, rtol=0)  # the same operations, traced
    assert backend.made == 1
    (kept,) = tmp_path.iterdir()
    assert kept.name.startswith(f"compile-{SPEC.name}-fp32-")


@pytest.mark.slow
def test_other_weights_are_compiled_anew(model: Model, tmp_path: Path) -> None:
    torch.manual_seed(4)
    other = Model(SPEC, SPEC.build().eval().requires_grad_(False), None, "", "")
    for each in (model, other):
        clip = torch.rand(1, 1, 3, 40, 44)
        engine = GraphEngine(each, CompileOptions(cache=tmp_path), Traced())
        torch.testing.assert_close(engine(clip), TorchEngine(each)(clip), atol=1e-6, rtol=0)
    assert len(list(tmp_path.iterdir())) == 2


def test_the_key_holds_versions_weights_and_cpu(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    facts = {"torch": "2.13.0", "precision": "fp32", "threads": 2}
    keys = {cache.key(model.network, facts), cache.key(model.network, dict(reversed(facts.items())))}
    assert len(keys) == 1
    for name, value in (("torch", "2.14.0"), ("precision", "bf16"), ("threads", 4)):
        keys.add(cache.key(model.network, {**facts, name: value}))
    monkeypatch.setattr(cache, "cpu_flags", lambda: frozenset({"another"}))
    keys.add(cache.key(model.network, facts))
    assert len(keys) == 5


def test_a_failed_compilation_leaves_nothing(model: Model, tmp_path: Path) -> None:
    class Failing(Traced):
        def make(self, network: nn.Module, spec: ModelSpec, precision: Precision, folder: Path) -> None:
            (folder / "half").write_bytes(b"half")
            raise ResourceError("disk", "is full")

    with pytest.raises(ResourceError, match="full"):
        GraphEngine(model, CompileOptions(cache=tmp_path), Failing())(torch.rand(1, 1, 3, 40, 44))
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_cache_that_cannot_be_written_is_said_and_done_without(
    model: Model, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_bytes(b"")
    engine = GraphEngine(model, CompileOptions(cache=tmp_path / "file" / "sub"), Traced())
    clip = torch.rand(1, 1, 3, 40, 44)
    torch.testing.assert_close(engine(clip), TorchEngine(model)(clip), atol=1e-6, rtol=0)
    assert sum("cannot be kept" in record.message for record in caplog.records) == 1


def test_the_folder_is_the_one_the_user_names(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("UPFRAME_CACHE", str(tmp_path / "mine"))
    assert cache.default_folder() == tmp_path / "mine"
    monkeypatch.delenv("UPFRAME_CACHE")
    if sys.platform == "linux":
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
        assert cache.default_folder() == tmp_path / "xdg" / "upframe"


# Running --------------------------------------------------------------------------------------------------------------
def test_small_frames_run_in_torch_and_one_line_says_so(model: Model, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    backend = Traced()
    engine = GraphEngine(model, CompileOptions(cache=tmp_path), backend)
    with caplog.at_level(logging.WARNING):
        for side in (1, 7, 31):
            clip = torch.rand(1, 1, 3, side, 50)
            assert torch.equal(engine(clip), TorchEngine(model)(clip))
    assert backend.made == 0
    assert [record.message for record in caplog.records] == ["engine compile: frames below 32 px a side run in torch"]


@pytest.mark.slow
def test_a_photo_through_an_engine_is_that_of_torch(
    tmp_path: Path, upframe: Upframe, monkeypatch: pytest.MonkeyPatch, weights: Path
) -> None:
    try:
        onnx_runtime.library()
    except UsageError as error:
        pytest.skip(str(error))
    monkeypatch.setenv("UPFRAME_CACHE", str(tmp_path / "cache"))
    photo = make_photo(70, 90)
    write_pixels(tmp_path / "a.png", photo)
    command = ["upscale", tmp_path / "a.png", "-m", weights, "-o", tmp_path / "b.png", "--engine", "onnx", "--tile", 48]
    done = upframe(*command, "--json").of("done")
    assert (done["engine"], done["precision"]) == ("onnx", "fp32")
    np.testing.assert_array_equal(read_pixels(tmp_path / "b.png"), repeated(photo, 2))


@pytest.mark.slow
def test_a_card_and_a_score_of_an_engine(
    tmp_path: Path, upframe: Upframe, monkeypatch: pytest.MonkeyPatch, weights: Path
) -> None:
    try:
        onnx_runtime.library()
    except UsageError as error:
        pytest.skip(str(error))
    monkeypatch.setenv("UPFRAME_CACHE", str(tmp_path / "cache"))
    card = upframe("bench", weights, "--engine", "onnx", "--size", "48x40", "--runs", 1, "--json")
    assert json.loads(card.out)["environment"]["engine"] == "onnx"
    (tmp_path / "sets" / "Mini" / "HR").mkdir(parents=True)
    write_pixels(tmp_path / "sets" / "Mini" / "HR" / "one.png", make_photo(80, 96))
    scored = [
        json.loads(upframe("evaluate", weights, "--data", tmp_path / "sets", "--engine", engine, "--json").out)
        for engine in ("torch", "onnx")
    ]
    assert [one["environment"]["engine"] for one in scored] == ["torch", "onnx"]
    first, second = (one["scores"][0]["scores"] for one in scored)
    assert first == pytest.approx(second, abs=1e-4)  # 8-bit outputs of an exact network


def test_planning_compiles_nothing(tmp_path: Path, upframe: Upframe, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("compiled while planning")

    monkeypatch.setattr(Compiled, "make", refuse)
    monkeypatch.setenv("UPFRAME_CACHE", str(tmp_path / "cache"))
    write_pixels(tmp_path / "a.png", make_photo(40, 50))
    plan = upframe("upscale", tmp_path / "a.png", "--engine", "compile", "--json", "--dry-run").of("plan")
    assert plan["engine"] == "compile"
