"""Engines run a network: clip in, clip out, with device, precision and memory faults hidden.

Every engine takes (N, T, C, H, W) in [0, 1], any size ≥ 1×1, and returns (N, T, C, s·H, s·W) float32 on the CPU.
"""

from __future__ import annotations

import copy
import ctypes
import logging
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, Protocol, cast

import torch
from torch import Tensor, nn

from upframe.errors import OutOfMemoryError, ResourceError, UsageError
from upframe.models import Model
from upframe.nets.clips import Cleaned, Keep, Prepares, Streams
from upframe.pixels import mirror_pad
from upframe.spec import Cleaning, ModelSpec, Precision
from upframe.tiling import Place

log = logging.getLogger(__name__)

MIN_PREPARE_PX = 1 << 14  # of a frame; preparing fewer at once frees no memory worth having


@dataclass(frozen=True)
class TorchOptions:
    """How torch runs a network."""

    device: str = "auto"
    """"auto" (CUDA, then MPS, then CPU), "cpu", "cuda", "cuda:N" or "mps"."""
    precision: Precision | Literal["auto"] = "auto"
    """"auto" is float32: other precisions are chosen by the user until their speed and loss are measured here."""
    threads: int | None = None
    """CPU threads; None leaves torch's choice."""


class Engine(Protocol):
    """Something that runs one network."""

    spec: ModelSpec
    precision: Precision

    def __call__(self, clip: Tensor, place: Place | None = None) -> Tensor:
        """Run the network on (N, T, C, H, W) in [0, 1].

        Args:
            place: Where the clip lies in a larger picture; None when it is the whole. Only networks whose spec says
                `takes_place` look at it.

        Raises:
            OutOfMemoryError: when this clip does not fit; a smaller one may.
        """
        ...

    def in_float32(self) -> Engine:
        """An engine for the same network in float32; itself if it is one."""
        ...


