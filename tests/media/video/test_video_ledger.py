"""The ledger of a video: whatever came in is carried, changed or lost, and no loss goes without a notice."""

from __future__ import annotations

import io
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any, get_args

import av
import numpy as np
import pytest
from av.packet import PacketSideData, PktSideDataT
from av.sidedata.sidedata import Type

from upframe.errors import InputError
from upframe.media.ledger import Entry
from upframe.media.video.boxes import edit_lists
from upframe.media.video.captions import with_captions
from upframe.media.video.files import CONTAINERS, VideoSource, index_video, plan_video, probe_video, reading_ledger, side_ledger
from upframe.media.video.frame_facts import Hdr10, side_data_kind
from upframe.media.video.frames import planes_of
from upframe.media.video.index_file import load_index, save_index
from upframe.media.video.rules import SIDE_DATA
from upframe.media.video.stated import UNKNOWN, Stated, StreamSideData, crop_of, parsed
from upframe.media.video.survey import Survey
from upframe.media.video.tags import MOV_LANGUAGES, file_tags, later_timecode, unwritten_tags
from video_files import Clip, Sound, make_clip, picture
from video_parts import (
    CAPTION,
    NO_CAPTION,
    add_to_sample_entry,
    caption,
    dolby_vision,
    equirectangular,
    hide_rows,
    muxed,
    stream_bytes,
    with_sei,
)

pytestmark = pytest.mark.slow

PLAIN = Clip(options={"bf": "0"})


def entry_of(entries: tuple[Entry, ...], name: str) -> Entry:
    (found,) = [entry for entry in entries if entry.name == name]
    return found


# Side data ------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("place", ["frame", "packet", "stream"])
def test_every_kind_of_side_data_is_in_the_ledger_and_no_loss_is_silent(tmp_path: Path, place: str) -> None:
    """All kinds that this FFmpeg and PyAV know, and one that they do not."""
    info = probe_video(make_clip(tmp_path / "a.mkv", PLAIN))
    kinds = [kind.name for kind in Type] if place == "frame" else list(get_args(PktSideDataT))
    assert set(kinds) <= set(SIDE_DATA), "a newer FFmpeg has kinds without a rule: they are lost with a notice; give them one"
    for kind in (*kinds, UNKNOWN, "a kind of the future"):
        seen = Survey(**{} if place == "stream" else {f"{place}_data": (kind,)})
        stated = Stated((StreamSideData(info.stream, kind, "of any content"),) if place == "stream" else ())
        for plan in (None, plan_video(replace(info, seen=seen, stated=stated), preset="ultrafast")):
            ledger = side_ledger(replace(info, stated=stated), seen, plan)
            entry = entry_of(ledger.entries, kind)
            told = [notice.message for notice in ledger.notices("a.mkv")]
            assert entry.fate != "lost" or told == [entry.detail]
            assert kind in SIDE_DATA or (entry.fate, entry.notice) == ("lost", "side-data-dropped")


def test_side_data_of_streams_is_read_from_the_description_by_ffmpeg_by_name_and_cannot_be_forged_by_tags() -> None:
    names = {name: PacketSideData.from_packet(av.Packet(), name).data_desc for name in get_args(PktSideDataT)}
    lines = "".join(f"      {description}: facts\n" for description in names.values())
    text = (
        "Input #0, mov, from '':\n  Stream #0:0: Video: h264\n    Metadata:\n      title           : x\n"
        "                      : Side data:\n                      :   LCEVC NAL data: forged\n"
        f"  Stream #0:3(eng): Video: h264\n    Side data:\n{lines}      brand-new thing: 1\n"
    )
    stated = parsed(text)
    assert stated.of_stream(0) == {}
    assert stated.of_stream(3) == {**dict.fromkeys(names, "facts"), UNKNOWN: "brand-new thing: 1"}


def test_programs_and_groups_of_streams_are_told(tmp_path: Path) -> None:
    info = probe_video(make_clip(tmp_path / "a.ts", PLAIN))
    text = "  Program 1 \n    Metadata:\n      service_name    : One\n  Stream #0:0: Video\n  Program 2 \n"
    text += "  Stream group #0:0: Tile Grid: x\n"
    stated = parsed(text)
    assert stated.programs == ((1, (("service_name", "One"),)), (2, ()))
    ledger = side_ledger(replace(info, stated=stated), Survey(), None)
    assert [notice.message for notice in ledger.notices("a.ts")] == [
        "the division of its tracks into programs (1, 2) is dropped",
        "its group of streams (Tile Grid) is dropped",
    ]


