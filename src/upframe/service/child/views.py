"""Views of files for people: thumbnails and previews that browsers show."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from upframe.media.image.decoder import Limits
from upframe.media.image.viewing import read_first, shown_as_it_is, write_thumbnail, write_view
from upframe.media.names import is_video_name
from upframe.service.child.desk import Desk
from upframe.service.media_types import media_type

MOST_PIXELS = 64_000_000
"""Of a preview: browsers draw no larger pictures reliably."""
PROGRESS_S = 0.5


def view(data: Mapping[str, Any], desk: Desk) -> dict[str, Any]:
    """Make a thumbnail or a preview, and answer with its path and media type."""
    path, stem = Path(data["input"]), Path(data["stem"])
    limits = Limits(max_pixels=data["pixels"])
    if data["what"] == "thumbnail":
        return _made(_thumbnail(path, stem, limits, data["side"]))
    return _video(path, stem, desk) if is_video(path) else _made(_picture(path, stem, limits))


def is_video(path: Path) -> bool:
    """Whether a file is a video, by its name; the service gives files their extensions, or none where it knows none."""
    return is_video_name(path)


def _thumbnail(path: Path, stem: Path, limits: Limits, side: int) -> Path:
    out = stem.with_name(f"{stem.name}.png")
    if is_video(path):
        from upframe.media.video.viewing import frame_at

        picture = frame_at(path)
    else:
        picture = read_first(path, limits=limits)
    write_thumbnail(picture, out, most_side=side)
    return out


def _picture(path: Path, stem: Path, limits: Limits) -> tuple[Path, str | None]:
    as_is = shown_as_it_is(path, limits=limits, most_pixels=MOST_PIXELS)
    if as_is is not None:
        return path, media_type(Path(f"view{as_is}"))
    out = stem.with_name(f"{stem.name}.png")
    picture = read_first(path, limits=limits)
    write_view(picture.shown(picture.pixels), out, most_pixels=MOST_PIXELS, profile=picture.profile)
    return out, None


def _video(path: Path, stem: Path, desk: Desk) -> dict[str, Any]:
    from upframe.media.video.viewing import plays_as_it_is, write_browser_video

    if plays_as_it_is(path):
        return _made((path, "video/mp4"))
    out, told = stem.with_name(f"{stem.name}.mp4"), 0.0

    def progress(done: float) -> None:
        nonlocal told
        if time.monotonic() - told > PROGRESS_S:
            told = time.monotonic()
            desk.tell("progress", {"done": done})

    write_browser_video(path, out, on_progress=progress, cancel=desk.cancel)
    return _made(out)


def _made(view: Path | tuple[Path, str | None]) -> dict[str, Any]:
    path, kind = view if isinstance(view, tuple) else (view, None)
    return {"path": str(path), "type": kind or media_type(path)}
