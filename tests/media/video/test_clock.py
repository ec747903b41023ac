"""One clock for a file, found from packets as numbers: joins, gaps, lost sound, wrong timestamps."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from upframe.media.video.clock import Clock, ClockFinder

VIDEO, SOUND, TEXT = 0, 1, 2
BASES = {VIDEO: Fraction(1, 90000), SOUND: Fraction(1, 90000), TEXT: Fraction(1, 1000)}
FRAME, PACKET = 3600, 1920  # ticks: 40 ms and 21.3 ms


@dataclass(frozen=True)
class Packet:
    """A packet as a file states it."""

    track: int
    pts: int | None
    dts: int | None
    duration: int
    part: int = 0


def part(start: int, frames: int, *, sound: int | None = None, lag: int = 500, number: int = 0) -> list[Packet]:
    """A piece of a file with B-frames, from `start` on; `sound` is its number of packets of sound."""
    sound = frames * FRAME // PACKET if sound is None else sound
    pictures = [
        Packet(VIDEO, start + FRAME * (n + (2 if n % 2 == 0 else 0)), start + FRAME * n, FRAME, number) for n in range(frames)
    ]
    sounds = [Packet(SOUND, start + lag + PACKET * n, start + lag + PACKET * n, PACKET, number) for n in range(sound)]
    return sorted(pictures + sounds, key=lambda packet: packet.dts or 0)


def found(packets: list[Packet], *, may_skip: bool = True) -> Clock:
    finder = ClockFinder(may_skip=may_skip)
    for track in sorted({packet.track for packet in packets}):
        finder.add_track(track, BASES[track], is_steady=track != TEXT)
    for packet in packets:
        finder.see(packet.track, packet.pts, packet.dts, packet.duration)
    return finder.clock()


def moved(packets: list[Packet], clock: Clock) -> Iterator[tuple[Packet, int]]:
    """Each packet and how far it moves, in its ticks."""
    reader = clock.reader()
    for packet in packets:
        demuxed = SimpleNamespace(stream_index=packet.track, time_base=BASES[packet.track], pts=packet.pts, dts=packet.dts)
        reader.move(demuxed)
        stamp = packet.pts if packet.pts is not None else packet.dts
        assert stamp is not None
        yield packet, (demuxed.pts if demuxed.pts is not None else demuxed.dts) - stamp


def shifts_of(packets: list[Packet], clock: Clock, track: int, number: int) -> set[int]:
    return {by for packet, by in moved(packets, clock) if packet.track == track and packet.part == number}


@pytest.mark.parametrize("start", [0, 90000, 7200 * 90000, -7200 * 90000, (1 << 33) - 90000])
def test_a_joined_part_follows_the_one_before_it_in_all_tracks_alike(start: int) -> None:
    packets = part(0, 50) + part(start, 50, number=1)
    clock = found(packets)
    last = 500 + PACKET * (50 * FRAME // PACKET)  # where the sound of the first part ends
    pictures = 51 * FRAME  # and the pictures
    by = max(last - (start + 500), pictures - (start + FRAME))
    assert shifts_of(packets, clock, VIDEO, 1) == shifts_of(packets, clock, SOUND, 1) == {by}
    assert shifts_of(packets, clock, VIDEO, 0) == shifts_of(packets, clock, SOUND, 0) == {0}
    assert [jump.by for jump in clock.jumps] == [Fraction(-by, 90000)]


def test_packets_of_the_first_part_that_come_late_stay_in_it() -> None:
    """A demuxer gives the last packet of a track only when it sees the next one."""
    first, second = part(0, 50), part(0, 50, number=1)
    late = [packet for packet in first if packet.track == SOUND][-2:]
    packets = [packet for packet in first if packet not in late] + second[:1] + late + second[1:]
    clock = found(packets)
    assert shifts_of(packets, clock, SOUND, 0) == {0}
    assert len(shifts_of(packets, clock, SOUND, 1) | shifts_of(packets, clock, VIDEO, 1)) == 1


BACK, AHEAD = st.integers(-(10**9), -20000), st.integers(12 * 90000, 10**9)


@settings(max_examples=50)
@given(st.lists(st.tuples(BACK | AHEAD, st.integers(12, 40), st.integers(-3, 3), st.integers(0, 4000)), min_size=2, max_size=5))
def test_any_parts_follow_each_other_without_overlap(facts: list[tuple[int, int, int, int]]) -> None:
    packets: list[Packet] = []
    start = 0
    for number, (jump, frames, more, lag) in enumerate(facts):
        packets += part(start, frames, sound=frames * FRAME // PACKET + more, lag=lag, number=number)
        start += frames * FRAME + jump
    on_line = list(moved(packets, found(packets)))
    ends = {VIDEO: -(1 << 62), SOUND: -(1 << 62)}
    for number in range(len(facts)):
        of_part = [(packet, by) for packet, by in on_line if packet.part == number]
        assert len({by for _, by in of_part}) == 1
        for track, length in ((VIDEO, FRAME), (SOUND, PACKET)):
            times = [packet.pts + by for packet, by in of_part if packet.track == track and packet.pts is not None]
            assert min(times) >= ends[track]
            ends[track] = max(times) + length


def test_a_file_with_one_clock_is_left_alone() -> None:
    assert found(part(12345, 200)).is_even
    assert found(part(-90000, 200), may_skip=False).is_even


def test_a_gap_is_a_gap_unless_it_is_a_jump() -> None:
    for gap_s, may_skip, by in [(3, True, 0), (3, False, 0), (60, False, 0), (60, True, -60)]:
        packets = part(0, 50) + part(50 * FRAME + gap_s * 90000, 50, number=1)
        clock = found(packets, may_skip=may_skip)
        assert clock.is_even == (by == 0)
        if by:
            (shift,) = shifts_of(packets, clock, SOUND, 1)
            assert shift == pytest.approx(by * 90000, abs=2 * FRAME)


def test_sound_that_is_missing_for_a_while_comes_back_at_its_time() -> None:
    packets = [p for p in part(0, 2000) if p.track == VIDEO or not 20 * 90000 < (p.dts or 0) < 50 * 90000]
    assert found(packets).is_even


def test_pictures_that_pause_leave_the_sound_alone() -> None:
    packets = [p for p in part(0, 2000) if p.track == SOUND or not 20 * 90000 < (p.dts or 0) < 50 * 90000]
    assert found(packets).is_even


def test_slides_are_no_jumps() -> None:
    slides = [Packet(VIDEO, 450000 * n, 450000 * n, 0) for n in range(300)]
    assert found(slides).is_even and found(slides, may_skip=False).is_even


@pytest.mark.parametrize("error_s", [5, -5, 5000, -5000])
@pytest.mark.parametrize("track", [VIDEO, SOUND])
@pytest.mark.parametrize("may_skip", [True, False])
def test_a_wrong_timestamp_moves_nothing_but_its_packet(error_s: int, track: int, may_skip: bool) -> None:
    packets = part(0, 400)
    at = next(n for n, packet in enumerate(packets) if packet.track == track and (packet.dts or 0) > 8 * 90000)
    right, error = packets[at], error_s * 90000
    assert right.pts is not None and right.dts is not None
    packets[at] = Packet(track, right.pts + error, right.dts + error, right.duration, 1)
    clock = found(packets, may_skip=may_skip)
    (by,) = shifts_of(packets, clock, track, 1)
    assert by == pytest.approx(-error, abs=3 * FRAME)
    assert shifts_of(packets, clock, VIDEO, 0) | shifts_of(packets, clock, SOUND, 0) == {0}


@pytest.mark.parametrize("error_s", [5, -5, 50])
def test_a_track_that_jumps_alone_keeps_the_time_that_the_file_states(error_s: int) -> None:
    """The other tracks go on: to close the jump would part sound from pictures."""
    packets = [
        Packet(p.track, (p.pts or 0) + error_s * 90000, (p.dts or 0) + error_s * 90000, p.duration)
        if p.track == SOUND and (p.dts or 0) > 8 * 90000
        else p
        for p in part(0, 400)
    ]
    assert found(packets).is_even


def test_subtitles_move_with_the_part_in_which_they_lie() -> None:
    def text(seconds: float, number: int) -> Packet:
        return Packet(TEXT, round(seconds * 1000), round(seconds * 1000), 500, number)

    first, second = part(0, 100), part(0, 100, number=1)
    packets = [*first[:80], text(1.5, 0), *first[80:], text(3.9, 0), *second[:40], text(0.8, 1), *second[40:], text(3.5, 1)]
    clock = found(packets)
    (by,) = shifts_of(packets, clock, VIDEO, 1)
    assert shifts_of(packets, clock, TEXT, 0) == {0}
    assert shifts_of(packets, clock, TEXT, 1) == {round(by / 90)}


def test_packets_without_any_time_are_counted() -> None:
    packets = part(0, 50) + part(0, 50, number=1)
    finder = ClockFinder(may_skip=True)
    for track in (VIDEO, SOUND):
        finder.add_track(track, BASES[track], is_steady=True)
    for number, packet in enumerate(packets):
        finder.see(packet.track, *((None, None) if number < 6 else (packet.pts, packet.dts)), packet.duration)
    clock = finder.clock()
    assert shifts_of(packets, clock, SOUND, 0) == {0} and len(shifts_of(packets, clock, SOUND, 1)) == 1


def test_display_times_alone_are_no_jumps() -> None:
    """Matroska states no decoding times; FFmpeg finds them only once it has seen some pictures."""
    times = [0, 4, 2, 1, 3, 8, 6, 5, 7, 12, 10, 9, 11]
    packets = [Packet(VIDEO, FRAME * t, FRAME * (n - 2) if n > 3 else None, FRAME) for n, t in enumerate(times)]
    assert found(packets).is_even
    assert found([Packet(VIDEO, p.pts, None, FRAME) for p in packets]).is_even
