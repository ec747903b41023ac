"""One film end to end: index, segments, render, join, verify.

A film is never held whole. It is read once to count, time and checksum its frames (and to find its cuts, where the
network looks at several frames); then rendered segment by segment into work files that survive any interruption; then
their packets are joined with the untouched sound, subtitles and chapters of the source, the result is read back in full
and compared, and only then does it get its name.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import shutil
import threading
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from upframe.errors import Cancelled, InputError, Notice, OutputError, UsageError, VerifyError
from upframe.files import atomic_path, put_in_place, writing
from upframe.jobs.items import Film
from upframe.jobs.options import FilmOptions
from upframe.jobs.video.pipeline import WriteBehind, read_ahead
from upframe.jobs.video.plan import FRAMES_AHEAD, check_place, frame_name, open_folder, probe_film
from upframe.jobs.video.retiming import doubled
from upframe.jobs.video.segments import Segment, plan_segments
from upframe.jobs.video.shots import CutFinder, find_cuts, thumbnail
from upframe.jobs.video.workspace import WorkFolder, recorded_key
from upframe.media.image.source import probe
from upframe.media.video.files import (
    FrameFolderSink,
    VideoFrame,
    VideoSink,
    VideoSource,
    index_video,
    join,
    verify_video,
)
from upframe.models.registry import Model
from upframe.models.spec import Precision
from upframe.upscaling.clips import ClipUpscaler
from upframe.upscaling.images import Upscaler
from upframe.upscaling.options import UpscaleOptions
from upframe.version import __version__

SEGMENT_FRAMES = 240  # of a frame-wise network: what is lost in a crash is at most that
FLAT = 1  # spread of a frame's code values (of 65,535) up to which it counts as flat
NOT_FLAT = 64 * 257  # and from which it certainly is not: a quarter of the range


@dataclass(frozen=True)
class FilmProgress:
    """How far a film is."""

    stage: Literal["reading", "upscaling", "checking"]
    """Reading counts, times and checks its frames; checking reads the joined output back."""
    frame: int
    """Frames done in this stage."""
    frames: int
    """Frames in all; of the header, so not exact, while reading."""
    frames_per_s: float
    """In this stage and this run: frames that an interrupted run left count as done, but not as fast."""


@dataclass(frozen=True)
class FilmReport:
    """Report of a finished video."""

    frames: int
    resumed: int
    """Frames that an interrupted run had left."""
    segments: int
    seconds: float
    engine: str
    """As `--engine` calls it."""
    precision: Precision
    notices: tuple[Notice, ...]
    cleaning_passes: tuple[int, ...]
    """Of each segment rendered in this run."""
    tiles_reused: float
    """Share of tiles that did not change from one frame to the next and were taken over."""
    margins_repeated: float
    """Share of pixels that lie in flat margins and were not computed one by one (margins.py)."""


def render(
    film: Film,
    model: Model,
    upscale: UpscaleOptions,
    options: FilmOptions,
    *,
    on_progress: Callable[[FilmProgress], None] | None = None,
    on_notice: Callable[[Notice], None] | None = None,
    cancel: threading.Event | None = None,
) -> FilmReport:
    """Make the output of a film, going on where an interrupted run stopped.

    Args:
        on_progress: Called after each frame of each stage.
        on_notice: Called as soon as something is known to be lost; raising stops the job.

    Raises:
        Cancelled: when `cancel` was set; finished segments stay for the next run.
        UsageError: when another process makes this output, or an interrupted run differs from this one.
        UpframeError: of any other kind; nothing is at the output's name that was not there before.
    """
    began = time.perf_counter()
    watch = _Watch(film, on_progress, cancel)
    notices = _Notices(on_notice)
    if probe_film(film.input, options) != film.info:
        raise InputError(film.input, "changed while reading (since it was planned)", "run it again")
    reel = (_FolderReel if film.input.is_dir() else _FileReel)(film, options, watch, with_cuts=model.spec.window is not None)
    notices.tell(reel.source.notices)
    chosen = reel.chosen
    starts_s = int(reel.timing.pts[0]) * reel.timing.time_base
    if chosen.start == 0 and starts_s < 0 and film.plan is not None:  # a part of a film starts at zero anyway
        message = f"it starts {-float(starts_s):.3f} s before zero; all its tracks were moved by that"
        notices.tell([Notice("start-shifted", str(film.input), message)])
    earlier = {} if options.restart else recorded_key(film.output)
    renderer = _Renderer(film, model, upscale, options, earlier, cancel)
    cuts = [c - chosen.start for c in reel.cuts() if chosen.start < c < chosen.stop]
    segments = plan_segments(len(chosen), cuts, longest=renderer.longest, context=renderer.context)
    key = _key(film, model, renderer, options, reel)
    resumed = 0
    with reel.source, renderer, WorkFolder(film.output, key, restart=options.restart) as work:
        total = len(film.made(0, len(chosen)))
        press = (_FolderPress if film.plan is None else _FilePress)(film, work, watch)
        done = [work.is_done(s.index) and press.is_whole(s) for s in segments]
        resumed = sum(len(press.made(s)) for s, is_done in zip(segments, done, strict=True) if is_done)
        watch.start("upscaling", total, resumed)
        for segment, is_done in zip(segments, done, strict=True):
            if is_done:
                continue
            with press.sink(segment) as sink:
                for made in renderer.frames(reel, segment, sink):
                    watch.count()
                    notices.tell(made)
            press.finish_segment(segment)
            work.commit(segment.index)
        press.finish(segments, reel, notices)
        work.remove()
    return FilmReport(
        frames=total,
        resumed=resumed,
        segments=len(segments),
        seconds=time.perf_counter() - began,
        engine=renderer.engine,
        precision=renderer.precision,
        notices=tuple(notices.told),
        cleaning_passes=tuple(renderer.passes),
        tiles_reused=renderer.reused,
        margins_repeated=renderer.flat,
    )


class _Watch:
    """Tells how far a film is, and stops it when that is wished."""

    def __init__(self, film: Film, on_progress: Callable[[FilmProgress], None] | None, cancel: threading.Event | None) -> None:
        self._film, self._tell, self._cancel = film, on_progress, cancel
        self.start("reading", film.frames_estimate)

    def start(self, stage: Literal["reading", "upscaling", "checking"], frames: int, done: int = 0) -> None:
        self._stage, self._frames, self._skipped, self._done = stage, frames, done, done
        self._began = time.perf_counter()
        self.check()

    def count(self) -> None:
        """One more frame is done."""
        self._done += 1
        if self._tell is not None:
            rate = (self._done - self._skipped) / max(time.perf_counter() - self._began, 1e-6)
            self._tell(FilmProgress(self._stage, self._done, max(self._frames, self._done), rate))
        self.check()

    def check(self) -> None:
        """Raise Cancelled if the film is to stop."""
        if self._cancel is not None and self._cancel.is_set():
            raise Cancelled(self._film.input, "stopped on request", "the same command goes on from here")


class _Notices:
    """Hands on each notice once."""

    def __init__(self, on_notice: Callable[[Notice], None] | None) -> None:
        self._tell = on_notice
        self.told: list[Notice] = []

    def tell(self, notices: Iterable[Notice]) -> None:
        for notice in notices:
            if notice not in self.told:
                self.told.append(notice)
                if self._tell is not None:
                    self._tell(notice)


# What is read ---------------------------------------------------------------------------------------------------------
class _FileReel:
    """The frames of a video file, indexed, and its cuts, found in the same pass."""

    def __init__(self, film: Film, options: FilmOptions, watch: _Watch, *, with_cuts: bool) -> None:
        self._finder = CutFinder()
        white = float((1 << film.info.bits) - 1)

        def observe(number: int, luma: NDArray[Any]) -> None:
            if number == 0:  # the first time, or anew after damage was met
                watch.start("reading", film.frames_estimate)
                self._finder = CutFinder()
            watch.count()
            if with_cuts:
                self._finder.add(thumbnail(luma, white))

        self.timing = index_video(
            film.input,
            info=film.info,
            on_bad_frame=options.on_bad_frame,  # type: ignore[arg-type] # checked by index_video
            observe=observe,
        )
        self.source = VideoSource(
            film.input,
            start=options.start,
            end=options.end,
            deinterlace=options.deinterlace,  # type: ignore[arg-type] # checked by VideoSource
            allow_truncated=options.allow_truncated,
            info=film.info,
            index=self.timing,
        )
        self.chosen = self.source.selection

    def cuts(self) -> list[int]:
        # They are numbered by decoded picture; a damaged frame shows the picture before it, so a shot begins with the
        # first frame that shows the picture or a later one.
        frames = np.searchsorted(self.timing.decoded, self._finder.cuts())
        return sorted({int(f) for f in frames if 0 < f < len(self.timing)})

    def digest(self) -> str:
        return self.timing.digest()


class _FolderReel:
    """The frames of a folder."""

    def __init__(self, film: Film, options: FilmOptions, watch: _Watch, *, with_cuts: bool) -> None:
        self.source = open_folder(film.input, options)
        self._watch = watch
        self.timing = self.source.timing
        first, last = (None if t is None else t * self.source.rate for t in (options.start, options.end))
        self.chosen = range(len(self.source))[
            None if first is None else math.ceil(first) : None if last is None else math.ceil(last)
        ]
        if not self.chosen:
            raise UsageError(film.input, "no frame lies between --start and --end", f"it has {len(self.source)} frames")
        self._with_cuts = with_cuts

    def cuts(self) -> list[int]:
        """Found by reading every picture once, which only a network for clips asks for."""
        return find_cuts(self._thumbnails()) if self._with_cuts else []

    def _thumbnails(self) -> Iterator[NDArray[np.float32]]:
        for frame in self.source:
            yield thumbnail(frame.pixels[..., 1], 65535.0)
            self._watch.count()

    def digest(self) -> str:
        """Of names, sizes and times of change: reading every picture again would double the work of a short job."""
        state = hashlib.sha256()
        for path in self.source.frames:
            stat = path.stat()
            state.update(repr((path.name, stat.st_size, stat.st_mtime_ns)).encode())
        return state.hexdigest()


# What is written ------------------------------------------------------------------------------------------------------
class _FilePress:
    """Segments as work files, joined into a video file."""

    def __init__(self, film: Film, work: WorkFolder, watch: _Watch) -> None:
        assert film.plan is not None
        self._film, self._plan, self._work, self._watch = film, film.plan, work, watch

    def made(self, segment: Segment) -> range:
        """Frames of the output that stand for a segment."""
        return self._film.made(segment.first, segment.end)

    def sink(self, segment: Segment) -> VideoSink:
        return VideoSink(self._work.scratch(segment.index), self._plan, frames=len(self.made(segment)))

    def finish_segment(self, segment: Segment) -> None:
        """The sink's file is the segment."""

    def is_whole(self, segment: Segment) -> bool:
        return True  # its checksum said so

    def finish(self, segments: list[Segment], reel: _FileReel | _FolderReel, notices: _Notices) -> None:
        """Join the segments with the source's other tracks, verify the result and give it its name."""
        output = self._film.output
        info = self._film.info if isinstance(reel, _FileReel) else None
        timing, chosen = doubled(reel.timing, reel.chosen) if self._film.is_doubled else (reel.timing, reel.chosen)
        files = [self._work.segment(s.index) for s in segments]
        self._watch.start("checking", len(chosen))
        with writing(output), atomic_path(output) as target:
            expected = join(files, target, self._plan, timing=timing, info=info, selection=chosen, on_frame=self._watch.check)
            notices.tell(expected.notices)
            verify_video(target, expected, on_frame=self._watch.count)


