"""A film before it is read: what the user decides, what is going to be written, what that costs, what is there already."""

from __future__ import annotations

import math
import re
import sys
import time
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

from upframe.errors import InputError, Notice, UsageError
from upframe.jobs.items import Film
from upframe.jobs.options import FilmOptions
from upframe.jobs.video.workspace import kept_bytes
from upframe.machine import process_bytes
from upframe.media.image.formats import format_of_name
from upframe.media.image.source import probe
from upframe.media.video.files import (
    FrameFolder,
    VideoInfo,
    VideoPlan,
    codec_named,
    cut_short,
    plan_video,
    probe_video,
)
from upframe.models.registry import Model
from upframe.models.spec import Cleaning, Precision
from upframe.upscaling import memory
from upframe.upscaling.clips import ClipUpscaler
from upframe.upscaling.images import Upscaler
from upframe.upscaling.options import UpscaleOptions

ENCODER_FRAMES = 16  # that an encoder holds: references, frames that wait to be ordered, its threads' own
FRAMES_AHEAD = 3  # decoded before, and waiting to be encoded after, the network
LENGTH_SLACK_S = 1  # how far the lengths that two headers state for the same film may differ


def probe_film(path: Path, options: FilmOptions) -> VideoInfo:
    """Read the headers of a video file or of a folder of frames.

    Raises:
        InputError: if it cannot be read.
    """
    return open_folder(path, options).info if path.is_dir() else probe_video(path, stream=options.stream)


def plan_film_output(
    info: VideoInfo, size: tuple[int, int], options: FilmOptions, *, container: str | None, is_doubled: bool = False
) -> tuple[VideoPlan | None, tuple[Notice, ...]]:
    """Decide how a film is written, and try the encoder and the container with all its tracks.

    Args:
        info: From `probe_film`.
        container: Name or extension; an image format means a folder of numbered PNGs, for which there is no plan; None
            keeps that of the input.
        is_doubled: Whether the output has twice the rate.

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
        replace(info, time_base=info.time_base / 2, rate=2 * info.rate) if is_doubled else info,
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


def open_folder(path: Path, options: FilmOptions) -> FrameFolder:
    """A folder of frames as a film."""
    return FrameFolder(path, rate=options.rate, on_bad_frame=options.on_bad_frame)  # type: ignore[arg-type] # checked there


def frame_name(number: int) -> str:
    """File name of a frame in an output folder."""
    return f"frame_{number:08}.png"


# Estimates ------------------------------------------------------------------------------------------------------------
def frames_taken(film: Film, options: FilmOptions) -> int | None:
    """Frames of the input between `--start` and `--end`, as far as headers tell; None where they do not."""
    whole, length = film.info.frames_estimate, _chosen_length(film.info, options)
    if options.start is None and options.end is None:
        return whole
    if length is None:
        return whole
    taken = max(math.ceil(length * film.info.rate), 1)
    return taken if whole is None else min(taken, whole)


def estimated_file_bytes(film: Film, options: FilmOptions) -> int:
    """Rough size of the output, on the high side: 0.25 bits a pixel for delivery codecs, 12 for intermediate ones."""
    codec = "png" if film.plan is None else film.plan.codec
    bits = {"png": 14.0, "ffv1": 12.0, "prores": 4.0}.get(codec, 0.25)
    frames = (frames_taken(film, options) or 1) * (2 if film.is_doubled else 1)
    return int(film.size[0] * film.size[1] * frames * bits / 8) + (1 << 20)


@dataclass(frozen=True)
class Rendering:
    """How a film is going to be rendered in the memory there is now."""

    engine: str
    """As `--engine` calls it."""
    precision: Precision
    tile: tuple[int, int]
    """Core (height, width) of the tiles that frames are cut into."""
    window: int | None
    """Frames that the network sees at once; None for one that takes single frames."""
    memory_bytes: int
    """Peak memory: of a network for clips of the whole process, else what rendering roughly adds."""


def planned_rendering(film: Film, model: Model, upscale: UpscaleOptions, options: FilmOptions) -> Rendering:
    """Tiles, window and peak memory."""
    height, width = film.info.size
    if model.spec.window is not None:
        return _planned_clips(film, model, upscale, options)
    single = Upscaler(model, upscale)
    core = single.tile_px(film.info.size)
    in_flight = (2 * FRAMES_AHEAD + 2) * 6 * (height * width + film.size[0] * film.size[1])
    margin = 2 * (single.halo_px + upscale.blend)
    tile_px = min(core[0] + margin, height) * min(core[1] + margin, width)
    kept = 12 * model.spec.scale**2 * height * width  # tiles of the last frame, in float32
    return Rendering(
        single.engine.name, single.engine.precision, core, None, in_flight + tile_px * model.spec.activation_bytes_per_px + kept
    )


def _planned_clips(film: Film, model: Model, upscale: UpscaleOptions, options: FilmOptions) -> Rendering:
    """Of a network for clips: what the process holds, with the network, and what a full segment and its frames add."""
    spec, size = model.spec, film.info.size
    assert spec.window is not None
    clip = ClipUpscaler(model, upscale, cleaning=options.cleaning)
    clip.options = replace(upscale, window=upscale.window or clip.window_frames(size))
    longest = options.segment_frames if options.segment_frames and not spec.window.frames else clip.segment_frames(size)
    context = spec.window.overlap if options.context is None else options.context
    frames = min(longest + 2 * context, frames_taken(film, options) or sys.maxsize)  # where no header says, the worst
    choice = clip.choice(size, frames)
    cleaning = options.cleaning or spec.preparation
    peak = process_bytes()
    peak += memory.frames_bytes(
        spec, size, frames, choice.memory_bytes, passes=0 if cleaning is None or not cleaning.strength else _passes(cleaning)
    )
    peak += memory.finishing_bytes(
        (size[0] * spec.scale, size[1] * spec.scale),
        film.size,
        queued=FRAMES_AHEAD,
        encoder_frames=0 if film.plan is None else min(ENCODER_FRAMES, frames),
    )
    return Rendering(clip.engine.name, clip.engine.precision, choice.tile, min(choice.window, frames), peak)


def _passes(cleaning: Cleaning) -> int:
    """Most passes that are likely: above the largest change that pixels can make, the first is the last."""
    return min(cleaning.max_passes, 1) if cleaning.threshold >= 255 else cleaning.max_passes


def estimated_room_bytes(film: Film, options: FilmOptions) -> int:
    """Disk space that is still needed: for the segments and what they are joined to, less what is there already."""
    return max((1 if film.plan is None else 2) * estimated_file_bytes(film, options) - kept_bytes(film.output), 0)


# Outputs that are there already ---------------------------------------------------------------------------------------
def check_place(film: Film) -> None:
    """Refuse an existing output that is not even to be overwritten: a folder in place of a file, a file in place of a
    folder, or a folder with anything but frames in it.

    Raises:
        UsageError: naming it.
    """
    output = film.output
    if film.plan is not None:
        if output.is_dir():
            raise UsageError(output, "is a folder", "choose another name")
        return
    if not output.is_dir():
        raise UsageError(output, "is a file, and a folder of frames is to be made", "choose another name")
    foreign = next((p.name for p in output.iterdir() if not re.fullmatch(r"frame_\d{8}\.png", p.name)), None)
    if foreign is not None:
        raise UsageError(output, f"holds other things than frames ({foreign})", "choose a new folder")


def is_done(film: Film, options: FilmOptions) -> bool:
    """Whether the output is there already, as far as headers show: same size, codec and length, and not cut short.

    Raises:
        UsageError: when something else stands at that name, or what was made of an older input.
    """
    output = film.output
    there = _frames_are_done(film, options) if film.plan is None else _file_is_done(film, film.plan, options)
    # A camera with a wrong clock makes inputs of the future; they are no newer than what was made of them.
    if there and output.stat().st_mtime < film.input.stat().st_mtime <= time.time():
        raise UsageError(output, "exists and is older than the input", "use -y to make it again or choose another name")
    return there


def _something_else(output: Path, what: str) -> UsageError:
    return UsageError(output, f"exists and is something else ({what})", "use -y to overwrite it or choose another name")


def _file_is_done(film: Film, plan: VideoPlan, options: FilmOptions) -> bool:
    output = film.output
    try:
        there = probe_video(output)
    except InputError as error:
        if _is_wreck(output):
            return False
        raise _something_else(output, error.happened) from error
    length, expected = _length(there), _chosen_length(film.info, options)
    same = there.size == plan.coded_size and _same_codec(there.codec, plan.codec)
    close = length is None or expected is None or abs(length - expected) <= LENGTH_SLACK_S
    if not (same and close):
        raise _something_else(output, f"{there.codec}, {there.size[1]}x{there.size[0]}, {float(length or 0):.1f} s")
    return cut_short(there) is None


def _same_codec(decoder: str, codec: str) -> bool:
    """Whether a decoder's name, of which one codec may have several (libdav1d for AV1), means this codec of ours."""
    known = codec_named(decoder.removeprefix("lib").replace("dav1d", "av1"))
    return known is not None and known.name == codec


