"""Verify that a written file matches its plan. Cheap for huge pictures; finds every incomplete write."""

from __future__ import annotations

import os
import zlib
from pathlib import Path
from typing import BinaryIO

from upframe.errors import InputError, VerifyError
from upframe.media.frames import MediaInfo
from upframe.media.image.decoder import Limits
from upframe.media.image.opening import open_regular
from upframe.media.image.plan import OutputPlan

_EXACT_CHANNELS = ("png", "tiff", "jpeg", "bmp")
"""Formats whose header keeps the difference between gray and colour; the others state only whether there is alpha."""


def verify_output(path: Path, plan: OutputPlan, size: tuple[int, int], frames: int) -> None:
    """Check that `path` holds `frames` frames of `size` (height, width) as planned, and that it is complete.

    For PNG every checksum is computed. For the others the header is read and the structure is read to its end. Cost:
    one sequential read of a PNG; little for anything else.

    Raises:
        VerifyError: if the file differs; the message names the difference.
    """
    from upframe.media.image.source import probe

    try:
        info = probe(path, limits=Limits(max_pixels=max(size[0] * size[1], 1 << 20)))
        difference = _difference(info, plan, size, frames)
        if not difference:
            _check_complete(path, plan.format)
    except (InputError, OSError, SyntaxError, ValueError) as error:
        raise VerifyError(path, f"the written file cannot be read back ({error})", "write it again") from error
    if difference:
        raise VerifyError(path, f"the written file has {difference}", "write it again")


def _difference(info: MediaInfo, plan: OutputPlan, size: tuple[int, int], frames: int) -> str:
    """Describe the difference between the file and the plan; empty if there is none."""
    if info.format != plan.format:
        return f"format {info.format} instead of {plan.format}"
    if info.size != size:
        return f"size {info.size[1]}x{info.size[0]} instead of {size[1]}x{size[0]}"
    if info.frames != frames:
        return f"{info.frames} frames instead of {frames}"
    if info.dtype != plan.dtype:
        return f"{info.dtype} samples instead of {plan.dtype}"
    damage = [notice.message for notice in info.notices if notice.id in ("end-damaged", "metadata-damaged")]
    if damage:
        return f"damage ({damage[0]})"
    if plan.format in _EXACT_CHANNELS:
        return "" if info.channels == plan.channels else f"{info.channels} channels instead of {plan.channels}"
    # Encoders drop an alpha channel that is opaque everywhere, so only a surplus one is wrong.
    return "transparency that the plan does not have" if info.has_alpha and plan.channels in (1, 3) else ""


def _check_complete(path: Path, format: str) -> None:
    """Read the structure of a file to its end.

    Raises:
        ValueError: if it ends early or a checksum is wrong.
    """
    with open_regular(path) as file:
        if format == "png":
            _check_png(file)
        elif format == "jpeg":
            file.seek(-2, os.SEEK_END)
            if file.read() != b"\xff\xd9":
                raise ValueError("it has no end marker")
        elif format == "bmp":
            file.seek(2)
            stated, present = int.from_bytes(file.read(4), "little"), file.seek(0, os.SEEK_END)
            if stated != present:
                raise ValueError(f"it is {present} bytes long and says {stated}")
        elif format == "tiff":
            _check_tiff(file)
        else:  # WebP, AVIF and GIF: probing has checked their lengths and ends
            from PIL import Image

            with Image.open(file) as image:
                image.verify()


def _check_png(file: BinaryIO) -> None:
    file.seek(8)
    while True:
        head = file.read(8)
        if len(head) < 8:
            raise ValueError("it ends before its closing chunk")
        left, check = int.from_bytes(head[:4], "big"), zlib.crc32(head[4:])
        while left:
            data = file.read(min(left, 1 << 20))
            if not data:
                raise ValueError("it ends within a chunk")
            left -= len(data)
            check = zlib.crc32(data, check)
        if file.read(4) != check.to_bytes(4, "big"):
            raise ValueError("a checksum is wrong")
        if head[4:] == b"IEND":
            return


def _check_tiff(file: BinaryIO) -> None:
    import tifffile

    end = file.seek(0, os.SEEK_END)
    file.seek(0)
    with tifffile.TiffFile(file) as tiff:
        for page in tiff.pages:
            places = list(zip(page.dataoffsets, page.databytecounts, strict=True))
            if not places or any(count < 1 or offset + count > end for offset, count in places):
                raise ValueError("strips are missing")
