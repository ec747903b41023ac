"""One film end to end: index, segments, render, join, verify.

A film is never held whole. It is read once to count, time and checksum its frames (and to find its cuts, where the
network looks at several frames); then rendered segment by segment into work files that survive any interruption; then
their packets are joined with the untouched sound, subtitles and chapters of the source, the result is read back in full
and compared, and only then does it get its name.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from upframe import __version__
from upframe.errors import InputError, Notice, OutputError, UsageError, VerifyError
from upframe.media.sink import part_path
from upframe.media.video import (
    FrameIndex,
    VideoFrame,
    VideoInfo,
    VideoPlan,
    VideoSink,
    VideoSource,
    index_video,
    join,
    plan_video,
    probe_video,
    verify_video,
)
from upframe.models import Model
from upframe.pipeline import WriteBehind, read_ahead
from upframe.segments import Segment, plan_segments
from upframe.shots import find_cuts, thumbnail
from upframe.spec import Cleaning
from upframe.upscale import Upscaler, UpscaleOptions
from upframe.upscale_clip import ClipUpscaler
from upframe.workfolder import WorkFolder

log = logging.getLogger(__name__)

FRAMES_AHEAD = 3  # decoded before, and waiting to be encoded after, the network
SEGMENT_FRAMES = 240  # of a frame-wise network: what is lost in a crash is at most that
FLAT = 1  # spread of a frame's code values (of 65,535) up to which it counts as flat
NOT_FLAT = 64 * 257  # and from which it certainly is not: a quarter of the range


@dataclass(frozen=True)
class FilmOptions:
    """What the user decides about a film besides its size and model."""

    codec: str | None = None
    crf: int | None = None
    preset: str | None = None
    pix_fmt: str | None = None
    encoder: tuple[tuple[str, str], ...] = ()
    """Further options of the encoder, key and value."""
    odd: str = "pad"
    audio: bool = True
    subtitles: bool = True
    start: Fraction | None = None
    """Seconds after the first frame."""
    end: Fraction | None = None
    stream: int | None = None
    deinterlace: str = "off"
    on_bad_frame: str = "repeat"
    allow_truncated: bool = False
    segment_frames: int | None = None
    """Longest segment; None is chosen from the memory there is."""
    context: int | None = None
    """Frames of context where a shot is divided; None is the network's."""
    cleaning: Cleaning | None = None
    restart: bool = False
    """Throw away what an interrupted run left."""


@dataclass(frozen=True)
class Film:
    """A film and how its output is written: all that is known before it is read."""

    input: Path
    output: Path
    info: VideoInfo
    plan: VideoPlan
    size: tuple[int, int]
    """(height, width) of the output pictures."""


@dataclass(frozen=True)
class FilmReport:
    """What was made."""

    frames: int
    resumed: int
    """Frames that an interrupted run had left."""
    segments: int
    seconds: float
    notices: tuple[Notice, ...]
    cleaning_passes: tuple[int, ...]
    """Of each segment rendered in this run."""
    tiles_reused: float
    """Share of tiles that did not change from one frame to the next and were taken over."""


def plan_film(path: Path, output: Path, size: tuple[int, int], options: FilmOptions, *, info: VideoInfo | None = None) -> Film:
    """Decide how the film is written, and try the encoder and container with all its tracks.

    Raises:
        InputError, UsageError: what cannot be read or carried out, before any frame is.
    """
    info = info or probe_video(path, stream=options.stream)
    plan = plan_video(
        info,
        container=output.suffix or None,
        size=size,
        codec=options.codec,
        crf=options.crf,
        preset=options.preset,
        pix_fmt=options.pix_fmt,
        options=dict(options.encoder),
        odd=options.odd,  # type: ignore[arg-type] # checked by plan_video
        audio=options.audio,
        subs=options.subtitles,
    )
    return Film(path, output, info, plan, size)


