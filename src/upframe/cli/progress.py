"""A running job on the screen: two live lines on a terminal, plain lines elsewhere, JSON lines, or errors alone.

Standard output gets results only. Notes, failures and the summary go to standard error, and each is printed once: notes that
headers tell before the first file, the rest after the last one.
"""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from upframe.cli import terminal, wording
from upframe.cli.flags import worded_event
from upframe.cli.logs import log_event
from upframe.cli.output import print_line, say, show_json, shown
from upframe.cli.pace import Pace, Work
from upframe.cli.summary import Tally, failure_line
from upframe.errors import Cancelled, one_line

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderableType, RenderResult

    from upframe.cli.parser import Reporting
    from upframe.jobs import Event, Plan

REFRESHES_PER_S = 4
FIRST_LINE_S, RAREST_LINE_S = 5.0, 60.0
"""How often a plain line tells of progress: at first, and at most; in between once every twentieth of the time passed."""
LEAST_BAR, MOST_BAR = 8, 40
"""Columns of a bar."""
LEAST_NAME = 12
"""Columns of a long name on a narrow terminal."""

Line = list[tuple[str, terminal.Style | None]]
"""Texts side by side, and how each looks."""


@dataclass(frozen=True)
class Now:
    """The input at hand."""

    name: str
    share: float = 0.0
    stage: str = "upscaling"
    frame: int | None = None
    """Frames done of a video in this stage; None for a picture."""
    frames: int = 0
    frames_per_s: float = 0.0

    def after(self, data: dict[str, Any], *, doing: str) -> Now:
        """The same input after an event "progress"."""
        if "frame" not in data:
            return Now(self.name, data["done"], doing)
        stage = doing if data["stage"] == "upscaling" else data["stage"]
        return Now(self.name, data["done"], stage, data["frame"], data["frames"], data["frames_per_s"])

    def details(self) -> list[str]:
        """Stage, frame and speed: in full, then ever shorter."""
        if self.frame is None:
            return [self.stage, ""]
        of = f"frame {self.frame}/{self.frames}"
        # Reading and checking go through thousands of frames a second, for a moment.
        if self.stage in ("reading", "checking") or not self.frames_per_s:
            return [f"{self.stage}, {of}", of, self.stage, ""]
        rate = f"{self.frames_per_s:.3g} fps" if self.frames_per_s < 100 else f"{self.frames_per_s:.0f} fps"
        return [f"{self.stage}, {of}, {rate}", f"{of}, {rate}", f"{self.stage}, {of}", of, self.stage, ""]


