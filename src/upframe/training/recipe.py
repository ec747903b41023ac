"""A recipe: everything that decides how a network is trained, as one frozen value."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args, get_origin, get_type_hints

from upframe.errors import UsageError


@dataclass(frozen=True)
class Recipe:
    """What to train and how. Saved, resolved, beside and inside each checkpoint."""

    name: str
    model: str
    """Name in `MODELS`."""
    steps: int
    """Optimiser steps in all."""
    batch: int = 16
    """Patches a step."""
    patch_px: int = 48
    """Side of the low-resolution patch; the ground truth is `scale` times as large."""
    learning_rate: float = 5e-4
    """Peak rate of Adam."""
    betas: tuple[float, float] = (0.9, 0.999)
    schedule: Literal["cosine", "multistep"] = "cosine"
    final_learning_rate: float = 1e-6
    """Where the cosine ends."""
    milestones: tuple[int, ...] = ()
    """Steps at which "multistep" multiplies the rate by `gamma`."""
    gamma: float = 0.5
    warmup_steps: int = 0
    """Steps over which the rate rises linearly to its peak."""
    ema_decay: float = 0.999
    """Decay of the averaged weights, which are the ones that are validated and shipped."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """Arithmetic of the forward and backward pass; parameters and optimiser are always float32."""
    fp32_tail_steps: int = 0
    """Last steps that run in float32 whatever `precision` says, to take out the rounding of reduced precision."""
    start_from: str | None = None
    """Weights file to begin with; parameters whose shapes differ (the upsampler of another scale) start afresh."""
    exclude: tuple[str, ...] = ()
    """Glob patterns of training files to leave out."""
    seed: int = 1
    validate_every: int = 0
    """Steps between validations; 0 validates at the end only."""
    checkpoint_every: int = 1000
    log_every: int = 100

    def __post_init__(self) -> None:
        for field in ("steps", "batch", "patch_px", "checkpoint_every", "log_every"):
            if getattr(self, field) < 1:
                raise UsageError(f"recipe {self.name}", f"{field} is {getattr(self, field)}", "use a number of 1 or more")
        if self.schedule == "multistep" and list(self.milestones) != sorted(self.milestones):
            raise UsageError(f"recipe {self.name}", "milestones do not rise", "list them in order")

    def override(self, changes: Mapping[str, str]) -> Recipe:
        """This recipe with fields replaced by values given as text (`--set field=value`).

        Raises:
            UsageError: for an unknown field, naming the fields there are, or a value of another type.
        """
        hints = get_type_hints(Recipe)
        values: dict[str, Any] = {}
        for field, text in changes.items():
            if field not in hints:
                raise UsageError(f"--set {field}", "no such field", f"fields are {', '.join(hints)}")
            try:
                values[field] = _parse(text, hints[field])
            except ValueError as error:
                raise UsageError(f"--set {field}={text}", str(error)) from None
        return dataclasses.replace(self, **values)

    def learning_rate_at(self, step: int) -> float:
        """Rate for optimiser step `step` (0-based)."""
        if step < self.warmup_steps:
            return self.learning_rate * (step + 1) / self.warmup_steps
        if self.schedule == "multistep":
            return self.learning_rate * self.gamma ** sum(step >= m for m in self.milestones)
        progress = min((step - self.warmup_steps) / max(self.steps - self.warmup_steps, 1), 1.0)
        span = self.learning_rate - self.final_learning_rate
        return self.final_learning_rate + span * 0.5 * (1 + math.cos(math.pi * progress))

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self), indent=1)

    @staticmethod
    def from_json(text: str) -> Recipe:
        values: dict[str, Any] = json.loads(text)
        plain: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
        return Recipe(**plain)


def _parse(text: str, hint: Any) -> Any:
    """`text` as a value of type `hint`: scalars, Literals, optional strings and comma-separated tuples."""
    if get_origin(hint) is Literal:
        if text not in get_args(hint):
            raise ValueError(f"must be one of {', '.join(get_args(hint))}")
        return text
    if get_origin(hint) is tuple:
        kind = get_args(hint)[0]
        items = tuple(kind(part) for part in text.split(",") if part)
        if Ellipsis not in get_args(hint) and len(items) != len(get_args(hint)):
            raise ValueError(f"needs {len(get_args(hint))} numbers separated by commas")
        return items
    if hint in (int, float, str):
        return hint(text)
    return None if text in ("", "none") else text