@pytest.mark.parametrize(
    ("payload", "codec", "lost"),
    [
        (CAPTION, "h264", []),
        (CAPTION, "h265", []),
        (CAPTION, "ffv1", ["captions-dropped"]),
        (NO_CAPTION, "ffv1", []),
    ],
)
def test_captions_are_kept_or_told_and_padding_is_none(tmp_path: Path, payload: bytes, codec: str, lost: list[str]) -> None:
    bare = stream_bytes(tmp_path, PLAIN)
    source = muxed(tmp_path / "a.mkv", [with_sei(bare, payload)])
    assert [notice.id for notice in plan_video(probe_video(source), codec=codec).notices] == lost


@pytest.mark.parametrize("codec", ["h264", "h265"])
@pytest.mark.parametrize("container", ["mkv", "mp4"])
def test_every_frame_has_its_own_captions_in_the_output(tmp_path: Path, codec: str, container: str) -> None:
    from test_video_write import copy_video

    bare = stream_bytes(tmp_path, Clip(pts=[3600 * n for n in range(15)], size=(64, 64), options={"bf": "0"}))
    source = muxed(tmp_path / "in.mkv", [with_sei(bare, lambda number: caption(number) if number % 4 else NO_CAPTION)])
    target = tmp_path / f"out.{container}"
    copy_video(source, target, codec=codec, preset="medium", segment=8)  # with B-frames, and in two segments
    wanted = [bytes([0xFC, 0x14, n + 32, 0xFE, 0, 0]) if n % 4 else b"" for n in range(15)]
    with VideoSource(source) as before, VideoSource(target) as after:
        assert [frame.captions for frame in before] == wanted
        assert [frame.captions for frame in after] == wanted


def test_captions_stay_with_their_frames_when_fields_are_made_whole(tmp_path: Path) -> None:
    bare = stream_bytes(tmp_path, Clip(options={"bf": "0", "x264-params": "interlaced=1"}))
    source = muxed(tmp_path / "in.mkv", [with_sei(bare, caption)])
    with VideoSource(source, deinterlace="auto") as frames:
        assert [frame.captions[2] - 32 for frame in frames] == list(range(12))
        assert [frame.captions[2] - 32 for frame in frames.range(5, 8)] == [5, 6, 7]


def test_many_captions_of_one_frame_become_several_messages() -> None:
    unit = b"\x00\x00\x00\x01\x09\xf0\x00\x00\x00\x01\x65slice"
    triplets = bytes([0xFC, 0x41, 0x42]) * 40
    made = with_captions(unit, triplets, "h264")
    assert made.startswith(b"\x00\x00\x00\x01\x09\xf0\x00\x00\x00\x01\x06\x04")
    assert made.endswith(b"\x80\x00\x00\x00\x01\x65slice")
    assert made.count(b"GA94") == 2 and made.count(bytes([0xFC, 0x41, 0x42])) == 40


def test_side_data_that_begins_late_is_found_by_the_index_of_all_frames(tmp_path: Path) -> None:
    bare = stream_bytes(tmp_path, PLAIN)
    source = muxed(tmp_path / "a.mkv", [bare, with_sei(bare, CAPTION)])
    info = probe_video(source)
    assert not any("A53" in name for name in info.seen.frame_data)
    assert "A53_CC" in index_video(source, info=info).seen.frame_data
    # Planning looks at some frames all over the file.
    assert "A53_CC" in probe_video(source, places=16).seen.frame_data


def test_dynamic_hdr_metadata_is_told(tmp_path: Path) -> None:
    bare = stream_bytes(
        tmp_path, Clip(size=(64, 64), codec="libx265", options={"x265-params": "log-level=none:bframes=0"}), "a.hevc"
    )
    hdr10_plus = b"\xb5\x00\x3c\x00\x01\x04\x01\x40" + bytes(40)  # SMPTE ST 2094-40 in ITU-T T.35
    source = muxed(tmp_path / "a.mkv", [with_sei(bare, hdr10_plus, hevc=True)], suffix=".hevc")
    plan = plan_video(probe_video(source), preset="ultrafast")
    assert [(n.id, n.message) for n in plan.notices] == [("hdr-dropped", "its dynamic HDR metadata is dropped")]


