"""TIFF and BigTIFF decoding at full depth: 1 to 16-bit and float samples, strips and tiles, pages, alpha, CMYK, Lab.

tifffile reads the structure and decompresses; Pillow's libtiff decodes the 8-bit compressions for which tifffile needs
`imagecodecs` (JPEG, CCITT). Source of the tags: TIFF 6.0 and its Photoshop notes.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image, TiffImagePlugin

from upframe.media.frames import Frame, MediaInfo, Pixels
from upframe.media.image.cms import cmyk_profile, cmyk_to_rgb, lab_to_rgb
from upframe.media.image.decoder import Reading, codec, turn_back
from upframe.media.image.lzw import lzw_decode
from upframe.media.image.metadata import Metadata, clean_exif, iptc_block

_LOG = logging.getLogger(__name__)

_MIN_IS_WHITE, _MIN_IS_BLACK, _RGB, _PALETTE, _SEPARATED, _YCBCR, _CIELAB, _ICCLAB, _CFA = 0, 1, 2, 3, 5, 6, 8, 9, 32803
_LZW = 5
_ASSOCIATED, _UNASSOCIATED = 1, 2
_DNG_VERSION = 50706

_KEPT_TAGS = (270, 271, 272, 274, 305, 306, 315, 33432)
"""Directory tags that describe the picture and not its storage: description to copyright."""
_EXIF_IFD, _GPS_IFD = 34665, 34853
_CARRIED_TAGS = (282, 283, 296, 700, 33723, 34377, 34675, _EXIF_IFD, _GPS_IFD)
_OF_A_PAGE = (*(code for code in _KEPT_TAGS if code != 274), 700, 33723, 34377, 34675, _EXIF_IFD, _GPS_IFD)
_CODING_TAGS = (
    *range(254, 267), 273, 277, 278, 279, 280, 281, 284, 286, 287, 288, 289, 290, 291, 292, 293, 297, 301, 317, 318, 319, 320,
    *range(321, 329), 332, 334, 336, 338, 339, 340, 341, 342, 347, *range(512, 522), *range(529, 533), 559, 40965,
)  # fmt: skip
"""Tags that say how pixels are stored."""


@dataclass(frozen=True)
class _Layout:
    """Layout of one page's samples."""

    photometric: int
    colours: int
    """Number of stored colour samples per pixel."""
    alpha: int | None
    """Index of the alpha sample."""
    premultiplied: bool
    depth: int
    """Stored bits per sample; 16, 32 or 64 for float."""
    is_float: bool
    channels: int
    """Channels of the frame."""
    dtype: np.dtype[Any]
    """Sample type of the frame."""


