"""PNG and APNG decoding at full depth. Source: Portable Network Graphics (Third Edition), W3C 2023.

upframe has its own decoder because no available library is sufficient: Pillow silently reads 16-bit RGB as 8-bit, and FFmpeg
fills missing data with zeros and reports success. This decoder verifies every checksum, keeps every depth, and knows how much
of a damaged file it has decoded.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction

import numpy as np
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray

from upframe.kernels import library
from upframe.media.frames import Frame, MediaInfo, Pixels
from upframe.media.image.decoder import Reading
from upframe.media.image.metadata import Metadata, iptc_block, raw_profile
from upframe.media.image.parts import account_png, account_tail

SIGNATURE = b"\x89PNG\r\n\x1a\n"
XMP_KEYWORD = "XML:com.adobe.xmp"

_SAMPLES = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # samples per pixel of each colour type
_DEPTHS = {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}
_ADAM7 = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1))
# ^ first row, first column, row step, column step of each pass (PNG 8.1)

_ANCILLARY = 0x20  # this bit of the first letter marks a chunk without which the picture can be shown (PNG 5.4)
_ANCILLARY_PIXELS = (b"tRNS", b"acTL", b"fcTL")  # those that change pixels or frames all the same

_TEXT_LIMIT = 16 * 2**20  # most bytes of a decompressed text or profile
_READ = 1 << 18
_BLOCK_BYTES = 128 * 2**20  # most bytes of working memory for unfiltering


@dataclass(frozen=True)
class Chunk:
    name: bytes
    at: int
    """Start of the content."""
    length: int


@dataclass
class _Part:
    """One compressed picture: the still image, or one frame of an animation."""

    size: tuple[int, int]
    chunks: list[Chunk] = field(default_factory=list)
    offset: tuple[int, int] = (0, 0)
    """(row, column) on the canvas."""
    duration: Fraction | None = None
    dispose: int = 0
    blend: int = 0


@dataclass(frozen=True)
class _Header:
    height: int
    width: int
    depth: int
    colour: int
    interlaced: bool

    @property
    def samples(self) -> int:
        return _SAMPLES[self.colour]

    @property
    def bits_per_pixel(self) -> int:
        return self.samples * self.depth

    def row_bytes(self, width: int) -> int:
        return (width * self.bits_per_pixel + 7) // 8

    def passes(self, height: int, width: int) -> list[tuple[int, int, int, int]]:
        """(first row, first column, row step, column step) of the passes that hold pixels."""
        if not self.interlaced:
            return [(0, 0, 1, 1)]
        return [p for p in _ADAM7 if p[0] < height and p[1] < width]


class PngDecoder:
    """Decodes PNG and APNG; see `decoder.Decoder`."""

    info: MediaInfo
    metadata: Metadata

    def __init__(self, reading: Reading) -> None:
        self._reading = reading
        self._file = reading.file
        self._palette: NDArray[np.uint8] | None = None
        self._transparent: tuple[int, ...] | None = None
        self._parts: list[_Part] = []
        self._ended = False
        self._plays = None
        self._fields: dict[str, bytes] = {}
        self._text: list[tuple[str, str]] = []
        self._background = b""
        self._others: list[str] = []  # names of chunks without use here
        self._header = self._read_header()
        reading.check_pixels(self._header.height, self._header.width)
        announced = self._walk()
        self._animated = announced > 1 and not reading.first_frame
        if self._header.colour == 3 and self._palette is None:
            raise reading.damaged("a palette image without a palette")
        if not self._parts or not self._parts[0].chunks:
            raise reading.error("is truncated, 0 % decoded (no picture data)", "get the file again")
        self.metadata = self._collect_metadata()
        account_png(reading, self._others)
        self.info = self._make_info()

    # Structure --------------------------------------------------------------------------------------------------------
    def _read_header(self) -> _Header:
        head = self._file.read(33)
        if len(head) < 33:
            raise self._reading.error("is truncated, 0 % decoded (the header is cut)", "get the file again")
        length, name, width, height, depth, colour, _, _, interlace = struct.unpack(">I4sIIBBBBB", head[8:29])
        if name != b"IHDR" or length != 13 or zlib.crc32(head[12:29]) != int.from_bytes(head[29:33], "big"):
            raise self._reading.damaged("its header fails the checksum")
        if colour not in _DEPTHS or depth not in _DEPTHS[colour] or head[26:28] != b"\0\0" or interlace > 1:
            raise self._reading.damaged(f"colour type {colour} with {depth} bits does not exist")
        return _Header(height, width, depth, colour, interlace == 1)

    def _walk(self) -> int:
        """Visit all chunks, read the small ones and note the positions of picture data; return the stated frame count."""
        size = self._file.seek(0, 2)
        at, announced, frame = 33, 0, None
        still = _Part((self._header.height, self._header.width))
        frames: list[_Part] = []
        still_is_frame = False
        while at + 8 <= size:
            self._file.seek(at)
            length, name = struct.unpack(">I4s", self._file.read(8))
            chunk = Chunk(name, at + 8, min(length, max(size - at - 8, 0)))
            at += 12 + length
            if name == b"IEND":
                self._ended = at <= size and self._read_sound(chunk) is not None
                account_tail(self._reading, at)
                break
            if name == b"IDAT":
                still.chunks.append(chunk)
            elif name == b"fdAT" and frame is not None:
                frame.chunks.append(Chunk(name, chunk.at + 4, max(chunk.length - 4, 0)))
            elif length > _TEXT_LIMIT or at > size:
                self._others.append(name.decode("latin-1"))  # huge or incomplete: not needed
            else:
                data = self._read_sound(chunk)
                if data is None:
                    self._report_damaged(chunk)
                    continue
                if name == b"acTL" and len(data) >= 8:
                    announced, self._plays = struct.unpack(">II", data[:8])
                elif name == b"fcTL" and len(data) >= 26:
                    frame = self._frame_control(data)
                    frames.append(frame)
                    if not still.chunks:
                        if frame.size != still.size:
                            raise self._reading.damaged("its first frame is smaller than the picture")
                        still_is_frame, still = True, frame
                else:
                    self._take(name, data)
        animation = frames if announced > 1 and frames else []
        # A still image without its own frame control is a fallback for viewers that cannot animate (PNG 11.3.6).
        self._parts = animation if animation and (still_is_frame or not self._reading.first_frame) else [still]
        self._announced = announced if animation else 1
        return len(animation)

    def _read_sound(self, chunk: Chunk) -> bytes | None:
        """Read the content of a chunk; None if its checksum is wrong."""
        data = self._file.read(chunk.length)
        return data if zlib.crc32(chunk.name + data) == int.from_bytes(self._file.read(4), "big") else None

    def _report_damaged(self, chunk: Chunk) -> None:
        """Report a chunk with a wrong checksum: as an error if the pixels depend on it."""
        name = chunk.name.decode("latin-1")
        if not chunk.name[0] & _ANCILLARY or chunk.name in _ANCILLARY_PIXELS:
            self._reading.truncated(None, f"the checksum of its {name} chunk is wrong")
        else:
            detail = f"the checksum of its {name} chunk is wrong; it was ignored"
            self._reading.lost("metadata-damaged", [f"PNG chunk {name}"], detail)

    def _frame_control(self, data: bytes) -> _Part:
        _, width, height, x, y, num, den, dispose, blend = struct.unpack(">IIIIIHHBB", data[:26])
        if width < 1 or height < 1 or x + width > self._header.width or y + height > self._header.height:
            raise self._reading.damaged("an animation frame lies outside the picture")
        # A denominator of 0 means hundredths of a second (PNG 11.3.6.2).
        return _Part((height, width), offset=(y, x), duration=Fraction(num, den or 100), dispose=dispose, blend=blend)

    def _take(self, name: bytes, data: bytes) -> None:
        """Store the content of a metadata chunk."""
        if name == b"PLTE":
            self._palette = np.frombuffer(data[: len(data) // 3 * 3], np.uint8).reshape(-1, 3)
        elif name == b"tRNS":
            self._transparent = (
                tuple(data) if self._header.colour == 3 else struct.unpack(f">{len(data) // 2}H", data[: len(data) // 2 * 2])
            )
        elif name in (b"gAMA", b"cHRM", b"sRGB", b"cICP", b"mDCV", b"cLLI", b"pHYs", b"eXIf", b"iCCP"):
            self._fields.setdefault(name.decode(), data)
        elif name in (b"tEXt", b"zTXt", b"iTXt"):
            item = _text(name, data)
            if item is not None:
                self._text.append(item)
            else:
                self._reading.lost("metadata-damaged", ["PNG text"], "a text is damaged or too long and was ignored")
        elif name == b"bKGD":
            self._background = data
        elif name not in (b"IHDR", b"acTL", b"fcTL"):
            self._others.append(name.decode("latin-1"))

    # Facts ------------------------------------------------------------------------------------------------------------
    def _collect_metadata(self) -> Metadata:
        fields = self._fields
        icc = None
        if "iCCP" in fields:
            _, _, body = fields["iCCP"].partition(b"\0")
            icc = _inflate(body[1:]) or b""  # damaged: `Reading.carry` reports it
        exif, xmp, photoshop, text = fields.get("eXIf"), None, None, []
        for key, value in self._text:
            kind = key.removeprefix("Raw profile type ").lower() if key.startswith("Raw profile type ") else None
            if key == XMP_KEYWORD:
                xmp = value.encode()
            elif kind in ("exif", "app1") and exif is None:
                exif = raw_profile(value)
            elif kind == "xmp" and xmp is None:
                xmp = raw_profile(value)
            elif kind in ("icc", "icm") and icc is None:
                icc = raw_profile(value)
            elif kind in ("iptc", "8bim") and photoshop is None:
                photoshop = raw_profile(value)
            else:
                text.append((key, value))
        if photoshop is not None and not photoshop.startswith(b"8BIM"):
            photoshop = iptc_block(photoshop)
        dpi = None
        if len(fields.get("pHYs", b"")) == 9:
            x, y, unit = struct.unpack(">IIB", fields["pHYs"])
            dpi = (x * 0.0254, y * 0.0254) if unit == 1 else None
            if unit != 1 and x != y:
                self._reading.lost("metadata-dropped", ["aspect of its pixels (pHYs)"])
        return Metadata(
            icc=icc,
            exif=exif,
            xmp=xmp,
            dpi=dpi,
            text=tuple(text),
            colour_chunks=tuple((n, fields[n]) for n in ("cICP", "mDCV", "cLLI", "sRGB", "gAMA", "cHRM") if n in fields)
            + self._background_chunk(),
            photoshop=photoshop,
            loop=self._plays if self._animated else None,
        )

    def _background_chunk(self) -> tuple[tuple[str, bytes], ...]:
        """The background colour, for a picture without palette and of full depth (PNG 11.3.4.1)."""
        header, data = self._header, self._background
        if header.colour == 3 and self._palette is not None and len(data) == 1 and data[0] < len(self._palette):
            samples = [int(value) for value in self._palette[data[0]]]
        elif header.colour != 3 and len(data) == (2 if header.colour in (0, 4) else 6):
            full = 2 ** max(header.depth, 8) - 1
            samples = [min(value * full // (2**header.depth - 1), full) for value in struct.unpack(f">{len(data) // 2}H", data)]
        else:
            return ()
        return (("bKGD", struct.pack(f">{len(samples)}H", *samples)),)

    def _make_info(self) -> MediaInfo:
        header = self._header
        if header.depth == 1 and header.colour == 0:
            self._reading.changed("pixels", "depth", "1-bit picture, becomes 8-bit gray", "one-bit-to-gray")
        colours = 3 if header.colour in (2, 3, 6) else 1
        uncovered = self._animated and (
            self._parts[0].size != (header.height, header.width) or any(part.dispose for part in self._parts)
        )
        alpha = header.colour in (4, 6) or self._transparent is not None or uncovered
        return MediaInfo(
            path=self._reading.path,
            format="png",
            size=(header.height, header.width),
            channels=colours + alpha,
            dtype=np.dtype(np.uint16 if header.depth == 16 else np.uint8),
            frames=len(self._parts) if self._animated else 1,
            animated=self._animated,
        )

    # Pixels -----------------------------------------------------------------------------------------------------------
    def frames(self) -> Iterator[Frame]:
        if not self._animated:
            yield Frame(self._decode(self._parts[0], last=True))
            return
        if self._announced != len(self._parts):
            self._reading.truncated(100 * len(self._parts) / max(self._announced, 1), "frames are missing")
        canvas = np.zeros((*self.info.size, self.info.channels), self.info.dtype)
        time = Fraction(0)
        for index, part in enumerate(self._parts):
            (top, left), (height, width) = part.offset, part.size
            area = canvas[top : top + height, left : left + width]
            # "Previous" on the first frame means "background" (PNG 11.3.6.2).
            dispose = 1 if part.dispose == 2 and index == 0 else part.dispose
            before = area.copy() if dispose == 2 else None
            _draw(area, self._decode(part, last=index == len(self._parts) - 1), over=part.blend == 1)
            yield Frame(canvas.copy(), time, part.duration)
            time += part.duration or 0
            if dispose == 1:
                area[...] = 0
            elif before is not None:
                area[...] = before

    def _decode(self, part: _Part, *, last: bool) -> Pixels:
        """Decode the pixels of one part and apply palette and transparency: (H, W, C) with C = `info.channels`."""
        header, (height, width) = self._header, part.size
        stream = _Stream(self._file, part.chunks)
        out = np.zeros((height, width, self.info.channels), self.info.dtype)
        expected = done = 0
        for top, left, down, right in header.passes(height, width):
            rows = out[top::down, left::right]
            count, row_bytes = rows.shape[0], header.row_bytes(rows.shape[1]) + 1
            expected += count * row_bytes
            if stream.damage is None:
                done += row_bytes * self._decode_pass(stream, rows)
        if stream.damage is None:
            stream.finish()
        if stream.damage is not None or done < expected:
            self._reading.truncated(100 * done / expected, stream.damage or "the data ends early")
        elif last and (stream.end_damage or not self._ended):
            self._reading.end_damaged(stream.end_damage or "its closing chunk is missing or damaged")
        return out

    def _decode_pass(self, stream: _Stream, rows: Pixels) -> int:
        """Decode one pass into `rows`, block by block; return the number of decoded rows."""
        height, width = rows.shape[:2]
        header = self._header
        row_bytes = header.row_bytes(width)
        bpp = max(1, header.bits_per_pixel // 8)
        block = min(height, max(16, min(1024, _BLOCK_BYTES // row_bytes)))
        previous = np.zeros(row_bytes, np.uint8)
        done = 0
        while done < height:
            want = min(block, height - done)
            raw = stream.read(want * (row_bytes + 1))
            got = len(raw) // (row_bytes + 1)
            if got:
                coded = np.frombuffer(raw, np.uint8, got * (row_bytes + 1)).reshape(got, row_bytes + 1)
                if coded[:, 0].max() > 4:
                    stream.damage = "an unknown row filter"
                    got = int(np.argmax(coded[:, 0] > 4))
                    coded = coded[:got]
                if got:
                    plain = unfilter(coded, bpp, previous)
                    previous = plain[-1]
                    rows[done : done + got] = self._samples(plain, width)
                done += got
            if got < want:
                return done
        return done

    def _samples(self, plain: NDArray[np.uint8], width: int) -> Pixels:
        """Convert unfiltered rows (rows, bytes) to pixels (rows, width, `info.channels`)."""
        header = self._header
        n = len(plain)
        if header.depth == 16:
            raw: Pixels = plain.view(">u2").astype(np.uint16).reshape(n, width, header.samples)
        elif header.depth == 8:
            raw = plain.reshape(n, width, header.samples)
        else:
            per_byte = 8 // header.depth
            shifts = np.arange(per_byte - 1, -1, -1, dtype=np.uint8) * header.depth
            spread = (plain[:, :, None] >> shifts) & np.uint8(2**header.depth - 1)
            raw = spread.reshape(n, -1)[:, :width, None]
        if header.colour == 3:
            return self._lookup()[raw[:, :, 0]]
        full = np.iinfo(self.info.dtype).max
        key = self._transparent
        pixels = raw * np.uint8(255 // (2**header.depth - 1)) if header.depth < 8 else raw
        if pixels.shape[2] == self.info.channels:
            return pixels
        alpha = np.full((n, width, 1), full, self.info.dtype)
        if key is not None and len(key) >= header.samples:
            alpha[(raw == np.array(key[: header.samples], np.uint16)).all(2)] = 0
        return np.concatenate([pixels, alpha], axis=2)

    def _lookup(self) -> NDArray[np.uint8]:
        """256 palette entries as RGB or RGBA; indices beyond the palette are opaque black, as in other decoders."""
        table = np.zeros((256, 4), np.uint8)
        table[:, 3] = 255
        assert self._palette is not None
        entries = self._palette[:256]
        table[: len(entries), :3] = entries
        alphas = (self._transparent or ())[:256]
        table[: len(alphas), 3] = alphas
        return table[:, : self.info.channels]


class _Stream:
    """Decompressed bytes of a run of chunks, in order, with verified checksums."""

    def __init__(self, file: object, chunks: list[Chunk]) -> None:
        self._source = self._compressed(file, chunks)
        self._inflate = zlib.decompressobj()
        self._held = bytearray()
        self.damage: str | None = None
        """The reason why the data ends early, once it has."""
        self.end_damage: str | None = None
        """Damage behind the last byte that is needed; the checksum of the decompressed data was right."""

    def _compressed(self, file: object, chunks: list[Chunk]) -> Iterator[bytes]:
        assert hasattr(file, "seek") and hasattr(file, "read")
        for chunk in chunks:
            skip = 4 if chunk.name == b"fdAT" else 0  # the checksum covers the sequence number, too
            file.seek(chunk.at - skip)
            check = zlib.crc32(file.read(skip), zlib.crc32(chunk.name)) if skip else zlib.crc32(chunk.name)
            left = chunk.length
            while left:
                data: bytes = file.read(min(left, _READ))
                if not data:
                    break
                left -= len(data)
                check = zlib.crc32(data, check)
                yield data
            stated: bytes = file.read(4)
            if len(stated) < 4:
                self.damage = "the data ends early"
                return
            if int.from_bytes(stated, "big") != check:
                self.damage = "a checksum is wrong"
                return

    def read(self, count: int) -> bytes:
        """Return the next `count` bytes, or fewer if the data ends or is damaged; allocate no more than that."""
        while len(self._held) < count and not self._inflate.eof:
            data = self._inflate.unconsumed_tail or next(self._source, b"")
            if not data:
                self.damage = self.damage or "the data ends early"
                break
            try:
                self._held += self._inflate.decompress(data, count - len(self._held))
            except zlib.error:
                self.damage = self.damage or "the compressed data is corrupt"
                break
        taken = bytes(self._held[:count])
        del self._held[:count]
        return taken

    def finish(self) -> None:
        """Read to the end, so that the last checksums are verified, too; ignore surplus data."""
        try:
            while not self._inflate.eof:
                data = self._inflate.unconsumed_tail or next(self._source, b"")
                if not data:
                    self.damage = self.damage or "the compressed data has no end"
                    return
                self._inflate.decompress(data, _READ)
        except zlib.error:
            self.damage = self.damage or "the compressed data is corrupt"
            return
        for _ in self._source:
            pass
        self.end_damage, self.damage = self.damage, None


def unfilter(coded: NDArray[np.uint8], bpp: int, previous: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Undo PNG row filters (PNG 9.2).

    Args:
        coded: (rows, 1 + bytes): the filter type of each row, 0 to 4 (the caller has checked), then its filtered bytes.
        bpp: Bytes per pixel, at least 1.
        previous: The unfiltered row before the first, (bytes,).

    Returns:
        (rows, bytes), a new array.
    """
    kinds, data = coded[:, 0], coded[:, 1:]
    kernels = library()
    if kernels is not None:
        coded, previous = np.ascontiguousarray(coded), np.ascontiguousarray(previous)
        plain = np.empty(data.shape, np.uint8)
        kernels.upframe_png_unfilter(coded.ctypes.data, previous.ctypes.data, *data.shape, bpp, plain.ctypes.data)
        return plain
    if kinds.max(initial=0) > 2:
        return _unfilter_wavefront(kinds, data, bpp, previous)
    out = data.copy()
    for y, kind in enumerate(kinds):
        if kind == 1:
            out[y] = np.add.accumulate(data[y].reshape(-1, bpp), axis=0, dtype=np.uint8).ravel()
        elif kind == 2:
            out[y] += out[y - 1] if y else previous
    return out


