"""Follow a long call, and stop it: from a callback, a signal handler or another thread.

Usage: python examples/progress_and_cancel.py
"""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
from PIL import Image

import upframe

PHOTO = Path(__file__).parent / "media" / "astronaut.png"


def main() -> None:
    pixels = np.asarray(Image.open(PHOTO).convert("RGB"))[:256, :256]
    options = upframe.UpscaleOptions(tile=96)  # smaller tiles report progress more often and stop sooner

    def show(share: float) -> None:
        print(f"{share:4.0%} done")

    upframe.upscale(pixels, scale=2, options=options, on_progress=show)

    # Setting the event stops the call before its next tile. Here the callback sets it, half-way.
    cancel = threading.Event()

    def stop_half_way(share: float) -> None:
        if share >= 0.5:
            cancel.set()

    try:
        upframe.upscale(pixels, scale=2, options=options, on_progress=stop_half_way, cancel=cancel)
    except upframe.errors.Cancelled as error:
        print(f"stopped: {error}")


if __name__ == "__main__":
    main()
