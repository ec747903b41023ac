"""Values of the published recipes, as data with sources, and their comparison with the presets.

These are figures, not code, read from the article or from the authors' configuration that the source names. "[rec]" marks
figures from memory of an article that was not available. `deviations` lists the differences of a recipe; a test runs it on all
presets, so that a changed loss weight or freeze length fails with its source. Where the sources leave a value open, the preset
chooses it, and its module documents the choice.

Ids: RL RLFN, VA VapSR, RB RealBasicVSR, VR VRT, VT VSR-Transformer.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from upframe.training.recipes.fields import value_at
from upframe.training.recipes.recipe import Recipe


@dataclass(frozen=True)
class Fact:
    """A value that a source states."""

    value: Any
    source: str
    """Id, then where it is stated."""


Facts = Mapping[str, Fact]
"""Facts by the path of the recipe's field that holds them."""


def _stage(stage: str, facts: Facts) -> dict[str, Fact]:
    return {f"stages.{stage}.{path}": fact for path, fact in facts.items()}


# RLFN -----------------------------------------------------------------------------------------------------------------
_RLFN_ARTICLE = "Kong et al., CVPRW 2022"
_RLFN_STAGE: Facts = {
    "data.kind": Fact("photos", f"RL-7: {_RLFN_ARTICLE}: DIV2K, 800 images"),
    "data.low_quality": Fact("bicubic", f"RL-7: {_RLFN_ARTICLE}: MATLAB bicubic"),
    "data.hflip": Fact(True, f"RL-7: {_RLFN_ARTICLE}: random flips and rotations by 90°"),
    "data.vflip": Fact(True, f"RL-7: {_RLFN_ARTICLE}: random flips and rotations by 90°"),
    "data.transpose": Fact(True, f"RL-7: {_RLFN_ARTICLE}: random flips and rotations by 90°"),
    "batch": Fact(64, f"RL-8: {_RLFN_ARTICLE}"),
    "optimiser.betas": Fact((0.9, 0.999), f"RL-9: {_RLFN_ARTICLE}"),
    "optimiser.eps": Fact(1e-8, f"RL-9: {_RLFN_ARTICLE}"),
    "optimiser.learning_rate": Fact(5e-4, f"RL-9: {_RLFN_ARTICLE}"),
    "schedule.kind": Fact("halve_every", f"RL-9: {_RLFN_ARTICLE}"),
    "schedule.gamma": Fact(0.5, f"RL-9: {_RLFN_ARTICLE}"),
    "losses.0.kind": Fact("l1", f"RL-10: {_RLFN_ARTICLE}"),
    "losses.0.weight": Fact(1.0, f"RL-10: {_RLFN_ARTICLE}"),
}
_RLFN_LENGTH: Facts = {
    "steps": Fact(1_000_000, "RL-9: 1000 epochs a stage [rec], of 1000 steps as in EDSR and RFDN"),
    "schedule.every": Fact(200_000, f"RL-9: {_RLFN_ARTICLE}: 'as RFDN'"),
}
_X4: Facts = {"data.patch_px": Fact(64, f"RL-8: {_RLFN_ARTICLE}: HR 256")}
_X2: Facts = {"data.patch_px": Fact(128, f"RL-8: {_RLFN_ARTICLE}: HR 256")}
_WARM: Facts = {
    "start_from": Fact("previous", f"RL-11: {_RLFN_ARTICLE}, section on warm start"),
    "keep_optimiser": Fact(False, f"RL-11: {_RLFN_ARTICLE}: weights only"),
    "schedule.reset_periods": Fact(True, f"RL-11: {_RLFN_ARTICLE}: the schedule starts afresh"),
}
_CONTRASTIVE: Facts = {
    "losses.contrastive.options.extractor": Fact("random", f"RL-14: {_RLFN_ARTICLE}: Conv-Tanh-Conv, random, frozen"),
    "losses.contrastive.on": Fact("output", f"RL-13: {_RLFN_ARTICLE}, eq. 8: the anchor is the result"),
    "losses.contrastive.target": Fact("gt", f"RL-13: {_RLFN_ARTICLE}, eq. 8: the positive is the truth"),
}


def _rlfn(size: Facts, *, stages: int, last: Facts | None = None, length: Facts = _RLFN_LENGTH) -> dict[str, Fact]:
    facts: dict[str, Fact] = {}
    for i in range(stages):
        facts |= _stage(f"stage{i + 1}", {**_RLFN_STAGE, **length, **size, **(_WARM if i else {})})
    return {**facts, **_stage(f"stage{stages}", last or {})}


