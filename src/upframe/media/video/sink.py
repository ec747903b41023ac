"""VideoSink: encode pictures to a file with their exact timestamps; complete after a clean exit, else absent."""

from __future__ import annotations

import contextlib
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import av
import av.error
import numpy as np

from upframe.errors import OutputError, UpframeError, VerifyError
from upframe.files import atomic_path
from upframe.media.names import bitstream_of
from upframe.media.video.captions import CODECS_WITH_CAPTIONS, captioned
from upframe.media.video.codecs import encodable_formats, format_layout, open_encoder, quiet_encoders, taken_format
from upframe.media.video.colour import Plane, Rgb, from_rgb
from upframe.media.video.frames import frame_of
from upframe.media.video.hardware import ENCODERS
from upframe.media.video.info import plain
from upframe.media.video.written import VideoPlan

_DTS_LEAD = 1 << 24  # more than the frames of any segment
WRITE_ADVICE = "free some space, or write to another disk"


class VideoSink:
    """Encodes pictures into a work file: video only, in a container that keeps any clock (`VideoPlan.work_muxer`).

    `mux.join` makes the output from one or more work files. The bits depend on the plan, the pictures and their timestamps
    alone.

    Args:
        path: The file to write; an existing file is replaced. Until the end, a hidden part file beside it holds the data.
        plan: Plan of the output.
        frames: Expected number of pictures; None does not check.

    Raises:
        OutputError: if the file cannot be written or the encoder fails.
        VerifyError: if another number of pictures than `frames` was written.
    """

    def __init__(self, path: Path, plan: VideoPlan, *, frames: int | None = None) -> None:
        self.path = Path(path)
        self.plan = plan
        self.written = 0
        self._frames = frames
        self._atomic = atomic_path(self.path)
        self._part: Path | None = None
        self._container: Any = None
        self._stream: Any = None
        self._last_pts: int | None = None
        self._first_pts: int | None = None
        self._muxed = 0
        self._captions: dict[int, bytes] = {}
        """Of the pictures that are in the encoder, by timestamp."""
        layout = format_layout(plan.pix_fmt)
        if layout is None or plan.pix_fmt not in encodable_formats(ENCODERS[plan.codec]):
            raise ValueError(f"{plan.codec} does not take {plan.pix_fmt}")
        self._layout = layout
        self._taken = taken_format(ENCODERS[plan.codec], plan.pix_fmt)

    def __enter__(self) -> Self:
        plan = self.plan
        quiet_encoders()
        options = {"fflags": "+bitexact", "flush_packets": "1", "avoid_negative_ts": "disabled"}
        if plan.work_muxer == "mov":
            options["movie_timescale"] = str(plan.time_base.denominator)  # otherwise its edit list rounds to milliseconds
        self._part = self._atomic.__enter__()
        try:
            self._container = av.open(f"file:{self._part}", "w", format=plan.work_muxer, options=options)
            self._stream = self._container.add_stream(ENCODERS[plan.codec].encoder, rate=plan.rate, options=dict(plan.options))
            open_encoder(
                self._stream,
                size=plan.coded_size,
                pix_fmt=self._taken,
                time_base=plan.time_base,
                tags=plan.colour,
                sample_aspect=plan.sample_aspect,
            )
            self._container.start_encoding()
        except BaseException as error:
            self._abandon(error)
            if isinstance(error, av.error.FFmpegError | ValueError | OSError):
                raise self._failure(error) from error
            raise
        return self

    def write(self, pixels: Rgb, *, pts: int, captions: bytes = b"") -> None:
        """Encode one picture.

        Args:
            pixels: (H, W, 3) uint16 of the plan's size, full range.
            pts: Its timestamp in ticks of the plan's time base, later than the previous one.
            captions: Closed captions of the picture (`VideoFrame.captions`); codecs that cannot hold them drop them.

        Raises:
            ValueError: if an argument does not fit.
        """
        if self._container is None:
            raise ValueError("the sink is not open; use it as a context manager")
        if pixels.shape != (*self.plan.size, 3) or pixels.dtype != np.uint16:
            raise ValueError(f"pixels are {pixels.shape} {pixels.dtype}, the plan says {self.plan.size} of uint16")
        if self._last_pts is not None and pts <= self._last_pts:
            raise ValueError(f"time {pts} does not come after {self._last_pts}")
        planes = from_rgb(fitted(pixels, self.plan.coded_size), self._layout, self.plan.coding)
        frame = self._frame(planes, pts + self.plan.work_origin)
        if captions and bitstream_of(self.plan.codec) in CODECS_WITH_CAPTIONS:
            self._captions[pts + self.plan.work_origin] = captions
        try:
            self._mux(self._stream.encode(frame))
        except (av.error.FFmpegError, OSError) as error:
            raise self._failure(error) from error
        self._last_pts = pts
        self.written += 1

    def _mux(self, packets: list[Any]) -> None:
        """Write packets in coding order. If timestamps vary much, encoders make decoding times that muxers refuse. So decoding
        times of a work file only keep this order, and `join` makes the real ones."""
        for packet in packets:
            captions = self._captions.pop(packet.pts, b"")
            packet = captioned(packet, captions, bitstream_of(self.plan.codec)) if captions else packet
            if self.plan.work_muxer == "nut":
                self._first_pts = packet.pts if self._first_pts is None else self._first_pts
                packet.dts = self._first_pts - _DTS_LEAD + self._muxed
            self._container.mux_one(packet)
            self._muxed += 1

    def _frame(self, planes: list[Plane], pts: int) -> av.VideoFrame:
        if self.plan.pix_fmt == "bgr0":
            frame = frame_of(planes, "gbrp", pts=pts, time_base=self.plan.time_base).reformat(format="bgr0")
            frame.pts, frame.time_base = pts, self.plan.time_base
        else:
            frame = frame_of(planes, self.plan.pix_fmt, pts=pts, time_base=self.plan.time_base)
        if self._taken != self.plan.pix_fmt:
            frame = frame.reformat(format=self._taken)  # the same samples in another order
            frame.pts, frame.time_base = pts, self.plan.time_base
        tags = self.plan.colour  # x265 and SVT-AV1 read it from the frame, too
        frame.color_primaries, frame.color_trc = tags.primaries, tags.transfer
        frame.colorspace, frame.color_range = tags.matrix, tags.range
        return frame

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if error is not None:
            self._abandon(error)
            return
        try:
            self._finish()
        except BaseException as failure:
            self._abandon(failure)
            raise
        self._atomic.__exit__(None, None, None)

    def _finish(self) -> None:
        if self._frames is not None and self.written != self._frames:
            raise VerifyError(self.path, f"{self.written} of {self._frames} frames were written", "run it again")
        try:
            self._mux(self._stream.encode(None))
            self._container.close()
            self._container = None
        except (av.error.FFmpegError, OSError) as error:
            raise self._failure(error) from error

    def _failure(self, error: Exception) -> UpframeError:
        return write_error(self.path, error)

    def _abandon(self, error: BaseException) -> None:
        if self._container is not None:
            close_quietly(self._container)
            self._container = None
        self._atomic.__exit__(type(error), error, error.__traceback__)


def fitted(pixels: Rgb, size: tuple[int, int]) -> Rgb:
    """Repeat or drop the last row and column of `pixels` to reach `size`."""
    height, width = pixels.shape[:2]
    if (height, width) == size:
        return pixels
    pixels = pixels[: size[0], : size[1]]
    return np.pad(pixels, ((0, size[0] - pixels.shape[0]), (0, size[1] - pixels.shape[1]), (0, 0)), mode="edge")


def write_error(path: Path, error: Exception) -> UpframeError:
    """Make the error to raise for a failure while writing."""
    if isinstance(error, OSError) and error.errno is not None and 0 < error.errno < 200 and error.errno != 22:
        return OutputError(path, f"cannot be written ({plain(error)})", WRITE_ADVICE)
    return OutputError(path, f"encoding failed ({plain(error)})", "try another `video.codec` or container")


def close_quietly(container: Any) -> None:
    """Close an output and ignore errors at its end: an earlier error is the important one."""
    with contextlib.suppress(av.error.FFmpegError, ValueError, OSError):
        container.close()


def exact_ticks(seconds: Fraction, time_base: Fraction) -> int:
    """Convert `seconds` to ticks, rounded to the nearest."""
    return round(seconds / time_base)
