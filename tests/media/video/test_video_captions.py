"""Closed captions: each frame keeps its own."""

from __future__ import annotations

from pathlib import Path

import pytest

from upframe.media.video.captions import with_captions
from upframe.media.video.files import VideoSource
from video_files import Clip
from video_parts import (
    NO_CAPTION,
    caption,
    muxed,
    stream_bytes,
    with_sei,
)

pytestmark = pytest.mark.slow

PLAIN = Clip(options={"bf": "0"})


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
