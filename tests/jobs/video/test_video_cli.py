"""Videos through the command line, as a user meets them: frames, times, tracks, names, resuming, signals, exit codes.

The network of most tests copies pixels, so what has to come out is known exactly.
"""

from __future__ import annotations

import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import test_cli
import torch
from PIL import Image

import films
from conftest import Upframe, make_photo, needs_shared
from films import Clip, Sound, content, damage, lossless, make_clip, make_film, make_frames, make_pictures
from nearest import nearest_weights, repeated
from upframe import jobs
from upframe.errors import NOTICES, Notice
from upframe.jobs.video.workspace import SegmentStore, work_path
from upframe.machine import device_model
from upframe.media.image.files import write_pixels
from upframe.media.image.source import read_pixels
from upframe.media.video import files as video
from upframe.media.video.files import probe_video
from video_files import join_streams
from video_parts import CAPTION, add_to_sample_entry, caption, dolby_vision, equirectangular, muxed, stream_bytes, with_sei

pytestmark = pytest.mark.slow  # as a whole: `make test-fast` has a minute and a half for everything

FAST = ["--preset", "ultrafast"]
needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are forked so that many are cheap")


def everything(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*")}


# Frames and times -----------------------------------------------------------------------------------------------------
PHONE = [45000 + t for t in films.VFR_PTS]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("clip", "name"),
    [
        (lossless(), "in.mkv"),
        (lossless(pix_fmt="yuv444p10le", tags=(9, 16, 9, 1)), "in.mkv"),
        (lossless(pix_fmt="bgr0"), "in.mkv"),
        (lossless(pix_fmt="gray16le"), "in.mkv"),
        (Clip(pix_fmt="yuv444p", options={"bf": "3", "crf": "12"}), "in.mp4"),  # B-frames
        (Clip(PHONE, pix_fmt="yuv444p", options={"bf": "2", "crf": "12"}), "in.mov"),  # variable rate, late start
        (lossless(pts=[7]), "in.mkv"),
        (lossless(pts=[0, 3600]), "in.mkv"),
    ],
    ids=["8 bits", "10 bits", "RGB", "gray", "B-frames", "variable", "1 frame", "2 frames"],
)
def test_every_frame_comes_out_once_at_its_time_with_its_pixels(
    upframe: Upframe, tmp_path: Path, weights: Path, clip: Clip, name: str
) -> None:
    """N in, N out; every sample within one code value of the round trip through R'G'B'."""
    source = make_clip(tmp_path / name, clip, **({"movie_timescale": "90000"} if name == "in.mov" else {}))
    output = tmp_path / "out.mkv"
    result = upframe(source, "-m", weights, "-c", "ffv1", "-o", output, "--window", "5", "--json")
    assert result.code == 0, result.err
    assert result.notices == []
    wanted = films.pictures_of(source)
    assert len(wanted) == len(clip.pts) == result.of("video")["frames"]
    # The corner of these clips is a hard square, which a lossy encoder leaves beyond R'G'B'.
    corner = 24 if clip.codec == "libx264" else 0
    difference = films.largest_difference(films.pictures_of(output), films.repeated_planes(wanted, 2), corner=corner)
    assert difference <= (0 if clip.pix_fmt in ("bgr0", "gray16le") else 1)
    before, after = films.shown_times(source), films.shown_times(output)
    assert all(abs(a - b) <= Fraction(1, 2000) for a, b in zip(before, after, strict=True))  # Matroska counts milliseconds
    one, other = probe_video(source), probe_video(output)
    assert (other.bits, other.chroma) == (one.bits, one.chroma)
    if one.chroma != "rgb":  # which is always full range, and said to be in the output
        assert other.colour == one.colour
    assert everything(tmp_path) == {name, "out.mkv"}


@pytest.mark.slow
def test_mp4_keeps_times_to_the_tick(upframe: Upframe, tmp_path: Path, weights: Path) -> None:
    source = make_clip(tmp_path / "in.mp4", Clip(PHONE, options={"bf": "2"}, sounds=[Sound(offset=Fraction(1, 2))]))
    assert upframe(source, "-m", weights, "--preset", "ultrafast", "--window", "5").code == 0
    output = tmp_path / "in_nearest_x2.mp4"
    assert films.shown_times(output) == films.shown_times(source)
    assert films.sound_payloads(output) == films.sound_payloads(source)
    # The clock of sound is kept; the start of a packet of 21 ms moves by less than a thousandth of it.
    assert abs(films.sound_starts(output)[0] - films.sound_starts(source)[0]) < Fraction(1, 40000)


@pytest.mark.slow
@pytest.mark.parametrize("container", ["mkv", "mp4"])
def test_all_that_belongs_to_a_film_comes_along(upframe: Upframe, tmp_path: Path, weights: Path, container: str) -> None:
    clip = Clip(
        sounds=[Sound(offset=Fraction(1, 5), seconds=Fraction(2)), Sound("flac", Fraction(0), Fraction(1, 4), "deu", 1)],
        subtitles=[(40, 100, "One"), (200, 150, "Two")],
        chapters=[(0, 200, "First"), (200, 480, "Second")],
        attachment=b"a font",
        metadata={"title": "Talk", "MOOD": "calm"},
        rotation=90,
        sample_aspect=Fraction(4, 3),
        tags=(6, 6, 6, 1),
    )  # fmt: skip
    source = make_clip(tmp_path / "in.mkv", clip)
    result = upframe(source, "-m", weights, "-f", container, "--preset", "ultrafast", "--json")
    assert result.code == 0
    # What MP4 has no place for is told, and nothing else is lost.
    lost = {"mkv": [], "mp4": ["subtitle-converted", "track-dropped"]}[container]
    assert sorted(result.notices) == lost
    output = tmp_path / f"in_nearest_x2.{container}"
    assert films.sound_payloads(output) == films.sound_payloads(source)
    for before, after in zip(films.sound_starts(source), films.sound_starts(output), strict=True):
        assert abs(before - after) <= Fraction(1, 1000)
    one, other = probe_video(source), probe_video(output)
    assert other.size == (96, 128)
    assert (other.rotation, other.sample_aspect, other.colour) == (one.rotation, one.sample_aspect, one.colour)
    assert [(c.start, dict(c.tags)["title"]) for c in other.chapters] == [(0, "First"), (Fraction(1, 5), "Second")]
    assert dict(other.tags)["title"] == "Talk"
    kinds = [s.kind for s in other.streams]
    assert kinds == ["audio", "audio", "subtitle", *(["attachment"] if container == "mkv" else [])]
    assert [s.language for s in other.of_kind("audio")] == ["eng", "deu"]


def test_sound_and_subtitles_stay_behind_if_they_are_to(upframe: Upframe, tmp_path: Path, weights: Path) -> None:
    source = make_clip(tmp_path / "in.mkv", Clip(sounds=[Sound()], subtitles=[(0, 100, "x")]))
    assert upframe(source, "-m", weights, "--no-audio", "--no-subs", "--preset", "ultrafast").code == 0
    assert probe_video(tmp_path / "in_nearest_x2.mkv").streams == ()


