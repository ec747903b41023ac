"""All models by name: list them, find their weights, and `load` one.

A model is a network and its weights. Three kinds of names are understood: the models that ship with upframe
(`photo-x4`), published networks whose weights the user brings (`rlfn-x4`), and paths of weights files.

Names and facts need no torch: functions that read weights import it when they are called, so that listing models is fast.
"""

from __future__ import annotations

import difflib
import logging
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from upframe.errors import ModelError, UsageError
from upframe.models.cards import WEIGHTS_SUFFIXES, Card, ValueRange, card_path
from upframe.models.networks import MODELS
from upframe.models.official import OFFICIAL, OfficialWeights
from upframe.models.spec import ModelSpec, Precision, SizeRule, Task

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Shipped:
    """Weights that upframe ships."""

    file: str
    """Name in the package's `weights` folder."""
    arch: str
    """Key of `MODELS`."""
    for_degraded: bool = False
    """Whether it was trained for inputs with noise, blur and compression, not for clean ones."""


SHIPPED: dict[str, Shipped] = {
    "photo-x2": Shipped("photo_x2.safetensors", "rlfn-ntire-x2"),
    "photo-x3": Shipped("photo_x3.safetensors", "rlfn-ntire-x3"),
    "photo-x4": Shipped("photo_x4.safetensors", "rlfn-ntire-x4"),
    "photo-vapsr-x2": Shipped("photo_vapsr_x2.safetensors", "vapsr-s-x2"),
    "photo-vapsr-x3": Shipped("photo_vapsr_x3.safetensors", "vapsr-s-x3"),
    "photo-vapsr-x4": Shipped("photo_vapsr_x4.safetensors", "vapsr-s-x4"),
    "photo-real-x4": Shipped("photo_real_x4.safetensors", "rlfn-ntire-x4", for_degraded=True),
    "video-x4": Shipped("video_x4.safetensors", "weft-x4"),
    "video-real-x4": Shipped("video_real_x4.safetensors", "weft-x4", for_degraded=True),
}
"""Shipped models by name; `photo-xN` are the defaults."""

WEIGHTS_FOLDER = Path(__file__).with_name("weights")
USER_FOLDER_VARIABLE = "UPFRAME_WEIGHTS"
"""Environment variable with the folder of the user's weights files, which are found by name: `rlfn_x4.pth` as `rlfn-x4`."""

DEFAULT_SCALE = 4


