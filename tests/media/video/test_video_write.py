"""Writing videos: what is planned is what comes out, frame by frame and packet by packet, told by PyAV itself."""

from __future__ import annotations

import hashlib
import signal
from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from conftest import needs_shared
from upframe.errors import OutputError, UsageError, VerifyError
from upframe.media.video.files import (
    Expected,
    FrameFolder,
    FrameFolderSink,
    VideoPlan,
    VideoSink,
    VideoSource,
    join,
    plan_video,
    probe_video,
    verify_video,
)
from video_files import TICK, VFR_PTS, Clip, Sound, make_clip, shown_times, sound_payloads, sound_starts

FAST = {"preset": "ultrafast"}


def copy_video(
    source: Path, target: Path, *, segment: int = 5, select: range | None = None, **options: object
) -> tuple[VideoPlan, Expected]:
    """The whole way of a job with a network that does nothing."""
    info = probe_video(source)
    plan = plan_video(info, container=target.suffix, **options)
    with VideoSource(source, info=info, allow_truncated=True) as frames:
        chosen = select or range(len(frames.index))
        works = []
        for start in range(chosen.start, chosen.stop, segment):
            stop = min(start + segment, chosen.stop)
            works.append(target.parent / f"{start}.work")
            with VideoSink(works[-1], plan, frames=stop - start) as sink:
                for frame in frames.range(start, stop):
                    sink.write(frame.pixels, pts=frame.pts, captions=frame.captions)
        expected = join(works, target, plan, timing=frames.index, info=info, selection=select)
    verify_video(target, expected)
    return plan, expected


def ids(plan: VideoPlan) -> list[str]:
    return [notice.id for notice in plan.notices]


# Times and tracks -----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("start", [0, 45678])
@pytest.mark.parametrize("container", [".mp4", ".mkv", ".mov"])
@pytest.mark.parametrize("codec", ["h264", "h265"])
def test_every_frame_comes_out_at_its_own_time(tmp_path: Path, start: int, container: str, codec: str) -> None:
    pts = [start + t for t in VFR_PTS]
    clip = Clip(pts, options={"bf": "2"}, sounds=[Sound(offset=start * TICK)])
    source = make_clip(tmp_path / "in.mp4", clip, movie_timescale="90000")
    target = tmp_path / f"out{container}"
    copy_video(source, target, codec=codec, preset="veryfast" if codec == "h264" else "ultrafast")
    tick = Fraction(1, 1000) if container == ".mkv" else Fraction(0)
    found = shown_times(target)
    assert len(found) == len(pts)
    assert all(abs(a - b * TICK) <= tick for a, b in zip(found, pts, strict=True))
    assert sound_payloads(target) == sound_payloads(source)
    # A millisecond of Matroska, or none: far less than a packet of sound, 21 ms.
    assert abs(sound_starts(target)[0] - sound_starts(source)[0]) <= Fraction(1, 1000)


@pytest.mark.parametrize("container", [".mp4", ".mkv"])
def test_all_sound_is_copied_bit_by_bit_and_keeps_its_start(tmp_path: Path, container: str) -> None:
    """Longer than the film, later than it, and in another codec: never cut, never moved."""
    sounds = [
        Sound("aac", seconds=Fraction(2)),
        Sound("flac", Fraction(1, 4), Fraction(1, 5), "deu", 1),
        Sound("libopus", Fraction(1, 10), Fraction(1, 2), "fra", 2),
    ]
    source = make_clip(tmp_path / "in.mkv", Clip(sounds=sounds))
    target = tmp_path / f"out{container}"
    plan, expected = copy_video(source, target, **FAST)
    assert sound_payloads(target) == sound_payloads(source)
    for before, after in zip(sound_starts(source), sound_starts(target), strict=True):
        assert abs(before - after) <= Fraction(1, 500)
    with av.open(str(target)) as container_:
        assert [s.language for s in container_.streams.audio] == ["eng", "deu", "fra"]
    assert not plan.notices and len(expected.tracks) == 3


