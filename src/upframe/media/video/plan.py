"""`plan_video` plans how a video is written and what it loses, and tries the encoder, before the first frame."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Mapping
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import av.error

from upframe.errors import Notice, OptionError, UsageError, check_choice
from upframe.media.names import ODD_POLICIES, Odd
from upframe.media.video.codecs import (
    CODECS,
    CONTAINERS,
    MP4_TAGS,
    STRUCTURAL_TAGS,
    Container,
    VideoCodec,
    closest_format,
    codec_named,
    container_named,
    encodable_formats,
    encoder_options,
    format_layout,
    open_encoder,
    quiet_encoders,
)
from upframe.media.video.colour import Coding
from upframe.media.video.info import (
    UNSPECIFIED,
    ColourTags,
    StreamInfo,
    VideoInfo,
    default_matrix,
    open_video,
    plain,
)
from upframe.media.video.written import Carried, VideoPlan

_TEXT = ("subrip", "srt", "ass", "ssa", "mov_text", "webvtt", "text")
_MAX_RATE = 240  # SVT-AV1 refuses more; a file without a rate may say 1000 or 90000


def plan_video(
    info: VideoInfo,
    *,
    container: str | None = None,
    size: tuple[int, int] | None = None,
    codec: str | None = None,
    crf: int | None = None,
    preset: str | None = None,
    pix_fmt: str | None = None,
    options: Mapping[str, str] | None = None,
    odd: Odd = "pad",
    audio: bool = True,
    subs: bool = True,
) -> VideoPlan:
    """Plan how a video is written, and try it: open the encoder and make a header with all tracks.

    Args:
        container: Name or extension of the output; None keeps the input's, or takes Matroska if upframe cannot write that.
        size: (height, width) of the output pictures; None is the input's.
        codec: A name of `CODECS` or one of their common aliases; None keeps the input's if possible, else takes H.264.
        crf: Constant quality, lower is better; None is the codec's default.
        preset: The encoder's preset, which trades speed for size.
        pix_fmt: FFmpeg's name of the pixel format; None is the format nearest to the input's.
        options: Further options of the encoder, as pairs of key and value.
        odd: How to handle odd sizes if chroma needs even ones: repeat the last row or column, drop it, or use 4:4:4.
        audio: Whether audio is copied.
        subs: Whether subtitles are copied.

    Raises:
        UsageError: for an unknown name, a track that the container cannot hold and that must not be lost (audio, bitmap
            subtitles), or an option that the encoder does not know.
    """
    notices: list[Notice] = []

    def lose(kind: str, text: str) -> None:
        notices.append(Notice(kind, str(info.path), text))

    held = _container(info, container, lose)
    chosen = _codec(info, held, codec)
    _check_speed_and_quality(chosen, crf, preset)
    check_choice("video.odd", odd, ODD_POLICIES)
    size = size or info.size
    form = _pixel_format(info, chosen, pix_fmt, size, odd)
    coded = _coded_size(form, size, odd, lose)
    coding, colour = _colour(info, chosen, form, coded)
    hdr10 = info.hdr10
    _note_losses(info, chosen, form, lose)
    if hdr10 is not None and not chosen.holds_hdr:
        hdr10 = None
    told = encoder_options(chosen, crf=crf, preset=preset, extra=options or {}, hdr10=hdr10)
    rate = info.rate if 1 <= info.rate <= _MAX_RATE else Fraction(25)
    plan = VideoPlan(
        container=held.name,
        codec=chosen.name,
        pix_fmt=form,
        size=size,
        coded_size=coded,
        coding=coding,
        colour=colour,
        sample_aspect=info.sample_aspect,
        rotation=info.rotation,
        hdr10=hdr10,
        time_base=info.time_base,
        rate=rate,
        options=tuple(sorted(told.items())),
        tracks=_tracks(info, held, audio, subs, lose),
        has_chapters=bool(info.chapters) and held.holds_chapters,
        tags=_tags(info.tags, held, lose),
        video_tags=_video_tags(info.video_tags, held),
    )
    _try_encoder(plan, options or {})
    plan = _try_header(plan, info, lose)
    return replace(plan, notices=tuple(notices))


def _container(info: VideoInfo, wanted: str | None, lose: Any) -> Container:
    if wanted is not None:
        found = container_named(wanted)
        if found is None:
            raise UsageError(wanted, "is not a video format that upframe can write", f"use one of {', '.join(CONTAINERS)}")
        return found
    suffix = info.path.suffix
    kept = container_named(suffix) if suffix else None
    if kept is not None:
        return kept
    lose("container-changed", f"upframe cannot write {suffix or info.format} and writes Matroska (.mkv)")
    return CONTAINERS["mkv"]


def _codec(info: VideoInfo, held: Container, wanted: str | None) -> VideoCodec:
    if wanted is None:
        own = codec_named(info.codec)
        return own if own is not None and own.name in held.codecs else CODECS[held.codecs[0]]
    found = codec_named(wanted)
    if found is None:
        raise OptionError("video.codec", wanted, "is not a codec that upframe can write", f"use one of {', '.join(CODECS)}")
    if found.name not in held.codecs:
        fitting = [c.name for c in CONTAINERS.values() if found.name in c.codecs]
        raise OptionError("video.codec", wanted, f"{held.label} cannot hold {found.label}", f"use {' or '.join(fitting)}")
    return found


def _check_speed_and_quality(codec: VideoCodec, crf: int | None, preset: str | None) -> None:
    if crf is not None and (codec.crf is None or not 0 <= crf <= codec.max_crf):
        what = (
            f"must be 0 to {codec.max_crf} with {codec.label}"
            if codec.crf is not None
            else f"is not supported by {codec.label}"
        )
        raise OptionError("video.crf", crf, what, "remove it to use the default")
    if preset is not None and preset not in codec.presets:
        known = f"use one of {', '.join(codec.presets)}" if codec.presets else f"remove it, since {codec.label} has no presets"
        raise OptionError("video.preset", preset, f"{codec.label} has no such preset", known)


def _pixel_format(info: VideoInfo, codec: VideoCodec, wanted: str | None, size: tuple[int, int], odd: Odd) -> str:
    if wanted is not None:
        allowed = encodable_formats(codec)
        asked = wanted if wanted in allowed else f"{wanted}le"
        if asked not in allowed:
            raise OptionError("video.pix_fmt", wanted, f"{codec.label} does not support it", f"use one of {', '.join(allowed)}")
        return asked
    form = closest_format(codec, chroma=info.chroma, bits=info.bits)
    if odd == "444" and _coded(form, size, "pad") != size:
        form = closest_format(codec, chroma="444", bits=info.bits)
        if _coded(form, size, "pad") != size:
            raise OptionError("video.odd", odd, f"{codec.label} has no 4:4:4", "use pad or crop, or another `video.codec`")
    return form


def _coded(pix_fmt: str, size: tuple[int, int], odd: Odd) -> tuple[int, int]:
    layout = format_layout(pix_fmt)
    assert layout is not None

    def fitted(side: int, step: int) -> int:
        return side // step * step if odd == "crop" and side >= step else -(-side // step) * step

    if layout.kind != "yuv":
        return size
    return fitted(size[0], layout.down), fitted(size[1], layout.across)


def _coded_size(pix_fmt: str, size: tuple[int, int], odd: Odd, lose: Any) -> tuple[int, int]:
    coded = _coded(pix_fmt, size, odd)
    if coded != size:
        what = "padded" if odd == "pad" else "cropped"
        lose("size-adjusted", f"{size[1]}x{size[0]} is {what} to {coded[1]}x{coded[0]}, since {pix_fmt} needs even sides")
    return coded


def _colour(info: VideoInfo, codec: VideoCodec, pix_fmt: str, coded: tuple[int, int]) -> tuple[Coding, ColourTags]:
    """Choose how pictures are coded and tagged.

    Untagged video stays untagged. Then players choose the matrix by the size, so an enlarged picture is coded for its new size.
    """
    layout = format_layout(pix_fmt)
    assert layout is not None
    tags, matrix, full = info.colour, info.coding.matrix, info.coding.is_full_range
    if layout.kind == "rgb":
        return Coding(1, True), replace(tags, matrix=0, range=2)
    if info.chroma == "rgb":
        matrix, full = (1, False) if layout.kind == "yuv" else (1, True)
        tags = replace(tags, matrix=1, range=2 if full else 1)
    elif tags.matrix in (0, UNSPECIFIED, 3):
        matrix = default_matrix(coded[0])
    if full and not codec.has_range:
        full, tags = False, replace(tags, range=1)
    if full and tags.range == 0 and layout.kind == "yuv":
        tags = replace(tags, range=2)  # JPEG's formats mean it by their name, which is not written
    if layout.kind == "gray" and codec.name != "ffv1":
        tags = replace(tags, range=2 if full else 1)
    return Coding(matrix, full, "left"), tags


def _note_losses(info: VideoInfo, codec: VideoCodec, pix_fmt: str, lose: Any) -> None:
    layout = format_layout(pix_fmt)
    assert layout is not None
    if layout.bits < info.bits:
        lose("depth-reduced", f"{codec.label} {pix_fmt} holds {layout.bits} bits per sample; the input has {info.bits}")
    coarser = {"422": layout.down == 2, "440": layout.across == 2}.get(info.chroma, layout.across * layout.down > 1)
    if layout.kind == "gray" and info.chroma != "gray":
        lose("chroma-reduced", f"{pix_fmt} holds no colour")
    elif info.chroma in ("422", "440", "444", "rgb") and coarser:
        lose("chroma-reduced", f"{codec.label} {pix_fmt} holds less colour resolution than {info.pix_fmt}")
    if info.hdr10 is not None and not codec.holds_hdr:
        lose("hdr-dropped", f"{codec.label} cannot hold its mastering display and light level")
    if info.has_dolby_vision:
        lose("dv-dropped", "its Dolby Vision layer is dropped")


# Tracks ---------------------------------------------------------------------------------------------------------------
def _tracks(info: VideoInfo, held: Container, audio: bool, subs: bool, lose: Any) -> tuple[Carried, ...]:
    carried: list[Carried] = []
    for stream in info.streams:
        if stream.kind == "audio":
            carried += [Carried(stream.index, "audio")] if audio else []
        elif stream.kind == "subtitle":
            carried += [_subtitle(stream, info.path, held, lose)] if subs else []
        elif stream.kind == "attachment" and held.holds_attachments:
            carried.append(Carried(stream.index, "attachment"))
        elif stream.kind == "cover" and held.holds_covers:
            carried.append(Carried(stream.index, "cover"))
        elif stream.kind == "data" and info.has_timecode and held.muxer in ("mp4", "mov"):
            pass  # its timecode is also a tag of the video, from which the track is made again
        else:
            name = {"cover": "cover picture", "video": "further video stream"}.get(stream.kind, f"{stream.kind} track")
            title = f" {stream.title}" if stream.title else ""
            lose("track-dropped", f"its {name}{title} (stream {stream.index}, {stream.codec}) is dropped")
    if info.chapters and not held.holds_chapters:
        lose("metadata-dropped", f"{held.label} cannot hold chapters")
    return tuple(carried)


def _subtitle(stream: StreamInfo, path: Path, held: Container, lose: Any) -> Carried:
    if stream.codec in held.text_kept:
        return Carried(stream.index, "subtitle")
    if stream.codec in _TEXT:
        lose("subtitle-converted", f"subtitles (stream {stream.index}, {stream.codec}) become {held.text} in {held.label}")
        return Carried(stream.index, "subtitle", held.text)
    if held.holds_bitmaps:
        return Carried(stream.index, "subtitle")
    raise UsageError(
        path,
        f"{held.label} cannot hold its bitmap subtitles (stream {stream.index}, {stream.codec})",
        "use mkv, or skip them with `video.subtitles=False`",
    )


def _tags(tags: tuple[tuple[str, str], ...], held: Container, lose: Any) -> tuple[tuple[str, str], ...]:
    kept = [(key, value) for key, value in tags if key.lower() not in STRUCTURAL_TAGS]
    if held.has_free_tags:
        return tuple(kept)
    lost = [key for key, _ in kept if key.lower() not in MP4_TAGS]
    if lost:
        lose("metadata-dropped", f"{held.label} has no place for its tags {', '.join(lost)[:120]}")
    # MP4 names its tags in lower case, Matroska often in upper case.
    return tuple((key.lower(), value) for key, value in kept if key.lower() in MP4_TAGS)


def _video_tags(tags: tuple[tuple[str, str], ...], held: Container) -> tuple[tuple[str, str], ...]:
    kept = [(k, v) for k, v in tags if k.lower() not in STRUCTURAL_TAGS or k in ("language", "handler_name")]
    if held.has_free_tags:
        return tuple((k, v) for k, v in kept if k != "handler_name")
    return tuple((k, v) for k, v in kept if k in ("language", "handler_name", "timecode", "creation_time"))


# Trying it ------------------------------------------------------------------------------------------------------------
def _try_encoder(plan: VideoPlan, typed: Mapping[str, str]) -> None:
    """Open the encoder with all its options.

    Raises:
        UsageError: with the encoder's own message, or the option that it does not know.
    """
    codec = CODECS[plan.codec]
    quiet_encoders()
    context: Any = av.CodecContext.create(codec.encoder, "w")
    context.height, context.width = plan.coded_size
    context.pix_fmt, context.time_base, context.framerate = plan.pix_fmt, plan.time_base, plan.rate
    context.options = dict(plan.options)
    try:
        context.open()
    except (av.error.FFmpegError, ValueError) as error:
        given = ", ".join(f"{k}={v}" for k, v in typed.items())
        size = f"{plan.coded_size[1]}x{plan.coded_size[0]} {plan.pix_fmt}"
        happened = f"the encoder cannot be opened for {size} ({plain(error)})"
        raise OptionError("video.codec", plan.codec, happened, f"check `video.encoder={given}`" if given else "") from error
    unknown = sorted(set(context.options) & set(typed))
    if unknown:
        raise OptionError("video.encoder", ", ".join(unknown), f"{codec.label} has no such option", "see its documentation")


def _try_header(plan: VideoPlan, info: VideoInfo, lose: Any) -> VideoPlan:
    """Write the output's header with all its tracks into memory.

    Returns:
        The plan, without the covers and attachments that the muxer refuses.

    Raises:
        UsageError: if the container cannot hold a track; the message names it.
    """
    held = CONTAINERS[plan.container]
    with open_video(info.path) if plan.tracks else contextlib.nullcontext() as source:
        refused = _refusal(plan, source, plan.tracks)
        if refused is None:
            return plan
        kept = []
        for track in plan.tracks:  # which one is it?
            reason = _refusal(plan, source, (track,))
            if reason is None:
                kept.append(track)
                continue
            codec = next(s.codec for s in info.streams if s.index == track.index)
            what = f"its {track.kind} (stream {track.index}, {codec})"
            if track.kind not in ("cover", "attachment"):
                without = "`video.audio=False`" if track.kind == "audio" else "`video.subtitles=False`"
                raise UsageError(info.path, f"{held.label} cannot hold {what}", f"use mkv, or {without}") from reason
            lose("track-dropped", f"{held.label} cannot hold {what}")
        plan = replace(plan, tracks=tuple(kept))
        refused = _refusal(plan, source, plan.tracks)
    if refused is not None:
        raise UsageError(info.path, f"{held.label} cannot hold its tracks together ({plain(refused)})", "use mkv") from refused
    return plan


def _refusal(plan: VideoPlan, source: Any, tracks: tuple[Carried, ...]) -> Exception | None:
    """The reason why the muxer refuses these tracks beside the video; None if it accepts them."""
    from upframe.media.video.container import add_track, open_output

    with _scratch(plan, open_output) as out:
        try:
            for track in tracks:
                add_track(out, source, track, plan)
            out.start_encoding()
        except (av.error.FFmpegError, ValueError) as error:
            return error
    return None


@contextlib.contextmanager
def _scratch(plan: VideoPlan, open_output: Any) -> Any:
    """The real muxer with the real video stream, writing into memory."""
    out = open_output(io.BytesIO(), plan)
    codec = CODECS[plan.codec]
    # The header holds the encoder's own start of stream, so it has to be the encoder.
    stream = out.add_stream(codec.encoder, rate=plan.rate, options=dict(plan.options))
    open_encoder(
        stream,
        size=plan.coded_size,
        pix_fmt=plan.pix_fmt,
        time_base=plan.time_base,
        tags=plan.colour,
        sample_aspect=plan.sample_aspect,
    )
    try:
        yield out
    finally:
        with contextlib.suppress(av.error.FFmpegError, ValueError, OSError):
            out.close()
