"""Uploads in chunks: resumed, too long, too slow, beyond the quota; and the events, previews and trials that follow."""

from __future__ import annotations

import asyncio
import os
import socket
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx
import pytest

from serving import Server, until, within
from upframe.client import Client, Options, ServiceError, Source
from upframe.service.problems import Problem
from upframe.service.settings import ServiceLimits
from upframe.service.storage import Storage
from upframe.service.store import Store
from upframe.service.uploads import Uploads

pytestmark = pytest.mark.slow


def new_upload(client: Client, name: str, length: int) -> str:
    answer = client._request("POST", "/api/uploads", json={"name": name, "length": length})
    return str(answer.json()["id"])


def test_a_file_in_many_pieces_arrives_whole(server: Server, client: Client, tmp_path: Path) -> None:
    source = tmp_path / "big.bin"
    source.write_bytes(os.urandom(3_000_000))
    upload = client.upload(source, chunk_bytes=700_001)
    assert upload.offset == upload.length == 3_000_000
    assert (server.data / "uploads" / upload.id).read_bytes() == source.read_bytes()
    client.delete_upload(upload.id)
    assert not list((server.data / "uploads").glob(f"{upload.id}*"))


def test_an_upload_goes_on_after_the_connection_and_the_server_broke(tmp_path: Path, photo: Path) -> None:
    data = photo.read_bytes()
    with Server(tmp_path / "data") as server:
        with server.client() as client:
            id = new_upload(client, "photo.png", len(data))
        host, port = server.address.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), 10) as raw:
            head = f"PATCH /api/uploads/{id} HTTP/1.1\r\nHost: {host}:{port}\r\nUpload-Offset: 0\r\n"
            raw.sendall(f"{head}Content-Length: {len(data)}\r\n\r\n".encode() + data[:100])
            with server.client() as client:
                until(lambda: client.get_upload(id).offset == 100)
        server.kill()
        server.start()
        with server.client() as client:
            assert client.get_upload(id).offset == 100
            client.append(id, 100, data[100:])
            job = client.wait(client.submit(Source(upload=id), Options(scale=2)).id)
            assert job.state == "done" and job.input_bytes == len(data)


def test_wrong_offsets_and_lengths_are_refused_and_change_nothing(client: Client) -> None:
    id = new_upload(client, "x.png", 10)
    client.append(id, 0, b"01234")
    for offset, data, status in ((0, b"x", 409), (6, b"x", 409), (5, b"567890", 413)):
        with pytest.raises(ServiceError) as refused:
            client.append(id, offset, data)
        assert refused.value.status == status
    assert client.get_upload(id).offset in (5, 10)
    with pytest.raises(ServiceError) as refused:
        client.submit(Source(upload=new_upload(client, "y.png", 3)))
    assert refused.value.status == 409 and "0 of 3 bytes" in str(refused.value)


def test_two_requests_for_one_upload_do_not_mix(server: Server, client: Client) -> None:
    id = new_upload(client, "x.png", 1000)
    host, port = server.address.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), 10) as raw:
        head = f"PATCH /api/uploads/{id} HTTP/1.1\r\nHost: {host}:{port}\r\nUpload-Offset: 0\r\nContent-Length: 1000\r\n\r\n"
        raw.sendall(head.encode() + b"a" * 10)
        until(lambda: client.get_upload(id).offset == 10)
        with pytest.raises(ServiceError, match="is being sent by another request"):
            client.append(id, 10, b"b")
    until(lambda: _appends(client, id))
    assert client.get_upload(id).offset == 11


def _appends(client: Client, id: str) -> bool:
    try:
        return client.append(id, 10, b"c").offset == 11
    except ServiceError:  # the server has not yet seen that the first connection broke
        return False


def test_too_large_files_are_refused_before_and_while_they_come(tmp_path: Path, photo: Path) -> None:
    with Server(tmp_path / "data", "--max-upload", "0.001") as server, server.client() as client:
        with pytest.raises(ServiceError) as refused:
            new_upload(client, "x.mp4", 2 << 20)
        assert refused.value.status == 413
        with server.http() as http:
            answer = http.post("/api/jobs", files={"file": ("x.png", b"\0" * (2 << 20))})
            assert answer.status_code == 413, answer.text
        assert not list((server.data / "uploads").iterdir())
        assert client.wait(client.submit(photo, Options(scale=2)).id).state == "done"


def test_the_quota_holds_for_uploads_and_outputs(tmp_path: Path, photo: Path) -> None:
    quota = 2 / 1024  # GiB: 2 MiB
    with Server(tmp_path / "data", "--quota", str(quota)) as server, server.client() as client:
        with pytest.raises(ServiceError) as refused:
            new_upload(client, "x.mp4", 3 << 20)
        assert refused.value.status == 507 and "quota" in str(refused.value)
        job = client.wait(client.submit(photo, Options(scale=40)).id)
        assert job.state == "failed" and job.error is not None and job.error.exit_code == 6
        assert "may be used" in job.error.error
        assert client.wait(client.submit(photo, Options(scale=2)).id).state == "done"


