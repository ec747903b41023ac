"""A family of networks: all facts about one published system, in one value.

Facts need no torch. The network, its reference form and functions that make tensors do; they are imported when called. So
reading the whole list takes milliseconds, and using one network imports one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from upframe.models.spec import ModelSpec

if TYPE_CHECKING:
    from torch import Tensor, nn

Shapes = Mapping[str, tuple[int, ...]]
"""Shapes of parameters by name."""


@dataclass(frozen=True)
class Family:
    """One published system. Each instance is in its file in `families/`, and in the list in `networks.py`."""

    name: str
    """`ModelSpec.family` of its specs, e.g. "RLFN"."""
    specs: tuple[ModelSpec, ...]
    """Its published networks, and the networks of weights that upframe ships."""
    network: Callable[[], Callable[..., nn.Module]]
    """Imports the class of the network, whose constructor takes the arguments from `configuration`."""
    signature: tuple[str, ...]
    """Parameters, under upframe's names, that all weights of the family have and that `configuration` reads. A file without one
    of them belongs to another family; the names alone show this."""
    configuration: Callable[[Shapes], Mapping[str, Any]]
    """Shapes by name → the network's arguments; KeyError or ValueError for shapes of other networks."""
    spec_for: Callable[..., ModelSpec]
    """The network's arguments → the published spec of that size, or a new one."""
    reference: Callable[[], Callable[..., nn.Module]] | None = None
    """Imports the class of the reference form, which takes the same arguments; None if there is none."""
    own_name: Callable[[str], str] = str
    """Other published parameter names → upframe's names; unknown names stay."""
    fold_value_range: Callable[[Mapping[str, Tensor]], dict[str, Tensor]] | None = None
    """Rewrites weights for 0-255 to [0, 1]; None if no weights for 0-255 are published."""
    complete: Callable[[Mapping[str, Tensor]], dict[str, Tensor]] | None = None
    """Adds constants that the network keeps among its weights but some published files omit."""
    recipes: str | None = None
    """Path of the module of `training` whose `RECIPES` are for this family; None if there are none. It is a path and not an
    import because models are a lower layer than training, which resolves it (`training.recipes.registry`)."""

    def may_be(self, names: Iterable[str]) -> bool:
        """Whether weights with these names, upframe's or another publisher's, can belong to this family."""
        own = {self.own_name(name) for name in names}
        return own.issuperset(self.signature)


def built(network: Callable[[], Callable[..., nn.Module]], /, **arguments: Any) -> nn.Module:
    """Build a network with untrained weights; `partial(built, network, …)` is a `ModelSpec.build` that imports it when
    called."""
    return network()(**arguments)
