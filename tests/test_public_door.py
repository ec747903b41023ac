"""The public door: its names, what importing it costs, its documentation, and what it refuses."""

from __future__ import annotations

import doctest
import inspect
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import upframe
from conftest import make_photo
from upframe import errors

NAMES = {
    "Cleaning",
    "Event",
    "JobOptions",
    "Model",
    "Target",
    "TorchOptions",
    "UpscaleOptions",
    "Upscaler",
    "VideoOptions",
    "VideoUpscaler",
    "__version__",
    "errors",
    "evaluate",
    "list_models",
    "load",
    "metric",
    "plan",
    "run",
    "train",
    "upscale",
}


# Names and imports ----------------------------------------------------------------------------------------------------
def test_the_exported_names_are_exactly_these() -> None:
    assert set(upframe.__all__) == set(dir(upframe)) == NAMES
    for name in NAMES:
        assert getattr(upframe, name) is not None


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="upscale_folder"):
        upframe.upscale_folder  # type: ignore[attr-defined]  # noqa: B018


def loaded_after(code: str, *suspects: str) -> set[str]:
    """Which of the packages a fresh interpreter has loaded after `code`."""
    report = f"\nimport sys; print([m for m in {suspects!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code + report], capture_output=True, text=True, check=True)
    return set(eval(done.stdout.splitlines()[-1]))


def test_importing_upframe_loads_neither_torch_nor_codecs() -> None:
    assert not loaded_after("import upframe", "torch", "numpy", "PIL", "av", "tifffile", "cyclopts", "rich")


@pytest.mark.slow
def test_enlarging_an_array_loads_no_codec(weights: Path) -> None:
    code = f"import numpy, upframe; upframe.upscale(numpy.zeros((8, 8, 3), 'uint8'), model={str(weights)!r})"
    assert not loaded_after(code, "PIL", "av", "tifffile", "cyclopts", "rich")


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["Event", "Model", "TorchOptions", "Upscaler", "VideoUpscaler", "evaluate", "load", "run", "train"]
)
def test_a_name_can_be_the_first_that_is_used(name: str) -> None:
    """Circular imports only show when a module is the first to be loaded: one name from each module of the door."""
    assert not loaded_after(f"import upframe; upframe.{name}", "cyclopts", "rich")


# Documentation --------------------------------------------------------------------------------------------------------
def public_callables() -> Iterator[tuple[str, Callable[..., Any]]]:
    """Functions, classes with behaviour, and their public methods."""
    for name in sorted(NAMES - {"__version__", "errors"}):
        thing = getattr(upframe, name)
        yield name, thing
        if name in ("Model", "Upscaler", "VideoUpscaler"):
            methods = inspect.getmembers(thing, lambda m: inspect.isfunction(m) or inspect.ismethod(m))
            yield from ((f"{name}.{m}", f) for m, f in methods if not m.startswith("_") or m == "__call__")


CALLABLES = dict(public_callables())
PLAIN = {"Model.bfloat16", "Model.half", "Model.float", "Upscaler.close", "VideoUpscaler.close"}
"""Take no argument: an example would say no more than the name."""
DATA = {"Cleaning", "Event", "JobOptions", "Target", "TorchOptions", "UpscaleOptions", "VideoOptions"}
"""Dataclasses: their fields are documented one by one, and docs/python.md shows them at work."""


@pytest.mark.parametrize("name", CALLABLES)
def test_every_public_callable_is_typed_and_documented(name: str) -> None:
    thing = CALLABLES[name]
    function = thing.__init__ if inspect.isclass(thing) else thing
    signature = inspect.signature(function)
    bare = [p.name for p in signature.parameters.values() if p.name not in ("self", "cls") and p.annotation is p.empty]
    assert not bare
    assert signature.return_annotation is not inspect.Signature.empty
    assert inspect.getdoc(thing)


@pytest.mark.parametrize("name", sorted(CALLABLES.keys() - PLAIN - DATA))
def test_every_public_callable_has_an_example_that_runs(name: str) -> None:
    thing = CALLABLES[name]
    document = inspect.getdoc(thing) or ""
    assert "Example:" in document
    test = doctest.DocTestParser().get_doctest(document, {}, name, None, None)
    assert test.examples
    report: list[str] = []
    doctest.DocTestRunner(verbose=False).run(test, out=report.append)
    assert not report, "".join(report)


# What is refused ------------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def model(weights: Path) -> upframe.Model:
    return upframe.load(weights)


RGB = make_photo(8, 9)
UNIT = torch.zeros(1, 3, 8, 9)
HALF = RGB.astype(np.float32) / 255


