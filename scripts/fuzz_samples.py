"""Small files of every kind that upframe reads, made by code, and ways to damage them: the inputs of `fuzz.py`."""

from __future__ import annotations

import io
import random
import struct
import subprocess
import sys
import zlib
from collections import OrderedDict
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image, ImageCms

Kind = Literal["picture", "video", "weights", "store", "own"]
KINDS: tuple[Kind, ...] = ("picture", "video", "weights", "store", "own")


@dataclass(frozen=True)
class Sample:
    """One sound file, and the command that reads it."""

    kind: Kind
    path: Path
    """The file that is damaged."""
    root: Path
    """The argument of the command: the file itself, or the folder that holds it."""
    command: tuple[str, ...]
    """Arguments of `upframe`; INPUT stands for `root`, OUTPUT for an unused name. A first word in capitals names a reader that
    `fuzz.py` calls itself: WEIGHTS reads weights, PICTURE decodes at the usual limits before the command, which has lower ones,
    so that no network is run on a picture whose damaged header says that it is large."""


def make_samples(folder: Path, kinds: tuple[Kind, ...] = KINDS) -> list[Sample]:
    """Write samples of these kinds below `folder`."""
    makers = {"picture": _pictures, "video": _videos, "weights": _weights, "store": _stores, "own": _own_files}
    made: list[Sample] = []
    for kind in kinds:
        place = folder / kind
        place.mkdir(parents=True, exist_ok=True)
        made += makers[kind](place)
    return made


# Pictures -------------------------------------------------------------------------------------------------------------
ENLARGE = ("PICTURE", "INPUT", "-o", "OUTPUT.png", "-f", "png", "-s", "2", "-m", "photo-x2", "-q", "--max-pixels", "40000")


def _photo(height: int, width: int, channels: int = 3) -> np.ndarray[Any, Any]:
    y, x = np.mgrid[0:height, 0:width]
    planes = [128 + 100 * np.sin((x * (k + 1) + 2 * y) / 9 + k) for k in range(channels)]
    return np.stack(planes, -1).astype(np.uint8)


