"""Reading videos: every frame, at its own time, the same bits from any place; and what is said of bad files."""

from __future__ import annotations

import os
import shutil
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest

from conftest import needs_shared
from upframe.errors import InputError, UsageError
from upframe.media.video.files import FrameFolder, VideoSource, index_video, is_video_name, probe_video
from video_files import TICK, VFR_PTS, Clip, Sound, damage, make_clip, picture, shown_times

B_FRAMES = {"bf": "3", "g": "8", "x264-params": "b-adapt=0:b-pyramid=none:scenecut=0"}
OPEN_GOP = {"bf": "3", "g": "6", "x264-params": "open-gop=1:b-adapt=0:scenecut=0:keyint=6:min-keyint=6"}


def all_frames(path: Path, **options: object) -> list:
    with VideoSource(path, **options) as source:
        return list(source)


def ids(notices: object) -> list[str]:
    return [notice.id for notice in notices]


# Times ----------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("extension", [".mp4", ".nut", ".mov"])
@pytest.mark.parametrize("start", [0, 123456])
def test_variable_times_and_starts_are_exact(tmp_path: Path, extension: str, start: int) -> None:
    pts = [start + t for t in VFR_PTS]
    exact = {"movie_timescale": "90000"} if extension != ".nut" else {"avoid_negative_ts": "disabled"}
    path = make_clip(tmp_path / f"a{extension}", Clip(pts, options=B_FRAMES), **exact)
    frames = all_frames(path)
    assert [f.time for f in frames] == [t * TICK for t in pts]
    assert [f.duration for f in frames[:-1]] == [(b - a) * TICK for a, b in pairwise(pts)]
    assert [f.number for f in frames] == list(range(len(pts)))


def test_matroska_times_are_those_of_the_file(tmp_path: Path) -> None:
    path = make_clip(tmp_path / "a.mkv", Clip(VFR_PTS[:5] + VFR_PTS[6:], options=B_FRAMES))
    assert [f.time for f in all_frames(path)] == shown_times(path)


@pytest.mark.parametrize("count", [1, 2, 3, 25])
@pytest.mark.parametrize("options", [B_FRAMES, OPEN_GOP])
def test_as_many_frames_come_out_as_went_in(tmp_path: Path, count: int, options: dict[str, str]) -> None:
    path = make_clip(tmp_path / "a.mkv", Clip([3600 * i for i in range(count)], options=options))
    assert len(all_frames(path)) == count


def test_bare_stream_gets_times_of_the_nominal_rate(tmp_path: Path) -> None:
    path = make_clip(tmp_path / "a.h264", Clip(options=B_FRAMES))
    with VideoSource(path) as source:
        frames = list(source)
        assert "no-pts" in ids(source.notices)
    rate = source.info.rate
    assert len(frames) == 12
    # The clock of the demuxer is 1/1200000 s.
    assert all(abs(f.time - f.number / rate) <= Fraction(1, 1200000) for f in frames)


def test_repeated_times_are_moved_apart(tmp_path: Path) -> None:
    """Matroska rounds to a millisecond, so a hundred frames within one share their times."""
    path = make_clip(tmp_path / "a.mkv", Clip([0, 3600, 3610, 3620, 7200, 10800], options={"bf": "0"}))
    assert shown_times(path)[1] == shown_times(path)[2]  # the file is as bad as it should be
    with VideoSource(path) as source:
        times = [f.time for f in source]
        assert ids(source.notices) == ["pts-repaired"]
    assert times == sorted(set(times)) and len(times) == 6
    assert times[0] == 0 and times[-2:] == [Fraction(8, 100), Fraction(12, 100)]


def test_start_and_end_select_by_time(tmp_path: Path) -> None:
    path = make_clip(tmp_path / "a.mp4", Clip([9000 + 3600 * i for i in range(12)]))
    with VideoSource(path, start=Fraction(8, 100), end=Fraction(20, 100)) as source:
        assert [f.number for f in source] == [2, 3, 4]
        assert len(source) == 3
    with pytest.raises(UsageError, match="no frame lies between"):
        VideoSource(path, start=Fraction(9))


