"""Check that every file in a folder can be read, and that VideoLQ is the published set."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from upframe.datasets.clips import list_frames
from upframe.datasets.lmdb_store import LmdbStore, is_lmdb
from upframe.datasets.prepare.items import Preparation, require_count, require_folder
from upframe.errors import Cancelled, InputError, UpframeError
from upframe.media.image.files import iter_files
from upframe.media.image.source import read_pixels
from upframe.media.video.files import index_video, is_video_name

log = logging.getLogger(__name__)

VIDEOLQ_CLIPS = 50
VIDEOLQ_FRAMES = 100


@dataclass(frozen=True)
class Bad:
    """A file that training cannot use."""

    name: str
    """Path below the checked folder; for an LMDB store, its path and the key."""
    reason: str


def check_folder(
    folder: Path,
    *,
    threads: int | None = None,
    on_progress: Callable[[int, int], None] | None = None,
    cancel: threading.Event | None = None,
) -> tuple[int, tuple[Bad, ...]]:
    """Decode every picture, video and LMDB store in `folder` and below.

    Returns:
        The number of files decoded, and the files that cannot be decoded, by name.

    Raises:
        InputError: if there is nothing to decode.
        Cancelled: if `cancel` was set.
    """
    require_folder(folder, advice="pass a folder of pictures, clips or videos, or an LMDB store")
    jobs = _jobs(folder)
    if not jobs:
        raise InputError(folder, "has no pictures, videos or LMDB stores in it", "pass a folder of training data")
    lock = threading.Lock()
    done = 0

    def one(job: tuple[str, Callable[[], object]]) -> Bad | None:
        nonlocal done
        if cancel is not None and cancel.is_set():
            return None
        name, read = job
        bad = None
        try:
            read()
        except UpframeError as error:
            bad = Bad(name, error.happened)
        with lock:
            done += 1
            if on_progress:
                on_progress(done, len(jobs))
        return bad

    with ThreadPoolExecutor(threads or os.cpu_count() or 1) as pool:
        found = list(pool.map(one, jobs))
    if cancel is not None and cancel.is_set() and done < len(jobs):
        raise Cancelled("checking data", f"stopped after {done} of {len(jobs)} files", "run it again")
    return len(jobs), tuple(bad for bad in found if bad is not None)


def _jobs(folder: Path) -> list[tuple[str, Callable[[], object]]]:
    """Return the data to decode, by name."""
    jobs: list[tuple[str, Callable[[], object]]] = []
    stores = [folder] if is_lmdb(folder) else sorted(path.parent for path in folder.rglob("data.mdb"))
    for path in stores:
        store = LmdbStore(path)
        prefix = "" if path == folder else f"{path.relative_to(folder).as_posix()}/"
        jobs += [(f"{prefix}{key}", _reader_of_key(store, key)) for key in store.names()]
    for path in iter_files(folder, recursive=True):
        jobs.append((path.relative_to(folder).as_posix(), _reader_of_picture(path)))
    for path in iter_files(folder, recursive=True, is_wanted=is_video_name):
        jobs.append((path.relative_to(folder).as_posix(), _reader_of_video(path)))
    return jobs


def _reader_of_key(store: LmdbStore, key: str) -> Callable[[], object]:
    return lambda: store.read(key)


def _reader_of_picture(path: Path) -> Callable[[], object]:
    return lambda: read_pixels(path)


def _reader_of_video(path: Path) -> Callable[[], object]:
    def read() -> None:
        index = index_video(path, on_bad_frame="fail")  # decodes every frame
        if index.truncated:
            raise InputError(path, f"ends early ({index.truncated})")

    return read


def check_videolq(root: Path, *, partial_set: bool = False) -> Preparation:
    """Check VideoLQ against its publication: 50 clips (000 to 049) of up to 100 numbered frames. No files are made.

    Raises:
        InputError: if clips or frames are missing, or a clip is too long.
    """
    require_folder(root, advice="pass the folder that holds the 50 clips")
    folder = next((root / name for name in ("LQ", "lq", "Input", "input") if (root / name).is_dir()), root)
    clips = sorted(child for child in folder.iterdir() if child.is_dir() and not child.name.startswith("."))
    require_count(clips, VIDEOLQ_CLIPS, subject=folder, what="clips", partial=partial_set)
    frames = 0
    for clip in clips:
        count = len(list_frames(clip))
        if not 1 <= count <= VIDEOLQ_FRAMES:
            raise InputError(clip, f"has {count} frames and the set has 1 to {VIDEOLQ_FRAMES}", "copy the set again")
        frames += count
    return Preparation(f"VideoLQ in {root}", (), {}, (f"{len(clips)} clips", f"{frames} frames"))
