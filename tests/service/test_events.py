"""Events: in order, replayed, ten thousand of them, and for slow listeners."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path

import pytest

from serving import Server, until, within
from upframe.client import Client, Options
from upframe.service import wire
from upframe.service.store import Store, StoredJob

pytestmark = pytest.mark.slow

MANY = 10_000


def test_events_of_a_job_come_in_order_and_again_from_any_number(client: Client, photo: Path) -> None:
    job = client.submit(photo, Options(scale=2))
    seen = list(client.events(job.id))
    lasting = [event for event in seen if event.id is not None]
    assert [event.event for event in lasting] == ["queued", "started", "done"]
    assert seen[-1].state is not None and seen[-1].state.state == "done"
    numbers = [event.id for event in lasting]
    assert numbers == sorted(numbers, key=lambda id: id or 0)
    again = list(client.events(job.id, after=lasting[0].id))
    assert [event.id for event in again] == numbers[1:]


def test_a_last_event_id_that_is_no_number_is_refused_and_not_ignored(server: Server) -> None:
    with server.http() as http:
        answer = http.get("/api/events", headers={"last-event-id": "abc"})
        assert answer.status_code == 422 and "abc" not in answer.json()["happened"]


def test_last_event_id_replays_as_browsers_send_it(server: Server, client: Client, photo: Path) -> None:
    first = client.wait(client.submit(photo, Options(scale=2)).id)
    with server.http() as http:
        last = http.get("/api/jobs").json()["last_event"]
        second = client.wait(client.submit(photo, Options(scale=2)).id)
        with http.stream("GET", "/api/events", headers={"last-event-id": str(last)}) as stream:
            names = []
            for line in stream.iter_lines():
                if line.startswith("data:"):
                    event = json.loads(line.removeprefix("data: "))
                    assert event["job"] == second.id != first.id
                    names.append(event["event"])
                    if event["event"] == "done":
                        break
    assert names == ["queued", "started", "done"]


def test_all_events_come_as_they_happen(server: Server, client: Client, photo: Path) -> None:
    heard: list[wire.Event] = []

    def listen() -> None:
        with server.client() as other:
            for event in other.events():
                heard.append(event)
                if event.event == "deleted":
                    return

    listener = threading.Thread(target=listen)
    listener.start()
    time.sleep(0.5)
    job = client.wait(client.submit(photo, Options(scale=2)).id)
    until(lambda: any(event.event == "done" for event in heard))  # deleting a job removes its events
    client.delete(job.id)
    listener.join(30)
    assert [event.event for event in heard if event.id is not None] == ["queued", "started", "done", "deleted"]
    assert heard[-1].state is None


def test_ten_thousand_events_are_replayed_whole_and_quickly(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    store = Store(data / "queue.sqlite3")
    job = wire.Job(
        id="0123456789abcdef", name="x.png", state="done", position=1, options=wire.Options(), created=0, input_bytes=1
    )
    store.add(StoredJob(job, tmp_path / "x.png"), [("notice", {"id": str(n), "message": "x" * 50}) for n in range(MANY)])
    store.close()
    path = f"/api/jobs/{job.id}/events"
    with Server(data) as server, server.client() as client, server.http() as slow, slow.stream("GET", path) as stalled:
        next(stalled.iter_lines())  # and reads no more: it must hinder nobody
        with within(30):
            events = list(client.events(job.id))
        with within(2):
            client.health()
    assert [event.data["id"] for event in events] == [str(n) for n in range(MANY)]


def test_figures_count_what_happened(server: Server, client: Client, photo: Path) -> None:
    def value(name: str) -> float:
        with server.http() as http:
            lines = http.get("/metrics").text.splitlines()
        return float(next(line for line in lines if line.startswith(f"{name} ")).rpartition(" ")[2])

    before = value('upframe_jobs_ended_total{state="done"}'), value("upframe_job_input_bytes_total")
    client.wait(client.submit(photo, Options(scale=2)).id)
    assert value('upframe_jobs_ended_total{state="done"}') == before[0] + 1
    assert value("upframe_job_input_bytes_total") == before[1] + photo.stat().st_size
