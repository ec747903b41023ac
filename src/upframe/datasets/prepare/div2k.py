"""Prepare DIV2K: missing inputs, sub-images of truth and inputs, and stores of the sub-images.

The set has 800 training pictures `DIV2K_train_HR/0001.png` to `0800.png` and bicubic inputs such as
`DIV2K_train_LR_bicubic/X4/0001x4.png` (Agustsson and Timofte, "NTIRE 2017 Challenge on Single Image Super-Resolution: Dataset
and Study", CVPR Workshops 2017). Cutting 480 px every 240 px gives 32 592 sub-images.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np

from upframe.datasets.prepare.items import Item, Preparation, require_count, require_folder
from upframe.datasets.prepare.pictures import Cut, reduced_items
from upframe.datasets.prepare.stores import store_items
from upframe.errors import InputError
from upframe.media.image.files import iter_files, write_pixels
from upframe.media.image.source import probe, read_rgb8

PICTURES = 800
SCALES = (2, 3, 4)


def prepare_div2k(
    root: Path, *, cut: Cut | None = None, lmdb: bool = False, scales: tuple[int, ...] = SCALES, partial_set: bool = False
) -> Preparation:
    """Plan sub-images `DIV2K_train_HR_sub/0001_s001.png` and `DIV2K_train_LR_bicubic/X4_sub/0001_s001.png` at the same places.

    Missing inputs are made first, bit for bit as MATLAB makes them.

    Args:
        cut: Size and step of the sub-images; by default 480 px every 240 px.
        lmdb: Also make the stores `DIV2K_train_HR_sub.lmdb` and `DIV2K_train_LR_bicubic_X4_sub.lmdb`.
        partial_set: Use the pictures that exist.

    Raises:
        InputError: if pictures are missing, one is smaller than a sub-image, or an input does not fit its truth.
        OutputError: if a folder of sub-images exists and was cut differently.
    """
    cut = cut or Cut()
    advice = "pass the folder that holds DIV2K_train_HR"
    truth = list(iter_files(require_folder(root / "DIV2K_train_HR", advice=advice)))
    require_count(truth, PICTURES, subject=root / "DIV2K_train_HR", what="pictures", partial=partial_set)
    items: list[Item] = []
    manifests: dict[Path, dict[str, object]] = {}
    names: list[str] = []
    for scale in (1, *scales):
        low = root / "DIV2K_train_LR_bicubic" / f"X{scale}"
        folder = root / "DIV2K_train_HR_sub" if scale == 1 else low.with_name(f"X{scale}_sub")
        sources = truth if scale == 1 else [low / f"{path.stem}x{scale}.png" for path in truth]
        if scale > 1:
            items += reduced_items(dict(zip(truth, sources, strict=True)), scale=scale, reduction="bicubic")
        cuts = [_cut_item(t, s, folder, cut=cut, scale=scale) for t, s in zip(truth, sources, strict=True)]
        items += cuts
        manifests[folder] = {"made": "div2k", "scale": scale, "size_px": cut.size_px, "step_px": cut.step_px}
        if lmdb:
            files = {target.name: target for item in cuts for target in item.targets}
            store = "DIV2K_train_HR_sub" if scale == 1 else f"DIV2K_train_LR_bicubic_X{scale}_sub"
            items += [Item(i.targets, i.make, i.size_bytes, phase=2) for i in store_items(files, root / f"{store}.lmdb")]
        names = [target.name for item in cuts for target in item.targets]
    facts = (f"{len(truth)} pictures", f"{len(names)} sub-images of {cut.size_px} px every {cut.step_px} px")
    return Preparation(f"DIV2K in {root}", tuple(items), manifests, facts)


def _cut_item(truth: Path, source: Path, folder: Path, *, cut: Cut, scale: int) -> Item:
    """Make the item for the sub-images of one picture or input, at the places of the truth's sub-images."""
    height, width = probe(truth, first_frame=True).size
    # Cut from the part that the input covers, so that each sub-image begins on a multiple of the scale.
    whole = np.lcm.reduce(np.array(SCALES))
    places = cut.places(height - height % whole, width - width % whole)
    if not places:
        raise InputError(truth, f"is {height}x{width}, smaller than a sub-image of {cut.size_px} px", "use a smaller size")
    small = cut.reduced(scale)
    targets = tuple(folder / f"{truth.stem}_s{number:03}.png" for number in range(1, len(places) + 1))
    at = tuple((y // scale, x // scale) for y, x in places)
    size_bytes = 2 * len(targets) * small.size_px**2  # a PNG of a photograph takes about two thirds of its 3 bytes a pixel
    make = partial(_write_cuts, source, at, targets, small.size_px, (height // scale, width // scale))
    return Item(targets, make, size_bytes, phase=0 if scale == 1 else 1)


def _write_cuts(
    source: Path, places: tuple[tuple[int, int], ...], targets: tuple[Path, ...], size_px: int, expected: tuple[int, int]
) -> None:
    picture = read_rgb8(source)
    if picture.shape[:2] != expected:
        (h, w), (due_h, due_w) = picture.shape[:2], expected
        raise InputError(source, f"is {h}x{w}, not {due_h}x{due_w} (height x width)", "get the file again")
    for (top, left), target in zip(places, targets, strict=True):
        if not target.exists():
            write_pixels(target, np.ascontiguousarray(picture[top : top + size_px, left : left + size_px]))
