"""Folders that `--allow` opens to the page and to programs: what lies in them, as far as it can be an input."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from upframe.media.image.listing import is_image_name, natural_key
from upframe.media.names import is_video_name
from upframe.service import wire
from upframe.service.problems import Problem
from upframe.service.sources import Sources


@dataclass(frozen=True)
class _Entry:
    name: str
    path: Path
    is_folder: bool

    def described(self) -> wire.ServedFile:
        if self.is_folder:
            return wire.ServedFile(name=self.name, path=str(self.path), is_folder=True)
        try:
            size = self.path.stat().st_size
        except OSError:  # removed meanwhile
            size = None
        return wire.ServedFile(name=self.name, path=str(self.path), is_folder=False, kind=kind_of(self.path), bytes=size)


def kind_of(path: Path) -> wire.Kind:
    """The kind of an input, by its name."""
    return "video" if is_video_name(path) else "photo"


def listed(sources: Sources, name: str | None, *, limit: int, offset: int) -> wire.Folder:
    """The allowed folders, or the folders, pictures and videos in one of them or below.

    Hidden ones are skipped, and so are links that lead out of the allowed folders.

    Raises:
        Problem: if the service may not read it, or it is no folder.
    """
    if name is None:
        trail = list[Path]()
        entries = [_Entry(top.name or str(top), top, True) for top in sources.allow]
    else:
        trail = _trail(sources, sources.allowed(name))
        entries = _entries(sources, trail[-1])
    return wire.Folder(
        path=str(trail[-1]) if trail else None,
        parent=str(trail[-2]) if len(trail) > 1 else None,
        trail=[_Entry(folder.name or str(folder), folder, True).described() for folder in trail],
        files=[entry.described() for entry in entries[offset : offset + limit]],
        folders=sum(entry.is_folder for entry in entries),
        total=len(entries),
    )


def _trail(sources: Sources, folder: Path) -> list[Path]:
    """The folders from the allowed one to this."""
    top = next(one for one in (folder, *folder.parents) if one in sources.allow)
    trail = [one for one in (folder, *folder.parents) if one.is_relative_to(top)][::-1]
    if not folder.is_dir() or any(one.name.startswith(".") for one in trail[1:]):
        raise Problem(404, folder.name, "is no folder that is shown", "name another one")
    return trail


def _entries(sources: Sources, folder: Path) -> list[_Entry]:
    """Everything in a folder that is shown: folders first, each sorted by name."""
    try:
        with os.scandir(folder) as found:
            shown = [made for entry in found if (made := _entry(sources, entry)) is not None]
    except OSError as error:
        raise Problem(403, folder.name, f"cannot be read ({error.strerror})") from error
    return sorted(shown, key=lambda entry: (not entry.is_folder, natural_key(entry.name), entry.name))


def _entry(sources: Sources, entry: os.DirEntry[str]) -> _Entry | None:
    path = Path(entry.path)
    if entry.name.startswith(".") or not _is_text(entry.name) or (entry.is_symlink() and not sources.is_allowed(path)):
        return None
    try:
        if entry.is_dir():
            return _Entry(entry.name, path, True)
        is_input = entry.is_file() and (is_image_name(path) or is_video_name(path))
    except OSError:  # a link that leads to itself, or what was removed meanwhile
        return None
    return _Entry(entry.name, path, False) if is_input else None


def _is_text(name: str) -> bool:
    """Whether a name can be sent: Linux allows bytes that are no UTF-8."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True
