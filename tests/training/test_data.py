"""Patches: the low-resolution half of a pair is exactly what the stored test sets would hold."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from conftest import make_photo
from upframe.errors import InputError
from upframe.media.images import write_pixels
from upframe.pixels import crop_to_multiple, matlab_bicubic_8bit
from upframe.training.data import PatchSampler, load_photos


def _poses(x: torch.Tensor) -> list[torch.Tensor]:
    turned = [torch.rot90(x, k, (-2, -1)) for k in range(4)]
    return turned + [t.flip(-1) for t in turned]


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_a_patch_is_a_crop_of_the_whole_picture_s_low_resolution_version(scale: int) -> None:
    """Found again by search, in one of the eight orientations, equal in every value; and its ground truth with it."""
    photo = make_photo(100, 110, seed=scale)
    hr = crop_to_multiple(torch.from_numpy(photo).permute(2, 0, 1), scale)
    lr = matlab_bicubic_8bit(hr, scale)
    batch = PatchSampler([photo], scale=scale, patch_px=10, batch=6, seed=3)(step=0)
    for lq, gt in zip(batch.lq, batch.gt, strict=True):
        codes = (lq * 255).round().to(torch.uint8)
        truths = _poses((gt * 255).round().to(torch.uint8))
        places = [
            (pose, y, x)
            for pose, turned in enumerate(_poses(codes))
            for y in range(lr.shape[1] - 9)
            for x in range(lr.shape[2] - 9)
            if torch.equal(lr[:, y : y + 10, x : x + 10], turned)
        ]
        assert len(places) == 1
        pose, y, x = places[0]
        s = scale
        assert torch.equal(hr[:, y * s : (y + 10) * s, x * s : (x + 10) * s], truths[pose])


def test_a_step_s_batch_depends_on_seed_and_step_alone() -> None:
    photos = [make_photo(80, 90, seed=i) for i in range(3)]
    one = PatchSampler(photos, scale=2, patch_px=12, batch=4, seed=5)
    two = PatchSampler(photos, scale=2, patch_px=12, batch=4, seed=5)
    one(0)  # earlier draws do not matter
    assert torch.equal(one(7).gt, two(7).gt)
    assert not torch.equal(one(7).gt, one(8).gt)
    other = PatchSampler(photos, scale=2, patch_px=12, batch=4, seed=6)
    assert not torch.equal(one(7).gt, other(7).gt)


def test_every_orientation_is_drawn() -> None:
    ramp = np.zeros((60, 60, 3), np.uint8)
    ramp[..., 0] = np.arange(60)[:, None] * 4
    ramp[..., 1] = np.arange(60) * 3
    # Red rises downwards and green to the right; where each rises after turning names the orientation, one of eight.
    seen = set()
    for patch in PatchSampler([ramp], scale=2, patch_px=12, batch=200, seed=1)(0).gt:
        red = patch[0, -1, 0] - patch[0, 0, 0], patch[0, 0, -1] - patch[0, 0, 0]
        green = patch[1, -1, 0] - patch[1, 0, 0], patch[1, 0, -1] - patch[1, 0, 0]
        seen.add(tuple(int(torch.sign(rise)) for rise in (*red, *green)))
    assert len(seen) == 8


def test_unusable_files_are_left_out_and_damaged_ones_named(tmp_path: Path) -> None:
    write_pixels(tmp_path / "good.png", make_photo(64, 64))
    write_pixels(tmp_path / "small.png", make_photo(20, 64))
    write_pixels(tmp_path / "skip_me.png", make_photo(64, 64))
    assert list(load_photos(tmp_path, exclude=("skip_*",), minimum_px=40)) == ["good.png"]
    (tmp_path / "broken.png").write_bytes(b"not a picture")
    with pytest.raises(InputError, match=r"broken\.png"):
        load_photos(tmp_path, minimum_px=40)


def test_a_folder_without_photos_is_an_input_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no usable photographs"):
        load_photos(tmp_path, minimum_px=40)
