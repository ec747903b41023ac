"""Enlarge a folder of files: plan first, look at the plan, then carry it out. One bad file stops no other.

Usage: python examples/folder_job.py [OUTPUT_FOLDER]
"""

from __future__ import annotations

import sys
from pathlib import Path

from PIL import Image

import upframe

PHOTO = Path(__file__).parent / "media" / "astronaut.png"


def main() -> None:
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "example-out")
    scans = folder / "scans"
    scans.mkdir(parents=True, exist_ok=True)
    face = Image.open(PHOTO).crop((160, 40, 288, 168))
    face.save(scans / "face.png")
    face.convert("L").save(scans / "gray.jpg")
    (scans / "broken.png").write_bytes(b"not a picture")

    options = upframe.JobOptions(target=upframe.Target(width=256), overwrite=True)
    planned = upframe.plan(scans, folder / "large", options)  # reads headers only
    for item in planned.items:
        print(f"plan     {item.input.name} -> {item.output.name}, {item.size[1]}x{item.size[0]}")

    def show(event: upframe.Event) -> None:
        if event.event in ("done", "skipped"):
            print(f"{event.event:8} {event.input.name}")
        elif event.event == "failed":
            print(f"failed   {event.data['error']}")

    report = upframe.run(planned, on_event=show)
    print(f"{len(report.of('written'))} written, {len(report.of('failed'))} failed, {report.seconds:.1f} s")


if __name__ == "__main__":
    main()
