"""Everything besides pixels that a picture holds is carried, changed or lost, and no loss goes without a notice."""

from __future__ import annotations

import io
import json
import struct
import zlib
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image, ImageCms

from conftest import make_photo
from image_files import (
    MP4,
    PREVIEW,
    UNDEFINED,
    chunk,
    exif,
    multi_picture,
    noise,
    photo_xmp,
    png,
    put,
    saved,
    segment,
)
from upframe.media.image.fates import NOTES, fitted
from upframe.media.image.files import ImageSink, ImageSource, plan_output
from upframe.media.image.formats import FORMATS
from upframe.media.image.metadata import Metadata
from upframe.media.image.plan import OutputPlan
from upframe.media.ledger import Entry

IPTC = b"8BIM\x04\x04\0\0" + struct.pack(">I", 18) + b"\x1c\x02\x78\0\x0dA caption, so"
PATH = b"8BIM\x07\xd0\x04path\0" + struct.pack(">I", 26) + bytes(26)
THUMBNAIL = b"8BIM\x04\x0c\0\0" + struct.pack(">I", 30) + b"a thumbnail of the original   "


def enlarged(path: Path, format: str | None = None) -> tuple[Path, OutputPlan, list[str]]:
    """Enlarge a picture twice by repeating pixels; return the output, its plan and the ids of all notices."""
    with ImageSource(path) as source:
        plan = plan_output(source.info, requested=format, metadata=source.metadata)
        output = path.with_name(f"out_{path.stem}{plan.extension}")
        with ImageSink(output, plan, source.metadata, frames=source.info.frames, animated=source.info.animated) as sink:
            for frame in source:
                pixels = np.kron(frame.pixels, np.ones((2, 2, 1), frame.pixels.dtype))
                sink.write([pixels], pixels.shape[:2], duration=frame.duration)
        return output, plan, [notice.id for notice in (*source.notices, *plan.notices)]


def fate(plan: OutputPlan, name: str) -> Entry:
    (entry,) = [entry for entry in plan.ledger.entries if name in entry.name]
    return entry


def profile(space: str = "sRGB") -> bytes:
    made = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    return made if space == "sRGB" else made[:16] + b"GRAY" + made[20:]


# Every piece, in every format -----------------------------------------------------------------------------------------
PIECES: dict[str, Any] = {
    "icc": profile(),
    "exif": exif(),
    "xmp": photo_xmp('dc:title="a"'),
    "photoshop": IPTC,
    "dpi": (300.0, 300.0),
    "text": (("Author", "a"), ("Comment", "b"), ("Description", "c")),
    "colour_chunks": tuple((name, bytes(9)) for name in ("cICP", "mDCV", "cLLI", "sRGB", "gAMA", "cHRM", "bKGD")),
    "comment": b"a" * 300,
    "loop": 3,
}


def test_there_is_a_piece_of_every_kind() -> None:
    assert {*PIECES} == {field.name for field in fields(Metadata)} - {*NOTES}


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("format", [facts for facts in FORMATS.values() if facts.writable], ids=lambda facts: facts.name)
@pytest.mark.parametrize("field", PIECES)
def test_what_the_writer_does_not_get_is_lost_with_a_notice(field: str, format: Any, channels: int) -> None:
    metadata = Metadata(**{field: PIECES[field]})
    kept, entries = fitted(metadata, format, channels=channels, animated=field == "loop")
    assert entries, "every piece has an entry"
    same = getattr(kept, field) == PIECES[field]
    changed_only = all(entry.fate == "changed" for entry in entries)
    lost = [entry for entry in entries if entry.fate == "lost"]
    assert same or lost or changed_only
    assert not (same and lost)
    assert all(entry.notice == "metadata-dropped" for entry in lost)


def test_loop_without_end_is_a_piece_too() -> None:
    _, (entry,) = fitted(Metadata(loop=0), FORMATS["webp"], channels=3, animated=True)
    assert (entry.name, entry.fate) == ("loop count", "carried")


# Parts of files that no writer gets -----------------------------------------------------------------------------------
def jpeg(*segments: bytes, tail: bytes = b"", gray: bool = False, **options: Any) -> bytes:
    photo = Image.fromarray(make_photo(24, 32))
    made = saved(photo.convert("L") if gray else photo, "JPEG", quality=92, **options)
    return made[:20] + b"".join(segments) + made[20:] + tail


def webp_with(name: bytes, content: bytes) -> bytes:
    made = saved(Image.fromarray(make_photo(24, 32)), "WEBP", xmp=photo_xmp('dc:title="a"'))
    made += name + struct.pack("<I", len(content)) + content + bytes(len(content) % 2)
    return made[:4] + struct.pack("<I", len(made) - 8) + made[8:]


