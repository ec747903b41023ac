"""Jobs through a real server: results, order, and everything that users do to them."""

from __future__ import annotations

import io
import json
import os
import signal
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image

import upframe
from conftest import Upframe, make_photo
from nearest import repeated
from serving import Server, until, within
from upframe import jobs
from upframe.client import Client, Options, ServiceError, Source
from upframe.errors import OptionError, OutputError
from upframe.service.wire import VideoOptions
from video_files import Clip, make_clip

pytestmark = pytest.mark.slow

CANCEL_S = 2.0


def slow_clip(path: Path, frames: int = 240) -> Path:
    """A video that takes much longer than a test waits."""
    return make_clip(path, Clip(pts=[3600 * i for i in range(frames)], size=(96, 128)))


@pytest.mark.parametrize("kind", ["photo", "video"])
def test_command_line_python_and_rest_make_the_same_bytes(
    kind: str, client: Client, tmp_path: Path, photo: Path, upframe: Upframe
) -> None:
    source = photo if kind == "photo" else make_clip(tmp_path / "clip.mp4")
    by_command, by_python = tmp_path / f"command{source.suffix}", tmp_path / f"python{source.suffix}"
    assert upframe("upscale", source, "-s", 2, "-o", by_command, "-q").code == 0
    in_python(source, by_python)
    job = client.wait(client.submit(source, Options(scale=2)).id)
    assert job.state == "done", job.error
    made = client.output(job.id)
    assert made == by_command.read_bytes() == by_python.read_bytes()
    assert job.output is not None and job.output.bytes == len(made)
    assert job.output.name == f"{source.stem}_photo_x2{source.suffix}"


def in_python(source: Path, output: Path) -> None:
    upframe.upscale(source, scale=2, output=output)


def test_a_form_is_enough_for_a_photo(server: Server, client: Client, photo: Path, allowed: Path) -> None:
    options = {"model": str(allowed / "x2.safetensors")}
    with server.http() as http, photo.open("rb") as file:
        made = http.post("/api/jobs", files={"file": ("größer.png", file)}, data={"options": json.dumps(options)})
    assert made.status_code == 201, made.text
    job = client.wait(made.json()["id"])
    assert job.state == "done" and job.output is not None and job.name == "größer.png"
    assert job.output.name == "größer_nearest_x2.png"
    enlarged = Image.open(io.BytesIO(client.output(job.id)))
    assert (repeated(make_photo(24, 32), 2) == enlarged).all()


def test_a_file_of_the_server_is_an_input_only_below_allow(client: Client, allowed: Path, photo: Path) -> None:
    inside = allowed / "inside.png"
    inside.write_bytes(photo.read_bytes())
    assert [file.name for file in client.files(str(allowed)).files] == ["inside.png"]
    assert client.wait(client.submit(Source(path=str(inside)), Options(scale=2)).id).state == "done"
    (allowed / "link.png").symlink_to(photo)
    for outside in (photo, allowed / "link.png", allowed / ".." / photo.name, Path("/etc/passwd"), Path("inside.png")):
        with pytest.raises(ServiceError) as refused:
            client.submit(Source(path=str(outside)))
        assert refused.value.status == 403 and "is not in a folder that the service may read" in str(refused.value)
    with pytest.raises(ServiceError) as refused:
        client.submit(Source(path=str(inside)), Options(model=str(photo)))
    assert refused.value.status == 403
    (allowed / "link.png").unlink()
    inside.unlink()


def test_a_plan_tells_what_dry_run_tells(client: Client, photo: Path, upframe: Upframe) -> None:
    row = upframe("upscale", photo, "-s", 3, "--dry-run", "--json").of("plan")
    upload = client.upload(photo)
    plan = client.plan(Source(upload=upload.id), Options(scale=3))
    assert [plan.size.height, plan.size.width] == row["size"] == [72, 96]
    assert (plan.model, plan.format, plan.engine, plan.file_bytes) == (
        row["model"],
        row["format"],
        row["engine"],
        row["file_bytes"],
    )
    assert plan.seconds is not None and plan.seconds > 0
    assert plan.output_name == "my photo_photo_x3.png"


