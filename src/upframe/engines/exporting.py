"""Export networks to files that other programs run: ONNX, and OpenVINO's XML with its weights beside it.

A file takes float32 pixels (1, C, H, W) in [0, 1] of a whole picture and returns (1, C, s·H, s·W), before clipping. Its
metadata holds all other facts. The file is run and compared with torch before it gets its name.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from upframe.engines import onnx_graph, onnx_runtime, openvino_runtime
from upframe.engines.graphs import LEAST_SIDE, Run
from upframe.errors import UsageError, VerifyError
from upframe.files import put_in_place, scratch_folder, writing
from upframe.models.registry import Model
from upframe.version import __version__

FORMATS = (".onnx", ".xml")
TOLERANCE = 1e-4
"""Largest allowed difference from torch, on the 0 to 1 scale: a fortieth of an 8-bit code value. Other orders of summation make
some 1e-6."""
_SIZES = ((LEAST_SIDE, LEAST_SIDE), (67, 90))


@dataclass(frozen=True)
class Exported:
    """The written files and their largest difference from torch."""

    files: tuple[Path, ...]
    max_difference: float
    """Largest difference from torch in float32 on random pictures, on the 0 to 1 scale."""
    metadata: dict[str, str]


def export(model: Model, target: Path, *, overwrite: bool = False) -> Exported:
    """Write a network as `target`, which ends in .onnx or .xml (weights then in a .bin beside it).

    Raises:
        UsageError: for another ending, an existing file, a network that cannot be exported, or a missing extra.
        VerifyError: if the file makes other pixels than torch; it is removed.
        OutputError: if it cannot be written.
    """
    if target.suffix not in FORMATS:
        raise UsageError(target, "has no ending of a format", f"end the name in {' or '.join(FORMATS)}")
    if not model.spec.exports:
        kind = "a video network" if model.spec.window is not None else "not proven to export"
        raise UsageError(f"upframe export {model.name}", f"{model.spec.name} is {kind}", "export RLFN or VapSR")
    is_onnx = target.suffix == ".onnx"
    targets = (target,) if is_onnx else (target, target.with_suffix(".bin"))
    for path in targets:
        if path.exists() and not overwrite:
            raise UsageError(path, "exists", "use `overwrite` to replace it")
    about = metadata(model)
    write, load = (_write_onnx, _load_onnx) if is_onnx else (_write_openvino, _load_openvino)
    with writing(target), scratch_folder(target.parent) as folder:
        scratch = folder / target.name
        write(model, scratch, about)
        difference = _difference(model, load(scratch))
        if not difference <= TOLERANCE:
            happened = f"the exported network is off by {difference:.1e}, more than {TOLERANCE:.0e}"
            raise VerifyError(target, happened, "check the weights, and report it")
        for path in reversed(targets):  # last, since programs open this file
            put_in_place(scratch.with_suffix(path.suffix), path)
    return Exported(targets, difference, about)


def metadata(model: Model) -> dict[str, str]:
    """Return the facts that a program needs to use the file, under keys that begin with "upframe."."""
    spec = model.spec
    facts: dict[str, object] = {
        "version": __version__,
        "model": model.name,
        "network": spec.name,
        "weights_sha256": model.sha256,
        "licence": (model.card.licence_weights if model.card else spec.licence) or "none stated",
        "paper": spec.paper,
        "scale": spec.scale,
        "channels": "RGB" if spec.channels == 3 else spec.channels,
        "value_range": "0 to 1, in and out; clip the output",
        "layout": "NCHW, N = 1",
        "halo_px": spec.halo_px,
        "exact_halo_px": spec.exact_halo_px,
        "least_side_px": max(spec.size.minimum, LEAST_SIDE),
        "side_multiple_px": spec.size.multiple,
        "tiles": "their result depends a little on their place in the picture" if spec.takes_place else "exact",
    }
    return {f"upframe.{key}": str(value) for key, value in facts.items() if value is not None}


def _difference(model: Model, run: Run) -> float:
    """Measure the largest difference from torch over pictures of several sizes; infinite if values are not finite."""
    worst = 0.0
    generator = torch.Generator().manual_seed(0)
    for size in _SIZES:
        picture = torch.rand(1, model.spec.channels, *size, generator=generator)
        with torch.inference_mode():
            difference = float((run([picture]) - model.network(picture)).abs().max())
        worst = max(worst, difference if difference == difference else float("inf"))  # NaN compares unequal to itself
    return worst


def _write_onnx(model: Model, path: Path, about: dict[str, str]) -> None:
    onnx_runtime.library("upframe export")
    proto: Any = onnx_graph.converted(model.network, model.spec, with_place=False)
    for key, value in about.items():
        proto.metadata_props.add(key=key, value=value)
    path.write_bytes(proto.SerializeToString())


def _load_onnx(path: Path) -> Run:
    return onnx_runtime.runner(str(path), torch.get_num_threads())


def _write_openvino(model: Model, path: Path, about: dict[str, str]) -> None:
    openvino = openvino_runtime.library("upframe export")
    converted = openvino_runtime.converted(model.network, model.spec, with_place=False)
    for key, value in about.items():
        converted.set_rt_info(value, key.split("."))
    openvino.save_model(converted, path, compress_to_fp16=False)


def _load_openvino(path: Path) -> Run:
    return openvino_runtime.runner(path, "fp32", torch.get_num_threads())
