"""Make the pictures of docs/serve.md: the page in Chromium, with the photo and the video of examples/media.

Usage: python scripts/serve_screenshots.py [--out docs/images]

Needs playwright and Chromium (see CONTRIBUTING.md). Each picture is a WebP file below 200 kB.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import shutil
import sys
import tempfile
from pathlib import Path

from PIL import Image

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests" / "support"))
from browsing import PHONE, Visit, browser, why_not  # noqa: E402 (the line above lets it be found)
from serving import Server  # noqa: E402

MEDIA = ROOT / "examples" / "media"
MOST_BYTES = 200_000
QUALITIES = (90, 80, 70, 60)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "images")
    out = parser.parse_args().out
    if reason := why_not():
        print(reason, file=sys.stderr)  # noqa: T201
        return 1
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        album = served(Path(folder) / "Pictures")
        server = stack.enter_context(Server(Path(folder) / "data", "--allow", str(album)))
        chrome = stack.enter_context(browser())
        visit = Visit(chrome, server.address).open()
        shoot_folder(visit, out)
        shoot_desktop(visit, inputs(Path(folder)), out)
        visit.close()
        visit = Visit(chrome, server.address, viewport=PHONE, color_scheme="dark", device_scale_factor=2).open()
        keep(visit, out / "serve_phone.webp")
        visit.close()
    return 0


def inputs(folder: Path) -> list[Path]:
    """A clean photo, a small one with JPEG blocks, and a video."""
    old = folder / "grandmother.jpg"
    with Image.open(MEDIA / "astronaut.png") as picture:
        picture.convert("RGB").resize((256, 256), Image.Resampling.LANCZOS).save(old, quality=35)
    return [MEDIA / "astronaut.png", old, MEDIA / "bunny.mp4"]


def served(album: Path) -> Path:
    """A folder of the server with a photo, a video and two folders."""
    for folder in ("Holiday", "Scans"):
        (album / folder).mkdir(parents=True)
    for name in ("astronaut.png", "bunny.mp4"):
        shutil.copy(MEDIA / name, album)
    return album


def shoot_folder(visit: Visit, out: Path) -> None:
    visit.page.get_by_role("button", name="Browse the server").click()
    visit.page.get_by_label("bunny.mp4").check()
    visit.holds("[...document.querySelectorAll('#browse .thumb')].every(image => image.naturalWidth)")
    visit.page.mouse.move(0, 0)
    keep(visit, out / "serve_folder.webp")
    visit.page.keyboard.press("Escape")
    visit.page.evaluate("document.activeElement.blur()")


def shoot_desktop(visit: Visit, files: list[Path], out: Path) -> None:
    page, old = visit.page, files[1].name
    visit.drop(files)
    for path in files:
        visit.row(path.name, "#drafts").locator(".facts", has_text="→").wait_for()
    visit.holds("[...document.querySelectorAll('#drafts .thumb')].every(image => image.naturalWidth)")
    page.mouse.move(0, 0)
    keep(visit, out / "serve_plans.webp")
    visit.button(visit.row(old), "Try models").click()
    page.locator("#trial-place img").wait_for()
    page.locator("#trial-place img").click(position={"x": 110, "y": 60})
    visit.holds(
        "document.querySelectorAll('#trial-results img').length > 2 && !document.querySelector('#trial-results .blank')"
    )
    keep(visit, out / "serve_trial.webp")
    page.keyboard.press("Escape")
    page.locator("#start").click()
    visit.reaches(old, "done")
    visit.reaches("bunny.mp4", "running")
    visit.holds("document.querySelector('#active progress').value > 0.2")
    visit.holds("[...document.querySelectorAll('#ended .thumb')].every(image => image.naturalWidth)")
    keep(visit, out / "serve_queue.webp")
    visit.compare(old)
    keep(visit, out / "serve_compare.webp")
    page.keyboard.press("Escape")


def keep(visit: Visit, path: Path) -> None:
    """Write a screenshot, as well as fits."""
    picture = Image.open(io.BytesIO(visit.page.screenshot())).convert("RGB")
    for quality in QUALITIES:
        picture.save(path, quality=quality, method=6)
        if path.stat().st_size < MOST_BYTES:
            break
    print(f"{path.name}: {path.stat().st_size // 1000} kB")  # noqa: T201


if __name__ == "__main__":
    sys.exit(main())
