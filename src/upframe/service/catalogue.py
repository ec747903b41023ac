"""The choices that a page or program has: models, presets, formats."""

from __future__ import annotations

from functools import cache
from typing import get_args

from upframe.media.image.formats import FORMATS
from upframe.media.names import CODEC_NAMES, CONTAINER_NAMES, VIDEO_SUFFIXES, is_video_name
from upframe.models.registry import default_model, list_models
from upframe.service import wire
from upframe.service.sources import Found

_SENTENCES = {
    "photos": "For clean photos and drawings",
    "drawings": "For anime, comics and other drawings",
    "degraded photos": "For photos with noise, blur or JPEG blocks",
    "videos": "For clean videos; it looks at many frames at once",
    "degraded videos": "For videos with noise, blur or compression; it looks at many frames at once",
    "restoration": "Keeps the size and restores the picture",
}


@cache
def models() -> list[wire.Model]:
    """All models, those that are ready first."""
    made = []
    for entry in list_models():
        size = f"{entry.params / 1e6:.1f} million" if entry.params >= 1e6 else f"{entry.params / 1e3:.0f} thousand"
        made.append(
            wire.Model(
                name=entry.name,
                scale=entry.scale,
                kind="video" if entry.takes_clips else "photo",
                task=entry.task,
                for_degraded="degraded" in entry.purpose,
                for_drawings=entry.purpose == "drawings",
                sentence=f"{_SENTENCES[entry.purpose]}; ×{entry.scale}, {size} parameters.",
                licence=entry.licence,
                paper=entry.paper,
                parameters=entry.params,
                ready=entry.weights is not None,
                default=entry.shipped and entry.name in {default_model(scale) for scale in (2, 3, 4)},
            )
        )
    return sorted(made, key=lambda model: not model.ready)


@cache
def choices() -> wire.Choices:
    """Values that forms offer."""
    engines = get_args(wire.Options.model_fields["engine"].annotation)
    pictures = [suffix for known in FORMATS.values() for suffix in known.extensions]
    return wire.Choices(
        picture_formats=[known.name for known in FORMATS.values() if known.writable],
        video_formats=list(CONTAINER_NAMES),
        codecs=list(CODEC_NAMES),
        engines=list(engines),
        extensions=sorted({*pictures, *VIDEO_SUFFIXES}),
    )


@cache
def presets() -> list[wire.Preset]:
    """Options for common inputs, as far as their models are here."""
    ready = {model.name for model in models() if model.ready}
    known = [
        wire.Preset(id="photo", kind="photo", sentence="A clean photo or drawing", options=wire.Options()),
        wire.Preset(
            id="old-photo",
            kind="photo",
            sentence="A photo with noise, blur or JPEG blocks",
            options=wire.Options(model="photo-real-x4"),
        ),
        wire.Preset(id="video", kind="video", sentence="A video, frame by frame: fast", options=wire.Options()),
        wire.Preset(
            id="clean-video",
            kind="video",
            sentence="A clean video, many frames at once: slow, and calmer from frame to frame",
            options=wire.Options(model="video-x4"),
        ),
        wire.Preset(
            id="old-video",
            kind="video",
            sentence="An old or strongly compressed video, many frames at once: slow",
            options=wire.Options(model="video-real-x4"),
        ),
    ]
    return [preset for preset in known + _for_drawings() if preset.options.model is None or preset.options.model in ready]


def _for_drawings() -> list[wire.Preset]:
    """Presets for drawings, if a suitable model is here: the one with the largest scale, which reaches every size."""
    suitable = [model for model in models() if model.ready and model.for_drawings]
    if not suitable:
        return []
    options = wire.Options(model=max(suitable, key=lambda model: model.scale).name)
    return [
        wire.Preset(id="drawings", kind="photo", sentence="Anime or another drawing", options=options),
        wire.Preset(id="drawn-video", kind="video", sentence="Anime or another drawn video, frame by frame", options=options),
    ]


def suitable(found: Found, options: wire.Options, *, clip: bool) -> list[str]:
    """Names of the models to try on an input: those that are ready, for its kind and size."""
    scale = 4 if options.scale is None else next((scale for scale in (2, 3) if options.scale <= scale), 4)
    takes_clips = clip and is_video_name(found.path)
    return [
        model.name
        for model in models()
        if model.ready
        and model.task == "upscale"
        and (model.kind == "photo" or takes_clips)
        and (model.scale == scale or model.for_degraded)
    ]
