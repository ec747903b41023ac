"""Files appear whole or not at all, one process writes them at a time, and no crash or error leaves anything."""

from __future__ import annotations

import errno
import io
import os
import pickle
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from upframe import files
from upframe.errors import OutputError, VerifyError
from upframe.files import (
    Lock,
    ScratchFolder,
    atomic_bytes,
    atomic_file,
    atomic_folder,
    atomic_path,
    atomic_text,
    check_room,
    folder_bytes,
    hidden_beside,
    link_file,
    part_path,
    put_in_place,
    scratch_folder,
    writing,
)

posix = pytest.mark.skipif(sys.platform == "win32", reason="Windows removes and renames no file that is open")


def contents(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


def by_handle(path: Path, data: bytes, check: files.Check | None = None) -> None:
    with atomic_file(path, check=check) as file:
        file.write(data)


def by_name(path: Path, data: bytes, check: files.Check | None = None) -> None:
    with atomic_path(path, check=check) as part:
        part.write_bytes(data)


both_ways = pytest.mark.parametrize("write", [by_handle, by_name])
Write = Callable[..., None]


# Whole or not at all --------------------------------------------------------------------------------------------------
@both_ways
def test_the_file_has_its_name_only_after_the_block(tmp_path: Path, write: Write) -> None:
    seen: list[list[str]] = []

    def check(part: Path) -> None:
        seen.append(contents(tmp_path))
        assert part.read_bytes() == b"new"

    (tmp_path / "a").write_bytes(b"old")
    write(tmp_path / "a", b"new", check)
    assert seen == [[".a.part", "a"]]
    assert (tmp_path / "a").read_bytes() == b"new" and contents(tmp_path) == ["a"]


@both_ways
def test_a_failed_check_keeps_the_old_file_and_leaves_nothing(tmp_path: Path, write: Write) -> None:
    def check(part: Path) -> None:
        raise VerifyError(part, "is not as promised")

    (tmp_path / "a").write_bytes(b"old")
    with pytest.raises(VerifyError):
        write(tmp_path / "a", b"new", check)
    assert (tmp_path / "a").read_bytes() == b"old" and contents(tmp_path) == ["a"]


@pytest.mark.parametrize("atomic", [atomic_file, atomic_path, atomic_folder])
@pytest.mark.parametrize("error", [OSError("of the producer"), ValueError(), KeyboardInterrupt()])
def test_an_error_of_the_block_passes_unchanged_and_leaves_nothing(
    tmp_path: Path, atomic: Callable[[Path], Any], error: BaseException
) -> None:
    with pytest.raises(type(error)) as caught, atomic(tmp_path / "a"):
        raise error
    assert caught.value is error and contents(tmp_path) == []


@both_ways
@pytest.mark.parametrize("failing", ["fsync", "replace"])
def test_a_full_disk_is_an_output_error_with_advice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write: Write, failing: str
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    (tmp_path / "a").write_bytes(b"old")
    monkeypatch.setattr(*((os, "fsync", full) if failing == "fsync" else (Path, "replace", full)))
    with pytest.raises(OutputError, match=r"a: cannot be written \(no space left on device\)\. Free some space"):
        write(tmp_path / "a", b"new")
    assert (tmp_path / "a").read_bytes() == b"old" and contents(tmp_path) == ["a"]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="needs a limit on the size of files")
