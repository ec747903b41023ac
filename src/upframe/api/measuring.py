"""`metric` and `evaluate`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from upframe import metrics
from upframe.api.arguments import check_callable, checked_path
from upframe.errors import OptionError, UsageError, check_flag, check_whole
from upframe.models.registry import Model
from upframe.upscaling.options import UpscaleOptions

if TYPE_CHECKING:
    from upframe.evaluation.evaluate import Evaluation, EvaluationEvent
    from upframe.metrics.fidelity import Picture

Score = Callable[..., float]


class PictureMetric:
    """A full-reference measure of pictures; call it with a picture and the truth."""

    def __init__(self, found: metrics.Metric) -> None:
        self._metric = found
        self.name, self.title, self.citation = found.name, found.title, found.citation
        self.higher_is_better, self.unit = found.higher_is_better, found.unit

    def __repr__(self) -> str:
        return f"upframe.metric({self.name!r})"

    def __call__(self, a: Picture, b: Picture, *, peak: float | None = None, crop_border: int = 0) -> float:
        """The score of `a` measured against `b`.

        Args:
            a, b: Both arrays (H, W) or (H, W, C), or both tensors (C, H, W) or (N, C, H, W), of one shape and dtype.
            peak: Value of white; None is that of the dtype: 255, 65535, or 1 for floats.
            crop_border: Pixels to skip on each side.

        Raises:
            UsageError: naming what does not fit.

        Example:
            >>> import numpy as np, upframe
            >>> white = np.full((16, 16, 3), 255, np.uint8)
            >>> round(upframe.metric("psnr-rgb")(white, white - np.uint8(1)), 2)
            48.13
        """
        for name, picture in (("a", a), ("b", b)):
            if not isinstance(picture, np.ndarray | Tensor):
                raise UsageError(name, f"is of type {type(picture).__name__}, expected an array or a tensor")
        check_whole("crop_border", crop_border, least=0)
        try:
            return self._metric(a, b, peak=peak, crop_border=crop_border)
        except (ValueError, TypeError) as error:
            raise UsageError(f"a, b of {self.name}", str(error).rstrip(".")) from error


def metric(name: str) -> PictureMetric:
    """The measure of that name: psnr-y, ssim-y, psnr-rgb or ssim-rgb; case and `_` for `-` do not matter.

    Raises:
        UsageError: for an unknown name, with the nearest known ones.

    Example:
        >>> import upframe
        >>> upframe.metric("PSNR_Y").unit
        'dB'
    """
    if not isinstance(name, str):
        raise OptionError("name", name, f"must be one of {', '.join(metrics.list_metrics())}")
    return PictureMetric(metrics.metric(name))


def evaluate(
    models: Sequence[Model | str | Path],
    *,
    data: str | Path,
    protocol: str = "sisr-y",
    datasets: Sequence[str] | None = None,
    scale: int | None = None,
    save_images: str | Path | None = None,
    contact_sheet: bool = False,
    limit: int | None = None,
    overwrite: bool = False,
    options: UpscaleOptions | None = None,
    on_event: Callable[[EvaluationEvent], None] | None = None,
) -> Evaluation:
    """Score models of one scale on test sets of images or clips by the protocols of the literature.

    Args:
        models: Models, names or paths as `load` takes them, or "bicubic".
        data: Folder of the test sets.
        protocol: Protocol of the scores: "sisr-y" for images; for clips see docs/measuring.md.
        datasets: Names of test sets, in order; None is all sets in `data`.
        scale: Needed only if no model states it.
        save_images: Folder for the outputs.
        contact_sheet: Whether to write pictures there that show the models side by side.
        limit: Use only the first so many images or clips of each set.
        overwrite: Whether `save_images` may be a folder with content.
        options: How networks run; None runs whole images. The precision "auto" means float32 here.
        on_event: Called after each image or clip and model.

    Returns:
        The scores: `to_markdown()`, `to_json()`, `mean(model, set, metric)`.

    Raises:
        UsageError: before any work, naming the argument that does not fit.
        InputError: test data are missing or do not fit together.

    Example:
        >>> import tempfile, numpy as np, upframe
        >>> from pathlib import Path
        >>> from PIL import Image
        >>> folder = Path(tempfile.mkdtemp()) / "Mini" / "HR"
        >>> folder.mkdir(parents=True)
        >>> Image.fromarray(np.full((24, 24, 3), 90, np.uint8)).save(folder / "gray.png")
        >>> upframe.evaluate(["bicubic"], data=folder.parent, scale=2).mean("bicubic", "Mini", "ssim-y")
        1.0
    """
    from upframe.evaluation.evaluate import evaluate as run  # imported here: a metric alone needs no test sets

    if isinstance(models, str | Path | Model):
        raise OptionError("models", getattr(models, "name", models), "must be a list", "write [model]")
    if not isinstance(models, Sequence) or not models or not all(isinstance(model, str | Path | Model) for model in models):
        raise UsageError("models", f"is {models!r}, expected a list of models, names or paths")
    if isinstance(datasets, str) or (datasets is not None and not isinstance(datasets, Sequence)):
        raise OptionError("datasets", datasets, "must be a list of names")
    if not isinstance(protocol, str):
        raise OptionError("protocol", protocol, "must be a name")
    for name, number in (("scale", scale), ("limit", limit)):
        if number is not None:
            check_whole(name, number, least=1)
    for name, flag in (("contact_sheet", contact_sheet), ("overwrite", overwrite)):
        check_flag(name, flag)
    if options is not None and not isinstance(options, UpscaleOptions):
        raise OptionError("options", options, "must be an upframe.UpscaleOptions")
    check_callable("on_event", on_event)
    more: dict[str, Any] = {} if save_images is None else {"save_images": checked_path("save_images", save_images)}
    return run(
        models,
        protocol=protocol,
        data=checked_path("data", data),
        datasets=datasets,
        scale=scale,
        contact_sheet=contact_sheet,
        limit=limit,
        overwrite=overwrite,
        options=options,
        on_event=on_event,
        **more,
    )