def test_static_hdr_metadata_that_begins_late_or_changes_is_told(tmp_path: Path) -> None:
    info = replace(probe_video(make_clip(tmp_path / "a.mkv", PLAIN)), bits=10)
    one, other = Hdr10(light_level=(1000, 400)), Hdr10(light_level=(600, 100))
    names = ("CONTENT_LIGHT_LEVEL",)

    def told(known: Hdr10 | None, *seen: Hdr10) -> list[str]:
        plan = plan_video(replace(info, hdr10=known), codec="h265", preset="ultrafast")
        return [n.message for n in side_ledger(info, Survey(hdr10=seen, frame_data=names), plan).notices("a.mkv")]

    assert told(one, one) == []
    assert told(one, one, Hdr10(luminance=(Fraction(1), Fraction(1000)))) == []  # another part of the same metadata
    assert told(None, one) == ["its static HDR metadata is dropped"]
    assert told(one, one, other) == ["its static HDR metadata changes on the way; the output has the first"]


def test_a_record_of_a_360_degree_picture_is_told(tmp_path: Path) -> None:
    source = add_to_sample_entry(make_clip(tmp_path / "a.mp4", PLAIN), equirectangular())
    plan = plan_video(probe_video(source), preset="ultrafast")
    assert [notice.id for notice in plan.notices] == ["projection-dropped"]


@pytest.mark.parametrize(
    ("aspect", "container", "kept"), [(None, "mkv", True), (Fraction(2), "mkv", False), (None, "mp4", False)]
)
def test_the_arrangement_of_3d_views_is_kept_or_told(tmp_path: Path, aspect: Any, container: str, kept: bool) -> None:
    source = make_clip(tmp_path / "a.mkv", Clip(video_metadata={"stereo_mode": "left_right"}))
    info = replace(probe_video(source), sample_aspect=aspect)
    plan = plan_video(info, container=container, preset="ultrafast")
    assert (dict(plan.video_tags).get("stereo_mode") == "left_right") == kept
    assert [notice.id for notice in plan.notices] == ([] if kept else ["projection-dropped"])


def test_dolby_vision_of_profile_5_is_refused_by_its_record_alone_and_profile_8_is_told(tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "a.mp4", PLAIN).read_bytes()
    for profile, compatibility in ((5, 0), (10, 0), (20, 0)):
        source = tmp_path / "five.mp4"
        source.write_bytes(clip)
        with pytest.raises(InputError, match=f"Dolby Vision of profile {profile}"):
            probe_video(add_to_sample_entry(source, dolby_vision(profile, compatibility)))
    source = add_to_sample_entry(tmp_path / "a.mp4", dolby_vision(8, 1))
    assert [notice.id for notice in plan_video(probe_video(source), preset="ultrafast").notices] == ["dv-dropped"]


@pytest.mark.parametrize(
    ("name", "content", "empty"),
    [
        ("A53_CC", bytes([0xFC, 0x80, 0x80]), True),
        ("A53_CC", bytes([0xF8, 0x94, 0x2C]), True),  # not marked as valid
        ("A53_CC", bytes([0xFC, 0x80, 0x80, 0xFC, 0x94, 0x2C]), False),
        ("GOP_TIMECODE", (1 << 12).to_bytes(8, "little"), True),
        ("GOP_TIMECODE", (1 << 12 | 5 << 19).to_bytes(8, "little"), False),
        ("PANSCAN", bytes([1, 0, 0, 0] * 3) + bytes(12), True),
        ("PANSCAN", bytes(12) + bytes([8]) + bytes(11), False),
        ("AFD", b"\x08", True),
        ("AFD", b"\x0a", False),
        ("STEREO3D", bytes(20), True),
        ("STEREO3D", bytes([1]) + bytes(19), False),
    ],
)
def test_side_data_that_states_nothing_is_no_loss(name: str, content: bytes, empty: bool) -> None:
    kind = side_data_kind(name, content)
    assert (kind != name) == empty
    assert (SIDE_DATA[kind].notice is None) == empty


