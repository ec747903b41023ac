"""Every option checks itself: a bad value names its field in Python, and its flag on the command line."""

from __future__ import annotations

import ast
import pickle
import re
from collections.abc import Callable
from dataclasses import dataclass, fields
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import upframe as package
from conftest import Upframe
from upframe.cli.flags import FLAGS, worded, worded_error
from upframe.engines import CompileOptions, OnnxOptions, OpenVinoOptions, TorchOptions, VulkanOptions, engine_options
from upframe.errors import OptionError, option_text
from upframe.jobs import Cleaning, JobOptions, Limits, Target, UpscaleOptions, VideoOptions


@dataclass(frozen=True)
class Bad:
    """A value that an option does not take, and the same on a command line."""

    make: Callable[..., Any]
    values: dict[str, Any]
    option: str
    flags: tuple[str, ...] = ()
    """Empty where the command line has no way to say it: its own parser takes no such text."""


BAD = [
    Bad(UpscaleOptions, {"tile": 4}, "tile", ("--tile", "4")),
    Bad(UpscaleOptions, {"tile": (64, 31)}, "tile", ("--tile", "31x64")),
    Bad(UpscaleOptions, {"tile": 32, "blend": 16}, "tile", ("--tile", "32", "--overlap", "16")),
    Bad(UpscaleOptions, {"tile": "big"}, "tile", ("--tile", "big")),
    Bad(UpscaleOptions, {"tile": True}, "tile"),
    Bad(UpscaleOptions, {"tile": (64, 64, 64)}, "tile"),
    Bad(UpscaleOptions, {"tile": 64.0}, "tile"),
    Bad(UpscaleOptions, {"halo": -5}, "halo", ("--halo", "-5")),
    Bad(UpscaleOptions, {"halo": "wide"}, "halo"),
    Bad(UpscaleOptions, {"blend": -3}, "blend", ("--overlap", "-3")),
    Bad(UpscaleOptions, {"window": 0}, "window", ("--window", "0")),
    Bad(UpscaleOptions, {"sigma": -1}, "sigma"),
    Bad(UpscaleOptions, {"sigma": 256}, "sigma"),
    Bad(UpscaleOptions, {"sigma": float("nan")}, "sigma"),
    Bad(UpscaleOptions, {"engine": "torch"}, "engine"),
    Bad(UpscaleOptions, {"as_published": "yes"}, "as_published"),
    Bad(TorchOptions, {"threads": -2}, "threads", ("--threads", "-2")),
    Bad(TorchOptions, {"threads": 0}, "threads", ("--threads", "0")),
    Bad(TorchOptions, {"device": "toaster"}, "device", ("--device", "toaster")),
    Bad(TorchOptions, {"device": "cuda:x"}, "device", ("--device", "cuda:x")),
    Bad(TorchOptions, {"precision": "fp12"}, "precision", ("--precision", "fp12")),
    Bad(TorchOptions, {"fused": "maybe"}, "fused"),
    *(Bad(kind, {"threads": 0}, "threads") for kind in (CompileOptions, OnnxOptions, OpenVinoOptions)),
    *(Bad(kind, {"precision": "half"}, "precision") for kind in (CompileOptions, OnnxOptions, OpenVinoOptions)),
    Bad(engine_options, {"engine": "steam"}, "engine", ("--engine", "steam")),
    Bad(engine_options, {"engine": "openvino", "device": "cuda"}, "engine", ("--engine", "openvino", "--device", "cuda")),
    Bad(OnnxOptions, {"device": "mps"}, "device", ("--engine", "onnx", "--device", "mps")),
    Bad(VulkanOptions, {"device": "cuda"}, "device", ("--engine", "vulkan", "--device", "cuda")),
    Bad(Target, {"scale": 0}, "scale", ("--scale", "0")),
    Bad(Target, {"scale": -2.0}, "scale", ("--scale", "-2")),
    Bad(Target, {"scale": float("nan")}, "scale", ("--scale", "nan")),
    Bad(Target, {"scale": float("inf")}, "scale", ("--scale", "inf")),
    Bad(Target, {"scale": "4"}, "scale"),
    Bad(Target, {"width": 0}, "width", ("--width", "0")),
    Bad(Target, {"height": -1}, "height", ("--height", "-1")),
    Bad(Target, {"width": 2.5}, "width"),
    Bad(Target, {"long_side": 0}, "long_side", ("--long-side", "0")),
    Bad(Target, {"short_side": 0}, "short_side", ("--short-side", "0")),
    Bad(Target, {"megapixels": 0}, "megapixels", ("--megapixels", "0")),
    Bad(Target, {"scale": 2, "width": 10}, "width", ("--scale", "2", "--width", "10")),
    Bad(Target, {"long_side": 10, "short_side": 5}, "short_side", ("--long-side", "10", "--short-side", "5")),
    Bad(Target, {"megapixels": 1, "height": 3}, "height", ("--megapixels", "1", "--height", "3")),
    Bad(JobOptions, {"quality": 0}, "quality", ("--quality", "0")),
    Bad(JobOptions, {"quality": 500}, "quality", ("--quality", "500")),
    Bad(JobOptions, {"quality": 9.5}, "quality"),
    Bad(JobOptions, {"name": "{foo}"}, "name", ("--name", "{foo}")),
    Bad(JobOptions, {"name": "{stem"}, "name", ("--name", "{stem")),
    Bad(JobOptions, {"name": "a/b"}, "name", ("--name", "a/b")),
    Bad(JobOptions, {"name": ""}, "name"),
    Bad(JobOptions, {"format": "docx"}, "format", ("--format", "docx")),
    Bad(JobOptions, {"format": "heic"}, "format", ("--format", "heic")),
    Bad(JobOptions, {"format": 7}, "format"),
    Bad(JobOptions, {"model": ""}, "model"),
    Bad(JobOptions, {"model": 4}, "model"),
    Bad(JobOptions, {"task": "shrink"}, "task"),
    Bad(JobOptions, {"include": "*.png"}, "include"),
    Bad(JobOptions, {"exclude": [".png"]}, "exclude"),
    Bad(JobOptions, {"overwrite": 1}, "overwrite"),
    Bad(JobOptions, {"target": 2}, "target"),
    Bad(JobOptions, {"upscale": None}, "upscale"),
    Bad(JobOptions, {"video": {}}, "video"),
    Bad(JobOptions, {"limits": 100}, "limits"),
    Bad(Limits, {"max_pixels": 0}, "limits.max_pixels", ("--max-pixels", "0")),
    Bad(VideoOptions, {"codec": "divx"}, "video.codec", ("--codec", "divx")),
    Bad(VideoOptions, {"crf": -1}, "video.crf", ("--crf", "-1")),
    Bad(VideoOptions, {"crf": 256}, "video.crf", ("--crf", "256")),
    Bad(VideoOptions, {"preset": ""}, "video.preset"),
    Bad(VideoOptions, {"pix_fmt": 3}, "video.pix_fmt"),
    Bad(VideoOptions, {"encoder": (("", "1"),)}, "video.encoder", ("-e", "=1")),
    Bad(VideoOptions, {"encoder": {"tune": "grain"}}, "video.encoder"),
    Bad(VideoOptions, {"odd": "bogus"}, "video.odd", ("--odd", "bogus")),
    Bad(VideoOptions, {"deinterlace": "magic"}, "video.deinterlace", ("--deinterlace", "magic")),
    Bad(VideoOptions, {"on_bad_frame": "cry"}, "video.on_bad_frame", ("--on-bad-frame", "cry")),
    Bad(VideoOptions, {"audio": "loud"}, "video.audio"),
    Bad(VideoOptions, {"start": Fraction(-1)}, "video.start", ("--start", "-1")),
    Bad(VideoOptions, {"start": Fraction(2), "end": Fraction(2)}, "video.end", ("--start", "2", "--end", "2")),
    Bad(VideoOptions, {"end": 0.5}, "video.end"),
    Bad(VideoOptions, {"rate": Fraction(0)}, "video.rate", ("--fps", "0")),
    Bad(VideoOptions, {"rate": Fraction(1001)}, "video.rate", ("--fps", "1001")),
    Bad(VideoOptions, {"rate": 29.97}, "video.rate"),
    Bad(VideoOptions, {"stream": -1}, "video.stream", ("--stream", "-1")),
    Bad(VideoOptions, {"segment_frames": 0}, "video.segment_frames", ("--window", "0")),
    Bad(VideoOptions, {"context": -1}, "video.context", ("--temporal-overlap", "-1")),
    Bad(VideoOptions, {"cleaning": 3}, "video.cleaning"),
    Bad(VideoOptions, {"restart": 1}, "video.restart"),
    Bad(Cleaning, {"threshold": -1}, "cleaning.threshold", ("--clean-threshold", "-1")),
    Bad(Cleaning, {"max_passes": -1}, "cleaning.max_passes", ("--clean-max", "-1")),
    Bad(Cleaning, {"strength": 1.5}, "cleaning.strength", ("--clean-strength", "1.5")),
    Bad(Cleaning, {"sequential": None}, "cleaning.sequential"),
]


