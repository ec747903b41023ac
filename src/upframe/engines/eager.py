"""TorchEngine: torch, operation by operation. It runs every network on every device, and starts at once."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import ClassVar, Literal, cast

import torch
from torch import Tensor, nn

from upframe.engines.base import Engine, channels_last, check_running, choose_precision, is_out_of_memory, padded
from upframe.errors import OutOfMemoryError, check_flag
from upframe.machine import check_device, device_model, pick_device
from upframe.models.calling import padded_in_time
from upframe.models.interfaces import Cleaned, Keep, Prepares, Streams
from upframe.models.layers import reduced, takes_float32
from upframe.models.registry import Model
from upframe.models.spec import Cleaning, Place, Precision

log = logging.getLogger(__name__)

MIN_PREPARE_PX = 1 << 14  # pixels of a frame; preparing fewer at once saves too little memory


@dataclass(frozen=True)
class TorchOptions:
    """Options of torch."""

    name: ClassVar[str] = "torch"
    device: str = "auto"
    """"auto" (CUDA, then MPS, then CPU), "cpu", "cuda", "cuda:N" or "mps"."""
    precision: Precision | Literal["auto"] = "auto"
    """"auto" is bfloat16 on CPUs that have it, for networks that lose almost nothing by it, else float32."""
    threads: int | None = None
    """CPU threads; None leaves the number to torch."""
    fused: bool | None = None
    """Whether `make_engine` uses upframe's own kernels (native.py): None if they are available and fit the network; True
    likewise, but with a line in the log if they do not; False never."""

    def __post_init__(self) -> None:
        check_device(self.device)
        check_running(self.precision, self.threads)
        if self.fused is not None:
            check_flag("fused", self.fused)


class TorchEngine:
    """Torch without a compiler: channels-last, `inference_mode`, optional bfloat16 or float16.

    In half precision a video network still takes float32, and reduces everything except flow and pixels.
    """

    name: str = TorchOptions.name
    by_kernels: ClassVar[bool] = False
    """Whether upframe's kernels run part of the network."""

    def __init__(self, model: Model, options: TorchOptions | None = None) -> None:
        options = options or TorchOptions()
        self.spec = model.spec
        self.options = options
        self.device = pick_device(options.device)
        self.precision: Precision = choose_precision(model.spec, options.precision, self.device, kernels=self.by_kernels)
        if options.threads:
            torch.set_num_threads(options.threads)
        self._model = model
        dtype = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[self.precision]
        # The caller's network stays unchanged.
        network = copy.deepcopy(model.network) if dtype != torch.float32 or self.device.type != "cpu" else model.network
        network = network.to(self.device)
        self._network: nn.Module = network.float() if dtype == torch.float32 else reduced(network, dtype)
        self._dtype = torch.float32 if takes_float32(network) else dtype  # pixels of frames
        self._float32: Engine | None = None
        log.info("%s runs on %s in %s", self.spec.name, self.device, self.precision)

    @property
    def processor(self) -> str:
        return device_model(self.device)

    def __call__(
        self, clip: Tensor, place: Place | None = None, *, prepared: bool = False, sigma: float | None = None
    ) -> Tensor:
        """Like `Engine.__call__`; a network that interpolates makes one frame, (N, 1, C, H, W).

        Args:
            prepared: Whether `prepare` made `clip`, or the clip of which it is a tile.
            sigma: Standard deviation of the noise, for networks whose spec says `takes_sigma`; on the 0 to 1 scale.
        """
        n, t, _, h, w = clip.shape
        facts: dict[str, object] = {"place": place} if self.spec.takes_place else {}
        if prepared and self.spec.preparation is not None:
            facts["prepared"] = True
        if self.spec.takes_sigma:
            facts["sigma"] = sigma
        with self._running(h, w):
            if self.spec.window is None:
                # A frame-wise network takes frames as a batch, (N*T, C, H, W).
                frames = channels_last(padded(clip.flatten(0, 1), self.spec), self._dtype, self.device)
                out: Tensor = self._network(frames, **facts).float().cpu()
            else:
                whole = padded_in_time(padded(clip, self.spec), self.spec).to(self.device)
                out = self._network(whole, **facts)[:, :t].float().cpu()
        s = self.spec.scale
        return out[..., : h * s, : w * s].reshape(n, -1, out.shape[-3], h * s, w * s)

    def prepare(self, clip: Tensor, options: Cleaning | None = None) -> Cleaned:
        """Run the preparation of networks that have one, on whole frames of a whole segment; others return `clip` unchanged.

        If memory runs out, smaller and smaller parts of a frame are prepared at once, which changes rounding at most.

        Args:
            clip: (N, T, C, H, W) in [0, 1]; not modified.
            options: None for the network's defaults.

        Returns:
            The prepared clip, float32 on the CPU, to be cut into tiles and run with `prepared=True`.

        Raises:
            OutOfMemoryError: if even small parts of a frame do not fit.
        """
        if self.spec.preparation is None:
            return Cleaned(clip, 0, ())
        h, w = clip.shape[-2:]
        network = cast("Prepares", self._network)
        max_px: int | None = None
        while True:
            try:
                with self._running(h, w):
                    done = network.prepare(clip.to(self.device), options, max_px=max_px)
                    return replace(done, clip=done.clip.float().cpu())
            except OutOfMemoryError:
                max_px = (max_px or h * w) // 2
                if max_px < MIN_PREPARE_PX:
                    raise
                log.info("%s: memory ran out while preparing; %d px of a frame are tried at once", self.spec.name, max_px)

    def stream(self, clip: Tensor, *, keep: Keep = "full") -> Iterator[Tensor]:
        """Yield the enlarged frames (N, C, s·H, s·W) of a prepared clip, float32 on the CPU.

        Args:
            clip: (N, T, C, H, W) in [0, 1], as `prepare` returns it.
            keep: How a network with two passes through time stores features of the first; others ignore it.

        Raises:
            OutOfMemoryError: if the clip does not fit; frames that were yielded before are right.
        """
        t, (h, w), s = clip.shape[1], clip.shape[-2:], self.spec.scale
        if not self.spec.streams:
            for part in (clip[:, i : i + 1] for i in range(t)) if self.spec.window is None else (clip,):
                yield from self(part, prepared=True).unbind(1)
            return
        with self._running(h, w):
            frames = cast("Streams", self._network).stream(padded(clip, self.spec).to(self.device), keep=keep)
        for _ in range(t):
            with self._running(h, w):  # not around the loop: errors of the caller's code between two frames must pass
                out = next(frames)[..., : h * s, : w * s].float().cpu()
            yield out

    @contextmanager
    def before_each_step(self, check: Callable[[], None]) -> Iterator[None]:
        """Call `check` before each part of the network runs: its exceptions stop even a long pass over a whole clip."""
        hooks = [part.register_forward_pre_hook(lambda *_: check()) for part in self._network.modules()]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    @contextmanager
    def _running(self, h: int, w: int) -> Iterator[None]:
        """Enter inference mode, and turn all errors that mean lack of memory into `OutOfMemoryError`."""
        try:
            with torch.inference_mode():
                yield
        except (RuntimeError, MemoryError) as error:
            if is_out_of_memory(error):
                raise self._out_of_memory(h, w) from error
            raise

    def in_float32(self) -> Engine:
        if self.precision == "fp32":
            return self
        if self._float32 is None:
            self._float32 = TorchEngine(self._model, TorchOptions(self.options.device, "fp32", self.options.threads))
        return self._float32

    def _out_of_memory(self, h: int, w: int) -> OutOfMemoryError:
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        return OutOfMemoryError(f"{self.spec.name} on {self.device}", f"a tile of {w}x{h} px did not fit into memory")
