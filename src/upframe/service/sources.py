"""From what a request names to a file: an upload, an allowed path, or the input of a job."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from upframe.errors import one_line
from upframe.service import wire
from upframe.service.encoder_options import check_encoder_options
from upframe.service.problems import Problem
from upframe.service.queue import JobQueue
from upframe.service.uploads import Uploads


@dataclass(frozen=True)
class Found:
    """An input on the server's disk."""

    path: Path
    name: str
    """As the user calls it."""
    is_own: bool
    """Whether it lies in the data folder."""


class Sources:
    """Finds inputs.

    Args:
        allow: Folders whose files may be inputs.
    """

    def __init__(self, uploads: Uploads, queue: JobQueue, allow: Sequence[Path]) -> None:
        self._uploads, self._queue = uploads, queue
        self.allow = tuple(folder.resolve() for folder in allow)

    def find(self, source: wire.Source) -> Found:
        """Raises: Problem, if there is no such input, or it may not be read."""
        named = [value for value in (source.upload, source.path, source.job) if value is not None]
        if len(named) != 1:
            raise Problem(422, "source", "must be one of `upload`, `path` and `job`")
        if source.upload is not None:
            path, name = self._uploads.finished(source.upload)
            return Found(path, name, True)
        if source.job is not None:
            stored = self._queue.get(source.job)
            is_own = stored.input.is_relative_to(self._queue.folder(source.job).path)
            return Found(stored.input, stored.job.name, is_own)
        assert source.path is not None
        path = self.allowed(source.path)
        if not path.is_file():
            raise Problem(404, path.name, "is no file", "name a picture or a video")
        return Found(path, path.name, False)

    def checked(self, options: wire.Options) -> wire.Options:
        """The options; a model that is a file must lie in an allowed folder, and options of the encoder must be harmless.

        Raises:
            Problem, OptionError: if it does not, or they are not.
        """
        check_encoder_options(options.video.encoder)
        model = options.model
        if model is None or not ("/" in model or "\\" in model or os.sep in model or model.startswith(("~", "."))):
            return options
        return options.model_copy(update={"model": str(self.allowed(model))})

    def allowed(self, name: str) -> Path:
        """The path, links resolved, if it lies in an allowed folder. Others are refused alike, whether they exist or not."""
        refusal = Problem(
            403, one_line(name[:200]), "is not in a folder that the service may read", "start it with --allow FOLDER"
        )
        path = None if "\0" in name or not Path(name).is_absolute() else self._resolved(Path(name))
        if path is None:
            raise refusal
        return path

    def is_allowed(self, path: Path) -> bool:
        """Whether a path, links resolved, lies in an allowed folder."""
        return self._resolved(path) is not None

    def _resolved(self, path: Path) -> Path | None:
        try:
            place = path.resolve()
        except (OSError, RuntimeError, ValueError):  # for instance a link that leads to itself
            return None
        return place if any(place.is_relative_to(folder) for folder in self.allow) else None
