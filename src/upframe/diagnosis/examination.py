"""Examine this installation, part by part. A part that is broken or hangs hides no other."""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

from upframe.diagnosis import probes
from upframe.engines import cache, vulkan
from upframe.errors import OutputError, one_line
from upframe.files import amount, atomic_path, folder_bytes, free_bytes
from upframe.kernels import LIBRARIES, NEEDS
from upframe.machine import available_memory_bytes, cpu_flags, processor_name
from upframe.media.video.hardware import ENCODERS, HARDWARE
from upframe.probing import TIMEOUT_S, ProbeError, ask
from upframe.version import __version__

State = Literal["ok", "absent", "broken"]
"""Whether something works, is not installed or not there, which is no fault, or is there and does not work."""

EXTRAS = {
    "heif": ("pillow-heif",),
    "jxl": ("pillow-jxl-plugin",),
    "tiff-all": ("imagecodecs",),
    "community": ("spandrel",),
    "onnx": ("onnx", "onnxscript", "onnxruntime"),
    "openvino": ("openvino",),
    "vulkan": ("ncnn", "pnnx", "onnx", "onnxscript"),
    "train": ("lmdb", "tensorboard"),
    "serve": ("fastapi", "uvicorn", "python-multipart", "pydantic", "httpx", "watchfiles"),
}
"""The extras of pyproject.toml that users install, and their packages."""


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at."""

    part: str
    """"versions", "machine", "devices", "codecs", "extras", "disk" or "self-test"."""
    name: str
    state: State
    detail: str


def examine(*, timeout_s: float = TIMEOUT_S, devices_only: bool = False) -> tuple[Finding, ...]:
    """Look at every part; drivers are asked in processes of their own, all at the same time.

    Args:
        timeout_s: Time for each process.
        devices_only: Whether only devices are looked at.
    """
    own = partial(ask, timeout_s=timeout_s)
    parts: list[Callable[[], Iterator[Finding]]] = [partial(_devices, own)]
    if not devices_only:
        parts = [_versions, partial(_machine, own), *parts, partial(_codecs, own), _extras, _disk, partial(_self_test, own)]
    with ThreadPoolExecutor(len(parts)) as pool:
        return tuple(finding for found in pool.map(lambda part: tuple(part()), parts) for finding in found)


Ask = Callable[[Callable[[], Any]], Any]


def _versions() -> Iterator[Finding]:
    yield Finding("versions", "upframe", "ok", __version__)
    yield Finding("versions", "python", "ok", f"{platform.python_version()}, {platform.system()} {platform.machine()}")
    for name in ("torch", "numpy", "pillow", "av", "safetensors", "tifffile"):
        yield _package("versions", name, "broken")


def _package(part: str, name: str, without: State) -> Finding:
    try:
        return Finding(part, name, "ok", metadata.version(name))
    except metadata.PackageNotFoundError:
        return Finding(part, name, without, "not installed")


def _machine(own: Ask) -> Iterator[Finding]:
    yield Finding("machine", "processor", "ok", processor_name() or "unknown")
    yield Finding("machine", "memory", "ok", f"{amount(available_memory_bytes())} available")
    able = [level for level, needed in NEEDS.items() if needed <= cpu_flags()]
    built = [level for level in able if LIBRARIES[level].is_file()]
    try:
        level = own(probes.kernel_level)
    except ProbeError as error:
        yield Finding("machine", "kernels", "broken", f"loading them {error}")
        return
    if level is not None:
        yield Finding("machine", "kernels", "ok", level)
    elif built:
        yield Finding("machine", "kernels", "broken", f"{LIBRARIES[built[0]].name} does not load; reinstall upframe")
    else:
        why = "not built; reinstall upframe with a C++ compiler at hand" if able else "need a CPU with AVX2"
        yield Finding("machine", "kernels", "absent", why)


def _devices(own: Ask) -> Iterator[Finding]:
    yield Finding("devices", "cpu", "ok", processor_name() or "unknown")
    for engine, package, question in (
        ("torch", "torch", probes.torch_devices),
        ("vulkan", "ncnn", vulkan.driver_devices),
        ("onnx", "onnxruntime", probes.onnx_devices),
    ):
        yield from _devices_of(own, engine, package, question)


def _devices_of(own: Ask, engine: str, package: str, question: Callable[[], Any]) -> Iterator[Finding]:
    if _package("devices", package, "absent").state == "absent" and not (engine == "onnx" and _has_other_runtime()):
        yield Finding("devices", engine, "absent", "the extra is not installed")
        return
    try:
        found = own(question)
    except ProbeError as error:
        yield Finding("devices", engine, "broken", f"asking for its devices {error}")
        return
    if not found:
        yield Finding("devices", engine, "absent", "no device besides the CPU")
    for one in found:
        shown = f"vulkan:{one[0]} {one[1]} ({vulkan.kind_of(one[2])})" if engine == "vulkan" else one
        yield Finding("devices", engine, "ok", shown)


def _has_other_runtime() -> bool:
    """Whether a build of ONNX Runtime for devices is installed: it has a name of its own."""
    names = ("onnxruntime-gpu", "onnxruntime-directml", "onnxruntime-openvino")
    return any(_package("devices", name, "absent").state == "ok" for name in names)


def _codecs(own: Ask) -> Iterator[Finding]:
    try:
        faults: dict[str, str | None] = own(probes.encoder_faults)
    except ProbeError as error:
        yield Finding("codecs", "FFmpeg", "broken", f"asking for its encoders {error}")
        return
    for name, fault in faults.items():
        if fault is None:
            yield Finding("codecs", name, "ok", ENCODERS[name].label)
        else:
            yield Finding("codecs", name, "absent" if name in HARDWARE else "broken", fault)


def _extras() -> Iterator[Finding]:
    for extra, packages in EXTRAS.items():
        found = [_package("extras", name, "absent") for name in packages]
        missing = [one.name for one in found if one.state == "absent"]
        if missing:
            yield Finding("extras", extra, "absent", f"{', '.join(missing)} not installed")
        else:
            yield Finding("extras", extra, "ok", ", ".join(f"{one.name} {one.detail}" for one in found))


def _disk() -> Iterator[Finding]:
    folder = cache.default_folder()
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with atomic_path(folder / "doctor") as trial:
            trial.write_bytes(b"upframe")
        (folder / "doctor").unlink()
        yield Finding("disk", "cache", "ok", f"{folder}, {amount(folder_bytes(folder))}")
    except (OSError, OutputError) as error:
        yield Finding("disk", "cache", "broken", f"{folder} cannot be written ({error}); set ${cache.FOLDER_VARIABLE}")
    for name, place in (("free for the cache", folder), ("free here", Path())):
        try:
            yield Finding("disk", name, "ok", amount(free_bytes(place)))
        except (OSError, OutputError) as error:  # for instance the current folder was removed
            yield Finding("disk", name, "broken", one_line(str(error)))


def _self_test(own: Ask) -> Iterator[Finding]:
    try:
        results: dict[str, list[float]] = own(probes.self_test)
    except ProbeError as error:
        yield Finding("self-test", "photo-x2", "broken", f"enlarging a picture {error}")
        return
    for engine, values in results.items():
        off = max(abs(value - known) for value, known in zip(values, probes.KNOWN, strict=True))
        right = off <= probes.ROUNDING  # a NaN is not
        yield Finding(
            "self-test",
            engine,
            "ok" if right else "broken",
            "makes the known picture" if right else f"is off by {off:.1e} of 1",
        )
