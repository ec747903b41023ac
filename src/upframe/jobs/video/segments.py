"""Divide a video into segments: the units that are rendered, kept and resumed.

Pure planning. A segment ends at the end of a shot, or at its longest length. If it begins or ends inside a shot, frames of
context are rendered with it and discarded. The plan depends on the frame count, the cuts and three numbers alone, so a resumed
job finds the same segments.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise


@dataclass(frozen=True)
class Segment:
    """Frames [first, end) of the video, rendered from frames [read_first, read_end)."""

    index: int
    first: int
    end: int
    read_first: int
    read_end: int

    @property
    def frames(self) -> int:
        return self.end - self.first


def plan_segments(frames: int, cuts: Sequence[int], *, longest: int, context: int) -> list[Segment]:
    """Divide `frames` frames into segments that do not cross a cut and are not longer than `longest`.

    A shot that is too long is divided evenly. Context never reaches across a cut.

    Args:
        cuts: Frames that begin a new shot, ascending.
        context: Frames read beyond each end of a segment that lies inside a shot.

    Raises:
        ValueError: for cuts that are not ascending within the video.
    """
    edges = [0, *cuts, frames]
    if frames and any(a >= b for a, b in pairwise(edges)):
        raise ValueError(f"cuts must rise between 0 and {frames}: {list(cuts)}")
    segments: list[Segment] = []
    for start, end in pairwise(edges):
        pieces = -(-(end - start) // longest)
        inner = [start + (end - start) * i // pieces for i in range(pieces + 1)] if pieces else []
        for first, last in pairwise(inner):
            read = max(first - context, start), min(last + context, end)
            segments.append(Segment(len(segments), first, last, *read))
    return segments