class _FolderPress:
    """Numbered pictures in a folder that gets its name when all are there."""

    def __init__(self, film: Film, work: WorkFolder, watch: _Watch) -> None:
        self._film, self._work, self._watch = film, work, watch
        self._folder = work.path / "frames"

    def made(self, segment: Segment) -> range:
        """Frames of the output that stand for a segment."""
        return self._film.made(segment.first, segment.end)

    def sink(self, segment: Segment) -> FrameFolderSink:
        bits = 8 if self._film.info.bits == 8 else 16
        made = self.made(segment)
        return FrameFolderSink(self._folder, first=made.start, bits=bits, frames=len(made))

    def finish_segment(self, segment: Segment) -> None:
        """The checksums of its pictures stand for the segment."""
        try:
            self._work.scratch(segment.index).write_text(json.dumps(self._checksums(segment)))
        except OSError as error:
            raise OutputError(self._film.output, f"cannot be written ({error.strerror})", "make space, run it again") from error

    def is_whole(self, segment: Segment) -> bool:
        return bool(json.loads(self._work.segment(segment.index).read_text()) == self._checksums(segment))

    def _checksums(self, segment: Segment) -> list[int | None]:
        files = [self._folder / frame_name(n) for n in self.made(segment)]
        return [zlib.crc32(f.read_bytes()) if f.exists() else None for f in files]

    def finish(self, segments: list[Segment], reel: _FileReel | _FolderReel, notices: _Notices) -> None:
        """Count the pictures, each of which was read back when it was written, then give the folder its name."""
        output = self._film.output
        expected = [frame_name(n) for n in self._film.made(0, len(reel.chosen))]
        found = sorted(p.name for p in self._folder.iterdir())
        if found != expected:
            raise VerifyError(output, f"{len(found)} frames were written, expected {len(expected)}", "use --restart")
        self._watch.start("checking", len(expected))
        for name in expected:
            size = probe(self._folder / name).size
            if size != self._film.size:
                raise VerifyError(self._folder / name, f"is {size[1]}x{size[0]}", "use --restart")
            self._watch.count()
        with writing(output):
            if output.exists():
                check_place(self._film)
                shutil.rmtree(output)  # the caller allowed it, and it holds such frames only
            os.utime(self._folder)  # made after all its segments: so a leftover of it is known (`remove_leftover`)
            put_in_place(self._folder, output)


