"""Weights files: read any of them safely, recognise the network from names and shapes, write upframe's own.

The content alone decides the format, the network and the scale of a file; its name is ignored. `weights_file` reads a file
without executing anything in it.

Weights for 0–255 are rewritten for [0, 1] when they are recognised, so callers see only [0, 1].
"""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any, cast

import safetensors.torch
import torch
from torch import nn

from upframe.errors import MissingError, ModelError, UsageError
from upframe.files import atomic_file, writing
from upframe.models import community
from upframe.models.cards import Card, ValueRange, card_path
from upframe.models.family import Family
from upframe.models.networks import FAMILIES
from upframe.models.spec import ModelSpec
from upframe.models.weights_file import State, read
from upframe.pixels import imresize

log = logging.getLogger(__name__)


# Recognising ----------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Recognised:
    """A network and the weights for it."""

    spec: ModelSpec
    """A listed spec, or a spec for an unpublished size of the same family."""
    state: State
    """All parameters under the names of `spec.build()`, for pixels in [0, 1]."""
    parameters: dict[str, int | str]
    """The arguments the network is built with."""
    found_range: ValueRange
    """Range of the pixels for which the given weights were made."""
    halo_is_known: bool = True
    """Whether `spec.halo_px` is a fact; else `halos.with_halo` finds it."""


def recognise(state: State, *, value_range: ValueRange | None = None, subject: str | Path = "weights") -> Recognised:
    """Recognise the network from names and shapes, and convert the weights to upframe's names and range.

    Names alone decide the possible family; only that family's network is imported and built.

    Args:
        state: As `read_state` returns it. It is not changed; tensors may be shared with the result.
        value_range: Range of the pixels for which the weights were made, if known. Otherwise it is measured: a smooth picture
            must come out like its bicubic enlargement (`measured_value_range`).
        subject: Name of the weights in messages, usually the path.

    Raises:
        ModelError: the weights are of another network, or some do not fit.
    """
    for given, family in ((names, one) for names in _without_prefixes(state) for one in FAMILIES):
        if not family.may_be(given):
            continue
        named = _renamed(given, family)
        try:
            parameters = family.configuration({name: tuple(value.shape) for name, value in named.items()})
        except (LookupError, ValueError):
            continue  # another family, or incomplete: `_refusal` finds out which
        spec = family.spec_for(**parameters)
        if misfits := _misfits(named, spec):
            raise _refusal(state, subject, (spec, misfits))
        found = value_range or "0-1"
        if value_range is None and family.fold_value_range is not None:
            found = _found_value_range(spec, named, subject)
        if found == "0-255":
            if family.fold_value_range is None:
                raise ModelError(subject, f"has a card that states 0-255, which {family.name} does not use", "correct its card")
            named = family.fold_value_range(named)
        return Recognised(spec, named, dict(parameters), found)
    return _of_community(state, subject)


def _of_community(state: State, subject: str | Path) -> Recognised:
    """Recognise another publisher's network, or refuse the weights."""
    try:
        found = community.recognised(state, subject)
    except MissingError as error:
        refusal = _refused_by_all(state, subject)
        advice = f"{refusal.advice}; for networks of other publishers: {error.advice}"
        raise ModelError(subject, refusal.happened, advice) from error
    if found is None:
        raise _refused_by_all(state, subject)
    return Recognised(*found, parameters={}, found_range="0-1", halo_is_known=False)


def _without_prefixes(state: State) -> Iterator[State]:
    """`state`, and again without each prefix that some holder of the network may have put before its names.

    A prefix is found, not known: the first part of names, either of all of them or of a group of them, where the others
    belong to another network. Averaged groups come first.
    """
    yield state
    groups: dict[str, State] = {}
    for name, value in state.items():
        prefix, dot, rest = name.partition(".")
        if dot and not prefix.isdigit():
            groups.setdefault(prefix, {})[rest] = value
    for prefix in sorted(groups, key=lambda prefix: "ema" not in prefix.lower()):
        if len(groups[prefix]) > 1:
            yield from _without_prefixes(groups[prefix])


def _renamed(state: State, family: Family) -> State:
    """Convert `state` to upframe's names and complete it. A second tensor cannot take a name that exists already."""
    named = {new if (new := family.own_name(name)) == name or new not in state else name: state[name] for name in state}
    return named if family.complete is None else family.complete(named)


def is_same_network(a: ModelSpec, b: ModelSpec) -> bool:
    """Whether two networks have the same parameters: some networks are published for several purposes."""
    return (a.family, a.scale, a.task) == (b.family, b.scale, b.task) and _shapes(a) == _shapes(b)


def instantiate(spec: ModelSpec, state: State) -> nn.Module:
    """Build the network with these weights, float32 on the CPU, in eval mode and without gradients.

    Parameters share memory with `state`.
    """
    with torch.device("meta"):  # initial weights would cost time and draw from the global generator
        network = spec.build()
    network.load_state_dict(state, assign=True)
    return network.eval().requires_grad_(False)


