"""The queue survives what ends its server: kills at any moment, signals, a second server, an older file."""

from __future__ import annotations

import json
import signal
import sqlite3
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest

from conftest import Upframe
from serving import Server, until, within
from upframe.client import Client, Options
from upframe.service.wire import VideoOptions
from video_files import Clip, make_clip

pytestmark = pytest.mark.slow

STOP_S = 3.0


def has_reached(client: Client, id: str, frame: int) -> bool:
    progress = client.job(id).progress
    return progress is not None and (progress.frame or 0) >= frame


def test_after_kills_of_server_and_worker_the_list_is_there_and_the_bytes_are_equal(
    tmp_path: Path, photo: Path, upframe: Upframe
) -> None:
    """Killed three times, each time a little further on; see scripts/measure_serve.py for more."""
    source = make_clip(tmp_path / "clip.mp4", Clip(pts=[3600 * i for i in range(120)], size=(48, 64)))
    options = Options(scale=2, video=VideoOptions(segment_frames=6))
    server = Server(tmp_path / "data")
    with server, server.client() as client:
        video = client.submit(source, options, batch="killed")
        other = client.submit(photo, Options(scale=2), batch="killed", paused=True)
        for least in (7, 20, 33):  # the work goes on: the second and third begin with what is kept
            until(partial(has_reached, client, video.id, least))
            before = [(job.id, job.name, job.position) for job in client.jobs()]
            server.kill()
            server.start()
            client = server.client()
            assert [(job.id, job.name, job.position) for job in client.jobs()] == before
        assert client.job(other.id).state == "paused"
        client.resume(other.id)
        done = client.wait(video.id)
        assert done.state == "done" and client.wait(other.id).state == "done"
        resumed = next(event for event in client.events(video.id) if event.event == "video")
        assert resumed.data["frames_resumed"] >= 30
        assert upframe("upscale", source, "-s", 2, "--window", 6, "-o", tmp_path / "whole.mp4", "-q").code == 0
        assert client.output(video.id) == (tmp_path / "whole.mp4").read_bytes()


def test_a_server_killed_alone_takes_its_children_with_it_and_they_do_not_disturb_the_next(tmp_path: Path) -> None:
    source = make_clip(tmp_path / "clip.mp4", Clip(pts=[3600 * i for i in range(200)], size=(96, 128)))
    with Server(tmp_path / "data") as server:
        with server.client() as client:
            job = client.submit(source, Options(scale=2))
            until(lambda: (p := client.job(job.id).progress) is not None and (p.frame or 0) > 0)
            client.service()  # a planner, too
            until(lambda: len(server.children()) >= 2)
        children = server.children()
        server.kill(children=False)
        server.start()
        until(lambda: not any(Path(f"/proc/{pid}/cmdline").exists() for pid in children), 10)
        with server.client() as client:
            until(lambda: client.job(job.id).state == "running")
            client.cancel(job.id)


@pytest.mark.parametrize("busy", [False, True])
def test_sigterm_ends_it_in_three_seconds_and_a_running_job_waits(tmp_path: Path, busy: bool) -> None:
    source = make_clip(tmp_path / "clip.mp4", Clip(pts=[3600 * i for i in range(200)], size=(96, 128)))
    with Server(tmp_path / "data") as server, server.client() as client:
        if busy:
            job = client.submit(source, Options(scale=2))
            until(lambda: (p := client.job(job.id).progress) is not None and (p.frame or 0) > 0)
        else:
            job = client.submit(source, Options(scale=2), paused=True)
        with server.http() as http, http.stream("GET", "/api/events") as stream:
            next(stream.iter_lines())
            children = server.children()
            code, seconds = server.stop()
        assert code == 128 + signal.SIGTERM and seconds < STOP_S
        assert server.process is not None and server.process.stderr is not None
        assert server.process.stderr.read() == "stopping the server; its jobs go on at the next start\n"
        assert not any(Path(f"/proc/{pid}/cmdline").exists() for pid in children)
        server.start()
        with server.client() as again:
            assert again.job(job.id).state == ("paused" if not busy else again.job(job.id).state)
            until(lambda: again.job(job.id).state == ("running" if busy else "paused"))


def test_the_planner_waits_for_somebody_who_wants_plans(tmp_path: Path, photo: Path) -> None:
    with Server(tmp_path / "data") as server, server.client() as client:
        until(lambda: server.child("worker") is not None)
        client.wait(client.submit(photo, Options(scale=2)).id)
        assert server.child("planner") is None
        client.service()
        until(lambda: server.child("planner") is not None, 5)


def test_a_second_server_on_the_folder_is_refused(tmp_path: Path) -> None:
    with Server(tmp_path / "data"):
        command = [sys.executable, "-m", "upframe", "serve", "--port", "0", "--data", str(tmp_path / "data")]
        second = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert second.returncode == 6 and "another run" in second.stderr


