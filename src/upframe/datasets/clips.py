"""Video test sets on disk: their usual folder layouts, their frames in order and without gaps, and their pixels.

The numbers in their names give the order of the frames, and every number must occur once. A folder that is read in file-system
order, or that lost a frame in copying, would still give plausible scores: the pictures of one published model, stored in
unsorted order, reach 16 dB instead of 28.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from upframe import pixels
from upframe.datasets.images import ImagePair, Sample, load_pair
from upframe.errors import InputError
from upframe.media.image.listing import iter_files, natural_key
from upframe.media.image.source import RGB8, read_rgb8
from upframe.metrics.protocols import ClipRule

log = logging.getLogger(__name__)

BD_SIGMA = 1.6
BD_RADIUS = 6
"""Blur of the "BD" degradation: a 13×13 Gaussian of σ 1.6, as in DUF (Jo et al., CVPR 2018) and later tables."""


# Layouts --------------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Layout:
    """Possible folders of a clip below the root of a set; the first existing one counts.

    `{clip}` is the clip's name, `{scale}` the scale, `{val}` the name minus 240, because the clips of the REDS validation set
    have both numbers. A pattern without `{clip}` is for a folder that holds one clip.
    """

    truth: tuple[str, ...]
    inputs: tuple[str, ...]
    listing: str | None = None
    """A file below the root that lists the clips, one per line; other folders are ignored."""


_SIMPLE_TRUTH = ("GT/{clip}", "HR/{clip}", "{clip}/HR", "{clip}/GT", "{clip}/truth", "HR", "GT", "truth")
_BI = ("BIx{scale}/{clip}", "LRbicX{scale}/{clip}", "{clip}/LRbicX{scale}", "{clip}/BIx{scale}", "LRbicX{scale}", "BIx{scale}")
_BD = ("BDx{scale}/{clip}", "{clip}/BDx{scale}", "{clip}/blur{scale}", "BDx{scale}", "blur{scale}")
_REDS_TRUTH = ("train_sharp/train/train_sharp/{clip}", "train/train_sharp/{clip}", "train_sharp/{clip}", *_SIMPLE_TRUTH[:3])
_REDS_INPUTS = (
    "train_sharp_bicubic/train/train_sharp_bicubic/X{scale}/{clip}",
    "train/train_sharp_bicubic/X{scale}/{clip}",
    "train_sharp_bicubic/X{scale}/{clip}",
    "sharp_bicubic/{clip}",
    *_BI[:3],
)

LAYOUTS: dict[str, Layout] = {
    "vid4": Layout((*_SIMPLE_TRUTH, "{clip}"), _BI),
    "vid4-bd": Layout((*_SIMPLE_TRUTH, "{clip}"), _BD),
    "reds": Layout(_REDS_TRUTH, _REDS_INPUTS),
    "reds-val": Layout(
        (
            *_REDS_TRUTH,
            "val_sharp/val/val_sharp/{val}",
            "val/val_sharp/{val}",
            "val_sharp/{val}",
        ),
        (
            *_REDS_INPUTS,
            "val_sharp_bicubic/val/val_sharp_bicubic/X{scale}/{val}",
            "val/val_sharp_bicubic/X{scale}/{val}",
            "val_sharp_bicubic/X{scale}/{val}",
        ),
    ),
    "vimeo": Layout(
        ("sequences/{clip}", "GT/{clip}", "target/{clip}"),
        ("sequences_LRx{scale}/{clip}", "sequences_BIx{scale}/{clip}", "BIx{scale}/{clip}"),
        listing="sep_testlist.txt",
    ),
    "udm10": Layout((*_SIMPLE_TRUTH, "{clip}"), _BD),
    "udm10-bi": Layout((*_SIMPLE_TRUTH, "{clip}"), (*_BI, "{clip}/bicubic{scale}")),
    "videolq": Layout((), ("LQ/{clip}", "lq/{clip}", "{clip}", "LQ", ".")),
}
"""Layouts by the name in a `ClipRule`."""


# Degradations ---------------------------------------------------------------------------------------------------------
def blur_and_subsample_8bit(planes: Tensor, scale: int) -> Tensor:
    """The "BD" degradation of 8-bit data (..., H, W): Gaussian blur, then every `scale`-th pixel from the top left.

    Borders are mirrored without repeating the edge; the result is rounded once. The kept pixel is the first of each
    `scale`×`scale` block, not its centre: unlike bicubic inputs, these inputs are shifted by (scale − 1) / 2 pixels.

    Returns:
        uint8 (..., H/scale, W/scale).
    """
    at = torch.arange(-BD_RADIUS, BD_RADIUS + 1, dtype=torch.float64)
    weights = torch.exp(-(at**2) / (2 * BD_SIGMA**2))
    taps = (weights / weights.sum()).tolist()
    x = pixels.mirror_pad(planes.double(), top=BD_RADIUS, bottom=BD_RADIUS, left=BD_RADIUS, right=BD_RADIUS)
    for axis in (-2, -1):
        length = planes.shape[axis]
        x = torch.stack([tap * x.narrow(axis, i, length) for i, tap in enumerate(taps)]).sum(0)
    return torch.floor(x[..., ::scale, ::scale] + 0.5).clamp_(0, 255).to(torch.uint8)


DEGRADATIONS: Mapping[Literal["bicubic", "gaussian"], Callable[[Tensor, int], Tensor]] = {
    "bicubic": pixels.matlab_bicubic_8bit,
    "gaussian": blur_and_subsample_8bit,
}


# Clips ----------------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Clip:
    """The files of one clip."""

    name: str
    inputs: tuple[Path, ...]
    """Every frame, in order; empty if inputs are made from the truth."""
    truth: Mapping[int, Path]
    """True frames by position, all of them if inputs are made from them; empty if the truth is not known."""
    scored: tuple[int, ...]
    """Positions that are scored."""
    rule: ClipRule

    @property
    def folder(self) -> Path:
        """Folder of its frames: the inputs, or the truth from which inputs are made."""
        return (self.inputs or tuple(self.truth.values()))[0].parent

    @property
    def frames(self) -> int:
        return len(self.inputs) or len(self.truth)


@dataclass(frozen=True)
class ClipSet:
    """A video test set, its clips in natural order."""

    name: str
    """Name in tables; it states the part if the set is incomplete."""
    clips: tuple[Clip, ...]


def find_clip_set(data: Path, rule: ClipRule, *, scale: int, limit: int | None = None) -> ClipSet:
    """Find the clips of a set in a folder.

    Args:
        data: The root of the set, in one of the layouts of `LAYOUTS[rule.layout]`.
        limit: Use only the first `limit` clips.

    Raises:
        InputError: if the folder, a clip, a frame or the counterpart of one is missing, or a folder mixes clips.
    """
    if not data.is_dir():
        raise InputError(data, "no such folder", f"pass the folder of {rule.dataset}")
    layout = LAYOUTS[rule.layout]
    patterns = layout.truth if rule.has_truth else layout.inputs
    pattern, names = _find_clips(data, rule, layout, patterns, scale)
    inputs = next((p for p in layout.inputs if _folder(data, p, names[0], scale) is not None), None)
    clips = tuple(
        _clip(name, rule, truth=_folder(data, pattern, name, scale), inputs=_counterpart(data, inputs, name, scale))
        if rule.has_truth
        else _clip(name, rule, truth=None, inputs=_folder(data, pattern, name, scale))
        for name in names[:limit]
    )
    return ClipSet(_title(rule, clips), clips)


def _title(rule: ClipRule, clips: Sequence[Clip]) -> str:
    """Return the set's name, with the number of clips and frames found if the set is incomplete."""
    found = (len(clips), sum(len(clip.scored) for clip in clips))
    if found == rule.whole:
        return rule.dataset
    return f"{rule.dataset} ({found[0]} of {rule.whole[0]} clips, {found[1]} of {rule.whole[1]} frames)"


