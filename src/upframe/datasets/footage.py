"""Content of a folder of training data: its pictures or clips, the frames of each in order, and their stored inputs.

upframe reads folders of pictures, folders of clips (REDS: `000/00000000.png`), Vimeo-90K (`sequences/00001/0001/im1.png` with
`sep_trainlist.txt`), video files, and LMDB stores of any of these.
"""

from __future__ import annotations

import fnmatch
import logging
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import numpy as np

from upframe.datasets.clips import list_frames
from upframe.datasets.lmdb_store import LmdbStore, is_lmdb
from upframe.datasets.stores import ArrayStore, FileStore, FrameStore, JoinedStore, ReducedStore
from upframe.datasets.video_cache import decoded_video, default_cache
from upframe.errors import InputError
from upframe.media.frames import MediaInfo
from upframe.media.image.files import iter_files, natural_key
from upframe.media.image.source import probe
from upframe.media.video.files import is_video_name

log = logging.getLogger(__name__)

VIMEO_LIST = "sep_trainlist.txt"
_MOST_NAMED = 10
_SUB_IMAGE = re.compile(r"(.+)_s\d+")
_NUMBER = re.compile(r"([0-9]+)(?!.*[0-9])")


@dataclass(frozen=True)
class Footage:
    """One clip, or one picture: a clip of one frame."""

    name: str
    """Below the root of its set: `000`, `00001/0001`, `0001_s001.png`."""
    frames: tuple[str, ...]
    """Keys in the store, in temporal order."""
    inputs: tuple[str, ...] = ()
    """Keys of the degraded frames in their store; empty if inputs are made from `frames`."""


@dataclass(frozen=True)
class FootageSet:
    """All clips of a training set."""

    store: FrameStore
    """Store of ground-truth frames."""
    clips: tuple[Footage, ...]
    input_store: FrameStore | None = None
    """Store of degraded frames."""


def find_photos(folder: Path, *, exclude: Sequence[str] = (), minimum_px: int = 1) -> FootageSet:
    """Find each 8-bit RGB picture below `folder`, or in an LMDB store, as a clip of one frame. Only headers are read.

    Pictures of other kinds, and those smaller than `minimum_px`, are skipped with a warning.

    Args:
        exclude: Glob patterns of excluded names (or paths below `folder`), including sub-images of such names.

    Raises:
        InputError: if files are damaged, as their headers and ends tell (the message names them), or nothing usable exists.
    """
    store: FrameStore
    if is_lmdb(folder):
        store = LmdbStore(folder)
        names = [key for key in store.names() if not _matches(key, exclude)]
    else:
        if not folder.is_dir():
            raise InputError(folder, "no such folder", "pass a folder of photos")
        files = {path.relative_to(folder).as_posix(): path for path in iter_files(folder, recursive=True)}
        files = {name: files[name] for name in sorted(files) if not _matches(name, exclude)}
        infos = _probed(files, folder)
        names = [name for name, info in infos.items() if _is_rgb8(name, info)]
        store = FileStore({name: files[name] for name in names}, sizes={name: infos[name].size for name in names})
    usable = []
    for name in names:
        if min(store.size(name)) < minimum_px:
            log.warning("skipped %s: it is smaller than %d px", name, minimum_px)
        else:
            usable.append(Footage(name, (name,)))
    if not usable:
        advice = "pass a folder of photos, or set a smaller patch_px"
        raise InputError(folder, f"no usable photographs (8-bit RGB, {minimum_px} px or more) in it", advice)
    return FootageSet(store, tuple(usable))


def _probed(files: Mapping[str, Path], folder: Path) -> dict[str, MediaInfo]:
    """Read all headers.

    Raises:
        InputError: naming all damaged files, so that none stops a training later.
    """
    infos: dict[str, MediaInfo] = {}
    damaged: list[str] = []
    for name, path in files.items():
        try:
            infos[name] = probe(path, first_frame=True)
        except InputError as error:
            damaged.append(f"{name} {error.happened}")
        else:
            if not infos[name].has_end:
                damaged.append(f"{name} is truncated (its end is missing)")
    if damaged:
        named = "; ".join(damaged[:_MOST_NAMED]) + ("; …" if len(damaged) > _MOST_NAMED else "")
        count = "a file" if len(damaged) == 1 else f"{len(damaged)} files"
        raise InputError(folder, f"{count} cannot be read: {named}", "remove or replace what is damaged")
    return infos