def with_value(value: float) -> Any:
    picture = HALF.copy()
    picture[2, 3, 1] = value
    return picture


PIXELS: dict[str, tuple[Any, str]] = {
    "channels first": (np.zeros((3, 8, 9), np.uint8), "x: is a uint8 array (3, 8, 9), which looks like channels first"),
    "batch of channels first": (np.zeros((2, 3, 8, 9), np.uint8), "channels first"),
    "7 channels": (np.zeros((8, 9, 7), np.uint8), "7 channels"),
    "5 channels in a batch": (np.zeros((2, 8, 9, 5), np.uint8), "5 channels"),
    "stack of gray": (np.zeros((20, 8, 9), np.uint8), "9 channels"),
    "one axis": (np.zeros(8, np.uint8), "x: is a uint8 array (8,)"),
    "five axes": (np.zeros((1, 2, 8, 9, 3), np.uint8), "expected (H, W)"),
    "no axis": (np.array(3, np.uint8), "x: is"),
    "NaN": (with_value(np.nan), "x: holds values that are not finite"),
    "infinite": (with_value(-np.inf), "not finite"),
    "code values as floats": (RGB.astype(np.float32), "expected 0 to 1"),
    "minus one to one": (HALF * 2 - 1, "expected 0 to 1"),
    "NaN in float16": (with_value(np.nan).astype(np.float16), "not finite"),
    "int32": (RGB.astype(np.int32), "int32"),
    "int8": (RGB.astype(np.int8), "int8"),
    "bool": (RGB > 9, "bool"),
    "complex": (RGB.astype(np.complex64), "complex64"),
    "objects": (np.full((8, 9, 3), None), "object"),
    "empty": (np.zeros((0, 9, 3), np.uint8), "x: is empty"),
    "no pictures": (np.zeros((0, 8, 9, 3), np.uint8), "x: is empty"),
    "masked": (np.ma.masked_array(RGB, RGB > 9), "masked"),
    "list of pictures": ([RGB, RGB], "x: is of type list"),
    "bytes": (b"\x89PNG", "BytesIO"),
    "nothing": (None, "x: is of type NoneType"),
    "number": (3, "x: is of type int"),
    "tensor channels last": (torch.zeros(8, 9, 3), "channels last"),
    "tensors channels last": (torch.zeros(2, 8, 9, 3), "channels last"),
    "tensor of 7 channels": (torch.zeros(7, 8, 9), "7 channels"),
    "tensor without channels": (torch.zeros(8, 9), "x[None]"),
    "tensor of six axes": (torch.zeros(1, 1, 1, 3, 8, 9), "expected (C, H, W)"),
    "tensor of int64": (torch.zeros(3, 8, 9, dtype=torch.int64), "int64"),
    "tensor of bool": (torch.zeros(3, 8, 9, dtype=torch.bool), "bool"),
    "complex tensor": (torch.zeros(3, 8, 9, dtype=torch.complex64), "complex64"),
    "tensor with NaN": (torch.full((3, 8, 9), float("nan")), "not finite"),
    "tensor of code values": (torch.full((3, 8, 9), 200.0), "expected 0 to 1"),
    "empty tensor": (torch.zeros(3, 0, 9), "x: is empty"),
    "sparse tensor": (torch.zeros(3, 8, 9).to_sparse(), "sparse"),
    "meta tensor": (torch.zeros(3, 8, 9, device="meta"), "meta"),
    "CMYK image": (Image.new("CMYK", (9, 8)), "mode CMYK"),
    "image of 32-bit integers": (Image.new("I", (9, 8)), "mode I"),
    "float image of code values": (Image.new("F", (9, 8), 200.0), "expected 0 to 1"),
    "empty image": (Image.new("RGB", (0, 8)), "x: is empty"),
    "no such file": ("nowhere.png", "nowhere.png"),
    "folder": (Path(__file__).parent, "x: is a folder"),
    "empty path": ("", "x: is ''"),
}
"""Inputs that are no picture, by the fault, and a part of the message."""


@pytest.mark.parametrize("case", PIXELS)
def test_what_is_no_picture_is_refused_by_upscale_and_upscaler(case: str, model: upframe.Model) -> None:
    x, said = PIXELS[case]
    for call in (lambda: upframe.upscale(x, model=model), lambda: upframe.Upscaler(model)(x)):
        with pytest.raises(errors.UpframeError) as caught:
            call()
        assert said in str(caught.value)


