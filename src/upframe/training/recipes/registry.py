"""Every recipe by name. The docstring of each function states command, hardware, hours and the score to reach; its module
(`presets/`) states what the recipes of a system have in common."""

from __future__ import annotations

from collections.abc import Callable

from upframe.errors import UsageError
from upframe.training.recipes.fields import did_you_mean
from upframe.training.recipes.presets import realbasicvsr, rlfn, shipped, toy, vapsr, vrt, vsr_transformer
from upframe.training.recipes.presets.shipped import SHARE_ALIKE
from upframe.training.recipes.recipe import Recipe

__all__ = ["RECIPES", "SHARE_ALIKE", "find_recipe"]

RECIPES: dict[str, Callable[[], Recipe]] = {
    # upframe's own weights
    "photo-x2": shipped.photo_x2,
    "photo-x3": shipped.photo_x3,
    "photo-x4": shipped.photo_x4,
    "photo-vapsr-x2": shipped.photo_vapsr_x2,
    "photo-vapsr-x3": shipped.photo_vapsr_x3,
    "photo-vapsr-x4": shipped.photo_vapsr_x4,
    "photo-real-x4": shipped.photo_real_x4,
    "flow": shipped.flow,
    "video-x4": shipped.video_x4,
    "video-real-x4": shipped.video_real_x4,
    "video-real-x4-gan": shipped.video_real_x4_gan,
    # RLFN
    "rlfn-x2": rlfn.rlfn_x2,
    "rlfn-x4": rlfn.rlfn_x4,
    "rlfn-s-x2": rlfn.rlfn_s_x2,
    "rlfn-s-x4": rlfn.rlfn_s_x4,
    "rlfn-x4-ws-0": rlfn.ws_0,
    "rlfn-x4-ws-1": rlfn.ws_1,
    "rlfn-x4-ws-2": rlfn.ws_2,
    "rlfn-x4-e2000": rlfn.e2000,
    "rlfn-x4-clr": rlfn.clr,
    "rlfn-x4-vgg": rlfn.rlfn_x4_vgg,
    "rlfn-x4-rfdb": rlfn.rfdb,
    "rlfn-x4-rfdbr48": rlfn.rfdbr48,
    "rlfn-x4-rfdbr52": rlfn.rfdbr52,
    "tricks-ws-1": shipped.tricks_ws_1,
    "tricks-e2000": shipped.tricks_e2000,
    "tricks-clr": shipped.tricks_clr,
    "tricks-contrastive": shipped.tricks_contrastive,
    # VapSR
    "vapsr-x2": vapsr.vapsr_x2,
    "vapsr-x3": vapsr.vapsr_x3,
    "vapsr-x4": vapsr.vapsr_x4,
    "vapsr-s-x4": vapsr.vapsr_s_x4,
    "vapsr-x4-pixel-attention": vapsr.pixel_attention,
    "vapsr-x4-large-kernel": vapsr.large_kernel,
    "vapsr-x4-separable": vapsr.separable,
    "vapsr-x4-pixel-norm": vapsr.pixel_norm,
    "vapsr-x4-attention-inside": vapsr.attention_inside,
    # RealBasicVSR
    "realbasicvsr-x4": realbasicvsr.realbasicvsr_x4,
    "realbasicvsr-x4-paper": realbasicvsr.realbasicvsr_x4_paper,
    "realbasicvsr-x4-wogan": realbasicvsr.realbasicvsr_x4_wogan,
    "realbasicvsr-x4-no-cleaning-loss": realbasicvsr.realbasicvsr_x4_no_cleaning_loss,
    "realbasicvsr-x4-no-cleaning": realbasicvsr.realbasicvsr_x4_no_cleaning,
    "realbasicvsr-x4-recurrent-cleaning": realbasicvsr.realbasicvsr_x4_recurrent_cleaning,
    "realbasicvsr-x4-b48-l10": realbasicvsr.b48_l10,
    "realbasicvsr-x4-b24-l20": realbasicvsr.b24_l20,
    "realbasicvsr-x4-b16-l10": realbasicvsr.b16_l10,
    "realbasicvsr-x4-b16-l20": realbasicvsr.b16_l20,
    # VRT
    "vrt-001": vrt.vrt_001,
    "vrt-001-mindediting": vrt.vrt_001_mindediting,
    "vrt-002": vrt.vrt_002,
    "vrt-003": vrt.vrt_003,
    "vrt-004": vrt.vrt_004,
    # VSR-Transformer
    "vsrt-reds": vsr_transformer.vsrt_reds,
    "vsrt-reds-paper": vsr_transformer.vsrt_reds_paper,
    "vsrt-reds-frames-3": vsr_transformer.vsrt_reds_frames_3,
    "vsrt-reds-frames-7": vsr_transformer.vsrt_reds_frames_7,
    "vsrt-reds-no-flow": vsr_transformer.vsrt_reds_no_flow,
    "vsrt-reds-no-attention": vsr_transformer.vsrt_reds_no_attention,
    "vsrt-reds-no-boff": vsr_transformer.vsrt_reds_no_boff,
    "vsrt-vimeo": vsr_transformer.vsrt_vimeo,
    # Toys
    "toy-rlfn": toy.toy_rlfn,
    "toy-vapsr": toy.toy_vapsr,
    "toy-realbasicvsr": toy.toy_realbasicvsr,
    "toy-vrt": toy.toy_vrt,
    "toy-vsrt": toy.toy_vsrt,
}


def find_recipe(name: str) -> Recipe:
    """The recipe called `name`; capitals and `_` for `-` do not matter.

    Raises:
        UsageError: for an unknown name, with the nearest.
    """
    key = name.lower().replace("_", "-")
    if key not in RECIPES:
        raise UsageError(f"recipe {name}", "no such recipe", did_you_mean(key, RECIPES))
    return RECIPES[key]()