@dataclass(frozen=True)
class _Made:
    """An enlarged frame at its time."""

    pts: int
    pixels: NDArray[Any]


class _Renderer:
    """Renders segments of one film with one model, frame by frame or as clips."""

    def __init__(
        self,
        film: Film,
        model: Model,
        upscale: UpscaleOptions,
        options: FilmOptions,
        earlier: Mapping[str, Any],
        cancel: threading.Event | None,
    ) -> None:
        """Fixes tiles and segments, once for all runs: what follows from the memory of the moment is taken over from
        `earlier`, the key of an interrupted run, or its segments and those of this run would not fit together."""
        self._film, self._cancel = film, cancel
        size = film.info.size
        self._single: Upscaler | None = None
        self._clip: ClipUpscaler | None = None
        tile = tuple(earlier["tile"]) if upscale.tile == "auto" and earlier.get("tile_asked") == "auto" else None
        longest = options.segment_frames
        if longest is None and earlier.get("longest_asked", 0) is None:
            longest = int(earlier["longest"])
        if model.spec.window is None:
            if options.cleaning is not None:
                raise UsageError(model.spec.name, "does not clean", "drop the --clean flags")
            single = Upscaler(model, upscale, cancel=cancel, reuse=True)
            single.options = replace(upscale, tile="off" if upscale.tile == "off" else tile or single.tile_px(size))
            self._single = single
            self.longest = longest or SEGMENT_FRAMES
            self.context = 0
        else:
            clip = ClipUpscaler(model, upscale, cleaning=options.cleaning, cancel=cancel)
            window = upscale.window
            if window is None and earlier.get("window_asked", 0) is None:
                window = earlier["window"]
            clip.options = replace(upscale, window=window or clip.window_frames(size))
            # A network with windows in time takes as many frames at once as it is told, whatever the segments.
            self.longest = clip.segment_frames(size) if model.spec.window.frames else longest or clip.segment_frames(size)
            self.context = model.spec.window.overlap if options.context is None else options.context
            tile = tile or clip.choice(size, self.longest + 2 * self.context).tile
            clip.options = replace(clip.options, tile=tile)
            self._clip = clip
        engine = (self._single or self._clip).engine  # type: ignore[union-attr] # one of them is there
        self.engine, self.precision, self.device = engine.name, engine.precision, engine.device.type
        self.sigma, self.as_published = upscale.sigma, upscale.as_published
        self.asked = {
            "tile_asked": _plain(upscale.tile),
            "longest_asked": options.segment_frames,
            "window_asked": upscale.window,
        }

    def __enter__(self) -> _Renderer:
        return self

    def __exit__(self, *_: object) -> None:
        for upscaler in (self._single, self._clip):
            if upscaler is not None:
                upscaler.close()

    @property
    def tile(self) -> object:
        return (self._single or self._clip).options.tile  # type: ignore[union-attr]

    @property
    def window(self) -> int | None:
        """Frames that a network with windows in time sees at once."""
        return (self._single or self._clip).options.window  # type: ignore[union-attr]

    @property
    def halo(self) -> int:
        return (self._single or self._clip).halo_px  # type: ignore[union-attr]

    @property
    def overlap(self) -> int:
        return (self._single or self._clip).options.blend  # type: ignore[union-attr]

    @property
    def notices(self) -> list[Notice]:
        return (self._single or self._clip).notices  # type: ignore[union-attr]

    @property
    def passes(self) -> list[int]:
        return self._clip.passes if self._clip is not None else []

    @property
    def reused(self) -> float:
        return self._single.reused.share if self._single is not None else 0.0

    @property
    def flat(self) -> float:
        return self._single.flat.share if self._single is not None else 0.0

    def frames(
        self, reel: _FileReel | _FolderReel, segment: Segment, sink: VideoSink | FrameFolderSink
    ) -> Iterator[tuple[Notice, ...]]:
        """Write one segment's frames, a pure function of the film, the options and the segment.

        Yields:
            For each frame, once it is on its way to the sink, what was lost in making it.
        """
        if self._single is not None:
            self._single.forget()  # a resumed run must not depend on what came before
        with WriteBehind[_Made](lambda made: sink.write(made.pixels, pts=made.pts), depth=FRAMES_AHEAD) as behind:
            for made in self._frames(reel, segment):
                behind.put(made)
                yield tuple(self.notices)
                self.notices.clear()

    def _frames(self, reel: _FileReel | _FolderReel, segment: Segment) -> Iterator[_Made]:
        film, offset = self._film, reel.chosen.start
        if self._single is not None:
            frames = reel.source.range(offset + segment.first, offset + segment.end)
            with contextlib.closing(read_ahead(frames, depth=FRAMES_AHEAD)) as ahead:
                for frame in ahead:
                    bands = self._single.bands(frame.pixels, size=film.size, subject=_at(film, frame))
                    yield _checked(film, frame, np.concatenate(list(bands)))
            return
        assert self._clip is not None
        clip = list(reel.source.range(offset + segment.read_first, offset + segment.read_end))
        skipped = segment.first - segment.read_first
        own = clip[skipped : skipped + segment.frames]
        made_frames = self._clip.frames(
            [frame.pixels for frame in clip],
            first=skipped,
            end=min(skipped + segment.frames, len(clip) - film.is_doubled),
            size=film.size,
            subject=_at(film, own[0]),
        )
        if film.is_doubled:
            yield from self._in_turn(own, made_frames, reel.timing.durations[offset + segment.first :])
            return
        for frame, made in zip(own, made_frames, strict=True):
            yield _checked(film, frame, made)

    def _in_turn(
        self, own: list[VideoFrame], made_frames: Iterator[NDArray[Any]], durations: NDArray[np.int64]
    ) -> Iterator[_Made]:
        """A segment's frames as they were, each followed by what was made between it and the next; one that nothing was
        made after, since a new shot begins or the film ends, is shown again.

        Args:
            durations: Ticks that the segment's frames stay.
        """
        for frame, duration in zip(own, durations, strict=False):
            yield _Made(2 * frame.pts, frame.pixels)
            between = next(made_frames, None)
            made = frame.pixels if between is None else _checked(self._film, frame, between).pixels
            yield _Made(2 * frame.pts + int(duration), made)


