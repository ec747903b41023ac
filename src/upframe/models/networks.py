"""The one list of networks."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from upframe.models.architectures import realbasicvsr, rlfn, vapsr, vrt, vsr_transformer
from upframe.models.spec import ModelSpec
from upframe.models.weights_file import State

log = logging.getLogger(__name__)


MODELS: dict[str, ModelSpec] = {
    spec.name: spec for spec in (*rlfn.SPECS, *vapsr.SPECS, *realbasicvsr.SPECS, *vrt.SPECS, *vsr_transformer.SPECS)
}

"""Published networks by registry id."""


@dataclass(frozen=True)
class Architecture:
    """How to recognise the weights of one architecture."""

    family: str
    specs: tuple[ModelSpec, ...]
    rename: Callable[[str], str]
    """Other published parameter names to those of our module."""
    configuration: Callable[[Mapping[str, tuple[int, ...]]], Mapping[str, int | str]]
    """Shapes by name → the network's arguments; KeyError or ValueError for shapes of something else."""
    spec_for: Callable[..., ModelSpec]
    """The network's arguments → its spec."""
    fold_value_range: Callable[[State], State] | None = None
    """Rewrites weights for 0–255 to [0, 1]; None where nobody publishes weights for 0–255."""
    complete: Callable[[State], State] | None = None
    """Adds constants that the network keeps among its weights but some published files leave out."""


ARCHITECTURES: tuple[Architecture, ...] = (
    Architecture("RLFN", rlfn.SPECS, rlfn.ntire_names, rlfn.configuration, rlfn.spec_for, rlfn.fold_value_range),
    Architecture("VapSR", vapsr.SPECS, str, vapsr.configuration, vapsr.spec_for),
    Architecture(
        "BasicVSR",
        (realbasicvsr.BASICVSR,),
        realbasicvsr.parameter_name,
        realbasicvsr.basicvsr_configuration,
        realbasicvsr.basicvsr_spec_for,
        complete=realbasicvsr.basicvsr_complete,
    ),
    Architecture(
        "RealBasicVSR",
        (realbasicvsr.REALBASICVSR,),
        realbasicvsr.parameter_name,
        realbasicvsr.realbasicvsr_configuration,
        realbasicvsr.realbasicvsr_spec_for,
        complete=realbasicvsr.realbasicvsr_complete,
    ),
    Architecture(
        "VSR-Transformer",
        vsr_transformer.SPECS,
        vsr_transformer.parameter_name,
        vsr_transformer.configuration,
        vsr_transformer.spec_for,
        complete=vsr_transformer.complete,
    ),
    Architecture("VRT", vrt.SPECS, str, vrt.configuration, vrt.spec_for, complete=vrt.complete),
)
