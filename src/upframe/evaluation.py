"""How good a model is: published protocols, run on test sets, as tables that say exactly how they were made.

A score means nothing without the way it was taken. That way is a `Protocol` with a name; its digest, the digest of the
pixels it was taken on, the model's SHA-256 and the machine are stored with every score, and results that differ in
protocol, scale or data refuse to be compared.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from upframe import models as model_registry
from upframe import pixels
from upframe.engines import pick_device
from upframe.environment import environment
from upframe.errors import InputError, OutputError, UsageError
from upframe.media import images, sheet
from upframe.metrics import METRICS, SSIM_WINDOW
from upframe.models import Model
from upframe.testsets import RGB8, ImageSet, canonical_set, find_test_sets, load_pair
from upframe.upscale import UpscaleOptions, Upscaler

log = logging.getLogger(__name__)

BICUBIC: Literal["bicubic"] = "bicubic"
"""Named in place of a model: plain MATLAB-exact bicubic enlargement, the baseline of every table."""

SHEET_ROWS = 6
SHEET_DETAIL_PX = 80  # enlarged three times, as tall as the overview beside it


# Protocols ------------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Protocol:
    """A way to take scores."""

    name: str
    colour: str
    """What is compared."""
    crop: Literal["scale", "none"]
    """Border left out: as many output pixels as the scale, or nothing."""
    rounding: str
    """What happens to the network's output before it is compared."""
    truth: str
    """Which part of an HR file is the truth."""
    low_resolution: str
    """Where the inputs come from."""
    average: str
    metrics: tuple[str, ...]
    """Keys of `metrics.METRICS`; the first is the one to rank by."""
    citation: str

    def border_px(self, scale: int) -> int:
        """Output pixels left out along every edge."""
        return scale if self.crop == "scale" else 0

    @property
    def digest(self) -> str:
        """A hash of the definition: two protocols of one name and digest take the same score."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:16]


def _sisr(name: str, colour: str, metrics: tuple[str, ...]) -> Protocol:
    return Protocol(
        name=name,
        colour=colour,
        crop="scale",
        rounding="clipped and rounded to 8 bit",
        truth="top left part of HR whose sides are multiples of the scale",
        low_resolution="LRbicX{scale}/ where there is one, else MATLAB bicubic imresize of the truth, rounded after each pass",
        average="mean over the images of a set",
        metrics=metrics,
        citation="as in EDSR (Lim et al., CVPRW 2017) and the papers since; test sets of Huang et al., CVPR 2015",
    )


PROTOCOLS: dict[str, Protocol] = {
    p.name: p
    for p in (
        _sisr("sisr-y", "BT.601 studio Y, unrounded", ("psnr-y", "ssim-y")),
        _sisr("sisr-rgb", "RGB, three channels together", ("psnr-rgb", "ssim-rgb")),
    )
}


def protocol_named(name: str) -> Protocol:
    """The protocol of that name, or a `UsageError` that lists them."""
    if name not in PROTOCOLS:
        raise UsageError(name, "is not a known protocol", f"use one of {', '.join(PROTOCOLS)}")
    return PROTOCOLS[name]


# Results --------------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class DatasetRecord:
    """Which pixels were used."""

    name: str
    images: int
    sha256: str
    """Of names, sizes and values of every truth and input, in order; recompressing a file does not change it."""


@dataclass(frozen=True)
class ModelRecord:
    """Which model was used."""

    label: str
    """Its name in the tables, unique among them."""
    source: str
    """File name of the weights; empty for bicubic."""
    sha256: str
    """Of the weights file; empty for bicubic."""


@dataclass(frozen=True)
class ImageScore:
    model: str
    dataset: str
    image: str
    scores: Mapping[str, float]
    """Metric → value."""
    seconds: float = field(compare=False, default=0.0)
    """Time from LR pixels to SR pixels, taken once; `bench` measures time with its spread."""


@dataclass(frozen=True)
class EvaluationEvent:
    """One image was scored."""

    model: str
    dataset: str
    image: str
    done: int
    total: int
    scores: Mapping[str, float]


@dataclass(frozen=True)
class Evaluation:
    """Scores and everything needed to know what they mean."""

    protocol: str
    protocol_digest: str
    scale: int
    datasets: tuple[DatasetRecord, ...]
    models: tuple[ModelRecord, ...]
    scores: tuple[ImageScore, ...]
    environment: Mapping[str, str | int] = field(default_factory=dict)

    @property
    def metrics(self) -> tuple[str, ...]:
        return tuple(self.scores[0].scores)

    def mean(self, model: str, dataset: str, metric: str) -> float:
        """The mean over a dataset's images; infinite if any image is reproduced exactly."""
        values = [s.scores[metric] for s in self.scores if s.model == model and s.dataset == dataset]
        if not values:
            raise KeyError(f"no scores of {model} on {dataset}")
        return math.fsum(values) / len(values)

    def mean_seconds(self, model: str, dataset: str) -> float:
        """Mean time per image, without reading, scoring and writing."""
        return statistics.fmean(s.seconds for s in self.scores if s.model == model and s.dataset == dataset)

    def to_json(self) -> str:
        """Everything, with the means; infinite values as the string "inf"."""
        means = {
            m.label: {d.name: {k: _to_number(self.mean(m.label, d.name, k)) for k in self.metrics} for d in self.datasets}
            for m in self.models
        }
        seconds = {m.label: {d.name: self.mean_seconds(m.label, d.name) for d in self.datasets} for m in self.models}
        tree = {"format": "upframe-evaluation/1", **asdict(self), "means": means, "mean_seconds": seconds}
        for score in tree["scores"]:
            score["scores"] = {k: _to_number(v) for k, v in score["scores"].items()}
        return json.dumps(tree, indent=1, ensure_ascii=False, allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> Evaluation:
        """What `to_json` wrote.

        Raises:
            InputError: if it is something else.
        """
        try:
            tree: dict[str, Any] = json.loads(text)
            if tree["format"] != "upframe-evaluation/1":
                raise ValueError(f"format {tree['format']!r}")
            return cls(
                protocol=tree["protocol"],
                protocol_digest=tree["protocol_digest"],
                scale=tree["scale"],
                datasets=tuple(DatasetRecord(**d) for d in tree["datasets"]),
                models=tuple(ModelRecord(**m) for m in tree["models"]),
                scores=tuple(
                    ImageScore(
                        s["model"], s["dataset"], s["image"], {k: float(v) for k, v in s["scores"].items()}, s["seconds"]
                    )
                    for s in tree["scores"]
                ),
                environment=tree["environment"],
            )
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise InputError(
                "evaluation", f"is not an upframe evaluation ({error})", "pass JSON that `evaluate` wrote"
            ) from error

    def to_markdown(self) -> str:
        """Mean scores, a row for each model and a column for each set, with what they rest on below."""
        heading = "/".join(METRICS[k].title for k in self.metrics)
        lines = [
            f"×{self.scale}, {heading}, protocol `{self.protocol}`",
            "",
            _row(["model", *(d.name for d in self.datasets)]),
            _row(["---", *("---:" for _ in self.datasets)]),
        ]
        for model in self.models:
            cells = [
                "/".join(METRICS[k].format(self.mean(model.label, d.name, k)) for k in self.metrics) for d in self.datasets
            ]
            lines.append(_row([model.label, *cells]))
        return "\n".join([*lines, "", *(f"- {line}" for line in self._provenance())]) + "\n"

    def to_markdown_per_image(self) -> str:
        """A table for each set with the scores of every image."""
        blocks = []
        values = {(s.dataset, s.image, s.model): s.scores for s in self.scores}
        for dataset in self.datasets:
            names = list(dict.fromkeys(s.image for s in self.scores if s.dataset == dataset.name))
            lines = [
                f"{dataset.name} ×{self.scale}, {'/'.join(METRICS[k].title for k in self.metrics)}",
                "",
                _row(["image", *(m.label for m in self.models)]),
                _row(["---", *("---:" for _ in self.models)]),
            ]
            for name in names:
                found = [values[dataset.name, name, m.label] for m in self.models]
                lines.append(_row([name, *("/".join(METRICS[k].format(v) for k, v in f.items()) for f in found)]))
            blocks.append("\n".join(lines))
        return "\n\n".join(blocks) + "\n"

    def _provenance(self) -> Iterator[str]:
        protocol = PROTOCOLS.get(self.protocol)
        about = (
            f"{protocol.colour}; border of {protocol.border_px(self.scale)} px left out; output {protocol.rounding}; "
            if (protocol and protocol.digest == self.protocol_digest)
            else ""
        )
        yield f"Protocol `{self.protocol}` ({about}definition {self.protocol_digest})."
        yield "Data: " + ", ".join(f"{d.name} ({d.images} images, sha256 {d.sha256[:12]})" for d in self.datasets) + "."
        weights = [f"{m.label} = {m.source} (sha256 {m.sha256[:12]})" for m in self.models if m.sha256]
        if weights:
            yield "Weights: " + ", ".join(weights) + "."
        for model in self.models:
            times = ", ".join(f"{self.mean_seconds(model.label, d.name):.3f} s on {d.name}" for d in self.datasets)
            yield f"Mean time per image of {model.label}: {times}."
        yield "Environment: " + ", ".join(f"{k} {v}" for k, v in self.environment.items()) + "."


def _row(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _to_number(value: float) -> float | str:
    return value if math.isfinite(value) else str(value)


@dataclass(frozen=True)
class Difference:
    """One mean score of two evaluations."""

    dataset: str
    metric: str
    model_a: str
    model_b: str
    a: float
    b: float

    @property
    def gain(self) -> float:
        """b minus a; positive when b is better, for the metrics there are (all are better when higher)."""
        return 0.0 if self.a == self.b else self.b - self.a


def compare(a: Evaluation, b: Evaluation) -> tuple[Difference, ...]:
    """Mean scores of `b` against those of `a` on the sets both have.

    A model of `b` meets the model of that label in `a`, or every model of `a` when there is none.

    Raises:
        UsageError: if protocol, scale or the pixels of a shared set differ, or no set is shared: such numbers look alike
            and mean different things.
    """
    if (a.protocol, a.protocol_digest) != (b.protocol, b.protocol_digest):
        raise UsageError(
            "comparison",
            f"one result follows protocol {a.protocol} ({a.protocol_digest}), the other {b.protocol} ({b.protocol_digest})",
            "evaluate both with the same protocol and version",
        )
    if a.scale != b.scale:
        raise UsageError("comparison", f"one result is for x{a.scale}, the other for x{b.scale}", "evaluate both at one scale")
    records = {canonical_set(d.name): d for d in a.datasets}
    shared = [(records[canonical_set(d.name)], d) for d in b.datasets if canonical_set(d.name) in records]
    if not shared:
        raise UsageError("comparison", "the results have no test set in common", "evaluate both on the same sets")
    for mine, theirs in shared:
        if mine.sha256 != theirs.sha256:
            raise UsageError(
                "comparison",
                f"{mine.name} is not the same data in both ({mine.images} images, {mine.sha256[:12]}; "
                f"{theirs.images} images, {theirs.sha256[:12]})",
                "evaluate both on the same files",
            )
    labels = [m.label for m in a.models]
    return tuple(
        Difference(
            theirs.name, metric, first, model.label, a.mean(first, mine.name, metric), b.mean(model.label, theirs.name, metric)
        )
        for mine, theirs in shared
        for metric in b.metrics
        for model in b.models
        for first in ([model.label] if model.label in labels else labels)
    )


# Evaluation -----------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class _Contender:
    record: ModelRecord
    upscale: Callable[[RGB8], RGB8]


def evaluate(
    models: Sequence[Model | str | Path],
    *,
    protocol: str = "sisr-y",
    data: Path,
    datasets: Sequence[str] | None = None,
    scale: int | None = None,
    save_images: Path | None = None,
    contact_sheet: bool = False,
    limit: int | None = None,
    overwrite: bool = False,
    options: UpscaleOptions | None = None,
    on_event: Callable[[EvaluationEvent], None] | None = None,
) -> Evaluation:
    """Score models of one scale on test sets.

    Args:
        models: Models, or names or paths that `models.load` takes, or "bicubic".
        data: See `find_test_sets`.
        datasets: Sets wanted, in that order; by default all in `data`.
        scale: Needed only when no model states it.
        save_images: Folder for the outputs, `<model>/<set>/<image>.png`.
        contact_sheet: Also write `<set>_x<scale>_sheet.png` there: bicubic | models | HR.
        limit: Use only the first so many images of each set; the data digest tells such results apart.
        overwrite: Allow `save_images` to be a folder with content.
        options: How to run the networks; by default whole images, in float32.
        on_event: Called after each image and model.

    Raises:
        UsageError: before any work, if the models' scales differ or the arguments contradict each other.
        InputError: if data are missing or do not fit together.
    """
    rule = protocol_named(protocol)
    if limit is not None and limit < 1:
        raise UsageError("limit", f"{limit} images cannot be scored", "use 1 or more")
    if contact_sheet and save_images is None:
        raise UsageError("contact sheet", "there is no folder to write it to", "add --save-images FOLDER")
    if save_images is not None:
        _check_folder(save_images, overwrite=overwrite)
    used = options if options is not None else UpscaleOptions(tile="off")
    scale, contenders = _contenders(models, scale=scale, options=used)
    sets = find_test_sets(data, scale=scale, datasets=datasets)
    sets = tuple(ImageSet(s.name, s.images[:limit]) for s in sets)
    total = sum(len(s.images) for s in sets) * len(contenders)

    scores: list[ImageScore] = []
    records: list[DatasetRecord] = []
    for test_set in sets:
        digest = hashlib.sha256()
        rows: list[sheet.SheetRow] = []
        for image in test_set.images:
            lr, hr = load_pair(image, scale=scale)
            if min(hr.shape[:2]) - 2 * rule.border_px(scale) < SSIM_WINDOW:
                needed = SSIM_WINDOW + 2 * rule.border_px(scale)
                raise InputError(image.hr, f"is too small to score at x{scale}", f"{needed} pixels a side are needed")
            _add_to_digest(digest, image.name, hr, lr)
            outputs: list[RGB8] = []
            for contender in contenders:
                label = contender.record.label
                start = time.perf_counter()
                sr = contender.upscale(lr)
                seconds = time.perf_counter() - start
                values = {k: METRICS[k](sr, hr, crop_border=rule.border_px(scale)) for k in rule.metrics}
                scores.append(ImageScore(label, test_set.name, image.name, values, seconds))
                if save_images is not None:
                    _write(save_images / _file_name(label) / test_set.name / f"{image.name}.png", sr)
                outputs.append(sr)
                if on_event is not None:
                    on_event(EvaluationEvent(label, test_set.name, image.name, len(scores), total, values))
            if contact_sheet and len(rows) < SHEET_ROWS:
                rows.append(_sheet_row(image.name, lr, hr, outputs, contenders, scores[-len(contenders) :], scale=scale))
        records.append(DatasetRecord(test_set.name, len(test_set.images), digest.hexdigest()))
        if contact_sheet and save_images is not None:
            _write(save_images / f"{test_set.name}_x{scale}_sheet.png", _sheet(rows, contenders, test_set.name, rule, scale))
    return Evaluation(
        protocol=rule.name,
        protocol_digest=rule.digest,
        scale=scale,
        datasets=tuple(records),
        models=tuple(c.record for c in contenders),
        scores=tuple(scores),
        environment={
            **environment(
                device=str(pick_device(used.torch.device)),
                precision="fp32" if used.torch.precision == "auto" else used.torch.precision,
            ),
            "tile": str(used.tile),
        },
    )


def _contenders(
    wanted: Sequence[Model | str | Path], *, scale: int | None, options: UpscaleOptions
) -> tuple[int, list[_Contender]]:
    """The common scale, and what to run."""
    if not wanted:
        raise UsageError("evaluate", "no model was named", "name one or more, or bicubic")
    loaded = [m if isinstance(m, Model) or m == BICUBIC else model_registry.load(m, scale=scale) for m in wanted]
    scales = {m.spec.scale for m in loaded if isinstance(m, Model)} | ({scale} if scale is not None else set())
    if not scales:
        raise UsageError(BICUBIC, "has no scale of its own", "add --scale 2, 3 or 4")
    if len(scales) > 1:
        named = ", ".join(f"{m.name} x{m.spec.scale}" for m in loaded if isinstance(m, Model))
        asked = f" with --scale {scale}" if scale is not None else ""
        raise UsageError("evaluate", f"one table holds one scale, found {named}{asked}", "evaluate each scale by itself")
    (common,) = scales
    if common < 1:
        raise UsageError("scale", f"{common} is not a scale", "use 2, 3 or 4")
    found: list[_Contender] = []
    for model in loaded:
        taken = {_file_name(c.record.label) for c in found}
        if isinstance(model, Model):
            record = ModelRecord(_label(model, taken), Path(model.source).name, model.sha256)
            found.append(_Contender(record, Upscaler(model, options)))
        elif BICUBIC not in taken:
            found.append(_Contender(ModelRecord(BICUBIC, "", ""), lambda lr: bicubic(lr, common)))
    return common, found


def _label(model: Model, taken: set[str]) -> str:
    """A name for the tables that is new among those `taken`: the model's, with its file, with a number."""
    named = f"{model.name} ({Path(model.source).stem})"
    candidates = (model.name, named, *(f"{named} #{i}" for i in range(2, len(taken) + 3)))
    return next(label for label in candidates if _file_name(label) not in taken)


def bicubic(lr: RGB8, scale: int) -> RGB8:
    """(h, w, 3) enlarged by MATLAB-exact bicubic in float64, rounded once at the end."""
    unit = pixels.imresize(torch.from_numpy(lr).permute(2, 0, 1).to(torch.float64) / 255, scale)
    return pixels.from_unit(unit, np.uint8)


def _add_to_digest(digest: Any, name: str, *pictures: RGB8) -> None:
    digest.update(name.encode() + b"\0")
    for picture in pictures:
        digest.update(repr(picture.shape).encode() + np.ascontiguousarray(picture).tobytes())


def _check_folder(folder: Path, *, overwrite: bool) -> None:
    if folder.exists() and not folder.is_dir():
        raise UsageError(folder, "is not a folder", "choose another name")
    if not overwrite and folder.is_dir() and any(folder.iterdir()):
        raise UsageError(folder, "is not empty", "choose another folder, or allow overwriting")


def _write(path: Path, picture: RGB8) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(path.parent, f"cannot be made ({error.strerror})", "check the folder and its permissions") from error
    images.write_pixels(path, picture)


def _file_name(label: str) -> str:
    """`label` as the name of a folder; it may come from a stranger's card, so nothing in it may lead elsewhere."""
    return "".join(c if c.isalnum() or c in "-_.()# " else "_" for c in label).strip(". ") or "model"


def _sheet_row(
    name: str,
    lr: RGB8,
    hr: RGB8,
    outputs: Sequence[RGB8],
    contenders: Sequence[_Contender],
    scores: Sequence[ImageScore],
    *,
    scale: int,
) -> sheet.SheetRow:
    box = sheet.most_detailed(hr, side_px=SHEET_DETAIL_PX)
    captions = [" / ".join(METRICS[k].format(v) for k, v in s.scores.items()) for s in scores]
    details = [box.cut(o) for o in outputs]
    if BICUBIC not in [c.record.label for c in contenders]:
        details.insert(0, box.cut(bicubic(lr, scale)))
        captions.insert(0, "")
    return sheet.SheetRow(name, hr, box, (*details, box.cut(hr)), (*captions, ""))


def _sheet(
    rows: Sequence[sheet.SheetRow], contenders: Sequence[_Contender], name: str, rule: Protocol, scale: int
) -> NDArray[np.uint8]:
    labels = [c.record.label for c in contenders]
    headings = [*([] if BICUBIC in labels else [BICUBIC]), *labels, "original (HR)"]
    title = f"{name} x{scale}: {' / '.join(METRICS[k].title for k in rule.metrics)} of the whole image, protocol {rule.name}"
    return sheet.contact_sheet(rows, headings=headings, title=title)
