"""Figures of the server in Prometheus's text form (exposition format 0.0.4)."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from upframe.service.backend import Backend

_STATES = ("queued", "running", "paused", "done", "failed", "cancelled")


def figures(backend: Backend, *, used_bytes: int) -> str:
    """All figures as text.

    Args:
        used_bytes: Of all files in the data folder.
    """
    counts, queue = backend.store.counts(), backend.queue
    lines = [
        *_figure("upframe_jobs", "gauge", "Jobs by state.", {f'{{state="{s}"}}': counts.get(s, 0) for s in _STATES}),
        *_figure(
            "upframe_jobs_ended_total",
            "counter",
            "Jobs that ended since the start.",
            {f'{{state="{state}"}}': number for state, number in queue.finished.items() if state != "crashed"},
        ),
        *_figure("upframe_worker_crashes_total", "counter", "Workers that ended by themselves.", queue.finished["crashed"]),
        *_figure("upframe_job_seconds_total", "counter", "Seconds that finished jobs took.", round(queue.seconds, 3)),
        *_figure("upframe_job_input_bytes_total", "counter", "Bytes of the inputs of finished jobs.", queue.input_bytes),
        *_figure("upframe_upload_bytes_total", "counter", "Bytes that were uploaded.", backend.uploads.received_bytes),
        *_figure("upframe_data_bytes", "gauge", "Bytes of all files in the data folder.", used_bytes),
        *_figure("upframe_queue_paused", "gauge", "1 if the queue is paused.", int(backend.store.paused)),
        *_figure("upframe_uptime_seconds", "gauge", "Seconds since the start.", round(time.time() - backend.began, 3)),
    ]
    return "\n".join(lines) + "\n"


def _figure(name: str, kind: str, text: str, values: float | Mapping[str, float]) -> list[str]:
    rows = values if isinstance(values, Mapping) else {"": values}
    return [f"# HELP {name} {text}", f"# TYPE {name} {kind}", *(f"{name}{labels} {value}" for labels, value in rows.items())]
