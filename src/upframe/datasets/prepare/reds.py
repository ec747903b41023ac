"""Prepare REDS: join validation clips to the training clips, make missing inputs, and list the named splits.

The set has 240 training clips (000 to 239) and 30 validation clips (000 to 029) of 100 frames, 1280×720 (Nah et al., "NTIRE
2019 Challenges on Video Deblurring and Super-Resolution", CVPR Workshops 2019). It is usual to train on both, with validation
clip n called 240 + n. Papers hold out different clips, so each split has a name, which a run states.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from upframe.datasets.clips import list_frames
from upframe.datasets.prepare.items import (
    Item,
    Preparation,
    link_or_copy,
    require_count,
    require_folder,
    require_same,
)
from upframe.datasets.prepare.pictures import reduced_items
from upframe.datasets.prepare.stores import store_items
from upframe.errors import InputError, UsageError
from upframe.files import atomic_text

TRAIN_CLIPS = 240
VALIDATION_CLIPS = 30
FRAMES = 100
SCALE = 4


@dataclass(frozen=True)
class Split:
    """Held-out clips, of 270."""

    name: str
    held_out: tuple[str, ...]
    source: str

    @property
    def trained_on(self) -> tuple[str, ...]:
        return tuple(name for name in ALL_CLIPS if name not in self.held_out)


ALL_CLIPS = tuple(f"{n:03}" for n in range(TRAIN_CLIPS + VALIDATION_CLIPS))

SPLITS: dict[str, Split] = {
    split.name: split
    for split in (
        Split("REDS4", ("000", "011", "015", "020"), "EDVR (Wang et al., CVPR Workshops 2019), and most tables since"),
        Split("REDSofficial4", ("240", "241", "246", "257"), "validation while training, in EDVR's and BasicSR's recipes"),
        Split("official", ALL_CLIPS[TRAIN_CLIPS:], "the challenge's own validation set"),
    )
}
"""Splits by the name in a command. The first two train on 266 clips, the third on 240."""


def find_split(name: str) -> Split:
    """Return the split of this name, case ignored.

    Raises:
        UsageError: if the name is unknown.
    """
    for split in SPLITS.values():
        if split.name.lower() == name.lower():
            return split
    raise UsageError(f"split {name}", "is not known", f"use {', '.join(SPLITS)}")


def prepare_reds(root: Path, *, lmdb: bool = False, partial_set: bool = False) -> Preparation:
    """Plan to regroup REDS in place in `root`, with lists of the clips of each split in `root/splits`.

    Accepted folders are `train_sharp/000`, `train/train_sharp/000` and `train_sharp/train/train_sharp/000`, and the same for
    `val_sharp`, `train_sharp_bicubic/X4` and `val_sharp_bicubic/X4`. Validation clips get second names (hard links) in the
    training folders, or are copied if the file system has no hard links. Missing bicubic inputs are made, bit for bit as MATLAB
    makes them.

    Args:
        lmdb: Also make the stores `train_sharp.lmdb` and `train_sharp_bicubic_X4.lmdb` of all 270 clips.
        partial_set: Use the clips and frames that exist.

    Raises:
        InputError: if clips or frames are missing.
        OutputError: if a clip 240 to 269 already exists and is not its validation clip.
    """
    sharp = _locate(root, "train_sharp")
    validation = _locate(root, "val_sharp")
    joined = _joined(sharp, validation, partial_set=partial_set)
    items = [_link_item(source, target) for target, source in joined.items() if source != target]
    facts = [f"{len({target.parent for target in joined})} clips", f"{len(joined)} frames"]

    low = _find(root, "train_sharp_bicubic")
    low = (low or root / "train_sharp_bicubic") / f"X{SCALE}"
    low_validation = _find(root, "val_sharp_bicubic")
    if low.is_dir() and low_validation is not None:
        inputs = _joined(low, low_validation / f"X{SCALE}", partial_set=partial_set)
        items += [_link_item(source, target) for target, source in inputs.items() if source != target]
        input_files = inputs
    else:
        made = {source: low / target.relative_to(sharp) for target, source in joined.items()}
        items += reduced_items(made, scale=SCALE, reduction="bicubic")
        input_files = {target: target for target in made.values()}
        facts.append("bicubic inputs are made from the sharp frames")
    items += _split_lists(root / "splits", present={target.parent.name for target in joined})
    if lmdb:
        items += _store(joined, sharp, root / "train_sharp.lmdb")
        items += _store(input_files, low, root / f"train_sharp_bicubic_X{SCALE}.lmdb")
    return Preparation(f"REDS in {root}", tuple(items), {}, tuple(facts))


# Finding clips --------------------------------------------------------------------------------------------------------
def _find(root: Path, name: str) -> Path | None:
    part = name.partition("_")[0]
    for folder in (root / name / part / name, root / part / name, root / name):
        if folder.is_dir():
            return folder
    return None


def _locate(root: Path, name: str) -> Path:
    folder = _find(root, name)
    if folder is None:
        raise InputError(root / name, "no such folder", "pass the folder that holds train_sharp and val_sharp")
    return folder


def _joined(train: Path, validation: Path, *, partial_set: bool) -> dict[Path, Path]:
    """Map each frame in the joined training folder to its source: itself, or a frame of a validation clip."""
    require_folder(validation, advice="copy the validation set beside the training set")
    own = [f"{n:03}" for n in range(TRAIN_CLIPS) if (train / f"{n:03}").is_dir()]
    added = [n for n in range(VALIDATION_CLIPS) if (validation / f"{n:03}").is_dir()]
    require_count(own, TRAIN_CLIPS, subject=train, what="training clips", partial=partial_set)
    require_count(added, VALIDATION_CLIPS, subject=validation, what="validation clips", partial=partial_set)
    frames: dict[Path, Path] = {}
    for name in own:
        frames |= {path: path for path in _frames(train / name, partial_set=partial_set)}
    for n in added:
        target = train / f"{TRAIN_CLIPS + n:03}"
        sources = _frames(validation / f"{n:03}", partial_set=partial_set)
        for path in sources:
            if (target / path.name).exists():
                require_same(path, target / path.name)
        frames |= {target / path.name: path for path in sources}
    return frames


def _frames(folder: Path, *, partial_set: bool) -> list[Path]:
    frames = list(list_frames(folder).values())
    require_count(frames, FRAMES, subject=folder, what="frames", partial=partial_set)
    return frames


# Making files ---------------------------------------------------------------------------------------------------------
def _link_item(source: Path, target: Path) -> Item:
    same_disk = source.stat().st_dev == _existing(target).stat().st_dev
    return Item((target,), partial(link_or_copy, source, target), 0 if same_disk else source.stat().st_size)


def _existing(path: Path) -> Path:
    return next(p for p in (path, *path.parents) if p.exists())


def _split_lists(folder: Path, *, present: set[str]) -> list[Item]:
    """`REDS4_train.txt`, `REDS4_test.txt` and so on: names of clips, one a line."""
    items = []
    for split in SPLITS.values():
        for part, names in (("train", split.trained_on), ("test", split.held_out)):
            target = folder / f"{split.name}_{part}.txt"
            text = "".join(f"{name}\n" for name in names if name in present)
            items.append(Item((target,), partial(atomic_text, target, text), len(text)))
    return items


def _store(files: Mapping[Path, Path], root: Path, out: Path) -> tuple[Item, ...]:
    """Make a store of the joined frames, read from their source files."""
    return store_items({target.relative_to(root).as_posix(): source for target, source in files.items()}, out)
