"""Films for the tests of the whole way from a video file to a larger one, and processes that can be killed on it."""

from __future__ import annotations

import contextlib
import hashlib
import multiprocessing
import os
import random
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

from upframe.media.image.files import write_pixels
from video_files import (
    TICK,
    VFR_PTS,
    Clip,
    Sound,
    damage,
    make_clip,
    shown_times,
    sound_payloads,
    sound_starts,
)

__all__ = [
    "TICK",
    "VFR_PTS",
    "Clip",
    "Sound",
    "damage",
    "make_clip",
    "make_film",
    "make_frames",
    "make_pictures",
    "shown_times",
    "sound_payloads",
    "sound_starts",
]

Planes = list[NDArray[np.uint16]]


def lossless(**changes: Any) -> Clip:
    """A clip whose every sample survives: no chroma is shared between pixels, nothing is quantised."""
    return replace(Clip(codec="ffv1", pix_fmt="yuv444p"), **changes)


def pictures_of(path: Path) -> list[Planes]:
    """Code values of the planes of every frame, as PyAV decodes them."""
    found = []
    with av.open(str(path)) as container:
        stream = next(s for s in container.streams.video if not s.disposition & av.stream.Disposition.attached_pic)
        for frame in container.decode(stream):
            if frame.format.name == "bgr0":  # one plane of all three colours
                frame = frame.reformat(format="gbrp")
            size = 2 if frame.format.components[0].bits > 8 else 1
            dtype = np.dtype("<u2" if size == 2 else np.uint8)
            planes = []
            for plane in frame.planes:
                rows = np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)[: plane.height]
                planes.append(rows[:, : plane.width * size].copy().view(dtype).astype(np.uint16))
            found.append(planes)
    return found


def largest_difference(film: list[Planes], other: Iterable[Planes], *, corner: int = 0) -> int:
    """Over all samples of two films of equal length and sizes, save for so many rows at the top and columns at the left."""
    return max(
        int(np.abs(a.astype(int) - b)[corner:, corner:].max())
        for one, two in zip(film, other, strict=True)
        for a, b in zip(one, two, strict=True)
    )


def repeated_planes(film: list[Planes], scale: int) -> list[Planes]:
    return [[plane.repeat(scale, 0).repeat(scale, 1) for plane in planes] for planes in film]


def make_film(
    path: Path,
    pictures: Sequence[NDArray[np.uint8]],
    *,
    pix_fmt: str = "bgr0",
    codec: str = "ffv1",
    rate: int = 25,
    **options: str,
) -> Path:
    """(H, W, 3) pictures as a video, by default without any loss."""
    with av.open(str(path), "w") as out:
        stream = out.add_stream(codec, rate=rate, options={"threads": "1", **options})
        stream.height, stream.width, stream.pix_fmt = *pictures[0].shape[:2], pix_fmt
        for picture in pictures:
            for packet in stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(format=pix_fmt)):
                out.mux(packet)
        for packet in stream.encode(None):
            out.mux(packet)
    return path


def rgb_of(path: Path) -> list[NDArray[np.uint8]]:
    """Frames of a video without loss, as pictures."""
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


def make_pictures(count: int, size: tuple[int, int], *, seed: int = 0) -> list[NDArray[np.uint8]]:
    """A scene that moves by a pixel a frame, different in every sample."""
    height, width = size
    scene = np.random.default_rng(seed).integers(0, 256, (height, width + count, 3)).astype(np.uint8)
    return [np.ascontiguousarray(scene[:, n : n + width]) for n in range(count)]