def _find_clips(data: Path, rule: ClipRule, layout: Layout, patterns: Sequence[str], scale: int) -> tuple[str, tuple[str, ...]]:
    """Return the pattern that this folder follows, and the names of its clips."""
    wanted = rule.clips
    if layout.listing is not None:
        wanted = _listed(data / layout.listing)
    for pattern in patterns:
        names = wanted if wanted is not None else _clip_names(data, pattern, scale)
        there = [name for name in names if _folder(data, pattern, name, scale) is not None]
        if not there:
            continue
        missing = [name for name in names if name not in there]
        if missing:
            more = f" and {len(missing) - 5} more" if len(missing) > 5 else ""
            raise InputError(
                data, f"clip {', '.join(missing[:5])}{more} of {rule.dataset} is missing", f"add it as {_shown(pattern, scale)}"
            )
        return pattern, tuple(names)
    shown = ", ".join(_shown(p, scale) for p in patterns)
    raise InputError(data, f"no clips of {rule.dataset} found here", f"expected frames in one of {shown}")


def _shown(pattern: str, scale: int) -> str:
    return f"{pattern.replace('{clip}', '<clip>').replace('{val}', '<clip>').format(scale=scale)}/*.png"


def _listed(path: Path) -> tuple[str, ...]:
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(path, f"the list of test clips cannot be read ({error})", "put it at the root of the set") from error
    names = tuple(line for line in lines if line)
    unsafe = [name for name in names if Path(name).is_absolute() or ".." in Path(name).parts]
    if not names or unsafe:
        raise InputError(path, f"does not list clips ({unsafe[0] if unsafe else 'it is empty'})", "use the list of the set")
    return names


def _clip_names(data: Path, pattern: str, scale: int) -> tuple[str, ...]:
    """Return the names that `{clip}` matches below the root, in natural order; the root's own name if the pattern has none."""
    if "{clip}" not in pattern:
        return (data.resolve().name,)
    if "{val}" in pattern:
        return ()
    base = data / pattern.partition("{clip}")[0].format(scale=scale)
    try:
        names = [child.name for child in base.iterdir() if child.is_dir() and not child.name.startswith(".")]
    except OSError:
        return ()
    names.sort(key=lambda name: (natural_key(name), name))
    return tuple(name for name in names if _folder(data, pattern, name, scale) is not None)