# Any place ------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("extension", "clip"),
    [
        (".mp4", Clip([3600 * i for i in range(40)], options=B_FRAMES)),
        (".mkv", Clip([3600 * i for i in range(40)], options=OPEN_GOP)),
        (".ts", Clip([3600 * i for i in range(40)], options=OPEN_GOP)),
        (".mp4", Clip([3600 * i for i in range(40)], options={"x264-params": "intra-refresh=1:keyint=12:bframes=0"})),
        (".h264", Clip([3600 * i for i in range(40)], options=B_FRAMES)),
        (".avi", Clip(range(40), codec="mpeg4", options={"bf": "2", "g": "8"}, clock=Fraction(1, 25))),
    ],
    ids=["bframes", "open-gop-mkv", "open-gop-ts", "intra-refresh", "bare", "avi"],
)
def test_any_range_is_what_a_straight_decode_gives(tmp_path: Path, extension: str, clip: Clip) -> None:
    path = make_clip(tmp_path / f"a{extension}", clip)
    with VideoSource(path) as source:
        straight = list(source)
        assert len(straight) == 40
        for first, last in ((0, 1), (5, 9), (6, 7), (11, 13), (17, 31), (39, 40), (20, 20)):
            part = list(source.range(first, last))
            assert [f.number for f in part] == list(range(first, last))
            for one, other in zip(part, straight[first:last], strict=True):
                assert np.array_equal(one.pixels, other.pixels) and (one.time, one.pts) == (other.time, other.pts)


def test_index_tells_all_and_tells_files_apart(tmp_path: Path) -> None:
    clip = Clip(VFR_PTS, options=B_FRAMES)
    one, other = make_clip(tmp_path / "a.mp4", clip), make_clip(tmp_path / "b.mp4", clip)
    third = make_clip(tmp_path / "c.mp4", Clip(VFR_PTS, options={**B_FRAMES, "crf": "40"}))
    index = index_video(one)
    assert len(index) == 12 and index.is_seekable and not index.truncated and not index.notices
    assert index.end == index.time(11) + index.duration(11)
    assert index.digest() == index_video(other).digest() != index_video(third).digest()


def test_luma_can_be_observed_while_indexing(tmp_path: Path) -> None:
    seen: dict[int, float] = {}
    path = make_clip(tmp_path / "a.mp4", Clip(options={"crf": "1"}))
    index_video(path, observe=lambda number, luma: seen.update({number: float(luma[:4, :4].mean())}))
    wanted = [float(np.frombuffer(picture(n, (48, 64), "yuv420p").planes[0], np.uint8)[:4].mean()) for n in range(12)]
    assert list(seen) == list(range(12))
    assert np.allclose(list(seen.values()), wanted, atol=3)  # crf 1 is not quite lossless


def test_a_file_that_changes_is_noticed(tmp_path: Path) -> None:
    path = make_clip(tmp_path / "a.mp4")
    with VideoSource(path) as source:
        frames = iter(source)
        next(frames)
        make_clip(path, Clip(options={"crf": "40"}))
        os.utime(path, ns=(1, 1))
        with pytest.raises(InputError, match="changed while reading"):
            list(source.range(4, 6))


