"""Facts about BasicVSR and RealBasicVSR. The networks, with papers and differences, are in
`architectures/realbasicvsr.py`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from upframe.models.architectures._flow_names import mm_names
from upframe.models.architectures._realbasicvsr_constants import RECONSTRUCTION_PX, SCALE, FlowKind
from upframe.models.family import Family, Shapes, built
from upframe.models.spec import Chunk, Cleaning, Memory, ModelSpec, Window

if TYPE_CHECKING:
    from torch import Tensor, nn

BASICVSR_PAPER = (
    "BasicVSR: The Search for Essential Components in Video Super-Resolution and Beyond, CVPR 2021, "
    "https://arxiv.org/abs/2012.02181"
)
REALBASICVSR_PAPER = "Investigating Tradeoffs in Real-World Video Super-Resolution, CVPR 2022, https://arxiv.org/abs/2111.12704"
OFFICIAL_LICENCE = "Apache-2.0; the SPyNet inside: non-commercial research only, no redistribution"


def basicvsr() -> Callable[..., nn.Module]:
    from upframe.models.architectures.realbasicvsr import BasicVSR

    return BasicVSR


def realbasicvsr() -> Callable[..., nn.Module]:
    from upframe.models.architectures.realbasicvsr import RealBasicVSR

    return RealBasicVSR


def basicvsr_reference() -> Callable[..., nn.Module]:
    from upframe.models.reference.realbasicvsr import BasicVSR

    return BasicVSR


def realbasicvsr_reference() -> Callable[..., nn.Module]:
    from upframe.models.reference.realbasicvsr import RealBasicVSR

    return RealBasicVSR


# Weights --------------------------------------------------------------------------------------------------------------
def parameter_name(name: str) -> str:
    """Rename a parameter of a flow network in the reference layout; keep other names."""
    return mm_names(name) if "spynet." in name else name


def basicvsr_complete(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Add the constants of SPyNet to `state`, which files of older releases omit."""
    from upframe.models.architectures._flow import with_normalisation

    return with_normalisation(state, "spynet.")


