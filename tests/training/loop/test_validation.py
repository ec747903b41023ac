"""Validation while training: what it scores and how, what it keeps, and what it refuses before anything is trained."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from conftest import make_photo
from films import make_frames
from toys import RECIPE
from upframe.engines import TorchOptions
from upframe.errors import UsageError
from upframe.media.image.files import write_pixels
from upframe.media.image.source import read_pixels
from upframe.models.families import vsr_transformer
from upframe.models.registry import load
from upframe.pixels import matlab_bicubic_8bit
from upframe.training.loop.validation import KEPT_SHEETS, HeldOut, validator
from upframe.training.recipes.recipe import model_spec
from upframe.upscaling.clips import ClipUpscaler
from upframe.upscaling.options import UpscaleOptions


def _luma(picture: np.ndarray) -> np.ndarray:  # type: ignore[type-arg]
    """BT.601 studio Y of (H, W, 3) pixels on the 0 to 255 scale."""
    return 16 + picture.astype(float) @ np.array([65.481, 128.553, 24.966]) / 255


def _clip(folder: Path, name: str, frames: int) -> list[Path]:
    scene = make_photo(48, 64 + frames, seed=3)
    make_frames(folder / "GT" / name, [np.ascontiguousarray(scene[:, n : n + 64]) for n in range(frames)])
    return sorted((folder / "GT" / name).iterdir())


@pytest.mark.slow
def test_a_network_with_windows_in_time_is_scored_as_it_enlarges_films(tmp_path: Path) -> None:
    """Seven frames through a network that takes five at a time, and the mean of their PSNR by its formula."""
    truth = [read_pixels(path) for path in _clip(tmp_path / "set", "walk", 7)]
    spec = vsr_transformer.spec_for(
        channels=4, frames=5, depth=1, window_px=24, extract_blocks=1, reconstruct_blocks=1, feed_forward_blocks=1
    )
    torch.manual_seed(0)
    torch.save({"params": spec.build().state_dict()}, tmp_path / "vsrt.pth")
    small = [matlab_bicubic_8bit(torch.from_numpy(frame).permute(2, 0, 1), 4).permute(1, 2, 0).numpy() for frame in truth]
    made = ClipUpscaler(load(tmp_path / "vsrt.pth"), UpscaleOptions(tile="off", engine=TorchOptions(precision="fp32"))).frames(
        small
    )
    scores = [
        10 * math.log10(255**2 / np.mean((_luma(ours) - _luma(true)) ** 2)) for ours, true in zip(made, truth, strict=True)
    ]
    found = validator(tmp_path / "set", protocol="vid4-y", device="cpu")(tmp_path / "vsrt.pth", 1)
    ((name, figures),) = found.items()
    assert name.startswith("Vid4") and figures.keys() == {"psnr-y", "ssim-y"}
    assert figures["psnr-y"] == pytest.approx(np.mean(scores), abs=1e-9)


@pytest.mark.slow
def test_sheets_of_the_last_validations_are_kept(tmp_path: Path) -> None:
    (tmp_path / "sets" / "Toy" / "HR").mkdir(parents=True)
    write_pixels(tmp_path / "sets" / "Toy" / "HR" / "a.png", make_photo(32, 32))
    torch.save({"params": model_spec(RECIPE).build().state_dict()}, tmp_path / "x2.pth")
    validate = validator(tmp_path / "sets", device="cpu", sheets=tmp_path / "sheets")
    for step in range(1, KEPT_SHEETS + 3):
        validate(tmp_path / "x2.pth", step)
    kept = sorted(path.name for path in (tmp_path / "sheets").iterdir())
    assert kept == [f"step-{step:08d}_Toy_x2.png" for step in range(3, KEPT_SHEETS + 3)]


def test_every_true_frame_of_a_set_of_clips_is_held_out(tmp_path: Path) -> None:
    paths = _clip(tmp_path, "walk", 3)
    held = dict(HeldOut(tmp_path, 4, "vid4-y"))
    assert list(held) == ["Vid4/walk/0", "Vid4/walk/1", "Vid4/walk/2"]
    assert np.array_equal(held["Vid4/walk/2"], read_pixels(paths[2]))


@pytest.mark.parametrize(
    ("protocol", "datasets", "refusal"),
    [
        ("vid4-y", ["Vid4"], r"datasets=\['Vid4'\]: vid4-y uses only Vid4"),
        ("videolq-3frame", None, "validation: videolq-3frame needs a pristine model of NIQE"),
    ],
)
def test_what_would_fail_at_the_first_validation_is_refused_at_once(
    tmp_path: Path, protocol: str, datasets: list[str] | None, refusal: str
) -> None:
    with pytest.raises(UsageError, match=refusal):
        validator(tmp_path, protocol=protocol, datasets=datasets)
