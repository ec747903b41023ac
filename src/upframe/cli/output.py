"""Output of the command line (lines, live progress, JSON), and its handling of signals."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from upframe.cli.parser import Reporting
from upframe.errors import InputError, OutputError, one_line

if TYPE_CHECKING:
    from upframe.jobs import Event


def print_line(text: str) -> None:
    """One line on standard output.

    Raises:
        BrokenPipeError: if nobody reads it any more.
        OutputError: if it cannot be written, such as to a file on a full disk.
    """
    try:
        print(text, flush=True)  # noqa: T201
    except BrokenPipeError:
        raise
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise OutputError("standard output", f"cannot be written ({reason})", "check where it leads") from error


def say(text: str) -> None:
    """One line for a person on standard error, if there is one."""
    with contextlib.suppress(OSError):
        print(text, file=sys.stderr, flush=True)  # noqa: T201


def read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(path, "cannot be read as text", "pass a results.json that upframe evaluate wrote") from error


def write_text(path: Path, text: str) -> None:
    from upframe.files import atomic_text, writing

    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    atomic_text(path, text)


class Stop:
    """Which signal asked us to stop."""

    code: int | None = None


@contextlib.contextmanager
def stoppable() -> Iterator[threading.Event]:
    """The first SIGINT, SIGTERM or SIGHUP sets the event; a second one stops at once."""
    cancel = threading.Event()
    Stop.code = None

    def handle(number: int, frame: FrameType | None) -> None:
        if cancel.is_set():
            os._exit(128 + number)  # asked twice: do not even clean up
        Stop.code = 128 + number
        cancel.set()

    signals = [signal.SIGINT, signal.SIGTERM, *([signal.SIGHUP] if hasattr(signal, "SIGHUP") else [])]
    before = {s: signal.signal(s, handle) for s in signals}
    try:
        yield cancel
    finally:
        for s, old in before.items():
            signal.signal(s, old)


@contextlib.contextmanager
def display(reporting: Reporting, total: int) -> Iterator[Any]:
    """A function that shows events: JSON lines, a live bar on a terminal, or plain lines elsewhere."""
    if reporting.json:
        yield show_json
        return
    if reporting.quiet:
        yield _show_errors_only
        return
    if reporting.progress and sys.stderr.isatty() and os.environ.get("TERM") != "dumb":
        with _live(total) as show:
            yield show
        return
    yield _PlainLines(reporting.progress)


def show_json(event: Event) -> None:
    print_line(json.dumps({"event": event.event, "input": str(event.input), **event.data}))


def _show_errors_only(event: Event) -> None:
    if event.event == "failed":
        say(f"upframe: {event.data['error']}")


def _sentence(event: Event) -> str | None:
    """Return the line that a person reads of an event, None for nothing."""
    name = one_line(str(event.input))
    if event.event == "done":
        height, width = event.data["size"]
        how = f"{width}x{height}, {event.data['precision']}, {event.data['seconds']:.1f} s"
        return f"{name} -> {one_line(event.data['output'])} ({how})"
    if event.event == "skipped":
        return f"{name}: {one_line(event.data['output'])} is there already and verified, skipped (-y redoes it)"
    if event.event == "notice":
        return f"{name}: note: {event.data['message']} [{event.data['id']}]"
    if event.event == "video":
        return _video_sentence(name, event.data)
    if event.event == "failed":
        return f"upframe: {event.data['error']}"
    return None


def _video_sentence(name: str, data: dict[str, Any]) -> str:
    text = f"{name}: {data['frames']} frames in {data['segments']} segments"
    if data["frames_resumed"]:
        text += f", {data['frames_resumed']} of them from an earlier run"
    if data["cleaning_passes"]:
        text += f"; cleaning passes {', '.join(str(p) for p in data['cleaning_passes'])}"
    if data["tiles_reused"]:
        text += f"; {data['tiles_reused']:.0%} of the tiles had not changed"
    if data["borders_repeated"]:
        text += f"; {data['borders_repeated']:.0%} of the pixels were flat borders"
    return text


def _progress_text(data: dict[str, Any]) -> str:
    """Share done, and for a video its frame, rate and the time left."""
    if "frame" not in data:
        return f"{data['done']:.0%}"
    if data["stage"] != "upscaling":
        return f"{data['stage']}, frame {data['frame']} of about {data['frames']}"
    left_s = (data["frames"] - data["frame"]) / max(data["frames_per_s"], 1e-9)
    left = f"{left_s / 3600:.1f} h" if left_s > 5400 else f"{left_s / 60:.0f} min" if left_s > 90 else f"{left_s:.0f} s"
    return f"{data['done']:.0%}, frame {data['frame']} of {data['frames']}, {data['frames_per_s']:.2f} frames/s, {left} left"


class _PlainLines:
    """Events as lines without control codes; progress at most every five seconds."""

    def __init__(self, progress: bool) -> None:
        self._progress = progress
        self._last = time.monotonic()

    def __call__(self, event: Event) -> None:
        text = _sentence(event)
        if event.event == "progress" and self._progress and time.monotonic() - self._last > 5:
            self._last = time.monotonic()
            text = f"{one_line(str(event.input))}: {_progress_text(event.data)}"
        if text is not None:
            if event.event in ("done", "skipped"):
                print_line(text)
            else:
                say(text)


@contextlib.contextmanager
def _live(total: int) -> Iterator[Any]:
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:>3.0f} %"))
    files = (*columns, TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*files, console=console, transient=True) as bar:
        whole = bar.add_task(f"{total} files" if total > 1 else "file", total=total)
        done = 0

        def show(event: Event) -> None:
            nonlocal done
            if event.event == "start":
                bar.update(whole, description=escape(one_line(event.input.name))[:40])
            elif event.event == "progress":
                bar.update(whole, completed=done + event.data["done"])
                if "stage" in event.data:
                    rate = f"{event.data['frames_per_s']:.2f} frames/s"
                    doing = rate if event.data["stage"] == "upscaling" else f"{event.data['stage']}, {rate}"
                    label = f"{one_line(event.input.name)[:28]} {doing}"
                    bar.update(whole, description=escape(label))
            elif event.event in ("done", "skipped", "failed"):
                done += 1
                bar.update(whole, completed=done)
            text = _sentence(event)
            if text is not None:
                bar.console.print(escape(text), highlight=False, soft_wrap=True)

        yield show
