"""Sources of training frames: files, decoded videos and LMDB, each a store of 8-bit pictures by key."""

from __future__ import annotations

import io
import logging
import os
import threading
import weakref
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from upframe.errors import InputError
from upframe.files import ScratchFolder, writing
from upframe.media.image.decoder import Decoder, Reading
from upframe.media.image.formats import SNIFF_BYTES, sniff
from upframe.media.image.pillow import PillowDecoder
from upframe.media.image.png import PngDecoder
from upframe.media.image.source import RGB8, probe, read_rgb8
from upframe.pixels import crop_to_multiple, matlab_bicubic_8bit

log = logging.getLogger(__name__)

DEFAULT_BUDGET_BYTES = 4 << 30
"""Maximum number of bytes of decoded pictures in memory."""


class FrameStore(Protocol):
    """8-bit RGB pictures by key. A store can be pickled, for worker processes, and read from several threads."""

    def names(self) -> Sequence[str]:
        """All keys."""
        ...

    def size(self, key: str) -> tuple[int, int]:
        """Return (height, width), without decoding if the format allows it."""
        ...

    def read(self, key: str) -> RGB8:
        """Return (H, W, 3) uint8, which must not be changed.

        Raises:
            InputError: if the file is missing, damaged or not 8-bit gray or RGB; the message names it.
        """
        ...


class FileStore:
    """Picture files by key.

    Args:
        sizes: (height, width) of pictures whose size is already known.
    """

    def __init__(self, files: Mapping[str, Path], *, sizes: Mapping[str, tuple[int, int]] | None = None) -> None:
        self._files = dict(files)
        self._sizes = dict(sizes or {})

    def names(self) -> Sequence[str]:
        return list(self._files)

    def path(self, key: str) -> Path:
        return self._files[key]

    def size(self, key: str) -> tuple[int, int]:
        if key not in self._sizes:
            self._sizes[key] = probe(self._files[key], first_frame=True).size
        return self._sizes[key]

    def read(self, key: str) -> RGB8:
        return read_rgb8(self._files[key])


class ArrayStore:
    """Clips in `.npy` files of shape (T, H, W, 3) uint8. They are mapped, not read: the system keeps the used parts in memory.

    The keys of clip `name` are `name/00000000` and so on.
    """

    def __init__(self, clips: Mapping[str, Path]) -> None:
        self._clips = dict(clips)
        self._maps: dict[str, RGB8] = {}

    def names(self) -> Sequence[str]:
        return [f"{name}/{i:08}" for name in self._clips for i in range(len(self._map(name)))]

    def size(self, key: str) -> tuple[int, int]:
        height, width = self._map(key.rpartition("/")[0]).shape[1:3]
        return int(height), int(width)

    def read(self, key: str) -> RGB8:
        name, _, number = key.rpartition("/")
        frame: RGB8 = self._map(name)[int(number)]
        return frame

    def _map(self, name: str) -> RGB8:
        if name not in self._maps:
            path = self._clips[name]
            try:
                self._maps[name] = np.load(path, mmap_mode="r", allow_pickle=False)
            except (OSError, ValueError) as error:
                raise InputError(path, f"is not a readable array ({error})", "remove it so that it is made again") from error
        return self._maps[name]

    def __getstate__(self) -> dict[str, Any]:
        return {"_clips": self._clips, "_maps": {}}  # the receiver maps the files again; a pickled map would be a copy


class JoinedStore:
    """Several stores as one.

    Args:
        stores: Stores without common keys.
    """

    def __init__(self, stores: Sequence[FrameStore]) -> None:
        self.stores = tuple(stores)
        self._of = {key: store for store in self.stores for key in store.names()}

    def names(self) -> Sequence[str]:
        return list(self._of)

    def size(self, key: str) -> tuple[int, int]:
        return self._of[key].size(key)

    def read(self, key: str) -> RGB8:
        return self._of[key].read(key)


class ReducedStore:
    """The pictures of another store, `factor` times smaller: MATLAB's bicubic reduction, the edge cropped to a multiple.

    The key of picture `name` is `name@2` at half the size.
    """

    def __init__(self, store: FrameStore, factor: int) -> None:
        self._store, self._factor = store, factor

    def names(self) -> Sequence[str]:
        return [f"{key}@{self._factor}" for key in self._store.names()]

    def size(self, key: str) -> tuple[int, int]:
        height, width = self._store.size(key.rpartition("@")[0])
        return height // self._factor, width // self._factor

    def read(self, key: str) -> RGB8:
        pixels = torch.from_numpy(self._store.read(key.rpartition("@")[0])).permute(2, 0, 1)
        reduced = matlab_bicubic_8bit(crop_to_multiple(pixels, self._factor).float(), self._factor)
        return np.ascontiguousarray(reduced.permute(1, 2, 0).numpy())


