"""How much context a tile needs, measured for networks about which nothing is known, and kept by the hash of their file."""

from __future__ import annotations

import json
import logging
import os
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from upframe.errors import UpframeError
from upframe.files import atomic_file, parsed_json
from upframe.models.spec import ModelSpec

log = logging.getLogger(__name__)

HALOS_PX = (16, 32, 64, 96)
"""Halos that are tried, in this order; the last one is taken if none suffices."""
WORST = 0.5 / 255
"""Greatest error beside a seam. Both sides of a seam may err, so they differ by at most one code value."""

_CORE_PX = 32
_HEIGHT_PX = 48
_VERSION = 1  # of the measurement: figures of another one are measured again


def with_halo(spec: ModelSpec, network: nn.Module, sha256: str) -> ModelSpec:
    """`spec` with the halo of this network, from the cache or measured; a warning if seams can be seen all the same."""
    kept = _file(sha256)
    found = _read(kept)
    if found is None:
        log.info("%s: the context that its tiles need is measured once", spec.name)
        found = measure(spec, network)
        _write(kept, found)
    halo_px, error = found
    if error > WORST:
        log.warning(
            "%s: a tile depends on the whole picture: with %d px of context, errors at seams reach %.1f code values of 255; "
            "a larger tile lowers them",
            spec.name,
            halo_px,
            error * 255,
        )
    return replace(spec, halo_px=halo_px)


def measure(spec: ModelSpec, network: nn.Module) -> tuple[int, float]:
    """The smallest halo with which two halves of a picture fit together, in input pixels, and the greatest error with it."""
    phase = spec.phase_px
    halos = sorted({-(-halo // phase) * phase for halo in HALOS_PX})
    cut = halos[-1] + -(-_CORE_PX // phase) * phase
    upright = _picture(spec.channels, spec.size.padded(_HEIGHT_PX), spec.size.padded(2 * cut))
    with torch.inference_mode():
        pictures = [(picture, network(picture)) for picture in (upright, upright.transpose(-1, -2).contiguous())]
        for halo in halos:
            error = max(_seam(spec, network, picture, whole, cut, halo) for picture, whole in pictures)
            log.debug("%s: halo %d px: error %.2f of 255", spec.name, halo, error * 255)
            if error <= WORST:
                break
    return halo, error


def _seam(spec: ModelSpec, network: nn.Module, picture: Tensor, whole: Tensor, cut: int, halo: int) -> float:
    """Greatest error of both halves of the picture's longer side, each computed with `halo` pixels of the other."""
    axis = -1 if picture.shape[-1] > picture.shape[-2] else -2
    length, s = picture.shape[axis], spec.scale
    worst = 0.0
    for start, end, first, last in ((0, cut + halo, 0, cut), (cut - halo, length, cut, length)):
        half = network(picture.narrow(axis, start, end - start).contiguous())
        kept = half.narrow(axis, (first - start) * s, (last - first) * s)
        error = (kept - whole.narrow(axis, first * s, (last - first) * s)).abs().max()
        worst = max(worst, float(error) if error == error else 1.0)
    return worst


def _picture(channels: int, height: int, width: int) -> Tensor:
    """Soft shapes with grain: smooth parts and sharp ones, as photos have both."""
    y, x = torch.meshgrid(torch.arange(height) / 24, torch.arange(width) / 24, indexing="ij")
    shapes = torch.stack([torch.sin(x + i) * torch.cos(y - i) for i in range(channels)])[None]
    grain = torch.rand(shapes.shape, generator=torch.Generator().manual_seed(0)) - 0.5
    return (0.5 + 0.3 * shapes + 0.3 * grain).clamp(0, 1)


# Cache ----------------------------------------------------------------------------------------------------------------
def _file(sha256: str) -> Path | None:
    try:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    except RuntimeError:  # no home folder is known
        return None
    return base / "upframe" / "halos" / f"{sha256}.json"


def _read(path: Path | None) -> tuple[int, float] | None:
    try:
        content = parsed_json(path.read_text("utf-8")) if path else None
        if not isinstance(content, dict) or content["version"] != _VERSION:
            return None
        halo, error = content["halo_px"], content["error"]
    except (OSError, ValueError, KeyError):
        return None
    fits = type(halo) is int and 0 <= halo <= 4096 and isinstance(error, float)
    return (halo, error) if fits else None


def _write(path: Path | None, found: tuple[int, float]) -> None:
    if path is None:
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_file(path) as file:
            file.write(json.dumps({"version": _VERSION, "halo_px": found[0], "error": found[1]}).encode())
    except (OSError, UpframeError) as error:
        log.debug("the halo is not kept: %s", error)  # it is measured again next time
