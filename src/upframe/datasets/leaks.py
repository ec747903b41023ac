"""Find test pictures among training pictures, by exact pixels and by a perceptual hash.

The perceptual hash survives resizing, recompression, mild colour changes and all eight orientations. It does not find a
small crop of a large picture.
"""

from __future__ import annotations

import hashlib
import logging
import math
import os
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from upframe.datasets.footage import FootageSet
from upframe.errors import UsageError
from upframe.pixels import resize, rgb_to_y, to_unit

log = logging.getLogger(__name__)

HASH_SIDE = 8  # 8×8 low frequencies: 64 bits
SAMPLED_PX = 32
ALIKE_BITS = 8
"""Pictures whose hashes differ in at most this many of 64 bits count as the same. Unrelated photographs differ in about 32
bits; recompressed and resized copies in 0 to 4."""
MOST_FRAMES = 3000
"""Maximum number of compared frames of a training set. Neighbouring frames of a clip look alike, so evenly spaced frames
represent larger sets."""

Frames = Mapping[str, NDArray[Any]] | Iterable[tuple[str, NDArray[Any]]]
"""(H, W, C) pixels by name, as a mapping or one after the other."""

_BLOCK = 4096  # hashes compared at a time
_COARSE_PX = 128  # pictures are first averaged to about this side, which is fast, and then resampled


@dataclass(frozen=True)
class Leak:
    train: str
    test: str
    kind: Literal["exact", "alike"]
    bits: int
    """Number of differing hash bits."""


@dataclass(frozen=True)
class Fingerprints:
    """Data of a set of pictures for the comparison: 4 KB for each."""

    names: tuple[str, ...]
    digests: tuple[bytes, ...]
    """SHA-256 of shape, depth and pixels."""
    thumbnails: NDArray[np.float32]
    """(n, 32, 32) luma."""

    def hashes(self) -> NDArray[np.uint64]:
        """(n,)"""
        return _hashes(self.thumbnails)

    def posed_hashes(self) -> NDArray[np.uint64]:
        """(8, n): the hashes of each orientation."""
        turned = [np.rot90(self.thumbnails, k, (1, 2)) for k in range(4)]
        return np.stack([_hashes(t) for one in turned for t in (one, one[..., ::-1])])


def fingerprints(frames: Frames) -> Fingerprints:
    """Compute fingerprints of pictures. Pictures are read one at a time and not kept."""
    names, digests, thumbnails = [], [], []
    for name, pixels in frames.items() if isinstance(frames, Mapping) else frames:
        names.append(name)
        digests.append(_digest(pixels))
        thumbnails.append(_thumbnail(pixels))
    stacked = np.stack(thumbnails) if thumbnails else np.empty((0, SAMPLED_PX, SAMPLED_PX), np.float32)
    return Fingerprints(tuple(names), tuple(digests), stacked)


def find_leaks(train: Frames | Fingerprints, test: Frames | Fingerprints) -> list[Leak]:
    """Find every pair of a training and a test picture with the same content; pictures of one uniform colour are skipped.

    Returns:
        Leaks in the order of the test pictures. A test picture with an exact copy in the training set is listed only with that
        copy.
    """
    known = train if isinstance(train, Fingerprints) else fingerprints(train)
    asked = test if isinstance(test, Fingerprints) else fingerprints(test)
    exact = dict(zip(known.digests, known.names, strict=True))
    alike = _alike(known, asked)
    leaks = []
    for number, (name, digest) in enumerate(zip(asked.names, asked.digests, strict=True)):
        if digest in exact:
            leaks.append(Leak(exact[digest], name, "exact", 0))
        else:
            leaks += [Leak(known.names[i], name, "alike", bits) for i, bits in alike.get(number, [])]
    return leaks


def _alike(known: Fingerprints, asked: Fingerprints) -> dict[int, list[tuple[int, int]]]:
    """Return, for the number of each test picture, the training pictures with the same content and the differing bits."""
    mine, posed = known.hashes(), asked.posed_hashes()
    # The hash of a picture without content is noise.
    shows_something = known.thumbnails.reshape(len(mine), -1).std(1) > _FLAT if len(mine) else np.empty(0, bool)
    asks_something = asked.thumbnails.reshape(len(asked.names), -1).std(1) > _FLAT if asked.names else np.empty(0, bool)
    found: dict[int, list[tuple[int, int]]] = {}
    for start in range(0, len(mine), _BLOCK):
        block = mine[start : start + _BLOCK]
        least = np.full((len(asked.names), len(block)), 64, np.uint8)
        for pose in posed:
            np.minimum(least, np.bitwise_count(pose[:, None] ^ block[None]), out=least)
        near = (least <= ALIKE_BITS) & asks_something[:, None] & shows_something[None, start : start + _BLOCK]
        for test, train in zip(*np.nonzero(near), strict=True):
            found.setdefault(int(test), []).append((start + int(train), int(least[test, train])))
    return found


