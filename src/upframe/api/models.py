"""`load` and `list_models`."""

from __future__ import annotations

from fnmatch import fnmatchcase
from pathlib import Path

from upframe.errors import OptionError, UsageError, check_whole
from upframe.models import registry
from upframe.models.registry import Model, ModelEntry


def load(name_or_path: str | Path, *, scale: int | None = None) -> Model:
    """Load a model by name or from a weights file. A model is a function of tensors.

    Args:
        name_or_path: A shipped model (`photo-x4`), a published network (`rlfn-x4`) whose weights lie in the folder that
            $UPFRAME_WEIGHTS names, or the path of a weights file. Case, `_` and `-` do not matter in names.
        scale: Which model, if a name stands for several: `photo` with scale 2 is `photo-x2`. None takes 4 there.

    Raises:
        UsageError: no model has that name; the nearest are suggested.
        ModelError: the weights are absent, damaged or unsafe, or belong to another network than the name says.

    Example:
        >>> import upframe
        >>> model = upframe.load("photo", scale=2)
        >>> model.name, model.scale
        ('photo-x2', 2)
    """
    if not isinstance(name_or_path, str | Path) or not str(name_or_path):
        raise UsageError("name_or_path", f"is {name_or_path!r}, expected a name or a path", "see upframe.list_models()")
    if scale is not None:
        check_whole("scale", scale, least=1)
    return registry.load(name_or_path, scale=scale)


def list_models(pattern: str = "*") -> list[ModelEntry]:
    """List every model that upframe knows by name: shipped models and published networks. Reads no weights.

    Args:
        pattern: A file pattern for names: "vrt*", "*-x2". A model is listed if its name or another name of it matches.

    Raises:
        UsageError: `pattern` is no text.

    Example:
        >>> import upframe
        >>> [entry.name for entry in upframe.list_models("photo-x*")]
        ['photo-x2', 'photo-x3', 'photo-x4']
    """
    if not isinstance(pattern, str):
        raise OptionError("pattern", pattern, 'must be a text such as "vrt*"')
    wanted = pattern.strip().casefold().replace("_", "-")

    def matches(name: str) -> bool:
        return fnmatchcase(name.casefold().replace("_", "-"), wanted)

    return [entry for entry in registry.list_models() if any(map(matches, (entry.name, *entry.aliases)))]
