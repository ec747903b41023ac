"""Test sets on disk: their images, and the pairs of input and truth.

The layout is `<Set>/HR/<name>.png` and `<Set>/LRbicX2|LRbicX3|LRbicX4/<name>.png`. If a set has no folder for a scale, its
inputs are made from the truth, exactly as published inputs are (`pixels.matlab_bicubic_8bit`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from upframe import pixels
from upframe.errors import InputError
from upframe.media.image.source import RGB8, read_rgb8

IMAGE_SUFFIXES = {".png", ".bmp", ".tif", ".tiff", ".jpg", ".jpeg", ".webp"}
SET_ORDER = ("Set5", "Set14", "B100", "Urban100", "Manga109", "DIV2K")  # as tables print them


@dataclass(frozen=True)
class ImagePair:
    """The files of one test image."""

    name: str
    hr: Path
    lr: Path | None
    """None if it is made from `hr`."""


@dataclass(frozen=True)
class ImageSet:
    """A test set, its images sorted by name."""

    name: str
    images: tuple[ImagePair, ...]


def find_test_sets(data: Path, *, scale: int, datasets: Sequence[str] | None = None) -> tuple[ImageSet, ...]:
    """Find the test sets in a folder.

    Args:
        data: A folder of sets, each with `HR/` and perhaps `LRbicX{scale}/`; or one such set; or only HR images.
        datasets: Names of the sets to find, in this order, case ignored; by default all.

    Raises:
        InputError: if the folder, a wanted set, or the LR file of an image is missing.
    """
    if not data.is_dir():
        raise InputError(data, "no such folder", "pass a folder with test sets, for instance one that holds Set5/HR/*.png")
    with_hr = {child.name: child / "HR" for child in _entries(data) if (child / "HR").is_dir()}
    found = {data.resolve().name: data / "HR"} if (data / "HR").is_dir() else with_hr or {data.resolve().name: data}
    names = sorted(found, key=_set_rank)
    if datasets is not None:
        by_key = {canonical_set(name): name for name in names}
        missing = [name for name in datasets if canonical_set(name) not in by_key]
        if missing:
            raise InputError(data, f"no test set {', '.join(missing)}", f"there are {', '.join(names)}")
        names = list(dict.fromkeys(by_key[canonical_set(name)] for name in datasets))
    return tuple(_test_set(name, found[name], scale) for name in names)


def canonical_set(name: str) -> str:
    """Return a key that is the same for all spellings of a set's name: B100 and BSD100 are the same hundred images."""
    key = name.lower().replace("-", "").replace("_", "")
    return "bsd100" if key in ("b100", "bsds100") else key


def _set_rank(name: str) -> tuple[int, str]:
    keys = [canonical_set(known) for known in SET_ORDER]
    key = canonical_set(name)
    return (keys.index(key) if key in keys else len(keys), name)


def _test_set(name: str, hr: Path, scale: int) -> ImageSet:
    low = hr.parent / f"LRbicX{scale}"
    has_low = hr.name == "HR" and low.is_dir()
    inputs = {path.stem: path for path in _image_files(low)} if has_low else {}
    found: dict[str, ImagePair] = {}
    for path in _image_files(hr):
        if path.stem in found:
            raise InputError(path, f"has the same name as {found[path.stem].hr.name}", "rename one of them")
        if has_low and path.stem not in inputs:
            raise InputError(path, f"has no counterpart in {low.name}", "add it, or remove that folder so that inputs are made")
        found[path.stem] = ImagePair(path.stem, path, inputs.get(path.stem))
    if not found:
        raise InputError(hr, "no images here", f"expected {', '.join(sorted(IMAGE_SUFFIXES))}")
    return ImageSet(name, tuple(found.values()))


def _image_files(folder: Path) -> list[Path]:
    return [p for p in _entries(folder) if p.suffix.lower() in IMAGE_SUFFIXES and not p.name.startswith(".")]


def _entries(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError as error:
        raise InputError(folder, f"cannot be listed ({error.strerror})", "check its permissions") from error


@dataclass(frozen=True)
class Sample:
    """The pixels of one image or clip; an image is a clip of one frame."""

    lr: tuple[RGB8, ...]
    """Every input frame, all of one size."""
    scored: tuple[int, ...]
    """Indices of scored images, from 0."""
    truth: tuple[RGB8, ...]
    """The truth of the scored images, in that order; empty if it is not known."""
    files: tuple[str, ...]
    """Names for the outputs of the scored images, without extension."""


def load_sample(image: ImagePair, *, scale: int) -> Sample:
    """Load an image pair as a sample; see `load_pair`."""
    lr, hr = load_pair(image, scale=scale)
    return Sample((lr,), (0,), (hr,), (image.name,))


def load_pair(
    image: ImagePair, *, scale: int, degrade: Callable[[torch.Tensor, int], torch.Tensor] = pixels.matlab_bicubic_8bit
) -> tuple[RGB8, RGB8]:
    """Load input and truth, (h, w, 3) and (h * scale, w * scale, 3) uint8.

    Args:
        degrade: Makes the input from the truth (3, H, W) uint8 and the scale, if there is no file of it.

    Raises:
        InputError: if a file is not 8-bit gray or RGB, or LR and HR do not fit together.
    """
    hr = read_rgb8(image.hr)
    height, width = hr.shape[0] // scale, hr.shape[1] // scale
    if not height or not width:
        raise InputError(image.hr, f"is smaller than {scale} pixels", f"x{scale} needs at least {scale}")
    hr = np.ascontiguousarray(hr[: height * scale, : width * scale])
    if image.lr is None:
        planes = torch.from_numpy(hr).permute(2, 0, 1)
        return np.ascontiguousarray(degrade(planes, scale).permute(1, 2, 0).numpy()), hr
    lr = read_rgb8(image.lr)
    if lr.shape != (height, width, 3):
        raise InputError(
            image.lr,
            f"is {lr.shape[0]}x{lr.shape[1]}, but {image.hr.name} at x{scale} needs {height}x{width} (height x width)",
            "check that both belong to the same image and scale",
        )
    return lr, hr
