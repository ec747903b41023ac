"""Compare upframe's networks with their reference forms: time, memory and result, measured in turns.

The reference form (`models.reference`) is the published computation, written as published. It runs in float32 with torch's
defaults; upframe's network runs as in production, through the engine. Every form has its own process (`worker`). The forms take
turns of half a second or at least one pass, and the median of a turn counts, so that a slow moment of the machine affects all
forms equally. Ratios are taken within a round; on a shared machine, their median and quartiles are more reliable than times.

Added memory is the peak of resident memory from the first pass to the last, minus the memory of the process after loading the
weights and the input; on CUDA it is the allocator's peak. It contains everything that the passes need: activations, kernels'
scratch space, fragmentation.

Operations are counted on the reference form (`cost.count`), two for a multiply-accumulate, and divided by the faster of a
matrix product and a convolution, measured in the same rounds. A form with a small share is limited by memory.
"""

from __future__ import annotations

import contextlib
import json
import logging
import math
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn

from upframe.benchmark.cost import Timing, count, threads_text
from upframe.benchmark.worker import Job, reference_form
from upframe.engines import BACKENDS, engine_options, make_engine_as_named, pick_device
from upframe.errors import OptionError, UsageError
from upframe.files import scratch_folder, unnamed_file
from upframe.machine import environment
from upframe.models.networks import FAMILIES
from upframe.models.registry import Model
from upframe.models.spec import ModelSpec, Precision

log = logging.getLogger(__name__)

REPEATS = 5
PHOTO_SIZE = (180, 320)
CLIP_SIZE = (64, 64)
CLIP_FRAMES = 5  # if the network does not state a number
SIGMA = 30 / 255  # noise level for networks that need one; the middle of their training range


@dataclass(frozen=True)
class Case:
    """Input of the compared forms."""

    frames: int
    size: tuple[int, int]
    """(height, width)."""

    def __str__(self) -> str:
        height, width = self.size
        return f"{self.frames} frame{'s' if self.frames > 1 else ''} of {width}x{height}"


@dataclass(frozen=True)
class Limits:
    """Rates of the machine between the passes: medians over the rounds."""

    gflops: dict[str, float]
    """Rates by precision and kind, for instance "fp32_matrix", in 10^9 operations a second, two for a multiply-accumulate."""
    copy_gbytes_per_s: float
    """10^9 bytes a second, counting both read and written bytes."""

    def of(self, precision: Precision) -> float | None:
        """Return the highest rate possible in this precision, in 10^9 operations a second; None if not measured."""
        return max((rate for name, rate in self.gflops.items() if name.startswith(precision)), default=None)


@dataclass(frozen=True)
class Form:
    """One form of a network, and its measurements."""

    name: str
    """"reference fp32" is the reference form, "upframe fp32" and "upframe bf16" run by default; other names state engine and
    precision, "compile bf16"."""
    precision: Precision
    timing: Timing | None = None
    """None if the form failed."""
    added_bytes: int | None = None
    """Peak memory beyond weights and input; None if the system does not report it, or the form failed."""
    max_difference: float | None = None
    """Largest difference of an output value from the reference form's, on the 0 to 1 scale."""
    psnr: float | None = None
    """PSNR of the output against the reference form's, in dB on the 0 to 1 scale; None if they are equal or one is missing."""
    error: str | None = None
    """Why the form failed."""


@dataclass(frozen=True)
class Compared:
    """The forms of one model on one case; the reference form is first."""

    model: str
    sha256: str
    """SHA-256 of the weights file; empty for random weights."""
    case: Case
    flops: int | None
    """Operations of the reference form, two for a multiply-accumulate; None if it does not accept the case."""
    forms: tuple[Form, ...]

    def time_ratios(self, form: Form) -> Timing | None:
        """Return the time of `form` divided by the reference form's, round by round; None if one of them failed."""
        reference = self.forms[0].timing
        if reference is None or form.timing is None:
            return None
        return Timing(tuple(own / base for own, base in zip(form.timing.runs_s, reference.runs_s, strict=True)))

    def memory_ratio(self, form: Form) -> float | None:
        """Return the added memory of `form` divided by the reference form's."""
        base = self.forms[0].added_bytes
        return None if not base or form.added_bytes is None else form.added_bytes / base

    def gflops(self, form: Form) -> float | None:
        """Return the counted work divided by the median time of `form`, in 10^9 operations a second."""
        return None if self.flops is None or form.timing is None else self.flops / form.timing.median_s / 1e9

    def share(self, form: Form, limits: Limits) -> float | None:
        """Return `gflops` as a fraction of the machine's rate in the precision of `form`."""
        rate, limit = self.gflops(form), limits.of(form.precision)
        return None if rate is None or limit is None else rate / limit


