"""Folders of the server below `--allow`: what is listed, in which order, and what never is."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from conftest import make_photo
from serving import Server
from upframe.client import Client, Options, ServiceError, Source
from video_files import Clip, make_clip

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def album(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with inputs, and everything that must not be shown."""
    outside = tmp_path_factory.mktemp("outside")
    album = tmp_path_factory.mktemp("served") / "album"
    for folder in (album / "day 10" / "raw", album / "day 2", album / ".thumbs"):
        folder.mkdir(parents=True)
    for place in (
        album / "f9.png",
        album / "f10.png",
        album / ".hidden.png",
        album / ".thumbs" / "t.png",
        outside / "secret.png",
    ):
        Image.fromarray(make_photo(24, 32)).save(place)
    make_clip(album / "walk.mp4", Clip(pts=[3600 * i for i in range(4)]))
    (album / "notes.txt").write_text("no picture")
    (album / "day 2" / "a.png").write_bytes((album / "f9.png").read_bytes())
    (album / "inside.png").symlink_to(album / "day 2" / "a.png")
    (album / "out.png").symlink_to(outside / "secret.png")
    (album / "out").symlink_to(outside)
    (album / "loop.png").symlink_to(album / "loop.png")
    os.mkfifo(album / "pipe.png")
    (album / os.fsdecode(b"\xff.png")).write_bytes((album / "f9.png").read_bytes())
    return album


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, album: Path) -> Iterator[Server]:
    other = tmp_path_factory.mktemp("other")
    with Server(tmp_path_factory.mktemp("data"), "--allow", str(album), "--allow", str(other)) as running:
        yield running


def test_a_folder_lists_its_inputs_and_nothing_hidden_or_outside(client: Client, album: Path) -> None:
    folder = client.files(str(album))
    assert [(file.name, file.is_folder, file.kind) for file in folder.files] == [
        ("day 2", True, None),
        ("day 10", True, None),
        ("f9.png", False, "photo"),
        ("f10.png", False, "photo"),
        ("inside.png", False, "photo"),
        ("walk.mp4", False, "video"),
    ]
    assert (folder.folders, folder.total, folder.parent) == (2, 6, None)
    assert folder.files[2].bytes == (album / "f9.png").stat().st_size


def test_the_trail_leads_from_the_allowed_folder_and_no_further(client: Client, album: Path) -> None:
    tops = client.files()
    assert tops.path is None and tops.trail == [] and tops.files[0].path == str(album)
    deep = client.files(str(album / "day 10" / "raw"))
    assert [step.name for step in deep.trail] == ["album", "day 10", "raw"]
    assert deep.parent == str(album / "day 10") == deep.trail[1].path and deep.files == []


@pytest.mark.parametrize(
    ("place", "status"),
    [("..", 403), ("out", 403), ("out.png", 403), ("day 2/../..", 403), (".thumbs", 404), ("nothing", 404), ("f9.png", 404)],
)
def test_nothing_else_can_be_listed(client: Client, album: Path, place: str, status: int) -> None:
    with pytest.raises(ServiceError) as refused:
        client.files(f"{album}/{place}")
    assert refused.value.status == status


def test_links_out_show_no_thumbnail_either(server: Server, album: Path) -> None:
    with server.http() as http:
        for view in ("thumbnail", "preview"):
            for name in ("out.png", "../served", "out/secret.png"):
                assert http.get(f"/api/files/{view}", params={"path": f"{album}/{name}"}).status_code == 403
            assert http.get(f"/api/files/{view}", params={"path": f"{album}/pipe.png"}).status_code == 404
            assert http.get(f"/api/files/{view}", params={"path": f"{album}/f9.png"}).status_code == 200


def test_a_thumbnail_is_made_anew_when_the_file_changes(server: Server, album: Path) -> None:
    path = album / "day 2" / "changing.png"

    def width() -> int:
        with server.http() as http:
            answer = http.get("/api/files/thumbnail", params={"path": str(path)})
        return Image.open(io.BytesIO(answer.content)).width

    Image.fromarray(make_photo(24, 32)).save(path)
    assert width() == 32
    Image.fromarray(make_photo(24, 40)).save(path)
    assert width() == 40
    path.unlink()


def test_a_folder_of_thousands_comes_in_pages(server: Server, client: Client, album: Path) -> None:
    crowd = album / "crowd"
    crowd.mkdir()
    for number in range(2500):
        (crowd / f"p{number}.png").touch()
    with server.http() as http:
        page = http.get("/api/files", params={"path": str(crowd), "limit": 3, "offset": 1200}).json()
        assert [file["name"] for file in page["files"]] == ["p1200.png", "p1201.png", "p1202.png"] and page["total"] == 2500
        assert len(http.get("/api/files", params={"path": str(crowd)}).json()["files"]) == 200
        assert http.get("/api/files", params={"path": str(crowd), "limit": 1001}).status_code == 422
    assert [file.name for file in client.files(str(crowd)).files] == [f"p{number}.png" for number in range(2500)]
    for path in crowd.iterdir():
        path.unlink()
    crowd.rmdir()


def test_a_listed_file_is_planned_and_made_where_it_lies(client: Client, album: Path) -> None:
    entry = next(file for file in client.files(str(album / "day 2")).files if file.name == "a.png")
    assert client.plan(Source(path=entry.path), Options(scale=2)).size.width == 64
    job = client.wait(client.submit(Source(path=entry.path), Options(scale=2)).id)
    assert job.state == "done" and job.name == "a.png"
