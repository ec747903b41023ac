"""Results of an evaluation: scores with everything needed to interpret them, as JSON, tables and comparisons."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from upframe.datasets.images import canonical_set
from upframe.errors import InputError, UsageError
from upframe.files import parsed_json
from upframe.metrics import MEASURES
from upframe.metrics.protocols import PROTOCOLS

_LONGEST_REASON = 200
_MOST_NUMBER = 1e15  # of counts and seconds


@dataclass(frozen=True)
class DatasetRecord:
    """One test set of an evaluation."""

    name: str
    images: int
    """Number of images or clips."""
    sha256: str
    """Hash of names, sizes and values of every truth and input, in order; recompressing a file does not change it."""
    frames: int = 0
    """Number of scored frames in all clips; 0 for a set of images."""

    @property
    def extent(self) -> str:
        """Return the size of the set in words."""
        return f"{self.images} clips, {self.frames} frames" if self.frames else f"{self.images} images"


@dataclass(frozen=True)
class Unscored:
    """A test set that could not be scored."""

    name: str
    reason: str


@dataclass(frozen=True)
class ModelRecord:
    """One model of an evaluation."""

    label: str
    """Name in the tables, unique among the models."""
    source: str
    """File name of the weights; empty for bicubic."""
    sha256: str
    """SHA-256 of the weights file; empty for bicubic."""


@dataclass(frozen=True)
class ImageScore:
    """Scores of one model on one image or clip."""

    model: str
    dataset: str
    image: str
    """Name of the image or clip."""
    scores: Mapping[str, float]
    """Metric → value; for a clip the mean over its scored frames."""
    seconds: float = field(compare=False, default=0.0)
    """Time from LR pixels to SR pixels of the image or all frames, measured once; `bench` also measures the spread."""


@dataclass(frozen=True)
class EvaluationEvent:
    """Event: one image or clip was scored."""

    model: str
    dataset: str
    image: str
    done: int
    total: int
    scores: Mapping[str, float]


@dataclass(frozen=True)
class Evaluation:
    """Scores and everything needed to interpret them."""

    protocol: str
    protocol_digest: str
    scale: int
    datasets: tuple[DatasetRecord, ...]
    models: tuple[ModelRecord, ...]
    scores: tuple[ImageScore, ...]
    environment: Mapping[str, str | int] = field(default_factory=dict)
    basis: Mapping[str, str] = field(default_factory=dict)
    """Conditions of the scores besides the protocol: the pristine model of NIQE, the estimator of motion."""
    unscored: tuple[Unscored, ...] = ()
    """Sets in the same folder that could not be scored."""

    @property
    def metrics(self) -> tuple[str, ...]:
        return tuple(self.scores[0].scores)

    def mean(self, model: str, dataset: str, metric: str) -> float:
        """Return the mean over a dataset's images or clips; a PSNR is infinite if any is reproduced exactly."""
        values = [s.scores[metric] for s in self.scores if s.model == model and s.dataset == dataset]
        if not values:
            raise KeyError(f"no scores of {model} on {dataset}")
        return math.fsum(values) / len(values)

    def mean_seconds(self, model: str, dataset: str) -> float:
        """Return the mean time per image or clip, without reading, scoring and writing."""
        return statistics.fmean(s.seconds for s in self.scores if s.model == model and s.dataset == dataset)

    def to_json(self) -> str:
        """Return everything, with the means, as JSON; infinite values are the string "inf"."""
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
        """Read the results that `to_json` wrote.

        Raises:
            InputError: if it is something else.
        """
        try:
            tree: dict[str, Any] = parsed_json(text)
            if tree["format"] != "upframe-evaluation/1":
                raise ValueError(f"format {tree['format']!r}")
            found = cls(
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
                basis=tree.get("basis", {}),  # older results have none
                unscored=tuple(Unscored(**u) for u in tree.get("unscored", ())),
            )
            _check_form(found)
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
            happened = f"is not an upframe evaluation ({str(error)[:_LONGEST_REASON]})"
            raise InputError("evaluation", happened, "pass JSON that `evaluate` wrote") from error
        return found

    def to_markdown(self) -> str:
        """Return a table of mean scores, a row for each model and a column for each set, with the conditions below."""
        heading = "/".join(MEASURES[k].title for k in self.metrics)
        lines = [
            f"×{self.scale}, {heading}, protocol `{self.protocol}`",
            "",
            _row(["model", *(d.name for d in self.datasets)]),
            _row(["---", *("---:" for _ in self.datasets)]),
        ]
        for model in self.models:
            cells = [
                "/".join(MEASURES[k].format(self.mean(model.label, d.name, k)) for k in self.metrics) for d in self.datasets
            ]
            lines.append(_row([model.label, *cells]))
        return "\n".join([*lines, "", *(f"- {line}" for line in self._provenance())]) + "\n"

    def to_markdown_per_image(self) -> str:
        """Return a table for each set with the scores of every image or clip."""
        blocks = []
        values = {(s.dataset, s.image, s.model): s.scores for s in self.scores}
        for dataset in self.datasets:
            names = list(dict.fromkeys(s.image for s in self.scores if s.dataset == dataset.name))
            lines = [
                f"{dataset.name} ×{self.scale}, {'/'.join(MEASURES[k].title for k in self.metrics)}",
                "",
                _row(["clip" if dataset.frames else "image", *(m.label for m in self.models)]),
                _row(["---", *("---:" for _ in self.models)]),
            ]
            for name in names:
                found = [values[dataset.name, name, m.label] for m in self.models]
                lines.append(_row([name, *("/".join(MEASURES[k].format(v) for k, v in f.items()) for f in found)]))
            blocks.append("\n".join(lines))
        return "\n\n".join(blocks) + "\n"

    def _provenance(self) -> Iterator[str]:
        protocol = PROTOCOLS.get(self.protocol)
        about = (
            f"{protocol.colour}; border of {protocol.border_px(self.scale)} px excluded; output {protocol.rounding}; "
            if (protocol and protocol.digest == self.protocol_digest)
            else ""
        )
        yield f"Protocol `{self.protocol}` ({about}definition {self.protocol_digest})."
        yield "Data: " + ", ".join(f"{d.name} ({d.extent}, sha256 {d.sha256[:12]})" for d in self.datasets) + "."
        for unscored in self.unscored:
            yield f"Not scored: {unscored.name} ({unscored.reason})."
        weights = [f"{m.label} = {m.source} (sha256 {m.sha256[:12]})" for m in self.models if m.sha256]
        if weights:
            yield "Weights: " + ", ".join(weights) + "."
        if self.basis:
            yield "Scores rest on: " + ", ".join(f"{k}: {v}" for k, v in self.basis.items()) + "."
        unit = "clip" if any(d.frames for d in self.datasets) else "image"
        for model in self.models:
            times = ", ".join(f"{self.mean_seconds(model.label, d.name):.3f} s on {d.name}" for d in self.datasets)
            yield f"Mean time per {unit} of {model.label}: {times}."
        yield "Environment: " + ", ".join(f"{k} {v}" for k, v in self.environment.items()) + "."