def test_transport_stream_sound_loses_only_its_own_headers(tmp_path: Path) -> None:
    source = make_clip(tmp_path / "in.ts", Clip(sounds=[Sound("aac"), Sound("mp2", Fraction(1, 10))]))
    for name in ("out.mp4", "out.mkv"):
        copy_video(source, tmp_path / name, **FAST)
    assert sound_payloads(tmp_path / "out.mp4") == sound_payloads(tmp_path / "out.mkv")
    assert shown_times(tmp_path / "out.mp4") == shown_times(source)


def test_matroska_keeps_all_there_is(tmp_path: Path) -> None:
    font = bytes(range(256)) * 4
    clip = Clip(
        sample_aspect=Fraction(4, 3), rotation=90, sounds=[Sound()], subtitles=[(40, 100, "One"), (200, 150, "Two")],
        chapters=[(0, 200, "First"), (200, 480, "Second")], attachment=font, metadata={"title": "T", "MOOD": "calm"},
    )  # fmt: skip
    source = make_clip(tmp_path / "in.mkv", clip)
    target = tmp_path / "out.mkv"
    plan, _ = copy_video(source, target, **FAST)
    assert not plan.notices
    info = probe_video(target)
    assert (info.rotation, info.sample_aspect) == (90, Fraction(4, 3))
    assert [(c.start, c.end, dict(c.tags)["title"]) for c in info.chapters] == [
        (0, Fraction(1, 5), "First"), (Fraction(1, 5), Fraction(12, 25), "Second"),
    ]  # fmt: skip
    assert dict(info.tags)["title"] == "T" and dict(info.tags)["MOOD"] == "calm"
    with av.open(str(target)) as container:
        (attachment,) = container.streams.attachments
        assert (attachment.metadata["filename"], attachment.data) == ("font.ttf", font)
        texts = [(p.pts, p.duration, bytes(p)) for p in container.demux(subtitles=0) if p.size]
    assert texts == [(40, 100, b"One"), (200, 150, b"Two")]


def test_mp4_converts_subtitles_and_says_what_it_cannot_hold(tmp_path: Path) -> None:
    clip = Clip(
        rotation=-90, sample_aspect=Fraction(16, 15), subtitles=[(40, 100, "Hällo"), (200, 150, "Two")], attachment=b"font",
        chapters=[(0, 200, "First"), (200, 480, "Second")], metadata={"title": "T", "MOOD": "calm"},
    )  # fmt: skip
    source = make_clip(tmp_path / "in.mkv", clip)
    target = tmp_path / "out.mp4"
    plan, _ = copy_video(source, target, **FAST)
    assert sorted(ids(plan)) == ["subtitle-converted", "track-dropped"]
    info = probe_video(target)
    assert (info.rotation, info.sample_aspect, dict(info.tags)["title"]) == (-90, Fraction(16, 15), "T")
    assert dict(info.tags)["MOOD"] == "calm"
    assert [dict(c.tags)["title"] for c in info.chapters] == ["First", "Second"]
    with av.open(str(target)) as container:
        packets = [p for p in container.demux(subtitles=0) if len(bytes(p)) > 2]
        found = [(p.pts * p.time_base, bytes(p)[2:].decode()) for p in packets]
    assert found == [(Fraction(40, 1000), "Hällo"), (Fraction(200, 1000), "Two")]


def test_sound_and_subtitles_can_be_left_out(tmp_path: Path) -> None:
    source = make_clip(tmp_path / "in.mkv", Clip(sounds=[Sound()], subtitles=[(0, 100, "x")]))
    copy_video(source, tmp_path / "out.mp4", audio=False, subs=False, **FAST)
    assert probe_video(tmp_path / "out.mp4").streams == ()