class Unprintable:
    """Fails when a message shows it."""

    def __str__(self) -> str:
        raise RuntimeError

    __repr__ = __str__


BAD += [
    Bad(Target, {"scale": 10**400}, "scale"),
    Bad(Target, {"scale": 1e30}, "scale", ("--scale", "1e30")),
    Bad(Target, {"megapixels": 1e30}, "megapixels", ("--megapixels", "1e30")),
    Bad(Target, {"width": 10**400}, "width"),
    Bad(Target, {"long_side": 10**9}, "long_side", ("--long-side", "1000000000")),
    Bad(UpscaleOptions, {"sigma": 10**400}, "sigma"),
    Bad(Cleaning, {"threshold": 10**5000}, "cleaning.threshold"),
]


def _id(bad: Bad) -> str:
    return f"{bad.make.__name__}-{bad.option}-{option_text(next(iter(bad.values.values()), None))}"


@pytest.mark.parametrize("bad", BAD, ids=_id)
def test_bad_value_names_its_field(bad: Bad) -> None:
    with pytest.raises(OptionError) as caught:
        bad.make(**bad.values)
    assert (caught.value.option, caught.value.exit_code) == (bad.option, 2)
    assert str(caught.value).startswith(f"{bad.option}=")
    assert "--" not in str(caught.value)
    copy = pickle.loads(pickle.dumps(caught.value))
    assert (type(copy), copy.option, str(copy)) == (OptionError, bad.option, str(caught.value))


