"""`plan_video` plans how a video is written and what it loses, and tries the encoder, before the first frame."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

from upframe.errors import OptionError, UsageError, check_choice
from upframe.media.ledger import Entry, Ledger
from upframe.media.names import ODD_POLICIES, Odd, bitstream_of
from upframe.media.video.account import side_ledger, track_name
from upframe.media.video.codecs import (
    CODECS,
    CONTAINERS,
    Container,
    VideoCodec,
    closest_format,
    codec_named,
    container_named,
    encodable_formats,
    encoder_options,
    format_layout,
)
from upframe.media.video.colour import Coding
from upframe.media.video.frame_facts import UNSPECIFIED, ColourTags, Matrix
from upframe.media.video.hardware import ENCODERS, encoder_named
from upframe.media.video.info import StreamInfo, VideoInfo, default_matrix
from upframe.media.video.tags import FIXED_TAGS, file_tags, track_tags, video_tags
from upframe.media.video.trial import fit_tracks, try_encoder
from upframe.media.video.written import Carried, VideoPlan

_Note = Callable[[Entry], None]

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
    entries: list[Entry] = []
    note = entries.append
    held = _container(info, container, note)
    chosen = _codec(info, held, codec)
    _check_speed_and_quality(chosen, crf, preset)
    check_choice("video.odd", odd, ODD_POLICIES)
    size = size or info.size
    form = _pixel_format(info, chosen, pix_fmt, size, odd)
    coded = _coded_size(form, size, odd, note)
    coding, colour = _colour(info, chosen, form, coded)
    _note_losses(info, chosen, form, note)
    hdr10 = info.hdr10 if chosen.holds_hdr else None
    tracks = _tracks(info, held, audio, subs, note)
    of_file = file_tags(info.tags, info.stated, held, has_cover=any(track.kind == "cover" for track in tracks))
    of_video = video_tags(info, held)
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
        matrix=info.matrix if _holds_matrix(held, info.matrix) else None,
        hdr10=hdr10,
        time_base=info.time_base,
        rate=rate,
        options=tuple(sorted(told.items())),
        tracks=tracks,
        has_chapters=bool(info.chapters) and held.holds_chapters,
        tags=of_file.tags,
        has_key_tags=of_file.with_keys,
        video_tags=of_video.tags,
    )
    try_encoder(plan, options or {})
    plan, changed = fit_tracks(plan, info)
    entries = [changed.get(entry.name, entry) if entry.kind == "track" else entry for entry in entries]
    ledger = Ledger.of((*entries, *of_file.entries, *of_video.entries)) + side_ledger(info, info.seen, plan)
    return replace(plan, ledger=ledger, notices=ledger.notices(str(info.path)))


def _holds_matrix(held: Container, matrix: Matrix | None) -> bool:
    """Whether a container holds this display matrix: Matroska holds right angles and flips."""
    if matrix is None or held.muxer in ("mp4", "mov"):
        return True
    a, b, u, c, d, v, _, _, _ = matrix
    one = 1 << 16
    return (u, v) == (0, 0) and (abs(a), abs(b), abs(c), abs(d)) in ((one, 0, 0, one), (0, one, one, 0))


def _container(info: VideoInfo, wanted: str | None, note: _Note) -> Container:
    if wanted is not None:
        found = container_named(wanted)
        if found is None:
            raise UsageError(wanted, "is not a video format that upframe can write", f"use one of {', '.join(CONTAINERS)}")
        return found
    suffix = info.path.suffix
    kept = container_named(suffix) if suffix else None
    if kept is not None:
        return kept
    text = f"upframe cannot write {suffix or info.format} and writes Matroska (.mkv)"
    note(Entry("container", "format", "changed", text, "container-changed"))
    return CONTAINERS["mkv"]


def _codec(info: VideoInfo, held: Container, wanted: str | None) -> VideoCodec:
    if wanted is None:
        own = codec_named(info.codec)
        return own if own is not None and own.name in held.codecs else CODECS[held.codecs[0]]
    found = encoder_named(wanted)
    if found is None:
        raise OptionError("video.codec", wanted, "is not a codec that upframe can write", f"use one of {', '.join(ENCODERS)}")
    if bitstream_of(found.name) not in held.codecs:
        fitting = [c.name for c in CONTAINERS.values() if bitstream_of(found.name) in c.codecs]
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


def _coded_size(pix_fmt: str, size: tuple[int, int], odd: Odd, note: _Note) -> tuple[int, int]:
    coded = _coded(pix_fmt, size, odd)
    if coded != size:
        what = "padded" if odd == "pad" else "cropped"
        text = f"{size[1]}x{size[0]} is {what} to {coded[1]}x{coded[0]}, since {pix_fmt} needs even sides"
        note(Entry("picture", "size", "changed", text, "size-adjusted"))
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


def _note_losses(info: VideoInfo, codec: VideoCodec, pix_fmt: str, note: _Note) -> None:
    layout = format_layout(pix_fmt)
    assert layout is not None

    def lose(name: str, text: str, notice: str) -> None:
        note(Entry("picture", name, "changed", text, notice))

    if layout.bits < info.bits:
        text = f"{codec.label} {pix_fmt} holds {layout.bits} bits per sample; the input has {info.bits}"
        lose("depth", text, "depth-reduced")
    coarser = {"422": layout.down == 2, "440": layout.across == 2}.get(info.chroma, layout.across * layout.down > 1)
    if layout.kind == "gray" and info.chroma != "gray":
        lose("colour resolution", f"{pix_fmt} holds no colour", "chroma-reduced")
    elif info.chroma in ("422", "440", "444", "rgb") and coarser:
        text = f"{codec.label} {pix_fmt} holds less colour resolution than {info.pix_fmt}"
        lose("colour resolution", text, "chroma-reduced")


# Tracks ---------------------------------------------------------------------------------------------------------------
def _tracks(info: VideoInfo, held: Container, audio: bool, subs: bool, note: _Note) -> tuple[Carried, ...]:
    carried = []
    for stream in info.streams:
        track, entry = _track(stream, info.path, held, audio=audio, subs=subs)
        note(entry)
        if track is None:
            continue
        carried.append(track)
        if track.kind in ("audio", "subtitle"):
            for tag in track_tags(stream.tags, held, of=f"track {stream.index}", is_copied=True).entries:
                note(tag)
    for entry in _chapters(info, held):
        note(entry)
    return tuple(carried)


def _chapters(info: VideoInfo, held: Container) -> Iterator[Entry]:
    if info.chapters and not held.holds_chapters:
        yield Entry("container", "chapters", "lost", f"{held.label} cannot hold chapters", "metadata-dropped")
    elif info.chapters:
        yield Entry("container", "chapters", "carried")
    kept = {"title"} if held.name in FIXED_TAGS else None
    lost = dict.fromkeys(key for one in info.chapters for key, _ in one.tags if kept is not None and key.lower() not in kept)
    for key in lost:
        why = f"{held.label} has no place for the tags {', '.join(lost)[:120]} of chapters"
        yield Entry("tag", f"{key} of chapters", "lost", why, "metadata-dropped")


def _track(stream: StreamInfo, path: Path, held: Container, *, audio: bool, subs: bool) -> tuple[Carried | None, Entry]:
    name = track_name(stream.index, stream.kind, stream.codec)
    if (stream.kind == "audio" and not audio) or (stream.kind == "subtitle" and not subs):
        return None, Entry("track", name, "changed", "it is skipped, as the options ask")
    if stream.kind == "subtitle":
        return _subtitle(stream, path, held)
    holds = {"audio": True, "attachment": held.holds_attachments, "cover": held.holds_covers}
    if holds.get(stream.kind, False):
        return Carried(stream.index, stream.kind), Entry("track", name, "carried")
    if stream.has_timecode:
        return None, Entry("track", name, "changed", "its time code is a tag of the video, of which players make the same")
    return None, _dropped(stream, f"its {_NOUNS.get(stream.kind, f'{stream.kind} track')}{_titled(stream)}")


_NOUNS = {"cover": "cover picture", "video": "further video stream"}


def _titled(stream: StreamInfo) -> str:
    return f" {stream.title}" if stream.title else ""


def _dropped(stream: StreamInfo, words: str) -> Entry:
    text = f"{words} (stream {stream.index}, {stream.codec}) is dropped"
    return Entry("track", track_name(stream.index, stream.kind, stream.codec), "lost", text, "track-dropped")


def _subtitle(stream: StreamInfo, path: Path, held: Container) -> tuple[Carried, Entry]:
    name = track_name(stream.index, stream.kind, stream.codec)
    if stream.codec in held.text_kept:
        return Carried(stream.index, "subtitle"), Entry("track", name, "carried")
    if stream.codec in _TEXT:
        text = f"subtitles (stream {stream.index}, {stream.codec}) become {held.text} in {held.label}"
        return Carried(stream.index, "subtitle", held.text), Entry("track", name, "changed", text, "subtitle-converted")
    if held.holds_bitmaps:
        return Carried(stream.index, "subtitle"), Entry("track", name, "carried")
    raise UsageError(
        path,
        f"{held.label} cannot hold its bitmap subtitles (stream {stream.index}, {stream.codec})",
        "use mkv, or skip them with `video.subtitles=False`",
    )
