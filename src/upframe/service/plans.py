"""Plans: how an input would be made, asked of a child process."""

from __future__ import annotations

from upframe.service import wire
from upframe.service.crew import Child
from upframe.service.problems import Gone, Refused
from upframe.service.requests import request_for
from upframe.service.settings import ServiceLimits
from upframe.service.sources import Found
from upframe.service.storage import Storage

PLAN_S = 120.0
"""A file whose headers take longer to read must not hold up all other plans."""


class Plans:
    def __init__(self, child: Child, storage: Storage, limits: ServiceLimits) -> None:
        self._child, self._storage, self._limits = child, storage, limits

    async def plan(self, found: Found, options: wire.Options) -> wire.Plan:
        """Plan one input.

        Raises:
            Refused: if it cannot be made.
        """
        # Planning writes nothing; the folder only tells where an output would go.
        outputs = self._storage.root / "planned"
        request = request_for(found.path, found.name, outputs, options, limits=self._limits, storage=self._storage)
        try:
            answer = await self._child.ask("plan", request, timeout_s=PLAN_S)
        except Gone as gone:
            raise Refused(gone.as_error(found.name)) from gone
        if "error" in answer:
            raise Refused(wire.Error.model_validate(answer["error"]))
        return wire.Plan.model_validate(answer["plan"])
