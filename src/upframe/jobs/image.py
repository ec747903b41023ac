"""One picture of a job. An animation, and a document with pages, is one picture."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from upframe.errors import Cancelled, InputError, Notice, UpframeError, UsageError
from upframe.files import check_room
from upframe.jobs import model_choice
from upframe.jobs.events import Event, notice_event
from upframe.jobs.items import Estimate, Made, MadeMeanwhileError, Work, is_done, is_taken, made_folder, something_else
from upframe.jobs.model_choice import ModelChoice
from upframe.jobs.naming import Found, Namer
from upframe.jobs.options import JobOptions
from upframe.machine import process_bytes
from upframe.media.frames import MediaInfo
from upframe.media.image.encoders import held_bytes
from upframe.media.image.files import (
    ImageSink,
    ImageSource,
    Limits,
    OutputPlan,
    check_output_size,
    plan_output,
    probe,
    verify_output,
)
from upframe.media.image.formats import sniff
from upframe.media.ledger import EMPTY, Ledger
from upframe.upscaling.images import Upscaler
from upframe.upscaling.options import UpscaleOptions

_NO_LIMIT = Limits(max_pixels=2**62)  # for results, of which only the header is read
_FILE_SHARE = {"png": 0.8, "tiff": 0.9, "bmp": 1.0, "gif": 0.5}  # of the raw pixels, on the high side for photographs
_LOSSY_SHARE = 0.25


@dataclass(frozen=True)
class ImageItem:
    """An `Item`: one picture and its plan."""

    input: Path
    output: Path
    info: MediaInfo
    plan: OutputPlan
    size: tuple[int, int]
    """(height, width) of the output."""
    model: str
    """Name or path of the model."""
    model_sha256: str
    native: int
    """Enlargement if the target states none."""
    notices: tuple[Notice, ...]
    skip: bool = False
    """Whether the output already exists and is verified."""
    replaces: bool = False
    """Whether the output may replace a file that has its name."""
    ledger: Ledger = EMPTY
    is_unit = True

    @property
    def frames(self) -> int:
        return self.info.frames

    def estimate(self, options: JobOptions) -> Estimate:
        up = self._upscaler(options.upscale)
        rate = model_choice.seconds_per_px(up)
        height, width = self.info.size
        return Estimate(
            input_size=self.info.size,
            format=self.plan.format,
            frames=self.frames,
            engine=up.engine.name,
            precision=up.engine.precision,
            tile=up.tile_px(self.info.size),
            window=None,
            memory_bytes=estimated_memory_bytes(self, up),
            file_bytes=estimated_file_bytes(self),
            seconds=None if rate is None else rate * height * width * self.frames,
        )

    def is_done(self, options: JobOptions) -> bool:
        return is_done(self.output, self.input, self._look, begins_like=lambda head: sniff(head) == self.plan.format)

    def render(self, options: JobOptions, work: Work) -> Made:
        check_room(self.output, estimated_file_bytes(self))
        up = self._upscaler(options.upscale)
        up.cancel = work.cancel
        with open_image(self.input, options) as source, made_folder(self.output.parent):
            if source.info != self.info:
                raise InputError(self.input, "changed while reading (since it was planned)", "run it again")
            sink = ImageSink(
                self.output,
                self.plan,
                source.metadata,
                frames=self.frames,
                animated=self.info.animated,
                quality=options.quality,
            )
            with sink:  # from here on no other run writes this output
                if not self.replaces and self.output.exists():
                    raise MadeMeanwhileError
                for number, frame in enumerate(source):
                    up.on_tile = partial(self._tell_progress, work, number)
                    # Pages of a document may differ in size; the target is applied to each.
                    height, width = frame.pixels.shape[:2]
                    size = options.target.size_for((height, width), native=self.native)
                    bands = up.bands(frame.pixels, size=size, dtype=self.plan.dtype, subject=str(self.input))
                    sink.write(bands, size, time=frame.time, duration=frame.duration)
                if work.cancel is not None and work.cancel.is_set():  # an encoder of whole frames is not interrupted
                    raise Cancelled(self.input, "stopped on request")
                late = tuple(n for n in (*source.notices, *up.notices) if n not in self.notices)
                for notice in late:
                    work.tell(notice_event(self.input, notice))
                    if options.strict:
                        raise notice.as_error()
        return Made(up.engine.name, up.engine.precision, late, self.ledger)

    def tidy(self) -> None:
        """Do nothing: a picture is written in one step and leaves no other files."""

    def _tell_progress(self, work: Work, frame: int, done: int, total: int) -> None:
        work.tell(Event("progress", self.input, {"done": round((frame + done / total) / self.frames, 4)}))

    def _upscaler(self, options: UpscaleOptions) -> Upscaler:
        model = model_choice.network(self.model, sha256=self.model_sha256)
        return Upscaler(model, options, engine=model_choice.engine(model, options.engine))

    def _look(self) -> bool:
        """Compare the existing output with the plan."""
        if not self.output.is_file():
            raise UsageError(self.output, "exists and is not a file", "choose another output")
        there = probe(self.output, limits=_NO_LIMIT)
        if there.size != self.size or there.format != self.plan.format or there.frames != self.frames:
            raise something_else(self.output, f"{there.format}, {there.size[1]}x{there.size[0]}")
        try:
            verify_output(self.output, self.plan, self.size, self.frames)
        except UpframeError:
            return False
        return True


def plan_image(found: Found, names: Namer, models: ModelChoice, options: JobOptions) -> ImageItem:
    """Plan a picture from its header.

    Raises:
        InputError: if the picture cannot be read.
        UsageError: if the output cannot be made, or a different file has its name.
        ModelError: if the model cannot be loaded.
    """
    with open_image(found.path, options) as source:
        info, metadata, notices = source.info, source.metadata, source.notices
    larger = models.enlarge(info.size, found.path)
    made = plan_output(info, requested=names.wanted_format(options.format), metadata=metadata)
    check_output_size(made.format, larger.size, subject=found.path, channels=made.channels, dtype=made.dtype)
    path, renamed = names.choose(found, made.extension, model=larger.model_label, scale=larger.scale_label)
    item = ImageItem(
        input=found.path,
        output=path,
        info=info,
        plan=made,
        size=larger.size,
        model=larger.model,
        model_sha256=larger.model_sha256,
        native=larger.native,
        notices=(*notices, *larger.notices, *made.notices, *renamed),
        ledger=made.ledger,
    )
    taken = is_taken(path, found.path)
    skip = taken and not options.overwrite and item.is_done(options)
    return replace(item, skip=skip, replaces=taken or options.overwrite)


def open_image(path: Path, options: JobOptions) -> ImageSource:
    return ImageSource(path, limits=options.limits, allow_truncated=options.allow_truncated, first_frame=options.first_frame)


def estimated_file_bytes(item: ImageItem) -> int:
    """Estimate the bytes of the output file, rather too many for photographs."""
    raw = item.size[0] * item.size[1] * item.plan.channels * item.plan.dtype.itemsize * item.frames
    return int(raw * _FILE_SHARE.get(item.plan.format, _LOSSY_SHARE)) + 65_536


def estimated_memory_bytes(item: ImageItem, up: Upscaler) -> int:
    """Predict the peak memory of this process: what it holds now, the decoded input, the upscaler, and the encoder, which uses
    the upscaler's blocks again."""
    height, width = item.info.size
    decoded = height * width * item.info.channels * item.info.dtype.itemsize * 2
    encoder = held_bytes(item.plan, item.size, frames=item.frames, animated=item.info.animated)
    enlarging = up.memory_bytes(item.info.size, item.size, has_alpha=item.info.has_alpha)
    return process_bytes() + decoded + encoder.gathered + max(enlarging, encoder.encoding)
