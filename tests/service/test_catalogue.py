"""Offers of the service: presets, as far as models for them are here."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from browsing import Visit, browser, why_not
from serving import Server
from upframe.client import Client, Options, Source
from upframe.models import checkpoints
from upframe.models.cards import Card
from upframe.models.networks import MODELS

pytestmark = pytest.mark.slow

ARCH = "rlfn-ntire-x4"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server for whom a file lies there whose card says that it suits drawings."""
    weights = tmp_path_factory.mktemp("weights")
    card = Card(name="manga", arch=ARCH, scale=4, suits="drawings")
    checkpoints.save(weights / "manga-x4.safetensors", MODELS[ARCH].build().state_dict(), card)
    made = Server(tmp_path_factory.mktemp("data"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("UPFRAME_WEIGHTS", str(weights))
        made.start()
    yield made
    made.__exit__()


def test_a_model_for_drawings_brings_presets_for_them(client: Client, photo: Path) -> None:
    presets = {preset.id: preset for preset in client.service().presets}
    assert presets["drawings"].options == presets["drawn-video"].options == Options(model="manga-x4")
    assert [model.name for model in client.models() if model.for_drawings] == ["manga-x4"]
    upload = client.upload(photo)
    assert client.plan(Source(upload=upload.id), presets["drawings"].options).model == "manga-x4"
    client.delete_upload(upload.id)


def test_without_one_there_are_none(tmp_path: Path) -> None:
    with Server(tmp_path / "data") as server, server.client() as client:
        ids = [preset.id for preset in client.service().presets]
    assert ids == ["photo", "old-photo", "video", "clean-video", "old-video"]


@pytest.mark.browser
@pytest.mark.skipif(why_not() is not None, reason=str(why_not()))
def test_the_page_offers_the_preset_and_tries_its_model(server: Server, photo: Path) -> None:
    with browser() as chrome:
        visit = Visit(chrome, server.address).open()
        page: Any = visit.page
        visit.drop([photo])
        page.get_by_role("radio", name="4×").check()
        page.get_by_role("radio", name="Anime or drawing").check()
        row = visit.row(photo.name, "#drafts")
        row.locator("b", has_text="manga-x4").wait_for()
        visit.button(row, "Try models").click()
        page.locator("#trial-results .tile.chosen", has_text="manga-x4").get_by_text("for drawings").wait_for()
        visit.close()
        assert not visit.faults