def _unfilter_wavefront(
    kinds: NDArray[np.uint8], data: NDArray[np.uint8], bpp: int, previous: NDArray[np.uint8]
) -> NDArray[np.uint8]:
    """Undo all filters together, one anti-diagonal of pixels per step.

    A pixel needs its left, upper and upper-left neighbours, so pixels with the same x + y are independent. Rows are
    stored skewed, `skew[2 + x + y, y]` being pixel x of row y, which makes every diagonal a contiguous slice; two leading zeros
    represent the neighbours outside the picture.
    """
    rows, width = len(data) + 1, data.shape[1] // bpp  # row 0 is the row before
    skew = np.zeros((width + rows + 1, rows, bpp), np.uint8)
    slot, row = skew.strides[:2]
    view = as_strided(skew[2:], (rows, width, bpp), (slot + row, slot, 1))
    view[0] = previous.reshape(width, bpp)
    view[1:] = data.reshape(-1, width, bpp)
    types = np.concatenate([[0], kinds])[:, None]
    is_sub, is_up, is_average, is_paeth = ((types == k).astype(np.int16) for k in (1, 2, 3, 4))
    for s in range(1, width + rows - 1):
        low, high = max(1, s - width + 1), min(rows, s + 1)
        part, above = slice(low, high), slice(low - 1, high - 1)
        a = skew[s + 1, part].astype(np.int16)
        b = skew[s + 1, above].astype(np.int16)
        c = skew[s, above].astype(np.int16)
        from_b, from_a = np.abs(a - c), np.abs(b - c)
        from_c = np.abs(a + b - c - c)
        paeth = np.where((from_a <= from_b) & (from_a <= from_c), a, np.where(from_b <= from_c, b, c))
        guess = is_sub[part] * a + is_up[part] * b + is_average[part] * ((a + b) >> 1) + is_paeth[part] * paeth
        skew[s + 2, part] += guess.astype(np.uint8)
    return np.ascontiguousarray(view[1:]).reshape(len(data), -1)


