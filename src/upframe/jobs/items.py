"""The items of a plan: the protocol that pictures and videos share, and the rules about their outputs, kept once."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from upframe.engines import is_out_of_memory
from upframe.errors import Cancelled, InputError, Notice, OutputError, ResourceError, UpframeError, UsageError
from upframe.jobs.events import Event, Outcome
from upframe.jobs.options import JobOptions
from upframe.jobs.runners.base import Runner
from upframe.media.image.formats import SNIFF_BYTES
from upframe.models.spec import Precision

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class VideoFacts:
    """Facts of an input video that pictures do not have; its tracks are those that are copied."""

    seconds: float | None
    """Duration of the chosen part; None where no header states it."""
    rate: float
    """Frames per second."""
    audio: tuple[str, ...]
    """FFmpeg's name of the codec of each audio track."""
    subtitles: int
    """Number of subtitle tracks."""
    interlaced: bool


@dataclass(frozen=True)
class Estimate:
    """How one item is going to be made, with rough figures of memory and disk."""

    input_size: tuple[int, int]
    """(height, width)."""
    format: str
    """Of the output; for a video its container, codec and pixel format."""
    frames: int
    """Frames or pages that are read."""
    engine: str
    """The engine that runs the network, a name of `engines.ENGINES`."""
    precision: Precision
    tile: tuple[int, int]
    """Core (height, width) of the tiles that frames are cut into."""
    window: int | None
    """Frames that the network sees at once; None for one that takes single frames."""
    memory_bytes: int
    """Peak memory: of a network for clips of the whole process, else what rendering roughly adds."""
    file_bytes: int
    """Size of the output, on the high side."""
    video: VideoFacts | None = None
    """None for a picture."""


@dataclass(frozen=True)
class Made:
    """How an output came about."""

    engine: str
    """A name of `engines.ENGINES`."""
    precision: Precision
    notices: tuple[Notice, ...]
    """Those that only came up on the way."""


@dataclass(frozen=True)
class Work:
    """With what an item is rendered."""

    runner: Runner
    tell: Callable[[Event], None]
    cancel: threading.Event | None = None


class Item(Protocol):
    """One input and the plan for it: facts that can be pickled, and all that a job asks of it."""

    @property
    def input(self) -> Path: ...
    @property
    def output(self) -> Path: ...
    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of the output."""
        ...

    @property
    def frames(self) -> int:
        """Frames or pages of the input, as its header has them; 1 where it does not say."""
        ...

    @property
    def model(self) -> str:
        """Name or path of the model."""
        ...

    @property
    def model_sha256(self) -> str:
        """Which file the model was when this was planned."""
        ...

    @property
    def notices(self) -> tuple[Notice, ...]:
        """Losses that are known before anything is computed."""
        ...

    @property
    def skip(self) -> bool:
        """Whether the output is there already, and verified."""
        ...

    @property
    def is_unit(self) -> bool:
        """Whether it is one unit of work for a runner; else it divides itself into units."""
        ...

    def estimate(self, options: JobOptions) -> Estimate:
        """How it is going to be made."""
        ...

    def is_done(self, options: JobOptions) -> bool:
        """Whether the output is there already: then the item is skipped. A damaged one is made again.

        Raises:
            UsageError: when something else stands at that name, or the result of an older input.
        """
        ...

    def render(self, options: JobOptions, work: Work) -> Made:
        """Make the output.

        Raises:
            UpframeError: when it cannot be made; nothing is at its name then that was not there before.
        """
        ...

    def tidy(self) -> None:
        """Remove the files that a killed run left beside a finished output."""
        ...


def outcome(item: Item, options: JobOptions, work: Work) -> Outcome:
    """Render an item; whatever goes wrong with it is in the outcome.

    Raises:
        Cancelled: when that was asked for.
        BrokenPipeError: when nobody listens to events any more.
    """
    start = time.perf_counter()
    try:
        made = item.render(options, work)
    except (Cancelled, BrokenPipeError):
        raise
    except UpframeError as error:
        failure = error
    except Exception as error:
        if is_out_of_memory(error):
            advice = "close other programs, or write PNG or TIFF, which are streamed"
            failure = ResourceError(item.input, "memory ran out", advice)
        else:  # a bug must not cost the user the rest of the batch; it is reported as one
            happened = f"internal error ({type(error).__name__}: {error})"
            failure = UpframeError(item.input, happened, "report it; the debug log shows where it arose")
        failure.__cause__ = error
    else:
        seconds, notices = time.perf_counter() - start, item.notices + made.notices
        return Outcome(
            item.input, "written", item.output, None, notices, seconds, item.size, item.model, made.engine, made.precision
        )
    log.debug("%s", item.input, exc_info=failure)
    return Outcome(item.input, "failed", error=failure, notices=item.notices)


# Outputs that are there already ---------------------------------------------------------------------------------------
def is_taken(output: Path, source: Path) -> bool:
    """Whether something is at `output` already.

    Raises:
        UsageError: if it is the input itself, by this or another name.
        OutputError: if the system cannot even look.
    """
    try:
        if not output.exists():
            return False
        same = source.samefile(output)
    except OSError as error:
        raise OutputError(output, f"cannot be written ({error.strerror})", "choose another output") from error
    if same:
        raise UsageError(output, "is the input itself", "choose another output; inputs are never changed")
    return True


def is_done(output: Path, source: Path, look: Callable[[], bool], *, begins_like: Callable[[bytes], bool]) -> bool:
    """Whether an output that is there is the one planned, and whole: the rule of all items.

    Args:
        look: Compares it with the plan: raises UsageError for something else and InputError for what cannot be read; says
            whether it is whole.
        begins_like: Whether the first bytes of a file are those of the planned format.

    Raises:
        UsageError: when something else stands at that name, or the result of an older input.
    """
    try:
        is_whole = look()
    except InputError as error:
        if _is_wreck(output, begins_like):
            return False
        raise something_else(output, error.happened) from error
    # A camera with a wrong clock makes inputs of the future; they are no newer than what was made of them.
    if is_whole and output.stat().st_mtime < source.stat().st_mtime <= time.time():
        advice = "use `overwrite` to make it again or choose another name"
        raise UsageError(output, "exists and is older than the input", advice)
    return is_whole


def something_else(output: Path, what: str) -> UsageError:
    return UsageError(output, f"exists and is something else ({what})", "use `overwrite` to replace it or choose another name")


def _is_wreck(output: Path, begins_like: Callable[[bytes], bool]) -> bool:
    """Whether an unreadable file is what an interrupted attempt of some tool left: empty, zeros, or a part."""
    try:
        with output.open("rb") as file:
            head = file.read(SNIFF_BYTES)
    except OSError:
        return False
    return not any(head) or begins_like(head)


# Folders --------------------------------------------------------------------------------------------------------------
@contextlib.contextmanager
def made_folder(folder: Path) -> Iterator[None]:
    """`folder`, made with its parents; those that were made are removed again if nothing comes of it.

    Raises:
        OutputError: if it cannot be made.
    """
    made: list[Path] = []
    try:
        for one in (*reversed(folder.parents), folder):
            if not one.is_dir():
                one.mkdir(exist_ok=True)
                made.append(one)
    except OSError as error:
        raise OutputError(folder, f"cannot be made ({error.strerror})", "choose another output folder") from error
    try:
        yield
    except BaseException:
        with contextlib.suppress(OSError):  # another item's output is in it by now
            for one in reversed(made):
                one.rmdir()
        raise
