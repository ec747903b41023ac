"""Measure training speed in images per second: `upframe train` against an eager float32 loop, in turns.

Usage: python scripts/measure_training.py [RECIPE...] [--rounds 5] [--threads 1]

The eager loop trains the reference form of the network (float32, planar layout, torch's own gradients) with L1, Adam and
glibc's default allocator. upframe's loop follows the recipe: bfloat16, channels-last, and upframe's gradients of depth-wise
kernels. Each loop has its own process, and they take turns.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F

from upframe.benchmark.worker import reference_form
from upframe.engines import keep_freed_memory
from upframe.training.data.samples import Batch
from upframe.training.loop.distributed import Ranks
from upframe.training.loop.stages import begin_stage, make_plan
from upframe.training.loop.step import Stepper
from upframe.training.recipes.recipe import Recipe
from upframe.training.recipes.registry import find_recipe

WARM_UP, STEPS = 2, 4


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipes", nargs="*", default=["photo-x4", "photo-vapsr-x4"])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--serve", choices=("reference", "upframe"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        serve(find_recipe(arguments.recipes[0]), arguments.serve, arguments.threads)
        return
    for name in arguments.recipes:
        rates = measured(name, arguments.rounds, arguments.threads)
        ratios = [own / reference for own, reference in zip(rates["upframe"], rates["reference"], strict=True)]
        low, middle, high = statistics.quantiles(ratios, n=4, method="inclusive")
        shown = ", ".join(f"{kind} {statistics.median(values):.1f} images/s" for kind, values in rates.items())
        print(f"{name}: {shown}; {middle:.1f} times (quartiles {low:.1f} to {high:.1f})", flush=True)  # noqa: T201


def measured(name: str, rounds: int, threads: int) -> dict[str, list[float]]:
    """Return images per second of each kind, round by round."""
    command = [sys.executable, __file__, name, "--threads", str(threads), "--serve"]
    workers = {
        kind: subprocess.Popen([*command, kind], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)  # noqa: S603
        for kind in ("reference", "upframe")
    }
    rates: dict[str, list[float]] = {kind: [] for kind in workers}
    for _ in range(rounds):
        for kind, worker in workers.items():
            assert worker.stdin is not None and worker.stdout is not None
            worker.stdin.write("go\n")
            worker.stdin.flush()
            rates[kind].append(float(worker.stdout.readline()))
    for worker in workers.values():
        worker.communicate()
    return rates


def serve(recipe: Recipe, kind: str, threads: int) -> None:
    """Train for some steps for each line on standard input, and print images per second."""
    torch.set_num_threads(threads)
    step = reference_step(recipe) if kind == "reference" else upframe_step(recipe)
    for _ in range(WARM_UP):
        step()
    for _ in sys.stdin:
        start = time.perf_counter()
        for _ in range(STEPS):
            step()
        print(recipe.stages[0].batch * STEPS / (time.perf_counter() - start), flush=True)  # noqa: T201


def a_batch(recipe: Recipe) -> Batch:
    """Make random pictures. Reading and reducing photographs is not measured, because other threads do it."""
    plan = make_plan(recipe, ranks=RANKS)
    stage, scale = recipe.stages[0], plan.spec.scale
    side = stage.data.patch_px
    return Batch(torch.rand(stage.batch, 3, side, side), torch.rand(stage.batch, 3, side * scale, side * scale))


def upframe_step(recipe: Recipe) -> Callable[[], None]:
    keep_freed_memory()  # as the command line does
    plan = make_plan(recipe, ranks=RANKS)
    stepper = Stepper(begin_stage(plan, 0, ranks=RANKS, before=None), recipe.stages[0], plan.spec, plan.objectives[0], RANKS)
    batch = a_batch(recipe)
    return lambda: stepper.apply(stepper.gradients(batch))


def reference_step(recipe: Recipe) -> Callable[[], None]:
    spec = make_plan(recipe, ranks=RANKS).spec
    network = reference_form(spec, spec.build().state_dict()).train().requires_grad_(True)
    optimiser = torch.optim.Adam(network.parameters(), lr=1e-6)
    batch = a_batch(recipe)

    def step() -> None:
        optimiser.zero_grad()
        F.l1_loss(network(batch.lq), batch.gt).backward()  # type: ignore[no-untyped-call]
        optimiser.step()

    return step


RANKS = Ranks(0, 1, torch.device("cpu"))

if __name__ == "__main__":
    main()
