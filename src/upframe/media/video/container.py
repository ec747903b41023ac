"""Open an output container and add tracks to it."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import av.error

from upframe.media.video.attached import Attached
from upframe.media.video.codecs import CONTAINERS
from upframe.media.video.frames import fraction
from upframe.media.video.riff_sound import name_riff_tracks, stand_in
from upframe.media.video.sound import sound_stream
from upframe.media.video.tags import track_tags
from upframe.media.video.tracks import Route, Span, route_of
from upframe.media.video.written import Carried, VideoPlan

_ASS_HEADER = b"""[Script Info]
ScriptType: v4.00+
PlayResX: 384
PlayResY: 288
ScaledBorderAndShadow: yes

[V4+ Styles]
Format: Name, Fontname, Fontsize, PrimaryColour, SecondaryColour, OutlineColour, BackColour, Bold, Italic, Underline, \
StrikeOut, ScaleX, ScaleY, Spacing, Angle, BorderStyle, Outline, Shadow, Alignment, MarginL, MarginR, MarginV, Encoding
Style: Default,Arial,16,&Hffffff,&Hffffff,&H0,&H0,0,0,0,0,100,100,0,0,1,1,0,2,10,10,10,1

[Events]
Format: Layer, Start, End, Style, Name, MarginL, MarginR, MarginV, Effect, Text
"""
"""Styles of subtitles whose decoder states none: white with a black outline. A style that names no colours is black."""


def open_output(file: Path | io.BytesIO, plan: VideoPlan) -> Any:
    """Open the output's muxer, without tracks; its bytes depend only on the data muxed."""
    held = CONTAINERS[plan.container]
    options = {"fflags": "+bitexact", "avoid_negative_ts": "disabled"}
    if held.muxer in ("mp4", "mov"):
        # Edit lists are in the movie's clock: with its default of milliseconds, a first frame at 0.0333 s would move.
        options["movie_timescale"] = str(movie_clock(plan.time_base))
        options["video_track_timescale"] = str(movie_clock(plan.time_base))
        options["movflags"] = "+faststart+use_metadata_tags" if plan.has_key_tags else "+faststart"
    target = f"file:{file}" if isinstance(file, Path) else file
    out = av.open(target, "w", format=held.muxer, options=options)
    out.metadata.update(dict(plan.tags))
    return out


def movie_clock(time_base: Fraction) -> int:
    """Choose ticks per second that hold the video's times exactly, and those of audio to a tenth of a millisecond."""
    clock = time_base.denominator
    while clock < 10000:
        clock *= 2
    return clock


def add_track(out: Any, template: Any, track: Carried, plan: VideoPlan, attached: Attached | None) -> Any:
    """Add a stream to `out` for a stream of the source.

    Args:
        template: Stream of the source.
        attached: Content of a cover or an attachment.

    Raises:
        ValueError, FFmpegError: if the container cannot hold it.
    """
    if is_attached(track, plan):
        return _attach(out, template, attached)
    if track.wave:
        with stand_in(track.wave) as stood_in:
            stream = out.add_stream_from_template(stood_in.streams[0], opaque=True)
    elif track.convert is None:
        stream = out.add_stream_from_template(template, opaque=True)
    elif track.kind == "subtitle":
        stream = _text_stream(out, template, track.convert)
    else:
        stream = sound_stream(out, template, track.convert)
    if track.convert is None:
        stream.time_base = fraction(template.time_base) or Fraction(1, 1000)
    stream.disposition = int(template.disposition)
    tags = tuple(template.metadata.items())
    if track.kind in ("audio", "subtitle"):
        tags = track_tags(tags, CONTAINERS[plan.container], of=track.kind, is_copied=track.convert is None).tags
    stream.metadata.update({key: value for key, value in tags if key.lower() not in _FILE_FACTS})
    return stream


def _attach(out: Any, template: Any, attached: Attached | None) -> Any:
    if attached is None:
        raise ValueError("it has no content")
    stream = out.add_attachment(attached.name, attached.mimetype, attached.data)
    known = ("filename", "mimetype", *_FILE_FACTS)
    stream.metadata.update({key: value for key, value in template.metadata.items() if key.lower() not in known})
    return stream


def _text_stream(out: Any, template: Any, encoder: str) -> Any:
    stream = out.add_stream(encoder)
    with contextlib.suppress(av.error.FFmpegError, ValueError):
        template.codec_context.open(strict=False)
    stream.codec_context.subtitle_header = template.codec_context.subtitle_header or _ASS_HEADER
    stream.codec_context.time_base = stream.time_base = Fraction(1, 1000)
    return stream


_FILE_FACTS = frozenset(("duration", "encoder"))
"""Tags of covers and attachments that each writer makes."""


def add_routes(out: Any, source: Any, plan: VideoPlan, span: Span, attached: Mapping[int, Attached]) -> dict[int, Route]:
    """Add all tracks of the plan to `out`.

    Returns:
        The route of each track that has packets, by the index in the source.

    Raises:
        ValueError, FFmpegError: if the container cannot hold one.
    """
    routes = {}
    for track in plan.tracks:
        template = source.streams[track.index]
        stream = add_track(out, template, track, plan, attached.get(track.index))
        if not is_attached(track, plan):
            made = stream if track.convert is not None else template
            codec = made.codec_context.name if made.codec_context is not None else ""
            routes[track.index] = route_of(track, stream, template, span, codec)
    return routes


def name_tracks(file: Path, plan: VideoPlan) -> None:
    """Name the codecs of a finished file that its muxer could not name."""
    waves = [track.wave for track in plan.tracks if track.wave]
    if waves:
        with file.open("r+b") as written:
            name_riff_tracks(written, waves)


def is_attached(track: Carried, plan: VideoPlan) -> bool:
    """Whether a track is written as an attachment, which has no packets."""
    return track.kind in ("cover", "attachment") and CONTAINERS[plan.container].holds_attachments