def render(
    film: Film,
    model: Model,
    upscale: UpscaleOptions,
    options: FilmOptions,
    *,
    on_frame: Callable[[int, int], None] | None = None,
    on_notice: Callable[[Notice], None] | None = None,
    cancel: threading.Event | None = None,
) -> FilmReport:
    """Make the output of a film, going on where an interrupted run stopped.

    Args:
        on_frame: Called with (frames done, frames in all).
        on_notice: Called as soon as something is known to be lost; raising stops the job.

    Raises:
        Cancelled: when `cancel` was set; finished segments stay for the next run.
        UsageError: when another process makes this output, or an interrupted run differs from this one.
        UpframeError: of any other kind; nothing is at the output's name that was not there before.
    """
    began = time.perf_counter()
    tell_notice = on_notice or (lambda notice: None)
    cutter = _CutFinder(film.info) if model.spec.window is not None else None
    index = index_video(
        film.input,
        info=film.info,
        on_bad_frame=options.on_bad_frame,  # type: ignore[arg-type] # checked by index_video
        observe=cutter.observe if cutter else None,
    )
    source = VideoSource(
        film.input,
        start=options.start,
        end=options.end,
        deinterlace=options.deinterlace,  # type: ignore[arg-type] # checked by VideoSource
        allow_truncated=options.allow_truncated,
        info=film.info,
        index=index,
    )
    for notice in source.notices:
        tell_notice(notice)
    renderer = _Renderer(film, model, upscale, options, cancel)
    chosen = source.selection
    cuts = [c - chosen.start for c in (cutter.cuts(index) if cutter else []) if chosen.start < c < chosen.stop]
    segments = plan_segments(len(chosen), cuts, longest=renderer.longest, context=renderer.context)
    key = _key(film, model, renderer, options, index, chosen)
    done = resumed = 0
    with source, renderer, WorkFolder(film.output, key, restart=options.restart) as work:
        for segment in segments:
            if work.is_done(segment.index):
                resumed += segment.frames
            else:
                count = itertools.count(done + 1)

                def frame_done(count: Iterator[int] = count) -> None:
                    if on_frame:
                        on_frame(next(count), len(chosen))

                renderer.render(source, segment, work.scratch(segment.index), chosen.start, frame_done)
                work.commit(segment.index)
            done += segment.frames
            if on_frame:
                on_frame(done, len(chosen))
        for notice in renderer.notices:
            tell_notice(notice)
        _finish(film, work, segments, index, chosen)
        work.remove()
    return FilmReport(
        frames=len(chosen),
        resumed=resumed,
        segments=len(segments),
        seconds=time.perf_counter() - began,
        notices=(*source.notices, *renderer.notices),
        cleaning_passes=tuple(renderer.passes),
        tiles_reused=renderer.reused,
    )


def _finish(film: Film, work: WorkFolder, segments: list[Segment], index: FrameIndex, chosen: range) -> None:
    """Join the segments with the source's other tracks, verify the result and give it its name."""
    target = part_path(film.output)
    try:
        expected = join(
            [work.segment(s.index) for s in segments], target, film.plan, timing=index, info=film.info, selection=chosen
        )
        verify_video(target, expected)
        target.replace(film.output)
    except OSError as error:
        raise OutputError(film.output, f"cannot be written ({error.strerror})", "check the folder and try again") from error
    finally:
        target.unlink(missing_ok=True)


@dataclass(frozen=True)
class _Made:
    """An enlarged frame at its time."""

    pts: int
    pixels: NDArray[Any]


class _Renderer:
    """Renders segments of one film with one model, frame by frame or as clips."""

    def __init__(
        self, film: Film, model: Model, upscale: UpscaleOptions, options: FilmOptions, cancel: threading.Event | None
    ) -> None:
        self._film = film
        size = film.info.size
        self._single: Upscaler | None = None
        self._clip: ClipUpscaler | None = None
        if model.spec.window is None:
            if options.cleaning is not None:
                raise UsageError(model.spec.name, "does not clean", "drop the --clean flags")
            single = Upscaler(model, upscale, cancel=cancel, reuse=True)
            # The tiles are fixed here: they must not follow the memory of the moment, or a resumed run would differ.
            single.options = replace(upscale, tile=single.tile_px(size))
            self._single = single
            self.longest = options.segment_frames or SEGMENT_FRAMES
            self.context = 0
        else:
            clip = ClipUpscaler(model, upscale, cleaning=options.cleaning, cancel=cancel)
            self.longest = options.segment_frames or clip.segment_frames(size)
            self.context = model.spec.window.overlap if options.context is None else options.context
            clip.options = replace(upscale, tile=clip.tile_px(size, self.longest + 2 * self.context))
            self._clip = clip
        self.precision = (self._single or self._clip).engine.precision  # type: ignore[union-attr] # one of them is there

    def __enter__(self) -> _Renderer:
        return self

    def __exit__(self, *_: object) -> None:
        if self._single is not None:
            self._single.close()

    @property
    def tile(self) -> object:
        return (self._single or self._clip).options.tile  # type: ignore[union-attr]

    @property
    def halo(self) -> int:
        return (self._single or self._clip).halo_px  # type: ignore[union-attr]

    @property
    def notices(self) -> list[Notice]:
        return (self._single or self._clip).notices  # type: ignore[union-attr]

    @property
    def passes(self) -> list[int]:
        return self._clip.passes if self._clip is not None else []

    @property
    def reused(self) -> float:
        count = self._single.reused if self._single is not None else None
        return count.reused / count.total if count is not None and count.total else 0.0

    def render(
        self, source: VideoSource, segment: Segment, target: Path, offset: int, frame_done: Callable[[], None]
    ) -> None:
        """Write one segment's work file: a pure function of the film, the options and the segment."""
        if self._single is not None:
            self._single.forget()  # a resumed run must not depend on what came before
        with (
            VideoSink(target, self._film.plan, frames=segment.frames) as sink,
            WriteBehind[_Made](lambda made: sink.write(made.pixels, pts=made.pts), depth=FRAMES_AHEAD) as behind,
        ):
            for made in self._frames(source, segment, offset):
                behind.put(made)
                frame_done()

    def _frames(self, source: VideoSource, segment: Segment, offset: int) -> Iterator[_Made]:
        film = self._film
        if self._single is not None:
            frames = source.range(offset + segment.first, offset + segment.end)
            with contextlib.closing(read_ahead(frames, depth=FRAMES_AHEAD)) as ahead:
                for frame in ahead:
                    bands = self._single.bands(frame.pixels, size=film.size, subject=_at(film, frame))
                    yield _checked(film, frame, np.concatenate(list(bands)))
            return
        assert self._clip is not None
        clip = list(source.range(offset + segment.read_first, offset + segment.read_end))
        skipped = segment.first - segment.read_first
        own = clip[skipped : skipped + segment.frames]
        made_frames = self._clip.frames(
            [frame.pixels for frame in clip],
            first=skipped,
            end=skipped + segment.frames,
            size=film.size,
            subject=_at(film, own[0]),
        )
        for frame, made in zip(own, made_frames, strict=True):
            yield _checked(film, frame, made)


