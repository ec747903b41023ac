"""Facts about VSR-Transformer. The network, with paper and differences, is in `architectures/vsr_transformer.py`."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, TypedDict, Unpack

from upframe.models.architectures._flow_names import mm_names
from upframe.models.architectures._vsrt_constants import (
    BRANCHES,
    FEATURE_PX,
    FEED_FORWARD_BLOCKS,
    OVERLAP_PX,
    SCALE,
    WINDOW_PX,
    Directions,
    published_frames,
    sines_per_axis,
)
from upframe.models.family import Family, Shapes, built
from upframe.models.spec import Chunk, Memory, ModelSpec, Window

if TYPE_CHECKING:
    from torch import Tensor, nn

    from upframe.models.architectures._published_tiling import Run

PAPER = "Video Super-Resolution Transformer, 2021, https://arxiv.org/abs/2106.06847"
_BRANCH = re.compile(r"transformer\.layers\.\d+\.1\.fn\.fn\.(\w+_resblocks)\.")


def network() -> Callable[..., nn.Module]:
    from upframe.models.architectures.vsr_transformer import VSRTransformer

    return VSRTransformer


def reference() -> Callable[..., nn.Module]:
    from upframe.models.reference.vsr_transformer import VSRTransformer

    return VSRTransformer


class Ablations(TypedDict, total=False):
    """Options in which a network may differ from the published ones and shows in the weights; explained at the network."""

    attention: bool
    directions: Directions
    flow: bool


def parameter_name(name: str) -> str:
    """Rename a parameter of a flow network in the reference layout; keep other names."""
    return mm_names(name) if name.startswith("spynet.") else name


def complete(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Add to `state` the constants that the network keeps among its weights, if a file omits them."""
    from upframe.models.architectures._vsrt_weights import complete

    return complete(state)


def configuration(shapes: Shapes) -> dict[str, Any]:
    """Infer the arguments of `VSRTransformer` from the shapes of its parameters; of `Ablations` only those that differ from the
    defaults.

    Heads, the side of a token, the position code and the slope do not show in the shapes; they are assumed to be the published
    ones. So is the number of frames, which shows only in steps of six.

    Raises:
        KeyError: a parameter that it has to look at is absent.
        ValueError: shapes that no VSR-Transformer has.
    """
    depth = _count(shapes, "transformer.layers.", ".0.fn.norm.weight")
    (frequencies,) = shapes["pos_embedding.penc.inv_freq"]
    frames = published_frames(depth)
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


