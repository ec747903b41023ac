"""Save and load a `FrameIndex`, so that another process need not decode a whole video again."""

from __future__ import annotations

import io
import json
import zipfile
from dataclasses import asdict, fields, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from upframe.errors import InputError, Notice
from upframe.files import atomic_bytes, parsed_json
from upframe.media.image.opening import Stamp
from upframe.media.video.index import FrameIndex, checked_index
from upframe.media.video.survey import Survey

_ARRAYS = ("pts", "durations", "decoded", "raw_pts", "is_key", "checksums")


def save_index(index: FrameIndex, path: Path) -> None:
    """Write `index` to `path`, whole or not at all.

    Raises:
        OutputError: if it cannot be written.
    """
    facts: dict[str, Any] = {f.name: getattr(index, f.name) for f in fields(index) if f.name not in _ARRAYS}
    facts |= {
        "path": str(index.path),
        "stamp": asdict(index.stamp),
        "time_base": str(index.time_base),
        "damaged": [str(time) for time in index.damaged],
        "notices": [asdict(notice) for notice in index.notices],
        "seen": {"interlaced": index.seen.interlaced},  # the rest serves the notices, which are made
    }
    held = io.BytesIO()
    np.savez(held, facts=np.array(json.dumps(facts)), **{name: getattr(index, name) for name in _ARRAYS})
    atomic_bytes(path, held.getvalue())


def load_index(path: Path, video: Path) -> FrameIndex | None:
    """Load the index of `video` that `save_index` wrote to `path`; None if absent, or if the video has changed since then."""
    try:
        with np.load(path, allow_pickle=False) as held:
            facts = parsed_json(str(held["facts"]))
            arrays = {name: held[name] for name in _ARRAYS}
        stamp = Stamp(**{**facts["stamp"], "inode": tuple(facts["stamp"]["inode"])})
        known = {
            "stream": int(facts["stream"]),
            "stamp": stamp,
            "time_base": Fraction(facts["time_base"]),
            "is_seekable": bool(facts["is_seekable"]),
            "is_damaged": bool(facts["is_damaged"]),
            "damaged": tuple(Fraction(time) for time in facts["damaged"]),
            "truncated": facts["truncated"],
            "notices": tuple(Notice(**notice) for notice in facts["notices"]),
            "seen": Survey(interlaced=int(facts["seen"]["interlaced"])),
        }
        return replace(checked_index(FrameIndex(path=video, **known, **arrays)))
    except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile, InputError):
        return None
