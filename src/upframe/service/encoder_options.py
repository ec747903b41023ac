"""Options of video encoders that a client may state: those that change how the encoder works, and name no files.

Encoders take names of files too, for statistics, matrices or grain, which they would read and write with the rights of the
server. So known options pass, and others are refused; the number of threads is fixed, because the bits depend on it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from upframe.errors import OptionError

_SHARED = frozenset((
    "aq-mode", "aq-strength", "aud", "b-adapt", "b-pyramid", "bframes", "cplxblur", "crf-max", "deblock", "ipratio",
    "keyint", "me", "merange", "min-keyint", "pbratio", "psy-rd", "qcomp", "qpmax", "qpmin", "qpstep", "rc-lookahead",
    "ref", "scenecut", "subme", "vbv-bufsize", "vbv-maxrate", "weightb", "weightp",
))  # fmt: skip
_X264 = frozenset((
    "8x8dct", "cabac", "chroma-me", "cqm", "dct-decimate", "deadzone-inter", "deadzone-intra", "direct", "fast-pskip",
    "level", "mbtree", "mixed-refs", "nr", "partitions", "trellis",
))  # fmt: skip
_X265 = frozenset((
    "amp", "aq-motion", "crf-min", "ctu", "cutree", "early-skip", "fades", "hdr10-opt", "high-tier", "hist-scenecut",
    "level-idc", "limit-modes", "limit-refs", "limit-sao", "limit-tu", "max-tu-size", "min-cu-size", "no-sao",
    "no-strong-intra-smoothing", "nr-inter", "nr-intra", "psy-rdoq", "rd", "rdoq-level", "rect", "rskip", "sao",
    "selective-sao", "ssim-rd", "strong-intra-smoothing", "tskip", "tu-inter-depth", "tu-intra-depth",
))  # fmt: skip
_SVT_AV1 = frozenset((
    "aq-mode", "enable-cdef", "enable-dlf", "enable-overlays", "enable-qm", "enable-restoration", "enable-tf",
    "enable-variance-boost", "fast-decode", "film-grain", "film-grain-denoise", "hierarchical-levels", "irefresh-type",
    "keyint", "lookahead", "max-qp", "mbr", "min-qp", "qm-max", "qm-min", "scd", "scm", "sharpness", "tile-columns",
    "tile-rows", "tune", "variance-boost-strength", "variance-octile",
))  # fmt: skip
PARAMS: Mapping[str, frozenset[str]] = {
    "x264-params": _SHARED | _X264,
    "x265-params": _SHARED | _X265,
    "svtav1-params": _SVT_AV1,
}
"""Options that hold settings of an encoder's own, joined by colons, and the settings that pass."""
OPTIONS = frozenset((
    "8x8dct", "alpha_bits", "aq-mode", "aq-strength", "b", "bf", "bits_per_mb", "bufsize", "coder", "context", "crf_max",
    "deblock", "direct-pred", "fast-pskip", "g", "keyint_min", "level", "maxrate", "mbs_per_slice", "mbtree", "me_range",
    "partitions", "profile", "psy", "psy-rd", "qmax", "qmin", "qp", "quant_mat", "rc-lookahead", "refs", "slicecrc",
    "slices", "subq", "trellis", "tune", "weightb", "weightp",
))  # fmt: skip
_VALUE = re.compile(r"[A-Za-z0-9_.,:+-]{1,60}")
_SETTING = re.compile(r"([a-z0-9-]+)(?:=([A-Za-z0-9_.,+-]{1,60}))?")


def check_encoder_options(pairs: Mapping[str, str]) -> None:
    """Refuse options that could name files.

    Raises:
        OptionError: naming the first of them.
    """
    for key, value in pairs.items():
        if key in PARAMS:
            for setting in value.split(":"):
                found = _SETTING.fullmatch(setting)
                if found is None or found[1] not in PARAMS[key]:
                    raise _refused(f"{key}={setting}")
        elif key not in OPTIONS or not _VALUE.fullmatch(value):
            raise _refused(f"{key}={value}")


def _refused(text: str) -> OptionError:
    happened = "is not among the encoder options of this service, none of which names files"
    return OptionError("video.encoder", text[:80], happened, "see docs/serve.md, or use the command line")
