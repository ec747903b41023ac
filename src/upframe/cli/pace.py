"""How much of a job is done, and how long the rest will take: arithmetic on pixels and seconds, without a display."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

Kind = Literal["picture", "video"]

HALF_LIFE_S = 60.0
"""Speed that lies this far back counts half: a machine that gets busy or hot shows, a slow tile does not."""
SETTLING_S = 10.0
"""How fast the end that is shown follows the end that is expected."""
LEAST_S = 5.0
"""Seconds of computing before a time is shown at all."""
STEADY = 0.25
"""Most that the last expectations may differ, as a share of the whole, before the first is shown."""
SAMPLES, SAMPLE_S = 5, 0.7
"""How many expectations have to agree, and how far apart they are taken."""


@dataclass(frozen=True)
class Work:
    """One input of a job and what it weighs."""

    kind: Kind
    pixels: float
    """Of the output, over all frames."""


@dataclass
class _Rate:
    """Seconds a pixel, weighted towards the present."""

    seconds: float = 0.0
    pixels: float = 0.0
    observed_s: float = 0.0
    """All seconds that were observed, unweighted."""

    def add(self, seconds: float, pixels: float) -> None:
        weight = 0.5 ** (seconds / HALF_LIFE_S)
        self.seconds = self.seconds * weight + seconds
        self.pixels = self.pixels * weight + pixels
        self.observed_s += seconds

    @property
    def is_known(self) -> bool:
        return self.observed_s >= LEAST_S and self.pixels > 0


@dataclass
class _Current:
    """The input at hand."""

    work: Work
    share: float = 0.0
    """Done of it, 0 to 1."""
    seen: float | None = None
    """When its share was last told; None before the first time."""


@dataclass
class Pace:
    """Follows the events of a job.

    Pictures and videos have a rate of their own, since networks for them differ a hundredfold. Frames that an earlier run
    left, files that are there already and failures take no time and do not count.
    """

    work: Mapping[Path, Work]
    """The inputs that are to be made."""
    clock: Callable[[], float] = time.monotonic
    _waiting: dict[Path, Work] = field(default_factory=dict)
    _current: dict[Path, _Current] = field(default_factory=dict)
    _rates: dict[Kind, _Rate] = field(default_factory=lambda: {"picture": _Rate(), "video": _Rate()})
    _closed_px: float = 0.0
    _samples: deque[float] = field(default_factory=lambda: deque(maxlen=SAMPLES))
    _sampled: float = -math.inf
    _shown_end: float | None = None
    _shown_at: float = 0.0

    def __post_init__(self) -> None:
        self._waiting = dict(self.work)

    def start(self, path: Path) -> None:
        work = self._waiting.pop(path, None)
        if work is not None:
            self._current[path] = _Current(work, seen=self.clock() if work.kind == "picture" else None)

    def advance(self, path: Path, share: float, *, counts: bool = True) -> None:
        """Note that `share` of an input is done.

        Args:
            counts: Whether it was computed since the last call: not so while a video is read or checked.
        """
        current = self._current.get(path)
        if current is None:
            return
        now = self.clock()
        if counts and current.seen is not None and share >= current.share:
            self._rates[current.work.kind].add(now - current.seen, (share - current.share) * current.work.pixels)
        current.share, current.seen = share, now if counts else None
        self._settle(now)

    def close(self, path: Path, *, is_done: bool) -> None:
        """Note that an input is finished, or dropped."""
        if path in self._current and is_done and self._current[path].seen is not None:
            self.advance(path, 1.0)
        current = self._current.pop(path, None)
        work = self._waiting.pop(path, None) if current is None else current.work
        if work is not None and is_done:
            self._closed_px += work.pixels
        elif work is not None and current is not None:
            self._closed_px += current.share * work.pixels

    @property
    def share(self) -> float:
        """Done of the whole job, 0 to 1, by pixels."""
        done = self._closed_px + sum(c.share * c.work.pixels for c in self._current.values())
        rest = sum(c.pixels for c in self._remaining().values())
        return done / (done + rest) if done + rest else 1.0

    def seconds_left(self) -> float | None:
        """Seconds to the end, None while they cannot be told.

        They count down by themselves: the end that is shown follows the expected one slowly, so a slow tile moves it little.
        """
        now = self.clock()
        self._settle(now)
        return None if self._shown_end is None else max(self._shown_end - now, 0.0)

    def _settle(self, now: float) -> None:
        """Let the end that is shown follow the expected one."""
        expected = self._expected_s(now)
        if expected is None:
            return
        if self._shown_end is None:
            if self._is_steady(now, expected):
                self._shown_end, self._shown_at = now + expected, now
            return
        follow = 1 - math.exp(-(now - self._shown_at) / SETTLING_S)
        self._shown_end += (now + expected - self._shown_end) * follow
        self._shown_at = now

    def _remaining(self) -> dict[Kind, _Rate]:
        """Pixels still to be made, by kind; only kinds of which some are."""
        rest: dict[Kind, _Rate] = {}
        parts = [(w.kind, w.pixels) for w in self._waiting.values()]
        parts += [(c.work.kind, (1 - c.share) * c.work.pixels) for c in self._current.values()]
        for kind, pixels in parts:
            rest.setdefault(kind, _Rate()).pixels += pixels
        return rest

    def _expected_s(self, now: float) -> float | None:
        """Seconds from `now` to the end at the speed so far; None while that is not known for all that is left."""
        total = 0.0
        for kind, rest in self._remaining().items():
            rate = self._rates[kind]
            if rest.pixels and not rate.is_known:
                return None
            total += rest.pixels * rate.seconds / rate.pixels if rest.pixels else 0.0
        since = [c.seen for c in self._current.values() if c.seen is not None]
        return max(total - (now - max(since) if since else 0.0), 0.0)

    def _is_steady(self, now: float, expected: float) -> bool:
        if now - self._sampled >= SAMPLE_S:
            self._samples.append(now + expected)
            self._sampled = now
        if len(self._samples) < SAMPLES:
            return False
        return max(self._samples) - min(self._samples) <= STEADY * max(max(self._samples) - now, LEAST_S)