def _check_form(found: Evaluation) -> None:
    """Refuse values of other types than `to_json` writes, and scores that are not complete.

    Raises:
        ValueError: saying which.
    """
    texts = [found.protocol, found.protocol_digest, *found.environment, *found.basis, *found.basis.values()]
    texts += [text for unscored in found.unscored for text in (unscored.name, unscored.reason)]
    numbers: list[object] = [found.scale]
    for dataset in found.datasets:
        texts += [dataset.name, dataset.sha256]
        numbers += [dataset.images, dataset.frames]
    for model in found.models:
        texts += [model.label, model.source, model.sha256]
    for score in found.scores:
        texts += [score.model, score.dataset, score.image, *score.scores]
        numbers += [score.seconds]
    if not all(isinstance(text, str) and text.isprintable() for text in texts):  # they go to terminals
        raise ValueError("a name is no printable text")
    numbers += [value for value in found.environment.values() if not (isinstance(value, str) and value.isprintable())]
    if not all(isinstance(number, int | float) and abs(number) < _MOST_NUMBER for number in numbers):
        raise ValueError("a number is none")
    if not (found.datasets and found.models and found.scores):
        raise ValueError("it has no scores")
    measures = set(found.metrics)
    if unknown := measures - set(MEASURES):
        raise ValueError(f"there is no score {min(unknown)}")
    if not measures or any(set(score.scores) != measures for score in found.scores):
        raise ValueError("images differ in what was scored")
    scored = {(score.model, score.dataset, score.image) for score in found.scores}
    for dataset in found.datasets:
        images = {image for _, name, image in scored if name == dataset.name}
        if not images or any((model.label, dataset.name, image) not in scored for model in found.models for image in images):
            raise ValueError(f"scores are missing on {dataset.name}")


def _listed(basis: Mapping[str, str]) -> str:
    return ", ".join(f"{k}: {v}" for k, v in basis.items()) or "nothing"


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
        """Return how much better b is: b minus a, or a minus b if lower is better."""
        difference = 0.0 if self.a == self.b else self.b - self.a  # infinity minus itself is no number
        return difference if MEASURES[self.metric].higher_is_better else -difference


def compare(a: Evaluation, b: Evaluation) -> tuple[Difference, ...]:
    """Compare mean scores of `b` with those of `a` on their common sets.

    A model of `b` is compared with the model of the same label in `a`, or with every model of `a` if there is none.

    Raises:
        UsageError: if protocol, basis, scale or the pixels of a shared set differ, or no set is shared. Such numbers look
            comparable and are not.
    """
    if (a.protocol, a.protocol_digest) != (b.protocol, b.protocol_digest):
        raise UsageError(
            "comparison",
            f"one result follows protocol {a.protocol} ({a.protocol_digest}), the other {b.protocol} ({b.protocol_digest})",
            "evaluate both with the same protocol and version",
        )
    if a.basis != b.basis:
        raise UsageError(
            "comparison",
            f"the scores have different conditions ({_listed(a.basis)}; {_listed(b.basis)})",
            "evaluate both with the same NIQE parameters and motion",
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
                f"{mine.name} is not the same data in both ({mine.extent}, {mine.sha256[:12]}; "
                f"{theirs.extent}, {theirs.sha256[:12]})",
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
