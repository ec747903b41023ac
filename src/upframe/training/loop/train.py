"""The training loop: run the stages of a recipe in order, in one process or many, with bit-exact resume.

`run_folder` defines the files of a run, `stages` the start of a stage, `step` one optimiser step, `state` everything that
resuming needs, and `guard` the reaction to spikes. This module runs them in order.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from upframe.datasets.leaks import Frames
from upframe.errors import Cancelled, UpframeError, UsageError
from upframe.training.data.loader import Loader, WorkerKind
from upframe.training.data.samples import Batch, Source
from upframe.training.data.sources import DataPaths, FootageSource, refuse_leaks, source_for
from upframe.training.loop.distributed import FirstProcessError, Ranks, joined
from upframe.training.loop.guard import DivergedError
from upframe.training.loop.report import Clock, Progress, TensorBoard, as_row, make_report
from upframe.training.loop.run_folder import LAST, RunFolder
from upframe.training.loop.stages import Plan, begin_stage, make_plan, resume_stage
from upframe.training.loop.state import Content, TrainState, capture, detached_copy, random_state, roll_back, set_random_state
from upframe.training.loop.step import Gradients, Stepper
from upframe.training.recipes.recipe import DataRecipe, Recipe, Stage
from upframe.version import __version__

__all__ = ["DataPaths", "Progress", "TrainState", "Validate", "train"]

log = logging.getLogger(__name__)

Validate = Callable[[Path, int], dict[str, Any]]
"""Function that scores the weights in a file, at a step of the run."""


@dataclass(frozen=True)
class RunOptions:
    """Options of a run that are not part of its recipe."""

    validate: Validate | None
    on_progress: Callable[[Progress], None] | None
    on_event: Callable[[Mapping[str, Any]], None] | None
    stop_after: int | None
    cancel: threading.Event
    workers: int
    worker_kind: WorkerKind


def train(
    recipe: Recipe,
    *,
    data: DataPaths | Path | Callable[[Stage], Source],
    out: Path,
    validate: Validate | None = None,
    held_out: Frames | None = None,
    on_progress: Callable[[Progress], None] | None = None,
    on_event: Callable[[Mapping[str, Any]], None] | None = None,
    device: str = "auto",
    threads: int | None = None,
    workers: int = 1,
    worker_kind: WorkerKind = "thread",
    until: str | None = None,
    tensorboard: bool = False,
    cancel: threading.Event | None = None,
    stop_after: int | None = None,
) -> TrainState:
    """Train `recipe`, or resume the run in `out`. Under `torchrun` every process calls this in the same way.

    Args:
        data: Paths of the data, or a function that returns a source of samples for each stage.
        validate: Called with the last checkpoint and the step, every `validate_every` steps and at the end of each stage, in
            the first process; its result is logged. It may draw random numbers without changing the run.
        held_out: Pictures by name that must not be in the training data, usually those of the validation. Read once for each
            kind of data in the stages.
        on_progress: Called with every report, in the first process.
        on_event: Called with the other lines of the log: notices and validations.
        device: "auto" (a GPU if there is one), "cpu", "cuda", "cuda:N" or "mps".
        threads: CPU threads of torch in each process.
        workers, worker_kind: See `Loader`. They do not affect the result.
        until: Name of the stage to stop after.
        tensorboard: Also write curves for TensorBoard into `out/tensorboard`.
        cancel: Once set, the run finishes the current step, writes a checkpoint and raises `Cancelled`.
        stop_after: Write a checkpoint and return after this step of the run; for tests and for sharing a machine.

    Returns:
        The state at the end, on its device.

    Raises:
        UsageError: if `out` holds a run of another recipe or is in use, a held-out picture is in the data, or the recipe cannot
            run on this machine.
        InputError: if the data or the checkpoint cannot be used.
        ModelError: if weights that a stage starts from or needs are missing or do not fit.
        DivergedError: if the loss jumped or was not finite more often than the recipe's guard allows.
        OutputError: if the run folder cannot be written.
        Cancelled: if `cancel` was set.
    """
    if threads:
        torch.set_num_threads(threads)
    options = RunOptions(validate, on_progress, on_event, stop_after, cancel or threading.Event(), workers, worker_kind)
    with ExitStack() as open_things:
        ranks = open_things.enter_context(joined(device))
        plan = ranks.together(lambda: make_plan(recipe, ranks=ranks, until=until))
        folder = RunFolder(out)
        ranks.on_first(lambda: bool(open_things.enter_context(folder)))
        # Otherwise cuDNN chooses algorithms by trial, and some of them sum in an order that changes from run to run.
        open_things.enter_context(torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True))
        run = _Run(plan, ranks, folder, _Sources(plan, data, held_out, ranks), options)
        state = run.start_or_resume()
        if tensorboard and ranks.is_first:
            run.board = TensorBoard(out / "tensorboard", from_step=state.step)
            open_things.callback(run.board.close)
        return run.run_all_stages(state)


class _Sources:
    """The samples of each stage; stages with the same data share them."""

    def __init__(
        self,
        plan: Plan,
        data: DataPaths | Path | Callable[[Stage], Source],
        held_out: Frames | None,
        ranks: Ranks,
    ) -> None:
        self._plan, self._held_out, self._ranks = plan, held_out, ranks
        self._data = DataPaths(data) if isinstance(data, Path) else data
        self._last: tuple[Stage, Source] | None = None
        self._checked: list[DataRecipe] = []

    def check(self, stages: Sequence[Stage]) -> None:
        """Open the data of every stage, so that an error in the last stage's data is found at once."""
        if isinstance(self._data, DataPaths):
            for stage in reversed(stages):  # the data of the first stage stay open
                self(stage)

    def __call__(self, stage: Stage) -> Source:
        if not isinstance(self._data, DataPaths):
            return self._data(stage)
        if self._last is None or self._last[0].data != stage.data:
            paths = self._data
            source = self._ranks.together(lambda: source_for(stage.data, paths, scale=self._plan.spec.scale))
            if stage.data not in self._checked:
                self._ranks.on_first(lambda: self._refuse_leaks(source))
                self._checked.append(stage.data)
            self._last = (stage, source)
        return self._last[1]

    def _refuse_leaks(self, source: FootageSource) -> None:
        log.info("stage data: %d pictures or clips", len(source.footage.clips))
        if self._held_out is not None:
            refuse_leaks(source.footage, self._held_out)