_CLR: Facts = {"keep_optimiser": Fact(True, f"RL-12: {_RLFN_ARTICLE}: clr keeps the optimiser's state")}
_E2000: Facts = {
    "steps": Fact(2_000_000, f"RL-12: {_RLFN_ARTICLE}: twice the epochs"),
    "schedule.every": Fact(400_000, f"RL-12: {_RLFN_ARTICLE}: halved every 400 000"),
}
_BLOCKS = f"RL-17: {_RLFN_ARTICLE}: RFDB, RFDBR48, RFDBR52, RLFB"


def _rlfn_block(**options: int | str) -> dict[str, Fact]:
    facts = {f"model_options.{name}": Fact(value, _BLOCKS) for name, value in options.items()}
    return {**_rlfn(_X4, stages=1), **facts}


_VGG: Facts = {"losses.contrastive.options.extractor": Fact("vgg19", f"RL-15: {_RLFN_ARTICLE}, layers as AECR-Net and CSD")}


# VapSR ----------------------------------------------------------------------------------------------------------------
def _vapsr(file: str, *, patch_px: int, batch: int, milestones: tuple[int, ...] = (1_000_000,), gamma: float = 0.5) -> Facts:
    source = f"zhoumumu/VapSR, options/train/{file}"
    return _stage(
        "main",
        {
            "losses.0.kind": Fact("l1", f"VA-10: {source}"),
            "optimiser.betas": Fact((0.9, 0.99), f"VA-10: {source}"),
            "optimiser.learning_rate": Fact(1e-3, f"VA-10: {source}"),
            "ema_decay": Fact(0.999, f"VA-10: {source}"),
            "ema_warmup": Fact(False, f"VA-10: {source}"),
            "steps": Fact(1_000_000, f"VA-10: {source}"),
            "schedule.kind": Fact("multistep", f"VA-10: {source}"),
            "schedule.milestones": Fact(milestones, f"VA-10, VA-12: {source}"),
            "schedule.gamma": Fact(gamma, f"VA-10, VA-12: {source}"),
            "data.patch_px": Fact(patch_px, f"VA-11: {source}: gt_size over scale"),
            "batch": Fact(batch, f"VA-11: {source}: batch_size_per_gpu times GPUs"),
            "data.hflip": Fact(True, f"VA-13: {source}"),
            "data.vflip": Fact(True, f"VA-13: {source}: use_rot"),
            "data.transpose": Fact(True, f"VA-13: {source}: use_rot"),
        },
    )


_VAPSR_X4 = _vapsr("VapSR_X4.yml", patch_px=48, batch=64)


def _vapsr_step(**options: int | bool) -> Facts:
    source = "VA-14: Zhou et al., ECCVW 2022, steps of the design; sizes inferred from the printed parameters"
    return {**_VAPSR_X4, **{f"model_options.{name}": Fact(value, source) for name, value in options.items()}}


# RealBasicVSR ---------------------------------------------------------------------------------------------------------
_WOGAN = "ckkelvinchan/RealBasicVSR, configs/realbasicvsr_wogan_c64b20_2x30x8_lr1e-4_300k_reds.py"
_GAN = "ckkelvinchan/RealBasicVSR, configs/realbasicvsr_c64b20_1x30x8_lr5e-5_150k_reds.py"


def _realbasicvsr_stage(config: str) -> dict[str, Fact]:
    cleaning = f"RB-6: {config}"
    sharp = f"RB-7: {config}"
    return {
        "losses.0.weight": Fact(1.0, cleaning),
        "losses.0.on": Fact("output", cleaning),
        "losses.0.target": Fact("sharpened", sharp),
        "losses.1.weight": Fact(1.0, cleaning),
        "losses.1.on": Fact("cleaned", cleaning),
        "losses.1.target": Fact("sharpened", sharp),
        "sharpening.kernel_px": Fact(51, sharp),
        "sharpening.sigma_px": Fact(0.0, sharp),
        "sharpening.weight": Fact(0.5, sharp),
        "sharpening.threshold": Fact(10.0, sharp),
        "optimiser.groups.0.names": Fact(("spynet",), "RB-13: open-mmlab/mmagic, issue 784"),
        "optimiser.groups.0.frozen_until": Fact(None, "RB-13: open-mmlab/mmagic, real_basicvsr_net.py"),
        "ema_decay": Fact(0.999, f"RB-8: {config}"),
        "ema_warmup": Fact(False, f"RB-8: {config}"),
        "schedule.kind": Fact("constant", f"RB-8: {config}"),
        "data.patch_px": Fact(64, "RB-14: Chan et al., CVPR 2022: GT crop 256"),
        "data.clip_frames": Fact(30, f"RB-15: {config}"),
        "data.mirrored": Fact(True, f"RB-15: {config}, MirrorSequence"),
        "data.low_quality": Fact("degraded", f"RB-16: {config}"),
        "data.degradation": Fact("realbasicvsr", f"RB-16 to RB-20: {config}"),
        "data.hflip": Fact(True, f"RB-21: {config}"),
        "data.vflip": Fact(True, f"RB-21: {config}"),
        "data.transpose": Fact(True, f"RB-21: {config}"),
    }