class TorchEngine:
    """Plain torch: channels-last, `inference_mode`, optional bfloat16 or float16."""

    def __init__(self, model: Model, options: TorchOptions | None = None) -> None:
        options = options or TorchOptions()
        self.spec = model.spec
        self.options = options
        self.device = pick_device(options.device)
        self.precision: Precision = "fp32" if options.precision == "auto" else options.precision
        if self.precision not in model.spec.precisions:
            proven = ", ".join(model.spec.precisions)
            raise UsageError(f"--precision {self.precision}", f"not proven for {model.spec.name}", f"choose from {proven}")
        if options.threads:
            torch.set_num_threads(options.threads)
        self._model = model
        dtype = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[self.precision]
        # The caller's network stays as it was.
        network = copy.deepcopy(model.network) if dtype != torch.float32 or self.device.type != "cpu" else model.network
        self._network: nn.Module = network.to(device=self.device, dtype=dtype)
        self._dtype = dtype
        self._float32: Engine | None = None
        log.info("%s runs on %s in %s", self.spec.name, self.device, self.precision)

    def __call__(
        self, clip: Tensor, place: Place | None = None, *, prepared: bool = False, sigma: float | None = None
    ) -> Tensor:
        """As `Engine.__call__`; a network that interpolates makes one frame, (N, 1, C, H, W).

        Args:
            prepared: Whether `clip`, or the whole that it is a tile of, comes from `prepare`.
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
                frames = self._padded(clip.flatten(0, 1)).to(self.device, self._dtype)
                out: Tensor = self._network(frames.contiguous(memory_format=torch.channels_last), **facts).float().cpu()
            else:
                whole = self._padded_in_time(self._padded(clip)).to(self.device, self._dtype)
                out = self._network(whole, **facts)[:, :t].float().cpu()
        s = self.spec.scale
        return out[..., : h * s, : w * s].reshape(n, -1, out.shape[-3], h * s, w * s)

    def prepare(self, clip: Tensor, options: Cleaning | None = None) -> Cleaned:
        """The first step of networks that have one, on whole frames of a whole segment; for others `clip` as it is.

        Where memory runs out it works on smaller and smaller parts of a frame, which changes rounding at most.

        Args:
            clip: (N, T, C, H, W) in [0, 1]; not modified.
            options: None for the network's defaults.

        Returns:
            The prepared clip, float32 on the CPU, to be cut into tiles and run with `prepared=True`.

        Raises:
            OutOfMemoryError: when even small parts of a frame do not fit.
        """
        if self.spec.preparation is None:
            return Cleaned(clip, 0, ())
        h, w = clip.shape[-2:]
        network = cast("Prepares", self._network)
        max_px: int | None = None
        while True:
            try:
                with self._running(h, w):
                    done = network.prepare(clip.to(self.device, self._dtype), options, max_px=max_px)
                    return replace(done, clip=done.clip.float().cpu())
            except OutOfMemoryError:
                max_px = (max_px or h * w) // 2
                if max_px < MIN_PREPARE_PX:
                    raise
                log.info("%s: memory ran out while preparing; %d px of a frame are tried at once", self.spec.name, max_px)

    def stream(self, clip: Tensor, *, keep: Keep = "full") -> Iterator[Tensor]:
        """The enlarged frames (N, C, s·H, s·W) of a prepared clip one after the other, float32 on the CPU.

        Args:
            clip: (N, T, C, H, W) in [0, 1], as `prepare` returns it.
            keep: How a network with two passes through time stores the first; of no effect on others.

        Raises:
            OutOfMemoryError: when the clip does not fit; the frames that came before it are right.
        """
        t, (h, w), s = clip.shape[1], clip.shape[-2:], self.spec.scale
        if not self.spec.streams:
            for part in (clip[:, i : i + 1] for i in range(t)) if self.spec.window is None else (clip,):
                yield from self(part, prepared=True).unbind(1)
            return
        with self._running(h, w):
            frames = cast("Streams", self._network).stream(self._padded(clip).to(self.device, self._dtype), keep=keep)
        for _ in range(t):
            with self._running(h, w):  # not around the loop: the caller's code between two frames is not ours
                out = next(frames)[..., : h * s, : w * s].float().cpu()
            yield out

    @contextmanager
    def before_each_step(self, check: Callable[[], None]) -> Iterator[None]:
        """Call `check` before each part of the network runs: what it raises stops even a long pass over a whole clip."""
        hooks = [part.register_forward_pre_hook(lambda *_: check()) for part in self._network.modules()]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def _padded(self, x: Tensor) -> Tensor:
        """(..., H, W) mirrored at the bottom and on the right to a size that the network accepts."""
        h, w = x.shape[-2:]
        return mirror_pad(x, bottom=self.spec.size.padded(h) - h, right=self.spec.size.padded(w) - w)

    def _padded_in_time(self, clip: Tensor) -> Tensor:
        """(N, T, ...) mirrored at its end, last frame included, to a length that the network accepts and likes."""
        t, window = clip.shape[1], self.spec.window
        assert window is not None
        wanted = -(-max(t, window.minimum) // window.multiple) * window.multiple
        if wanted == t:
            return clip
        there_and_back = [*range(t), *reversed(range(t))]
        return clip[:, [there_and_back[i % (2 * t)] for i in range(wanted)]]

    @contextmanager
    def _running(self, h: int, w: int) -> Iterator[None]:
        """Inference mode, with the many ways of saying that memory ran out turned into `OutOfMemoryError`."""
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


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception means that memory ran out: torch's CPU allocator and oneDNN have no type of their own for it."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    signs = r"can't allocate memory|not enough memory|out of memory|bad_alloc|could not create a (primitive|memory)"
    return isinstance(error, RuntimeError) and re.search(signs, str(error), re.IGNORECASE) is not None


def pick_device(name: str) -> torch.device:
    """The device `name` means here.

    Raises:
        UsageError: for a name that is no device.
        ResourceError: when the device named is not there.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    if not re.fullmatch(r"cpu|mps|cuda(:\d+)?", name):
        raise UsageError(f"--device {name}", "no such device", "use auto, cpu, cuda, cuda:N or mps")
    device = torch.device(name)
    if device.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if (device.index or 0) >= count:
            raise ResourceError(f"--device {name}", f"{count} CUDA devices are usable", "use --device cpu or check the driver")
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise ResourceError("--device mps", "not available on this machine", "use --device cpu")
    return device


def available_memory_bytes() -> int:
    """Bytes this process may still take: the least of free memory, the control group's and the address-space limit."""
    limits = []
    meminfo = Path("/proc/meminfo")
    if meminfo.exists():
        found = re.search(r"MemAvailable:\s+(\d+) kB", meminfo.read_text())
        if found:
            limits.append(int(found[1]) * 1024)
    group, used = Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")
    if group.exists() and used.exists() and group.read_text().strip().isdigit():
        limits.append(int(group.read_text()) - int(used.read_text()))
    limits += _address_space_left()
    return max(min(limits), 0) if limits else 4 << 30  # other systems: assume a small machine


def _address_space_left() -> list[int]:
    """Bytes left under RLIMIT_AS, if there is such a limit here."""
    statm = Path("/proc/self/statm")
    if sys.platform == "win32" or not statm.exists():
        return []
    import resource  # absent on Windows

    soft, _ = resource.getrlimit(resource.RLIMIT_AS)
    if soft == resource.RLIM_INFINITY:
        return []
    return [soft - int(statm.read_text().split()[0]) * resource.getpagesize()]


def keep_freed_memory() -> None:
    """Tell glibc to keep large freed blocks instead of returning each to the kernel and faulting its pages in again.

    At 360×640 that costs plain torch two thirds of its time. It changes the whole process, so the command line calls it
    and the library does not. Elsewhere than on glibc it does nothing.
    """
    try:
        libc = ctypes.CDLL("libc.so.6")  # an OSError on systems without it
        libc.mallopt(-3, 1 << 30)  # M_MMAP_THRESHOLD
        libc.mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD
    except (OSError, AttributeError):
        log.debug("no glibc here; the allocator is left as it is")