# Loading --------------------------------------------------------------------------------------------------------------
@dataclass(frozen=True, eq=False)
class Model:
    """A network with its weights: a function of tensors, which `upscale`, `Upscaler` and `VideoUpscaler` also take.

    `model(x)` enlarges (N, C, H, W), or for a video network (N, T, C, H, W), with values in [0, 1], to `scale` times the
    height and width. Every size is accepted: input is mirrored to a size that the network takes, and the result is cropped. The
    result has the device and dtype of `x` and lies in [0, 1]; no gradient flows. `C` is `spec.channels`, nearly always 3. The
    network runs alone: `Upscaler` cuts tiles, and mirrors the border that some weights need (`Card.border_px`).

    A `Model` never changes: `to`, `half`, `bfloat16` and `float` return another one.

    Example:
        >>> import torch, upframe
        >>> model = upframe.load("photo", scale=2)
        >>> model(torch.rand(1, 3, 20, 31)).shape
        torch.Size([1, 3, 40, 62])
    """

    spec: ModelSpec
    """Facts about the network."""
    network: nn.Module
    """The network in float32, on the CPU, in eval mode, without gradients, even if the model was moved; takes and returns
    pixels in [0, 1]. Not shared with models that `load` returns later."""
    card: Card | None
    """None for files without a card, such as official ones."""
    source: str
    """Path of the weights file; empty if there is none."""
    sha256: str
    """SHA-256 of the weights file."""
    placed_on: str | None = None
    """Device that `to` chose; None if not chosen, and then `Upscaler` chooses."""
    computes_in: Precision | None = None
    """Precision that `half`, `bfloat16` or `float` chose; None as for `placed_on`."""

    @property
    def name(self) -> str:
        """Name in file names and reports: the card's name if there is a card, else the network's."""
        return self.card.name if self.card else self.spec.name

    @property
    def scale(self) -> int:
        """Output pixels per input pixel, along each side."""
        return self.spec.scale

    @property
    def device(self) -> torch.device:
        """Device of the model: the CPU, unless `to` chose another."""
        import torch

        return torch.device(self.placed_on or "cpu")

    @property
    def precision(self) -> Precision:
        """Precision of the model: "fp32", unless `half` or `bfloat16` chose another."""
        return self.computes_in or "fp32"

    def __call__(self, x: Tensor, *, sigma: float | None = None) -> Tensor:
        """Enlarge pictures or clips; see the class.

        Args:
            x: (N, C, H, W), or (N, T, C, H, W) for a video network, floats in [0, 1] on the model's device.
            sigma: Standard deviation of the noise on the 0 to 255 scale, for networks that take it.

        Raises:
            UsageError: naming the argument that does not fit.

        Example:
            >>> import torch, upframe
            >>> upframe.load("photo-x4")(torch.zeros(2, 3, 8, 8)).shape
            torch.Size([2, 3, 32, 32])
        """
        from upframe.models import calling

        return calling.call(self, self._placed, x, sigma)

    @cached_property
    def _placed(self) -> nn.Module:
        from upframe.models import calling

        return calling.place(self)

    def to(self, device: str | torch.device) -> Model:
        """Return the model on another device: "cpu", "cuda", "cuda:N", "mps", or "auto" for the best one available.

        Raises:
            UsageError: if `device` is not the name of a device.
            ResourceError: if this machine does not have the device.

        Example:
            >>> import upframe
            >>> upframe.load("photo-x4").to("cpu").device
            device(type='cpu')
        """
        from upframe.models import calling

        return replace(self, placed_on=calling.checked_device(device))

    def half(self) -> Model:
        """Return the model in float16; raises OptionError if the network is not proven in it."""
        from upframe.models import calling

        return replace(self, computes_in=calling.checked_precision(self.spec, "fp16"))

    def bfloat16(self) -> Model:
        """Return the model in bfloat16; raises OptionError if the network is not proven in it."""
        from upframe.models import calling

        return replace(self, computes_in=calling.checked_precision(self.spec, "bf16"))

    def float(self) -> Model:
        """Return the model in float32."""
        return replace(self, computes_in="fp32")

    @classmethod
    def from_module(
        cls,
        network: nn.Module,
        *,
        scale: int | None = None,
        name: str = "custom",
        channels: int = 3,
        video: bool = False,
        size_minimum: int = 1,
        size_multiple: int = 1,
        halo_px: int | None = None,
        precisions: tuple[Precision, ...] = ("fp32",),
    ) -> Model:
        """Make a model from a copy of your own `torch.nn.Module`, which is tested on a small input.

        Args:
            network: Takes (N, C, H, W), or with `video` (N, T, C, H, W), in [0, 1], and enlarges both sides by a whole number.
            scale: That number; None measures it.
            name: Name in output files and reports.
            channels: 3, or 1 for a network that takes planes.
            video: Whether it takes clips instead of pictures.
            size_minimum, size_multiple: Least side, and the number of which sides must be multiples, in pixels; other sizes are
                mirrored.
            halo_px: Context that tiles of large pictures read on each side; None is 32 pixels.
            precisions: Precisions in which it is known to compute well; "fp32" is always included.

        Raises:
            UsageError: naming the argument that does not fit.

        Example:
            >>> import torch, upframe
            >>> upframe.Model.from_module(torch.nn.Upsample(scale_factor=3), name="nearest").scale
            3
        """
        from upframe.models import calling

        size = SizeRule(size_minimum, size_multiple)
        spec, own = calling.custom_spec(
            network,
            scale=scale,
            name=name,
            channels=channels,
            video=video,
            size=size,
            halo_px=halo_px,
            precisions=precisions,
        )
        return cls(spec, own, None, "", "")


