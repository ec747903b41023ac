"""Published ways to compute scores, each under a name: colour, border, frames, rounding, average, and source of the inputs.

A score has no meaning without its protocol. Papers compute "PSNR on Vid4" on Y and on RGB, with and without border, on all
frames and without the first and last; the figures differ by decibels. Here a protocol is data. Its digest is stored with each
score, and scores with different digests are not compared.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import Literal

from upframe.errors import UsageError


@dataclass(frozen=True)
class ClipRule:
    """Clips and frames of a video test set that a protocol scores."""

    dataset: str
    """Name of the set in tables."""
    layout: str
    """Layout of the files: a key of `datasets.clips.LAYOUTS`."""
    whole: tuple[int, int]
    """Number of clips and scored frames of the whole set; tables mark an incomplete set."""
    clips: tuple[str, ...] | None = None
    """Names of the clips, all of which must exist; None uses every clip found."""
    frames: tuple[int, ...] | None = None
    """Scored frames, counted from 0; frames beyond the end of a clip are ignored. None scores all."""
    has_truth: bool = True
    """False for footage without known true pixels."""
    degradation: Literal["bicubic", "gaussian"] = "bicubic"
    """Degradation that makes inputs from the truth if the set has none; a key of `datasets.clips.DEGRADATIONS`."""
    mirrored: bool = False
    """Whether networks for whole clips see the frames and then the same frames in reverse."""


@dataclass(frozen=True)
class Protocol:
    """A way to compute scores."""

    name: str
    colour: str
    """Colours that are compared."""
    crop: Literal["scale", "none"]
    """Excluded border: as many output pixels as the scale, or none."""
    rounding: str
    """Treatment of the network's output before the comparison."""
    truth: str
    """Part of an HR file that is the truth."""
    low_resolution: str
    """Source of the inputs."""
    average: str
    metrics: tuple[str, ...]
    """Keys of `metrics.METRICS`; models are ranked by the first."""
    citation: str
    clips: ClipRule | None = None
    """Clips and frames; None for a protocol on single images."""

    def border_px(self, scale: int) -> int:
        """Excluded output pixels along every edge."""
        return scale if self.crop == "scale" else 0

    @property
    def digest(self) -> str:
        """Return a hash of the definition: protocols with the same name and digest compute the same score."""
        facts = {key: value for key, value in asdict(self).items() if value is not None}
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]


def _sisr(name: str, colour: str, metrics: tuple[str, ...]) -> Protocol:
    return Protocol(
        name=name,
        colour=colour,
        crop="scale",
        rounding="clipped and rounded to 8 bit",
        truth="top left part of HR whose sides are multiples of the scale",
        low_resolution="LRbicX{scale}/ where there is one, else MATLAB bicubic imresize of the truth, rounded after each pass",
        average="mean over the images of a set",
        metrics=metrics,
        citation="as in EDSR (Lim et al., CVPRW 2017) and the papers since; test sets of Huang et al., CVPR 2015",
    )


_BI = "frames of the set where there are any, else MATLAB bicubic imresize of the truth, rounded after each pass"
_BD = (
    "frames of the set where there are any, else the truth under a 13×13 Gaussian of σ 1.6 with borders mirrored without "
    "repeating the edge, every scale-th pixel from the top left kept, rounded once"
)
_VRT = "as in VRT (Liang et al., 2022) and the papers it compares with"


def _vsr(
    name: str,
    rule: ClipRule,
    *,
    metrics: tuple[str, ...],
    citation: str,
    colour: str = "BT.601 studio Y, unrounded",
    low_resolution: str = _BI,
    average: str = "mean over the frames of a clip, then over the clips",
) -> Protocol:
    return Protocol(
        name=name,
        colour=colour,
        crop="none",
        rounding="clipped and rounded to 8 bit",
        truth="top left part of each frame whose sides are multiples of the scale" if rule.has_truth else "none",
        low_resolution=low_resolution,
        average=average,
        metrics=metrics,
        citation=citation,
        clips=rule,
    )


_Y, _RGB = ("psnr-y", "ssim-y"), ("psnr-rgb", "ssim-rgb")
_RGB_TEXT = "RGB, three channels together"
_VID4 = "Vid4 (Liu, Sun, TPAMI 2014): calendar, city, foliage, walk"
_REDS = "REDS (Nah et al., CVPRW 2019), training clips 000, 011, 015, 020, which no training may have seen (EDVR, 2019)"
_REDS_VAL_4 = "REDS official validation clips 000, 001, 006, 017: numbered 240, 241, 246, 257 when joined to the training clips"
_VIMEO = "Vimeo-90K (Xue et al., IJCV 2019), the septuplets of sep_testlist.txt"
_VIDEOLQ = "VideoLQ (Chan et al., Investigating tradeoffs in real-world video super-resolution, CVPR 2022)"
_CENTRE = "the fourth frame of each septuplet, mean over septuplets"

