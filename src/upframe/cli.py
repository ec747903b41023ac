"""The command line. Thin: it parses flags, calls the library, shows progress and turns errors into exit codes.

Only light modules are imported here; torch and the codecs are loaded by the commands that need them, so that
`upframe --help` answers at once.
"""

from __future__ import annotations

import contextlib
import io
import json
import logging
import os
import re
import shutil
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any, Literal, NoReturn

from cyclopts import App, CycloptsError, Group, Parameter

from upframe import __version__
from upframe.errors import Cancelled, InputError, OutputError, UpframeError, UsageError, one_line

if TYPE_CHECKING:
    from upframe.evaluation import Evaluation, EvaluationEvent
    from upframe.job import Event, JobOptions, Plan, Report
    from upframe.naming import Target
    from upframe.training.loop import Progress as TrainingProgress
    from upframe.upscale import TileSize

EXIT_CODES = """\
Exit codes:
  0  every output written and verified      5  memory exhausted, or no such device
  1  internal error                         6  cannot write
  2  wrong usage                            7  verification failed
  3  input missing or unreadable            8  batch finished, some inputs failed
  4  model or weights                     130  interrupted, 143 terminated"""

SIZE = Group.create_ordered("Output size", help="Give at most one; the network's own scale otherwise.")
OUTPUT = Group.create_ordered("Output")
INPUT = Group.create_ordered("Input")
PIPE = "\0"  # what `-` becomes before the parser, which takes it for an option; no file name holds this character
COMPUTE = Group.create_ordered("Computing")
REPORTING = Group.create_ordered("Reporting")


def _parser_message(error: CycloptsError) -> str:
    return one_line(str(error).splitlines()[-1] if str(error) else type(error).__name__)


app = App(
    name="upframe",
    help="Upscale photos with published networks, and train and measure them. `upframe FILE…` is `upframe upscale FILE…`.",
    version=__version__,
    version_flags=["--version", "-V"],
    help_epilogue=EXIT_CODES,
    help_format="plaintext",
    result_action="return_value",
    exit_on_error=False,
)
models_app = App(name="models", help="List, inspect, prove and convert weights.")
app.command(models_app)


@Parameter(name="*")
@dataclass(frozen=True)
class Reporting:
    """How much is said, and how."""

    verbose: Annotated[bool, Parameter(alias="-v", negative="", group=REPORTING)] = False
    "Say more about what is done."
    quiet: Annotated[bool, Parameter(alias="-q", negative="", group=REPORTING)] = False
    "Say nothing but errors."
    json: Annotated[bool, Parameter(negative="", group=REPORTING)] = False
    "Print JSON on standard output, one object per line, and nothing else there."
    progress: Annotated[bool, Parameter(negative="--no-progress", group=REPORTING)] = True
    "Show progress."
    debug: Annotated[bool, Parameter(negative="", group=REPORTING)] = False
    "Show the traceback of an error."

    def start(self) -> None:
        level = logging.INFO if self.verbose else logging.ERROR if self.quiet else logging.WARNING
        logging.basicConfig(level=level, format="%(name)s: %(message)s", stream=sys.stderr)
        logging.getLogger("upframe").setLevel(logging.DEBUG if self.debug else level)


@Parameter(name="*")
@dataclass(frozen=True)
class Size:
    """How large the output is to be."""

    scale: Annotated[float | None, Parameter(alias="-s", group=SIZE)] = None
    "Enlargement, also fractional: 2, 2.5, 4."
    size: Annotated[str | None, Parameter(group=SIZE)] = None
    "Exact output size, WIDTHxHEIGHT."
    width: Annotated[int | None, Parameter(group=SIZE)] = None
    "Output width in pixels; the height follows."
    height: Annotated[int | None, Parameter(group=SIZE)] = None
    "Output height in pixels; the width follows."
    long_side: Annotated[int | None, Parameter(group=SIZE)] = None
    "Longer output side in pixels."
    short_side: Annotated[int | None, Parameter(group=SIZE)] = None
    "Shorter output side in pixels."
    megapixels: Annotated[float | None, Parameter(group=SIZE)] = None
    "Output area in millions of pixels."

    def target(self) -> Target:
        from upframe.naming import Target

        width, height = self.width, self.height
        if self.size is not None:
            found = re.fullmatch(r"(\d+)[xX×](\d+)", self.size)
            if not found or width is not None or height is not None:
                raise UsageError(f"--size {self.size}", "must be WIDTHxHEIGHT, without --width or --height")
            width, height = int(found[1]), int(found[2])
        return Target(self.scale, width, height, self.long_side, self.short_side, self.megapixels)


