"""The command line as a user meets it: exit codes, streams, names, signals."""

from __future__ import annotations

import contextlib
import gc
import io
import json
import os
import pty
import re
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from conftest import Upframe, make_photo
from nasty import png
from nearest import repeated
from upframe import cli, jobs
from upframe.cli import upscaling
from upframe.cli.stopping import stoppable
from upframe.engines import TorchEngine
from upframe.errors import NOTICES, OutOfMemoryError
from upframe.jobs import planning
from upframe.jobs.naming import Found
from upframe.media.image.files import ImageSink, write_pixels
from upframe.media.image.source import read_pixels

COMMAND = [sys.executable, "-m", "upframe"]


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "in" / "photo.png"
    path.parent.mkdir()
    write_pixels(path, make_photo(20, 30))
    return path


def everything(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*")}


def shell(*arguments: object, **options: Any) -> subprocess.CompletedProcess[bytes]:
    """Run a command line in a process of its own."""
    return subprocess.run([*COMMAND, *map(str, arguments)], capture_output=True, timeout=120, check=False, **options)


# F8: start-up ---------------------------------------------------------------------------------------------------------
@pytest.mark.slow
@pytest.mark.parametrize(
    "run",
    [
        "import upframe",
        "from upframe import cli; cli.main(['--help'])",
        "from upframe import cli; cli.main(['--version'])",
        "from upframe import cli; cli.main(['upscale', '--help'])",
        "from upframe import cli; cli.main(['upscale', '--bogus'])",
    ],
)
def test_help_version_and_flag_errors_need_neither_torch_nor_codecs(run: str) -> None:
    code = (
        f"import sys\ntry:\n    {run}\nexcept SystemExit: pass\n"
        "heavy = {'torch', 'numpy', 'PIL', 'av', 'tifffile'} & set(sys.modules)\nsys.exit(f'{heavy} imported' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr


def test_collections_wait_for_imports_and_come_back() -> None:
    """Also where an import fails: a job without them would keep every cycle that it makes."""
    assert callable(jobs.run)  # imported by now
    kept = sys.modules.pop("upframe.jobs.running")
    try:
        with contextlib.suppress(ImportError), upscaling._without_collections():
            assert not gc.isenabled()
            raise ImportError
        assert gc.isenabled()
        gc.disable()
        with upscaling._without_collections():
            assert not gc.isenabled()
        assert not gc.isenabled()  # who had none wants none
    finally:
        gc.enable()
        sys.modules["upframe.jobs.running"] = kept
    frozen = gc.get_freeze_count()
    with upscaling._without_collections():
        assert gc.isenabled()
    assert gc.get_freeze_count() == frozen  # nothing was imported, so nothing is exempt for ever


@pytest.mark.slow
def test_help_says_the_exit_codes_once_and_the_defaults(upframe: Upframe) -> None:
    first, short, whole = (upframe(*command) for command in (["--help"], ["upscale", "--help"], ["upscale", "--help-all"]))
    assert (first.code, short.code, whole.code) == (0, 0, 0)
    for code in ("0", "1", "2", "3", "4", "5", "6", "7", "8", "130", "143"):
        assert re.search(rf"^ +{code}  ", first.out, re.MULTILINE)
    assert "Exit codes" not in short.out + whole.out
    assert "[default: auto]" in short.out
    assert upframe("--version").out.strip() == upframe("-V").out.strip() == __import__("upframe").__version__


@pytest.mark.slow
def test_help_is_short_and_has_more_pages(upframe: Upframe) -> None:
    first, short, video, whole = (
        upframe(*command).out for command in (["--help"], ["upscale", "--help"], ["--help-video"], ["--help-all"])
    )
    assert "Usage: upframe [INPUT]… [OPTIONS]" in first
    assert first.count("\n  upframe ") == short.count("\n  upframe ") == 3  # examples
    assert len(short.splitlines()) < 50
    assert "--crf" in video and "--crf" in whole and "--crf" not in short
    assert "--halo" in whole and "--halo" not in video + short
    assert "--help-video" in short
    for text in (first, short, video, whole):
        assert not re.search(r"--empty-|False|\bSTR\b|\bINT\b", text)
    # What is brief on the first page stands in full on that of the command.
    brief = section_of(first, "Common options")
    assert brief and all(re.search(rf"^  {re.escape(name)}\b", short, re.MULTILINE) for name in brief)


@pytest.mark.parametrize(
    ("command", "usage"),
    [
        ("bench", ["upframe bench [OPTIONS] MODEL…"]),
        ("models verify", ["upframe models verify --data PATH [OPTIONS] [MODEL]…"]),
        ("train", ["upframe train --data PATH --out PATH [OPTIONS] RECIPE", "upframe train COMMAND …"]),
        ("models", ["upframe models COMMAND"]),
    ],
)
def test_usage_has_the_words_of_the_parameters(upframe: Upframe, command: str, usage: list[str]) -> None:
    text = upframe(*command.split(), "--help").out
    assert [line.strip() for line in text.partition("Usage: ")[2].partition("\n\n")[0].splitlines()] == usage


def test_short_help_of_denoising_has_the_noise(upframe: Upframe) -> None:
    assert "--sigma" in upframe("denoise", "--help").out


def section_of(text: str, heading: str) -> list[str]:
    """Names of the options below a heading of help, without their values."""
    body = text.split(f"{heading}:\n", 1)[1].split("\n\n", 1)[0]
    return re.findall(r"^  (-[-a-z, ]*[a-z])", body, re.MULTILINE)


@pytest.mark.slow
def test_module_and_console_command_are_the_same(photo: Path, weights: Path) -> None:
    """One real process from end to end: a photo and nothing but the default place."""
    done = shell(photo, "-m", weights)
    assert (done.returncode, done.stderr) == (0, b"")
    output = photo.with_name("photo_nearest_x2.png")
    assert done.stdout.decode().startswith(f"{photo} -> {output} (60x40, ")
    np.testing.assert_array_equal(read_pixels(output), repeated(make_photo(20, 30), 2))


# F1: wrong usage ------------------------------------------------------------------------------------------------------
WRONG: list[list[str]] = [
    ["--bogus"],
    ["-s", "banana"],
    ["-s"],
    ["-s", "0"],
    ["-s", "-2"],
    ["-s", "nan"],
    ["-s", "2", "--width", "100"],
    ["--long-side", "100", "--megapixels", "1"],
    ["--size", "100"],
    ["--size", "0x100"],
    ["--size", "10x10", "--width", "10"],
    ["--fp32", "--precision", "bf16"],
    ["--precision", "fp12"],
    ["--precision", "fp16"],
    ["--suffix", "a", "--name", "b"],
    ["--name", "{foo}"],
    ["--name", "{stem"],
    ["--name", "a/b"],
    ["--format", "heic"],
    ["--format", "docx"],
    ["-o", "x.jp2"],
    ["-o", "x.png", "--format", "jpg"],
    ["-o", "x.png", "--suffix", "big"],
    ["--quality", "0"],
    ["--quality", "101"],
    ["--tile", "3"],
    ["--tile", "big"],
    ["--overlap", "-1"],
    ["--halo", "-1"],
    ["--threads", "0"],
    ["--max-pixels", "0"],
    ["--device", "toaster"],
    ["-m", "potho"],
    ["-f", "webp", "--width", "20000"],
    ["-f", "jpg", "-s", "4000"],
    ["-o", "/dev/null"],
    ["-o", "-", "--json"],
    ["second.png", "-o", "x.png"],
    ["second.png", "-o", "-"],
]


@pytest.mark.parametrize("flags", WRONG, ids=" ".join)
def test_wrong_usage_is_2_before_any_work(
    upframe: Upframe, photo: Path, weights: Path, flags: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(photo.parent)
    model = [] if "-m" in flags else ["-m", weights]
    result = upframe("upscale", photo, *model, *flags)
    assert result.code == 2
    assert result.err.startswith("upframe: ")
    assert result.err.count("\n") == 1
    assert [line["exit_code"] for line in result.lines] == ([2] if "--json" in flags else [])
    assert everything(photo.parent) == {"photo.png"}


def test_no_input_is_2(upframe: Upframe) -> None:
    assert upframe("upscale").code == 2
    assert upframe("--json").code == 2  # a flag first: still `upframe upscale`


def test_empty_name_is_2_and_not_the_current_folder(
    upframe: Upframe, photo: Path, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(photo.parent)  # an unset variable in a script: upframe "$FILE"
    for inputs in ([""], ["photo.png", ""]):
        assert upframe("upscale", *inputs, "-m", weights, "-o", "out").code == 2
    assert everything(photo.parent) == {"photo.png"}


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["photo.png", "-m", "video-x4"], "video-x4: a video network, not one for single pictures"),
        (["photo.png", "-f", "mp4"], "mp4: is not a picture format that can be written"),
        (["photo.png", "--start=-1"], "--start -1: must be 0 seconds or more"),
        (["photo.png", "--start", "1.5", "--end", "1.2"], "--end 1.2: is not after --start 1.5"),
        (["photo.png", "--start", "1.5", "--fps=-30000/1001"], "--fps -30000/1001: must be above 0"),
        (["photo.png", "--fps", "0"], "--fps 0: must be above 0"),
        (["--dry-run"], "upframe: upscale: no input is given"),
        (["compare", "absent.json", "photo.png"], "absent.json: no such file"),
    ],
    ids=lambda x: x if isinstance(x, str) else "",
)
def test_errors_name_what_was_given(
    upframe: Upframe, photo: Path, arguments: list[str], says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(photo.parent)
    assert says in upframe(*arguments).err


def test_both_spellings_and_all_aliases_of_flags_are_taken(upframe: Upframe, photo: Path, weights: Path) -> None:
    """The names other tools have taught people: each line is a complete, valid command."""
    for i, flags in enumerate(
        (
            ["-i", photo, "-o", "{}", "-n", weights, "-s", "2", "-t", "64", "-g", "-1"],
            ["--input", photo, "--output", "{}", "--model_name", weights, "--scale=2", "--tile_size=64", "--tile_pad", "8"],
            [photo, "-o", "{}", "--model-name", weights, "--tile", "0", "--gpu_id=-1", "--fp32", "--no_progress"],
            ["upscale", photo, "-o", "{}", "-m", weights, "--tile-size", "off", "-d", "cpu", "-f", "png", "-q"],
        )
    ):
        output = photo.parent / f"{i}.png"
        result = upframe(*(output if flag == "{}" else flag for flag in flags))
        assert result.code == 0, result.err
        np.testing.assert_array_equal(read_pixels(output), repeated(make_photo(20, 30), 2))


# Exit codes and F6 ----------------------------------------------------------------------------------------------------
def _broken_network(monkeypatch: pytest.MonkeyPatch) -> None:
    real = TorchEngine.__call__
    monkeypatch.setattr(TorchEngine, "__call__", lambda *args, **rest: real(*args, **rest) * float("nan"))


def _no_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> torch.Tensor:
        raise OutOfMemoryError("network", "a tile did not fit")

    monkeypatch.setattr(TorchEngine, "__call__", full)


def _bug(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("a\nbug")

    monkeypatch.setattr(jobs, "plan", broken)


def _bug_in_item(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("a\nbug")

    monkeypatch.setattr(ImageSink, "write", broken)


@pytest.mark.parametrize("error", [ZeroDivisionError("a bug"), UnicodeDecodeError("ascii", b"\xff", 0, 1, "no ASCII")])
def test_any_exception_while_an_item_is_planned_is_that_items_failure(
    upframe: Upframe, photo: Path, weights: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """Also of a library that reads headers."""
    write_pixels(photo.with_name("other.png"), make_photo(8, 9))
    real = planning.plan_image

    def broken(found: Found, *rest: Any) -> Any:
        if found.path == photo:
            raise error
        return real(found, *rest)

    monkeypatch.setattr(planning, "plan_image", broken)
    result = upframe(photo, photo.with_name("other.png"), "-m", weights, "-o", photo.parent / "out")
    assert result.code == 8
    assert f"photo.png: internal error ({type(error).__name__}" in result.err
    assert everything(photo.parent / "out") == {"other.png"}


@pytest.mark.parametrize(
    ("arguments", "code", "says", "fault"),
    [
        (["photo.png"], 0, None, None),
        (["photo.png"], 1, "internal error", _bug),
        (["photo.png"], 1, "internal error", _bug_in_item),
        (["photo.png", "--bogus"], 2, "no such option", None),
        (["missing.png"], 3, "no such file", None),
        (["*.gif"], 3, "no file matches", None),
        (["empty"], 3, "no images in it", None),
        (["text.png"], 3, "it holds text", None),
        (["photo.png", "-m", "text.png"], 4, "neither a safetensors nor a PyTorch file", None),
        (["photo.png", "-m", "missing.safetensors"], 4, "no such file", None),
        (["photo.png", "-m", "rlfn-x4"], 4, "upframe ships no weights for rlfn-x4", None),
        (["photo.png", "--device", "cuda:99"], 5, "CUDA devices are usable", None),
        (["photo.png"], 5, "does not fit into memory", _no_memory),
        (["photo.png", "-o", "text.png/x.png"], 6, "cannot be made", None),
        (["photo.png"], 7, "not finite", _broken_network),
        (["photo.png", "text.png", "missing.png"], 8, "it holds text", None),
        (["photo.png", "*.gif", "empty"], 8, "no file matches", None),
    ],
)
def test_exit_codes_messages_and_json(
    upframe: Upframe,
    photo: Path,
    weights: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    code: int,
    says: str | None,
    fault: Callable[[pytest.MonkeyPatch], None] | None,
) -> None:
    monkeypatch.chdir(photo.parent)
    Path("text.png").write_text("no picture")
    Path("empty").mkdir()
    if fault is not None:
        fault(monkeypatch)
    model = [] if "-m" in arguments else ["-m", weights]
    result = (
        upframe(*arguments, *model, "--json", "-o", "out") if "-o" not in arguments else upframe(*arguments, *model, "--json")
    )
    assert result.code == code
    last = result.lines[-1]
    assert last["exit_code"] == code
    if says is None:
        assert everything(photo.parent) == {"photo.png", "text.png", "empty", "out", "out/photo.png"}
        return
    assert any(says in line.get("error", "") for line in result.lines)
    assert all(line["exit_code"] for line in result.lines if "error" in line)
    if code != 8:
        assert everything(photo.parent) == {"photo.png", "text.png", "empty"}
    else:
        assert everything(Path("out")) == {"photo.png"}
        assert [item["status"] for item in last["items"]].count("failed") == len(arguments) - 1


def test_debug_shows_the_traceback_of_a_bug_and_nothing_else_does(
    upframe: Upframe, photo: Path, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _bug(monkeypatch)
    assert "Traceback" not in upframe(photo, "-m", weights).err
    assert "ZeroDivisionError: a\nbug" in upframe(photo, "-m", weights, "--debug").err


@pytest.mark.slow
def test_debug_shows_the_traceback_of_a_failed_item(photo: Path, weights: Path) -> None:
    photo.write_bytes(photo.read_bytes()[:-30])
    plain, debug = (shell(photo, "-m", weights, *flags).stderr for flags in ([], ["--debug"]))
    assert plain.count(b"\n") == 1
    assert b"Traceback" in debug
    assert b"png.py" in debug


def test_batch_summary_lists_what_failed_and_rerun_does_only_that(upframe: Upframe, tmp_path: Path, weights: Path) -> None:
    for i in range(20):
        (tmp_path / "in").mkdir(exist_ok=True)
        (tmp_path / "in" / f"{i}.png").write_bytes(b"broken" if i in (2, 5, 11, 17) else png(make_photo(4, 5, seed=i)))
    command = [tmp_path / "in", "-o", tmp_path / "out", "-m", weights]
    first = upframe(*command)
    assert first.code == 8
    assert "16 written, 4 failed in " in first.err
    assert [first.err.count(f"/{i}.png: is not an image") for i in (2, 5, 11, 17)] == [1] * 4  # and each once
    assert len(first.out.splitlines()) == 16
    assert len(everything(tmp_path / "out")) == 16
    second = upframe(*command, "--json")
    assert second.code == 8
    assert {key: second.lines[-1][key] for key in ("written", "skipped", "failed")} == {
        "written": 0,
        "skipped": 16,
        "failed": 4,
    }
    failed = [Path(item["input"]).name for item in second.lines[-1]["items"] if item["status"] == "failed"]
    assert failed == ["2.png", "5.png", "11.png", "17.png"]


# Notices: F7 ----------------------------------------------------------------------------------------------------------
def _rgba(folder: Path) -> list[str]:
    write_pixels(folder / "a.png", np.full((4, 5, 4), 200, np.uint8))
    return ["a.png", "-f", "jpg"]


def _animation(folder: Path) -> list[str]:
    frames = [Image.fromarray(make_photo(8, 9, seed=i)) for i in range(3)]
    frames[0].save(folder / "a.png", save_all=True, append_images=frames[1:])
    return ["a.png", "-f", "jpg"]


def _pages(folder: Path) -> list[str]:
    frames = [Image.fromarray(make_photo(8, 9, seed=i)) for i in range(2)]
    frames[0].save(folder / "a.tif", save_all=True, append_images=frames[1:])
    return ["a.tif", "-f", "png"]


def _saved(folder: Path, image: Image.Image, name: str, **options: Any) -> list[str]:
    image.save(folder / name, **options)
    return [name]


def _orientation(folder: Path) -> list[str]:
    exif = Image.Exif()
    exif[0x0112] = 9
    return _saved(folder, Image.new("RGB", (5, 4)), "a.jpg", exif=exif)


def _deep(folder: Path) -> list[str]:
    write_pixels(folder / "a.png", make_photo(4, 5, dtype="uint16"))
    return ["a.png", "-f", "jpg"]


def _misnamed(folder: Path) -> list[str]:
    (folder / "a.png").write_bytes(_bytes(Image.new("RGB", (5, 4)), "JPEG"))
    return ["a.png"]


def _bytes(image: Image.Image, format: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def _collision(folder: Path) -> list[str]:
    for name in ("a.png", "a.bmp"):
        write_pixels(folder / name, make_photo(4, 5))
    return ["a.png", "a.bmp", "-f", "png", "-o", "out"]


def _long(folder: Path) -> list[str]:
    name = "n" * 250 + ".png"
    write_pixels(folder / name, make_photo(4, 5))
    return [name]


def _truncated(folder: Path) -> list[str]:
    data = _bytes(Image.fromarray(make_photo(40, 50)), "JPEG")
    (folder / "a.jpg").write_bytes(data[: len(data) // 2])
    return ["a.jpg", "--allow-truncated"]


def _plain(folder: Path) -> list[str]:
    write_pixels(folder / "a.png", make_photo(64, 64))
    return ["a.png"]


def _beyond_one(folder: Path) -> list[str]:
    write_pixels(folder / "a.tif", np.full((4, 5, 3), -0.5, np.float32))
    return ["a.tif"]


def _beyond_scale(folder: Path) -> list[str]:
    return [*_plain(folder), "-s", "5"]


def _reduced_precision(folder: Path) -> list[str]:
    return [*_plain(folder), "--precision", "bf16"]


def _bad_icc(folder: Path) -> list[str]:
    return _saved(folder, Image.new("RGB", (5, 4)), "a.jpg", icc_profile=b"no profile" * 30)


def _with_text(folder: Path) -> list[str]:
    from PIL.PngImagePlugin import PngInfo

    info = PngInfo()
    info.add_text("Author", "somebody")
    return _saved(folder, Image.new("RGB", (5, 4)), "a.png", pnginfo=info)


def _text_to_jpeg(folder: Path) -> list[str]:
    return [*_with_text(folder), "-f", "jpg"]


def _plain_jpeg(folder: Path) -> list[str]:
    return _saved(folder, Image.new("RGB", (5, 4)), "a.jpg")


def _changed(cause: Callable[[Path], list[str]], change: Callable[[bytes], bytes]) -> Callable[[Path], list[str]]:
    def make(folder: Path) -> list[str]:
        arguments = cause(folder)
        file = folder / arguments[0]
        file.write_bytes(change(file.read_bytes()))
        return arguments

    return make


CAUSES: dict[str, Callable[[Path], list[str]]] = {
    "alpha-needs-png": _rgba,
    "animation-needs-webp": _animation,
    "bad-icc": _bad_icc,
    "bad-orientation": _orientation,
    "beyond-model-scale": _beyond_scale,
    "converted-from-cmyk": lambda folder: _saved(folder, Image.new("CMYK", (5, 4)), "a.jpg"),
    "depth-reduced": _deep,
    "embedded-dropped": _changed(_plain_jpeg, lambda data: data + b"a video behind the end"),
    "end-damaged": _changed(_plain, lambda data: data[:-4]),
    "ext-mismatch": _misnamed,
    "fp32-fallback": _reduced_precision,
    "metadata-damaged": _changed(_with_text, lambda data: data.replace(b"Author\0", b"author\0")),
    "metadata-dropped": _text_to_jpeg,
    "name-collision": _collision,
    "name-shortened": _long,
    "one-bit-to-gray": lambda folder: _saved(folder, Image.new("1", (5, 4)), "a.png"),
    "pages-need-tiff": _pages,
    "tile-halved": _plain,
    "truncated": _truncated,
    "values-clipped": _beyond_one,
}


@pytest.mark.parametrize("id", sorted(CAUSES))
def test_notice_is_told_and_strict_makes_it_an_error(
    upframe: Upframe, tmp_path: Path, weights: Path, id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    command = [*CAUSES[id](tmp_path), "-m", weights, "-q"]
    inputs = everything(tmp_path)
    real = TorchEngine.__call__

    def faulty(self: TorchEngine, clip: torch.Tensor, *args: Any, **rest: Any) -> torch.Tensor:
        if id == "tile-halved" and clip.shape[-1] > 60:
            raise OutOfMemoryError("network", "a tile did not fit")
        out = real(self, clip, *args, **rest)
        return out * float("nan") if id == "fp32-fallback" and self.precision != "fp32" else out

    monkeypatch.setattr(TorchEngine, "__call__", faulty)
    strict = upframe(*command, "--strict")
    assert strict.code == (2 if NOTICES[id].at_planning else 7)
    assert f"[{id}]" in strict.err
    assert everything(tmp_path) == inputs
    lenient = upframe(*command, "--json")
    assert lenient.code == 0, lenient.out
    assert id in [line["id"] for line in lenient.lines if line["event"] == "notice"]
    assert id in [notice for item in lenient.lines[-1]["items"] for notice in item["notices"]]
    assert len(everything(tmp_path)) > len(inputs)


# Dry run --------------------------------------------------------------------------------------------------------------
def test_dry_run_says_everything_and_writes_nothing(upframe: Upframe, photo: Path, weights: Path) -> None:
    (photo.parent / "bad.png").write_bytes(b"text")
    before = everything(photo.parent)
    result = upframe(photo, "-m", weights, "-s", "3", "-o", photo.parent / "new" / "x.jpg", "--dry-run")
    assert result.code == 0
    assert "30x20 -> 90x60" in result.out
    sizes = r"[\d.]+ MiB on disk, [\d.]+ MiB of memory at most, about [\d.:]+ s for the network here"
    assert re.search(rf"Total: 1 picture of 5,400 pixels, {sizes}\.", result.out)
    assert "[beyond-model-scale]" in result.out
    as_json = upframe(photo.parent, "-m", weights, "--dry-run", "--json")
    assert as_json.code == 8
    row, failed = as_json.lines
    assert (row["event"], row["size"], row["format"], row["skip"]) == ("plan", [40, 60], "png", False)
    assert row["memory_bytes"] > 0 < row["file_bytes"]
    assert (failed["event"], failed["kind"], failed["exit_code"]) == ("failed", "InputError", 3)
    assert everything(photo.parent) == before
    assert not (photo.parent.parent / "in_upscaled").exists()


# Inputs and outputs ---------------------------------------------------------------------------------------------------
HOSTILE_NAMES = [
    "été 東京 🌅.png",
    "e\u0301.png",
    " a b .png",
    "#%&'\"$(touch x)`;|.png",
    "two\nlines.png",
    "-rf.png",
    "--overwrite.png",
    "50%_off.png",
    "{stem}.png",
    "[1]*?.png",
    "trailing..png",
    ".PNG",
    "x.PNG",
    "b\udcff.png",  # a byte that is no UTF-8
]


@pytest.mark.parametrize("name", HOSTILE_NAMES, ids=ascii)
def test_any_name_works(upframe: Upframe, tmp_path: Path, weights: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path(name).write_bytes(png(make_photo(3, 4)))
    result = upframe("-m", weights, "--", name)
    assert result.code == 0, result.err
    assert result.out.count("\n") == 1
    stem, extension = (name[:-4], name[-4:]) if name != ".PNG" else (".PNG", ".png")
    assert everything(tmp_path) == {name, f"{stem}_nearest_x2{extension}"}


def test_folders_keep_names_and_tree_and_get_a_neighbour(upframe: Upframe, tmp_path: Path, weights: Path) -> None:
    for name in ("a.png", "sub/b.png", "sub/deep/c.png", "skip/d.png", "Thumbs.db"):
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "in" / name).write_bytes(png(make_photo(3, 4)))
    assert upframe(tmp_path / "in", "-m", weights).code == 0
    assert everything(tmp_path / "in_upscaled") == {"a.png"}
    assert upframe("-r", tmp_path / "in", "-o", tmp_path / "out", "-m", weights, "--exclude", "skip").code == 0
    assert everything(tmp_path / "out") == {"a.png", "sub", "sub/b.png", "sub/deep", "sub/deep/c.png"}
    assert upframe("-r", tmp_path / "in", "-o", tmp_path / "few", "-m", weights, "--include", "[bc].png").code == 0
    assert everything(tmp_path / "few") == {"sub", "sub/b.png", "sub/deep", "sub/deep/c.png"}


def test_output_folder_inside_the_input_is_not_upscaled_again(upframe: Upframe, photo: Path, weights: Path) -> None:
    command = ["-r", photo.parent, "-o", photo.parent / "big", "-m", weights, "--json"]
    assert upframe(*command).code == 0
    again = upframe(*command)
    assert (again.code, again.lines[-1]["written"], again.lines[-1]["skipped"]) == (0, 0, 1)
    assert everything(photo.parent) == {"photo.png", "big", "big/photo.png"}


def test_pattern_and_many_inputs(upframe: Upframe, tmp_path: Path, weights: Path) -> None:
    for name in ("a1.png", "a2.png", "b.jpg", "c.webp"):
        write_pixels(tmp_path / name, make_photo(3, 4))
    result = upframe(f"{tmp_path}/a*.png", tmp_path / "b.jpg", "-i", tmp_path / "c.webp", "-o", tmp_path / "out", "-m", weights)
    assert result.code == 0, result.err
    assert everything(tmp_path / "out") == {"a1.png", "a2.png", "b.jpg", "c.webp"}


def test_output_that_is_the_input_is_refused_by_any_name(upframe: Upframe, photo: Path, weights: Path) -> None:
    data = photo.read_bytes()
    (photo.parent / "soft.png").symlink_to(photo)
    (photo.parent / "hard.png").hardlink_to(photo)
    for output in (photo, photo.parent / "soft.png", photo.parent / "hard.png", photo.parent):
        result = upframe(photo, "-o", output, "-m", weights, "-y")
        assert result.code == 2
        assert "is the input itself" in result.err
    result = upframe(photo.parent, "-o", photo.parent, "-m", weights, "-y")
    assert result.code == 2
    assert photo.read_bytes() == data


def test_existing_output_is_skipped_refused_or_overwritten(upframe: Upframe, photo: Path, weights: Path) -> None:
    output = photo.with_name("big.png")
    command = [photo, "-o", output, "-m", weights]
    assert upframe(*command).code == 0
    assert "skipped" in upframe(*command).out
    output.write_text("my notes")
    refused = upframe(*command)
    assert refused.code == 2
    assert "-y" in refused.err
    assert output.read_text() == "my notes"
    assert upframe(*command, "-y").code == 0
    assert read_pixels(output).shape == (40, 60, 3)


def test_names_and_suffixes_of_the_users_own(upframe: Upframe, photo: Path, weights: Path) -> None:
    assert upframe(photo, "-m", weights, "--suffix", "big{1}").code == 0
    assert upframe(photo, "-m", weights, "--name", "{scale}x {stem}", "-f", "jpg").code == 0
    assert everything(photo.parent) == {"photo.png", "photo_big{1}.png", "2x photo.jpg"}


# Standard input and output --------------------------------------------------------------------------------------------
@pytest.mark.slow
def test_pipe_through(photo: Path, weights: Path) -> None:
    done = shell("-", "-o", "-", "-m", weights, input=photo.read_bytes())
    assert done.returncode == 0, done.stderr
    with Image.open(io.BytesIO(done.stdout)) as image:
        assert image.format == "PNG"
        np.testing.assert_array_equal(np.asarray(image), repeated(make_photo(20, 30), 2))
    assert b"standard input -> standard output (" in done.stderr
    assert b".upframe-tmp" not in done.stderr


def test_standard_input_and_output_work_by_themselves(
    photo: Path, weights: Path, monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    def fed(data: bytes, *arguments: object) -> tuple[int, bytes]:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))
        with pytest.raises(SystemExit) as exit:
            cli.main([str(argument) for argument in arguments])
        return int(exit.value.code or 0), capfdbinary.readouterr().out

    output = photo.with_name("out.jpg")
    assert fed(photo.read_bytes(), "-", "-o", output, "-m", weights)[0] == 0
    assert read_pixels(output).shape == (40, 60, 3)
    code, data = fed(b"", photo, "-o", "-", "-f", "bmp", "-m", weights)
    assert code == 0
    assert data.startswith(b"BM")
    assert fed(b"", "-", "-o", "-", "-m", weights) == (3, b"")
    assert fed(photo.read_bytes(), "-", "-m", weights) == (2, b"")
    assert fed(b"", photo.parent, "-o", "-", "-m", weights) == (2, b"")


@pytest.mark.slow
def test_reader_that_went_away_is_6_and_quiet(photo: Path, weights: Path) -> None:
    for flags in (["--json"], ["-o", "-"]):
        process = subprocess.Popen([*COMMAND, photo, "-m", weights, *flags], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        errors = process.stderr.read()
        assert process.wait(60) == 6
        assert b"Traceback" not in errors
        assert b"Exception ignored" not in errors
        assert everything(photo.parent) == {"photo.png"}


@pytest.mark.slow
@pytest.mark.parametrize("flags", [[], ["--json"]])
def test_standard_output_on_a_full_disk_is_6_and_said_once(photo: Path, weights: Path, flags: list[str]) -> None:
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run([*COMMAND, photo, "-m", weights, *flags], stdout=full, stderr=subprocess.PIPE, check=False)
    assert done.returncode == 6
    assert done.stderr == b"upframe: standard output: cannot be written (no space left on device). Check where it leads.\n"


@pytest.mark.slow
def test_standard_output_closed_from_the_start_is_no_obstacle(photo: Path, weights: Path) -> None:
    done = subprocess.run([*COMMAND, photo, "-m", weights], stderr=subprocess.PIPE, preexec_fn=lambda: os.close(1), check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    assert everything(photo.parent) == {"photo.png", "photo_nearest_x2.png"}


# C9: terminals and languages ------------------------------------------------------------------------------------------
@pytest.mark.slow
@pytest.mark.parametrize(
    "environment",
    [{"LANG": "C", "LC_ALL": "C", "TERM": "dumb"}, {"PYTHONIOENCODING": "ascii", "NO_COLOR": "1"}, {"LC_ALL": "de_DE.UTF-8"}],
    ids=["C", "ascii", "de"],
)
def test_plain_lines_in_any_environment(tmp_path: Path, weights: Path, environment: dict[str, str]) -> None:
    name = "été 🌅.png"
    (tmp_path / name).write_bytes(png(make_photo(3, 4)))
    done = shell(tmp_path / name, "-m", weights, "-s", "3", env={**os.environ, **environment})
    assert done.returncode == 0, done.stderr
    assert not {b"\x1b", b"\r"} & {bytes([byte]) for byte in done.stdout + done.stderr}
    assert b"enlarged 2x by the network and 1.50x by resampling" in done.stderr
    assert everything(tmp_path) == {name, "été 🌅_nearest_x3.png"}


@pytest.mark.slow
def test_live_display_on_a_terminal(photo: Path, weights: Path) -> None:
    (photo.parent / "bad [red].png").write_text("text")
    ours, theirs = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "200"}
    process = subprocess.Popen(
        [*COMMAND, photo.parent, "-m", str(weights)], stdout=subprocess.PIPE, stderr=theirs, env=environment
    )
    os.close(theirs)
    shown = b""
    while True:
        try:
            piece = os.read(ours, 65536)
        except OSError:  # how Linux says that the other end is closed
            break
        if not piece:
            break
        shown += piece
    os.close(ours)
    assert process.wait(60) == 8
    assert b"1 written, 1 failed in " in shown
    assert b"bad [red].png: is not an image" in shown  # brackets are no markup
    assert process.stdout is not None
    with process.stdout:
        assert b"photo.png -> " in process.stdout.read()


# C3, C7: faults from outside ------------------------------------------------------------------------------------------
@pytest.mark.slow
def test_full_disk_is_6_with_nothing_left(tmp_path: Path, weights: Path) -> None:
    """A file size limit stands in for a full disk: the write itself fails."""
    (tmp_path / "a.png").write_bytes(png(np.random.default_rng(0).integers(0, 256, (150, 150, 3), np.uint8)))

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))

    done = shell(tmp_path / "a.png", "-m", weights, preexec_fn=limit)
    assert done.returncode == 6, done.stderr
    assert b"cannot be written" in done.stderr
    assert everything(tmp_path) == {"a.png"}


def test_weights_that_would_run_code_are_refused_unrun(upframe: Upframe, photo: Path) -> None:
    class Malicious:
        def __reduce__(self) -> tuple[Any, ...]:
            return os.mkdir, (str(photo.parent / "was_run"),)

    torch.save({"params": Malicious()}, photo.parent / "w.pth")
    result = upframe(photo, "-m", photo.parent / "w.pth")
    assert result.code == 4
    assert "unsafe" in result.err
    assert everything(photo.parent) == {"photo.png", "w.pth"}


@pytest.mark.slow
def test_weights_of_another_network_are_named(upframe: Upframe, photo: Path) -> None:
    torch.save({f"body.{i}.foo": torch.zeros(3) for i in range(9)}, photo.parent / "w.pth")
    result = upframe(photo, "-m", photo.parent / "w.pth")
    assert result.code == 4
    assert "body.0.foo, body.1.foo, body.2.foo, body.3.foo, body.4.foo" in result.err


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is read-only to the superuser")
def test_read_only_folder_is_6(upframe: Upframe, photo: Path, weights: Path) -> None:
    photo.parent.chmod(0o555)
    try:
        result = upframe(photo, "-m", weights)
    finally:
        photo.parent.chmod(0o755)
    assert result.code == 6
    assert everything(photo.parent) == {"photo.png"}


def _started(photo: Path, weights: Path) -> subprocess.Popen[bytes]:
    """A run that is in the middle of its tiles."""
    write_pixels(photo, make_photo(600, 800))
    small_tiles = ["-t", "16", "--overlap", "2"]
    process = subprocess.Popen([*COMMAND, photo, "-m", weights, *small_tiles, "--json"], stdout=subprocess.PIPE)
    assert process.stdout is not None
    for line in process.stdout:
        if json.loads(line)["event"] == "progress":
            return process
    raise AssertionError("the run ended early")


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_signal_stops_cleanly(photo: Path, weights: Path, number: int, code: int) -> None:
    process = _started(photo, weights)
    process.send_signal(number)
    assert process.stdout is not None
    rest = process.stdout.read()
    assert process.wait(30) == code
    process.stdout.close()
    last = json.loads(rest.splitlines()[-1])
    assert (last["event"], last["exit_code"]) == ("error", code)
    assert everything(photo.parent) == {"photo.png"}


@pytest.mark.slow
def test_run_after_a_kill_makes_the_file(upframe: Upframe, photo: Path, weights: Path) -> None:
    process = _started(photo, weights)
    process.kill()
    process.wait(30)
    assert process.stdout is not None
    process.stdout.close()
    output = photo.with_name("photo_nearest_x2.png")
    assert not output.exists()
    assert upframe(photo, "-m", weights).code == 0
    np.testing.assert_array_equal(read_pixels(output)[::2, ::2], make_photo(600, 800))
    assert everything(photo.parent) == {"photo.png", output.name}


def test_second_signal_is_not_waited_for(photo: Path, weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first signal sets the event; a second one leaves at once, without unwinding."""
    left: list[int] = []
    monkeypatch.setattr(os, "_exit", left.append)
    with stoppable() as cancel:
        os.kill(os.getpid(), signal.SIGTERM)
        _wait(cancel.is_set)
        assert left == []
        os.kill(os.getpid(), signal.SIGINT)
        _wait(lambda: left)
    assert left == [130]
    assert threading.current_thread() is threading.main_thread()
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def _wait(condition: Callable[[], object]) -> None:
    """Python runs signal handlers a moment after the signal."""
    for _ in range(1000):
        if condition():
            return
        time.sleep(0.001)
    raise AssertionError("it never came")


# Memory ---------------------------------------------------------------------------------------------------------------
@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="the limit is read from /proc")
@pytest.mark.parametrize("limit_mb", [300, 600])
def test_too_little_address_space_is_lack_of_memory(photo: Path, weights: Path, limit_mb: int) -> None:
    """At 600 MB, PyTorch aborts the process while it is loaded."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (limit_mb << 20, limit_mb << 20))

    command = [sys.executable, "-m", "upframe", photo, "-m", weights]
    done = subprocess.run(command, capture_output=True, text=True, check=False, preexec_fn=limit)
    assert done.returncode == 5, done.stderr
    assert done.stderr.startswith("upframe: ") and "Traceback" not in done.stderr


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="closes a stream in the child")
def test_a_picture_is_made_without_standard_output(photo: Path, weights: Path) -> None:
    command = [sys.executable, "-m", "upframe", photo, "-m", weights, "-o", photo.with_name("big.png")]
    done = subprocess.run(command, stderr=subprocess.PIPE, text=True, check=False, preexec_fn=lambda: os.close(1))
    assert (done.returncode, done.stderr) == (0, "")
    assert photo.with_name("big.png").exists()
