"""Frames of a video as browsers show them: 4:2:0 with 8 bits and limited range. For HDR and wide colours, `display` becomes a
table that FFmpeg applies to each frame."""

from __future__ import annotations

import contextlib
from itertools import pairwise
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import av

from upframe.files import atomic_text, scratch_folder
from upframe.media.display import Colours, cube, peak
from upframe.media.video.info import VideoInfo

_BT709, _LIMITED = 1, 1
_MATRICES = {1: "bt709", 4: "fcc", 5: "bt470", 6: "smpte170m", 7: "smpte240m", 9: "bt2020"}


def colours_of(info: VideoInfo) -> Colours:
    """Meaning of the pixels of a video."""
    hdr = info.hdr10
    level = hdr.light_level[0] if hdr is not None and hdr.light_level is not None else 0
    display = float(hdr.luminance[1]) if hdr is not None and hdr.luminance is not None else 0.0
    return Colours(info.colour.primaries, info.colour.transfer, peak(level or display))


class Look:
    """Frames of one video as they are to be shown; those that browsers show as they are pass."""

    def __init__(self, info: VideoInfo) -> None:
        self._info, self._colours = info, colours_of(info)
        self._passes = self._colours.is_plain and info.pix_fmt == "yuv420p" and not info.coding.is_full_range
        self._stack = contextlib.ExitStack()
        self._table: Path | None = None
        self._graph: Any = None
        self._key: tuple[int, int, str] | None = None

    def __enter__(self) -> Self:
        if not self._colours.is_plain:
            self._table = self._stack.enter_context(scratch_folder()) / "look.cube"
            atomic_text(self._table, cube(self._colours))
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._graph = None
        self._stack.close()

    def of(self, frame: av.VideoFrame) -> av.VideoFrame:
        """The frame, in the matrix of BT.709 if it needed a change."""
        if self._passes:
            return frame
        key = (frame.width, frame.height, frame.format.name)
        if key != self._key:
            self._graph, self._key = self._made(frame), key
        self._graph.push(frame)
        made: av.VideoFrame = self._graph.pull()
        return made

    def tag(self, context: Any) -> None:
        """State the colours of the frames in the encoder's context."""
        colour, is_plain = self._info.colour, self._colours.is_plain
        context.color_primaries, context.color_trc = (colour.primaries, colour.transfer) if is_plain else (_BT709, _BT709)
        context.colorspace = self._info.coding.matrix if self._passes else _BT709
        context.color_range = _LIMITED

    def _made(self, frame: av.VideoFrame) -> Any:
        coding = self._info.coding
        graph: Any = av.filter.Graph()
        here = {"in_color_matrix": _MATRICES[coding.matrix], "in_range": "full" if coding.is_full_range else "limited"}
        steps = [
            graph.add_buffer(width=frame.width, height=frame.height, format=frame.format.name, time_base=self._info.time_base)
        ]
        if self._colours.is_plain:
            steps.append(graph.add("scale", **here, out_color_matrix="bt709", out_range="limited"))
        else:
            steps += [
                graph.add("scale", **here, flags="accurate_rnd+full_chroma_int"),
                graph.add("format", "gbrp16le"),
                graph.add("lut3d", file=str(self._table), interp="tetrahedral"),
                graph.add("scale", out_color_matrix="bt709", out_range="limited"),
            ]
        steps += [graph.add("format", "yuv420p"), graph.add("buffersink")]
        for one, next_one in pairwise(steps):
            one.link_to(next_one)
        graph.configure()
        return graph
