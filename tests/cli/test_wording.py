"""Numbers, times and names as people read them: whatever they are, they fit and say the same."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from upframe.cli import wording

NAMES = st.text(st.characters(exclude_categories=("Cc", "Cs")), max_size=80)


@pytest.mark.parametrize(("number", "noun", "words"), [(1, "picture", "1 picture"), (38, "picture", "38 pictures")])
def test_one_is_singular(number: int, noun: str, words: str) -> None:
    assert wording.count(number, noun) == words
    assert wording.count(1203, "frame") == "1,203 frames"


@pytest.mark.parametrize(
    ("seconds", "words"), [(0.41, "0.4 s"), (59.94, "59.9 s"), (59.96, "1:00"), (151, "2:31"), (3751, "1:02:31")]
)
def test_how_long_it_took(seconds: float, words: str) -> None:
    assert wording.clock(seconds) == words


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.2, "1 s"),
        (9, "9 s"),
        (38, "40 s"),
        (59, "1 min"),
        (240, "4 min"),
        (4800, "1 h 20 min"),
        (7300, "2 h"),
        (4e5, "5 days"),
    ],
)
def test_how_long_it_may_take_is_no_finer_than_it_can_be_known(seconds: float, words: str) -> None:
    assert wording.about(seconds) == words


@given(NAMES, st.integers(3, 60))
def test_a_shortened_name_fits_and_keeps_its_ends(name: str, width: int) -> None:
    short = wording.shorten(name, width)
    assert wording.cells(short) <= width
    if wording.cells(name) <= width:
        assert short == name
    else:
        head, _, tail = short.partition("…")
        assert name.startswith(head) and name.endswith(tail)


def test_a_shortened_name_keeps_number_and_extension() -> None:
    assert wording.shorten("holiday-in-the-mountains-007.jpeg", 20) == "holida…ains-007.jpeg"


@given(NAMES, st.integers(8, 60), st.sampled_from(["", "    "]))
def test_wrapped_text_fits_and_loses_no_word(text: str, width: int, indent: str) -> None:
    lines = wording.wrapped(text, width, indent=indent)
    assert all(wording.cells(line) <= width for line in lines)
    assert "".join("".join(lines).split()) == "".join(text.split())


def test_wrapped_text_that_fits_keeps_the_columns_of_its_table() -> None:
    assert wording.wrapped("  a.png   120x90   png", 80) == ["  a.png   120x90   png"]


@given(st.lists(st.tuples(NAMES, NAMES, NAMES), min_size=1, max_size=6))
def test_columns_of_a_table_are_aligned(rows: list[tuple[str, str, str]]) -> None:
    marked = [(a + "|", b + "|", c) for a, b, c in rows]
    lines = wording.table(marked)
    starts = set()
    for (first, second, _), line in zip(marked, lines, strict=True):
        assert line.startswith(first)
        at = wording.cells(line[: line.index(second, len(first))]) if second.strip("|") else None
        starts |= set() if at is None else {at}
    assert len(starts) <= 1
