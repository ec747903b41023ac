"""One clock for a file: where its time jumps, and how far each packet moves so that all tracks share one time line.

Joined transport streams, interrupted recordings and clocks that wrap have timestamps that jump back or far ahead.
`ClockFinder` follows the packets of all tracks in the order of the file and divides the file's time into epochs; within an
epoch, the file's time and the time line differ by one shift. `Clock` is the result: a table of packets and shifts, so that each
later reading moves the same packets by the same time.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

NEAR_S = 0.1
"""A packet that lies farther than this before its expected time shows a jump, as in FFmpeg's own correction."""
UNSORTED_NEAR_S = 1.0
"""The same beside packets that state only display times: pictures are reordered by less."""
AHEAD_S = 1.0
"""A packet that lies farther than this after its expected time, and after all other tracks, begins an epoch: it is a gap, a
jump or a wrong timestamp."""
LONGEST_GAP_S = 10.0
"""In a format whose time may jump, a longer gap of all tracks is a jump, as in FFmpeg's own correction."""
STAYED_S = 2.0
"""A track that goes on for longer than this in its old epoch did not jump."""
_LOOK_BACK = 8  # epochs between a wrong timestamp and the return to the right time


@dataclass(frozen=True)
class Jump:
    """One corrected jump."""

    at: Fraction
    """Its time on the time line, in seconds."""
    by: Fraction
    """Seconds by which the file's time jumps; negative is back."""


@dataclass(frozen=True)
class Clock:
    """Shifts of the packets of a file; a file whose time is right has none."""

    shifts: Mapping[int, tuple[tuple[int, Fraction], ...]] = field(default_factory=dict)
    """Per index of a track: the number of a packet within the track, and the shift in seconds from that packet on."""
    jumps: tuple[Jump, ...] = ()

    @property
    def is_even(self) -> bool:
        """Whether no packet moves."""
        return not self.shifts

    def reader(self) -> ClockReader:
        """Start at the beginning of the file."""
        return ClockReader(self)


class ClockReader:
    """Moves the packets of one reading of a file, from its beginning on."""

    def __init__(self, clock: Clock) -> None:
        self._shifts = clock.shifts
        self._seen = dict.fromkeys(clock.shifts, 0)
        self._entry = dict.fromkeys(clock.shifts, 0)

    def move(self, packet: Any) -> None:
        """Move the timestamps of a demuxed packet to the time line. Each packet of a track is passed once, in order."""
        track = packet.stream_index
        if track not in self._shifts:
            return
        table, entry = self._shifts[track], self._entry[track]
        if entry < len(table) and table[entry][0] == self._seen[track]:
            self._entry[track] = entry = entry + 1
        self._seen[track] += 1
        if entry == 0:
            return
        ticks = round(table[entry - 1][1] / Fraction(packet.time_base))
        packet.pts = None if packet.pts is None else packet.pts + ticks
        packet.dts = None if packet.dts is None else packet.dts + ticks


def demuxed(container: Any, streams: Sequence[Any], clock: Clock) -> Iterator[Any]:
    """Yield the packets of `streams` in the file's order, moved to the time line. The container is at its beginning, or the
    clock is even."""
    reader = clock.reader()
    for packet in container.demux(streams):
        if packet.size == 0 and packet.pts is None and packet.dts is None:
            continue  # PyAV's own sign of the end
        reader.move(packet)
        yield packet


@dataclass
class _Run:
    """Packets in a row of one track in one epoch."""

    first: int
    """Number of the first packet within the track."""
    epoch: int
    begin: int
    """Earliest display time, in the file's ticks."""
    end: int
    """Latest end of a display, in the file's ticks."""


