"""Networks beside their reference forms: which forms run, the report on each, and failures.

Times and memory are only asked to be there: how large they are says more about the machine than about the code.
"""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

from conftest import Upframe
from peak import needs_proc
from upframe.benchmark import compare
from upframe.benchmark.compare import (
    Case,
    Compared,
    Comparison,
    Form,
    Limits,
    compare_with_reference,
    default_case,
    synthetic_clip,
)
from upframe.benchmark.cost import Timing, count
from upframe.benchmark.worker import Job, Peak, reference_form
from upframe.engines import onnx_runtime
from upframe.errors import UsageError
from upframe.models.families import realbasicvsr, rlfn, vsr_transformer
from upframe.models.networks import FAMILIES, MODELS
from upframe.models.registry import Model
from upframe.models.spec import ModelSpec

TINY_RLFN = rlfn.spec_for(channels=8, blocks=1, scale=2, inner_channels=8)
TINY_CLIP = realbasicvsr.realbasicvsr_spec_for(channels=8, propagation_blocks=1, cleaning_blocks=1)
TINY_VSRT = vsr_transformer.spec_for(
    channels=8, frames=5, depth=1, window_px=32, extract_blocks=1, reconstruct_blocks=1, feed_forward_blocks=1
)


def untrained(spec: ModelSpec) -> Model:
    torch.manual_seed(0)
    return Model(spec, spec.build().eval().requires_grad_(False), None, "", "")


def test_the_five_systems_have_reference_forms() -> None:
    """And BasicVSR, which is part of one; networks that are added later may go without."""
    with_one = {family.name for family in FAMILIES if family.reference is not None}
    assert with_one >= {"RLFN", "VapSR", "BasicVSR", "RealBasicVSR", "VRT", "VSR-Transformer"}


def test_what_is_otherwise_than_published_has_no_reference_form() -> None:
    spec = rlfn.spec_for(channels=8, blocks=1, scale=2, inner_channels=8, block="rfdb")
    with pytest.raises(ValueError, match="the reference form of RLFN has no block"):
        reference_form(spec, spec.build().state_dict())


# What is measured -----------------------------------------------------------------------------------------------------
@pytest.mark.slow
@needs_proc
def test_a_peak_is_what_was_added_since_and_not_what_was_there_before() -> None:
    earlier = torch.ones(1 << 25)  # 128 MiB
    held = torch.ones(1 << 23)
    del earlier
    peak = Peak("cpu")
    block = torch.ones(1 << 24)
    del block
    added = peak.added_bytes()
    assert added == pytest.approx(64 << 20, abs=8 << 20)  # the process's other memory moves a little, too
    assert held.sum() == 1 << 23


@pytest.fixture(scope="module")
def measured() -> Comparison:
    """A network for photos and one for clips, both of unpublished sizes, on what is small and odd."""
    return compare_with_reference([untrained(TINY_RLFN), untrained(TINY_CLIP)], size=(23, 34), repeats=2, threads=1)


@pytest.mark.slow
def test_every_form_runs_on_the_same_input(measured: Comparison) -> None:
    photo, clip = measured.compared
    for one in measured.compared:
        assert [form.name for form in one.forms] == ["reference fp32", "upframe fp32", "upframe bf16"]
    assert (photo.case.frames, clip.case.frames) == (1, compare.CLIP_FRAMES)
    for one in measured.compared:
        for form in one.forms:
            assert form.error is None
            assert form.timing is not None
            assert len(form.timing.runs_s) == 2
            assert min(form.timing.runs_s) > 0
        plain, ours = one.forms[:2]
        assert plain.max_difference is None
        assert ours.max_difference is not None
        assert ours.max_difference < 1e-5  # rounding of float32 sums in another order
        bf16 = one.forms[2]
        assert bf16.max_difference is not None
        assert 1e-5 < bf16.max_difference < 0.1  # 8 bits of mantissa
        assert bf16.psnr is not None
        assert bf16.psnr > 30


@pytest.mark.slow
@needs_proc
def test_every_form_tells_the_memory_that_its_passes_added(measured: Comparison) -> None:
    for one in measured.compared:
        for form in one.forms:
            assert form.added_bytes is not None
            assert form.added_bytes > 0
            ratio = one.memory_ratio(form)
            assert ratio is not None
            assert ratio > 0


