"""A trial: one crop of a picture, or a moment of a video, by several models, one after the other."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from upframe import jobs
from upframe.api.pictures import Upscaler
from upframe.errors import UpframeError
from upframe.jobs.model_choice import network
from upframe.media.display import Picture
from upframe.media.frames import Pixels
from upframe.media.image.decoder import Limits
from upframe.media.image.viewing import as_8_bits, enlarged, read_first, write_view
from upframe.media.names import is_video_name
from upframe.metrics.blind import blockiness, noise_sigma
from upframe.service import wire
from upframe.service.child.desk import Desk
from upframe.service.child.planning import Request, job_options

CONTEXT_PX = 32
"""Pixels around the crop that networks see too, so that its rim looks as it will in the whole picture."""
NOISY, BLOCKY = 4.0, 1.25
"""Measures from which on an input counts as degraded: clean photos of the common test sets measure below 3.7 and 1.1."""

MEASURED_PX = 1536


@dataclass(frozen=True)
class _Trial:
    """A request for a trial."""

    request: Request
    models: tuple[str, ...]
    x: float
    y: float
    side: int
    time: Fraction
    clip_seconds: Fraction | None

    @classmethod
    def of(cls, data: Mapping[str, Any]) -> _Trial:
        seconds = data["clip_seconds"]
        return cls(
            Request.of(data),
            tuple(data["models"]),
            data["spot"]["x"],
            data["spot"]["y"],
            data["side"],
            Fraction(str(data["time"] or 0)),
            None if seconds is None else Fraction(str(seconds)),
        )

    @property
    def folder(self) -> Path:
        return self.request.outputs

    def options(self, model: str) -> wire.Options:
        return self.request.options.model_copy(update={"model": model})


def trial(data: Mapping[str, Any], desk: Desk) -> dict[str, Any]:
    """Make all results, and tell of each as it is ready. Answers with the error of the whole trial, if there is one."""
    wanted = _Trial.of(data)
    try:
        is_video = is_video_name(wanted.request.input)
        picture = _picture(wanted, is_video=is_video)
        _tell_facts(picture.pixels, desk, kind="video" if is_video else "photo")
        clips = is_video and wanted.clip_seconds is not None
        for result in _clips(wanted, desk) if clips else _pictures(wanted, picture, desk):
            desk.tell("result", result.model_dump())
    except UpframeError as error:
        return {"error": wanted.request.worded_error(error).model_dump()}
    return {}


def _picture(wanted: _Trial, *, is_video: bool) -> Picture:
    """The whole picture, or the frame at the wanted time."""
    path = wanted.request.input
    if not is_video:
        return read_first(path, limits=Limits(max_pixels=wanted.request.pixels))
    from upframe.media.video.viewing import frame_at

    return frame_at(path, wanted.time)


def _tell_facts(pixels: Pixels, desk: Desk, *, kind: wire.Kind) -> None:
    shown = as_8_bits(_middle(pixels))
    luma = shown[..., 1 if shown.shape[2] > 2 else 0]  # green carries most of it
    noise, blocks = noise_sigma(luma), blockiness(luma)
    signs = [f"noise of about {noise:.0f} of 255"] if noise > NOISY else []
    signs += ["blocks of compression"] if blocks > BLOCKY else []
    if signs:
        advice = f"The input shows {' and '.join(signs)}: a model for degraded inputs suits."
        suggested = "photo-real-x4"
    else:
        advice, suggested = "The input is clean: a model for clean inputs keeps most detail.", None
    scores = wire.Scores(noise=round(noise, 2), blockiness=round(blocks, 3), advice=advice, suggested=suggested)
    desk.tell("facts", {"kind": kind, "scores": scores.model_dump()})


def _middle(pixels: Pixels) -> Pixels:
    """The middle of a picture, as far as is needed to measure it."""
    height, width = pixels.shape[:2]
    top, left = max(height - MEASURED_PX, 0) // 2, max(width - MEASURED_PX, 0) // 2
    return pixels[top : top + MEASURED_PX, left : left + MEASURED_PX]


# Pictures -------------------------------------------------------------------------------------------------------------
def _pictures(wanted: _Trial, picture: Picture, desk: Desk) -> Iterator[wire.TrialResult]:
    whole = picture.pixels.shape[:2]
    crop, inner = _around(picture.pixels, wanted)
    yield _before(picture, crop, inner, wanted)
    for number, model in enumerate(wanted.models, start=1):
        if desk.cancel.is_set():
            return
        yield wire.TrialResult(model=model, state="running")
        out, began = wanted.folder / f"{number}.png", time.perf_counter()
        try:
            made = _enlarged(crop, inner, whole, model, wanted, desk)
        except UpframeError as error:
            yield wire.TrialResult(model=model, state="failed", error=wanted.request.worded_error(error))
            continue
        write_view(picture.shown(made), out, profile=picture.profile)
        yield _result(model, out, began, (made.shape[0], made.shape[1]))


def _before(picture: Picture, crop: Pixels, inner: tuple[int, int, int, int], wanted: _Trial) -> wire.TrialResult:
    """The input as a viewer would enlarge it, in the size of the first model's result."""
    began, (top, left, bottom, right) = time.perf_counter(), inner
    factor = _factor(wanted, wanted.models[0], picture.pixels.shape[:2]) if wanted.models else (1.0, 1.0)
    size = round(bottom * factor[0]) - round(top * factor[0]), round(right * factor[1]) - round(left * factor[1])
    out = wanted.folder / "0.png"
    write_view(enlarged(picture.shown(crop[top:bottom, left:right]), size), out, profile=picture.profile)
    return _result("before", out, began, size)


