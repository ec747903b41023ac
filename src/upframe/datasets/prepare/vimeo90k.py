"""Prepare Vimeo-90K septuplets: inputs for the listed clips, and stores of all frames or the middle ones.

The set has 64 612 training and 7 824 test clips of 7 frames, 448×256, `sequences/00001/0001/im1.png` to `im7.png`, listed in
`sep_trainlist.txt` and `sep_testlist.txt` (Xue et al., "Video Enhancement with Task-Oriented Flow", IJCV 2019).
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from upframe.datasets.clips import list_frames
from upframe.datasets.footage import read_list
from upframe.datasets.prepare.items import Preparation, require_count, require_folder
from upframe.datasets.prepare.pictures import Reduction, reduced_items
from upframe.datasets.prepare.stores import store_items
from upframe.errors import InputError

FRAMES = 7
CLIPS = {"train": 64_612, "test": 7_824}
Stored = Literal["all", "4th"]


def prepare_vimeo90k(
    root: Path,
    *,
    reduction: Reduction = "bicubic",
    scale: int = 4,
    part: Literal["train", "test"] = "train",
    lmdb: Stored | None = None,
    partial_set: bool = False,
) -> Preparation:
    """Plan inputs for the clips of a list: `sequences_LRx4/00001/0001/im1.png` by MATLAB's bicubic, `BDx4/…` by "bd".

    Args:
        lmdb: Also make the stores `vimeo90k_train_GT.lmdb` and `vimeo90k_train_LR4x.lmdb` ("bd": `…_BD4x`) of all 7 frames;
            with "4th", the truth holds only the fourth frame and is called `vimeo90k_train_GT_only4th.lmdb`.
        partial_set: Use the clips of the list that exist.

    Raises:
        InputError: if the list or clips are missing, or a clip does not have 7 frames.
    """
    sequences = require_folder(root / "sequences", advice="pass the folder that holds sequences and sep_trainlist.txt")
    listing = root / f"sep_{part}list.txt"
    names = read_list(listing)
    present = [name for name in names if (sequences / name).is_dir()]
    if not partial_set and len(present) < len(names):
        missing = next(name for name in names if not (sequences / name).is_dir())
        raise InputError(sequences / missing, "is listed but does not exist", "copy the set again, or set `partial_set=True`")
    require_count(present, CLIPS[part], subject=listing, what="clips", partial=partial_set)
    low = root / (f"sequences_LRx{scale}" if reduction == "bicubic" else f"BDx{scale}")
    truth: dict[str, Path] = {}
    for name in present:
        frames = list(list_frames(sequences / name).values())
        if [frame.name for frame in frames] != [f"im{i}.png" for i in range(1, FRAMES + 1)]:
            raise InputError(sequences / name, f"has {len(frames)} frames, not im1.png to im{FRAMES}.png", "copy it again")
        truth |= {f"{name}/{frame.name}": frame for frame in frames}
    items = list(reduced_items({path: low / name for name, path in truth.items()}, scale=scale, reduction=reduction))
    if lmdb is not None:
        stored = {name: path for name, path in truth.items() if lmdb == "all" or name.endswith("/im4.png")}
        ending = "" if lmdb == "all" else "_only4th"
        items += store_items(stored, root / f"vimeo90k_{part}_GT{ending}.lmdb")
        kind = "LR" if reduction == "bicubic" else "BD"
        items += store_items({name: low / name for name in truth}, root / f"vimeo90k_{part}_{kind}{scale}x.lmdb")
    facts = (f"{len(present)} clips of {FRAMES} frames",)
    manifests = {low: {"made": "vimeo90k", "scale": scale, "reduction": reduction, "source": str(sequences.resolve())}}
    return Preparation(f"Vimeo-90K ({part}, {reduction} x{scale}) in {root}", tuple(items), manifests, facts)