def test_part_of_a_film_starts_at_zero_with_its_own_sound(tmp_path: Path) -> None:
    pts = [90000 + 3600 * i for i in range(25)]
    clip = Clip(pts, sounds=[Sound(offset=Fraction(1))], chapters=[(1000, 1300, "A"), (1300, 2000, "B")])
    source = make_clip(tmp_path / "in.mkv", clip)
    target = tmp_path / "out.mkv"
    copy_video(source, target, select=range(10, 20), **FAST)
    assert shown_times(target) == [Fraction(i, 25) for i in range(10)]
    start = sound_starts(target)[0]
    assert 0 <= start < Fraction(1024, 48000)
    with av.open(str(source)) as container:
        packets = [(p.pts * p.time_base, bytes(p)) for p in container.demux(audio=0) if p.size]
    inside = [data for time, data in packets if Fraction(14, 10) <= time < Fraction(18, 10)]
    assert sound_payloads(target) == [(len(inside), hashlib.sha256(b"".join(inside)).hexdigest())]
    assert [(c.start, c.end) for c in probe_video(target).chapters] == [(0, Fraction(4, 10))]


def test_beginning_of_a_film_keeps_its_times(tmp_path: Path) -> None:
    clip = Clip([45000 + 3600 * i for i in range(12)], sounds=[Sound()])
    source = make_clip(tmp_path / "in.mkv", clip)
    copy_video(source, tmp_path / "out.mkv", select=range(5), **FAST)
    assert shown_times(tmp_path / "out.mkv") == shown_times(source)[:5]
    assert sound_starts(tmp_path / "out.mkv") == sound_starts(source)


def test_film_that_starts_before_zero_is_moved_with_its_sound(tmp_path: Path) -> None:
    clip = Clip([-9000 + 3600 * i for i in range(10)], options={"bf": "0"}, sounds=[Sound(offset=Fraction(-1, 10))])
    source = make_clip(tmp_path / "in.ts", clip, avoid_negative_ts="disabled", copyts="1")
    first = shown_times(source)[0]
    gap = sound_starts(source)[0] - first
    copy_video(source, tmp_path / "out.mp4", **FAST)
    assert sound_starts(tmp_path / "out.mp4")[0] - shown_times(tmp_path / "out.mp4")[0] == pytest.approx(gap, abs=1e-4)


@pytest.mark.slow
def test_same_input_gives_the_same_bytes(tmp_path: Path) -> None:
    source = make_clip(tmp_path / "in.mkv", Clip(sounds=[Sound()], chapters=[(0, 100, "x")], subtitles=[(0, 100, "x")]))
    for container in (".mkv", ".mp4"):
        for name in ("a", "b"):
            copy_video(source, tmp_path / f"{name}{container}", **FAST)
        assert (tmp_path / f"a{container}").read_bytes() == (tmp_path / f"b{container}").read_bytes()


@pytest.mark.parametrize("codec", ["h264", "h265", "av1"])
def test_encoding_again_gives_the_same_bits(tmp_path: Path, codec: str) -> None:
    """At an odd number of macroblocks, where x264's macroblock tree fails one time in ten."""
    source = make_clip(tmp_path / "in.mp4", Clip([3600 * i for i in range(6)], size=(144, 208)))
    plan = plan_video(probe_video(source), codec=codec, preset="12" if codec == "av1" else None)
    seen = set()
    with VideoSource(source) as film:
        frames = list(film)
    for _ in range(8 if codec == "h264" else 2):
        with VideoSink(tmp_path / "w", plan) as sink:
            for frame in frames:
                sink.write(frame.pixels, pts=frame.pts)
        seen.add((tmp_path / "w").read_bytes())
    assert len(seen) == 1


