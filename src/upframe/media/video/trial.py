"""Try a plan before the first frame: open the encoder, and write a header and the first packets of all tracks into memory."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator, Mapping
from dataclasses import replace
from fractions import Fraction
from typing import Any

import av
import av.error

from upframe.errors import InputError, OptionError, UsageError
from upframe.media.ledger import Entry
from upframe.media.video.account import track_name
from upframe.media.video.attached import read_attached
from upframe.media.video.codecs import (
    CONTAINERS,
    Container,
    encodable_formats,
    encoder_options,
    open_encoder,
    quiet_encoders,
    taken_format,
)
from upframe.media.video.container import add_routes, is_attached, open_output
from upframe.media.video.hardware import ENCODERS, HARDWARE, no_chip
from upframe.media.video.info import StreamInfo, VideoInfo, open_video, plain
from upframe.media.video.sound import sound_ways
from upframe.media.video.tracks import Route, Span
from upframe.media.video.written import Carried, VideoPlan

_TRIED_SIZE = (144, 256)  # encoders of GPUs refuse pictures that are much smaller
_EVERYTHING = Span(None, None, 0, Fraction(0))
_TRIED_PACKETS = 200
"""Packets of the source that are tried in the output."""


def encoder_fault(name: str) -> str | None:
    """The reason why the encoder of a codec of `ENCODERS` does not open here with its defaults; None if it does."""
    codec = ENCODERS[name]
    quiet_encoders()
    try:
        context: Any = av.CodecContext.create(codec.encoder, "w")
        context.height, context.width = _TRIED_SIZE
        context.pix_fmt = taken_format(codec, encodable_formats(codec)[0])
        context.time_base, context.framerate = Fraction(1, 25), Fraction(25)
        context.options = encoder_options(codec, crf=None, preset=None, extra={}, hdr10=None)
        context.open()
    except (av.error.FFmpegError, ValueError) as error:
        return plain(error)
    return None


def try_encoder(plan: VideoPlan, typed: Mapping[str, str]) -> None:
    """Open the encoder with all its options.

    Raises:
        UsageError: with the encoder's own message, or the option that it does not know.
    """
    codec = ENCODERS[plan.codec]
    quiet_encoders()
    context: Any = av.CodecContext.create(codec.encoder, "w")
    context.height, context.width = plan.coded_size
    context.pix_fmt, context.time_base, context.framerate = taken_format(codec, plan.pix_fmt), plan.time_base, plan.rate
    context.options = dict(plan.options)
    try:
        context.open()
    except (av.error.FFmpegError, ValueError) as error:
        given = ", ".join(f"{k}={v}" for k, v in typed.items())
        size = f"{plan.coded_size[1]}x{plan.coded_size[0]} {plan.pix_fmt}"
        if plan.codec in HARDWARE and not typed:
            raise no_chip(codec, f"its device cannot be opened ({plain(error)})") from error
        happened = f"the encoder cannot be opened for {size} ({plain(error)})"
        raise OptionError("video.codec", plan.codec, happened, f"check `video.encoder={given}`" if given else "") from error
    unknown = sorted(set(context.options) & set(typed))
    if unknown:
        raise OptionError("video.encoder", ", ".join(unknown), f"{codec.label} has no such option", "see its documentation")


def fit_tracks(plan: VideoPlan, info: VideoInfo) -> tuple[VideoPlan, dict[str, Entry]]:
    """Find a way for each track into the container, by writing the beginning of the output into memory.

    Returns:
        The plan, with sound in a form that the container holds and without covers and attachments that it refuses; and new
        entries of the ledger by the name of their track.

    Raises:
        UsageError: if the container cannot hold a track; the message names it.
    """
    held = CONTAINERS[plan.container]
    changed: dict[str, Entry] = {}
    refused = _refusal(plan, info)
    if refused is None:
        return plan, changed
    kept = []
    for track in plan.tracks:  # which one is it?
        reason = _refusal(replace(plan, tracks=(track,)), info)
        if reason is None:
            kept.append(track)
            continue
        stream = next(s for s in info.streams if s.index == track.index)
        way, entry = _other_way(plan, info, track, stream, held, reason)
        changed[entry.name] = entry
        kept += [way] if way is not None else []
    plan = replace(plan, tracks=tuple(kept))
    refused = _refusal(plan, info)
    if refused is not None:
        advice = "" if held.name == "mkv" else "use mkv"
        raise UsageError(info.path, f"{held.label} cannot hold its tracks together ({plain(refused)})", advice) from refused
    return plan, changed


def _other_way(
    plan: VideoPlan, info: VideoInfo, track: Carried, stream: StreamInfo, held: Container, reason: Exception
) -> tuple[Carried | None, Entry]:
    """Another way for a track that cannot be copied as it is; None drops it."""
    name = track_name(stream.index, stream.kind, stream.codec)
    what = f"its {track.kind} (stream {track.index}, {stream.codec})"
    if track.kind in ("cover", "attachment"):
        return None, Entry("track", name, "lost", f"{held.label} cannot hold {what}: {plain(reason)}", "track-dropped")
    if track.kind == "audio":
        with open_video(info.path) as source:
            template: Any = source.streams[track.index]
            if template.codec_context is None:
                raise InputError(info.path, f"{what} cannot be read", "use `video.audio=False`") from reason
            if not template.codec_context.rate:  # TrueHD in transport streams announces AC-3 that may be missing
                return None, Entry("track", name, "changed", f"{what} has no packets at the beginning")
            ways = list(sound_ways(track.index, template, held))
        for way, is_lossless in ways:
            if _refusal(replace(plan, tracks=(way,)), info) is None:
                return way, _sound_entry(name, what, way, is_lossless=is_lossless)
    without = "`video.audio=False`" if track.kind == "audio" else "`video.subtitles=False`"
    advice = f"use {'' if held.name == 'mkv' else 'mkv, or '}{without}"
    raise UsageError(info.path, f"{held.label} cannot hold {what}: {plain(reason)}", advice) from reason


def _sound_entry(name: str, what: str, way: Carried, *, is_lossless: bool) -> Entry:
    if way.convert is None:
        return Entry("track", name, "carried")
    if is_lossless:
        return Entry("track", name, "changed", f"{what} becomes {way.convert}, sample by sample")
    return Entry("track", name, "changed", f"{what} becomes {way.convert}", "audio-converted")


def _refusal(plan: VideoPlan, info: VideoInfo) -> Exception | None:
    """The reason why the muxer refuses the tracks of the plan beside the video; None if it accepts them."""
    attached = read_attached(info.path, [track.index for track in plan.tracks if is_attached(track, plan)])
    with open_video(info.path) if plan.tracks else contextlib.nullcontext() as source, _scratch(plan) as out:
        try:
            routes = {} if source is None else add_routes(out, source, plan, _EVERYTHING, attached)
            out.start_encoding()
            return _refused_packets(out, source, routes)
        except (av.error.FFmpegError, ValueError) as error:
            return error


def _refused_packets(out: Any, source: Any, routes: Mapping[int, Route]) -> Exception | None:
    """Mux the first packets; the error of a track of which not one is accepted."""
    if not routes:
        return None
    packets = source.demux([route.template for route in routes.values()])
    for _, packet in zip(range(_TRIED_PACKETS), packets, strict=False):
        if packet.size:
            route = routes[packet.stream_index]
            for _, made in route.take(packet):
                route.mux(out, made)
    for route in routes.values():
        if route.refused and not route.expected.times:
            return ValueError("it refuses the packets")
    return None


@contextlib.contextmanager
def _scratch(plan: VideoPlan) -> Iterator[Any]:
    """The real muxer with the real video stream, writing into memory."""
    out = open_output(io.BytesIO(), plan)
    codec = ENCODERS[plan.codec]
    # The header holds the encoder's own start of stream, so it has to be the encoder.
    stream = out.add_stream(codec.encoder, rate=plan.rate, options=dict(plan.options))
    open_encoder(
        stream,
        size=plan.coded_size,
        pix_fmt=taken_format(codec, plan.pix_fmt),
        time_base=plan.time_base,
        tags=plan.colour,
        sample_aspect=plan.sample_aspect,
    )
    try:
        yield out
    finally:
        with contextlib.suppress(av.error.FFmpegError, ValueError, OSError):
            out.close()
