"""Views of HDR videos and wide-gamut photos look right on an ordinary screen, which knows neither."""

from __future__ import annotations

import io
import struct
import zlib
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from PIL import Image

from serving import Server
from upframe.client import Client, Source
from upframe.media.display import Colours, to_srgb
from upframe.media.video.colour import Coding, Layout, from_rgb
from upframe.service import wire

pytestmark = pytest.mark.slow

PATCH = (30_000, 33_000, 24_000)
"""R'G'B' of a flat picture, of 65535: far from the borders of sRGB in all the colours below."""
GREEN = (30_000, 42_000, 24_000)
"""The same for colours without HDR, whose values are less far apart in light."""
PQ, HLG, WIDE = (9, 16, 9, 1), (9, 18, 9, 1), (9, 14, 9, 1)
"""Primaries, transfer, matrix and range: BT.2100 and BT.2020."""


def flat_video(path: Path, patch: tuple[int, int, int], tags: tuple[int, int, int, int], frames: int = 30) -> Path:
    """A video of one colour, with 10 bits."""
    planes = from_rgb(np.full((64, 64, 3), patch, np.uint16), Layout("yuv", 10, 2, 2), Coding(tags[2]))
    with av.open(str(path), "w") as out:
        stream: Any = out.add_stream("libx265", rate=25, options={"x265-params": "log-level=none:lossless=1"})
        stream.height, stream.width, stream.pix_fmt = 64, 64, "yuv420p10le"
        samples = np.concatenate([plane.ravel() for plane in planes]).reshape(96, 64)
        frame = av.VideoFrame.from_ndarray(samples, format="yuv420p10le")
        for place in (stream.codec_context, frame):
            place.color_primaries, place.color_trc, place.colorspace, place.color_range = tags
        for number in range(frames):
            frame.pts, frame.time_base = number, Fraction(1, 25)
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    return path


def middle_of_video(content: bytes) -> NDArray[np.int64]:
    """A pixel as a player shows it that goes by the tags."""
    with av.open(io.BytesIO(content)) as video:
        frame = next(video.decode(video=0))
        context = video.streams.video[0].codec_context
    assert (context.codec.name, context.pix_fmt, context.color_trc) == ("h264", "yuv420p", 1)
    return frame.to_ndarray(format="rgb24")[32, 32].astype(int)


def middle_of_picture(content: bytes) -> NDArray[np.int64]:
    image = Image.open(io.BytesIO(content))
    assert "icc_profile" not in image.info
    return np.asarray(image.convert("RGB"))[image.height // 2, image.width // 2].astype(int)


@pytest.mark.parametrize(("tags", "patch"), [(PQ, PATCH), (HLG, PATCH), (WIDE, GREEN)])
def test_a_video_in_other_colours_is_shown_in_those_of_the_screen(
    server: Server, client: Client, tmp_path: Path, allowed: Path, tags: tuple[int, int, int, int], patch: tuple[int, int, int]
) -> None:
    source = flat_video(tmp_path / "hdr.mkv", patch, tags)
    wanted = to_srgb(np.array([patch], np.float32) / 65535, Colours(tags[0], tags[1]))[0] * 255
    assert np.abs(wanted - np.array(patch) / 257).max() > 10  # else the test proves nothing
    upload = client.upload(source)
    near = {"abs": 5}  # a step of 8-bit chroma is about 2, and H.264 and the table add to it
    assert middle_of_video(server.fetched(f"/api/uploads/{upload.id}/preview")) == pytest.approx(wanted, **near)
    assert middle_of_picture(server.fetched(f"/api/uploads/{upload.id}/thumbnail")) == pytest.approx(wanted, **near)
    model = str(allowed / "x2.safetensors")
    new = wire.NewTrial(source=Source(upload=upload.id), models=[model], side=32)
    for made in client.trial(new).results:
        assert middle_of_picture(server.fetched(made.url or "")) == pytest.approx(wanted, **near), made
    for made in client.trial(new.model_copy(update={"clip_seconds": 0.4})).results:
        assert middle_of_video(server.fetched(made.url or "")) == pytest.approx(wanted, **near), made


def display_p3() -> bytes:
    """An ICC profile with the primaries of Display P3 and gamma 2.2 (ICC.1:2001-04, a matrix and curves)."""

    def xyz(*values: float) -> bytes:
        return b"XYZ " + bytes(4) + struct.pack(">3i", *(round(value * 65536) for value in values))

    gamma = b"curv" + bytes(4) + struct.pack(">IHH", 1, round(2.2 * 256), 0)
    name = b"desc" + bytes(4) + struct.pack(">I", 3) + b"P3\0" + bytes(78)
    tags = {b"desc": name, b"cprt": b"text" + bytes(4) + b"none\0\0\0\0", b"wtpt": xyz(0.9642, 1, 0.8249)}
    tags |= {key: xyz(*column) for key, column in zip((b"rXYZ", b"gXYZ", b"bXYZ"), P3_D50, strict=True)}
    tags |= dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), gamma)
    table, content, offset = struct.pack(">I", len(tags)), b"", 132 + 12 * len(tags)
    for key, unpadded in tags.items():
        value = unpadded + bytes(-len(unpadded) % 4)
        table += key + struct.pack(">II", offset + len(content), len(value))
        content += value
    head = struct.pack(">I4sI", offset + len(content), b"none", 0x02100000) + b"mntrRGB XYZ "
    head += struct.pack(">6H", 2020, 1, 1, 0, 0, 0) + b"acsp" + bytes(28) + struct.pack(">3i", 63190, 65536, 54061)
    return head + bytes(128 - len(head)) + table + content


