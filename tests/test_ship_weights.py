"""scripts/ship_weights.py: a checkpoint of a video network becomes shipped weights with measured scores and tones."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import ship_weights
from conftest import make_photo
from upframe.engines import TorchOptions
from upframe.evaluation.evaluate import evaluate
from upframe.evaluation.tones import measure_tones
from upframe.models.architectures.weft import Weft
from upframe.models.registry import load
from upframe.upscaling.options import UpscaleOptions

pytestmark = pytest.mark.slow

TOY = {"channels": 6, "blocks": 1, "trunk_channels": 8, "trunk_blocks": 1, "trunk_inner": 8}
ROWS = '{\n  "date": "2026-01-01",\n  "rows": [\n    {"model": "photo-x4", "weights": "photo-x4"}\n  ]\n}\n'


@pytest.fixture
def weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folders that the script changes, with the card of an earlier `video-x4` and results of a photo network."""
    folder = tmp_path / "weights"
    folder.mkdir()
    before = {name: f"{name} before" for name in ("trained_on", "recipe", "notes", "source")}
    before |= {f"licence_{name}": "CC0-1.0" for name in ("code", "data", "weights")}
    (folder / "video_x4.card.json").write_text(json.dumps(before), encoding="utf-8")
    (tmp_path / "benchmarks").mkdir()
    for name in ("quality", "precision"):
        (tmp_path / "benchmarks" / f"{name}.json").write_text(ROWS, encoding="utf-8")
    monkeypatch.setattr(ship_weights, "WEIGHTS", folder)
    monkeypatch.setattr(ship_weights, "ROOT", tmp_path)
    return folder


def test_a_video_network_is_scored_on_clips(weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.manual_seed(0)
    torch.save({"params": Weft(idle=True, **TOY).state_dict(), "value_range": "0-1"}, tmp_path / "last.pth")
    frames = tmp_path / "clips" / "GT" / "city"
    frames.mkdir(parents=True)
    photo = make_photo(96, 112)
    for i in range(3):
        Image.fromarray(np.ascontiguousarray(photo[:, 4 * i : 4 * i + 96])).save(frames / f"{i:08}.png")
    ship_weights.main(
        [str(tmp_path / "last.pth"), "video-x4", "--data", str(tmp_path / "clips"), "--recipe", "new", "--border-px", "3"]
    )
    shipped = load(weights / "video_x4.safetensors")
    card = shipped.card
    assert card is not None
    assert (card.name, card.recipe, card.border_px, card.notes, card.source) == (
        "video-x4", "new", 3, "notes before", "source before",
    )  # fmt: skip
    assert card.tones == measure_tones(shipped).to_dict()
    options = UpscaleOptions(tile="off", engine=TorchOptions(precision="fp32", fused=False))
    scored = evaluate([shipped], protocol="vid4-y", data=tmp_path / "clips", options=options).scores[0].scores
    (scores,) = card.scores["vid4-y"].values()
    assert scores == {"psnr": round(scored["psnr-y"], 2), "ssim": round(scored["ssim-y"], 4)}
    assert list(card.scores) == ["vid4-y"]
    assert json.loads(capsys.readouterr().out)["losses"]["fp32_db"] == round(scored["psnr-y"], 3)
    for name in ("quality", "precision"):  # they have no row of it
        assert (tmp_path / "benchmarks" / f"{name}.json").read_text(encoding="utf-8") == ROWS


def test_a_row_and_the_date_change_together(tmp_path: Path) -> None:
    file = tmp_path / "results.json"
    file.write_text(ROWS, encoding="utf-8")
    ship_weights.change_row(file, {"model": "photo-x4"}, {"psnr_db": 1.5}, "2026-02-02")
    changed = json.loads(file.read_text(encoding="utf-8"))
    assert changed == {"date": "2026-02-02", "rows": [{"model": "photo-x4", "weights": "photo-x4", "psnr_db": 1.5}]}