def gif_with(extension: bytes) -> bytes:
    made = saved(Image.fromarray(make_photo(24, 32)), "GIF")
    return made[:-1] + extension + made[-1:]


def tiff_with(*tags: tuple[int, int, int, Any, bool], pages: int = 1) -> bytes:
    buffer = io.BytesIO()
    with tifffile.TiffWriter(buffer) as writer:
        for number in range(pages):
            described = [(270, 2, 0, f"page {number}", True)] if pages > 1 else []
            writer.write(make_photo(24, 32), photometric="rgb", metadata=None, extratags=[*tags, *described])
    return buffer.getvalue()


LOST: dict[str, tuple[bytes, str, str]] = {
    "photo.jpg": (jpeg(segment(0xE5, b"RICOH\0record")), "segment APP5 RICOH", "metadata-dropped"),
    "signed.jpg": (jpeg(segment(0xEB, b"JP\0\1c2pa")), "content credentials", "metadata-dropped"),
    "extended.jpg": (jpeg(segment(0xE1, b"http://ns.adobe.com/xmp/extension/\0x")), "extended XMP", "metadata-dropped"),
    "iso_gain.jpg": (jpeg(segment(0xE2, b"urn:iso:std:iso:ts:21496:-1\0")), "facts of its gain map", "embedded-dropped"),
    "preview.jpg": (multi_picture(jpeg(), (PREVIEW, jpeg())), "preview", "embedded-dropped"),
    "tail.jpg": (jpeg(tail=b"record"), "6 bytes behind its end", "embedded-dropped"),
    "film.jpg": (jpeg(tail=MP4), "video of its motion photo", "embedded-dropped"),
    "chunk.png": (png(noise(5, 6, 3), before=chunk(b"zzZz", b"x")), "PNG chunk zzZz", "metadata-dropped"),
    "signed.png": (png(noise(5, 6, 3), before=chunk(b"caBX", b"x")), "content credentials", "metadata-dropped"),
    "text.png": (png(noise(5, 6, 3), before=chunk(b"zTXt", b"a\0\0xx")), "PNG text", "metadata-damaged"),
    "aspect.png": (png(noise(5, 6, 3), before=chunk(b"pHYs", struct.pack(">IIB", 1, 2, 0))), "aspect", "metadata-dropped"),
    "tail.png": (png(noise(5, 6, 3)) + b"tail", "4 bytes behind its end", "embedded-dropped"),
    "chunk.webp": (webp_with(b"C2PA", b"abc"), "C2PA", "metadata-dropped"),
    "tail.webp": (webp_with(b"EXIF", exif()) + b"tail", "4 bytes behind its end", "embedded-dropped"),
    "words.gif": (gif_with(b"!\xff\x0bXMP DataXMP\x01a\0"), "XMP DataXMP", "metadata-dropped"),
    "tail.gif": (gif_with(b"") + b"tail", "4 bytes behind its end", "embedded-dropped"),
    "geo.tif": (tiff_with((33550, 12, 3, (1.0, 1.0, 0.0), True)), "33550", "metadata-dropped"),
    "pages.tif": (tiff_with(pages=2), "metadata of page 2", "metadata-dropped"),
    "xmp.jpg": (jpeg(xmp=b"<x:xmpmeta><broken>"), "XMP", "metadata-damaged"),
    "exif.jpg": (jpeg(segment(0xE1, b"Exif\0\0no directory")), "EXIF", "metadata-damaged"),
}


@pytest.mark.parametrize("name", LOST)
def test_a_part_that_is_lost_is_in_the_ledger_and_has_a_notice(tmp_path: Path, name: str) -> None:
    content, part, notice = LOST[name]
    _, plan, notices = enlarged(put(tmp_path / name, content))
    entry = fate(plan, part)
    assert (entry.fate, entry.notice) == ("lost", notice)
    assert set(notices) - {"depth-reduced"} == {notice}
    told = {entry.notice for entry in plan.ledger.entries if entry.notice}
    assert told == set(notices), "notices come from the ledger"


@pytest.mark.parametrize("name", ["sBIT", "hIST", "tIME"])
def test_what_only_describes_the_original_is_changed_without_a_notice(tmp_path: Path, name: str) -> None:
    path = put(tmp_path / "x.png", png(noise(5, 6, 3), before=chunk(name.encode(), bytes(7))))
    _, plan, notices = enlarged(path)
    assert fate(plan, name).fate == "changed" and notices == []


