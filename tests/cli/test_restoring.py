"""VRT and VSR-Transformer through the command line, at small sizes: each task, refusals, windows, memory, published cuts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import films
from conftest import Upframe, needs_shared
from films import Sound, make_clip, make_film, make_pictures
from upframe.engines import TorchEngine
from upframe.errors import OutOfMemoryError
from upframe.models import checkpoints
from upframe.models.families import vrt, vsr_transformer
from upframe.models.networks import MODELS
from upframe.models.spec import ModelSpec

SMALL = {
    "scale": 1, "window_frames": 4, "window_px": 8, "width": 12, "depth": 2, "mutual_depth": 1, "tail_width": 8,
    "tail_depth": 2, "tail_layers": 1, "single_frame_layers": 0, "heads": 2, "mlp_ratio": 2, "warped_frames": 2,
    "deformable_groups": 2, "takes_sigma": 0, "qkv_bias": 1,
}  # fmt: skip


def small(task: str) -> ModelSpec:
    """A VRT or, to enlarge, a VSR-Transformer that takes a second for a clip."""
    if task == "upscale":
        return vsr_transformer.spec_for(
            channels=4, frames=5, depth=1, window_px=32, extract_blocks=1, reconstruct_blocks=1, feed_forward_blocks=1
        )
    changes = {"denoise": {"takes_sigma": 1}, "interpolate": {"warped_frames": 0, "deformable_groups": 12}}
    return vrt.spec_for(**{**SMALL, **changes.get(task, {})})  # type: ignore[typeddict-item]


def write(path: Path, spec: ModelSpec, *, seed: int = 0) -> Path:
    """A weights file as its authors wrap it, with small random weights."""
    torch.manual_seed(seed)
    network = spec.build()
    torch.save({"params": network.state_dict()}, path)
    return path


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("weights")
    return {task: write(folder / f"{task}.pth", small(task)) for task in ("upscale", "deblur", "denoise", "interpolate")}


def facts_of(task: str) -> list[str]:
    return ["--sigma", "20"] if task == "denoise" else []


@pytest.mark.slow
@pytest.mark.parametrize("task", ["upscale", "deblur", "denoise", "interpolate"])
def test_every_task_makes_a_film_with_its_sound(upframe: Upframe, tmp_path: Path, weights: dict[str, Path], task: str) -> None:
    source = make_clip(tmp_path / "in.mp4", films.Clip(sounds=[Sound()], size=(64, 96)))
    count = len(films.shown_times(source))
    result = upframe(task, source, "-m", weights[task], *facts_of(task), "--preset", "ultrafast", "--json")
    assert result.code == 0, result.err
    (made,) = (Path(item["output"]) for item in result.of("summary")["items"])
    scale = 4 if task == "upscale" else 1
    frames = films.rgb_of(made)
    assert frames[0].shape == (64 * scale, 96 * scale, 3)
    assert len(frames) == count * (2 if task == "interpolate" else 1)
    assert made.stem.endswith("_x4") == (task == "upscale")
    if task == "interpolate":
        assert films.shown_times(made)[::2] == films.shown_times(source)
    else:
        assert films.shown_times(made) == films.shown_times(source)


@pytest.mark.parametrize(("task", "other"), [("upscale", "deblur"), ("deblur", "interpolate"), ("denoise", "upscale")])
def test_a_network_for_another_task_is_refused_with_the_right_command(
    upframe: Upframe, tmp_path: Path, weights: dict[str, Path], task: str, other: str
) -> None:
    source = make_film(tmp_path / "in.mkv", make_pictures(3, (64, 64)))
    result = upframe(task, source, "-m", weights[other], *facts_of(task))
    assert result.code == 2
    assert f"is a network to {other}. Use upframe {other}" in result.err


@pytest.mark.parametrize("task", ["deblur", "denoise", "interpolate"])
def test_tasks_without_a_shipped_model_ask_for_weights(upframe: Upframe, tmp_path: Path, task: str) -> None:
    source = make_film(tmp_path / "in.mkv", make_pictures(2, (64, 64)))
    result = upframe(task, source)
    assert result.code == 2
    assert f"upframe {task}: upframe ships no model for this task" in result.err
    assert "-m PATH" in result.err


@pytest.mark.slow
def test_denoising_wants_to_know_how_much_noise(upframe: Upframe, tmp_path: Path, weights: dict[str, Path]) -> None:
    source = make_film(tmp_path / "in.mkv", make_pictures(3, (64, 64)))
    without = upframe("denoise", source, "-m", weights["denoise"])
    assert without.code == 2
    assert "Add --sigma" in without.err
    made = []
    for sigma in ("0", "50"):
        output = tmp_path / f"{sigma}.mkv"
        assert upframe("denoise", source, "-m", weights["denoise"], "--sigma", sigma, "-c", "ffv1", "-o", output).code == 0
        made.append(np.stack(films.rgb_of(output)).astype(int))
    assert np.abs(made[0] - made[1]).max() > 0  # it is told
    assert upframe("denoise", source, "-m", weights["denoise"], "--sigma", "300").code == 2


@pytest.mark.slow
def test_a_longer_clip_is_cut_into_windows_and_a_change_of_them_is_a_change_of_the_job(
    upframe: Upframe, tmp_path: Path, weights: dict[str, Path]
) -> None:
    source = make_film(tmp_path / "in.mkv", make_pictures(11, (40, 48)))
    made = {}
    for window in ("3", "5", "11"):
        output = tmp_path / f"{window}.mkv"
        result = upframe(source, "-m", weights["upscale"], "--window", window, "-c", "ffv1", "-o", output, "--json")
        assert result.code == 0, result.err
        made[window] = np.stack(films.rgb_of(output)).astype(int)
    assert all(len(frames) == 11 for frames in made.values())
    assert np.abs(made["3"] - made["11"]).max() > 0
    too_short = upframe(source, "-m", weights["upscale"], "--window", "2", "-o", tmp_path / "no.mkv")
    assert too_short.code == 2
    assert "neighbouring windows share 2 frames" in too_short.err


@pytest.mark.slow
def test_published_cutting_is_another_way_to_the_nearly_same_film(
    upframe: Upframe, tmp_path: Path, weights: dict[str, Path]
) -> None:
    source = make_film(tmp_path / "in.mkv", make_pictures(6, (72, 80)))
    made = []
    for flags in ([], ["--as-published"]):
        output = tmp_path / f"out{len(made)}.mkv"
        assert upframe("deblur", source, "-m", weights["deblur"], *flags, "-c", "ffv1", "-o", output).code == 0
        made.append(np.stack(films.rgb_of(output)).astype(int))
    assert made[0].shape == made[1].shape
    assert np.abs(made[0] - made[1]).mean() < 2  # code values; both cut off little of what the network sees


@pytest.mark.slow
def test_a_window_that_memory_cut_short_is_told_and_strict_makes_it_an_error(
    upframe: Upframe, tmp_path: Path, weights: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    source = make_film(tmp_path / "in.mkv", make_pictures(5, (16, 16)))
    original = TorchEngine.__call__

    def small_machine(self: TorchEngine, clip: torch.Tensor, *args: Any, **facts: Any) -> torch.Tensor:
        if clip.shape[1] > 3:
            raise OutOfMemoryError("network", "a clip did not fit")
        return original(self, clip, *args, **facts)

    monkeypatch.setattr(TorchEngine, "__call__", small_machine)
    command = [source, "-m", weights["upscale"], "--json"]
    strict = upframe(*command, "-o", tmp_path / "strict.mkv", "--strict")
    assert strict.code == 7
    assert not (tmp_path / "strict.mkv").exists()
    lenient = upframe(*command, "-o", tmp_path / "out.mkv")
    assert lenient.code == 0
    assert lenient.notices == ["window-halved"]


def test_the_plan_tells_window_tile_and_memory(upframe: Upframe, tmp_path: Path, weights: dict[str, Path]) -> None:
    source = make_film(tmp_path / "in.mkv", make_pictures(6, (72, 80)))
    result = upframe(source, "-m", weights["upscale"], "--dry-run", "--json")
    assert result.code == 0
    row: dict[str, Any] = result.of("plan")
    assert row["memory_bytes"] > 10 << 20
    assert row["size"] == [288, 320]
    assert row["window"] == 5


def test_the_plan_of_a_part_counts_that_part(upframe: Upframe, tmp_path: Path, weights: dict[str, Path]) -> None:
    source = make_clip(tmp_path / "in.mp4", films.Clip(pts=[3600 * i for i in range(100)]))
    whole = upframe(source, "-m", weights["upscale"], "--dry-run", "--json").of("plan")
    part = upframe(source, "-m", weights["upscale"], "--start", "1", "--end", "1.2", "--dry-run", "--json").of("plan")
    assert (whole["frames"], part["frames"]) == (100, 5)
    assert part["memory_bytes"] < whole["memory_bytes"]
    assert part["file_bytes"] < whole["file_bytes"]


# Official files -------------------------------------------------------------------------------------------------------
NAMES = [name for name, spec in MODELS.items() if spec.family in ("VRT", "VSR-Transformer")]


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_an_official_file_is_found_by_its_name(
    upframe: Upframe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """As its authors name and wrap it; where two are of one shape, each under its own name."""
    spec = MODELS[name]
    with torch.device("meta"):
        shapes = {key: value.shape for key, value in spec.build().state_dict().items()}
    state = {
        key: torch.zeros(()).expand(shape).clone() if key.endswith("bias") else torch.full(shape, 0.01)
        for key, shape in shapes.items()
    }
    monkeypatch.setenv("UPFRAME_WEIGHTS", str(tmp_path))
    torch.save({"params": state}, tmp_path / f"{spec.aliases[0]}.pth")
    result = upframe("models", "info", name, "--json")
    assert result.code == 0, result.err
    assert f'"{name}"' in result.out


@needs_shared
@pytest.mark.parametrize("name", ["001_VRT_videosr_bi_REDS_6frames", "009_VRT_videofi_Vimeo_4frames", "vsrt_reds_x4"])
def test_state_dicts_of_the_official_code_load_strictly(shared: Path, name: str) -> None:
    """Names and shapes from the reference implementation, not from ours."""
    import json

    listed = json.loads((shared / "golden" / "state_dicts" / f"{name}.json").read_text())
    state = {key: torch.zeros(shape) for key, shape in listed["parameters"].items()}
    for key, facts in listed["buffers"].items():
        state[key] = torch.zeros(facts["shape"], dtype=getattr(torch, facts["dtype"]))
    found = checkpoints.recognise(state)
    network = checkpoints.instantiate(found.spec, found.state)
    assert list(network.state_dict()) == [key for key in network.state_dict() if key in state]
    assert set(network.state_dict()) == set(state)
