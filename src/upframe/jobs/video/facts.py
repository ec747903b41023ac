"""The facts that decide the output's bytes, in words. A run can resume an interrupted one only if these facts agree."""

from __future__ import annotations

import hashlib
from dataclasses import fields
from fractions import Fraction

from upframe.errors import number_text
from upframe.jobs.options import VideoOptions
from upframe.jobs.video.plan import Video
from upframe.jobs.video.segment import VideoTask
from upframe.jobs.video.workspace import OPTIONS, Fact, Facts
from upframe.media.video.files import VideoPlan
from upframe.models.spec import Cleaning
from upframe.upscaling.options import TileSize, UpscaleOptions
from upframe.version import __version__

_PIXELS_UNCHANGED = ("restart", "segment_frames", "context", "allow_truncated", "cleaning")
"""Video options that change no pixel, or that other facts cover."""


def job_facts(video: Video, task: VideoTask, chosen: range) -> Facts:
    """List the facts that decide the output's bytes, causes before effects."""
    geometry = task.geometry
    return {
        "source": {"input": Fact(task.index, str(task.input.name))},
        "model": {"model": Fact(task.model_sha256, task.model)},
        OPTIONS: _option_facts(task.upscale, task.options),
        "result": {"size": Fact(_size_text(task.size)), "frames": Fact(f"{chosen.start} to {chosen.stop - 1}")},
        "machine": {
            "engine": Fact(geometry.engine),
            "precision": Fact(geometry.precision),
            "device": Fact(geometry.device),
            "version": Fact(__version__),
        },
        "geometry": {
            "tile": Fact(_tile_text(geometry.tile)),
            "halo": Fact(str(geometry.halo_px)),
            "window": Fact(_number(geometry.window)),
            "longest segment": Fact(str(geometry.longest)),
            "context": Fact(str(geometry.context)),
        },
        "encoding": _plan_facts(video.plan),
    }


def _option_facts(upscale: UpscaleOptions, options: VideoOptions) -> dict[str, Fact]:
    facts = {
        "tile": Fact(_tile_text(upscale.tile)),
        "halo": Fact(_number(upscale.halo)),
        "blend": Fact(str(upscale.blend)),
        "window": Fact(_number(upscale.window)),
        "sigma": Fact(_number(upscale.sigma)),
        "as_published": Fact(str(upscale.as_published)),
        "video.segment_frames": Fact(_number(options.segment_frames)),
        "video.context": Fact(_number(options.context)),
    }
    for field in fields(options):
        if field.name not in _PIXELS_UNCHANGED:
            facts[f"video.{field.name}"] = Fact(_value_text(getattr(options, field.name)))
    cleaning = options.cleaning
    facts["video.cleaning"] = Fact("the default" if cleaning is None else ", ".join(_cleaning_words(cleaning)))
    return facts


def _plan_facts(plan: VideoPlan | None) -> dict[str, Fact]:
    """List how frames are encoded and joined. Most of these facts follow from options, the rest from the input."""
    if plan is None:
        return {"output": Fact("a folder of frames")}
    facts = {
        "container": Fact(plan.container),
        "codec": Fact(plan.codec),
        "pixel format": Fact(plan.pix_fmt),
        "encoded size": Fact(_size_text(plan.coded_size)),
        "encoder settings": Fact(" ".join(f"{key}={value}" for key, value in plan.options)),
    }
    for field in fields(plan):
        if field.name not in ("container", "codec", "pix_fmt", "size", "coded_size", "options", "notices", "ledger"):
            identity = hashlib.sha256(repr(getattr(plan, field.name)).encode()).hexdigest()
            facts[field.name.replace("_", " ")] = Fact(identity, "as planned")
    return facts


def _value_text(value: object) -> str:
    if value is None:
        return "the default"
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, Fraction):
        return number_text(value)
    if isinstance(value, tuple):
        return " ".join(f"{key}={word}" for key, word in value) or "nothing"
    return str(value)


def _cleaning_words(cleaning: Cleaning) -> list[str]:
    return [f"{field.name.replace('_', ' ')} {getattr(cleaning, field.name)}" for field in fields(cleaning)]


def _number(value: float | None) -> str:
    return "the default" if value is None else f"{value:g}"


def _size_text(size: tuple[int, int]) -> str:
    """Format (height, width) as WIDTHxHEIGHT."""
    return f"{size[1]}x{size[0]}"


def _tile_text(tile: TileSize) -> str:
    return tile if isinstance(tile, str) else _size_text((tile, tile) if isinstance(tile, int) else tile)