_FLAT = 0.5 / 255
"""Standard deviation of the thumbnail's luma below which a picture has no content, such as black and white frames of fades."""


# Training sets --------------------------------------------------------------------------------------------------------
def refuse_leaks(footage: FootageSet, held_out: Frames, *, most_frames: int = MOST_FRAMES, threads: int | None = None) -> None:
    """Refuse to train on pictures that are used for testing.

    Args:
        held_out: Test pictures and frames by name.
        most_frames: See `MOST_FRAMES`.
        threads: Number of threads that decode training frames; by default the number of cores.

    Raises:
        UsageError: if test pictures are in the training set; the message names pairs.
        InputError: if a training file cannot be read; the message names it.
    """
    test = fingerprints(held_out)
    if not test.names:
        return
    train = footage_fingerprints(footage, most_frames=most_frames, threads=threads)
    log.info("compared %d training frames with %d test frames", len(train.names), len(test.names))
    leaks = find_leaks(train, test)
    if leaks:
        pairs = ", ".join(f"{leak.train} shows the same as {leak.test}" for leak in leaks[:3])
        count = len({leak.test for leak in leaks})
        raise UsageError("training set", f"{count} test pictures are in it: {pairs}", "exclude them")


def footage_fingerprints(footage: FootageSet, *, most_frames: int = MOST_FRAMES, threads: int | None = None) -> Fingerprints:
    """Compute fingerprints of a training set's frames, or of evenly spaced frames of each clip, including its first."""
    keys = list(sampled_frames(footage, most_frames=most_frames))

    def one(key: str) -> Fingerprints:
        return fingerprints([(key, footage.store.read(key))])

    with ThreadPoolExecutor(threads or os.cpu_count() or 1) as pool:  # decoders release the interpreter's lock
        parts = list(pool.map(one, keys))
    return Fingerprints(
        tuple(keys),
        tuple(part.digests[0] for part in parts),
        np.concatenate([part.thumbnails for part in parts]),
    )


def sampled_frames(footage: FootageSet, *, most_frames: int = MOST_FRAMES) -> Iterator[str]:
    """Yield keys of about `most_frames` frames, at least one from each clip."""
    total = sum(len(clip.frames) for clip in footage.clips)
    stride = max(1, math.ceil(total / most_frames))
    for clip in footage.clips:
        yield from clip.frames[::stride]


# Hashes ---------------------------------------------------------------------------------------------------------------
def perceptual_hash(pixels: NDArray[Any]) -> int:
    """Return 64 bits: for each of the lowest 8×8 DCT coefficients of the picture's luma (without the mean), whether it exceeds
    their median."""
    return int(_hashes(_thumbnail(pixels)[None])[0])


def _thumbnail(pixels: NDArray[Any]) -> NDArray[np.float32]:
    """Return (32, 32) luma in [0, 1]."""
    rgb = pixels[..., :3] if pixels.shape[2] >= 3 else pixels[..., :1].repeat(3, axis=2)
    factor = max(1, min(rgb.shape[:2]) // _COARSE_PX)
    height, width = rgb.shape[0] // factor, rgb.shape[1] // factor
    unit: Tensor = to_unit(rgb[: height * factor, : width * factor])
    if factor > 1:
        unit = torch.nn.functional.avg_pool2d(unit, factor)
    small: NDArray[np.float32] = resize(rgb_to_y(unit).double(), (SAMPLED_PX, SAMPLED_PX))[0].float().numpy()
    return small


def _hashes(thumbnails: NDArray[np.float32]) -> NDArray[np.uint64]:
    """(n, 32, 32) → (n,)"""
    n = SAMPLED_PX
    k = np.arange(HASH_SIDE)[:, None]
    basis = np.cos(math.pi * (np.arange(n) + 0.5) * k / n)  # DCT-II
    low = (basis @ thumbnails.astype(np.float64) @ basis.T).reshape(len(thumbnails), -1)
    # The lower of the two middle values, as in torch, so that half of the bits are set.
    middle = np.sort(low[:, 1:], axis=1)[:, (low.shape[1] - 2) // 2, None] if len(low) else np.empty((0, 1))
    bits = low > middle
    bits[:, 0] = False  # the mean carries no content
    packed: NDArray[np.uint64] = (bits * (np.uint64(1) << np.arange(HASH_SIDE**2, dtype=np.uint64))).sum(1, dtype=np.uint64)
    return packed


def _digest(pixels: NDArray[Any]) -> bytes:
    digest = hashlib.sha256(repr((pixels.shape, pixels.dtype.name)).encode())
    digest.update(np.ascontiguousarray(pixels).data)
    return digest.digest()