def test_a_job_waits_for_room_in_the_quota_while_others_go_on(tmp_path: Path, photo: Path) -> None:
    with Server(tmp_path / "data", "--quota", str(4 / 1024)) as server, server.client() as client:
        filler = new_upload(client, "x.mp4", 3 << 20)
        client.append(filler, 0, bytes(3 << 20))
        large = client.submit(photo, Options(scale=30))
        until(lambda: client.job(large.id).error is not None)
        assert client.wait(client.submit(photo, Options(scale=2)).id).state == "done"
        waiting = client.job(large.id)
        assert waiting.state == "queued" and waiting.error is not None and waiting.attempts == 1
        assert "are needed and" in waiting.error.error and waiting.plan is not None
        client.delete_upload(filler)
        done = client.wait(large.id)
        assert done.state == "done" and done.error is None and done.attempts == 2


def test_forms_keep_to_the_quota_however_they_come(tmp_path: Path) -> None:
    def pieces(whole: bytes) -> Iterator[bytes]:
        yield from (whole[at : at + 65_536] for at in range(0, len(whole), 65_536))

    head = b'--b\r\nContent-Disposition: form-data; name="file"; filename="x.png"\r\n\r\n'
    form = {"content-type": "multipart/form-data; boundary=b"}
    large, fitting = (head + os.urandom(size) + b"\r\n--b--\r\n" for size in (3 << 20, 5 << 18))
    with Server(tmp_path / "data", "--quota", str(2 / 1024)) as server, httpx.Client(base_url=server.address) as http:
        uploads = server.data / "uploads"
        for content in (large, pieces(large)):  # of a length that is announced, and of one that is not
            answer = http.post("/api/jobs", content=content, headers=form)
            assert answer.status_code == 507 and "quota" in answer.json()["error"], answer.text
            assert not list(uploads.iterdir())
        host, port = server.address.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), 10) as raw:
            start = f"POST /api/jobs HTTP/1.1\r\nHost: {host}:{port}\r\nContent-Type: {form['content-type']}\r\n"
            raw.sendall(f"{start}Content-Length: {len(fitting)}\r\n\r\n".encode() + fitting[:1000])
            until(lambda: list(uploads.iterdir()))
            for content in (fitting, pieces(fitting)):  # there is room for one alone
                assert http.post("/api/jobs", content=content, headers=form).status_code == 507
            raw.sendall(fitting[1000:])
            assert b" 201 " in raw.recv(1000)
        assert not list(uploads.iterdir())


def test_an_upload_that_stalls_is_given_up_and_can_go_on(tmp_path: Path) -> None:
    storage = Storage(tmp_path)
    store = Store(storage.database)
    uploads = Uploads(store, storage, ServiceLimits(quiet_s=0.2))
    upload = uploads.create("x.png", 20)

    async def stalling() -> AsyncIterator[bytes]:
        yield b"a" * 10
        await asyncio.sleep(60)

    async def rest() -> AsyncIterator[bytes]:
        yield b"b" * 10

    with pytest.raises(Problem) as refused, within(5):
        asyncio.run(uploads.append(upload.id, 0, stalling()))
    assert refused.value.status_code == 408
    began = uploads.get(upload.id).expires
    whole = asyncio.run(uploads.append(upload.id, 10, rest()))
    assert whole.offset == 20 and whole.expires > began > upload.expires  # what still comes does not expire
    store.close()


def test_a_full_disk_is_told_and_the_server_goes_on(tmp_path: Path, photo: Path) -> None:
    """The file size limit of the process stands for a disk without room: the system refuses writes beyond it."""
    import resource

    with Server(tmp_path / "data") as server, server.client() as client:
        id = new_upload(client, "x.png", 4 << 20)
        resource.prlimit(server.pid, resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
        with pytest.raises(ServiceError) as refused:
            client.append(id, 0, bytes(4 << 20))
        assert refused.value.status == 507 and "cannot be written" in str(refused.value)
        assert client.health().status == "ok"
        assert client.wait(client.submit(photo, Options(scale=2)).id).state == "done"


def test_ten_uploads_at_once_all_arrive(server: Server, photo: Path) -> None:
    troubles: list[BaseException] = []

    def send() -> None:
        try:
            with server.client() as one:
                upload = one.upload(photo, chunk_bytes=100)
                assert one.plan(Source(upload=upload.id), Options(scale=2)).size.width == 64
        except BaseException as error:
            troubles.append(error)

    threads = [threading.Thread(target=send) for _ in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not troubles


@pytest.mark.parametrize(
    ("headers", "body", "status", "says"),
    [
        ({"content-type": "application/json"}, b'{"na', 422, "body: is not JSON"),
        ({"content-type": "text/plain"}, b'{"name": "a.png", "length": 5}', 415, "Content-Type: application/json"),
    ],
)
def test_a_body_that_is_no_json_is_refused_in_words(
    server: Server, headers: dict[str, str], body: bytes, status: int, says: str
) -> None:
    with server.http() as http:
        answer = http.post("/api/uploads", headers=headers, content=body)
    assert (answer.status_code, says in answer.json()["error"]) == (status, True)
