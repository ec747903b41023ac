"""Thumbnails and previews: made by child processes, kept beside the files that they show."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from upframe.service import wire
from upframe.service.crew import Child
from upframe.service.media_types import media_type
from upframe.service.problems import Gone, Refused
from upframe.service.settings import ServiceLimits

WAIT_S = 8.0
"""How long a request waits for a view before it is told that it is being made."""
PICTURE_S = 120.0
"""A picture whose view takes longer must not hold up those of all others."""
THUMBNAIL_PX = 256


@dataclass(frozen=True)
class View:
    """A file that browsers show."""

    path: Path
    type: str


@dataclass
class _Making:
    task: asyncio.Task[View]
    done: float = 0.0


class Views:
    """Makes views, each once.

    Args:
        quick: The child for pictures.
        slow: The child for videos, which take long.
    """

    def __init__(self, quick: Child, slow: Child, limits: ServiceLimits) -> None:
        self._quick, self._slow, self._limits = quick, slow, limits
        self._making: dict[Path, _Making] = {}

    @property
    def children(self) -> tuple[Child, ...]:
        return (self._quick, self._slow)

    async def thumbnail(self, source: Path, name: str, folder: Path, of: wire.Of) -> View | float:
        """A small picture of a picture, or of a video's first frame."""
        with _worded(source, name):
            return await self._get(self._quick, source, folder, "thumbnail", of)

    async def preview(self, source: Path, name: str, folder: Path, of: wire.Of, kind: wire.Kind | None) -> View | float:
        """Something that browsers show; or the share that is done, while it is being made."""
        with _worded(source, name):
            return await self._get(self._slow if kind == "video" else self._quick, source, folder, "preview", of)

    async def _get(
        self, child: Child, source: Path, folder: Path, what: Literal["thumbnail", "preview"], of: wire.Of
    ) -> View | float:
        stem = folder / f"{of}-{what}"
        made = _made(stem)
        if made is not None:
            return made
        making = self._making.get(stem)
        if making is None:
            making = self._making[stem] = _Making(asyncio.create_task(self._make(child, source, stem, what)))
            making.task.add_done_callback(lambda _: self._making.pop(stem, None))
        try:
            return await asyncio.wait_for(asyncio.shield(making.task), WAIT_S)
        except TimeoutError:
            return making.done

    async def _make(self, child: Child, source: Path, stem: Path, what: str) -> View:
        stem.parent.mkdir(parents=True, exist_ok=True)
        request = {
            "input": str(source),
            "stem": str(stem),
            "what": what,
            "side": THUMBNAIL_PX,
            "pixels": self._limits.output_pixels,
        }

        def hear(event: str, data: dict[str, Any]) -> None:
            if stem in self._making:
                self._making[stem].done = data["done"]

        try:
            answer = await child.ask("view", request, on_event=hear, timeout_s=PICTURE_S if child is self._quick else None)
        except Gone as gone:
            raise Refused(gone.as_error(what)) from gone
        path = Path(answer["path"])
        return View(path, answer.get("type") or media_type(path))


@contextlib.contextmanager
def _worded(source: Path, name: str) -> Iterator[None]:
    """Put the user's name of a file in place of its path into refusals."""
    try:
        yield
    except Refused as refused:
        error = refused.error
        texts = {
            field: getattr(error, field).replace(str(source), name) for field in ("error", "subject", "happened", "advice")
        }
        raise Refused(error.model_copy(update=texts)) from refused


def _made(stem: Path) -> View | None:
    """The view, if it is there already."""
    for path in stem.parent.glob(f"{stem.name}.*") if stem.parent.is_dir() else ():
        return View(path, media_type(path))
    return None
