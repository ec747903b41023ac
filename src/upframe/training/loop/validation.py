"""Validation during training: score each new checkpoint with `evaluate`, as `upframe evaluate` does."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from upframe.datasets.clips import find_clip_set
from upframe.datasets.images import find_test_sets
from upframe.engines import TorchOptions
from upframe.errors import OptionError, UsageError
from upframe.evaluation.evaluate import evaluate
from upframe.evaluation.tones import measure_tones, takes_tones
from upframe.files import atomic_bytes, scratch_folder
from upframe.media.image.source import read_rgb8
from upframe.metrics.protocols import protocol_named
from upframe.models.registry import load
from upframe.upscaling.options import UpscaleOptions

KEPT_SHEETS = 10
"""Number of validations whose contact sheets are kept."""


def validator(
    data: Path,
    *,
    protocol: str = "sisr-y",
    datasets: Sequence[str] | None = None,
    device: str = "auto",
    sheets: Path | None = None,
) -> Callable[[Path, int], dict[str, Any]]:
    """Return a function that scores a checkpoint on the test sets in `data`.

    Args:
        protocol, datasets: As for `evaluate`.
        device: As `engines.pick_device`.
        sheets: Folder for a contact sheet of each set: input, result and truth, as `step-<number>_<set>_x<scale>.png`. Those of
            the last `KEPT_SHEETS` validations are kept.

    Returns:
        A function of (weights file, step) that returns {set: {"psnr": dB, "ssim": ...}}, and for networks that enlarge single
        pictures `evaluation.tones` under "tones".

    Raises:
        UsageError: if `datasets` is given for a protocol on clips, which names its set, or the protocol needs more than test
            sets.
    """
    rule = protocol_named(protocol)
    if rule.clips is not None and datasets is not None:
        raise OptionError("datasets", list(datasets), f"{protocol} uses only {rule.clips.dataset}", "do not set it")
    if "niqe" in rule.metrics:
        happened = f"{protocol} needs a pristine model of NIQE, which training does not have"
        raise UsageError("validation", happened, "train without validation, and score with upframe evaluate and `niqe_params`")
    shows = sheets is not None and (rule.clips is None or rule.clips.has_truth)
    options = UpscaleOptions(tile="off", engine=TorchOptions(device=device, precision="fp32", fused=False))

    def validate(weights: Path, step: int) -> dict[str, Any]:
        model = load(weights)
        with scratch_folder() as scratch:
            result = evaluate(
                [model],
                protocol=protocol,
                data=data,
                datasets=datasets,
                save_images=scratch if shows else None,
                contact_sheet=shows,
                options=options,
            )
            if shows and sheets is not None:
                _keep_sheets(scratch, sheets, step)
        label = result.models[0].label
        scores: dict[str, Any] = {d.name: {m: result.mean(label, d.name, m) for m in result.metrics} for d in result.datasets}
        return scores | ({"tones": measure_tones(model).to_dict()} if takes_tones(model) else {})

    return validate


def _keep_sheets(made: Path, kept: Path, step: int) -> None:
    """Move the contact sheets in `made` to `kept`, and delete the oldest there."""
    kept.mkdir(parents=True, exist_ok=True)
    for sheet in sorted(made.glob("*_sheet.png")):
        target = kept / f"step-{step:08d}_{sheet.name.removesuffix('_sheet.png')}.png"
        atomic_bytes(target, sheet.read_bytes())  # copied, because the scratch folder may be on another file system
    by_step: dict[str, list[Path]] = {}
    for file in kept.glob("step-*.png"):
        if found := re.match(r"step-(\d+)_", file.name):
            by_step.setdefault(found[1], []).append(file)
    for number in sorted(by_step, key=int)[:-KEPT_SHEETS]:
        for file in by_step[number]:
            file.unlink()


@dataclass(frozen=True)
class HeldOut:
    """Every ground-truth picture of test sets, as (name, (H, W, 3) uint8), one at a time, for the guard against training on
    them."""

    data: Path
    scale: int
    protocol: str = "sisr-y"
    datasets: Sequence[str] | None = None

    def __iter__(self) -> Iterator[tuple[str, NDArray[Any]]]:
        rule = protocol_named(self.protocol)
        if rule.clips is None:
            for test_set in find_test_sets(self.data, scale=self.scale, datasets=self.datasets):
                for image in test_set.images:
                    yield f"{test_set.name}/{image.name}", read_rgb8(image.hr)
        else:
            for clip in find_clip_set(self.data, rule.clips, scale=self.scale).clips:
                for number, path in clip.truth.items():
                    yield f"{rule.clips.dataset}/{clip.name}/{number}", read_rgb8(path)
