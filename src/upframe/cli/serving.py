"""`upframe serve`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from upframe.cli.help import HelpPage
from upframe.cli.output import print_line
from upframe.cli.parser import FILES, Reporting, Sources, app, device_name, need
from upframe.cli.stopping import Stop, stoppable
from upframe.errors import check_number

GIB = 1 << 30
DAY_S = 86_400


@app.command(group=FILES, help_epilogue="", help_formatter=HelpPage())
def serve(
    *,
    host: str = "127.0.0.1",
    port: int = 8188,
    data: Path | None = None,
    allow: Annotated[list[Path] | None, Parameter(negative="")] = None,
    token_file: Path | None = None,
    name: Annotated[list[str] | None, Parameter(negative="")] = None,
    device: Annotated[list[str] | None, Parameter(alias="-d", negative="")] = None,
    keep: float = 7,
    quota: float | None = None,
    max_upload: float = 64,
    max_pixels: int = 200_000_000,
    reporting: Reporting = Reporting(),
    sources: Sources = Sources(),
) -> int:
    """Serve a page and a REST service that enlarge pictures and videos. See docs/serve.md.

    Args:
        host: Address to listen on; by default only this machine reaches it.
        port: Port to listen on; 0 takes a free one.
        data: Folder for the queue, inputs and outputs. [default: ~/.local/share/upframe]
        allow: Folder whose files may be inputs without an upload; may be repeated.
        token_file: File with the token that every request needs; made if it does not exist.
        name: Another name under which browsers reach the service; may be repeated.
        device: Device of a worker, see `upframe --help`; may be repeated. [default: every CUDA device, else the CPU]
        keep: Days for which jobs that are done are kept.
        quota: Most GiB of all files in the data folder. [default: no limit]
        max_upload: Refuse larger uploads, in GiB.
        max_pixels: Refuse larger input pictures.
    """
    reporting.start()
    need("upframe serve", "fastapi", "uvicorn", "python_multipart", extra="serve")
    from upframe.service.serving import serve as run
    from upframe.service.settings import ServiceLimits, Settings, default_data, read_token

    for option, value in (("keep", keep), ("quota", quota), ("max_upload", max_upload)):
        if value is not None:
            check_number(option, value, above=0)  # in the unit of the flag
    limits = ServiceLimits(
        keep_s=keep * DAY_S,
        data_bytes=None if quota is None else int(quota * GIB),
        upload_bytes=int(max_upload * GIB),
        pixels=max_pixels,
    )
    settings = Settings(
        host=host,
        port=port,
        data=data or default_data(),
        allow=tuple(allow or ()),
        token=None if token_file is None else read_token(token_file),
        names=tuple(name or ()),
        devices=tuple(device_name(one) for one in device or ()),
        limits=limits,
    )

    def ready(address: str) -> None:
        shown = address if settings.token is None else f"{address}#token={settings.token}"
        if reporting.json:
            print_line(json.dumps({"event": "ready", "address": address}))
        elif not reporting.quiet:
            print_line(f"upframe is at {shown if sys.stdout.isatty() else address}")

    with stoppable(patiently="the server; its jobs go on at the next start") as stop:
        run(settings, stop=stop, on_ready=ready)
    return Stop.code or 0
