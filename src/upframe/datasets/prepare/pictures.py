"""Make pictures from pictures: reduced inputs, and sub-images that are fast to read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from upframe.datasets.clips import DEGRADATIONS
from upframe.datasets.prepare.items import Item, Preparation, require_apart, require_folder
from upframe.errors import InputError, UsageError
from upframe.media.image.files import iter_files, write_pixels
from upframe.media.image.source import RGB8, probe, read_rgb8
from upframe.pixels import crop_to_multiple

Reduction = Literal["bicubic", "bd"]

SUB_IMAGE_PX = 480
SUB_IMAGE_STEP_PX = 240
"""Usual size and step of sub-images of DIV2K (32 592 of them) and REDS; sources: BasicSR's and RealBasicVSR's documents."""


@dataclass(frozen=True)
class Cut:
    """Size and step of sub-images."""

    size_px: int = SUB_IMAGE_PX
    step_px: int = SUB_IMAGE_STEP_PX

    def __post_init__(self) -> None:
        if self.size_px < 1 or self.step_px < 1:
            raise UsageError("sub-images", f"of {self.size_px} px every {self.step_px} px", "use 1 or more")

    def places(self, height: int, width: int) -> list[tuple[int, int]]:
        """Return (top, left) of each sub-image, row by row: one every `step_px`, and one more at the far edge if pixels remain.

        A picture smaller than a sub-image has none.
        """
        return [(y, x) for y in self._starts(height) for x in self._starts(width)]

    def _starts(self, length: int) -> list[int]:
        if length < self.size_px:
            return []
        starts = list(range(0, length - self.size_px + 1, self.step_px))
        if starts[-1] + self.size_px < length:
            starts.append(length - self.size_px)
        return starts

    def reduced(self, scale: int) -> Cut:
        """Return the same cut of pictures `scale` times smaller.

        Raises:
            UsageError: if a side is not a multiple of the scale.
        """
        if self.size_px % scale or self.step_px % scale:
            raise UsageError("sub-images", f"{self.size_px} and {self.step_px} px are no multiples of {scale}", "change them")
        return Cut(self.size_px // scale, self.step_px // scale)


# Reduced inputs -------------------------------------------------------------------------------------------------------
def reduce_folder(source: Path, out: Path, *, scale: int, reduction: Reduction = "bicubic", suffix: str = "") -> Preparation:
    """Plan reduced versions of all pictures below `source`, in the same tree below `out`, as PNG.

    Args:
        reduction: "bicubic": MATLAB's on 8 bits. "bd": a Gaussian blur of 1.6 px, then every `scale`-th pixel.
        suffix: Added to the names: "x4" makes `0001x4.png` of `0001.png`.
    """
    files = pictures_below(source)
    require_apart(source, out)
    targets = {path: _png(out, name, suffix) for name, path in files.items()}
    return Preparation(
        f"{reduction} x{scale} of {source} in {out}",
        reduced_items(targets, scale=scale, reduction=reduction),
        {out: {"made": "reduced", "scale": scale, "reduction": reduction, "source": str(source.resolve())}},
        (f"{len(files)} pictures",),
    )


def reduced_items(targets: Mapping[Path, Path], *, scale: int, reduction: Reduction) -> tuple[Item, ...]:
    """Return items that make each target from its source picture."""
    if scale < 2:
        raise UsageError("scale", f"{scale} reduces nothing", "use 2, 3 or 4")
    return tuple(
        Item(
            (target,),
            partial(_write_reduced, source, target, scale=scale, reduction=reduction),
            max(source.stat().st_size // scale**2, 1),
        )
        for source, target in targets.items()
    )


def _write_reduced(source: Path, target: Path, *, scale: int, reduction: Reduction) -> None:
    planes = torch.from_numpy(read_rgb8(source)).permute(2, 0, 1)
    if min(planes.shape[1:]) < scale:
        raise InputError(source, f"is smaller than {scale} pixels", f"x{scale} needs at least {scale}")
    reduce = DEGRADATIONS["bicubic" if reduction == "bicubic" else "gaussian"]
    low = reduce(crop_to_multiple(planes, scale), scale)
    write_pixels(target, np.ascontiguousarray(low.permute(1, 2, 0).numpy()))


# Sub-images -----------------------------------------------------------------------------------------------------------
def cut_folder(source: Path, out: Path, *, cut: Cut, of_clips: bool = False) -> Preparation:
    """Plan sub-images of all pictures below `source`, numbered from 1, row by row, as PNG in `out`.

    `0001.png` becomes `0001_s001.png` and so on. With `of_clips`, `000/00000007.png` becomes `000_s001/00000007.png` and so on,
    so that each sub-image is a clip. Numbers have at least three digits.

    Raises:
        InputError: if a picture is smaller than a sub-image.
    """
    files = pictures_below(source)
    require_apart(source, out)
    items = [_cut_item(path, name, out, cut=cut, of_clips=of_clips) for name, path in files.items()]
    return Preparation(
        f"sub-images of {source} in {out}",
        tuple(items),
        {out: {"made": "sub-images", "size_px": cut.size_px, "step_px": cut.step_px, "source": str(source.resolve())}},
        (f"{len(files)} pictures", f"{sum(len(item.targets) for item in items)} sub-images"),
    )


def _cut_item(path: Path, name: str, out: Path, *, cut: Cut, of_clips: bool) -> Item:
    height, width = probe(path, first_frame=True).size
    places = cut.places(height, width)
    if not places:
        raise InputError(path, f"is {height}x{width}, smaller than a sub-image of {cut.size_px} px", "use a smaller size")
    digits = max(3, len(str(len(places))))
    targets = []
    for number in range(1, len(places) + 1):
        folder, _, file = name.rpartition("/")
        stem = Path(file).stem
        part = f"_s{number:0{digits}}"
        targets.append(out / f"{folder}{part}" / f"{stem}.png" if of_clips else out / folder / f"{stem}{part}.png")
    make = partial(_write_cuts, path, tuple(zip(places, targets, strict=True)), cut.size_px)
    area = len(places) * cut.size_px**2
    return Item(tuple(targets), make, path.stat().st_size * area // (height * width) + 1)


def _write_cuts(source: Path, cuts: Sequence[tuple[tuple[int, int], Path]], size_px: int) -> None:
    picture: RGB8 = read_rgb8(source)
    for (top, left), target in cuts:
        if target.exists():
            continue
        write_pixels(target, np.ascontiguousarray(picture[top : top + size_px, left : left + size_px]))


def pictures_below(source: Path) -> dict[str, Path]:
    """Return the pictures below a folder by name.

    Raises:
        InputError: if there are none, or two names differ only in their extension.
    """
    require_folder(source, advice="pass a folder of pictures")
    files = {path.relative_to(source).as_posix(): path for path in iter_files(source, recursive=True)}
    if not files:
        raise InputError(source, "has no pictures in it", "pass a folder of pictures")
    stems = [name.rpartition(".")[0] for name in files]
    if len(set(stems)) < len(stems):
        twice = next(stem for stem in stems if stems.count(stem) > 1)
        raise InputError(source, f"has two pictures called {twice}", "rename one")
    return dict(sorted(files.items()))


def _png(out: Path, name: str, suffix: str) -> Path:
    return out / f"{name.rpartition('.')[0]}{suffix}.png"