def measured_value_range(spec: ModelSpec, state: State) -> ValueRange | None:
    """Measure the pixel range for which an image network's weights were made; None if it is not clear.

    In its own range, a trained upscaler returns a smooth picture nearly like its bicubic enlargement. In the wrong range, the
    biases weigh 255 times too much or too little. With the official RLFN files, as published and folded, the root mean square
    error is below 0.0005 in the right range and above 0.006 in the wrong one. A network that normalises its features, such as
    VapSR, hardly notices the range, and the answer may be None.
    """
    side = max(32, spec.size.padded(32))
    y, x = torch.meshgrid(torch.arange(side) / side, torch.arange(side) / side, indexing="ij")
    planes = [0.5 + 0.3 * torch.sin(6 * x) * torch.cos(4 * y), 0.2 + 0.6 * x, 0.8 - 0.5 * y]
    picture = torch.stack([planes[i % 3] for i in range(spec.channels)])[None]
    inside = slice(2 * spec.scale, -2 * spec.scale)  # zero padding shows at the borders
    expected = imresize(picture, spec.scale)[..., inside, inside]
    network = instantiate(spec, state)
    errors: dict[ValueRange, float] = {}
    with torch.inference_mode():
        for value_range, white in (("0-1", 1.0), ("0-255", 255.0)):
            result = network(picture * white)[..., inside, inside] / white
            errors[cast("ValueRange", value_range)] = float((result - expected).square().mean().sqrt())
    best, other = sorted(errors, key=lambda key: errors[key] if errors[key] == errors[key] else float("inf"))
    clear = errors[best] < 0.05 and not errors[other] < 3 * errors[best]  # `not <`: the worse one may be NaN
    log.debug("%s: value range errors %s", spec.name, errors)
    return best if clear else None


def _found_value_range(spec: ModelSpec, state: State, subject: str | Path) -> ValueRange:
    measured = measured_value_range(spec, state)
    if measured is None:
        log.warning(
            "%s: does not say whether it works on 0-1 or 0-255, and its output tells neither; "
            "taken as 0-255, like the official %s weights",
            subject,
            spec.family,
        )
    return measured or "0-255"


# What fits not --------------------------------------------------------------------------------------------------------
@cache
def _shapes(spec: ModelSpec) -> Mapping[str, tuple[int, ...]]:
    with torch.device("meta"):
        return {name: tuple(value.shape) for name, value in spec.build().state_dict().items()}


def _misfits(state: State, spec: ModelSpec) -> list[str]:
    """Describe each parameter that is missing, surplus or of another shape; in the network's order."""
    expected = _shapes(spec)
    phrases = []
    for name, shape in expected.items():
        if name not in state:
            phrases.append(f"{name} is missing")
        elif tuple(state[name].shape) != shape:
            phrases.append(f"{name} is {_by(state[name].shape)} instead of {_by(shape)}")
    return phrases + [f"{name} is not part of it" for name in state if name not in expected]


def _by(shape: Iterable[int]) -> str:
    return "×".join(str(side) for side in shape) or "a number"


# Parameter names that reveal a well-known family; the first match counts.
_FOREIGN: tuple[tuple[str, str], ...] = (
    (r"^1\.sub\.0\.RDB1\.|^RRDB_trunk\.0\.RDB1\.|^body\.0\.rdb1\.", "ESRGAN or Real-ESRGAN (RRDB)"),
    (r"^layers\.0\.residual_group\.blocks\.0\.attn\.", "SwinIR or a relative of it"),
    (r"^edvr\.|^backbone\.backward_1\.", "IconVSR or BasicVSR++ (video)"),
    (r"^basic_module\.0\.basic_module\.", "SPyNet (optical flow)"),
    (r"^block_1\.c1_r\.(sk|eval_conv)\.", "SPAN"),
    (r"^IMDB1\.", "IMDN"),
    (r"^B1\.c1_r\.(pw|dw)\.", "BSRN"),
    (r"^B1\.c1_d\.weight$", "RFDN"),
    (r"^head\.0\.weight$", "EDSR or RCAN"),
)


def _foreign_family(state: State) -> str | None:
    for pattern, family in _FOREIGN:
        if any(re.search(pattern, name) for name in state):
            return family
    slopes = state.get("body.1.weight")  # of PReLU, between convolutions
    if "body.0.weight" in state and slopes is not None and slopes.ndim == 1:
        return "SRVGGNetCompact (Real-ESRGAN's small networks)"
    return None


def _nearest(state: State) -> tuple[ModelSpec, list[str]] | None:
    """Find the listed network that shares most names, and the parameters that do not fit; None if none shares half.

    This builds every network, but only for files that are refused.
    """
    candidates = []
    for family in FAMILIES:
        named = _renamed(state, family)
        for spec in family.specs:
            if 2 * len(named.keys() & _shapes(spec).keys()) > len(named):
                candidates.append((spec, _misfits(named, spec)))
    return min(candidates, key=lambda candidate: len(candidate[1]), default=None)


def _refused_by_all(state: State, subject: str | Path) -> ModelError:
    """Make the error for weights of no family; networks are compared only if the names alone do not tell whose they are."""
    return _refusal(state, subject, None if _foreign_family(state) else _nearest(state))


