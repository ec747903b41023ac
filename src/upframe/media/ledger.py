"""The ledger of an input: each thing that came in, and whether it is carried over, changed or lost.

Readers list the things, writers decide their fate. Notices of losses are made from the ledger alone, and an entry that is lost
cannot be made without the id of a notice, so no loss goes without one.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from upframe.errors import NOTICES, Notice, one_line

Fate = Literal["carried", "changed", "lost"]


@dataclass(frozen=True)
class Entry:
    """One thing that the input holds, and its fate."""

    kind: str
    """A class of things, such as "track", "side data", "tag" or "container"."""
    name: str
    """The thing within its kind, such as "A53_CC" or "title"."""
    fate: Fate
    detail: str = ""
    """How it is changed, or why it is lost, as one clause. With a notice it is the message of the notice."""
    notice: str | None = None
    """Id of a notice. An entry that is lost has one; a change that users should know of has one, too."""

    def __post_init__(self) -> None:
        if self.fate == "lost" and self.notice is None:
            raise ValueError(f"{self.kind} {self.name} is lost without a notice")
        if self.notice is not None and (self.notice not in NOTICES or not self.detail):
            raise ValueError(f"{self.kind} {self.name} has notice {self.notice!r} and detail {self.detail!r}")

    def row(self) -> dict[str, str]:
        """The entry, ready for JSON; empty fields are skipped."""
        fields = {"kind": self.kind, "name": self.name, "fate": self.fate, "detail": self.detail, "notice": self.notice or ""}
        return {key: one_line(value) for key, value in fields.items() if value}


@dataclass(frozen=True)
class Ledger:
    """All entries of one input, in the order in which they were found."""

    entries: tuple[Entry, ...] = ()

    @classmethod
    def of(cls, entries: Iterable[Entry]) -> Ledger:
        """Make a ledger; an entry that occurs twice is listed once."""
        return cls(tuple(dict.fromkeys(entries)))

    def __add__(self, other: Ledger) -> Ledger:
        return Ledger.of((*self.entries, *other.entries))

    def notices(self, subject: str) -> tuple[Notice, ...]:
        """The notices of all entries that have one; entries with the same detail share a notice."""
        told = dict.fromkeys((entry.notice, entry.detail) for entry in self.entries if entry.notice is not None)
        return tuple(Notice(id, subject, detail) for id, detail in told if id is not None)

    def rows(self) -> list[dict[str, str]]:
        """All entries, ready for JSON."""
        return [entry.row() for entry in self.entries]


EMPTY = Ledger()
"""The ledger of an input of which nothing is known."""
