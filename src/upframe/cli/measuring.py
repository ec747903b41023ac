"""`upframe evaluate`, `compare` and `bench`."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from upframe.cli.help import HelpPage
from upframe.cli.output import print_line, read_text, write_text
from upframe.cli.parser import (
    MODELS,
    EngineName,
    Reporting,
    app,
    device_name,
)
from upframe.errors import BatchError, UsageError

if TYPE_CHECKING:
    from upframe.benchmark.compare import Comparison
    from upframe.benchmark.cost import Bench
    from upframe.evaluation.evaluate import Evaluation, EvaluationEvent


@app.command(group=MODELS, help_epilogue="", help_formatter=HelpPage())
def evaluate(
    models: Annotated[list[str], Parameter(consume_multiple=True)],
    *,
    data: Path,
    protocol: str = "sisr-y",
    datasets: Annotated[list[str] | None, Parameter(negative="", consume_multiple=True)] = None,
    scale: Annotated[int | None, Parameter(alias="-s")] = None,
    limit: int | None = None,
    niqe_params: Path | None = None,
    engine: EngineName = "auto",
    precision: Literal["fp32", "bf16", "fp16"] = "fp32",
    device: Annotated[str, Parameter(alias="-d")] = "auto",
    threads: int | None = None,
    save_images: Path | None = None,
    contact_sheet: Annotated[bool, Parameter(negative="")] = False,
    out: Annotated[Path | None, Parameter(alias="-o")] = None,
    per_image: Annotated[bool, Parameter(negative="")] = False,
    overwrite: Annotated[bool, Parameter(alias="-y", negative="")] = False,
    reporting: Reporting = Reporting(),
) -> int:
    """Score models on test sets of images or clips, the published way.

    Args:
        models: Names or weights files; the word bicubic is the baseline.
        data: Folder of test sets (SET/HR/*.png, SET/LRbicX4/*.png), one such set, a folder of true images, or a set of clips.
        protocol: How scores are taken. Images: sisr-y, sisr-rgb. Clips: vid4-y, vid4-bd-y, vid4-temporal, reds4-rgb,
            redsofficial4-rgb, redsval-rgb, vimeo-y-c4, udm10-y, udm10-bi-rgb, videolq-3frame, videolq-temporal.
        datasets: Only these sets of the folder; not for clips.
        scale: Scale for bicubic, and for models of several scales.
        limit: Take only the first images or clips of each set.
        niqe_params: Pristine model for NIQE (videolq-3frame): the authors' niqe_pris_params.npz or one of your own.
        engine: What runs the networks: torch, native, compile, openvino or onnx; auto is torch here.
        precision: Arithmetic of the networks; published scores are taken in fp32.
        device: auto, cpu, cuda, cuda:N or mps.
        threads: CPU threads.
        save_images: Folder for the enlarged pictures.
        contact_sheet: Also save a sheet of input, results and ground truth there; of a clip its middle frame.
        out: Folder for results.json and results.md.
        per_image: Print the table of single images or clips too.
        overwrite: Let save_images be a folder with content.
    """
    reporting.start()
    from upframe.engines import engine_options, keep_freed_memory
    from upframe.evaluation.evaluate import evaluate as run_evaluation
    from upframe.upscaling.options import UpscaleOptions

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
        options=UpscaleOptions(
            tile="off",
            engine=engine_options(engine, device=device_name(device), precision=precision, threads=threads),
        ),
        niqe_params=niqe_params,
        on_event=_scoring_display(reporting),
    )
    _write_evaluation(result, out)
    if reporting.json:
        print_line(result.to_json())
    else:
        print_line(result.to_markdown() + ("\n" + result.to_markdown_per_image() if per_image else ""))
    return BatchError.exit_code if result.unscored else 0


def _scoring_display(reporting: Reporting) -> Callable[[EvaluationEvent], None] | None:
    if not reporting.verbose:
        return None

    def show(event: EvaluationEvent) -> None:
        scores = ", ".join(f"{name} {value:.4f}" for name, value in event.scores.items())
        print(f"[{event.done}/{event.total}] {event.dataset} {event.image} {event.model}: {scores}", file=sys.stderr)  # noqa: T201

    return show


@app.command(group=MODELS, help_epilogue="", help_formatter=HelpPage())
def compare(first: Path, second: Path) -> int:
    """Compare two results of `upframe evaluate` that were measured the same way.

    Args:
        first: The earlier results.json.
        second: The later results.json.
    """
    from upframe.evaluation.evaluate import Evaluation
    from upframe.evaluation.evaluate import compare as differences

    one, two = (Evaluation.from_json(read_text(path)) for path in (first, second))
    for difference in differences(one, two):
        d = difference
        print_line(f"{d.dataset} {d.metric}: {d.model_a} {d.a:.4f} -> {d.model_b} {d.b:.4f} ({d.gain:+.4f})")
    return 0


def _write_evaluation(result: Evaluation, out: Path | None) -> None:
    if out is not None:
        write_text(out / "results.json", result.to_json())
        write_text(out / "results.md", result.to_markdown() + "\n" + result.to_markdown_per_image())


@app.command(group=MODELS, help_epilogue="", help_formatter=HelpPage())
def bench(
    models: Annotated[list[str], Parameter(consume_multiple=True)],
    *,
    size: str | None = None,
    repeats: Annotated[int | None, Parameter(alias="--runs")] = None,
    engine: Annotated[list[EngineName] | None, Parameter(negative="", consume_multiple=True)] = None,
    precision: Literal["fp32", "bf16", "fp16"] | None = None,
    device: Annotated[str, Parameter(alias="-d")] = "cpu",
    threads: int | None = None,
    with_reference: Annotated[bool, Parameter(name="--compare", negative="")] = False,
    frames: int | None = None,
    out: Annotated[Path | None, Parameter(alias="-o")] = None,
    reporting: Reporting = Reporting(),
) -> int:
    """Measure the speed, memory and size of models, as NTIRE efficiency cards.

    Args:
        models: Names (weights are not needed) or weights files.
        size: Input size, WIDTHxHEIGHT; 256x256, with --compare 320x180 for photos and 64x64 for clips.
        repeats: Timed passes per model; 10, with --compare 5.
        engine: What runs the networks, as `upframe upscale` has it; with --compare one or more, which take turns.
        precision: Arithmetic of the networks: fp32; with --compare fp32 and bf16.
        device: cpu, cuda, cuda:N or mps.
        threads: CPU threads.
        with_reference: Set each network against its reference form, the published computation: time, memory and result.
        frames: Frames of the clip, with --compare; as many as the network takes at once otherwise.
        out: JSON file to write.
    """
    reporting.start()
    import torch

    from upframe.benchmark.compare import REPEATS as ROUNDS
    from upframe.benchmark.compare import compare_with_reference
    from upframe.benchmark.cost import INPUT_SIZE, REPEATS
    from upframe.benchmark.cost import bench as run_bench
    from upframe.engines import keep_freed_memory
    from upframe.models.registry import load_or_untrained

    if frames is not None and (frames < 1 or not with_reference):
        raise UsageError(f"--frames {frames}", "must be 1 or more, with --compare" if frames < 1 else "needs --compare")
    found = re.fullmatch(r"(\d+)[xX×](\d+)", size) if size is not None else None
    if size is not None and not found:
        raise UsageError(f"--size {size}", "must be WIDTHxHEIGHT")
    engines = list(dict.fromkeys(engine or ["auto"]))
    if len(engines) > 1 and not with_reference:
        raise UsageError("--engine", "is one engine without --compare", "add --compare, or name one")
    height_width = (int(found[2]), int(found[1])) if found else None
    result: Bench | Comparison
    if with_reference:
        result = compare_with_reference(
            [load_or_untrained(m) for m in models],
            size=height_width,
            frames=frames,
            repeats=ROUNDS if repeats is None else repeats,
            precisions=("fp32", "bf16") if precision is None else (precision,),
            engines=engines,
            device=device_name(device),
            threads=threads,
        )
    else:
        keep_freed_memory()
        if threads:
            torch.set_num_threads(threads)
        result = run_bench(
            [load_or_untrained(m) for m in models],
            size=height_width or INPUT_SIZE,
            repeats=REPEATS if repeats is None else repeats,
            device=device_name(device),
            precision=precision or "fp32",
            engine=engines[0],
        )
    print_line(result.to_json() if reporting.json else result.to_text())
    if out is not None:
        write_text(out, result.to_json())
    return 0
