"""`upframe train difference-map`: what a feature extractor of the contrastive loss sees."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from upframe.cli.output import print_line
from upframe.cli.parser import Reporting
from upframe.cli.training import train_app
from upframe.errors import UsageError

MOST_BLUR_PX = 50


@train_app.command(name="difference-map")
def difference_map(
    photo: Path,
    *,
    out: Annotated[Path, Parameter(alias="-o")],
    extractor: Literal["random", "vgg19"] = "random",
    vgg: Path | None = None,
    blur: float = 2.0,
    seed: int | None = None,
    channels: int | None = None,
    overwrite: Annotated[bool, Parameter(alias="-y", negative="")] = False,
    reporting: Reporting = Reporting(),
) -> int:
    """Draw where a feature extractor tells a photograph from its blurred self: a map for each layer, side by side.

    Args:
        photo: A picture; it is taken whole, and VGG-19 needs 1.5 GB for each of its megapixels.
        out: The picture to write. White is each layer's largest difference.
        extractor: random is RLFN's untrained one, vgg19 the one it is compared with.
        vgg: Weights file of VGG-19 under torchvision's names, .pth or .safetensors.
        blur: Standard deviation of the Gaussian blur in pixels.
        seed: Of the random extractor; 0 unless given.
        channels: Width of the random extractor; 3 unless given.
        overwrite: Overwrite an existing picture.
    """
    reporting.start()
    import numpy as np
    import torch

    from upframe.media.image.files import write_pixels
    from upframe.media.image.source import read_pixels
    from upframe.pixels import from_unit, to_unit
    from upframe.training.losses.contrastive import make_extractor
    from upframe.training.losses.difference_map import as_sheet, blurred, difference_maps

    _check_flags(extractor, vgg, blur=blur, seed=seed, channels=channels)
    if out.exists() and not overwrite:
        raise UsageError(out, "exists already", "choose another name or add -y")
    network = make_extractor(extractor, channels=channels, seed=seed, weights=None if vgg is None else str(vgg))
    pixels = read_pixels(photo)
    colour = pixels[..., :3] if pixels.shape[-1] >= 3 else pixels[..., :1].repeat(3, axis=-1)  # without transparency
    picture = to_unit(colour)[None]
    with torch.inference_mode():
        try:
            maps = difference_maps(picture, blurred(picture, sigma_px=blur), network)
        except ValueError as error:
            raise UsageError(photo, f"is too small ({error})", "take a larger picture") from error
    height, width = picture.shape[-2:]
    write_pixels(out, from_unit(as_sheet(maps, (height, width)), np.uint8))
    for number, layer in enumerate(maps, start=1):
        row = {"layer": number, "mean": layer.mean().item(), "max": layer.amax().item()}
        if reporting.json:
            print_line(json.dumps({"event": "difference-map", "out": str(out), **row}))
        elif not reporting.quiet:
            print_line(f"layer {number}: mean difference {row['mean']:.5f}, largest {row['max']:.5f}")
    return 0


def _check_flags(extractor: str, vgg: Path | None, *, blur: float, seed: int | None, channels: int | None) -> None:
    if extractor == "vgg19" and vgg is None:
        raise UsageError("--extractor vgg19", "needs weights", "name their file with --vgg")
    if extractor == "random" and vgg is not None:
        raise UsageError(f"--vgg {vgg}", "the random extractor has no weights", "add --extractor vgg19")
    if extractor == "vgg19" and (seed is not None or channels is not None):
        raise UsageError("--extractor vgg19", "has no seed and no channels to choose", "leave --seed and --channels out")
    for flag, value, least in (("--seed", seed, 0), ("--channels", channels, 1)):
        if value is not None and value < least:
            raise UsageError(f"{flag} {value}", f"must be {least} or more")
    if not 0 < blur <= MOST_BLUR_PX:
        raise UsageError(f"--blur {blur:g}", f"must be above 0 and at most {MOST_BLUR_PX}")
