"""Choose tiles and segments of a video for the free memory: predicted for a plan, fixed for all segments of a job."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from upframe.errors import OptionError
from upframe.jobs import model_choice
from upframe.jobs.items import Estimate, VideoFacts
from upframe.jobs.options import VideoOptions
from upframe.jobs.video.plan import Video, estimated_file_bytes, frames_taken
from upframe.machine import process_bytes
from upframe.models.registry import Model
from upframe.models.spec import Cleaning, Precision
from upframe.upscaling import memory
from upframe.upscaling.clips import ClipUpscaler
from upframe.upscaling.images import Upscaler
from upframe.upscaling.options import TileSize, UpscaleOptions, least_tile_px

SEGMENT_PX = 10_000_000  # input pixels of a segment of a frame-wise network: some 20 s of work on two cores
MOST_SEGMENT_FRAMES, LEAST_SEGMENT_FRAMES = 240, 24  # a segment begins with a key frame, and these cost room
ENCODER_FRAMES = 16  # frames that an encoder holds: references, frames waiting to be reordered, frames of its threads
FRAMES_AHEAD = 3  # frames that are decoded and wait for the network, or wait for the encoder


def check_cleaning(model: Model, options: VideoOptions) -> None:
    """Refuse cleaning options for a network that does not clean.

    Raises:
        OptionError: naming the network.
    """
    if options.cleaning is not None and model.spec.preparation is None:
        raise OptionError("video.cleaning", options.cleaning, f"{model.name} does not clean", "remove this option")


def single_upscaler(model: Model, upscale: UpscaleOptions, options: VideoOptions) -> Upscaler:
    """Make the upscaler of a network that takes single frames; it copies unchanged tiles from the previous frame.

    Raises:
        OptionError: for options that only video networks take.
    """
    check_cleaning(model, options)
    return Upscaler(model, upscale, engine=model_choice.engine(model, upscale.engine), reuse=True)


def clip_upscaler(model: Model, upscale: UpscaleOptions, options: VideoOptions) -> ClipUpscaler:
    """Make the upscaler of a video network."""
    engine = model_choice.clip_engine(model, upscale.engine)
    return ClipUpscaler(model, upscale, cleaning=options.cleaning, engine=engine)


def segment_frames(size: tuple[int, int]) -> int:
    """Longest segment of frames of `size` for a frame-wise network. A stopped run loses the work on one segment.

    It follows from the size and not from the speed of this machine, so that every machine makes the same file.
    """
    return min(max(SEGMENT_PX // (size[0] * size[1]), LEAST_SEGMENT_FRAMES), MOST_SEGMENT_FRAMES)


# Fixed for a job ------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Geometry:
    """Choices that are the same for every segment of a video, in every run and process."""

    tile: TileSize
    """Core of the tiles: "off" or (height, width)."""
    window: int | None
    """Number of frames that a network with temporal windows takes at once."""
    longest: int
    """Number of frames of the longest segment."""
    context: int
    """Frames of context on each side where a shot is divided."""
    halo_px: int
    engine: str
    """The engine that runs the network, a name of `engines.ENGINES`."""
    precision: Precision
    device: str

    def applied(self, upscale: UpscaleOptions) -> UpscaleOptions:
        return replace(upscale, tile=self.tile, window=self.window)


def fix_geometry(
    video: Video, model: Model, upscale: UpscaleOptions, options: VideoOptions, earlier: Mapping[str, Any]
) -> Geometry:
    """Choose tiles and segments, once for all runs.

    Args:
        earlier: `recorded_geometry` of an interrupted run, or empty. Choices that depend on free memory are copied from it;
            otherwise its segments and those of this run would not fit together.

    Raises:
        UsageError: for options that the model does not support.
        ResourceError: if this machine does not have the device.
    """
    asked = earlier.get("asked", {})
    is_tile_known = upscale.tile == "auto" and asked.get("tile") == "auto" and isinstance(earlier["tile"], list)
    tile = tuple(earlier["tile"]) if is_tile_known else None
    longest = options.segment_frames
    if longest is None and asked.get("longest", 0) is None:
        longest = int(earlier["longest"])
    size, window, context = video.info.size, upscale.window, 0
    if model.spec.window is None:
        single = single_upscaler(model, upscale, options)
        core: TileSize = "off" if upscale.tile == "off" else tile or single.tile_px(size)
        longest = longest or segment_frames(size)
        up: Upscaler | ClipUpscaler = single
    else:
        clip = clip_upscaler(model, upscale, options)
        if window is None and asked.get("window", 0) is None:
            window = earlier["window"]
        window = window or clip.window_frames(size)
        clip.options = replace(upscale, window=window)
        # A network with temporal windows takes a fixed number of frames at once, for segments of any length.
        longest = clip.segment_frames(size) if model.spec.window.frames else longest or clip.segment_frames(size)
        context = model.spec.window.overlap if options.context is None else options.context
        core = tile or clip.choice(size, longest + 2 * context).tile
        up = clip
    return Geometry(
        tile=_stated(core, upscale.blend),
        window=window,
        longest=longest,
        context=context,
        halo_px=up.halo_px,
        engine=up.engine.name,
        precision=up.engine.precision,
        device=up.engine.processor,
    )


def recorded_geometry(geometry: Geometry, upscale: UpscaleOptions, options: VideoOptions) -> dict[str, Any]:
    """Record a geometry and the user's options for `fix_geometry` of a later run, JSON-ready."""
    asked = {
        "tile": upscale.tile if isinstance(upscale.tile, str) else "stated",
        "longest": options.segment_frames,
        "window": upscale.window,
    }
    tile = geometry.tile if isinstance(geometry.tile, str | int) else list(geometry.tile)
    return {"tile": tile, "window": geometry.window, "longest": geometry.longest, "asked": asked}