def test_losses_are_listed_before_and_after(client: Client, tmp_path: Path) -> None:
    source = tmp_path / "clear.png"
    Image.new("RGBA", (20, 16), (200, 0, 0, 100)).save(source, pnginfo=None)
    plan = client.plan(Source(upload=client.upload(source).id), Options(scale=2, format="jpg"))
    assert [notice.id for notice in plan.notices] == ["alpha-needs-png"]
    job = client.wait(client.submit(source, Options(scale=2, format="jpg")).id)
    assert [notice.id for notice in job.notices] == ["alpha-needs-png"]
    assert job.output is not None and job.output.name.endswith(".png")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (Options(scale=2, format="docx"), "format='docx': is not a format that upframe can write"),
        (Options(scale=2, width=100), "contradicts `scale=2.0`"),
        (Options(model="phooto"), "phooto"),
        (Options(scale=9000), "pixels, and this service makes"),
    ],
)
def test_refusals_are_the_command_lines_one_line(client: Client, photo: Path, options: Options, said: str) -> None:
    with pytest.raises(ServiceError) as refused:
        client.plan(Source(upload=client.upload(photo).id), options)
    assert said in str(refused.value) and refused.value.status == 422 and "\n" not in str(refused.value)
    job = client.wait(client.submit(photo, options).id)
    assert job.state == "failed" and job.error is not None and said in job.error.error


@pytest.mark.parametrize(
    ("options", "make"),
    [
        ({"video": {"crf": 99}}, lambda: jobs.VideoOptions(crf=99)),
        ({"video": {"encoder": "tune=film"}}, lambda: jobs.VideoOptions(encoder="tune=film")),  # type: ignore[arg-type]
        ({"video": {"odd": "even"}}, lambda: jobs.VideoOptions(odd="even")),  # type: ignore[arg-type]
        ({"scale": -1}, lambda: jobs.Target(scale=-1)),
        ({"width": "wide"}, lambda: jobs.Target(width="wide")),  # type: ignore[arg-type]
        ({"quality": 101}, lambda: jobs.JobOptions(quality=101)),
        ({"strict": "perhaps"}, lambda: jobs.JobOptions(strict="perhaps")),  # type: ignore[arg-type]
        ({"sigma": 256}, lambda: jobs.UpscaleOptions(sigma=256)),
    ],
)
def test_values_are_refused_as_the_options_refuse_them(
    server: Server, options: dict[str, Any], make: Callable[[], object]
) -> None:
    with pytest.raises(OptionError) as own:
        make()
    body = {"source": {"job": "0" * 16}, "options": options}
    with server.http() as http:
        answers = [
            http.post("/api/jobs", json=body),
            http.post("/api/plans", json=body),
            http.post("/api/jobs", files={"file": b"x"}, data={"options": json.dumps(options)}),
        ]
    for answer in answers:
        said = answer.json()
        assert answer.status_code == 422 and said["error"] == str(own.value), said
        assert (said["kind"], said["option"]) == ("OptionError", own.value.option)


@pytest.mark.parametrize(
    ("options", "option", "said"),
    [
        ({"crf": 20}, "crf", "crf=20: is no option. Use one of model, task,"),
        ({"video": {"speed": 2}}, "video.speed", "video.speed=2: is no option. Use one of codec, crf,"),
        ({"tile": 3}, "tile", "tile=3: "),
        ({"video": 3}, "video", "video=3: "),
    ],
)
def test_what_is_no_option_is_refused_with_those_there_are(
    server: Server, options: dict[str, Any], option: str, said: str
) -> None:
    with server.http() as http:
        answer = http.post("/api/jobs", json={"source": {}, "options": options}).json()
    assert answer["error"].startswith(said) and answer["option"] == option


def test_a_damaged_file_fails_under_the_users_name(server: Server, client: Client, tmp_path: Path) -> None:
    broken = tmp_path / "holiday.png"
    broken.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(100))
    job = client.wait(client.submit(broken).id)
    assert job.state == "failed" and job.error is not None
    assert job.error.error.startswith("holiday.png: ") and job.error.exit_code == 3
    assert str(server.data) not in job.model_dump_json()


