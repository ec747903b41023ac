"""`upframe watch`, through the command line: each file once, whatever happens to the file or to the watch."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image

from conftest import Upframe, make_photo
from video_files import Clip, make_clip
from watching import Watch

pytestmark = pytest.mark.slow

STOP_S = 3.0
FORBID = 'echo 0 > /proc/sys/user/max_inotify_watches && exec "$@"'
NO_WATCHES = ("unshare", "--user", "--map-root-user", "sh", "-c", FORBID, "sh")
"""Runs a command for which the system watches no folder, as where its limit is reached."""


FEW_WATCHES = (*NO_WATCHES[:5], FORBID.replace("echo 0", "echo 3"), "sh")
"""The same for a limit that is reached later."""


def may_limit_watches() -> bool:
    if shutil.which("unshare") is None:
        return False
    return subprocess.run([*NO_WATCHES, "true"], capture_output=True).returncode == 0


def photo_in(path: Path, *, seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(make_photo(12, 16, seed=seed)).save(path)
    return path


@pytest.fixture
def inbox(tmp_path: Path) -> Path:
    (tmp_path / "in").mkdir()
    return tmp_path / "in"


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


def made(out: Path) -> list[str]:
    """Outputs below the output folder."""
    files = (path.relative_to(out) for path in out.rglob("*") if path.is_file())
    return sorted(str(path) for path in files if path.parts[0] not in (".upframe-watch", "failed"))


def test_files_are_made_as_by_the_command_line_however_they_arrive(
    inbox: Path, out: Path, tmp_path: Path, weights: Path, upframe: Upframe
) -> None:
    photo_in(inbox / "before.png")
    ready = photo_in(tmp_path / "ready" / "b.png", seed=2)
    photo_in(tmp_path / "album" / "deep" / "c.png", seed=3)
    slow = photo_in(tmp_path / "slow.png", seed=4).read_bytes()
    with Watch(inbox, out, "-m", weights) as watch:
        watch.wait_for("done")
        shutil.copyfile(ready, inbox / "b.png.part")
        (inbox / "b.png.part").rename(inbox / "b.png")
        (tmp_path / "album").rename(inbox / "album")
        with (inbox / "slow.png").open("wb") as file:  # the pauses are below the time that a file has to be unchanged
            for start in range(0, len(slow), len(slow) // 4):
                file.write(slow[start : start + len(slow) // 4])
                file.flush()
                time.sleep(0.2)
        watch.wait_for("done", 4)
        code, taken = watch.stop()
        assert code == 128 + signal.SIGTERM and taken < STOP_S
        assert not watch.of("failed") and not watch.of("later")
    assert made(out) == ["album/deep/c.png", "b.png", "before.png", "slow.png"]
    assert upframe("upscale", inbox, "-r", "-m", weights, "-o", tmp_path / "whole", "-q").code == 0
    for name in made(out):
        assert (out / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_nothing_is_made_twice_by_a_second_watch_nor_after_a_rename_or_a_touch(inbox: Path, out: Path, weights: Path) -> None:
    for seed, name in enumerate(("a.png", "b.png", "c.png")):
        photo_in(inbox / name, seed=seed)
    with Watch(inbox, out, "-m", weights, "--once") as watch:
        assert watch.process.wait(60) == 0
    before = {name: (out / name).stat().st_mtime_ns for name in made(out)}
    (inbox / "a.png").rename(inbox / "renamed.png")
    os.utime(inbox / "b.png")
    shutil.copyfile(inbox / "c.png", inbox / "copy.png")  # a file of its own
    photo_in(inbox / "new.png", seed=9)
    with Watch(inbox, out, "-m", weights, "--once") as watch:
        assert watch.process.wait(60) == 0
        assert {event["input"] for event in watch.of("done")} == {"copy.png", "new.png"}
        assert [(event["was"], event["input"]) for event in watch.of("known")] == [("a.png", "renamed.png")]
    assert made(out) == ["a.png", "b.png", "c.png", "copy.png", "new.png"]
    assert all((out / name).stat().st_mtime_ns == at for name, at in before.items())


def test_new_content_under_an_old_name_replaces_the_output_and_a_file_of_others_is_replaced_on_demand_alone(
    inbox: Path, out: Path, weights: Path
) -> None:
    photo_in(inbox / "a.png", seed=1)
    out.mkdir()
    (out / "taken.png").write_bytes(b"not upframe's")
    photo_in(inbox / "taken.png", seed=2)
    with Watch(inbox, out, "-m", weights) as watch:
        watch.wait_for("done")
        first = (out / "a.png").read_bytes()
        photo_in(inbox / "a.png", seed=3)
        watch.wait_for("done", 2)
        (failed,) = watch.wait_for("failed")
        watch.stop()
    assert (out / "a.png").read_bytes() != first
    assert failed["input"] == "taken.png" and "exists already" in failed["error"]
    assert (out / "taken.png").read_bytes() == b"not upframe's"
    with Watch(inbox, out, "-m", weights, "--once", "-y") as watch:
        assert watch.process.wait(60) == 0
        assert [event["input"] for event in watch.of("done")] == ["taken.png"]
    assert Image.open(out / "taken.png").format == "PNG" and not (out / "failed").exists()


def test_what_fails_is_set_aside_with_its_reason_until_it_changes(inbox: Path, out: Path, weights: Path) -> None:
    (inbox / "sub").mkdir()
    (inbox / "sub" / "bad.png").write_bytes(b"no picture at all")
    note = out / "failed" / "sub" / "bad.png.txt"
    with Watch(inbox, out, "-m", weights, "--once") as watch:
        assert watch.process.wait(60) == 8
    assert "not an image" in note.read_text()
    assert (inbox / "sub" / "bad.png").read_bytes() == b"no picture at all"
    with Watch(inbox, out, "-m", weights, "--once") as watch:
        assert watch.process.wait(60) == 0
        assert not watch.of("failed")
    photo_in(inbox / "sub" / "bad.png")
    with Watch(inbox, out, "-m", weights, "--once") as watch:
        assert watch.process.wait(60) == 0
    assert made(out) == ["sub/bad.png"] and not (out / "failed").exists()


def test_what_may_pass_is_tried_again(
    inbox: Path, out: Path, tmp_path: Path, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photo_in(inbox / "a.png")
    monkeypatch.chdir(tmp_path)  # workers run in another folder
    late = tmp_path / "late.safetensors"
    with Watch(inbox, out, "-m", late.name) as watch:
        (first,) = watch.wait_for("later")
        assert str(late) in first["error"]
        shutil.copyfile(weights, late)
        (done,) = watch.wait_for("done")
        assert done["at"] - first["at"] >= first["pause_s"]
        watch.stop()
    assert made(out) == ["a.png"] and not (out / "failed").exists()


def test_what_did_not_fit_the_flags_is_tried_with_those_of_the_next_start(inbox: Path, out: Path, weights: Path) -> None:
    photo_in(inbox / "a.png")
    with Watch(inbox, out, "-m", weights, "--format", "mp4", "--once") as watch:
        assert watch.process.wait(60) == 8
    assert "mp4" in (out / "failed" / "a.png.txt").read_text()
    with Watch(inbox, out, "-m", weights, "--once") as watch:
        assert watch.process.wait(60) == 0
    assert made(out) == ["a.png"] and not (out / "failed").exists()


def test_links_hidden_files_and_the_output_folder_are_not_inputs(inbox: Path, tmp_path: Path, weights: Path) -> None:
    outside = photo_in(tmp_path / "outside" / "secret.png")
    (inbox / "link.png").symlink_to(outside)
    (inbox / "folder").symlink_to(outside.parent)
    photo_in(inbox / ".hidden.png")
    photo_in(inbox / "a.png")
    out = inbox / "out"
    for _ in range(2):
        with Watch(inbox, out, "-m", weights, "--once") as watch:
            assert watch.process.wait(60) == 0
    assert made(out) == ["a.png"]


def test_inputs_that_are_done_move_where_the_user_wants_them_and_never_over_another(
    inbox: Path, out: Path, tmp_path: Path, weights: Path
) -> None:
    done = tmp_path / "done"
    photo_in(done / "sub" / "a.png", seed=7)
    source = photo_in(inbox / "sub" / "a.png")
    before, other = source.read_bytes(), (done / "sub" / "a.png").read_bytes()
    with Watch(inbox, out, "-m", weights, "--once", "--move-done", done) as watch:
        assert watch.process.wait(60) == 0
    assert not source.exists()
    assert (done / "sub" / "a.png").read_bytes() == other and (done / "sub" / "a (2).png").read_bytes() == before


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_video_goes_on_after_the_watch_was_ended(
    inbox: Path, out: Path, tmp_path: Path, weights: Path, upframe: Upframe, number: int
) -> None:
    source = make_clip(inbox / "clip.mp4", Clip(pts=[3600 * i for i in range(40)], size=(32, 48)))
    flags = ("-s", 2, "--window", 4)
    with Watch(inbox, out, *flags) as watch:
        segments = out / ".upframe-watch" / "jobs"
        end = time.monotonic() + 60
        while len([path for path in segments.rglob("*") if path.is_file()]) < 4 and time.monotonic() < end:
            time.sleep(0.02)
        assert not watch.of("done")
        _, taken = watch.stop(number)
        assert taken < STOP_S
    with Watch(inbox, out, *flags, "--once") as watch:
        assert watch.process.wait(120) == 0
        assert len(watch.of("done")) == 1 and not watch.of("found")
    assert upframe("upscale", source, *flags, "-o", tmp_path / "whole.mp4", "-q").code == 0
    assert (out / "clip.mp4").read_bytes() == (tmp_path / "whole.mp4").read_bytes()


def test_a_file_that_is_deleted_while_it_waits_is_forgotten_and_a_second_watch_is_refused(
    inbox: Path, out: Path, weights: Path, upframe: Upframe
) -> None:
    make_clip(inbox / "a.mp4", Clip(pts=[3600 * i for i in range(200)], size=(96, 128)))
    photo_in(inbox / "b.png")
    with Watch(inbox, out, "-s", 2, "--verbose") as watch:
        watch.wait_for("found", 2)
        second = upframe("watch", inbox, "-o", out, "--once")
        assert second.code == 6 and "another run" in second.err
        (inbox / "b.png").unlink()
        (inbox / "a.mp4").unlink()
        watch.wait_for("gone", 2)
        watch.stop()
    assert made(out) == [] and not (out / "failed").exists()


def test_polling_finds_new_files_too(inbox: Path, out: Path, weights: Path) -> None:
    with Watch(inbox, out, "-m", weights, "--poll") as watch:
        assert watch.of("watching")[0]["polls"]
        photo_in(inbox / "a.png")
        watch.wait_for("done")
        watch.stop(signal.SIGINT)
    assert made(out) == ["a.png"]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("-e", "film"), "-e film: must be KEY=VALUE"),
        (("--fps", "25"), "--fps: no such option"),
        (("--crf", 70), "--crf 70: must be 0 to 63"),
        (("--settle", 0), "--settle 0"),
        (("--scale", 0), "--scale"),
        (("-m", "foto-x2"), "foto-x2: no model has that name. Did you mean photo-x2"),
        (("--task", "denoise"), "upframe: --task denoise: upframe ships no model for this task. Pass weights for it: -m PATH"),
        (("-m", "video-x4", "--task", "deblur"), "video-x4: is a network to upscale. Use `--task upscale`."),
    ],
)
def test_flags_that_would_fail_every_file_are_refused_at_once(
    inbox: Path, out: Path, upframe: Upframe, flags: tuple[object, ...], message: str
) -> None:
    refused = upframe("watch", inbox, "-o", out, "--once", *flags)
    assert refused.code == 2 and message in refused.err and refused.err.count("\n") == 1


def test_options_of_the_encoder_are_those_of_the_command_line(
    inbox: Path, out: Path, weights: Path, tmp_path: Path, upframe: Upframe
) -> None:
    clip, flags = make_clip(inbox / "clip.mkv", Clip(pts=[3600 * i for i in range(6)])), ("-e", "tune=grain", "-e", "bf=1")
    assert upframe("watch", inbox, "-o", out, "-m", weights, "--once", "--settle", 0.1, *flags, "-q").code == 0
    assert upframe("upscale", clip, "-m", weights, "-o", tmp_path / "own.mkv", *flags, "-q").code == 0
    assert (out / "clip.mkv").read_bytes() == (tmp_path / "own.mkv").read_bytes()
    assert upframe("upscale", clip, "-m", weights, "-o", tmp_path / "plain.mkv", "-q").code == 0
    assert (out / "clip.mkv").read_bytes() != (tmp_path / "plain.mkv").read_bytes()


def test_the_watched_folder_cannot_hold_its_output_in_itself_or_be_in_it(inbox: Path, upframe: Upframe) -> None:
    for output in (inbox, inbox.parent):
        refused = upframe("watch", inbox, "-o", output)
        assert refused.code == 2 and "is the watched folder" in refused.err


def test_a_missing_extra_is_named_with_the_way_to_install_it(
    inbox: Path, out: Path, upframe: Upframe, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "watchfiles", None)
    refused = upframe("watch", inbox, "-o", out)
    assert refused.code == 2 and "watchfiles is not installed. Install it with: pip install 'upframe[serve]'" in refused.err


@pytest.mark.skipif(not may_limit_watches(), reason="this system lets nobody limit the folders that may be watched")
def test_where_the_system_can_tell_of_no_more_folders_the_watch_looks_by_itself(inbox: Path, out: Path, weights: Path) -> None:
    with Watch(inbox, out, "-m", weights, before=NO_WATCHES) as watch:
        photo_in(inbox / "a.png")
        watch.wait_for("done")
        photo_in(inbox / "b.png")  # a second look, not the first one alone
        watch.wait_for("done", 2)
        watch.stop()
        assert "the system tells of no changes" in watch.rest()


@pytest.mark.skipif(not may_limit_watches(), reason="this system lets nobody limit the folders that may be watched")
def test_a_limit_that_new_folders_reach_later_hides_none_of_them(inbox: Path, out: Path, weights: Path) -> None:
    with Watch(inbox, out, "-m", weights, before=FEW_WATCHES) as watch:
        photo_in(inbox / "a.png")
        watch.wait_for("done")
        assert not watch.of("watching")[0]["polls"]
        for number in range(6):
            photo_in(inbox / f"day {number}" / "photo.png", seed=number + 1)
        watch.wait_for("done", 7)
        photo_in(inbox / "day 5" / "late.png", seed=9)
        watch.wait_for("done", 8)
