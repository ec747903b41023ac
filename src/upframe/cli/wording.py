"""Numbers, times and names as people read them. Pure text: nothing here prints."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

PLURALS = {"picture": "pictures", "video": "videos", "file": "files", "frame": "frames", "track": "tracks", "model": "models"}


def cells(text: str) -> int:
    """Columns that `text` takes on a terminal; letters of East Asian scripts and emoji take two, marks none."""
    if text.isascii():
        return len(text)
    return sum(_cells_of(c) for c in text)


def _cells_of(character: str) -> int:
    if unicodedata.combining(character) or unicodedata.category(character) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(character) in ("W", "F") else 1


def shorten(text: str, width: int, *, gap: str = "…") -> str:
    """`text` in at most `width` columns, its middle replaced by `gap` where it is longer.

    The end gets the larger half: there stand the number and the extension that tell files apart.
    """
    if cells(text) <= width:
        return text
    room = width - cells(gap)
    if room < 2:
        return _head(text, width)
    tail = _head(text[::-1], room - room // 3)[::-1]
    return _head(text, room - cells(tail)) + gap + tail


def _head(text: str, width: int) -> str:
    used = 0
    for at, character in enumerate(text):
        used += _cells_of(character)
        if used > width:
            return text[:at]
    return text


def padded(text: str, width: int) -> str:
    """`text` and as many spaces as it lacks of `width` columns."""
    return text + " " * (width - cells(text))


def wrapped(text: str, width: int, *, indent: str = "") -> list[str]:
    """`text` as lines of at most `width` columns, broken between words; a word that is wider is cut. Its own indent is kept.

    A text that fits is kept as it is: the columns of a table stay aligned.

    Args:
        indent: Before all lines but the first.
    """
    if cells(text) <= width:
        return [text]
    first, *words = text.lstrip(" ").split(" ")
    lines, line = [], " " * (len(text) - len(text.lstrip(" "))) + first
    for word in ["", *words]:
        if not word:
            pass  # several spaces count as one
        elif line.strip() and cells(line) + 1 + cells(word) > width:
            lines.append(line)
            line = indent + word
        else:
            line = f"{line} {word}"
        while cells(line) > width:
            head = _head(line, width)
            lines.append(head)
            line = indent + line[len(head) :]
    return [*lines, line]


def count(number: int, noun: str) -> str:
    """`1 picture`, `38 pictures`, `1,203 frames`."""
    return f"{number:,} {noun if number == 1 else PLURALS[noun]}"


def listed(words: Sequence[str], *, last: str = "and") -> str:
    """`a`, `a and b`, `a, b and c`."""
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} {last} {words[-1]}" if words else ""


def clock(seconds: float) -> str:
    """How long something took: `0.4 s`, `2:31`, `1:02:31`."""
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def about(seconds: float) -> str:
    """How long something may take, no finer than it can be known: `10 s`, `4 min`, `1 h 20 min`, `3 days`."""
    if seconds < 60:
        step = 5 if seconds > 12 else 1
        rounded = max(step * round(seconds / step), 1)
        return f"{rounded} s" if rounded < 60 else "1 min"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    if minutes < 10 * 60:
        hours, rest = divmod(5 * round(minutes / 5), 60)
        return f"{hours} h {rest} min" if rest else f"{hours} h"
    hours = round(minutes / 60)
    return f"{hours} h" if hours < 48 else f"{round(hours / 24)} days"


def size(number_bytes: float) -> str:
    """`12 MiB`, `1.4 GiB`: two digits at least, no finer than 0.1 MiB."""
    value, unit = number_bytes / 2**20, "MiB"
    if value >= 1024:
        value, unit = value / 1024, "GiB"
    return f"{value:.0f} {unit}" if value >= 10 else f"{value:.1f} {unit}"


def table(rows: Sequence[Sequence[str]], *, right: Sequence[int] = ()) -> list[str]:
    """Rows as lines whose columns are aligned; the last one is not padded.

    Args:
        right: Columns of numbers, aligned at their right.
    """
    widths = [max(map(cells, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        parts = [
            " " * (width - cells(text)) + text if at in right else padded(text, width)
            for at, (text, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(parts).rstrip())
    return lines
