"""Temporal measures of clips: warping error, tOF and flicker; and the consistency of frames with their input.

A clip is a sequence of frames of one size, each as `psnr` takes a picture: (H, W, 3) arrays or (3, H, W) tensors, white
as there. Frames are read one after the other; at most three are in memory.

The first three follow motion and depend on the flow: compare only scores with the same estimator. Do not read any of them
alone. Blur lowers warping error and flicker without improving a clip, and a clip of constant colour is perfectly steady. So
read them together with PSNR or LR-consistency.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Iterator
from itertools import zip_longest

from torch import Tensor

from upframe import pixels
from upframe.metrics.fidelity import Picture, planes, psnr, white_of
from upframe.metrics.motion import FlowEstimator, LucasKanade, inside, warp

_DEFAULT_FLOW = LucasKanade()


def warping_error(
    clip: Iterable[Picture],
    *,
    motion: Iterable[Picture] | None = None,
    flow: FlowEstimator = _DEFAULT_FLOW,
    peak: float | None = None,
) -> float:
    """Return E_warp (Lai et al., ECCV 2018): the mean squared difference of each frame and the next one warped onto it.

    Colours are RGB in [0, 1]. For each pair of neighbours, the mean is over the channels and over the pixels that are visible
    in both (see `occluded` of `motion`); then over the pairs.

    Args:
        motion: The clip whose motion is followed: the truth if there is one, so that the output's own errors do not affect the
            motion. By default `clip`.
        peak: Code value of white of both; by default that of the dtype.

    Returns:
        0 for a clip that moves exactly as its motion says; NaN if no pixel is visible twice.

    Raises:
        ValueError: for fewer than two frames, or clips that differ in number or size of frames.
    """
    errors = []
    for (first, second), guides in _runs(clip, motion, length=2, peak=peak):
        forward, backward = flow(*guides), flow(*reversed(guides))
        seen = ~occluded(forward, backward)
        if bool(seen.any()):
            errors.append(float((warp(second, forward) - first).square().mean(0)[seen].mean()))
    return math.fsum(errors) / len(errors) if errors else math.nan


def temporal_flow_difference(
    clip: Iterable[Picture], truth: Iterable[Picture], *, flow: FlowEstimator = _DEFAULT_FLOW, peak: float | None = None
) -> float:
    """Return tOF (TecoGAN, Chu et al. 2020): the mean of |Δu| + |Δv| between the motion of a clip and that of the truth, in
    pixels.

    The mean is over all pixels and pairs of neighbours. Papers print it times 10.

    Raises:
        ValueError: for fewer than two frames, or clips that differ in number or size of frames.
    """
    gaps = [
        float((flow(*frames) - flow(*true)).abs().sum(0).mean()) for frames, true in _runs(clip, truth, length=2, peak=peak)
    ]
    return math.fsum(gaps) / len(gaps)


def flicker(
    clip: Iterable[Picture],
    *,
    motion: Iterable[Picture] | None = None,
    flow: FlowEstimator = _DEFAULT_FLOW,
    peak: float | None = None,
) -> float:
    """Return the mean of |2 Y(t) − Y(t−1) − Y(t+1)| / 2 with both neighbours warped onto t, Y in code values of 255.

    This is a second difference: steady changes (fades, changing light) do not count, and frames that alternate between +a and
        −a count 2a. Y is studio luma. Pixels that are not visible in all three frames are excluded. The mean is over pixels,
        then over the
    inner frames. Args as for `warping_error`.

    Returns:
        0 for a clip that moves exactly as its motion says; NaN if no pixel is visible three times.

    Raises:
        ValueError: for fewer than three frames, or clips that differ in number or size of frames.
    """
    values = []
    for (before, now, after), guides in _runs(clip, motion, length=3, peak=peak):
        to_before, to_after = flow(guides[1], guides[0]), flow(guides[1], guides[2])
        hidden = occluded(to_before, flow(guides[0], guides[1])) | occluded(to_after, flow(guides[2], guides[1]))
        y_before, y_now, y_after = (255 * pixels.rgb_to_y(frame)[0] for frame in (before, now, after))
        neighbours = warp(y_before[None], to_before)[0] + warp(y_after[None], to_after)[0]
        if not bool(hidden.all()):
            values.append(float((2 * y_now - neighbours).abs()[~hidden].mean()) / 2)
    return math.fsum(values) / len(values) if values else math.nan


def lr_consistency(output: Picture, lr: Picture) -> float:
    """Return the PSNR in dB, over RGB, between an input and the output reduced to its size by MATLAB bicubic; infinite if they
    are equal.

    This measures invented content: an output may add any detail, but reduced it must equal its input. 8-bit pictures are
        reduced with rounding after each pass, as test inputs are, so a truth is infinitely consistent with its input.

    Raises:
        ValueError: if the sizes are not those of one whole scale, or the dtypes differ.
    """
    height, width = planes(lr).shape[-2:]
    made = planes(output)
    scale = made.shape[-2] // height
    if made.shape[-2:] != (height * scale, width * scale) or scale < 1 or output.dtype != lr.dtype:
        raise ValueError(
            f"{made.shape[-2]}x{made.shape[-1]} {output.dtype} does not enlarge {height}x{width} {lr.dtype} by a whole scale"
        )
    eight_bit = str(output.dtype).removeprefix("torch.") == "uint8"
    shrunk = pixels.matlab_bicubic_8bit(made, scale).double() if eight_bit else pixels.imresize(made, 1 / scale)
    return psnr(shrunk, planes(lr), peak=white_of(lr))


def occluded(forward: Tensor, backward: Tensor) -> Tensor:
    """Return (H, W) bool: pixels of the first frame that the second does not show, by forward–backward consistency.

    A pixel is marked if following `forward` and then `backward` does not return to the start, |f + b|² > 0.01 (|f|² + |b|²) +
    0.5, or leaves the frame. Source: N. Sundaram, T. Brox, K. Keutzer, ECCV 2010. The motion-border test of some authors is not
    used, because it excludes every pixel of finely varying motion.
    """
    back = warp(backward, forward)
    apart = (forward + back).square().sum(0)
    return (apart > 0.01 * (forward.square().sum(0) + back.square().sum(0)) + 0.5) | ~inside(forward)


# Frames ---------------------------------------------------------------------------------------------------------------
_Run = tuple[Tensor, ...]


def _runs(
    clip: Iterable[Picture], beside: Iterable[Picture] | None, *, length: int, peak: float | None
) -> Iterator[tuple[_Run, _Run]]:
    """Yield all runs of `length` neighbours of a clip with those of `beside` (the clip itself if None), as (3, H, W) in [0,
    1]."""
    frames: deque[Tensor] = deque(maxlen=length)
    guides: deque[Tensor] = deque(maxlen=length)
    for count, (frame, guide) in enumerate(_pairs(clip, beside), start=1):
        frames.append(_unit(frame, peak))
        guides.append(frames[-1] if beside is None else _unit(guide, peak))
        if frames[-1].shape != frames[0].shape or guides[-1].shape != frames[0].shape:
            raise ValueError(
                f"frames must be of one size, found {tuple(frames[0].shape[1:])} and, at frame {count}, "
                f"{tuple(frames[-1].shape[1:])} beside {tuple(guides[-1].shape[1:])}"
            )
        if count >= length:
            yield tuple(frames), tuple(guides)
    if len(frames) < length:
        raise ValueError(f"{length} frames or more are needed, found {len(frames)}")


def _pairs(clip: Iterable[Picture], beside: Iterable[Picture] | None) -> Iterator[tuple[Picture, Picture]]:
    if beside is None:
        yield from ((frame, frame) for frame in clip)
        return
    for frame, guide in zip_longest(clip, beside):
        if frame is None or guide is None:
            raise ValueError("the clips differ in their number of frames")
        yield frame, guide


def _unit(frame: Picture, peak: float | None) -> Tensor:
    """Return (3, H, W) float64 in [0, 1]; gray is repeated in three channels."""
    unit = planes(frame) / (peak if peak is not None else white_of(frame))
    if unit.shape[0] != 1 or unit.shape[1] not in (1, 3):
        raise ValueError(f"a frame has 1 or 3 channels, found {tuple(unit.shape)}")
    return unit[0].expand(3, -1, -1)
