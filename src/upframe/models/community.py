"""Single-image networks of other publishers, as spandrel recognises and builds them (extra `community`).

spandrel is given tensors that `weights_file` has read as data, never a file, so nothing in a file is executed. What it builds
becomes a network and a `ModelSpec` like those of `families/`; no other room knows where they came from.
"""

from __future__ import annotations

import copy
import enum
import logging
import math
import sys
import types
from collections.abc import Iterator
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from upframe.errors import MissingError, ModelError
from upframe.models.spec import ModelSpec, SizeRule

if TYPE_CHECKING:
    from upframe.models.weights_file import State

log = logging.getLogger(__name__)

INSTALL = 'pip install "upframe[community]"'
LICENCE = "unknown"

_GRID_PX = 16
"""Tiles begin at multiples of this many pixels, so that windows of attention, 8 or 16 pixels wide, fall as in the whole."""


class CommunityNetwork(nn.Module):
    """A network that spandrel built, as a function of (N, C, H, W) in [0, 1]."""

    def __init__(self, descriptor: Any) -> None:
        super().__init__()
        self.network: nn.Module = descriptor.model
        # It holds the same module, also in deep copies and after `to`; it knows how to call it, and pads its sizes.
        self.descriptor = descriptor

    def forward(self, x: Tensor) -> Tensor:
        made: Tensor = self.descriptor(x.clone())  # some networks write into what they are given
        return made


def recognised(state: State, subject: str | Path) -> tuple[ModelSpec, State] | None:
    """The network of these weights and its own names for them; None if spandrel knows none, too.

    Raises:
        MissingError: spandrel is not installed.
        ModelError: it is a network that does not turn a picture into a picture of as many channels.
    """
    descriptor = _descriptor(state, subject)
    if descriptor is None:
        return None
    spandrel = _spandrel()
    name = descriptor.architecture.name
    if not isinstance(descriptor, spandrel.ImageModelDescriptor):
        raise ModelError(subject, f"is a {name} network, which needs a mask beside the picture", "pass another file")
    given, made = descriptor.input_channels, descriptor.output_channels
    if given not in (1, 3) or made != given:
        happened = f"is a {name} network that makes {made} channels of {given}"
        raise ModelError(subject, happened, "pass one that takes and makes 1 or 3 channels")
    network = CommunityNetwork(descriptor).eval().requires_grad_(False)
    return _spec(network), dict(network.state_dict())


def _spec(network: CommunityNetwork) -> ModelSpec:
    descriptor = network.descriptor
    needs = descriptor.size_requirements
    size = SizeRule(minimum=max(needs.minimum, 1), multiple=max(needs.multiple_of, 1))
    kind, scale = descriptor.architecture.id.lower(), descriptor.scale
    return ModelSpec(
        name=f"{kind}-x{scale}" if descriptor.input_channels == 3 else f"{kind}-gray-x{scale}",
        family=descriptor.architecture.name,
        build=partial(copy.deepcopy, network),
        scale=scale,
        halo_px=0,  # until `halos` has measured it
        exact_halo_px=None,
        tiling="approximate",
        paper="",
        licence=LICENCE,
        phase_px=math.lcm(size.multiple, _GRID_PX),
        size=size,
        channels=descriptor.input_channels,
        parameters=sum(parameter.numel() for parameter in network.parameters()),
    )


# Asking spandrel ------------------------------------------------------------------------------------------------------
def _descriptor(state: State, subject: str | Path) -> Any:
    """Let spandrel build the network; None if it recognises no network, or if shapes do not fit the one it recognises."""
    spandrel = _spandrel()
    for names in _spellings(state):
        try:
            # It takes names out of the dictionary, and some networks draw numbers while they are built.
            with torch.random.fork_rng(devices=[]):
                return spandrel.MAIN_REGISTRY.load(dict(names))
        except spandrel.UnsupportedModelError:
            continue
        except Exception as error:  # shapes are the file's: building may fail in any way
            log.debug("%s: spandrel: %s: %s", subject, type(error).__name__, error)
    return None


def _spellings(state: State) -> Iterator[State]:
    """The names as read, and with the prefix that `weights_file` took away, by which older ESRGAN files are known."""
    yield state
    yield {f"model.{name}": value for name, value in state.items()}


@cache
def _spandrel() -> Any:
    """Import spandrel; without a torchvision that works, with the stand-in for it.

    Raises:
        MissingError: it is not installed.
    """
    stood_in = _stand_in_for_torchvision()
    try:
        import spandrel
    except ImportError as error:
        raise MissingError("spandrel", f"is not installed ({error})", INSTALL) from error
    finally:
        for name in stood_in:
            del sys.modules[name]  # nobody else may take it for torchvision
    return spandrel


def _stand_in_for_torchvision() -> tuple[str, ...]:
    """Put a module with the three names that spandrel needs where torchvision would be; none if the real one works.

    torchvision fails with any error, not only ImportError, if it was built for another torch.
    """
    try:
        import torchvision.transforms.functional  # noqa: F401
    except Exception as error:
        log.debug("torchvision does not work: %s", error)
    else:
        return ()
    for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
        del sys.modules[name]  # what the failed import left
    names = ("torchvision", "torchvision.transforms", "torchvision.transforms.functional")
    sys.modules.update({name: types.ModuleType(name) for name in names})
    functional: Any = sys.modules[names[-1]]
    functional.normalize, functional.rotate, functional.InterpolationMode = _normalize, _rotate, _Interpolation
    return names


def _normalize(tensor: Tensor, mean: list[float], std: list[float], inplace: bool = False) -> Tensor:
    middle, spread = (torch.tensor(values, dtype=tensor.dtype, device=tensor.device)[:, None, None] for values in (mean, std))
    return tensor.sub_(middle).div_(spread) if inplace else (tensor - middle) / spread


def _rotate(*_: object, **__: object) -> Tensor:
    raise NotImplementedError("only networks that fill holes rotate, and they are refused")


class _Interpolation(enum.Enum):
    NEAREST = "nearest"
    BILINEAR = "bilinear"
