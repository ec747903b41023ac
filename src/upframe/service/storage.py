"""The data folder: where files lie. All names on the disk are upframe's own; those of users are data in the queue."""

from __future__ import annotations

import contextlib
import hashlib
import secrets
import shutil
from pathlib import Path

from upframe.errors import one_line
from upframe.files import folder_bytes, link_file, writing
from upframe.media.image.listing import is_image_name
from upframe.media.names import is_video_name

LONGEST_NAME = 150
"""Characters of a user's name that are kept."""


def new_id() -> str:
    """A name that nobody can guess or has used: 16 hexadecimal digits."""
    return secrets.token_hex(8)


def plain_name(name: str) -> str:
    """A user's name for a file as one harmless component: no folders, control characters or leading dots."""
    last = one_line(name).replace("\\", "/").rpartition("/")[2]
    kept = "".join("_" if c in '<>:"|?*' or not c.isprintable() else c for c in last).strip(". ")
    stem, dot, suffix = kept.rpartition(".")
    if len(kept) > LONGEST_NAME:
        kept = f"{stem[: LONGEST_NAME - len(suffix) - 1]}.{suffix}" if dot and len(suffix) < 20 else kept[:LONGEST_NAME]
    return kept or "file"


def known_suffix(name: str) -> str:
    """Extension of a user's name if it is that of a picture or video, else nothing: the content decides then."""
    suffix = Path(plain_name(name)).suffix.lower()
    return suffix if suffix and (is_image_name(f"x{suffix}") or is_video_name(f"x{suffix}")) else ""


class JobFolder:
    """Files of one job."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.outputs = path / "output"
        self.views = path / "views"
        """Thumbnails and previews, which can be made again."""

    def take(self, source: Path, name: str) -> Path:
        """Link or copy an upload, or the input of another job, into the folder.

        Raises:
            OutputError: if the disk refuses.
        """
        place = self.path / f"input{known_suffix(name)}"
        with writing(place):
            self.path.mkdir(parents=True)
            link_file(source, place)
        return place

    def remove_outputs(self) -> None:
        """Remove the output, views of it, and unfinished work."""
        shutil.rmtree(self.outputs, ignore_errors=True)
        for view in self.views.glob("output*"):
            with contextlib.suppress(OSError):
                view.unlink()

    def remove(self) -> None:
        shutil.rmtree(self.path, ignore_errors=True)


class Storage:
    """The data folder of a server.

    Raises:
        OSError: if it cannot be made.
    """

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()
        self.database = self.root / "queue.sqlite3"
        self.lock = self.root / "server.lock"
        self.logs = self.root / "logs"
        self.uploads = self.root / "uploads"
        self.trials = self.root / "trials"
        self.views = self.root / "views"
        """Of files of the server, which can be made again."""
        self._jobs = self.root / "jobs"
        self.root.mkdir(parents=True, exist_ok=True, mode=0o700)
        for folder in (self.logs, self.uploads, self.trials, self.views, self._jobs):
            folder.mkdir(exist_ok=True)

    def job(self, id: str) -> JobFolder:
        return JobFolder(self._jobs / id)

    def upload(self, id: str, name: str) -> Path:
        """Place of an upload that the user calls `name`."""
        return self.uploads / f"{id}{known_suffix(name)}"

    def views_of(self, path: Path) -> Path:
        """Folder for views of a file that is not in the data folder; a file that changes gets another one."""
        status = path.stat()
        facts = f"{path}\0{status.st_size}\0{status.st_mtime_ns}"
        return self.views / hashlib.sha256(facts.encode(errors="surrogateescape")).hexdigest()[:32]

    def remove_old_views(self, before: float) -> None:
        """Remove views of files of the server that were made before a time."""
        for folder in self.views.iterdir():
            with contextlib.suppress(OSError):
                if folder.stat().st_mtime < before:
                    shutil.rmtree(folder)

    def job_ids(self) -> set[str]:
        """Jobs that have a folder."""
        return {path.name for path in self._jobs.iterdir()}

    def used_bytes(self) -> int:
        return folder_bytes(self.root)