# Pixels ---------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("pix_fmt", "tags"),
    [
        ("yuv420p", None),
        ("yuv422p", (1, 1, 1, 2)),
        ("yuv444p", (6, 6, 6, 1)),
        ("yuv420p10le", (9, 16, 9, 1)),
        ("yuv422p10le", (1, 1, 1, 1)),
        ("yuv444p12le", (9, 18, 9, 2)),
        ("gbrp10le", None),
        ("gray", None),
        ("gray10le", None),
    ],
)
def test_pixels_and_tags_of_every_format(tmp_path: Path, pix_fmt: str, tags: tuple[int, int, int, int] | None) -> None:
    """Against the formulas of the standards in float64, with chroma repeated: the same where none is subsampled, and the
    same on average where we interpolate."""
    path = make_clip(tmp_path / "a.mkv", Clip([0, 3600], codec="ffv1", pix_fmt=pix_fmt, tags=tags))
    info = probe_video(path)
    assert (info.pix_fmt, info.size) == (pix_fmt, (48, 64))
    colour = info.colour
    if tags:
        assert (colour.primaries, colour.transfer, colour.matrix, colour.range) == tags
        assert (info.coding.matrix, info.coding.is_full_range) == (tags[2], tags[3] == 2)
    elif not pix_fmt.startswith("gbr"):
        assert (colour.primaries, colour.transfer, colour.matrix) == (2, 2, 2)
        assert info.coding.matrix == 6  # 48 lines
    frame = next(iter(all_frames(path)))
    assert frame.pixels.dtype == np.uint16 and frame.pixels.shape == (48, 64, 3)
    difference = frame.pixels / 65535 - plain_rgb(path, info.coding.matrix, info.coding.is_full_range)
    if info.chroma in ("420", "422"):
        # Repeating moves chroma by half a sample; a wrong matrix or range is off by several codes.
        assert np.abs(difference.mean((0, 1))).max() <= 1 / 255
    else:
        assert np.abs(difference).max() <= 1e-4  # of a 16-bit step, and float32


def plain_rgb(path: Path, matrix: int, full: bool) -> np.ndarray:
    """The first frame in [0, 1], converted as plainly as the standards say it."""
    with av.open(str(path)) as container:
        frame = next(container.decode(video=0))
        bits = frame.format.components[0].bits
        dtype = np.uint8 if bits == 8 else np.uint16
        planes = [np.frombuffer(p, dtype).reshape(p.height, -1)[:, : p.width].astype(float) for p in frame.planes]
    top = 2.0**bits - 1
    if frame.format.name.startswith("gbr"):
        return np.stack([planes[2], planes[0], planes[1]], -1) / top
    unit = 2.0 ** (bits - 8)
    y = planes[0] / top if full else (planes[0] / unit - 16) / 219
    if len(planes) == 1:
        return np.repeat(np.clip(y, 0, 1)[..., None], 3, -1)
    across, down = y.shape[1] // planes[1].shape[1], y.shape[0] // planes[1].shape[0]
    cb, cr = (np.repeat(np.repeat(p, down, 0), across, 1) for p in planes[1:])
    cb, cr = ((c - 2 ** (bits - 1)) / top if full else (c / unit - 128) / 224 for c in (cb, cr))
    kr, kb = {1: (0.2126, 0.0722), 6: (0.299, 0.114), 9: (0.2627, 0.0593)}[matrix]
    r, b = y + (2 - 2 * kr) * cr, y + (2 - 2 * kb) * cb
    return np.clip(np.stack([r, (y - kr * r - kb * b) / (1 - kr - kb), b], -1), 0, 1)


def test_untagged_hd_is_taken_as_709(tmp_path: Path) -> None:
    path = make_clip(tmp_path / "a.mp4", Clip([0], size=(720, 64)))
    assert probe_video(path).coding.matrix == 1


def test_probe_tells_rotation_aspect_and_tracks(tmp_path: Path) -> None:
    clip = Clip(
        sample_aspect=Fraction(4, 3),
        rotation=90,
        sounds=[Sound(), Sound("flac", Fraction(1, 4), language="deu")],
        subtitles=[(100, 300, "Hello")],
        chapters=[(0, 200, "One"), (200, 480, "Two")],
        attachment=b"font" * 50,
        metadata={"title": "A film"},
    )
    info = probe_video(make_clip(tmp_path / "a.mkv", clip))
    assert (info.rotation, info.sample_aspect) == (90, Fraction(4, 3))
    assert sorted((s.kind, s.codec) for s in info.streams) == [
        ("attachment", "application/x-truetype-font"), ("audio", "aac"), ("audio", "flac"), ("subtitle", "srt"),
    ]  # fmt: skip
    assert [s.language for s in info.of_kind("audio")] == ["eng", "deu"]
    assert [(c.start, c.end, dict(c.tags)["title"]) for c in info.chapters] == [
        (0, Fraction(1, 5), "One"), (Fraction(1, 5), Fraction(48, 100), "Two"),
    ]  # fmt: skip
    assert dict(info.tags)["title"] == "A film"