@dataclass
class _Track:
    base: Fraction
    is_steady: bool
    """Whether its packets follow each other without gaps, as those of audio and video."""
    packets: int = 0
    runs: list[_Run] = field(default_factory=list)
    at: dict[int, int] = field(default_factory=dict)
    """Per epoch, the position of its first run."""
    returned: set[int] = field(default_factory=set)
    """Epochs that the track has left for an older one."""
    latest: int = 0
    """Time of the last packet in ticks; of no meaning without runs."""
    step: int = 0
    """Duration of the last packet in ticks."""
    has_dts: bool = True
    """Whether the last packet states its decoding time."""
    covered_s: float = 0.0
    """Sum of all durations."""

    @property
    def epoch(self) -> int:
        return self.runs[-1].epoch

    @property
    def due_s(self) -> float:
        """When the next packet is expected, in the file's time."""
        return float((self.latest + self.step) * self.base)

    def begin(self, run: _Run) -> None:
        """Add a run."""
        if self.runs:
            self.returned.update(range(run.epoch + 1, self.epoch + 1))
        self.at.setdefault(run.epoch, len(self.runs))
        self.runs.append(run)


@dataclass
class _Epoch:
    opener: int
    """The track that jumped first."""
    before: int
    """The epoch that it left."""
    jump_s: float
    """How far it jumped."""
    shift_s: float
    """Provisional shift, which lets that track go on without a gap."""
    covered_s: dict[int, float]
    """`_Track.covered_s` of all tracks at that packet."""