def test_an_ordinary_photo_loses_nothing(tmp_path: Path) -> None:
    """No false alarm under `strict`: what a camera and an editor usually write is carried or only changed."""
    block = segment(0xED, b"Photoshop 3.0\0" + IPTC + THUMBNAIL + PATH)
    content = jpeg(
        segment(0xE0, b"JFXX\0\x10thumbnail"), block, segment(0xEC, b"Ducky\0\x01\0\x04\0\0\0\x3c"),
        exif=b"Exif\0\0" + exif(), xmp=photo_xmp('tiff:Orientation="6" dc:title="a"'), icc_profile=profile(), comment=b"c",
        dpi=(300, 300), tail=bytes(100),
    )  # fmt: skip
    output, plan, notices = enlarged(put(tmp_path / "x.jpg", content))
    assert notices == []
    fates = {entry.name: entry.fate for entry in plan.ledger.entries}
    assert fates == {
        "thumbnail": "changed", "100 zero bytes behind its end": "changed", "colour profile": "carried", "EXIF": "changed",
        "XMP": "changed", "IPTC and Photoshop's records": "changed", "resolution": "carried", "comment": "carried",
    }  # fmt: skip
    with ImageSource(output) as source:
        assert source.metadata.photoshop == IPTC + PATH, "the thumbnail would show the original"
        assert source.info.ledger.entries == ()


@pytest.mark.parametrize("format", ["jpg", "png", "tiff"])
@pytest.mark.parametrize("origin", ["jpeg", "tiff", "png"])
def test_captions_of_the_press_are_carried_between_formats(tmp_path: Path, origin: str, format: str) -> None:
    contents = {
        "jpeg": jpeg(segment(0xED, b"Photoshop 3.0\0" + IPTC)),
        "tiff": tiff_with((33723, 1, 18, IPTC[12:], True)),
        "png": png(noise(5, 6, 3), before=chunk(b"tEXt", b"Raw profile type iptc\0\niptc\n30\n" + IPTC.hex().encode())),
    }
    output, _, notices = enlarged(put(tmp_path / f"x.{origin}", contents[origin]), format)
    assert notices == []
    with ImageSource(output) as source:
        assert source.metadata.photoshop == IPTC


# XMP that must agree with the output ------------------------------------------------------------------------------------
def xmp_of(path: Path) -> str:
    with ImageSource(path) as source:
        assert source.metadata.xmp is not None
        return source.metadata.xmp.decode()


def test_xmp_says_nothing_of_a_video_that_is_gone(tmp_path: Path) -> None:
    items = (
        '<Container:Directory><rdf:Seq><rdf:li rdf:parseType="Resource"><Container:Item Item:Semantic="MotionPhoto" '
        'Item:Length="524"/></rdf:li></rdf:Seq></Container:Directory><GCamera:MicroVideo>1</GCamera:MicroVideo>'
    )
    packet = photo_xmp('GCamera:MotionPhoto="1" GCamera:MicroVideoOffset="524" GCamera:Mode="x" dc:title="kept"', items)
    output, plan, notices = enlarged(put(tmp_path / "PXL.MP.jpg", jpeg(xmp=packet, tail=MP4)))
    assert notices == ["embedded-dropped"] and fate(plan, "XMP").fate == "changed"
    xmp = xmp_of(output)
    assert "MotionPhoto=" not in xmp and "MicroVideo" not in xmp and "Item:" not in xmp
    assert 'GCamera:Mode="x"' in xmp and 'dc:title="kept"' in xmp, "all else stays"
    assert xmp.startswith("<?xpacket begin")


def test_xmp_says_nothing_of_a_gain_map_that_is_gone(tmp_path: Path) -> None:
    gain = jpeg(gray=True, xmp=photo_xmp('hdrgm:Version="1.0" hdrgm:GainMapMax="2.3"'))
    content = multi_picture(jpeg(xmp=photo_xmp('hdrgm:Version="1.0" dc:title="kept"')), (UNDEFINED, gain))
    output, plan, notices = enlarged(put(tmp_path / "x.jpg", content))
    assert notices == ["embedded-dropped"] and "gain map" in fate(plan, "gain map of").name
    assert "hdrgm:Version" not in xmp_of(output) and 'dc:title="kept"' in xmp_of(output)


