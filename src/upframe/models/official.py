"""Facts about officially published weights files."""

from __future__ import annotations

from dataclasses import dataclass

from upframe.models.networks import MODELS
from upframe.models.spec import Published


@dataclass(frozen=True)
class OfficialWeights:
    """A file as its authors published it."""

    file: str
    """Name in the authors' repository."""
    arch: str
    """Key of `MODELS`."""
    source: str
    """The repository."""
    licence: str
    scores: tuple[Published, ...]
    """Scores of the file under the protocol `sisr-y`, as measured with the authors' own code: rounded to 0.01 dB and
    0.0001. The papers' tables agree to 0.03 dB."""


_HOMES = {"RLFN": "bytedance/RLFN", "VapSR": "zhoumumu/VapSR"}


def _official(file: str, arch: str, **sets: tuple[float, float]) -> OfficialWeights:
    home = _HOMES[MODELS[arch].family]
    scores = tuple(Published(dataset, psnr, ssim) for dataset, (psnr, ssim) in sets.items())
    return OfficialWeights(file, arch, f"https://github.com/{home}", MODELS[arch].licence, scores)


OFFICIAL: dict[str, OfficialWeights] = {
    # Set14: 33.72 is the paper's figure and what inputs of today's bicubic give (33.718). Inputs whose border values an
    # older MATLAB repeated instead of mirroring give 33.73.
    "eafe5d5feeb122022453595c06d79160facdc157ae88deb02a44c50f5eba2d41": _official(
        "rlfn_x2.pth", "rlfn-x2", Set5=(38.07, 0.9607), Set14=(33.72, 0.9193), B100=(32.24, 0.9004)
    ),
    "8c7edb57dfc89048bafba29d591d4c27d4099964b4a9e22df23d6dc257a637c0": _official(
        "rlfn_x4.pth", "rlfn-x4", Set5=(32.24, 0.8953), Set14=(28.62, 0.7815), B100=(27.61, 0.7364)
    ),
    "f5175f499f869c1b884c2552a1bcd6abd07ab352e3d8c8c9abe31b1deb60fe45": _official(
        "rlfn_s_x2.pth", "rlfn-s-x2", Set5=(38.05, 0.9607), Set14=(33.63, 0.9174), B100=(32.21, 0.8999)
    ),
    "f769c5a88433786b2db0c2b24da6ca6c92a24c62344b9354a390f8a74388e89d": _official(
        "rlfn_s_x4.pth", "rlfn-s-x4", Set5=(32.24, 0.8954), Set14=(28.63, 0.7817), B100=(27.58, 0.7360)
    ),
    "3c9be7b9d7a4bece9b68c83a56a1ffb38010f76413d5f215be6b4be842e18fb2": _official(
        "rlfn_ntire_x4.pth", "rlfn-ntire-x4", Set5=(32.10, 0.8939), Set14=(28.60, 0.7815), B100=(27.58, 0.7359)
    ),
    "6cbe6af3c18c16c8a2c9b83f484761693884f972e29a4a20e84f64b84d0a10cc": _official(
        "VapSR_X2.pth", "vapsr-x2", Set5=(38.11, 0.9609), Set14=(33.74, 0.9196), B100=(32.29, 0.9011)
    ),
    "5c0052ea719174ea43e55f337655196fa1564ba2e0b04c3220a1312a18405a09": _official(
        "VapSR_X3.pth", "vapsr-x3", Set5=(34.53, 0.9281), Set14=(30.52, 0.8454), B100=(29.20, 0.8078)
    ),
    "fa6b84a174d8994eaaaa38156c9d751109b27c833bceeeb6018523e4d8a48ea0": _official(
        "VapSR_X4.pth", "vapsr-x4", Set5=(32.40, 0.8974), Set14=(28.77, 0.7852), B100=(27.68, 0.7397)
    ),
    "4ca434fcdd4abb327e281b3f7930fe9802b36d3d6acfbe785843fee5db7e0cfe": _official(
        "VapSR-S.pth", "vapsr-s-x4", Set5=(32.17, 0.8947), Set14=(28.65, 0.7826), B100=(27.60, 0.7372)
    ),
}

"""Official files by the SHA-256 of the file."""