def _pictures(folder: Path) -> list[Sample]:
    import tifffile

    colour, gray, alpha = (Image.fromarray(_photo(24, 32, c).squeeze()) for c in (3, 1, 4))
    moving = [Image.fromarray(_photo(16, 20) // (n + 1)) for n in range(3)]
    icc = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    tags = Image.Exif()
    tags[0x0112], tags[0x010F] = 6, "maker"
    xmp = (
        b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><a xmlns:tiff="http://ns.adobe.com/tiff/1.0/" tiff:Orientation="6"/></x:xmpmeta>'
    )
    rich = {"exif": tags.tobytes(), "icc_profile": icc}
    animation: dict[str, Any] = {"save_all": True, "append_images": moving[1:], "duration": 40}
    files: dict[str, bytes] = {
        "photo.jpg": _saved(colour, "JPEG", xmp=xmp, comment=b"c", **rich),
        "progressive.jpg": _saved(colour, "JPEG", progressive=True),
        "gray.jpg": _saved(gray, "JPEG"),
        "ink.jpg": _saved(colour.convert("CMYK"), "JPEG"),
        "several.jpg": _saved(colour, "MPO", save_all=True, append_images=[colour.resize((16, 12))]),
        "photo.png": _saved(colour, "PNG", **rich),
        "palette.png": _saved(colour.quantize(16), "PNG", transparency=3),
        "deep.png": _deep_png(_photo(12, 14).astype(np.uint16) * 257),
        "moving.png": _saved(moving[0], "PNG", **animation),
        "photo.webp": _saved(colour, "WEBP", xmp=xmp, **rich),
        "alpha.webp": _saved(alpha, "WEBP", lossless=True),
        "moving.webp": _saved(moving[0], "WEBP", **animation),
        "moving.gif": _saved(moving[0], "GIF", **animation),
        "photo.bmp": _saved(colour, "BMP"),
        "photo.avif": _saved(colour, "AVIF", exif=tags.tobytes()),
        "photo.tga": _saved(alpha, "TGA"),
        "packed.tga": _saved(colour, "TGA", compression="tga_rle"),
        "photo.pcx": _saved(colour, "PCX"),
        "photo.ppm": _saved(colour, "PPM"),
        "text.pgm": b"P2\n# words\n4 3\n255\n" + b" ".join(b"%d" % n for n in range(12)),
        "icon.ico": _saved(alpha, "ICO", sizes=[(24, 24), (16, 16)]),
        "fax.tif": _saved(gray.convert("1"), "TIFF", compression="group4"),
        "packed.tif": _saved(colour, "TIFF", compression="tiff_lzw", **rich),
        "jpeg.tif": _saved(colour, "TIFF", compression="jpeg"),
    }
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, _photo(20, 24).astype(np.float32) / 255, photometric="rgb", tile=(16, 16))
    files["tiles.tif"] = buffer.getvalue()
    return [_written("picture", folder / name, data, ENLARGE) for name, data in files.items()]


def _saved(image: Image.Image, format: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def _written(kind: Kind, path: Path, data: bytes, command: tuple[str, ...]) -> Sample:
    path.write_bytes(data)
    return Sample(kind, path, path, command)


def _deep_png(samples: np.ndarray[Any, Any]) -> bytes:
    height, width = samples.shape[:2]
    rows = samples.astype(">u2").reshape(height, -1).view(np.uint8)
    data = zlib.compress(np.hstack([np.zeros((height, 1), np.uint8), rows]).tobytes())
    chunks = ((b"IHDR", struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)), (b"IDAT", data), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(name, content) for name, content in chunks)


def _chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


# Videos ---------------------------------------------------------------------------------------------------------------
FILM = ("INPUT", "-o", "OUTPUT.mkv", "-s", "2", "-m", "photo-x2", "-q", "--max-pixels", "40000")


def _videos(folder: Path) -> list[Sample]:
    clips = {
        "h264.mp4": ("libx264", "yuv420p", "aac"), "h264.mkv": ("libx264", "yuv420p", "flac"),
        "h264.ts": ("libx264", "yuv420p", "aac"),
        "mpeg4.avi": ("mpeg4", "yuv420p", "mp3"), "vp9.webm": ("libvpx-vp9", "yuv420p", "libopus"),
        "mjpeg.mov": ("mjpeg", "yuvj420p", "pcm_s16le"), "mpeg2.mpg": ("mpeg2video", "yuv420p", "mp2"),
        "ffv1.mkv": ("ffv1", "yuv420p", None),
    }  # fmt: skip
    made = []
    for name, (codec, pix_fmt, sound) in clips.items():
        _clip(folder / name, codec, pix_fmt, sound)
        made.append(Sample("video", folder / name, folder / name, FILM))
    return made


def _clip(path: Path, codec: str, pix_fmt: str, sound: str | None) -> None:
    import av

    with av.open(str(path), "w") as out:
        video = out.add_stream(codec, 25)
        video.width, video.height, video.pix_fmt, video.time_base = 48, 32, pix_fmt, Fraction(1, 25)
        audio = out.add_stream(sound, 48000, layout="mono") if sound else None
        for number in range(6):
            frame = av.VideoFrame.from_ndarray(np.roll(_photo(32, 48), number, 1), format="rgb24")
            frame.pts = number
            out.mux(video.encode(frame.reformat(format=pix_fmt)))
        if audio is not None:
            tone = (8000 * np.sin(np.arange(11520) / 20)).astype(np.int16)[None]
            for start in range(0, 11520, 1152):
                piece = av.AudioFrame.from_ndarray(tone[:, start : start + 1152], format="s16", layout="mono")
                piece.sample_rate, piece.pts, piece.time_base = 48000, start, Fraction(1, 48000)
                out.mux(audio.encode(piece))
        for stream in (video, audio):
            if stream is not None:
                out.mux(stream.encode(None))


# Weights --------------------------------------------------------------------------------------------------------------
def _weights(folder: Path) -> list[Sample]:
    import torch
    from safetensors.torch import save

    state = OrderedDict((name, torch.arange(24.0).view(2, 3, 4) * n) for n, name in enumerate(("conv.weight", "body.bias"), 1))
    nested = {"params_ema": state, "iter": 5, "optimizer": [{"lr": 1e-4, "betas": (0.9, 0.99)}], "epoch": torch.tensor(3)}
    files = {
        "zip.pth": _torch(nested), "old.pth": _torch(nested, _use_new_zipfile_serialization=False),
        "half.pth": _torch({name: value.half() for name, value in state.items()}), "plain.safetensors": save(dict(state)),
        "mindspore.ckpt": b"".join(_mindspore(name, value.numpy()) for name, value in state.items()),
    }  # fmt: skip
    return [_written("weights", folder / name, data, ("WEIGHTS", "INPUT")) for name, data in files.items()]


def _torch(content: object, **options: Any) -> bytes:
    import torch

    buffer = io.BytesIO()
    torch.save(content, buffer, **options)
    return buffer.getvalue()


def _mindspore(name: str, values: np.ndarray[Any, Any]) -> bytes:
    """One parameter of a MindSpore checkpoint: nested messages of protocol buffers, all shorter than 128 bytes but one."""

    def field(number: int, content: bytes) -> bytes:
        size = len(content)
        return bytes([number << 3 | 2]) + (bytes([size]) if size < 128 else bytes([size & 127 | 128, size >> 7])) + content

    dims = b"".join(bytes([1 << 3, side]) for side in values.shape)
    tensor = dims + field(2, b"Float32") + field(3, values.astype("<f4").tobytes())
    return field(1, field(1, name.encode()) + field(2, tensor))


# Stores and upframe's own files -----------------------------------------------------------------------------------------
def _stores(folder: Path) -> list[Sample]:
    import lmdb

    store = folder / "set.lmdb"
    environment = lmdb.open(str(store), map_size=1 << 24)
    with environment.begin(write=True) as transaction:
        for number in range(60):
            picture = _saved(Image.fromarray(_photo(40, 40 if number % 2 else 12)), "PNG")
            transaction.put(f"{number // 6:03}/{number % 6:08}".encode(), picture)
    environment.close()
    lines = [f"{n // 6:03}/{n % 6:08}.png (40,{40 if n % 2 else 12},3) 1" for n in range(60)]
    (store / "meta_info.txt").write_text("".join(f"{line}\n" for line in lines))
    (store / "lock.mdb").unlink()
    command = ("data", "check", "INPUT")
    return [Sample("store", store / name, store, command) for name in ("data.mdb", "meta_info.txt")]


def _own_files(folder: Path) -> list[Sample]:
    """Results and the folder of a run, made by the commands themselves."""
    photos, run, scores = folder / "photos", folder / "run", folder / "scores"
    photos.mkdir(parents=True)
    for number in range(2):
        Image.fromarray(np.roll(_photo(160, 160), 7 * number, 0)).save(photos / f"{number}.png")
    train = ("train", "toy-rlfn", "--data", str(photos), "--no-progress", "--set", "steps=2", "-q")
    for command in (("evaluate", "bicubic", "photo-x2", "--data", str(photos), "-o", str(scores)), (*train, "-o", str(run))):
        subprocess.run([sys.executable, "-m", "upframe", *command], check=True, capture_output=True)  # noqa: S603
    results, compare = scores / "results.json", ("compare", "INPUT", "INPUT")
    plot, resume = ("train", "plot", "INPUT", "-o", "OUTPUT.png", "-q"), (*train, "-o", "INPUT")
    named = [Sample("own", run / name, run, plot if name == "log.jsonl" else resume) for name in _files_of(run)]
    return [Sample("own", results, results, compare), *named, *_unfinished_work(folder / "work"), _card(folder / "card")]


_STOPPED = """
import sys, threading
from upframe import JobOptions, Target, VideoOptions, plan, run
from upframe.errors import Cancelled
stop = threading.Event()
options = JobOptions(target=Target(scale=2), video=VideoOptions(segment_frames=2))
def told(event):
    if event.data.get("stage") == "upscaling" and event.data["frame"] >= 3:
        stop.set()
try:
    run(plan([sys.argv[1]], sys.argv[2], options), cancel=stop, on_event=told)
except Cancelled:
    pass
"""
"""A program that stops a video after its first segment."""


def _unfinished_work(folder: Path) -> list[Sample]:
    """The record and the index in the folder that a stopped video leaves."""
    folder.mkdir()
    _clip(folder / "clip.mp4", "libx264", "yuv420p", None)
    command = [sys.executable, "-c", _STOPPED, str(folder / "clip.mp4"), str(folder / "out.mkv")]
    subprocess.run(command, check=True, capture_output=True)  # noqa: S603
    go_on = ("INPUT/clip.mp4", "-o", "INPUT/out.mkv", "-s", "2", "--segment-frames", "2", "-q")
    kept = [path for path in folder.rglob("*") if path.is_file() and path.name not in ("clip.mp4", "out.mkv")]
    return [Sample("own", path, folder, go_on) for path in sorted(kept) if path.stat().st_size]


def _card(folder: Path) -> Sample:
    """A card beside weights, as it is shipped."""
    from upframe.models import weights

    folder.mkdir()
    shipped = Path(next(iter(weights.__path__)))
    for name in ("photo_x2.safetensors", "photo_x2.card.json"):
        (folder / name).write_bytes((shipped / name).read_bytes())
    return Sample("own", folder / "photo_x2.card.json", folder, ("models", "info", "INPUT/photo_x2.safetensors"))


def _files_of(run: Path) -> list[str]:
    """Files of a finished run that a resumed one, or its plot, reads."""
    return sorted(path.name for path in run.iterdir() if path.suffix in (".json", ".jsonl") or path.name == "last.pth")


# Damage ---------------------------------------------------------------------------------------------------------------
def mutated(data: bytes, chance: random.Random) -> bytes:
    """Damage a file: flipped bits, a cut, overwritten or moved bytes, extreme numbers in its head."""
    damaged = bytearray(data)
    kind = chance.random()
    if kind < 0.45:
        for _ in range(chance.choice((1, 1, 2, 4, 16))):
            damaged[chance.randrange(len(damaged))] ^= 1 << chance.randrange(8)
    elif kind < 0.55:
        damaged = damaged[: chance.randrange(1, len(damaged) + 1)]
    elif kind < 0.7:
        start = chance.randrange(len(damaged))
        damaged[start : start + chance.randrange(1, 40)] = chance.randbytes(chance.randrange(1, 40))
    elif kind < 0.8:
        start, length = chance.randrange(len(damaged)), chance.randrange(1, 200)
        piece = damaged[start : start + length]
        at = chance.randrange(len(damaged))
        damaged[at:at] = piece
    else:
        for _ in range(chance.choice((1, 2, 3))):
            damaged[chance.randrange(min(len(damaged), 200))] = chance.choice((0, 255, 127, 128, 1))
    if damaged[:8] == b"\x89PNG\r\n\x1a\n" and chance.random() < 0.6:
        return _with_right_checksums(bytes(damaged))
    return bytes(damaged)


def _with_right_checksums(png: bytes) -> bytes:
    """Make the checksums of a damaged PNG right, so that its decoder meets the damage itself."""
    out, at = bytearray(png[:8]), 8
    while at + 12 <= len(png):
        length = int.from_bytes(png[at : at + 4], "big")
        if at + 12 + length > len(png):
            break
        out += _chunk(png[at + 4 : at + 8], png[at + 8 : at + 8 + length])
        at += 12 + length
    return bytes(out + png[at:])
