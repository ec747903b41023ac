"""`make demo`: enlarge the bundled photo and the bundled video with the shipped weights, and draw before and after.

Usage: python examples/demo.py [OUTPUT_FOLDER]

`docs/images/before_after.jpg` is the picture of the same name that this script writes.
"""

from __future__ import annotations

import hashlib
import sys
import time
from pathlib import Path

import av

import upframe
from upframe.drawing.sheet import Box, SheetRow, contact_sheet
from upframe.media.frames import Pixels
from upframe.media.image.files import write_pixels
from upframe.media.image.source import read_pixels
from upframe.pixels import from_unit, imresize, to_unit

MEDIA = Path(__file__).parent / "media"
PHOTO, PHOTO_SCALE = MEDIA / "astronaut.png", 4
CLIP, CLIP_SCALE = MEDIA / "bunny.mp4", 2
DETAILS = (Box(top=52, left=180, height=72, width=72), Box(top=353, left=134, height=72, width=72))
QUALITY = 75
"""JPEG quality of the picture of before and after, which gives about 115 kB."""


def main() -> None:
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "demo-out")
    folder.mkdir(parents=True, exist_ok=True)
    enlarge_photo(folder)
    enlarge_clip(folder)


def enlarge_photo(folder: Path) -> None:
    """Enlarge an array of pixels, and draw a picture of before and after."""
    enlarged = folder / "astronaut_x4.png"
    model = upframe.load("photo", scale=PHOTO_SCALE)
    print(f"Enlarging {PHOTO.name} with {model.name} ({model.spec.family}, trained by this project) ...")

    start = time.perf_counter()
    photo = read_pixels(PHOTO)
    with upframe.Upscaler(model) as up:
        after = up(photo)
    write_pixels(enlarged, after)
    seconds = time.perf_counter() - start

    before = from_unit(imresize(to_unit(photo), PHOTO_SCALE), photo.dtype)
    rows = [
        SheetRow(f"detail {i}", photo, box, tuple(_cut(picture, box) for picture in (before, after)), ("", ""))
        for i, box in enumerate(DETAILS, 1)
    ]
    sheet = contact_sheet(rows, headings=("bicubic", "upframe"), title=f"{PHOTO.name} x{PHOTO_SCALE}", panel_px=288)
    write_pixels(folder / "before_after.jpg", sheet, quality=QUALITY)

    print(f"  model   {model.name}, sha256 {model.sha256[:12]}")
    print(f"  size    {photo.shape[1]}x{photo.shape[0]} -> {after.shape[1]}x{after.shape[0]}")
    print(f"  time    {seconds:.1f} s, reading and writing included")
    print(f"  result  {enlarged}")
    print(f"  compare {folder / 'before_after.jpg'}")


def enlarge_clip(folder: Path) -> None:
    """Enlarge a video by the job that `upframe bunny.mp4 -s 2` runs: plan it, then run the plan."""
    enlarged = folder / "bunny_x2.mp4"
    options = upframe.JobOptions(model="photo", target=upframe.Target(scale=CLIP_SCALE), overwrite=True)
    planned = upframe.plan(CLIP, enlarged, options)
    (item,) = planned.items
    model = upframe.load(item.model)
    print(f"Enlarging {CLIP.name} with {model.name} ...")

    facts: dict[str, int] = {}

    def listen(event: upframe.Event) -> None:
        if event.event == "video":
            facts.update(event.data)

    report = upframe.run(planned, on_event=listen)
    if report.error is not None:
        raise report.error
    (made,) = report.outcomes
    height, width = item.size
    kept = "kept, bit for bit" if _audio(enlarged) == _audio(CLIP) else "NOT kept"

    print(f"  model   {model.name}, sha256 {model.sha256[:12]}")
    print(f"  size    {width // CLIP_SCALE}x{height // CLIP_SCALE} -> {width}x{height}")
    print(f"  frames  {facts['frames']}, {facts['frames'] / made.seconds:.1f} a second, checking the result included")
    print(f"  audio   {kept}")
    print(f"  result  {enlarged}")


def _cut(picture: Pixels, box: Box) -> Pixels:
    top, left = box.top * PHOTO_SCALE, box.left * PHOTO_SCALE
    return picture[top : top + box.height * PHOTO_SCALE, left : left + box.width * PHOTO_SCALE]


def _audio(path: Path) -> str:
    """Return a hash of all audio packets of a file, without decoding them."""
    with av.open(str(path)) as file:
        packets = (bytes(packet) for packet in file.demux(file.streams.audio[0]))
        return hashlib.sha256(b"".join(packets)).hexdigest()


if __name__ == "__main__":
    main()