class TiffDecoder:
    """Decodes TIFF; see `decoder.Decoder`."""

    info: MediaInfo
    metadata: Metadata

    def __init__(self, reading: Reading) -> None:
        self._reading = reading
        with codec(reading, "reading its directory"):
            self._tiff = tifffile.TiffFile(reading.file, name=reading.path.name)
            whole = [page for page in self._tiff.pages if isinstance(page, tifffile.TiffPage)]
            pages = [page for page in whole if not page.subfiletype & 0b101]  # no previews, no masks
        if not pages:
            raise reading.damaged("no page")
        self._pages = pages[:1] if reading.first_frame else pages
        with codec(reading, "reading its tags"):
            first = self._pages[0]
            self._refuse_foreign(first)
            self.metadata = self._read_metadata(first)
            self._orientation = clean_exif(self.metadata.exif).orientation
            self._profile = cmyk_profile(self.metadata.icc) if int(first.photometric) == _SEPARATED else None
            self._layouts = [self._layout(page) for page in self._pages]
        layout = self._layouts[0]
        for number, other in enumerate(self._layouts):
            if (other.channels, other.dtype) != (layout.channels, layout.dtype):
                raise reading.error(
                    f"page 1 has {layout.channels} channels of {layout.dtype}, page {number + 1} has {other.channels} of"
                    f" {other.dtype}",
                    "pass `first_frame`, or split the pages into files",
                )
        self._state_losses(layout)
        self.info = MediaInfo(
            path=reading.path,
            format="tiff",
            size=(first.imagelength, first.imagewidth),
            channels=layout.channels,
            dtype=layout.dtype,
            frames=len(self._pages),
        )

    # Facts ------------------------------------------------------------------------------------------------------------
    def _refuse_foreign(self, page: tifffile.TiffPage) -> None:
        if int(page.photometric) == _CFA or _DNG_VERSION in page.tags:
            raise self._reading.error("is a camera RAW file", "develop it to a 16-bit TIFF or PNG first")
        images = (self._tiff.imagej_metadata or {}).get("images", 1) if self._tiff.is_imagej else 1
        if images > len(self._tiff.pages) and not self._reading.first_frame:
            raise self._reading.error(f"is an ImageJ stack of {images} in one page", "export it as separate pages")
        if page.imagedepth > 1:
            raise self._reading.error("is a volume, not a picture", "export its slices as pages")

    def _state_losses(self, layout: _Layout) -> None:
        reading = self._reading
        if layout.photometric in (_SEPARATED, _CIELAB, _ICCLAB):
            name = "CMYK" if layout.photometric == _SEPARATED else "Lab"
            how = "its profile" if self._profile is not None else "the standard formula"
            reading.changed("pixels", name, f"{name} was converted to sRGB through {how}", "converted-from-cmyk")
            if self._profile is not None and layout.depth > 8:
                detail = f"{layout.depth}-bit CMYK becomes 8-bit on its way through the profile"
                reading.changed("pixels", "depth", detail, "depth-reduced")
        if layout.depth == 1 and layout.channels == 1:
            reading.changed("pixels", "depth", "1-bit picture, becomes 8-bit gray", "one-bit-to-gray")

    def _layout(self, page: tifffile.TiffPage) -> _Layout:
        """Read the layout of one page.

        Raises:
            InputError: for sample types and colour models that upframe does not read.
        """
        reading, photometric, bits = self._reading, int(page.photometric), page.bitspersample
        reading.check_pixels(page.imagelength, page.imagewidth)
        is_float = int(page.sampleformat) == 3
        if not isinstance(bits, int) or int(page.sampleformat) not in (1, 3, 4) or (not is_float and bits > 16):
            raise reading.error(
                f"has samples of {bits} bits, format {int(page.sampleformat)}; upframe reads 1 to 16-bit unsigned and float",
                "convert it to 16-bit or float",
            )
        colours = {_RGB: 3, _YCBCR: 3, _CIELAB: 3, _ICCLAB: 3, _SEPARATED: 4}.get(photometric, 1)
        if photometric not in (_MIN_IS_WHITE, _MIN_IS_BLACK, _RGB, _PALETTE, _SEPARATED, _YCBCR, _CIELAB, _ICCLAB):
            raise reading.error(f"has an unsupported colour model (photometric {photometric})", "convert it to RGB")
        if page.samplesperpixel < colours:
            raise reading.damaged(f"{page.samplesperpixel} samples per pixel for {colours} colours")
        if is_float and photometric not in (_MIN_IS_BLACK, _RGB):
            raise reading.error("has float samples that are neither gray nor RGB", "convert it to RGB")
        extra = [int(kind) for kind in page.extrasamples or ()]
        alpha = next((i for i, kind in enumerate(extra) if kind in (_ASSOCIATED, _UNASSOCIATED)), None)
        if page.samplesperpixel - colours > (alpha is not None):
            detail = "its extra channels are not transparency and are dropped"
            reading.lost("metadata-dropped", ["extra channels"], detail, kind="pixels")
        deep = bits > 8 and not (photometric == _SEPARATED and self._profile is not None)
        if photometric == _PALETTE:
            deep = False
        return _Layout(
            photometric=photometric,
            colours=colours,
            alpha=None if alpha is None else colours + alpha,
            premultiplied=alpha is not None and extra[alpha] == _ASSOCIATED,
            depth=bits,
            is_float=is_float,
            channels=(1 if photometric in (_MIN_IS_WHITE, _MIN_IS_BLACK) else 3) + (alpha is not None),
            dtype=np.dtype(np.float32 if is_float else np.uint16 if deep else np.uint8),
        )

    def _read_metadata(self, page: tifffile.TiffPage) -> Metadata:
        tags = page.tags
        icc, xmp, photoshop, iptc = (_as_bytes(tags.valueof(code)) for code in (34675, 700, 34377, 33723))
        photoshop = photoshop or (iptc_block(iptc) if iptc else None)
        lost = [f"TIFF tag {tag.code} {tag.name}" for tag in tags if tag.code not in _CODING_TAGS + _KEPT_TAGS + _CARRIED_TAGS]
        if lost:
            self._reading.lost("metadata-dropped", lost)
        for number, other in enumerate(self._pages[1:], 2):
            own = [tag for tag in other.tags if tag.code in _OF_A_PAGE and tag.value != tags.valueof(tag.code)]
            if any(not (tag.code == 270 and _is_structural(tag.value)) for tag in own):
                self._reading.lost("metadata-dropped", [f"metadata of page {number}"], "only the first page keeps its metadata")
        return Metadata(icc=icc, exif=self._read_exif(), xmp=xmp, dpi=_dpi(page), photoshop=photoshop)

    def _read_exif(self) -> bytes | None:
        """Collect descriptive tags, Exif and GPS in one EXIF block; None if absent or damaged."""
        file, found = self._reading.file, Image.Exif()
        file.seek(0)
        head = file.read(16 if self._tiff.is_bigtiff else 8)
        try:
            root = _load_directory(file, head, None)
            for tag in _KEPT_TAGS:
                if tag in root and not (tag == 270 and _is_structural(root[tag])):
                    found[tag] = root[tag]
            for tag in (_EXIF_IFD, _GPS_IFD):
                if tag in root:
                    found.get_ifd(tag).update(dict(_load_directory(file, head, root[tag])))
                    found[tag] = found.get_ifd(tag)
            return found.tobytes() if len(found) else None
        except Exception as error:  # any: Pillow raises six kinds on damaged directories, and pixels do not need this
            self._reading.lost("metadata-damaged", ["EXIF"], "its EXIF tags are damaged and were ignored")
            _LOG.debug("%s: EXIF not read: %r", self._reading.path, error)
            return None

    # Pixels -----------------------------------------------------------------------------------------------------------
    def frames(self) -> Iterator[Frame]:
        for number, (page, layout) in enumerate(zip(self._pages, self._layouts, strict=True)):
            with codec(self._reading, "decoding"):
                pixels = self._pixels(page, layout, number)
            yield Frame(pixels)

    def _pixels(self, page: tifffile.TiffPage, layout: _Layout, number: int) -> Pixels:
        samples = self._decode_segments(page)
        if samples is None:
            return self._decode_with_pillow(page, layout)
        depth = layout.depth
        if samples.dtype == np.bool_:
            samples = samples.view(np.uint8)
        if layout.is_float:
            samples = samples.astype(np.float32, copy=False)
        elif layout.photometric != _PALETTE and depth not in (8, 16):  # stretch to the full range of the frame's type
            full = np.iinfo(layout.dtype).max
            scaled = samples.astype(np.uint32) * full
            samples = ((scaled + (2**depth - 1) // 2) // (2**depth - 1)).astype(layout.dtype)
        colour = self._colour(page, samples[..., : layout.colours], layout)
        if layout.alpha is None:
            return np.ascontiguousarray(colour)
        alpha = samples[..., layout.alpha : layout.alpha + 1]
        if alpha.dtype != colour.dtype:  # 16-bit CMYK came back as 8-bit
            alpha = np.round(alpha / 257).astype(colour.dtype)
        if layout.premultiplied:
            colour = _unpremultiply(colour, alpha)
        return np.concatenate([colour, alpha], axis=2)

    def _decode_segments(self, page: tifffile.TiffPage) -> NDArray[Any] | None:
        """Read all samples of a page, (H, W, S); None if tifffile cannot decompress it."""
        compression = int(page.compression)
        if compression == _LZW and not _knows(_LZW):
            page.compression = 1  # then tifffile takes decompressed bytes and still undoes the predictor
        elif not _knows(compression):
            return None
        if int(page.photometric) == _YCBCR and compression not in (6, 7):
            return None
        planes, _, height, width, samples = page.shaped
        out = np.zeros((planes, height, width, samples), page.dtype)
        lzw_limit = _segment_bytes(page) if compression == _LZW and page.compression == 1 else 0
        good = 0
        for index, (offset, count) in enumerate(zip(page.dataoffsets, page.databytecounts, strict=False)):
            self._reading.file.seek(offset)
            data = self._reading.file.read(count)
            try:
                if lzw_limit:
                    data = lzw_decode(data, lzw_limit)
                segment, (plane, _, top, left, _), _ = page.decode(data, index, jpegtables=page.jpegtables, _fullsize=False)
            except Exception as error:  # any: see `codec`; here it only means that this segment is lost
                if len(data) == count and "imagecodecs" in str(error):
                    raise _needs_imagecodecs(self._reading, str(error)) from error
                _LOG.debug("%s: segment %d lost: %r", self._reading.path, index, error)
                continue
            if segment is None:
                continue
            area = out[plane, top : top + segment.shape[1], left : left + segment.shape[2]]
            area[...] = segment[0, : area.shape[0], : area.shape[1]]
            good += 1
        expected = _segment_count(page)
        if good < expected:
            self._reading.truncated(100 * good / expected, "strips or tiles are missing or damaged")
        return out[0] if planes == 1 else np.moveaxis(out[..., 0], 0, -1)

    def _decode_with_pillow(self, page: tifffile.TiffPage, layout: _Layout) -> Pixels:
        """Decode pixels by libtiff, for 8-bit and 1-bit pages in a compression that tifffile does not know."""
        reading = self._reading
        if layout.depth > 8 or layout.photometric in (_CIELAB, _ICCLAB):
            raise _needs_imagecodecs(reading, f"compression {page.compression!r}")
        reading.file.seek(0)
        try:
            image = Image.open(reading.file, formats=("TIFF",))
            image.seek(page.index)
            image.load()
        except OSError as error:
            if "truncated" in str(error) or "decoder error" in str(error):
                raise reading.error("is truncated or damaged", "get the file again") from error
            raise _needs_imagecodecs(reading, f"compression {page.compression!r}") from error
        if image.mode == "CMYK":
            return turn_back(cmyk_to_rgb(np.asarray(image), self._profile), self._orientation)
        mode = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}[layout.channels]
        pixels = np.asarray(image if image.mode == mode else image.convert(mode))
        pixels = pixels.reshape(*pixels.shape[:2], layout.channels)
        return turn_back(pixels, self._orientation)  # Pillow has turned the picture already, and the caller will turn it again

    def _colour(self, page: tifffile.TiffPage, samples: Pixels, layout: _Layout) -> Pixels:
        """Convert colour samples (H, W, n) to gray or RGB of the frame's dtype."""
        photometric = layout.photometric
        if photometric == _MIN_IS_WHITE:
            inverted: Pixels = np.iinfo(samples.dtype).max - samples
            return inverted
        if photometric == _PALETTE:
            return _palette(page)[samples[..., 0]]
        if photometric == _SEPARATED:
            if self._profile is not None and samples.dtype == np.uint16:
                samples = np.round(samples / 257).astype(np.uint8)
            return cmyk_to_rgb(samples, self._profile)
        if photometric in (_CIELAB, _ICCLAB):
            return _lab(samples, signed=photometric == _CIELAB)
        return samples


def _knows(compression: int) -> bool:
    """Whether tifffile can decompress the page on this machine, with or without `imagecodecs`."""
    try:
        tifffile.TIFF.DECOMPRESSORS[compression]
    except KeyError:
        return False
    return True


def _needs_imagecodecs(reading: Reading, what: str) -> Exception:
    return reading.error(f"uses a TIFF encoding that needs an extra ({what})", 'pip install "upframe[tiff-all]"')


def _segment_count(page: tifffile.TiffPage) -> int:
    planes, _, height, width, _ = page.shaped
    if page.is_tiled:
        return int(planes * -(-height // page.tilelength) * -(-width // page.tilewidth))
    return int(planes * -(-height // max(page.rowsperstrip, 1)))


def _segment_bytes(page: tifffile.TiffPage) -> int:
    """Number of uncompressed bytes of one whole strip or tile."""
    height, width = (page.tilelength, page.tilewidth) if page.is_tiled else (page.rowsperstrip, page.imagewidth)
    samples = page.samplesperpixel if int(page.planarconfig) == 1 else 1
    return int(height * -(-width * samples * page.bitspersample // 8))


def _load_directory(file: Any, head: bytes, offset: int | None) -> TiffImagePlugin.ImageFileDirectory_v2:
    directory = TiffImagePlugin.ImageFileDirectory_v2(head)
    file.seek(directory.next if offset is None else offset)
    directory.load(file)
    return directory


def _is_structural(description: object) -> bool:
    """Whether an image description is a program's note on storage, which would be wrong for the output."""
    return str(description).startswith(('{"shape"', "ImageJ=", "<?xml", "<OME"))


def _as_bytes(value: object) -> bytes | None:
    if isinstance(value, np.ndarray):
        return value.tobytes()
    if isinstance(value, tuple):
        return bytes(value)
    return value if isinstance(value, bytes) else value.encode() if isinstance(value, str) else None


def _dpi(page: tifffile.TiffPage) -> tuple[float, float] | None:
    unit = {2: 1.0, 3: 2.54}.get(int(page.tags.valueof(296, 2)))
    sides = []
    for code in (282, 283):
        value = page.tags.valueof(code)
        if unit is None or not isinstance(value, tuple) or len(value) != 2 or not value[0] or not value[1]:
            return None
        sides.append(value[0] / value[1] * unit)
    # 1 dot per inch is what many writers put for "not known"
    return None if sides == [1.0, 1.0] else (sides[0], sides[1])


def _palette(page: tifffile.TiffPage) -> NDArray[np.uint8]:
    """The colour map as (entries, 3) 8-bit RGB."""
    table = np.asarray(page.colormap)
    # 16 bits by the standard; some writers put 8-bit values.
    wide = table if table.max(initial=0) < 256 else table >> 8
    padded = np.zeros((2**page.bitspersample, 3), np.uint8)
    padded[: table.shape[1]] = wide.T[: len(padded)]
    return padded


def _lab(samples: Pixels, *, signed: bool) -> Pixels:
    """Convert 8 or 16-bit CIE L*a*b* to sRGB of the same type (TIFF 6.0, section 23; ICCLab: TIFF technical note 4)."""
    deep = samples.dtype == np.uint16
    full, unit = (65535.0, 256.0) if deep else (255.0, 1.0)
    out = np.empty(samples.shape, samples.dtype)
    for rows in range(0, len(samples), 128):  # float64 intermediates stay small
        band = samples[rows : rows + 128]
        lightness = band[..., :1].astype(np.float64) * (100 / full)
        if signed:
            opponent = band[..., 1:].view(np.int16 if deep else np.int8).astype(np.float64) / unit
        else:
            opponent = band[..., 1:].astype(np.float64) / unit - 128
        out[rows : rows + 128] = np.round(lab_to_rgb(np.concatenate([lightness, opponent], -1)) * full)
    return out


def _unpremultiply(colour: Pixels, alpha: Pixels) -> Pixels:
    """Divide colour by its alpha to get straight alpha; 0 where alpha is 0."""
    out = np.zeros_like(colour)
    full = 1.0 if colour.dtype.kind == "f" else float(np.iinfo(colour.dtype).max)
    for rows in range(0, len(colour), 256):
        band, weight = colour[rows : rows + 256].astype(np.float64), alpha[rows : rows + 256].astype(np.float64) / full
        straight = np.divide(band, weight, out=np.zeros_like(band), where=weight > 0)
        out[rows : rows + 256] = straight if colour.dtype.kind == "f" else np.minimum(np.round(straight), full)
    return out
