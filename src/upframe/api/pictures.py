"""`upscale` and `Upscaler`: enlarge pictures of any kind; the result has the kind of the input."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar, overload

import numpy as np

from upframe.api import kinds
from upframe.api.arguments import Progress, Size, check_callbacks, chosen_model, chosen_options, factor_of
from upframe.api.kinds import Held
from upframe.api.streams import Cutting, FrameStream
from upframe.errors import Notice, OptionError, UsageError
from upframe.media.frames import Pixels
from upframe.models.registry import Model
from upframe.upscaling import images
from upframe.upscaling.options import UpscaleOptions

if TYPE_CHECKING:
    from upframe.jobs.options import JobOptions

log = logging.getLogger(__name__)

Picture = TypeVar("Picture")
"""A Pillow image, a NumPy array or a torch tensor."""


class Upscaler:
    """One model for many pictures: nothing is loaded or prepared twice.

    Accepts and returns the same kinds as `upscale`. Calls and `close` from several threads wait for each other; `bands` is for
    one thread at a time. As a context manager it releases the device's memory at the end.

    Args:
        model: A name, the path of a weights file, or a `Model`; None is the shipped one for `scale`.
        scale: Enlargement for calls that state no size; None is the model's scale.
        device: "auto", "cpu", "cuda", "cuda:N" or "mps".
        precision: "auto", "fp32", "bf16" or "fp16".
        options: How to cut and compute pictures.
        on_progress: Called with the finished share of the current picture, 0 to 1.
        cancel: A `threading.Event`; once it is set, the next tile raises `Cancelled`.

    Raises:
        UsageError: naming the argument that does not fit.
        ModelError: if the weights are absent or unsafe, or do not fit the network.
        ResourceError: if this machine does not have the device.

    Example:
        >>> import numpy as np, upframe
        >>> with upframe.Upscaler("photo-x2") as up:
        ...     up(np.zeros((20, 30, 3), np.uint8)).shape
        (40, 60, 3)
    """

    def __init__(
        self,
        model: str | Path | Model | None = None,
        *,
        scale: float | None = None,
        device: str = "auto",
        precision: str = "auto",
        options: UpscaleOptions | None = None,
        on_progress: Progress | None = None,
        cancel: threading.Event | None = None,
    ) -> None:
        self._size = Size(scale=scale)
        check_callbacks(on_progress, cancel)
        self.model = chosen_model(model, factor_of(self._size))
        self.options = chosen_options(options, device, precision, model=self.model)
        self.on_progress, self.cancel = on_progress, cancel
        self._lock = threading.RLock()  # `on_progress` may close it
        self._pictures: images.Upscaler | None = None
        self._stream: FrameStream | None = None
        if self.model.spec.window is None:
            self._pictures = images.Upscaler(self.model, self.options, cancel=cancel)
        else:
            self._stream = FrameStream(self.model, self.options, Cutting(), cancel)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Release the device's memory; later calls raise UsageError. A second call does nothing."""
        with self._lock:
            for one in (self._pictures, self._stream):
                if one is not None:
                    one.close()
            self._pictures = self._stream = None

    @property
    def notices(self) -> list[Notice]:
        """All notices so far, for instance of smaller tiles because memory ran out."""
        return [notice for one in (self._pictures, self._stream) if one is not None for notice in one.notices]

    @overload
    def __call__(
        self,
        x: str | Path,
        *,
        output: str | Path | None = None,
        overwrite: bool = False,
        scale: float | None = None,
        size: tuple[int, int] | None = None,
        width: int | None = None,
        height: int | None = None,
        long_side: int | None = None,
        short_side: int | None = None,
        megapixels: float | None = None,
    ) -> Path: ...

    @overload
    def __call__(
        self,
        x: Picture,
        *,
        scale: float | None = None,
        size: tuple[int, int] | None = None,
        width: int | None = None,
        height: int | None = None,
        long_side: int | None = None,
        short_side: int | None = None,
        megapixels: float | None = None,
    ) -> Picture: ...

    def __call__(
        self,
        x: Any,
        *,
        output: str | Path | None = None,
        overwrite: bool = False,
        scale: float | None = None,
        size: tuple[int, int] | None = None,
        width: int | None = None,
        height: int | None = None,
        long_side: int | None = None,
        short_side: int | None = None,
        megapixels: float | None = None,
    ) -> Any:
        """Enlarge `x`; the result has its kind. The arguments are those of `upscale`.

        Example:
            >>> import numpy as np, upframe
            >>> upframe.Upscaler("photo-x2")(np.zeros((20, 30), np.uint16), width=50).shape
            (33, 50)
        """
        wanted = self._wanted(scale, size, width, height, long_side, short_side, megapixels)
        if kinds.is_path(x):
            from upframe.api.files import upscale_path  # imported here: pixels alone need no codec

            with self._lock:
                self._check_open()
                return upscale_path(
                    x,
                    output=output,
                    overwrite=overwrite,
                    size=wanted,
                    model=self.model,
                    device="auto",
                    precision="auto",
                    options=self.options,
                    on_progress=self.on_progress,
                    cancel=self.cancel,
                )
        check_only_for_paths(output, overwrite)
        held = kinds.held(x)
        check_layout(held, self.model)
        with self._lock:
            self._check_open()
            return held.restore(self._clips(held, wanted))

    def bands(self, x: Pixels, *, scale: float | None = None, size: tuple[int, int] | None = None) -> Iterator[Pixels]:
        """Yield the enlarged array (H, W, C) as bands of full-width rows, top to bottom, holding one row of tiles at a time.

        Args:
            x: An array (H, W) or (H, W, C).
            scale, size: As of `upscale`.

        Raises:
            UsageError: for anything else, or for a video network.

        Example:
            >>> import numpy as np, upframe
            >>> up = upframe.Upscaler("photo-x2")
            >>> sum(len(rows) for rows in up.bands(np.zeros((20, 30, 3), np.uint8)))
            40
        """
        wanted = self._wanted(scale, size, None, None, None, None, None)
        if not isinstance(x, np.ndarray) or x.ndim not in (2, 3):
            raise UsageError(
                "x", f"is of type {type(x).__name__}, expected an array (H, W) or (H, W, C)", "call the Upscaler itself"
            )
        held = kinds.held(x)
        check_layout(held, self.model)
        self._check_open()
        return self._bands(held, wanted)

    def _bands(self, held: Held, wanted: Size) -> Iterator[Pixels]:
        assert self._pictures is not None
        self._pictures.on_tile = self._tile_listener(0, 1)
        size = wanted.of(held.size, native=self.model.scale)
        for rows in self._pictures.bands(held.clips[0][0], size=size):
            yield held.restore([[rows]])

    def _clips(self, held: Held, wanted: Size) -> list[list[Pixels]]:
        count = sum(map(len, held.clips))
        size = wanted.of(held.size, native=self.model.scale)
        done = 0
        made: list[list[Pixels]] = []
        for clip in held.clips:
            if self._pictures is not None:
                out = []
                for frame in clip:
                    self._pictures.on_tile = self._tile_listener(done, count)
                    out.append(np.concatenate(list(self._pictures.bands(frame, size=size))))
                    done += 1
            else:
                assert self._stream is not None
                out = []
                for frame in self._stream.frames(clip, wanted):
                    out.append(frame)
                    done += 1
                    if self.on_progress is not None:
                        self.on_progress(done / count)
            made.append(out)
        return made

    def _tile_listener(self, before: int, count: int) -> Any:
        return None if self.on_progress is None else partial(_tell_tiles, self.on_progress, before, count)

    def _wanted(self, scale: float | None, size: tuple[int, int] | None, *others: Any) -> Size:
        wanted = Size(scale, size, *others)
        return self._size if wanted == Size() else wanted

    def _check_open(self) -> None:
        if self._pictures is None and self._stream is None:
            raise UsageError("Upscaler", "is closed", "make another one")


def _tell_tiles(on_progress: Progress, before: int, count: int, done: int, total: int) -> None:
    on_progress((before + done / total) / count)


def check_layout(held: Held, model: Model) -> None:
    """Refuse pictures for a video network, and channels that the network does not support.

    Raises:
        UsageError: naming `x`.
    """
    if model.spec.window is None:
        return
    if not held.has_time:
        advice = "add a time axis to a tensor: x[None]; of an array pass (N, H, W, C); or choose a photo model"
        raise UsageError("x", f"is {held.kind} without an axis for time, which {model.name}, a video network, needs", advice)
    for clip in held.clips:
        kinds.as_rgb(clip[:1])


def check_only_for_paths(output: object, overwrite: object) -> None:
    """Refuse arguments that apply only if `x` is a path.

    Raises:
        OptionError: naming the argument.
    """
    if output is not None:
        raise OptionError("output", output, "is for paths alone; here the result is returned", "remove this argument")
    if overwrite is not False:
        raise OptionError("overwrite", overwrite, "is for paths alone; here the result is returned", "remove this argument")


@overload
def upscale(
    x: str | Path,
    *,
    scale: float | None = None,
    size: tuple[int, int] | None = None,
    width: int | None = None,
    height: int | None = None,
    long_side: int | None = None,
    short_side: int | None = None,
    megapixels: float | None = None,
    model: str | Path | Model | None = None,
    output: str | Path | None = None,
    overwrite: bool = False,
    device: str = "auto",
    precision: str = "auto",
    options: JobOptions | UpscaleOptions | None = None,
    on_progress: Progress | None = None,
    cancel: threading.Event | None = None,
) -> Path: ...


@overload
def upscale(
    x: Picture,
    *,
    scale: float | None = None,
    size: tuple[int, int] | None = None,
    width: int | None = None,
    height: int | None = None,
    long_side: int | None = None,
    short_side: int | None = None,
    megapixels: float | None = None,
    model: str | Path | Model | None = None,
    device: str = "auto",
    precision: str = "auto",
    options: UpscaleOptions | None = None,
    on_progress: Progress | None = None,
    cancel: threading.Event | None = None,
) -> Picture: ...


def upscale(
    x: Any,
    *,
    scale: float | None = None,
    size: tuple[int, int] | None = None,
    width: int | None = None,
    height: int | None = None,
    long_side: int | None = None,
    short_side: int | None = None,
    megapixels: float | None = None,
    model: str | Path | Model | None = None,
    output: str | Path | None = None,
    overwrite: bool = False,
    device: str = "auto",
    precision: str = "auto",
    options: JobOptions | UpscaleOptions | None = None,
    on_progress: Progress | None = None,
    cancel: threading.Event | None = None,
) -> Any:
    """Enlarge a picture, a stack of pictures, a clip or a file; the result has the kind of the input.

    Args:
        x: One of

            * a path of a picture or video: the result is written, and its path (a `pathlib.Path`) returned;
            * a Pillow image: an image of the same mode, with its profile, EXIF and resolution;
            * a NumPy array (H, W), (H, W, C) or (N, H, W, C) of uint8, uint16, float16, float32 or float64;
            * a torch tensor (C, H, W), (N, C, H, W) or (N, T, C, H, W) of uint8, uint16 or any float type, on any device.

            C is 1 gray, 2 gray + alpha, 3 RGB or 4 RGB + alpha (straight). Integers span their range, floats lie in [0, 1].
            With a video network N of an array counts the frames of one clip, and tensors are (N, T, C, H, W).
        scale: Output pixels per input pixel along each side; None, with no other size, is the model's scale.
        size: (height, width) of the output, in pixels.
        width, height: One of them keeps the proportions; both set the size.
        long_side, short_side: Pixels of the longer or the shorter side.
        megapixels: Millions of pixels of the output.
        model: A name, the path of a weights file, or a `Model`; None is the shipped one for the size.
        output: For a path: the file to write; None names one beside the input. If the file already exists and is the planned
            output, it is kept and its path returned.
        overwrite: For a path: whether to replace an existing output.
        device: "auto", "cpu", "cuda", "cuda:N" or "mps". "auto" computes a tensor on its own device, if that is not the CPU.
        precision: "auto", "fp32", "bf16" or "fp16".
        options: How to cut and compute pictures; for a path also a `JobOptions`.
        on_progress: Called with the finished share, 0 to 1.
        cancel: A `threading.Event`; once it is set, the next tile raises `Cancelled`.

    Raises:
        UsageError: naming the argument that does not fit.
        UpframeError: of a class in `upframe.errors`, if the work failed.

    Example:
        >>> import numpy as np, upframe
        >>> upframe.upscale(np.zeros((20, 30, 3), np.uint8), scale=2).shape
        (40, 60, 3)
    """
    wanted = Size(scale, size, width, height, long_side, short_side, megapixels)
    check_callbacks(on_progress, cancel)
    if kinds.is_path(x):
        from upframe.api.files import upscale_path  # imported here: pixels alone need no codec

        return upscale_path(
            x,
            output=output,
            overwrite=overwrite,
            size=wanted,
            model=model,
            device=device,
            precision=precision,
            options=options,
            on_progress=on_progress,
            cancel=cancel,
        )
    check_only_for_paths(output, overwrite)
    if options is not None and not isinstance(options, UpscaleOptions):
        raise OptionError("options", options, "must be an upframe.UpscaleOptions; only paths take an upframe.JobOptions")
    held = kinds.held(x)
    chosen = chosen_model(model, _factor(wanted, held))
    used = chosen_options(options, device, precision, model=chosen, near=held.device)
    check_layout(held, chosen)
    with Upscaler(chosen, options=used, on_progress=on_progress, cancel=cancel) as up:
        made = up(
            x,
            scale=scale,
            size=size,
            width=width,
            height=height,
            long_side=long_side,
            short_side=short_side,
            megapixels=megapixels,
        )
        for notice in up.notices:
            log.warning("%s", notice)
    return made


def _factor(wanted: Size, held: Held) -> float:
    """Enlargement for choosing a model."""
    if wanted == Size():
        return factor_of(wanted)
    made = wanted.of(held.size, native=1)
    return max(made[0] / held.size[0], made[1] / held.size[1])
