"""The plan of a written video, as data."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

from upframe.errors import Notice
from upframe.media.ledger import EMPTY, Ledger
from upframe.media.video.colour import Coding
from upframe.media.video.frame_facts import ColourTags, Hdr10, Matrix


@dataclass(frozen=True)
class Carried:
    """A track that is copied."""

    index: int
    """Index in the source."""
    kind: str
    """As `StreamInfo.kind`."""
    convert: str | None = None
    """FFmpeg's encoder for text subtitles that change their format; None copies the packets bit by bit."""


@dataclass(frozen=True)
class VideoPlan:
    """Everything that decides the bytes of an output video besides its pixels. Equal plans give equal files."""

    container: str
    """A key of `video_codecs.CONTAINERS`."""
    codec: str
    """A key of `video_codecs.CODECS`."""
    pix_fmt: str
    size: tuple[int, int]
    """(height, width) of the pictures for the sink."""
    coded_size: tuple[int, int]
    """(height, width) as encoded: `size`, padded or cropped to a size that the codec supports."""
    coding: Coding
    colour: ColourTags
    """Colour tags to write."""
    sample_aspect: Fraction | None
    matrix: Matrix | None
    """Display matrix of the container; None leaves the picture as it is."""
    hdr10: Hdr10 | None
    time_base: Fraction
    """Seconds per tick of the sink's timestamps."""
    rate: Fraction
    """Nominal frames per second."""
    options: tuple[tuple[str, str], ...]
    """Options of the encoder."""
    tracks: tuple[Carried, ...] = ()
    has_chapters: bool = False
    tags: tuple[tuple[str, str], ...] = ()
    """Tags of the file."""
    has_key_tags: bool = False
    """Whether MP4 and MOV write these tags as keys, which may have any name."""
    video_tags: tuple[tuple[str, str], ...] = ()
    notices: tuple[Notice, ...] = ()
    ledger: Ledger = EMPTY
    """Fate of everything that the source holds beside its pictures, as far as its headers and some frames show it."""

    @property
    def extension(self) -> str:
        return f".{self.container}"

    @property
    def work_muxer(self) -> str:
        """FFmpeg's format of work files: NUT keeps any clock exactly; for ProRes, which NUT cannot hold, MOV."""
        return "mov" if self.codec == "prores" else "nut"

    @property
    def work_origin(self) -> int:
        """Ticks added to timestamps in work files: NUT has no timestamps before zero, but videos may start there."""
        return 0 if self.codec == "prores" else 1 << 32