@dataclass(frozen=True)
class Comparison:
    """All comparisons of one call on one machine."""

    compared: tuple[Compared, ...]
    limits: Limits
    environment: dict[str, str | int] = field(default_factory=dict)

    def to_text(self) -> str:
        """Return a table for each model and case, with the conditions below."""
        machine = self.environment.get("gpu") or f"{self.environment['cpu']}, {threads_text(self.environment['threads'])}"
        lines = [f"{self.environment['device']} ({machine}), torch {self.environment['torch']}"]
        for one in self.compared:
            work = "" if one.flops is None else f", {one.flops / 1e9:.1f} GFLOP"
            weights = "" if one.sha256 else ", random weights"
            lines += ["", f"{one.model}, {one.case}{work}{weights}", *_aligned([_HEADING, *map(self._cells(one), one.forms)])]
            lines += [f"{form.name}: {form.error}" for form in one.forms if form.error]
        rates = ", ".join(f"{name.replace('_', ' ')} {rate:.0f} GFLOP/s" for name, rate in self.limits.gflops.items())
        return "\n".join(
            [*lines, "", f"Limits, measured in turns: {rates}, copy {self.limits.copy_gbytes_per_s:.1f} GB/s.", _NOTE]
        )

    def _cells(self, one: Compared) -> Callable[[Form], list[str]]:
        def cells(form: Form) -> list[str]:
            if form.timing is None:
                return [form.name, "failed", *[""] * (len(_HEADING) - 2)]
            ratios, memory = one.time_ratios(form), one.memory_ratio(form)
            rate, share = one.gflops(form), one.share(form, self.limits)
            return [
                form.name,
                _with_quartiles(form.timing, scale=1e3, digits=0 if form.timing.median_s >= 1 else 1),
                "" if ratios is None else _with_quartiles(ratios, digits=2),
                "" if form.added_bytes is None else f"{form.added_bytes / 1e6:.0f}",
                "" if memory is None else f"{memory:.2f}",
                "" if rate is None else f"{rate:.0f}",
                "" if share is None else f"{share:.0%}",
                "" if form.max_difference is None else f"{form.max_difference:.1e}",
                "" if form.psnr is None else f"{form.psnr:.1f}",
            ]

        return cells

    def to_json(self) -> str:
        """Return all figures as JSON, with units in the names, and the times of single runs."""
        return json.dumps(
            {
                "format": "upframe-comparison/1",
                "environment": self.environment,
                "limits": {
                    **{f"{name}_gflops": rate for name, rate in self.limits.gflops.items()},
                    "copy_gbytes_per_s": self.limits.copy_gbytes_per_s,
                },
                "compared": [
                    {
                        "model": one.model,
                        "sha256": one.sha256,
                        "frames": one.case.frames,
                        "input_size": list(one.case.size),
                        "flops": one.flops,
                        "forms": [self._figures(one, form) for form in one.forms],
                    }
                    for one in self.compared
                ],
            },
            indent=1,
        )

    def _figures(self, one: Compared, form: Form) -> dict[str, Any]:
        if form.timing is None:
            return {"form": form.name, "error": form.error}
        ratios = one.time_ratios(form)
        return {
            "form": form.name,
            "runtime_s": _summary(form.timing),
            "runs_s": list(form.timing.runs_s),
            "time_ratio": None if ratios is None else _summary(ratios),
            "added_memory_bytes": form.added_bytes,
            "memory_ratio": one.memory_ratio(form),
            "gflops": one.gflops(form),
            "share_of_limit": one.share(form, self.limits),
            "max_difference": form.max_difference,
            "psnr_db": form.psnr,
        }


