"""Write a video's output: first its segments, then the joined file, which is verified before it is renamed."""

from __future__ import annotations

import json
import os
import shutil
import zlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from upframe.errors import Notice, VerifyError
from upframe.files import atomic_path, atomic_text, parsed_json, put_in_place, writing
from upframe.jobs.video.inputs import Input
from upframe.jobs.video.plan import Video, check_place, frame_name, made_frames
from upframe.jobs.video.progress import Notices, Watch
from upframe.jobs.video.retiming import doubled
from upframe.jobs.video.segments import Segment
from upframe.jobs.video.workspace import SegmentStore
from upframe.media.image.source import probe
from upframe.media.video.files import (
    FrameFolderSink,
    VideoInfo,
    VideoPlan,
    VideoSink,
    from_later_frame,
    join,
    unwritten_tags,
    verify_video,
)


class Segments(Protocol):
    """Writes the segments of a video, in any process."""

    def sink(self, segment: Segment) -> VideoSink | FrameFolderSink:
        """Open a sink for the frames of a segment, in order."""
        ...

    def keep(self, segment: Segment) -> None:
        """Turn the file that the sink has written into a finished segment, whole or not at all.

        Raises:
            OutputError: if it cannot be written.
        """
        ...

    def is_done(self, segment: Segment) -> bool:
        """Whether a segment is finished and undamaged."""
        ...


class FileSegments:
    """Segments as video files in the work folder."""

    def __init__(self, store: SegmentStore, plan: VideoPlan, *, is_doubled: bool) -> None:
        self._store, self._plan, self._is_doubled = store, plan, is_doubled

    def sink(self, segment: Segment) -> VideoSink:
        frames = len(made_frames(segment.first, segment.end, is_doubled=self._is_doubled))
        return VideoSink(self._store.scratch(segment.index), self._plan, frames=frames)

    def keep(self, segment: Segment) -> None:
        self._store.commit(segment.index)

    def is_done(self, segment: Segment) -> bool:
        return self._store.is_done(segment.index)


class FolderSegments:
    """Segments as numbered pictures in a folder of the work folder. A segment's file holds the checksums of its pictures."""

    def __init__(self, store: SegmentStore, bits: int, *, is_doubled: bool) -> None:
        self._store, self._bits, self._is_doubled = store, bits, is_doubled
        self.folder = store.path / "frames"

    def sink(self, segment: Segment) -> FrameFolderSink:
        made = self._made(segment)
        return FrameFolderSink(self.folder, first=made.start, bits=8 if self._bits == 8 else 16, frames=len(made))

    def keep(self, segment: Segment) -> None:
        with writing(self.folder):
            checksums = json.dumps(self._checksums(segment))
        atomic_text(self._store.scratch(segment.index), checksums)
        self._store.commit(segment.index)

    def is_done(self, segment: Segment) -> bool:
        if not self._store.is_done(segment.index):
            return False
        try:
            return bool(parsed_json(self._store.segment(segment.index).read_bytes()) == self._checksums(segment))
        except ValueError:
            return False

    def _made(self, segment: Segment) -> range:
        return made_frames(segment.first, segment.end, is_doubled=self._is_doubled)

    def _checksums(self, segment: Segment) -> list[int | None]:
        files = [self.folder / frame_name(n) for n in self._made(segment)]
        return [zlib.crc32(f.read_bytes()) if f.exists() else None for f in files]


def segments_of(store: SegmentStore, plan: VideoPlan | None, bits: int, *, is_doubled: bool) -> Segments:
    """Choose the store for the segments of a video with this plan; None means a folder of frames.

    Args:
        bits: Bits of the input's samples.
    """
    if plan is None:
        return FolderSegments(store, bits, is_doubled=is_doubled)
    return FileSegments(store, plan, is_doubled=is_doubled)


def finish(
    video: Video, store: SegmentStore, segments: Sequence[Segment], source: Input, watch: Watch, notices: Notices
) -> None:
    """Make the output from its finished segments, verify it and rename it.

    Raises:
        VerifyError: if the written file differs from the plan.
        OutputError: if it cannot be written.
    """
    if video.plan is None:
        _name_folder(video, store.path / "frames", len(source.chosen), watch)
    else:
        files = [store.segment(segment.index) for segment in segments]
        _join(video, video.plan, files, source, watch, notices)


def _join(video: Video, plan: VideoPlan, files: list[Path], source: Input, watch: Watch, notices: Notices) -> None:
    """Join segments with the other tracks of the source, packet by packet, and read the result back in full."""
    info: VideoInfo | None = None if video.input.is_dir() else video.info
    timing, chosen = doubled(source.timing, source.chosen) if video.is_doubled else (source.timing, source.chosen)
    watch.start("checking", len(chosen))
    plan = replace(plan, video_tags=from_later_frame(plan.video_tags, chosen.start, plan.rate))
    with writing(video.output), atomic_path(video.output) as target:
        expected = join(files, target, plan, timing=timing, info=info, selection=chosen, on_frame=watch.check)
        notices.tell(expected.notices)
        verify_video(target, expected, on_frame=watch.count)
        unwritten = unwritten_tags(target, plan)
        if unwritten:
            text = f"the written file lacks its tags {', '.join(unwritten)[:120]}"
            notices.tell([Notice("metadata-dropped", str(video.input), text)])


def _name_folder(video: Video, folder: Path, frames: int, watch: Watch) -> None:
    """Count the pictures, each of which was verified when it was written, then rename the folder."""
    output = video.output
    expected = [frame_name(n) for n in video.made(0, frames)]
    found = sorted(p.name for p in folder.iterdir())
    advice = "use `video.restart` to make them again"
    if found != expected:
        raise VerifyError(output, f"{len(found)} frames were written, expected {len(expected)}", advice)
    watch.start("checking", len(expected))
    for name in expected:
        size = probe(folder / name).size
        if size != video.size:
            raise VerifyError(folder / name, f"is {size[1]}x{size[0]}", advice)
        watch.count()
    with writing(output):
        if output.exists():
            check_place(video)
            shutil.rmtree(output)  # the caller allowed it, and the folder holds only numbered frames
        os.utime(folder)  # newer than all its segments: `remove_leftover` recognises a leftover by this
        put_in_place(folder, output)
