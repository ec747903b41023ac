"""A typed client of the service that `upframe serve` runs. Needs the extra `serve`.

with Client("http://127.0.0.1:8188") as client:
    job = client.submit("photo.jpg", Options(scale=2))
    for event in client.events(job.id):
        print(event.event)
    client.download(job.id, "photo_large.jpg")
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self, TypeVar

import httpx
from pydantic import BaseModel, TypeAdapter, ValidationError

from upframe.errors import OutputError, UpframeError
from upframe.files import atomic_file
from upframe.service import wire
from upframe.service.wire import Options, Source

__all__ = ["Client", "Options", "ServiceError", "Source"]

CHUNK_BYTES = 4 << 20
"""Bytes of one request of an upload."""
_ATTEMPTS = 5
_PAUSE_S = 0.3
_FIRST_LOOK_S, _LAST_LOOK_S = 0.03, 1.0
"""Between two looks at a job: often at first, seldom for a long one, so that many waiting clients cost the server little."""
_T = TypeVar("_T", bound=BaseModel)


class ServiceError(UpframeError):
    """The service refused a request, or a job failed.

    Args:
        status: HTTP status of the answer; 0 if the service was not reached.
        error: The service's own words.
    """

    def __init__(self, status: int, error: wire.Error) -> None:
        self.status, self.error = status, error
        super().__init__(error.subject or "service", error.happened or error.error, error.advice)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.status, self.error)


class Client:
    """A connection to a service.

    Args:
        address: As `upframe serve` prints it.
        token: The token of its `--token-file`, if it has one.
        timeout_s: How long to wait for an answer.

    Raises:
        ServiceError: from every method, if the service refuses or is not reached.
    """

    def __init__(self, address: str = "http://127.0.0.1:8188", *, token: str | None = None, timeout_s: float = 60) -> None:
        headers = {} if token is None else {"authorization": f"Bearer {token}"}
        # Without `trust_env`, a proxy of the environment gets neither the token nor the pictures.
        self._http = httpx.Client(base_url=address, headers=headers, timeout=timeout_s, trust_env=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        self._http.close()

    # The service
    def health(self) -> wire.Health:
        return self._get("/healthz", wire.Health)

    def service(self) -> wire.Service:
        return self._get("/api/service", wire.Service)

    def models(self) -> list[wire.Model]:
        return TypeAdapter(list[wire.Model]).validate_json(self._request("GET", "/api/models").content)

    def files(self, path: str | None = None) -> wire.Folder:
        """A folder of the server's, below its `--allow`, with everything in it; None lists those."""
        given = {} if path is None else {"path": path}
        folder = self._get("/api/files", wire.Folder, params=given | {"limit": "1000"})
        while len(folder.files) < folder.total:
            more = self._get("/api/files", wire.Folder, params=given | {"limit": "1000", "offset": str(len(folder.files))})
            if not more.files:  # files were removed meanwhile
                break
            folder.files += more.files
        return folder

    # Inputs
    def upload(self, path: str | Path, *, name: str | None = None, chunk_bytes: int = CHUNK_BYTES) -> wire.Upload:
        """Send a file, in chunks; after an interruption it goes on where it stopped."""
        path = Path(path)
        new = wire.NewUpload(name=name or path.name, length=path.stat().st_size)
        upload = self._post("/api/uploads", wire.Upload, new)
        with path.open("rb") as file:
            failures = 0
            while upload.offset < upload.length:
                try:
                    upload = self.append(upload.id, upload.offset, _piece(file, upload.offset, chunk_bytes))
                    failures = 0
                except ServiceError as error:
                    failures += 1
                    if error.status not in (0, 408, 409) or failures == _ATTEMPTS:
                        raise
                    time.sleep(_PAUSE_S * failures)
                    upload = self.get_upload(upload.id)
        return upload

    def append(self, id: str, offset: int, data: bytes) -> wire.Upload:
        """Send one piece of an upload."""
        headers = {"upload-offset": str(offset), "content-type": "application/offset+octet-stream"}
        return wire.Upload.model_validate_json(
            self._request("PATCH", f"/api/uploads/{id}", content=data, headers=headers).content
        )

    def get_upload(self, id: str) -> wire.Upload:
        return self._get(f"/api/uploads/{id}", wire.Upload)

    def uploads(self) -> list[wire.Upload]:
        """All uploads that no job has taken away, the oldest first."""
        return self._get("/api/uploads", wire.UploadList).uploads

    def delete_upload(self, id: str) -> None:
        self._request("DELETE", f"/api/uploads/{id}")

    # Plans and trials
    def plan(self, source: Source, options: Options | None = None) -> wire.Plan:
        return self._post("/api/plans", wire.Plan, wire.NewPlan(source=source, options=options or Options()))

    def trial(self, new: wire.NewTrial, *, timeout_s: float = 600) -> wire.Trial:
        """Start a trial and wait until all its results are there."""
        made = self._post("/api/trials", wire.Trial, new)
        end = time.monotonic() + timeout_s
        while made.state == "running" and time.monotonic() < end:
            made = self._get(f"/api/trials/{made.id}", wire.Trial, params={"wait_s": "10"})
        return made

    # Jobs
    def submit(
        self, source: str | Path | Source, options: Options | None = None, *, batch: str | None = None, paused: bool = False
    ) -> wire.Job:
        """Put a job into the queue.

        Args:
            source: A file here, which is sent; or an upload, a file of the server's or another job's input.
        """
        is_local = not isinstance(source, Source)
        given = Source(upload=self.upload(source).id) if isinstance(source, str | Path) else source
        new = wire.NewJob(source=given, options=options or Options(), batch=batch, paused=paused)
        job = self._post("/api/jobs", wire.Job, new)
        if is_local and given.upload is not None:
            self.delete_upload(given.upload)
        return job

    def job(self, id: str) -> wire.Job:
        return self._get(f"/api/jobs/{id}", wire.Job)

    def jobs(self, *, states: Sequence[wire.JobState] = (), batch: str | None = None) -> list[wire.Job]:
        """All jobs, in the order of the queue."""
        found: list[wire.Job] = []
        while True:
            params: list[tuple[str, str]] = [("limit", "1000"), ("offset", str(len(found)))]
            params += [("state", state) for state in states] + ([] if batch is None else [("batch", batch)])
            page = self._get("/api/jobs", wire.JobList, params=params)
            found += page.jobs
            if not page.jobs or len(found) >= page.total:
                return found

    def pause(self, id: str) -> wire.Job:
        return self._post(f"/api/jobs/{id}/pause", wire.Job)

    def resume(self, id: str) -> wire.Job:
        return self._post(f"/api/jobs/{id}/resume", wire.Job)

    def cancel(self, id: str) -> wire.Job:
        return self._post(f"/api/jobs/{id}/cancel", wire.Job)

    def retry(self, id: str) -> wire.Job:
        return self._post(f"/api/jobs/{id}/retry", wire.Job)

    def move(self, id: str, *, before: str | None = None) -> wire.Job:
        return self._post(f"/api/jobs/{id}/move", wire.Job, wire.Move(before=before))

    def delete(self, id: str) -> None:
        self._request("DELETE", f"/api/jobs/{id}")

    def set_paused(self, paused: bool) -> wire.Queue:
        """Stop all work of the queue, or go on."""
        content = wire.Queue(paused=paused).model_dump_json()
        answer = self._request("PATCH", "/api/queue", content=content, headers={"content-type": "application/json"})
        return wire.Queue.model_validate_json(answer.content)

    def events(self, id: str | None = None, *, after: int | None = None) -> Iterator[wire.Event]:
        """Events of one job until it has ended, or of all jobs for ever. A broken connection is taken up again.

        Args:
            after: Number of the last event that is known; None is the beginning for one job, and now for all.
        """
        path, failures = "/api/events" if id is None else f"/api/jobs/{id}/events", 0
        while True:
            params = {} if after is None else {"after": str(after)}
            try:
                with self._http.stream("GET", path, params=params, timeout=httpx.Timeout(30, read=60)) as answer:
                    if answer.is_error:
                        answer.read()
                        raise _refusal(answer)
                    failures = 0
                    for event in _events(answer.iter_lines()):
                        after = event.id if event.id is not None else after
                        yield event
                if id is not None and self.job(id).state in ("done", "failed", "cancelled"):
                    return
            except httpx.TransportError as error:
                failures += 1
                if failures == _ATTEMPTS:
                    raise _unreached(error) from error
                time.sleep(_PAUSE_S * failures)

    def wait(self, id: str, *, timeout_s: float = 600) -> wire.Job:
        """Wait until a job has ended.

        Raises:
            TimeoutError: if it has not ended in time.
        """
        end, pause_s = time.monotonic() + timeout_s, _FIRST_LOOK_S
        while (job := self.job(id)).state not in ("done", "failed", "cancelled"):
            if time.monotonic() > end:
                raise TimeoutError(f"job {id} is {job.state} after {timeout_s:g} s")
            time.sleep(pause_s)
            pause_s = min(pause_s * 1.3, _LAST_LOOK_S)
        return job

    def output(self, id: str) -> bytes:
        """The output of a finished job."""
        return self._request("GET", f"/api/jobs/{id}/output").content

    def download(self, id: str, path: str | Path, *, overwrite: bool = False) -> Path:
        """Write the output of a finished job to a file, whole or not at all.

        Raises:
            OutputError: a file of that name is there, and `overwrite` is not set.
        """
        path = Path(path)
        if path.exists() and not overwrite:
            raise OutputError(path, "exists", "choose another name or set `overwrite`")
        with self._http.stream("GET", f"/api/jobs/{id}/output") as answer, atomic_file(path) as file:
            if answer.is_error:
                answer.read()
                raise _refusal(answer)
            for piece in answer.iter_bytes():
                file.write(piece)
        return path

    # Requests
    def _get(self, path: str, kind: type[_T], params: Any = None) -> _T:
        return kind.model_validate_json(self._request("GET", path, params=params).content)

    def _post(self, path: str, kind: type[_T], body: BaseModel | None = None) -> _T:
        content = None if body is None else body.model_dump_json()
        headers = {} if body is None else {"content-type": "application/json"}
        return kind.model_validate_json(self._request("POST", path, content=content, headers=headers).content)

    def _request(self, method: str, path: str, **given: Any) -> httpx.Response:
        try:
            answer = self._http.request(method, path, **given)
        except httpx.TransportError as error:
            raise _unreached(error) from error
        if answer.is_error:
            raise _refusal(answer)
        return answer


def _piece(file: BinaryIO, offset: int, length: int) -> bytes:
    file.seek(offset)
    return file.read(length)


def _events(lines: Iterator[str]) -> Iterator[wire.Event]:
    """Events of a stream; comments are skipped."""
    data: list[str] = []
    for line in lines:
        if line.startswith("data:"):
            data.append(line.removeprefix("data:").removeprefix(" "))
        elif not line and data:
            yield wire.Event.model_validate(json.loads("\n".join(data)))
            data = []


def _refusal(answer: httpx.Response) -> ServiceError:
    try:
        error = wire.Error.model_validate_json(answer.content)
    except ValidationError:
        error = wire.Error(error=answer.text[:200], kind="ServiceError", exit_code=1, happened=f"answered {answer.status_code}")
    return ServiceError(answer.status_code, error)


def _unreached(error: httpx.TransportError) -> ServiceError:
    happened = f"is not reached ({str(error) or type(error).__name__})"
    words = wire.Error(error=f"service: {happened}.", kind="ServiceError", exit_code=1, subject="service", happened=happened,
                       advice="check its address, and that it runs")  # fmt: skip
    return ServiceError(0, words)