# Codecs and colour ----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("codec", "container", "pix_fmt", "chosen"),
    [
        ("h264", ".mp4", "yuv422p10le", "yuv422p10le"),
        ("h265", ".mp4", "yuv420p12le", "yuv420p12le"),
        ("h265", ".mkv", "yuv444p10le", "yuv444p10le"),
        ("av1", ".mp4", "yuv420p10le", "yuv420p10le"),
        ("av1", ".webm", "yuv420p", "yuv420p"),
        ("ffv1", ".mkv", "yuv444p12le", "yuv444p12le"),
        ("ffv1", ".mkv", "gbrp16le", "gbrp16le"),
        ("ffv1", ".mkv", "bgr0", "bgr0"),
        ("ffv1", ".mkv", "gray16le", "gray16le"),
        ("prores", ".mov", "yuv420p", "yuv422p10le"),
        ("prores", ".mkv", "yuv444p10le", "yuv444p10le"),
    ],
)
def test_codecs_keep_depth_chroma_and_tags(tmp_path: Path, codec: str, container: str, pix_fmt: str, chosen: str) -> None:
    tags = None if pix_fmt.startswith(("g", "b")) else (9, 16, 9, 1)
    clip = Clip([3600 * i for i in range(4)], (64, 80), codec="ffv1", pix_fmt=pix_fmt, tags=tags)
    source = make_clip(tmp_path / "in.mkv", clip)
    target = tmp_path / f"out{container}"
    fast = {"preset": {"h264": "fast", "h265": "ultrafast", "av1": "12"}[codec]} if codec in ("h264", "h265", "av1") else {}
    plan, _ = copy_video(source, target, segment=2, codec=codec, **fast)
    assert plan.pix_fmt == chosen and not plan.notices
    info = probe_video(target)
    if tags:
        assert (info.colour.primaries, info.colour.transfer, info.colour.matrix) == tags[:3]
    with VideoSource(source) as one, VideoSource(target) as other:
        for before, after in zip(one, other, strict=True):
            difference = np.abs(before.pixels.astype(int) - after.pixels) / 257
            if codec == "ffv1":
                assert difference.max() <= (0 if chosen.startswith("g") or chosen == "bgr0" else 0.15)
            else:
                assert difference.mean() < 3


@pytest.mark.parametrize("tags", [(1, 1, 1, 1), (6, 6, 6, 2), (9, 18, 9, 1), None])
def test_lossless_round_trip_keeps_every_code_value(tmp_path: Path, tags: tuple[int, int, int, int] | None) -> None:
    for pix_fmt in ("yuv420p", "yuv420p10le", "yuv422p10le"):
        source = make_clip(tmp_path / "in.mkv", Clip([0, 3600], codec="ffv1", pix_fmt=pix_fmt, tags=tags))
        copy_video(source, tmp_path / "out.mkv", codec="ffv1")
        with av.open(str(source)) as one, av.open(str(tmp_path / "out.mkv")) as other:
            for before, after in zip(one.decode(video=0), other.decode(video=0), strict=True):
                assert (before.color_primaries, before.color_trc, before.colorspace) == (
                    after.color_primaries, after.color_trc, after.colorspace,
                )  # fmt: skip
                dtype = np.uint16 if "10" in pix_fmt else np.uint8
                for a, b in zip(before.planes, after.planes, strict=True):
                    x, y = (np.frombuffer(p, dtype).reshape(p.height, -1)[:, : p.width].astype(int) for p in (a, b))
                    # The corner's hard square is beyond R'G'B' in places; everything else is exact.
                    assert np.abs(x - y)[8:, 8:].max() <= 1


def test_untagged_film_that_grows_to_hd_is_coded_as_players_will_take_it(tmp_path: Path) -> None:
    info = probe_video(make_clip(tmp_path / "in.mp4"))
    assert plan_video(info, size=(96, 128)).coding.matrix == 6
    grown = plan_video(info, size=(720, 960))
    assert grown.coding.matrix == 1 and grown.colour.matrix == 2
    tagged = probe_video(make_clip(tmp_path / "t.mp4", Clip(tags=(6, 6, 6, 1))))
    assert plan_video(tagged, size=(720, 960)).coding.matrix == 6


