"""Tags of files and tracks: kept by every container that can hold them, and told where one cannot."""

from __future__ import annotations

import io
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from upframe.media.video.boxes import edit_lists
from upframe.media.video.files import CONTAINERS, index_video, plan_video, probe_video, side_ledger
from upframe.media.video.index_file import load_index, save_index
from upframe.media.video.stated import Stated
from upframe.media.video.survey import Survey
from upframe.media.video.tags import MOV_LANGUAGES, file_tags, later_timecode, unwritten_tags
from video_files import Clip, Sound, make_clip

pytestmark = pytest.mark.slow

PHONE = {
    "com.apple.quicktime.make": "Apple",
    "com.apple.quicktime.location.ISO6709": "+48.1+11.5+500/",
    "com.apple.quicktime.creationdate": "2026-05-01T12:00:00+0200",
    "title": "Holiday",
}


@pytest.mark.parametrize("container", ["mov", "mp4", "mkv"])
def test_tags_of_a_phone_are_kept(tmp_path: Path, container: str) -> None:
    from test_video_write import copy_video

    source = make_clip(tmp_path / "in.mov", Clip(metadata=PHONE), movflags="use_metadata_tags")
    plan, _ = copy_video(source, tmp_path / f"out.{container}", preset="ultrafast")
    assert not plan.notices
    found = {key.lower(): value for key, value in probe_video(tmp_path / f"out.{container}").tags}
    assert {key.lower(): value for key, value in PHONE.items()}.items() <= found.items()


def test_tags_are_lost_with_a_notice_only_where_a_cover_needs_their_place() -> None:
    tags = (("title", "T"), ("MOOD", "calm"), ("DIRECTOR", "me"))
    free = file_tags(tags, Stated(), CONTAINERS["mp4"], has_cover=False)
    assert (free.tags, free.with_keys) == (tags, True)
    beside = file_tags(tags, Stated(), CONTAINERS["mp4"], has_cover=True)
    assert (beside.tags, beside.with_keys) == (tags[:1], False)
    lost = {entry.name: (entry.detail, entry.notice) for entry in beside.entries if entry.fate == "lost"}
    assert lost == dict.fromkeys(("MOOD", "DIRECTOR"), ("MP4 has no place for its tags MOOD, DIRECTOR", "metadata-dropped"))


def test_tags_that_a_container_repeats_are_no_loss(tmp_path: Path) -> None:
    source = make_clip(tmp_path / "in.mp4", Clip(metadata={"location": "+48.1000+011.5000/", "timecode": "01:02:03:04"}))
    info = probe_video(source)
    info = replace(info, tags=(*info.tags, ("timecode", "01:02:03:04")))  # as FFmpeg reads it from files with two time codes
    assert "location-eng" in dict(info.tags)
    for container in ("mp4", "mov", "mkv"):
        plan = plan_video(info, container=container, codec="h264", preset="ultrafast")
        assert not plan.notices
        assert dict(plan.video_tags)["timecode"] == "01:02:03:04"


def test_the_time_code_is_written_and_one_for_a_rate_without_time_codes_is_told(tmp_path: Path) -> None:
    from test_video_write import copy_video

    times = [6000 * n for n in range(6)]
    slow = make_clip(tmp_path / "slow.mkv", Clip(pts=times, rate=15, metadata={"timecode": "01:02:03:04"}))
    plan = plan_video(probe_video(slow), container="mp4", preset="ultrafast")
    assert [n.message for n in plan.notices] == ["MP4 cannot hold a time code at 15 frames per second"]
    usual = make_clip(tmp_path / "usual.mkv", Clip(metadata={"timecode": "01:02:03:04"}))
    copy_video(usual, tmp_path / "out.mp4", preset="ultrafast")
    assert dict(probe_video(tmp_path / "out.mp4").video_tags)["timecode"] == "01:02:03:04"