def load(name_or_path: str | Path, *, scale: int | None = None) -> Model:
    """Load a model by name or from a weights file.

    Args:
        name_or_path: A shipped model (`photo-x4`), a published network (`rlfn-x4`) or a name in the folder that
            $UPFRAME_WEIGHTS names, in any case and with `_` or `-`; or the path of a weights file. Text with a folder or with
            the extension of a weights file is a path.
        scale: Chooses between several models of one name: `photo` is `photo-x4` unless another scale is stated, `vapsr` with
            scale 2 is `vapsr-x2`. Paths and full names ignore it.

    Raises:
        UsageError: no model has that name; the three nearest are suggested.
        ModelError: the weights are absent, damaged, unsafe or of another network than the name says.
    """
    found = _find(name_or_path, scale)
    if found.shipped is not None:
        return _load_shipped(found.shipped)
    if found.path is None:
        assert found.arch is not None
        raise ModelError(
            found.arch,
            f"upframe ships no weights for {found.arch}",
            f"pass the file: `model='PATH'`, or put it into the folder that ${USER_FOLDER_VARIABLE} names as {found.arch}.pth",
        )
    model = _load_file(found.path)
    if found.arch is not None and model.spec.name != found.arch:
        from upframe.models import checkpoints

        if checkpoints.is_same_network(model.spec, MODELS[found.arch]):
            return replace(model, spec=MODELS[found.arch])
        raise ModelError(
            found.path,
            f"holds {model.spec.name} (×{model.spec.scale}), expected {found.arch} (×{MODELS[found.arch].scale})",
            "rename the file or pass it as a path",
        )
    return model


def load_or_untrained(name_or_path: str | Path, *, scale: int | None = None) -> Model:
    """Like `load`, but a published network without weights gets random ones, which suffice to count and time it.

    Raises:
        UsageError, ModelError: as `load`, save for absent weights.
    """
    found = _find(name_or_path, scale)
    if found.arch is None or found.path is not None:
        return load(name_or_path, scale=scale)
    spec = MODELS[found.arch]
    return Model(spec, spec.build().eval().requires_grad_(False), None, "", "")


def spec_of_name(name: str) -> ModelSpec | None:
    """The network that a name stands for, found without reading weights; None for a weights file, which may come later.

    Raises:
        UsageError: no model has that name; the three nearest are suggested.
    """
    found = _find(name, None)
    arch = found.arch if found.shipped is None else SHIPPED[found.shipped].arch
    return None if arch is None else MODELS[arch]


def file_of_name(name: str) -> Path | None:
    """The weights file that a name stands for, whether it is there or not; None for the name of a network.

    Raises:
        UsageError: as `spec_of_name`.
    """
    found = _find(name, None)
    return found.path if found.arch is None else None


def default_model(scale: float) -> str:
    """Choose the shipped model for an enlargement by `scale`: the smallest that reaches it, else the largest."""
    names = [name for name in SHIPPED if re.fullmatch(r"photo-x\d+", name)]
    by_scale = sorted(names, key=lambda name: MODELS[SHIPPED[name].arch].scale)
    return next((name for name in by_scale if MODELS[SHIPPED[name].arch].scale >= scale), by_scale[-1])


@dataclass(frozen=True)
class _Found:
    """Meaning of a name: one field is set, or `arch` together with the user's file for it."""

    shipped: str | None = None
    arch: str | None = None
    path: Path | None = None


def _find(name_or_path: str | Path, scale: int | None) -> _Found:
    """Find the model that the user means; raises UsageError if no model has that name."""
    text = str(name_or_path)
    path = Path(text)
    has_folder = any(separator in text for separator in (os.sep, os.altsep) if separator)
    if isinstance(name_or_path, Path) or has_folder:
        return _Found(path=path)
    user_files = _user_files()
    if path.suffix.lower() in WEIGHTS_SUFFIXES:
        in_folder = next((file for file in user_files.values() if file.name == text), None)
        return _Found(path=path if _is_there(path) or in_folder is None else in_folder)
    name = _normal(text)
    if name == "photo":
        return _Found(shipped=default_model(scale or DEFAULT_SCALE))
    archs = _arch_names()
    with_scale = f"{name}-x{scale or DEFAULT_SCALE}"
    for candidate in (with_scale, name):
        if candidate in SHIPPED:
            return _Found(shipped=candidate)
        if candidate in archs:
            spec = MODELS[archs[candidate]]
            file = next((user_files[n] for n in map(_normal, (spec.name, *spec.aliases)) if n in user_files), None)
            return _Found(arch=spec.name, path=file)
    if name in user_files:
        return _Found(path=user_files[name])
    if _is_there(path):
        return _Found(path=path)
    known = [*SHIPPED, *MODELS, *user_files]
    near = difflib.get_close_matches(name, known, n=3, cutoff=0)
    raise UsageError(text, "no model has that name", f"did you mean {near[0]}, {near[1]} or {near[2]}?")


def _is_there(path: Path) -> bool:
    try:
        return path.exists() and not path.is_dir()
    except OSError:  # a name that is too long for any file
        return False