def find_clips(folder: Path, *, exclude: Sequence[str] = (), minimum_frames: int = 1, cache: Path | None = None) -> FootageSet:
    """Find each clip below `folder`, or in an LMDB store: folders of numbered frames and videos, or Vimeo-90K's training clips.

    Clips of fewer than `minimum_frames` frames are skipped with a warning.

    Args:
        exclude: Glob patterns of excluded clips: "000" excludes the clip and its sub-images "000_s001".
        cache: Folder of decoded videos; by default `video_cache.default_cache()`.

    Raises:
        InputError: if nothing usable exists, a frame's number is missing or repeated, or a video is damaged.
    """
    store: FrameStore
    if is_lmdb(folder):
        store = LmdbStore(folder)
        clips = _grouped(store.names(), subject=folder)
        clips = {name: keys for name, keys in clips.items() if not _matches(name, exclude)}
    else:
        store, clips = _from_files(folder, exclude, cache)
    usable = []
    for name, frames in clips.items():
        if len(frames) < minimum_frames:
            log.warning("skipped %s: it has %d frames, and %d are needed", name, len(frames), minimum_frames)
        else:
            usable.append(Footage(name, tuple(frames)))
    if not usable:
        advice = "pass a folder of clips (folders of numbered frames), of videos, or an LMDB store"
        raise InputError(folder, f"no clip of {minimum_frames} frames or more in it", advice)
    return FootageSet(store, tuple(usable))


def with_reductions(found: FootageSet, factors: Sequence[int], *, minimum_px: int = 1) -> FootageSet:
    """Return the pictures reduced by each of the factors; 1 keeps them. Pictures that become too small are skipped.

    Raises:
        InputError: if none is left.
    """
    stores: list[FrameStore] = []
    usable = []
    for factor in factors:
        store = found.store if factor == 1 else ReducedStore(found.store, factor)
        stores.append(store)
        names = [clip.name if factor == 1 else f"{clip.name}@{factor}" for clip in found.clips]
        usable += [Footage(name, (name,)) for name in names if min(store.size(name)) >= minimum_px]
    if not usable:
        raise InputError("training data", f"no photograph reduced by {factors} has {minimum_px} px", "reduce by less")
    return FootageSet(stores[0] if len(stores) == 1 else JoinedStore(stores), tuple(usable))


def with_inputs(found: FootageSet, folder: Path, *, scale: int) -> FootageSet:
    """Return the set with the degraded frames in `folder`: of the same names, or `0001x4.png` for `0001.png`, or below `X4/`.

    Raises:
        InputError: if a clip or frame has no counterpart; the message names the first.
    """
    store: FrameStore
    if is_lmdb(folder):
        store = LmdbStore(folder)
        by_name = {_shared_name(key, scale): key for key in store.names()}
    else:
        if not folder.is_dir():
            raise InputError(folder, "no such folder", "pass the folder of degraded pictures")
        files = {path.relative_to(folder).as_posix(): path for path in iter_files(folder, recursive=True)}
        store = FileStore(files)
        by_name = {_shared_name(name, scale): name for name in files}
    clips = []
    for clip in found.clips:
        keys = [by_name.get(_shared_name(key, scale)) for key in clip.frames]
        missing = next((frame for frame, key in zip(clip.frames, keys, strict=True) if key is None), None)
        if missing is not None:
            raise InputError(folder, f"has no counterpart of {missing}", "check that both folders name pictures alike")
        clips.append(replace(clip, inputs=tuple(key for key in keys if key is not None)))
    return replace(found, clips=tuple(clips), input_store=store)


def _shared_name(name: str, scale: int) -> str:
    """Return the part of a name that a picture and its reduction share: REDS has `X4/000/…`, DIV2K `0001x4.png`."""
    stem = re.sub(r"\.(png|jpe?g|webp|bmp|tiff?)$", "", name, flags=re.IGNORECASE)
    return stem.removeprefix(f"X{scale}/").removesuffix(f"x{scale}")