def test_a_time_code_in_the_frames_becomes_that_of_the_video(tmp_path: Path) -> None:
    from test_video_write import copy_video

    for start, kept in (("10:11:12:13", "10:11:12:13"), ("00:00:00:00", None)):
        clip = Clip(pts=range(12), clock=Fraction(1, 25), codec="mpeg2video", options={"gop_timecode": start})
        source = make_clip(tmp_path / "in.mpg", clip)
        for target in (tmp_path / "out.mkv", tmp_path / "out.mp4"):
            plan, _ = copy_video(source, target, codec="h264", preset="ultrafast")
            assert not plan.notices
            found = {key.lower(): value for key, value in probe_video(target).video_tags}
            assert found.get("timecode") == kept
        assert [n.id for n in side_ledger(probe_video(source), Survey(frame_data=("GOP_TIMECODE",)), None).notices("a")]


@pytest.mark.parametrize(
    ("code", "frames", "rate", "later"),
    [
        ("01:02:03:04", 0, 25, "01:02:03:04"),
        ("01:02:03:04", 21, 25, "01:02:04:00"),
        ("23:59:59:24", 1, 25, "00:00:00:00"),
        ("00:00:59:29", 1, 30, "00:01:00:00"),
        ("00:00:59;29", 1, 30, "00:01:00;02"),  # the numbers 0 and 1 of a minute are dropped
        ("00:09:59;29", 1, 30, "00:10:00;00"),  # but not of each tenth
        ("00:00:00;00", 17982, 30, "00:10:00;00"),
        ("00:00:00;00", 107892, 30, "01:00:00;00"),
        ("00:00:59;59", 1, 60, "00:01:00;04"),
        ("nonsense", 5, 25, "nonsense"),
    ],
)
def test_a_time_code_runs_on_with_the_frames(code: str, frames: int, rate: int, later: str) -> None:
    assert later_timecode(code, frames, rate) == later
    for split in (1, 7, 1799):
        assert later_timecode(later_timecode(code, split, rate), frames, rate) == later_timecode(code, split + frames, rate)


def test_text_that_is_not_utf_8_is_in_the_ledger(tmp_path: Path) -> None:
    source = make_clip(tmp_path / "in.mp4", Clip(metadata={"title": "Ton"}))
    source.write_bytes(source.read_bytes().replace(b"Ton", b"\xd2\xee\xed"))
    plan = plan_video(probe_video(source), preset="ultrafast")
    assert [entry.fate for entry in plan.ledger.entries if entry.name == "title"] == ["changed"]
    assert [(notice.id, notice.message) for notice in plan.notices] == [
        ("metadata-damaged", "bytes of its tag title that are not UTF-8 are replaced")
    ]


def test_interlacing_is_known_to_processes_that_load_the_index(tmp_path: Path) -> None:
    source = make_clip(tmp_path / "a.mkv", Clip(options={"x264-params": "interlaced=1"}))
    save_index(index_video(source), tmp_path / "index.npz")
    loaded = load_index(tmp_path / "index.npz", source)
    assert loaded is not None and loaded.seen.interlaced == 12


def test_planned_tags_that_a_file_lacks_are_found(tmp_path: Path) -> None:
    clip = Clip(metadata={"title": "T", "artist": "me"}, video_metadata={"title": "Film"})
    plan = plan_video(probe_video(make_clip(tmp_path / "in.mp4", clip)), preset="ultrafast")
    assert unwritten_tags(make_clip(tmp_path / "same.mp4", clip), plan) == ()
    other = make_clip(tmp_path / "other.mp4", replace(clip, metadata={"title": "T"}, video_metadata={}))
    assert unwritten_tags(other, plan) == ("artist", "title")


def test_the_languages_of_mov_are_those_that_ffmpeg_writes() -> None:
    others = ("hrv", "deu", "fre", "nld", "srp", "zho", "cym", "und", "zxx")
    file, asked = io.BytesIO(), sorted({*MOV_LANGUAGES, *others})
    with av.open(file, "w", format="mov") as out:
        streams = [out.add_stream("pcm_s16le", rate=8000, layout="mono") for _ in asked]
        for stream, language in zip(streams, asked, strict=True):
            stream.metadata["language"] = language
        for stream in streams:
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 8), np.int16), "s16", "mono")
            frame.sample_rate, frame.pts = 8000, 0
            out.mux(stream.encode(frame))
    file.seek(0)
    with av.open(file) as made:
        kept = {one for one, stream in zip(asked, made.streams, strict=True) if stream.metadata.get("language") == one}
    assert kept == MOV_LANGUAGES


