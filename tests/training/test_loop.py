"""The loop: it learns, resumes bit for bit, and its checkpoints are weights files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from conftest import make_photo
from upframe.errors import InputError, ModelError, UsageError
from upframe.media.images import write_pixels
from upframe.models import load
from upframe.training.loop import TrainState, train
from upframe.training.recipe import Recipe

TOY = Recipe(
    "toy", "vapsr-s-x4", steps=12, batch=2, patch_px=12, learning_rate=1e-3, checkpoint_every=100, log_every=4, warmup_steps=2
)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    for i in range(2):
        write_pixels(folder / f"{i}.png", make_photo(96, 100, seed=i))
    return folder


def _tensors(state: TrainState) -> dict[str, torch.Tensor]:
    found = {f"net.{k}": v for k, v in state.network.state_dict().items()} | {f"ema.{k}": v for k, v in state.ema.items()}
    for number, slots in state.optimiser.state_dict()["state"].items():
        found |= {f"adam.{number}.{k}": v for k, v in slots.items()}
    return found


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_run_that_was_stopped_ends_bit_for_bit_like_one_that_was_not(photos: Path, tmp_path: Path, precision: str) -> None:
    recipe = TOY.override({"precision": precision, "fp32_tail_steps": "3"})
    whole = train(recipe, data=photos, out=tmp_path / "whole")
    train(recipe, data=photos, out=tmp_path / "parts", stop_after=5)
    resumed = train(recipe, data=photos, out=tmp_path / "parts")
    assert resumed.step == whole.step == 12
    expected = _tensors(whole)
    for name, tensor in _tensors(resumed).items():
        assert torch.equal(tensor, expected[name]), name


def test_loss_falls_and_is_logged(photos: Path, tmp_path: Path) -> None:
    train(TOY.override({"steps": "60", "log_every": "20"}), data=photos, out=tmp_path)
    rows = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [r["step"] for r in rows] == [20, 40, 60]
    assert rows[-1]["loss"] < 0.8 * rows[0]["loss"]


def test_a_checkpoint_is_a_weights_file_and_holds_the_averaged_weights(photos: Path, tmp_path: Path) -> None:
    state = train(TOY, data=photos, out=tmp_path)
    model = load(tmp_path / "last.pth")
    assert model.spec.name == "vapsr-s-x4"
    for name, parameter in model.network.named_parameters():
        assert torch.equal(parameter, state.ema[name])


def test_validation_scores_the_checkpoint_at_its_step(photos: Path, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []

    def validate(weights: Path, step: int) -> dict[str, float]:
        seen.append((step, torch.load(weights, weights_only=True)["step"]))
        return {"psnr": 1.0}

    train(TOY.override({"validate_every": "5"}), data=photos, out=tmp_path, validate=validate)
    assert seen == [(5, 5), (10, 10), (12, 12)]


def test_another_recipe_in_the_same_folder_is_refused_by_field(photos: Path, tmp_path: Path) -> None:
    train(TOY, data=photos, out=tmp_path, stop_after=2)
    with pytest.raises(UsageError, match="learning_rate"):
        train(TOY.override({"learning_rate": "0.5"}), data=photos, out=tmp_path)


def test_a_damaged_checkpoint_is_named(photos: Path, tmp_path: Path) -> None:
    train(TOY, data=photos, out=tmp_path, stop_after=1)
    path = tmp_path / "last.pth"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(InputError, match=r"last\.pth"):
        train(TOY, data=photos, out=tmp_path)


def test_warm_start_takes_the_weights_and_nothing_else(photos: Path, tmp_path: Path) -> None:
    """Another scale keeps its own upsampler; optimiser and step start afresh (RL-11)."""
    first = train(TOY.override({"model": "rlfn-ntire-x2", "patch_px": "16", "steps": "3"}), data=photos, out=tmp_path / "x2")
    recipe = TOY.override(
        {"model": "rlfn-ntire-x4", "patch_px": "16", "start_from": str(tmp_path / "x2" / "last.pth"), "learning_rate": "0"}
    )
    second = train(recipe, data=photos, out=tmp_path / "x4", stop_after=1)
    assert second.step == 1
    own = second.network.state_dict()
    assert torch.equal(own["block_2.c1_r.weight"], first.ema["block_2.c1_r.weight"])
    assert own["upsampler.0.weight"].shape != first.ema["upsampler.0.weight"].shape


def test_a_warm_start_from_another_network_is_refused(photos: Path, tmp_path: Path) -> None:
    train(TOY, data=photos, out=tmp_path / "vapsr", stop_after=1)
    recipe = TOY.override({"model": "rlfn-ntire-x4", "start_from": str(tmp_path / "vapsr" / "last.pth")})
    with pytest.raises(ModelError, match="parameters fit"):
        train(recipe, data=photos, out=tmp_path / "rlfn")


def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_the_last_checkpoint(photos: Path, tmp_path: Path) -> None:
    train(
        TOY.override({"learning_rate": "1e30", "warmup_steps": "0", "checkpoint_every": "1"}),
        data=photos,
        out=tmp_path,
        stop_after=1,
    )
    with pytest.raises(ModelError, match="the loss is"):
        train(TOY.override({"learning_rate": "1e30", "warmup_steps": "0", "checkpoint_every": "1"}), data=photos, out=tmp_path)
    assert torch.load(tmp_path / "last.pth", weights_only=True)["step"] >= 1


def test_a_test_picture_among_the_photographs_stops_the_run_before_it_starts(photos: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"1\.png shows what Set5/planted shows"):
        train(TOY, data=photos, out=tmp_path, held_out={"Set5/planted": make_photo(96, 100, seed=1)[:, ::-1].copy()})
    assert not (tmp_path / "last.pth").exists()