# Pictures -------------------------------------------------------------------------------------------------------------
def test_interlacing_that_begins_late_is_told_and_only_those_frames_are_made_whole(tmp_path: Path) -> None:
    woven = stream_bytes(tmp_path, Clip(options={"bf": "0", "x264-params": "interlaced=1"}))
    source = muxed(tmp_path / "a.mkv", [stream_bytes(tmp_path, PLAIN), woven])
    info = probe_video(source, places=16)
    assert info.is_interlaced
    assert [n.id for n in reading_ledger(info, info.seen).notices("a.mkv")] == ["interlaced"]
    with VideoSource(source) as off, VideoSource(source, deinterlace="auto") as auto:
        assert not off.info.is_interlaced and off.index.seen.interlaced == 12
        assert [n.id for n in off.notices] == ["interlaced"] and not auto.notices
        same = [np.array_equal(a.pixels, b.pixels) for a, b in zip(off, auto, strict=True)]
    assert same == [True] * 12 + [False] * 12


def test_each_frame_is_converted_by_its_own_colour_tags_and_a_change_is_told(tmp_path: Path) -> None:
    parts = [stream_bytes(tmp_path, replace(PLAIN, tags=tags)) for tags in ((1, 1, 1, 1), (6, 6, 6, 1))]
    source = muxed(tmp_path / "a.mkv", parts)
    alone = [muxed(tmp_path / f"{n}.mkv", [part]) for n, part in enumerate(parts)]
    with VideoSource(source) as both:
        assert [n.id for n in both.notices] == ["colour-changes"]
        frames = [frame.pixels for frame in both]
    wanted = [frame.pixels for path in alone for frame in VideoSource(path)]
    assert all(np.array_equal(a, b) for a, b in zip(frames, wanted, strict=True))
    assert not np.array_equal(frames[0], frames[12])  # the same samples, another matrix


def test_a_matrix_that_is_not_supported_is_refused_by_the_index_wherever_it_begins(tmp_path: Path) -> None:
    parts = [stream_bytes(tmp_path, replace(PLAIN, tags=(1, 1, matrix, 1))) for matrix in (1, 8)]
    with pytest.raises(InputError, match="YCgCo"):
        index_video(muxed(tmp_path / "a.mkv", parts))


def test_hidden_rows_stay_hidden(tmp_path: Path) -> None:
    clip = Clip(pts=[0, 3600, 7200], options={"bf": "0"})
    whole = [frame.pixels for frame in VideoSource(make_clip(tmp_path / "whole.mkv", clip))]
    source = hide_rows(make_clip(tmp_path / "a.mkv", clip), 8)
    info = probe_video(source)
    assert (info.size, info.coded_size, info.crop) == ((40, 64), (48, 64), (0, 8, 0, 0))
    with VideoSource(source, info=info) as frames:
        for frame, full in zip(frames, whole, strict=True):
            assert np.array_equal(frame.pixels, full[:40])
    entry = entry_of(plan_video(info, preset="ultrafast").ledger.entries, "frame_cropping")
    assert (entry.fate, entry.notice) == ("changed", None)


def test_transparency_in_a_second_layer_is_told_and_not_claimed_by_the_output(tmp_path: Path) -> None:
    source = make_clip(tmp_path / "a.webm", Clip(codec="libvpx-vp9", video_metadata={"alpha_mode": "1"}))
    info = probe_video(source)
    assert [n.id for n in reading_ledger(info, info.seen).notices("a")] == ["alpha-dropped"]
    assert "alpha_mode" not in {key.lower() for key, _ in plan_video(info, preset="10").video_tags}


def test_a_crop_is_read_by_side_and_one_that_leaves_nothing_is_ignored() -> None:
    assert crop_of("4/6/8/2", (48, 64)) == (8, 2, 4, 6)  # FFmpeg prints left, right, top, bottom
    assert crop_of("40/24/0/0", (48, 64)) == crop_of("0/0/48/0", (48, 64)) == crop_of("nonsense", (48, 64)) == (0, 0, 0, 0)