def _folder(data: Path, pattern: str, clip: str, scale: int) -> Path | None:
    """Return the folder of a clip, if it contains images."""
    folder = _path(data, pattern, clip, scale)
    return folder if folder.is_dir() and next(iter_files(folder), None) is not None else None


def _path(data: Path, pattern: str, clip: str, scale: int) -> Path:
    return data / pattern.format(clip=clip, scale=scale, val=f"{int(clip) - 240:03d}" if clip.isdecimal() else clip)


def _counterpart(data: Path, pattern: str | None, clip: str, scale: int) -> Path | None:
    if pattern is None:
        return None
    folder = _folder(data, pattern, clip, scale)
    if folder is None:
        raise InputError(
            _path(data, pattern, clip, scale),
            f"clip {clip} has no input frames here",
            "add them, or remove the other clips' inputs so that all are made",
        )
    return folder


def _clip(name: str, rule: ClipRule, *, truth: Path | None, inputs: Path | None) -> Clip:
    lr = list_frames(inputs) if inputs is not None else {}
    hr = list_frames(truth) if truth is not None else {}
    numbers = list(lr or hr)
    if not numbers:
        raise InputError(name, "a clip needs frames", "check its folder")
    scored = tuple(i for i in (rule.frames or range(len(numbers))) if i < len(numbers))
    if not scored:
        raise InputError(inputs or truth or name, f"ends before frame {(rule.frames or (0,))[0]}", "check the folder")
    if rule.frames is not None and len(scored) < len(rule.frames):
        log.warning("%s: only frames %s are scored, the clip has %d", name, ", ".join(map(str, scored)), len(numbers))
    if truth is not None and inputs is not None:
        needed = {numbers[i] for i in scored}
        # A truth may have only the scored frames, as copies of Vimeo-90K do; an extra frame means that input frames are
        # missing.
        odd = sorted(needed - hr.keys()) or sorted(hr.keys() - lr.keys())
        if odd:
            lacking = truth if odd[0] not in hr else inputs
            raise InputError(lacking, f"frame {odd[0]} is missing", "check that input and truth are numbered alike")
    return Clip(name, tuple(lr.values()), {i: hr[n] for i, n in enumerate(numbers) if n in hr}, scored, rule)


def list_frames(folder: Path) -> dict[int, Path]:
    """Return the frames of a clip by number, ascending, without gaps.

    Raises:
        InputError: if a name has no number, two have the same, names differ before the number, or a number is missing.
    """
    found: dict[int, Path] = {}
    before: str | None = None
    for path in iter_files(folder):
        match = re.fullmatch(r"(.*?)([0-9]+)", path.stem)
        if match is None:
            raise InputError(path, "has no number, so its position is unknown", "name frames such as 00000000.png")
        if before is not None and match[1] != before:
            raise InputError(path, f"seems to belong to another clip than {before}…", "keep each clip in a folder of its own")
        before, number = match[1], int(match[2])
        if number in found:
            raise InputError(path, f"has the same number as {found[number].name}", "remove one of them")
        found[number] = path
    ordered = dict(sorted(found.items()))
    gap = next((n for n in ordered if n + 1 not in ordered and n != max(ordered)), None)
    if gap is not None:
        raise InputError(folder, f"frame {gap + 1} is missing after {ordered[gap].name}", "copy the clip again")
    return ordered


def load_clip(clip: Clip, *, scale: int) -> Sample:
    """Load the pixels of a clip: all inputs, and the truth of the scored frames.

    Raises:
        InputError: if a file is not 8-bit gray or RGB, frames differ in size, or input and truth do not fit together.
    """
    degrade = DEGRADATIONS[clip.rule.degradation]
    lr: list[RGB8] = []
    truth: dict[int, RGB8] = {}
    files = []
    for i in range(clip.frames):
        path = clip.inputs[i] if clip.inputs else clip.truth[i]
        files.append(f"{clip.name}/{path.stem}")
        if clip.inputs and (i not in clip.scored or i not in clip.truth):
            lr.append(read_rgb8(path))
        else:
            pair = ImagePair(path.stem, clip.truth[i], path if clip.inputs else None)
            low, truth[i] = load_pair(pair, scale=scale, degrade=degrade)
            lr.append(low)
        if lr[-1].shape != lr[0].shape:
            (h0, w0, _), (h, w, _) = lr[0].shape, lr[-1].shape
            raise InputError(path, f"is {h}x{w}, but the clip began with {h0}x{w0} (height x width)", "check the folder")
    return Sample(
        lr=tuple(lr),
        scored=clip.scored,
        truth=tuple(truth[i] for i in clip.scored) if clip.truth else (),
        files=tuple(files[i] for i in clip.scored),
    )
