"""Covers and fonts as bytes with a name and a type, which is all that a container stores of them."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av.error

from upframe.media.video.info import open_video

_PICTURE_TYPES = {
    "mjpeg": ("image/jpeg", ".jpg"), "jpeg": ("image/jpeg", ".jpg"), "png": ("image/png", ".png"), "gif": ("image/gif", ".gif"),
    "bmp": ("image/bmp", ".bmp"), "webp": ("image/webp", ".webp"), "tiff": ("image/tiff", ".tif"),
}  # fmt: skip
_ANY_TYPE = "application/octet-stream"


@dataclass(frozen=True)
class Attached:
    """A cover or an attachment."""

    name: str
    mimetype: str
    data: bytes


def read_attached(path: Path, indices: Collection[int]) -> dict[int, Attached]:
    """Read the covers and attachments of a file by the index of their stream; those without content are absent."""
    found: dict[int, Attached] = {}
    if not indices:
        return found
    with open_video(path) as container:
        covers = []
        stream: Any
        for stream in container.streams:
            if stream.index not in indices:
                continue
            if stream.type == "attachment":
                name = stream.metadata.get("filename") or f"attachment{stream.index}"
                found[stream.index] = Attached(name, stream.metadata.get("mimetype") or _ANY_TYPE, bytes(stream.data or b""))
            else:
                covers.append(stream)
        try:
            packets = container.demux(covers) if covers else iter(())
            while len(found) < len(indices):
                packet = next(packets)
                if packet.size and packet.stream_index not in found:
                    found[packet.stream_index] = _cover(packet.stream, bytes(packet))
        except (StopIteration, av.error.FFmpegError):
            pass  # a cover without content
    return found


def _cover(stream: Any, data: bytes) -> Attached:
    codec = stream.codec_context.name if stream.codec_context is not None else ""
    mimetype, suffix = _PICTURE_TYPES.get(codec, (_ANY_TYPE, ""))
    name = stream.metadata.get("filename") or f"cover{suffix}"
    return Attached(name, stream.metadata.get("mimetype") or mimetype, data)
