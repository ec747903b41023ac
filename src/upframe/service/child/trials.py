"""Trials."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from upframe.service.child.main import Desk


def trial(data: Mapping[str, Any], desk: Desk) -> dict[str, Any]:
    raise NotImplementedError
