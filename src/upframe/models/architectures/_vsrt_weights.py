"""Weights of VSR-Transformer: the arguments of their network, names, and constants that a file may lack."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, Literal, TypedDict

from torch import Tensor

from upframe.models.architectures._flow import mm_names, with_normalisation
from upframe.models.architectures._position_code import frequencies, sines_per_axis

Directions = Literal["both", "backward", "forward", "none"]
BRANCHES: dict[Directions, tuple[str, ...]] = {
    "both": ("backward", "forward"),
    "backward": ("backward",),
    "forward": ("forward",),
    "none": ("own",),
}
"""Parts of a feed-forward, in the order of fusion. A branch is called `<side>_resblocks` if its features are warped or the
frame's own, and `unwarped_<side>_resblocks` otherwise, so that weights without a flow network do not pass for published ones
that lack it."""
_BRANCH = re.compile(r"transformer\.layers\.\d+\.1\.fn\.fn\.(\w+_resblocks)\.")


class Ablations(TypedDict, total=False):
    """Differences from the published networks that show in the weights; `VSRTransformer` explains them."""

    attention: bool
    directions: Directions
    flow: bool


def parameter_name(name: str) -> str:
    """Translate a parameter whose flow network has the plain layout to its name in this module; others keep their name."""
    return mm_names(name) if name.startswith("spynet.") else name


def complete(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return `state` with the constants that the network keeps among its weights, if they are missing."""
    completed = with_normalisation(state, "spynet.spynet.")
    depth = _count(state, "transformer.layers.", ".0.fn.norm.weight")
    if depth:
        completed.setdefault("pos_embedding.penc.inv_freq", frequencies(sines_per_axis(_frames(depth))).float())
    return completed


def configuration(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
    """Return the arguments of `VSRTransformer` for parameters of these shapes; of `Ablations` only those that differ.

    Heads, the side of a token, the position code and the slope leave no trace in them; they are taken to be the published
    ones. So is the number of frames, of which only sixths show.

    Raises:
        KeyError: a parameter that it has to look at is absent.
        ValueError: shapes that no VSR-Transformer has.
    """
    depth = _count(shapes, "transformer.layers.", ".0.fn.norm.weight")
    (frequencies,) = shapes["pos_embedding.penc.inv_freq"]
    frames = _frames(depth)
    branches, ablations = _ablations(shapes)
    return {
        "channels": shapes["conv_first.weight"][0],
        "frames": frames if sines_per_axis(frames) == 2 * frequencies else 6 * frequencies - 1,
        "depth": depth,
        "window_px": shapes["transformer.layers.0.0.fn.norm.weight"][-1],
        "extract_blocks": _count(shapes, "feature_extraction.", ".conv1.weight"),
        "reconstruct_blocks": _count(shapes, "reconstruction.", ".conv1.weight"),
        "feed_forward_blocks": _count(shapes, f"transformer.layers.0.1.fn.fn.{branches[0]}.main.2.", ".conv1.weight"),
        **ablations,
    }


def _ablations(shapes: Mapping[str, tuple[int, ...]]) -> tuple[tuple[str, ...], Ablations]:
    """The branches of a feed-forward, and what parameters of these shapes have otherwise than published ones.

    Raises:
        ValueError: branches that no VSR-Transformer has.
    """
    found: Ablations = {}
    if any(".0.fn.fn.block." in name for name in shapes):
        found["attention"] = False
    branches = tuple(sorted({match[1] for name in shapes if (match := _BRANCH.match(name))}))
    sides = tuple(name.removesuffix("_resblocks").removeprefix("unwarped_") for name in branches)
    directions = next((directions for directions, of in BRANCHES.items() if of == sides), None)
    if directions is None:
        raise ValueError(f"there is no feed-forward with the branches {', '.join(branches) or 'none'}")
    if directions != "both":
        found["directions"] = directions
    if branches[0].startswith("unwarped_"):
        found["flow"] = False
    return branches, found


def _frames(depth: int) -> int:
    """Published networks have as many layers as frames: five on REDS, seven on Vimeo-90K."""
    return 7 if depth == 7 else 5


def _count(names: Iterable[str], start: str, end: str) -> int:
    return sum(name.startswith(start) and name.endswith(end) for name in names)