OPTIONS: dict[str, tuple[dict[str, Any], str]] = {
    "scale 0": ({"scale": 0}, "scale=0"),
    "negative scale": ({"scale": -2}, "scale=-2"),
    "NaN scale": ({"scale": float("nan")}, "scale=nan"),
    "infinite scale": ({"scale": float("inf")}, "scale=inf"),
    "scale as text": ({"scale": "2"}, "scale='2'"),
    "scale as bool": ({"scale": True}, "scale=True"),
    "one number as size": ({"size": 30}, "size=30"),
    "size of three": ({"size": (1, 2, 3)}, "size=(1, 2, 3)"),
    "size of 0": ({"size": (0, 9)}, "size=(0, 9)"),
    "size of floats": ({"size": (16.0, 18.0)}, "size=(16.0, 18.0)"),
    "width 0": ({"width": 0}, "width=0"),
    "height as float": ({"height": 9.5}, "height=9.5"),
    "negative long side": ({"long_side": -1}, "long_side=-1"),
    "short side as text": ({"short_side": "90"}, "short_side='90'"),
    "megapixels 0": ({"megapixels": 0}, "megapixels=0"),
    "scale and width": ({"scale": 2, "width": 90}, "width=90: contradicts `scale=2`"),
    "size and height": ({"size": (9, 9), "height": 9}, "height=9: contradicts"),
    "unknown model": ({"model": "phto-x4"}, "phto-x4"),
    "model as number": ({"model": 4}, "model=4"),
    "empty model": ({"model": ""}, "model=''"),
    "no such weights": ({"model": "nowhere.safetensors"}, "nowhere.safetensors"),
    "bare network": ({"model": nn.Upsample(scale_factor=2)}, "model="),
    "unknown device": ({"device": "gpu"}, "device"),
    "device as number": ({"device": 0}, "device=0"),
    "absent device": ({"device": "cuda:99"}, "device"),
    "unknown precision": ({"precision": "fp8"}, "precision='fp8'"),
    "unproven precision": ({"precision": "fp16", "device": "cpu"}, "precision"),
    "options as dict": ({"options": {"tile": 64}}, "options="),
    "options of jobs": ({"options": upframe.JobOptions()}, "options="),
    "progress as number": ({"on_progress": 1}, "on_progress=1"),
    "cancel as bool": ({"cancel": True}, "cancel=True"),
    "output of pixels": ({"output": "large.png"}, "output='large.png'"),
    "overwrite of pixels": ({"overwrite": True}, "overwrite=True"),
    "video network": ({"model": "video-x4"}, "time"),
}
"""Options that do not fit an RGB array, by the fault, and a part of the message."""


@pytest.mark.parametrize("case", OPTIONS)
def test_an_option_that_does_not_fit_is_named(case: str) -> None:
    options, said = OPTIONS[case]
    if case == "absent device" and torch.cuda.device_count() > 99:
        pytest.skip("there are a hundred GPUs")
    with pytest.raises(errors.UpframeError) as caught:
        upframe.upscale(RGB, **options)
    assert said in str(caught.value)


