"""Files that an interrupted job keeps, and when it refuses to go on."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from upframe.errors import UsageError
from upframe.jobs.video.workspace import WorkFolder

KEY = {"input": "a.mkv", "scale": 4}


def test_a_committed_segment_is_found_again_and_a_scratch_file_is_not(tmp_path: Path) -> None:
    with WorkFolder(tmp_path / "out.mp4", KEY) as work:
        work.scratch(0).write_bytes(b"zero")
        work.commit(0)
        work.scratch(1).write_bytes(b"half")
    with WorkFolder(tmp_path / "out.mp4", KEY) as work:
        assert work.is_done(0)
        assert work.segment(0).read_bytes() == b"zero"
        assert not work.is_done(1)
        work.remove()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("damage", [b"", b"zer", b"zerO"])
def test_a_damaged_segment_is_dropped(tmp_path: Path, damage: bytes) -> None:
    with WorkFolder(tmp_path / "out.mp4", KEY) as work:
        work.scratch(0).write_bytes(b"zero")
        work.commit(0)
        work.segment(0).write_bytes(damage)
        assert not work.is_done(0)
        assert not work.segment(0).exists()


def test_another_job_is_refused_and_says_what_differs(tmp_path: Path) -> None:
    with WorkFolder(tmp_path / "out.mp4", KEY) as work:
        work.scratch(0).write_bytes(b"zero")
        work.commit(0)
    with pytest.raises(UsageError, match="scale was 4, is 2"), WorkFolder(tmp_path / "out.mp4", {**KEY, "scale": 2}):
        pass
    with WorkFolder(tmp_path / "out.mp4", {**KEY, "scale": 2}, restart=True) as work:
        assert not work.is_done(0)


def test_a_job_file_cut_short_starts_afresh(tmp_path: Path) -> None:
    with WorkFolder(tmp_path / "out.mp4", KEY) as work:
        work.scratch(0).write_bytes(b"zero")
        work.commit(0)
    (work.path / "job.json").write_text('{"inp')
    with WorkFolder(tmp_path / "out.mp4", KEY) as work:
        assert not work.is_done(0)


def test_a_second_process_is_refused_and_a_killed_one_leaves_no_lock(tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from upframe.jobs.video.workspace import WorkFolder\n"
        f"with WorkFolder(Path({str(tmp_path / 'out.mp4')!r}), {KEY!r}): print('in', flush=True); time.sleep(60)"
    )
    other = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    try:
        assert other.stdout is not None
        assert other.stdout.readline() == "in\n"
        with pytest.raises(UsageError, match="another process"), WorkFolder(tmp_path / "out.mp4", KEY):
            pass
    finally:
        other.kill()
        other.wait()
    with WorkFolder(tmp_path / "out.mp4", KEY):
        pass