def test_interlaced_is_told_and_made_whole(tmp_path: Path) -> None:
    clip = Clip([3600 * i for i in range(20)], options={"x264-params": "interlaced=1:bframes=2:keyint=5"})
    path = make_clip(tmp_path / "a.mkv", clip)
    with VideoSource(path) as source:
        assert source.info.is_interlaced and ids(source.notices) == ["interlaced"]
        woven = list(source)
    with VideoSource(path, deinterlace="auto") as source:
        whole = list(source)
        assert not source.notices
        for first, last in ((0, 2), (9, 12), (18, 20)):
            for one, other in zip(source.range(first, last), whole[first:last], strict=True):
                assert np.array_equal(one.pixels, other.pixels)
    assert [f.time for f in whole] == [f.time for f in woven]
    assert any(not np.array_equal(a.pixels, b.pixels) for a, b in zip(whole, woven, strict=True))
    with pytest.raises(UsageError, match="sideways"):
        VideoSource(path, deinterlace="sideways")  # type: ignore[arg-type]


# Damage ---------------------------------------------------------------------------------------------------------------
@pytest.fixture
def damaged(tmp_path: Path) -> Path:
    clip = Clip([3600 * i for i in range(24)], options={"bf": "0", "g": "6"})
    return damage(make_clip(tmp_path / "bad.mp4", clip), 8)


def test_damaged_frame_is_replaced_by_the_one_before(damaged: Path) -> None:
    with VideoSource(damaged) as source:
        frames = list(source)
        assert "bad-frames" in ids(source.notices)
        assert len(frames) == 24 and [f.time for f in frames] == [Fraction(i, 25) for i in range(24)]
        assert np.array_equal(frames[8].pixels, frames[7].pixels) and frames[8].is_repeated
        assert not frames[7].is_repeated
        part = list(source.range(7, 10))
    assert all(np.array_equal(a.pixels, b.pixels) for a, b in zip(part, frames[7:10], strict=True))


def test_damaged_frame_can_be_left_out_or_refused(damaged: Path) -> None:
    frames = all_frames(damaged, on_bad_frame="skip")
    assert Fraction(8, 25) not in [f.time for f in frames] and len(frames) == 23
    with pytest.raises(InputError, match=r"damaged frames, at 0:00:00\.320"):
        VideoSource(damaged, on_bad_frame="fail")


