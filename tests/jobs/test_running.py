"""From inputs to verified files or named failures, in process."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from conftest import make_photo
from nearest import nearest_weights, repeated
from upframe.engines import TorchEngine, TorchOptions
from upframe.errors import (
    BatchError,
    Cancelled,
    InputError,
    ModelError,
    OutOfMemoryError,
    OutputError,
    ResourceError,
    UsageError,
    VerifyError,
)
from upframe.files import PartFile, part_path
from upframe.jobs import image, model_choice
from upframe.jobs.events import Event, Outcome, Report
from upframe.jobs.image import ImageItem
from upframe.jobs.options import JobOptions
from upframe.jobs.planning import plan
from upframe.jobs.running import run, upscale_file
from upframe.media.image import sink as sink_module
from upframe.media.image.files import Limits, write_pixels
from upframe.media.image.source import read_pixels
from upframe.upscaling.options import Target, UpscaleOptions


@pytest.fixture(scope="module")
def x2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return nearest_weights(tmp_path_factory.mktemp("weights") / "x2.safetensors", scale=2)


@pytest.fixture(scope="module")
def x4(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return nearest_weights(tmp_path_factory.mktemp("weights") / "x4.safetensors", scale=4, name="near-x4")


@pytest.fixture
def options(x2: Path) -> JobOptions:
    return JobOptions(model=x2)


def picture(path: Path, height: int = 6, width: int = 8, *, seed: int = 0, dtype: str = "uint8") -> NDArray[Any]:
    pixels = make_photo(height, width, seed=seed, dtype=dtype)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_pixels(path, pixels)
    return pixels


def everything(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def go(inputs: list[Any], output: Path | None, options: JobOptions, *, events: list[Event] | None = None) -> Report:
    return run(plan(inputs, output, options), on_event=None if events is None else events.append)


def status(report: Report) -> list[str]:
    return [outcome.status for outcome in report.outcomes]


# Sizes and places -----------------------------------------------------------------------------------------------------
def test_without_a_size_the_models_own_scale_is_taken(tmp_path: Path, x2: Path, x4: Path) -> None:
    pixels = picture(tmp_path / "a.png")
    two = upscale_file(tmp_path / "a.png", options=JobOptions(model=x2))
    four = upscale_file(tmp_path / "a.png", options=JobOptions(model=x4))
    assert (two.output, two.notices) == (tmp_path / "a_nearest_x2.png", ())
    assert (four.output, four.notices) == (tmp_path / "a_near_x4.png", ())
    for outcome, scale in ((two, 2), (four, 4)):
        assert outcome.output is not None
        np.testing.assert_array_equal(read_pixels(outcome.output), repeated(pixels, scale))


@pytest.mark.parametrize("target", [{"scale": 1.5}, {"scale": 3.7}, {"width": 29}, {"height": 5}, {"megapixels": 0.001}])
def test_file_has_exactly_the_size_asked_for(tmp_path: Path, options: JobOptions, target: dict[str, Any]) -> None:
    picture(tmp_path / "a.png", 13, 17)
    outcome = upscale_file(tmp_path / "a.png", tmp_path / "b.png", options=options, **target)
    expected = Target(**target).size_for((13, 17), native=2)
    with Image.open(tmp_path / "b.png") as image:
        assert (image.height, image.width) == expected == outcome.size


@pytest.mark.parametrize("scale", [1.0, 1.5, 2.0, 2.6, 3.0])
@pytest.mark.parametrize("tile", ["auto", 32])
def test_nothing_is_shifted(tmp_path: Path, options: JobOptions, scale: float, tile: Any) -> None:
    """The centroid of a blob stays where it was, to 0.05 input pixels; in prime sizes, tiled and untiled."""
    y, x = np.mgrid[0:61, 0:83]
    at = (29.3, 41.8)
    blob = np.exp(-((y - at[0]) ** 2 + (x - at[1]) ** 2) / (2 * 4.0**2)).astype(np.float32)
    write_pixels(tmp_path / "a.tif", blob[..., None])
    chosen = replace(options, upscale=UpscaleOptions(tile=tile))
    upscale_file(tmp_path / "a.tif", tmp_path / "b.tif", options=chosen, scale=scale)
    out = read_pixels(tmp_path / "b.tif")[..., 0].astype(np.float64)
    # Centres of pixels: the output's grid covers the same area.
    rows = (np.arange(out.shape[0]) + 0.5) * 61 / out.shape[0] - 0.5
    columns = (np.arange(out.shape[1]) + 0.5) * 83 / out.shape[1] - 0.5
    centre = ((out.sum(1) * rows).sum() / out.sum(), (out.sum(0) * columns).sum() / out.sum())
    assert np.abs(np.subtract(centre, at)).max() < 0.05


def test_tall_and_wide_sizes_choose_the_model_by_the_greater_enlargement(
    tmp_path: Path, x2: Path, x4: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    picture(tmp_path / "a.png", 10, 10)
    monkeypatch.setattr(model_choice, "default_model", lambda scale: str(x2 if scale <= 2 else x4))
    planned = plan([tmp_path / "a.png"], None, JobOptions(target=Target(width=10, height=40)))
    assert planned.items[0].model == str(x4)
    assert planned.items[0].notices == ()


def test_pages_of_unlike_size_each_get_the_target(tmp_path: Path, options: JobOptions) -> None:
    pages = [Image.fromarray(make_photo(h, w)) for h, w in ((6, 8), (9, 5))]
    pages[0].save(tmp_path / "a.tif", save_all=True, append_images=pages[1:])
    for target, sizes in (({}, [(16, 12), (10, 18)]), ({"width": 20}, [(20, 15), (20, 36)])):
        upscale_file(tmp_path / "a.tif", tmp_path / "b.tif", options=replace(options, overwrite=True), **target)
        with Image.open(tmp_path / "b.tif") as image:
            found = []
            for index in range(2):
                image.seek(index)
                found.append(image.size)
        assert found == sizes


def test_name_in_a_card_cannot_lead_to_another_folder(tmp_path: Path) -> None:
    weights = nearest_weights(tmp_path / "w.safetensors", scale=2, name="../../evil/\n x-x2")
    picture(tmp_path / "in" / "a.png")
    outcome = upscale_file(tmp_path / "in" / "a.png", options=JobOptions(model=weights))
    assert outcome.output is not None
    assert outcome.output.parent == tmp_path / "in"
    assert outcome.output.name == "a_evil-x_x2.png"


# E4, F5: batches ------------------------------------------------------------------------------------------------------
def test_pictures_of_unlike_kind_do_not_leak_into_each_other(tmp_path: Path, options: JobOptions) -> None:
    """Each output of a mixed batch is the one of a run by itself, byte for byte."""
    rng = np.random.default_rng(0)
    for i, (h, w, c, dtype) in enumerate([(9, 7, 3, "uint8"), (40, 30, 1, "uint16"), (3, 50, 4, "uint8"), (9, 7, 2, "uint8")]):
        pixels = rng.integers(0, np.iinfo(dtype).max, (h, w, c), dtype)
        (tmp_path / "in").mkdir(exist_ok=True)
        write_pixels(tmp_path / "in" / f"{i}.png", pixels)
    go([tmp_path / "in"], tmp_path / "together", options)
    for path in sorted((tmp_path / "in").iterdir()):
        go([path], tmp_path / "alone", options)
        assert (tmp_path / "together" / path.name).read_bytes() == (tmp_path / "alone" / path.name).read_bytes()


@pytest.mark.slow
def test_three_hundred_files_leak_no_handle_and_load_the_model_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = JobOptions(model=nearest_weights(tmp_path / "fresh.safetensors", scale=2))
    pixels = picture(tmp_path / "in" / "0.png", 2, 3)
    data = (tmp_path / "in" / "0.png").read_bytes()
    for i in range(1, 300):
        (tmp_path / "in" / f"{i}.png").write_bytes(data if i % 50 else b"not an image")
    loaded: list[Any] = []
    real = model_choice.load
    monkeypatch.setattr(model_choice, "load", lambda name: loaded.append(name) or real(name))
    before = sum(1 for _ in Path("/proc/self/fd").iterdir())
    report = go([tmp_path / "in"], tmp_path / "out", options)
    assert sum(1 for _ in Path("/proc/self/fd").iterdir()) == before
    assert len(loaded) == 1
    assert (len(report.of("written")), len(report.of("failed"))) == (295, 5)
    np.testing.assert_array_equal(read_pixels(tmp_path / "out" / "299.png"), repeated(pixels, 2))


def test_a_bug_in_one_item_does_not_cost_the_others(
    tmp_path: Path, options: JobOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a.png", "b.png", "c.png"):
        picture(tmp_path / "in" / name)
    real = ImageItem.render

    def failing(item: ImageItem, *rest: Any) -> Any:
        if item.input.name == "b.png":
            raise ZeroDivisionError("a bug")
        return real(item, *rest)

    monkeypatch.setattr(ImageItem, "render", failing)
    report = go([tmp_path / "in"], tmp_path / "out", options)
    assert status(report) == ["written", "failed", "written"]
    assert isinstance(report.error, BatchError)
    error = report.of("failed")[0].error
    assert error is not None
    assert error.exit_code == 1
    assert "ZeroDivisionError" in str(error)


def test_report_of_one_failure_is_that_failure_and_of_several_names_the_first() -> None:
    bad = Outcome(Path("a.png"), "failed", error=InputError("a.png", "is empty"))
    good = Outcome(Path("b.png"), "written")
    assert Report((good,), 1.0).error is None
    assert Report((bad,), 1.0).error is bad.error
    assert str(Report((bad, good), 1.0).error) == "1 of 2 inputs: failed; the first: a.png: is empty."


# Outputs that are there already ---------------------------------------------------------------------------------------
def test_rerun_does_only_what_is_missing(tmp_path: Path, options: JobOptions) -> None:
    for i in range(20):
        picture(tmp_path / "in" / f"{i}.png", seed=i)
    bad = [3, 7, 11, 19]
    for i in bad:
        (tmp_path / "in" / f"{i}.png").write_bytes(b"broken")
    first = go([tmp_path / "in"], tmp_path / "out", options)
    assert (len(first.of("written")), len(first.of("failed"))) == (16, 4)
    assert [outcome.input.name for outcome in first.of("failed")] == [f"{i}.png" for i in bad]
    stamps = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()}
    picture(tmp_path / "in" / "7.png")
    second = go([tmp_path / "in"], tmp_path / "out", options)
    assert (len(second.of("written")), len(second.of("skipped")), len(second.of("failed"))) == (1, 16, 3)
    assert {path.name: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir() if path.name != "7.png"} == stamps


@pytest.mark.parametrize("format", ["png", None])
def test_mended_input_does_not_find_its_neighbours_output(tmp_path: Path, options: JobOptions, format: str | None) -> None:
    """IMG.heic cannot be read at first, and IMG.png or IMG.jpg must not take the name that it will want."""
    options = replace(options, format=format)
    neighbour = "a.jpg" if format else "a.png"
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.heic").write_bytes(b"broken")
    picture(tmp_path / "in" / neighbour)
    assert status(go([tmp_path / "in"], tmp_path / "out", options)) == ["failed", "written"]
    pixels = picture(tmp_path / "a.png", seed=1)
    (tmp_path / "in" / "a.heic").write_bytes((tmp_path / "a.png").read_bytes())
    report = go([tmp_path / "in"], tmp_path / "out", replace(options, format="png"))
    assert status(report) == ["written", "skipped"]
    np.testing.assert_array_equal(read_pixels(tmp_path / "out" / "a.png"), repeated(pixels, 2))


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: b"",
        lambda data: bytes(len(data)),
        lambda data: data[: len(data) // 2],
        lambda data: data[:-20] + bytes([data[-20] ^ 1]) + data[-19:],
    ],
    ids=["empty", "zeros", "cut", "flipped"],
)
def test_damaged_output_is_redone(tmp_path: Path, options: JobOptions, damage: Callable[[bytes], bytes]) -> None:
    picture(tmp_path / "a.png")
    go([tmp_path / "a.png"], tmp_path / "b.png", options)
    data = (tmp_path / "b.png").read_bytes()
    (tmp_path / "b.png").write_bytes(damage(data))
    assert status(go([tmp_path / "a.png"], tmp_path / "b.png", options)) == ["written"]
    assert (tmp_path / "b.png").read_bytes() == data
    assert status(go([tmp_path / "a.png"], tmp_path / "b.png", options)) == ["skipped"]


def _other_size(path: Path) -> None:
    picture(path, 5, 5)


def _other_format(path: Path) -> None:
    Image.new("RGB", (16, 12)).save(path, "BMP")


def _older(path: Path) -> None:
    picture(path, 12, 16)
    os.utime(path, (1_000_000, 1_000_000))


def _identity(path: Path) -> tuple[int, int, int]:
    status = path.lstat()
    return status.st_ino, status.st_size, status.st_mtime_ns


@pytest.mark.parametrize(
    "put",
    [_other_size, _other_format, _older, lambda path: path.write_text("my notes"), lambda path: os.mkfifo(path)],
    ids=["size", "format", "older", "text", "pipe"],
)
def test_what_is_not_our_output_is_refused_and_kept(tmp_path: Path, options: JobOptions, put: Callable[[Path], Any]) -> None:
    picture(tmp_path / "a.png")
    put(tmp_path / "b.png")
    before = _identity(tmp_path / "b.png")
    with pytest.raises(UsageError, match="exists and"):
        plan([tmp_path / "a.png"], tmp_path / "b.png", options)
    assert _identity(tmp_path / "b.png") == before


def test_overwrite_replaces_a_file_but_never_the_input(tmp_path: Path, options: JobOptions) -> None:
    options = replace(options, overwrite=True)
    pixels = picture(tmp_path / "a.png")
    (tmp_path / "b.png").write_text("my notes")
    assert status(go([tmp_path / "a.png"], tmp_path / "b.png", options)) == ["written"]
    np.testing.assert_array_equal(read_pixels(tmp_path / "b.png"), repeated(pixels, 2))
    (tmp_path / "soft.png").symlink_to("a.png")
    (tmp_path / "hard.png").hardlink_to(tmp_path / "a.png")
    for output in ("a.png", "soft.png", "hard.png", "../" + tmp_path.name + "/a.png"):
        with pytest.raises(UsageError, match="is the input itself"):
            plan([tmp_path / "a.png"], tmp_path / output, options)
    np.testing.assert_array_equal(read_pixels(tmp_path / "a.png"), pixels)


def test_result_of_one_input_never_replaces_another_input(tmp_path: Path, options: JobOptions) -> None:
    """`upframe *.png -y`, run again: the shell passes the first run's results as inputs."""
    picture(tmp_path / "a.png")
    go([tmp_path / "a.png"], None, options)
    with pytest.raises(UsageError, match=r"is an input, and the output of .*a\.png"):
        plan([tmp_path / "a.png", tmp_path / "a_nearest_x2.png"], None, replace(options, overwrite=True))