@Parameter(name="*")
@dataclass(frozen=True)
class Computing:
    """What the network runs on and how the picture is cut."""

    tile: Annotated[str, Parameter(alias=["-t", "--tile-size"], group=COMPUTE)] = "auto"
    "Tile of the input: auto (from free memory), off, N or WIDTHxHEIGHT in pixels; 0 is auto."
    halo: Annotated[int | None, Parameter(alias="--tile-pad", group=COMPUTE)] = None
    "Context around a tile in input pixels; the model's measured default otherwise."
    overlap: Annotated[int, Parameter(group=COMPUTE)] = 8
    "Input pixels over which neighbouring tiles are blended."
    device: Annotated[str, Parameter(alias=["-d", "-g", "--gpu-id"], allow_leading_hyphen=True, group=COMPUTE)] = "auto"
    "auto, cpu, cuda, cuda:N or mps; a bare number means cuda:N, -1 means cpu."
    precision: Annotated[Literal["auto", "fp32", "bf16", "fp16"], Parameter(group=COMPUTE)] = "auto"
    "Arithmetic of the network."
    fp32: Annotated[bool, Parameter(negative="", group=COMPUTE)] = False
    "The same as --precision fp32."
    threads: Annotated[int | None, Parameter(group=COMPUTE)] = None
    "CPU threads."


@app.command
def upscale(
    inputs: Annotated[list[str] | None, Parameter(group=INPUT)] = None,
    /,
    *,
    input: Annotated[list[str] | None, Parameter(alias="-i", negative="", group=INPUT)] = None,
    output: Annotated[Path | None, Parameter(alias="-o", group=OUTPUT)] = None,
    model: Annotated[str | None, Parameter(alias=["-m", "-n", "--model-name"], group=COMPUTE)] = None,
    size: Size = Size(),
    computing: Computing = Computing(),
    format: Annotated[str | None, Parameter(alias=["-f", "--ext"], group=OUTPUT)] = None,
    quality: Annotated[int | None, Parameter(group=OUTPUT)] = None,
    name: Annotated[str | None, Parameter(group=OUTPUT)] = None,
    suffix: Annotated[str | None, Parameter(group=OUTPUT)] = None,
    overwrite: Annotated[bool, Parameter(alias="-y", negative="", group=OUTPUT)] = False,
    recursive: Annotated[bool, Parameter(alias="-r", negative="", group=INPUT)] = False,
    include: Annotated[list[str] | None, Parameter(negative="", group=INPUT)] = None,
    exclude: Annotated[list[str] | None, Parameter(negative="", group=INPUT)] = None,
    allow_truncated: Annotated[bool, Parameter(negative="", group=INPUT)] = False,
    first_frame: Annotated[bool, Parameter(negative="", group=INPUT)] = False,
    max_pixels: Annotated[int | None, Parameter(group=INPUT)] = None,
    strict: Annotated[bool, Parameter(negative="", group=OUTPUT)] = False,
    dry_run: Annotated[bool, Parameter(negative="", group=REPORTING)] = False,
    reporting: Reporting = Reporting(),
) -> int:
    """Enlarge images: files, folders and patterns.

    Beside the input an output is called {stem}_{model}_x{scale}; in an output folder, and for the files of a folder
    (FOLDER_upscaled if no other is given), it keeps its name. Nothing is overwritten without -y; outputs that are there
    already and verify are skipped.

    Args:
        inputs: Files, folders or quoted patterns; - is standard input.
        input: More inputs.
        output: File or folder to write; - is standard output.
        model: Name (see `upframe models list`) or weights file; the shipped photo model otherwise.
        format: png, jpg, webp, tiff, bmp, avif or gif; the input's otherwise.
        quality: 1 to 100, for lossy formats.
        name: Template of output names with {stem}, {model} and {scale}.
        suffix: Short for --name '{stem}_SUFFIX'.
        overwrite: Overwrite existing outputs.
        recursive: Look into sub-folders, and keep their tree.
        include: Only take files whose name matches this pattern.
        exclude: Leave out files whose name matches this pattern.
        allow_truncated: Take damaged files as far as they go.
        first_frame: Take the first frame or page only.
        max_pixels: Largest input picture to accept, in pixels.
        strict: Treat every loss (see docs/notices.md) as an error.
        dry_run: Show what would be done, with sizes and memory, and stop.
    """
    reporting.start()
    from upframe import job
    from upframe.engines import keep_freed_memory

    keep_freed_memory()
    options = _job_options(
        model=model,
        size=size,
        computing=computing,
        format=format,
        quality=quality,
        name=_template(name, suffix),
        overwrite=overwrite,
        recursive=recursive,
        include=tuple(include or ()),
        exclude=tuple(exclude or ()),
        allow_truncated=allow_truncated,
        first_frame=first_frame,
        max_pixels=max_pixels,
        strict=strict,
    )
    everything = [*(inputs or []), *(input or [])]
    if not everything:
        raise UsageError("upframe upscale", "no input is given", "name files or folders; see upframe upscale --help")
    with _piped(everything, output, as_json=reporting.json) as (files, place):
        planned = job.plan(files, place, options)
        if dry_run:
            _show_plan(planned, options, as_json=reporting.json)
            return 8 if planned.failed else 0
        with _stoppable() as cancel, _display(reporting, len(planned.items) + len(planned.failed)) as show:
            report = job.run(planned, options, on_event=show, cancel=cancel)
        return _conclude(report, reporting)