_WOGAN_FACTS: Facts = {
    **_realbasicvsr_stage(_WOGAN),
    "steps": Fact(300_000, f"RB-8: {_WOGAN}"),
    "batch": Fact(16, f"RB-8: {_WOGAN}: 8 GPUs with 2 clips"),
    "optimiser.betas": Fact((0.9, 0.99), f"RB-8: {_WOGAN}"),
    "optimiser.learning_rate": Fact(1e-4, f"RB-8: {_WOGAN}"),
}
_GAN_FACTS: Facts = {
    **_realbasicvsr_stage(_GAN),
    "steps": Fact(150_000, f"RB-9: {_GAN}"),
    "batch": Fact(8, f"RB-9: {_GAN}: 8 GPUs with 1 clip"),
    "start_from": Fact("previous", f"RB-9: {_GAN}"),
    "keep_optimiser": Fact(False, f"RB-9: {_GAN}"),
    "optimiser.learning_rate": Fact(5e-5, f"RB-9: {_GAN}"),
    "discriminator.optimiser.learning_rate": Fact(1e-4, f"RB-9: {_GAN}"),
    "losses.perceptual.weight": Fact(1.0, f"RB-10: {_GAN}"),
    "losses.perceptual.target": Fact("sharpened", f"RB-7: {_GAN}"),
    "losses.perceptual.options.layers": Fact((2, 7, 16, 25, 34), f"RB-10: {_GAN}"),
    "losses.perceptual.options.layer_weights": Fact((0.1, 0.1, 1.0, 1.0, 1.0), f"RB-10: {_GAN}"),
    "losses.gan.weight": Fact(0.05, f"RB-11: {_GAN}"),
    "losses.gan.target": Fact("gt", f"RB-7: {_GAN}: the discriminator sees unsharpened truth"),
    "discriminator.channels": Fact(64, f"RB-12: {_GAN}"),
}


def _pixel_loss(kind: str, source: str) -> Facts:
    return {"losses.0.kind": Fact(kind, source), "losses.1.kind": Fact(kind, source)}


_CODE_LOSS = _pixel_loss("l1", f"RB-6: {_WOGAN}")
_PAPER_LOSS = _pixel_loss("charbonnier", "RB-6: Chan et al., CVPR 2022")


def _realbasicvsr(losses: Facts) -> dict[str, Fact]:
    return {**_stage("wogan", {**_WOGAN_FACTS, **losses}), **_stage("gan", {**_GAN_FACTS, **losses})}


def _without_cleaning_loss(facts: Facts) -> dict[str, Fact]:
    return {path: fact for path, fact in facts.items() if ".losses.1." not in path}


def _sweep(batch: int, frames: int, why: str) -> dict[str, Fact]:
    source = f"RB-22: Chan et al., CVPR 2022, {why}"
    lengths = {"batch": Fact(batch, source), "data.clip_frames": Fact(frames, source)}
    return _stage("wogan", {**_WOGAN_FACTS, **_CODE_LOSS, **lengths})


# Degradations of RealBasicVSR -----------------------------------------------------------------------------------------
_RB = "ckkelvinchan/RealBasicVSR, train_pipeline of both configurations"
_EQUAL_RESIZE = (1 / 3, 1 / 3, 1 / 3)
_BLUR_KINDS = (0.405, 0.225, 0.108, 0.027, 0.108, 0.027, 0.1)

