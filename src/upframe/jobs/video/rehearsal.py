"""Try the tracks of an output as a whole, before its frames are made."""

from __future__ import annotations

import numpy as np

from upframe.errors import InputError, VerifyError
from upframe.files import remove_quietly
from upframe.jobs.video.inputs import Input
from upframe.jobs.video.plan import Video
from upframe.jobs.video.progress import Notices
from upframe.jobs.video.retiming import made_timing
from upframe.jobs.video.workspace import SegmentStore
from upframe.media.video.files import VideoSink, join_tracks, verify_video


def rehearse(video: Video, store: SegmentStore, source: Input, notices: Notices) -> None:
    """Write and verify the output with one black frame beside all its tracks, before hours are spent on the others.

    Whatever a container makes of damaged audio or subtitles shows here. Cost: the tracks are read and written once more.

    Raises:
        InputError: if a track is so damaged that it cannot be copied and verified.
        OutputError: if the file cannot be written.
    """
    plan = video.plan
    if plan is None or not plan.tracks:
        return
    timing, chosen = made_timing(source.timing, source.chosen, is_doubled=video.is_doubled)
    frame, target = store.path / "rehearsal.seg", store.path / "rehearsal.new"
    try:
        with VideoSink(frame, plan, frames=1) as sink:
            sink.write(np.zeros((*plan.size, 3), np.uint16), pts=int(timing.pts[chosen.start]))
        expected = join_tracks(frame, target, plan, timing=timing, info=video.info, selection=chosen)
        notices.tell(expected.notices)
        verify_video(target, expected)
    except VerifyError as error:
        happened = f"its tracks are damaged: {error.happened}"
        advice = "get the file again, or drop them with `video.audio=False` or `video.subtitles=False`"
        raise InputError(video.input, happened, advice) from error
    finally:
        for file in (frame, target):
            remove_quietly(file)