class HeldStore:
    """The pictures of another store, decoded once and kept in memory: all if they fit, else the most recently used.

    Args:
        budget_bytes: Memory for decoded pictures. If all pictures fit, they are decoded at once, which finds damaged files
            early, and worker processes share them through a file in the temporary folder. Otherwise pictures are decoded when
            used, and each worker process has a share of the budget.

    Raises:
        InputError: if a file is damaged and all are decoded at once; the message names the first.
    """

    def __init__(self, store: FrameStore, *, budget_bytes: int = DEFAULT_BUDGET_BYTES) -> None:
        self._store, self._budget_bytes = store, budget_bytes
        self._held: OrderedDict[str, RGB8] = OrderedDict()
        self._held_bytes = 0
        self._lock = threading.Lock()
        self._spool: Path | None = None
        keys = store.names()
        needed = 0
        for key in keys:
            height, width = store.size(key)
            needed += 3 * height * width
            if needed > budget_bytes:
                break
        self.is_complete = needed <= budget_bytes
        """Whether all pictures are in memory."""
        if self.is_complete:
            for key in keys:
                self._held[key] = np.ascontiguousarray(store.read(key))
        else:
            log.info("the training pictures take more than %.1f GB and are decoded when used", budget_bytes / 1e9)

    def names(self) -> Sequence[str]:
        return self._store.names()

    def size(self, key: str) -> tuple[int, int]:
        if self.is_complete:
            height, width = self._held[key].shape[:2]
            return int(height), int(width)
        return self._store.size(key)

    def read(self, key: str) -> RGB8:
        if self.is_complete:
            return self._held[key]
        with self._lock:
            if key in self._held:
                self._held.move_to_end(key)
                return self._held[key]
        picture = self._store.read(key)  # outside the lock, so that others can continue
        with self._lock:
            if key not in self._held:
                self._held[key] = picture
                self._held_bytes += picture.nbytes
                while self._held_bytes > self._budget_bytes:
                    self._held_bytes -= self._held.popitem(last=False)[1].nbytes
        return picture

    def __getstate__(self) -> dict[str, Any]:
        if not self.is_complete:
            return {"store": self._store, "budget_bytes": self._budget_bytes // (os.cpu_count() or 1)}
        if self._spool is None:
            self._spool = self._write_spool()
        return {"store": self._store, "spool": self._spool, "sizes": {k: p.shape[:2] for k, p in self._held.items()}}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._store, self._lock, self._held_bytes = state["store"], threading.Lock(), 0
        self._budget_bytes = state.get("budget_bytes", 0)
        self._spool = state.get("spool")
        self._held = OrderedDict()
        self.is_complete = self._spool is not None
        if self._spool is not None:
            self._held = _mapped(self._spool, state["sizes"])

    def _write_spool(self) -> Path:
        """Write all pictures to one file, which is removed with this object. This process also maps the file and frees its
        copy."""
        scratch = ScratchFolder()
        weakref.finalize(self, scratch.remove)
        path = scratch.path / "frames"
        with writing(path, advice="set TMPDIR to a disk with room"), path.open("wb") as file:
            for picture in self._held.values():
                file.write(picture.data)
        self._held = _mapped(path, {k: (p.shape[0], p.shape[1]) for k, p in self._held.items()})
        return path


def _mapped(spool: Path, sizes: Mapping[str, tuple[int, int]]) -> OrderedDict[str, RGB8]:
    flat: RGB8 = np.memmap(spool, dtype=np.uint8, mode="r")
    held: OrderedDict[str, RGB8] = OrderedDict()
    start = 0
    for key, (height, width) in sizes.items():
        length = 3 * height * width
        held[key] = flat[start : start + length].reshape(height, width, 3)
        start += length
    return held


def decode(data: bytes, *, subject: Path) -> RGB8:
    """Decode the bytes of a PNG, JPEG, WebP or BMP file to (H, W, 3) uint8; gray is repeated in three channels.

    Args:
        subject: Name of the picture in errors.

    Raises:
        InputError: if it is damaged, of another format, or not 8-bit gray or RGB.
    """
    kind = sniff(data[:SNIFF_BYTES])
    if kind not in ("png", "jpeg", "webp", "bmp"):
        raise InputError(subject, f"holds {len(data)} bytes that are not PNG, JPEG, WebP or BMP", "make the store again")
    reading = Reading(subject, io.BytesIO(data), first_frame=True)
    decoder: Decoder = PngDecoder(reading) if kind == "png" else PillowDecoder(reading, kind)
    picture = next(iter(decoder.frames())).pixels
    if picture.dtype != np.uint8 or picture.shape[2] not in (1, 3):
        raise InputError(subject, f"is {picture.dtype} with {picture.shape[2]} channels", "use 8-bit gray or RGB")
    return np.ascontiguousarray(np.broadcast_to(picture, (*picture.shape[:2], 3)))