def _at(film: Film, frame: VideoFrame) -> str:
    return f"{film.input} frame {frame.number}"


def _checked(film: Film, frame: VideoFrame, made: NDArray[Any]) -> _Made:
    """A frame to be written. A network that has lost its way makes flat frames; of a frame that is not flat itself that is
    an error. Black stays black."""
    if int(np.ptp(made)) <= FLAT and int(np.ptp(frame.pixels)) > NOT_FLAT:
        raise VerifyError(_at(film, frame), "came out flat", "check the weights, or try --precision fp32")
    return _Made(frame.pts, made)


class _CutFinder:
    """Finds the cuts in the same pass that indexes the film."""

    def __init__(self, info: VideoInfo) -> None:
        self._white = float((1 << info.bits) - 1)
        self._small: list[NDArray[np.float32]] = []

    def observe(self, number: int, luma: NDArray[Any]) -> None:
        if number == 0:
            self._small.clear()  # reading began anew
        self._small.append(thumbnail(luma, self._white))

    def cuts(self, index: FrameIndex) -> list[int]:
        """Frames that begin a shot. Thumbnails are of decoded pictures, of which a frame shows one."""
        return find_cuts(self._small[picture] for picture in index.decoded)


def _key(
    film: Film, model: Model, renderer: _Renderer, options: FilmOptions, index: FrameIndex, chosen: range
) -> Mapping[str, Any]:
    """Everything that decides the output's bytes; an interrupted run with another key is not gone on with."""
    ignored = {"restart", "segment_frames"}
    settings = {k: _plain(v) for k, v in asdict(options).items() if k not in ignored}
    return {
        "version": __version__,
        "input": index.digest(),
        "frames": [chosen.start, chosen.stop],
        "model": model.sha256,
        "size": list(film.size),
        "precision": renderer.precision,
        "tile": _plain(renderer.tile),
        "halo": renderer.halo,
        "longest": renderer.longest,
        "context": renderer.context,
        "output": hashlib.sha256(repr(replace(film.plan, notices=())).encode()).hexdigest(),
        **settings,
    }


def _plain(value: Any) -> Any:
    """`value` as JSON gives it back."""
    return json.loads(json.dumps(value, default=str))


def is_done(film: Film) -> bool:
    """Whether the output is there already, as far as its header shows: same size, codec and length, newer than the input.

    Raises:
        UsageError: when something else stands at that name.
    """
    output = film.output
    try:
        there = probe_video(output)
    except InputError as error:
        raise UsageError(output, "exists and is something else", "use -y to overwrite it or choose another name") from error
    length, expected = there.duration_estimate, film.info.duration_estimate
    same = there.size == film.plan.coded_size and there.codec == _decoder_name(film.plan.codec)
    close = length is not None and expected is not None and abs(length - expected) < 1
    if not (same and close):
        found = f"{there.codec}, {there.size[1]}x{there.size[0]}, {float(length or 0):.1f} s"
        raise UsageError(output, f"exists and is something else ({found})", "use -y to overwrite it or choose another name")
    return output.stat().st_mtime >= film.input.stat().st_mtime


def _decoder_name(codec: str) -> str:
    return {"h265": "hevc"}.get(codec, codec)

