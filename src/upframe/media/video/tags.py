"""Tags of a file and of its tracks: which of them an output holds, under which name, and the ledger entry of each.

The sets are those of FFmpeg's writers. MP4 and MOV have a fixed list of tags; with keys (`use_metadata_tags`) they hold any,
but then no cover picture.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av

from upframe.media.ledger import Entry
from upframe.media.video.codecs import Container
from upframe.media.video.info import VideoInfo, open_video
from upframe.media.video.stated import Stated
from upframe.media.video.written import VideoPlan

Tags = tuple[tuple[str, str], ...]

FIXED_TAGS = {
    "mp4": frozenset((
        "album", "album_artist", "artist", "comment", "compilation", "composer", "copyright", "creation_time", "date",
        "description", "disc", "episode_id", "episode_sort", "gapless_playback", "genre", "grouping", "hd_video", "keywords",
        "location", "lyrics", "media_type", "network", "season_number", "show", "synopsis", "title", "track",
    )),
    "mov": frozenset((
        "album", "artist", "comment", "copyright", "creation_time", "date", "genre", "location", "make", "model", "title",
    )),
}  # fmt: skip
"""Tags of the file that FFmpeg's writer of a container stores in their own places."""

_TRACK_TAGS = frozenset(("language", "handler_name", "title", "creation_time"))
"""Tags of a track that MP4 and MOV hold."""

_MADE_AGAIN = frozenset((
    "major_brand", "minor_version", "compatible_brands", "encoder", "duration", "vendor_id", "alpha_mode",
    "_statistics_tags", "_statistics_writing_app", "_statistics_writing_date_utc",
))  # fmt: skip
"""Tags that describe the old file and not the video, in lower case: each writer makes its own."""
_OF_THE_CODING = frozenset(("bps", "number_of_frames", "number_of_bytes"))
"""Tags that describe a track as it was compressed; true for a copied one only."""

_OLD_FILE = "it describes the old file; the new one has its own"

_RATES = frozenset((24, 25, 30, 48, 50, 60, 100, 120, 150))
"""Frames per second for which FFmpeg writes time code tracks (libavutil/timecode.c)."""
_LANGUAGE = re.compile(r"(.+)-([a-z]{3})")
MOV_LANGUAGES = frozenset((
    "alb", "amh", "ara", "arm", "asm", "aym", "aze", "baq", "bel", "ben", "bul", "bur", "cat", "ces", "chi", "dan", "dut",
    "dzo", "eng", "epo", "est", "fin", "fra", "geo", "ger", "gre", "grn", "guj", "heb", "hin", "hun", "ice", "ind", "ita",
    "jav", "jpn", "kan", "kas", "kaz", "khm", "kin", "kir", "kor", "kur", "lao", "lat", "lav", "lit", "mac", "mal", "mar",
    "may", "mlg", "mlt", "mol", "mon", "nep", "nor", "nya", "ori", "orm", "per", "pol", "por", "pus", "que", "ron", "run",
    "rus", "san", "sin", "slk", "slv", "smi", "snd", "som", "spa", "swa", "tam", "tat", "tel", "tgk", "tgl", "tha", "tib",
    "tir", "tuk", "tur", "uig", "ukr", "urd", "uzb", "vie", "wel", "yid",
))  # fmt: skip
"""ISO 639-2 codes for which FFmpeg's writer of MOV knows the Macintosh number."""
_TWO_CODES = (
    ("alb", "sqi"), ("arm", "hye"), ("baq", "eus"), ("bur", "mya"), ("ces", "cze"), ("chi", "zho"), ("dut", "nld"),
    ("fra", "fre"), ("geo", "kat"), ("ger", "deu"), ("gre", "ell"), ("ice", "isl"), ("mac", "mkd"), ("may", "msa"),
    ("per", "fas"), ("ron", "rum"), ("slk", "slo"), ("tib", "bod"), ("wel", "cym"),
)  # fmt: skip
"""The languages that have two codes in ISO 639-2; MOV knows the first one."""
_OTHER_CODE = {other: known for known, other in _TWO_CODES}