DEGRADATION: Facts = {
    "frames_read": Fact(15, f"RB-15: {_RB}: half of the 30, then MirrorSequence"),
    # Largest step of each parameter's random walk from one frame to the next.
    "walk.blur_sigma": Fact(0.02, f"RB-16: {_RB}, RandomBlur sigma_x_step and sigma_y_step"),
    "walk.blur_rotation": Fact(0.31416, f"RB-16: {_RB}, rotate_angle_step"),
    "walk.blur_beta_gaussian": Fact(0.05, f"RB-16: {_RB}, beta_gaussian_step"),
    "walk.blur_beta_plateau": Fact(0.1, f"RB-16: {_RB}, beta_plateau_step"),
    "walk.sinc_omega": Fact(0.0628, f"RB-16: {_RB}, omega_step"),
    "first.walk.resize": Fact(0.015, f"RB-16: {_RB}, resize_step of the first RandomResize"),
    "second.walk.resize": Fact(0.03, f"RB-16: {_RB}, resize_step of the second RandomResize"),
    "walk.gaussian_sigma": Fact(0.1, f"RB-16: {_RB}, gaussian_sigma_step"),
    "walk.poisson_scale": Fact(0.005, f"RB-16: {_RB}, poisson_scale_step"),
    "walk.jpeg_quality": Fact(3, f"RB-16: {_RB}, quality_step"),
    # First order.
    "first.blur.probability": Fact(1.0, f"RB-17: {_RB}"),
    "first.blur.kernel_px": Fact((7, 9, 11, 13, 15, 17, 19, 21), f"RB-17: {_RB}"),
    "first.blur.kind_probabilities": Fact(_BLUR_KINDS, f"RB-17: {_RB}"),
    "first.blur.sigma_px": Fact((0.2, 3.0), f"RB-17: {_RB}"),
    "first.resize.up_down_keep": Fact((0.2, 0.7, 0.1), f"RB-17: {_RB}"),
    "first.resize.scale": Fact((0.15, 1.5), f"RB-17: {_RB}"),
    "first.resize.bilinear_area_bicubic": Fact(_EQUAL_RESIZE, f"RB-17: {_RB}"),
    "first.resize.even_sizes": Fact(True, f"RB-17: {_RB}, is_size_even"),
    "first.noise.gaussian_poisson": Fact((0.5, 0.5), f"RB-17: {_RB}"),
    "first.noise.gaussian_sigma": Fact((1.0, 30.0), f"RB-17: {_RB}: on the 0 to 255 scale"),
    "first.noise.poisson_scale": Fact((0.05, 3.0), f"RB-17: {_RB}"),
    "first.noise.grey_probability": Fact(0.4, f"RB-17: {_RB}"),
    "first.jpeg.quality": Fact((30, 95), f"RB-17: {_RB}"),
    "first.video": Fact(True, f"RB-17: {_RB}: compressed as video after JPEG"),
    # Second order.
    "second.blur.probability": Fact(0.8, f"RB-18: {_RB}"),
    "second.blur.sigma_px": Fact((0.2, 1.5), f"RB-18: {_RB}"),
    "second.resize.up_down_keep": Fact((0.3, 0.4, 0.3), f"RB-18: {_RB}"),
    "second.resize.scale": Fact((0.3, 1.2), f"RB-18: {_RB}"),
    "second.noise.gaussian_sigma": Fact((1.0, 25.0), f"RB-18: {_RB}"),
    "second.noise.poisson_scale": Fact((0.05, 2.5), f"RB-18: {_RB}"),
    "second.jpeg.quality": Fact((30, 95), f"RB-18: {_RB}"),
    # The end, in random order: video compression; reduction to the patch and a sinc filter.
    "last.shuffled": Fact(True, f"RB-19: {_RB}, DegradationsWithShuffle"),
    "last.size_px": Fact(64, f"RB-19: {_RB}"),
    "last.sinc_probability": Fact(0.8, f"RB-19: {_RB}"),
    "last.sinc_omega": Fact((math.pi / 3, math.pi), f"RB-19: {_RB}"),
    "last.quantised": Fact(True, f"RB-19: {_RB}"),
    "video.codecs": Fact(("libx264", "h264", "mpeg4"), f"RB-20: {_RB}, RandomVideoCompression"),
    "video.codec_probabilities": Fact(_EQUAL_RESIZE, f"RB-20: {_RB}"),
    "video.bit_rate": Fact((1e4, 1e5), f"RB-20: {_RB}: bits a second"),
    "video.frame_rate": Fact(1, "RB-20: open-mmlab/mmagic, random_degradations.py: frames a second"),
}
"""Ranges of the degradations "realbasicvsr". The names are upframe's; a test maps them to the fields of
`degradations.pipeline.realbasicvsr`."""

