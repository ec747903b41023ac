"""The door of the service: hosts, origins, tokens, sizes, names, headers. Each attack is answered with a refusal."""

from __future__ import annotations

import io
import json
import re
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image

from conftest import make_photo
from serving import Server
from upframe.client import Client, Options, ServiceError, Source
from upframe.service.storage import plain_name

pytestmark = pytest.mark.slow

TOKEN = "correct-horse-battery-staple"


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with a token."""
    folder = tmp_path_factory.mktemp("guarded")
    (folder / "token").write_text(TOKEN)
    (folder / "token").chmod(0o600)
    with Server(folder / "data", "--token-file", str(folder / "token"), token=TOKEN) as running:
        yield running


# Hosts and origins ----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1.evil.example", "", "localhost@evil.example", "[::1", "localhost:x"]
)
def test_other_hosts_are_refused_as_dns_rebinding_needs_them(server: Server, host: str) -> None:
    with server.http() as http:
        for path in ("/", "/api/jobs", "/healthz", "/metrics"):
            refused = http.get(path, headers={"host": host})
            assert refused.status_code in (400, 421), path
            assert "private" not in refused.text


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:1", "127.0.0.1", "[::1]:8188"])
def test_own_hosts_are_answered(server: Server, host: str) -> None:
    with server.http() as http:
        assert http.get("/healthz", headers={"host": host}).status_code == 200


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "https://127.0.0.1", "file://", "http://127.0.0.1:1"])
def test_pages_of_other_origins_are_refused(server: Server, photo: Path, origin: str) -> None:
    with server.http() as http:
        before = http.get("/api/jobs").json()["total"]
        refused = http.post("/api/jobs", files={"file": photo.read_bytes()}, headers={"origin": origin})
        assert refused.status_code == 403 and refused.json()["subject"] == "Origin"
        assert http.get("/api/jobs").json()["total"] == before
        own = http.get("/api/jobs", headers={"origin": server.address})
        assert own.status_code == 200 and "access-control-allow-origin" not in own.headers


def test_requests_from_other_sites_without_an_origin_are_refused(server: Server) -> None:
    with server.http() as http:
        for site in ("cross-site", "same-site"):
            assert http.get("/api/jobs", headers={"sec-fetch-site": site}).status_code == 403
            assert http.get("/", headers={"sec-fetch-site": site}).status_code == 200  # a link to the page
        assert http.get("/api/jobs", headers={"sec-fetch-site": "same-origin"}).status_code == 200


def test_every_answer_has_the_strict_policy(server: Server) -> None:
    with server.http() as http:
        for path in ("/", "/api/docs", "/api/jobs", "/nothing", "/api/openapi.json"):
            headers = http.get(path).headers
            policy = headers["content-security-policy"]
            assert "default-src 'none'" in policy and "unsafe" not in policy and "http" not in policy
            assert headers["x-content-type-options"] == "nosniff" and headers["x-frame-options"] == "DENY"


def test_files_of_the_page_are_revalidated_so_that_no_two_versions_mix(server: Server) -> None:
    with server.http() as http:
        script = http.get("/main.js")
        assert script.headers["cache-control"] == "no-cache" and "javascript" in script.headers["content-type"]
        assert http.get("/main.js", headers={"if-none-match": script.headers["etag"]}).status_code == 304
        assert http.get("/api/jobs").headers["cache-control"] == "no-store"


def test_no_page_of_the_service_names_another_host(server: Server) -> None:
    with server.http() as http:
        text = http.get("/api/docs").text + http.get("/").text
    assert "://" not in text.replace("http://127.0.0.1", "").replace("https://arxiv.org", "")


# Tokens ---------------------------------------------------------------------------------------------------------------
def test_the_page_is_as_small_as_its_docs_say(server: Server) -> None:
    root = Path(__file__).parents[2]
    stated = re.search(
        r"The page is (\d+) files of (\d+) kB in all, of which (\d+) kB travel", (root / "docs" / "serve.md").read_text()
    )
    files = [path for path in (root / "src" / "upframe" / "service" / "page").iterdir() if path.name != "docs.css"]
    assert stated is not None and int(stated[1]) == len(files)
    assert round(sum(path.stat().st_size for path in files) / 1000) == int(stated[2])
    with server.http() as http:
        answers = [http.get(f"/{path.name}") for path in files]
    assert sum(answer.num_bytes_downloaded for answer in answers) < int(stated[3]) * 1000
    assert [answer.content for answer in answers] == [path.read_bytes() for path in files]


def test_without_the_token_nothing_is_told_or_taken(guarded: Server, photo: Path) -> None:
    no_token: list[dict[str, Any]] = [
        {},
        {"authorization": "Bearer wrong"},
        {"authorization": f"Basic {TOKEN}"},
        {"authorization": "Bearer ä".encode("latin-1")},
        {"cookie": f"upframe-session={TOKEN}"},
    ]
    with guarded.http() as http:
        for path in ("/api/jobs", "/api/service", "/api/models", "/api/openapi.json", "/api/docs", "/metrics", "/api/events"):
            for headers in no_token:
                assert http.get(path, headers=headers).status_code == 401, (path, headers)
        assert http.post("/api/jobs", files={"file": photo.read_bytes()}).status_code == 401
        assert http.get("/healthz").status_code == 200
        assert http.get("/").status_code == 200


def test_the_token_opens_and_a_browser_gets_a_cookie_that_scripts_cannot_read(guarded: Server, photo: Path) -> None:
    with guarded.client() as client:
        assert client.wait(client.submit(photo, Options(scale=2)).id).state == "done"
    with guarded.http() as http:
        assert http.post("/api/login", json={"token": "wrong"}).status_code == 401
        answer = http.post("/api/login", json={"token": TOKEN})
        cookie = answer.headers["set-cookie"].lower()
        assert answer.status_code == 204 and "httponly" in cookie and "samesite=strict" in cookie
        assert TOKEN not in cookie
        assert http.get("/api/jobs").status_code == 200
        http.post("/api/logout")
        assert http.get("/api/jobs").status_code == 401


def serve(*flags: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "upframe", "serve", "--port", "0", "--data", str(cwd / "d"), *map(str, flags)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_other_machines_need_a_token(tmp_path: Path) -> None:
    refused = serve("--host", "0.0.0.0", cwd=tmp_path)
    assert refused.returncode == 2 and "--token-file" in refused.stderr
    assert not (tmp_path / "d").exists()


@pytest.mark.parametrize(
    ("content", "mode", "said"),
    [
        ("short", 0o600, "16 or more"),
        (TOKEN, 0o644, "can be read or changed by others"),
        ("two words are many", 0o600, "one word"),
    ],
)
def test_weak_tokens_are_refused(tmp_path: Path, content: str, mode: int, said: str) -> None:
    (tmp_path / "token").write_text(content)
    (tmp_path / "token").chmod(mode)
    tmp_path.chmod(0o755)
    refused = serve("--token-file", tmp_path / "token", cwd=tmp_path)
    assert refused.returncode == 2 and said in refused.stderr


def test_a_missing_token_file_is_made_for_this_user_alone(tmp_path: Path) -> None:
    with Server(tmp_path / "data", "--host", "0.0.0.0", "--token-file", str(tmp_path / "token")) as server:
        token = (tmp_path / "token").read_text().strip()
        assert len(token) >= 40 and stat.S_IMODE((tmp_path / "token").stat().st_mode) == 0o600
        with Client(server.address, token=token) as client:
            assert client.jobs() == []
        with server.http() as http:
            assert http.get("/healthz", headers={"host": "192.0.2.7:8188"}).status_code == 200
            assert http.get("/healthz", headers={"host": "evil.example"}).status_code == 421


# Names ----------------------------------------------------------------------------------------------------------------
NASTY = [
    *("../../etc/passwd.png", "..\\..\\evil.png", "/abs/evil.png", "a/b/c.png", "%2e%2e%2fx.png"),
    *("a\r\nSet-Cookie: x=1.png", 'q"uo;te.png', "\u202egnp.exe.png", "con\0trol.png"),
    *("." * 80 + ".png", "é" * 900 + ".png", "🦊.png", "-rf.png", " .png"),
]


@pytest.mark.parametrize("name", NASTY)
def test_names_of_users_never_reach_the_disk_nor_a_header(server: Server, client: Client, photo: Path, name: str) -> None:
    before = {path for path in server.data.rglob("*") if "logs" not in path.parts}
    upload = client.upload(photo, name=name)
    job = client.wait(client.submit(Source(upload=upload.id), Options(scale=2)).id)
    assert job.state == "done" and job.output is not None
    for path in set(server.data.rglob("*")) - before:
        assert path.name.isascii() and " " not in path.name and ".." not in path.name, path
    assert "/" not in job.output.name and "\\" not in job.output.name and len(job.output.name) < 255
    assert job.output.name.isprintable() and not job.output.name.startswith(".")
    with server.http() as http:
        answer = http.get(f"/api/jobs/{job.id}/output")
    assert answer.headers["content-type"] == "image/png" and "set-cookie" not in answer.headers
    assert answer.headers["content-disposition"].startswith("attachment; filename=")
    assert "\n" not in answer.headers["content-disposition"]


def test_plain_names_are_one_harmless_component() -> None:
    for name in [*NASTY, "", "..", ".", "/", "\\", "a" * 400, "x." + "y" * 400]:
        plain = plain_name(name)
        assert plain and "/" not in plain and "\\" not in plain and plain.strip(".") and plain.isprintable()
        assert len(plain) <= 150 and plain_name(plain) == plain


@pytest.mark.parametrize("id", ["%2e%2e", "x", "0" * 15, "0" * 17, "G" * 16, "0123456789abcdef/../x", "%00"])
def test_ids_lead_nowhere(server: Server, id: str) -> None:
    with server.http() as http:
        for path in (f"/api/jobs/{id}", f"/api/jobs/{id}/output", f"/api/uploads/{id}", f"/api/trials/{id}/0.png", f"/{id}"):
            assert http.get(path).status_code in (400, 404, 405, 422), path


@pytest.mark.parametrize("path", ["/../app.py", "/..%2fapp.py", "/%2e%2e/app.py", "//etc/passwd", "/..\\app.py", "/.%00"])
def test_the_page_gives_no_other_files(server: Server, path: str) -> None:
    host, port = server.address.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), 10) as raw:
        raw.sendall(f"GET {path} HTTP/1.1\r\nHost: {host}:{port}\r\nConnection: close\r\n\r\n".encode())
        answer = b"".join(iter(lambda: raw.recv(65536), b""))
    assert answer.split(b" ")[1] in (b"404", b"400", b"405") and b"import" not in answer and b"root:" not in answer


# Contents -------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "content",
    [
        b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>',
        b"<!doctype html><script>alert(1)</script>",
        b"GIF89a/*<script>alert(1)</script>*/",
        b"%PDF-1.4 <script>",
        b"",
    ],
    ids=["svg", "html", "polyglot", "pdf", "empty"],
)
def test_scripts_named_png_are_neither_made_nor_sent_as_pages(server: Server, content: bytes) -> None:
    with server.http() as http:
        made = http.post("/api/jobs", files={"file": ("innocent.png", content, "text/html")})
        if made.status_code == 422:  # nothing at all
            return
        id = made.json()["id"]
        with server.client() as client:
            job = client.wait(id)
        assert job.state == "failed" and job.error is not None and job.error.exit_code == 3
        for path in ("preview?of=input", "thumbnail?of=input", "output"):
            answer = http.get(f"/api/jobs/{id}/{path}")
            assert answer.status_code in (409, 422) and answer.headers["content-type"] == "application/json"
            assert answer.json()["error"].startswith("innocent.png: ") and str(server.data) not in answer.text


def test_a_picture_that_would_fill_the_memory_is_refused_by_its_header(server: Server, client: Client, tmp_path: Path) -> None:
    from image_files import chunk

    header = (60_000).to_bytes(4, "big") * 2 + bytes([8, 2, 0, 0, 0])
    bomb = tmp_path / "bomb.png"
    bomb.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b""))
    job = client.wait(client.submit(bomb).id)
    assert job.state == "failed" and job.error is not None and job.error.exit_code == 3
    with server.http() as http:
        assert http.get(f"/api/jobs/{job.id}/thumbnail?of=input").status_code == 422


def test_previews_are_sent_as_pictures_that_run_nothing(server: Server, client: Client, photo: Path) -> None:
    job = client.wait(client.submit(photo, Options(scale=2)).id)
    with server.http() as http:
        for path in ("preview?of=input", "preview", "thumbnail", "output?inline=true"):
            answer = http.get(f"/api/jobs/{job.id}/{path}")
            assert answer.headers["content-type"] == "image/png"
            assert answer.headers["content-security-policy"] == "default-src 'none'; sandbox"


# Sizes ----------------------------------------------------------------------------------------------------------------
def test_large_bodies_that_are_no_files_are_refused(server: Server) -> None:
    with server.http() as http:
        assert (
            http.post("/api/plans", content=b" " * (2 << 20), headers={"content-type": "application/json"}).status_code == 413
        )
        deep = b"[" * 100_000
        for path in ("/api/plans", "/api/jobs"):
            assert http.post(path, content=deep, headers={"content-type": "application/json"}).status_code in (400, 422)
        assert http.post("/api/jobs", content=b"{}", headers={"content-type": "text/plain"}).status_code == 415


def test_a_form_may_hold_one_file_and_known_fields(server: Server, photo: Path) -> None:
    data = photo.read_bytes()
    before = set((server.data / "uploads").iterdir())
    with server.http() as http:
        forms: list[tuple[dict[str, Any], Any, int]] = [
            ({}, {"file": data, "other": b"x"}, 422),
            ({}, [("file", data), ("file", data)], 422),
            ({"options": "no json"}, {"file": data}, 422),
            ({"options": '{"scale": -1}'}, {"file": data}, 422),
            ({"options": '{"unknown": 1}'}, {"file": data}, 422),
            ({"options": "x" * 70_000}, {"file": data}, 413),
            ({"batch": "../x"}, {"file": data}, 422),
            ({"batch": "x"}, {}, 415),
        ]
        for fields, files, status in forms:
            answer = http.post("/api/jobs", data=fields, files=files)
            assert answer.status_code == status, (fields, answer.text)
        headers = {"content-type": "multipart/form-data; boundary=x"}
        for body in (b"--x\r\n", b"no form", b"", b"--x\r\nContent-Disposition: form-data; name=file\r\n\r\nabc"):
            assert http.post("/api/jobs", content=body, headers=headers).status_code in (400, 422)
        assert http.post("/api/jobs", content=b"", headers={"content-type": "multipart/form-data"}).status_code == 400
    assert set((server.data / "uploads").iterdir()) == before


def test_a_silent_connection_is_closed_and_hinders_nobody(server: Server) -> None:
    host, port = server.address.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), 30) as raw:
        raw.sendall(b"GET /healthz HTTP/1.1\r\nHost: ")
        with server.http() as http:
            assert http.get("/healthz").status_code == 200
        began = time.monotonic()
        raw.settimeout(30)
        assert raw.recv(100) == b"" and time.monotonic() - began < 15


def test_two_clients_see_one_truth(server: Server, photo: Path) -> None:
    """Twenty jobs, cancelled by two clients at once: each is cancelled or done once, and no request fails by itself."""
    with server.client() as one, server.client() as two:
        one.set_paused(True)
        ids = [one.submit(photo, Options(scale=2)).id for _ in range(20)]
        troubles: list[BaseException] = []

        def cancel_all(client: Client) -> None:
            try:
                for id in ids:
                    assert client.cancel(id).state == "cancelled"
            except BaseException as error:
                troubles.append(error)

        threads = [threading.Thread(target=cancel_all, args=(client,)) for client in (one, two)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        one.set_paused(False)
        assert not troubles
        assert all(sum(event.event == "cancelled" for event in one.events(id)) == 1 for id in ids)


def test_a_last_event_id_is_a_number_or_refused(server: Server, client: Client, photo: Path) -> None:
    job = client.wait(client.submit(photo, Options(scale=2)).id)
    with server.http() as http:
        for value in ("0", "9" * 29, "-1", "1e5", "x", "٣"):
            with http.stream("GET", f"/api/jobs/{job.id}/events", headers={"last-event-id": value.encode()}) as answer:  # type: ignore[dict-item]
                assert answer.status_code == (200 if value.isascii() and value.isdigit() else 422)


def test_errors_of_any_kind_have_the_same_form(server: Server) -> None:
    with server.http() as http:
        answers: list[httpx.Response] = [
            http.get("/api/jobs/0123456789abcdef"),
            http.get("/api/nothing"),
            http.put("/api/jobs"),
            http.post("/api/plans", json={"source": {}}),
            http.post("/api/plans", json={"source": {"upload": "x"}}),
            http.get("/api/jobs", params={"limit": "many"}),
        ]
    for answer in answers:
        body = answer.json()
        assert set(body) == {"error", "kind", "exit_code", "subject", "happened", "advice", "option"}, answer.text
        assert "\n" not in body["error"]


def test_pictures_are_not_changed_on_their_way(client: Client, tmp_path: Path) -> None:
    source = tmp_path / "p.png"
    Image.fromarray(make_photo(40, 30)).save(source)
    job = client.wait(client.submit(source, Options(scale=2)).id)
    with Image.open(io.BytesIO(client.output(job.id))) as image:
        assert image.size == (60, 80)
    assert json.loads(job.model_dump_json())["input_bytes"] == source.stat().st_size


def test_refusals_of_the_client_can_be_read(client: Client) -> None:
    with pytest.raises(ServiceError, match=r"job 0123456789abcdef: is not here\. It was deleted, or has expired\."):
        client.job("0123456789abcdef")
    with Client("http://127.0.0.1:1") as nobody, pytest.raises(ServiceError, match="is not reached"):
        nobody.health()
