"""The parts of the service that need no server: the queue's file, settings, ZIPs, bounds of plans."""

from __future__ import annotations

import asyncio
import io
import os
import sqlite3
import threading
import zipfile
from pathlib import Path
from typing import Any

import pytest

from serving import within
from upframe.errors import OptionError, OutputError, UsageError
from upframe.service import wire
from upframe.service.announcing import Announcer
from upframe.service.archive import archive
from upframe.service.crew import Child
from upframe.service.problems import Gone, Problem
from upframe.service.queue import JobQueue
from upframe.service.settings import ServiceLimits, Settings
from upframe.service.storage import Storage, known_suffix
from upframe.service.store import Store, StoredJob
from video_files import make_clip


def a_job(id: str, position: float, **changes: Any) -> wire.Job:
    facts: dict[str, Any] = {"name": "x.png", "state": "queued", "created": 0.0, "input_bytes": 1, "options": wire.Options()}
    return wire.Job(id=id, position=position, **(facts | changes))


def test_a_job_is_read_as_it_was_written(tmp_path: Path) -> None:
    store = Store(tmp_path / "q")
    job = a_job("0" * 16, 1.5, options=wire.Options(scale=2, video=wire.VideoOptions(crf=3)), batch="b")
    store.add(StoredJob(job, tmp_path / "in.png"), [("queued", {})])
    job.state, job.error = "failed", wire.Error(error="x: y.", kind="InputError", exit_code=3)
    store.save(StoredJob(job, tmp_path / "in.png", tmp_path / "out.png", 2, 0.25), ("failed", {"error": "x: y."}))
    store.close()
    again = Store(tmp_path / "q")
    assert again.get(job.id) == StoredJob(job, tmp_path / "in.png", tmp_path / "out.png", 2, 0.25)
    assert [(event.event, event.data) for event in again.events_after(0)] == [("queued", {}), ("failed", {"error": "x: y."})]
    assert again.counts() == {"failed": 1} and again.next_queued() is None
    again.close()


def test_a_change_and_its_event_are_written_both_or_neither(tmp_path: Path) -> None:
    store = Store(tmp_path / "q")
    job = a_job("0" * 16, 1)
    store.add(StoredJob(job, tmp_path / "in.png"), [])
    job.state = "running"
    with pytest.raises(TypeError):
        store.save(StoredJob(job, tmp_path / "in.png"), ("started", {"no": object()}))
    stored = store.get(job.id)
    assert stored is not None and stored.job.state == "queued" and store.events_after(0) == []
    store.close()


def test_numbers_of_events_are_never_used_again(tmp_path: Path) -> None:
    store = Store(tmp_path / "q")
    store.add(StoredJob(a_job("0" * 16, 1), tmp_path / "in.png"), [("queued", {}), ("started", {})])
    last = store.last_event()
    deleted = store.remove("0" * 16)
    assert [event.event for event in store.events_after(0)] == ["deleted"] and deleted.id == last + 1
    store.forget_events(deleted.time + 1)
    assert store.events_after(0) == [] and store.last_event() == last + 1
    store.close()


def test_a_file_that_is_no_queue_is_left_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "q").write_bytes(b"my diary" * 1000)
    with pytest.raises(OutputError, match="cannot be used"):
        Store(tmp_path / "q")
    assert (tmp_path / "q").read_bytes() == b"my diary" * 1000


def test_the_queue_takes_only_so_many_jobs_and_leaves_no_folder_of_a_refused_one(tmp_path: Path) -> None:
    storage = Storage(tmp_path / "data")
    store = Store(storage.database)
    queue = JobQueue(store, storage, Announcer(), [], ServiceLimits(jobs=2))
    source = tmp_path / "x.png"
    source.write_bytes(b"x")
    new = wire.NewJob(source=wire.Source())
    for _ in range(2):
        queue.add(source=source, is_own=True, name="x.png", new=new)
    with pytest.raises(Problem) as refused:
        queue.add(source=source, is_own=True, name="x.png", new=new)
    assert refused.value.status_code == 429 and len(storage.job_ids()) == 2
    store.close()


def test_a_job_that_cannot_be_written_leaves_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    storage = Storage(tmp_path / "data")
    store = Store(storage.database)
    queue = JobQueue(store, storage, Announcer(), [], ServiceLimits())
    source = tmp_path / "x.png"
    source.write_bytes(b"x")
    store._db.execute("CREATE TRIGGER full BEFORE INSERT ON jobs BEGIN SELECT RAISE(FAIL, 'disk is full'); END")
    with pytest.raises(sqlite3.Error, match="disk is full"):
        queue.add(source=source, is_own=True, name="x.png", new=wire.NewJob(source=wire.Source()))
    assert storage.job_ids() == set()
    store.close()