def _normal(name: str) -> str:
    return name.strip().casefold().replace("_", "-")


@cache
def _arch_names() -> Mapping[str, str]:
    """Map every normalised name of a published network to its registry id."""
    return {_normal(name): spec.name for spec in MODELS.values() for name in (*spec.aliases, spec.name)}


def _user_files() -> dict[str, Path]:
    """Map normalised stems to weights files in the user's folder; if several have one stem, the safer format wins."""
    folder = os.environ.get(USER_FOLDER_VARIABLE)
    if not folder:
        return {}
    try:
        files = sorted(Path(folder).iterdir())
    except OSError as error:
        log.warning("$%s is ignored: %s", USER_FOLDER_VARIABLE, error)
        return {}
    usable = [file for file in files if file.suffix.lower() in WEIGHTS_SUFFIXES and file.is_file()]
    usable.sort(key=lambda file: WEIGHTS_SUFFIXES.index(file.suffix.lower()), reverse=True)
    return {_normal(file.stem): file for file in usable}


def _load_shipped(name: str) -> Model:
    path = WEIGHTS_FOLDER / SHIPPED[name].file
    advice = "install upframe again, or pass a weights file: `model='PATH'`"
    if not path.is_file() or not card_path(path).is_file():
        lacking = path if not path.is_file() else card_path(path)
        raise ModelError(name, f"the installation is damaged: {lacking.name} is missing", advice)
    try:
        model = _load_file(path)
    except ModelError as error:
        raise ModelError(name, f"the installation is damaged: {path.name} {error.happened}", advice) from error
    if model.card is None or model.card.sha256 != model.sha256 or model.spec.name != SHIPPED[name].arch:
        raise ModelError(name, f"the installation is damaged: {path.name} and its card do not agree", advice)
    return model


def _load_file(path: Path) -> Model:
    from upframe.models import checkpoints, halos
    from upframe.models.weights_file import read

    file = read(path)
    found = checkpoints.recognise(file.state, value_range=file.value_range, subject=path)
    network = checkpoints.instantiate(found.spec, found.state)
    spec = found.spec if found.halo_is_known else halos.with_halo(found.spec, network, file.sha256)
    return Model(spec, network, file.card, str(path), file.sha256)


# Listing --------------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class ModelEntry:
    """One line of `upframe models list`."""

    name: str
    family: str
    scale: int
    params: int
    """Number of parameters."""
    shipped: bool
    """Whether the weights are part of upframe."""
    weights: Path | None
    """File of the weights. If None, the user must provide one, or for a shipped model reinstall upframe."""
    licence: str
    """Licence of the weights: for shipped weights as in their card, else of the officially published ones; empty if unknown."""
    paper: str
    aliases: tuple[str, ...]
    purpose: Purpose
    """The inputs that it is for."""
    task: Task
    """The kind of work that it does."""
    takes_clips: bool
    """Whether it looks at several frames at once, so that it is for videos."""


Purpose = Literal["photos", "degraded photos", "drawings", "videos", "degraded videos", "restoration"]
"""The inputs that a model is for; "restoration" keeps the size of the picture."""


def list_models() -> list[ModelEntry]:
    """List every model that upframe knows by name: shipped ones, published networks, and files with a card in the folder that
    $UPFRAME_WEIGHTS names. Reads no weights.

    A shipped model whose file is missing has `weights` None.
    """
    user_files = _user_files()
    entries, taken = [], set[Path]()
    for name, shipped in SHIPPED.items():
        path = WEIGHTS_FOLDER / shipped.file
        present = path.is_file() and card_path(path).is_file()
        aliases = ("photo",) if name == default_model(DEFAULT_SCALE) else ()
        licence = _shipped_card(path).licence_weights if present else ""
        purpose = _purpose(MODELS[shipped.arch], for_degraded=shipped.for_degraded)
        entries.append(_entry(MODELS[shipped.arch], name, True, path if present else None, licence, aliases, purpose))
    for spec in MODELS.values():
        file = next((user_files[n] for n in map(_normal, (spec.name, *spec.aliases)) if n in user_files), None)
        card = None if file is None else _card_beside(file)
        purpose = _purpose(spec, for_degraded=spec.preparation is not None, suits="" if card is None else card.suits)
        entries.append(_entry(spec, spec.name, False, file, spec.licence, spec.aliases, purpose))
        taken |= set() if file is None else {file}
    return [*entries, *_entries_by_card({name: file for name, file in user_files.items() if file not in taken})]


