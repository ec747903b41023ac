"""Make a checkpoint of upframe's own training a shipped weights file: score it, measure its tones, write both to its card.

Usage: python scripts/ship_weights.py CHECKPOINT photo-x4 --data TESTSETS [--recipe TEXT] [--notes TEXT] [--border-px 4] …
       python scripts/ship_weights.py CHECKPOINT video-x4 --data VID4 …

Photo networks are scored on Set5, Set14 and B100, video networks on Vid4. Entries of the card that are not given are kept from
the shipped card of that name. Where `benchmarks/quality.json` and `precision.json` have a row of that model, it gets the new
figures; draw their tables with scripts/draw_tables.py.
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
from upframe.models.registry import Model
from upframe.models.spec import Precision
from upframe.upscaling.options import UpscaleOptions

ROOT = Path(__file__).parent.parent
WEIGHTS = ROOT / "src" / "upframe" / "models" / "weights"
SETS = ("Set5", "Set14", "B100")
PHOTO_PROTOCOL, VIDEO_PROTOCOL = "sisr-y", "vid4-y"
MOST_BYTES = 2_500_000
TEXTS = ("trained_on", "recipe", "notes", "licence_data")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("name", help="shipped model to replace")
    parser.add_argument("--data", type=Path, required=True, help="test sets or Vid4, as `upframe evaluate` takes them")
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
        model = upframe.load(trial)
        scores = scored(model, chosen.data)
        tones = measure_tones(model).to_dict()
        losses = precision_losses(model, chosen.data)
    rounded = {name: {"psnr": round(s["psnr-y"], 2), "ssim": round(s["ssim-y"], 4)} for name, s in scores.items()}
    convert(chosen.checkpoint, target, scores={protocol_of(model): rounded}, tones=tones, overwrite=True, **entries)
    if target.stat().st_size > MOST_BYTES:
        raise SystemExit(f"{target.name} has {target.stat().st_size} bytes; at most {MOST_BYTES} ship")
    quality = {name: {"psnr_db": s["psnr"], "ssim": s["ssim"]} for name, s in rounded.items()}
    change_row(ROOT / "benchmarks" / "quality.json", {"model": chosen.name}, quality, today)
    change_row(ROOT / "benchmarks" / "precision.json", {"weights": chosen.name}, losses, today)
    print(json.dumps({"scores": rounded, "tones": tones, "losses": losses}, indent=1))  # noqa: T201


def protocol_of(model: Model) -> str:
    return PHOTO_PROTOCOL if model.spec.window is None else VIDEO_PROTOCOL


def scored(
    model: Model, data: Path, *, fused: bool = False, precision: Precision = "fp32", sets: Sequence[str] = SETS
) -> dict[str, Any]:
    """Scores by set and metric, by upframe's kernels or by torch's; the protocol of a video network names its set."""
    options = UpscaleOptions(tile="off", engine=TorchOptions(precision=precision, fused=fused))
    protocol = protocol_of(model)
    result = evaluate(
        [model], protocol=protocol, data=data, datasets=sets if protocol == PHOTO_PROTOCOL else None, options=options
    )
    label = result.models[0].label
    return {d.name: {metric: result.mean(label, d.name, metric) for metric in result.metrics} for d in result.datasets}


def precision_losses(model: Model, data: Path) -> dict[str, float]:
    """PSNR on Set5, of a video network on Vid4, in float32, and what bfloat16 loses of it."""

    def level(*, fused: bool, precision: Precision) -> float:
        (only,) = scored(model, data, fused=fused, precision=precision, sets=["Set5"]).values()
        return float(only["psnr-y"])

    full = level(fused=False, precision="fp32")
    return {
        "fp32_db": round(full, 3),
        "lost_by_kernels_db": round(full - level(fused=True, precision="bf16"), 4),
        "lost_in_torch_db": round(full - level(fused=False, precision="bf16"), 4),
    }


def change_row(file: Path, found_by: dict[str, str], values: dict[str, Any], today: str) -> None:
    """Change one row of a results file, which has a row on each line, and its date; nothing if it has no such row."""
    lines = file.read_text(encoding="utf-8").split("\n")
    changed = False
    for number, line in enumerate(lines):
        if line.startswith("    {") and found_by.items() <= (row := json.loads(line.rstrip(","))).items():
            comma = "," if line.endswith(",") else ""
            lines[number] = f"    {json.dumps(row | values, ensure_ascii=False)}{comma}"
            changed = True
    if changed:
        dated = re.sub(r'^  "date": "[^"]*"', f'  "date": "{today}"', "\n".join(lines), flags=re.MULTILINE)
        atomic_bytes(file, dated.encode())


if __name__ == "__main__":
    main()
