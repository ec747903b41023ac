"""Evaluation: score models on test sets by published protocols, in tables that state how they were made.

A score has no meaning without its method, which is a named `Protocol`. Every score is stored with the digest of its protocol,
the digest of the compared pixels, the SHA-256 of the model and the machine. Results that differ in protocol, scale or data are
not compared. This module runs models; `metrics.protocols` defines the methods, `datasets.images` and `datasets.clips` find the
data, `results` holds the scores.
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal
from typing import Protocol as TypingProtocol

import numpy as np
import torch
from numpy.typing import NDArray

from upframe import pixels
from upframe.datasets.clips import find_clip_set, load_clip
from upframe.datasets.images import Sample, find_test_sets, load_sample
from upframe.drawing import sheet
from upframe.engines import exact, make_clip_engine, pick_device
from upframe.errors import InputError, OptionError, OutputError, UsageError
from upframe.evaluation.results import (
    DatasetRecord,
    Difference,
    Evaluation,
    EvaluationEvent,
    ImageScore,
    ModelRecord,
    Unscored,
    compare,
)
from upframe.evaluation.scoring import Judge, bicubic, pristine_model
from upframe.machine import environment
from upframe.media.image import files as images
from upframe.media.image.listing import iter_files
from upframe.media.image.source import RGB8, read_rgb8
from upframe.metrics import MEASURES, FlowEstimator, LucasKanade, NiqeModel
from upframe.metrics import fit_niqe as fit_niqe_to
from upframe.metrics.protocols import PROTOCOLS, ClipRule, Protocol, protocol_named
from upframe.models import registry as model_registry
from upframe.models.registry import Model
from upframe.upscaling import clips
from upframe.upscaling.images import Upscaler
from upframe.upscaling.options import UpscaleOptions, border_of
from upframe.upscaling.tiling import Edges

__all__ = [
    "BICUBIC",
    "PROTOCOLS",
    "SHEET_DETAIL_PX",
    "ClipRule",
    "ClipUpscaler",
    "DatasetRecord",
    "Difference",
    "Evaluation",
    "EvaluationEvent",
    "ImageScore",
    "ModelRecord",
    "Protocol",
    "bicubic",
    "compare",
    "evaluate",
    "fit_niqe",
    "protocol_named",
]

_LOG = logging.getLogger(__name__)

BICUBIC: Literal["bicubic"] = "bicubic"
"""Name of the baseline of every table, in place of a model: MATLAB-exact bicubic enlargement."""

CLIP_PROTOCOLS = tuple(p.name for p in PROTOCOLS.values() if p.clips is not None)

SHEET_ROWS = 6
SHEET_DETAIL_PX = 80  # enlarged three times, it is as tall as the overview beside it


# Models to run ---------------------------------------------------------------------------------------------------------
class ClipUpscaler(TypingProtocol):
    """Enlarges whole clips."""

    def __call__(self, frames: Sequence[RGB8]) -> Iterable[RGB8]:
        """Return all `frames` enlarged, in order. The frames must not be changed."""
        ...


@dataclass(frozen=True)
class _Contender:
    record: ModelRecord
    upscale: Callable[[RGB8], RGB8] | None
    """Enlarges single frames; None for a video network."""
    clip_upscaler: ClipUpscaler | None = None

    @property
    def engine(self) -> str | None:
        """Engine of a network for single frames; None for others, which run in torch."""
        return self.upscale.engine.name if isinstance(self.upscale, Upscaler) else None

    def run(self, sample: Sample, *, mirrored: bool) -> list[RGB8]:
        """Enlarge the scored frames of a sample. A network for single frames does not run on the other frames."""
        if self.upscale is not None:
            return [self.upscale(sample.lr[i]) for i in sample.scored]
        assert self.clip_upscaler is not None
        frames = sample.lr + sample.lr[::-1] if mirrored else sample.lr
        wanted = set(sample.scored)
        found = {i: frame for i, frame in enumerate(self.clip_upscaler(frames)) if i in wanted}
        return [found[i] for i in sample.scored if i in found]


def _whole_clip(model: Model, options: UpscaleOptions) -> ClipUpscaler:
    """Run a network on all frames of a clip at once, as for published scores of recurrent networks."""
    engine = make_clip_engine(model, options.engine)
    edges = Edges.around(border_of(model))

    def upscale(frames: Sequence[RGB8]) -> Iterable[RGB8]:
        clip = edges.mirrored(torch.stack([pixels.to_unit(frame) for frame in frames])[None])  # (1, T, C, H, W)
        for out in engine.stream(engine.prepare(clip).clip):  # one frame at a time, because a clip in float32 takes gigabytes
            yield pixels.from_unit(edges.within(out[0], model.spec.scale), np.uint8)

    return upscale


def _in_windows(model: Model, options: UpscaleOptions) -> ClipUpscaler:
    """Run a network for a limited number of frames in windows, as for videos."""
    upscaler = clips.ClipUpscaler(model, options)

    def upscale(frames: Sequence[RGB8]) -> Iterable[RGB8]:
        yield from upscaler.frames(frames)  # uint8, as the input

    return upscale


# Evaluation -----------------------------------------------------------------------------------------------------------
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
    niqe_params: NiqeModel | str | Path | None = None,
    flow: FlowEstimator | None = None,
    clip_upscaler: Callable[[Model], ClipUpscaler] | None = None,
    on_event: Callable[[EvaluationEvent], None] | None = None,
) -> Evaluation:
    """Score models of one scale on test sets of images or clips.

    Args:
        models: Models, or names or paths that `models.load` takes, or "bicubic".
        protocol: A key of `PROTOCOLS`; it determines whether `data` holds images or clips.
        data: See `find_test_sets` for images; for clips the root of the set in one of its usual layouts, see
            `datasets.clips.LAYOUTS`.
        datasets: Sets to score, in this order; by default all in `data`. Only for images, because a protocol on clips names its
            set.
        scale: Needed only if no model states it.
        save_images: Folder for the outputs, `<model>/<set>/<image>.png` or `<model>/<set>/<clip>/<frame>.png`.
        contact_sheet: Also write `<set>_x<scale>_sheet.png` to that folder: bicubic | models | HR; for a clip, its middle
            frame.
        limit: Use only the first `limit` images or clips of each set. The data digest distinguishes such results.
        overwrite: Allow `save_images` to be a folder that is not empty.
        options: How to run the networks; by default on whole images. The precision "auto" is float32 here.
        niqe_params: The pristine model, or its file, for protocols with NIQE.
        flow: Estimator of motion, for protocols that use it; by default `LucasKanade`.
        clip_upscaler: How to run a video network; by default on all frames at once.
        on_event: Called after each image or clip and model.

    Raises:
        UsageError: before any work, if the models' scales differ or the arguments contradict each other.
        InputError: if data are missing or do not fit together. If `datasets` is None and another set can be scored, the result
            names such a set instead.
    """
    rule = protocol_named(protocol)
    _check_arguments(rule, datasets=datasets, limit=limit, save_images=save_images, contact_sheet=contact_sheet)
    if save_images is not None:
        _check_folder(save_images, overwrite=overwrite)
    used = options if options is not None else UpscaleOptions(tile="off")
    used = replace(used, engine=exact(used.engine))  # scores must not depend on the machine
    scale, contenders = _contenders(models, scale=scale, options=used, rule=rule, clip_upscaler=clip_upscaler)
    judge = Judge(rule, scale, pristine_model(niqe_params), flow if flow is not None else LucasKanade())
    sets = _test_sets(rule, data, scale=scale, datasets=datasets, limit=limit)
    run = _Run(judge, contenders, sum(len(s.items) for s in sets), save_images, contact_sheet, on_event, scores=[])
    records, unscored = _run_sets(run, sets, all_wanted=datasets is not None)
    return Evaluation(
        protocol=rule.name,
        protocol_digest=rule.digest,
        scale=scale,
        datasets=tuple(records),
        models=tuple(c.record for c in contenders),
        scores=tuple(run.scores),
        environment={
            **environment(device=str(pick_device(used.engine.device)), precision=used.engine.precision),
            "engine": ", ".join(sorted({c.engine for c in contenders if c.engine} or {used.engine.name})),
            "tile": str(used.tile),
        },
        basis=judge.basis,
        unscored=tuple(unscored),
    )


def _run_sets(run: _Run, sets: Sequence[_TestSet], *, all_wanted: bool) -> tuple[list[DatasetRecord], list[Unscored]]:
    """Score all sets; one that cannot be scored does not stop the others, unless the user named it (`all_wanted`).

    Raises:
        InputError: if no set can be scored, or a set that the user named.
    """
    records: list[DatasetRecord] = []
    unscored: list[Unscored] = []
    for number, test_set in enumerate(sets):
        before = len(run.scores)
        try:
            records.append(_run_set(run, test_set))
        except InputError as error:
            if all_wanted or (not records and number == len(sets) - 1):
                raise
            del run.scores[before:]
            unscored.append(Unscored(test_set.name, f"{Path(error.subject).name} {error.happened}"))
            _LOG.warning("%s: not scored: %s", test_set.name, error)
    return records, unscored


def _check_arguments(
    rule: Protocol, *, datasets: Sequence[str] | None, limit: int | None, save_images: Path | None, contact_sheet: bool
) -> None:
    if limit is not None and limit < 1:
        what = "images" if rule.clips is None else "clips"
        raise OptionError("limit", limit, f"{limit} {what} cannot be scored", "use 1 or more")
    if contact_sheet and save_images is None:
        raise OptionError("contact_sheet", True, "there is no folder to write it to", "name one with `save_images`")
    if rule.clips is not None and datasets is not None:
        raise OptionError("datasets", list(datasets), f"protocol {rule.name} uses only {rule.clips.dataset}", "do not set it")
    if contact_sheet and rule.clips is not None and not rule.clips.has_truth:
        raise OptionError("contact_sheet", True, f"{rule.clips.dataset} has no true pictures to show", "do not set it")


# Test sets ------------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class _Item:
    """One image or clip."""

    name: str
    path: Path
    """Name of the sample in errors."""
    load: Callable[[], Sample]


@dataclass(frozen=True)
class _TestSet:
    name: str
    """Name in tables."""
    folder: str
    """Name in the names of written files."""
    items: tuple[_Item, ...]
    is_clips: bool


def _test_sets(
    rule: Protocol, data: Path, *, scale: int, datasets: Sequence[str] | None, limit: int | None
) -> tuple[_TestSet, ...]:
    if rule.clips is None:
        found = find_test_sets(data, scale=scale, datasets=datasets)
        return tuple(
            _TestSet(
                s.name,
                s.name,
                tuple(_Item(i.name, i.hr, partial(load_sample, i, scale=scale)) for i in s.images[:limit]),
                is_clips=False,
            )
            for s in found
        )
    clip_set = find_clip_set(data, rule.clips, scale=scale, limit=limit)
    items = tuple(_Item(c.name, c.folder, partial(load_clip, c, scale=scale)) for c in clip_set.clips)
    return (_TestSet(clip_set.name, rule.clips.dataset, items, is_clips=True),)


@dataclass(frozen=True)
class _Run:
    judge: Judge
    contenders: Sequence[_Contender]
    items: int
    """Images or clips in all sets."""
    save_images: Path | None
    contact_sheet: bool
    on_event: Callable[[EvaluationEvent], None] | None
    scores: list[ImageScore]
    """Filled while running."""


def _run_set(run: _Run, test_set: _TestSet) -> DatasetRecord:
    """Run and score every model on every image or clip of a set, and save the requested files."""
    rule, scale = run.judge.rule, run.judge.scale
    digest = hashlib.sha256()
    rows: list[sheet.SheetRow] = []
    frames = 0
    for item in test_set.items:
        sample = item.load()
        run.judge.check_size(sample, item.path)
        _add_to_digest(digest, item.name, *sample.truth, *sample.lr)
        frames += len(sample.scored)
        sitting = run.judge.sitting(sample)
        middle = len(sample.scored) // 2
        shown: list[RGB8] = []
        for contender in run.contenders:
            label = contender.record.label
            start = time.perf_counter()
            outputs = contender.run(sample, mirrored=rule.clips is not None and rule.clips.mirrored)
            seconds = time.perf_counter() - start
            values = sitting.scores(outputs)
            run.scores.append(ImageScore(label, test_set.name, item.name, values, seconds))
            if run.save_images is not None:
                for file, picture in zip(sample.files, outputs, strict=True):
                    _write(run.save_images / _file_name(label) / test_set.folder / f"{file}.png", picture)
            shown.append(outputs[middle])
            if run.on_event is not None:
                total = run.items * len(run.contenders)
                run.on_event(EvaluationEvent(label, test_set.name, item.name, len(run.scores), total, values))
        if run.contact_sheet and len(rows) < SHEET_ROWS:
            pair = (sample.lr[sample.scored[middle]], sample.truth[middle])
            latest = run.scores[-len(run.contenders) :]
            rows.append(_sheet_row(item.name, *pair, shown, run.contenders, latest, scale=scale))
    if run.contact_sheet and run.save_images is not None:
        path = run.save_images / f"{test_set.folder}_x{scale}_sheet.png"
        _write(path, _sheet(rows, run.contenders, test_set.name, rule, scale))
    return DatasetRecord(test_set.name, len(test_set.items), digest.hexdigest(), frames if test_set.is_clips else 0)


def _contenders(
    wanted: Sequence[Model | str | Path],
    *,
    scale: int | None,
    options: UpscaleOptions,
    rule: Protocol,
    clip_upscaler: Callable[[Model], ClipUpscaler] | None,
) -> tuple[int, list[_Contender]]:
    """Return the common scale, and the models to run."""
    if not wanted:
        raise UsageError("evaluate", "no model was named", "name one or more, or bicubic")
    loaded = [m if isinstance(m, Model) or m == BICUBIC else model_registry.load(m, scale=scale) for m in wanted]
    scales = {m.spec.scale for m in loaded if isinstance(m, Model)} | ({scale} if scale is not None else set())
    if not scales:
        raise UsageError(BICUBIC, "has no scale of its own", "set `scale` to 2, 3 or 4")
    if len(scales) > 1:
        named = ", ".join(f"{m.name} x{m.spec.scale}" for m in loaded if isinstance(m, Model))
        asked = f" with `scale={scale}`" if scale is not None else ""
        raise UsageError("evaluate", f"one table holds one scale, found {named}{asked}", "evaluate each scale separately")
    (common,) = scales
    if common < 1:
        raise OptionError("scale", common, "is not a scale", "use 2, 3 or 4")
    found: list[_Contender] = []
    for model in loaded:
        taken = {_file_name(c.record.label) for c in found}
        if isinstance(model, Model):
            record = ModelRecord(_label(model, taken), Path(model.source).name, model.sha256)
            found.append(_contender(model, record, options=options, rule=rule, clip_upscaler=clip_upscaler))
        elif BICUBIC not in taken:
            found.append(_Contender(ModelRecord(BICUBIC, "", ""), lambda lr: bicubic(lr, common)))
    return common, found


def _contender(
    model: Model,
    record: ModelRecord,
    *,
    options: UpscaleOptions,
    rule: Protocol,
    clip_upscaler: Callable[[Model], ClipUpscaler] | None,
) -> _Contender:
    window = model.spec.window
    if window is None:
        return _Contender(record, Upscaler(model, options))
    if rule.clips is None:
        raise UsageError(model.name, "takes clips, not single images", f"use a protocol on clips: {', '.join(CLIP_PROTOCOLS)}")
    if clip_upscaler is not None:
        return _Contender(record, None, clip_upscaler(model))
    return _Contender(record, None, (_whole_clip if window.frames is None else _in_windows)(model, options))


def _label(model: Model, taken: set[str]) -> str:
    """Return a label for the tables that is not in `taken`: the model's name, if needed with its file, then with a number."""
    named = f"{model.name} ({Path(model.source).stem})"
    candidates = (model.name, named, *(f"{named} #{i}" for i in range(2, len(taken) + 3)))
    return next(label for label in candidates if _file_name(label) not in taken)


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
    """Turn `label` into the name of a folder. It may come from an untrusted card, so the name must not lead to another
    folder."""
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
    captions = [" / ".join(MEASURES[k].format(v) for k, v in s.scores.items()) for s in scores]
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
    whole = "image" if rule.clips is None else "clip"
    title = f"{name} x{scale}: {' / '.join(MEASURES[k].title for k in rule.metrics)} of the whole {whole}, protocol {rule.name}"
    return sheet.contact_sheet(rows, headings=headings, title=title)


# NIQE -----------------------------------------------------------------------------------------------------------------
def fit_niqe(folder: Path, *, name: str | None = None) -> NiqeModel:
    """Fit a pristine model of NIQE to the photographs in a folder; save it with `metrics.save_niqe`.

    Its scores compare only with each other. Published scores use the model of the metric's authors.

    Args:
        name: Name in reports; by default "own model of <n> photographs in <folder>".

    Raises:
        InputError: if the folder has no photographs, or too few that are sharp.
    """
    paths = list(iter_files(folder, recursive=True))
    if not paths:
        raise InputError(folder, "no photographs here", "pass a folder of sharp, undistorted photographs")
    about = name or f"own model of {len(paths)} photographs in {folder.resolve().name}"
    try:
        return fit_niqe_to((read_rgb8(path) for path in paths), name=about)
    except ValueError as error:
        raise InputError(folder, str(error), "NIQE's authors used 125 photographs") from error
