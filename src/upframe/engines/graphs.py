"""The common part of engines that run a network as one graph, made once ahead of time.

A graph takes one frame (1, C, H, W), channels-last, of any size from `LEAST_SIDE` up. If a network's result depends on the
position of a tile, the graph also takes the tensors of `TakesPlace.place_tensors`, so tiles are as exact as in torch. Smaller
frames, which tracers treat as special cases, run in torch.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol, cast

import torch
from torch import Tensor, nn

from upframe.engines import cache, canary
from upframe.engines.base import Engine, channels_last, choose_precision, is_out_of_memory, padded
from upframe.engines.eager import TorchEngine, TorchOptions
from upframe.errors import MissingError, OptionError, OutOfMemoryError
from upframe.machine import device_model
from upframe.models.interfaces import TakesPlace
from upframe.models.registry import Model
from upframe.models.spec import ModelSpec, Place, Precision

if TYPE_CHECKING:
    from torch.export import ExportedProgram

log = logging.getLogger(__name__)

LEAST_SIDE = 32  # tracers treat shorter sides as special cases: RLFN pools fewer than 21 px to a single cell
MOST_SIDE = 1 << 16
_EXAMPLE = (64, 80)  # any size with two different sides

Run = Callable[[Sequence[Tensor]], Tensor]
"""Takes the result of `inputs`: one frame and, for some networks, its place. Returns (1, C, s·H, s·W)."""


class Options(Protocol):
    """Options of all engines that run graphs."""

    name: ClassVar[str]

    @property
    def precision(self) -> Precision | Literal["auto"]: ...
    @property
    def threads(self) -> int | None: ...
    @property
    def cache(self) -> Path | None: ...


class Backend(Protocol):
    """Makes artefacts from networks, and executes them."""

    @property
    def precisions(self) -> tuple[Precision, ...]:
        """Precisions that it supports on this machine."""
        ...

    keeps_pixels: bool
    """Whether layers that see pixels stay float32 in half precision, as in the measured losses from which "auto" decides."""

    @property
    def accelerator(self) -> str | None:
        """Name of the device that computes; None for the CPU, whose pixels need no canary."""
        ...

    def versions(self) -> dict[str, str]:
        """Return versions of everything that artefacts depend on.

        Raises:
            MissingError: if a library is missing.
            ResourceError: if this machine does not have the device.
        """
        ...

    def check(self) -> None:
        """Check that everything for making artefacts is installed.

        Raises:
            MissingError: if something is missing.
        """
        ...

    def make(self, network: nn.Module, spec: ModelSpec, precision: Precision, folder: Path) -> None:
        """Write the artefact of a float32 network into an empty folder."""
        ...

    def load(self, folder: Path, precision: Precision, threads: int) -> Run:
        """Load the artefact in `folder`."""
        ...


class GraphEngine:
    """Runs a network's graph. The graph is made, or loaded from the cache, for the first frame."""

    def __init__(self, model: Model, options: Options, backend: Backend) -> None:
        """Check the options; nothing is compiled yet.

        Raises:
            UsageError: if the network cannot run as a graph.
            MissingError: if a library is missing.
            ResourceError: if this machine does not have the device.
        """
        self.name = options.name
        self.spec = model.spec
        self.device = torch.device("cpu")
        if not model.spec.exports:
            kind = "a video network" if model.spec.window is not None else "not proven to export"
            raise OptionError("engine", self.name, f"{model.spec.name} is {kind}", "use `engine='torch'`")
        self._versions = backend.versions()
        self.precision: Precision = choose_precision(model.spec, options.precision, self.device)
        if options.precision == "auto" and not backend.keeps_pixels:
            self.precision = "fp32"
        if self.precision not in backend.precisions:
            if options.precision != "auto":
                able = ", ".join(backend.precisions)
                raise OptionError("precision", self.precision, f"the engine {self.name} supports {able} on this machine")
            self.precision = "fp32"
        self._model, self._options, self._backend = model, options, backend
        self._torch = TorchEngine(model, TorchOptions("cpu", self.precision, options.threads))
        self._run: Run | None = None
        self._told = False

    @property
    def processor(self) -> str:
        """The device of the backend: `device` is where its tensors are, which is the CPU for all backends."""
        return self._backend.accelerator or device_model(self.device)

    def __call__(self, clip: Tensor, place: Place | None = None) -> Tensor:
        n, t, _, h, w = clip.shape
        if min(h, w) < LEAST_SIDE:
            if not self._told:
                log.warning("engine %s: frames below %d px a side run in torch", self.name, LEAST_SIDE)
                self._told = True
            return self._torch(clip, place)
        if self.name == self._torch.name:
            return self._torch(clip, place)
        try:
            run = self.load()
        except MissingError as error:
            log.warning("%s %s runs in torch", error, self.spec.name)
            self.name = self._torch.name
            return self._torch(clip, place)
        try:
            with torch.inference_mode():
                frames = torch.split(padded(clip.flatten(0, 1), self.spec), 1)
                made = [run(inputs(self._model.network, self.spec, x, place)).float() for x in frames]
        except (RuntimeError, MemoryError) as error:
            if is_out_of_memory(error):
                raise OutOfMemoryError(self.spec.name, f"a tile of {w}x{h} px did not fit into memory") from error
            raise
        s = self.spec.scale
        out = torch.cat(made)[..., : h * s, : w * s]
        return out.reshape(n, t, out.shape[-3], h * s, w * s)

    def in_float32(self) -> Engine:
        return self if self.precision == "fp32" else self._torch.in_float32()

    def load(self) -> Run:
        """Load the graph, or compile it if it is not in the cache. Without this call, the first frame does so.

        Raises:
            MissingError: if something needed for compiling is not installed; frames then run in torch.
        """
        if self._run is None:
            self._run = self._loaded()
        return self._run

    def _loaded(self) -> Run:
        threads = torch.get_num_threads()
        facts = {**self._versions, "engine": self.name, "precision": self.precision, "threads": threads}
        name = f"{self.name}-{self.spec.name}-{self.precision}-{cache.key(self._model.network, facts)}"

        def make(folder: Path) -> None:
            self._backend.check()
            log.warning("engine %s: %s is compiled once for this machine, which takes a while", self.name, self.spec.name)
            self._backend.make(self._model.network, self.spec, self.precision, folder)

        run = self._backend.load(cache.kept(self._options.cache, name, make), self.precision, threads)
        device = self._backend.accelerator
        return run if device is None else self._tried(run, device)

    def _tried(self, run: Run, device: str) -> Run:
        picture = canary.picture(self.spec.channels)
        with torch.inference_mode():
            given = inputs(self._model.network, self.spec, picture, None)
            expected = self._model.network(picture)
        return canary.guarded(run, given, expected, engine=self.name, device=device)