# VRT ------------------------------------------------------------------------------------------------------------------
_KAIR = "cszn/KAIR, options/vrt/001_train_vrt_videosr_bi_reds_6frames.json"
_REDS4 = Fact(("000", "011", "015", "020"), "VR-12: Liang et al., arXiv 2201.12288: 266 training clips, REDS4 held out")
_VRT: Facts = {
    "losses.0.kind": Fact("charbonnier", "VR-6: cszn/KAIR, models/loss.py"),
    "losses.0.options.eps": Fact(1e-9, "VR-6: cszn/KAIR, models/loss.py: inside the root"),
    "losses.0.options.reduction": Fact("mean", "VR-6: cszn/KAIR, models/loss.py"),
    "optimiser.betas": Fact((0.9, 0.99), f"VR-7: {_KAIR}"),
    "optimiser.learning_rate": Fact(4e-4, f"VR-7: {_KAIR}"),
    "optimiser.weight_decay": Fact(0.0, f"VR-7: {_KAIR}"),
    "clip_grad_norm": Fact(None, f"VR-7: {_KAIR}"),
    "ema_decay": Fact(None, f"VR-7: {_KAIR}: E_decay 0"),
    "schedule.kind": Fact("cosine_warm_restarts", f"VR-8: {_KAIR}"),
    "schedule.periods": Fact((300_000,), f"VR-8: {_KAIR}"),
    "schedule.final_learning_rate": Fact(1e-7, f"VR-8: {_KAIR}"),
    "steps": Fact(300_000, f"VR-8: {_KAIR}"),
    "batch": Fact(8, f"VR-8: {_KAIR}"),
    "data.patch_px": Fact(64, f"VR-8: {_KAIR}: gt_size 256"),
    "data.hflip": Fact(True, f"VR-8: {_KAIR}"),
    "data.vflip": Fact(True, f"VR-8: {_KAIR}: use_rot"),
    "data.transpose": Fact(True, f"VR-8: {_KAIR}: use_rot"),
    "optimiser.groups.0.names": Fact(("spynet", "deform"), f"VR-9: {_KAIR}: fix_keys"),
    "optimiser.groups.0.frozen_until": Fact(20_000, f"VR-9: {_KAIR}: fix_iter"),
    "optimiser.groups.0.learning_rate_multiplier": Fact(0.125, f"VR-9: {_KAIR}: fix_lr_mul"),
    "activation_checkpointing.attention": Fact(True, f"VR-11: {_KAIR}: use_checkpoint_attn"),
    "activation_checkpointing.feed_forward": Fact(False, f"VR-11: {_KAIR}: use_checkpoint_ffn"),
}


def _vrt(*, frames: int, reverse: bool, low_quality: str, id_: str, **other: Fact) -> dict[str, Fact]:
    own = {
        "data.clip_frames": Fact(frames, id_),
        "data.time_reversal": Fact(reverse, "VR-8: cszn/KAIR, options/vrt: use_reverse for Vimeo only"),
        "data.low_quality": Fact(low_quality, id_),
        "data.exclude": Fact((), id_) if reverse else _REDS4,
    }
    return _stage("main", {**_VRT, **own, **{path.replace("__", "."): fact for path, fact in other.items()}})


_ME = "mindediting, configs/vrt/train.yaml"
_MINDEDITING = {
    "optimiser__learning_rate": Fact(2e-4, f"VR-10: {_ME}: base_lr"),
    "optimiser__groups__0__learning_rate_multiplier": Fact(0.125, f"VR-10: {_ME}: lr_mul"),
    "optimiser__groups__0__frozen_until": Fact(3325, f"VR-10: {_ME}: one epoch at factor 0; 26 600 frames, batch 8"),
}
_NOT_RECOMPUTED = Fact((0, 1, 2, 3, 4, 5), "VR-11: cszn/KAIR, options/vrt/002: no_checkpoint_attn_blocks")

