"""Run a `Model` on tensors: pad to accepted sizes, choose device and precision, refuse invalid input.

Engines do the same for tiles and hide memory errors; they use the paddings below, too.
"""

from __future__ import annotations

import copy
import re
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from upframe.errors import OptionError, UsageError, check_choice, check_number, check_whole
from upframe.machine import pick_device
from upframe.models.layers import reduced, takes_float32
from upframe.models.spec import ModelSpec, Precision, SizeRule, Window
from upframe.pixels import mirror_pad

if TYPE_CHECKING:
    from upframe.models.registry import Model

DTYPES: dict[Precision, torch.dtype] = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
ROUNDING = 1e-3
"""allowed distance of values from [0, 1]: half precision rounds by less"""
PROBE_PX = 16  # side of the input for measuring a module's scale
CUSTOM_HALO_PX = 32  # default halo of a user's module: more than most frame-wise networks see


# Sizes ----------------------------------------------------------------------------------------------------------------
def padded(x: Tensor, spec: ModelSpec) -> Tensor:
    """Mirror (..., H, W) at the bottom and on the right to a size that the network accepts."""
    h, w = x.shape[-2:]
    return mirror_pad(x, bottom=spec.size.padded(h) - h, right=spec.size.padded(w) - w)


def padded_in_time(clip: Tensor, spec: ModelSpec) -> Tensor:
    """Mirror (N, T, ...) at its end, last frame included, to a length that the network accepts and prefers."""
    t, window = clip.shape[1], spec.window
    assert window is not None
    wanted = -(-max(t, window.minimum) // window.multiple) * window.multiple
    if wanted == t:
        return clip
    there_and_back = [*range(t), *reversed(range(t))]
    return clip[:, [there_and_back[i % (2 * t)] for i in range(wanted)]]


def channels_last(x: Tensor, dtype: torch.dtype, device: torch.device | str = "cpu") -> Tensor:
    """Move (N, C, H, W) to a dtype and device, with exactly the strides of the memory layout.

    A single picture from an (H, W, C) array counts as channels-last with any stride along N, so torch does not copy it. But
    then all convolutions of the network treat it as planar, at half the speed.
    """
    return torch.empty(x.shape, dtype=dtype, device=device, memory_format=torch.channels_last).copy_(x)


# Calling --------------------------------------------------------------------------------------------------------------
def place(model: Model) -> nn.Module:
    """Return the network on the model's device in its precision: the model's own if that is float32 on the CPU, else a copy."""
    if model.device.type == "cpu" and model.precision == "fp32":
        return model.network
    network = copy.deepcopy(model.network).to(model.device)
    return network if model.precision == "fp32" else reduced(network, DTYPES[model.precision])


def call(model: Model, network: nn.Module, x: Tensor, sigma: float | None) -> Tensor:
    """Implement `Model.__call__`; `network` is the result of `place`."""
    check_input(model, x)
    spec = model.spec
    facts: dict[str, Any] = {"sigma": _noise(spec, sigma)} if spec.takes_sigma or sigma is not None else {}
    s, (h, w) = spec.scale, x.shape[-2:]
    with torch.inference_mode():
        if spec.window is None:
            dtype = torch.float32 if takes_float32(network) else DTYPES[model.precision]
            made: Tensor = network(channels_last(padded(x, spec), dtype, model.device), **facts)
        else:  # a video network takes float32 and chooses what to reduce
            made = network(padded_in_time(padded(x.float(), spec), spec), **facts)[:, : x.shape[1]]
        return made[..., : h * s, : w * s].float().clamp(0, 1).to(x.dtype)


def check_input(model: Model, x: object) -> None:
    """Refuse input that the model cannot take.

    Raises:
        UsageError: naming `x`; the message gives what was found and what was expected.
    """
    spec = model.spec
    axes = "(N, C, H, W)" if spec.window is None else "(N, T, C, H, W)"
    if not isinstance(x, Tensor):
        raise UsageError("x", f"is of type {type(x).__name__}, expected a tensor {axes}", "use upframe.upscale for other kinds")
    found = f"a tensor {tuple(x.shape)}"
    if x.ndim != axes.count(",") + 1:
        raise UsageError("x", f"is {found}, {spec.name} takes {axes}", "add the missing axes, for instance x[None]")
    if x.numel() == 0:
        raise UsageError("x", f"is empty: {found}")
    if x.shape[-3] != spec.channels:
        raise UsageError("x", f"is {found} with {x.shape[-3]} channels, {spec.name} takes {spec.channels}")
    if not x.is_floating_point():
        dtype = str(x.dtype).removeprefix("torch.")
        raise UsageError("x", f"is {dtype}, expected floats in [0, 1]", "divide by 255, or use upframe.upscale")
    if x.device != model.device:
        raise UsageError("x", f"is on {x.device}, the model on {model.device}", f'write model = model.to("{x.device}")')
    if spec.task == "interpolate" and spec.window is not None and x.shape[1] != spec.window.frames:
        raise UsageError("x", f"has {x.shape[1]} frames, {spec.name} takes {spec.window.frames} and makes the middle one")
    check_range(x)


def check_range(x: Tensor) -> None:
    """Refuse floats that are not finite, or outside [0, 1] by more than rounding.

    Raises:
        UsageError: for such values; the message names `x` and gives them.
    """
    low, high = (float(edge) for edge in torch.aminmax(x.detach()))
    if not (abs(low) < float("inf") and abs(high) < float("inf")):  # aminmax returns NaN if there is one
        raise UsageError("x", "holds values that are not finite (NaN or infinite)")
    if low < -ROUNDING or high > 1 + ROUNDING:
        raise UsageError("x", f"holds values from {low:g} to {high:g}, expected 0 to 1", "divide by white, or clamp")


def _noise(spec: ModelSpec, sigma: float | None) -> float:
    if not spec.takes_sigma:
        raise OptionError("sigma", sigma, f"is not an argument of {spec.name}", "remove this argument")
    if sigma is None:
        raise OptionError("sigma", None, f"{spec.name} needs the noise level of the input", "pass 0 to 255; 10 to 50 is usual")
    check_number("sigma", sigma, least=0, most=255)
    return sigma / 255


def checked_precision(spec: ModelSpec, precision: Precision) -> Precision:
    """Return `precision` if the network is proven in it.

    Raises:
        OptionError: if it is not; the message lists the proven ones.
    """
    if precision not in spec.precisions:
        raise OptionError("precision", precision, f"not proven for {spec.name}", f"choose from {', '.join(spec.precisions)}")
    return precision


def checked_device(device: str | torch.device) -> str:
    """Return the name of an existing device; "auto" chooses one.

    Raises:
        UsageError: if `device` is not the name of a device.
        ResourceError: if this machine does not have the device.
    """
    if not isinstance(device, str | torch.device):
        happened = f"is of type {type(device).__name__}, expected the name of a device"
        raise UsageError("device", happened, "for a precision use .half(), .bfloat16() or .float()")
    found = str(pick_device(str(device)))
    return "cuda:0" if found == "cuda" else found  # the name that tensors use


# Modules of the user's ------------------------------------------------------------------------------------------------
def custom_spec(
    network: nn.Module,
    *,
    scale: int | None,
    name: str,
    channels: int,
    video: bool,
    size: SizeRule,
    halo_px: int | None,
    precisions: tuple[Precision, ...],
) -> tuple[ModelSpec, nn.Module]:
    """Make the facts about a user's module, and a float32 copy of it on the CPU, tested on a small input.

    Raises:
        UsageError: naming the argument of `Model.from_module` that does not fit.
    """
    if not isinstance(network, nn.Module):
        raise UsageError("network", f"is of type {type(network).__name__}, expected a torch.nn.Module with its weights")
    if not isinstance(name, str) or not re.fullmatch(r"[\w.-]+", name):
        raise OptionError("name", name, "must consist of letters, digits, and . _ -, since it is part of output names")
    check_choice("channels", str(channels), ("1", "3"))
    if scale is not None:
        check_whole("scale", scale, least=1)
    check_whole("size_minimum", size.minimum, least=1)
    check_whole("size_multiple", size.multiple, least=1)
    if halo_px is not None:
        check_whole("halo_px", halo_px, least=0)
    for precision in precisions:
        check_choice("precisions", precision, tuple(DTYPES))
    own = copy.deepcopy(network).to("cpu", torch.float32).eval().requires_grad_(False)
    found = _measured_scale(own, channels, video=video, size=size)
    if scale is not None and scale != found:
        raise OptionError("scale", scale, f"the network enlarges {found} times", f"pass {found}, or no scale")
    spec = ModelSpec(
        name=name,
        family=name,
        build=lambda: copy.deepcopy(own),
        scale=found,
        halo_px=CUSTOM_HALO_PX if halo_px is None else halo_px,
        exact_halo_px=None,
        tiling="approximate",
        paper="",
        licence="",
        size=size,
        window=Window(frames=None, overlap=0) if video else None,
        channels=channels,
        precisions=tuple(dict.fromkeys(("fp32", *precisions))),
    )
    return spec, own


def _measured_scale(network: nn.Module, channels: int, *, video: bool, size: SizeRule) -> int:
    """Measure how many times the network enlarges both sides of a small input that is not square."""
    h = size.padded(PROBE_PX)
    w = size.padded(h + 1)
    shape = (1, 3, channels, h, w) if video else (1, channels, h, w)
    x = torch.rand(shape, generator=torch.Generator().manual_seed(0))
    try:
        with torch.inference_mode():
            made = network(x)
    except Exception as error:  # the user's code may raise anything
        advice = "see size_minimum, size_multiple, channels and video"
        raise UsageError("network", f"failed on a tensor {shape}: {type(error).__name__}: {error}", advice) from error
    if not isinstance(made, Tensor):
        raise UsageError("network", f"returned {type(made).__name__} for a tensor {shape}, expected a tensor")
    scale = made.shape[-2] // h if made.ndim == x.ndim else 0
    if scale < 1 or made.shape != (*shape[:-2], h * scale, w * scale):
        happened = f"made {tuple(made.shape)} of {shape}, expected both sides a whole number of times larger, all else alike"
        raise UsageError("network", happened)
    return scale