def _draw(area: Pixels, frame: Pixels, *, over: bool) -> None:
    """Put an animation frame onto its area of the canvas: replace the area, or blend over it (straight alpha)."""
    if not over or frame.shape[2] in (1, 3):
        area[...] = frame
        return
    full = float(np.iinfo(area.dtype).max)
    top, bottom = frame[..., -1:] / full, area[..., -1:] / full
    alpha = top + bottom * (1 - top)
    weight = np.divide(top, alpha, out=np.zeros_like(alpha), where=alpha > 0)
    colour = frame[..., :-1] * weight + area[..., :-1] * (1 - weight)
    area[..., :-1] = np.round(colour)
    area[..., -1:] = np.round(alpha * full)


def _inflate(data: bytes) -> bytes | None:
    """Decompress metadata; None if it is damaged or too large."""
    stream = zlib.decompressobj()
    try:
        out = stream.decompress(data, _TEXT_LIMIT)
    except zlib.error:
        return None
    return out if stream.eof else None


def _text(name: bytes, data: bytes) -> tuple[str, str] | None:
    """Read keyword and value of a tEXt, zTXt or iTXt chunk (PNG 11.3.3); None if it cannot be read."""
    keyword, separator, rest = data.partition(b"\0")
    if not separator:
        return None
    value: bytes | None
    if name == b"tEXt":
        return keyword.decode("latin-1"), rest.decode("latin-1")
    if name == b"zTXt":
        value = _inflate(rest[1:])
        return None if value is None else (keyword.decode("latin-1"), value.decode("latin-1"))
    compressed = rest[:1] == b"\1"
    parts = rest[2:].split(b"\0", 2)  # language, translated keyword, text
    if len(parts) < 3:
        return None
    value = _inflate(parts[2]) if compressed else parts[2]
    return None if value is None else (keyword.decode("latin-1"), value.decode("utf-8", "replace"))
