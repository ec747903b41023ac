"""Watch the loss: if it jumps or is not finite, the run returns to its last good state, at a lower rate.

After a roll-back the run continues with the batches after the bad one, as in the training of large language models (A.
Chowdhery et al., "PaLM", 2022, https://arxiv.org/abs/2204.02311, §5.1): the same batches would often cause the same spike.
VapSR's authors warn that their ×2 recipe is "prone to crash with large learning rate"; the guard is the remedy.
"""

from __future__ import annotations

import math
import statistics
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from upframe.errors import ModelError
from upframe.training.recipes.recipe import SpikeGuard


@dataclass
class Guard:
    """Checks every step of a stage before its gradient is used."""

    rules: SpikeGuard
    rate_factor: float = 1.0
    """Product of the rate multipliers of all roll-backs."""
    rollbacks: int = 0
    """Number of roll-backs in this stage."""
    _recent: deque[float] = field(default_factory=deque)
    """Losses of the last `window` steps that were good."""

    def complaint(self, values: Mapping[str, float]) -> str | None:
        """Return why a step is bad, or None if it is good.

        Args:
            values: "loss" and other values that must be finite; means over all processes.
        """
        loss = values["loss"]
        for name, value in values.items():
            if not math.isfinite(value):
                return f"the {name.replace('_', ' ')} is {value}"
        if self.rules.max_rollbacks and len(self._recent) >= self.rules.window:
            usual = statistics.median(self._recent)
            if loss > self.rules.factor * usual > 0:
                return (
                    f"the loss jumped to {loss:.3g}, {loss / usual:.1f} times the median of the last {len(self._recent)} steps"
                )
        return None

    def accept(self, loss: float) -> None:
        """Remember the loss of a good step."""
        self._recent.append(loss)
        while len(self._recent) > self.rules.window:
            self._recent.popleft()

    @property
    def may_roll_back(self) -> bool:
        return self.rollbacks < self.rules.max_rollbacks

    def rolled_back(self) -> None:
        """Count a roll-back and lower the rates."""
        self.rollbacks += 1
        self.rate_factor *= self.rules.rate_multiplier

    def state_dict(self) -> dict[str, Any]:
        return {"rate_factor": self.rate_factor, "rollbacks": self.rollbacks, "recent": list(self._recent)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.rate_factor, self.rollbacks = state["rate_factor"], state["rollbacks"]
        self._recent = deque(state["recent"])


class DivergedError(ModelError):
    """The loss jumped or was not finite more often than the recipe's guard allows."""