@pytest.mark.parametrize(("codec", "container"), [("h265", ".mp4"), ("h265", ".mkv"), ("av1", ".mkv"), ("h264", ".mkv")])
def test_hdr10_is_carried(tmp_path: Path, codec: str, container: str) -> None:
    params = (
        "log-level=none:master-display=G(13250,34500)B(7500,3000)R(34000,16000)WP(15635,16450)L(10000000,50):max-cll=1000,400"
    )
    clip = Clip(codec="libx265", pix_fmt="yuv420p10le", tags=(9, 16, 9, 1), options={"x265-params": params}, size=(64, 64))
    source = make_clip(tmp_path / "in.mp4", clip)
    before = probe_video(source).hdr10
    assert before is not None and before.light_level == (1000, 400) and before.luminance == (Fraction(1, 200), 1000)
    target = tmp_path / f"out{container}"
    plan, _ = copy_video(source, target, codec=codec, preset="12" if codec == "av1" else "ultrafast")
    after = probe_video(target).hdr10
    assert not plan.notices and after is not None
    assert after.light_level == before.light_level
    assert after.primaries is not None and before.primaries is not None
    found, wanted = (np.array(h.primaries, float) for h in (after, before))
    assert np.abs(found - wanted).max() <= 2e-5  # AV1 stores 16 bits of fraction
    assert "hdr-dropped" in ids(plan_video(probe_video(source), container="mkv", codec="ffv1"))


@pytest.mark.parametrize(("odd", "size"), [("pad", (38, 52)), ("crop", (36, 50)), ("444", (37, 51))])
def test_odd_sizes_follow_the_policy(tmp_path: Path, odd: str, size: tuple[int, int]) -> None:
    source = make_clip(tmp_path / "in.mkv", Clip([0, 3600], (37, 51), codec="ffv1"))
    target = tmp_path / "out.mp4"
    plan, _ = copy_video(source, target, odd=odd, crf=0, **FAST)
    assert ids(plan) == ([] if odd == "444" else ["size-adjusted"])
    assert probe_video(target).size == size
    with VideoSource(source) as one, VideoSource(target) as other:
        height, width = (min(a, b) for a, b in zip(size, (37, 51), strict=True))
        before, after = (next(iter(s)).pixels[: height - 2, : width - 2] / 257 for s in (one, other))
        assert np.abs(before - after)[8:, 8:].max() < 3
    with pytest.raises(UsageError, match="AV1 has no 4:4:4"):
        plan_video(probe_video(source), container="mp4", codec="av1", odd="444")


# Planning -------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"container": "gif"}, "Use one of"),
        ({"codec": "h263"}, "is not a codec"),
        ({"container": "mp4", "codec": "ffv1"}, r"Use mkv"),
        ({"crf": 99}, "0 to 51"),
        ({"codec": "ffv1", "container": "mkv", "crf": 3}, "is not supported by FFV1"),
        ({"preset": "warp"}, "has no such preset"),
        ({"pix_fmt": "yuv410p"}, "does not support it"),
        ({"options": {"nonsense": "1"}}, "has no such option"),
        ({"options": {"profile": "baseline", "qp": "x"}}, "cannot be opened"),
        ({"odd": "maybe"}, "must be one of"),
    ],
)
def test_what_cannot_be_done_is_refused_before_any_frame(tmp_path: Path, options: Mapping[str, object], message: str) -> None:
    info = probe_video(make_clip(tmp_path / "in.mp4"))
    with pytest.raises(UsageError, match=message):
        plan_video(info, **options)  # type: ignore[arg-type]


def test_losses_are_told_before_any_frame(tmp_path: Path) -> None:
    deep = probe_video(make_clip(tmp_path / "d.mkv", Clip([0], codec="ffv1", pix_fmt="yuv444p12le")))
    assert ids(plan_video(deep, container="mp4", codec="h264")) == ["depth-reduced"]
    assert ids(plan_video(deep, container="mp4", codec="av1")) == ["depth-reduced", "chroma-reduced"]
    moved = probe_video(make_clip(tmp_path / "a.avi", Clip([0, 1], codec="mpeg4", options={"bf": "0"}, clock=Fraction(1, 25))))
    plan = plan_video(moved)
    assert ids(plan) == ["container-changed"] and plan.extension == ".mkv" and plan.codec == "h264"


