"""One video of a job: a file, or a folder of frames."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path

from upframe.errors import InputError, Notice, OptionError
from upframe.files import check_room
from upframe.jobs import model_choice
from upframe.jobs.events import Event, notice_event
from upframe.jobs.items import Estimate, Made, MadeMeanwhileError, Work, is_taken, made_folder
from upframe.jobs.model_choice import ModelChoice
from upframe.jobs.naming import Found, Namer, is_folder
from upframe.jobs.options import JobOptions, VideoOptions
from upframe.jobs.video.geometry import check_cleaning, estimate
from upframe.jobs.video.inputs import probe_input
from upframe.jobs.video.plan import Video, check_place, estimated_room_bytes, is_video_done, plan_video_output
from upframe.jobs.video.progress import VideoProgress
from upframe.jobs.video.render import render
from upframe.jobs.video.workspace import WorkFolder, remove_leftover
from upframe.media.ledger import Ledger
from upframe.media.names import is_video_name

STAGE_PROGRESS_S = 1.0  # least time between two progress events while a video is read or checked


@dataclass(frozen=True)
class VideoItem:
    """An `Item`: one video and its plan."""

    video: Video
    model: str
    """Name or path of the model."""
    model_sha256: str
    notices: tuple[Notice, ...]
    skip: bool = False
    replaces: bool = False
    """Whether the output may replace a file or folder of its name."""
    is_unit = False

    @property
    def ledger(self) -> Ledger:
        return self.video.ledger

    @property
    def input(self) -> Path:
        return self.video.input

    @property
    def output(self) -> Path:
        return self.video.output

    @property
    def size(self) -> tuple[int, int]:
        return self.video.size

    @property
    def frames(self) -> int:
        return self.video.frames_estimate

    def estimate(self, options: JobOptions) -> Estimate:
        model = model_choice.network(self.model, sha256=self.model_sha256)
        return estimate(self.video, model, options.upscale, options.video)

    def is_done(self, options: JobOptions) -> bool:
        return is_video_done(self.video, options.video)

    def render(self, options: JobOptions, work: Work) -> Made:
        told, stage = 0.0, ""

        def progress(at: VideoProgress) -> None:
            nonlocal told, stage
            if at.stage != "upscaling" and at.stage == stage:  # a thousand frames a second: tell of some
                if time.monotonic() - told < STAGE_PROGRESS_S:
                    return
                told = time.monotonic()
            stage = at.stage
            share = {"reading": 0.0, "upscaling": at.frame / max(at.frames, 1), "checking": 1.0}
            rate = round(at.frames_per_s, 3)
            data = {"done": round(share[at.stage], 4), "stage": at.stage, "frame": at.frame, "frames": at.frames}
            work.tell(Event("progress", self.input, {**data, "frames_per_s": rate}))

        def notice(late: Notice) -> None:
            if late in self.notices:
                return
            work.tell(notice_event(self.input, late))
            if options.strict:
                raise late.as_error()

        with made_folder(self.output.parent), WorkFolder(self.output) as folder:  # from here on no other run makes this output
            if not self.replaces and self.output.exists():
                raise MadeMeanwhileError
            check_room(self.output, estimated_room_bytes(self.video, options.video))
            report = render(
                self.video,
                self.model,
                options,
                folder,
                model_sha256=self.model_sha256,
                runner=work.runner,
                on_progress=progress,
                on_notice=notice,
                cancel=work.cancel,
            )
        data = {
            "frames": report.frames,
            "frames_resumed": report.resumed,
            "segments": report.segments,
            "cleaning_passes": list(report.cleaning_passes),
            "tiles_reused": round(report.tiles_reused, 4),
            "borders_repeated": round(report.borders_repeated, 4),
        }
        work.tell(Event("video", self.input, data))
        late = tuple(n for n in report.notices if n not in self.notices)
        return Made(report.engine, report.precision, late, report.ledger)

    def tidy(self) -> None:
        remove_leftover(self.output)


def is_video(path: Path, options: VideoOptions) -> bool:
    """Whether an input is a video, by its extension; without one, as with a pipe, by its content."""
    if is_folder(path) or is_video_name(path):
        return True
    try:
        probe_input(path, options)
    except InputError:
        return False
    return True


def plan_video(found: Found, names: Namer, models: ModelChoice, options: JobOptions) -> VideoItem:
    """Plan a video from its headers, and try the encoder and the container.

    Raises:
        InputError: if the video cannot be read.
        UsageError: if the output cannot be made, or a different file has its name.
        ModelError: if the model cannot be loaded.
    """
    info = probe_input(found.path, options.video)
    larger = models.enlarge(info.size, found.path)
    check_cleaning(model_choice.network(larger.model, sha256=larger.model_sha256), options.video)
    wanted = names.wanted_format(options.format)
    if wanted is None and found.path.is_dir():
        wanted = ".png"  # a folder of frames becomes a folder of frames
    is_doubled = options.task == "interpolate"
    plan, ledger = plan_video_output(info, larger.size, options.video, container=wanted, is_doubled=is_doubled)
    if plan is None and names.is_file:
        raise OptionError(
            "output", names.output, "is one picture, not a video", "give a folder with `format='png'`, or a video name"
        )
    notices = (*info.notices, *ledger.notices(str(info.path)), *larger.notices)
    if plan is not None:
        same = plan.container == found.path.suffix.lower().lstrip(".")
        extension = wanted if wanted and wanted.startswith(".") else found.path.suffix if same else plan.extension
        path, renamed = names.choose(found, extension, model=larger.model_label, scale=larger.scale_label)
    else:
        path, renamed = names.choose_folder(found, model=larger.model_label, scale=larger.scale_label)
    video = Video(found.path, path, info, plan, larger.size, notices, ledger, is_doubled)
    item = VideoItem(video, larger.model, larger.model_sha256, (*notices, *renamed), replaces=options.overwrite)
    if not is_taken(path, found.path):
        return item
    check_place(video)
    return replace(item, skip=not options.overwrite and item.is_done(options), replaces=True)
