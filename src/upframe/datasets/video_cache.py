"""Videos as arrays: decoded once, kept on disk as uint8, and mapped by every process of every run."""

from __future__ import annotations

import hashlib
import logging
import math
import os
from pathlib import Path

import numpy as np

from upframe.errors import InputError, OutputError
from upframe.files import Lock, atomic_file, check_room, writing
from upframe.media.video.files import VideoSource, index_video, probe_video

log = logging.getLogger(__name__)

_ADVICE = "set XDG_CACHE_HOME to another disk"
_FORMAT = "1"  # of the cached arrays; after a change, all videos are decoded again


def default_cache() -> Path:
    """Return the folder of decoded videos: `$XDG_CACHE_HOME/upframe/frames`, or `~/.cache/upframe/frames`."""
    base = os.environ.get("XDG_CACHE_HOME")
    try:
        return (Path(base) if base else Path.home() / ".cache") / "upframe" / "frames"
    except RuntimeError as error:
        raise OutputError("cache", "no home folder is known", "set XDG_CACHE_HOME") from error


def decoded_video(path: Path, *, cache: Path) -> Path:
    """Return the `.npy` file (T, H, W, 3) uint8 of all frames of a video; make it if `cache` does not have it.

    The video's path, size and modification time identify the file. It appears whole or not at all.

    Raises:
        InputError: if the video is damaged anywhere, because training must not use repeated frames in place of damaged ones.
        OutputError: if the cache cannot be written, or its disk has no room.
    """
    try:
        status = path.stat()
    except OSError as error:
        raise InputError(path, f"cannot be read ({error.strerror})", "check the name") from error
    identity = f"{_FORMAT}\n{path.resolve()}\n{status.st_size}\n{status.st_mtime_ns}"
    target = cache / f"{path.stem[:80]}-{hashlib.sha256(identity.encode()).hexdigest()[:16]}.npy"
    if target.is_file():
        return target
    with writing(cache, advice=_ADVICE):
        cache.mkdir(parents=True, exist_ok=True)
        with Lock(target.with_suffix(".lock"), wait=True, remove=True):
            if not target.is_file():  # another process may have made it meanwhile
                _decode(path, target)
    return target


def _decode(path: Path, target: Path) -> None:
    info = probe_video(path)
    index = index_video(path, info=info, on_bad_frame="fail")
    if index.truncated:
        raise InputError(path, f"ends early ({index.truncated})", "get the file again, or cut it before that")
    shape = (len(index), *info.size, 3)
    check_room(target, math.prod(shape))
    header = {"descr": np.lib.format.dtype_to_descr(np.dtype(np.uint8)), "fortran_order": False, "shape": shape}
    with atomic_file(target, advice=_ADVICE) as file, VideoSource(path, info=info, index=index) as source:
        np.lib.format.write_array_header_1_0(file, header)
        for frame in source:
            if frame.pixels.shape[:2] != info.size:
                raise InputError(path, "changes its size in the middle", "convert it to one size")
            # round(v / 257), exactly
            file.write(((frame.pixels.astype(np.uint32) + 128) // 257).astype(np.uint8).tobytes())
    log.info("decoded %s: %d frames of %dx%d", path, *shape[:3])