@pytest.mark.parametrize(
    ("language", "written", "lost"), [("fre", "fra", 0), ("fra", "fra", 0), ("nld", "dut", 0), ("hrv", None, 1)]
)
def test_a_language_that_mov_cannot_name_is_told(tmp_path: Path, language: str, written: str | None, lost: int) -> None:
    from test_video_write import copy_video

    source = make_clip(tmp_path / "in.mkv", Clip(sounds=[Sound(language=language)]))
    plan, _ = copy_video(source, tmp_path / "out.mov", codec="h264", preset="ultrafast")
    assert [n.message for n in plan.notices] == [f"MOV has no number for the language {language}"] * lost
    (sound,) = probe_video(tmp_path / "out.mov").of_kind("audio")
    assert sound.language == written


def test_tags_of_chapters_are_kept_or_told(tmp_path: Path) -> None:
    info = probe_video(make_clip(tmp_path / "in.mkv", Clip(chapters=[(0, 200, "One"), (200, 480, "Two")])))
    assert not plan_video(info, container="mp4", preset="ultrafast").notices
    chapters = tuple(replace(one, tags=(*one.tags, ("ARTIST", "me"))) for one in info.chapters)
    plan = plan_video(replace(info, chapters=chapters), container="mp4", preset="ultrafast")
    assert [n.message for n in plan.notices] == ["MP4 has no place for the tags ARTIST of chapters"]
    assert not plan_video(replace(info, chapters=chapters), container="mkv", preset="ultrafast").notices


def test_edit_lists_are_in_the_ledger_and_broken_ones_are_survived(tmp_path: Path) -> None:
    source = make_clip(tmp_path / "in.mp4", Clip(sounds=[Sound(offset=Fraction(1, 5))]))
    info = probe_video(source)
    assert info.stated.edits == (1, 2)  # the second holds the silence before the sound
    names = [entry.name for entry in plan_video(info, preset="ultrafast").ledger.entries if entry.kind == "container"]
    assert names == ["edit list 1 (1)", "edit list 2 (2)"]
    data = source.read_bytes()
    endless = data.replace(b"\x00\x00\x00\x24edts", b"\x00\x00\x00\x01edts")
    for wrong in (b"\x00\x00\x00\x00moov" * 1000, data[: len(data) // 2], endless):
        (tmp_path / "wrong.mp4").write_bytes(wrong)
        assert isinstance(edit_lists(tmp_path / "wrong.mp4"), tuple)


def test_titles_and_languages_of_tracks_are_kept_by_every_container(tmp_path: Path) -> None:
    from test_video_write import copy_video

    clip = Clip(sounds=[Sound(language="deu", title="Kommentar")], video_metadata={"title": "Film"})
    source = make_clip(tmp_path / "in.mkv", clip)
    for container in ("mp4", "mov", "mkv"):
        target = tmp_path / f"out.{container}"
        plan, _ = copy_video(source, target, codec="h264", preset="ultrafast")
        assert not plan.notices
        with av.open(str(target)) as opened:
            film, sound = opened.streams.video[0].metadata, opened.streams.audio[0].metadata
        assert [t.get("title") or t.get("name") for t in (film, sound)] == ["Film", "Kommentar"]
        assert sound["language"] == ("ger" if container == "mov" else "deu")  # two codes of one language


def test_every_tag_of_the_file_and_its_tracks_is_in_the_ledger(tmp_path: Path) -> None:
    source = make_clip(tmp_path / "in.mkv", Clip(sounds=[Sound()], metadata={"MOOD": "calm"}, video_metadata={"PLACE": "here"}))
    info = probe_video(source)
    for container in ("mkv", "mp4", "mov"):
        plan = plan_video(info, container=container, codec="h264", preset="ultrafast")
        named = {entry.name for entry in plan.ledger.entries if entry.kind == "tag"}
        wanted = {key for key, _ in info.tags} | {f"{key} of the video" for key, _ in info.video_tags}
        wanted |= {f"{key} of track {one.index}" for one in info.streams for key, _ in one.tags}
        assert wanted <= named
        assert [n.id for n in plan.notices] == ([] if container == "mkv" else ["metadata-dropped"])  # PLACE
