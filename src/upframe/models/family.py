"""A family of networks: everything that upframe knows about one published system, in one value.

Facts need no torch. What does need it (the network, its reference form, functions that make tensors) is imported by the
function that is asked for it, so reading the whole list costs milliseconds and using one network imports one.
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
    """One published system. An instance stands in its file in `families/`, and in the list in `networks.py`."""

    name: str
    """`ModelSpec.family` of its specs, e.g. "RLFN"."""
    specs: tuple[ModelSpec, ...]
    """Its published networks, and those of weights that upframe ships."""
    network: Callable[[], Callable[..., nn.Module]]
    """Imports the class of the network, which takes the arguments that `configuration` finds."""
    signature: tuple[str, ...]
    """Parameters, under upframe's names, that all weights of the family have and `configuration` reads. A file that lacks one
    is of another family, which is seen from the names alone."""
    configuration: Callable[[Shapes], Mapping[str, Any]]
    """Shapes by name → the network's arguments; KeyError or ValueError for shapes that are of something else."""
    spec_for: Callable[..., ModelSpec]
    """The network's arguments → the published spec of that size, or one made for it."""
    reference: Callable[[], Callable[..., nn.Module]] | None = None
    """Imports the class of the reference form, which takes the same arguments; None where there is none."""
    own_name: Callable[[str], str] = str
    """Other published parameter names → upframe's; others stay."""
    fold_value_range: Callable[[Mapping[str, Tensor]], dict[str, Tensor]] | None = None
    """Rewrites weights for 0-255 to [0, 1]; None where nobody publishes weights for 0-255."""
    complete: Callable[[Mapping[str, Tensor]], dict[str, Tensor]] | None = None
    """Adds constants that the network keeps among its weights but some published files omit."""
    recipes: str | None = None
    """The module of `training` whose `RECIPES` are for this family; None where there are none. A path and not an import,
    because models are a lower layer than training, which resolves it (`training.recipes.registry`)."""

    def may_be(self, names: Iterable[str]) -> bool:
        """Whether weights with these names, which may be another publisher's, can be of this family."""
        own = {self.own_name(name) for name in names}
        return own.issuperset(self.signature)


def built(network: Callable[[], Callable[..., nn.Module]], /, **arguments: Any) -> nn.Module:
    """A network with untrained weights; `partial(built, network, …)` is a `ModelSpec.build` that imports it when called."""
    return network()(**arguments)
