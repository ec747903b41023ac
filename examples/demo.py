"""`make demo`: enlarge the bundled photo with the shipped weights, and show before and after.

Usage: python examples/demo.py [OUTPUT_FOLDER]
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import upframe
from upframe.frames import Pixels
from upframe.media.images import read_pixels, write_pixels
from upframe.media.sheet import Box, SheetRow, contact_sheet
from upframe.pixels import from_unit, imresize, to_unit

PHOTO = Path(__file__).parent / "media" / "astronaut.png"
DETAILS = (Box(top=52, left=180, height=72, width=72), Box(top=262, left=270, height=72, width=72))
SCALE = 4


def main() -> None:
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "demo-out")
    folder.mkdir(parents=True, exist_ok=True)
    enlarged = folder / "astronaut_x4.png"
    model = upframe.load("photo", scale=SCALE)
    print(f"Enlarging {PHOTO.name} with {model.name} ({model.spec.family}, trained by this project) on the CPU ...")  # noqa: T201

    start = time.perf_counter()
    photo = read_pixels(PHOTO)
    with upframe.Upscaler(model) as up:
        after = up(photo)
    write_pixels(enlarged, after)
    seconds = time.perf_counter() - start

    before = from_unit(imresize(to_unit(photo), SCALE), photo.dtype)
    rows = [
        SheetRow(f"detail {i}", photo, box, tuple(_cut(picture, box) for picture in (before, after)), ("", ""))
        for i, box in enumerate(DETAILS, 1)
    ]
    sheet = contact_sheet(rows, headings=("bicubic", "upframe"), title=f"{PHOTO.name} x{SCALE}", panel_px=432)
    write_pixels(folder / "before_after.png", sheet)

    print(f"  model   {model.name}, sha256 {model.sha256[:12]}")  # noqa: T201
    print(f"  size    {photo.shape[1]}x{photo.shape[0]} -> {after.shape[1]}x{after.shape[0]}")  # noqa: T201
    print(f"  time    {seconds:.1f} s, reading and writing included")  # noqa: T201
    print(f"  result  {enlarged}")  # noqa: T201
    print(f"  compare {folder / 'before_after.png'}")  # noqa: T201


def _cut(picture: Pixels, box: Box) -> Pixels:
    top, left = box.top * SCALE, box.left * SCALE
    return picture[top : top + box.height * SCALE, left : left + box.width * SCALE]


if __name__ == "__main__":
    main()
