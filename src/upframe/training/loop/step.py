"""One optimiser step of a stage: compute gradients in parts, average them over processes, check them, then apply them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import get_ema_multi_avg_fn

from upframe.models.spec import ModelSpec
from upframe.training.data.samples import Batch
from upframe.training.loop.distributed import Ranks
from upframe.training.loop.optimiser import set_frozen, set_rates
from upframe.training.loop.state import TrainState
from upframe.training.losses.objective import Generator, Objective, folded, in_float32
from upframe.training.recipes.recipe import Stage

_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Gradients:
    """Gradients of a batch before they change any weight, and their figures, which are the same in every process."""

    values: dict[str, float]
    """"loss", each of its terms, "grad_norm" and, with a discriminator, "d_real" and "d_fake": means over the batch."""
    learning_rate: float
    """Learning rate of the parameters in no group."""
    stop: bool
    """Whether any process was asked to stop."""


class Stepper:
    """Trains `state` by the rules of one stage, batch by batch.

    Args:
        objective: Objective of the stage, on the state's device.
    """

    def __init__(self, state: TrainState, stage: Stage, spec: ModelSpec, objective: Objective, ranks: Ranks) -> None:
        self.state, self.stage, self.objective, self.ranks = state, stage, objective, ranks
        self._channels_last = stage.channels_last and spec.window is None and stage.data.kind != "motion"  # pictures only
        self._generator = Generator(state.network, cleans=objective.cleans, views=stage.data.kind == "motion")
        if stage.compile:
            self._generator.compile()
        self._wrapped: nn.Module | None = None
        self._judge: nn.Module | None = None
        if state.adversary is not None:
            self._judge = ranks.wrapped(state.adversary.network.requires_grad_(True))

    def gradients(self, batch: Batch, *, stop: bool = False) -> Gradients:
        """Compute the gradients of every network for this process's share of a batch; no weight changes."""
        state, stage = self.state, self.stage
        rate = self._set_rates()
        changed = set_frozen(state.optimiser, stage.optimiser, step=state.stage_step)
        if changed or self._wrapped is None:
            self._wrapped = self.ranks.wrapped(self._generator)  # the set of averaged gradients is fixed when it is made
        state.optimiser.zero_grad(set_to_none=True)
        if state.adversary is not None:
            state.adversary.network.requires_grad_(False)
        parts = [self._on_device(part) for part in batch.split(stage.accumulation)]
        sums: dict[str, Tensor] = {}
        fakes = []
        for part, averaging in zip(parts, _averaging(self._wrapped, len(parts)), strict=True):
            with averaging:
                fakes.append(self._generator_pass(self._wrapped, part, sums))
        if state.adversary is not None:
            self._discriminator_passes([part.gt for part in parts], fakes, sums)
        sums["grad_norm"] = self._clipped_norm()
        values, stop = self._over_processes(sums, stop=stop)
        return Gradients(values, rate, stop)

    def apply(self, gradients: Gradients) -> None:
        """Step the optimisers, the averaged weights and the counters."""
        state = self.state
        state.scaler.step(state.optimiser)
        if state.adversary is not None:
            state.scaler.step(state.adversary.optimiser)
        state.scaler.update()
        state.step += 1
        state.guard.accept(gradients.values["loss"])
        state.sums.add(gradients.values)
        if state.ema is not None:
            self._average(state.ema)

    # Passes -------------------------------------------------------------------------------------------------------------
    def _generator_pass(self, network: nn.Module, part: Batch, sums: dict[str, Tensor]) -> Tensor:
        """Add one part's losses to `sums` and its gradients to the network's; return the output without its history."""
        parts = self.stage.accumulation
        with self._autocast():
            raw = network(part.lq)
        outputs = in_float32(raw)
        judge = None if self.state.adversary is None else partial(self._scores, self.state.adversary.network)
        loss, values = self.objective(outputs, part, discriminator=judge, parts=parts * self.ranks.world)
        self.state.scaler.scale(loss / parts).backward()
        _add(sums, {"loss": loss, **values}, parts)
        return outputs.output.detach()

    def _discriminator_passes(self, truths: Sequence[Tensor], fakes: Sequence[Tensor], sums: dict[str, Tensor]) -> None:
        """Compute the discriminator's gradients, from truths and from the network's output before this step."""
        adversary, judge = self.state.adversary, self._judge
        assert adversary is not None and judge is not None
        adversary.network.requires_grad_(True)
        adversary.optimiser.zero_grad(set_to_none=True)
        shown = [(x, real) for pair in zip(truths, fakes, strict=True) for x, real in zip(pair, (True, False), strict=True)]
        for (x, real), averaging in zip(shown, _averaging(judge, len(shown)), strict=True):
            with averaging:
                loss = self.objective.gan_loss(self._scores(judge, folded(x)), real)
                self.state.scaler.scale(loss / len(fakes)).backward()  # type: ignore[no-untyped-call]
            _add(sums, {"d_real" if real else "d_fake": loss}, len(fakes))

    def _scores(self, judge: nn.Module, pictures: Tensor) -> Tensor:
        """Return a discriminator's scores, in the arithmetic and memory order of the stage."""
        with self._autocast():
            return judge(pictures.contiguous(memory_format=torch.channels_last) if self._channels_last else pictures)  # type: ignore[no-any-return]

    def _clipped_norm(self) -> Tensor:
        """Return the norm of the network's gradient, and shorten the gradient to the stage's limit."""
        self.state.scaler.unscale_(self.state.optimiser)
        parameters = [p for p in self.state.network.parameters() if p.grad is not None]
        norm = torch.nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
        if self.stage.clip_grad_norm is not None:
            torch.nn.utils.clip_grads_with_norm_(parameters, self.stage.clip_grad_norm, norm)
        return norm

    # Details ------------------------------------------------------------------------------------------------------------
    def _set_rates(self) -> float:
        state, stage = self.state, self.stage
        factor, before = state.guard.rate_factor, state.trained_before
        rate = 0.0
        pairs = [(state.optimiser, stage.optimiser, stage.schedule)]
        if state.adversary is not None and stage.discriminator is not None:
            pairs.insert(0, (state.adversary.optimiser, stage.discriminator.optimiser, stage.discriminator.schedule))
        for optimiser, rules, schedule in pairs:
            rate = set_rates(
                optimiser, rules, schedule, step=state.stage_step, steps=stage.steps, steps_before=before, factor=factor
            )
        return rate

    def _on_device(self, part: Batch) -> Batch:
        lq, gt = (x.to(self.ranks.device, non_blocking=True) for x in (part.lq, part.gt))
        return Batch(lq.contiguous(memory_format=torch.channels_last) if self._channels_last else lq, gt)

    def _autocast(self) -> AbstractContextManager[object]:
        reduced = self.state.stage_step < self.stage.steps - self.stage.fp32_tail_steps
        dtype = _DTYPES.get(self.stage.precision)
        return torch.autocast(self.ranks.device.type, dtype) if dtype is not None and reduced else nullcontext()

    def _over_processes(self, sums: dict[str, Tensor], *, stop: bool) -> tuple[dict[str, float], bool]:
        """Return means over the processes, and whether any process was asked to stop, in one message and one wait for the
        device."""
        values = torch.stack([value.float() for value in sums.values()] + [next(iter(sums.values())).new_full((), stop)])
        *means, stopping = self.ranks.mean(values).tolist()
        return dict(zip(sums, means, strict=True)), stopping > 0

    def _average(self, ema: dict[str, Tensor]) -> None:
        assert self.stage.ema_decay is not None
        decay, done = self.stage.ema_decay, self.state.stage_step
        if self.stage.ema_warmup:
            decay = min(decay, (1 + done) / (10 + done))
        parameters = dict(self.state.network.named_parameters())
        get_ema_multi_avg_fn(decay)([ema[name] for name in parameters], list(parameters.values()), None)  # type: ignore[no-untyped-call]
        for name, buffer in self.state.network.named_buffers():
            if name in ema:  # buffers that are not saved are not averaged either
                ema[name].copy_(buffer)


def _averaging(module: nn.Module, passes: int) -> Iterator[AbstractContextManager[object]]:
    """Yield a context for each forward and backward pass: processes exchange gradients only in the last pass."""
    for i in range(passes):
        wait = isinstance(module, DistributedDataParallel) and i < passes - 1
        yield module.no_sync() if wait and isinstance(module, DistributedDataParallel) else nullcontext()


def _add(sums: dict[str, Tensor], values: dict[str, Tensor], parts: int) -> None:
    for name, value in values.items():
        share = value.detach() / parts
        sums[name] = sums[name] + share if name in sums else share
