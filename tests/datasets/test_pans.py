"""Clips of a camera over photographs: exact motion, sharpness, names, the same bytes again."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from conftest import Upframe, make_photo
from upframe.datasets.footage import find_clips
from upframe.datasets.prepare import pans
from upframe.datasets.prepare.items import carry_out
from upframe.datasets.prepare.pans import SHAKE_PX, TURN, _codes, _views, camera_path, prepare_pans
from upframe.errors import InputError, UsageError
from upframe.media.image.files import write_pixels
from upframe.media.image.source import read_pixels


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    (folder / "trip").mkdir(parents=True)
    write_pixels(folder / "a.png", make_photo(160, 170, seed=1))
    write_pixels(folder / "trip" / "b.png", make_photo(170, 200, seed=2))
    write_pixels(folder / "small.png", make_photo(40, 40, seed=3))
    return folder


def made(photos: Path, out: Path, **how: int | float) -> dict[str, bytes]:
    arguments: dict[str, int | float] = {"frames": 3, "size_px": 32, "speed_px": 4.0, **how}
    carry_out(prepare_pans(photos, out, **arguments))  # type: ignore[arg-type]
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in sorted(out.rglob("*.png"))}


def test_each_photo_that_is_large_enough_becomes_clips_that_training_finds(photos: Path, tmp_path: Path) -> None:
    files = made(photos, tmp_path / "pans")
    clips = {"a_p1", "a_p2", "trip/b_p1", "trip/b_p2"}
    assert set(files) == {f"{clip}/{n:08}.png" for clip in clips for n in range(3)}
    found = find_clips(tmp_path / "pans", exclude=("a*",))
    assert {clip.name for clip in found.clips} == {"trip/b_p1", "trip/b_p2"}
    assert read_pixels(tmp_path / "pans" / "a_p1" / "00000000.png").shape == (32, 32, 3)


def test_equal_seeds_make_equal_clips_whatever_else_is_there(photos: Path, tmp_path: Path) -> None:
    files = made(photos, tmp_path / "one")
    (photos / "trip" / "b.png").unlink()
    again = made(photos, tmp_path / "two")
    assert again == {name: data for name, data in files.items() if name.startswith("a_")}
    other = made(photos, tmp_path / "three", seed=1)
    assert other.keys() == again.keys() and all(other[name] != again[name] for name in again)


def test_frames_lie_where_the_path_says() -> None:
    """Moved by one pixel of a frame, a frame is its neighbour; unmoved it is the photo averaged over pixels of 2×2."""
    photo = torch.rand(1, 3, 41, 41) * 255
    still = torch.tensor([[1.0, 0, 0], [0, 1, 0]])
    moved = still + torch.tensor([[0, 0, 1.0], [0, 0, -2]])
    here, there = map(_codes, _views(photo, torch.stack([still, moved]), 9))
    assert np.array_equal(there[2:, :-1], here[:-2, 1:])
    # Nine pixels, two photo pixels apart, about the middle of 41: photo pixels 12 to 28.
    assert np.array_equal(here, photo[0, :, 12:29:2, 12:29:2].round().byte().permute(1, 2, 0).numpy())


def test_the_path_is_steady_but_for_the_shake_of_a_hand() -> None:
    rng = np.random.default_rng(0)
    speeds = []
    for _ in range(200):
        path = camera_path(9, speed_px=6, rng=rng)
        steps = path[1:, :, 2] - path[:-1, :, 2]
        speeds.append(float(steps.mean(0).norm()))
        assert (steps - steps.mean(0)).abs().max() < 8 * SHAKE_PX
        turn = torch.atan2(path[1:, 1, 0], path[1:, 0, 0]) - torch.atan2(path[:-1, 1, 0], path[:-1, 0, 0])
        assert turn.abs().max() <= 2 * TURN + 1e-6
        torch.testing.assert_close(turn, turn.mean().expand(8), rtol=0, atol=1e-6)  # float32
    assert np.median(speeds) < 6 / 4 + SHAKE_PX
    assert max(speeds) > 4


def test_slow_clips_stay_as_sharp_as_a_photo_averaged_over_pixels(photos: Path, tmp_path: Path) -> None:
    """Mean gradient between the frames' own pixels: at least nine tenths of that of the photo at half the size."""
    made(photos, tmp_path / "pans", speed_px=0.5, frames=4)
    photo = torch.from_numpy(read_pixels(photos / "a.png").astype(np.float32)).permute(2, 0, 1)[None]
    half = F.avg_pool2d(photo, 2)
    for path in (tmp_path / "pans" / "a_p1").iterdir():
        frame = torch.from_numpy(read_pixels(path).astype(np.float32)).permute(2, 0, 1)
        assert frame.diff(dim=-1).abs().mean() > 0.9 * half.diff(dim=-1).abs().mean()