@pytest.mark.parametrize("bad", [bad for bad in BAD if bad.flags], ids=lambda bad: " ".join(bad.flags))
def test_the_same_as_a_flag_is_exit_2_and_names_the_flag(upframe: Upframe, tmp_path: Path, bad: Bad) -> None:
    """Before any input is looked at: there is none."""
    result = upframe("upscale", tmp_path / "none.png", *bad.flags)
    assert result.code == 2
    assert FLAGS[bad.option] in result.err
    assert bad.option not in FLAGS or f"{bad.option}=" not in result.err
    assert result.err.count("\n") == 1


def test_sigma_as_a_flag_is_checked_too(upframe: Upframe, tmp_path: Path) -> None:
    result = upframe("denoise", tmp_path / "none.mp4", "--sigma", "300")
    assert (result.code, result.err) == (2, "upframe: --sigma 300.0: must be 0 to 255.\n")


@pytest.mark.parametrize("value", [Unprintable(), "x" * 100_000, np.array("x"), np.array([1, 2])], ids=type)
def test_any_object_is_refused_in_a_short_line(value: object) -> None:
    for kind in (Target, UpscaleOptions, VideoOptions, Limits, Cleaning, JobOptions):
        for name in (field.name for field in fields(kind)):
            if isinstance(value, str) and name in ("model", "preset", "pix_fmt", "name"):
                continue
            with pytest.raises(OptionError) as caught:
                kind(**{name: value})
            assert len(str(caught.value)) < 600


def test_defaults_are_good() -> None:
    options = (TorchOptions, CompileOptions, OnnxOptions, OpenVinoOptions)
    kinds = (JobOptions, UpscaleOptions, VideoOptions, Target, Limits, Cleaning, *options)
    for kind in kinds:
        assert pickle.loads(pickle.dumps(kind())) == kind()


def test_message_says_what_works_in_the_words_of_each_door() -> None:
    with pytest.raises(OptionError) as caught:
        UpscaleOptions(tile=4)
    assert str(caught.value) == "tile=4: too small for a blend of 8 px. Use 32 or more."
    assert str(worded_error(caught.value)) == "--tile 4: too small for a blend of 8 px. Use 32 or more."


@pytest.mark.parametrize(
    ("library", "command_line"),
    [
        ("use `video.restart` to discard it", "use --restart to discard it"),
        ("leave it out with `video.audio=False`", "leave it out with --no-audio"),
        ("try `precision='fp32'`", "try --precision fp32"),
        ("use `task='deblur'`", "use upframe deblur"),
        ("`limits.max_pixels=100`", "--max-pixels 100"),
        ("`upframe models list` and `nonsense=1` stay", "`upframe models list` and `nonsense=1` stay"),
    ],
)
def test_options_in_messages_become_flags(library: str, command_line: str) -> None:
    assert worded(library) == command_line


@pytest.mark.parametrize(
    "room",
    [
        *("jobs", "upscaling", "engines", "media", "models", "errors.py", "machine.py"),
        *("datasets", "evaluation", "metrics", "benchmark", "drawing"),
        *("training/data", "training/degradations", "training/losses", "training/recipes"),
        *(f"training/loop/{name}.py" for name in ("distributed", "report", "stages", "train", "validation")),
    ],
)
def test_library_speaks_of_no_flags(room: str) -> None:
    """Text that may be shown: all of a module's but its docstrings and comments."""
    place = Path(package.__file__).parent / room
    for path in [place] if place.is_file() else sorted(place.rglob("*.py")):
        tree = ast.parse(path.read_text())
        statements = {node.value for node in ast.walk(tree) if isinstance(node, ast.Expr)}
        texts = [n.value for n in ast.walk(tree) if isinstance(n, ast.Constant) and n not in statements]
        flags = [text for text in texts if isinstance(text, str) and re.search(r"(^|[\s(`])--[a-z]|\s-[a-z](\s|$)", text)]
        assert flags == [], path


def test_every_option_of_a_video_has_a_flag() -> None:
    assert {f"video.{field.name}" for field in fields(VideoOptions)} <= FLAGS.keys()
    assert {field.name for field in fields(Target)} <= FLAGS.keys()