def inputs(network: nn.Module, spec: ModelSpec, frame: Tensor, place: Place | None) -> tuple[Tensor, ...]:
    """Return the inputs of a graph for one frame (1, C, H, W): float32, even if most of the graph is in half precision."""
    given = [channels_last(frame, torch.float32)]
    if spec.takes_place:
        h, w = frame.shape[-2:]
        tensors = cast("TakesPlace", network).place_tensors((h, w), place or Place((0, 0), (h, w)))
        given += [tensor.float() for tensor in tensors]
    return tuple(given)


class _Frame(nn.Module):
    """A network whose arguments are all tensors."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, frame: Tensor, *place: Tensor) -> Tensor:
        return self.network(frame, place) if place else self.network(frame)  # type: ignore[no-any-return]


def trace(network: nn.Module, spec: ModelSpec, *, with_place: bool = True) -> ExportedProgram:
    """Export a network as a graph for any height and width.

    Args:
        network: In float32, or as `nets._layers.reduced` makes it.
        with_place: Whether the graph takes the place of a tile, if the network does; else a frame is the whole picture.
    """
    from torch.export import Dim, export  # not at the top: most runs trace nothing

    example = inputs(network, spec, torch.rand(1, spec.channels, *_EXAMPLE), None)
    size = {2: Dim("height", min=LEAST_SIDE, max=MOST_SIDE), 3: Dim("width", min=LEAST_SIDE, max=MOST_SIDE)}
    shapes: dict[str, Any] = {"frame": size}
    if spec.takes_place and with_place:
        shapes["place"] = tuple(dict.fromkeys(range(tensor.dim()), Dim.AUTO) for tensor in example[1:])
    else:
        example = example[:1]
    with torch.no_grad():
        return export(
            _Frame(network).eval(),
            example,
            dynamic_shapes=shapes,
            # The lengths of the place's tensors follow from the size by divisions that guards cannot express.
            prefer_deferred_runtime_asserts_over_guards=True,
        )


def missing(engine: str, extra: str, error: Exception) -> MissingError:
    """Make the error for a library that is missing or does not load."""
    found = f"needs the extra {extra}" if isinstance(error, ImportError) else f"the extra {extra} does not load ({error})"
    return MissingError(engine, found, f'install it with: pip install "upframe[{extra}]"')
