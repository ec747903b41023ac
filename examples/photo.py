"""Enlarge a photograph: as a file, as a Pillow image and as an array.

Usage: python examples/photo.py [OUTPUT_FOLDER]
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from PIL import Image

import upframe

PHOTO = Path(__file__).parent / "media" / "astronaut.png"


def main() -> None:
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "example-out")
    folder.mkdir(parents=True, exist_ok=True)

    # A path: depth, metadata and transparency are kept, and the file is checked before it gets its name.
    path = upframe.upscale(PHOTO, output=folder / "astronaut_x2.png", scale=2, overwrite=True)
    print(f"file   {path}")

    # A Pillow image gives a Pillow image of the same mode.
    face = Image.open(PHOTO).crop((160, 40, 288, 168))
    large = upframe.upscale(face, width=400)
    large.save(folder / "face.png")
    print(f"image  {face.mode} {face.width}x{face.height} -> {large.mode} {large.width}x{large.height}")

    # An array gives an array of the same dtype. An Upscaler keeps the model ready for the next one.
    with upframe.Upscaler("photo-x4") as up:
        for channels in ("RGB", "L"):
            pixels = np.asarray(face.convert(channels))
            print(f"array  {pixels.dtype} {pixels.shape} -> {up(pixels).shape}")


if __name__ == "__main__":
    main()