def _frames_are_done(film: Film, options: FilmOptions) -> bool:
    names = sorted(p.name for p in film.output.iterdir())
    if not names:
        return False
    expected, rate = _chosen_length(film.info, options), film.info.rate * (2 if film.is_doubled else 1)
    close = expected is None or abs(len(names) / rate - expected) <= LENGTH_SLACK_S
    if names != [frame_name(n) for n in range(len(names))] or not close:
        raise _something_else(film.output, f"{len(names)} pictures")
    sizes = {probe(film.output / name).size for name in names}
    if sizes != {film.size}:
        raise _something_else(film.output, "pictures of another size")
    return True


def _is_wreck(output: Path) -> bool:
    """Whether an unreadable file is what an interrupted attempt of some tool left: empty, zeros, or a film cut short."""
    with output.open("rb") as file:
        head = file.read(64)
    return not any(head) or head.startswith(b"\x1aE\xdf\xa3") or head[4:8] == b"ftyp"


def _length(info: VideoInfo) -> Fraction | None:
    """Seconds of the video track, as the header states them; Matroska does so in a tag that counts from zero."""
    found = re.match(r"(\d+):(\d\d):(\d\d(?:\.\d+)?)", dict(info.video_tags).get("DURATION", ""))
    if found is None:
        return info.duration_estimate
    return 3600 * int(found[1]) + 60 * int(found[2]) + Fraction(found[3]) - max(info.start_time, Fraction(0))


def _chosen_length(info: VideoInfo, options: FilmOptions) -> Fraction | None:
    """Seconds between `--start` and `--end`."""
    length = _length(info)
    if length is None:
        return None
    return max((length if options.end is None else min(options.end, length)) - (options.start or 0), Fraction(0))
