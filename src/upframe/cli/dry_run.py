"""`--dry-run`: what would be made, in aligned rows with totals, and what would not and why."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from upframe.cli import terminal, wording
from upframe.cli.flags import worded, worded_error, worded_event
from upframe.cli.output import print_line, show_json
from upframe.cli.summary import folded
from upframe.errors import one_line

if TYPE_CHECKING:
    from upframe.jobs import Item, Plan

Row = Mapping[str, Any]
"""A line of `--json`."""

HEADINGS = ("Input", "Size", "Format", "Memory", "Disk", "Output")
NUMBERS = (3, 4)
"""Columns that are aligned at the right."""
MOST_IGNORED = 20
"""Files that are not read are named up to this number."""
MOST_LEDGERS = 10
"""Inputs whose ledger is printed; `--json` has it for all."""
LEAST_NAME = 12
"""Columns of a name on a narrow terminal."""


def show_plan(planned: Plan, *, inputs: Sequence[str], output: Path | None, as_json: bool) -> None:
    """Print a plan; nothing is computed or written.

    Args:
        inputs: Files, folders and patterns that were given.
        output: The output that was given.
    """
    rows = [_row(item, planned) for item in planned.items]
    if as_json:
        from upframe.jobs import failed_event

        for row in rows:
            print_line(json.dumps(row))
        for failed in planned.failed:
            show_json(worded_event(failed_event(failed.input, failed.error)))
        return
    width = terminal.columns(sys.stdout) if sys.stdout is not None and sys.stdout.isatty() else None
    paths = [item.input for item in planned.items] + [failed.input for failed in planned.failed]
    filters = planned.options.include or planned.options.exclude
    why = "no picture or video, or skipped by --include or --exclude" if filters else "no picture or video"
    ignored = ignored_files(inputs, paths, output=output, recursive=planned.options.recursive, why=why)
    failures = [str(worded_error(failed.error)) for failed in planned.failed if failed.error is not None]
    for line in plan_lines(rows, failures, ignored, width=width):
        print_line(line)


def _row(item: Item, planned: Plan) -> Row:
    """The plan for one input, ready for JSON."""
    notices = [{"id": notice.id, "message": worded(notice.message)} for notice in item.notices]
    return {
        "event": "plan",
        "input": str(item.input),
        "output": str(item.output),
        "model": item.model,
        "size": item.size,
        "skip": item.skip,
        "notices": notices,
        "ledger": [{key: worded(value) for key, value in entry.items()} for entry in item.ledger.rows()],
        **asdict(planned.estimate(item)),
    }


def ignored_files(inputs: Sequence[str], taken: Sequence[Path], *, output: Path | None, recursive: bool, why: str) -> list[str]:
    """Files in the folders among `inputs` that are not taken, and folders that need -r, each with the reason.

    Hidden files are not counted, nor what lies in the output folder or in a folder that is taken as a whole.

    Args:
        taken: Inputs of the plan.
        why: Why a file is not taken.
    """
    known = {os.path.abspath(path) for path in (*taken, *([] if output is None else [output]))}  # noqa: PTH100 (keeps links)
    ignored: list[str] = []
    for given in inputs:
        if not Path(given).is_dir() or os.path.abspath(given) in known:  # noqa: PTH100
            continue
        for folder, folders, files in os.walk(given):
            here = Path(folder)
            folders[:] = sorted(f for f in folders if not f.startswith(".") and os.path.abspath(here / f) not in known)  # noqa: PTH100
            names = sorted(f for f in files if not f.startswith(".") and os.path.abspath(here / f) not in known)  # noqa: PTH100
            ignored += [f"{here / name} ({why if (here / name).exists() else 'a link to nothing'})" for name in names]
            if not recursive:
                ignored += [f"{here / name}/ (a folder; add -r)" for name in folders]
                break
    return ignored


def plan_lines(
    rows: Sequence[Row],
    failures: Sequence[str],
    ignored: Sequence[str] = (),
    *,
    width: int | None = None,
) -> list[str]:
    """A plan as lines.

    Args:
        rows: Lines of `--json`, one for each input.
        failures: What is wrong with the inputs that cannot be done.
        ignored: What is not read of the input folders, and why.
        width: Columns of the terminal, in which names are shortened; None for no limit.
    """
    made = [row for row in rows if not row["skip"]]
    skipped = [row for row in rows if row["skip"]]
    lines: list[str] = []
    if made:
        lines += _table_of(made, width)
    if skipped:
        lines += ["", "Skipped, since the output is there already and verified (-y makes it again):"]
        names = [(one_line(row["input"]), "->", one_line(row["output"])) for row in skipped]
        lines += [f"  {line}" for line in wording.table(names)]
    if failures:
        lines += ["", "Cannot be done:", *(f"  {failure}" for failure in failures)]
    if ignored:
        lines += ["", "Not read:", *(f"  {one_line(name)}" for name in ignored[:MOST_IGNORED])]
        if len(ignored) > MOST_IGNORED:
            lines.append(f"  and {len(ignored) - MOST_IGNORED:,} more")
    notes = [(Path(row["input"]), n["id"], n["message"]) for row in made for n in row["notices"]]
    if notes:
        nouns = {Path(row["input"]): _noun(row) for row in rows}
        lines += ["", "Notes:", *(f"  {note}" for note in folded(notes, nouns))]
    lines += _ledgers(made)
    lines += ["", *_models(made), total(made, skipped=len(skipped), failed=len(failures))]
    lines = lines if lines[0] else lines[1:]
    return lines if width is None else [part for line in lines for part in wording.wrapped(line, width, indent="    ")]


def _ledgers(rows: Sequence[Row]) -> list[str]:
    """The ledger of each input: a line for each loss and each change, and one for all that is carried over."""
    known = [row for row in rows if row.get("ledger")]
    if not known:
        return []
    lines = ["", "Besides the pixels:"]
    for row in known[:MOST_LEDGERS]:
        entries = row["ledger"]
        lines.append(f"  {one_line(row['input'])}")
        alike: dict[tuple[str, str], list[Row]] = {}
        for entry in entries:
            if entry["fate"] != "carried":
                alike.setdefault((entry["fate"], entry["detail"]), []).append(entry)
        for (fate, detail), group in sorted(alike.items(), key=lambda one: one[0][0], reverse=True):  # lost, then changed
            lines.append(f"    {fate}: {_by_kind(group)} ({detail})")
        carried = [entry for entry in entries if entry["fate"] == "carried"]
        lines += [f"    carried: {_by_kind(carried)}"] if carried else []
    if len(known) > MOST_LEDGERS:
        lines.append(f"  and {len(known) - MOST_LEDGERS:,} more; --json lists them all")
    return lines


def _by_kind(entries: Iterable[Row]) -> str:
    """`metadata colour profile, resolution; tag language of track 1`: each kind is named once."""
    names: dict[str, list[str]] = {}
    for entry in entries:
        names.setdefault(entry["kind"], []).append(entry["name"])
    return "; ".join(f"{kind} {', '.join(held)}" for kind, held in names.items())


def _table_of(rows: Sequence[Row], width: int | None) -> list[str]:
    """A line for each file, and a second one below each video."""
    cells: list[tuple[str, ...]] = [
        (
            one_line(row["input"]),
            f"{_size(row['input_size'])} -> {_size(row['size'])}",
            row["format"].partition(",")[0],
            wording.size(row["memory_bytes"]),
            wording.size(row["file_bytes"]),
            one_line(row["output"]),
        )
        for row in rows
    ]
    if width is not None:
        cells = _fitted(cells, width)
    table = wording.table([HEADINGS, *cells], right=NUMBERS)
    lines = table[:1]
    for row, line in zip(rows, table[1:], strict=True):
        lines.append(line)
        if row["video"] is not None:
            lines.append(f"  {video_facts(row)}")
        elif row["frames"] > 1:
            lines.append(f"  {wording.count(row['frames'], 'frame')}")
    return lines


def _fitted(cells: list[tuple[str, ...]], width: int) -> list[tuple[str, ...]]:
    """Rows whose names leave the table no wider than `width`, as far as they can."""
    fixed = sum(max(map(wording.cells, column)) for column in zip(HEADINGS, *cells, strict=True) if column[0] in HEADINGS[1:5])
    room = max(width - fixed - 2 * (len(HEADINGS) - 1), 2 * LEAST_NAME)
    longest = max(wording.cells(row[0]) for row in cells)
    first = min(longest, max(room // 2, room - max(wording.cells(row[-1]) for row in cells)))
    return [(wording.shorten(row[0], first), *row[1:-1], wording.shorten(row[-1], room - first)) for row in cells]


def _size(height_width: Sequence[int]) -> str:
    return f"{height_width[1]}x{height_width[0]}"


def _noun(row: Row) -> str:
    return "picture" if row["video"] is None else "video"


def video_facts(row: Row) -> str:
    """Duration, rate, frames, codec, sound and interlacing of a video, and how it is cut."""
    video = row["video"]
    facts = [] if video["seconds"] is None else [wording.clock(video["seconds"])]
    facts += [f"{video['rate']:.5g} fps", wording.count(row["frames"], "frame")]
    codec = row["format"].partition(", ")[2]
    if codec:
        facts.append(codec)
    sound = f"{wording.count(len(video['audio']), 'track')} ({', '.join(video['audio'])})" if video["audio"] else "none"
    parts = [", ".join(facts), f"sound: {sound}"]
    if video["subtitles"]:
        parts.append(f"subtitles: {wording.count(video['subtitles'], 'track')}")
    if video["interlaced"]:
        parts.append("interlaced")
    if row["window"]:
        parts.append(f"{wording.count(row['window'], 'frame')} at once")
    return "; ".join(parts)


def _models(rows: Sequence[Row]) -> list[str]:
    """How it is computed: a line for each model, engine, precision and tile."""
    uses: dict[str, int] = {}
    for row in rows:
        is_cut = row["tile"][0] < row["input_size"][0] or row["tile"][1] < row["input_size"][1]
        tile = f"tiles of {_size(row['tile'])}" if is_cut else "untiled"
        use = f"{one_line(row['model'])}, {row['engine']}, {row['precision']}, {tile}"
        uses[use] = uses.get(use, 0) + 1
    if len(uses) == 1:
        return [f"Model: {use}" for use in uses]
    return [f"Model: {use}, for {wording.count(number, 'file')}" for use, number in uses.items()]


def total(rows: Sequence[Row], *, skipped: int, failed: int) -> str:
    """`Total: 38 pictures of 912 megapixels, 4.1 GiB on disk, 1.2 GiB of memory at most, about 5:10 for the network here.`"""
    kinds = []
    for noun in ("picture", "video"):
        of_kind = [row for row in rows if _noun(row) == noun]
        if of_kind:
            frames = sum(row["frames"] for row in of_kind)
            pixels = sum(row["size"][0] * row["size"][1] * row["frames"] for row in of_kind)
            megapixels = f"{pixels / 1e6:,.1f} megapixels" if pixels >= 50_000 else f"{pixels:,} pixels"
            amount = megapixels if noun == "picture" else wording.count(frames, "frame")
            kinds.append(f"{wording.count(len(of_kind), noun)} of {amount}")
    text = "nothing to do"
    if kinds:
        disk, memory = sum(row["file_bytes"] for row in rows), max(row["memory_bytes"] for row in rows)
        text = f"{' and '.join(kinds)}, {wording.size(disk)} on disk, {wording.size(memory)} of memory at most"
        times = [row["seconds"] for row in rows]
        if all(seconds is not None for seconds in times):  # of some kinds of networks no time can be told beforehand
            text += f", about {wording.clock(max(sum(times), 1))} for the network here"
    rest = [f"{n} {word}" for n, word in ((skipped, "skipped"), (failed, "cannot be done")) if n]
    return f"Total: {'; '.join([text, *rest])}."