@dataclass(frozen=True)
class Kept:
    """Tags to write, and an entry for every tag that came in."""

    tags: Tags = ()
    entries: tuple[Entry, ...] = ()
    with_keys: bool = False
    """Whether MP4 and MOV write them as keys."""


def file_tags(tags: Tags, stated: Stated, held: Container, *, has_cover: bool) -> Kept:
    """Choose the tags of the file, those of an only program of a transport stream among them."""
    if len(stated.programs) == 1:
        tags += tuple(tag for tag in stated.programs[0][1] if tag[0] not in dict(tags))
    fixed, known = FIXED_TAGS.get(held.name), {key.lower(): value for key, value in tags}
    covered = {key: why for key, _ in tags if (why := _covered(key, known))}
    lost = [key for key, _ in tags if key not in covered and fixed is not None and key.lower() not in fixed]
    with_keys = bool(lost) and not has_cover
    why_lost = f"{held.label} has no place for its tags {', '.join(lost)[:120]}"
    kept, entries = [], []
    for key, value in tags:
        if key in covered:
            entries.append(Entry("tag", key, "changed", covered[key]))
        elif key in lost and not with_keys:
            entries.append(Entry("tag", key, "lost", why_lost, "metadata-dropped"))
        else:
            # MP4 names its tags in lower case, Matroska often in upper case.
            kept.append((key.lower() if fixed is not None and key.lower() in fixed else key, value))
            entries.append(_carried(key, value))
    return Kept(tuple(kept), tuple(entries), with_keys)


def _covered(key: str, known: Mapping[str, str]) -> str:
    """The reason why a tag of a file need not be written; empty if it must be."""
    base, language = _split(key)
    if base in _MADE_AGAIN or base in ("handler_name", "language"):
        return _OLD_FILE
    if base == "timecode":
        return "it becomes the time code of the video"
    if language and known.get(base) == known[key.lower()]:
        return f"it repeats {base}"
    return ""


def _split(key: str) -> tuple[str, str]:
    """A key in lower case and the language that FFmpeg appends to it: "location-eng" is ("location", "eng")."""
    found = _LANGUAGE.fullmatch(key)
    return (found[1].lower(), found[2]) if found else (key.lower(), "")


def video_tags(info: VideoInfo, held: Container) -> Kept:
    """Choose the tags of the video. A time code, also one of the file, becomes one of them; MP4 and MOV make a track of it."""
    of_frame = () if info.frame_timecode is None else (("timecode", info.frame_timecode),)
    found = {key.lower(): value for key, value in (*of_frame, *info.tags, *info.video_tags)}
    plain = tuple(tag for tag in info.video_tags if tag[0].lower() not in ("timecode", "stereo_mode"))
    kept = track_tags(plain, held, of="the video", is_copied=False)
    tags, entries = list(kept.tags), list(kept.entries)
    if "stereo_mode" in found and _holds_stereo(info, held):
        tags.append(("stereo_mode", found["stereo_mode"]))  # an entry of the side data tells of it
    if "timecode" in found and held.name in FIXED_TAGS and round(info.rate) not in _RATES:
        why = f"{held.label} cannot hold a time code at {float(info.rate):.5g} frames per second"
        entries.append(Entry("container", "time code", "lost", why, "metadata-dropped"))
    elif "timecode" in found:
        tags.append(("timecode", found["timecode"]))
        entries.append(Entry("container", "time code", "carried"))
    return Kept(tuple(tags), tuple(entries))


def _holds_stereo(info: VideoInfo, held: Container) -> bool:
    """Whether the arrangement of 3D views can be written: in Matroska, whose writer then forgets the shape of pixels."""
    return held.name not in FIXED_TAGS and info.sample_aspect in (None, Fraction(1))


def from_later_frame(tags: Tags, frames: int, rate: Fraction) -> Tags:
    """Tags of a part of a video that begins `frames` frames later: its time code is later, too."""
    return tuple((k, later_timecode(v, frames, round(rate)) if k == "timecode" else v) for k, v in tags)


