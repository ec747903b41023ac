"""Covers and fonts come out as the bytes that went in, with name and type; converted subtitles can be seen."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image
from test_video_write import copy_video, ids

from upframe.media.video.attached import read_attached
from upframe.media.video.files import plan_video, probe_video
from video_files import Clip, make_clip, shown_times

pytestmark = pytest.mark.slow

FAST = {"preset": "ultrafast"}


def cover(form: str, shade: int = 0) -> bytes:
    made = io.BytesIO()
    Image.fromarray(np.full((24, 32, 3), (200, shade, 30), np.uint8)).save(made, form)
    return made.getvalue()


def with_attachments(path: Path, *attached: tuple[str, str, bytes]) -> Path:
    """Add attachments to a clip, as FFmpeg and mkvmerge store covers and fonts."""
    plain = make_clip(path.with_name("plain.mkv"))
    with av.open(str(plain)) as source, av.open(str(path), "w") as out:
        stream = out.add_stream_from_template(source.streams.video[0], opaque=True)
        for name, mimetype, data in attached:
            out.add_attachment(name, mimetype, data)
        for packet in source.demux(video=0):
            if packet.size:
                packet.stream = stream
                out.mux(packet)
    return path


def attached_of(path: Path) -> list[tuple[str, str, bytes]]:
    info = probe_video(path)
    found = read_attached(path, [s.index for s in info.streams if s.kind in ("cover", "attachment")])
    return [(one.name, one.mimetype, one.data) for _, one in sorted(found.items())]


FILES = [
    ("cover.jpg", "image/jpeg", cover("JPEG")),
    ("cover_land.png", "image/png", cover("PNG", 90)),
    ("ünïcode font.ttf", "application/x-truetype-font", bytes(500)),
    ("notes.txt", "text/plain", b"read me"),
    ("odd.bin", "application/x-unheard-of", bytes(range(256))),
]


@pytest.mark.parametrize("count", [1, 2, 5])
def test_matroska_keeps_every_attachment_and_no_cover_becomes_a_video(tmp_path: Path, count: int) -> None:
    source = with_attachments(tmp_path / "in.mkv", *FILES[:count])
    plan, expected = copy_video(source, tmp_path / "out.mkv", **FAST)
    assert not plan.notices and len(expected.attached) == count
    assert attached_of(tmp_path / "out.mkv") == FILES[:count]
    assert shown_times(tmp_path / "out.mkv") == shown_times(source)


def test_covers_go_from_matroska_to_mp4_and_back(tmp_path: Path) -> None:
    source = with_attachments(tmp_path / "in.mkv", *FILES[:2])
    plan, _ = copy_video(source, tmp_path / "out.mp4", **FAST)
    assert not plan.notices
    assert [data for _, _, data in attached_of(tmp_path / "out.mp4")] == [data for _, _, data in FILES[:2]]
    plan, _ = copy_video(tmp_path / "out.mp4", tmp_path / "back.mkv", **FAST)
    assert not plan.notices
    assert attached_of(tmp_path / "back.mkv") == [
        ("cover.jpg", "image/jpeg", FILES[0][2]),
        ("cover.png", "image/png", FILES[1][2]),
    ]


def test_fonts_are_lost_outside_matroska_and_that_is_told(tmp_path: Path) -> None:
    source = with_attachments(tmp_path / "in.mkv", *FILES[:3])
    plan = plan_video(probe_video(source), container="mp4")
    assert ids(plan) == ["track-dropped"] and "ünïcode font.ttf" in plan.notices[0].message


def styles_of(path: Path) -> dict[str, str]:
    """The default style that FFmpeg's decoder reads from a track of subtitles."""
    with av.open(str(path)) as container:
        context: Any = container.streams.subtitles[0].codec_context
        context.open(strict=False)
        lines = context.subtitle_header.decode().splitlines()
    names = next(line for line in lines if line.startswith("Format: Name")).removeprefix("Format:").split(",")
    values = next(line for line in lines if line.startswith("Style: Default")).removeprefix("Style:").split(",")
    return {name.strip(): value.strip() for name, value in zip(names, values, strict=True)}


def test_converted_subtitles_are_white_with_a_black_outline(tmp_path: Path) -> None:
    source = make_clip(tmp_path / "in.mkv", Clip(subtitles=[(40, 100, "Hällo"), (200, 150, "Two")]))
    copy_video(source, tmp_path / "out.mp4", **FAST)
    style = styles_of(tmp_path / "out.mp4")
    assert int(style["PrimaryColour"].removeprefix("&H"), 16) & 0xFFFFFF == 0xFFFFFF
    assert int(style["OutlineColour"].removeprefix("&H"), 16) & 0xFFFFFF == 0
    assert style["Fontname"] == "Arial" and int(style["Fontsize"]) > 0