_HEADING = ["form", "time [ms]", "of reference", "added [MB]", "of reference", "GFLOP/s", "of limit", "max diff.", "PSNR [dB]"]
_NOTE = """\
Time: median (quartiles); ratios are taken round by round. Added memory: peak of the passes beyond weights and input.
Work: 2 x MACs of the reference form; the limit is the faster of matrix product and convolution in the form's precision.
Difference and PSNR: output against that of the reference form, on the 0 to 1 scale."""


def _with_quartiles(timing: Timing, *, scale: float = 1, digits: int) -> str:
    low, high = timing.quartiles_s
    return f"{timing.median_s * scale:.{digits}f} ({low * scale:.{digits}f}-{high * scale:.{digits}f})"


def _summary(timing: Timing) -> dict[str, float]:
    low, high = timing.quartiles_s
    return {"median": timing.median_s, "quartile_1": low, "quartile_3": high}


def _aligned(rows: list[list[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join([row[0].ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(row[1:], widths[1:], strict=True))]).rstrip()
        for row in rows
    ]


# Measuring ------------------------------------------------------------------------------------------------------------
def default_case(spec: ModelSpec) -> Case:
    """Return the default case of a network."""
    if spec.window is None:
        return Case(1, PHOTO_SIZE)
    return Case(spec.window.frames or CLIP_FRAMES, CLIP_SIZE)


def compare_with_reference(
    models: Sequence[Model],
    *,
    size: tuple[int, int] | None = None,
    frames: int | None = None,
    repeats: int = REPEATS,
    precisions: Sequence[Precision] = ("fp32", "bf16"),
    engines: Sequence[str] = ("auto",),
    device: str = "cpu",
    threads: int | None = None,
    clip: Tensor | None = None,
    on_event: Callable[[str, int, int], None] | None = None,
) -> Comparison:
    """Run each model and its reference form on the same input, in turns.

    Args:
        size: (height, width) of the input; None for each model's `default_case`, as `frames`.
        frames: Number of frames; networks for single frames get one by default.
        repeats: Number of timed rounds, after one that is not timed.
        precisions: Precisions of upframe's network, if proven.
        engines: Engines of upframe's network, by name; an engine skips precisions that it does not support.
        device: As `engines.pick_device` takes it.
        threads: CPU threads; None leaves torch's choice.
        clip: (1, T, C, H, W) in [0, 1] to run on instead of a synthetic one; fixes `size` and `frames`.
        on_event: Called after every pass with its model and form, the number of passes done, and their total.

    Raises:
        UsageError: if there is no model or no repeat, a model has no reference form, or a model does not accept the size,
            precision or engine.
        ResourceError: if the device does not exist.
    """
    if not models:
        raise UsageError("bench", "no model was named", "name one or more, for instance rlfn-x4")
    if repeats < 1:
        raise UsageError("bench", f"cannot time {repeats} rounds", "use at least one")
    device = str(pick_device(device))
    threads = threads or torch.get_num_threads()
    if clip is not None:
        frames, size = clip.shape[1], (clip.shape[3], clip.shape[4])
    cases = [_case(model.spec, frames, size) for model in models]
    own = [_forms(model, engines, precisions, device) for model in models]
    total = (repeats + 1) * sum(1 + len(each) for each in own)
    done = 0

    def passed(name: str) -> None:
        nonlocal done
        done += 1
        log.info("%s: pass %d of %d", name, done, total)
        if on_event is not None:
            on_event(name, done, total)

    with _Worker(Job("limits", device, threads)) as meter:
        meter.ask()
        compared = tuple(
            _compare(model, case, each, repeats, (device, threads), clip, meter, passed)
            for model, case, each in zip(models, cases, own, strict=True)
        )
        limits = _limits(meter.answers)
    about = environment(device=device)
    del about["precision"]  # each form has its own
    about["threads"] = threads
    return Comparison(compared, limits, about)


def _forms(model: Model, engines: Sequence[str], precisions: Sequence[Precision], device: str) -> list[_Form]:
    """Return the forms of upframe to compare with the reference form."""
    proven = [p for p in precisions if p in model.spec.precisions]
    if not proven:
        able = ", ".join(model.spec.precisions)
        raise OptionError("precisions", list(precisions), f"not proven for {model.name}", f"choose from {able}")
    chosen: list[_Form] = []
    for engine in engines:
        if engine in (*BACKENDS, "native"):  # engines that cannot run are refused before any work
            make_engine_as_named(model, engine_options(engine, device=device))
        computes_in = BACKENDS[engine]().backend().precisions if engine in BACKENDS else proven
        shown = "upframe" if engine == "auto" else engine
        chosen += [_Form(f"{shown} {p}", p, engine) for p in proven if p in computes_in]
    return chosen


@dataclass(frozen=True)
class _Form:
    """A form of a network to be run."""

    name: str
    precision: Precision
    engine: str = "auto"


def _case(spec: ModelSpec, frames: int | None, size: tuple[int, int] | None) -> Case:
    comparable = [family.name for family in FAMILIES if family.reference is not None]
    if spec.family not in comparable:
        raise UsageError(spec.name, f"there is no reference form of {spec.family}", f"compare one of {', '.join(comparable)}")
    usual = default_case(spec)
    case = Case(frames or usual.frames, size or usual.size)
    if any(spec.size.padded(side) != side for side in case.size):
        rule = f"sides must be {spec.size.minimum} or more and multiples of {spec.size.multiple}"
        raise UsageError(spec.name, f"cannot take an input of {case.size[1]}x{case.size[0]}", rule)
    if spec.window is not None and case.frames < spec.window.minimum:
        raise UsageError(spec.name, f"cannot take {case.frames} frames", f"use {spec.window.minimum} or more")
    return case


def _compare(
    model: Model,
    case: Case,
    own: Sequence[_Form],
    repeats: int,
    place: tuple[str, int],
    clip: Tensor | None,
    meter: _Worker,
    passed: Callable[[str], None],
) -> Compared:
    """Compare the forms of one model on one case; report a form that fails, and continue with the others."""
    device, threads = place
    spec = model.spec
    state = {name: value.contiguous() for name, value in model.network.state_dict().items()}
    if clip is None:
        clip = synthetic_clip(case, channels=spec.channels)
    sigma = SIGMA if spec.takes_sigma else None
    with scratch_folder() as folder, contextlib.ExitStack() as running:
        # Tied weights share memory, which the file format does not allow.
        safetensors.torch.save_file({k: v.clone() for k, v in state.items()}, folder / "weights.safetensors")
        safetensors.torch.save_file({"clip": clip.contiguous()}, folder / "input.safetensors")

        def worker(form: _Form) -> _Worker:
            job = Job(
                "reference" if form.name.startswith("reference") else "upframe",
                device,
                threads,
                form.precision,
                spec.family,
                spec.name,
                folder=str(folder),
                weights="weights.safetensors",
                output=f"{form.name}.safetensors",
                sigma=sigma,
                engine=form.engine,
            )
            return running.enter_context(_Worker(job))

        asked = [_Form("reference fp32", "fp32"), *own]
        workers = [worker(form) for form in asked]
        for each in workers:
            each.ask()  # ready, or failed to load
        for _ in range(1 + repeats):
            for form, each in zip(asked, workers, strict=True):
                each.ask("run")
                passed(f"{model.name}, {form.name}")
            meter.ask("run")
        forms: list[Form] = []
        reference_out: Tensor | None = None
        for form, each in zip(asked, workers, strict=True):
            answer = each.ask("finish")
            if each.error is not None:
                forms.append(Form(form.name, form.precision, error=each.error))
                continue
            runs = [answer["seconds"] for answer in each.answers if "seconds" in answer][1:]
            out = safetensors.torch.load_file(folder / f"{form.name}.safetensors")["out"]
            difference, psnr = (None, None) if reference_out is None else _difference(out, reference_out)
            forms.append(Form(form.name, form.precision, Timing(tuple(runs)), answer["added_bytes"], difference, psnr))
            if each is workers[0]:
                reference_out = out
    flops = None if forms[0].timing is None else 2 * _macs(spec, state, case, sigma)
    return Compared(model.name, model.sha256, case, flops, tuple(forms))


def synthetic_clip(case: Case, *, channels: int = 3, seed: int = 0) -> Tensor:
    """Return (1, T, C, H, W) in [0, 1]: drifting waves of many lengths and some noise, rounded to 8 bits.

    The clip is smooth enough for flow networks to see motion, and the same on every machine.
    """
    generator = torch.Generator().manual_seed(seed)
    (height, width), waves = case.size, 12
    wavelength_px = 4 * 2 ** (torch.rand(waves, generator=generator) * 5)
    angle, phase = (2 * math.pi * torch.rand(waves, generator=generator) for _ in range(2))
    strength = torch.rand(channels, waves, generator=generator) / waves
    t = torch.arange(case.frames).view(-1, 1, 1, 1)
    y = torch.arange(height).view(-1, 1, 1) + 0.7 * t  # a few pixels from frame to frame
    x = torch.arange(width).view(1, -1, 1) + 1.8 * t
    wave = torch.sin(2 * math.pi / wavelength_px * (x * angle.cos() + y * angle.sin()) + phase)  # (T, H, W, waves)
    clip = 0.5 + torch.einsum("thwk,ck->tchw", wave, strength)
    clip = clip + 0.02 * torch.randn(clip.shape, generator=generator)
    return (clip.clamp(0, 1) * 255).round()[None] / 255


def _difference(out: Tensor, reference: Tensor) -> tuple[float | None, float | None]:
    """Return the largest difference, and the PSNR unless both are equal."""
    if out.shape != reference.shape:
        return None, None
    difference = (out.double() - reference.double()).abs()
    error = float(difference.square().mean())
    return float(difference.max()), -10 * math.log10(error) if error > 0 else None


def _macs(spec: ModelSpec, state: dict[str, Tensor], case: Case, sigma: float | None) -> int:
    """Count the multiply-accumulates of the reference form."""
    network = reference_form(spec, state)
    if spec.window is None:
        return count(network, (case.frames, spec.channels, *case.size)).macs
    return count(_WithNoise(network, sigma), (1, case.frames, spec.channels, *case.size)).macs


class _WithNoise(nn.Module):
    """A network that can be called with a clip alone, because it knows the noise level."""

    def __init__(self, network: nn.Module, sigma: float | None) -> None:
        super().__init__()
        self.network = network
        self.facts = {} if sigma is None else {"sigma": sigma}

    def forward(self, clip: Tensor) -> Tensor:
        return self.network(clip, **self.facts)  # type: ignore[no-any-return]


def _limits(answers: list[dict[str, Any]]) -> Limits:
    measured = [answer["limits"] for answer in answers if "limits" in answer]
    medians = {name: Timing(tuple(each[name] for each in measured)).median_s for name in measured[0]}
    copy = medians.pop("copy_gbytes_per_s")
    return Limits({name.removesuffix("_gflops"): rate for name, rate in medians.items()}, copy)


# Processes ------------------------------------------------------------------------------------------------------------
class _Worker:
    """The parent's end of a `worker` process. After a failure it sends no more requests."""

    def __init__(self, job: Job) -> None:
        self.error: str | None = None
        self.answers: list[dict[str, Any]] = []
        self._complaints = unnamed_file()  # closed in __exit__
        self._process = subprocess.Popen(
            [sys.executable, "-m", "upframe.benchmark.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._complaints,
            text=True,
            encoding="utf-8",
        )
        self._send(job.to_line())

    def __enter__(self) -> _Worker:
        return self

    def __exit__(self, *exception: object) -> None:
        self._process.kill()  # it has finished, has failed, or is no longer needed
        with contextlib.suppress(OSError):  # a line that the process did not read
            self._process.__exit__(None, None, None)
        self._complaints.close()

    def ask(self, what: str | None = None) -> dict[str, Any]:
        """Send `what`, if given, and wait for the next answer; empty if there is none or it is an error."""
        if self.error is not None:
            return {}
        if what is not None:
            self._send(json.dumps({"do": what}))
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        answer: dict[str, Any] = json.loads(line) if line else {"error": self._end()}
        self.error = answer.get("error")
        self.answers.append(answer)
        return {} if self.error else answer

    def _send(self, line: str) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # the process has ended, which is noticed on reading its answer
            self._process.stdin.write(line + "\n")
            self._process.stdin.flush()

    def _end(self) -> str:
        """Describe how the process ended, with its last message."""
        code = self._process.wait()
        how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        self._complaints.seek(0)
        lines = self._complaints.read().decode(errors="replace").strip().splitlines()
        return f"the process {how}" + (f": {lines[-1]}" if lines else "; it may have run out of memory" if code == -9 else "")