class _Run:
    """One run, in one of its processes."""

    def __init__(self, plan: Plan, ranks: Ranks, folder: RunFolder, sources: _Sources, options: RunOptions) -> None:
        self.plan, self.ranks, self.folder, self.sources, self.options = plan, ranks, folder, sources, options
        self.board: TensorBoard | None = None
        self._snapshot: Content | None = None
        """The last good state, in the host's memory; None in a stage that does not roll back."""
        self._validated = False
        """Whether the checkpoint from which the run resumed has been scored."""
        self._clock = Clock()

    # Beginning and resuming ---------------------------------------------------------------------------------------------
    def start_or_resume(self) -> TrainState:
        """Return the state of an interrupted run, or of a new one."""
        content = self.ranks.on_first(self._last_checkpoint)
        if content is None:
            state = begin_stage(self.plan, 0, ranks=self.ranks, before=None)
        else:
            state = resume_stage(self.plan, content, ranks=self.ranks)
            self._snapshot = content.get("snapshot")
            log.info("resuming from step %d", state.step)
        ended = state.stage_step == self.plan.stages[state.stage].steps
        self.sources.check(self.plan.stages[state.stage + ended :])
        if self.ranks.is_first:
            self.folder.write_recipe(self.plan.recipe.to_json())
            facts = {"step": state.step, "seed": self.plan.recipe.seed, "processes": self.ranks.world}
            precision = self.plan.stages[state.stage].precision
            self.folder.record_start(device=str(self.ranks.device), precision=precision, facts=facts)
        return state

    def _last_checkpoint(self) -> Content | None:
        """Read the last checkpoint of this run, and cut the log to the same step."""
        content = self.folder.checkpoint()
        if content is None:
            self.folder.cut_log(0, step=-1)  # the run was stopped before its first checkpoint
            return None
        differing = self.plan.recipe.same_training(Recipe.from_json(content["recipe"]))
        if differing:
            happened = f"holds a run that differs in {', '.join(differing)}"
            raise UsageError(self.folder.path, happened, "choose another `out`")
        if content["stage"] >= len(self.plan.stages):
            happened = f"holds a run that is past stage {self.plan.stages[-1].name}"
            raise UsageError(self.folder.path, happened, "do not set `until`, or name a later stage")
        self._validated = self.folder.cut_log(content["log_bytes"], step=content["step"])
        return content

    def run_all_stages(self, state: TrainState) -> TrainState:
        """Train until the last stage ends or the run is asked to stop."""
        while True:
            stage = self.plan.stages[state.stage]
            objective = self.plan.objectives[state.stage].to(self.ranks.device)
            stepper = Stepper(state, stage, self.plan.spec, objective, self.ranks)
            if self._run_stage(state, stage, stepper) or state.stage + 1 == len(self.plan.stages):
                return state
            objective.cpu()
            self._snapshot = None
            state = begin_stage(self.plan, state.stage + 1, ranks=self.ranks, before=state)

    def _run_stage(self, state: TrainState, stage: Stage, stepper: Stepper) -> bool:
        """Train to the end of the stage; return True if the run stopped before that."""
        end = state.stage_start + stage.steps
        last = end if self.options.stop_after is None else min(end, self.options.stop_after)
        self._validate(state, stage, again=False)  # the run may have been interrupted between a checkpoint and its validation
        if state.step >= last:
            return state.step < end
        log.info("stage %s: steps %d to %d", stage.name, state.step, end)
        loader = Loader(
            self.sources(stage),
            batch=stage.batch,
            seed=self.plan.recipe.seed,
            rank=self.ranks.rank,
            world=self.ranks.world,
            workers=self.options.workers,
            kind=self.options.worker_kind,
        )
        self._clock = Clock()
        with loader:
            batches = loader.batches(state.drawn)
            if self._snapshot is None:
                self._keep_snapshot(state)
            while state.step < last:
                gradients = stepper.gradients(self._next(batches), stop=self.options.cancel.is_set())
                state.drawn += 1
                if complaint := self._complaint(state, gradients):
                    self._roll_back(state, stage, complaint)
                    continue
                stepper.apply(gradients)
                self._clock.count(stage.batch)
                self._after_step(state, stage, gradients, end=end, last=last)
        return state.step < end

    def _next(self, batches: Iterator[Batch]) -> Batch:
        start = time.perf_counter()
        batch = next(batches)
        self._clock.wait(time.perf_counter() - start)
        return batch

    # After a step -------------------------------------------------------------------------------------------------------
    def _after_step(self, state: TrainState, stage: Stage, gradients: Gradients, *, end: int, last: int) -> None:
        """Write the log, checkpoint and validation that are due at this step."""
        cadence = self.plan.recipe.cadence
        if state.step % cadence.log_every == 0 or state.step == end:
            self._report(state, stage, gradients.learning_rate)
        if state.stage_step % stage.guard.window == 0:
            self._keep_snapshot(state)  # after the report, so that a roll-back does not repeat it
        validates = self._validation_is_due(state, stage)
        if state.step % cadence.checkpoint_every == 0 or state.step == last or validates or gradients.stop:
            start = time.perf_counter()
            self._save(state, stage)
            if not gradients.stop:  # stop without waiting for scores; a resumed run computes them
                self._validate(state, stage, again=True)
            self._clock.pause(time.perf_counter() - start)
        if gradients.stop:
            advice = "start it again to resume there"
            raise self._reported_once(
                Cancelled(self.folder.path, f"stopped after step {state.step}, with a checkpoint", advice)
            )

    def _report(self, state: TrainState, stage: Stage, learning_rate: float) -> None:
        report = make_report(
            state,
            stage=stage.name,
            steps=self.plan.steps,
            batch=stage.batch,
            learning_rate=learning_rate,
            clock=self._clock,
            device=self.ranks.device,
        )
        if not self.ranks.is_first:
            return
        self.folder.append(as_row(report))
        if self.board is not None:
            self.board.report(report)
        if self.options.on_progress is not None:
            self.options.on_progress(report)

    def _save(self, state: TrainState, stage: Stage) -> None:
        content = capture(state, self.ranks)
        if not self.ranks.is_first:
            return
        if self._snapshot is not None and self._snapshot["step"] != state.step:
            content["snapshot"] = self._snapshot
        content |= {
            "recipe": self.plan.recipe.to_json(),
            "spec": self.plan.spec.name,
            "value_range": "0-1",
            "upframe": __version__,
            "log_bytes": self.folder.log_bytes(),
        }
        if state.stage_step == stage.steps and len(self.plan.recipe.stages) > 1:
            self.folder.save_stage(content, stage.name)  # first, so that a checkpoint at a stage's end has the stage's file
        self.folder.save(content)

    def _validation_is_due(self, state: TrainState, stage: Stage) -> bool:
        every = self.plan.recipe.cadence.validate_every
        if self.options.validate is None or state.stage_step == 0:
            return False
        return state.stage_step == stage.steps or (every > 0 and state.step % every == 0)

    def _validate(self, state: TrainState, stage: Stage, *, again: bool) -> None:
        """Score the last checkpoint if a validation is due. Skip it if the log already has the scores, unless `again`."""
        validate = self.options.validate
        if validate is None or not self._validation_is_due(state, stage):
            return

        def score() -> None:
            if self._validated and not again:
                return
            before, threads = random_state(self.ranks.device), torch.get_num_threads()
            scores = validate(self.folder.path / LAST, state.step)
            set_random_state(before, self.ranks.device)
            torch.set_num_threads(threads)
            self._event({"step": state.step, "stage": stage.name, "validation": scores})
            if self.board is not None:
                self.board.scores(scores, state.step)

        self.ranks.on_first(score)

    def _event(self, row: Mapping[str, Any]) -> None:
        if self.ranks.is_first:
            self.folder.append(row)
            if self.options.on_event is not None:
                self.options.on_event(row)

    def _reported_once(self, error: UpframeError) -> UpframeError:
        """Return the error with which this process ends when all processes end in the same step."""
        return error if self.ranks.is_first else FirstProcessError(self.ranks.rank, error)

    # Spikes -------------------------------------------------------------------------------------------------------------
    def _keep_snapshot(self, state: TrainState) -> None:
        if state.guard.rules.max_rollbacks:
            self._snapshot = detached_copy(capture(state, self.ranks))

    def _complaint(self, state: TrainState, gradients: Gradients) -> str | None:
        # In float16, gradients overflow occasionally; the scaler handles this.
        may_overflow = {"grad_norm"} if state.scaler.is_enabled() else set()
        return state.guard.complaint({name: value for name, value in gradients.values.items() if name not in may_overflow})

    def _roll_back(self, state: TrainState, stage: Stage, complaint: str) -> None:
        """Return to the last good state at a lower rate, or raise if no roll-back is left."""
        bad = state.step + 1
        if self._snapshot is None or not state.guard.may_roll_back:
            times = f" after {state.guard.rollbacks} roll-backs" if state.guard.rollbacks else ""
            advice = f"lower optimiser.learning_rate, or check the data of stage {stage.name}; {LAST} is intact"
            raise self._reported_once(DivergedError(self.plan.recipe.name, f"{complaint} at step {bad}{times}", advice))
        state.guard.rolled_back()
        roll_back(state, self._snapshot, self.ranks)
        rates = f"learning rates times {state.guard.rate_factor:g} from now on"
        message = f"{complaint} at step {bad}; returned to step {state.step}; {rates}"
        if self.ranks.is_first:
            log.warning("%s: %s", self.plan.recipe.name, message)
        self._event({"step": bad, "stage": stage.name, "notice": "rolled-back", "message": message, "to": state.step})