@contextlib.contextmanager
def _piped(inputs: list[str], output: Path | None, *, as_json: bool) -> Iterator[tuple[list[str], Path | None]]:
    """`inputs` and `output` with `-` replaced by files in a private folder: codecs seek, and verification reads back.

    Standard input is read to its end first. On a clean exit what was made is copied to standard output, where nothing
    else is printed meanwhile.
    """
    to_stdout = str(output) == PIPE
    if PIPE not in inputs and not to_stdout:
        yield inputs, output
        return
    if PIPE in inputs and output is None:
        raise UsageError("-", "is standard input, and no output is given", "add -o FILE, or -o - for standard output")
    if to_stdout and (len(inputs) > 1 or Path(inputs[0]).is_dir() or as_json or sys.stdout.isatty()):
        raise UsageError("-o -", "takes one picture, no --json, and needs standard output to be a file or pipe")
    with tempfile.TemporaryDirectory(prefix="upframe-") as folder:
        if PIPE in inputs:
            with Path(folder, "stdin").open("wb") as file:
                shutil.copyfileobj(sys.stdin.buffer, file)
        files = [str(Path(folder, "stdin")) if given == PIPE else given for given in inputs]
        if not to_stdout:
            yield files, output
            return
        made = Path(folder, "made")
        made.mkdir()
        with contextlib.redirect_stdout(sys.stderr):
            yield files, made
        if len(results := list(made.iterdir())) > 1:
            raise UsageError("-o -", f"{inputs[0]} means {len(results)} pictures", "give a folder instead")
        for path in results:
            with path.open("rb") as file:
                shutil.copyfileobj(file, sys.stdout.buffer)


def _job_options(*, size: Size, computing: Computing, model: str | None, max_pixels: int | None, **rest: Any) -> JobOptions:
    from upframe.engines import TorchOptions
    from upframe.job import JobOptions
    from upframe.media.images import Limits
    from upframe.upscale import UpscaleOptions

    if computing.fp32 and computing.precision not in ("auto", "fp32"):
        raise UsageError("--fp32", f"contradicts --precision {computing.precision}", "drop one of them")
    if computing.threads is not None and computing.threads < 1:
        raise UsageError(f"--threads {computing.threads}", "must be 1 or more")
    for flag, value in (("--halo", computing.halo), ("--overlap", computing.overlap)):
        if value is not None and value < 0:
            raise UsageError(f"{flag} {value}", "must be 0 or more")
    if max_pixels is not None and max_pixels < 1:
        raise UsageError(f"--max-pixels {max_pixels}", "must be 1 or more")
    quality = rest.get("quality")
    if quality is not None and not 1 <= quality <= 100:
        raise UsageError(f"--quality {quality}", "must be 1 to 100")
    torch_options = TorchOptions(
        device=_device(computing.device),
        precision="fp32" if computing.fp32 else computing.precision,
        threads=computing.threads,
    )
    tile = _tile(computing.tile, overlap=computing.overlap)
    return JobOptions(
        model=model,
        target=size.target(),
        upscale=UpscaleOptions(tile, computing.halo, computing.overlap, torch_options),
        limits=Limits() if max_pixels is None else Limits(max_pixels=max_pixels),
        **rest,
    )