class Board:
    """The live lines: the file at hand, and below it the whole job if it has several.

    Example of 80 columns::

        IMG_2041.jpg  ━━━━━━━━━━━━━━━━━━━━━━━━───────────   63 %  upscaling
        7/42          ━━━━━─────────────────────────────   16 %  about 4 min left, 1 failed
    """

    def __init__(self, pace: Pace, *, total: int, doing: str = "upscaling") -> None:
        """Start with nothing at hand.

        Args:
            total: Inputs of the job, with those that are there already or cannot be done.
            doing: The word for the main stage.
        """
        self.pace, self.total, self.doing = pace, total, doing
        self.began = pace.clock()
        self.longest_name = max((wording.cells(one_line(path.name)) for path in pace.work), default=0)
        self.now: Now | None = None
        self.closed = 0
        self.failed = 0
        self._lock = threading.Lock()  # the screen is refreshed by a thread of its own

    def take(self, event: Event) -> None:
        """Follow an event."""
        with self._lock:
            path, data = event.input, event.data
            if event.event == "start":
                self.now = Now(one_line(path.name), stage=self.doing)
                self.pace.start(path)
            elif event.event == "progress":
                self.now = (self.now or Now(one_line(path.name))).after(data, doing=self.doing)
                self.pace.advance(path, data["done"], counts=data.get("stage", "upscaling") == "upscaling")
            elif event.event in ("done", "skipped", "failed"):
                self.closed += 1
                self.failed += event.event == "failed"
                self.pace.close(path, is_done=event.event == "done")

    def left(self) -> str:
        """The time left, or how long it has been where that cannot be told yet."""
        seconds = self.pace.seconds_left()
        if seconds is None:
            passed = self.pace.clock() - self.began
            return f"{wording.clock(passed)} so far" if passed >= 60 else f"{passed:.0f} s so far"
        return f"about {wording.about(seconds)} left" if seconds >= 1 else "nearly done"

    def position(self) -> str:
        """`7/42`: the file at hand among all."""
        return f"{min(self.closed + 1, self.total)}/{self.total}"

    def lines(self, width: int, *, symbols: bool = True) -> list[Line]:
        """The lines to show in `width` columns, as texts and their styles; no line is wider.

        Args:
            symbols: Whether the terminal has more than ASCII.
        """
        with self._lock:
            now = self.now
            if now is None:
                return []
            details, left = now.details(), self.left()
            brief = left.removeprefix("about ")
            if self.total == 1:
                columns = min(max(width // 3, LEAST_NAME), wording.cells(now.name))
                lines = _rows([(now.name, now.share, [left, brief, ""])], columns, width, symbols=symbols)
                if now.frame is not None:
                    fits = next(text for text in details if len(text) + 2 <= width)
                    lines.append([("  " + fits, "dim")])
                return lines
            columns = min(max(width // 4, LEAST_NAME), max(self.longest_name, len(self.position())))
            ends = [left, brief, ""]
            if self.failed:
                ends = [f"{left}, {self.failed} failed", f"{brief}, {self.failed} failed", *ends]
            rows = [(now.name, now.share, details), (self.position(), self.pace.share, ends)]
            return _rows(rows, columns, width, symbols=symbols)

    def text(self) -> str:
        """The same as one plain line for a log."""
        now = self.now
        if now is None:
            return ""
        parts = [f"{now.share:.0%}", now.details()[0], self.left()]
        place = f"[{self.position()}] " if self.total > 1 else ""
        return f"{place}{now.name}: {', '.join(parts)}"


def _rows(rows: list[tuple[str, float, list[str]]], columns: int, width: int, *, symbols: bool) -> list[Line]:
    """A line for each row of name, share and ends: name, bar, percentage, and the first end that leaves room for the rest.

    Args:
        rows: Their ends go from the longest to the shortest; the last one is empty.
        columns: For the names.
    """
    fixed = columns + 2 + len("  100%")
    ends = [next(e for e in row[2] if fixed + LEAST_BAR + 2 + len(e) <= width) for row in rows]
    bar = min(width - fixed - max(len(end) + 2 if end else 0 for end in ends), MOST_BAR)
    whole, rest, gap = ("━", "─", "…") if symbols else ("#", "-", "...")
    lines: list[Line] = []
    for (name, exact, _), end in zip(rows, ends, strict=True):
        share = min(max(exact, 0.0), 1.0)
        done = round(share * bar)
        shown = wording.padded(wording.shorten(name, columns, gap=gap), columns)
        parts: Line = [(shown + "  ", None), (whole * done, "done"), (rest * (bar - done), "dim"), (f"  {share:4.0%}", None)]
        lines.append([*parts, ("  " + end, None)] if end else parts)
    return lines


class Show(Protocol):
    """Shows a running job."""

    def event(self, event: Event) -> None:
        """Take one event of it."""

    def close(self, *, stopped: bool) -> None:
        """Say what it came to.

        Args:
            stopped: Whether it was stopped before its end.
        """


@contextlib.contextmanager
def display(reporting: Reporting, planned: Plan, *, doing: str = "upscaling") -> Iterator[Callable[[Event], None]]:
    """A function that shows the events of a job; the summary is printed at its end, and when it is stopped.

    Args:
        doing: The word for the main stage.
    """
    with _chosen(reporting, planned, doing) as show:

        def take(event: Event) -> None:
            worded = worded_event(event)
            log_event(worded)
            show.event(worded)

        try:
            yield take
        except Cancelled:
            show.close(stopped=True)
            raise
        show.close(stopped=False)


@contextlib.contextmanager
def _chosen(reporting: Reporting, planned: Plan, doing: str) -> Iterator[Show]:
    if reporting.json:
        yield _Json()
        return
    if reporting.quiet:
        yield _ErrorsOnly()
        return
    tally = Tally.of_plan(planned, each=reporting.verbose)
    board = Board(Pace(work_of(planned)), total=tally.total, doing=doing)
    tally.say_planned_notices(say)
    if reporting.progress and terminal.is_terminal(sys.stderr):
        with _live(board) as console:
            yield _Lines(board, tally, console=console)
    else:
        yield _Lines(board, tally, progress=reporting.progress)


def work_of(planned: Plan) -> dict[Path, Work]:
    """The inputs that are to be made, and what each weighs."""
    return {
        item.input: Work("picture" if item.is_unit else "video", item.size[0] * item.size[1] * item.frames)
        for item in planned.items
        if not item.skip
    }


class _Json:
    def event(self, event: Event) -> None:
        show_json(event)

    def close(self, *, stopped: bool) -> None:
        """The summary is a line of its own, which knows the exit code."""


class _ErrorsOnly:
    def event(self, event: Event) -> None:
        if event.event == "failed":
            say(failure_line(event.data["error"]))

    def close(self, *, stopped: bool) -> None:
        pass


class _Lines:
    """Results on standard output, all else on standard error; above the live lines where there are some."""

    def __init__(self, board: Board, tally: Tally, *, console: Console | None = None, progress: bool = True) -> None:
        self._board, self._tally, self._console = board, tally, console
        self._is_live = console is not None
        self._progress = progress and not self._is_live
        self._told = board.began

    def event(self, event: Event) -> None:
        self._board.take(event)
        self._tally.take(event)
        if event.event in ("done", "skipped"):
            self._print_result(result_text(event))
        elif event.event == "video":
            self._say(terminal.fitted(video_text(event)))
        elif event.event == "progress" and self._progress:
            self._say_progress()

    def close(self, *, stopped: bool) -> None:
        self._board.now = None
        self._tally.say_end(self._say, stopped=stopped)

    def _say_progress(self) -> None:
        now = self._board.pace.clock()
        if now - self._told >= min(max(FIRST_LINE_S, (now - self._board.began) / 20), RAREST_LINE_S):
            self._told = now
            say(self._board.text())

    def _say(self, text: str) -> None:
        """One line on standard error."""
        if self._console is None:
            say(text)
        else:
            from rich.text import Text

            self._console.print(Text.from_ansi(shown(text)), soft_wrap=True)

    def _print_result(self, text: str) -> None:
        if sys.stdout is not None and sys.stdout.isatty():
            # The same screen as the live lines: the console moves them out of the way.
            gap = "…" if terminal.takes_symbols(sys.stdout) else "..."
            fitted = fit_result(text, terminal.columns(sys.stdout), gap=gap)
            self._say(fitted) if self._console is not None else print_line(fitted)
        else:
            print_line(text)


@contextlib.contextmanager
def _live(board: Board) -> Iterator[Console]:
    """The board on standard error, refreshed by a thread until the end."""
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    colour = terminal.takes_colour(sys.stderr)
    console = Console(file=sys.stderr, force_terminal=True, no_color=not colour, highlight=False, emoji=False, markup=False)
    symbols = terminal.takes_symbols(sys.stderr)
    colours = {"done": "green" if colour else "", "dim": "bright_black" if colour else ""}

    class Lines:
        def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
            # One column less: a terminal may break the line that ends in its last column.
            for parts in board.lines(options.max_width - 1, symbols=symbols):
                text = Text(no_wrap=True, overflow="crop")
                for words, style in parts:
                    text.append(words, colours.get(style or "", ""))
                yield text

    renderable: RenderableType = Lines()
    with Live(renderable, console=console, transient=True, refresh_per_second=REFRESHES_PER_S, redirect_stdout=False):
        yield console


# Sentences ------------------------------------------------------------------------------------------------------------
def result_text(event: Event) -> str:
    """The line of a file that is there now, or was there already."""
    name, output = one_line(str(event.input)), one_line(event.data["output"])
    if event.event == "skipped":
        return f"{name}: {output} is there already and verified, skipped (-y makes it again)"
    height, width = event.data["size"]
    return f"{name} -> {output} ({width}x{height}, {event.data['precision']}, {wording.clock(event.data['seconds'])})"


def fit_result(text: str, width: int, *, gap: str = "…") -> str:
    """A result in one line of a terminal: first without what is in brackets, then the names shortened in their middle."""
    if wording.cells(text) <= width:
        return text
    bare, _, _ = text.rpartition(" (")
    for arrow in (" -> ", ": "):
        name, found, output = bare.partition(arrow)
        if found:
            room = width - len(arrow)
            shown = wording.shorten(name, max(room - wording.cells(output), room // 3), gap=gap)
            return shown + arrow + wording.shorten(output, room - wording.cells(shown), gap=gap)
    return wording.shorten(bare, width, gap=gap)


def video_text(event: Event) -> str:
    """How a video was made, in a sentence."""
    data = event.data
    text = f"{one_line(event.input.name)}: {wording.count(data['frames'], 'frame')} in {data['segments']} segments"
    if data["segments"] == 1:
        text = text.removesuffix("s")
    if data["frames_resumed"]:
        text += f", {data['frames_resumed']:,} of them from an earlier run"
    if data["cleaning_passes"]:
        text += f"; cleaning passes {', '.join(str(p) for p in data['cleaning_passes'])}"
    if data["tiles_reused"]:
        text += f"; {data['tiles_reused']:.0%} of the tiles had not changed"
    if data["borders_repeated"]:
        text += f"; {data['borders_repeated']:.0%} of the pixels were flat borders"
    return text
