"""Small networks of other publishers, with weights made here, as files that their publishers would hand out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from upframe.models import community


def _networks() -> dict[str, Callable[[], nn.Module]]:
    """Sizes that compute in a moment; spandrel's recogniser finds each by its names and shapes."""
    community._spandrel()  # with the stand-in for torchvision, where that does not work
    from spandrel.architectures.Compact import Compact
    from spandrel.architectures.DnCNN import DnCNN
    from spandrel.architectures.DRUNet import DRUNet
    from spandrel.architectures.ESRGAN import ESRGAN
    from spandrel.architectures.MoSR import MoSR
    from spandrel.architectures.NAFNet import NAFNet
    from spandrel.architectures.OmniSR import OmniSR
    from spandrel.architectures.PLKSR import PLKSR, RealPLKSR
    from spandrel.architectures.RCAN import RCAN
    from spandrel.architectures.SAFMN import SAFMN
    from spandrel.architectures.SPAN import SPAN
    from spandrel.architectures.SwinIR import SwinIR

    return {
        "ESRGAN": lambda: ESRGAN(num_filters=16, num_blocks=2, scale=4),
        "Compact": lambda: Compact(num_feat=16, num_conv=4, upscale=2),
        "SPAN": lambda: SPAN(num_in_ch=3, num_out_ch=3, feature_channels=16, upscale=2),
        "PLKSR": lambda: PLKSR(dim=16, n_blocks=2, upscaling_factor=2),
        "RealPLKSR": lambda: RealPLKSR(dim=16, n_blocks=2, upscaling_factor=3),
        "SwinIR": lambda: SwinIR(
            img_size=32, embed_dim=12, depths=[2, 2], num_heads=[2, 2], window_size=8, mlp_ratio=2, upscale=2,
            upsampler="pixelshuffledirect",
        ),
        "DnCNN": lambda: DnCNN(in_nc=3, out_nc=3, nc=16, nb=17, act_mode="R"),
        "DnCNN-gray": lambda: DnCNN(in_nc=1, out_nc=1, nc=16, nb=17, act_mode="R"),
        "NAFNet": lambda: NAFNet(width=8, middle_blk_num=1, enc_blk_nums=[1, 1], dec_blk_nums=[1, 1]),
        "RCAN": lambda: RCAN(scale=2, n_resgroups=2, n_resblocks=2, n_feats=16),
        "OmniSR": lambda: OmniSR(num_feat=16, up_scale=2),
        "SAFMN": lambda: SAFMN(dim=16, n_blocks=2, upscaling_factor=2),
        "MoSR": lambda: MoSR(n_block=2, dim=16, upscale=2),
        "DRUNet": lambda: DRUNet(in_nc=3, out_nc=3, nc=[8, 16, 32, 64], nb=4, act_mode="R"),
    }  # fmt: skip


NAMES = (
    *("ESRGAN", "Compact", "SPAN", "PLKSR", "RealPLKSR", "SwinIR", "DnCNN", "DnCNN-gray", "NAFNet", "RCAN", "OmniSR"),
    *("SAFMN", "MoSR"),
)


def state(name: str) -> dict[str, Tensor]:
    torch.manual_seed(7)
    return dict(_networks()[name]().state_dict())


def file(name: str, folder: Path) -> Path:
    path = folder / f"{name}.pth"
    torch.save({"params_ema": state(name)}, path)
    return path


def reference(name: str) -> Any:
    """spandrel's own descriptor of the same weights."""
    return community._spandrel().MAIN_REGISTRY.load(state(name)).eval()
