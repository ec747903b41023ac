"""Compress and decompress pictures in memory: the damage of JPEG files and low-bit-rate videos, for training."""

from __future__ import annotations

import io
import platform
from fractions import Fraction

import av
import numpy as np
from av.video.stream import VideoStream
from numpy.typing import NDArray
from PIL import Image

from upframe.errors import UsageError, VerifyError

RGB8 = NDArray[np.uint8]


def jpeg_compressed(pixels: RGB8, *, quality: int) -> RGB8:
    """Encode and decode `pixels` as JPEG, with chroma at half resolution, as in nearly all JPEG files.

    Args:
        pixels: (H, W, 3) RGB.
        quality: 1 to 95, on the scale of the IJG library.

    Returns:
        A new array (H, W, 3).
    """
    if not 1 <= quality <= 95:
        raise ValueError(f"JPEG quality {quality} is not within 1 to 95")
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=quality, subsampling="4:2:0")
    with Image.open(file, formats=["JPEG"]) as image:
        return np.array(image)


def video_compressed(frames: RGB8, *, encoder: str, bit_rate: int, frame_rate: int = 1) -> RGB8:
    """Encode and decode `frames` as a video: real motion compensation, block edges and ringing.

    Args:
        frames: (T, H, W, 3) RGB, any size; odd sides are extended by a pixel for the codec and cropped afterwards.
        encoder: FFmpeg's name of an encoder or a format that MP4 holds: "libx264", "mpeg4", or "h264" for FFmpeg's first
            choice of H.264 encoders.
        bit_rate: Target of the video, in bits per second.
        frame_rate: Frames per second; each frame gets about bit_rate / frame_rate bits.

    Returns:
        A new array (T, H, W, 3). The same input gives the same bits on the same machine.

    Raises:
        UsageError: if this build of FFmpeg has no such encoder.
        VerifyError: if the decoder did not return every frame.
    """
    coded = encoded_mp4(frames, encoder=encoder, bit_rate=bit_rate, frame_rate=frame_rate)
    with av.open(io.BytesIO(coded), "r", format="mp4") as file:
        file.streams.video[0].codec_context.thread_count = 1
        decoded = [np.asarray(frame.to_ndarray(format="rgb24"), np.uint8) for frame in file.decode(video=0)]
    if len(decoded) != len(frames):
        raise VerifyError(f"{encoder} at {bit_rate} bit/s", f"returned {len(decoded)} of {len(frames)} frames")
    height, width = frames.shape[1:3]
    return np.stack(decoded)[:, :height, :width]


def encoded_mp4(frames: RGB8, *, encoder: str, bit_rate: int, frame_rate: int = 1) -> bytes:
    """The MP4 file that `video_compressed` decodes: one stream of 4:2:0 pictures at an average bit rate."""
    if frames.ndim != 4 or frames.shape[3] != 3 or frames.dtype != np.uint8 or not frames.size:
        raise ValueError(f"frames must be (T, H, W, 3) uint8, not {frames.shape} {frames.dtype}")
    height, width = frames.shape[1:3]
    if height % 2 or width % 2:
        frames = np.pad(frames, ((0, 0), (0, height % 2), (0, width % 2), (0, 0)), mode="edge")
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as container:
        stream = _add_stream(container, encoder, frame_rate)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        stream.bit_rate = bit_rate
        stream.codec_context.thread_count = 1  # the bits of x264 depend on the number of threads
        for i, pixels in enumerate(np.ascontiguousarray(frames)):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts, frame.time_base = i, Fraction(1, frame_rate)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return file.getvalue()


def _add_stream(container: av.container.OutputContainer, encoder: str, frame_rate: int) -> VideoStream:
    try:
        library = av.Codec(encoder, "w").name
    except av.codec.codec.UnknownCodecError as error:
        raise UsageError(
            f"encoder {encoder}", "this build of FFmpeg has no such encoder", "install PyAV's own wheel"
        ) from error
    # x264's AVX-512 code gives different bits from run to run, even on one thread (measured with PyAV 18.1: one run in three to
    # one in a hundred, by size; with the older instructions never, at the same speed). Training samples must be reproducible.
    is_x86 = platform.machine().lower() in ("x86_64", "amd64")
    options = {"x264-params": "asm=SSE4.2"} if library == "libx264" and is_x86 else {}
    stream = container.add_stream(encoder, rate=frame_rate, options=options)
    assert isinstance(stream, VideoStream)
    return stream
