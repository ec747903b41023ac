"""Tones that an enlargement must keep, on functions whose errors are known."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from conftest import make_photo
from upframe.evaluation.tones import SIDE_PX, Tones, diffused, measure_tones, measured, patterns, takes_tones
from upframe.evaluation.verify import proof_sheet
from upframe.media.frames import Pixels
from upframe.models.cards import Card
from upframe.models.networks import MODELS
from upframe.models.registry import Model, load
from upframe.training.loop.validation import validator


def make_test_set(folder: Path) -> Path:
    (folder / "Set5" / "HR").mkdir(parents=True)
    Image.fromarray(make_photo(48, 48, seed=0)).save(folder / "Set5" / "HR" / "a.png")
    return folder


def nearest(picture: Pixels) -> Pixels:
    return picture.repeat(2, 0).repeat(2, 1)


def test_repeated_pixels_keep_every_tone() -> None:
    assert measured(nearest) == Tones(0, 0, 0)
    assert measured(nearest).passed


@pytest.mark.parametrize(
    ("fault", "found"),
    [
        (lambda big: np.where(np.arange(len(big))[:, None, None] == 0, 0, big), Tones(flat=255, ends=255, pattern=255 / 64)),
        (lambda big: np.minimum(big, 250), Tones(flat=5, ends=5, pattern=5 * 3 / 4)),
        (lambda big: np.where(np.ptp(big[..., 0]) > 0, 0.9 * big, big), Tones(flat=0, ends=0, pattern=255 * 3 / 4 * 0.1)),
    ],
    ids=["a black rim", "white that is 250", "patterns alone"],
)
def test_a_fault_is_found_in_its_size(fault: Callable[[Pixels], Pixels], found: Tones) -> None:
    tones = measured(lambda picture: np.rint(fault(nearest(picture))).astype(np.uint8))
    assert (tones.flat, tones.ends) == (found.flat, found.ends)
    assert tones.pattern >= found.pattern - 1  # values are rounded
    assert not tones.passed


def test_a_pattern_that_darkens_here_and_brightens_there_is_found() -> None:
    """The mean of the whole picture stays."""

    def tilted(picture: Pixels) -> Pixels:
        big = nearest(picture).astype(float)
        lean = np.linspace(-16, 16, big.shape[1])[:, None] if np.ptp(big[..., 0]) > 0 else 0
        return np.clip(np.rint(big + lean), 0, 255).astype(np.uint8)

    tones = measured(tilted)
    assert tones.flat == 0
    assert 3 < tones.pattern <= 16


def test_patterns_are_black_and_white_and_error_diffusion_keeps_the_tone() -> None:
    by_name = dict(patterns())
    assert len(by_name) == 9
    assert all(pattern.shape == (SIDE_PX, SIDE_PX) and pattern.any() and not pattern.all() for pattern in by_name.values())
    dithered = diffused(np.full((SIDE_PX, SIDE_PX), 0.25))
    assert dithered.mean() == pytest.approx(0.25, abs=1 / SIDE_PX)  # what falls off the last row and column is lost


class Nearest(nn.Module):
    def forward(self, x: Tensor, *, place: object = None) -> Tensor:
        return torch.nn.functional.interpolate(x, scale_factor=4)


@pytest.fixture
def model() -> Model:
    return Model(MODELS["rlfn-ntire-x4"], Nearest(), None, "weights/nearest.pth", "ab" * 32)


def test_the_proof_sheet_holds_tones_against_the_card(model: Model, tmp_path: Path) -> None:
    data = make_test_set(tmp_path)
    sheet = proof_sheet([model], data)
    assert [(row.measured, row.verdict) for row in sheet.tones] == [(Tones(0, 0, 0), "no figure known")]
    card = Card(name="nearest", arch="rlfn-ntire-x4", scale=4, tones={"flat": 0, "ends": 0, "pattern": 0})
    assert [row.verdict for row in proof_sheet([replace(model, card=card)], data).tones] == ["pass"]

    class Darker(Nearest):
        def forward(self, x: Tensor, *, place: object = None) -> Tensor:
            return super().forward(x) * 0.95

    worse = proof_sheet([replace(model, card=card, network=Darker())], data)
    assert [row.verdict for row in worse.tones] == ["FAIL"]
    assert worse.failed and not worse.passed
    assert "| nearest | nearest.pth | 13 | 13 |" in worse.to_markdown()


def test_slow_video_networks_have_no_tones(model: Model) -> None:
    assert takes_tones(model)
    with pytest.raises(ValueError, match="no tones"):
        measure_tones(replace(model, spec=MODELS["vrt-reds6-x4"]))


def test_the_worst_frame_of_a_still_video_counts() -> None:
    """A network that gets darker from frame to frame by one code value: the fifth is 4 off."""

    class Fading(nn.Module):
        def stream(self, clip: Tensor, *, keep: str = "full") -> Iterator[Tensor]:
            for number in range(clip.shape[1]):
                yield torch.nn.functional.interpolate(clip[:, number], scale_factor=4) - number / 255

    spec = replace(MODELS["realbasicvsr-x4"], preparation=None)
    fading = Model(spec, Fading(), None, "weights/fading.pth", "ab" * 32)
    tones = measure_tones(fading)
    assert (tones.flat, tones.ends) == (4, 4)
    assert 3 <= tones.pattern < 4  # three quarters of the brightest area are white, and black cannot get darker


def test_validation_in_training_reports_tones(tmp_path: Path) -> None:
    data = make_test_set(tmp_path / "sets")
    shipped = load("photo-x4")
    scores = validator(data)(Path(shipped.source), 1)
    assert scores["tones"] == measure_tones(shipped).to_dict()
