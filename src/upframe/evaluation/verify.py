"""A proof sheet: check that weights, loaded and run by upframe, reach their known scores.

Scores are looked up by the weights' SHA-256, in the published tables or in the card of the weights. Measured on Set5: confusing
0–1 with 0–255 costs 4 dB or more, swapping channels on one side 6 dB, and BGR on both sides 0.04 dB (RLFN ×4) and 0.08 dB
(VapSR-S). All exceed the tolerance. The only known fault that is not detected is BGR on both sides with the NTIRE variant of
RLFN, for which red and blue differ by only 0.003 dB: use more than one model to prove the pipeline.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from upframe.datasets.images import canonical_set, find_test_sets
from upframe.evaluation.evaluate import PROTOCOLS, EvaluationEvent, evaluate
from upframe.evaluation.tones import Tones, measure_tones, takes_tones
from upframe.machine import environment
from upframe.models import registry as model_registry
from upframe.models.official import OFFICIAL
from upframe.models.registry import Model
from upframe.models.spec import Published

PROTOCOL = "sisr-y"
PSNR_TOLERANCE_DB = 0.01
SSIM_TOLERANCE = 0.0005
"""Known scores have two and four decimals. Another order of float32 sums changes PSNR by less than 0.001 dB."""

Verdict = Literal["pass", "FAIL", "unknown weights", "no figure known", "set not here"]


@dataclass(frozen=True)
class ProofRow:
    """One model on one test set."""

    model: str
    source: str
    """File name of the weights."""
    sha256: str
    scale: int
    dataset: str
    basis: str
    """Source of the expected scores; empty if there are none."""
    psnr: float | None
    """Measured PSNR on Y in dB; None if the set is missing."""
    ssim: float | None
    expected_psnr: float | None
    expected_ssim: float | None
    verdict: Verdict


TONE_TOLERANCE = 1.0
"""Code values by which tones may differ from the card: another order of float32 sums rounds some pixels differently."""


@dataclass(frozen=True)
class ToneRow:
    """One model on flat colours and patterns."""

    model: str
    source: str
    """File name of the weights."""
    measured: Tones
    known: dict[str, float]
    """The card's figures; empty if there are none."""
    verdict: Verdict


@dataclass(frozen=True)
class ProofSheet:
    rows: tuple[ProofRow, ...]
    tones: tuple[ToneRow, ...]
    environment: dict[str, str | int]

    @property
    def failed(self) -> bool:
        """Whether a comparison was beyond the tolerance."""
        return "FAIL" in [*(row.verdict for row in self.rows), *(row.verdict for row in self.tones)]

    @property
    def passed(self) -> bool:
        """Whether a score was compared, and every comparison was within the tolerance."""
        return any(row.verdict == "pass" for row in self.rows) and not self.failed

    def to_markdown(self) -> str:
        lines = [
            f"Protocol `{PROTOCOL}` ({PROTOCOLS[PROTOCOL].digest}); pass = within ±{PSNR_TOLERANCE_DB} dB and "
            f"±{SSIM_TOLERANCE} SSIM of the known score.",
            "",
            "| model | weights | set | measured | known | verdict |",
            "| --- | --- | --- | ---: | ---: | --- |",
        ]
        for row in self.rows:
            known = f"{_pair(row.expected_psnr, row.expected_ssim)} ({row.basis})" if row.expected_psnr is not None else "–"
            weights = f"{row.source} {row.sha256[:8]}".replace("|", "\\|")
            measured = _pair(row.psnr, row.ssim)
            lines.append(f"| {row.model} | {weights} | {row.dataset} ×{row.scale} | {measured} | {known} | {row.verdict} |")
        lines += ["", *_tone_table(self.tones)]
        lines += ["", "Environment: " + ", ".join(f"{k} {v}" for k, v in self.environment.items()) + "."]
        return "\n".join(lines) + "\n"

    def to_json(self) -> str:
        tree = {
            "format": "upframe-proof/1",
            "protocol": PROTOCOL,
            "protocol_digest": PROTOCOLS[PROTOCOL].digest,
            "passed": self.passed,
            "environment": self.environment,
            "rows": [asdict(row) for row in self.rows],
            "tones": [asdict(row) for row in self.tones],
        }
        return json.dumps(tree, indent=1, ensure_ascii=False)


