"""Sound that an output has no code for: by its RIFF tag, sample by sample, or converted with a notice."""

from __future__ import annotations

import io
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from test_video_write import copy_video

from upframe.errors import UsageError
from upframe.media.video.files import plan_video, probe_video
from upframe.media.video.riff_sound import name_riff_tracks, stand_in, wave_header
from video_files import Clip, Sound, make_clip, sound_payloads, sound_starts

pytestmark = pytest.mark.slow

FAST = {"preset": "ultrafast"}


def source_with(path: Path, codec: str, **facts: Fraction) -> Path:
    rate = Fraction(1, 25)
    clip = Clip(list(range(12)), codec="mpeg4", clock=rate) if path.suffix in (".avi", ".wmv") else Clip()
    return make_clip(path, Clip(clip.pts, codec=clip.codec, clock=clip.clock, sounds=[Sound(codec, **facts)]))


def samples(path: Path) -> np.ndarray:
    with av.open(str(path)) as container:
        frames = [frame.to_ndarray() for frame in container.decode(audio=0)]
        is_planar = container.streams.audio[0].format.is_planar
    return np.concatenate([frame if is_planar else frame.reshape(-1, 2).T for frame in frames], axis=1)


def heard_from(path: Path) -> Fraction:
    """Time of the first decoded frame: WMA's decoder gives nothing for its first packets."""
    with av.open(str(path)) as container:
        frame = next(container.decode(audio=0))
        assert frame.pts is not None and frame.time_base is not None
        return frame.pts * frame.time_base


@pytest.mark.parametrize(
    ("name", "codec"),
    [("in.avi", "adpcm_ms"), ("in.avi", "pcm_alaw"), ("in.avi", "adpcm_ima_wav"), ("in.wmv", "wmav2")],
)
def test_sound_with_a_riff_tag_is_copied_into_matroska_bit_by_bit(tmp_path: Path, name: str, codec: str) -> None:
    source, target = source_with(tmp_path / name, codec), tmp_path / "out.mkv"
    plan, _ = copy_video(source, target, **FAST)
    assert "audio-converted" not in [notice.id for notice in plan.notices]
    assert sound_payloads(target) == sound_payloads(source)
    np.testing.assert_array_equal(samples(target), samples(source))
    assert abs(sound_starts(target)[0] - sound_starts(source)[0]) <= Fraction(1, 1000)
    with av.open(str(target)) as one, av.open(str(source)) as other:
        assert one.streams.audio[0].codec_context.name == other.streams.audio[0].codec_context.name == codec


def test_checksum_of_the_tracks_is_right_after_the_change(tmp_path: Path) -> None:
    """With `-err_detect crccheck` FFmpeg checks the element that holds the tracks."""
    copy_video(source_with(tmp_path / "in.avi", "adpcm_ms"), tmp_path / "out.mkv", **FAST)
    with av.open(str(tmp_path / "out.mkv"), options={"err_detect": "crccheck+explode"}) as container:
        assert container.streams.audio[0].codec_context.name == "adpcm_ms"


def test_only_the_stand_in_gets_another_name() -> None:
    """A track that is TrueHD stays TrueHD."""
    wave = bytes.fromhex("020002001f40000000fa00000004040020000000")
    with stand_in(wave) as one, stand_in(wave + b"x") as other:
        made = io.BytesIO()
        with av.open(made, "w", format="matroska", options={"fflags": "+bitexact"}) as out:
            for template in (one, other):
                out.add_stream_from_template(template.streams[0], opaque=True)
            out.start_encoding()
    name_riff_tracks(made, [wave])
    assert (made.getvalue().count(b"A_MS/ACM"), made.getvalue().count(b"A_TRUEHD")) == (1, 1)


def test_codecs_without_a_riff_tag_have_no_wave_header(tmp_path: Path) -> None:
    source = make_clip(tmp_path / "in.m2ts", Clip(sounds=[Sound("pcm_bluray")]))
    with av.open(str(source)) as container:
        assert wave_header(container.streams.audio[0]) is None


@pytest.mark.parametrize("container", [".mkv", ".mov", ".mp4"])
def test_sound_of_discs_keeps_every_sample(tmp_path: Path, container: str) -> None:
    source = make_clip(tmp_path / "in.m2ts", Clip(sounds=[Sound("pcm_bluray")]))
    target = tmp_path / f"out{container}"
    plan, _ = copy_video(source, target, **FAST)
    assert [notice.id for notice in plan.notices] == []
    np.testing.assert_array_equal(samples(target), samples(source))
    assert abs(sound_starts(target)[0] - sound_starts(source)[0]) <= Fraction(1, 1000)


@pytest.mark.parametrize(("container", "codec", "made"), [(".mp4", "wmav2", "flac"), (".mov", "flac", "alac")])
def test_conversion_is_the_last_resort_and_told(tmp_path: Path, container: str, codec: str, made: str) -> None:
    source = source_with(tmp_path / ("in.wmv" if codec == "wmav2" else "in.mkv"), codec)
    target = tmp_path / f"out{container}"
    plan, _ = copy_video(source, target, codec="h264", **FAST)
    (notice,) = [notice for notice in plan.notices if notice.id == "audio-converted"]
    assert codec in notice.message and made in notice.message
    before, after = samples(source), samples(target)
    if codec == "wmav2":  # decoded as floating point, 24 bits of it are kept
        np.testing.assert_allclose(after / 2.0**31, before, atol=2.0**-23)
    else:
        np.testing.assert_array_equal(after, before)
    assert abs(heard_from(target) - heard_from(source)) <= Fraction(1, 500)


def test_sound_becomes_opus_in_webm(tmp_path: Path) -> None:
    source = source_with(tmp_path / "in.mkv", "flac")
    plan, _ = copy_video(source, tmp_path / "out.webm", preset="12")
    assert "audio-converted" in [notice.id for notice in plan.notices]
    before, after = (samples(path).astype(float) for path in (source, tmp_path / "out.webm"))
    assert abs(after.shape[1] - before.shape[1]) < 2000
    assert np.sqrt((after**2).mean()) * 32768 == pytest.approx(np.sqrt((before**2).mean()), rel=0.05)


def test_matroska_is_not_advised_where_it_was_tried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("upframe.media.video.trial.sound_ways", lambda *_: iter(()))
    source = source_with(tmp_path / "in.avi", "adpcm_ms")
    for container, advice in (("mkv", "Use `video.audio=False`"), ("webm", "Use mkv, or `video.audio=False`")):
        with pytest.raises(UsageError) as caught:
            plan_video(probe_video(source), container=container)
        assert advice in str(caught.value)