def is_recorded_geometry(value: object) -> bool:
    """Whether a value has the form that `recorded_geometry` gives: somebody may have edited the file it came from."""
    if not isinstance(value, Mapping) or not isinstance(value.get("asked"), Mapping):
        return False
    tile = value.get("tile")
    is_tile = tile in ("auto", "off") if isinstance(tile, str) else _are_counts(tile if isinstance(tile, list) else [tile])
    window = value.get("window")
    return is_tile and (window is None or _are_counts([window])) and _are_counts([value.get("longest")])


def _are_counts(numbers: list[object]) -> bool:
    return 1 <= len(numbers) <= 2 and all(type(n) is int and 0 < n < 1 << 31 for n in numbers)


def _stated(tile: TileSize, blend: int) -> TileSize:
    """Raise sides of `tile` to the smallest that options accept. Tiles stay the same: such a side spans the picture."""
    if isinstance(tile, str):
        return tile
    least = least_tile_px(blend)
    height, width = (tile, tile) if isinstance(tile, int) else tile
    return max(height, least), max(width, least)


# Predicted for a plan -------------------------------------------------------------------------------------------------
def estimate(video: Video, model: Model, upscale: UpscaleOptions, options: VideoOptions) -> Estimate:
    """Predict how a video will be rendered with the memory that is free now."""
    if model.spec.window is not None:
        return _estimate_clips(video, model, upscale, options)
    height, width = video.info.size
    single = Upscaler(model, upscale, engine=model_choice.engine(model, upscale.engine))
    core = single.tile_px(video.info.size)
    in_flight = (2 * FRAMES_AHEAD + 2) * 6 * (height * width + video.size[0] * video.size[1])
    kept = 12 * model.spec.scale**2 * height * width  # tiles of the last frame, in float32
    memory_bytes = process_bytes() + in_flight + single.memory_bytes(video.info.size, video.size) + kept
    return _estimate(video, options, single, core, None, memory_bytes)


def _estimate_clips(video: Video, model: Model, upscale: UpscaleOptions, options: VideoOptions) -> Estimate:
    """Predict the memory of a video network: the process, the network, a full segment and its frames."""
    spec, size = model.spec, video.info.size
    assert spec.window is not None
    clip = clip_upscaler(model, upscale, options)
    clip.options = replace(upscale, window=upscale.window or clip.window_frames(size))
    longest = options.segment_frames if options.segment_frames and not spec.window.frames else clip.segment_frames(size)
    context = spec.window.overlap if options.context is None else options.context
    frames = min(longest + 2 * context, frames_taken(video, options) or sys.maxsize)  # if no header states it, the worst case
    choice = clip.choice(size, frames)
    cleaning = options.cleaning or spec.preparation
    peak = process_bytes()
    peak += memory.frames_bytes(
        spec, size, frames, choice.memory_bytes, passes=0 if cleaning is None or not cleaning.strength else _passes(cleaning)
    )
    peak += memory.finishing_bytes(
        (size[0] * spec.scale, size[1] * spec.scale),
        video.size,
        queued=FRAMES_AHEAD,
        encoder_frames=0 if video.plan is None else min(ENCODER_FRAMES, frames),
    )
    return _estimate(video, options, clip, choice.tile, min(choice.window, frames), peak)


def _estimate(
    video: Video,
    options: VideoOptions,
    up: Upscaler | ClipUpscaler,
    tile: tuple[int, int],
    window: int | None,
    memory_bytes: int,
) -> Estimate:
    plan, frames = video.plan, frames_taken(video, options) or 1
    rate = model_choice.seconds_per_px(up) if isinstance(up, Upscaler) else None
    height, width = video.info.size
    return Estimate(
        input_size=(height, width),
        format="png" if plan is None else f"{plan.container}, {plan.codec} {plan.pix_fmt}",
        frames=frames,
        engine=up.engine.name,
        precision=up.engine.precision,
        tile=tile,
        window=window,
        memory_bytes=memory_bytes,
        file_bytes=estimated_file_bytes(video, options),
        seconds=None if rate is None else rate * height * width * frames,
        video=_facts(video, options),
    )


def _facts(video: Video, options: VideoOptions) -> VideoFacts:
    info, frames = video.info, frames_taken(video, options)
    kept = {track.index for track in video.plan.tracks} if video.plan is not None else set()
    copied = [stream for stream in info.streams if stream.index in kept]
    return VideoFacts(
        seconds=None if frames is None else round(float(frames / info.rate), 3),
        rate=round(float(info.rate), 4),
        audio=tuple(stream.codec for stream in copied if stream.kind == "audio"),
        subtitles=sum(stream.kind == "subtitle" for stream in copied),
        interlaced=info.is_interlaced,
    )


def _passes(cleaning: Cleaning) -> int:
    """Likely maximum of cleaning passes: with a threshold above the largest possible change of pixels, one pass."""
    return min(cleaning.max_passes, 1) if cleaning.threshold >= 255 else cleaning.max_passes
