"""Make one video from start to end: index, segments, render, join, verify.

A video is never held whole. One pass counts, times and checksums its frames, and finds its cuts if the network looks at several
frames. Then each segment is rendered into a work file that survives any interruption. Then the packets of the work files are
joined with the unchanged audio, subtitles and chapters of the source. The result is read back in full and compared, and only
then renamed to the output.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

from upframe.errors import InputError, Notice, UpframeError
from upframe.jobs import model_choice
from upframe.jobs.options import JobOptions
from upframe.jobs.runners.base import Runner
from upframe.jobs.runners.local import LocalRunner
from upframe.jobs.video.facts import job_facts
from upframe.jobs.video.geometry import Geometry, fix_geometry, is_recorded_geometry, recorded_geometry
from upframe.jobs.video.inputs import Input, open_input, probe_input
from upframe.jobs.video.outputs import finish, segments_of
from upframe.jobs.video.plan import Video, video_ledger
from upframe.jobs.video.progress import Notices, VideoProgress, VideoReport, Watch
from upframe.jobs.video.rehearsal import rehearse
from upframe.jobs.video.segment import (
    FrameNotices,
    SegmentResult,
    SegmentTask,
    VideoTask,
    forget,
    keep_input,
    render_segment,
)
from upframe.jobs.video.segments import Segment, plan_segments
from upframe.jobs.video.workspace import Record, WorkFolder, recorded
from upframe.media.ledger import EMPTY
from upframe.upscaling.images import Saved


def render(
    video: Video,
    model: str,
    options: JobOptions,
    work: WorkFolder,
    *,
    model_sha256: str | None = None,
    runner: Runner | None = None,
    on_progress: Callable[[VideoProgress], None] | None = None,
    on_notice: Callable[[Notice], None] | None = None,
    cancel: threading.Event | None = None,
) -> VideoReport:
    """Make the output of a video, or resume an interrupted run.

    Args:
        model: Name or path of the model.
        options: Options of the job; only those for videos and for computing are used.
        work: The entered work folder of the output.
        model_sha256: Required hash of its weights file; None accepts any.
        runner: Renders the segments; None renders them in this process.
        on_progress: Called after each frame of each stage.
        on_notice: Called as soon as a loss is known; an exception from it stops the job.

    Raises:
        Cancelled: if `cancel` was set; finished segments stay for the next run.
        UsageError: if an interrupted run used other options.
        UpframeError: if the video cannot be made; a file that had the output's name before is unchanged.
    """
    began, runner = time.perf_counter(), runner or LocalRunner()
    watch = Watch(video.input, video.frames_estimate, on_progress, cancel)
    notices = Notices(on_notice)
    if probe_input(video.input, options.video) != video.info:
        raise InputError(video.input, "changed while reading (since it was planned)", "run it again")
    loaded = model_choice.network(model, sha256=model_sha256)
    is_clip_model = loaded.spec.window is not None
    source = open_input(video.input, video.info, options.video, watch, with_cuts=is_clip_model)
    notices.tell(source.source.notices)
    ledger = video.ledger + video_ledger(video.info, source.seen, video.plan, options.video)
    notices.tell(ledger.notices(str(video.input)))
    notices.tell(_moved_start(video, source))
    earlier = None if options.video.restart else recorded(video.output)
    known = earlier.geometry if earlier is not None and is_recorded_geometry(earlier.geometry) else {}
    geometry = fix_geometry(video, loaded, options.upscale, options.video, known)
    chosen = source.chosen
    cuts = [c - chosen.start for c in source.cuts() if chosen.start < c < chosen.stop]
    segments = plan_segments(len(chosen), cuts, longest=geometry.longest, context=geometry.context)
    task = _video_task(video, model, loaded.sha256, options, geometry, source)
    geometry_record = recorded_geometry(geometry, options.upscale, options.video)
    record = Record(job_facts(video, task, chosen), geometry_record)
    with source.source:
        work.begin(record, restart=options.video.restart)
        kept = segments_of(work, video.plan, video.info.bits, is_doubled=video.is_doubled)
        missing = [segment for segment in segments if not kept.is_done(segment)]
        resumed = sum(len(video.made(s.first, s.end)) for s in segments if s not in missing)
        total = len(video.made(0, len(chosen)))
        if missing and not resumed:
            try:
                rehearse(video, work, source, notices)
            except UpframeError:
                work.remove()  # nothing is finished, and other options may be the way out
                raise
        watch.start("upscaling", total, resumed)
        if not runner.in_process:
            source.save(work.path)
        keep_input(task, source)
        try:
            results = _render_segments(task, missing, runner, watch, notices, resumed, cancel)
        finally:
            forget(task)
        finish(video, work, segments, source, watch, notices)
        work.remove()
    return VideoReport(
        frames=total,
        resumed=resumed,
        segments=len(segments),
        seconds=time.perf_counter() - began,
        engine=geometry.engine,
        precision=geometry.precision,
        notices=tuple(notices.told),
        ledger=ledger,
        cleaning_passes=tuple(p for result in results for p in result.passes),
        tiles_reused=_share([result.reused for result in results]),
        borders_repeated=_share([result.flat for result in results]),
    )


def _moved_start(video: Video, source: Input) -> list[Notice]:
    """Make the notice for a video that starts before zero, whose tracks are all moved; a part of a video starts at zero
    anyway."""
    starts_s = int(source.timing.pts[0]) * source.timing.time_base
    if source.chosen.start or starts_s >= 0 or video.plan is None:
        return []
    message = f"it starts {-float(starts_s):.3f} s before zero; all its tracks were moved by that"
    return [Notice("start-shifted", str(video.input), message)]


def _video_task(video: Video, model: str, sha256: str, options: JobOptions, geometry: Geometry, source: Input) -> VideoTask:
    return VideoTask(
        input=video.input,
        output=video.output,
        index=source.digest(),
        model=model,
        model_sha256=sha256,
        upscale=options.upscale,
        options=replace(options.video, restart=False),
        geometry=geometry,
        # Facts that only joining needs are not in the task, so that it stays small.
        plan=None if video.plan is None else replace(video.plan, tracks=(), tags=(), video_tags=(), notices=(), ledger=EMPTY),
        size=video.size,
        bits=video.info.bits,
        offset=source.chosen.start,
        is_doubled=video.is_doubled,
    )


def _render_segments(
    video: VideoTask,
    segments: Sequence[Segment],
    runner: Runner,
    watch: Watch,
    notices: Notices,
    resumed: int,
    cancel: threading.Event | None,
) -> list[SegmentResult]:
    """Let the runner render `segments`, and report progress in the steps that the runner reports."""
    done, results = resumed, []
    frames_each = 2 if video.is_doubled else 1

    def on_frame(late: FrameNotices) -> None:
        watch.count()
        notices.tell(late)

    tasks = [SegmentTask(video, segment) for segment in segments]
    with contextlib.closing(runner.map(render_segment, tasks, on_frame=on_frame, cancel=cancel)) as made:
        for result in made:
            results.append(result)
            notices.tell(result.notices)
            done += frames_each * result.segment.frames
            watch.reach(done)
    return results


def _share(saved: Sequence[Saved]) -> float:
    return Saved(sum(one.part for one in saved), sum(one.total for one in saved)).share