def _at(film: Film, frame: VideoFrame) -> str:
    return f"{film.input} frame {frame.number}"


def _checked(film: Film, frame: VideoFrame, made: NDArray[Any]) -> _Made:
    """A frame to be written. A network that has lost its way makes flat frames; of a frame that is not flat itself that is
    an error. Black stays black."""
    if int(np.ptp(made)) <= FLAT and int(np.ptp(frame.pixels)) > NOT_FLAT:
        raise VerifyError(_at(film, frame), "came out flat", "check the weights, or try --precision fp32")
    return _Made(frame.pts, made)


def _key(
    film: Film, model: Model, renderer: _Renderer, options: FilmOptions, reel: _FileReel | _FolderReel
) -> Mapping[str, Any]:
    """Everything that decides the output's bytes; an interrupted run with another key is not gone on with."""
    # What is refused when a file ends early changes no pixel; the rest is in the key by the value it was given.
    ignored = {"restart", "segment_frames", "context", "allow_truncated"}
    settings = {k: _plain(v) for k, v in asdict(options).items() if k not in ignored}
    return {
        "version": __version__,
        "input": reel.digest(),
        "frames": [reel.chosen.start, reel.chosen.stop],
        "model": model.sha256,
        "size": list(film.size),
        "engine": renderer.engine,
        "precision": renderer.precision,
        "device": renderer.device,
        **renderer.asked,
        "tile": _plain(renderer.tile),
        "halo": renderer.halo,
        "overlap": renderer.overlap,
        "longest": renderer.longest,
        "context": renderer.context,
        "window": renderer.window,
        "sigma": renderer.sigma,
        "as_published": renderer.as_published,
        "output": "folder" if film.plan is None else hashlib.sha256(repr(replace(film.plan, notices=())).encode()).hexdigest(),
        **settings,
    }


def _plain(value: Any) -> Any:
    """`value` as JSON gives it back."""
    return json.loads(json.dumps(value, default=str))
