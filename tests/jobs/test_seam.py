"""The seam that every door calls: small values that go to other processes, runners, and no more imports than needed."""

from __future__ import annotations

import ast
import json
import pickle
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

import films
from nearest import nearest_weights
from spawning import SpawnRunner
from upframe import cli, jobs
from upframe.errors import Cancelled, InputError, ModelError
from upframe.jobs import Event, JobOptions, Plan, UpscaleOptions, VideoOptions, model_choice
from upframe.jobs.runners.base import Runner
from upframe.media.image.files import write_pixels

pytestmark = pytest.mark.slow  # as a whole: `make test-fast` has a minute and a half for everything


@pytest.fixture(scope="module")
def x2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return nearest_weights(tmp_path_factory.mktemp("weights") / "x2.safetensors", scale=2)


def photos(folder: Path, count: int) -> Path:
    folder.mkdir()
    for number, picture in enumerate(films.make_pictures(count, (24, 32))):
        write_pixels(folder / f"{number}.png", picture)
    return folder


# Values ---------------------------------------------------------------------------------------------------------------
def test_plan_of_a_photo_is_small_and_runs_after_a_journey(tmp_path: Path, x2: Path) -> None:
    photos(tmp_path / "in", 1)
    planned = jobs.plan([tmp_path / "in" / "0.png"], tmp_path / "out.png", JobOptions(model=x2))
    travelled = pickle.dumps(planned)
    assert len(travelled) < 4000
    assert len(pickle.dumps(planned.items[0])) < 1000
    arrived: Plan = pickle.loads(travelled)
    assert arrived == planned
    assert [outcome.status for outcome in jobs.run(arrived).outcomes] == ["written"]


def test_plan_is_carried_out_with_the_options_it_was_made_with(tmp_path: Path, x2: Path) -> None:
    photos(tmp_path / "in", 1)
    sizes = {}
    for quality in (95, 5):
        options = JobOptions(model=x2, quality=quality, format="jpg")
        planned = jobs.plan([tmp_path / "in" / "0.png"], tmp_path / f"{quality}.jpg", options)
        assert planned.options.quality == quality
        jobs.run(planned)
        sizes[quality] = (tmp_path / f"{quality}.jpg").stat().st_size
    assert sizes[5] < sizes[95] / 2


def test_weights_that_change_after_planning_are_not_taken_for_the_same(tmp_path: Path) -> None:
    weights = nearest_weights(tmp_path / "w.safetensors", scale=2)
    photos(tmp_path / "in", 1)
    planned = jobs.plan([tmp_path / "in" / "0.png"], tmp_path / "out.png", JobOptions(model=weights))
    for path in tmp_path.glob("w.*"):
        path.unlink()
    nearest_weights(weights, scale=2, name="other")
    with pytest.raises(ModelError, match="changed since the job was planned"):
        jobs.run(planned)


def test_networks_are_loaded_once_and_few_are_kept(tmp_path: Path, x2: Path) -> None:
    first = model_choice.network(str(x2))
    assert model_choice.network(str(x2)) is first
    for number in range(model_choice.MOST_NETWORKS):
        model_choice.network(str(nearest_weights(tmp_path / f"{number}.safetensors", scale=2, name=f"n{number}")))
    assert model_choice.network(str(x2)) is not first


# Runners --------------------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def spawned() -> Iterator[Runner]:
    with SpawnRunner() as runner:
        yield runner


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_photos_go_to_a_runner_as_units_and_come_back_in_order(tmp_path: Path, x2: Path, spawned: Runner) -> None:
    source = photos(tmp_path / "in", 4)
    (source / "1.png").write_bytes(b"\x89PNG\r\n\x1a\nbroken")
    planned = {}
    for name, runner in (("here", None), ("there", spawned)):
        events: list[Event] = []
        plan = jobs.plan([source], tmp_path / name, JobOptions(model=x2))
        report = jobs.run(plan, on_event=events.append, runner=runner)
        assert [(o.input.name, o.status) for o in report.outcomes] == [
            ("1.png", "failed"), ("0.png", "written"), ("2.png", "written"), ("3.png", "written"),
        ]  # fmt: skip
        planned[name] = [(e.event, e.input.name) for e in events if e.event in ("done", "failed")]
    assert planned["here"] == planned["there"]
    assert content(tmp_path / "here") == content(tmp_path / "there")