P3_D50 = ((0.51512, 0.24120, -0.00105), (0.29198, 0.69225, 0.04189), (0.15710, 0.06657, 0.78407))
XYZ_D50_TO_SRGB = np.array([[3.13386, -1.61687, -0.49061], [-0.97877, 1.91614, 0.03345], [0.07195, -0.22899, 1.40524]])
"""Matrices of Display P3 and sRGB under D50 (ICC.1:2022, annex E; Lindbloom)."""


def test_a_deep_photo_with_a_wide_profile_is_managed_in_every_view(
    server: Server, client: Client, tmp_path: Path, allowed: Path
) -> None:
    source, profile = tmp_path / "wide.tif", display_p3()
    tifffile.imwrite(source, np.full((300, 400, 3), GREEN, np.uint16), iccprofile=profile)
    light = XYZ_D50_TO_SRGB @ np.array(P3_D50).T @ (np.array(GREEN) / 65535) ** 2.2
    wanted = (1.055 * light ** (1 / 2.4) - 0.055) * 255
    assert np.abs(wanted - np.array(GREEN) / 257).max() > 10
    upload = client.upload(source)
    assert middle_of_picture(server.fetched(f"/api/uploads/{upload.id}/thumbnail")) == pytest.approx(wanted, abs=1)
    new = wire.NewTrial(source=Source(upload=upload.id), models=[str(allowed / "x2.safetensors")], side=32)
    results = client.trial(new).results
    for path in (f"/api/uploads/{upload.id}/preview", *(result.url or "" for result in results)):
        image = Image.open(io.BytesIO(server.fetched(path)))
        assert image.info["icc_profile"] == profile and image.mode == "RGB"  # browsers do the rest
        assert np.asarray(image)[16, 16] == pytest.approx(np.array(GREEN) / 257, abs=1)


def test_the_thumbnail_of_an_hdr_png_is_toned(server: Server, client: Client, tmp_path: Path) -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (300, 300), tuple(value >> 8 for value in PATCH)).save(buffer, "PNG")
    plain = buffer.getvalue()
    chunk = b"cICP" + bytes((9, 16, 0, 1))
    source = tmp_path / "hdr.png"
    source.write_bytes(plain[:33] + struct.pack(">I", 4) + chunk + struct.pack(">I", zlib.crc32(chunk)) + plain[33:])
    wanted = to_srgb(np.array([[value >> 8 for value in PATCH]], np.float32) / 255, Colours(9, 16))[0] * 255
    upload = client.upload(source)
    assert middle_of_picture(server.fetched(f"/api/uploads/{upload.id}/thumbnail")) == pytest.approx(wanted, abs=1)
    assert server.fetched(f"/api/uploads/{upload.id}/preview") == source.read_bytes()  # browsers know the chunk
