"""The page in a real browser: from a drop to a compared result, and everything that may come between."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from browsing import PHONE, Visit, why_not
from conftest import make_photo
from serving import Server, until, within
from upframe.client import Client
from video_files import Clip, Sound, make_clip

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.skipif(why_not() is not None, reason=str(why_not()))]

CANCEL_S = 2.0
PAGE = Path(__file__).parents[2] / "src" / "upframe" / "service" / "page"


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    return make_clip(tmp_path / "clip.mp4", Clip(pts=[3600 * i for i in range(8)], sounds=[Sound(seconds=0.3)]))


@pytest.fixture
def long_clip(tmp_path: Path) -> Path:
    """A video that takes longer than a test waits."""
    return make_clip(tmp_path / "long.mp4", Clip(pts=[3600 * i for i in range(240)], size=(96, 128)))


def planned(visit: Visit, name: str) -> Any:
    """The row of a file once its plan is there."""
    row = visit.row(name, "#drafts")
    row.locator(".facts", has_text="→").wait_for()
    return row


# The way of most people -----------------------------------------------------------------------------------------------
def test_from_a_drop_to_compared_results(
    visit: Visit, client: Client, photo: Path, clip: Path, shoot: Callable[[Visit, str], None]
) -> None:
    visit.drop([photo, clip])
    facts = planned(visit, "my photo.png").locator(".facts").inner_text()
    assert "32 × 24 → 64 × 48 · PNG" in facts and "memory" in facts
    assert "64 × 48 → 128 × 96" in planned(visit, "clip.mp4").locator(".facts").inner_text()
    shoot(visit, "plans")
    visit.page.get_by_role("button", name="Start all 2").click()
    visit.reaches("my photo.png", "done")
    visit.reaches("clip.mp4", "done")
    assert visit.page.locator("#drafts").is_hidden()
    visit.holds("document.querySelectorAll('#ended img.thumb').length === 2")
    visit.holds("[...document.querySelectorAll('#ended img.thumb')].every(image => image.naturalWidth)")
    shoot(visit, "results")
    job = next(job for job in client.jobs() if job.name == "my photo.png")
    with visit.page.expect_download() as download:
        visit.row("my photo.png", "#ended").get_by_role("link", name="Download").click()
    assert job.output is not None and download.value.suggested_filename == job.output.name
    assert download.value.path().read_bytes() == client.output(job.id)
    with visit.page.expect_download() as download:
        visit.page.get_by_role("link", name="Download all").click()
    assert download.value.suggested_filename == "upframe.zip"
    assert not client._request("GET", "/api/uploads").json()["uploads"]  # the jobs have taken them


def test_the_page_gives_the_bytes_of_the_rest_service(visit: Visit, client: Client, photo: Path) -> None:
    visit.drop([photo])
    planned(visit, photo.name)
    visit.page.get_by_role("button", name="Start", exact=True).first.click()
    visit.reaches(photo.name, "done")
    (made,) = client.jobs()
    other = client.wait(client.submit(photo, made.options).id)
    assert client.output(made.id) == client.output(other.id)


def test_compare_keeps_both_pictures_in_step(
    visit: Visit, client: Client, photo: Path, shoot: Callable[[Visit, str], None]
) -> None:
    finished(client, photo)
    page = visit.page
    visit.compare("my photo.png")
    shoot(visit, "compare")
    box = page.locator("#stage").bounding_box()
    middle = (box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.mouse.move(*middle)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] / 4, middle[1], steps=4)
    page.mouse.up()
    assert page.locator("#divider").get_attribute("aria-valuenow") == "25"
    page.keyboard.press("1")
    assert page.locator("#zoom").inner_text() == "100 %"
    page.mouse.move(*middle)
    for _ in range(8):
        page.mouse.wheel(0, -400)
    assert int(page.locator("#zoom").inner_text().split()[0]) > 1000
    before = transforms(visit)
    page.mouse.move(middle[0] + 200, middle[1] + 100)
    page.mouse.down()
    page.mouse.move(middle[0] + 120, middle[1] + 60, steps=3)
    page.mouse.up()
    assert before[0] == before[1] and transforms(visit) != before and len(set(transforms(visit))) == 1
    for key, mode in (("d", "difference"), ("b", "side"), ("s", "slider")):
        page.keyboard.press(key)
        assert page.locator("#stage").get_attribute("data-mode") == mode
        assert len(set(transforms(visit))) == 1
    page.keyboard.press("f")
    fitted = page.locator("#pane-after img").bounding_box()
    assert fitted["width"] <= box["width"] and abs(fitted["height"] - box["height"]) < 1
    page.keyboard.press("Escape")
    assert page.locator("#compare").is_hidden()


def transforms(visit: Visit) -> list[str]:
    return list(visit.page.evaluate("[...document.querySelectorAll('.pane img, .pane video')].map(one => one.style.transform)"))


def finished(client: Client, *paths: Path) -> None:
    """Results, made before the page looks."""
    for job in [client.submit(path) for path in paths]:
        assert client.wait(job.id).state == "done"


def test_both_videos_play_in_step(visit: Visit, client: Client, tmp_path: Path) -> None:
    finished(client, make_clip(tmp_path / "clip.mp4", Clip(pts=[7200 * i for i in range(10)])))
    page = visit.page

    def holds(script: str) -> None:
        names = {"AFTER": "#pane-after video", "BEFORE": "#pane-before video"}
        for name, selector in names.items():
            script = script.replace(name, f"document.querySelector('{selector}')")
        visit.holds(script)

    visit.compare("clip.mp4")
    holds("AFTER.currentTime > 0")
    page.keyboard.press(" ")
    holds("AFTER.paused && BEFORE.paused")
    apart = "Math.abs(AFTER.currentTime - BEFORE.currentTime)"
    page.locator("#seek").fill("0.4")
    holds(f"AFTER.currentTime === 0.4 && {apart} < 0.01")
    page.locator("#seek").blur()
    page.keyboard.press(".")
    holds(f"AFTER.currentTime > 0.45 && {apart} < 0.01")


# Try before you start -------------------------------------------------------------------------------------------------
def test_a_spot_is_shown_by_every_model_and_the_chosen_one_is_used(
    visit: Visit, client: Client, tmp_path: Path, shoot: Callable[[Visit, str], None]
) -> None:
    source = tmp_path / "street.png"
    Image.fromarray(make_photo(160, 240)).save(source)
    visit.drop([source])
    row, page = planned(visit, source.name), visit.page
    visit.button(row, "Try models").click()
    page.locator("#trial-place img").wait_for()
    page.locator("#trial-place img").click(position={"x": 5, "y": 5})
    tiles = page.locator("#trial-results li")
    visit.holds(
        "document.querySelectorAll('#trial-results img').length >= 3 && !document.querySelector('#trial-results .blank')"
    )
    assert tiles.first.inner_text() == "Original"
    was = page.locator(".square-mark").evaluate("mark => mark.style.left")
    for _ in range(8):
        page.locator("#trial-place").press("ArrowRight")
    assert page.locator(".square-mark").evaluate("mark => mark.style.left") != was
    page.locator("#trial-place").press("Enter")
    page.locator("#trial-results .blank").first.wait_for()
    visit.holds(
        "document.querySelectorAll('#trial-results img').length >= 3 && !document.querySelector('#trial-results .blank')"
    )
    images = "[...document.querySelectorAll('#trial-results img')]"
    visit.holds(f"{images}.every(image => image.naturalWidth)")
    assert set(page.evaluate(f"{images}.map(image => image.naturalWidth)")) == {256}  # 128 pixels of the input, twice as large
    shoot(visit, "trial")
    tiles.filter(has_text="photo-vapsr-x2").get_by_role("button", name="Use this model").click()
    row.get_by_text("Chosen for this file: photo-vapsr-x2").wait_for()
    visit.button(row, "Start").click()
    visit.reaches(source.name, "done")
    (job,) = client.jobs()
    assert job.options.model == "photo-vapsr-x2"


def test_a_moment_of_a_video_and_a_clip_of_it(visit: Visit, clip: Path) -> None:
    visit.drop([clip])
    row, page = planned(visit, clip.name), visit.page
    visit.button(row, "Try models").click()
    page.locator("#trial-place video").wait_for()
    visit.holds("document.querySelector('#trial-time').max > 0")
    page.locator("#trial-time").fill("0.2")
    page.get_by_role("button", name="2-second clip").click()
    visit.holds("document.querySelectorAll('#trial-results video').length >= 2")
    visit.holds("[...document.querySelectorAll('#trial-results video')].every(one => one.videoWidth === 128)")


def test_presets_and_options_change_the_plan(visit: Visit, photo: Path) -> None:
    visit.drop([photo])
    row, page = planned(visit, photo.name), visit.page
    page.get_by_role("radio", name="4×").check()
    row.locator(".facts", has_text="32 × 24 → 128 × 96").wait_for()
    page.get_by_role("radio", name="Old photo").check()
    row.get_by_text("photo-real-x4").wait_for()
    page.get_by_text("All options").click()
    page.get_by_label("Long side").fill("50")
    page.keyboard.press("Tab")
    page.locator("[name='picture.format']").select_option("webp")
    row.locator(".facts", has_text="WEBP").wait_for()
    row.locator(".facts", has_text="50 × 38").wait_for()
    page.reload()
    visit.ready()
    assert "50 × 38" in planned(visit, photo.name).locator(".facts").inner_text()
    assert page.locator("#changed").inner_text() == "2 changed"


def test_options_of_a_video_reach_its_job_and_refusals_mark_the_field(visit: Visit, client: Client, clip: Path) -> None:
    visit.drop([clip])
    row, page = planned(visit, clip.name), visit.page
    page.get_by_text("All options").click()
    page.locator("[name='video.format']").select_option("mkv")
    page.locator("[name='video.codec']").select_option("h264")
    page.get_by_label("Encoder preset").fill("fast")
    page.get_by_label("Encoder options").fill("tune=film stats=x")
    page.keyboard.press("Tab")
    row.get_by_text("video.encoder='stats=x': is not among the encoder options of this service").wait_for()
    field = page.get_by_label("Encoder options")
    assert field.get_attribute("aria-invalid") == "true"
    field.fill("tune=film  x264-params=keyint=7:bframes=2 ")
    page.keyboard.press("Tab")
    page.get_by_label("Keep audio").uncheck()
    row.locator(".facts", has_text="MKV").wait_for()
    assert field.get_attribute("aria-invalid") == "false"
    visit.button(row, "Start").click()
    visit.reaches(clip.name, "done")
    (job,) = client.jobs()
    assert job.options.video.encoder == {"tune": "film", "x264-params": "keyint=7:bframes=2"}
    assert (job.options.video.codec, job.options.video.preset, job.options.video.audio) == ("h264", "fast", False)
    visit.faults.clear()  # browsers report refused requests as errors


# What goes wrong ------------------------------------------------------------------------------------------------------
def test_errors_are_the_services_own_lines_and_other_files_are_left_aside(visit: Visit, tmp_path: Path, photo: Path) -> None:
    (tmp_path / "evil.png").write_bytes(b"<svg xmlns='http://www.w3.org/2000/svg' onload='alert(1)'/>")
    (tmp_path / "notes.txt").write_text("no picture")
    (tmp_path / "blank.png").touch()
    visit.drop([tmp_path / name for name in ("evil.png", "notes.txt", "blank.png")] + [photo])
    told = "2 files left aside: notes.txt (upframe does not read this format), blank.png (empty)"
    visit.page.get_by_role("status").get_by_text(told, exact=True).wait_for()
    planned(visit, photo.name)
    error = visit.row("evil.png", "#drafts").locator(".error")
    error.wait_for()
    assert error.inner_text().startswith("evil.png: is not an image that upframe can read (it holds SVG).")
    assert visit.button(visit.row("evil.png"), "Start").is_disabled()
    assert all("422" in fault for fault in visit.faults)
    visit.faults.clear()  # browsers report refused requests as errors


@pytest.fixture
def large(tmp_path: Path) -> Path:
    """A picture that is sent in two chunks."""
    path = tmp_path / "large.png"
    Image.frombytes("RGB", (1500, 1200), os.urandom(1500 * 1200 * 3)).save(path, compress_level=0)
    return path


def test_an_upload_that_breaks_goes_on_where_it_stopped(visit: Visit, client: Client, large: Path) -> None:
    broken: list[str] = []

    def fail_second(route: Any) -> None:
        if route.request.method == "PATCH" and route.request.headers["upload-offset"] != "0" and not broken:
            broken.append(route.request.url)
            route.abort("connectionreset")
        else:
            route.continue_()

    visit.page.route("**/api/uploads/*", fail_second)
    visit.drop([large])
    visit.holds("document.querySelector('#drafts .facts').classList.contains('busy')")
    assert broken
    (upload,) = client._request("GET", "/api/uploads").json()["uploads"]
    assert upload["offset"] == large.stat().st_size
    visit.faults.clear()  # browsers report broken requests as errors


def test_an_upload_that_a_reload_broke_goes_on_when_the_file_is_chosen_again(visit: Visit, client: Client, large: Path) -> None:
    def refuse_second(route: Any) -> None:
        if route.request.method == "PATCH" and route.request.headers["upload-offset"] != "0":
            route.abort("connectionreset")
        else:
            route.continue_()

    page = visit.page
    page.route("**/api/uploads/*", refuse_second)
    page.locator("#files").set_input_files([large])
    page.get_by_text("Connection lost; the upload goes on by itself.").wait_for()
    page.reload()
    visit.ready()
    page.get_by_text("The upload stopped at 77 %. Choose the file again and it goes on from there.").wait_for()
    page.unroute("**/api/uploads/*")
    page.locator("#files").set_input_files([large])
    visit.holds("document.querySelector('#drafts .facts').classList.contains('busy')")
    (upload,) = client._request("GET", "/api/uploads").json()["uploads"]
    assert upload["offset"] == upload["length"] == large.stat().st_size
    visit.faults.clear()  # browsers report broken requests as errors


def test_a_folder_is_taken_with_all_that_lies_in_it(visit: Visit, tmp_path: Path, photo: Path) -> None:
    folder = tmp_path / "holiday"
    (folder / "day 2").mkdir(parents=True)
    for name in ("a.png", "day 2/b.png", ".hidden.png", "day 2/list.txt"):
        shutil.copy(photo, folder / name)
    visit.page.locator("#folder").set_input_files(folder)
    planned(visit, "a.png")
    planned(visit, "b.png")
    visit.page.get_by_text("1 file left aside: list.txt").wait_for()
    assert visit.page.locator("#drafts .row").count() == 2


def test_many_files_left_aside_are_all_named_until_dismissed(visit: Visit, tmp_path: Path, photo: Path) -> None:
    folder = tmp_path / "mixed"
    folder.mkdir()
    shutil.copy(photo, folder / "a.png")
    for number in range(9):
        (folder / f"list{number}.txt").write_text("no picture")
    visit.page.locator("#folder").set_input_files(folder)
    planned(visit, "a.png")
    told = visit.page.locator(".toast", has_text="9 files left aside")
    told.get_by_text("and 5 more").click()
    assert len(re.findall(r"list\d\.txt \(upframe does not read this format\)", told.inner_text())) == 9
    told.get_by_role("button", name="Dismiss").click()
    assert told.count() == 0


def test_cancel_order_pause_and_retry(visit: Visit, client: Client, tmp_path: Path, photo: Path, long_clip: Path) -> None:
    running = client.submit(long_clip)
    others = [client.submit(shutil.copy(photo, tmp_path / name)) for name in ("b.png", "c.png")]
    visit.reaches("long.mp4", "running")
    visit.holds("document.querySelector('#active progress').value > 0")
    names = "[...document.querySelectorAll('#active h3')].map(one => one.textContent).join()"
    visit.button(visit.row("c.png"), "Earlier").click()
    visit.holds(f"{names} === 'long.mp4,c.png,b.png'")
    visit.button(visit.row("b.png"), "Pause").click()
    visit.reaches("b.png", "paused")
    visit.page.get_by_role("button", name="Pause all").click()
    visit.reaches("long.mp4", "queued")
    visit.page.get_by_role("button", name="Go on", exact=True).first.click()
    visit.reaches("long.mp4", "running")
    with within(CANCEL_S):
        visit.button(visit.row("long.mp4"), "Cancel").click()
        visit.reaches("long.mp4", "cancelled")
    assert client.job(running.id).state == "cancelled"
    visit.reaches("c.png", "done")
    visit.button(visit.row("b.png"), "Go on").click()
    visit.reaches("b.png", "done")
    visit.button(visit.row("long.mp4"), "Try again").click()
    visit.reaches("long.mp4", "running")
    assert {client.job(job.id).state for job in others} == {"done"}


def test_a_reload_in_the_middle_keeps_everything(visit: Visit, photo: Path, long_clip: Path) -> None:
    visit.drop([long_clip])
    planned(visit, long_clip.name)
    visit.page.get_by_role("button", name="Start", exact=True).first.click()
    visit.reaches(long_clip.name, "running")
    visit.drop([photo])
    planned(visit, photo.name)
    visit.page.reload()
    visit.ready()
    visit.reaches(long_clip.name, "running")
    planned(visit, photo.name)
    was = visit.page.locator("#active progress").evaluate("bar => bar.value")
    visit.holds(f"document.querySelector('#active progress').value > {was}")


def test_the_server_is_killed_and_the_job_goes_on(chrome: Any, tmp_path: Path, long_clip: Path) -> None:
    with Server(tmp_path / "data") as server:
        visit = Visit(chrome, server.address).open()
        visit.drop([long_clip])
        planned(visit, long_clip.name)
        visit.page.get_by_role("button", name="Start", exact=True).first.click()
        visit.reaches(long_clip.name, "running")
        server.kill()
        visit.page.get_by_text("The service does not answer. The page goes on by itself once it is back.").wait_for()
        server.port = int(server.address.rpartition(":")[2])
        server.start()
        visit.page.locator("#connection").wait_for(state="hidden")
        visit.reaches(long_clip.name, "running")
        visit.holds("document.querySelector('#active progress').value > 0")
        visit.button(visit.row(long_clip.name), "Cancel").click()
        visit.reaches(long_clip.name, "cancelled")
        assert not visit.strangers
        assert [fault for fault in visit.faults if "ERR_" not in fault] == []
        visit.close()


def test_the_token_in_the_address_opens_the_page_and_is_taken_out_of_it(chrome: Any, tmp_path: Path) -> None:
    token = tmp_path / "token"
    with Server(tmp_path / "data", "--token-file", str(token)) as server:
        until(token.exists)
        visit = Visit(chrome, server.address).open(f"/#token={token.read_text().strip()}")
        assert visit.page.url == f"{server.address}/" and visit.page.locator("#choose").is_visible()
        visit.close()
        visit = Visit(chrome, server.address)
        visit.page.goto(server.address)
        visit.page.get_by_role("textbox", name="Token").fill("wrong")
        visit.page.get_by_role("button", name="Enter").click()
        visit.page.get_by_text("token: is not the service's").wait_for()
        visit.page.get_by_role("textbox", name="Token").fill(token.read_text().strip())
        visit.page.get_by_role("button", name="Enter").click()
        visit.ready()
        visit.close()


def words_of_the_page(*patterns: str) -> set[str]:
    """All words of these files, save those with the texts themselves."""
    files = [path for pattern in patterns for path in PAGE.glob(pattern) if path.name != "strings.js"]
    return {word for path in files for word in re.findall(r"[\w-]+", path.read_text())}


def test_every_rule_of_the_style_is_for_something_in_the_page() -> None:
    selectors = re.sub(r"\{[^{}]*\}", " ", (PAGE / "page.css").read_text())
    assert set(re.findall(r"[.#]([a-zA-Z][\w-]*)", selectors)) <= words_of_the_page("*.html", "*.js")


# Everybody can use it -------------------------------------------------------------------------------------------------
def test_by_keyboard_alone_from_the_file_to_the_comparison(visit: Visit, photo: Path) -> None:
    page = visit.page

    def go_to(name: str) -> None:
        for _ in range(60):
            page.keyboard.press("Tab")
            if page.evaluate("document.activeElement.getAttribute('aria-label') || document.activeElement.textContent") == name:
                return
        raise AssertionError(f"{name} is not reached by Tab")

    with page.expect_file_chooser() as chooser:
        go_to("Choose files")
        page.keyboard.press("Enter")
    chooser.value.set_files([photo])
    planned(visit, photo.name)
    go_to("Start")
    page.keyboard.press("Enter")
    visit.reaches(photo.name, "done")
    go_to("Compare")
    page.keyboard.press("Enter")
    page.locator("#stage-told").wait_for(state="hidden")
    divider = page.locator("#divider")
    assert divider.evaluate("one => one === document.activeElement")
    page.keyboard.press("ArrowRight")
    assert divider.get_attribute("aria-valuenow") == "52"
    page.keyboard.press("Home")
    assert divider.get_attribute("aria-valuenow") == "0"
    page.keyboard.press("Escape")
    assert page.evaluate("document.activeElement.textContent") == "Compare"


def test_every_control_has_a_name_and_results_are_told(visit: Visit, client: Client, photo: Path) -> None:
    page = visit.page
    visit.drop([photo])
    planned(visit, photo.name)
    page.get_by_text("All options").click()
    page.get_by_role("button", name="Start", exact=True).first.click()
    visit.reaches(photo.name, "done")
    visit.holds("document.querySelector('#announcer').textContent === 'my photo.png is done'")
    visit.compare(photo.name)
    nameless = """[...document.querySelectorAll('button, a, input:not([hidden]), select, [role=slider], [role=application]')]
        .filter(one => !(one.getAttribute('aria-label') || one.textContent.trim() || one.closest('label')?.textContent.trim()))
        .map(one => one.outerHTML)"""
    assert page.evaluate(nameless) == []


def test_who_asks_for_it_is_notified_when_a_file_is_done(visit: Visit, client: Client, photo: Path) -> None:
    page = visit.page
    visit.context.grant_permissions(["notifications"])
    bell = page.get_by_role("button", name="Tell me when done")
    page.evaluate(
        """() => {
            window.told = [];
            window.Notification = class { static permission = "granted"; static requestPermission = async () => "granted";
                constructor(text) { window.told.push(text); } };
            Object.defineProperty(document, "hidden", {get: () => true});
        }"""
    )
    finished(client, photo)
    assert page.evaluate("window.told") == []
    page.locator(".row[data-state=done]").wait_for()
    bell.click()
    visit.holds("document.querySelector('#notify').getAttribute('aria-pressed') === 'true'")
    finished(client, photo)
    visit.holds("window.told.join() === 'my photo.png is done'")


@pytest.mark.parametrize("language", ["en-GB", "zh-CN"])
def test_a_narrow_window_shows_all_of_it(
    chrome: Any, server: Server, client: Client, tmp_path: Path, language: str, shoot: Callable[[Visit, str], None]
) -> None:
    source = tmp_path / f"{'a_very_long_name_without_any_space_' * 3}.png"
    Image.fromarray(make_photo(24, 32)).save(source)
    finished(client, source)
    visit = Visit(chrome, server.address, viewport=PHONE, locale=language, color_scheme="dark").open()
    visit.drop([source])
    planned(visit, source.name)
    assert visit.page.evaluate("document.documentElement.lang") == language[:2]
    assert visit.too_wide() == []
    shoot(visit, f"narrow-{language[:2]}")
    visit.page.locator("#ended .actions button").first.click()
    visit.page.locator("#stage-told").wait_for(state="hidden")
    for selector in ("#compare .bar", "#compare .tools", "#stage"):
        assert all(
            box["x"] >= 0 and box["x"] + box["width"] <= PHONE["width"]
            for box in (one.bounding_box() for one in visit.page.locator(selector).all())
        )
    shoot(visit, f"narrow-compare-{language[:2]}")
    visit.close()
    assert not visit.faults
    for job in client.jobs():
        client.delete(job.id)
    for upload in client._request("GET", "/api/uploads").json()["uploads"]:
        client.delete_upload(upload["id"])


def test_the_languages_have_the_same_texts_and_each_is_used(visit: Visit) -> None:
    keys = visit.page.evaluate(
        "import('/strings.js').then(({strings}) => Object.values(strings).map(one => Object.keys(one).sort()))"
    )
    assert keys[0] == keys[1]
    composed = re.compile(r"(p|s|st|o)_.+|(photo|video)s")  # of a preset, a state, a stage, an option, a kind
    assert {key for key in keys[0] if not composed.fullmatch(key)} <= words_of_the_page("*.html", "*.js")
    visit.page.get_by_role("button", name="中文: switch to Chinese").click()
    visit.page.get_by_role("heading", name="将照片、视频或文件夹拖到这里").wait_for()
    visit.page.reload()
    visit.ready()
    assert visit.page.get_by_role("button", name="选择文件", exact=True).is_visible()