def _ablations(shapes: Shapes) -> tuple[tuple[str, ...], Ablations]:
    """Infer the branches of a feed-forward, and the `Ablations` by which the shapes differ from published ones.

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


def _count(names: Iterable[str], start: str, end: str) -> int:
    return sum(name.startswith(start) and name.endswith(end) for name in names)


# Specs ----------------------------------------------------------------------------------------------------------------
def spec_for(
    *,
    channels: int,
    frames: int,
    depth: int,
    window_px: int,
    extract_blocks: int,
    reconstruct_blocks: int,
    feed_forward_blocks: int,
    **ablations: Unpack[Ablations],
) -> ModelSpec:
    """Find the published spec of this size, or make one, named for instance `vsrt-c16d2f5-x4`.

    Args:
        ablations: As `configuration` finds them: none that are as published.
    """
    arguments = (channels, frames, depth, window_px, extract_blocks, reconstruct_blocks, feed_forward_blocks)
    if not ablations:
        if arguments == (64, 5, 5, WINDOW_PX, 5, 30, FEED_FORWARD_BLOCKS):
            return REDS
        if arguments == (64, 7, 7, WINDOW_PX, 5, 30, FEED_FORWARD_BLOCKS):
            return VIMEO
    build = partial(
        built,
        network,
        channels=channels,
        frames=frames,
        depth=depth,
        window_px=window_px,
        extract_blocks=extract_blocks,
        reconstruct_blocks=reconstruct_blocks,
        feed_forward_blocks=feed_forward_blocks,
        **ablations,
    )
    name = f"vsrt-c{channels}d{depth}f{frames}{_marks(ablations)}-x{SCALE}"
    return _spec(name, build, frames=frames, window_px=window_px)


def _marks(ablations: Ablations) -> str:
    """The part of a name that `ablations` add, for instance "-blocks-backward-noflow"."""
    directions = ablations.get("directions")
    marks = ["" if ablations.get("attention", True) else "-blocks", f"-{directions}" if directions else ""]
    return "".join((*marks, "" if ablations.get("flow", True) else "-noflow"))


def as_published(clip: Tensor, run: Run, *, frames: int) -> Iterator[Tensor]:
    """Make the enlarged frames of a clip as for the published scores: each from the middle of a window of `frames`, mirrored at
    the ends of the clip, in crops of 64×64 px."""
    from upframe.models.architectures._published_tiling import mirrored_windows, vsrt_crops

    for window in mirrored_windows(clip.shape[1], frames=frames):
        yield vsrt_crops(clip[:, list(window)], run, scale=SCALE)


def _spec(
    name: str,
    build: Callable[[], nn.Module],
    *,
    frames: int,
    window_px: int = WINDOW_PX,
    aliases: tuple[str, ...] = (),
) -> ModelSpec:
    return ModelSpec(
        name=name,
        family="VSR-Transformer",
        build=build,
        scale=SCALE,
        # A window's step. A small trained network on Vid4 leaves 2 code values at most where tiles meet and 0.2 on average
        # (root mean square); 16 px do better where windows of tile and picture happen to end together, worse elsewhere.
        halo_px=window_px - OVERLAP_PX,
        exact_halo_px=None,  # a value depends on its whole window and, through the layers, on the whole frame
        tiling="approximate",
        phase_px=window_px - OVERLAP_PX,  # so that a tile's windows match those of the picture
        memory=(  # measured with 64 channels; the number of layers and blocks makes no difference
            Memory(fixed=75e6, per_px_frame=1120, chunk=Chunk(FEATURE_PX, "frames", 1390)),
            Memory("bf16", fixed=62e6, per_px_frame=560, chunk=Chunk(FEATURE_PX, "frames", 70)),
        ),
        # The outermost frames have one neighbour only; blended over two frames, they weigh a third. Attention has them see
        # all others of their window: in a small network they lose less than 0.01 dB.
        window=Window(frames=frames, overlap=2),
        score_scheme=partial(as_published, frames=frames),
        paper=PAPER,
        licence="none stated; code Apache-2.0; the SPyNet inside: non-commercial research only, no redistribution",
        precisions=("fp32", "bf16"),
        parameters=_PARAMETERS.get(name),
        aliases=aliases,
    )


_PARAMETERS = {"vsrt-reds-x4": 32_564_335, "vsrt-vimeo-x4": 43_845_615}

REDS = _spec(
    "vsrt-reds-x4",
    partial(built, network, frames=5, depth=5),
    frames=5,
    aliases=("vsrTransformer_reds", "vsrTransformer_x4_REDS", "vsrTransformer_reds_x4", "VSR-Transformer", "vsrTransformer"),
)
VIMEO = _spec(
    "vsrt-vimeo-x4",
    partial(built, network, frames=7, depth=7),
    frames=7,
    aliases=("vsrTransformer_vimeo", "vsrTransformer_x4_Vimeo", "vsrTransformer_vimeo_x4", "vsrTransformer_vimeo90k"),
)
SPECS: tuple[ModelSpec, ...] = (REDS, VIMEO)

VSRT_FAMILY = Family(
    name="VSR-Transformer",
    specs=SPECS,
    network=network,
    signature=("conv_first.weight", "transformer.layers.0.0.fn.norm.weight"),
    configuration=configuration,
    spec_for=spec_for,
    reference=reference,
    own_name=parameter_name,
    complete=complete,
    recipes="upframe.training.recipes.presets.vsr_transformer",
)