@pytest.mark.slow
def test_work_is_counted_and_limits_are_measured(measured: Comparison) -> None:
    photo, clip = measured.compared
    assert photo.flops == 2 * count(TINY_RLFN.build(), (1, 3, 23, 34)).macs
    assert clip.flops is not None
    assert clip.flops > photo.flops
    assert set(measured.limits.gflops) == {"fp32_matrix", "fp32_convolution", "bf16_matrix", "bf16_convolution"}
    assert min(*measured.limits.gflops.values(), measured.limits.copy_gbytes_per_s) > 0
    assert measured.environment["threads"] == 1


@pytest.mark.slow
def test_a_form_that_fails_is_reported_and_the_others_go_on() -> None:
    """The plain VSR-Transformer takes frames of the trained size only, as the published one does."""
    (one,) = compare_with_reference([untrained(TINY_VSRT)], size=(32, 40), frames=2, repeats=1, precisions=["fp32"]).compared
    plain, ours = one.forms
    assert plain.error == "ValueError: the reference form takes only frames of 32x32, not 40x32"
    assert plain.timing is None
    assert ours.error is None
    assert ours.timing is not None
    assert (ours.max_difference, one.flops, one.time_ratios(ours), one.memory_ratio(ours)) == (None, None, None, None)


@pytest.mark.slow
def test_a_process_that_dies_is_reported() -> None:
    with compare._Worker(Job("limits", "cpu", 1)) as worker:
        assert worker.ask() == {"ready": True}
        os.kill(worker._process.pid, signal.SIGKILL)
        assert worker.ask("run") == {}
        assert worker.error is not None
        assert "was ended by SIGKILL" in worker.error
        assert worker.ask("run") == {}


@pytest.mark.slow
def test_a_process_that_cannot_load_says_why(tmp_path: Path) -> None:
    job = Job("reference", "cpu", 1, family="RLFN", model="rlfn-x4", folder=str(tmp_path), weights="absent.safetensors")
    with compare._Worker(job) as worker:
        assert worker.ask() == {}
        assert worker.error is not None
        assert "absent.safetensors" in worker.error


# What is told ---------------------------------------------------------------------------------------------------------
def example() -> Comparison:
    plain = Form("reference fp32", "fp32", Timing((2.0, 4.0, 8.0)), added_bytes=400_000_000)
    ours = Form("upframe bf16", "bf16", Timing((1.0, 1.0, 1.0)), 100_000_000, max_difference=0.01, psnr=50.0)
    dead = Form("upframe fp32", "fp32", error="the process was ended by SIGKILL")
    one = Compared("some-net", "", Case(6, (64, 80)), 200_000_000_000, (plain, dead, ours))
    limits = Limits({"fp32_matrix": 100.0, "fp32_convolution": 200.0, "bf16_matrix": 400.0}, 50.0)
    return Comparison((one,), limits, {"device": "cpu", "cpu": "some CPU", "threads": 2, "torch": "2"})


def test_ratios_are_taken_round_by_round() -> None:
    one = example().compared[0]
    ratios = one.time_ratios(one.forms[2])
    assert ratios is not None
    assert ratios.runs_s == (0.5, 0.25, 0.125)
    assert one.memory_ratio(one.forms[2]) == 0.25
    assert one.gflops(one.forms[2]) == 200
    assert one.share(one.forms[2], example().limits) == 0.5
    assert one.share(one.forms[0], example().limits) == 0.25  # 50 of the faster of the two


def test_the_table_shows_every_form_with_the_reason_where_one_failed() -> None:
    text = example().to_text()
    assert "some-net, 6 frames of 80x64, 200.0 GFLOP, random weights" in text
    assert "upframe fp32: the process was ended by SIGKILL" in text
    row = next(line for line in text.splitlines() if line.startswith("upframe bf16"))
    assert row.split() == [
        "upframe",
        "bf16",
        "1000",
        "(1000-1000)",
        "0.25",
        "(0.19-0.38)",
        "100",
        "0.25",
        "200",
        "50%",
        "1.0e-02",
        "50.0",
    ]