# VSR-Transformer ------------------------------------------------------------------------------------------------------
_YML = "caojiezhang/VSR-Transformer, options/train"
_VSRT: Facts = {
    "data.patch_px": Fact(64, "VT-10: Cao et al., arXiv 2106.06847"),
    "data.hflip": Fact(True, "VT-10: Cao et al., arXiv 2106.06847"),
    "data.vflip": Fact(True, f"VT-10: {_YML}: use_rot"),
    "data.transpose": Fact(True, f"VT-10: {_YML}: use_rot"),
    "data.intervals": Fact((1,), f"VT-10: {_YML}: interval_list"),
    "losses.0.kind": Fact("charbonnier", "VT-10: Cao et al., arXiv 2106.06847"),
    "losses.0.options.reduction": Fact("sum", f"VT-10: {_YML}"),
    "losses.0.options.eps": Fact(1e-12, f"VT-10: {_YML}"),
    "optimiser.betas": Fact((0.9, 0.99), "VT-10: Cao et al., arXiv 2106.06847"),
    "optimiser.learning_rate": Fact(2e-4, "VT-10: Cao et al., arXiv 2106.06847"),
    "schedule.final_learning_rate": Fact(1e-7, "VT-10: Cao et al., arXiv 2106.06847"),
}


def _vsrt(*, frames: int, batch: int, steps: int, reverse: bool, source: str, **other: Fact) -> dict[str, Fact]:
    own = {
        "data.clip_frames": Fact(frames, f"VT-7: {source}"),
        "data.time_reversal": Fact(reverse, f"VT-10: {source}"),
        "batch": Fact(batch, f"VT-12: {source}: clips a GPU times 8"),
        "steps": Fact(steps, f"VT-12: {source}"),
    }
    return _stage("main", {**_VSRT, **own, **{path.replace("__", "."): fact for path, fact in other.items()}})


_REDS_RESTARTS = {
    "schedule__kind": Fact("cosine_restarts", f"VT-11: {_YML}, REDS"),
    "schedule__periods": Fact((300_000,) * 4, f"VT-11: {_YML}, REDS"),
    "schedule__restart_weights": Fact((1.0, 0.5, 0.5, 0.5), f"VT-11: {_YML}, REDS"),
}
_VIMEO_RESTARTS = {
    "schedule__kind": Fact("cosine_restarts", f"VT-11: {_YML}, Vimeo"),
    "schedule__periods": Fact((200_000,) * 6, f"VT-11: {_YML}, Vimeo"),
    "schedule__restart_weights": Fact((1.0, 0.5, 0.5, 0.5, 0.5, 0.5), f"VT-11: {_YML}, Vimeo"),
}


def _vsrt_reds(frames: int) -> dict[str, Fact]:
    return _vsrt(frames=frames, batch=32, steps=1_200_000, reverse=True, source=f"{_YML}, REDS", **_REDS_RESTARTS)


_VSRT_ABLATIONS = "VT-16: Cao et al., arXiv 2106.06847: without flow, without STCSA, without BOFF"
_VSRT_PAPER = {
    **_vsrt(frames=5, batch=16, steps=600_000, reverse=False, source="Cao et al., arXiv 2106.06847"),
    "model_options.slope": Fact(0.01, "VT-6: Cao et al., arXiv 2106.06847, appendix table; the code has 0.1"),
}

