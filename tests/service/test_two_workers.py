"""Several devices: a worker each, which run their jobs at the same time and do not hurt each other."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from conftest import Upframe
from serving import Server, until
from upframe.client import Client, Options
from upframe.service import wire
from upframe.service.devices import workers_for
from video_files import Clip, make_clip

SEGMENT = 6


def test_workers_have_names_of_their_own() -> None:
    devices = ("cuda:0", "cpu", "cpu", "cuda:1", "cpu")
    assert [name for name, _ in workers_for(devices)] == [
        "worker-cuda-0", "worker-cpu", "worker-cpu-2", "worker-cuda-1", "worker-cpu-3",
    ]  # fmt: skip
    assert tuple(device for _, device in workers_for(devices)) == devices


def is_at_work(job: wire.Job, frame: int = 1) -> bool:
    return job.state == "running" and job.progress is not None and (job.progress.frame or 0) >= frame


@pytest.mark.slow
def test_two_workers_run_two_jobs_at_once_and_a_crash_of_one_leaves_the_other_alone(tmp_path: Path, upframe: Upframe) -> None:
    sources = [
        make_clip(tmp_path / f"{name}.mp4", Clip(pts=[3600 * i for i in range(frames)], size=(48, 64)))
        for name, frames in (("a", 150), ("b", 170))
    ]
    options = Options(scale=2, threads=1, video=wire.VideoOptions(segment_frames=SEGMENT))
    with Server(tmp_path / "data", "-d", "cpu", "-d", "cpu") as server, server.client() as client:
        first, second = (client.submit(source, options).id for source in sources)
        until(lambda: all(is_at_work(client.job(id), 2 * SEGMENT) for id in (first, second)))
        killed = server.child("worker-cpu-2")
        assert killed is not None
        os.kill(killed, signal.SIGKILL)
        done = [client.wait(id) for id in (first, second)]
        assert [job.state for job in done] == ["done", "done"]
        assert sorted(job.attempts for job in done) == [1, 2]
        crashed = next(job for job in done if job.attempts == 2)
        assert resumed_frames(client, crashed.id) >= SEGMENT
        for source, job in zip(sources, done, strict=True):
            whole = tmp_path / f"whole-{source.name}"
            flags = ["-s", "2", "--window", str(SEGMENT), "--threads", "1", "-q"]
            assert upframe("upscale", source, "-o", whole, *flags).code == 0
            assert client.output(job.id) == whole.read_bytes()


def resumed_frames(client: Client, id: str) -> int:
    """Frames of finished work that the last attempt found."""
    return max(event.data["frames_resumed"] for event in client.events(id) if event.event == "video")
