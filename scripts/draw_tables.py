"""Draw the tables of results from `benchmarks/*.json` between their markers in README.md and docs/.

Usage: python scripts/draw_tables.py [--check]

`--check` changes nothing and exits with 1 if a page differs. A marker pair is `<!-- NAME:begin -->` and `<!-- NAME:end -->`.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
BENCHMARKS = ROOT / "benchmarks"
TEST_SETS = ("Set5", "Set14", "B100")
LARGEST_LOSS_DB = 0.015
"""A larger loss keeps a network in float32 by default; docs/speed.md explains it."""

Results = dict[str, Any]
"""One file of `benchmarks/`; `benchmarks/README.md` describes its keys."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    check: bool = parser.parse_args().check
    outdated = [path for path in PAGES if drawn(path) != path.read_text(encoding="utf-8")]
    for path in outdated:
        print(f"{path.relative_to(ROOT)}: {'outdated' if check else 'redrawn'}")  # noqa: T201
        if not check:
            path.write_text(drawn(path), encoding="utf-8")
    sys.exit(1 if check and outdated else 0)


def drawn(path: Path) -> str:
    """Return the text of a page with its tables drawn again.

    Raises:
        ValueError: if the page lacks a marker of one of its tables, or has it twice.
    """
    text = path.read_text(encoding="utf-8")
    for name in PAGES[path]:
        file, draw = TABLES[name]
        results = json.loads((BENCHMARKS / file).read_text(encoding="utf-8"))
        pattern = re.compile(rf"(<!-- {name}:begin -->\n).*?(<!-- {name}:end -->)", re.DOTALL)
        body = "\n".join([*draw(results), ""])
        text, count = pattern.subn(lambda found, body=body: found[1] + body + found[2], text)
        if count != 1:
            raise ValueError(f"{path.name} has {count} pairs of markers for the table {name}, not one")
    return text


def draw_shipped(results: Results) -> list[str]:
    """Compare shipped photo models at ×4 with bicubic and the best official weights, for the README."""
    rows = [row for row in results["rows"] if row["scale"] == 4]
    best = max((row for row in rows if row["weights"] == "official"), key=lambda row: row["Set5"]["psnr_db"])
    shown = [row for row in rows if row["weights"] != "official"] + [best]
    return _quality_table("×4", shown)


def draw_quality(results: Results) -> list[str]:
    """Draw one table for each scale."""
    lines: list[str] = []
    for scale in sorted({row["scale"] for row in results["rows"]}):
        lines += [*([""] if lines else []), *_quality_table(f"×{scale}", [r for r in results["rows"] if r["scale"] == scale])]
    return lines


def _quality_table(heading: str, rows: list[Results]) -> list[str]:
    lines = _head([heading, *TEST_SETS], left=1)
    for row in rows:
        name = row["model"] if row["weights"] is None else f"{row['model']}, {row['weights']}"
        name = f"**{name}**" if row["weights"] == "shipped" else name
        name += f", {row['note']}" if "note" in row else ""
        scores = [f"{row[name]['psnr_db']:.2f}/{row[name]['ssim']:.4f}".replace("/0.", "/.") for name in TEST_SETS]
        lines.append(_line([name, *scores]))
    return lines


def draw_speed(results: Results) -> list[str]:
    """Draw the table of speed; bold lines are the default of their network."""
    lines = _head(
        ["network", "input", "engine", "precision", "times faster", "share of the limit", "memory", "PSNR on Set5"], left=4
    )
    for row in results["rows"]:
        if "error" in row:
            lines.append(_line([row["network"], row["input"], row["engine"], row["precision"], row["error"], "", "", ""]))
            continue
        spread = "" if row["quartiles"] is None else " ({:.1f} to {:.1f})".format(*row["quartiles"])
        cells = [
            row["network"],
            row["input"],
            "reference form" if row["engine"] == "reference" else row["engine"],
            row["precision"],
            f"{row['times_faster']:.1f}{spread}" if spread else "1",
            f"{row['share_of_limit']:.0%}",
            "-" if row["memory"] is None else f"{row['memory']:.2f}",
            f"{row['psnr_set5_db']:.3f}",
        ]
        lines.append(_line([f"**{cell}**" if row["default"] else cell for cell in cells]))
    return lines


def draw_precision(results: Results) -> list[str]:
    """Draw the table of precision losses; a bold loss keeps torch in float32."""
    lines = _head(["network", "weights", "float32", "lost by [kernels](#kernels)", "lost in torch"], left=2)
    for row in results["rows"]:
        losses = [row["lost_by_kernels_db"], row["lost_in_torch_db"]]
        shown = [f"**{loss:.4f}**" if loss > LARGEST_LOSS_DB else f"{loss:.4f}" for loss in losses]
        lines.append(_line([f"`{row['network']}`", f"`{row['weights']}`", f"{row['fp32_db']:.3f}", *shown]))
    return lines


def draw_engines(results: Results) -> list[str]:
    engines = list(results["rows"][0]["times_faster"])
    lines = _head(["network", *engines], left=1)
    for row in results["rows"]:
        lines.append(_line([f"`{row['network']}`", *(f"{row['times_faster'][engine]:.1f}" for engine in engines)]))
    return lines


def draw_video_networks(results: Results) -> list[str]:
    lines = _head(
        ["form", "time", "times faster", "share of the limit", "added", "of the reference form", "PSNR to it"], left=1
    )
    for row in results["rows"]:
        psnr = row["psnr_to_reference_db"]
        is_reference = psnr is None
        cells = [
            row["form"],
            f"{row['time_s']:.1f} s",
            "1" if is_reference else f"{row['times_faster']:.1f}",
            f"{row['share_of_limit']:.0%}".replace("%", " %"),
            f"{row['added_mb']} MB",
            "1" if is_reference else f"{row['memory']:.2f}",
            "" if is_reference else f"{psnr:.1f} dB",
        ]
        lines.append(_line(cells))
    return lines


def _head(cells: list[str], *, left: int) -> list[str]:
    """Return the heading of a table and the line below it; the first `left` columns are aligned left, the others right."""
    return [_line(cells), _line(["---"] * left + ["---:"] * (len(cells) - left))]


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


TABLES: dict[str, tuple[str, Callable[[Results], list[str]]]] = {
    "shipped": ("quality.json", draw_shipped),
    "quality": ("quality.json", draw_quality),
    "speed": ("speed.json", draw_speed),
    "precision": ("precision.json", draw_precision),
    "engines": ("engines.json", draw_engines),
    "video-networks": ("video_networks.json", draw_video_networks),
}
"""The results and the function behind each pair of markers."""

PAGES: dict[Path, tuple[str, ...]] = {
    ROOT / "README.md": ("shipped",),
    ROOT / "docs" / "results.md": ("quality",),
    ROOT / "docs" / "speed.md": ("speed", "precision", "engines", "video-networks"),
}
"""The tables of each page."""

if __name__ == "__main__":
    main()
