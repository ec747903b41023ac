"""Settings of a server, checked when they are made."""

from __future__ import annotations

import ipaddress
import os
import secrets
import socket
from dataclasses import dataclass, field
from pathlib import Path

from upframe.errors import OptionError, UsageError, check_number, check_whole
from upframe.files import atomic_text, is_closed, is_own
from upframe.machine import check_device

DEFAULT_HOST, DEFAULT_PORT = "127.0.0.1", 8188
LEAST_TOKEN = 16
"""Characters of the shortest token; shorter ones can be guessed."""


@dataclass(frozen=True)
class ServiceLimits:
    """Bounds on what one client may ask of the machine."""

    upload_bytes: int = 64 << 30
    request_bytes: int = 1 << 20
    """Of a request's body that is not a file."""
    pixels: int = 200_000_000
    """Of one input picture or frame."""
    output_pixels: int = 500_000_000
    """Of one output picture or frame."""
    video_seconds: float = 6 * 3600
    jobs: int = 10_000
    """Waiting at once."""
    uploads: int = 2_000
    """Unfinished at once."""
    quiet_s: float = 30
    """An upload that sends nothing for so long is given up; it can be resumed."""
    data_bytes: int | None = None
    """Of all files in the data folder; None is the disk's own limit."""
    keep_s: float = 7 * 86_400
    """How long ended jobs are kept."""
    upload_keep_s: float = 86_400
    """How long uploads are kept that no job uses."""


def default_data() -> Path:
    """The user's folder for data, as other programs use it."""
    base = os.environ.get("XDG_DATA_HOME")
    return (Path(base) if base else Path.home() / ".local" / "share") / "upframe"


@dataclass(frozen=True)
class Settings:
    """Settings of a server.

    Raises:
        OptionError: for a value that is not valid.
        UsageError: if others could reach the service and there is no token.
    """

    host: str = DEFAULT_HOST
    port: int = DEFAULT_PORT
    """0 takes a free one."""
    data: Path = field(default_factory=default_data)
    allow: tuple[Path, ...] = ()
    """Folders whose files may be inputs; links are resolved."""
    token: str | None = field(default=None, repr=False)
    names: tuple[str, ...] = ()
    """Further names under which browsers reach the service."""
    devices: tuple[str, ...] = ()
    """Devices of the workers; empty for all CUDA devices, else the CPU."""
    limits: ServiceLimits = ServiceLimits()

    def __post_init__(self) -> None:
        check_whole("port", self.port, least=0, most=65_535)
        check_number("keep", self.limits.keep_s, above=0)
        check_number("max_upload", self.limits.upload_bytes, above=0)
        check_whole("limits.max_pixels", self.limits.pixels, least=1)
        if self.limits.data_bytes is not None:
            check_number("quota", self.limits.data_bytes, above=0)
        for device in self.devices:
            check_device(device)
        if self.token is None and not self.is_loopback:
            happened = "lets other machines in, and there is no token"
            raise UsageError(f"--host {self.host}", happened, "add --token-file FILE; upframe makes the file")
        if self.data.exists() and not self.data.is_dir():
            raise OptionError("data", self.data, "is not a folder")
        for folder in self.allow:
            if not folder.is_dir():
                raise OptionError("allow", folder, "is not a folder")

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine reaches the service."""
        return self.host == "localhost" or _is_loopback_address(self.host)

    @property
    def is_any(self) -> bool:
        """Whether the service listens on every address of the machine."""
        return self.host in ("0.0.0.0", "::", "")  # noqa: S104 (compared, not bound)

    def hosts(self) -> frozenset[str]:
        """Names without port that requests may be for, in lower case."""
        own = {self.host, *self.names}
        if self.is_loopback or self.is_any:
            own |= {"localhost", "127.0.0.1", "::1"}
        if self.is_any:
            own.add(socket.gethostname())
        return frozenset(name.lower().strip("[]") for name in own if name)


def _is_loopback_address(host: str) -> bool:
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def read_token(path: Path) -> str:
    """The token in a file; a file that does not exist is made, for this user alone, with a new one.

    Raises:
        UsageError: if the file holds no usable token, or others may read it.
        OutputError: if it cannot be made.
    """
    if not path.exists():
        old = os.umask(0o077)
        try:
            atomic_text(path, secrets.token_urlsafe(32) + "\n")
        finally:
            os.umask(old)
    try:
        token = path.read_text("utf-8").strip()
    except (OSError, ValueError) as error:
        raise UsageError(path, f"holds no token ({error})", "name another file") from error
    if not is_own(path) or (path.stat().st_mode & 0o077 and not is_closed(path.parent)):
        raise UsageError(path, "can be read or changed by others", f"run chmod 600 {path}")
    if len(token) < LEAST_TOKEN or not token.isascii() or not token.isprintable() or " " in token:
        raise UsageError(
            path, f"must hold one word of {LEAST_TOKEN} or more ASCII characters", "remove it and upframe makes one"
        )
    return token