@pytest.mark.parametrize(("odd", "size"), [("pad", (48, 64)), ("crop", (46, 62)), ("444", (47, 63))])
def test_odd_sizes_follow_the_policy(upframe: Upframe, tmp_path: Path, weights: Path, odd: str, size: tuple[int, int]) -> None:
    source = make_clip(tmp_path / "in.mkv", lossless(pix_fmt="yuv420p", pts=[0, 3600], size=(24, 32)))
    output = tmp_path / "out.mkv"
    result = upframe(source, "-m", weights, "--size", "63x47", "--odd", odd, "-o", output, "--json")
    assert result.code == 0
    assert result.notices == ([] if odd == "444" else ["size-adjusted"])
    assert probe_video(output).size == size
    if odd == "pad":
        last = [planes[0] for planes in films.pictures_of(output)]
        assert all((p[:, -1] == p[:, -2]).all() and (p[-1] == p[-2]).all() for p in last)
    assert upframe(source, "-m", weights, "--size", "63x47", "--odd", odd, "-o", output, "--json").of("summary")["skipped"] == 1


def test_fractional_scales_are_those_of_the_single_pictures(upframe: Upframe, tmp_path: Path, weights: Path) -> None:
    pictures = make_pictures(3, (32, 48))
    source = make_film(tmp_path / "in.mkv", pictures)
    make_frames(tmp_path / "in", pictures)
    assert upframe(source, "-m", weights, "-s", "1.5", "-o", tmp_path / "out.mkv").code == 0
    assert upframe(tmp_path / "in", "-m", weights, "-s", "1.5", "-o", tmp_path / "out").code == 0
    for number, made in enumerate(films.rgb_of(tmp_path / "out.mkv")):
        # The film is computed at 16 bits and rounded once, the picture at 8.
        difference = np.abs(made.astype(int) - read_pixels(tmp_path / "out" / f"f{number}.png"))
        assert difference.max() <= 1


@pytest.mark.parametrize(
    ("flags", "frames"),
    [
        (["--start", "0.2"], range(5, 12)),
        (["--end", "0.2"], range(5)),
        (["--start", "0:00.1", "--end", "0:00:00.32"], range(3, 8)),
    ],
)
def test_start_and_end_take_those_frames(
    upframe: Upframe, tmp_path: Path, weights: Path, flags: list[str], frames: range
) -> None:
    source = make_film(tmp_path / "in.mkv", make_pictures(12, (16, 24)))
    output = tmp_path / "out.mkv"
    command = [source, "-m", weights, "-o", output, *flags, "--json"]
    assert upframe(*command).of("video")["frames"] == len(frames)
    wanted = [repeated(p, 2) for p in make_pictures(12, (16, 24))[frames.start : frames.stop]]
    assert all((a == b).all() for a, b in zip(films.rgb_of(output), wanted, strict=True))
    assert films.shown_times(output) == [Fraction(n, 25) for n in range(len(frames))]
    assert upframe(*command).of("summary")["skipped"] == 1  # it is what the same command makes
    assert upframe(source, "-m", weights, "-o", tmp_path / "no.mkv", "--start", "5").code == 2


@needs_shared
@pytest.mark.parametrize("name", ["friday_1940_audio.mp4", "tears_of_steel_lowbitrate_audio.webm"])
def test_real_clips_with_sound_go_through(upframe: Upframe, shared: Path, tmp_path: Path, weights: Path, name: str) -> None:
    source = shared / "videos" / name
    output = tmp_path / "out.mkv"
    flags = ["--long-side", "160", "-c", "h264", "--preset", "ultrafast", "--start", "1", "--end", "2"]
    result = upframe(source, "-m", weights, "-o", output, *flags, "--json")
    assert result.code == 0
    times = films.shown_times(source)
    wanted = [t for t in times if 1 <= t - times[0] < 2]
    found = films.shown_times(output)
    assert len(found) == len(wanted)
    assert all(abs((t - wanted[0]) - u) <= Fraction(1, 1000) for t, u in zip(wanted, found, strict=True))
    assert len(films.sound_payloads(output)) == len(films.sound_payloads(source))


# Folders and batches --------------------------------------------------------------------------------------------------
@pytest.mark.slow
def test_folder_of_frames_becomes_a_film_and_a_film_a_folder(upframe: Upframe, tmp_path: Path, weights: Path) -> None:
    pictures = make_pictures(11, (16, 24))
    folder = make_frames(tmp_path / "in", pictures)  # f9.png comes before f10.png
    output = tmp_path / "out.mkv"
    assert upframe(folder, "-m", weights, "-o", output, "-c", "ffv1", "--fps", "23.976").code == 0
    assert all((a == repeated(b, 2)).all() for a, b in zip(films.rgb_of(output), pictures, strict=True))
    times = films.shown_times(output)
    assert all(abs(t - n * Fraction(1001, 24000)) <= Fraction(1, 2000) for n, t in enumerate(times))
    assert upframe(output, "-m", weights, "-f", "png", "--window", "4").code == 0
    back = tmp_path / "out_nearest_x2"
    assert sorted(p.name for p in back.iterdir()) == [f"frame_{n:08}.png" for n in range(11)]
    for number, picture in enumerate(pictures):
        np.testing.assert_array_equal(read_pixels(back / f"frame_{number:08}.png"), repeated(picture, 4))
    assert {p.name for p in tmp_path.iterdir()} == {"in", "out.mkv", "out_nearest_x2"}


@pytest.mark.slow
def test_clip_keeps_a_folder_of_frames_a_folder(upframe: Upframe, tmp_path: Path, weights: Path) -> None:
    pictures = make_pictures(5, (16, 24))
    folder = make_frames(tmp_path / "take.v2", pictures)
    command = [folder, "-m", weights, "--clip", "--window", "2", "--json"]
    assert upframe(*command).code == 0
    output = tmp_path / "take.v2_upscaled"
    for number, picture in enumerate(pictures):
        np.testing.assert_array_equal(read_pixels(output / f"frame_{number:08}.png"), repeated(picture, 2))
    before = content(output)
    assert upframe(*command).of("summary")["skipped"] == 1
    (output / "frame_00000002.png").unlink()
    assert upframe(*command).code == 2
    assert upframe(*command, "-y").code == 0
    assert content(output) == before


@pytest.mark.slow
def test_folder_that_holds_other_things_is_never_replaced(upframe: Upframe, tmp_path: Path, weights: Path) -> None:
    """Not even with -y: what lies there is the user's."""
    folder = make_frames(tmp_path / "in", make_pictures(2, (16, 24)))
    mine = tmp_path / "mine"
    mine.mkdir()
    assert upframe(folder, "-m", weights, "--clip", "-o", mine).code == 0  # an empty one is taken
    (mine / "diary.txt").write_text("dear diary")
    before = content(mine)
    for flags in ([], ["-y"]):
        result = upframe(folder, "-m", weights, "--clip", "-o", mine, *flags)
        assert (result.code, "diary.txt" in result.err) == (2, True)
    assert content(mine) == before
    assert upframe(folder, "-m", weights, "--clip", "-o", folder, "-y").code == 2
    (tmp_path / "in_upscaled").write_text("a file")
    assert upframe(folder, "-m", weights, "--clip", "-y").code == 2
    film = make_film(tmp_path / "f.mkv", make_pictures(2, (16, 24)))
    (tmp_path / "f_nearest_x2.mkv").mkdir()
    assert upframe(film, "-m", weights, "-y").code == 2


