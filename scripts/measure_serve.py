"""Measure `upframe serve` on this machine: start, cancel, kills, and many clients.

Usage: python scripts/measure_serve.py {start,cancel,kills,load,photo} [--kills 20] [--clients 50] [--photos 500] [--seed 0]

* start: time from the command to the first byte of the page, and from there to the first plan.
* cancel: time of a cancel while a video runs, over several.
* photo: a photo of one megapixel, from its first byte to its output, beside the command line.
* kills: kill server and workers at random moments of one video, and compare the output with an undisturbed run.
* load: many clients send many small photos; none may be lost or made twice, and the memory of the server must stay flat.

Exits with 1 if a check fails.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
from PIL import Image

from upframe.client import Client, Options, Source
from upframe.service.wire import VideoOptions

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "support"))
from serving import Server, until
from video_files import Clip, make_clip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["start", "cancel", "kills", "load", "photo"])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--clients", type=int, default=50)
    parser.add_argument("--photos", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        measured = {"start": start, "cancel": cancel, "kills": kills, "load": load, "photo": photo}[given.what]
        return measured(Path(folder), given)


def say(text: str) -> None:
    print(text, flush=True)  # noqa: T201


def start(folder: Path, given: argparse.Namespace) -> int:
    firsts, plans = [], []
    picture = make_picture(folder / "photo.png", 24, 32)
    for number in range(5):
        server, began = Server(folder / str(number)), time.perf_counter()
        with server, server.http() as http, server.client() as client:
            assert http.get("/").status_code == 200
            firsts.append(time.perf_counter() - began)
            began = time.perf_counter()
            client.service()
            client.plan(Source(upload=client.upload(picture).id), Options(scale=2))
            plans.append(time.perf_counter() - began)
    say(f"first byte of the page after {spread(firsts)} s, its first plan {spread(plans)} s later")
    return 0


def cancel(folder: Path, given: argparse.Namespace) -> int:
    clip = make_clip(folder / "clip.mp4", Clip(pts=[3600 * i for i in range(2000)], size=(96, 128)))
    taken = []
    with Server(folder / "data") as server, server.client() as client:
        upload = client.upload(clip)
        for number in range(10):
            job = client.submit(Source(upload=upload.id), Options(scale=4))
            until(lambda job=job: client.job(job.id).plan is not None, 120)
            time.sleep(number / 10)
            began = time.perf_counter()
            assert client.cancel(job.id).state == "cancelled"
            taken.append(time.perf_counter() - began)
    say(f"cancel answered after {spread(taken)} s")
    return int(max(taken) >= 2)


def photo(folder: Path, given: argparse.Namespace) -> int:
    picture = make_picture(folder / "photo.png", 1000, 1000)
    served, command = [], []
    with Server(folder / "data") as server, server.client() as client:
        client.wait(client.submit(picture, Options(scale=2)).id)  # the first loads the network
        for number in range(3):
            began = time.perf_counter()
            data = client.output(client.wait(client.submit(picture, Options(scale=2)).id).id)
            served.append(time.perf_counter() - began)
            out, began = folder / f"{number}.png", time.perf_counter()
            words = [sys.executable, "-m", "upframe", str(picture), "-s", "2", "-o", str(out), "-q"]
            subprocess.run(words, check=True)  # noqa: S603
            command.append(time.perf_counter() - began)
            assert out.read_bytes() == data
    say(f"one megapixel x2: {spread(served)} s by the service, {spread(command)} s by the command line")
    return 0


def kills(folder: Path, given: argparse.Namespace) -> int:
    """The output after all kills must be the output of an undisturbed run, byte for byte."""
    clip = make_clip(folder / "clip.mp4", Clip(pts=[3600 * i for i in range(120)], size=(48, 64)))
    options = Options(scale=2, video=VideoOptions(segment_frames=6))
    moments = random.Random(given.seed)  # noqa: S311 (no secret)
    recoveries: list[float] = []
    server = Server(folder / "data")
    with server:
        with server.client() as client:
            wanted = digest(client, client.submit(clip, options).id)
            job = client.submit(clip, options)
        for number in range(given.kills):
            with server.client() as client:
                if state_once_at_work(client, job.id) == "done":
                    say(f"done after {number} kills; one more begins")
                    assert digest(client, job.id) == wanted
                    job = client.submit(clip, options)
            time.sleep(moments.uniform(0, 5))
            if moments.random() < 0.25:
                worker = server.child("worker")
                if worker is not None:
                    os.kill(worker, signal.SIGKILL)
                continue
            server.kill(children=moments.random() < 0.5)
            began = time.perf_counter()
            server.start()
            with server.client() as client:
                client.job(job.id)
                recoveries.append(time.perf_counter() - began)
        with server.client() as client:
            same = digest(client, job.id) == wanted
    say(f"{given.kills} kills: output {'equal' if same else 'DIFFERENT'}; the list was back after {spread(recoveries)} s")
    return int(not same)


def state_once_at_work(client: Client, id: str) -> str:
    until(lambda: client.job(id).state in ("running", "done", "failed"), 120)
    job = client.job(id)
    assert job.state != "failed", job.error
    return job.state


def load(folder: Path, given: argparse.Namespace) -> int:
    """Each client sends its share of pictures, all different, and fetches the results."""
    troubles: list[str] = []
    made: list[str] = []
    resident: list[float] = []
    with Server(folder / "data") as server:
        began = time.perf_counter()

        def send(client_number: int) -> None:
            try:
                with server.client(timeout_s=300) as client:
                    ids = []
                    for number in range(client_number, given.photos, given.clients):
                        picture = make_picture(folder / f"{number}.png", 16 + number % 7, 16 + number % 5, seed=number)
                        ids.append(client.submit(picture, Options(scale=2), batch="load").id)
                    for id in ids:
                        job = client.wait(id, timeout_s=3600)
                        assert job.state == "done" and job.attempts == 1, job
                        made.append(hashlib.sha256(client.output(id)).hexdigest())
            except Exception as error:
                troubles.append(f"client {client_number}: {type(error).__name__}: {error}")

        threads = [threading.Thread(target=send, args=(number,)) for number in range(given.clients)]
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            resident.append(resident_mb(server.pid))
            time.sleep(1)
        seconds = time.perf_counter() - began
        with server.client() as client:
            jobs = client.jobs(batch="load")
            states = {job.state for job in jobs}
            events = sum(event.event == "done" for job in jobs for event in client.events(job.id))
    lost = given.photos - len(made)
    say(
        f"{given.clients} clients, {given.photos} photos in {seconds:.0f} s; {lost} lost, states {states}, {events} done events"
    )
    quarter = max(len(resident) // 4, 1)
    early, late = statistics.median(resident[quarter : 2 * quarter] or resident), statistics.median(resident[-quarter:])
    say(
        f"memory of the server: {early:.0f} MB in the second quarter, {late:.0f} MB in the last, {max(resident):.0f} MB at most"
    )
    say("\n".join(troubles[:5]))
    return int(bool(troubles) or lost != 0 or len(jobs) != given.photos or events != given.photos or states != {"done"})


def make_picture(path: Path, height: int, width: int, *, seed: int = 0) -> Path:
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width]
    waves = [128 + 90 * np.sin((x * (k + 1) + y * 2) / 25 + k) for k in range(3)]
    pixels = np.stack(waves, -1) + rng.normal(0, 3, (height, width, 3))
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(path)
    return path


def digest(client: Client, id: str) -> str:
    job = client.wait(id, timeout_s=600)
    assert job.state == "done", job.error
    return hashlib.sha256(client.output(id)).hexdigest()


def resident_mb(pid: int) -> float:
    fields = Path(f"/proc/{pid}/statm").read_text().split()
    return int(fields[1]) * 4096 / 1e6


def spread(values: list[float]) -> str:
    return f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})" if values else "none"


if __name__ == "__main__":
    sys.exit(main())