def test_cancel_takes_less_than_two_seconds_and_leaves_nothing(server: Server, client: Client, tmp_path: Path) -> None:
    job = client.submit(slow_clip(tmp_path / "long.mp4"), Options(scale=2))
    until(lambda: client.job(job.id).plan is not None)
    with within(CANCEL_S):
        assert client.cancel(job.id).state == "cancelled"
    assert not list((server.data / "jobs" / job.id).rglob("output/*"))
    assert client.cancel(job.id).state == "cancelled"  # again, as a second client may
    with pytest.raises(ServiceError) as refused:
        client.pause(job.id)
    assert refused.value.status == 409


def test_pause_keeps_segments_and_going_on_gives_the_same_bytes(
    server: Server, client: Client, tmp_path: Path, upframe: Upframe
) -> None:
    source = make_clip(tmp_path / "clip.mp4", Clip(pts=[3600 * i for i in range(60)], size=(48, 64)))
    options = Options(scale=2, video=VideoOptions(segment_frames=6))
    job = client.submit(source, options)
    until(lambda: (p := client.job(job.id).progress) is not None and (p.frame or 0) >= 13)
    with within(CANCEL_S):
        assert client.pause(job.id).state == "paused"
    time.sleep(0.5)
    assert client.job(job.id).state == "paused"
    assert client.resume(job.id).state in ("queued", "running")
    done = client.wait(job.id)
    video = next(event for event in client.events(job.id) if event.event == "video")
    assert video.data["frames_resumed"] >= 12
    assert upframe("upscale", source, "-s", 2, "--window", 6, "-o", tmp_path / "whole.mp4", "-q").code == 0
    assert done.state == "done" and client.output(job.id) == (tmp_path / "whole.mp4").read_bytes()


def test_the_order_changes_and_a_paused_queue_starts_nothing(client: Client, photo: Path) -> None:
    client.set_paused(True)
    try:
        first, second, third = (client.submit(photo, Options(scale=2)) for _ in range(3))
        client.move(third.id, before=first.id)
        client.move(first.id)
        waiting = [job.id for job in client.jobs(states=["queued"])]
        assert waiting == [third.id, second.id, first.id]
    finally:
        client.set_paused(False)
    ended = [client.wait(id).ended for id in waiting]
    assert ended == sorted(ended, key=lambda at: at or 0) and None not in ended


def test_many_moves_into_one_gap_keep_the_order(client: Client, photo: Path) -> None:
    """Positions are floats: after 50 halvings there is none between two neighbours."""
    client.set_paused(True)
    try:
        ids = [client.submit(photo, Options(scale=2)).id for _ in range(3)]
        for turn in range(120):
            client.move(ids[1 + turn % 2], before=ids[0])
        order = [job.id for job in client.jobs(states=["queued"])]
        assert order == [ids[1], ids[2], ids[0]]
        for id in ids:
            client.delete(id)
    finally:
        client.set_paused(False)


def test_a_failed_job_can_be_tried_again(client: Client, allowed: Path, photo: Path) -> None:
    source = allowed / "later.png"
    source.write_bytes(b"not yet")
    job = client.wait(client.submit(Source(path=str(source)), Options(scale=2)).id)
    assert job.state == "failed"
    source.write_bytes(photo.read_bytes())
    client.retry(job.id)
    again = client.wait(job.id)
    assert again.state == "done" and again.error is None and again.attempts == 2
    source.unlink()


def test_a_crash_of_the_worker_costs_one_attempt_and_never_the_page(
    server: Server, client: Client, tmp_path: Path, photo: Path
) -> None:
    """The worker is killed, later never further on than the first time, until the job fails; a new worker does the next one."""
    job = client.submit(slow_clip(tmp_path / "long.mp4", 480), Options(scale=2, video=VideoOptions(segment_frames=480)))
    for attempt, least in ((1, 0.2), (2, 0.0), (3, 0.0)):

        def is_there(attempt: int = attempt, least: float = least) -> bool:
            now = client.job(job.id)
            working = now.progress is not None and now.progress.stage != "starting"
            return now.attempts == attempt and working and now.progress.done >= least

        until(is_there)
        worker = server.child("worker")
        assert worker is not None
        os.kill(worker, signal.SIGSEGV)
        assert client.health().status == "ok"
    failed = client.wait(job.id)
    assert failed.state == "failed" and failed.error is not None
    assert "its worker crashed (SIGSEGV)" in failed.error.error and failed.error.exit_code == 5
    assert client.wait(client.submit(photo, Options(scale=2)).id).state == "done"