def _refusal(state: State, subject: str | Path, nearest: tuple[ModelSpec, list[str]] | None) -> ModelError:
    """Make the error for weights that fit no network of upframe: it names the most similar one, and the entries that do not
    fit."""
    foreign = _foreign_family(state)
    if nearest is not None and foreign is None:
        spec, misfits = nearest
        more = f" and {len(misfits) - 5} more" if len(misfits) > 5 else ""
        return ModelError(
            subject,
            f"looks like {spec.name} ({spec.family} ×{spec.scale}) but does not fit it: {', '.join(misfits[:5])}{more}",
            f"pass complete weights of {spec.name}",
        )
    looks = f"looks like {foreign}" if foreign else "does not belong to a network that upframe knows"
    *others, last = (family.name for family in FAMILIES)
    families = f"{', '.join(others)} or {last}"
    return ModelError(subject, f"{looks}; its first entries are {', '.join(list(state)[:5])}", f"expected {families} weights")


# Writing --------------------------------------------------------------------------------------------------------------
def save(target: str | Path, state: State, card: Card, *, overwrite: bool = False) -> Card:
    """Write weights and their card: `target` with the card in its header, and `<stem>.card.json` beside it.

    Both appear whole or not at all. The same state and card give the same bytes.

    Args:
        target: Path that ends in .safetensors.
        state: Parameters under the names of `spec.build()`, for pixels in [0, 1].
        card: `card.sha256` is filled in.

    Returns:
        The card as written beside the file.

    Raises:
        UsageError: `target` has another suffix, or exists and `overwrite` is not set.
        OutputError: the files cannot be written.
    """
    target = Path(target)
    if target.suffix != ".safetensors":
        raise UsageError(target, "weights are written as safetensors", "give it a name that ends in .safetensors")
    beside = card_path(target)
    if not overwrite and (taken := next((p for p in (target, beside) if p.exists()), None)):
        raise UsageError(taken, "exists already", "choose another name or allow overwriting")
    tensors = {name: value.detach().to("cpu").contiguous().clone() for name, value in state.items()}
    # A single metadata entry: with several their order in the file, and so its hash, would change from run to run.
    blob = safetensors.torch.save(tensors, metadata={"card": replace(card, sha256="").to_json()})
    card = replace(card, sha256=hashlib.sha256(blob).hexdigest())
    with atomic_file(beside) as card_file, atomic_file(target) as weights_file:  # the weights get their name first
        weights_file.write(blob)
        card_file.write(card.to_json().encode())
        with writing(target):
            weights_file.sync()
            card_file.sync()
            beside.unlink(missing_ok=True)  # a crash before the last rename must not leave the old card with new weights
    return card


def convert(
    source: str | Path,
    target: str | Path,
    *,
    name: str | None = None,
    value_range: ValueRange | None = None,
    trained_on: str | None = None,
    recipe: str | None = None,
    scores: dict[str, dict[str, dict[str, float]]] | None = None,
    tones: dict[str, float] | None = None,
    border_px: int | None = None,
    licence_code: str | None = None,
    licence_data: str | None = None,
    licence_weights: str | None = None,
    origin: str | None = None,
    created: str | None = None,
    notes: str | None = None,
    overwrite: bool = False,
) -> Card:
    """Convert any weights file that `recognise` knows to safetensors with upframe's names, for [0, 1], with a card.

    Args:
        target: Path that ends in .safetensors.
        value_range: Range of the pixels for which the source was made, for files that do not state it and cannot be measured.
        origin: Card entry `source`; by default the file's name.
        created: ISO 8601 day; today if absent.

    The other arguments are entries of the card; missing ones are copied from the source's card.

    Returns:
        The card as written.

    Raises:
        ModelError: the source is unreadable, unsafe or of another network.
        UsageError: as in `save`, or source and target are the same file.
        OutputError: as in `save`.
    """
    source, target = Path(source), Path(target)
    if target.exists() and source.exists() and target.samefile(source):
        raise UsageError(target, "is the file to convert itself", "choose another name; inputs are never changed")
    file = read(source)
    found = recognise(file.state, value_range=value_range or file.value_range, subject=source)
    if not found.halo_is_known:
        raise ModelError(source, f"is of another publisher ({found.spec.family})", "pass it as it is: `-m FILE`")
    entries = {
        "trained_on": trained_on,
        "recipe": recipe,
        "scores": scores,
        "tones": tones,
        "border_px": border_px,
        "licence_code": licence_code,
        "licence_data": licence_data,
        "licence_weights": licence_weights,
        "source": origin,
        "notes": notes,
    }
    given: dict[str, Any] = {key: value for key, value in entries.items() if value is not None}
    before = file.card or Card(name=found.spec.name, arch=found.spec.name, scale=found.spec.scale, source=source.name)
    card = replace(
        before,
        name=name or before.name,
        arch=found.spec.name,
        parameters=found.parameters,
        scale=found.spec.scale,
        value_range="0-1",
        created=created or datetime.now(UTC).date().isoformat(),
        **given,
    )
    return save(target, found.state, card, overwrite=overwrite)
