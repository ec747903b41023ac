"""How a video is cut and computed in the memory there is: predicted for a plan, and fixed for all segments of a job."""

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

SEGMENT_FRAMES = 240  # of a frame-wise network: what is lost in a crash is at most that
ENCODER_FRAMES = 16  # that an encoder holds: references, frames that wait to be ordered, its threads' own
FRAMES_AHEAD = 3  # decoded before, and waiting to be encoded after, the network


def single_upscaler(model: Model, upscale: UpscaleOptions, options: VideoOptions) -> Upscaler:
    """The upscaler of a network that takes single frames; unchanged tiles are copied from the frame before.

    Raises:
        OptionError: for options that only networks for clips take.
    """
    if options.cleaning is not None:
        raise OptionError("video.cleaning", options.cleaning, f"{model.name} does not clean", "leave it out")
    return Upscaler(model, upscale, engine=model_choice.engine(model, upscale.engine), reuse=True)


def clip_upscaler(model: Model, upscale: UpscaleOptions, options: VideoOptions) -> ClipUpscaler:
    """The upscaler of a network for clips."""
    engine = model_choice.clip_engine(model, upscale.engine)
    return ClipUpscaler(model, upscale, cleaning=options.cleaning, engine=engine)


# Fixed for a job ------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Geometry:
    """All that is the same for every segment of a video, in whichever run and process it is rendered."""

    tile: TileSize
    """Core of the tiles: "off" or (height, width)."""
    window: int | None
    """Frames that a network with windows in time takes at once."""
    longest: int
    """Frames of the longest segment."""
    context: int
    """Frames of context where a shot is divided."""
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
        earlier: `recorded_geometry` of an interrupted run, or empty. What follows from the memory of the moment is taken
            from it, or its segments and those of this run would not fit together.

    Raises:
        UsageError: for options that the model does not take.
        ResourceError: for a device that is not there.
    """
    asked = earlier.get("asked", {})
    tile = tuple(earlier["tile"]) if upscale.tile == "auto" and asked.get("tile") == "auto" else None
    longest = options.segment_frames
    if longest is None and asked.get("longest", 0) is None:
        longest = int(earlier["longest"])
    size, window, context = video.info.size, upscale.window, 0
    if model.spec.window is None:
        single = single_upscaler(model, upscale, options)
        core: TileSize = "off" if upscale.tile == "off" else tile or single.tile_px(size)
        longest = longest or SEGMENT_FRAMES
        up: Upscaler | ClipUpscaler = single
    else:
        clip = clip_upscaler(model, upscale, options)
        if window is None and asked.get("window", 0) is None:
            window = earlier["window"]
        window = window or clip.window_frames(size)
        clip.options = replace(upscale, window=window)
        # A network with windows in time takes as many frames at once as it is told, whatever the segments.
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
        device=up.engine.device.type,
    )


def recorded_geometry(geometry: Geometry, upscale: UpscaleOptions, options: VideoOptions) -> dict[str, Any]:
    """A geometry for `fix_geometry` of a later run, JSON-ready, with what the user asked for."""
    asked = {
        "tile": upscale.tile if isinstance(upscale.tile, str) else "stated",
        "longest": options.segment_frames,
        "window": upscale.window,
    }
    tile = geometry.tile if isinstance(geometry.tile, str | int) else list(geometry.tile)
    return {"tile": tile, "window": geometry.window, "longest": geometry.longest, "asked": asked}


def _stated(tile: TileSize, blend: int) -> TileSize:
    """A core as options take it: a side of a picture smaller than the least tile becomes that, which cuts no differently."""
    if isinstance(tile, str):
        return tile
    least = least_tile_px(blend)
    height, width = (tile, tile) if isinstance(tile, int) else tile
    return max(height, least), max(width, least)


# Predicted for a plan -------------------------------------------------------------------------------------------------
def estimate(video: Video, model: Model, upscale: UpscaleOptions, options: VideoOptions) -> Estimate:
    """How a video is going to be rendered in the memory there is now."""
    if model.spec.window is not None:
        return _estimate_clips(video, model, upscale, options)
    height, width = video.info.size
    single = Upscaler(model, upscale, engine=model_choice.engine(model, upscale.engine))
    core = single.tile_px(video.info.size)
    in_flight = (2 * FRAMES_AHEAD + 2) * 6 * (height * width + video.size[0] * video.size[1])
    around = 2 * (single.halo_px + upscale.blend)
    tile_px = min(core[0] + around, height) * min(core[1] + around, width)
    kept = 12 * model.spec.scale**2 * height * width  # tiles of the last frame, in float32
    memory_bytes = in_flight + tile_px * model.spec.activation_bytes_per_px + kept
    return _estimate(video, options, single, core, None, memory_bytes)


def _estimate_clips(video: Video, model: Model, upscale: UpscaleOptions, options: VideoOptions) -> Estimate:
    """Of a network for clips: what the process holds, with the network, and what a full segment and its frames add."""
    spec, size = model.spec, video.info.size
    assert spec.window is not None
    clip = clip_upscaler(model, upscale, options)
    clip.options = replace(upscale, window=upscale.window or clip.window_frames(size))
    longest = options.segment_frames if options.segment_frames and not spec.window.frames else clip.segment_frames(size)
    context = spec.window.overlap if options.context is None else options.context
    frames = min(longest + 2 * context, frames_taken(video, options) or sys.maxsize)  # where no header says, the worst
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
    plan = video.plan
    return Estimate(
        input_size=video.info.size,
        format="png" if plan is None else f"{plan.container}, {plan.codec} {plan.pix_fmt}",
        frames=frames_taken(video, options) or 1,
        engine=up.engine.name,
        precision=up.engine.precision,
        tile=tile,
        window=window,
        memory_bytes=memory_bytes,
        file_bytes=estimated_file_bytes(video, options),
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
    """Most passes that are likely: above the largest change that pixels can make, the first is the last."""
    return min(cleaning.max_passes, 1) if cleaning.threshold >= 255 else cleaning.max_passes