def test_a_worker_that_cannot_start_costs_no_job(tmp_path: Path, photo: Path) -> None:
    """Workers are killed while they still load torch, more often than a job may crash."""
    with Server(tmp_path / "data") as server, server.client() as client:
        job = client.submit(photo, Options(scale=2))
        for _ in range(3):
            until(lambda: server.child("worker") is not None)
            worker = server.child("worker")
            assert worker is not None
            os.kill(worker, signal.SIGKILL)
            until(lambda worker=worker: server.child("worker") != worker)
        done = client.wait(job.id)
    assert done.state == "done" and done.error is None, done


def test_deleting_a_job_removes_its_files(server: Server, client: Client, photo: Path) -> None:
    job = client.wait(client.submit(photo, Options(scale=2)).id)
    assert (server.data / "jobs" / job.id).is_dir()
    client.delete(job.id)
    assert not (server.data / "jobs" / job.id).exists()
    with pytest.raises(ServiceError) as refused:
        client.job(job.id)
    assert refused.value.status == 404


def test_a_batch_comes_as_one_zip_whose_names_lead_nowhere(server: Server, client: Client, photo: Path) -> None:
    names = ["a.png", "a.png", "../../evil.png", "..\\evil.png", "/etc/evil.png"]
    for name in names:
        upload = client.upload(photo, name=name)
        job = client.submit(Source(upload=upload.id), Options(scale=2), batch="zipped")
    client.wait(job.id)
    with server.http() as http:
        zipped = zipfile.ZipFile(io.BytesIO(http.get("/api/zip", params={"batch": "zipped"}).content))
    assert zipped.testzip() is None
    assert sorted(zipped.namelist()) == [
        "a_photo_x2 (2).png",
        "a_photo_x2.png",
        "evil_photo_x2 (2).png",
        "evil_photo_x2 (3).png",
        "evil_photo_x2.png",
    ]
    assert zipped.read("a_photo_x2.png") == zipped.read("evil_photo_x2.png") == client.output(job.id)


def test_outputs_come_in_ranges_so_that_videos_seek(server: Server, client: Client, photo: Path) -> None:
    job = client.wait(client.submit(photo, Options(scale=2)).id)
    whole = client.output(job.id)
    with server.http() as http:
        part: httpx.Response = http.get(f"/api/jobs/{job.id}/output", headers={"range": "bytes=10-19"})
    assert part.status_code == 206 and part.content == whole[10:20]
    assert part.headers["content-range"] == f"bytes 10-19/{len(whole)}"


def test_ranges_that_are_none_are_ignored_and_those_beyond_the_end_refused(server: Server, client: Client, photo: Path) -> None:
    job = client.wait(client.submit(photo, Options(scale=2)).id)
    whole = client.output(job.id)
    with server.http() as http:
        for none in ("bytes=abc", "bytes=5-2", "pages=1-2", "bytes"):
            answer: httpx.Response = http.get(f"/api/jobs/{job.id}/output", headers={"range": none})
            assert answer.status_code == 200 and answer.content == whole, none
        beyond = http.get(f"/api/jobs/{job.id}/output", headers={"range": f"bytes={len(whole)}-"})
    assert beyond.status_code == 416 and beyond.headers["content-range"] == f"bytes */{len(whole)}"
    assert str(len(whole)) in beyond.json()["error"]


def test_the_client_writes_a_file_whole_or_not_at_all(client: Client, photo: Path, tmp_path: Path) -> None:
    job = client.wait(client.submit(photo, Options(scale=2)).id)
    out = tmp_path / "out.png"
    assert client.download(job.id, out).read_bytes() == client.output(job.id)
    with pytest.raises(OutputError, match="exists"):
        client.download(job.id, out)
    client.download(job.id, out, overwrite=True)
    client.delete(job.id)
    with pytest.raises(ServiceError):
        client.download(job.id, tmp_path / "gone.png")
    assert not list(tmp_path.glob("*gone*"))
