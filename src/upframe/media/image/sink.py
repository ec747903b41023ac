"""ImageSink: write an image file whole or not at all, by part file, fsync, verification and rename."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np

from upframe.errors import OutputError, UpframeError, VerifyError
from upframe.files import PartFile, atomic_file, output_error
from upframe.media.frames import Pixels
from upframe.media.image.encoders import Encoder, make_encoder
from upframe.media.image.fates import fitted
from upframe.media.image.formats import FORMATS
from upframe.media.image.metadata import Metadata
from upframe.media.image.plan import OutputPlan, check_output_size
from upframe.media.image.verify import verify_output


class ImageSink:
    """Writes the frames of one image file; implements `frames.Sink`.

    On a clean exit the file is complete, verified and at `path`. On any error the part file is removed, and a file that was at
    `path` before is unchanged.

    Args:
        path: The file to write; an existing file is replaced.
        plan: Format, depth and channels; bands must have exactly these.
        metadata: Metadata to write, as far as the format can hold it; `plan.ledger` says what it cannot.
        frames: How many frames will be written.
        animated: Whether frames follow each other in time; otherwise they are pages.
        quality: 0 to 100 for lossy formats; None is 95 for JPEG and WebP, 90 for AVIF.

    Raises:
        OutputError: if the file cannot be made or written; the message gives the reason.
        VerifyError: if the number of written frames is wrong, or the file does not read back as planned.
    """

    def __init__(
        self,
        path: Path,
        plan: OutputPlan,
        metadata: Metadata | None = None,
        *,
        frames: int = 1,
        animated: bool = False,
        quality: int | None = None,
    ) -> None:
        self.path = Path(path)
        self._plan = plan
        facts = FORMATS[plan.format]
        self._metadata, _ = fitted(metadata or Metadata(), facts, channels=plan.channels, animated=animated)
        self._frames, self._animated, self._quality = frames, animated, quality
        self._atomic: AbstractContextManager[PartFile] = atomic_file(self.path, check=self._verify)
        self._file: PartFile | None = None
        self._encoder: Encoder | None = None
        self._written = 0
        self._size = (0, 0)

    def __enter__(self) -> Self:
        self._file = self._atomic.__enter__()
        try:
            self._encoder = make_encoder(
                self._file,  # type: ignore[arg-type]  # all that encoders use of a BinaryIO
                self._plan,
                self._metadata,
                frames=self._frames,
                animated=self._animated,
                quality=self._quality,
            )
        except BaseException as error:
            self._atomic.__exit__(type(error), error, error.__traceback__)
            raise
        return self

    def write(
        self,
        bands: Iterable[Pixels],
        size: tuple[int, int],
        *,
        time: Fraction = Fraction(0),
        duration: Fraction | None = None,
    ) -> None:
        """Write one frame; see `frames.Sink.write`. Errors of `bands` pass unchanged.

        Raises:
            ValueError: if a band has another dtype than planned, or the rows do not add up to `size`.
        """
        if self._encoder is None:
            raise ValueError("the sink is not open; use it as a context manager")
        check_output_size(self._plan.format, size, subject=self.path, channels=self._plan.channels, dtype=self._plan.dtype)
        if self._animated and self._written and size != self._size:
            raise ValueError(f"frame {self._written + 1} is {size}, the first is {self._size}")
        self._size = self._size if self._written else size
        checked = _Checked(bands, size, self._plan, self.path)
        rows = iter(checked)
        try:
            self._encoder.frame(rows, size, duration or Fraction(0))
            for _ in rows:  # an encoder may stop before surplus rows, which are an error
                pass
        except Exception as error:
            self._raise_encoding(error, checked.failure)
        self._written += 1

    def _raise_encoding(self, error: Exception, from_bands: BaseException | None) -> None:
        """Raise the actual error: the producer's, a file error, or the codec's."""
        if from_bands is not None:
            raise from_bands
        if isinstance(error, UpframeError | MemoryError):
            raise error
        assert self._file is not None
        if self._file.failure is not None:
            raise output_error(self.path, self._file.failure) from error
        raise OutputError(self.path, f"the {self._plan.format} encoder failed ({error})", "try `format='png'`") from error

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if error is None:
            try:
                self._finish()
            except BaseException as failure:
                self._atomic.__exit__(type(failure), failure, failure.__traceback__)
                raise
        self._atomic.__exit__(kind, error, trace)

    def _finish(self) -> None:
        assert self._encoder is not None
        if self._written != self._frames:
            raise VerifyError(self.path, f"{self._written} of {self._frames} frames were written", "run it again")
        try:
            self._encoder.finish()
        except Exception as error:
            self._raise_encoding(error, None)

    def _verify(self, part: Path) -> None:
        verify_output(part, self._plan, self._size, self._frames)


class _Checked:
    """Checks bands and passes them on one by one; remembers an error of their producer."""

    def __init__(self, bands: Iterable[Pixels], size: tuple[int, int], plan: OutputPlan, path: Path) -> None:
        self._bands, self._size, self._plan, self._path = bands, size, plan, path
        self.failure: BaseException | None = None

    def __iter__(self) -> Iterator[Pixels]:
        try:
            yield from self._checked()
        except GeneratorExit:
            raise
        except BaseException as error:
            self.failure = error
            raise

    def _checked(self) -> Iterator[Pixels]:
        (height, width), plan, rows = self._size, self._plan, 0
        for band in self._bands:
            if band.ndim != 3 or band.shape[1:] != (width, plan.channels) or band.dtype != plan.dtype:
                raise ValueError(
                    f"band {band.shape} {band.dtype} does not fit a row of {width} pixels with {plan.channels} {plan.dtype}"
                )
            if plan.dtype.kind == "f" and not np.isfinite(band).all():
                raise VerifyError(self._path, "the result holds NaN or infinite values", "report this with the input")
            rows += len(band)
            if rows > height:
                break
            if len(band):
                yield band
        if rows != height:
            raise ValueError(f"bands hold {rows} rows or more, expected {height}")