def _factor(wanted: _Trial, model: str, whole: tuple[int, ...]) -> tuple[float, float]:
    """By how much a job would enlarge the height and width of the whole."""
    target = job_options(wanted.options(model), device="auto", pixels=wanted.request.pixels).target
    made = target.size_for((whole[0], whole[1]), native=network(model).spec.scale)
    return made[0] / whole[0], made[1] / whole[1]


def _around(pixels: Pixels, wanted: _Trial) -> tuple[Pixels, tuple[int, int, int, int]]:
    """A crop with context, and top, left, bottom, right of what is wanted within it."""
    height, width = pixels.shape[:2]
    spans = []
    for place, full in ((wanted.y, height), (wanted.x, width)):
        side = min(wanted.side, full)
        start = min(max(round(place * full - side / 2), 0), full - side)
        low, high = max(start - CONTEXT_PX, 0), min(start + side + CONTEXT_PX, full)
        spans.append((low, high, start - low, start - low + side))
    (top, bottom, inner_top, inner_bottom), (left, right, inner_left, inner_right) = spans
    return np.ascontiguousarray(pixels[top:bottom, left:right]), (inner_top, inner_left, inner_bottom, inner_right)


def _enlarged(
    crop: Pixels, inner: tuple[int, int, int, int], whole: tuple[int, ...], model: str, wanted: _Trial, desk: Desk
) -> Pixels:
    options = job_options(wanted.options(model), device=desk.device, pixels=wanted.request.pixels)
    factor = _factor(wanted, model, whole)
    size = tuple(max(round(side * by), 1) for side, by in zip(crop.shape[:2], factor, strict=True))
    with Upscaler(network(model), options=options.upscale, cancel=desk.cancel) as up:
        made: Pixels = up(crop, size=(size[0], size[1]))
    top, left, bottom, right = (round(edge * by) for edge, by in zip(inner, (*factor, *factor), strict=True))
    return made[top:bottom, left:right]


def _result(model: str, out: Path, began: float, size: tuple[int, int]) -> wire.TrialResult:
    seconds = round(time.perf_counter() - began, 3)
    return wire.TrialResult(
        model=model, state="done", url=out.name, seconds=seconds, size=wire.Size(height=size[0], width=size[1])
    )


# Clips ----------------------------------------------------------------------------------------------------------------
def _clips(wanted: _Trial, desk: Desk) -> Iterator[wire.TrialResult]:
    """Cut a small clip without loss, and let each model make it as a job would."""
    from upframe.media.video.info import probe_video
    from upframe.media.video.viewing import even_box, write_browser_video, write_crop

    source = wanted.request.input
    info = probe_video(source)
    assert wanted.clip_seconds is not None
    cut = wanted.folder / "cut.mkv"
    box = even_box(info, wanted.x, wanted.y, wanted.side)
    write_crop(source, cut, box=box, start=wanted.time, end=wanted.time + wanted.clip_seconds)
    sizes = [_even_size(box, _factor(wanted, model, info.size)) for model in wanted.models]
    began = time.perf_counter()
    write_browser_video(cut, wanted.folder / "0.mp4", size=sizes[0] if sizes else None)
    yield _result("before", wanted.folder / "0.mp4", began, sizes[0] if sizes else box[2:])
    for number, (model, size) in enumerate(zip(wanted.models, sizes, strict=True), start=1):
        yield wire.TrialResult(model=model, state="running")
        out, began = wanted.folder / f"{number}.mp4", time.perf_counter()
        try:
            _render(cut, out, size, model, wanted, desk)
        except UpframeError as error:
            yield wire.TrialResult(model=model, state="failed", error=wanted.request.worded_error(error))
            continue
        yield _result(model, out, began, size)


def _even_size(box: tuple[int, int, int, int], factor: tuple[float, float]) -> tuple[int, int]:
    """The size of an enlarged crop; H.264 with 4:2:0 needs even ones."""
    height, width = (max(round(side * by / 2) * 2, 2) for side, by in zip(box[2:], factor, strict=True))
    return height, width


def _render(cut: Path, out: Path, size: tuple[int, int], model: str, wanted: _Trial, desk: Desk) -> None:
    """Make the clip as a job would, without loss, and have that shown as a job's output is."""
    from upframe.media.video.viewing import write_browser_video

    options = job_options(wanted.options(model), device=desk.device, pixels=wanted.request.pixels)
    video = jobs.VideoOptions(codec="ffv1", deinterlace=options.video.deinterlace, cleaning=options.video.cleaning)
    target = jobs.Target(height=size[0], width=size[1])
    made = replace(options, target=target, video=video, name=None, format=None, strict=False)
    whole = out.with_suffix(".mkv")
    report = jobs.run(jobs.plan([cut], whole, made), cancel=desk.cancel)
    if report.error is not None:
        raise report.error
    write_browser_video(whole, out, cancel=desk.cancel)
    whole.unlink()
