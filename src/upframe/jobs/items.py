"""The items of a plan: the protocol that pictures and videos share, and the common rules about existing outputs."""

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
from upframe.media.ledger import EMPTY, Ledger
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
    """How one item will be made, with estimates of memory and disk room."""

    input_size: tuple[int, int]
    """(height, width)."""
    format: str
    """Format of the output; for a video its container, codec and pixel format."""
    frames: int
    """Number of frames or pages that are read."""
    engine: str
    """The engine that runs the network, a name of `engines.ENGINES`."""
    precision: Precision
    tile: tuple[int, int]
    """Core (height, width) of the tiles of a frame."""
    window: int | None
    """Number of frames that the network sees at once; None for a network that takes single frames."""
    memory_bytes: int
    """Estimated peak memory of the whole process."""
    file_bytes: int
    """Estimated bytes of the output, rather too many."""
    seconds: float | None = None
    """Estimated time of the network on this machine, from a small picture timed now; reading and writing files come on top.
    None for a video network and for an engine that compiles."""
    video: VideoFacts | None = None
    """None for a picture."""


@dataclass(frozen=True)
class Made:
    """Facts about a rendered output."""

    engine: str
    """A name of `engines.ENGINES`."""
    precision: Precision
    notices: tuple[Notice, ...]
    """Notices that arose during rendering."""
    ledger: Ledger = EMPTY
    """Everything that the input held, now that all of it has been read."""


class ListenerError(BaseException):
    """On its way through a job to whoever runs it: what a listener to events raised. No item failed by it."""

    def __init__(self, error: Exception) -> None:
        super().__init__(error)
        self.error = error


@dataclass(frozen=True)
class Work:
    """Options and callbacks for rendering an item."""

    runner: Runner
    tell: Callable[[Event], None]
    cancel: threading.Event | None = None


class MadeMeanwhileError(Exception):
    """Another run has made the output since this one was planned."""


class Item(Protocol):
    """One input and its plan: facts that can be pickled, and the methods that a job calls."""

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
        """SHA-256 of the model's weights file at planning."""
        ...

    @property
    def notices(self) -> tuple[Notice, ...]:
        """Losses known before anything is computed."""
        ...

    @property
    def ledger(self) -> Ledger:
        """Everything that the input holds and its fate, as far as it is known before all of the input is read."""
        ...

    @property
    def skip(self) -> bool:
        """Whether the output already exists and is verified."""
        ...

    @property
    def is_unit(self) -> bool:
        """Whether the item is one unit of work for a runner; otherwise the item divides itself into units."""
        ...

    def estimate(self, options: JobOptions) -> Estimate:
        """Describe how the item will be made."""
        ...

    def is_done(self, options: JobOptions) -> bool:
        """Whether the output already exists, so that the item is skipped. A damaged output does not count.

        Raises:
            UsageError: if a different file has that name, or the output was made before the input last changed.
        """
        ...

    def render(self, options: JobOptions, work: Work) -> Made:
        """Make the output.

        Raises:
            UpframeError: if the output cannot be made; a file that had its name before is unchanged.
        """
        ...

    def tidy(self) -> None:
        """Remove the files that a killed run left beside a finished output."""
        ...


def outcome(item: Item, options: JobOptions, work: Work) -> Outcome:
    """Render an item; the outcome holds any error. An output that another run has made meanwhile is skipped.

    Raises:
        Cancelled: if the job was cancelled.
        ListenerError: if a listener to events raised an error.
    """
    start = time.perf_counter()
    try:
        try:
            made = item.render(options, work)
        except MadeMeanwhileError:
            if item.is_done(options):
                item.tidy()
                return Outcome(item.input, "skipped", item.output, notices=item.notices, size=item.size, model=item.model)
            raise something_else(item.output, "made meanwhile") from None
    except Cancelled:
        raise
    except UpframeError as error:
        failure = error
    except Exception as error:
        failure = unexpected(item.input, error)
    else:
        seconds, notices = time.perf_counter() - start, item.notices + made.notices
        return Outcome(
            item.input,
            "written",
            item.output,
            None,
            notices,
            seconds,
            item.size,
            item.model,
            made.engine,
            made.precision,
            made.ledger,
        )
    log.debug("%s", item.input, exc_info=failure)
    return Outcome(item.input, "failed", error=failure, notices=item.notices)


def unexpected(subject: Path, error: Exception) -> UpframeError:
    """Turn any exception into the failure of one item: a bug must not cost the user the rest of the batch."""
    failure: UpframeError
    if is_out_of_memory(error):
        advice = "close other programs, or write PNG or TIFF, which are streamed"
        failure = ResourceError(subject, "memory ran out", advice)
    else:
        happened = f"internal error ({type(error).__name__}: {error})"
        failure = UpframeError(subject, happened, "report it; the debug log shows where it arose")
    failure.__cause__ = error
    return failure


# Outputs that are there already ---------------------------------------------------------------------------------------
def is_taken(output: Path, source: Path) -> bool:
    """Whether `output` already exists.

    Raises:
        UsageError: if `output` is the input itself, under this or another name.
        OutputError: if the system cannot tell.
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
    """Whether the existing output is the planned one and complete. One rule for all items.

    Args:
        look: Compares the existing output with the plan and returns whether it is complete. Raises UsageError for a different
            file and InputError for an unreadable one.
        begins_like: Whether the first bytes of a file are those of the planned format.

    Raises:
        UsageError: if a different file has that name, or the output was made before the input last changed.
    """
    try:
        is_whole = look()
    except InputError as error:
        if _is_wreck(output, begins_like):
            return False
        raise something_else(output, error.happened) from error
    # A camera with a wrong clock writes times in the future; inputs with such times do not count as newer than their outputs.
    if is_whole and output.stat().st_mtime < source.stat().st_mtime <= time.time():
        advice = "use `overwrite` to make it again or choose another name"
        raise UsageError(output, "exists and is older than the input", advice)
    return is_whole


def something_else(output: Path, what: str) -> UsageError:
    return UsageError(output, f"exists and is a different file ({what})", "use `overwrite` or choose another name")


def _is_wreck(output: Path, begins_like: Callable[[bytes], bool]) -> bool:
    """Whether an unreadable file is the rest of an interrupted attempt of some tool: empty, zeros, or a part."""
    try:
        with output.open("rb") as file:
            head = file.read(SNIFF_BYTES)
    except OSError:
        return False
    return not any(head) or begins_like(head)


# Folders --------------------------------------------------------------------------------------------------------------
@contextlib.contextmanager
def made_folder(folder: Path) -> Iterator[None]:
    """Make `folder` and its parents; if the block raises, remove those that were made.

    Raises:
        OutputError: if the folder cannot be made.
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
        with contextlib.suppress(OSError):  # another item has written its output there
            for one in reversed(made):
                one.rmdir()
        raise