def test_transport_stream_that_ends_within_a_packet_is_read_with_a_notice(tmp_path: Path) -> None:
    """Recordings end so, and nothing in them says how long they should be."""
    path = make_clip(tmp_path / "a.ts", Clip([3600 * i for i in range(60)], options={"crf": "5"}))
    os.truncate(path, path.stat().st_size * 6 // 10 // 188 * 188 + 50)
    with VideoSource(path) as source:
        assert 10 < len(list(source)) < 60
        assert "truncated" in ids(source.notices)


def test_truncated_file_gives_its_good_frames_and_then_fails(tmp_path: Path) -> None:
    path = make_clip(tmp_path / "a.mkv", Clip([3600 * i for i in range(60)], options={"crf": "5"}))
    size = path.stat().st_size
    os.truncate(path, size * 6 // 10)
    got = []
    with VideoSource(path) as source, pytest.raises(InputError, match="ends early"):
        got.extend(source)
    assert 10 < len(got) < 60
    with VideoSource(path, allow_truncated=True) as source:
        assert len(list(source)) == len(got)
        assert "truncated" in ids(source.notices)


def test_file_without_its_table_of_contents_is_refused_with_the_reason(tmp_path: Path) -> None:
    path = make_clip(tmp_path / "a.mp4")
    os.truncate(path, path.stat().st_size // 2)
    for _ in range(3):  # a batch may hold several: PyAV drops a message that it logged just before
        with pytest.raises(InputError, match="moov atom not found"):
            probe_video(path)


def test_change_of_size_is_refused_with_its_time(tmp_path: Path) -> None:
    one = make_clip(tmp_path / "a.ts", Clip([3600 * i for i in range(10)], options={"bf": "0"}))
    other = make_clip(tmp_path / "b.ts", Clip([3600 * i for i in range(10, 20)], size=(96, 128), options={"bf": "0"}))
    joined = tmp_path / "c.ts"
    joined.write_bytes(one.read_bytes() + other.read_bytes())
    with pytest.raises(InputError, match=r"changes from 64x48 to 128x96 at 0:00:\d\d\.\d\d\d"):
        VideoSource(joined)


# No video -------------------------------------------------------------------------------------------------------------
def test_files_without_a_film_are_refused_by_what_they_are(tmp_path: Path) -> None:
    sound = tmp_path / "sound.mp4"
    with av.open(str(sound), "w") as out:
        stream = out.add_stream("aac", rate=48000)
        frame = av.AudioFrame.from_ndarray(np.zeros((2, 1024), np.float32), "fltp", "stereo")
        frame.sample_rate = 48000
        out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    with pytest.raises(InputError, match=r"no video stream \(1 audio\)"):
        probe_video(sound)
    image = tmp_path / "image.mp4"
    picture(0, (48, 64), "rgb24").to_image().save(image, "PNG")
    with pytest.raises(InputError, match="is an image"):
        probe_video(image)
    text = tmp_path / "text.mkv"
    text.write_text("not a film\n" * 100)
    with pytest.raises(InputError, match="not a video"):
        probe_video(text)
    with pytest.raises(InputError, match="no such file"):
        probe_video(tmp_path / "none.mp4")


def make_with_cover(path: Path, *, film: bool) -> Path:
    """An MP4 whose first stream is an attached picture."""
    with av.open(str(path), "w") as out:
        cover = out.add_stream("mjpeg", rate=25)
        cover.height, cover.width, cover.pix_fmt = 48, 64, "yuvj420p"
        cover.disposition = int(av.stream.Disposition.attached_pic)
        packets = []
        if film:
            video = out.add_stream("libx264", rate=25)
            video.height, video.width, video.pix_fmt = 48, 64, "yuv420p"
        else:
            sound = out.add_stream("aac", rate=48000)
            frame = av.AudioFrame.from_ndarray(np.zeros((2, 1024), np.float32), "fltp", "stereo")
            frame.sample_rate = 48000
            packets += sound.encode(frame) + sound.encode(None)
        shot = picture(3, (48, 64), "yuvj420p")
        shot.pts = 0
        packets += cover.encode(shot) + cover.encode(None)
        for number in range(10 if film else 0):
            packets += video.encode(picture(number, (48, 64), "yuv420p"))
        packets += video.encode(None) if film else []
        for packet in packets:
            out.mux(packet)
    return path


def test_cover_picture_is_not_the_film(tmp_path: Path) -> None:
    info = probe_video(make_with_cover(tmp_path / "film.mp4", film=True))
    assert info.codec == "h264" and [s.kind for s in info.streams] == ["cover"]
    with pytest.raises(InputError, match=r"no video stream \(1 audio, 1 cover picture\)"):
        probe_video(make_with_cover(tmp_path / "song.mp4", film=False))


def test_stream_is_chosen_by_disposition_or_by_hand(tmp_path: Path) -> None:
    path = tmp_path / "two.mkv"
    with av.open(str(path), "w") as out:
        streams = []
        for size in ((48, 64), (96, 128)):
            stream = out.add_stream("libx264", rate=25, options={"bf": "0"})
            stream.height, stream.width, stream.pix_fmt = *size, "yuv420p"
            streams.append(stream)
        streams[0].disposition, streams[1].disposition = 0, int(av.stream.Disposition.default)
        for number in range(4):
            for stream, size in zip(streams, ((48, 64), (96, 128)), strict=True):
                out.mux(stream.encode(picture(number, size, "yuv420p")))
        for stream in streams:
            out.mux(stream.encode(None))
    assert probe_video(path).size == (96, 128)
    assert probe_video(path, stream=0).size == (48, 64)
    with pytest.raises(InputError, match=r"Choose `video\.stream` from 0, 1"):
        probe_video(path, stream=7)


def test_video_names() -> None:
    assert is_video_name("a.MKV") and is_video_name(Path("x/b.mp4"))
    assert not is_video_name("a.png") and not is_video_name("mp4") and not is_video_name("a.gif")


@needs_shared
@pytest.mark.parametrize(
    ("name", "count"),
    [("flower_audio.mp4", 150), ("friday_1940_audio.mp4", 185), ("tears_of_steel_lowbitrate_audio.webm", 178)],
)
def test_real_clips(shared: Path, name: str, count: int) -> None:
    path = shared / "videos" / name
    index = index_video(path)
    assert len(index) == count and not index.notices and index.truncated is None
    assert [index.time(n) for n in range(count)] == shown_times(path)
    with VideoSource(path, index=index) as source:
        straight = {f.number: f.pixels for f in source.range(0, 72) if f.number >= 66}
        for frame in source.range(66, 72):
            assert np.array_equal(frame.pixels, straight[frame.number])


# Folders of frames ----------------------------------------------------------------------------------------------------
def make_folder(folder: Path, numbers: list[int], size: tuple[int, int] = (8, 10)) -> Path:
    folder.mkdir(exist_ok=True)
    for number in numbers:
        image = picture(number, size, "rgb24").to_image()
        image.save(folder / f"f{number}.png")
    return folder


def test_folder_is_read_in_natural_order_and_at_its_rate(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "in", [8, 9, 10, 11])
    with FrameFolder(folder, rate=Fraction(24000, 1001)) as source:
        frames = list(source)
        assert not source.notices
    assert [p.name for p in source.frames] == ["f8.png", "f9.png", "f10.png", "f11.png"]
    assert [f.time for f in frames] == [n * Fraction(1001, 24000) for n in range(4)]
    wanted = picture(9, (8, 10), "rgb24").to_ndarray()
    assert np.array_equal(frames[1].pixels, wanted.astype(np.uint16) * 257)


def test_folder_tells_gaps_mixed_sizes_and_unreadable_files(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "in", [1, 2, 4, 9])
    with FrameFolder(folder) as source:
        assert [n.message for n in source.notices] == [
            "frame 3 is missing after number 2", "frame 5 to 8 is missing after number 4",
        ]  # fmt: skip
    (folder / "f4.png").write_bytes(b"broken")
    with FrameFolder(folder) as source:
        assert len(source) == 4 and "bad-frames" in ids(source.notices)
        frames = list(source)
        assert frames[2].is_repeated and np.array_equal(frames[2].pixels, frames[1].pixels)
    assert len(FrameFolder(folder, on_bad_frame="skip")) == 3
    with pytest.raises(InputError, match=r"f4\.png"):
        FrameFolder(folder, on_bad_frame="fail")
    make_folder(folder, [4], size=(12, 10))
    with pytest.raises(InputError, match=r"f1\.png is 10x8 and f4\.png is 10x12"):
        FrameFolder(folder)
    shutil.rmtree(folder)
    folder.mkdir()
    with pytest.raises(InputError, match="no images"):
        FrameFolder(folder)