CALLS: dict[str, tuple[Callable[[upframe.Model], object], str]] = {
    # load and list_models
    "load nothing": (lambda m: upframe.load(None), "name_or_path"),
    "load a number": (lambda m: upframe.load(4), "name_or_path"),
    "load with scale 0": (lambda m: upframe.load("photo", scale=0), "scale=0"),
    "load with a broken scale": (lambda m: upframe.load("photo", scale=2.5), "scale=2.5"),
    "list by number": (lambda m: upframe.list_models(4), "pattern=4"),
    # Model
    "call on an array": (lambda m: m(RGB), "x: is of type ndarray"),
    "call on one picture": (lambda m: m(UNIT[0]), "(N, C, H, W)"),
    "call on a clip": (lambda m: m(UNIT[None]), "(N, C, H, W)"),
    "call on gray": (lambda m: m(UNIT[:, :1]), "1 channels"),
    "call on integers": (lambda m: m(UNIT.byte()), "uint8"),
    "call on NaN": (lambda m: m(UNIT * float("nan")), "not finite"),
    "call on code values": (lambda m: m(UNIT + 255), "expected 0 to 1"),
    "call on nothing": (lambda m: m(UNIT[:0]), "x: is empty"),
    "call elsewhere": (lambda m: m(UNIT.to("meta")), "x: is on meta"),
    "call with noise": (lambda m: m(UNIT, sigma=10), "sigma=10"),
    "to a dtype": (lambda m: m.to(torch.float16), "device"),
    "to nowhere": (lambda m: m.to("tpu"), "device"),
    "to half": (lambda m: m.half(), "precision='fp16'"),
    "module of no module": (lambda m: upframe.Model.from_module(len), "network"),
    "module of another scale": (lambda m: upframe.Model.from_module(nn.Upsample(scale_factor=2), scale=3), "scale=3"),
    "module that shrinks": (lambda m: upframe.Model.from_module(nn.MaxPool2d(2)), "network"),
    "module that fails": (lambda m: upframe.Model.from_module(nn.Linear(3, 3)), "network"),
    "module of four channels": (lambda m: upframe.Model.from_module(nn.Identity(), channels=4), "channels"),
    "module with a bad name": (lambda m: upframe.Model.from_module(nn.Identity(), name="a/b"), "name='a/b'"),
    "module with a bad size": (lambda m: upframe.Model.from_module(nn.Identity(), size_multiple=0), "size_multiple=0"),
    "module with a bad halo": (lambda m: upframe.Model.from_module(nn.Identity(), halo_px=-1), "halo_px=-1"),
    # Upscaler
    "bands of a path": (lambda m: upframe.Upscaler(m).bands("photo.png"), "x: is of type str"),
    "bands of a batch": (lambda m: upframe.Upscaler(m).bands(RGB[None]), "expected an array"),
    "Upscaler of no model": (lambda m: upframe.Upscaler(5), "model=5"),
    "Upscaler with two sizes": (lambda m: upframe.Upscaler(m)(RGB, scale=2, width=9), "width=9"),
    # VideoUpscaler
    "video of a path": (lambda m: upframe.VideoUpscaler(m)("clip.mp4"), "frames: is a path"),
    "video of a number": (lambda m: upframe.VideoUpscaler(m)(7), "frames: is of type int"),
    "video of an image": (lambda m: upframe.VideoUpscaler(m)(Image.new("RGB", (9, 8))), "frames: is of type Image"),
    "frame of a path": (lambda m: list(upframe.VideoUpscaler(m)(["a.png"])), "frame 0: is a path"),
    "frames of two sizes": (lambda m: list(upframe.VideoUpscaler(m)([RGB, RGB[1:]])), "frame 1"),
    "frames of two dtypes": (lambda m: list(upframe.VideoUpscaler(m)([RGB, HALF])), "frame 1"),
    "frames of two kinds": (lambda m: list(upframe.VideoUpscaler(m)([RGB, UNIT[0]])), "frame 1"),
    "frame with NaN": (lambda m: list(upframe.VideoUpscaler(m)([HALF, with_value(np.nan)])), "frame 1: holds"),
    "frame of several pictures": (lambda m: list(upframe.VideoUpscaler(m)([np.stack([RGB, RGB])])), "frame 0"),
    "cuts as number": (lambda m: upframe.VideoUpscaler(m, find_cuts=3), "find_cuts=3"),
    "segments of 0": (lambda m: upframe.VideoUpscaler(m, segment_frames=0), "segment_frames=0"),
    "negative context": (lambda m: upframe.VideoUpscaler(m, context=-1), "context=-1"),
    "cleaning as number": (lambda m: upframe.VideoUpscaler(m, cleaning=2), "cleaning=2"),
    "cleaning by a photo model": (lambda m: upframe.VideoUpscaler(m, cleaning=upframe.Cleaning()), "cleaning="),
    "latency of a number": (lambda m: upframe.VideoUpscaler(m).latency(9), "size=9"),
    # Jobs
    "plan of nothing": (lambda m: upframe.plan([]), "inputs: is empty"),
    "plan of a number": (lambda m: upframe.plan(3), "inputs: is of type int"),
    "plan of numbers": (lambda m: upframe.plan([3]), "inputs: is 3"),
    "plan to a number": (lambda m: upframe.plan("a.png", 3), "output: is 3"),
    "plan with a dict": (lambda m: upframe.plan("a.png", None, {"scale": 2}), "options="),
    "run of a path": (lambda m: upframe.run("a.png"), "planned: is of type str"),
    "file job of a model without a file": (
        lambda m: upframe.upscale(__file__, model=upframe.Model.from_module(nn.Identity())),
        "model='custom'",
    ),
    # Measuring
    "metric of no name": (lambda m: upframe.metric(None), "name=None"),
    "unknown metric": (lambda m: upframe.metric("psnr-z"), "psnr-z"),
    "metric of a path": (lambda m: upframe.metric("psnr-y")("a.png", RGB), "a: is of type str"),
    "metric of two shapes": (lambda m: upframe.metric("psnr-y")(RGB, RGB[1:]), "a, b of psnr-y"),
    "metric of a wide border": (lambda m: upframe.metric("psnr-y")(RGB, RGB, crop_border=9), "border"),
    "metric of a negative border": (lambda m: upframe.metric("psnr-y")(RGB, RGB, crop_border=-1), "crop_border=-1"),
    "evaluate one model": (lambda m: upframe.evaluate(m, data="sets"), "models="),
    "evaluate no model": (lambda m: upframe.evaluate([], data="sets"), "models"),
    "evaluate a number": (lambda m: upframe.evaluate([3], data="sets"), "models"),
    "evaluate on no path": (lambda m: upframe.evaluate([m], data=3), "data: is 3"),
    "evaluate on nothing": (lambda m: upframe.evaluate([m], data="nowhere"), "nowhere"),
    "evaluate by no protocol": (lambda m: upframe.evaluate([m], data="sets", protocol="mine"), "mine"),
    "evaluate one set": (lambda m: upframe.evaluate([m], data="sets", datasets="Set5"), "datasets='Set5'"),
    "evaluate no image": (lambda m: upframe.evaluate([m], data="sets", limit=0), "limit=0"),
    # Training
    "train no recipe": (lambda m: upframe.train(3, data=".", out="run"), "recipe=3"),
    "train an unknown recipe": (lambda m: upframe.train("photo-x5", data=".", out="run"), "photo-x5"),
    "train with a list": (lambda m: upframe.train("toy-rlfn", data=".", out="run", changes=["steps=2"]), "changes="),
    "train an unknown field": (lambda m: upframe.train("toy-rlfn", data=".", out="run", changes={"stps": 2}), "stps"),
    "train until nothing": (lambda m: upframe.train("toy-rlfn", data=".", out="run", until="late"), "until='late'"),
    "train nowhere": (lambda m: upframe.train("toy-rlfn", data=".", out="run", device="tpu"), "device"),
    "train on no path": (lambda m: upframe.train("toy-rlfn", data=3, out="run"), "data: is 3"),
    "train with no workers": (lambda m: upframe.train("toy-rlfn", data=".", out="run", workers=-1), "workers=-1"),
}
"""Other calls with a wrong argument, and a part of the message."""


