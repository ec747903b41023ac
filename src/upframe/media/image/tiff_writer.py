"""Write TIFF in a stream: strips are compressed as they arrive, so no page is held."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable, Iterator
from fractions import Fraction
from typing import Any, BinaryIO

import numpy as np
import tifffile
from PIL import Image, TiffImagePlugin

from upframe.media.frames import Pixels
from upframe.media.image.metadata import EXIF_PREFIX, Metadata, exif_for_size
from upframe.media.image.plan import OutputPlan

_STRIP_BYTES = 1 << 19
_LEVEL = 4  # level of zlib, as for PNG
_CLASSIC_TIFF_BYTES = 2**32 - 2**25  # offsets are 32-bit; leave room for directories and incompressible data


class TiffEncoder:
    """Writes pages in order: Deflate, with the horizontal predictor for integers; EXIF goes to the first page."""

    def __init__(self, out: BinaryIO, plan: OutputPlan, metadata: Metadata, frames: int) -> None:
        self._out, self._plan, self._metadata, self._frames = out, plan, metadata, frames
        self._writer: tifffile.TiffWriter | None = None
        self._big = False
        self._exif: Image.Exif | None = None

    def frame(self, bands: Iterator[Pixels], size: tuple[int, int], duration: Fraction) -> None:
        plan, metadata, (height, width) = self._plan, self._metadata, size
        row_bytes = width * plan.channels * plan.dtype.itemsize
        first = self._writer is None
        if self._writer is None:
            self._big = height * row_bytes * self._frames > _CLASSIC_TIFF_BYTES
            self._writer = tifffile.TiffWriter(self._out, bigtiff=self._big, byteorder="<")
            self._exif = _load_exif(metadata.exif, size)
        rows = max(1, min(height, _STRIP_BYTES // row_bytes))
        colours = 1 if plan.channels < 3 else 3
        self._writer.write(
            _strips(bands, rows),
            shape=(height, width, plan.channels) if plan.channels > 1 else (height, width),
            dtype=plan.dtype,
            photometric="minisblack" if colours == 1 else "rgb",
            planarconfig="contig" if plan.channels > 1 else None,
            extrasamples=["unassalpha"] if plan.channels in (2, 4) else None,
            rowsperstrip=rows,
            compression="zlib",
            predictor=2 if plan.dtype.kind == "u" else None,
            iccprofile=metadata.icc,
            resolution=metadata.dpi,
            resolutionunit="inch" if metadata.dpi else None,
            software=False,
            metadata=None,
            extratags=self._tags(size) if first else [],
        )

    def _tags(self, size: tuple[int, int]) -> list[tuple[int, int, int, Any, bool]]:
        """Descriptive tags of the first page; the Exif directories are only reserved here, `finish` adds them."""
        tags: list[tuple[int, int, int, Any, bool]] = []
        described = dict(self._metadata.text).get("Description")
        texts = {270: described} if described else {}
        for code in (270, 271, 272, 305, 306, 315, 33432):
            value = self._exif.get(code) if self._exif is not None else None
            texts.update({code: value} if isinstance(value, str) and value else {})
        tags += [(code, 2, 0, value, True) for code, value in texts.items()]
        xmp = self._metadata.xmp_for(size)
        if xmp:
            tags.append((700, 1, len(xmp), xmp, True))
        if self._metadata.photoshop:
            tags.append((34377, 1, len(self._metadata.photoshop), self._metadata.photoshop, True))
        tags += [(code - 1, 16 if self._big else 4, 1, 0, True) for code in self._directories()]
        return tags

    def _directories(self) -> list[int]:
        """List which of the Exif and GPS directories exist."""
        return [code for code in (34665, 34853) if self._exif is not None and self._exif.get_ifd(code)]

    def finish(self) -> None:
        assert self._writer is not None
        self._writer.close()
        places = {}
        head = b"II+\x00\x08\x00\x00\x00" + bytes(8) if self._big else b"II*\x00" + bytes(4)
        for code in self._directories():
            assert self._exif is not None
            directory = TiffImagePlugin.ImageFileDirectory_v2(head)
            for tag, value in self._exif.get_ifd(code).items():
                if not isinstance(value, dict):
                    directory[tag] = value
            at = self._out.seek(0, 2)
            self._out.write(bytes(at % 2))  # directories start on even offsets
            places[code] = at + at % 2
            self._out.write(directory.tobytes(places[code]))
        self._out.flush()
        # tifffile does not write such pointers, so each entry was reserved under the preceding tag number, which is unused.
        if places:
            self._out.seek(0)
            with tifffile.TiffFile(self._out) as written:
                entries = {code: written.pages.first.tags[code - 1].offset for code in places}
            for code, at in places.items():
                kind, entry = ("<HHQQ", 16) if self._big else ("<HHII", 4)
                self._out.seek(entries[code])
                self._out.write(struct.pack(kind, code, entry, 1, at))


def _strips(bands: Iterable[Pixels], rows: int) -> Iterator[bytes]:
    """Regroup bands into compressed strips of `rows` rows; the last one may be shorter."""
    held: list[Pixels] = []
    count = 0
    for band in bands:
        held.append(band)
        count += len(band)
        while count >= rows:
            joined = np.concatenate(held) if len(held) > 1 else held[0]
            yield _strip(joined[:rows])
            held, count = [joined[rows:]], count - rows
    if count:
        yield _strip(np.concatenate(held))


def _strip(rows: Pixels) -> bytes:
    """Compress one strip. tifffile streams compressed strips, but gathers whole pages of uncompressed ones."""
    coded = rows.astype(rows.dtype.newbyteorder("<"))
    if rows.dtype.kind == "u":  # horizontal differencing, TIFF 6.0, section 14; wraps around by definition
        coded[:, 1:] -= rows[:, :-1]
    return zlib.compress(coded.tobytes(), _LEVEL)


def _load_exif(exif: bytes | None, size: tuple[int, int]) -> Image.Exif | None:
    if exif is None:
        return None
    loaded = Image.Exif()
    loaded.load(EXIF_PREFIX + exif_for_size(exif, size))
    return loaded
