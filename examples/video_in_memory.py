"""Enlarge the frames of a video as they are decoded, without holding it: decode, enlarge, encode.

`upframe.upscale("talk.mp4")` does this for a file, and keeps times, audio and subtitles. Use this for frames from other
sources: a camera, a game, your own program.

Usage: python examples/video_in_memory.py [OUTPUT_FOLDER]
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import av
import numpy as np

import upframe

CLIP = Path(__file__).parent / "media" / "bunny.mp4"
FRAMES = 12


def decoded(path: Path) -> Iterator[np.ndarray[Any, Any]]:
    """The first frames of a video, (H, W, 3) uint8, one by one."""
    with av.open(str(path)) as video:
        for frame in islice(video.decode(video=0), FRAMES):
            yield frame.to_ndarray(format="rgb24")


def main() -> None:
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "example-out")
    folder.mkdir(parents=True, exist_ok=True)
    output = folder / "bunny_in_memory.mp4"
    with upframe.VideoUpscaler("photo-x2") as video, av.open(str(output), "w") as file:
        stream = None
        for frame in video(decoded(CLIP)):  # each frame arrives as soon as it is enlarged
            if stream is None:
                stream = file.add_stream("libx264", rate=24)
                stream.height, stream.width = frame.shape[:2]
            file.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        if stream is not None:
            file.mux(stream.encode(None))
            print(f"{FRAMES} frames of {stream.width}x{stream.height} in {output}")


if __name__ == "__main__":
    main()