def make_frames(folder: Path, pictures: Sequence[NDArray[Any]], *, names: Sequence[str] | None = None) -> Path:
    """Pictures as the numbered files of a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, picture in enumerate(pictures):
        write_pixels(folder / (names[number] if names else f"f{number}.png"), picture)
    return folder


def make_talk(count: int, size: tuple[int, int], *, cursor: int = 8, seed: int = 3) -> list[NDArray[np.uint8]]:
    """A screen recording: a page that stands still and a cursor that moves over it."""
    height, width = size
    page = np.full((height, width, 3), 235, np.uint8)
    rng = np.random.default_rng(seed)
    for row in range(12, height - 8, 12):
        page[row : row + 5, 10 : width - 10] = np.where(rng.random((5, width - 20, 1)) < 0.5, 40, 235)
    talk = []
    for number in range(count):
        picture = page.copy()
        x, y = 5 + number * 3 % (width - cursor - 5), height // 3 + number
        picture[y : y + cursor, x : x + cursor] = 10
        talk.append(picture)
    return talk


# Processes that are killed --------------------------------------------------------------------------------------------
@dataclass
class Child:
    """`upframe` in a process of its own, forked from one that has loaded everything, so that many are cheap."""

    process: Any
    log: Path

    def wait(self, timeout_s: float = 120) -> int:
        self.process.join(timeout_s)
        if self.process.exitcode is None:
            self.process.kill()
            self.process.join()
            raise AssertionError(f"did not end; it said {self.log.read_text()}")
        return int(self.process.exitcode)

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):  # it was faster
            os.kill(self.process.pid, signal.SIGKILL)
        self.process.join()

    def send(self, number: int) -> None:
        os.kill(self.process.pid, number)


_CONTEXT = multiprocessing.get_context("forkserver") if "forkserver" in multiprocessing.get_all_start_methods() else None
if _CONTEXT is not None:
    _CONTEXT.set_forkserver_preload(["upframe.cli", "upframe.jobs.running", "films"])


def start(arguments: Sequence[object], log: Path, *, fault: str | None = None) -> Child:
    """Run a command line; returns as soon as it begins. `fault` is a key of `FAULTS`."""
    assert _CONTEXT is not None
    log.unlink(missing_ok=True)
    process = _CONTEXT.Process(target=_run, args=([str(a) for a in arguments], log, fault))
    process.start()
    while not log.exists() and process.is_alive():
        time.sleep(0.001)
    return Child(process, log)


def _run(arguments: list[str], log: Path, fault: str | None) -> None:
    import torch

    from upframe import cli

    torch.set_num_threads(1)
    if fault is not None:
        FAULTS[fault]()
    with log.open("w", buffering=1) as text:
        sys.stdout = sys.stderr = text
        cli.main(arguments)


def _die(*_: object, **__: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(60)


def _wait(*_: object, **__: object) -> None:
    time.sleep(60)


def _at(owner: Any, name: str, *, call: int = 1, then: Callable[..., None] = _die) -> Callable[[], None]:
    """Makes the `call`-th call of a function the last thing that happens."""

    def install() -> None:
        original, calls = getattr(owner(), name), 0

        def faulty(*args: Any, **kwargs: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls == call:
                then(*args, **kwargs)
            return original(*args, **kwargs)

        setattr(owner(), name, faulty)

    return install


def _inputs() -> Any:
    import upframe.jobs.video.inputs

    return upframe.jobs.video.inputs


def _outputs() -> Any:
    import upframe.jobs.video.outputs

    return upframe.jobs.video.outputs


def _progress() -> Any:
    import upframe.jobs.video.progress

    return upframe.jobs.video.progress


def _work() -> Any:
    import upframe.jobs.video.workspace

    return upframe.jobs.video.workspace


def _segment_store() -> Any:
    return _work().SegmentStore


def _work_folder() -> Any:
    return _work().WorkFolder


def _sink() -> Any:
    return _outputs().VideoSink


def _after_frames(name: str, frames: int) -> Callable[[], None]:
    """Dies in the middle of joining or verifying."""

    def install() -> None:
        original, left = getattr(_outputs(), name), frames

        def faulty(*args: Any, on_frame: Callable[[], None], **kwargs: Any) -> Any:
            def counted() -> None:
                nonlocal left
                left -= 1
                if not left:
                    _die()
                on_frame()

            return original(*args, on_frame=counted, **kwargs)

        setattr(_outputs(), name, faulty)

    return install


def _at_rename(prefix: str, call: int = 1) -> Callable[[], None]:
    """Dies just before a file whose name starts so gets its name."""

    def install() -> None:
        original, calls = Path.replace, 0

        def faulty(self: Path, target: Any) -> Any:
            nonlocal calls
            calls += Path(target).name.startswith(prefix)
            if calls == call:
                _die()
            return original(self, target)

        Path.replace = faulty  # type: ignore[method-assign]

    return install


def _while_tidying() -> None:
    def faulty(path: Path, **_: Any) -> None:
        (path / "job.json").unlink()
        _die()

    _work().shutil.rmtree = faulty


FAULTS: dict[str, Callable[[], None]] = {
    "while reading": _at(_inputs, "index_video"),
    "before anything is kept": _at_rename("job.json"),
    "while rehearsing": _at(_sink, "write"),
    "in the first segment": _at(_sink, "write", call=2),
    "before the first segment is kept": _at(_segment_store, "commit", call=1),
    "between its checksum and its name": _at_rename("000000.seg"),
    "in the second segment": _at(_sink, "write", call=7),
    "after two segments": _at(_sink, "__enter__", call=4),
    "before joining": _at(_outputs, "join"),
    "while joining": _after_frames("join", 5),
    "before verifying": _at(_outputs, "verify_video"),
    "while verifying": _after_frames("verify_video", 5),
    "before the film gets its name": _at_rename("out."),
    "before tidying": _at(_work_folder, "remove"),
    "while tidying": _while_tidying,
    "(stands still in the second segment)": _at(_sink, "write", call=7, then=_wait),
}


def _slow(stage: str) -> Callable[[], None]:
    """Says `(slow)` in a stage, in the second segment if there are any, and takes a tenth of a second for each frame."""

    def install() -> None:
        watch = _progress().Watch
        original = watch.count

        def count(self: Any) -> None:
            if self._stage == stage and (stage != "upscaling" or self._done >= 6):
                print("(slow)")  # noqa: T201
                time.sleep(0.1)
            original(self)

        watch.count = count

    return install


FAULTS |= {f"(slow while {stage})": _slow(stage) for stage in ("reading", "upscaling", "checking")}


def random_moments(count: int, *, seed: int) -> list[float]:
    """Shares of a run's time, spread over all of it."""
    rng = random.Random(seed)
    return [(n + rng.random()) / count for n in rng.sample(range(count), count)]


def content(folder: Path) -> dict[str, str]:
    """Every file below a folder and its checksum."""
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    return {p.relative_to(folder).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def copy(source: Path, folder: Path) -> Path:
    folder.mkdir(parents=True)
    return Path(shutil.copy2(source, folder / source.name))


def seconds(times: Iterable[int], clock: Fraction = TICK) -> list[Fraction]:
    return [t * clock for t in times]


def out_of_memory(*_: object, **__: object) -> None:
    raise MemoryError


def make_cover() -> av.VideoFrame:
    return av.VideoFrame.from_ndarray(make_pictures(1, (32, 32))[0], format="rgb24").reformat(format="yuvj420p")


def silence(stream: Any) -> list[Any]:
    """Half a second of it, as packets."""
    packets: list[Any] = []
    for start in range(0, 24000, 1024):
        frame = av.AudioFrame.from_ndarray(np.zeros((2, 1024), np.float32), "fltp", "stereo")
        frame.sample_rate, frame.pts, frame.time_base = 48000, start, Fraction(1, 48000)
        packets += stream.encode(frame)
    return packets + stream.encode(None)