def _tile(text: str, *, overlap: int) -> TileSize:
    if text in ("auto", "0"):
        return "auto"
    if text == "off":
        return "off"
    found = re.fullmatch(r"(\d+)(?:[xX×](\d+))?", text)
    if not found:
        raise UsageError(f"--tile {text}", "must be auto, off, N or WIDTHxHEIGHT")
    width, height = int(found[1]), int(found[2] or found[1])
    least = max(16, 4 * overlap)
    if min(width, height) < least:
        raise UsageError(f"--tile {text}", f"too small for an overlap of {overlap} px", f"use {least} or more")
    return height, width


def _device(text: str) -> str:
    if text == "-1":
        return "cpu"
    return f"cuda:{text}" if text.isdigit() else text


def _template(name: str | None, suffix: str | None) -> str | None:
    if suffix is None:
        return name
    if name is not None:
        raise UsageError("--suffix", "contradicts --name", "drop one of them")
    return "{stem}_" + suffix.replace("{", "{{").replace("}", "}}")


def _show_plan(planned: Plan, options: JobOptions, *, as_json: bool) -> None:
    from upframe import job

    upscalers = planned.upscalers(options.upscale)
    for item in planned.items:
        up = upscalers[item.model]
        tile = up.tile_px(item.info.size)
        row = {
            "event": "plan",
            "input": str(item.input),
            "output": str(item.output),
            "model": item.model,
            "input_size": list(item.info.size),
            "size": list(item.size),
            "format": item.plan.format,
            "frames": item.frames,
            "tile": list(tile),
            "memory_bytes": job.estimated_memory_bytes(item, up),
            "file_bytes": job.estimated_file_bytes(item),
            "skip": item.skip,
            "notices": [{"id": n.id, "message": n.message} for n in item.notices],
        }
        if as_json:
            _line(json.dumps(row))
            continue
        what = "is there already, skipped" if item.skip else f"{item.model}, {item.plan.format}"
        frames = f", {item.frames} frames" if item.frames > 1 else ""
        _line(
            f"{one_line(str(item.input))} -> {one_line(str(item.output))}: {item.info.size[1]}x{item.info.size[0]} -> "
            f"{item.size[1]}x{item.size[0]}{frames} ({what}; tile {tile[1]}x{tile[0]}; about "
            f"{row['memory_bytes'] / 2**20:.0f} MiB of memory, {row['file_bytes'] / 2**20:.1f} MiB on disk)"  # type: ignore[operator]
        )
        for notice in item.notices:
            _line(f"  note: {notice.message} [{notice.id}]")
    for failed in planned.failed:
        if as_json:
            _show_json(job.Event("failed", failed.input, job.error_data(failed.error)))
        else:
            _line(f"cannot do {failed.error}")


def _conclude(report: Report, reporting: Reporting) -> int:
    """Print the summary and return the exit code."""
    written, skipped, failed = (len(report.of(s)) for s in ("written", "skipped", "failed"))
    error = report.error
    code = error.exit_code if error is not None else 0
    if reporting.json:
        rows = [
            {
                "input": str(o.input),
                "status": o.status,
                "output": None if o.output is None else str(o.output),
                "error": None if o.error is None else str(o.error),
                "notices": [n.id for n in o.notices],
            }
            for o in report.outcomes
        ]
        counts = {"written": written, "skipped": skipped, "failed": failed}
        _line(json.dumps({"event": "summary", "exit_code": code, **counts, "seconds": round(report.seconds, 3), "items": rows}))
    elif len(report.outcomes) > 1 and not reporting.quiet:
        _line(f"{written} written, {skipped} skipped, {failed} failed in {report.seconds:.1f} s")
        for outcome in report.of("failed"):
            _line(f"  failed: {outcome.error}")
    return code