def test_input_from_a_camera_with_a_clock_in_the_future_is_not_redone(tmp_path: Path, options: JobOptions) -> None:
    picture(tmp_path / "a.png")
    os.utime(tmp_path / "a.png", (time.time() + 1e6,) * 2)
    assert status(go([tmp_path / "a.png"], tmp_path / "b.png", options)) == ["written"]
    assert status(go([tmp_path / "a.png"], tmp_path / "b.png", options)) == ["skipped"]


def test_existing_output_beyond_the_input_limit_is_recognised(tmp_path: Path, options: JobOptions) -> None:
    """The limit on inputs guards against bombs; our own large results must not be taken for damaged ones."""
    picture(tmp_path / "a.png", 10, 10)
    small = replace(options, limits=Limits(max_pixels=100))
    assert status(go([tmp_path / "a.png"], tmp_path / "b.png", small)) == ["written"]
    assert status(go([tmp_path / "a.png"], tmp_path / "b.png", small)) == ["skipped"]


# Faults ---------------------------------------------------------------------------------------------------------------
def test_output_that_does_not_verify_never_reaches_its_name(
    tmp_path: Path, options: JobOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    picture(tmp_path / "a.png")
    (tmp_path / "b.png").write_text("what was there before")
    sync = PartFile.sync

    def lossy(file: Any) -> None:
        """A disk that loses the last bytes and says nothing."""
        sync(file)
        file._file.truncate(file._file.seek(0, os.SEEK_END) - 10)

    monkeypatch.setattr(PartFile, "sync", lossy)
    report = go([tmp_path / "a.png"], tmp_path / "b.png", replace(options, overwrite=True))
    assert isinstance(report.error, VerifyError)
    assert (tmp_path / "b.png").read_text() == "what was there before"
    assert everything(tmp_path) == {"a.png", "b.png"}


def test_two_runs_with_one_output_do_not_mix_their_bytes(tmp_path: Path, options: JobOptions) -> None:
    """The second run waits for the first, and then takes the file as made."""
    pixels = picture(tmp_path / "a.png")
    planned = plan([tmp_path / "a.png"], tmp_path / "b.png", options)
    item = planned.items[0]
    reports: list[Report] = []
    second = threading.Thread(target=lambda: reports.append(run(planned)))
    with sink_module.ImageSink(item.output, item.plan) as first:  # its own handle: as good as another process
        second.start()
        second.join(1)
        assert second.is_alive()
        first.write([repeated(pixels, 2)], item.size)
    second.join(60)
    assert status(reports[0]) == ["skipped"]
    assert everything(tmp_path) == {"a.png", "b.png"}
    np.testing.assert_array_equal(read_pixels(tmp_path / "b.png"), repeated(pixels, 2))


def test_part_file_of_a_killed_run_is_taken_over(tmp_path: Path, options: JobOptions) -> None:
    pixels = picture(tmp_path / "a.png")
    part_path(tmp_path / "b.png").write_bytes(b"x" * 100_000)
    assert status(go([tmp_path / "a.png"], tmp_path / "b.png", options)) == ["written"]
    np.testing.assert_array_equal(read_pixels(tmp_path / "b.png"), repeated(pixels, 2))
    assert everything(tmp_path) == {"a.png", "b.png"}


def test_lack_of_disk_space_is_known_before_work(tmp_path: Path, options: JobOptions, monkeypatch: pytest.MonkeyPatch) -> None:
    picture(tmp_path / "a.png")
    monkeypatch.setattr("shutil.disk_usage", lambda folder: SimpleNamespace(free=1000))
    report = go([tmp_path / "a.png"], tmp_path / "new" / "folder", options)
    assert isinstance(report.error, OutputError)
    assert "free" in str(report.error)
    assert everything(tmp_path) == {"a.png"}


def test_folders_made_for_an_output_go_when_nothing_comes_of_it(tmp_path: Path, options: JobOptions) -> None:
    picture(tmp_path / "a.jpg", 40, 40)
    data = (tmp_path / "a.jpg").read_bytes()
    (tmp_path / "a.jpg").write_bytes(data[: len(data) // 2])
    report = go([tmp_path / "a.jpg"], tmp_path / "new" / "folder", options)
    assert isinstance(report.error, InputError)
    assert everything(tmp_path) == {"a.jpg"}


def test_file_that_vanishes_or_changes_after_planning_fails_alone(tmp_path: Path, options: JobOptions) -> None:
    for name in ("a.png", "b.png", "c.png"):
        picture(tmp_path / "in" / name)
    planned = plan([tmp_path / "in"], tmp_path / "out", options)
    (tmp_path / "in" / "a.png").unlink()
    picture(tmp_path / "in" / "b.png", 20, 20)
    report = run(planned)
    assert status(report) == ["failed", "failed", "written"]
    assert "no such file" in str(report.outcomes[0].error)
    assert "changed while reading" in str(report.outcomes[1].error)
    assert everything(tmp_path / "out") == {"c.png"}


def test_file_that_changes_while_it_is_read_fails(tmp_path: Path, options: JobOptions) -> None:
    """The change comes with the first tile; the check is that nothing is written of a mixture."""
    frames = [Image.fromarray(make_photo(8, 8, seed=i)) for i in range(3)]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])

    def meddle(event: Event) -> None:
        if event.event == "progress":
            with (tmp_path / "a.gif").open("ab") as file:
                file.write(b"more")

    report = run(plan([tmp_path / "a.gif"], tmp_path / "out", options), on_event=meddle)
    assert isinstance(report.error, InputError)
    assert "changed while reading" in str(report.error)
    assert not (tmp_path / "out").exists()


def test_cancelling_keeps_what_is_done_and_leaves_nothing_of_the_rest(tmp_path: Path, options: JobOptions) -> None:
    for name in ("a.png", "b.png", "c.png"):
        picture(tmp_path / "in" / name, 40, 40)
    cancel = threading.Event()

    def stop(event: Event) -> None:
        if event.event == "start" and event.input.name == "b.png":
            cancel.set()

    with pytest.raises(Cancelled):
        run(plan([tmp_path / "in"], tmp_path / "out", options), on_event=stop, cancel=cancel)
    assert everything(tmp_path / "out") == {"a.png"}
    assert status(go([tmp_path / "in"], tmp_path / "out", options)) == ["skipped", "written", "written"]


@pytest.mark.parametrize("kind", ["start", "progress", "done"])
def test_error_of_a_listener_ends_the_job_as_it_is(tmp_path: Path, options: JobOptions, kind: str) -> None:
    """It is no failure of an item: none may be reported to a listener that is broken, and no other item be begun."""
    for name in "ab":
        picture(tmp_path / "in" / f"{name}.png")
    seen: list[Event] = []

    def listen(event: Event) -> None:
        seen.append(event)
        if event.event == kind:
            raise ZeroDivisionError("of the listener")

    with pytest.raises(ZeroDivisionError, match="of the listener"):
        run(plan([tmp_path / "in"], tmp_path / "out", options), on_event=listen)
    assert seen[-1].event == kind and {event.input.name for event in seen} == {"a.png"}
    assert [path.name for path in (tmp_path / "out").glob("*")] == (["a.png"] if kind == "done" else [])


@pytest.mark.parametrize("name", ["a" * 300, "a" * 300 + ".png", "a" * 300 + ".mp4", "/proc/self/mem"])
def test_input_that_the_system_does_not_read_fails_alone(tmp_path: Path, options: JobOptions, name: str) -> None:
    """A name too long for any file, and a file that cannot be read to tell whether it is a video."""
    if name.startswith("/") and not Path(name).is_file():
        pytest.skip("no such file on this system")
    picture(tmp_path / "b.png")
    planned = plan([name, tmp_path / "b.png"], tmp_path / "out", options)
    assert [type(failed.error) for failed in planned.failed] == [InputError]
    assert [item.input.name for item in planned.items] == ["b.png"]
    with pytest.raises(InputError):
        plan([name], tmp_path / "out", options)


def test_memory_that_never_suffices_is_a_resource_error(
    tmp_path: Path, options: JobOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    picture(tmp_path / "a.png", 64, 64)

    def full(*_: Any, **__: Any) -> torch.Tensor:
        raise OutOfMemoryError("network", "a tile did not fit")

    monkeypatch.setattr(TorchEngine, "__call__", full)
    report = go([tmp_path / "a.png"], tmp_path / "b.png", options)
    assert type(report.error) is ResourceError
    assert everything(tmp_path) == {"a.png"}


@pytest.mark.parametrize("allocate", [np.empty, torch.empty], ids=["numpy", "torch"])
def test_memory_that_runs_out_elsewhere_is_a_resource_error_too(
    tmp_path: Path, options: JobOptions, monkeypatch: pytest.MonkeyPatch, allocate: Callable[[int], Any]
) -> None:
    """The exceptions are the allocators' own: an exabyte is more than any address space has."""
    picture(tmp_path / "a.png")
    monkeypatch.setattr(image.ImageSink, "write", lambda *_, **__: allocate(2**57))
    report = go([tmp_path / "a.png"], tmp_path / "b.png", options)
    assert isinstance(report.error, ResourceError)
    assert everything(tmp_path) == {"a.png"}


def test_network_that_makes_no_numbers_is_a_verify_error(
    tmp_path: Path, options: JobOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    picture(tmp_path / "a.png")
    real = TorchEngine.__call__
    monkeypatch.setattr(TorchEngine, "__call__", lambda *args, **rest: real(*args, **rest) * float("nan"))
    report = go([tmp_path / "a.png"], tmp_path / "b.png", options)
    assert isinstance(report.error, VerifyError)
    assert everything(tmp_path) == {"a.png"}


@pytest.mark.parametrize(
    ("torch_options", "error"),
    [
        (TorchOptions(device="cuda:99"), ResourceError),
        (TorchOptions(precision="fp16"), UsageError),
    ],
)
def test_device_and_precision_are_checked_before_any_work(
    tmp_path: Path, options: JobOptions, torch_options: TorchOptions, error: type[Exception]
) -> None:
    for name in ("a.png", "b.png"):
        picture(tmp_path / name)
    options = replace(options, upscale=UpscaleOptions(engine=torch_options))
    planned = plan([tmp_path], None, options)
    events: list[Event] = []
    with pytest.raises(error):
        run(planned, on_event=events.append)
    assert events == []


def test_model_that_is_none_fails_before_any_work(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    (tmp_path / "w.safetensors").write_bytes(b"<html>")
    with pytest.raises(ModelError):
        plan([tmp_path / "a.png"], None, JobOptions(model=tmp_path / "w.safetensors"))
    with pytest.raises(UsageError, match="Did you mean photo-x4"):
        plan([tmp_path / "a.png"], None, JobOptions(model="potho"))


def test_output_below_a_file_is_an_output_error(tmp_path: Path, options: JobOptions) -> None:
    picture(tmp_path / "a.png")
    (tmp_path / "file").write_text("text")
    report = go([tmp_path / "a.png"], tmp_path / "file" / "b.png", options)
    assert isinstance(report.error, OutputError)


# Events and estimates -------------------------------------------------------------------------------------------------
def test_events_tell_the_whole_story_in_order(tmp_path: Path, options: JobOptions) -> None:
    picture(tmp_path / "a.png", 8, 8)
    events: list[Event] = []
    go([tmp_path / "a.png"], tmp_path / "out", replace(options, target=Target(scale=3)), events=events)
    assert [event.event for event in events] == ["start", "notice", "progress", "done"]
    assert events[0].data["size"] == [24, 24]
    assert events[1].data["id"] == "beyond-model-scale"
    assert events[2].data["done"] == 1.0
    assert events[3].data["output"] == str(tmp_path / "out" / "a.png")


def test_progress_of_tiles_and_frames_rises_to_one(tmp_path: Path, options: JobOptions) -> None:
    frames = [Image.fromarray(make_photo(70, 70, seed=i)) for i in range(3)]
    frames[0].save(tmp_path / "a.png", save_all=True, append_images=frames[1:])
    events: list[Event] = []
    go([tmp_path / "a.png"], tmp_path / "out", replace(options, upscale=UpscaleOptions(tile=32)), events=events)
    done = [event.data["done"] for event in events if event.event == "progress"]
    assert done == sorted(done)
    assert len(done) == 3 * 9
    assert done[-1] == 1.0


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.webp", "a.tif", "a.bmp"])
def test_estimate_of_disk_space_is_on_the_high_side(tmp_path: Path, options: JobOptions, name: str) -> None:
    picture(tmp_path / name, 200, 300)
    planned = plan([tmp_path / name], tmp_path / "out", options)
    run(planned)
    real = (tmp_path / "out" / name).stat().st_size
    assert real <= 1.2 * planned.estimate(planned.items[0]).file_bytes  # 1.2: what the check of free space allows on top


def test_estimate_of_memory_follows_picture_and_tile(tmp_path: Path, options: JobOptions) -> None:
    def estimate(side: int, tile: Any) -> int:
        picture(tmp_path / "a.png", side, side)
        chosen = replace(options, upscale=UpscaleOptions(tile=tile))
        planned = plan([tmp_path / "a.png"], tmp_path / "out", chosen)
        return planned.estimate(planned.items[0]).memory_bytes

    assert estimate(800, 64) < estimate(800, 400) < estimate(800, "off")  # of the whole process, which grows meanwhile
    assert estimate(100, "off") < estimate(800, "off")


def test_door_of_the_package_makes_a_file_or_raises(tmp_path: Path, options: JobOptions) -> None:
    import upframe

    pixels = picture(tmp_path / "a.png")
    assert upframe.upscale(tmp_path / "a.png", output=tmp_path / "b.png", options=options) == tmp_path / "b.png"
    np.testing.assert_array_equal(read_pixels(tmp_path / "b.png"), repeated(pixels, 2))
    with pytest.raises(InputError, match="no such file"):
        upframe.upscale(tmp_path / "none.png", options=options)


def test_the_time_of_the_network_is_estimated_by_pixels_from_one_measurement(tmp_path: Path, options: JobOptions) -> None:
    picture(tmp_path / "in" / "a.png", 20, 30)
    picture(tmp_path / "in" / "b.png", 40, 60)
    planned = plan([tmp_path / "in"], None, options)
    small, large = (planned.estimate(item).seconds for item in planned.items)
    assert small is not None and large is not None
    assert 0 < large == pytest.approx(4 * small, rel=1e-9), "the engine is timed once, not for each picture"


def test_two_runs_on_one_folder_share_the_work(tmp_path: Path, options: JobOptions) -> None:
    for name in ("a.png", "b.png"):
        picture(tmp_path / "in" / name)
    first, second = (plan([tmp_path / "in"], tmp_path / "out", options) for _ in range(2))
    begun, others = threading.Event(), threading.Event()
    reports: list[Report] = []

    def hold(event: Event) -> None:
        if event.event == "progress" and event.input.name == "a.png":
            begun.set()
            assert others.wait(60)

    def follow(event: Event) -> None:
        if event.event == "done":  # of b.png, since a.png is being made
            others.set()

    thread = threading.Thread(target=lambda: reports.append(run(first, on_event=hold)))
    thread.start()
    assert begun.wait(60)
    reports.append(run(second, on_event=follow))
    thread.join()
    assert [report.error for report in reports] == [None, None]
    found = sorted((outcome.input.name, outcome.status) for report in reports for outcome in report.outcomes)
    assert found == [("a.png", "skipped"), ("a.png", "written"), ("b.png", "skipped"), ("b.png", "written")]
    assert everything(tmp_path / "out") == {"a.png", "b.png"}


def test_what_another_run_made_meanwhile_is_not_replaced(tmp_path: Path, options: JobOptions) -> None:
    picture(tmp_path / "a.png")
    planned = plan([tmp_path / "a.png"], tmp_path / "out.png", options)
    other = picture(tmp_path / "out.png", 5, 7)
    error = run(planned).error
    assert isinstance(error, UsageError) and "different file" in str(error)
    np.testing.assert_array_equal(read_pixels(tmp_path / "out.png"), other)
    assert not part_path(tmp_path / "out.png").exists()
