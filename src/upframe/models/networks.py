"""The list of all networks: upframe knows a network if its family is in this list. Needs no torch."""

from __future__ import annotations

from upframe.models.families.realbasicvsr import BASICVSR_FAMILY, REALBASICVSR_FAMILY
from upframe.models.families.rlfn import RLFN_FAMILY
from upframe.models.families.vapsr import VAPSR_FAMILY
from upframe.models.families.vrt import VRT_FAMILY
from upframe.models.families.vsr_transformer import VSRT_FAMILY
from upframe.models.families.weft import WEFT_FAMILY
from upframe.models.family import Family
from upframe.models.spec import ModelSpec

FAMILIES: tuple[Family, ...] = (
    RLFN_FAMILY,
    VAPSR_FAMILY,
    BASICVSR_FAMILY,
    REALBASICVSR_FAMILY,
    VRT_FAMILY,
    VSRT_FAMILY,
    WEFT_FAMILY,
)

MODELS: dict[str, ModelSpec] = {spec.name: spec for family in FAMILIES for spec in family.specs}
"""Published networks by registry id."""


def family_of(spec: ModelSpec) -> Family:
    """Find the family of a network, published or of another size.

    Raises:
        LookupError: the list does not hold its family.
    """
    for family in FAMILIES:
        if family.name == spec.family:
            return family
    raise LookupError(f"{spec.name} has the family {spec.family}, which is not in the list")