def test_what_a_library_makes_of_a_full_disk_is_the_error_of_the_disk(tmp_path: Path) -> None:
    """torch raises a RuntimeError of its own while it handles that of the system."""
    code = (
        "import resource, signal, sys, torch; from pathlib import Path; from upframe.files import atomic_file\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN); resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))\n"
        "with atomic_file(Path(sys.argv[1])) as file: torch.save(torch.zeros(10**6), file)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "a")], capture_output=True, text=True, check=False)
    assert "a: cannot be written (file too large)" in done.stderr.splitlines()[-1]
    assert contents(tmp_path) == []


@pytest.mark.parametrize("atomic", [atomic_file, atomic_path])
def test_places_that_take_no_file_are_output_errors(tmp_path: Path, atomic: Callable[[Path], Any]) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    for path, advice in (("none/a", "Make the folder first"), ("folder", "Choose another name"), ("file/a", "another name")):
        with pytest.raises(OutputError, match=advice), atomic(tmp_path / path):
            raise AssertionError("the block must not be entered")
    assert contents(tmp_path) == ["file", "folder"]


def test_advice_can_be_given_by_who_knows_better(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="Set X"):
        atomic_bytes(tmp_path / "none" / "a", b"", advice="set X")


def test_the_replaced_file_can_be_kept(tmp_path: Path) -> None:
    for data in (b"1", b"2", b"3"):
        with atomic_file(tmp_path / "last", keep=tmp_path / "previous") as file:
            file.write(data)
    assert (tmp_path / "last").read_bytes() == b"3" and (tmp_path / "previous").read_bytes() == b"2"


def test_the_handle_reads_seeks_and_pickles_like_a_file(tmp_path: Path) -> None:
    with atomic_file(tmp_path / "a") as file:
        file.write(b"head....")
        pickle.dump({"a": 1}, file)
        file.seek(0)
        assert file.read(4) == b"head" and file.tell() == 4
        file.write(b"1234")
        with pytest.raises(io.UnsupportedOperation):
            file.fileno()
    data = (tmp_path / "a").read_bytes()
    assert data[:8] == b"head1234" and pickle.loads(data[8:]) == {"a": 1}


def test_tensors_are_saved_through_the_handle(tmp_path: Path) -> None:
    with atomic_file(tmp_path / "a.pth") as file:
        torch.save({"x": torch.arange(5)}, file)  # type: ignore[arg-type]
    assert torch.equal(torch.load(tmp_path / "a.pth")["x"], torch.arange(5))


def test_names_near_the_limit_have_part_names_within_it(tmp_path: Path) -> None:
    for name in ("n" * 255, "é" * 127, "short"):
        part = part_path(tmp_path / name)
        assert len(os.fsencode(part.name)) <= files.NAME_BYTES and part.name.startswith(".") and part.parent == tmp_path
        atomic_text(tmp_path / name, "x")
    assert hidden_beside(tmp_path / "a", "x") == tmp_path / ".a.x"
    assert part_path(tmp_path / ("n" * 255)) != part_path(tmp_path / ("n" * 254 + "m"))


@posix
def test_links_and_pipes_are_written_through(tmp_path: Path) -> None:
    (tmp_path / "real").touch()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    atomic_text(tmp_path / "link", "é")
    assert (tmp_path / "link").is_symlink() and (tmp_path / "real").read_text(encoding="utf-8") == "é"
    os.mkfifo(tmp_path / "pipe")
    reader = threading.Thread(target=lambda: read.append((tmp_path / "pipe").read_bytes()))
    read: list[bytes] = []
    reader.start()
    atomic_bytes(tmp_path / "pipe", b"through")
    reader.join()
    assert read == [b"through"]


def test_a_folder_appears_whole_and_the_first_of_two_wins(tmp_path: Path) -> None:
    with atomic_folder(tmp_path / "a") as slow:
        (slow / "f").write_text("slow")
        with atomic_folder(tmp_path / "a") as fast:
            (fast / "f").write_text("fast")
            assert not (tmp_path / "a").exists()
    assert (tmp_path / "a" / "f").read_text() == "fast" and contents(tmp_path) == ["a", "a/f"]


def test_a_finished_file_or_folder_is_put_in_place(tmp_path: Path) -> None:
    (tmp_path / "made").write_text("new")
    (tmp_path / "a").write_text("old")
    put_in_place(tmp_path / "made", tmp_path / "a")
    (tmp_path / "frames").mkdir()
    (tmp_path / "frames" / "0").write_text("0")
    put_in_place(tmp_path / "frames", tmp_path / "b")
    assert contents(tmp_path) == ["a", "b", "b/0"] and (tmp_path / "a").read_text() == "new"
    with pytest.raises(OutputError, match="c: cannot be written"):
        put_in_place(tmp_path / "none", tmp_path / "c")


def test_everything_is_synced_before_its_rename(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The order is what a power cut tests: bytes, then the name, then the folder."""
    told: list[str] = []
    sync, rename = os.fsync, Path.replace

    def synced(handle: int) -> None:
        told.append("folder" if Path(f"/proc/self/fd/{handle}").is_dir() else "file")
        sync(handle)

    def renamed(path: Path, target: Any) -> Any:
        told.append("rename")
        return rename(path, target)

    if not Path("/proc/self/fd").is_dir():
        pytest.skip("needs the system to tell files from folders by handle")
    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(Path, "replace", renamed)
    for write in (by_handle, by_name):
        write(tmp_path / "a", b"x")
    (tmp_path / "made").write_text("x")
    put_in_place(tmp_path / "made", tmp_path / "b")
    assert told == ["file", "rename", "folder"] * 3


def test_a_link_is_made_or_else_a_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a").write_text("x")
    link_file(tmp_path / "a", tmp_path / "b")
    assert (tmp_path / "a").samefile(tmp_path / "b")
    with pytest.raises(FileExistsError):
        link_file(tmp_path / "a", tmp_path / "b")

    def elsewhere(*_: object) -> None:
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))

    monkeypatch.setattr(os, "link", elsewhere)
    link_file(tmp_path / "a", tmp_path / "c")
    assert (tmp_path / "c").read_text() == "x" and not (tmp_path / "a").samefile(tmp_path / "c")
    assert contents(tmp_path) == ["a", "b", "c"]


# One at a time --------------------------------------------------------------------------------------------------------
@both_ways
def test_two_writers_of_one_file_do_not_mix_their_bytes(tmp_path: Path, write: Write) -> None:
    with atomic_file(tmp_path / "a") as first:
        first.write(b"first")
        with pytest.raises(OutputError, match="is being written by another run"):
            write(tmp_path / "a", b"second")
        first.write(b" again")
    assert (tmp_path / "a").read_bytes() == b"first again" and contents(tmp_path) == ["a"]


@both_ways
def test_the_part_file_of_a_killed_process_is_taken_over(tmp_path: Path, write: Write) -> None:
    part_path(tmp_path / "a").write_bytes(b"x" * 100_000)
    write(tmp_path / "a", b"new")
    assert (tmp_path / "a").read_bytes() == b"new" and contents(tmp_path) == ["a"]


_HOLD = "import sys, time; from pathlib import Path; from upframe import files\n"


def held_elsewhere(code: str, *arguments: object) -> subprocess.Popen[str]:
    """A process that runs `code`, which prints a line once it holds what it is to hold."""
    command = [sys.executable, "-c", f"{_HOLD}{code}", *map(str, arguments)]
    other = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert other.stdout is not None and other.stdout.readline() == "in\n"
    return other


def test_a_lock_shuts_others_out_until_its_process_is_killed(tmp_path: Path) -> None:
    other = held_elsewhere("with files.Lock(Path(sys.argv[1])): print('in', flush=True); time.sleep(60)", tmp_path / "lock")
    try:
        with pytest.raises(BlockingIOError), Lock(tmp_path / "lock"):
            pass
    finally:
        other.kill()
        other.wait()
    with Lock(tmp_path / "lock"):
        pass


def test_a_lock_holds_between_threads_of_one_process_too(tmp_path: Path) -> None:
    with Lock(tmp_path / "lock"), pytest.raises(BlockingIOError), Lock(tmp_path / "lock"):
        pass


def test_who_waits_gets_in_one_after_another_also_when_the_lock_file_is_removed(tmp_path: Path) -> None:
    inside, most, turns = 0, 0, 0

    def work() -> None:
        nonlocal inside, most, turns
        for _ in range(5):
            with Lock(tmp_path / "lock", wait=True, remove=True):
                inside += 1
                most = max(most, inside)
                turns += 1
                inside -= 1

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (most, turns, contents(tmp_path)) == (1, 20, [])


def test_a_file_system_without_locks_is_written_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def without(handle: int, *, blocking: bool = True) -> bool:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr("filelock.lock_descriptor", without)
    by_handle(tmp_path / "a", b"x")
    with Lock(tmp_path / "lock", remove=True):
        pass
    assert contents(tmp_path) == ["a"]


# Scratch folders ------------------------------------------------------------------------------------------------------
def test_scratch_folders_of_killed_processes_go_and_those_in_use_stay(tmp_path: Path) -> None:
    code = "f = files.ScratchFolder(Path(sys.argv[1])); (f.path / 'big').touch(); print('in', flush=True); time.sleep(60)"
    other = held_elsewhere(code, tmp_path)
    try:
        with scratch_folder(tmp_path) as mine:
            assert mine.is_dir() and list(mine.iterdir()) == []
            assert len(list(tmp_path.glob("*/files/big"))) == 1
    finally:
        other.send_signal(signal.SIGKILL if sys.platform != "win32" else signal.SIGTERM)
        other.wait()
    assert len(list(tmp_path.iterdir())) == 1
    with scratch_folder(tmp_path):
        assert not list(tmp_path.glob("*/files/big"))
    assert contents(tmp_path) == []


@posix
def test_a_forked_process_leaves_the_folder_to_its_maker(tmp_path: Path) -> None:
    scratch = ScratchFolder(tmp_path)
    child = os.fork()
    if child == 0:
        scratch.remove()
        os._exit(0)
    os.waitpid(child, 0)
    assert scratch.path.is_dir()
    scratch.remove()
    assert contents(tmp_path) == []


def test_a_scratch_folder_that_cannot_be_made_is_an_output_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "none"))
    with pytest.raises(OutputError, match="Set TMPDIR"), scratch_folder():
        pass


# Room and errors ------------------------------------------------------------------------------------------------------
def test_room_is_looked_for_where_the_first_folder_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Path] = []

    def usage(path: Path) -> Any:
        asked.append(path)
        return type("Usage", (), {"free": 1_200_000_000})

    monkeypatch.setattr("shutil.disk_usage", usage)
    check_room(tmp_path / "new" / "folder" / "a", 1_000_000_000)
    assert asked == [tmp_path]
    with pytest.raises(OutputError, match=re.escape("a: about 1.3 GB are needed and 1.2 GB are free. Free some space")):
        check_room(tmp_path / "a", 1_100_000_000)


def test_errors_of_the_system_become_output_errors_and_others_pass(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"permission denied\)\. Choose a folder that you may write to"), writing(tmp_path):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    with pytest.raises(OutputError, match=r"odd\)\. Check the disk"), writing(tmp_path):
        raise OSError("odd")
    with pytest.raises(ValueError, match="x"), writing(tmp_path):
        raise ValueError("x")


def test_the_size_of_a_folder_counts_a_file_with_two_names_once(tmp_path: Path) -> None:
    (tmp_path / "inside").mkdir()
    (tmp_path / "one").write_bytes(b"12345")
    os.link(tmp_path / "one", tmp_path / "inside" / "again")
    (tmp_path / "inside" / "two").write_bytes(b"123")
    assert folder_bytes(tmp_path) == 8
    assert folder_bytes(tmp_path / "absent") == 0