@pytest.mark.parametrize("case", CALLS)
def test_a_wrong_argument_is_named(case: str, model: upframe.Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    call, said = CALLS[case]
    with pytest.raises(errors.UpframeError) as caught:
        call(model)
    assert said in str(caught.value)
    assert not list(tmp_path.iterdir()), "a refused call leaves nothing"


def test_a_closed_session_says_so(model: upframe.Model) -> None:
    up, video = upframe.Upscaler(model), upframe.VideoUpscaler(model)
    for session in (up, video):
        session.close()
        session.close()
    for call in (lambda: up(RGB), lambda: up.bands(RGB), lambda: video([RGB]), lambda: video.latency((8, 9))):
        with pytest.raises(errors.UsageError, match="is closed"):
            call()


# Progress and cancel --------------------------------------------------------------------------------------------------
def test_progress_rises_to_one(model: upframe.Model) -> None:
    told: list[float] = []
    options = upframe.UpscaleOptions(tile=32, blend=4)
    upframe.upscale(make_photo(70, 40)[None].repeat(2, 0), model=model, options=options, on_progress=told.append)
    assert len(told) > 4 and told == sorted(told) and told[-1] == 1


def test_cancel_stops_before_the_next_tile(model: upframe.Model) -> None:
    cancel = threading.Event()
    told: list[float] = []

    def on_progress(share: float) -> None:
        told.append(share)
        cancel.set()

    options = upframe.UpscaleOptions(tile=32, blend=4)
    with pytest.raises(errors.Cancelled):
        upframe.upscale(make_photo(70, 40), model=model, options=options, on_progress=on_progress, cancel=cancel)
    assert len(told) == 1


def test_what_on_progress_raises_reaches_the_caller_of_a_file_job(weights: Path, tmp_path: Path) -> None:
    Image.fromarray(RGB).save(tmp_path / "photo.png")

    def on_progress(share: float) -> None:
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        upframe.upscale(tmp_path / "photo.png", output=tmp_path / "large.png", model=weights, on_progress=on_progress)
    assert [path.name for path in tmp_path.iterdir()] == ["photo.png"]


def test_a_cancelled_file_job_leaves_nothing(weights: Path, tmp_path: Path) -> None:
    Image.fromarray(RGB).save(tmp_path / "photo.png")
    cancel = threading.Event()
    cancel.set()
    with pytest.raises(errors.Cancelled):
        upframe.upscale(tmp_path / "photo.png", output=tmp_path / "large.png", model=weights, cancel=cancel)
    assert [path.name for path in tmp_path.iterdir()] == ["photo.png"]