@pytest.mark.parametrize("form", ["attributes", "elements", "other prefix"])
def test_the_sizes_of_a_panorama_grow_with_it(tmp_path: Path, form: str) -> None:
    sizes = {"FullPanoWidthPixels": 64, "FullPanoHeightPixels": 32, "CroppedAreaImageWidthPixels": 32,
             "CroppedAreaImageHeightPixels": 24, "CroppedAreaLeftPixels": 16, "CroppedAreaTopPixels": 4}  # fmt: skip
    prefix = "pano" if form == "other prefix" else "GPano"
    space = 'xmlns:pano="http://ns.google.com/photos/1.0/panorama/"' if form == "other prefix" else ""
    if form == "elements":
        packet = photo_xmp("", "".join(f"<GPano:{key}>\n {value}\n</GPano:{key}>" for key, value in sizes.items()))
    else:
        packet = photo_xmp(space + " " + " ".join(f"{prefix}:{key}='{value}'" for key, value in sizes.items()))
    output, _, notices = enlarged(put(tmp_path / "x.jpg", jpeg(xmp=packet)))
    assert notices == []
    xmp = xmp_of(output)
    for key, value in sizes.items():
        assert f"{key}>{2 * value}<" in xmp or f"{key}='{2 * value}'" in xmp, key


@pytest.mark.parametrize("format", ["jpg", "png", "webp", "tiff"])
@pytest.mark.parametrize("form", ['tiff:Orientation="6"', "<tiff:Orientation>\n  6\n</tiff:Orientation>"])
def test_the_orientation_is_applied_in_xmp_too(tmp_path: Path, format: str, form: str) -> None:
    packet = photo_xmp("", form) if form.startswith("<") else photo_xmp(form)
    tag = Image.Exif()
    tag[0x0112] = 6
    output, plan, _ = enlarged(put(tmp_path / "x.jpg", jpeg(xmp=packet, exif=tag.tobytes())), format)
    with ImageSource(output) as source:
        assert source.info.size == (64, 48)
    assert 'Orientation="1"' in xmp_of(output) or "Orientation>1<" in xmp_of(output)
    assert "orientation" in fate(plan, "XMP").detail


def test_a_thumbnail_in_xmp_goes_as_that_of_exif_does(tmp_path: Path) -> None:
    packet = photo_xmp('dc:title="kept"', "<xmp:Thumbnails><rdf:Alt><rdf:li>c2VjcmV0</rdf:li></rdf:Alt></xmp:Thumbnails>")
    output, plan, notices = enlarged(put(tmp_path / "x.jpg", jpeg(xmp=packet)))
    assert "c2VjcmV0" not in xmp_of(output) and notices == [] and "thumbnail" in fate(plan, "XMP").detail


def test_entities_in_xmp_are_not_expanded(tmp_path: Path) -> None:
    packet = b'<!DOCTYPE x [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]><x>&b;</x>'
    _, plan, notices = enlarged(put(tmp_path / "x.jpg", jpeg(xmp=packet)))
    assert notices == ["metadata-damaged"] and "document type" in fate(plan, "XMP").detail


# Colour ---------------------------------------------------------------------------------------------------------------
def test_a_gray_png_never_carries_a_profile_for_colours(tmp_path: Path) -> None:
    coded = chunk(b"iCCP", b"x\0\0" + zlib.compress(profile()))
    output, plan, notices = enlarged(put(tmp_path / "x.png", png(noise(5, 6, 1), before=coded)))
    assert b"iCCP" not in output.read_bytes() and notices == ["metadata-dropped"]
    assert "gray PNG" in fate(plan, "colour profile").detail
    output, _, notices = enlarged(put(tmp_path / "y.png", png(noise(5, 6, 3), before=coded)))
    assert b"iCCP" in output.read_bytes() and notices == []


@pytest.mark.parametrize("gray", [True, False])
def test_the_background_of_a_png_keeps_its_colour(tmp_path: Path, gray: bool) -> None:
    pixels, content = noise(5, 6, 1 if gray else 3), struct.pack(">H", 77) if gray else struct.pack(">3H", 1, 2, 3)
    output, _, notices = enlarged(put(tmp_path / "x.png", png(pixels, before=chunk(b"bKGD", content))))
    assert chunk(b"bKGD", content) in output.read_bytes() and notices == []


# The command line -----------------------------------------------------------------------------------------------------
def test_the_plan_of_a_job_holds_the_ledger(tmp_path: Path) -> None:
    from upframe.jobs import plan

    put(tmp_path / "x.jpg", jpeg(tail=MP4))
    (item,) = plan([tmp_path / "x.jpg"]).items
    rows = json.loads(json.dumps(item.ledger.rows()))
    assert {"kind": "part", "name": f"the video of its motion photo ({len(MP4)} bytes)", "fate": "lost"}.items() <= rows[
        0
    ].items()
    assert [notice.id for notice in item.notices] == ["embedded-dropped"]
