"""The door of the service: who may ask, for which host, from which page, and with how large a body.

An ASGI middleware in front of everything, so that no route can forget it.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import secrets
from http.cookies import CookieError, SimpleCookie
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from upframe.service.problems import Problem, wire_error
from upframe.service.settings import Settings

COOKIE = "upframe-session"
OPEN_PATHS = ("/healthz", "/api/login")
"""Paths that need no token; the page's files do not either, since they hold nothing of the user's."""

_OWN = "'self'"
POLICY = "; ".join((
    "default-src 'none'",
    f"script-src {_OWN}",
    f"style-src {_OWN}",
    f"img-src {_OWN} blob: data:",
    f"media-src {_OWN} blob:",
    f"connect-src {_OWN}",
    f"manifest-src {_OWN}",
    "base-uri 'none'",
    "form-action 'none'",
    "frame-ancestors 'none'",
))  # fmt: skip
HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "x-frame-options": "DENY",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
}


class Guard:
    """Refuses requests that are not for this service, from other sites, without the token, or too large; adds headers."""

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self._app = app
        self._hosts, self._accepts_addresses = settings.hosts(), settings.is_any
        self._most_bytes = settings.limits.request_bytes
        self._token = settings.token
        self._session = session_of(settings.token)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":  # no route takes a web socket
            await send({"type": "websocket.close", "code": 1008})
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
                is_answer = scope["path"].startswith("/api/")
                headers.setdefault("cache-control", "no-store" if is_answer else "no-cache")
            await send(message)

        try:
            self._check(scope)
        except Problem as problem:
            refusal = JSONResponse(wire_error(problem.error).model_dump(), problem.status_code)
            if problem.status_code == 401:
                refusal.headers["www-authenticate"] = "Bearer"
            await refusal(scope, receive, send_with_headers)
            return
        await self._app(scope, self._bounded(scope, receive), send_with_headers)

    def _check(self, scope: Scope) -> None:
        headers, path = Headers(scope=scope), scope["path"]
        host = headers.get("host", "")
        if len(headers.getlist("host")) != 1 or not self._is_own(host):
            advice = "use the address that upframe printed, or start it with --name HOST"
            raise Problem(421, "Host", f"{host[:200]!r} is not this service", advice)
        origin = headers.get("origin")
        if origin is not None and not _is_same(origin, host):
            raise Problem(403, "Origin", f"{origin[:200]!r} is another site", "open the page from this address")
        site = headers.get("sec-fetch-site", "none")
        if site not in ("none", "same-origin") and not (path == "/" and scope["method"] == "GET"):
            raise Problem(403, "Sec-Fetch-Site", "another site sent the request", "open the page from this address")
        needs_token = path not in OPEN_PATHS and path.startswith(("/api/", "/metrics"))
        if self._token is not None and needs_token and not self._is_known(headers):
            raise Problem(401, path[:200], "needs the token", "send `Authorization: Bearer TOKEN`")

    def _is_own(self, host: str) -> bool:
        try:
            parts = urlsplit(f"//{host}")
            name, _ = parts.hostname or "", parts.port  # the port is read, since that checks it
        except ValueError:
            return False
        if parts.username is not None:
            return False
        return name in self._hosts or (self._accepts_addresses and _is_address(name))

    def _is_known(self, headers: Headers) -> bool:
        assert self._token is not None
        scheme, _, given = headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer" and is_equal(given.strip(), self._token):
            return True
        try:
            cookie = SimpleCookie(headers.get("cookie", "")).get(COOKIE)
        except CookieError:
            return False
        return cookie is not None and is_equal(cookie.value, self._session)

    def _bounded(self, scope: Scope, receive: Receive) -> Receive:
        """`receive`, for a body that is no file: it ends with an error beyond the limit."""
        if takes_file(scope):
            return receive
        left = self._most_bytes

        async def bounded() -> Message:
            nonlocal left
            message = await receive()
            left -= len(message.get("body", b""))
            if left < 0:
                raise Problem(413, scope["path"][:200], f"has a body of more than {self._most_bytes} bytes", "send less")
            return message

        return bounded


def takes_file(scope: Scope) -> bool:
    """Whether the body may be a file, whose route counts its bytes by itself."""
    if scope["method"] == "PATCH" and scope["path"].startswith("/api/uploads/"):
        return True
    kind = Headers(scope=scope).get("content-type", "")
    return bool(scope["method"] == "POST" and scope["path"] == "/api/jobs" and kind.startswith("multipart/form-data"))


def session_of(token: str | None) -> str:
    """Value of the cookie of a browser that has shown the token; it does not contain the token."""
    key = secrets.token_bytes(32) if token is None else token.encode()
    return hmac.new(key, b"upframe session", hashlib.sha256).hexdigest()


def is_equal(given: str, wanted: str) -> bool:
    """Compare secrets in a time that tells nothing of them."""
    return hmac.compare_digest(given.encode("utf-8", "surrogateescape"), wanted.encode())


def _is_same(origin: str, host: str) -> bool:
    """Whether a page of `origin` was loaded from `host`; "null" is none."""
    try:
        parts = urlsplit(origin)
    except ValueError:
        return False
    return parts.scheme in ("http", "https") and parts.netloc.lower() == host.lower()


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
