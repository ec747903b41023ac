"""Reference forms: every network as its description reads, without optimisation of time and memory.

`upframe bench --compare` times upframe's networks against these forms, and tests compare their outputs. They take the same
keyword arguments and the same weights, name for name, so that `reference.load_state_dict(network.state_dict())` suffices. They
are float32, (N, C, H, W) or (N, T, C, H, W), and accept only the sizes that the published code accepts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch import nn

from upframe.models.reference.realbasicvsr import BasicVSR, RealBasicVSR
from upframe.models.reference.rlfn import RLFN
from upframe.models.reference.vapsr import VapSR
from upframe.models.reference.vrt import VRT
from upframe.models.reference.vsr_transformer import VSRTransformer

PLAIN: Mapping[str, Callable[..., nn.Module]] = {
    "RLFN": RLFN,
    "VapSR": VapSR,
    "BasicVSR": BasicVSR,
    "RealBasicVSR": RealBasicVSR,
    "VRT": VRT,
    "VSR-Transformer": VSRTransformer,
}
"""Map `ModelSpec.family` to the reference form, which takes the arguments that the family's `configuration` returns."""