# Measuring ------------------------------------------------------------------------------------------------------------
@app.command
def evaluate(
    models: Annotated[list[str], Parameter(consume_multiple=True)],
    *,
    data: Path,
    protocol: str = "sisr-y",
    datasets: Annotated[list[str] | None, Parameter(negative="", consume_multiple=True)] = None,
    scale: Annotated[int | None, Parameter(alias="-s")] = None,
    limit: int | None = None,
    save_images: Path | None = None,
    contact_sheet: Annotated[bool, Parameter(negative="")] = False,
    out: Annotated[Path | None, Parameter(alias="-o")] = None,
    per_image: Annotated[bool, Parameter(negative="")] = False,
    overwrite: Annotated[bool, Parameter(alias="-y", negative="")] = False,
    reporting: Reporting = Reporting(),
) -> int:
    """Measure PSNR and SSIM of models on test sets, the published way.

    Args:
        models: Names or weights files; the word bicubic is the baseline.
        data: Folder of test sets (SET/HR/*.png, SET/LRbicX4/*.png), one such set, or a folder of ground-truth images.
        protocol: How scores are taken: sisr-y or sisr-rgb.
        datasets: Only these sets of the folder.
        scale: Scale for bicubic, and for models of several scales.
        limit: Take only the first images of each set.
        save_images: Folder for the enlarged pictures.
        contact_sheet: Also save a sheet of input, results and ground truth beside them.
        out: Folder for results.json and results.md.
        per_image: Print the table of single images too.
        overwrite: Let save_images be a folder with content.
    """
    reporting.start()
    from upframe.engines import keep_freed_memory
    from upframe.evaluation import evaluate as run_evaluation

    keep_freed_memory()
    if contact_sheet and save_images is None:
        raise UsageError("--contact-sheet", "has no folder to go to", "add --save-images DIR")
    result = run_evaluation(
        models,
        protocol=protocol,
        data=data,
        datasets=datasets,
        scale=scale,
        save_images=save_images,
        contact_sheet=contact_sheet,
        limit=limit,
        overwrite=overwrite,
        on_event=_scoring_display(reporting),
    )
    _write_evaluation(result, out)
    if reporting.json:
        _line(result.to_json())
    else:
        _line(result.to_markdown() + ("\n" + result.to_markdown_per_image() if per_image else ""))
    return 0


def _scoring_display(reporting: Reporting) -> Callable[[EvaluationEvent], None] | None:
    if not reporting.verbose:
        return None

    def show(event: EvaluationEvent) -> None:
        scores = ", ".join(f"{name} {value:.4f}" for name, value in event.scores.items())
        print(f"[{event.done}/{event.total}] {event.dataset} {event.image} {event.model}: {scores}", file=sys.stderr)  # noqa: T201

    return show


@app.command
def compare(first: Path, second: Path) -> int:
    """Compare two results.json of `upframe evaluate`; results that were not taken the same way are refused.

    Args:
        first: The earlier result.
        second: The later result.
    """
    from upframe.evaluation import Evaluation
    from upframe.evaluation import compare as differences

    one, two = (Evaluation.from_json(_read_text(path)) for path in (first, second))
    for difference in differences(one, two):
        d = difference
        _line(f"{d.dataset} {d.metric}: {d.model_a} {d.a:.4f} -> {d.model_b} {d.b:.4f} ({d.gain:+.4f})")
    return 0


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(path, "cannot be read as text", "pass a results.json that upframe evaluate wrote") from error


def _write_evaluation(result: Evaluation, out: Path | None) -> None:
    if out is not None:
        _write_text(out / "results.json", result.to_json())
        _write_text(out / "results.md", result.to_markdown() + "\n" + result.to_markdown_per_image())


