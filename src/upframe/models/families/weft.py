"""Facts about Weft, upframe's own video network. The network, with its sources, is in `architectures/weft.py`."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from upframe.models.families import rlfn
from upframe.models.family import Family, Shapes, built
from upframe.models.spec import Memory, ModelSpec, SizeRule, Window

if TYPE_CHECKING:
    from torch import nn

PAPER = "upframe's own; trunk: RLFN, https://arxiv.org/abs/2205.07514; propagation: https://arxiv.org/abs/2012.02181"


def network() -> Callable[..., nn.Module]:
    from upframe.models.architectures.weft import Weft

    return Weft


def reference() -> Callable[..., nn.Module]:
    from upframe.models.reference.weft import Weft

    return Weft


def configuration(shapes: Shapes) -> dict[str, Any]:
    """The arguments of `Weft` that parameters of these shapes were made with.

    Raises:
        KeyError: a parameter that it has to look at is absent.
        ValueError: a trunk that no Weft has.
    """
    trunk = rlfn.configuration({name.removeprefix("trunk."): shape for name, shape in shapes.items()})
    if trunk["colours"] != 3:
        raise ValueError(f"a trunk with {trunk['colours']} colours")
    begins, ends = "backward_direction.seen.main.2.", ".conv1.weight"
    return {
        "scale": trunk["scale"],
        "channels": shapes["backward_direction.seen.main.0.weight"][0],
        "blocks": sum(name.startswith(begins) and name.endswith(ends) for name in shapes),
        "trunk_channels": trunk["channels"],
        "trunk_blocks": trunk["blocks"],
        "trunk_inner": trunk["inner_channels"],
    }


def spec_for(*, scale: int, channels: int, blocks: int, **trunk: int) -> ModelSpec:
    """The spec of this size that upframe ships, or one made for it, named for instance `weft-c16b1-x4`."""
    sizes = {"channels": channels, "blocks": blocks, **trunk}
    if sizes == SIZES:
        known = next((spec for spec in SPECS if spec.scale == scale), None)
        return known or _spec(f"weft-x{scale}", scale, sizes)
    of_trunk = "".join(f"{mark}{trunk[f'trunk_{name}']}" for mark, name in (("t", "channels"), ("i", "inner"), ("n", "blocks")))
    other = "" if trunk == TRUNK else of_trunk
    return _spec(f"weft-c{channels}b{blocks}{other}-x{scale}", scale, sizes)


def _spec(name: str, scale: int, sizes: dict[str, int]) -> ModelSpec:
    return ModelSpec(
        name=name,
        family="Weft",
        build=partial(built, network, scale=scale, **sizes),
        scale=scale,
        halo_px=64,
        exact_halo_px=None,  # features travel with every frame, and the flow's coarsest level sees hundreds of pixels
        tiling="approximate",
        phase_px=12,  # of the trunk's grid (6), and of the pixels of the flow's coarsest size (4)
        size=SizeRule(minimum=15),
        window=Window(frames=None, overlap=4),
        memory=_memory(scale),
        streams=True,
        paper=PAPER,
        licence="Apache-2.0",
        precisions=("fp32", "bf16"),
        kernels_bf16_loss_db=0.002 if name == "weft-x4" else None,  # shipped weights, 0.0002 and 0.0008; in torch up to 0.008
        parameters=_PARAMETERS.get(name),
    )


def _memory(scale: int) -> tuple[Memory, ...]:
    """Measured at ×4, 64x64 to 320x240 pixels and 2 to 12 frames; nearly all of it is enlarged frames and their details."""
    return (Memory(fixed=21e6, per_px=1000 + 210 * scale**2, feature_bytes=40 + 43 * scale**2),)


TRUNK = {"trunk_channels": 46, "trunk_blocks": 4, "trunk_inner": 48}  # rlfn-ntire, as in `photo-x4`
SIZES = {"channels": 32, "blocks": 1, **TRUNK}
_PARAMETERS = {"weft-x2": 424_163, "weft-x4": 570_143}

SPECS: tuple[ModelSpec, ...] = tuple(_spec(f"weft-x{scale}", scale, SIZES) for scale in (2, 4))

WEFT_FAMILY = Family(
    name="Weft",
    specs=SPECS,
    network=network,
    signature=("trunk.conv_1.weight", "trunk.upsampler.0.weight", "backward_direction.seen.main.0.weight"),
    configuration=configuration,
    spec_for=spec_for,
    reference=reference,
)
