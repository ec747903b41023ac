"""A real browser: Debian's Chromium, headless, driven by playwright. Neither is needed for anything else."""

from __future__ import annotations

import base64
import contextlib
import os
import re
import shutil
import time
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
DESKTOP, PHONE = {"width": 1280, "height": 800}, {"width": 360, "height": 740}
PATIENCE_S = 60
"""A loaded machine takes long for a job of a second."""


def chromium() -> str | None:
    """Path of the browser."""
    return os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")


def why_not() -> str | None:
    """The reason for which no browser can be driven here."""
    if find_spec("playwright") is None:
        return "playwright is not installed (pip install -c constraints.txt playwright)"
    return None if chromium() else "Chromium is not installed (apt-get install chromium)"


@contextlib.contextmanager
def browser() -> Iterator[Any]:
    """A `playwright.sync_api.Browser`."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=chromium(), args=list(FLAGS))
        try:
            yield running
        finally:
            running.close()


class Visit:
    """One user's window of the page, which takes note of everything that must not happen."""

    def __init__(self, browser: Any, address: str, **options: Any) -> None:
        self.context = browser.new_context(**{"viewport": DESKTOP, "locale": "en-GB", "reduced_motion": "reduce"} | options)
        self.context.set_default_timeout(PATIENCE_S * 1000)
        self.page = self.context.new_page()
        self.address = address
        self.faults: list[str] = []
        """Errors on the console and of scripts."""
        self.strangers: list[str] = []
        """Requests to other hosts."""
        host = urlsplit(address).netloc
        self.page.on("console", self._heard)
        self.page.on("pageerror", lambda error: self.faults.append(str(error)))
        self.context.on(
            "request",
            lambda request: None if urlsplit(request.url).netloc in (host, "") else self.strangers.append(request.url),
        )

    def _heard(self, message: Any) -> None:
        if message.type in ("error", "warning"):
            self.faults.append(f"{message.text} {message.location['url']}")

    def open(self, path: str = "/") -> Visit:
        self.page.goto(f"{self.address}{path}")
        self.ready()
        return self

    def ready(self) -> None:
        self.page.wait_for_selector("body:not(.loading)")

    def holds(self, script: str, *, seconds: float = PATIENCE_S) -> None:
        """Wait until an expression is true. The page's policy forbids playwright's own way, which evaluates texts in it."""
        end = time.monotonic() + seconds
        while not self.page.evaluate(script):
            assert time.monotonic() < end, f"it did not happen in time: {script}"
            time.sleep(0.03)

    def drop(self, paths: Sequence[Path]) -> None:
        """Drop files on the page, as a mouse would."""
        files = [[path.name, base64.b64encode(path.read_bytes()).decode()] for path in paths]
        self.page.evaluate(
            """files => {
                const transfer = new DataTransfer();
                for (const [name, text] of files) {
                    transfer.items.add(new File([Uint8Array.from(atob(text), (c) => c.charCodeAt(0))], name));
                }
                for (const kind of ["dragenter", "dragover", "drop"]) {
                    document.body.dispatchEvent(new DragEvent(kind, {dataTransfer: transfer, bubbles: true, cancelable: true}));
                }
            }""",
            files,
        )

    def row(self, name: str, section: str = "") -> Any:
        """The row of a file."""
        return self.page.locator(f"{section} .row").filter(has=self.page.get_by_role("heading", name=name, exact=True))

    def button(self, row: Any, name: str) -> Any:
        return row.get_by_role("button", name=name, exact=True)

    def reaches(self, name: str, state: str) -> None:
        """Wait until a job is in a state."""
        self.page.locator(f'.row[data-state="{state}"]', has_text=re.compile(re.escape(name))).first.wait_for()

    def compare(self, name: str) -> None:
        """Open the comparison of a result and wait for both pictures."""
        self.button(self.row(name, "#ended"), "Compare").click()
        self.page.locator("#stage-told").wait_for(state="hidden")

    def too_wide(self) -> list[str]:
        """Elements that make the page wider than the window."""
        found: list[str] = self.page.evaluate(
            """() => document.documentElement.scrollWidth <= document.documentElement.clientWidth ? [] :
                [...document.querySelectorAll("body *")]
                    .filter((one) => one.getBoundingClientRect().right > document.documentElement.clientWidth)
                    .map((one) => `${one.tagName} ${one.id} ${one.className} ${one.getBoundingClientRect().right}`)"""
        )
        return found

    def close(self) -> None:
        self.context.close()