def _write_text(path: Path, text: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise OutputError(path, f"cannot be written ({error.strerror})", "choose another place") from error


@app.command
def bench(
    models: Annotated[list[str], Parameter(consume_multiple=True)],
    *,
    size: str = "256x256",
    repeats: int = 10,
    precision: Literal["fp32", "bf16", "fp16"] = "fp32",
    device: Annotated[str, Parameter(alias="-d")] = "cpu",
    threads: int | None = None,
    out: Annotated[Path | None, Parameter(alias="-o")] = None,
    reporting: Reporting = Reporting(),
) -> int:
    """Print what models cost, as NTIRE efficiency cards; several take turns and stand side by side.

    Args:
        models: Names (weights are not needed) or weights files.
        size: Input size, WIDTHxHEIGHT.
        repeats: Timed passes per model.
        precision: Arithmetic of the networks.
        device: cpu, cuda, cuda:N or mps.
        threads: CPU threads.
        out: JSON file to write.
    """
    reporting.start()
    import torch

    from upframe.bench import bench as run_bench
    from upframe.engines import keep_freed_memory
    from upframe.models import load_or_untrained

    keep_freed_memory()
    if threads:
        torch.set_num_threads(threads)
    found = re.fullmatch(r"(\d+)[xX×](\d+)", size)
    if not found:
        raise UsageError(f"--size {size}", "must be WIDTHxHEIGHT")
    result = run_bench(
        [load_or_untrained(m) for m in models],
        size=(int(found[2]), int(found[1])),
        repeats=repeats,
        device=_device(device),
        precision=precision,
    )
    _line(result.to_json() if reporting.json else result.to_text())
    if out is not None:
        _write_text(out, result.to_json())
    return 0


# Training -------------------------------------------------------------------------------------------------------------
@app.command
def train(
    recipe: str,
    *,
    data: Path,
    out: Annotated[Path, Parameter(alias="-o")],
    set: Annotated[list[str] | None, Parameter(negative="")] = None,
    validate_on: Path | None = None,
    datasets: Annotated[list[str] | None, Parameter(negative="", consume_multiple=True)] = None,
    threads: int | None = None,
    reporting: Reporting = Reporting(),
) -> int:
    """Train a network on a folder of photographs; the same command again goes on where it stopped.

    Args:
        recipe: Name of a recipe: photo-x2 or photo-x4.
        data: Folder of photographs.
        out: Folder of the run: checkpoints, log and resolved recipe.
        set: Change a field of the recipe: --set steps=500.
        validate_on: Folder of test sets to score on, as `upframe evaluate` takes it.
        datasets: Only these sets of it.
        threads: CPU threads.
    """
    reporting.start()
    from upframe.engines import keep_freed_memory
    from upframe.models import MODELS
    from upframe.training.loop import train as run_training
    from upframe.training.recipes import find_recipe
    from upframe.training.validation import held_out_pictures, validator

    keep_freed_memory()
    pairs = [assignment.partition("=") for assignment in set or []]
    for field, equals, _ in pairs:
        if not equals:
            raise UsageError(f"--set {field}", "has no value", "write --set field=value")
    chosen = find_recipe(recipe).override({field: value for field, _, value in pairs})
    check, held_out = None, None
    if validate_on is not None:
        check = validator(validate_on, datasets=datasets)
        held_out = held_out_pictures(validate_on, scale=MODELS[chosen.model].scale, datasets=datasets)
    show = _training_display(reporting)
    run_training(chosen, data=data, out=out, validate=check, held_out=held_out, on_progress=show, threads=threads)
    return 0


def _training_display(reporting: Reporting) -> Any:
    def show(progress: TrainingProgress) -> None:
        if reporting.json:
            _line(json.dumps({"event": "training", **vars(progress)}))
        elif not reporting.quiet:
            left = (progress.steps - progress.step) * progress.batch / progress.images_per_s
            _line(
                f"step {progress.step}/{progress.steps}  loss {progress.loss:.5f}  rate {progress.learning_rate:.2e}  "
                f"{progress.images_per_s:.0f} images/s  waiting {progress.waiting:.0%}  {left / 60:.0f} min left"
            )

    return show


# Models ---------------------------------------------------------------------------------------------------------------
@models_app.command(name="list")
def models_list(*, reporting: Reporting = Reporting()) -> int:
    """List the shipped models and the networks whose weights you can bring."""
    from upframe.models import list_models

    for entry in list_models():
        state = "shipped" if entry.shipped else "yours" if entry.weights else "bring the file"
        if entry.shipped and entry.weights is None:
            state = "missing: install upframe again"
        if reporting.json:
            row = {**vars(entry), "weights": None if entry.weights is None else str(entry.weights)}
            _line(json.dumps(row))
        else:
            _line(
                f"{entry.name:16} x{entry.scale}  {entry.params / 1e3:6.1f} K  {entry.family:6} {state:15} "
                f"{entry.licence or '-':12} {', '.join(entry.aliases)}"
            )
    return 0


@models_app.command(name="info")
def models_info(model: str, *, reporting: Reporting = Reporting()) -> int:
    """Show everything known about a model or a weights file.

    Args:
        model: Name or weights file.
    """
    reporting.start()
    from upframe.models import info

    found = info(model)
    rows: dict[str, object] = {
        "name": found.name,
        "network": found.spec.name,
        "family": found.spec.family,
        "paper": found.spec.paper,
        "scale": found.spec.scale,
        "parameters": found.params,
        "precisions": list(found.spec.precisions),
        "tiling": found.spec.tiling,
        "halo_px": found.spec.halo_px,
        "exact_halo_px": found.spec.exact_halo_px,
        "weights": found.source,
        "sha256": found.sha256,
    }
    if found.official is not None:
        rows["official"] = f"{found.official.file} of {found.official.source}, licence: {found.official.licence}"
    if found.card is not None:
        rows["card"] = json.loads(found.card.to_json())
    if reporting.json:
        _line(json.dumps(rows))
    else:
        for key, value in rows.items():
            if value is not None:
                _line(f"{key + ':':15} {json.dumps(value, indent=1) if isinstance(value, dict) else value}")
    return 0


@models_app.command(name="verify")
def models_verify(
    models: Annotated[list[str] | None, Parameter(consume_multiple=True)] = None,
    *,
    data: Path,
    datasets: Annotated[list[str] | None, Parameter(negative="", consume_multiple=True)] = None,
    reporting: Reporting = Reporting(),
) -> int:
    """Prove weights: score them on test sets and hold the result against what they are known for.

    Args:
        models: Names or weights files; the shipped models otherwise.
        data: Folder of test sets, as `upframe evaluate` takes it.
        datasets: Only these sets of it.
    """
    reporting.start()
    from upframe.engines import keep_freed_memory
    from upframe.models import SHIPPED
    from upframe.proof import proof_sheet

    keep_freed_memory()
    sheet = proof_sheet(models or list(SHIPPED), data, datasets=datasets)
    _line(sheet.to_json() if reporting.json else sheet.to_markdown())
    return 7 if any(row.verdict == "FAIL" for row in sheet.rows) else 0


@models_app.command(name="convert")
def models_convert(
    source: Path,
    target: Path,
    *,
    name: str | None = None,
    value_range: Literal["0-1", "0-255"] | None = None,
    notes: str | None = None,
    overwrite: Annotated[bool, Parameter(alias="-y", negative="")] = False,
    reporting: Reporting = Reporting(),
) -> int:
    """Convert any recognised weights file to safetensors with a card, in [0, 1].

    Args:
        source: Weights file in any published form.
        target: The .safetensors file to write; its card is written beside it.
        name: What to call it.
        value_range: Range of its pixels, for files that neither state it nor let it be measured.
        notes: A remark for the card.
        overwrite: Overwrite an existing target.
    """
    reporting.start()
    from upframe.models import convert

    card = convert(source, target, name=name, value_range=value_range, notes=notes, overwrite=overwrite)
    if reporting.json:
        _line(json.dumps({"event": "converted", "output": str(target), "card": json.loads(card.to_json())}))
    else:
        _line(f"{one_line(str(source))} -> {one_line(str(target))} ({card.arch}, x{card.scale}, sha256 {card.sha256[:12]})")
    return 0


# Entry ----------------------------------------------------------------------------------------------------------------
def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and exit with the documented code."""
    tokens = _normalised(sys.argv[1:] if arguments is None else list(arguments))
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a name that the terminal's encoding lacks must not stop a batch
            stream.reconfigure(errors="backslashreplace")
    code = 1
    try:
        code = int(app(tokens, print_error=False) or 0)  # its own console would break long messages into lines
    except CycloptsError as error:
        code = 2
        text = _parser_message(error)
        _report_json(text, "UsageError", code, tokens)
        _say(f"upframe: {text}")
    except Cancelled as error:
        code = _Stop.code or error.exit_code
        _report_error(error, code, tokens)
    except UpframeError as error:
        code = error.exit_code
        _report_error(error, code, tokens)
    except KeyboardInterrupt:
        code = 130
    except BrokenPipeError:  # whoever read our output went away; leave quietly
        code = 6
    except Exception as error:
        text = one_line(f"{type(error).__name__}: {error}")
        _report_error(UpframeError("internal error", text, "run again with --debug and report it"), code, tokens, cause=error)
    try:
        if sys.stdout is not None:  # it is None when it was closed from the start
            sys.stdout.flush()
    except OSError:  # also a full disk: keep the interpreter from complaining at exit, with a code of its own
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = code or 6
    sys.exit(code)


def _normalised(tokens: list[str]) -> list[str]:
    """Accept `--tile_size` for `--tile-size`, files without a command as files to upscale, and `-` among them."""
    end = tokens.index("--") if "--" in tokens else len(tokens)
    fixed = [re.sub(r"^--[^=]*", lambda m: m[0].replace("_", "-"), t) for t in tokens[:end]] + tokens[end:]
    known = {"upscale", "evaluate", "compare", "bench", "train", "models", "--help", "-h", "--version", "-V"}
    if fixed and fixed[0] not in known:
        fixed.insert(0, "upscale")
    return [PIPE if t == "-" else t for t in fixed] if fixed[:1] == ["upscale"] else fixed


def _report_error(error: UpframeError, code: int, tokens: Sequence[str], *, cause: Exception | None = None) -> None:
    if "--debug" in tokens:
        traceback.print_exception(cause or error)
    _report_json(str(error), type(error).__name__, code, tokens)
    _say(f"upframe: {error}")


def _report_json(message: str, kind: str, code: int, tokens: Sequence[str]) -> None:
    if "--json" in tokens:
        # What went wrong may be that standard output takes nothing more.
        with contextlib.suppress(OutputError, BrokenPipeError):
            _line(json.dumps({"event": "error", "error": message, "kind": kind, "exit_code": code}))


def _line(text: str) -> None:
    """One line on standard output.

    Raises:
        BrokenPipeError: if nobody reads it any more.
        OutputError: if it cannot be written, such as to a file on a full disk.
    """
    try:
        print(text, flush=True)  # noqa: T201
    except BrokenPipeError:
        raise
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise OutputError("standard output", f"cannot be written ({reason})", "check where it leads") from error


def _say(text: str) -> None:
    """One line for a person on standard error, if there is one."""
    with contextlib.suppress(OSError):
        print(text, file=sys.stderr, flush=True)  # noqa: T201


class _Stop:
    """Which signal asked us to stop."""

    code: int | None = None


@contextlib.contextmanager
def _stoppable() -> Iterator[threading.Event]:
    """The first SIGINT, SIGTERM or SIGHUP sets the event; a second one stops at once."""
    cancel = threading.Event()
    _Stop.code = None

    def handle(number: int, frame: FrameType | None) -> None:
        if cancel.is_set():
            os._exit(128 + number)  # asked twice: do not even clean up
        _Stop.code = 128 + number
        cancel.set()

    signals = [signal.SIGINT, signal.SIGTERM, *([signal.SIGHUP] if hasattr(signal, "SIGHUP") else [])]
    before = {s: signal.signal(s, handle) for s in signals}
    try:
        yield cancel
    finally:
        for s, old in before.items():
            signal.signal(s, old)


@contextlib.contextmanager
def _display(reporting: Reporting, total: int) -> Iterator[Any]:
    """A function that shows events: JSON lines, a live bar on a terminal, or plain lines elsewhere."""
    if reporting.json:
        yield _show_json
        return
    if reporting.quiet:
        yield _show_errors_only
        return
    if reporting.progress and sys.stderr.isatty() and os.environ.get("TERM") != "dumb":
        with _live(total) as show:
            yield show
        return
    yield _PlainLines(reporting.progress)


def _show_json(event: Event) -> None:
    _line(json.dumps({"event": event.event, "input": str(event.input), **event.data}))


def _show_errors_only(event: Event) -> None:
    if event.event == "failed":
        _say(f"upframe: {event.data['error']}")


def _sentence(event: Event) -> str | None:
    """What a person reads of an event, None for nothing."""
    name = one_line(str(event.input))
    if event.event == "done":
        height, width = event.data["size"]
        return f"{name} -> {one_line(event.data['output'])} ({width}x{height}, {event.data['seconds']:.1f} s)"
    if event.event == "skipped":
        return f"{name}: {one_line(event.data['output'])} is there already and verified, skipped (-y redoes it)"
    if event.event == "notice":
        return f"{name}: note: {event.data['message']} [{event.data['id']}]"
    if event.event == "failed":
        return f"upframe: {event.data['error']}"
    return None


class _PlainLines:
    """Events as lines without control codes; progress at most every five seconds."""

    def __init__(self, progress: bool) -> None:
        self._progress = progress
        self._last = time.monotonic()

    def __call__(self, event: Event) -> None:
        text = _sentence(event)
        if event.event == "progress" and self._progress and time.monotonic() - self._last > 5:
            self._last = time.monotonic()
            text = f"{one_line(str(event.input))}: {event.data['done']:.0%}"
        if text is not None:
            if event.event in ("done", "skipped"):
                _line(text)
            else:
                _say(text)


@contextlib.contextmanager
def _live(total: int) -> Iterator[Any]:
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:>3.0f} %"))
    files = (*columns, TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*files, console=console, transient=True) as bar:
        whole = bar.add_task(f"{total} files" if total > 1 else "file", total=total)
        done = 0

        def show(event: Event) -> None:
            nonlocal done
            if event.event == "start":
                bar.update(whole, description=escape(one_line(event.input.name))[:40])
            elif event.event == "progress":
                bar.update(whole, completed=done + event.data["done"])
            elif event.event in ("done", "skipped", "failed"):
                done += 1
                bar.update(whole, completed=done)
            text = _sentence(event)
            if text is not None:
                bar.console.print(escape(text), highlight=False, soft_wrap=True)

        yield show
