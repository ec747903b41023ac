"""Listen on a port until a signal comes."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import Callable, Iterator

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from upframe.errors import OutputError
from upframe.service.app import make_app
from upframe.service.backend import Backend
from upframe.service.settings import Settings

HEAD_S = 5.0
"""How long a client may take to send the head of its first request."""
LAST_S = 1.0
"""How long requests may go on when the server ends."""
MOST_CONNECTIONS = 1000


class _TimelyProtocol(H11Protocol):
    """Closes connections whose first request does not come, which would otherwise be held for ever."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.loop.call_later(HEAD_S, self._close_if_silent)

    def _close_if_silent(self) -> None:
        if self.cycle is None and not self.transport.is_closing():
            self.transport.close()


class _Server(uvicorn.Server):
    """A server that leaves signals to the command line."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def serve(settings: Settings, *, stop: threading.Event, on_ready: Callable[[str], None]) -> None:
    """Serve until `stop` is set.

    Args:
        on_ready: Called with the address once requests are answered.

    Raises:
        OutputError: if the address or the data folder cannot be used.
        ResourceError: if this machine does not have one of the devices.
    """
    bound = _bound(settings)
    with contextlib.closing(bound):
        backend = Backend(settings)
        config = uvicorn.Config(
            make_app(backend, settings),
            http=_TimelyProtocol,
            ws="none",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            limit_concurrency=MOST_CONNECTIONS,
            timeout_graceful_shutdown=int(LAST_S),
        )
        asyncio.run(_serve(_Server(config), backend, bound, stop, lambda: on_ready(address_of(settings, bound))))


async def _serve(
    server: uvicorn.Server, backend: Backend, bound: socket.socket, stop: threading.Event, on_ready: Callable[[], None]
) -> None:
    async def end() -> None:
        await asyncio.to_thread(stop.wait)
        backend.announcer.close()  # event streams end by themselves, and need not be cut off
        server.should_exit = True

    async def tell() -> None:
        while not server.started:
            await asyncio.sleep(0.01)
        on_ready()

    tasks = [asyncio.create_task(end()), asyncio.create_task(tell())]
    try:
        await server.serve(sockets=[bound])
    finally:
        stop.set()  # the thread that waits for it ends
        for task in tasks:
            task.cancel()


def _bound(settings: Settings) -> socket.socket:
    """The socket to listen on.

    Raises:
        OutputError: if the address cannot be used.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            settings.host or None, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        made = socket.socket(family, kind, protocol)
        try:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            made.bind(address)
        except OSError:
            made.close()
            raise
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        advice = "use another --port; 0 takes a free one"
        raise OutputError(f"{settings.host}:{settings.port}", f"cannot be listened on ({reason})", advice) from error
    return made


def address_of(settings: Settings, bound: socket.socket) -> str:
    """The address for a browser."""
    host, port = bound.getsockname()[:2]
    shown = "127.0.0.1" if settings.is_any else settings.host or host
    return f"http://{f'[{shown}]' if ':' in shown else shown}:{port}/"