def _tone_table(rows: Sequence[ToneRow]) -> list[str]:
    lines = [
        "Largest errors in code values of 255: of flat colours up to the border, of white and black, of the mean of patterns; "
        f"pass = at most {TONE_TOLERANCE:g} above the card.",
        "",
        "| model | weights | flat colours | white, black | patterns | verdict |",
        "| --- | --- | ---: | ---: | ---: | --- |",
    ]
    for row in rows:
        shown = row.measured
        cells = (row.model, row.source.replace("|", "\\|"), f"{shown.flat:.0f}", f"{shown.ends:.0f}", f"{shown.pattern:.1f}")
        lines.append(f"| {' | '.join(cells)} | {row.verdict} |")
    return lines


def _pair(psnr: float | None, ssim: float | None) -> str:
    return "–" if psnr is None or ssim is None else f"{psnr:.2f}/{ssim:.4f}"


def proof_sheet(
    weights: Sequence[Model | str | Path],
    data: Path,
    *,
    datasets: Sequence[str] | None = None,
    on_event: Callable[[EvaluationEvent], None] | None = None,
) -> ProofSheet:
    """Measure weights, and compare the scores with their known scores.

    Args:
        weights: Models, or names or paths that `models.load` takes; any mix of scales.
        data: Test sets, see `datasets.images.find_test_sets`.
        datasets: Sets to score; by default all in `data`. A set with a known score that is not in `data` gets a row that states
            this.

    Returns:
        A row for each model and set. Weights without known scores are measured, with the verdict "unknown weights".
    """
    rows: list[ProofRow] = []
    tones: list[ToneRow] = []
    for entry in weights:
        model = entry if isinstance(entry, Model) else model_registry.load(entry)
        tones += _tone_rows(model)
        basis, known = known_scores(model)
        scale = model.spec.scale
        names = [s.name for s in find_test_sets(data, scale=scale, datasets=datasets)]
        result = evaluate([model], protocol=PROTOCOL, data=data, datasets=names, on_event=on_event)
        for name in names:
            psnr, ssim = (result.mean(model.name, name, metric) for metric in PROTOCOLS[PROTOCOL].metrics)
            expected = known.pop(canonical_set(name), None)
            if not basis:
                verdict: Verdict = "unknown weights"
            elif expected is None:
                verdict = "no figure known"
            else:
                verdict = "pass" if agrees(psnr, ssim, expected) else "FAIL"
            rows.append(_proof_row(model, name, basis, expected, verdict, psnr, ssim))
        if datasets is None:
            rows += [_proof_row(model, left.dataset, basis, left, "set not here", None, None) for left in known.values()]
    return ProofSheet(tuple(rows), tuple(tones), environment())


def _tone_rows(model: Model) -> list[ToneRow]:
    """Return the row of a network whose tones can be measured; none for others."""
    if not takes_tones(model):
        return []
    measured, known = measure_tones(model), model.card.tones if model.card is not None else {}
    worse = any(value > known.get(name, value) + TONE_TOLERANCE for name, value in measured.to_dict().items())
    verdict: Verdict = "no figure known" if not known else "FAIL" if worse else "pass"
    return [ToneRow(model.name, Path(str(model.source)).name, measured, known, verdict)]


def agrees(psnr: float, ssim: float, expected: Published) -> bool:
    """Return whether both scores are within the tolerance of the expected ones."""
    # 1e-9, because 32.25 - 32.24 is 0.01 in decimals and slightly more in binary.
    return abs(psnr - expected.psnr) <= PSNR_TOLERANCE_DB + 1e-9 and abs(ssim - expected.ssim) <= SSIM_TOLERANCE + 1e-9


def known_scores(model: Model) -> tuple[str, dict[str, Published]]:
    """Return the source of the weights' known scores, and these scores by `canonical_set` key; ("", {}) for unknown weights."""
    official = OFFICIAL.get(model.sha256)
    if official is not None:
        return "official", {canonical_set(score.dataset): score for score in official.scores}
    scores = model.card.scores.get(PROTOCOL, {}) if model.card is not None else {}
    published = {
        canonical_set(name): Published(name, values["psnr"], values["ssim"])
        for name, values in scores.items()
        if {"psnr", "ssim"} <= values.keys()
    }
    return ("card", published) if published else ("", {})


def _proof_row(
    model: Model,
    dataset: str,
    basis: str,
    expected: Published | None,
    verdict: Verdict,
    psnr: float | None,
    ssim: float | None,
) -> ProofRow:
    return ProofRow(
        model=model.name,
        source=Path(str(model.source)).name,
        sha256=model.sha256,
        scale=model.spec.scale,
        dataset=dataset,
        basis=basis if expected is not None else "",
        psnr=psnr,
        ssim=ssim,
        expected_psnr=expected.psnr if expected else None,
        expected_ssim=expected.ssim if expected else None,
        verdict=verdict,
    )
