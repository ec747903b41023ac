"""Files whose time jumps come out with sound and pictures in step, told by PyAV itself."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import pytest
from test_video_write import copy_video

from upframe.media.video.decoding import Decoding, Picture
from upframe.media.video.files import VideoSource, index_video
from upframe.media.video.index_file import load_index, save_index
from video_files import Clip, Sound, join_streams, make_clip, shown_times, sound_payloads

pytestmark = pytest.mark.slow

FAST = {"preset": "ultrafast"}
FRAMES = 25


def transport_stream(path: Path, start_s: int = 0, *, seed: int = 0, frames: int = FRAMES) -> Path:
    """One second or so of pictures and sound; `start_s` is on the clock of the file."""
    first = start_s * 90000
    sound = Sound("mp2", Fraction(start_s), Fraction(frames, 25), seed=seed)
    clip = Clip([first + 3600 * n for n in range(frames)], options={"g": "12", "bf": "2"}, sounds=[sound])
    return make_clip(path, clip, copyts="1", muxdelay="0")


def sound_times(path: Path) -> list[Fraction]:
    with av.open(str(path)) as container:
        return [p.pts * p.time_base for p in container.demux(audio=0) if p.size and p.pts is not None]


@pytest.mark.parametrize("start_s", [0, 3600, 20000])
@pytest.mark.parametrize("container", [".mkv", ".mp4"])
def test_sound_stays_beside_its_picture_in_joined_transport_streams(tmp_path: Path, start_s: int, container: str) -> None:
    first = transport_stream(tmp_path / "1.ts", 100)
    second = transport_stream(tmp_path / "2.ts", start_s, seed=1)
    source = join_streams(tmp_path / "in.ts", first, second)
    target = tmp_path / f"out{container}"
    _, expected = copy_video(source, target, **FAST)
    times, sounds = shown_times(target), sound_times(target)
    # Nothing is lost, and the second part is as it is alone, only later.
    assert len(times) == len(expected.pts) == 2 * FRAMES
    lead = times[FRAMES] - shown_times(second)[0]
    alone = sound_times(second)
    for found, wanted in zip(times[FRAMES:], shown_times(second), strict=True):
        assert found == pytest.approx(wanted + lead, abs=0.0011)
    for found, wanted in zip(sounds[-len(alone) :], alone, strict=True):
        assert found == pytest.approx(wanted + lead, abs=0.0011)
    # No jump is left: at most the difference of the two tracks' ends.
    steps = [b - a for a, b in itertools.pairwise(times)]
    assert min(steps) > 0 and max(steps) < Fraction(1, 10)
    assert sound_payloads(target) == sound_payloads(source)


def test_what_was_corrected_is_told(tmp_path: Path) -> None:
    source = join_streams(tmp_path / "in.ts", *(transport_stream(tmp_path / f"{n}.ts", 3600 * n) for n in (0, 1)))
    index = index_video(source)
    (notice,) = [notice for notice in index.notices if notice.id == "time-jumps"]
    assert re.search(r"ahead by 0:59:58\.\d+ at 0:00:0[12]\.\d+;", notice.message)
    assert float(index.end) == pytest.approx(2 * FRAMES / 25 + float(index.time(0)), abs=0.1)


def test_joined_frames_are_read_from_anywhere_and_the_index_is_kept(tmp_path: Path) -> None:
    source = join_streams(tmp_path / "in.ts", *(transport_stream(tmp_path / f"{n}.ts", 50 - 10 * n) for n in (0, 1)))
    with VideoSource(source) as video:
        whole = [frame.pixels for frame in video.range(0, len(video.index))]
        for first, last in [(0, 3), (24, 27), (40, 50)]:
            part = list(video.range(first, last))
            assert [frame.number for frame in part] == list(range(first, last))
            assert all((frame.pixels == whole[frame.number]).all() for frame in part)
        save_index(video.index, tmp_path / "index")
        kept = load_index(tmp_path / "index", source)
        assert kept is not None and kept.clock == video.index.clock and kept.digest() == video.index.digest()


@pytest.mark.parametrize("overlap", [0, 3])
def test_segments_of_joined_frames_are_decoded_in_one_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, overlap: int) -> None:
    """The time of a job must not grow with the square of its length, although such a file cannot be searched."""
    source = join_streams(tmp_path / "in.ts", *(transport_stream(tmp_path / f"{n}.ts", 50 - 10 * n) for n in (0, 1)))
    decoded = 0
    original = Decoding.pictures

    def counted(self: Decoding) -> Iterator[Picture]:
        nonlocal decoded
        for one in original(self):
            decoded += 1
            yield one

    with VideoSource(source) as video:
        length = len(video.index)
        whole = [frame.pixels for frame in video.range(0, length)]
        monkeypatch.setattr(Decoding, "pictures", counted)
        for first in range(0, length, 5):
            part = video.range(max(0, first - overlap), min(first + 5, length))
            assert all((frame.pixels == whole[frame.number]).all() for frame in part)
    # The overlap is unknown before the second segment, which is decoded from the start.
    assert decoded <= length + (10 if overlap else 0)


def test_a_clock_that_wraps_goes_on(tmp_path: Path) -> None:
    """The clock of transport streams has 33 bits: after 26.5 hours it begins again."""
    wrap_s = Fraction(1 << 33, 90000)
    frames, first = 50, (1 << 33) - 25 * 3600
    sound = Sound("mp2", wrap_s - 1, Fraction(2))
    source = make_clip(tmp_path / "in.ts", Clip([first + 3600 * n for n in range(frames)], sounds=[sound]), copyts="1")
    with av.open(str(source), options={"correct_ts_overflow": "0"}) as container:
        stated = [p.pts for p in container.demux(video=0) if p.pts is not None]
    assert min(stated) < 90000 and max(stated) > first
    copy_video(source, tmp_path / "out.mkv", **FAST)
    times = shown_times(tmp_path / "out.mkv")
    assert [round((b - a) * 25) for a, b in itertools.pairwise(times)] == [1] * (frames - 1)
    assert abs(sound_times(tmp_path / "out.mkv")[-1] - times[-1]) < Fraction(1, 10)


def test_a_gap_in_matroska_is_a_gap(tmp_path: Path) -> None:
    pts = [3600 * n for n in range(20)]
    source = make_clip(tmp_path / "in.mkv", Clip([*pts, *(t + 90 * 90000 for t in pts)], options={"bf": "0"}))
    index = index_video(source)
    assert index.clock.is_even and float(index.end) == pytest.approx(90.8, abs=0.1)