OFFICIAL: Mapping[str, Facts] = {
    "rlfn-x2": _rlfn(_X2, stages=3, last=_CONTRASTIVE),
    "rlfn-x4": _rlfn(_X4, stages=3, last=_CONTRASTIVE),
    "rlfn-s-x2": _rlfn(_X2, stages=3, last=_CONTRASTIVE),
    "rlfn-s-x4": _rlfn(_X4, stages=3, last=_CONTRASTIVE),
    "rlfn-x4-ws-0": _rlfn(_X4, stages=1),
    "rlfn-x4-ws-1": _rlfn(_X4, stages=2),
    "rlfn-x4-ws-2": _rlfn(_X4, stages=3),
    "rlfn-x4-e2000": _rlfn(_X4, stages=1, length=_E2000),
    "rlfn-x4-clr": _rlfn(_X4, stages=2, last=_CLR),
    "rlfn-x4-vgg": _rlfn(_X4, stages=3, last=_VGG),
    "rlfn-x4-rfdb": _rlfn_block(block="rfdb"),
    "rlfn-x4-rfdbr48": _rlfn_block(block="rfdbr", channels=48),
    "rlfn-x4-rfdbr52": _rlfn_block(block="rfdbr", channels=52, esa_channels=16),
    "vapsr-x2": _vapsr("VapSR_X2.yml", patch_px=48, batch=64, milestones=(60_000, 1_000_000), gamma=0.7),
    "vapsr-x3": _vapsr("VapSR_X3.yml", patch_px=48, batch=64),
    "vapsr-x4": _VAPSR_X4,
    "vapsr-s-x4": _vapsr("*.yml (S)", patch_px=64, batch=192),
    "vapsr-x4-pixel-attention": _vapsr_step(dense_px=1, attention_last=True, pixel_norm=False),
    "vapsr-x4-large-kernel": _vapsr_step(dense_px=9, attention_last=True, pixel_norm=False),
    "vapsr-x4-separable": _vapsr_step(attention_last=True, pixel_norm=False),
    "vapsr-x4-pixel-norm": _vapsr_step(attention_last=True),
    "vapsr-x4-attention-inside": _vapsr_step(),
    "realbasicvsr-x4": _realbasicvsr(_CODE_LOSS),
    "realbasicvsr-x4-paper": _realbasicvsr(_PAPER_LOSS),
    "realbasicvsr-x4-wogan": _stage("wogan", {**_WOGAN_FACTS, **_CODE_LOSS}),
    "realbasicvsr-x4-no-cleaning-loss": _without_cleaning_loss(_realbasicvsr(_CODE_LOSS)),
    "realbasicvsr-x4-no-cleaning": _without_cleaning_loss(_realbasicvsr(_CODE_LOSS)),
    "realbasicvsr-x4-recurrent-cleaning": {
        **_realbasicvsr(_CODE_LOSS),
        "model_options.recurrent_cleaning": Fact(True, "RB-23: Chan et al., CVPR 2022"),
    },
    "realbasicvsr-x4-b48-l10": _sweep(48, 10, "480 frames a step"),
    "realbasicvsr-x4-b24-l20": _sweep(24, 20, "480 frames a step"),
    "realbasicvsr-x4-b16-l10": _sweep(16, 10, "16 clips a step"),
    "realbasicvsr-x4-b16-l20": _sweep(16, 20, "16 clips a step"),
    "vrt-001": _vrt(frames=6, reverse=False, low_quality="paired", id_=f"VR-2: {_KAIR}"),
    "vrt-001-mindediting": _vrt(frames=6, reverse=False, low_quality="paired", id_=f"VR-2: {_ME}", **_MINDEDITING),
    "vrt-002": _vrt(
        frames=16,
        reverse=False,
        low_quality="paired",
        id_="VR-3: JingyunLiang/VRT, main_test_vrt.py",
        activation_checkpointing__except_stages=_NOT_RECOMPUTED,
    ),
    "vrt-003": _vrt(frames=7, reverse=True, low_quality="paired", id_="VR-4: cszn/KAIR, options/vrt/003"),
    "vrt-004": _vrt(frames=7, reverse=True, low_quality="bd", id_="VR-4: cszn/KAIR, options/vrt/004"),
    "vsrt-reds": _vsrt_reds(5),
    "vsrt-reds-frames-3": _vsrt_reds(3),
    "vsrt-reds-frames-7": _vsrt_reds(7),
    "vsrt-reds-no-flow": {**_vsrt_reds(5), "model_options.flow": Fact(False, _VSRT_ABLATIONS)},
    "vsrt-reds-no-attention": {**_vsrt_reds(5), "model_options.attention": Fact(False, _VSRT_ABLATIONS)},
    "vsrt-reds-no-boff": {**_vsrt_reds(5), "model_options.directions": Fact("none", _VSRT_ABLATIONS)},
    "vsrt-reds-paper": _VSRT_PAPER,
    "vsrt-vimeo": _vsrt(frames=7, batch=16, steps=1_200_000, reverse=True, source=f"{_YML}, Vimeo", **_VIMEO_RESTARTS),
}
"""Facts by name of the recipe that claims to follow them."""


def deviations(recipe: Recipe, facts: Facts) -> list[str]:
    """List the differences between `recipe` and `facts`, one line each with both values and the source."""
    lines = []
    for path, fact in facts.items():
        try:
            found = value_at(recipe, path)
        except (KeyError, AttributeError):
            lines.append(f"{path} is absent; {fact.value} by {fact.source}")
            continue
        if type(found) is not type(fact.value) or found != fact.value:
            lines.append(f"{path} is {found}; {fact.value} by {fact.source}")
    return lines