def test_json_holds_every_figure() -> None:
    told = json.loads(example().to_json())
    assert told["format"] == "upframe-comparison/1"
    assert told["limits"]["copy_gbytes_per_s"] == 50
    (one,) = told["compared"]
    assert (one["model"], one["frames"], one["input_size"], one["flops"]) == ("some-net", 6, [64, 80], 200_000_000_000)
    plain, dead, ours = one["forms"]
    assert plain["runs_s"] == [2, 4, 8]
    assert dead == {"form": "upframe fp32", "error": "the process was ended by SIGKILL"}
    assert ours["time_ratio"] == {"median": 0.25, "quartile_1": 0.1875, "quartile_3": 0.375}
    assert (ours["added_memory_bytes"], ours["memory_ratio"], ours["psnr_db"]) == (100_000_000, 0.25, 50)


def test_the_synthetic_clip_moves_and_is_the_same_everywhere() -> None:
    clip = synthetic_clip(Case(3, (20, 30)))
    assert clip.shape == (1, 3, 3, 20, 30)
    assert torch.equal(clip, synthetic_clip(Case(3, (20, 30))))
    assert torch.equal((clip * 255).round() / 255, clip)
    assert 0 <= clip.min() < clip.max() <= 1
    assert (clip[:, 1:] - clip[:, :-1]).abs().mean() > 0.01


@pytest.mark.slow
def test_engines_stand_beside_each_other_in_the_precisions_they_have(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    try:
        onnx_runtime.library()
    except UsageError as error:
        pytest.skip(str(error))
    monkeypatch.setenv("UPFRAME_CACHE", str(tmp_path))
    engines = ["auto", "onnx"]
    (one,) = compare_with_reference([untrained(TINY_RLFN)], size=(40, 48), repeats=1, threads=1, engines=engines).compared
    assert [form.name for form in one.forms] == ["reference fp32", "upframe fp32", "upframe bf16", "onnx fp32"]
    last = one.forms[-1]
    assert last.error is None and last.max_difference is not None
    assert last.max_difference < 1e-5  # sums in another order


def test_an_engine_that_cannot_run_a_network_is_refused_before_any_process_starts() -> None:
    with pytest.raises(UsageError, match="is a video network"):
        compare_with_reference([untrained(TINY_CLIP)], engines=["compile"])


# Misuse and the command line ------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"repeats": 0}, "cannot time 0 rounds"),
        ({"size": (8, 16)}, "cannot take an input of 16x8"),
        ({"precisions": ["fp16"]}, "not proven"),
    ],
)
def test_misuse_is_refused_before_any_process_starts(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        compare_with_reference([untrained(TINY_RLFN)], **options)
    with pytest.raises(UsageError, match="no model"):
        compare_with_reference([])


def test_networks_are_compared_on_what_they_are_made_for() -> None:
    assert default_case(MODELS["rlfn-x4"]) == Case(1, compare.PHOTO_SIZE)
    assert default_case(MODELS["realbasicvsr-x4"]) == Case(compare.CLIP_FRAMES, compare.CLIP_SIZE)


@pytest.mark.slow
def test_bench_compare_prints_json(upframe: Upframe, tmp_path: Path) -> None:
    out = tmp_path / "comparison.json"
    options = ["--size", "20x24", "--runs", 1, "--precision", "fp32", "--threads", 1, "--out", out, "--json"]
    result = upframe("bench", "rlfn-ntire-x4", "--compare", *options)
    assert result.code == 0, result.err
    told = json.loads(result.out)
    assert told == json.loads(out.read_text())
    assert [form["form"] for form in told["compared"][0]["forms"]] == ["reference fp32", "upframe fp32"]
    assert told["compared"][0]["input_size"] == [24, 20]


def test_a_card_is_of_one_engine(upframe: Upframe) -> None:
    assert "--compare" in upframe("bench", "rlfn-ntire-x4", "--engine", "torch", "compile").err


def test_frames_are_for_comparisons(upframe: Upframe) -> None:
    assert upframe("bench", "rlfn-ntire-x4", "--frames", 3).code == 2
    assert upframe("bench", "rlfn-ntire-x4", "--compare", "--frames", 0).code == 2
