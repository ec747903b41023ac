"""Encoders of graphics chips: their options, their forms of pictures, and the refusal where there is no chip."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest

from conftest import Upframe
from upframe.media.names import CODEC_NAMES, HARDWARE_NAMES, bitstream_of
from upframe.media.video.codecs import CODECS, CONTAINERS, PACKED, encodable_formats, encoder_options, taken_format
from upframe.media.video.hardware import ENCODERS, HARDWARE
from upframe.media.video.trial import encoder_fault
from video_files import make_clip

HERE = [name for name in HARDWARE_NAMES if name in av.codecs_available]


def options(name: str, crf: int | None = None, preset: str | None = None) -> dict[str, str]:
    return encoder_options(HARDWARE[name], crf=crf, preset=preset, extra={}, hdr10=None)


@pytest.mark.parametrize(
    ("name", "crf", "preset", "expected"),
    [
        ("h264_nvenc", None, None, {"rc": "vbr", "cq": "19", "b": "0", "preset": "p5"}),
        ("hevc_qsv", 25, "fast", {"global_quality": "25", "preset": "fast"}),
        ("av1_amf", 25, None, {"rc": "cqp", "qp_i": "100", "qp_p": "100", "preset": "quality"}),
        ("hevc_videotoolbox", 0, None, {"flags": "+qscale", "global_quality": "11800"}),
        ("hevc_videotoolbox", 63, None, {"flags": "+qscale", "global_quality": "118"}),
    ],
)
def test_crf_is_the_quality_of_each_maker(name: str, crf: int | None, preset: str | None, expected: dict[str, str]) -> None:
    assert options(name, crf, preset) == expected


@pytest.mark.parametrize("name", HARDWARE_NAMES)
def test_a_chips_codec_fits_where_its_bitstream_does(name: str) -> None:
    assert bitstream_of(name) in CODEC_NAMES
    assert any(bitstream_of(name) in container.codecs for container in CONTAINERS.values())
    assert not ENCODERS.keys() - CODECS.keys() - set(HARDWARE_NAMES)


@pytest.mark.parametrize("name", HERE)
def test_pictures_have_a_form_that_the_encoder_takes(name: str) -> None:
    codec = HARDWARE[name]
    own = {form.name for form in av.Codec(codec.encoder, "w").video_formats or ()}
    assert encodable_formats(codec)[0] == "yuv420p"
    assert {taken_format(codec, form) for form in encodable_formats(codec)} <= own


@pytest.mark.parametrize(("planar", "packed"), PACKED.items())
def test_the_packed_form_has_the_same_samples(planar: str, packed: str) -> None:
    depth = np.uint8 if planar == "yuv420p" else np.uint16
    top = 256 if depth is np.uint8 else 1024
    samples = np.random.default_rng(5).integers(0, top, (48 * 3 // 2, 64), dtype=depth)
    frame = av.VideoFrame(64, 48, planar)
    rows = [samples[:48], samples[48:60].reshape(24, 32), samples[60:].reshape(24, 32)]
    for plane, values in zip(frame.planes, rows, strict=True):
        plane.update(np.pad(values, ((0, 0), (0, plane.line_size // values.itemsize - values.shape[1]))).tobytes())
    back = frame.reformat(format=packed).reformat(format=planar)
    for plane, other in zip(frame.planes, back.planes, strict=True):
        width = plane.width * samples.itemsize
        mine, theirs = (np.frombuffer(one, np.uint8).reshape(one.height, -1)[:, :width] for one in (plane, other))
        np.testing.assert_array_equal(mine, theirs)


@pytest.mark.slow
@pytest.mark.parametrize("name", HARDWARE_NAMES)
def test_a_chip_that_is_not_there_is_refused_before_any_work(
    name: str, upframe: Upframe, weights: Path, tmp_path: Path
) -> None:
    if name in HERE and encoder_fault(name) is None:
        pytest.skip("this machine has the chip")
    source = make_clip(tmp_path / "in.mkv")
    result = upframe(source, "-m", weights, "-c", name, "-o", tmp_path / "out.mkv", "--json")
    assert result.code == 5
    assert len(result.err.strip().splitlines()) == 1 and name in result.err and bitstream_of(name) in result.err
    assert [path.name for path in tmp_path.iterdir()] == ["in.mkv"]
