"""Compare the speed of each network with its reference form, and measure its PSNR on Set5, for the table in docs/speed.md.

Usage: python scripts/speed_table.py WEIGHTS... --testsets TESTSETS [--engines auto compile openvino] [--sizes 320x180]
           [--runs 7] [--threads 2] [--out benchmarks/speed.json]

Passes of all forms take turns, as in `upframe bench --compare`. The scores are those of
`upframe evaluate --datasets Set5 --engine … --precision …`. Run nothing else on the machine at the same time. `--out` writes
the file from which `scripts/draw_tables.py` draws the table; without it the same JSON goes to standard output.
"""

from __future__ import annotations

import argparse
import datetime
import json
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy
import torch

from upframe.benchmark.compare import compare_with_reference
from upframe.engines import engine_options, make_engine
from upframe.evaluation.evaluate import evaluate
from upframe.models.registry import Model, load
from upframe.models.spec import Precision
from upframe.upscaling.options import UpscaleOptions
from upframe.version import __version__


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("weights", nargs="+")
    parser.add_argument("--testsets", type=Path, required=True)
    parser.add_argument("--engines", nargs="+", default=["auto"])
    parser.add_argument("--sizes", nargs="+", default=["320x180"], help="WIDTHxHEIGHT")
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--cpu", default="unknown", help="the processor in words, for the file")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    models = [load(weights) for weights in arguments.weights]
    measured = {
        "title": "Photo networks beside their reference forms",
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "cpu": arguments.cpu,
        "threads": arguments.threads or torch.get_num_threads(),
        "versions": {"upframe": __version__, "torch": torch.__version__, "numpy": numpy.__version__},
        "command": [f"python scripts/speed_table.py {shlex.join(sys.argv[1:])}"],
        "rows": [row for size in arguments.sizes for row in rows(models, size, arguments)],
    }
    text = json.dumps(measured, indent=2, ensure_ascii=False) + "\n"
    if arguments.out is None:
        print(text, end="")  # noqa: T201
    else:
        arguments.out.write_text(text, encoding="utf-8")


def rows(models: Sequence[Model], size: str, arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Return the rows of the table for one size, with the keys that benchmarks/README.md describes."""
    width, height = (int(side) for side in size.split("x"))
    options = {"threads": arguments.threads, "engines": arguments.engines, "repeats": arguments.runs}
    found = compare_with_reference(models, size=(height, width), **options)
    made_rows: list[dict[str, Any]] = []
    for model, compared in zip(models, found.compared, strict=True):
        default = make_engine(model, engine_options("auto", device="cpu"))
        for form in compared.forms:
            words = form.name.split()
            asked = "auto" if words[0] == "upframe" else words[0]
            made = None
            if asked != "reference":
                made = make_engine(model, engine_options(asked, device="cpu", precision=form.precision))
            row: dict[str, Any] = {
                "network": model.name,
                "input": size,
                "engine": "reference" if made is None else made.name,
                "precision": form.precision,
                "default": made is not None and (made.name, form.precision) == (default.name, default.precision),
            }
            ratios, share = compared.time_ratios(form), compared.share(form, found.limits)
            if ratios is None or share is None:
                made_rows.append(row | {"error": f"failed: {form.error}"})
                continue
            memory = compared.memory_ratio(form)
            high, low = (round(1 / quartile, 1) for quartile in ratios.quartiles_s)
            made_rows.append(
                row
                | {
                    "times_faster": round(1 / ratios.median_s, 1),
                    "quartiles": None if made is None else [low, high],
                    "share_of_limit": round(share, 2),
                    "memory": None if memory is None else round(memory, 2),
                    "psnr_set5_db": round(
                        score(model, "torch" if made is None else made.name, form.precision, arguments.testsets), 3
                    ),
                }
            )
    return made_rows


def score(model: Model, engine: str, precision: Precision, testsets: Path) -> float:
    """Return the mean PSNR on Y over Set5."""
    options = UpscaleOptions(tile="off", engine=engine_options(engine, device="cpu", precision=precision))
    scores = [s.scores["psnr-y"] for s in evaluate([model], data=testsets, datasets=["Set5"], options=options).scores]
    return sum(scores) / len(scores)


if __name__ == "__main__":
    main()
