"""The files that an interrupted job keeps, and when they are refused."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from upframe.errors import BusyError, UsageError
from upframe.jobs.video.geometry import is_recorded_geometry
from upframe.jobs.video.workspace import OPTIONS, Fact, Record, WorkFolder, recorded, work_path


def record(*, crf: int = 20, codec: str = "h264", source: str = "1234") -> Record:
    facts = {
        "source": {"input": Fact(source, "in.mkv")},
        OPTIONS: {"video.crf": Fact(str(crf)), "video.codec": Fact(codec)},
        "encoding": {"settings": Fact(f"crf={crf}")},
    }
    return Record(facts, {"tile": [64, 64]})


JOB = record()


@contextlib.contextmanager
def begun(output: Path, job: Record = JOB, *, restart: bool = False) -> Iterator[WorkFolder]:
    with WorkFolder(output) as work:
        work.begin(job, restart=restart)
        yield work


def test_a_committed_segment_is_found_again_and_a_scratch_file_is_not(tmp_path: Path) -> None:
    with begun(tmp_path / "out.mp4") as work:
        work.scratch(0).write_bytes(b"zero")
        work.commit(0)
        work.scratch(1).write_bytes(b"half")
    with begun(tmp_path / "out.mp4") as work:
        assert work.is_done(0)
        assert work.segment(0).read_bytes() == b"zero"
        assert not work.is_done(1)
        work.remove()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("damage", [b"", b"zer", b"zerO"])
def test_a_damaged_segment_is_dropped(tmp_path: Path, damage: bytes) -> None:
    with begun(tmp_path / "out.mp4") as work:
        work.scratch(0).write_bytes(b"zero")
        work.commit(0)
        work.segment(0).write_bytes(damage)
        assert not work.is_done(0)
        assert not work.segment(0).exists()


def test_record_comes_back_as_it_was(tmp_path: Path) -> None:
    with begun(tmp_path / "out.mp4"):
        assert recorded(tmp_path / "out.mp4") == JOB
    assert recorded(tmp_path / "other.mp4") is None


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"crf": 23}, "crf was 20 in an interrupted run and is 23 now (`video.crf`)"),
        ({"crf": 23, "codec": "av1"}, "is 23 now (`video.crf`); codec was h264 in an interrupted run and is av1 now"),
        ({"source": "5678"}, "the input is not the same as in an interrupted run"),
    ],
)
def test_another_job_is_refused_in_words_and_may_be_begun_afresh(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    with begun(tmp_path / "out.mp4") as work:
        work.scratch(0).write_bytes(b"zero")
        work.commit(0)
    with pytest.raises(UsageError) as caught, begun(tmp_path / "out.mp4", record(**changes)):
        pass
    assert said in str(caught.value)
    assert "settings" not in str(caught.value)  # they follow from the option
    with begun(tmp_path / "out.mp4") as work:
        assert work.is_done(0)  # the attempt cost nothing
    with begun(tmp_path / "out.mp4", record(**changes), restart=True) as work:
        assert not work.is_done(0)


def test_work_of_the_first_release_is_refused_in_one_line(tmp_path: Path) -> None:
    folder = work_path(tmp_path / "out.mp4")
    folder.mkdir()
    (folder / "job.json").write_text(json.dumps({"version": "0.1.0", "input": "75166198b8", "tile": [64, 64]}))
    with pytest.raises(UsageError, match=r"another version of upframe.*format 1, expected 2.*`video\.restart`") as caught:
        recorded(tmp_path / "out.mp4")
    assert "\n" not in str(caught.value)
    with pytest.raises(UsageError, match="another version"), begun(tmp_path / "out.mp4"):
        pass
    with begun(tmp_path / "out.mp4", restart=True):
        assert recorded(tmp_path / "out.mp4") == JOB


def test_a_job_file_cut_short_starts_afresh(tmp_path: Path) -> None:
    with begun(tmp_path / "out.mp4") as work:
        work.scratch(0).write_bytes(b"zero")
        work.commit(0)
    (work.path / "job.json").write_text('{"inp')
    with begun(tmp_path / "out.mp4") as work:
        assert not work.is_done(0)


@pytest.mark.parametrize(
    "text",
    [b"[" * 200_000, b"\xff", b"5", b"[]", b'{"format": "x"}', b'{"format": 2, "facts": {"a": 5}, "geometry": {}}'],
    ids=repr,
)
def test_a_job_file_changed_by_hand_starts_afresh(tmp_path: Path, text: bytes) -> None:
    with begun(tmp_path / "out.mp4") as work:
        work.scratch(0).write_bytes(b"zero")
        work.commit(0)
    (work.path / "job.json").write_bytes(text)
    with begun(tmp_path / "out.mp4") as work:
        assert not work.is_done(0)


@pytest.mark.parametrize("ending", ["seg", "sha256"])
def test_folders_and_bytes_in_the_place_of_a_segment_are_no_segment(tmp_path: Path, ending: str) -> None:
    with begun(tmp_path / "out.mp4") as work:
        for index in range(2):
            work.scratch(index).write_bytes(b"zero")
            work.commit(index)
        work.segment(0).with_suffix(f".{ending}").unlink()
        work.segment(0).with_suffix(f".{ending}").mkdir()
        work.segment(1).with_suffix(".sha256").write_bytes(b"\xff" * 64)
        assert not work.is_done(0)
        assert not work.is_done(1)


@pytest.mark.parametrize(
    "changed",
    [{"tile": "x"}, {"tile": [1, 2, 3]}, {"tile": [0, 1]}, {"tile": None}, {"longest": -1}, {"window": "q"}, {"asked": []}],
    ids=str,
)
def test_a_geometry_changed_by_hand_is_none(changed: dict[str, Any]) -> None:
    good = {"tile": [48, 64], "window": None, "longest": 3, "asked": {"tile": "auto", "longest": None, "window": None}}
    assert is_recorded_geometry(good)
    assert not is_recorded_geometry(good | changed)


def test_a_second_process_is_refused_and_a_killed_one_leaves_no_lock(tmp_path: Path) -> None:
    code = (
        "import time; from pathlib import Path; from upframe.jobs.video.workspace import WorkFolder\n"
        f"with WorkFolder(Path({str(tmp_path / 'out.mp4')!r})): print('in', flush=True); time.sleep(60)"
    )
    other = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    try:
        assert other.stdout is not None
        assert other.stdout.readline() == "in\n"
        with pytest.raises(BusyError, match="another run"), begun(tmp_path / "out.mp4"):
            pass
    finally:
        other.kill()
        other.wait()
    with begun(tmp_path / "out.mp4"):
        pass


def test_a_folder_in_which_nothing_was_begun_goes(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), WorkFolder(tmp_path / "out.mp4"):
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []
