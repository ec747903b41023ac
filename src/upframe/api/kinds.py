"""Kinds of pictures in a program: Pillow images, arrays and tensors. The result has the kind of the input.

The type decides the kind, the axes decide the layout, the dtype decides the range. Nothing is guessed from values, and a layout
with two meanings is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from upframe.errors import UsageError
from upframe.media.frames import Pixels
from upframe.models.calling import check_range

CHANNELS = (1, 2, 3, 4)
ARRAY_DTYPES = ("uint8", "uint16", "float16", "float32", "float64")
TENSOR_DTYPES = (torch.uint8, torch.uint16, torch.float16, torch.bfloat16, torch.float32, torch.float64)
EXPECTED = (
    "a path, a Pillow image, an array (H, W), (H, W, C) or (N, H, W, C), or a tensor (C, H, W), (N, C, H, W) or (N, T, C, H, W)"
)


@dataclass(frozen=True)
class Held:
    """Pictures taken from an input, and the function that turns results into the input's kind."""

    clips: list[list[Pixels]]
    """Frames (H, W, C) of uint8, uint16 or float32 in [0, 1]; one clip, unless the input has an axis for clips."""
    has_time: bool | None
    """Whether frames of a clip follow each other in time; None if the axis may mean either."""
    restore: Callable[[list[list[Pixels]]], Any]
    """Converts enlarged `clips` to the input's kind."""
    device: str = "cpu"
    """Device of the input."""
    kind: str = ""
    """Description for messages: kind, dtype and layout, without sizes."""

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of the frames."""
        height, width = self.clips[0][0].shape[:2]
        return height, width

    @property
    def channels(self) -> int:
        return int(self.clips[0][0].shape[2])


def is_path(x: object) -> bool:
    return isinstance(x, str | Path)


def is_pillow(x: object) -> bool:
    """Whether `x` is a Pillow image. Pillow is not imported."""
    return any(kind.__module__ == "PIL.Image" and kind.__name__ == "Image" for kind in type(x).__mro__)


def held(x: object) -> Held:
    """The pictures in `x`.

    Raises:
        UsageError: naming `x`, its kind, and the expected kinds.
    """
    if is_pillow(x):
        return _of_image(x)
    if isinstance(x, np.ma.MaskedArray):
        raise UsageError("x", "is a masked array, whose mask has no counterpart in the result", "write x.filled(...)")
    if isinstance(x, np.ndarray):
        return _of_array(x)
    if isinstance(x, Tensor):
        return _of_tensor(x)
    raise UsageError("x", f"is of type {type(x).__name__}, expected {EXPECTED}", _advice(x))


def _advice(x: object) -> str:
    if isinstance(x, list | tuple):
        return "stack pictures of one size with np.stack, or enlarge them one by one with an Upscaler"
    if isinstance(x, bytes | bytearray):
        return "open an encoded picture with PIL.Image.open(io.BytesIO(x))"
    return "write np.asarray(x)" if hasattr(x, "__array__") else ""


# Pillow ---------------------------------------------------------------------------------------------------------------
def _of_image(x: Any) -> Held:
    from upframe.media.image import in_memory  # imported here: the caller holds a Pillow image, so Pillow is loaded already

    if 0 in x.size:
        raise UsageError("x", f"is empty: an image of {x.size[0]}x{x.size[1]} pixels")
    pixels = in_memory.pixels_of(x)
    if pixels.dtype == np.float32:
        check_range(torch.from_numpy(np.array(pixels)))
    return Held([[pixels]], None, lambda made: in_memory.image_of(made[0][0], x), kind=f"an image of mode {x.mode}")


# Arrays ---------------------------------------------------------------------------------------------------------------
def _of_array(x: NDArray[Any]) -> Held:
    found = f"{'an' if x.dtype.name.startswith('u') else 'a'} {x.dtype.name} array {x.shape}".replace("an u", "a u")
    if x.dtype.name not in ARRAY_DTYPES:
        advice = "write x.astype(np.uint8) * 255" if x.dtype == bool else "convert it: the range of other dtypes is not known"
        raise UsageError("x", f"is {found}, expected {', '.join(ARRAY_DTYPES[:-1])} or {ARRAY_DTYPES[-1]}", advice)
    if x.ndim not in (2, 3, 4):
        raise UsageError("x", f"is {found}, expected (H, W), (H, W, C) or (N, H, W, C)")
    if x.size == 0:
        raise UsageError("x", f"is empty: {found}")
    if x.ndim > 2 and x.shape[-1] not in CHANNELS:
        if x.shape[-3] in CHANNELS:
            axes = "(1, 2, 0)" if x.ndim == 3 else "(0, 2, 3, 1)"
            raise UsageError("x", f"is {found}, which looks like channels first", f"pass a tensor, or x.transpose{axes}")
        happened = f"is {found} with {x.shape[-1]} channels, expected 1 gray, 2 gray + alpha, 3 RGB or 4 RGB + alpha"
        raise UsageError("x", happened, "for gray pictures add an axis: x[..., None]" if x.ndim == 3 else "")
    work = x.astype(np.float32) if x.dtype.kind == "f" else x.astype(x.dtype.newbyteorder("="), copy=False)
    if work.dtype == np.float32:
        check_range(torch.from_numpy(np.ascontiguousarray(work)))
    frames = list(work) if x.ndim == 4 else [work[..., None] if x.ndim == 2 else work]

    def restore(made: list[list[Pixels]]) -> NDArray[Any]:
        out = np.stack(made[0]) if x.ndim == 4 else made[0][0][..., 0] if x.ndim == 2 else made[0][0]
        return out.astype(x.dtype, copy=False)

    layout = {2: "(H, W)", 3: f"(H, W, {x.shape[-1]})", 4: f"(N, H, W, {x.shape[-1]})"}[x.ndim]
    return Held([frames], True if x.ndim == 4 else None, restore, kind=f"an array {layout} of {x.dtype.name}")


# Tensors --------------------------------------------------------------------------------------------------------------
def _of_tensor(x: Tensor) -> Held:
    found = f"a tensor {tuple(x.shape)} of {str(x.dtype).removeprefix('torch.')}"
    if x.layout != torch.strided or x.is_quantized or x.device.type == "meta":
        raise UsageError("x", f"is {found} without plain values (sparse, quantized or meta)", "write x.to_dense()")
    if x.dtype not in TENSOR_DTYPES:
        names = ", ".join(str(dtype).removeprefix("torch.") for dtype in TENSOR_DTYPES)
        raise UsageError("x", f"is {found}, expected one of {names}", "convert it: the range of other dtypes is not known")
    if x.ndim not in (3, 4, 5):
        advice = "add an axis for channels: x[None]" if x.ndim == 2 else ""
        raise UsageError("x", f"is {found}, expected (C, H, W), (N, C, H, W) or (N, T, C, H, W)", advice)
    if x.numel() == 0:
        raise UsageError("x", f"is empty: {found}")
    if x.shape[-3] not in CHANNELS:
        if x.shape[-1] in CHANNELS:
            advice = "write x.permute(2, 0, 1)" if x.ndim == 3 else "write x.movedim(-1, -3)"
            raise UsageError("x", f"is {found}, which looks like channels last", advice)
        raise UsageError("x", f"is {found} with {x.shape[-3]} channels, expected 1, 2, 3 or 4")
    work = x.detach()
    if x.is_floating_point():
        work = work.float()
        check_range(work)
    rows = work.cpu().movedim(-3, -1).numpy()
    frames = list(rows.reshape(-1, *rows.shape[-3:]))
    per_clip = x.shape[1] if x.ndim == 5 else len(frames)
    clips = [frames[i : i + per_clip] for i in range(0, len(frames), per_clip)]
    is_channels_last = x.ndim == 4 and not x.is_contiguous() and x.is_contiguous(memory_format=torch.channels_last)

    def restore(made: list[list[Pixels]]) -> Tensor:
        out = torch.from_numpy(np.stack([frame for clip in made for frame in clip])).movedim(-1, -3)
        out = out.reshape(*x.shape[:-3], *out.shape[1:]).to(x.device, x.dtype)
        return out.contiguous(memory_format=torch.channels_last if is_channels_last else torch.contiguous_format)

    layout = ("N, " if x.ndim > 3 else "") + ("T, " if x.ndim == 5 else "") + f"{x.shape[-3]}, H, W"
    kind = f"a tensor ({layout}) of {str(x.dtype).removeprefix('torch.')}"
    return Held(clips, x.ndim == 5, restore, device=str(x.device), kind=kind)


# Frames of video networks ---------------------------------------------------------------------------------------------
def as_rgb(frames: Sequence[Pixels]) -> list[Pixels]:
    """Frames (H, W, 3) for a video network; gray ones are repeated.

    Raises:
        UsageError: naming `x`, for frames with alpha.
    """
    channels = frames[0].shape[2]
    if channels in (2, 4):
        raise UsageError("x", "has an alpha channel, which video networks do not take", "drop it: x[..., :-1] of an array")
    return [np.repeat(frame, 3, axis=2) if channels == 1 else frame for frame in frames]


def as_gray(frame: Pixels) -> Pixels:
    """Convert a picture (H, W, 3) that a network made from a gray one to (H, W, 1), by the luma weights of BT.601."""
    gray = frame.astype(np.float32) @ np.array([[0.299], [0.587], [0.114]], np.float32)
    return gray if frame.dtype.kind == "f" else np.rint(gray).astype(frame.dtype)
