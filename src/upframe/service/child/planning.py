"""From the options of a request to upframe's, and from a plan to its answer."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

from upframe import jobs
from upframe.errors import InputError, OptionError, OutputError, UpframeError
from upframe.files import amount
from upframe.service import wire
from upframe.service.child.desk import Desk
from upframe.service.storage import plain_name

STEM = "input"
TEMPLATE = "{stem}_{model}_x{scale}"
"""Names of outputs; `Request.shown_name` puts the user's name in place of the stem."""


@dataclass(frozen=True)
class Request:
    """An input, where its output goes, and the bounds that the server sets."""

    input: Path
    name: str
    """Of the input, as the user calls it."""
    outputs: Path
    options: wire.Options
    pixels: int
    output_pixels: int
    video_seconds: float
    room_bytes: int | None
    """Bytes that all files in `outputs` may have; None is the disk's limit."""

    @classmethod
    def of(cls, data: Mapping[str, Any]) -> Request:
        return cls(
            Path(data["input"]),
            data["name"],
            Path(data["outputs"]),
            wire.Options.model_validate(data["options"]),
            data["pixels"],
            data["output_pixels"],
            data["video_seconds"],
            data["room_bytes"],
        )

    def shown_name(self, output: Path) -> str:
        """Name of the output for the user."""
        made = output.name
        own = self.input.stem if self.input.suffix else self.input.name
        rest = made.removeprefix(own)
        return plain_name(f"{Path(self.name).stem if Path(self.name).suffix else self.name}{rest}")

    def worded(self, text: str) -> str:
        """A message with the user's names in place of paths on the server's disk."""
        for path, name in ((self.outputs, "output"), (self.input, self.name), (self.input.parent, "")):
            text = text.replace(str(path), name)
        return text

    def worded_error(self, error: UpframeError) -> wire.Error:
        """An answer with the user's names."""
        from upframe.service.problems import wire_error

        made = wire_error(error)
        texts = {field: self.worded(getattr(made, field)) for field in ("error", "subject", "happened", "advice")}
        return made.model_copy(update=texts)


def job_options(options: wire.Options, *, device: str, pixels: int) -> jobs.JobOptions:
    """The options of a job.

    Raises:
        OptionError: naming the field that does not fit.
    """
    given = options.video
    cleaning = None if given.cleaning is None else jobs.Cleaning(**given.cleaning.model_dump(exclude_none=True))
    video = jobs.VideoOptions(
        codec=given.codec,
        crf=given.crf,
        preset=given.preset,
        encoder=tuple(given.encoder.items()),
        pix_fmt=given.pix_fmt,
        odd=given.odd,
        audio=given.audio,
        subtitles=given.subtitles,
        start=_seconds("video.start", given.start),
        end=_seconds("video.end", given.end),
        stream=given.stream,
        deinterlace=given.deinterlace,
        on_bad_frame=given.on_bad_frame,
        allow_truncated=options.allow_truncated,
        segment_frames=given.segment_frames,
        context=given.context,
        cleaning=cleaning,
    )
    engine = jobs.engine_options(options.engine, device=device, precision=options.precision, threads=options.threads)
    stated = {name: value for name in ("halo", "blend") if (value := getattr(options, name)) is not None}
    upscale = jobs.UpscaleOptions(
        tile=options.tile,
        engine=engine,
        window=options.window,
        sigma=options.sigma,
        as_published=options.as_published,
        **stated,
    )
    target = jobs.Target(
        options.scale, options.width, options.height, options.long_side, options.short_side, options.megapixels
    )
    return jobs.JobOptions(
        model=options.model,
        task=options.task,
        target=target,
        upscale=upscale,
        format=options.format,
        quality=options.quality,
        name=TEMPLATE,
        strict=options.strict,
        allow_truncated=options.allow_truncated,
        first_frame=options.first_frame,
        limits=jobs.Limits(max_pixels=pixels),
        video=video,
    )


def _seconds(option: str, value: float | None) -> Fraction | None:
    if value is None:
        return None
    if not math.isfinite(value):
        raise OptionError(option, value, "must be 0 seconds or more")
    return Fraction(str(value))


def plan_input(request: Request, desk: Desk) -> jobs.Plan:
    """Plan one input, and refuse what is beyond the server's bounds.

    Raises:
        UpframeError: if it cannot be made.
    """
    options = job_options(request.options, device=desk.device, pixels=request.pixels)
    planned = jobs.plan([request.input], request.outputs, options)
    if planned.failed:
        assert planned.failed[0].error is not None
        raise planned.failed[0].error
    height, width = planned.items[0].size
    if height * width > request.output_pixels:
        happened = f"the output would have {height * width:,} pixels, and this service makes {request.output_pixels:,} at most"
        raise InputError(request.name, happened, "choose a smaller size")
    return planned


def plan(data: Mapping[str, Any], desk: Desk) -> dict[str, Any]:
    """Answer with a `wire.Plan`, or an error in the user's words."""
    request = Request.of(data)
    try:
        planned = plan_input(request, desk)
        made = described(planned, request)
        check_quota(made, request)
    except UpframeError as error:
        return {"error": request.worded_error(error).model_dump()}
    return {"plan": made.model_dump()}


def check_quota(made: wire.Plan, request: Request) -> None:
    """Refuse an output for which the server has no room now.

    Raises:
        OutputError: with both amounts.
    """
    if request.room_bytes is not None and made.file_bytes > request.room_bytes:
        happened = f"about {amount(made.file_bytes)} are needed and {amount(request.room_bytes)} may be used"
        raise OutputError(request.name, happened, "delete jobs that are done, or raise --quota")


def described(planned: jobs.Plan, request: Request) -> wire.Plan:
    """The plan of one input.

    Raises:
        InputError: if it is too long.
    """
    item = planned.items[0]
    estimate = planned.estimate(item)
    video = estimate.video
    if video is not None and (video.seconds or 0) > request.video_seconds:
        happened = f"is {video.seconds:,.0f} s long, and this service takes {request.video_seconds:,.0f} s at most"
        raise InputError(request.name, happened, "choose a part with `video.start` and `video.end`")
    return wire.Plan(
        name=request.name,
        output_name=request.shown_name(item.output),
        kind="photo" if video is None else "video",
        model=item.model,
        input_size=_size(estimate.input_size),
        size=_size(item.size),
        format=estimate.format,
        frames=estimate.frames,
        engine=estimate.engine,
        precision=estimate.precision,
        tile=_size(estimate.tile),
        window=estimate.window,
        memory_bytes=estimate.memory_bytes,
        file_bytes=estimate.file_bytes,
        seconds=estimate.seconds,
        video=None
        if video is None
        else wire.VideoFacts(
            seconds=video.seconds,
            rate=video.rate,
            audio=list(video.audio),
            subtitles=video.subtitles,
            interlaced=video.interlaced,
        ),
        notices=[wire.Notice(id=notice.id, message=request.worded(notice.message)) for notice in item.notices],
        ledger=ledger_of(item.ledger.rows()),
    )


def ledger_of(rows: list[dict[str, str]]) -> list[wire.LedgerEntry]:
    return [wire.LedgerEntry.model_validate(row) for row in rows]


def _size(height_width: tuple[int, int]) -> wire.Size:
    return wire.Size(height=height_width[0], width=height_width[1])
