"""Videos for people to look at: H.264 in MP4, which browsers play, single frames, and small crops for trials.

Never a result: results are verified. Times are those of the file, so that two views of one video play in step.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

from upframe.errors import Cancelled, InputError
from upframe.files import atomic_path
from upframe.media.display import Picture
from upframe.media.video.colour import to_rgb
from upframe.media.video.decoding import Decoding
from upframe.media.video.frames import fraction, planes_of
from upframe.media.video.info import VideoInfo, choose_stream, coding_of_frame, open_video, probe_video
from upframe.media.video.look import Look, colours_of

MOST_SIDE = 4096
"""Of a view: the largest that decoders in browsers commonly take."""
_CRF, _PRESET = "18", "veryfast"
_AUDIO_RATE = 48_000
Box = tuple[int, int, int, int]
"""Top, left, height and width of a crop, in pixels of the decoded picture."""


def plays_as_it_is(path: Path) -> bool:
    """Whether every browser plays the file: H.264 with 8 bits and 4:2:0 in MP4, no HDR, with AAC, MP3 or no sound.

    Raises:
        InputError: if it is no video.
    """
    info = probe_video(path)
    sounds = {stream.codec for stream in info.of_kind("audio")}
    return (
        "mp4" in info.format.split(",")
        and info.codec == "h264"
        and info.pix_fmt in ("yuv420p", "yuvj420p")
        and colours_of(info).is_plain
        and max(info.size) <= MOST_SIDE
        and sounds <= {"aac", "mp3"}
    )


def frame_at(path: Path, time: Fraction | None = None) -> Picture:
    """The frame that is shown at a time after the first frame, upright, with 16 bits.

    Raises:
        InputError: if there is none.
    """
    info = probe_video(path)
    with open_video(path) as container:
        stream = choose_stream(container, path, info.stream)
        last: av.VideoFrame | None = None
        for frame in _frames(container, stream, info, start=time):
            if last is not None and time is not None and _time(frame, stream, info) > time:
                break
            last = frame
            if time is None:
                break
        if last is None:
            raise InputError(path, "has no frame there", "choose another time")
        planes, layout = planes_of(last)
        rgb = to_rgb(planes, layout, coding_of_frame(info, last))
    top, _, left, _ = info.crop
    rgb = rgb[top : top + info.size[0], left : left + info.size[1]]
    return Picture(np.ascontiguousarray(np.rot90(rgb, (info.rotation // 90) % 4)), colours=colours_of(info))


def write_browser_video(
    path: Path, out: Path, *, size: tuple[int, int] | None = None, on_progress: Callable[[float], None] | None = None,
    cancel: threading.Event | None = None,
) -> None:  # fmt: skip
    """Write a video as MP4 with H.264 and AAC; HDR and wide colours as an ordinary screen shows them.

    Args:
        size: (height, width) to resample to; None keeps the size as far as browsers take it.
        on_progress: Called with the share that is done.

    Raises:
        InputError: if it cannot be read.
        Cancelled: when `cancel` was set.
    """
    info = probe_video(path)
    with contextlib.ExitStack() as stack:
        source, part = stack.enter_context(open_video(path)), stack.enter_context(atomic_path(out))
        made: Any = stack.enter_context(av.open(str(part), "w", format="mp4", options={"movflags": "+faststart"}))
        look = stack.enter_context(Look(info))
        stream = choose_stream(source, path, info.stream)
        video = _h264(made, stream, info, size or _fitting(info.size), look)
        sound = next((one for one in source.streams.audio), None)
        audio = None if sound is None else made.add_stream("aac", rate=_AUDIO_RATE, layout="stereo")
        length = float(info.duration_estimate or 0) or None
        base = fraction(stream.time_base) or Fraction(1, 90_000)
        for frame in _frames(source, stream, info, audio=sound):
            if cancel is not None and cancel.is_set():
                raise Cancelled(path, "stopped on request")
            if isinstance(frame, av.AudioFrame):
                assert audio is not None
                _put(made, audio, frame)
                continue
            if on_progress is not None and length:
                on_progress(min(max(float(_time(frame, stream, info)) / length, 0), 1))
            fitted = look.of(frame).reformat(width=video.width, height=video.height, format="yuv420p", interpolation="BICUBIC")
            fitted.pts, fitted.time_base = frame.pts, base
            fitted.pict_type = av.video.frame.PictureType.NONE
            _put(made, video, fitted)
        for track in (video, audio):
            if track is not None:
                _put(made, track, None)


def write_crop(path: Path, out: Path, *, box: Box, start: Fraction, end: Fraction) -> None:
    """Write a small part of a video without loss (FFV1 in Matroska), for trials.

    Raises:
        InputError: if no frame lies there.
    """
    info = probe_video(path)
    top, left, height, width = box
    with open_video(path) as source, atomic_path(out) as part, av.open(str(part), "w", format="matroska") as made:
        stream = choose_stream(source, path, info.stream)
        graph, track = None, None
        base = fraction(stream.time_base) or Fraction(1, 90_000)
        for frame in _frames(source, stream, info, start=start):
            if not start <= _time(frame, stream, info) < end:
                continue
            if graph is None:
                graph = _crop_graph(frame, base, f"{width}:{height}:{left}:{top}:exact=1")
                track = made.add_stream("ffv1", rate=info.rate)
                track.width, track.height, track.pix_fmt = width, height, frame.format.name
                track.codec_context.time_base = base
                for name in ("color_range", "colorspace", "color_primaries", "color_trc"):
                    setattr(track.codec_context, name, getattr(frame, name))
            graph.push(frame)
            cropped: Any = graph.pull()
            assert track is not None
            cropped.time_base = base
            cropped.pict_type = av.video.frame.PictureType.NONE
            _put(made, track, cropped)
        if track is None:
            raise InputError(path, "has no frame there", "choose another time")
        _put(made, track, None)


def even_box(info: VideoInfo, x: float, y: float, side: int) -> Box:
    """A crop around a spot, given as shares of the upright picture, on even pixels as chroma needs."""
    for _ in range((info.rotation // 90) % 4):  # the picture is turned counter-clockwise: the spot goes back clockwise
        x, y = 1 - y, x
    height, width = (min(side, full) // 2 * 2 or full for full in info.size)
    top = _even(y * info.size[0] - height / 2, info.size[0] - height)
    left = _even(x * info.size[1] - width / 2, info.size[1] - width)
    return top + info.crop[0], left + info.crop[2], height, width


def _even(place: float, most: int) -> int:
    return min(max(round(place), 0), most) // 2 * 2


def _crop_graph(frame: av.VideoFrame, base: Fraction, arguments: str) -> Any:
    graph: Any = av.filter.Graph()
    source = graph.add_buffer(width=frame.width, height=frame.height, format=frame.format.name, time_base=base)
    crop, sink = graph.add("crop", arguments), graph.add("buffersink")
    source.link_to(crop)
    crop.link_to(sink)
    graph.configure()
    return graph


def _h264(made: Any, stream: av.VideoStream, info: VideoInfo, size: tuple[int, int], look: Look) -> Any:
    video = made.add_stream("libx264", rate=info.rate, options={"crf": _CRF, "preset": _PRESET})
    video.height, video.width, video.pix_fmt = (*(max(side // 2 * 2, 2) for side in size), "yuv420p")
    video.codec_context.time_base = fraction(stream.time_base) or Fraction(1, 90_000)
    look.tag(video.codec_context)
    if info.matrix is not None:
        video.set_display_matrix(info.matrix)
    if info.sample_aspect is not None:
        video.codec_context.sample_aspect_ratio = info.sample_aspect
    return video


def _fitting(size: tuple[int, int]) -> tuple[int, int]:
    factor = min(MOST_SIDE / max(size), 1)
    return round(size[0] * factor), round(size[1] * factor)


def _put(made: Any, track: Any, frame: Any) -> None:
    for packet in track.encode(frame):
        made.mux(packet)


def _frames(
    container: av.container.InputContainer, stream: av.VideoStream, info: VideoInfo, *, start: Fraction | None = None,
    audio: Any = None,
) -> Iterator[Any]:  # fmt: skip
    """Frames with a time, in order; with `audio`, the frames of that track between them."""
    stream.codec_context.thread_type = "AUTO"
    if start:
        base = fraction(stream.time_base) or Fraction(1, 90_000)
        container.seek(int((start + info.start_time) / base), stream=stream)
    if audio is None:
        for picture in Decoding(container, stream, threads=0).pictures():
            if picture.frame.pts is not None:
                yield picture.frame
        return
    for packet in container.demux(stream, audio):
        try:
            for frame in packet.decode():
                if isinstance(frame, av.VideoFrame | av.AudioFrame) and frame.pts is not None:
                    yield frame
        except av.error.FFmpegError:
            continue  # a damaged packet: a view goes on with the next


def _time(frame: av.VideoFrame, stream: av.VideoStream, info: VideoInfo) -> Fraction:
    """Seconds after the first frame. Frames of a bare decoder state no time base: theirs is the stream's."""
    base = fraction(stream.time_base) or Fraction(1, 90_000)
    return (frame.pts or 0) * base - info.start_time
