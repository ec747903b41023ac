"""Requests to child processes about one input, with the bounds that the server sets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from upframe.files import folder_bytes
from upframe.service import wire
from upframe.service.settings import ServiceLimits
from upframe.service.storage import Storage


def request_for(
    source: Path, name: str, outputs: Path, options: wire.Options, *, limits: ServiceLimits, storage: Storage
) -> dict[str, Any]:
    """A request, as `child.planning.Request` reads it."""
    most = limits.data_bytes
    return {
        "input": str(source),
        "name": name,
        "outputs": str(outputs),
        "options": options.model_dump(),
        "pixels": limits.pixels,
        "output_pixels": limits.output_pixels,
        "video_seconds": limits.video_seconds,
        "room_bytes": None if most is None else room_for(outputs, most, storage.used_bytes()),
    }


def room_for(outputs: Path, most: int, used: int) -> int:
    """Bytes that all files in `outputs` may have, those that are there included.

    Args:
        most, used: Bytes that the files of the whole data folder may have, and have.
    """
    return max(most - used + folder_bytes(outputs), 0)
