"""Make a checkpoint of upframe's own training a shipped weights file: score it, measure its tones, write both to its card.

Usage: python scripts/ship_weights.py CHECKPOINT photo-x4 --data TESTSETS [--recipe TEXT] [--notes TEXT] [--border-px 4] …

Entries of the card that are not given are kept from the shipped card of that name. `benchmarks/quality.json` and
`precision.json` get the new figures; draw their tables with scripts/draw_tables.py.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import upframe
from upframe.engines import TorchOptions
from upframe.evaluation.evaluate import evaluate
from upframe.evaluation.tones import measure_tones
from upframe.files import atomic_bytes, scratch_folder
from upframe.models.checkpoints import convert
from upframe.models.spec import Precision
from upframe.upscaling.options import UpscaleOptions

ROOT = Path(__file__).parent.parent
WEIGHTS = ROOT / "src" / "upframe" / "models" / "weights"
SETS = ("Set5", "Set14", "B100")
PROTOCOL = "sisr-y"
MOST_BYTES = 2_500_000
TEXTS = ("trained_on", "recipe", "notes", "licence_data")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("name", help="shipped model to replace")
    parser.add_argument("--data", type=Path, required=True, help="test sets, as `upframe evaluate` takes them")
    parser.add_argument("--border-px", type=int)
    for text in TEXTS:
        parser.add_argument(f"--{text.replace('_', '-')}")
    chosen = parser.parse_args(arguments)
    target = WEIGHTS / f"{chosen.name.replace('-', '_')}.safetensors"
    today = datetime.now(UTC).date().isoformat()
    before = json.loads(target.with_suffix(".card.json").read_text(encoding="utf-8"))
    entries = {name: before[name] for name in ("trained_on", "recipe", "notes", "source", "border_px") if name in before}
    entries |= {f"licence_{name}": before[f"licence_{name}"] for name in ("code", "data", "weights")}
    entries |= {name: value for name in (*TEXTS, "border_px") if (value := getattr(chosen, name)) is not None}
    entries |= {"origin": entries.pop("source"), "name": chosen.name, "created": today}
    with scratch_folder() as scratch:
        trial = scratch / "trial.safetensors"
        convert(chosen.checkpoint, trial, **entries)
        scores = scored(trial, chosen.data, fused=False, precision="fp32")
        tones = measure_tones(upframe.load(trial)).to_dict()
        losses = precision_losses(trial, chosen.data)
    rounded = {name: {"psnr": round(s["psnr-y"], 2), "ssim": round(s["ssim-y"], 4)} for name, s in scores.items()}
    convert(chosen.checkpoint, target, scores={PROTOCOL: rounded}, tones=tones, overwrite=True, **entries)
    if target.stat().st_size > MOST_BYTES:
        raise SystemExit(f"{target.name} has {target.stat().st_size} bytes; at most {MOST_BYTES} ship")
    quality = {name: {"psnr_db": s["psnr"], "ssim": s["ssim"]} for name, s in rounded.items()}
    change_row(ROOT / "benchmarks" / "quality.json", {"model": chosen.name}, quality, today)
    change_row(ROOT / "benchmarks" / "precision.json", {"weights": chosen.name}, losses, today)
    print(json.dumps({"scores": rounded, "tones": tones, "losses": losses}, indent=1))  # noqa: T201


def scored(weights: Path, data: Path, *, fused: bool, precision: Precision, sets: Sequence[str] = SETS) -> dict[str, Any]:
    """Scores by set and metric, by upframe's kernels or by torch's."""
    options = UpscaleOptions(tile="off", engine=TorchOptions(precision=precision, fused=fused))
    result = evaluate([upframe.load(weights)], protocol=PROTOCOL, data=data, datasets=sets, options=options)
    label = result.models[0].label
    return {d.name: {metric: result.mean(label, d.name, metric) for metric in result.metrics} for d in result.datasets}


def precision_losses(weights: Path, data: Path) -> dict[str, float]:
    """PSNR on Set5 in float32, and what bfloat16 loses of it."""
    full = scored(weights, data, fused=False, precision="fp32", sets=["Set5"])["Set5"]["psnr-y"]
    kernels = scored(weights, data, fused=True, precision="bf16", sets=["Set5"])["Set5"]["psnr-y"]
    plain = scored(weights, data, fused=False, precision="bf16", sets=["Set5"])["Set5"]["psnr-y"]
    return {
        "fp32_db": round(full, 3),
        "lost_by_kernels_db": round(full - kernels, 4),
        "lost_in_torch_db": round(full - plain, 4),
    }


def change_row(file: Path, found_by: dict[str, str], values: dict[str, Any], today: str) -> None:
    """Change one row of a results file, which has a row on each line, and its date."""
    lines = file.read_text(encoding="utf-8").split("\n")
    for number, line in enumerate(lines):
        if line.startswith("    {") and found_by.items() <= (row := json.loads(line.rstrip(","))).items():
            comma = "," if line.endswith(",") else ""
            lines[number] = f"    {json.dumps(row | values, ensure_ascii=False)}{comma}"
        lines[number] = re.sub(r'^  "date": "[^"]*"', f'  "date": "{today}"', lines[number])
    atomic_bytes(file, "\n".join(lines).encode())


if __name__ == "__main__":
    main()