def test_a_taken_port_is_told_in_one_line(tmp_path: Path) -> None:
    with Server(tmp_path / "one") as first:
        port = first.address.rpartition(":")[2]
        command = [sys.executable, "-m", "upframe", "serve", "--port", port, "--data", str(tmp_path / "two")]
        second = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert second.returncode == 6 and "cannot be listened on (address already in use)" in second.stderr
    assert second.stderr.count("\n") == 1


def test_a_device_that_is_not_there_is_refused_at_the_start(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "upframe", "serve", "--port", "0", "--data", str(tmp_path / "data"), "-d", "cuda:99"]
    refused = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert refused.returncode == 5 and not (tmp_path / "data").exists()
    assert "--device cuda:99" in refused.stderr and "CUDA devices are usable" in refused.stderr
    assert refused.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("flag", "value", "said"),
    [
        ("--quota", "-1", "--quota -1.0: must be above 0"),
        ("--max-upload", "nan", "--max-upload nan: must be above 0"),
        ("--keep", "0", "--keep 0.0: must be above 0"),
        ("--data", "FILE", "--data FILE: is not a folder"),
    ],
)
def test_flags_that_do_not_fit_are_refused_in_their_own_unit(tmp_path: Path, flag: str, value: str, said: str) -> None:
    (tmp_path / "FILE").touch()
    command = [sys.executable, "-m", "upframe", "serve", "--port", "0", flag, value]
    refused = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, cwd=tmp_path)
    assert (refused.returncode, said in refused.stderr, refused.stderr.count("\n")) == (2, True, 1), refused.stderr


def test_a_queue_of_another_version_is_left_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    database = sqlite3.connect(tmp_path / "data" / "queue.sqlite3")
    database.execute("PRAGMA user_version=99")
    database.close()
    command = [sys.executable, "-m", "upframe", "serve", "--port", "0", "--data", str(tmp_path / "data")]
    refused = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert refused.returncode == 6 and "was made by another version of upframe" in refused.stderr


def test_the_first_page_comes_before_torch_is_loaded_and_the_server_never_loads_it(tmp_path: Path) -> None:
    code = (
        "import sys\nfrom upframe import cli\ntry:\n    cli.main(sys.argv[1:])\nfinally:\n"
        "    import json\n    loaded = [m for m in ('torch', 'numpy', 'PIL', 'av') if m in sys.modules]\n"
        "    print(json.dumps(loaded), file=sys.stderr)\n"
    )
    command = [sys.executable, "-c", code, "serve", "--port", "0", "--data", str(tmp_path / "data"), "--json"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stderr is not None
    import httpx

    address = json.loads(process.stdout.readline())["address"]
    for path in ("", "api/models", "api/service", "api/jobs", "api/docs", "api/openapi.json", "metrics", "healthz"):
        assert httpx.get(address + path, trust_env=False, timeout=60).status_code == 200
    with within(STOP_S):
        process.send_signal(signal.SIGTERM)
        process.wait(30)
    assert json.loads(process.stderr.read().splitlines()[-1]) == []


def test_modules_in_the_folder_of_the_server_are_not_run(tmp_path: Path, photo: Path) -> None:
    here = tmp_path / "downloads"
    here.mkdir()
    for name in ("torch", "numpy", "PIL", "av", "upframe"):
        (here / f"{name}.py").write_text(f"open({str(tmp_path / 'run')!r}, 'w').close(); raise SystemExit(1)")
    with Server(tmp_path / "data", cwd=here) as server, server.client() as client:
        job = client.wait(client.submit(photo, Options(scale=2)).id)
        assert job.state == "done", job.error
        with server.http() as http:
            assert http.get(f"/api/jobs/{job.id}/thumbnail").status_code == 200
    assert not (tmp_path / "run").exists()


def test_ended_jobs_expire_with_all_their_files(tmp_path: Path, photo: Path) -> None:
    day = 1 / 86_400
    with Server(tmp_path / "data", "--keep", str(3 * day)) as server, server.client() as client:
        job = client.wait(client.submit(photo, Options(scale=2)).id)
        assert job.expires is not None and job.ended is not None and 2.9 < job.expires - job.ended < 3.1
        kept = client.submit(photo, Options(scale=2), paused=True)
        (server.data / "jobs" / "0123456789abcdef").mkdir()  # of a job that a power cut has undone
        time.sleep(3.2)
        server.stop()
        server.start()
        with server.client() as again:
            until(lambda: [one.id for one in again.jobs()] == [kept.id])
            until(lambda: [path.name for path in (server.data / "jobs").iterdir()] == [kept.id])