def _entries_by_card(files: Mapping[str, Path]) -> Iterator[ModelEntry]:
    """Files of the user under names of their own, as far as a card beside them tells which network they hold."""
    for name, file in files.items():
        card = _card_beside(file)
        spec = None if card is None else MODELS.get(card.arch)
        if card is not None and spec is not None and name not in SHIPPED:
            purpose = _purpose(spec, for_degraded=spec.preparation is not None, suits=card.suits)
            yield _entry(spec, name, False, file, card.licence_weights, (), purpose)


def _card_beside(weights: Path) -> Card | None:
    """The card beside a file of the user; None if there is none that can be read."""
    path = card_path(weights)
    try:
        return Card.read(path) if path.is_file() else None
    except ModelError as error:
        log.warning("%s is ignored: %s", path.name, error)
        return None


def _purpose(spec: ModelSpec, *, for_degraded: bool, suits: str = "") -> Purpose:
    if spec.task != "upscale":
        return "restoration"
    if spec.window is not None:
        return "degraded videos" if for_degraded else "videos"
    if (suits or spec.suits) == "drawings":
        return "drawings"
    return "degraded photos" if for_degraded else "photos"


def _shipped_card(path: Path) -> Card:
    return Card.read(card_path(path))


def _entry(
    spec: ModelSpec,
    name: str,
    shipped: bool,
    weights: Path | None,
    licence: str,
    aliases: tuple[str, ...],
    purpose: Purpose,
) -> ModelEntry:
    params = count_parameters(spec)
    takes_clips = spec.window is not None
    return ModelEntry(
        name, spec.family, spec.scale, params, shipped, weights, licence, spec.paper, aliases, purpose, spec.task, takes_clips
    )


def count_parameters(spec: ModelSpec) -> int:
    """Number of parameters of a network: as stated by its spec, else counted without allocating them."""
    if spec.parameters is not None:
        return spec.parameters
    import torch

    with torch.device("meta"):
        return sum(parameter.numel() for parameter in spec.build().parameters())


@dataclass(frozen=True)
class ModelInfo:
    """All facts about a model, for `upframe models info`."""

    name: str
    spec: ModelSpec
    params: int
    card: Card | None
    official: OfficialWeights | None
    """Facts about the file, if it is officially published."""
    source: str | None
    """Path of the weights file; None if there is none."""
    sha256: str | None


def info(name_or_path: str | Path, *, scale: int | None = None) -> ModelInfo:
    """Return the facts about a model; published networks without weights are described, too.

    Args:
        name_or_path, scale: As for `load`.

    Raises:
        UsageError, ModelError: as `load`, except for absent weights of a published network.
    """
    found = _find(name_or_path, scale)
    if found.arch is not None and found.path is None:
        spec = MODELS[found.arch]
        return ModelInfo(spec.name, spec, count_parameters(spec), None, None, None, None)
    model = load(name_or_path, scale=scale)
    official = OFFICIAL.get(model.sha256)
    params = count_parameters(model.spec)
    return ModelInfo(model.name, model.spec, params, model.card, official, model.source, model.sha256)


def convert(
    source: str | Path,
    target: str | Path,
    *,
    name: str | None = None,
    value_range: ValueRange | None = None,
    notes: str | None = None,
    overwrite: bool = False,
) -> Card:
    """Convert a file by `checkpoints.convert`, and add the facts about official files to its card.

    Args:
        name: Name of the result; by default the network's name.
        value_range: For files that do not state their range and whose range cannot be measured.

    Raises:
        ModelError, UsageError, OutputError: as `checkpoints.convert`.
    """
    from upframe.models import checkpoints
    from upframe.models.weights_file import read

    official = OFFICIAL.get(read(source).sha256)
    if official is None:
        return checkpoints.convert(source, target, name=name, value_range=value_range, notes=notes, overwrite=overwrite)
    return checkpoints.convert(
        source,
        target,
        name=name,
        value_range=value_range,
        scores={"sisr-y": {score.dataset: {"psnr": score.psnr, "ssim": score.ssim} for score in official.scores}},
        licence_weights=official.licence,
        origin=f"{official.source} ({official.file})",
        notes=notes,
        overwrite=overwrite,
    )