def test_photo_that_fails_elsewhere_is_reported_with_its_error(tmp_path: Path, x2: Path, spawned: Runner) -> None:
    source = photos(tmp_path / "in", 2)
    planned = jobs.plan([source], tmp_path / "out", JobOptions(model=x2))
    (source / "0.png").unlink()
    report = jobs.run(planned, runner=spawned)
    assert [outcome.status for outcome in report.outcomes] == ["failed", "written"]
    assert type(report.outcomes[0].error) is InputError


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["file", "folder of frames", "file to frames"])
def test_segments_rendered_in_another_process_make_the_same_bytes(tmp_path: Path, x2: Path, spawned: Runner, kind: str) -> None:
    """Damaged input included: what stands in for a frame must be the same everywhere."""
    pictures = films.make_pictures(11, (64, 64))
    if kind == "folder of frames":
        source = films.make_frames(tmp_path / "frames", pictures)
    else:
        source = films.make_film(tmp_path / "in.mp4", pictures, pix_fmt="yuv420p", codec="libx264", bf="0", g="4")
        films.damage(source, 3)
    outcomes = {}
    for name, runner in (("here", None), ("there", spawned)):
        folder = tmp_path / name
        output = folder if kind == "file to frames" else folder / "out.mp4"
        options = JobOptions(
            model=x2,
            format="png" if kind == "file to frames" else None,
            as_clip=True,
            upscale=UpscaleOptions(tile=32),
            video=VideoOptions(segment_frames=4, preset="ultrafast" if kind != "file to frames" else None),
        )
        events: list[Event] = []
        report = jobs.run(jobs.plan([source], output, options), on_event=events.append, runner=runner)
        assert report.error is None
        (video,) = [event.data for event in events if event.event == "video"]
        outcomes[name] = (video, [n.id for n in report.outcomes[0].notices], films.content(folder))
        assert max(e.data["frame"] for e in events if e.event == "progress" and e.data["stage"] == "upscaling") == 11
    assert outcomes["here"] == outcomes["there"]
    assert outcomes["here"][0]["segments"] == 3


def test_segment_task_is_small(tmp_path: Path, x2: Path) -> None:
    source = films.make_film(tmp_path / "in.mkv", films.make_pictures(6, (24, 32)))
    sizes: list[int] = []

    class Weighing(jobs.LocalRunner):
        def map(self, function, tasks, **rest):  # type: ignore[no-untyped-def]
            tasks = list(tasks)
            sizes.extend(len(pickle.dumps(task)) for task in tasks)
            assert [pickle.loads(pickle.dumps(task)) for task in tasks] == tasks
            return super().map(function, tasks, **rest)

    options = JobOptions(model=x2, video=VideoOptions(segment_frames=3))
    assert jobs.run(jobs.plan([source], tmp_path / "out.mkv", options), runner=Weighing()).error is None
    assert len(sizes) == 2 and max(sizes) < 4000


def test_wish_to_stop_reaches_a_runner(tmp_path: Path, x2: Path, spawned: Runner) -> None:
    cancel = threading.Event()
    planned = jobs.plan([photos(tmp_path / "in", 6)], tmp_path / "out", JobOptions(model=x2))

    def stop(event: Event) -> None:
        if event.event == "done":
            cancel.set()

    with pytest.raises(Cancelled):
        jobs.run(planned, on_event=stop, cancel=cancel, runner=spawned)
    assert len(list((tmp_path / "out").iterdir())) < 6


# Imports --------------------------------------------------------------------------------------------------------------
PROBE = """
import json, sys
from upframe import cli, jobs
planned = jobs.plan([sys.argv[1]], sys.argv[2], jobs.JobOptions(target=jobs.Target(scale=2)))
early = sorted(sys.modules)
assert jobs.run(planned).error is None
print(json.dumps([early, sorted(sys.modules)]))
"""


@pytest.mark.slow
def test_photo_needs_no_video_module_and_a_video_does(tmp_path: Path) -> None:
    photos(tmp_path / "in", 1)
    films.make_film(tmp_path / "in.mkv", films.make_pictures(2, (24, 32)))
    found = {}
    for source, output in ((tmp_path / "in" / "0.png", "out.png"), (tmp_path / "in.mkv", "out.mkv")):
        command = [sys.executable, "-c", PROBE, str(source), str(tmp_path / output)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        found[output] = [
            {m for m in modules if m.split(".")[0] == "av" or "video" in m.split(".") or m.endswith("upscaling.clips")}
            for modules in json.loads(done.stdout.splitlines()[-1])
        ]
    assert found["out.png"] == [set(), set()]
    assert {"av", "upframe.jobs.video.item"} <= found["out.mkv"][0]


@pytest.mark.slow
@pytest.mark.parametrize("module", ["upscaling", "restoring"])
def test_command_line_asks_jobs_and_nothing_below(module: str) -> None:
    tree = ast.parse((Path(cli.__file__).parent / f"{module}.py").read_text())
    imported = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    below = {name for name in imported if name and name.startswith("upframe.") and not name.startswith("upframe.cli.")}
    assert below <= {"upframe.jobs", "upframe.errors", "upframe.files"}


@pytest.mark.slow
def test_door_of_jobs_has_the_names_it_says() -> None:
    for name in jobs.__all__:
        assert getattr(jobs, name) is not None
    assert "plan" in dir(jobs)
    with pytest.raises(AttributeError, match="no attribute 'film'"):
        jobs.film  # noqa: B018
    assert callable(jobs.plan) and callable(jobs.run)  # also when their modules are imported
