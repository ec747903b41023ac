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
import math
import shutil
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
from upframe.media.formats import format_of_name
from upframe.media.images import part_path, probe
from upframe.media.video import (
    DEFAULT_RATE,
    FrameFolder,
    FrameFolderSink,
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
from upframe.upscale import UpscaleOptions, Upscaler
from upframe.upscale_clip import ClipUpscaler
from upframe.workfolder import WorkFolder

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
    rate: Fraction = DEFAULT_RATE
    """Frames per second of a folder of frames."""
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
    """A video file, or a folder of frames."""
    output: Path
    info: VideoInfo
    plan: VideoPlan | None
    """None for an output that is a folder of frames."""
    size: tuple[int, int]
    """(height, width) of the output pictures."""
    notices: tuple[Notice, ...] = ()
    """What is known to be lost before the film is read."""

    @property
    def frames_estimate(self) -> int:
        return max(self.info.frames_estimate or 1, 1)


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


def probe_film(path: Path, options: FilmOptions) -> VideoInfo:
    """What a video file or a folder of frames says of itself.

    Raises:
        InputError: if it cannot be read.
    """
    return _folder(path, options).info if path.is_dir() else probe_video(path, stream=options.stream)


def plan_film_output(
    info: VideoInfo, size: tuple[int, int], options: FilmOptions, *, container: str | None
) -> tuple[VideoPlan | None, tuple[Notice, ...]]:
    """Decide how a film is written, and try the encoder and the container with all its tracks.

    Args:
        info: From `probe_film`.
        container: Name or extension; an image format means a folder of numbered PNGs, for which there is no plan; None
            keeps that of the input.

    Returns:
        The plan, and what is known to be lost.

    Raises:
        UsageError: for what cannot be carried out.
    """
    if container is not None and format_of_name(container) is not None:
        if format_of_name(container) != "png":
            raise UsageError(f"--format {container}", "frames are written as PNG", "use --format png, or a video format")
        lost = [s for s in info.streams if s.kind in ("audio", "subtitle")]
        message = f"a folder of frames holds no sound and no subtitles ({len(lost)} tracks)"
        return None, (*info.notices, *((Notice("track-dropped", str(info.path), message),) if lost else ()))
    plan = plan_video(
        info,
        container=container,
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
    return plan, (*info.notices, *plan.notices)


def _folder(path: Path, options: FilmOptions) -> FrameFolder:
    return FrameFolder(path, rate=options.rate, on_bad_frame=options.on_bad_frame)  # type: ignore[arg-type] # checked there


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
    reel = (_FolderReel if film.input.is_dir() else _FileReel)(film, options, with_cuts=model.spec.window is not None)
    for notice in reel.source.notices:
        tell_notice(notice)
    renderer = _Renderer(film, model, upscale, options, cancel)
    chosen = reel.chosen
    cuts = [c - chosen.start for c in reel.cuts() if chosen.start < c < chosen.stop]
    segments = plan_segments(len(chosen), cuts, longest=renderer.longest, context=renderer.context)
    key = _key(film, model, renderer, options, reel)
    done = resumed = 0
    with reel.source, renderer, WorkFolder(film.output, key, restart=options.restart) as work:
        press = (_FolderPress if film.plan is None else _FilePress)(film, work)
        for segment in segments:
            if work.is_done(segment.index) and press.is_whole(segment):
                resumed += segment.frames
            else:
                count = itertools.count(done + 1)

                def frame_done(count: Iterator[int] = count) -> None:
                    if on_frame:
                        on_frame(next(count), len(chosen))

                with press.sink(segment) as sink:
                    renderer.render(reel.source, segment, sink, chosen.start, frame_done)
                press.finish_segment(segment)
                work.commit(segment.index)
            done += segment.frames
            if on_frame:
                on_frame(done, len(chosen))
        for notice in renderer.notices:
            tell_notice(notice)
        press.finish(segments, reel)
        work.remove()
    return FilmReport(
        frames=len(chosen),
        resumed=resumed,
        segments=len(segments),
        seconds=time.perf_counter() - began,
        notices=(*reel.source.notices, *renderer.notices),
        cleaning_passes=tuple(renderer.passes),
        tiles_reused=renderer.reused,
    )


# What is read ---------------------------------------------------------------------------------------------------------
class _FileReel:
    """The frames of a video file, indexed, and its cuts, found in the same pass."""

    def __init__(self, film: Film, options: FilmOptions, *, with_cuts: bool) -> None:
        self._finder = _CutFinder(float((1 << film.info.bits) - 1)) if with_cuts else None
        self.timing = index_video(
            film.input,
            info=film.info,
            on_bad_frame=options.on_bad_frame,  # type: ignore[arg-type] # checked by index_video
            observe=self._finder.observe if self._finder else None,
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
        # Thumbnails are of decoded pictures, of which a frame shows one.
        return self._finder.cuts(self.timing.decoded.tolist()) if self._finder else []

    def digest(self) -> str:
        return self.timing.digest()


class _FolderReel:
    """The frames of a folder."""

    def __init__(self, film: Film, options: FilmOptions, *, with_cuts: bool) -> None:
        self.source = _folder(film.input, options)
        self.timing = self.source.timing
        first, last = (None if t is None else t * self.source.rate for t in (options.start, options.end))
        self.chosen = range(len(self.source))[
            None if first is None else math.ceil(first) : None if last is None else math.ceil(last)
        ]
        if not self.chosen:
            raise UsageError(film.input, "no frame lies between --start and --end", f"it has {len(self.source)} frames")
        self._with_cuts = with_cuts

    def cuts(self) -> list[int]:
        return find_cuts(thumbnail(f.pixels[..., 1], 65535.0) for f in self.source) if self._with_cuts else []

    def digest(self) -> str:
        """Of names, sizes and times of change: reading every picture again would double the work of a short job."""
        state = hashlib.sha256()
        for path in self.source.frames:
            stat = path.stat()
            state.update(repr((path.name, stat.st_size, stat.st_mtime_ns)).encode())
        return state.hexdigest()


class _CutFinder:
    """Finds the cuts in the same pass that indexes the film."""

    def __init__(self, white: float) -> None:
        self._white = white
        self._small: list[NDArray[np.float32]] = []

    def observe(self, number: int, luma: NDArray[Any]) -> None:
        if number == 0:
            self._small.clear()  # reading began anew
        self._small.append(thumbnail(luma, self._white))

    def cuts(self, shown: list[int]) -> list[int]:
        """Frames that begin a shot, given which picture each frame shows."""
        return find_cuts(self._small[picture] for picture in shown)


# What is written ------------------------------------------------------------------------------------------------------
class _FilePress:
    """Segments as work files, joined into a video file."""

    def __init__(self, film: Film, work: WorkFolder) -> None:
        assert film.plan is not None
        self._film, self._plan, self._work = film, film.plan, work

    def sink(self, segment: Segment) -> VideoSink:
        return VideoSink(self._work.scratch(segment.index), self._plan, frames=segment.frames)

    def finish_segment(self, segment: Segment) -> None:
        """The sink's file is the segment."""

    def is_whole(self, segment: Segment) -> bool:
        return True  # its checksum said so

    def finish(self, segments: list[Segment], reel: _FileReel | _FolderReel) -> None:
        """Join the segments with the source's other tracks, verify the result and give it its name."""
        output = self._film.output
        target = part_path(output)
        info = self._film.info if isinstance(reel, _FileReel) else None
        try:
            files = [self._work.segment(s.index) for s in segments]
            expected = join(files, target, self._plan, timing=reel.timing, info=info, selection=reel.chosen)
            verify_video(target, expected)
            target.replace(output)
        except OSError as error:
            raise OutputError(output, f"cannot be written ({error.strerror})", "check the folder and try again") from error
        finally:
            target.unlink(missing_ok=True)


class _FolderPress:
    """Numbered pictures in a folder that gets its name when all are there."""

    def __init__(self, film: Film, work: WorkFolder) -> None:
        self._film, self._work = film, work
        self._folder = work.path / "frames"

    def sink(self, segment: Segment) -> FrameFolderSink:
        bits = 8 if self._film.info.bits == 8 else 16
        return FrameFolderSink(self._folder, first=segment.first, bits=bits, frames=segment.frames)

    def finish_segment(self, segment: Segment) -> None:
        self._work.scratch(segment.index).write_text(json.dumps(self._sizes(segment)))

    def is_whole(self, segment: Segment) -> bool:
        return bool(json.loads(self._work.segment(segment.index).read_text()) == self._sizes(segment))

    def _sizes(self, segment: Segment) -> list[int | None]:
        files = [self._folder / f"frame_{n:08}.png" for n in range(segment.first, segment.end)]
        return [f.stat().st_size if f.exists() else None for f in files]

    def finish(self, segments: list[Segment], reel: _FileReel | _FolderReel) -> None:
        """Read every picture back, then give the folder its name."""
        output = self._film.output
        expected = [f"frame_{n:08}.png" for n in range(len(reel.chosen))]
        found = sorted(p.name for p in self._folder.iterdir())
        if found != expected:
            raise VerifyError(output, f"{len(found)} frames were written, expected {len(expected)}", "run it again")
        for name in expected:
            size = probe(self._folder / name).size  # each file was read back when it was written
            if size != self._film.size:
                raise VerifyError(self._folder / name, f"is {size[1]}x{size[0]}", "run it again")
        try:
            if output.exists():
                shutil.rmtree(output)  # the caller allowed it
            self._folder.replace(output)
        except OSError as error:
            raise OutputError(output, f"cannot be written ({error.strerror})", "check the folder and try again") from error


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
        self,
        source: VideoSource | FrameFolder,
        segment: Segment,
        sink: VideoSink | FrameFolderSink,
        offset: int,
        frame_done: Callable[[], None],
    ) -> None:
        """Write one segment's frames: a pure function of the film, the options and the segment."""
        if self._single is not None:
            self._single.forget()  # a resumed run must not depend on what came before
        with (
            WriteBehind[_Made](lambda made: sink.write(made.pixels, pts=made.pts), depth=FRAMES_AHEAD) as behind,
        ):
            for made in self._frames(source, segment, offset):
                behind.put(made)
                frame_done()

    def _frames(self, source: VideoSource | FrameFolder, segment: Segment, offset: int) -> Iterator[_Made]:
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


def _key(
    film: Film, model: Model, renderer: _Renderer, options: FilmOptions, reel: _FileReel | _FolderReel
) -> Mapping[str, Any]:
    """Everything that decides the output's bytes; an interrupted run with another key is not gone on with."""
    ignored = {"restart", "segment_frames"}
    settings = {k: _plain(v) for k, v in asdict(options).items() if k not in ignored}
    return {
        "version": __version__,
        "input": reel.digest(),
        "frames": [reel.chosen.start, reel.chosen.stop],
        "model": model.sha256,
        "size": list(film.size),
        "precision": renderer.precision,
        "tile": _plain(renderer.tile),
        "halo": renderer.halo,
        "longest": renderer.longest,
        "context": renderer.context,
        "output": "folder" if film.plan is None else hashlib.sha256(repr(replace(film.plan, notices=())).encode()).hexdigest(),
        **settings,
    }


def _plain(value: Any) -> Any:
    """`value` as JSON gives it back."""
    return json.loads(json.dumps(value, default=str))


def estimated_file_bytes(film: Film) -> int:
    """Rough size of the output, on the high side: 0.25 bits a pixel for delivery codecs, 12 for intermediate ones."""
    codec = "png" if film.plan is None else film.plan.codec
    bits = {"png": 14.0, "ffv1": 12.0, "prores": 4.0}.get(codec, 0.25)
    return int(film.size[0] * film.size[1] * film.frames_estimate * bits / 8) + (1 << 20)


def tile_px(film: Film, model: Model, upscale: UpscaleOptions, options: FilmOptions) -> tuple[int, int]:
    """Core (height, width) of the tiles that frames are cut into."""
    size = film.info.size
    if model.spec.window is None:
        return Upscaler(model, upscale).tile_px(size)
    clip = ClipUpscaler(model, upscale, cleaning=options.cleaning)
    return clip.tile_px(size, options.segment_frames or clip.segment_frames(size))


def estimated_memory_bytes(film: Film, model: Model, upscale: UpscaleOptions, options: FilmOptions) -> int:
    """Rough peak memory of rendering: frames on their way, a tile's activations, and what a clip's network holds."""
    height, width = film.info.size
    in_flight = (2 * FRAMES_AHEAD + 2) * 6 * (height * width + film.size[0] * film.size[1])
    spec = model.spec
    if spec.window is None:
        single = Upscaler(model, upscale)
        core = single.tile_px(film.info.size)
        margin = 2 * (single.halo_px + upscale.blend)
        tile_px = min(core[0] + margin, height) * min(core[1] + margin, width)
        kept = 12 * spec.scale**2 * height * width  # tiles of the last frame, in float32
        return in_flight + tile_px * spec.activation_bytes_per_px + kept
    clip = ClipUpscaler(model, upscale, cleaning=options.cleaning)
    frames = min(options.segment_frames or clip.segment_frames(film.info.size), film.frames_estimate)
    held = frames if clip.keep(film.info.size, frames) == "full" else 2 * math.ceil(frames**0.5)
    per_frame = height * width * (6 + 2 * 12)  # as read, and before and after preparation
    return in_flight + height * width * (spec.activation_bytes_per_px + held * spec.clip_bytes_per_px) + frames * per_frame


def is_done(film: Film) -> bool:
    """Whether the output is there already, as far as its header shows: same size, codec and length, newer than the input.

    Raises:
        UsageError: when something else stands at that name.
    """
    output, plan = film.output, film.plan
    if plan is None or output.is_dir():
        raise UsageError(output, "exists", "use -y to overwrite it or choose another name")
    try:
        there = probe_video(output)
    except InputError as error:
        raise UsageError(output, "exists and is something else", "use -y to overwrite it or choose another name") from error
    length, expected = there.duration_estimate, film.info.duration_estimate
    same = there.size == plan.coded_size and there.codec == {"h265": "hevc"}.get(plan.codec, plan.codec)
    close = length is not None and expected is not None and abs(length - expected) < 1
    if not (same and close):
        found = f"{there.codec}, {there.size[1]}x{there.size[0]}, {float(length or 0):.1f} s"
        raise UsageError(output, f"exists and is something else ({found})", "use -y to overwrite it or choose another name")
    return output.stat().st_mtime >= film.input.stat().st_mtime
