"""Ledgers of a video: what reading its pictures changes, and the fate of the data beside them."""

from __future__ import annotations

from collections.abc import Iterator

from upframe.media.ledger import Entry, Ledger
from upframe.media.names import bitstream_of
from upframe.media.video.captions import CODECS_WITH_CAPTIONS
from upframe.media.video.frames import has_alpha
from upframe.media.video.info import VideoInfo
from upframe.media.video.rules import Ability, side_data_entry
from upframe.media.video.survey import Survey, differs
from upframe.media.video.written import VideoPlan


def reading_ledger(info: VideoInfo, seen: Survey, *, is_deinterlaced: bool = False) -> Ledger:
    """The ledger of the pictures themselves: changes and losses that do not depend on the output.

    Args:
        seen: A survey of some frames, or of all.
    """
    return Ledger.of(_reading_entries(info, seen, is_deinterlaced=is_deinterlaced))


def _reading_entries(info: VideoInfo, seen: Survey, *, is_deinterlaced: bool) -> Iterator[Entry]:
    if has_alpha(info.pix_fmt):
        yield Entry("picture", "alpha", "lost", f"its transparency ({info.pix_fmt}) is dropped", "alpha-dropped")
    elif ("alpha_mode", "1") in [(key.lower(), value) for key, value in info.video_tags]:
        yield side_data_entry("matroska_block_additional (alpha)", frozenset())
    if seen.interlaced and is_deinterlaced:
        yield Entry("picture", "fields", "changed", "they are made into whole frames")
    elif seen.interlaced:
        text = "the video is interlaced; use `video.deinterlace` to make whole frames"
        yield Entry("picture", "fields", "changed", text, "interlaced")
    if any(differs(info.colour, colour) for colour in seen.colours):
        text = "its colour tags change on the way; the output has those of its first frame"
        yield Entry("picture", "colour tags", "changed", text, "colour-changes")
    if len({matrix for matrix in seen.matrices if matrix is not None}) > 1:
        text = "its display matrix changes on the way; the output has that of its first frame"
        yield Entry("container", "display matrix", "lost", text, "side-data-dropped")


def side_ledger(info: VideoInfo, seen: Survey, plan: VideoPlan | None) -> Ledger:
    """The ledger of everything beside the pictures of the video stream, and of the structure of its container.

    Args:
        seen: A survey of some frames, or of all.
        plan: How the output is written; None for numbered pictures, which hold nothing of it.
    """
    abilities = _abilities(info, plan)
    names = (*info.stated.of_stream(info.stream), *seen.packet_data, *seen.frame_data)
    entries = [side_data_entry(name, abilities) for name in names]
    if "HDR10" in abilities and _changes(seen):
        text = "its static HDR metadata changes on the way; the output has the first"
        entries.append(Entry("side data", "HDR metadata", "changed", text, "hdr-dropped"))
    return Ledger.of((*entries, *_structure(info)))


def _abilities(info: VideoInfo, plan: VideoPlan | None) -> frozenset[Ability]:
    if plan is None:
        return frozenset()
    tags = dict(plan.video_tags)
    held: dict[Ability, bool] = {
        "captions": bitstream_of(plan.codec) in CODECS_WITH_CAPTIONS,
        "display matrix": plan.matrix == info.matrix,
        "HDR10": plan.hdr10 is not None,
        "stereo": "stereo_mode" in tags,
        "time code": info.frame_timecode is not None and tags.get("timecode") == info.frame_timecode,
    }
    return frozenset(ability for ability, is_held in held.items() if is_held)


def _changes(seen: Survey) -> bool:
    """Whether frames state different values of static HDR metadata; a part that a frame does not repeat is no change."""
    parts = (
        {one.primaries for one in seen.hdr10},
        {one.luminance for one in seen.hdr10},
        {one.light_level for one in seen.hdr10},
    )
    return any(len(values - {None}) > 1 for values in parts)


def _structure(info: VideoInfo) -> Iterator[Entry]:
    others = {stream.index for stream in info.streams}
    for one in info.stated.side_data:
        if one.stream in others:
            name = f"{one.name} of track {one.stream}"
            yield Entry("side data", name, "changed", "it has the fate of its track")
    for place, edits in enumerate(info.stated.edits, 1):
        yield Entry("container", f"edit list {place} ({edits})", "changed", "all times are those that it makes")
    programs = [str(number) for number, _ in info.stated.programs]
    if len(programs) == 1:
        yield Entry("container", f"program {programs[0]}", "changed", "its tracks are those of the file")
    for number in programs if len(programs) > 1 else ():
        text = f"the division of its tracks into programs ({', '.join(programs)}) is dropped"
        yield Entry("container", f"program {number}", "lost", text, "metadata-dropped")
    for kind in info.stated.groups:
        text = f"its group of streams ({kind}) is dropped"
        yield Entry("container", f"stream group {kind}", "lost", text, "metadata-dropped")


def folder_ledger(info: VideoInfo) -> Ledger:
    """The ledger of everything that a folder of numbered pictures cannot hold of a video."""
    sound = [stream for stream in info.streams if stream.kind in ("audio", "subtitle")]
    text = f"a folder of frames holds no audio and no subtitles ({len(sound)} tracks)"
    entries = [Entry("track", track_name(s.index, s.kind, s.codec), "lost", text, "track-dropped") for s in sound]
    others = [stream for stream in info.streams if stream not in sound]
    names = [
        *(("track", track_name(s.index, s.kind, s.codec)) for s in others),
        *(("container", "chapters") for _ in info.chapters[:1]),
        *(("container", "display matrix") for _ in [info.matrix] if info.matrix is not None),
        *(("tag", key) for key, _ in info.tags),
        *(("tag", f"{key} of the video") for key, _ in info.video_tags),
    ]
    text = "a folder of frames holds no tags, chapters, further tracks or display matrix"
    return Ledger.of((*entries, *(Entry(kind, name, "lost", text, "metadata-dropped") for kind, name in names)))


def track_name(index: int, kind: str, codec: str) -> str:
    """Name of a track in a ledger."""
    return f"{index} ({kind}, {codec})"