def test_bitmap_subtitles_need_matroska(tmp_path: Path) -> None:
    """A DVD's subtitle track with nothing in it is enough to plan by."""
    source = tmp_path / "in.mkv"
    film = make_clip(tmp_path / "film.mkv", Clip(options={"bf": "0"}))
    with av.open(str(film)) as given, av.open(str(source), "w") as out:
        video = out.add_stream_from_template(given.streams.video[0])
        out.add_mux_stream("hdmv_pgs_subtitle")
        for packet in given.demux(video=0):
            if packet.size:
                packet.stream = video
                out.mux(packet)
    info = probe_video(source)
    assert [s.kind for s in info.streams] == ["subtitle"]
    with pytest.raises(UsageError, match=r"bitmap subtitles .*Use mkv"):
        plan_video(info, container="mp4")
    assert len(plan_video(info, container="mkv").tracks) == 1
    assert plan_video(info, container="mp4", subs=False).tracks == ()


def test_sound_that_the_container_does_not_hold_is_never_dropped(tmp_path: Path) -> None:
    source = make_clip(tmp_path / "in.mkv", Clip(sounds=[Sound("flac")]))
    with pytest.raises(UsageError, match=r"WebM cannot hold its audio \(stream 1, flac\)\. Use mkv, or `video.audio=False`"):
        plan_video(probe_video(source), container="webm")


# Sink, join, verify ---------------------------------------------------------------------------------------------------
def test_sink_leaves_nothing_behind_on_error(tmp_path: Path) -> None:
    plan = plan_video(probe_video(make_clip(tmp_path / "in.mp4")))
    picture = np.zeros((48, 64, 3), np.uint16)
    work = tmp_path / "w"
    work.mkdir()
    with pytest.raises(RuntimeError), VideoSink(work / "a", plan) as sink:
        sink.write(picture, pts=0)
        raise RuntimeError
    with pytest.raises(VerifyError, match="1 of 2 frames"), VideoSink(work / "a", plan, frames=2) as sink:
        sink.write(picture, pts=0)
    with pytest.raises(ValueError, match="does not come after"), VideoSink(work / "a", plan) as sink:
        sink.write(picture, pts=5)
        sink.write(picture, pts=5)
    with pytest.raises(ValueError, match="the plan says"), VideoSink(work / "a", plan) as sink:
        sink.write(picture[:, :-1], pts=0)
    assert list(work.iterdir()) == []
    with pytest.raises(OutputError, match="cannot be written"), VideoSink(tmp_path / "none" / "a", plan):
        pass


@pytest.mark.skipif(not hasattr(signal, "SIGXFSZ"), reason="this system has no limit on file sizes to stand in for a full disk")
def test_full_disk_is_told_and_leaves_nothing_behind(tmp_path: Path) -> None:
    import resource

    plan = plan_video(probe_video(make_clip(tmp_path / "in.mp4")), container="mkv", codec="ffv1", size=(256, 256))
    noise = np.random.default_rng(0).integers(0, 65536, (256, 256, 3)).astype(np.uint16)
    work = tmp_path / "w"
    work.mkdir()
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, limits[1]))
    try:
        with pytest.raises(OutputError, match="cannot be written"), VideoSink(work / "a", plan) as sink:
            for number in range(20):
                sink.write(noise, pts=number * 10)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, before)
    assert list(work.iterdir()) == []


def works_of(source: Path, folder: Path) -> tuple[VideoPlan, list[Path]]:
    plan = plan_video(probe_video(source), **FAST)
    works = []
    with VideoSource(source) as frames:
        for start in (0, 6):
            works.append(folder / f"{start}.work")
            with VideoSink(works[-1], plan) as sink:
                for frame in frames.range(start, start + 6):
                    sink.write(frame.pixels, pts=frame.pts)
    return plan, works


def test_join_refuses_segments_that_are_not_the_film(tmp_path: Path) -> None:
    source = make_clip(tmp_path / "in.mp4", Clip(sounds=[Sound()]))
    plan, (first, second) = works_of(source, tmp_path)
    info, target = probe_video(source), tmp_path / "out.mp4"
    with VideoSource(source, info=info) as frames:
        for works, message in (([first], "hold 6 frames"), ([first, first], "a second time")):
            with pytest.raises(VerifyError, match=message):
                join(works, target, plan, timing=frames.index, info=info)
            assert not target.exists()
        expected = join([first, second], target, plan, timing=frames.index, info=info)
    verify_video(target, expected)