def later_timecode(code: str, frames: int, per_second: int) -> str:
    """A time code (SMPTE ST 12-1) some frames later; with a semicolon, numbers are dropped at 30 and 60 frames per second."""
    found = re.fullmatch(r"(\d+):(\d+):(\d+)([:;.])(\d+)", code)
    if found is None or per_second < 1:
        return code
    hours, minutes, seconds, number = (int(found[group]) for group in (1, 2, 3, 5))
    drops = 2 * (per_second // 30) if found[4] != ":" and per_second in (30, 60) else 0  # in each minute but the tenth
    whole_minutes = 60 * hours + minutes
    count = (60 * whole_minutes + seconds) * per_second + number - drops * (whole_minutes - whole_minutes // 10) + frames
    tens, rest = divmod(count, 600 * per_second - 9 * drops)
    minute, after_first = 60 * per_second - drops, 60 * per_second
    dropped = 9 * tens + (0 if rest < after_first else 1 + (rest - after_first) // minute)
    count += drops * dropped
    total_seconds, number = divmod(count, per_second)
    clock = f"{total_seconds // 3600 % 24:02}:{total_seconds // 60 % 60:02}:{total_seconds % 60:02}"
    return f"{clock}{found[4]}{number:02}"


def unwritten_tags(path: Path, plan: VideoPlan) -> tuple[str, ...]:
    """Keys of planned tags that a written file does not have: the sets here may not be those of every FFmpeg."""
    with open_video(path) as container:
        of_file = {key.lower() for key in container.metadata}
        video = next(s for s in container.streams.video if not s.disposition & av.stream.Disposition.attached_pic)
        of_video = {"title" if key.lower() == "name" else key.lower() for key in video.metadata}
    lost = [key for key, _ in plan.tags if key.lower() not in of_file]
    lost += [key for key, value in plan.video_tags if key.lower() not in of_video and value != "und"]
    return tuple(lost)


def track_tags(tags: Tags, held: Container, *, of: str, is_copied: bool) -> Kept:
    """Choose the tags of a track.

    Args:
        of: Words for the track.
        is_copied: Whether its packets are copied, so that tags about its coding stay true.
    """
    places = {key: _place(key, held, is_copied=is_copied) for key, _ in tags}
    lost = [key for key, place in places.items() if place is None]
    why_lost = f"{held.label} has no place for the tags {', '.join(lost)[:120]} of {of}"
    kept, entries = [], []
    for key, value in tags:
        name, place = f"{key} of {of}", places[key]
        if place is None:
            entries.append(Entry("tag", name, "lost", why_lost, "metadata-dropped"))
        elif not place:
            entries.append(Entry("tag", name, "changed", _OLD_FILE))
        elif held.name == "mov" and place == "language":
            code = _OTHER_CODE.get(value, value)
            kept.append((place, code))
            entries.append(_mov_language(name, value, code))
        else:
            kept.append((place, value))
            entries.append(_carried(name, value))
    return Kept(tuple(kept), tuple(entries))


def _carried(name: str, value: str) -> Entry:
    if "\ufffd" not in value:
        return Entry("tag", name, "carried")
    return Entry("tag", name, "changed", f"bytes of its tag {name} that are not UTF-8 are replaced", "metadata-damaged")


def _mov_language(name: str, language: str, code: str) -> Entry:
    if code not in MOV_LANGUAGES and language != "und":
        return Entry("tag", name, "lost", f"MOV has no number for the language {language}", "metadata-dropped")
    if code != language:
        return Entry("tag", name, "changed", f"MOV writes {code}, the other code of the language {language}")
    return Entry("tag", name, "carried")


def _place(key: str, held: Container, *, is_copied: bool) -> str | None:
    """The key under which a tag of a track is written; empty if each writer makes its own, None if it is lost."""
    base = _split(key)[0]
    if base in _MADE_AGAIN or (base in _OF_THE_CODING and not is_copied):
        return ""
    if base == "name":
        return "title"  # the title of a track as FFmpeg reads it from MP4
    if held.name not in FIXED_TAGS:
        return "" if base == "handler_name" and not is_copied else key
    if base in _TRACK_TAGS:
        return base
    return "" if base in _OF_THE_CODING else None