def test_linked_inputs_count_once(tmp_path: Path) -> None:
    storage = Storage(tmp_path / "data")
    upload = storage.upload("0" * 16, "x.png")
    upload.write_bytes(bytes(10_000))
    before = storage.used_bytes()
    storage.job("1" * 16).take(upload, "x.png")
    assert storage.used_bytes() == before


def test_only_known_extensions_reach_the_disk() -> None:
    names = {
        "a.PNG": ".png",
        "b.mp4": ".mp4",
        "c.exe": "",
        "d": "",
        "e.png.sh": "",
        "f.svg": "",
        ".png": ".png",
        "../g.tif": ".tif",
    }
    assert {name: known_suffix(name) for name in names} == names | {".png": ""}


# Settings -------------------------------------------------------------------------------------------------------------
def test_settings_check_themselves(tmp_path: Path) -> None:
    for wrong in ({"port": 70_000}, {"allow": (tmp_path / "nothing",)}, {"devices": ("gpu",)}):
        with pytest.raises(OptionError):
            Settings(**wrong)  # type: ignore[arg-type]
    with pytest.raises(OptionError, match="keep"):
        Settings(limits=ServiceLimits(keep_s=0))
    for host in ("0.0.0.0", "192.0.2.1", "::", "example.com"):
        with pytest.raises(UsageError, match="--token-file"):
            Settings(host=host)
        assert Settings(host=host, token="x" * 20).token
    for host in ("127.0.0.1", "::1", "localhost", "127.1.2.3"):
        assert Settings(host=host).is_loopback
    assert "x" * 20 not in repr(Settings(token="x" * 20))


# ZIP ------------------------------------------------------------------------------------------------------------------
def test_a_zip_holds_no_more_than_a_chunk_in_memory_and_skips_what_is_gone(tmp_path: Path) -> None:
    big, small = tmp_path / "big", tmp_path / "small"
    big.write_bytes(os.urandom(5 << 20))
    small.write_bytes(b"small")
    pieces = list(archive([(big, "same.bin"), (tmp_path / "gone", "gone.bin"), (small, "SAME.bin"), (small, "../x/..")]))
    assert max(map(len, pieces)) < 1 << 20
    with zipfile.ZipFile(io.BytesIO(b"".join(pieces))) as made:
        assert made.testzip() is None and made.namelist() == ["same.bin", "SAME (2).bin", "file"]
        assert made.read("same.bin") == big.read_bytes() and made.read("SAME (2).bin") == b"small"


# Children -------------------------------------------------------------------------------------------------------------
@pytest.mark.slow
def test_a_child_that_babbles_or_ends_costs_one_request(tmp_path: Path) -> None:
    """Its lines are data: a line that is no answer ends it, and the next request gets a new child."""

    async def asked(code: str, *, timeout_s: float = 30) -> object:
        child = Child("test", root=tmp_path, logs=tmp_path)
        child._command[1:] = ["-c", code]
        try:
            return await child.ask("anything", {}, timeout_s=timeout_s)
        finally:
            await child.end()

    answer = "import sys, json; n = json.loads(sys.stdin.readline())['number']; "
    assert asyncio.run(asked(answer + "print(json.dumps({'number': n, 'result': {'x': 1}}), flush=True)")) == {"x": 1}
    for code in ("print('no json')", "import os; os.abort()", "raise SystemExit(3)", "print('[1]')", "print('{}' * 9)"):
        with pytest.raises(Gone) as gone:
            asyncio.run(asked(code))
        assert "took longer" not in gone.value.reason
    with pytest.raises(Gone, match=r"took longer than 0\.3 s and was ended"), within(5):
        asyncio.run(asked("import time; time.sleep(60)", timeout_s=0.3))


# Bounds ---------------------------------------------------------------------------------------------------------------
@pytest.mark.slow
def test_long_videos_are_refused_by_their_headers(tmp_path: Path) -> None:
    from upframe.service.child.desk import Desk
    from upframe.service.child.planning import plan

    request = {
        "input": str(make_clip(tmp_path / "input.mp4")),
        "name": "talk.mp4",
        "outputs": str(tmp_path / "output"),
        "options": wire.Options(scale=2).model_dump(),
        "pixels": 10**8,
        "output_pixels": 10**8,
        "video_seconds": 0.1,
        "room_bytes": None,
    }
    desk = Desk("cpu", lambda event, data: None, threading.Event())
    answer = plan(request, desk)
    assert answer["error"]["error"].startswith("talk.mp4: is 0 s long, and this service takes 0 s at most")
    assert "plan" in plan(request | {"video_seconds": 60}, desk)
