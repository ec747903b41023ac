"""Open an output container and add tracks to it."""

from __future__ import annotations

import io
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import av.error

from upframe.media.video.codecs import CONTAINERS
from upframe.media.video.frames import fraction
from upframe.media.video.tags import track_tags
from upframe.media.video.written import Carried, VideoPlan

_ASS_HEADER = (
    b"[Script Info]\nScriptType: v4.00+\n\n[V4+ Styles]\nFormat: Name, Fontname, Fontsize\nStyle: Default,Arial,16\n\n"
    b"[Events]\nFormat: Layer, Start, End, Style, Name, MarginL, MarginR, MarginV, Effect, Text\n"
)

"""FFmpeg's text encoders need such a header."""


def open_output(file: Path | io.BytesIO, plan: VideoPlan) -> Any:
    """Open the output's muxer, without tracks; its bytes depend only on the data muxed."""
    held = CONTAINERS[plan.container]
    options = {"fflags": "+bitexact", "avoid_negative_ts": "disabled"}
    if held.muxer in ("mp4", "mov"):
        # Edit lists are in the movie's clock: with its default of milliseconds, a first frame at 0.0333 s would move.
        options["movie_timescale"] = str(_movie_clock(plan.time_base))
        options["video_track_timescale"] = str(_movie_clock(plan.time_base))
        options["movflags"] = "+faststart+use_metadata_tags" if plan.has_key_tags else "+faststart"
    target = f"file:{file}" if isinstance(file, Path) else file
    out = av.open(target, "w", format=held.muxer, options=options)
    out.metadata.update(dict(plan.tags))
    return out


def _movie_clock(time_base: Fraction) -> int:
    """Choose ticks per second that hold the video's times exactly, and those of audio to a tenth of a millisecond."""
    clock = time_base.denominator
    while clock < 10000:
        clock *= 2
    return clock


def add_track(out: Any, source: Any, track: Carried, plan: VideoPlan) -> Any:
    """Add a stream to `out` for a stream of the source.

    Raises:
        ValueError, FFmpegError: if the container cannot hold it.
    """
    template = source.streams[track.index]
    if track.convert is not None:
        stream = out.add_stream(track.convert)
        stream.codec_context.subtitle_header = _ASS_HEADER
        stream.codec_context.time_base = Fraction(1, 1000)
        stream.time_base = Fraction(1, 1000)
    else:
        stream = out.add_stream_from_template(template, opaque=True if template.codec_context is not None else None)
        stream.time_base = fraction(template.time_base) or Fraction(1, 1000)
    stream.disposition = int(template.disposition)
    tags = tuple(template.metadata.items())
    if track.kind in ("audio", "subtitle"):
        tags = track_tags(tags, CONTAINERS[plan.container], of=track.kind, is_copied=True).tags
    stream.metadata.update({key: value for key, value in tags if key.lower() not in _FILE_FACTS})
    return stream


_FILE_FACTS = frozenset(("duration", "encoder"))
"""Tags of covers and attachments that each writer makes."""
