"""The page chooses files of the server, which need no upload."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from browsing import PHONE, Visit, why_not
from conftest import make_photo
from serving import Server
from upframe.client import Client

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.skipif(why_not() is not None, reason=str(why_not()))]

CROWD = 230
"""Files of a folder that comes in three pages."""


@pytest.fixture(scope="module")
def album(tmp_path_factory: pytest.TempPathFactory) -> Path:
    album = tmp_path_factory.mktemp("served") / "album"
    (album / "day 1" / "raw").mkdir(parents=True)
    (album / "crowd").mkdir()
    for place in ("one.png", "two.png", "day 1/three.png"):
        Image.fromarray(make_photo(24, 32)).save(album / place)
    for number in range(CROWD):
        os.link(album / "one.png", album / "crowd" / f"p{number}.png")
    return album


@pytest.fixture(scope="module")
def allowed(album: Path) -> Path:
    return album


def opened(visit: Visit) -> Any:
    visit.page.get_by_role("button", name="Browse the server").click()
    visit.page.locator("#browse .entry").first.wait_for()
    return visit.page.locator("#browse")


def test_files_of_two_folders_are_chosen_planned_and_made(
    visit: Visit, client: Client, shoot: Callable[[Visit, str], None]
) -> None:
    dialog = opened(visit)
    assert dialog.locator(".entry span").all_inner_texts() == ["crowd", "day 1", "one.png", "two.png"]
    dialog.get_by_label("two.png").check()
    visit.holds("[...document.querySelectorAll('#browse .thumb')].every(image => image.naturalWidth)")
    shoot(visit, "browse")
    dialog.get_by_role("button", name="day 1").click()
    dialog.get_by_label("three.png").check()
    assert dialog.locator("#browse-trail li").all_inner_texts() == ["album", "day 1"]
    dialog.get_by_role("button", name="album", exact=True).click()
    assert dialog.get_by_label("two.png").is_checked()
    dialog.get_by_role("button", name="Add 2 files").click()
    for name in ("two.png", "three.png"):
        visit.row(name, "#drafts").locator(".facts", has_text="32 × 24 → 64 × 48").wait_for()
    visit.page.reload()
    visit.ready()
    visit.page.get_by_role("button", name="Start all 2").click()
    for name in ("two.png", "three.png"):
        visit.reaches(name, "done")
    assert {job.name for job in client.jobs()} == {"two.png", "three.png"} and not client.uploads()
    visit.page.reload()
    visit.ready()
    assert visit.page.locator("#drafts").is_hidden()  # what was started is forgotten


def test_a_large_folder_comes_in_pages_and_is_chosen_as_a_whole(visit: Visit) -> None:
    dialog = opened(visit)
    dialog.get_by_role("button", name="crowd").click()
    dialog.get_by_role("button", name="Show more (130 left)").click()
    dialog.get_by_label("p199.png").wait_for()
    assert dialog.locator(".entry").count() == 200
    dialog.get_by_label(f"Select all ({CROWD})").check()
    dialog.get_by_role("button", name=f"Add {CROWD} files").wait_for()
    assert dialog.get_by_label("p0.png").is_checked()
    dialog.get_by_label("p7.png").uncheck()
    dialog.get_by_role("button", name=f"Add {CROWD - 1} files").wait_for()
    dialog.get_by_role("button", name="Show more (30 left)").click()
    dialog.get_by_label("p229.png").wait_for()
    assert dialog.get_by_label("p229.png").is_checked()
    dialog.get_by_label(f"Select all ({CROWD})").click()
    dialog.get_by_label(f"Select all ({CROWD})").click()
    dialog.get_by_role("button", name="Add", exact=True).wait_for()
    assert dialog.locator(":checked").count() == 0


def test_by_keyboard_alone_down_into_a_folder_and_back(visit: Visit) -> None:
    page, keys = visit.page, visit.page.keyboard
    dialog = opened(visit)
    focused = "document.activeElement.closest('li')?.textContent"
    visit.holds(f"{focused} === 'crowd'")
    keys.press("ArrowDown")
    keys.press("Enter")
    dialog.get_by_label("three.png").wait_for()
    keys.press("End")
    keys.press("Space")
    assert dialog.get_by_label("three.png").is_checked()
    keys.press("Backspace")
    visit.holds(f"{focused} === 'day 1'")
    keys.press("End")
    keys.press("Space")
    page.get_by_role("button", name="Add 2 files").focus()
    keys.press("Enter")
    visit.row("three.png", "#drafts").locator(".facts", has_text="→").wait_for()
    visit.page.get_by_role("button", name="Remove all").click()


def test_a_folder_that_is_gone_is_told_in_the_dialog(visit: Visit, album: Path) -> None:
    dialog = opened(visit)
    dialog.get_by_role("button", name="day 1").click()
    raw = dialog.get_by_role("button", name="raw")
    raw.wait_for()
    (album / "day 1" / "raw").rmdir()
    raw.click()
    dialog.get_by_role("alert").get_by_text("raw: is no folder that is shown").wait_for()
    (album / "day 1" / "raw").mkdir()
    visit.faults.clear()  # browsers report refused requests as errors


def test_a_narrow_window_shows_all_of_the_dialog(chrome: Any, server: Server, shoot: Callable[[Visit, str], None]) -> None:
    visit = Visit(chrome, server.address, viewport=PHONE, color_scheme="dark").open()
    dialog = opened(visit)
    dialog.get_by_role("button", name="day 1").click()
    dialog.get_by_label("three.png").check()
    for one in dialog.locator("button, input, small").all():
        box = one.bounding_box()
        assert box is None or (box["x"] >= 0 and box["x"] + box["width"] <= PHONE["width"])
    shoot(visit, "browse-narrow")
    visit.close()


def test_without_allow_there_is_nothing_to_browse(chrome: Any, tmp_path: Path) -> None:
    with Server(tmp_path / "data") as server:
        visit = Visit(chrome, server.address).open()
        assert visit.page.get_by_role("button", name="Choose files").is_visible()
        assert visit.page.locator("#choose-served").is_hidden()
        visit.close()
