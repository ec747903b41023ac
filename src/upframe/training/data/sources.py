"""Training data: the public interface of this package.

paths = DataPaths(gt, lq)                                     folders, videos or LMDB stores
source = source_for(stage.data, paths, scale=spec.scale)      draws samples
refuse_leaks(source.footage, held_out)                        no test frame may be in it
with Loader(source, batch=stage.batch, seed=recipe.seed, workers=4) as loader:
    for batch in loader.batches(first_step):
        ...                                                   batch.lq, batch.gt
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from upframe.datasets.footage import FootageSet, find_clips, find_photos, with_inputs, with_reductions
from upframe.datasets.leaks import refuse_leaks
from upframe.datasets.stores import DEFAULT_BUDGET_BYTES, ArrayStore, FrameStore, HeldStore, JoinedStore
from upframe.errors import UsageError
from upframe.training.data.loader import Loader, WorkerKind
from upframe.training.data.motion import MotionPairs, pair_side_px
from upframe.training.data.patches import Degrade, Patches, patch_side_px
from upframe.training.data.samples import Batch, Sample, Source
from upframe.training.degradations.pipeline import find_degradations
from upframe.training.recipes.recipe import DataRecipe

__all__ = [
    "Batch",
    "DataPaths",
    "FootageSource",
    "Loader",
    "Sample",
    "Source",
    "WorkerKind",
    "open_footage",
    "refuse_leaks",
    "source_for",
]


@dataclass(frozen=True)
class DataPaths:
    """Paths of the training data."""

    gt: Path
    """Ground truth: a folder of photos, of clips or of videos, or an LMDB store."""
    lq: Path | None = None
    """Degraded counterparts with the same names, for "paired" data."""
    cache: Path | None = None
    """Folder for decoded videos; by default `video_cache.default_cache()`."""


class FootageSource(Source, Protocol):
    """A source that draws from clips."""

    footage: FootageSet


def source_for(
    data: DataRecipe,
    paths: DataPaths,
    *,
    scale: int,
    budget_bytes: int = DEFAULT_BUDGET_BYTES,
    degradation: Degrade | None = None,
) -> FootageSource:
    """Return the source of the samples that `data` describes.

    Args:
        scale: Scale of the network, in ground-truth pixels per input pixel. Ignored for "motion".
        budget_bytes: Memory for decoded pictures; see `stores.HeldStore`.
        degradation: Replaces the preset that `data.degradation` names.

    Raises:
        UsageError: if `paths` do not fit `data`.
        InputError: if data are damaged (the message names the file) or nothing usable exists.
    """
    footage = open_footage(data, paths, scale=scale, budget_bytes=budget_bytes)
    if data.kind == "motion":
        return MotionPairs(footage, data)
    if data.degradation is not None and degradation is None:
        # Stored inputs have the size of the network's input already.
        degradation = find_degradations(data.degradation, scale=scale if data.low_quality == "degraded" else 1)
    return Patches(footage, data, scale=scale, degrade=degradation)


def open_footage(data: DataRecipe, paths: DataPaths, *, scale: int, budget_bytes: int = DEFAULT_BUDGET_BYTES) -> FootageSet:
    """Open the pictures or clips in `paths` that `data` uses, and keep them in memory as far as they fit.

    Raises:
        As `source_for`.
    """
    if (data.low_quality == "paired") != (paths.lq is not None):
        wanted = "needs a folder of inputs as well" if paths.lq is None else f"makes the inputs ({data.low_quality})"
        raise UsageError("training data", f"the recipe {wanted}", "pass inputs for paired data only")
    if data.kind == "clips":
        needed = (data.frames_read - 1) * min(data.intervals) + 1
        footage = find_clips(paths.gt, exclude=data.exclude, minimum_frames=needed, cache=paths.cache)
    else:
        side = pair_side_px(data) if data.kind == "motion" else patch_side_px(data, scale=scale)
        footage = find_photos(paths.gt, exclude=data.exclude, minimum_px=side)
        if data.reductions != (1,):
            footage = with_reductions(footage, data.reductions, minimum_px=side)
    if paths.lq is not None:
        footage = with_inputs(footage, paths.lq, scale=scale)
    return held(footage, budget_bytes=budget_bytes)


def held(footage: FootageSet, *, budget_bytes: int) -> FootageSet:
    """Return the set with its pictures in memory as far as they fit; degraded frames use a share of the budget."""
    inputs_bytes = 0 if footage.input_store is None else budget_bytes // 5  # at ×2 they are a quarter of the truth's pixels
    return dataclasses.replace(
        footage,
        store=_held(footage.store, budget_bytes - inputs_bytes),
        input_store=None if footage.input_store is None else _held(footage.input_store, inputs_bytes),
    )


def _held(store: FrameStore, budget_bytes: int) -> FrameStore:
    # Decoded videos are mapped files: the system keeps the used parts in memory once for all processes.
    if isinstance(store, JoinedStore) and any(isinstance(part, ArrayStore) for part in store.stores):
        return JoinedStore([_held(part, budget_bytes) for part in store.stores])  # only one of them is kept in memory
    return store if isinstance(store, ArrayStore) else HeldStore(store, budget_bytes=budget_bytes)