_VID4_RULE = ClipRule("Vid4", "vid4", whole=(4, 171))
_VIMEO_RULE = ClipRule("Vimeo-90K-T", "vimeo", whole=(7824, 7824), frames=(3,), mirrored=True)

PROTOCOLS: dict[str, Protocol] = {
    p.name: p
    for p in (
        _sisr("sisr-y", "BT.601 studio Y, unrounded", ("psnr-y", "ssim-y")),
        _sisr("sisr-rgb", "RGB, three channels together", ("psnr-rgb", "ssim-rgb")),
        _vsr("vid4-y", _VID4_RULE, metrics=_Y, citation=f"{_VID4}; {_VRT}"),
        _vsr(
            "vid4-bd-y",
            ClipRule("Vid4-BD", "vid4-bd", whole=(4, 171), degradation="gaussian"),
            metrics=_Y,
            low_resolution=_BD,
            citation=f"{_VID4}; {_VRT}",
        ),
        _vsr(
            "vid4-temporal",
            _VID4_RULE,
            metrics=("warp-error", "tof", "flicker", "lr-psnr"),
            colour="RGB in [0, 1] (E_warp), motion (tOF), Y (flicker), RGB (LR-PSNR); motion is that of the truth",
            citation=f"{_VID4}; measures as cited with them",
        ),
        _vsr(
            "reds4-rgb",
            ClipRule("REDS4", "reds", whole=(4, 400), clips=("000", "011", "015", "020")),
            metrics=_RGB,
            colour=_RGB_TEXT,
            citation=f"{_REDS}; {_VRT}",
        ),
        _vsr(
            "redsofficial4-rgb",
            ClipRule("REDSofficial4", "reds-val", whole=(4, 400), clips=("240", "241", "246", "257")),
            metrics=_RGB,
            colour=_RGB_TEXT,
            citation=_REDS_VAL_4,
        ),
        _vsr(
            "redsval-rgb",
            ClipRule("REDS-val", "reds-val", whole=(30, 3000), clips=tuple(str(i) for i in range(240, 270))),
            metrics=_RGB,
            colour=_RGB_TEXT,
            citation="REDS official validation set, clips 000 to 029 (240 to 269 when joined to the training clips)",
        ),
        _vsr("vimeo-y-c4", _VIMEO_RULE, metrics=_Y, average=_CENTRE, citation=f"{_VIMEO}; {_VRT}; mirrored as in BasicVSR"),
        _vsr(
            "udm10-y",
            ClipRule("UDM10-BD", "udm10", whole=(10, 320), degradation="gaussian"),
            metrics=_Y,
            low_resolution=_BD,
            citation=f"UDM10 (Yi et al., ICCV 2019); {_VRT}",
        ),
        _vsr(
            "udm10-bi-rgb",
            ClipRule("UDM10-BI", "udm10-bi", whole=(10, 320)),
            metrics=_RGB,
            colour=_RGB_TEXT,
            citation="UDM10 (Yi et al., ICCV 2019), as RealBasicVSR validates (Chan et al., CVPR 2022)",
        ),
        _vsr(
            "videolq-3frame",
            ClipRule("VideoLQ", "videolq", whole=(50, 150), frames=(0, 50, 99), has_truth=False),
            metrics=("niqe", "lr-psnr"),
            colour="rounded BT.601 studio Y (NIQE), RGB (LR-PSNR)",
            low_resolution="the footage",
            average="mean over frames 0, 50 and 99 of a clip, then over the clips",
            citation=_VIDEOLQ,
        ),
        _vsr(
            "videolq-temporal",
            ClipRule("VideoLQ", "videolq", whole=(50, 5000), has_truth=False),
            metrics=("warp-error", "flicker", "lr-psnr"),
            colour="RGB in [0, 1] (E_warp), Y (flicker), RGB (LR-PSNR); motion is that of the bicubic enlargement",
            low_resolution="the footage",
            citation=f"{_VIDEOLQ}; measures as cited with them",
        ),
    )
}


def protocol_named(name: str) -> Protocol:
    """Return the protocol called `name`; raise UsageError, which lists all, if there is none."""
    if name not in PROTOCOLS:
        raise UsageError(name, "is not a known protocol", f"use one of {', '.join(PROTOCOLS)}")
    return PROTOCOLS[name]
