"""Cards: facts about a weights file, as JSON beside it and in its header. Needs no torch."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, cast, get_args

from upframe.errors import ModelError
from upframe.files import parsed_json
from upframe.models.spec import Suits

ValueRange = Literal["0-1", "0-255"]

MOST_BORDER_PX = 64
"""Widest border that a card may ask for."""

_MOST_BYTES = 1 << 20
_LONGEST_SHOWN = 40
_MOST_SHOWN = 5  # entries in one message

WEIGHTS_SUFFIXES = (".safetensors", ".pth", ".pt", ".ckpt", ".bin")
"""Extensions of weights files, in order of preference. The content decides the format: a `.ckpt` may be PyTorch's or
MindSpore's."""


@dataclass(frozen=True, kw_only=True)
class Card:
    """Facts about a weights file, stored in the header of the safetensors file and in a file beside it."""

    name: str
    """Name of the model for users, for instance "photo-x4"."""
    arch: str
    """Name of the `ModelSpec` the weights belong to."""
    parameters: dict[str, int | str] = field(default_factory=dict)
    """Arguments of the network's constructor: numbers, booleans and words."""
    scale: int
    value_range: ValueRange = "0-1"
    """Range of the pixels that the network takes and returns."""
    suits: Suits | Literal[""] = ""
    """Pictures that the weights suit best; empty is what their network suits."""
    trained_on: str = ""
    recipe: str = ""
    """Name of the training recipe, or how the weights were made."""
    scores: dict[str, dict[str, dict[str, float]]] = field(default_factory=dict)
    """Protocol → data set → {"psnr": dB, "ssim": 0–1}."""
    tones: dict[str, float] = field(default_factory=dict)
    """Errors of flat colours and of patterns in code values of 255, as `evaluation.tones.Tones` names them; empty if not
    measured."""
    border_px: int = 0
    """Mirrored input pixels that `Upscaler` puts around a picture and cuts off again, for weights that print a rim without
    them."""
    sha256: str = ""
    """SHA-256 of the weights file in hexadecimal; empty in the file's own header, which cannot hold it."""
    licence_code: str = ""
    licence_data: str = ""
    licence_weights: str = ""
    source: str = ""
    """Source of the weights: a link, or the name of the converted file."""
    created: str = ""
    """Day of writing, ISO 8601."""
    notes: str = ""

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=2, ensure_ascii=False) + "\n"

    @classmethod
    def read(cls, path: Path) -> Card:
        """The card in a file.

        Raises:
            ModelError: it cannot be read, or is no card.
        """
        try:
            with path.open("rb") as file:
                content = file.read(_MOST_BYTES + 1)
            text = content.decode("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ModelError(path, f"cannot be read ({error})", "remove it or write it again with convert") from error
        return cls.from_json(text, subject=path)

    @classmethod
    def from_json(cls, text: str, *, subject: str | Path) -> Card:
        """Read a card that `to_json` wrote.

        Args:
            subject: The file it was read from, for messages.

        Raises:
            ModelError: the text is no JSON object, or a key is unknown, absent or of the wrong type.
        """
        if len(text) > _MOST_BYTES:
            raise ModelError(subject, "is not a card: it is far too long", "remove it or write it again with convert")
        try:
            content = parsed_json(text)
        except ValueError as error:
            raise ModelError(
                subject, f"is not a readable card ({error})", "remove it or write it again with convert"
            ) from error
        if not isinstance(content, dict):
            raise ModelError(subject, "is not a card: it holds no JSON object", "remove it or write it again with convert")
        known = {f.name for f in fields(cls)}
        if unknown := sorted(set(content) - known):
            raise ModelError(subject, f"has unknown card entries: {_listed(unknown)}", f"known are {', '.join(sorted(known))}")
        if absent := sorted({"name", "arch", "scale"} - set(content)):
            raise ModelError(subject, f"lacks the card entries {', '.join(absent)}", "write it again with convert")
        if wrong := [key for key, value in content.items() if not _card_value_fits(key, value)]:
            raise ModelError(subject, f"has card entries of the wrong type: {_listed(wrong)}", "write it again with convert")
        return cls(**content)


def _listed(names: Sequence[str]) -> str:
    return ", ".join(name[:_LONGEST_SHOWN] for name in names[:_MOST_SHOWN]) + (", …" if len(names) > _MOST_SHOWN else "")


def _card_value_fits(key: str, value: object) -> bool:
    if key == "scale":
        return type(value) is int and value > 0
    if key == "border_px":
        return type(value) is int and 0 <= value <= MOST_BORDER_PX
    if key == "tones":
        return isinstance(value, dict) and all(type(number) in (int, float) for number in value.values())
    if key == "value_range":
        return value in ("0-1", "0-255")
    if key == "suits":
        return value in ("", *get_args(Suits))
    if key == "parameters":
        return isinstance(value, dict) and all(isinstance(argument, int | str) for argument in value.values())
    if key == "scores":
        try:
            return all(
                isinstance(number, int | float)
                for sets in cast("dict[str, Any]", value).values()
                for scores in sets.values()
                for number in scores.values()
            )
        except AttributeError:
            return False
    return isinstance(value, str)


def card_path(weights: Path) -> Path:
    """Return the path of a safetensors file's card: `photo_x4.safetensors` → `photo_x4.card.json`."""
    return weights.with_suffix(".card.json")
