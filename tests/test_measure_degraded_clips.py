"""scripts/measure_degraded_clips.py: the damage is replayed, and figures mean what they say."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from conftest import make_photo
from measure_degraded_clips import clip, degraded, main, measured

pytestmark = pytest.mark.slow


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "pan"
    made.mkdir()
    wide = make_photo(98, 140)
    for number in range(4):
        Image.fromarray(wide[:, number : number + 130]).save(made / f"{number}.png")
    return made


def test_the_damage_of_a_seed_is_replayed(folder: Path) -> None:
    truth = clip(folder, 3)
    assert truth.shape == (3, 96, 128, 3)
    small = degraded(truth, "video-mild", 1)
    assert small.shape == (3, 24, 32, 3) and small.dtype == np.uint8
    assert np.array_equal(small, degraded(truth, "video-mild", 1))
    assert not np.array_equal(small, degraded(truth, "video-mild", 2))


def test_a_frame_that_is_brighter_is_seen_in_all_figures(folder: Path) -> None:
    truth = clip(folder, 4) // 2
    made = truth.copy()
    made[1] += 10
    level, warping, flicker = measured(made, truth)
    assert np.isinf(level), "three frames of four are exact"
    assert flicker == pytest.approx(10 * 2 / 3), "two of three changes are off by 10"
    assert warping > measured(truth, truth)[1] + 0.0005, "10 of 255 squared is 0.0015, in two pairs of three"


def test_the_command_prints_each_clip_and_model_and_their_means(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main([str(folder), "--models", "photo-x4", "video-real-x4", "--frames", "2"])
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert [line[1] for line in lines] == ["photo-x4", "video-real-x4"] * 2
    assert lines[0][2:] == lines[2][2:], "the mean of one clip"


def test_a_folder_without_frames_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="holds no PNG files"):
        main([str(tmp_path)])
