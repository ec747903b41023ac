"""Carry out one job: plan it, report each event, and return the facts of its output."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from upframe import jobs
from upframe.errors import OutputError, UpframeError
from upframe.service import wire
from upframe.service.child.desk import Desk
from upframe.service.child.planning import Request, check_quota, described, ledger_of, plan_input
from upframe.service.media_types import media_type

PROGRESS_S = 0.2
"""Least time between two events of progress; a small video has a thousand frames a second."""


def render(data: Mapping[str, Any], desk: Desk) -> dict[str, Any]:
    """Answer with the facts of the output, or with an error in the user's words; and with the bytes that are needed, if the
    server's room is all that lacks."""
    desk.tell("begun", {})
    request = Request.of(data)
    began = time.perf_counter()
    try:
        jobs.keep_freed_memory()
        planned = plan_input(request, desk)
        made = described(planned, request)
        desk.tell("planned", made.model_dump())
        try:
            check_quota(made, request)
        except OutputError as error:
            return {"error": request.worded_error(error).model_dump(), "needed_bytes": made.file_bytes}
        report = jobs.run(planned, on_event=_Teller(request, desk), cancel=desk.cancel)
        if report.error is not None:
            raise report.error
    except UpframeError as error:
        return {"error": request.worded_error(error).model_dump()}
    outcome, item = report.outcomes[0], planned.items[0]
    assert outcome.output is not None
    output = wire.Output(
        name=request.shown_name(outcome.output),
        type=media_type(outcome.output),
        bytes=outcome.output.stat().st_size,
        size=wire.Size(height=item.size[0], width=item.size[1]),
        seconds=round(time.perf_counter() - began, 3),
        engine=outcome.engine,
        precision=outcome.precision,
    )
    rows = (outcome.ledger if outcome.status == "written" else item.ledger).rows()
    return {
        "output": output.model_dump(),
        "path": str(outcome.output),
        "ledger": [entry.model_dump() for entry in ledger_of(rows)],
    }


class _Teller:
    """Passes the events of a job on to the server."""

    def __init__(self, request: Request, desk: Desk) -> None:
        self._request, self._desk = request, desk
        self._told, self._began, self._first = 0.0, 0.0, 0.0

    def __call__(self, event: jobs.Event) -> None:
        if event.event == "progress":
            self._progress(event.data)
        elif event.event == "notice":
            self._desk.tell("notice", {"id": event.data["id"], "message": self._request.worded(event.data["message"])})
        elif event.event == "video":
            self._desk.tell("video", event.data)

    def _progress(self, data: Mapping[str, Any]) -> None:
        now, done = time.monotonic(), float(data["done"])
        if not self._began:
            self._began, self._first = now, done
        if now - self._told < PROGRESS_S:
            return
        self._told = now
        share, spent = done - self._first, now - self._began
        left = spent / share * (1 - done) if share > 0 and spent > 1 else None
        told = wire.Progress(
            done=min(max(done, 0), 1),
            stage=data.get("stage", "upscaling"),
            frame=data.get("frame"),
            frames=data.get("frames"),
            frames_per_s=data.get("frames_per_s"),
            seconds_left=None if left is None else round(left, 1),
        )
        self._desk.tell("progress", told.model_dump())