def test_what_makes_no_clip_is_refused(photos: Path, tmp_path: Path, upframe: Upframe) -> None:
    with pytest.raises(InputError, match="no photo in it holds"):
        prepare_pans(photos, tmp_path / "pans", size_px=200)
    with pytest.raises(UsageError, match="at least 1"):
        prepare_pans(photos, tmp_path / "pans", frames=0)
    done = upframe("data", "prepare", "pans", photos, tmp_path / "pans", "--frames", "2", "--size", "24", "--dry-run")
    assert done.code == 0 and "4 clips" in done.out
    assert not (tmp_path / "pans").exists()


# Lively clips ---------------------------------------------------------------------------------------------------------
STILL = torch.tensor([[1.0, 0, 0], [0, 1, 0]]).expand(4, 2, 3)


def lively(monkeypatch: pytest.MonkeyPatch, other: Tensor | None, **shares: float) -> list[Tensor]:
    """A still camera over a gray photo, with the stated shares of clips that sway and flicker."""
    for name in ("SWAYING", "FLICKERING"):
        monkeypatch.setattr(pans, name, shares.get(name, 0.0))
    photo = torch.full((1, 3, 64, 64), 100.0)
    photo[..., ::8] = 140.0
    rng = np.random.default_rng(3)
    return list(pans._lively_views(photo, STILL, 24, other=other, speed_px=3.0, rng=rng))


def test_a_piece_moves_in_front_and_hides_what_is_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    views = lively(monkeypatch, torch.full((1, 3, 64, 64), 250.0))
    covered = [(view > 200).all(0) for view in views]
    assert all(0.02 < float(mask.float().mean()) < 0.6 for mask in covered)
    assert not torch.equal(covered[0], covered[-1])
    alone = lively(monkeypatch, None)
    assert all(torch.equal(view, alone[0]) for view in alone), "nothing else moves"
    uncovered = F.max_pool2d(covered[0].float()[None], 5, stride=1, padding=2)[0] == 0  # its edge is two pixels wide
    torch.testing.assert_close(views[0][:, uncovered], alone[0][:, uncovered], rtol=0, atol=1e-3)


def test_light_flickers_everywhere_alike_and_surfaces_sway_smoothly(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = lively(monkeypatch, None)[0]
    factors = [view / plain for view in lively(monkeypatch, None, FLICKERING=1.0)]
    for factor in factors:
        torch.testing.assert_close(factor, factor.mean().expand_as(factor), rtol=1e-5, atol=0)
    assert len({round(float(factor.mean()), 6) for factor in factors}) == 4
    swaying = lively(monkeypatch, None, SWAYING=1.0)
    assert all((view - plain).abs().max() > 1 for view in swaying)
    steps = [float((b - a).abs().mean()) for a, b in pairwise(swaying)]
    assert 0 < max(steps) < 20


def test_a_lively_folder_says_so_and_differs(photos: Path, tmp_path: Path, upframe: Upframe) -> None:
    size = ("--frames", "3", "--size", "32", "--per-photo", "4", "--speed", "4")
    for out, flags in (("calm", ()), ("lively", ("--lively",))):
        assert upframe("data", "prepare", "pans", photos, tmp_path / out, *size, *flags).code == 0
    calm, lively = (
        {path.relative_to(tmp_path / out): path.read_bytes() for path in (tmp_path / out).rglob("*.png")}
        for out in ("calm", "lively")
    )
    assert calm.keys() == lively.keys() and calm != lively
    refused = upframe("data", "prepare", "pans", photos, tmp_path / "calm", *size, "--lively")
    assert refused.code == 6 and "was made differently: lively" in refused.err