@pytest.mark.slow
def test_verify_names_the_first_difference(tmp_path: Path) -> None:
    source = make_clip(tmp_path / "in.mp4", Clip(sounds=[Sound()]))
    other = make_clip(tmp_path / "other.mp4", Clip(sounds=[Sound(seed=9)]))
    late = make_clip(tmp_path / "late.mp4", Clip([3600 * i + 90 * (i > 6) for i in range(12)], sounds=[Sound()]))
    _, expected = copy_video(source, tmp_path / "out.mp4", **FAST)
    for wrong, message in (
        (make_clip(tmp_path / "silent.mp4"), "0 audio tracks instead of 1"),
        (make_clip(tmp_path / "short.mp4", Clip([3600 * i for i in range(11)])), "11 of 12 frames"),
        (make_clip(tmp_path / "long.mp4", Clip([3600 * i for i in range(13)])), "more than 12 frames"),
        (make_clip(tmp_path / "small.mp4", Clip(size=(32, 64))), "frame 0 of 64x32, not 64x48"),
        (late, r"frame 7 at 0:00:00\.281 instead of 0:00:00\.280"),
        (other, "audio track 1 that is not a copy"),
        (make_clip(tmp_path / "turned.mp4", Clip(rotation=90)), "display matrix .* instead of None"),
    ):
        with pytest.raises(VerifyError, match=message):
            verify_video(wrong, expected)
    data = (tmp_path / "out.mp4").read_bytes()
    (tmp_path / "cut.mp4").write_bytes(data[: len(data) * 3 // 4])
    with pytest.raises(VerifyError):
        verify_video(tmp_path / "cut.mp4", expected)


# Folders of frames ----------------------------------------------------------------------------------------------------
def test_folder_becomes_a_film_and_back(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    pictures = [np.repeat(np.repeat(rng.integers(0, 256, (6, 8, 3)), 8, 0), 8, 1).astype(np.uint16) * 257 for _ in range(4)]
    with FrameFolderSink(tmp_path / "in", frames=4) as folder:
        for picture in pictures:
            folder.write(picture)
    target = tmp_path / "out.mkv"
    with FrameFolder(tmp_path / "in", rate=Fraction(24000, 1001)) as source:
        plan = plan_video(source.info, container="mkv", codec="ffv1")
        with VideoSink(tmp_path / "w", plan, frames=4) as sink:
            for frame in source:
                sink.write(frame.pixels, pts=frame.pts)
        verify_video(target, join([tmp_path / "w"], target, plan, timing=source.timing))
    with VideoSource(target) as film, FrameFolderSink(tmp_path / "back", first=1, bits=16) as folder:
        for frame, picture in zip(film, pictures, strict=True):
            assert np.array_equal(frame.pixels, picture)
            folder.write(frame.pixels, pts=frame.pts)
    assert min(p.name for p in (tmp_path / "back").iterdir()) == "frame_00000001.png"
    with FrameFolder(tmp_path / "back") as again:
        assert all(np.array_equal(a.pixels, b) for a, b in zip(again, pictures, strict=True))


@needs_shared
@pytest.mark.parametrize(
    ("name", "container"), [("friday_1940_audio.mp4", ".mkv"), ("tears_of_steel_lowbitrate_audio.webm", ".mp4")]
)
def test_real_clips_go_through(shared: Path, tmp_path: Path, name: str, container: str) -> None:
    source = shared / "videos" / name
    target = tmp_path / f"out{container}"
    copy_video(source, target, segment=70, **FAST)
    wanted, found = shown_times(source), shown_times(target)
    assert len(wanted) == len(found)
    assert max(abs(a - b) for a, b in zip(wanted, found, strict=True)) <= Fraction(1, 1000)
    assert sound_payloads(target) == sound_payloads(source)