def realbasicvsr_complete(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """As `basicvsr_complete`."""
    from upframe.models.architectures._flow import with_normalisation

    return with_normalisation(state, "basicvsr.spynet.")


def basicvsr_configuration(shapes: Shapes) -> dict[str, Any]:
    """The arguments of `BasicVSR` that parameters of these shapes were made with.

    Raises:
        KeyError: a parameter that it has to look at is absent.
    """
    channels = shapes["backward_resblocks.main.0.weight"][0]
    return {"channels": channels, "blocks": _blocks(shapes, "backward_resblocks."), **_rest(shapes, "")}


def realbasicvsr_configuration(shapes: Shapes) -> dict[str, Any]:
    """The arguments of `RealBasicVSR` that parameters of these shapes were made with.

    Raises:
        KeyError: a parameter that it has to look at is absent.
    """
    is_recurrent = shapes["image_cleaning.0.main.0.weight"][1] > 3
    return {
        "channels": shapes["basicvsr.backward_resblocks.main.0.weight"][0],
        "propagation_blocks": _blocks(shapes, "basicvsr.backward_resblocks."),
        "cleaning_blocks": _blocks(shapes, "image_cleaning.0."),
        **_rest(shapes, "basicvsr."),
        **({"recurrent_cleaning": True} if is_recurrent else {}),
    }


def _rest(shapes: Shapes, prefix: str) -> dict[str, Any]:
    """Arguments that differ from those of the published networks."""
    reconstruction_channels = shapes[f"{prefix}conv_hr.weight"][0]
    rest: dict[str, Any] = {} if reconstruction_channels == 64 else {"reconstruction_channels": reconstruction_channels}
    if any(name.startswith(f"{prefix}correlation_flow.") for name in shapes):
        rest["flow"] = "correlation"
    return rest


def _blocks(shapes: Shapes, prefix: str) -> int:
    return sum(name.startswith(f"{prefix}main.2.") and name.endswith(".conv1.weight") for name in shapes)


# Specs ----------------------------------------------------------------------------------------------------------------
def basicvsr_spec_for(*, channels: int, blocks: int, **rest: Any) -> ModelSpec:
    """Find the published spec of this size, or make one, named for instance `basicvsr-c32b10-x4`."""
    if (channels, blocks) == (64, 30) and not rest:
        return BASICVSR
    build = partial(built, basicvsr, channels=channels, blocks=blocks, **rest)
    return _spec(f"basicvsr-c{channels}b{blocks}{_suffix(**rest)}-x{SCALE}", "BasicVSR", build, licence=_licence(**rest))


def _suffix(*, reconstruction_channels: int = 64, flow: FlowKind = "spynet", recurrent_cleaning: bool = False) -> str:
    width = f"h{reconstruction_channels}" if reconstruction_channels != 64 else ""
    return width + ("-cf" if flow == "correlation" else "") + ("-recurrent" if recurrent_cleaning else "")


def _licence(*, flow: FlowKind = "spynet", **_: Any) -> str:
    return OFFICIAL_LICENCE if flow == "spynet" else "Apache-2.0"


def realbasicvsr_spec_for(*, channels: int, propagation_blocks: int, cleaning_blocks: int, **rest: Any) -> ModelSpec:
    """Find the published spec of this size, or make one, named for instance `realbasicvsr-c32b10r5-x4`."""
    sizes: dict[str, Any] = {"channels": channels, "propagation_blocks": propagation_blocks, "cleaning_blocks": cleaning_blocks}
    if tuple(sizes.values()) == (64, 20, 20) and not rest:
        return REALBASICVSR
    if {**sizes, **rest} == OUR_SIZE:
        return SHIPPED_SIZE
    return _realbasicvsr_spec(sizes, rest)


def _realbasicvsr_spec(sizes: Mapping[str, Any], rest: Mapping[str, Any], *, bf16_loss_db: float | None = None) -> ModelSpec:
    channels, propagation_blocks, cleaning_blocks = sizes.values()
    name = f"realbasicvsr-c{channels}b{propagation_blocks}r{cleaning_blocks}{_suffix(**rest)}-x{SCALE}"
    build = partial(built, realbasicvsr, **sizes, **rest)
    return _spec(name, "RealBasicVSR", build, licence=_licence(**rest), bf16_loss_db=bf16_loss_db)


# Measured with 64 channels; the number of blocks makes no difference. The reconstruction, at 16 times the pixels, takes most.
MEMORY = (
    Memory(fixed=39e6, per_px=2600, feature_bytes=410, chunk=Chunk(RECONSTRUCTION_PX, "rows", 11_000)),
    Memory("bf16", fixed=31e6, per_px=2300, feature_bytes=280, chunk=Chunk(RECONSTRUCTION_PX, "rows", 4600)),
)


def _spec(
    name: str,
    family: str,
    build: Callable[[], nn.Module],
    *,
    aliases: tuple[str, ...] = (),
    licence: str = OFFICIAL_LICENCE,
    bf16_loss_db: float | None = None,
) -> ModelSpec:
    cleans = family == "RealBasicVSR"
    return ModelSpec(
        name=name,
        family=family,
        build=build,
        scale=SCALE,
        # What one step in time reaches (41 px through 20 blocks, 2 px in the reconstruction) and some motion. With fresh
        # weights on real clips 16 px already leave no more than 0.12 code values; trained weights look further.
        halo_px=64,
        exact_halo_px=None,  # features travel with every frame, and the flow's coarsest level sees hundreds of pixels
        tiling="approximate",
        window=Window(frames=None, overlap=4),  # fresh weights on real clips: 1.7 code values with 0, 0.8 with 1
        memory=MEMORY,
        preparation=Cleaning() if cleans else None,
        streams=True,
        paper=REALBASICVSR_PAPER if cleans else BASICVSR_PAPER,
        licence=licence,
        precisions=("fp32", "bf16"),
        bf16_loss_db=bf16_loss_db,
        kernels_bf16_loss_db=bf16_loss_db,
        parameters=_PARAMETERS.get(name),
        aliases=aliases,
    )


_PARAMETERS = {
    "basicvsr-x4": 6_291_311,
    "realbasicvsr-x4": 6_294_834,
    "realbasicvsr-c32b6r4h24-cf-x4": 444_993,
}

BASICVSR = _spec("basicvsr-x4", "BasicVSR", partial(built, basicvsr), aliases=("BasicVSR_x4", "BasicVSR", "basicvsr_reds4"))
REALBASICVSR = _spec(
    "realbasicvsr-x4", "RealBasicVSR", partial(built, realbasicvsr), aliases=("RealBasicVSR_x4", "RealBasicVSR")
)
_OUR_SIZES = {"channels": 32, "propagation_blocks": 6, "cleaning_blocks": 4}
_OUR_REST = {"reconstruction_channels": 24, "flow": "correlation"}
OUR_SIZE: dict[str, Any] = {**_OUR_SIZES, **_OUR_REST}
SHIPPED_SIZE = _realbasicvsr_spec(_OUR_SIZES, _OUR_REST, bf16_loss_db=0.003)
"""The size that upframe's own recipes train; of its last weights, bfloat16 lost 0.0009 dB on the Vid4 parts."""

BASICVSR_FAMILY = Family(
    name="BasicVSR",
    specs=(BASICVSR,),
    network=basicvsr,
    signature=("backward_resblocks.main.0.weight", "conv_hr.weight"),
    configuration=basicvsr_configuration,
    spec_for=basicvsr_spec_for,
    reference=basicvsr_reference,
    own_name=parameter_name,
    complete=basicvsr_complete,
)
REALBASICVSR_FAMILY = Family(
    name="RealBasicVSR",
    specs=(REALBASICVSR, SHIPPED_SIZE),
    network=realbasicvsr,
    signature=("image_cleaning.0.main.0.weight", "basicvsr.backward_resblocks.main.0.weight", "basicvsr.conv_hr.weight"),
    configuration=realbasicvsr_configuration,
    spec_for=realbasicvsr_spec_for,
    reference=realbasicvsr_reference,
    own_name=parameter_name,
    complete=realbasicvsr_complete,
    recipes="upframe.training.recipes.presets.realbasicvsr",
)