def test_clip_called_dot_is_named_after_its_folder(
    upframe: Upframe, tmp_path: Path, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(make_frames(tmp_path / "take.v2", make_pictures(2, (16, 24))))
    assert upframe(".", "-m", weights, "-f", "mkv").code == 0
    assert (tmp_path / "take.v2_nearest_x2.mkv").is_file()


@pytest.mark.slow
def test_folder_tells_gaps_mixed_sizes_and_unreadable_frames(upframe: Upframe, tmp_path: Path, weights: Path) -> None:
    gaps = make_frames(tmp_path / "gaps", make_pictures(3, (16, 24)), names=["f1.png", "f2.png", "f5.png"])
    result = upframe(gaps, "-m", weights, "-o", tmp_path / "gaps.mkv", "--json")
    assert (result.code, result.notices, result.of("video")["frames"]) == (0, ["frames-missing"], 3)
    assert upframe(gaps, "-m", weights, "-o", tmp_path / "strict.mkv", "--strict").code == 2

    mixed = make_frames(tmp_path / "mixed", make_pictures(2, (16, 24)))
    write_pixels(mixed / "f2.png", make_photo(20, 24))
    result = upframe(mixed, "-m", weights, "-o", tmp_path / "mixed.mkv")
    assert (result.code, "f0.png is 24x16 and f2.png is 24x20" in result.err) == (3, True)

    (gaps / "f2.png").write_bytes(b"no picture")
    result = upframe(gaps, "-m", weights, "-o", tmp_path / "bad.mkv", "--json")
    assert (result.code, sorted(result.notices)) == (0, ["bad-frames", "frames-missing"])
    made = films.rgb_of(tmp_path / "bad.mkv")
    assert len(made) == 3 and (made[0] == made[1]).all()
    assert upframe(gaps, "-m", weights, "-o", tmp_path / "no.mkv", "--on-bad-frame", "fail").code == 3
    assert not (tmp_path / "no.mkv").exists()


def test_photos_and_videos_of_one_folder_each_go_their_way(upframe: Upframe, tmp_path: Path, weights: Path) -> None:
    folder = make_frames(tmp_path / "in", [make_photo(10, 12)], names=["a.png"])
    make_film(folder / "b.mkv", make_pictures(2, (16, 24)))
    frames = [Image.fromarray(make_photo(8, 9, seed=n)) for n in range(3)]
    frames[0].save(folder / "c.gif", save_all=True, append_images=frames[1:], duration=[30, 100, 50])
    (folder / "a.mkv").write_bytes(b"broken")
    result = upframe(folder, "-m", weights, "--json")
    assert result.code == 8
    output = tmp_path / "in_upscaled"
    assert everything(output) == {"a.png", "b.mkv", "c.gif"}  # the broken film did not take the picture's name
    assert len(films.rgb_of(output / "b.mkv")) == 2
    with Image.open(output / "c.gif") as gif:
        assert (gif.n_frames, gif.size) == (3, (18, 16))
    assert [item["status"] for item in result.of("summary")["items"]].count("written") == 3


def test_folder_of_videos_changes_its_container(upframe: Upframe, tmp_path: Path, weights: Path) -> None:
    """A video as output makes a clip of a folder of pictures only."""
    (tmp_path / "in").mkdir()
    for name in ("a.mkv", "b.mkv"):
        make_clip(tmp_path / "in" / name, Clip([0, 3600], size=(32, 32)))
    assert upframe(tmp_path / "in", "-m", weights, "-f", "mp4", "--preset", "ultrafast").code == 0
    assert everything(tmp_path / "in_upscaled") == {"a.mp4", "b.mp4"}


@pytest.mark.slow
def test_video_through_pipes(tmp_path: Path, weights: Path) -> None:
    """Neither pipe has a name that tells what goes through it."""
    source = make_film(tmp_path / "in.mkv", make_pictures(2, (16, 24)))
    command = [sys.executable, "-m", "upframe", "-", "-o", "-", "-m", str(weights)]
    done = subprocess.run(command, input=source.read_bytes(), capture_output=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    (tmp_path / "out.mkv").write_bytes(done.stdout)
    wanted = [repeated(p, 2) for p in make_pictures(2, (16, 24))]
    assert all((a == b).all() for a, b in zip(films.rgb_of(tmp_path / "out.mkv"), wanted, strict=True))


# What cannot be done --------------------------------------------------------------------------------------------------
def _audio_only(path: Path) -> None:
    source = make_clip(path.with_suffix(".tmp.mkv"), Clip(sounds=[Sound()]))
    with av.open(str(source)) as given, av.open(str(path), "w") as out:
        stream = out.add_stream_from_template(given.streams.audio[0])
        for packet in given.demux(audio=0):
            if packet.size:
                packet.stream = stream
                out.mux(packet)
    source.unlink()


def _cover_only(path: Path) -> None:
    with av.open(str(path), "w") as out:
        sound = out.add_stream("aac", rate=48000)
        cover = out.add_stream("mjpeg", rate=1)
        cover.height, cover.width, cover.pix_fmt = 32, 32, "yuvj420p"
        cover.disposition = av.stream.Disposition.attached_pic
        for packet in [*cover.encode(films.make_cover()), *cover.encode(None)]:
            out.mux(packet)
        for packet in films.silence(sound):
            out.mux(packet)


def _picture(path: Path) -> None:
    Image.fromarray(make_photo(8, 9)).save(path, "PNG")


def _no_index(path: Path) -> None:
    make_clip(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _empty(path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (_audio_only, "has no video stream (1 audio"),
        (_cover_only, "cover picture"),
        (_picture, "is an image"),
        (_no_index, "moov atom not found"),
        (_empty, "is empty"),
    ],
)
def test_files_without_a_film_are_3_and_say_why(
    upframe: Upframe, tmp_path: Path, weights: Path, make: Callable[[Path], None], says: str
) -> None:
    make(tmp_path / "in.mp4")
    result = upframe(tmp_path / "in.mp4", "-m", weights)
    assert (result.code, says in result.err, result.err.count("\n")) == (3, True, 1)
    assert everything(tmp_path) == {"in.mp4"}


WRONG = [
    ["--codec", "h263"],
    ["--crf", "99"],
    ["--preset", "warp"],
    ["--pix-fmt", "yuv410p"],
    ["-e", "nonsense=1"],
    ["-e", "nonsense"],
    ["-f", "mp4", "--codec", "ffv1"],
    ["-f", "jpg"],
    ["-o", "x.png"],
    ["--window", "0"],
    ["--temporal-overlap", "-1"],
    ["--start", "yesterday"],
    ["--start", "2", "--end", "1"],
    ["--fps", "0"],
    ["--odd", "maybe"],
    ["--clean-strength", "2"],
    ["--clean-max", "2"],
    ["--clean-max", "2", "--dry-run"],
    ["--deinterlace", "perhaps"],
    ["--strict", "-f", "mp4"],
]


@pytest.mark.parametrize("flags", WRONG, ids=" ".join)
def test_wrong_usage_is_2_before_any_frame(
    upframe: Upframe, tmp_path: Path, weights: Path, flags: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    source = make_clip(tmp_path / "in.mkv", Clip([0, 3600], video_metadata={"MOOD": "calm"}))
    result = upframe("upscale", source, "-m", weights, *flags)
    assert (result.code, result.err.startswith("upframe: "), result.err.count("\n")) == (2, True, 1)
    assert everything(tmp_path) == {"in.mkv"}


@pytest.mark.slow
def test_damage_on_the_way(upframe: Upframe, tmp_path: Path, weights: Path) -> None:
    clip = Clip([3600 * n for n in range(20)], options={"bf": "0", "g": "5"}, sounds=[Sound()])
    source = damage(make_clip(tmp_path / "in.mp4", clip), 7)
    command = [source, "-m", weights, "--preset", "ultrafast", "--json"]
    result = upframe(*command, "-o", tmp_path / "repeat.mkv")
    assert result.code == 0
    assert "bad-frames" in result.notices
    assert len(films.shown_times(tmp_path / "repeat.mkv")) == 20  # so that sound stays with the picture
    assert films.sound_payloads(tmp_path / "repeat.mkv") == films.sound_payloads(source)
    assert upframe(*command, "-o", tmp_path / "fail.mkv", "--on-bad-frame", "fail").code == 3
    assert upframe(*command, "-o", tmp_path / "strict.mkv", "--strict").code == 2
    assert upframe(*command, "-o", tmp_path / "skip.mkv", "--on-bad-frame", "skip").code == 0
    assert len(films.shown_times(tmp_path / "skip.mkv")) < 20
    assert everything(tmp_path) == {"in.mp4", "repeat.mkv", "skip.mkv"}


@pytest.mark.slow
def test_sound_that_no_copy_can_be_made_of_is_3_before_any_frame(
    upframe: Upframe, tmp_path: Path, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """MP4's header needs the first packet of AC-3; Matroska takes any."""
    source = make_clip(tmp_path / "in.mkv", Clip(sounds=[Sound("ac3")]))
    with av.open(str(source)) as container:
        first = next(packet.pos for packet in container.demux(audio=0) if packet.size)
    data = bytearray(source.read_bytes())
    data[first : first + 2] = bytes(2)
    source.write_bytes(data)
    frames: list[int] = []
    write = video.VideoSink.write
    monkeypatch.setattr(video.VideoSink, "write", lambda *a, **k: (frames.append(k["pts"]), write(*a, **k))[1])
    command = [source, "-m", weights, "--preset", "ultrafast", "--json"]
    refused = upframe(*command, "-f", "mp4")
    assert (refused.code, "its tracks are damaged" in refused.err + refused.out) == (3, True)
    assert len(frames) == 1  # the black one of the rehearsal
    assert everything(tmp_path) == {"in.mkv"}
    assert upframe(*command, "-f", "mp4", "--no-audio").code == 0
    assert upframe(*command, "-f", "mkv").code == 0


@pytest.mark.slow
def test_film_that_ends_early_is_3_unless_that_is_accepted(upframe: Upframe, tmp_path: Path, weights: Path) -> None:
    source = make_clip(tmp_path / "in.mkv", Clip([3600 * n for n in range(40)], options={"bf": "0"}, size=(96, 96)))
    source.write_bytes(source.read_bytes()[: source.stat().st_size * 3 // 5])
    command = [source, "-m", weights, "--preset", "ultrafast", "--window", "6", "--json"]
    result = upframe(*command)
    assert (result.code, "--allow-truncated" in result.err + result.out) == (3, True)
    assert everything(tmp_path) == {"in.mkv"}
    again = upframe(*command, "--allow-truncated")
    assert (again.code, again.notices) == (0, ["truncated"])
    assert len(films.shown_times(tmp_path / "in_nearest_x2.mkv")) == again.of("video")["frames"]


# Existing outputs -----------------------------------------------------------------------------------------------------
@pytest.mark.slow
def test_existing_output_is_skipped_refused_redone_or_overwritten(upframe: Upframe, tmp_path: Path, weights: Path) -> None:
    source = make_clip(tmp_path / "in.mkv", Clip(sounds=[Sound(seconds=Fraction(3))]))
    output = tmp_path / "in_nearest_x2.mkv"
    command = [source, "-m", weights, "--preset", "ultrafast", "--json"]
    assert upframe(*command).code == 0
    before, stamp = output.read_bytes(), output.stat()
    assert upframe(*command).of("summary")["skipped"] == 1
    assert output.stat().st_mtime_ns == stamp.st_mtime_ns
    # A film of another size is not ours to touch; with -y it is.
    refused = upframe(*command[:-1], "-s", "1", "-o", output)
    assert (refused.code, "exists and is a different file" in refused.err) == (2, True)
    assert output.read_bytes() == before
    # What is cut short or empty is no output at all.
    for wreck in (before[: len(before) // 2], b"", bytes(100), before[:200]):
        output.write_bytes(wreck)
        assert upframe(*command).of("summary")["written"] == 1
        assert output.read_bytes() == before
    output.write_text("my notes")
    assert upframe(*command).code == 2
    assert upframe(*command, "-y").of("summary")["written"] == 1
    os.utime(source, (time.time() + 0, time.time()))
    os.utime(output, (1, 1))
    assert upframe(*command).code == 2
    assert upframe(source, "-m", weights, "-o", source, "-y").code == 2


@pytest.mark.slow
@pytest.mark.parametrize("container", ["mkv", "mp4"])
def test_other_containers_are_recognised_when_they_are_there_already(
    upframe: Upframe, tmp_path: Path, weights: Path, container: str
) -> None:
    """Containers state different lengths: of the film alone, or of the longest track, counted from zero or not."""
    clip = Clip(sounds=[Sound(offset=Fraction(5), seconds=Fraction(4))], pts=[450000 + 3600 * n for n in range(12)])
    source = make_clip(tmp_path / f"in.{'mp4' if container == 'mkv' else 'mkv'}", clip)
    command = [source, "-m", weights, "-f", container, "--preset", "ultrafast", "--json"]
    assert upframe(*command).code == 0
    assert upframe(*command).of("summary")["skipped"] == 1


@pytest.mark.slow
def test_finished_output_of_a_joined_stream_is_recognised(upframe: Upframe, tmp_path: Path, weights: Path) -> None:
    """Its header lets FFmpeg guess a length of hours."""
    clips = [make_clip(tmp_path / f"{s}.ts", Clip([s * 90000 + 3600 * n for n in range(12)]), copyts="1") for s in (1, 7200)]
    source = join_streams(tmp_path / "in.ts", *clips)
    command = [source, "-m", weights, "-o", tmp_path / "out.mkv", "--preset", "ultrafast", "--json"]
    assert upframe(*command).code == 0
    assert upframe(*command).of("summary")["skipped"] == 1


def test_dry_run_says_everything_and_writes_nothing(upframe: Upframe, tmp_path: Path, weights: Path) -> None:
    source = make_clip(tmp_path / "in.mkv", Clip(video_metadata={"MOOD": "calm"}))
    (row,) = upframe(source, "-m", weights, "-f", "mp4", "--dry-run", "--json").lines
    assert (row["size"], row["format"], row["skip"]) == ([96, 128], "mp4, h264 yuv420p", False)
    assert row["output"].endswith("in_nearest_x2.mp4") and row["memory_bytes"] > 0 and row["file_bytes"] > 0
    assert [n["id"] for n in row["notices"]] == ["metadata-dropped"]
    assert "Notes:" in upframe(source, "-m", weights, "-f", "mp4", "--dry-run").out
    assert everything(tmp_path) == {"in.mkv"}


def test_a_name_as_long_as_names_can_be(upframe: Upframe, tmp_path: Path, weights: Path) -> None:
    source = make_film(tmp_path / ("n" * 251 + ".mkv"), make_pictures(2, (16, 24)))
    result = upframe(source, "-m", weights, "--json")
    assert (result.code, result.notices) == (0, ["name-shortened"])
    assert len(everything(tmp_path)) == 2


# Resuming -------------------------------------------------------------------------------------------------------------
def await_until(is_so: Callable[[], bool], *, most_s: float = 60) -> None:
    deadline = time.monotonic() + most_s
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def make_job(folder: Path, weights: Path) -> tuple[Path, Path, list[object]]:
    """A cheap film with sound in four segments: (input, output, command)."""
    clip = Clip([*films.VFR_PTS, *(70000 + 3600 * n for n in range(8))], options={"bf": "2", "g": "6"}, sounds=[Sound()])
    source = make_clip(folder / "in.mkv", clip)
    output = folder / "work" / "out.mp4"
    output.parent.mkdir(exist_ok=True)
    flags = ["--window", "5", "--preset", "ultrafast", "--json"]
    return source, output, [source, "-m", weights, "-o", output, *flags]


@pytest.mark.slow
@needs_fork
@pytest.mark.parametrize("fault", [name for name in films.FAULTS if not name.startswith("(")])
def test_killed_at_any_point_the_next_run_makes_the_same_file(
    upframe: Upframe, tmp_path: Path, weights: Path, fault: str
) -> None:
    _, output, command = make_job(tmp_path, weights)
    assert upframe(*command).code == 0
    undisturbed = output.read_bytes()
    output.unlink()
    child = films.start(command, tmp_path / "log", fault=fault)
    assert child.wait() == -signal.SIGKILL, child.log.read_text()
    is_finished = fault in ("before tidying", "while tidying")
    assert output.exists() == is_finished
    result = upframe(*command)
    assert result.code == 0
    assert output.read_bytes() == undisturbed
    assert everything(output.parent) == {"out.mp4"}
    if is_finished:
        assert result.of("summary")["skipped"] == 1
        return
    kept = {"after two segments": 10, "in the second segment": 5}
    if "join" in fault or "verify" in fault or "film gets" in fault:
        kept[fault] = 20
    assert result.of("video")["frames_resumed"] == kept.get(fault, 0)


@pytest.mark.slow
@needs_fork
def test_killed_at_random_times_and_again_the_result_is_the_same(tmp_path: Path, weights: Path) -> None:
    """Nothing but the whole film is ever at its name; what resumes after any number of kills makes the same bytes."""
    _, output, command = make_job(tmp_path, weights)
    child = films.start(command, tmp_path / "log")
    began = time.perf_counter()
    assert child.wait() == 0
    whole_s = time.perf_counter() - began
    undisturbed = output.read_bytes()
    output.unlink()
    kills = finished = 0
    for share in films.random_moments(18, seed=5) * 3:
        child = films.start(command, tmp_path / "log")
        time.sleep(share * whole_s)
        child.kill()
        kills += child.process.exitcode == -signal.SIGKILL
        if output.exists():
            assert output.read_bytes() == undisturbed
            assert films.start(command, tmp_path / "log").wait() == 0
            assert everything(output.parent) == {"out.mp4"}
            output.unlink()
            finished += 1
        if kills >= 18 and finished:
            break
    assert kills >= 15
    assert films.start(command, tmp_path / "log").wait() == 0
    assert output.read_bytes() == undisturbed
    assert everything(output.parent) == {"out.mp4"}


@pytest.fixture
def interrupted(tmp_path: Path, weights: Path, upframe: Upframe, monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """A job of four segments of which two are done."""
    _, _, command = make_job(tmp_path, weights)
    commit, calls = SegmentStore.commit, 0

    def faulty(self: SegmentStore, index: int) -> None:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise MemoryError
        commit(self, index)

    with monkeypatch.context() as patch:
        patch.setattr(SegmentStore, "commit", faulty)
        assert upframe(*command).code == 5
    return command


@pytest.mark.slow
@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--crf", "30"], "crf was the default in an interrupted run and is 30 now (--crf)"),
        (["--overlap", "4"], "blend was 8 in an interrupted run and is 4 now (--overlap)"),
        (["--window", "4"], "window was 5 in an interrupted run and is 4 now (--window)"),
        (["--tile", "32"], "tile was auto in an interrupted run and is 32x32 now (--tile)"),
        (["-s", "1.5"], "size was 128x96 in an interrupted run and is 96x72 now"),
        (["--end", "0.4"], "end was the default in an interrupted run and is 0.4 now (--end)"),
        (["--no-audio"], "audio was on in an interrupted run and is off now (--audio)"),
        (["--on-bad-frame", "skip"], "on bad frame was repeat in an interrupted run and is skip now (--on-bad-frame)"),
    ],
    ids=lambda x: " ".join(x) if isinstance(x, list) else "",
)
def test_changed_option_refuses_to_go_on_and_says_which(
    upframe: Upframe, interrupted: list[object], flags: list[str], says: str
) -> None:
    without_window = [a for a in interrupted if a not in ("--window", "5")] if "--window" in flags else interrupted
    result = upframe(*without_window, *flags)
    assert (result.code, says in result.err + result.out) == (2, True), result.err
    assert "--restart" in result.err + result.out
    assert upframe(*interrupted).of("video")["frames_resumed"] == 10  # and nothing was lost by the attempt


@pytest.mark.slow
def test_changed_input_weights_or_version_refuses_too(
    upframe: Upframe, interrupted: list[object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, output = Path(str(interrupted[0])), tmp_path / "work" / "out.mp4"
    other = nearest_weights(tmp_path / "other.safetensors", scale=2, name="other")
    assert "other.safetensors now" in upframe(*(other if a == interrupted[2] else a for a in interrupted)).out
    with monkeypatch.context() as patch:
        patch.setattr("upframe.jobs.video.facts.__version__", "0.0.0")
        assert "in an interrupted run and is 0.0.0 now" in upframe(*interrupted).out
    with monkeypatch.context() as patch:  # a machine with another card
        patch.setattr("torch.cuda.get_device_name", lambda device: "Card B")
        patch.setattr("upframe.engines.eager.device_model", lambda device: device_model(torch.device("cuda:1")))
        assert "device was cpu in an interrupted run and is cuda, Card B now" in upframe(*interrupted).out
    before = source.read_bytes()
    make_clip(source, Clip([*films.VFR_PTS, *(70000 + 3600 * n for n in range(8))], options={"bf": "2", "crf": "40"}))
    result = upframe(*interrupted)
    assert (result.code, "the input is not the same as in an interrupted run" in result.out) == (2, True)
    assert not output.exists()
    again = upframe(*interrupted, "--restart")
    assert (again.code, again.of("video")["frames_resumed"]) == (0, 0)
    source.write_bytes(before)


@pytest.mark.slow
def test_what_was_chosen_from_free_memory_is_kept_by_the_next_run(
    upframe: Upframe, tmp_path: Path, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another program that takes memory between two runs must not make an interrupted film unusable."""
    source = make_clip(tmp_path / "in.mkv", Clip(size=(160, 160)))
    command = [source, "-m", weights, "--preset", "ultrafast", "--json"]
    assert upframe(*command, "-o", tmp_path / "undisturbed.mkv").code == 0
    with monkeypatch.context() as patch:
        patch.setattr("upframe.jobs.video.outputs.join", films.out_of_memory)
        assert upframe(*command, "-o", tmp_path / "out.mkv").code == 5
    monkeypatch.setattr("upframe.upscaling.images.available_memory_bytes", lambda: 1 << 20)
    result = upframe(*command, "-o", tmp_path / "out.mkv")
    assert (result.code, result.of("video")["frames_resumed"]) == (0, 12)
    assert (tmp_path / "out.mkv").read_bytes() == (tmp_path / "undisturbed.mkv").read_bytes()


@pytest.mark.slow
def test_damaged_segment_is_made_again(upframe: Upframe, interrupted: list[object], tmp_path: Path, weights: Path) -> None:
    output = tmp_path / "work" / "out.mp4"
    segment = work_path(output) / "000001.seg"
    data = bytearray(segment.read_bytes())
    data[len(data) // 2] ^= 1
    segment.write_bytes(data)
    assert upframe(*interrupted).of("video")["frames_resumed"] == 5
    made = output.read_bytes()
    assert upframe(*interrupted, "-y").code == 0
    assert output.read_bytes() == made


@pytest.mark.slow
def test_interrupted_folder_of_frames_goes_on(
    upframe: Upframe, tmp_path: Path, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = make_film(tmp_path / "in.mkv", make_pictures(9, (16, 24)))
    command = [source, "-m", weights, "-f", "png", "--window", "3", "--json"]
    commit, calls = SegmentStore.commit, 0

    def faulty(self: SegmentStore, index: int) -> None:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise MemoryError
        commit(self, index)

    with monkeypatch.context() as patch:
        patch.setattr(SegmentStore, "commit", faulty)
        assert upframe(*command).code == 5
    output = tmp_path / "in_nearest_x2"
    assert not output.exists()
    frame = work_path(output) / "frames" / "frame_00000001.png"
    write_pixels(
        frame,
        np.zeros((32, 48, 3), np.uint8),
    )
    assert upframe(*command).of("video")["frames_resumed"] == 3  # the damaged segment and the unfinished one are redone
    for number, picture in enumerate(make_pictures(9, (16, 24))):
        np.testing.assert_array_equal(read_pixels(output / f"frame_{number:08}.png"), repeated(picture, 2))
    assert everything(tmp_path) - {f"in_nearest_x2/frame_{n:08}.png" for n in range(9)} == {"in.mkv", "in_nearest_x2"}


@pytest.mark.slow
@needs_fork
@pytest.mark.parametrize("flags", [[], ["--restart"]], ids=["resumes", "restarts"])
def test_second_run_on_a_film_waits_and_goes_on_when_the_first_is_killed(
    upframe: Upframe, tmp_path: Path, weights: Path, flags: list[str]
) -> None:
    _, output, command = make_job(tmp_path, weights)
    first = films.start(command, tmp_path / "first", fault="(stands still in the second segment)")
    await_until(lambda: (work_path(output) / "000000.seg").exists())
    second = films.start([*command, *flags], tmp_path / "second")
    await_until(lambda: "waiting" in second.log.read_text())
    assert not output.exists()
    first.kill()
    assert second.wait() == 0, second.log.read_text()
    assert f'"frames_resumed": {0 if flags else 5}' in second.log.read_text()
    assert everything(output.parent) == {"out.mp4"}


@pytest.mark.slow
@needs_fork
def test_second_run_on_a_film_takes_what_the_first_makes(upframe: Upframe, tmp_path: Path, weights: Path) -> None:
    _, output, command = make_job(tmp_path, weights)
    first = films.start(command, tmp_path / "first", fault="(slow while checking)")
    await_until(lambda: "(slow)" in first.log.read_text())
    second = upframe(*command)
    assert (first.wait(), second.code) == (0, 0)
    assert second.of("summary")["skipped"] == 1
    assert everything(output.parent) == {"out.mp4"}


@pytest.mark.slow
@needs_fork
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize("stage", ["reading", "upscaling", "checking"])
def test_signal_stops_at_a_frame_and_the_next_run_goes_on(
    upframe: Upframe, tmp_path: Path, weights: Path, number: int, code: int, stage: str
) -> None:
    _, output, command = make_job(tmp_path, weights)
    child = films.start(command, tmp_path / "log", fault=f"(slow while {stage})")
    await_until(lambda: "(slow)" in child.log.read_text())
    child.send(number)
    began = time.monotonic()
    assert child.wait() == code
    assert time.monotonic() - began < 5
    assert not output.exists()
    assert not any(name.endswith(".part") for name in everything(output.parent) if ".upframe/" not in name)
    resumed = {"reading": 0, "upscaling": 5, "checking": 20}[stage]
    assert upframe(*command).of("video")["frames_resumed"] == resumed


@pytest.mark.slow
@needs_fork
def test_full_disk_is_6_and_the_next_run_goes_on(upframe: Upframe, tmp_path: Path, weights: Path) -> None:
    """A limit on file sizes stands in for the full disk: the joined film is larger than any segment of it."""
    source = make_film(tmp_path / "in.mkv", make_pictures(8, (64, 96)))
    output = tmp_path / "out.mkv"
    command = [source, "-m", weights, "-o", output, "--window", "2", "--json"]

    def limit(size: int) -> Callable[[], None]:
        def apply() -> None:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))

        return apply

    for size in (40_000, 150_000):
        run = [sys.executable, "-m", "upframe", *map(str, command)]
        done = subprocess.run(run, capture_output=True, text=True, timeout=120, check=False, preexec_fn=limit(size))
        assert (done.returncode, "cannot be written" in done.stdout) == (6, True), done.stdout
        assert not output.exists()
        assert everything(tmp_path) - {"in.mkv"} == {p for p in everything(tmp_path) if p.startswith(".out.mkv.upframe")}
    assert upframe(*command).of("video")["frames_resumed"] == 8
    assert len(films.rgb_of(output)) == 8


@pytest.mark.slow
def test_film_that_does_not_verify_is_7_and_not_there(
    upframe: Upframe, tmp_path: Path, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, output, command = make_job(tmp_path, weights)

    def join_badly(segments: Any, target: Path, *args: Any, **options: Any) -> Any:
        expected = video.join(segments, target, *args, **options)
        data = bytearray(target.read_bytes())
        at = len(data) // 2
        data[at : at + 400] = bytes(400)
        target.write_bytes(data)
        return expected

    with monkeypatch.context() as patch:
        patch.setattr("upframe.jobs.video.outputs.join", join_badly)
        result = upframe(*command)
    assert (result.code, result.of("failed")["exit_code"]) == (7, 7)
    assert not output.exists()
    assert everything(output.parent) == {p for p in everything(output.parent) if p.startswith(".out.mp4.upframe")}
    assert upframe(*command).of("video")["frames_resumed"] == 20


def test_too_little_space_is_told_before_any_frame(
    upframe: Upframe, tmp_path: Path, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, output, command = make_job(tmp_path, weights)
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage._replace(free=1000))
    result = upframe(*command)
    assert (result.code, "are needed" in result.out) == (6, True)
    assert everything(output.parent) == set()


def test_film_that_changes_after_it_was_planned_is_3(
    upframe: Upframe, tmp_path: Path, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, output, command = make_job(tmp_path, weights)
    run = jobs.run

    def run_late(*args: Any, **options: Any) -> Any:
        make_clip(source, Clip(size=(32, 32)))
        return run(*args, **options)

    monkeypatch.setattr(jobs, "run", run_late)
    result = upframe(*command)
    assert (result.code, "changed while reading" in result.out) == (3, True)
    assert everything(output.parent) == set()


# What is said ---------------------------------------------------------------------------------------------------------
@pytest.mark.slow
def test_json_tells_stages_rates_and_the_film(upframe: Upframe, tmp_path: Path, weights: Path) -> None:
    _, _, command = make_job(tmp_path, weights)
    result = upframe(*command)
    assert [line["event"] for line in result.lines if line["event"] not in ("progress", "notice")] == [
        "start", "video", "done", "summary",
    ]  # fmt: skip
    progress = [line for line in result.lines if line["event"] == "progress" and line["stage"] == "upscaling"]
    assert [line["frame"] for line in progress] == list(range(21))  # 0 says that the stage began
    assert [line["done"] for line in progress] == pytest.approx([n / 20 for n in range(21)])
    assert all(line["frames"] == 20 and (line["frames_per_s"] > 0) == (line["frame"] > 0) for line in progress)
    assert {key: result.of("video")[key] for key in ("frames", "segments", "frames_resumed", "cleaning_passes")} == {
        "frames": 20, "segments": 4, "frames_resumed": 0, "cleaning_passes": [],
    }  # fmt: skip


@pytest.mark.slow
def test_rate_counts_only_frames_of_this_run(interrupted: list[object], upframe: Upframe) -> None:
    """Ten frames that were there already are not fast: the time left would be far too short."""
    lines = [line for line in upframe(*interrupted).lines if line["event"] == "progress" and line["stage"] == "upscaling"]
    began, *lines = lines
    assert (began["frame"], began["frames_per_s"]) == (10, 0)
    assert [line["frame"] for line in lines] == list(range(11, 21))
    # One frame after another: were the ten counted, the first rate would be elevenfold, and fall.
    times = [(line["frame"] - 10) / line["frames_per_s"] for line in lines]
    assert times == sorted(times)


def _alpha(folder: Path) -> list[str]:
    make_film(folder / "in.mkv", make_pictures(2, (16, 24)), pix_fmt="yuva420p")
    return ["in.mkv"]


def _damaged(folder: Path) -> list[str]:
    damage(make_clip(folder / "in.mp4", Clip(options={"bf": "0", "g": "5"})), 7)
    return ["in.mp4"]


def _clip(*flags: str, name: str = "in.mkv", **facts: Any) -> Callable[[Path], list[str]]:
    def make(folder: Path) -> list[str]:
        make_clip(folder / name, Clip(**facts))
        return [name, *flags]

    return make


def _gap(folder: Path) -> list[str]:
    make_frames(folder / "in", make_pictures(2, (16, 24)), names=["1.png", "4.png"])
    return ["in", "--clip"]


def _early(folder: Path) -> list[str]:
    clip = Clip([-9000 + 3600 * n for n in range(10)], options={"bf": "0"}, sounds=[Sound(offset=Fraction(-1, 10))])
    make_clip(folder / "in.ts", clip, avoid_negative_ts="disabled", copyts="1")
    return ["in.ts", "-f", "mkv"]


def _joined(folder: Path) -> list[str]:
    path = make_clip(folder / "in.ts", Clip())
    join_streams(path, path, path)
    return ["in.ts", "-f", "mkv"]


def _captions(folder: Path) -> list[str]:
    clip = Clip(options={"bf": "0"})
    muxed(folder / "in.mkv", [with_sei(stream_bytes(folder, clip), CAPTION)])
    return ["in.mkv", "-c", "ffv1"]


def _two_colours(folder: Path) -> list[str]:
    clips = (Clip(options={"bf": "0"}, tags=tags) for tags in ((1, 1, 1, 1), (6, 6, 6, 1)))
    muxed(folder / "in.mkv", [stream_bytes(folder, clip) for clip in clips])
    return ["in.mkv"]


def _with_box(made: bytes) -> Callable[[Path], list[str]]:
    def make(folder: Path) -> list[str]:
        add_to_sample_entry(make_clip(folder / "in.mp4", Clip()), made)
        return ["in.mp4"]

    return make


def _user_data(folder: Path) -> list[str]:
    bare = stream_bytes(folder, Clip(options={"bf": "0"}))
    muxed(folder / "in.mkv", [with_sei(bare, bytes(range(16)) + b"of a drone", kind=5)])
    return ["in.mkv"]


def _cut(folder: Path) -> list[str]:
    path = make_clip(folder / "in.mkv", Clip(size=(96, 96), options={"bf": "0"}))
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    return ["in.mkv", "--allow-truncated"]


HDR = "log-level=none:master-display=G(13250,34500)B(7500,3000)R(34000,16000)WP(15635,16450)L(10000000,50):max-cll=1000,400"

CAUSES: dict[str, Callable[[Path], list[str]]] = {
    "alpha-dropped": _alpha,
    "audio-converted": _clip("-f", "mov", sounds=[Sound("flac")]),
    "bad-frames": _damaged,
    "beyond-model-scale": _clip("-s", "3"),
    "captions-dropped": _captions,
    "chroma-reduced": _clip("--pix-fmt", "yuv420p", pix_fmt="yuv444p"),
    "colour-changes": _two_colours,
    "container-changed": _clip(name="in.avi", codec="mpeg4", pts=[0, 1], clock=Fraction(1, 25)),
    "depth-reduced": _clip("-c", "h264", pix_fmt="yuv420p12le", codec="ffv1"),
    "dv-dropped": _with_box(dolby_vision(8, 1)),
    "frames-missing": _gap,
    "hdr-dropped": _clip(
        "-c", "ffv1", codec="libx265", size=(64, 64), pix_fmt="yuv420p10le", tags=(9, 16, 9, 1), options={"x265-params": HDR}
    ),
    "interlaced": _clip(options={"x264-params": "interlaced=1"}),
    "metadata-dropped": _clip("-f", "mp4", video_metadata={"MOOD": "calm"}),
    "packets-dropped": _clip(sounds=[Sound()]),
    "no-pts": _clip("-f", "mkv", name="in.h264"),
    "projection-dropped": _with_box(equirectangular()),
    "pts-repaired": _clip(pts=[0, 3600, 3610, 3620, 7200, 10800], options={"bf": "0"}),
    "side-data-dropped": _user_data,
    "size-adjusted": _clip("--size", "63x47"),
    "start-shifted": _early,
    "subtitle-converted": _clip("-f", "mp4", subtitles=[(0, 100, "x")]),
    "time-jumps": _joined,
    "track-dropped": _clip("-f", "mp4", attachment=b"a font"),
    "truncated": _cut,
}  # fmt: skip


def test_the_ledger_is_in_the_plan_and_in_the_result(upframe: Upframe, tmp_path: Path, weights: Path) -> None:
    bare = stream_bytes(tmp_path, Clip(options={"bf": "0"}))
    source = muxed(tmp_path / "in.mkv", [bare, with_sei(bare, CAPTION)])
    result = upframe(source, "-m", weights, "-c", "ffv1", "--dry-run", "--json")
    captions = {
        "kind": "side data",
        "name": "A53_CC",
        "fate": "lost",
        "detail": "its closed captions are dropped",
        "notice": "captions-dropped",
    }
    (row,) = result.lines
    assert captions in row["ledger"]
    text = upframe(source, "-m", weights, "-c", "ffv1", "--dry-run").out
    assert "\nBesides the pixels:\n" in text and "    lost: side data A53_CC (its closed captions are dropped)\n" in text
    made = upframe(source, "-m", weights, "-c", "ffv1", "--json")
    assert made.of("done")["ledger"] == made.of("summary")["items"][0]["ledger"]
    assert captions in made.of("done")["ledger"]


def test_a_part_of_a_video_has_the_time_code_of_its_first_frame(upframe: Upframe, tmp_path: Path, weights: Path) -> None:
    source = make_clip(tmp_path / "in.mp4", Clip(video_metadata={"timecode": "01:02:03:24"}))
    assert upframe(source, "-m", weights, *FAST, "--start", "0.12").code == 0
    assert dict(probe_video(tmp_path / "in_nearest_x2.mp4").video_tags)["timecode"] == "01:02:04:02"


def test_captions_come_out_with_their_frames(upframe: Upframe, tmp_path: Path, weights: Path) -> None:
    bare = stream_bytes(tmp_path, Clip(options={"bf": "0"}))
    source = muxed(tmp_path / "in.mp4", [with_sei(bare, caption)])
    result = upframe(source, "-m", weights, *FAST, "--window", "5", "--strict", "--json")
    assert (result.code, result.notices) == (0, [])
    with video.VideoSource(source) as before, video.VideoSource(tmp_path / "in_nearest_x2.mp4") as after:
        told = [frame.captions for frame in after]
        assert told == [frame.captions for frame in before] and len(set(told)) == 12


def test_dry_run_tells_of_interlacing_that_begins_late(upframe: Upframe, tmp_path: Path, weights: Path) -> None:
    woven = stream_bytes(tmp_path, Clip(options={"bf": "0", "x264-params": "interlaced=1"}))
    source = muxed(tmp_path / "in.mkv", [stream_bytes(tmp_path, Clip(options={"bf": "0"})), woven])
    result = upframe(source, "-m", weights, "--dry-run", "--json")
    (row,) = result.lines
    assert row["video"]["interlaced"] and [n["id"] for n in row["notices"]] == ["interlaced"]
    assert upframe(source, "-m", weights, "--deinterlace", "auto", "--dry-run", "--strict").code == 0


@pytest.mark.parametrize("name", ["in.mkv", "in.mp4", "in.ts"])
def test_a_start_after_the_end_is_refused_by_the_plan(upframe: Upframe, tmp_path: Path, weights: Path, name: str) -> None:
    source = make_clip(tmp_path / name, Clip([3600 * n for n in range(12)], options={"bf": "2"}))
    last = ("-m", weights, "-f", "mkv", "--dry-run")
    assert upframe(source, *last, "--start", "0.44").code == 0
    for start in ("0.45", "60"):
        result = upframe(source, *last, "--start", start)
        assert (result.code, result.out) == (2, "") and f"{name} ends before it" in result.err


@pytest.mark.parametrize("container", ["mp4", "mov"])
def test_strict_accepts_files_that_lose_nothing(upframe: Upframe, tmp_path: Path, weights: Path, container: str) -> None:
    """Time codes, the places of phones and titles of tracks are kept; a container that states them twice is no loss."""
    facts = {"location": "+48.1000+011.5000/", "com.apple.quicktime.make": "Apple", "title": "T"}
    clip = Clip(metadata=facts, video_metadata={"timecode": "01:02:03:04"}, sounds=[Sound(title="Talk")])
    source = make_clip(tmp_path / f"in.{container}", clip, movflags="use_metadata_tags")
    result = upframe(source, "-m", weights, *FAST, "-o", tmp_path / f"out.{container}", "--strict", "--json")
    assert (result.code, result.notices) == (0, []), result.out
    made = probe_video(tmp_path / f"out.{container}")
    assert facts.items() <= dict(made.tags).items()
    assert dict(made.video_tags)["timecode"] == "01:02:03:04"


def test_every_notice_has_a_cause() -> None:
    elsewhere = {"window-halved"}  # in test_restoring.py: it takes a network with windows
    assert {*CAUSES, *test_cli.CAUSES, *elsewhere} == set(NOTICES)


@pytest.mark.slow
@pytest.mark.parametrize("id", sorted(CAUSES))
def test_notice_is_told_and_strict_makes_it_an_error(
    upframe: Upframe, tmp_path: Path, weights: Path, id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    command = [
        *CAUSES[id](tmp_path),
        "-m",
        weights,
        *([] if id in ("hdr-dropped", "frames-missing", "alpha-dropped", "captions-dropped") else FAST),
    ]
    inputs = everything(tmp_path)
    if id == "packets-dropped":  # what the muxer tells only when all frames are done must not be lost
        lost = (Notice(id, "in.mkv", "1 damaged packet of audio could not be copied"),)
        monkeypatch.setattr("upframe.jobs.video.outputs.join", lambda *a, **k: replace(video.join(*a, **k), notices=lost))
    strict = upframe(*command, "--strict", "-q")
    assert strict.code == (2 if NOTICES[id].at_planning else 7)
    assert f"[{id}]" in strict.err
    # Segments stay for a run that accepts the loss.
    assert {name for name in everything(tmp_path) if ".upframe" not in name} == inputs
    lenient = upframe(*command, "--json")
    assert lenient.code == 0, lenient.out
    assert lenient.notices.count(id) == 1  # once, not while planning and again on the way
    assert id in lenient.of("summary")["items"][0]["notices"]
    assert len(everything(tmp_path)) > len(inputs)


@pytest.mark.slow
def test_strict_stops_at_what_comes_up_on_the_way(
    upframe: Upframe, tmp_path: Path, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from upframe.engines import TorchEngine
    from upframe.errors import OutOfMemoryError

    source = make_film(tmp_path / "in.mkv", make_pictures(6, (48, 64)))
    original = TorchEngine.__call__

    def small(self: TorchEngine, clip: Any, *args: Any, **options: Any) -> Any:
        if clip.shape[-1] > 63:
            raise OutOfMemoryError("net", "a tile did not fit")
        return original(self, clip, *args, **options)

    monkeypatch.setattr(TorchEngine, "__call__", small)
    strict = upframe(source, "-m", weights, "-o", tmp_path / "strict.mkv", "--window", "2", "--strict", "--json")
    assert (strict.code, strict.notices) == (7, ["tile-halved"])
    assert strict.lines[-2]["event"] == "failed"
    assert [line["frame"] for line in strict.lines if line.get("stage") == "upscaling"] == [0, 1]  # at once, not at the end
    result = upframe(source, "-m", weights, "-o", tmp_path / "out.mkv", "--window", "2", "--json")
    assert result.code == 0
    assert set(result.notices) == {"tile-halved"}
    assert all(
        (a == repeated(b, 2)).all() for a, b in zip(films.rgb_of(tmp_path / "out.mkv"), make_pictures(6, (48, 64)), strict=True)
    )


def test_the_plan_counts_the_frames_of_matroska_by_their_length(upframe: Upframe, tmp_path: Path, weights: Path) -> None:
    """Its headers state how long a track is shown, and no number of frames."""
    film = make_clip(tmp_path / "film.mkv", Clip(pts=[3600 * n for n in range(50)]))
    result = upframe(film, "-m", weights, "-o", tmp_path / "large.mkv", "--dry-run", "--json")
    assert result.of("plan")["frames"] == 50
    assert "2.0 s, 25 fps, 50 frames" in upframe(film, "-m", weights, "-o", tmp_path / "large.mkv", "--dry-run").out


def test_sound_of_no_known_codec_is_damage(upframe: Upframe, tmp_path: Path, weights: Path) -> None:
    film = make_clip(tmp_path / "film.mp4", Clip(sounds=[Sound()]))
    film.write_bytes(film.read_bytes().replace(b"mp4a", b"zzzz").replace(b"esds", b"zzzz"))
    result = upframe(film, "-m", weights, "-o", tmp_path / "large.mkv")
    assert result.code == 3
    assert "its audio (stream 1, unknown) cannot be read. Use --no-audio." in result.err
    assert upframe(film, "-m", weights, "-o", tmp_path / "large.mkv", "--no-audio").code == 0