class ClockFinder:
    """Finds the clock of a file from all its packets.

    Args:
        may_skip: Whether the time of this format may jump ahead; otherwise a gap is a gap.
    """

    def __init__(self, *, may_skip: bool) -> None:
        self._may_skip = may_skip
        self._tracks: dict[int, _Track] = {}
        self._epochs = [_Epoch(-1, 0, 0.0, 0.0, {})]
        self._reached_s: float | None = None
        """The latest time of the steady tracks on the provisional time line."""

    def add_track(self, index: int, base: Fraction, *, is_steady: bool) -> None:
        self._tracks[index] = _Track(base, is_steady)

    @property
    def tracks(self) -> tuple[int, ...]:
        """Indices of all tracks."""
        return tuple(self._tracks)

    def has_packets(self, index: int) -> bool:
        """Whether a packet of this track was seen."""
        return self._tracks[index].packets > 0

    def see(self, index: int, pts: int | None, dts: int | None, duration: int | None) -> None:
        """Take the next packet of the file: its track, and its timestamps in ticks of this track."""
        track = self._tracks[index]
        number, track.packets = track.packets, track.packets + 1
        stamp = dts if dts is not None else pts
        if stamp is None:
            return
        near_s = NEAR_S if dts is not None and track.has_dts else UNSORTED_NEAR_S
        track.has_dts = dts is not None
        epoch = self._epoch_of(index, track, float(stamp * track.base), near_s)
        goes_on = bool(track.runs) and track.epoch == epoch
        between = stamp - track.latest if goes_on else 0
        track.step = duration or (between if 0 < between * track.base < AHEAD_S else track.step)
        track.covered_s += float(track.step * track.base)
        track.latest = stamp
        begin = pts if pts is not None else stamp
        if goes_on:
            run = track.runs[-1]
            run.begin, run.end = min(run.begin, begin), max(run.end, begin + track.step)
        else:
            track.begin(_Run(number, epoch, begin, begin + track.step))
        if track.is_steady:
            line_s = float(stamp * track.base) + self._epochs[epoch].shift_s
            self._reached_s = line_s if self._reached_s is None else max(self._reached_s, line_s)

    # Finding epochs ---------------------------------------------------------------------------------------------------
    def _epoch_of(self, index: int, track: _Track, time_s: float, near_s: float) -> int:
        newest = len(self._epochs) - 1
        if not track.is_steady:
            return self._closest_epoch(time_s)
        if not track.runs:
            return newest
        here = track.epoch
        error_s = abs(self._error_s(track, time_s, here))
        if error_s <= near_s and error_s <= abs(self._error_s(track, time_s, newest)):
            return here
        for epoch in range(newest, max(here, newest - _LOOK_BACK), -1):  # another track has jumped already
            if self._fits(track, time_s, epoch, near_s):
                return epoch
        if self._fits(track, time_s, here, near_s):
            return here
        for epoch in range(newest, max(-1, newest - _LOOK_BACK), -1):  # it returns after a wrong timestamp
            if abs(self._error_s(track, time_s, epoch)) <= near_s:
                return epoch
        return self._open(index, track, time_s)

    def _error_s(self, track: _Track, time_s: float, epoch: int) -> float:
        """How much later than expected a packet comes if it belongs to `epoch`."""
        return time_s + self._epochs[epoch].shift_s - track.due_s - self._epochs[track.epoch].shift_s

    def _fits(self, track: _Track, time_s: float, epoch: int, near_s: float) -> bool:
        """Whether a packet of `epoch` may lie there: not before its expected time, and not ahead of all tracks."""
        error_s = self._error_s(track, time_s, epoch)
        line_s = time_s + self._epochs[epoch].shift_s
        is_ahead = error_s > AHEAD_S and (self._reached_s is None or line_s > self._reached_s + AHEAD_S)
        return error_s >= -near_s and not is_ahead

    def _open(self, index: int, track: _Track, time_s: float) -> int:
        before, jump_s = track.epoch, time_s - track.due_s
        covered_s = {number: other.covered_s for number, other in self._tracks.items()}
        self._epochs.append(_Epoch(index, before, jump_s, self._epochs[before].shift_s - jump_s, covered_s))
        return len(self._epochs) - 1

    def _closest_epoch(self, time_s: float) -> int:
        """Epoch of a subtitle or similar, whose packets lie anywhere: the one that puts it closest to the other tracks."""
        newest = len(self._epochs) - 1
        recent = range(newest, max(-1, newest - 2), -1)
        reached_s = self._reached_s if self._reached_s is not None else 0.0
        return min(recent, key=lambda epoch: abs(time_s + self._epochs[epoch].shift_s - reached_s))

    # The result -------------------------------------------------------------------------------------------------------
    def clock(self) -> Clock:
        """The clock of the file, once all its packets have been seen."""
        shifts: list[Fraction] = [Fraction(0)]
        jumps: list[Jump] = []
        for number, epoch in enumerate(self._epochs[1:], 1):
            shifts.append(self._shift_of(number, epoch, shifts))
            by = shifts[epoch.before] - shifts[number]
            if by:
                track = self._tracks[epoch.opener]
                jumps.append(Jump(track.runs[track.at[number]].begin * track.base + shifts[number], by))
        tables = {index: _table(track, shifts) for index, track in self._tracks.items()}
        return Clock({index: table for index, table in tables.items() if table}, tuple(jumps))

    def _shift_of(self, number: int, epoch: _Epoch, shifts: list[Fraction]) -> Fraction:
        opener = self._tracks[epoch.opener]
        if number in opener.returned:  # a few wrong timestamps
            return _gapless_shift(opener, number, shifts)
        is_gap = epoch.jump_s > 0 and (not self._may_skip or epoch.jump_s <= LONGEST_GAP_S)
        if is_gap or not self._is_followed(number, epoch):
            return shifts[epoch.before]
        # Nothing overlaps: the track that ends last before the jump goes on without a gap.
        users = [track for track in self._tracks.values() if track.is_steady and track.at.get(number)]
        return max(_gapless_shift(track, number, shifts) for track in users)

    def _is_followed(self, number: int, epoch: _Epoch) -> bool:
        """Whether all steady tracks jump, or end about there. A track that jumps alone stays in step with the others."""
        return all(
            max(track.at, default=0) >= number or track.covered_s - epoch.covered_s[index] <= STAYED_S
            for index, track in self._tracks.items()
            if track.is_steady
        )


def _gapless_shift(track: _Track, number: int, shifts: list[Fraction]) -> Fraction:
    """The shift with which epoch `number` begins where all earlier runs of the track have ended."""
    at = track.at[number]
    end = max(run.end * track.base + shifts[run.epoch] for run in track.runs[:at])
    return end - track.runs[at].begin * track.base


def _table(track: _Track, shifts: list[Fraction]) -> tuple[tuple[int, Fraction], ...]:
    """The runs as packet numbers and shifts, only where the shift changes."""
    table: list[tuple[int, Fraction]] = []
    for run in track.runs:
        if shifts[run.epoch] != (table[-1][1] if table else 0):
            table.append((run.first, shifts[run.epoch]))
    return tuple(table)
