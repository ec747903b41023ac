"""Measure the README's table of speed: each network beside the published computation in its plain form, and what it scores.

Usage: python scripts/speed_table.py WEIGHTS... --testsets TESTSETS [--engines auto compile openvino] [--sizes 320x180]
           [--runs 7] [--threads 2]

Passes of all forms take turns; see `upframe bench --compare`, which this runs. The scores are those of
`upframe evaluate --datasets Set5 --engine … --precision …`. Nothing else should run meanwhile.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from upframe.benchmark.compare import compare_with_plain
from upframe.engines import engine_options, make_engine
from upframe.evaluation.evaluate import evaluate
from upframe.models.registry import Model, load
from upframe.models.spec import Precision
from upframe.upscaling.options import UpscaleOptions

HEADER = "| network | input | engine | precision | times faster | share of the limit | memory | PSNR on Set5 |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("weights", nargs="+")
    parser.add_argument("--testsets", type=Path, required=True)
    parser.add_argument("--engines", nargs="+", default=["auto"])
    parser.add_argument("--sizes", nargs="+", default=["320x180"], help="WIDTHxHEIGHT")
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--threads", type=int)
    arguments = parser.parse_args()
    models = [load(weights) for weights in arguments.weights]
    print(HEADER)  # noqa: T201
    print("| --- | --- | --- | --- | ---: | ---: | ---: | ---: |")  # noqa: T201
    for size in arguments.sizes:
        for row in rows(models, size, arguments):
            print(row, flush=True)  # noqa: T201


def rows(models: Sequence[Model], size: str, arguments: argparse.Namespace) -> list[str]:
    """The lines of the table for one size; what runs by default is bold."""
    width, height = (int(side) for side in size.split("x"))
    options = {"threads": arguments.threads, "engines": arguments.engines, "repeats": arguments.runs}
    found = compare_with_plain(models, size=(height, width), **options)
    lines = []
    for model, compared in zip(models, found.compared, strict=True):
        default = make_engine(model, engine_options("auto", device="cpu"))
        for form in compared.forms:
            words = form.name.split()
            asked = "auto" if words[0] == "ours" else words[0]
            plain = asked == "plain"
            made = None if plain else make_engine(model, engine_options(asked, device="cpu", precision=form.precision))
            is_default = made is not None and (made.name, form.precision) == (default.name, default.precision)
            ratios, share = compared.time_ratios(form), compared.share(form, found.limits)
            if ratios is None or share is None:
                lines.append(f"| {model.name} | {size} | {words[0]} | {form.precision} | failed: {form.error} | | | |")
                continue
            high, low = (1 / quartile for quartile in ratios.quartiles_s)
            memory = compared.memory_ratio(form)
            cells = [
                model.name,
                size,
                "plain PyTorch" if made is None else made.name,
                form.precision,
                "1" if plain else f"{1 / ratios.median_s:.1f} ({low:.1f} to {high:.1f})",
                f"{share:.0%}",
                "-" if memory is None else f"{memory:.2f}",
                f"{score(model, 'torch' if made is None else made.name, form.precision, arguments.testsets):.3f}",
            ]
            lines.append("| " + " | ".join(f"**{cell}**" if is_default else cell for cell in cells) + " |")
    return lines


def score(model: Model, engine: str, precision: Precision, testsets: Path) -> float:
    """Mean PSNR on Y over Set5."""
    options = UpscaleOptions(tile="off", engine=engine_options(engine, device="cpu", precision=precision))
    scores = [s.scores["psnr-y"] for s in evaluate([model], data=testsets, datasets=["Set5"], options=options).scores]
    return sum(scores) / len(scores)


if __name__ == "__main__":
    main()
