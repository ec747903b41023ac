"""The means of a task in a child process."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Desk:
    """The means of a task, besides its request."""

    device: str
    tell: Callable[[str, dict[str, Any]], None]
    """Sends an event to the server."""
    cancel: threading.Event
    """Set once the request is to stop."""