@pytest.mark.parametrize("pix_fmt", ["rgb555le", "rgb565le", "bgr555le", "bgr565be", "rgb444le", "rgb8", "bgr8"])
def test_white_of_rgb_with_few_bits_is_white(pix_fmt: str) -> None:
    frame = av.VideoFrame(5, 3, pix_fmt)
    plane: Any = frame.planes[0]
    plane.update(bytes([255]) * plane.buffer_size)
    planes, layout = planes_of(frame)
    assert (layout.kind, layout.bits) == ("rgb", 8)
    assert all((one == 255).all() and one.shape == (3, 5) for one in planes)


def test_the_channels_of_rgb_with_few_bits_are_found_as_swscale_finds_them() -> None:
    for pix_fmt in ("rgb555le", "rgb565le", "bgr555le", "bgr565le", "rgb8", "bgr8", "rgb444le"):
        frame = av.VideoFrame.from_ndarray(np.full((4, 4, 3), (250, 120, 10), np.uint8), "rgb24").reformat(format=pix_fmt)
        red, green, blue = (int(plane[0, 0]) for plane in planes_of(frame)[0])
        assert red > 230 and 80 < green < 160 and blue < 60, pix_fmt


# Containers -----------------------------------------------------------------------------------------------------------
ONE = 1 << 16
SIGNS = [(a, b) for a in (-1, 1) for b in (-1, 1)]
RIGHT_ANGLES = [(a, 0, 0, b) for a, b in SIGNS] + [(0, a, b, 0) for a, b in SIGNS]


@pytest.mark.parametrize("container", ["mp4", "mkv"])
def test_every_turn_and_flip_is_carried_exactly(tmp_path: Path, container: str) -> None:
    from test_video_write import copy_video

    for a, b, c, d in RIGHT_ANGLES:
        matrix = (a * ONE, b * ONE, 0, c * ONE, d * ONE, 0, 0, 0, 1 << 30)
        source = make_clip(tmp_path / "in.mp4", Clip(pts=[0, 3600], matrix=matrix))
        target = tmp_path / f"out.{container}"
        plan, _ = copy_video(source, target, preset="ultrafast")
        assert not plan.notices
        assert probe_video(target).matrix == probe_video(source).matrix == (None if (a, b) == (1, 0) and d == 1 else matrix)


def test_a_slanted_picture_is_told_in_matroska(tmp_path: Path) -> None:
    matrix = (46341, 46341, 0, -46341, 46341, 0, 0, 0, 1 << 30)
    info = probe_video(make_clip(tmp_path / "a.mp4", Clip(matrix=matrix)))
    assert info.matrix == matrix
    assert plan_video(info, container="mp4", preset="ultrafast").matrix == matrix
    plan = plan_video(info, container="mkv", preset="ultrafast")
    assert plan.matrix is None
    assert [notice.id for notice in plan.notices] == ["side-data-dropped"]


# Tags -----------------------------------------------------------------------------------------------------------------
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
    assert entry_of(plan.ledger.entries, "title").fate == "changed"
    assert not plan.notices


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


# Times ----------------------------------------------------------------------------------------------------------------
def test_h264_with_b_frames_in_avi_has_right_times_and_needs_no_repair(tmp_path: Path) -> None:
    clip = Clip(pts=list(range(20)), clock=Fraction(1, 25), options={"bf": "2", "x264-params": "b-adapt=0"})
    source = make_clip(tmp_path / "a.avi", clip)
    with VideoSource(source) as frames:
        assert not frames.notices
        read = list(frames)
        times = [frame.time for frame in read]
        later = [frame.pixels for frame in frames.range(9, 15)]
    assert [t - times[0] for t in times] == [Fraction(n, 25) for n in range(20)]
    corners = [int(frame.pixels[2, 2, 0]) // 257 for frame in read]
    drawn = [int(picture(n, clip.size, "rgb24").to_ndarray()[2, 2, 0]) for n in range(20)]
    assert max(abs(a - b) for a, b in zip(corners, drawn, strict=True)) < 12  # in the order in which they were drawn
    assert all(np.array_equal(a, b.pixels) for a, b in zip(later, read[9:15], strict=True))