def _is_rgb8(name: str, info: MediaInfo) -> bool:
    if info.dtype == np.uint8 and info.channels == 3:
        return True
    log.warning("skipped %s: it is not 8-bit RGB", name)
    return False


def _matches(name: str, patterns: Sequence[str]) -> bool:
    """Whether one of the patterns matches a name, a part of its path, or the picture or clip of which it is a sub-image."""
    candidates = {name, *name.split("/")}
    for part in tuple(candidates):
        stem, suffix = (part[: -len(s)], s) if (s := Path(part).suffix) else (part, "")
        if match := _SUB_IMAGE.fullmatch(stem):
            candidates |= {match[1], match[1] + suffix}
    return any(fnmatch.fnmatchcase(candidate, pattern) for candidate in candidates for pattern in patterns)


def _grouped(keys: Sequence[str], *, subject: Path) -> dict[str, list[str]]:
    """Group keys of frames by clip, both in natural order, and refuse missing numbers."""
    clips: dict[str, list[str]] = {}
    for key in sorted(keys, key=natural_key):
        clips.setdefault(key.rpartition("/")[0] or ".", []).append(key)
    for name, frames in clips.items():
        numbers = [int(match[1]) for frame in frames if (match := _NUMBER.search(frame))]
        gap = next((a for a, b in pairwise(numbers) if b != a + 1), None)
        if len(numbers) != len(frames) or gap is not None:
            fault = "frames without a number" if gap is None else f"no frame {gap + 1} after {gap}"
            raise InputError(subject, f"clip {name} has {fault}", "make the store again")
    return clips


def _from_files(folder: Path, exclude: Sequence[str], cache: Path | None) -> tuple[FrameStore, dict[str, list[str]]]:
    if not folder.is_dir():
        raise InputError(folder, "no such folder", "pass a folder of clips or videos")
    listing = folder / VIMEO_LIST
    if listing.is_file():
        root = folder / "sequences" if (folder / "sequences").is_dir() else folder
        return _from_folders(root, {name: root / name for name in read_list(listing) if not _matches(name, exclude)})
    videos = _videos(folder, exclude)
    below = {path.parent for path in iter_files(folder, recursive=True)}
    if videos and folder in below:
        log.warning("%s: skipped the pictures, because the folder contains videos", folder)
        below -= {folder}
    named = {path.relative_to(folder).as_posix(): path for path in sorted(below, key=lambda p: (natural_key(str(p)), p))}
    frames, clips = _from_folders(folder, {name: path for name, path in named.items() if not _matches(name, exclude)})
    if not videos:
        return frames, clips
    held = cache or default_cache()
    arrays = ArrayStore({name: decoded_video(path, cache=held) for name, path in videos.items()})
    clips = _grouped(arrays.names(), subject=folder) | clips  # a video's name has a suffix, so no folder has the same name
    return (JoinedStore([arrays, frames]) if named else arrays), clips


def _videos(folder: Path, exclude: Sequence[str]) -> dict[str, Path]:
    wanted: Callable[[str], bool] = is_video_name
    found = {p.relative_to(folder).as_posix(): p for p in iter_files(folder, recursive=True, is_wanted=wanted)}
    return {name: path for name, path in found.items() if not _matches(name, exclude)}


def _from_folders(root: Path, folders: dict[str, Path]) -> tuple[FrameStore, dict[str, list[str]]]:
    files: dict[str, Path] = {}
    clips: dict[str, list[str]] = {}
    for name, path in folders.items():
        frames = list(list_frames(path).values())
        if not frames:
            raise InputError(path, "has no frames in it", "copy the clip again, or remove it from the list")
        clips[name] = [frame.relative_to(root).as_posix() for frame in frames]
        files |= dict(zip(clips[name], frames, strict=True))
    return FileStore(files), clips


def read_list(path: Path) -> list[str]:
    """Read the names in a list of clips, one per line; empty lines are skipped.

    Raises:
        InputError: if it cannot be read, is empty, or a name leads out of the folder.
    """
    try:
        names = [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(path, f"cannot be read ({error})", "put the list of the set there") from error
    unsafe = next((name for name in names if Path(name).is_absolute() or ".." in Path(name).parts), None)
    if not names or unsafe:
        raise InputError(path, f"does not list clips ({unsafe or 'it is empty'})", "use the list of the set")
    return names
