"""Protocols on real test sets and official weights; provenance, comparison, files written, and misuse."""

from __future__ import annotations

import json
import math
import re
import shutil
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from conftest import make_photo
from upframe import pixels
from upframe.datasets.images import canonical_set, find_test_sets, load_pair
from upframe.drawing import sheet
from upframe.errors import InputError, UsageError
from upframe.evaluation.evaluate import (
    PROTOCOLS,
    SHEET_DETAIL_PX,
    Evaluation,
    EvaluationEvent,
    bicubic,
    compare,
    evaluate,
)
from upframe.evaluation.results import DatasetRecord, ImageScore, ModelRecord
from upframe.evaluation.verify import agrees, proof_sheet
from upframe.media.image.source import RGB8
from upframe.metrics import NiqeModel, flicker, lr_consistency, niqe, psnr, ssim, temporal_flow_difference, warping_error
from upframe.metrics.niqe import gaussian_window
from upframe.models.cards import Card
from upframe.models.networks import MODELS
from upframe.models.registry import Model, load
from upframe.models.spec import Published, Window

Change = Callable[[torch.Tensor], torch.Tensor]


def write(path: Path, picture: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture).save(path)
    return path


def read(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.array(image)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Two small sets without LR, with sides that are no multiples of the scale."""
    for name, count in (("Set5", 2), ("Zoo", 1)):
        for i in range(count):
            write(tmp_path / "data" / name / "HR" / f"{'abc'[i]}.png", make_photo(71, 90, seed=i))
    return tmp_path / "data"


@pytest.fixture(scope="module")
def tiny() -> Model:
    """An untrained network, seeded: fast, and enough for everything but scores."""
    torch.manual_seed(0)
    spec = MODELS["rlfn-ntire-x4"]
    return Model(spec, spec.build().eval().requires_grad_(False), None, "weights/tiny.pth", "ab" * 32)


# Scores ---------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("weights", ["RLFN/rlfn_ntire_x4.pth", "RLFN/rlfn_s_x2.pth", "VapSR/VapSR-S.pth", "VapSR/VapSR_X3.pth"])
def test_official_weights_reach_their_scores_on_set5(shared: Path, weights: str) -> None:
    """Both families, all three scales."""
    result = proof_sheet([shared / "weights" / weights], shared / "testsets", datasets=["Set5"])
    assert [row.verdict for row in result.rows] == ["pass"], result.to_markdown()
    assert result.rows[0].basis == "official"
    assert result.passed


def test_official_weights_reach_their_scores_on_set14(shared: Path) -> None:
    """Fourteen larger images, two of them gray, with the smallest model."""
    result = proof_sheet([shared / "weights" / "RLFN" / "rlfn_ntire_x4.pth"], shared / "testsets", datasets=["Set14"])
    assert result.passed, result.to_markdown()


@pytest.mark.parametrize(("scale", "score"), [(2, 33.66), (3, 30.39), (4, 28.42)])
def test_bicubic_baseline_is_the_published_one(shared: Path, scale: int, score: float) -> None:
    """Set5-Y in every table since SRCNN."""
    result = evaluate(["bicubic"], data=shared / "testsets", datasets=["Set5"], scale=scale)
    # 0.03: those tables were made from another LR border (older MATLAB repeated the edge) and rounding.
    assert result.mean("bicubic", "Set5", "psnr-y") == pytest.approx(score, abs=0.03)


class Mishandled(torch.nn.Module):
    """A network in a pipeline that does something wrong before and after it."""

    def __init__(self, network: torch.nn.Module, before: Change, after: Change) -> None:
        super().__init__()
        self.network, self.before, self.after = network, before, after

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.after(self.network(self.before(x)))


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (lambda x: x.flip(1), lambda y: y.flip(1)),  # BGR throughout
        (lambda x: x.flip(1), lambda y: y),
        (lambda x: x * 255, lambda y: y / 255),
        (lambda x: x / 255, lambda y: y * 255),
        (lambda x: x, lambda y: y.roll(1, -1)),  # a shift by one output pixel
    ],
)
def test_a_wrong_pipeline_fails_the_proof(shared: Path, before: Change, after: Change) -> None:
    """A proof sheet that cannot fail would prove nothing."""
    model = load(shared / "weights" / "VapSR" / "VapSR-S.pth")
    wrong = replace(model, network=Mishandled(model.network, before, after))
    result = proof_sheet([wrong], shared / "testsets", datasets=["Set5"])
    assert [row.verdict for row in result.rows] == ["FAIL"]
    assert not result.passed
    assert "| FAIL |" in result.to_markdown()


def test_scores_are_those_of_the_metrics_on_the_protocols_pixels(data: Path) -> None:
    hr = make_photo(71, 90, seed=0)[:68, :88]
    lr = pixels.matlab_bicubic_8bit(torch.from_numpy(hr).permute(2, 0, 1), 4).permute(1, 2, 0).numpy()
    sr = bicubic(lr, 4)
    for name, luma in (("sisr-y", True), ("sisr-rgb", False)):
        result = evaluate(["bicubic"], protocol=name, data=data, scale=4)
        first = result.scores[0]
        assert (first.model, first.dataset, first.image) == ("bicubic", "Set5", "a")
        assert list(first.scores.values()) == [
            psnr(sr, hr, crop_border=4, luma=luma),
            ssim(sr, hr, crop_border=4, luma=luma),
        ]
        metric = PROTOCOLS[name].metrics[0]
        both = [s.scores[metric] for s in result.scores if s.dataset == "Set5"]
        assert result.mean("bicubic", "Set5", metric) == pytest.approx(sum(both) / 2, abs=1e-12)


def test_shipped_lr_is_used_and_made_lr_is_the_same_data(shared: Path, tmp_path: Path) -> None:
    """Without its LR folder a set gives the same inputs, hence the same digest."""
    shutil.copytree(shared / "testsets" / "Set5" / "HR", tmp_path / "Set5" / "HR")
    with_lr = evaluate(["bicubic"], data=shared / "testsets", datasets=["Set5"], scale=3)
    without = evaluate(["bicubic"], data=tmp_path, scale=3)
    assert find_test_sets(tmp_path, scale=3)[0].images[0].lr is None
    assert find_test_sets(shared / "testsets", scale=3)[0].images[0].lr is not None
    assert without.datasets == with_lr.datasets
    assert without.scores == with_lr.scores


def test_perfect_reproduction_scores_infinity_and_survives_json(tmp_path: Path) -> None:
    write(tmp_path / "flat" / "gray.png", np.full((40, 40), 77, np.uint8))
    result = evaluate(["bicubic"], data=tmp_path / "flat", scale=2)
    assert result.mean("bicubic", "flat", "psnr-y") == math.inf
    assert json.loads(result.to_json())["means"]["bicubic"]["flat"] == {"psnr-y": "inf", "ssim-y": 1.0}
    assert Evaluation.from_json(result.to_json()) == result
    assert "| inf/1.0000 |" in result.to_markdown()
    assert compare(result, result)[0].gain == 0


def test_a_set_that_cannot_be_scored_is_named_and_the_others_are_scored(tmp_path: Path) -> None:
    rgba = np.dstack([make_photo(40, 40), np.full((40, 40), 9, np.uint8)])
    for name, picture in (("Flat", np.full((40, 40), 77, np.uint8)), ("Alpha", rgba), ("Tiny", make_photo(4, 4))):
        write(tmp_path / name / "HR" / "a.png", picture)
    write(tmp_path / "Half" / "HR" / "a.png", make_photo(40, 40))
    (tmp_path / "Half" / "HR" / "b.png").write_bytes(b"no picture")
    result = evaluate(["bicubic"], data=tmp_path, scale=2)
    assert [record.name for record in result.datasets] == ["Flat"]
    assert {score.dataset for score in result.scores} == {"Flat"}, "half a set is no set"
    reasons = {unscored.name: unscored.reason for unscored in result.unscored}
    assert reasons.keys() == {"Alpha", "Half", "Tiny"} and "4 channels" in reasons["Alpha"] and "b.png" in reasons["Half"]
    tree = json.loads(result.to_json(), parse_constant=lambda word: pytest.fail(f"{word} is no JSON"))
    assert [one["name"] for one in tree["unscored"]] == [*sorted(reasons)]
    assert Evaluation.from_json(result.to_json()) == result
    assert "Not scored: Tiny" in result.to_markdown()


def test_a_set_that_the_user_named_must_be_scored(tmp_path: Path) -> None:
    write(tmp_path / "Flat" / "HR" / "a.png", np.full((40, 40), 77, np.uint8))
    write(tmp_path / "Tiny" / "HR" / "a.png", make_photo(4, 4))
    with pytest.raises(InputError, match="too small"):
        evaluate(["bicubic"], data=tmp_path, scale=2, datasets=["Flat", "Tiny"])
    with pytest.raises(InputError, match="too small"):
        evaluate(["bicubic"], data=tmp_path / "Tiny", scale=2)


# Results and comparison -----------------------------------------------------------------------------------------------
def test_result_records_what_it_rests_on(data: Path, tiny: Model) -> None:
    result = evaluate([tiny, "bicubic"], data=data)
    assert result.scale == 4
    assert [m.label for m in result.models] == ["rlfn-ntire-x4", "bicubic"]
    assert (result.models[0].source, result.models[0].sha256) == ("tiny.pth", "ab" * 32)
    assert [(d.name, d.images) for d in result.datasets] == [("Set5", 2), ("Zoo", 1)]
    assert {"upframe", "torch", "cpu", "threads", "precision", "device"} <= result.environment.keys()
    again = Evaluation.from_json(result.to_json())
    assert again == result
    assert all(score.seconds > 0 for score in again.scores)
    zoo = [score.seconds for score in again.scores if (score.model, score.dataset) == ("bicubic", "Zoo")]
    assert again.mean_seconds("bicubic", "Zoo") == sum(zoo) / len(zoo)
    assert str(data) not in result.to_json()  # results are published; folders of a machine are nobody's business


def test_tables_show_models_by_sets_and_images(data: Path, tiny: Model) -> None:
    result = evaluate(["bicubic", tiny], data=data)
    lines = result.to_markdown().splitlines()
    assert "| model | Set5 | Zoo |" in lines
    cell = f"{result.mean('bicubic', 'Zoo', 'psnr-y'):.2f}/{result.mean('bicubic', 'Zoo', 'ssim-y'):.4f}"
    row = next(line for line in lines if line.startswith("| bicubic |"))
    assert row.endswith(f"| {cell} |")
    text = result.to_markdown()
    for needed in (
        "sisr-y",
        result.protocol_digest,
        "tiny.pth",
        result.datasets[0].sha256[:12],
        "torch",
        "border of 4 px",
        "s on Zoo",
    ):
        assert needed in text, needed
    per_image = result.to_markdown_per_image()
    assert per_image.count("\n| a |") == 2 and per_image.count("\n| b |") == 1
    assert "| image | bicubic | rlfn-ntire-x4 |" in per_image


def test_comparison_pairs_models_and_gives_the_gain(data: Path, tiny: Model) -> None:
    base, other = evaluate(["bicubic"], data=data, scale=4), evaluate([tiny], data=data, datasets=["Set5"])
    (first, second) = compare(base, other)
    assert (first.dataset, first.metric, first.model_a, first.model_b) == ("Set5", "psnr-y", "bicubic", "rlfn-ntire-x4")
    assert first.gain == other.mean("rlfn-ntire-x4", "Set5", "psnr-y") - base.mean("bicubic", "Set5", "psnr-y")
    assert second.metric == "ssim-y"
    both = evaluate(["bicubic", tiny], data=data)
    assert {(d.model_a, d.model_b) for d in compare(both, both)} == {(m, m) for m in ("bicubic", "rlfn-ntire-x4")}


def test_unlike_results_refuse_to_be_compared(data: Path) -> None:
    base = evaluate(["bicubic"], data=data, scale=4)
    with pytest.raises(UsageError, match=r"sisr-y.*sisr-rgb"):
        compare(base, evaluate(["bicubic"], protocol="sisr-rgb", data=data, scale=4))
    with pytest.raises(UsageError, match=r"x4.*x2"):
        compare(base, evaluate(["bicubic"], data=data, scale=2))
    with pytest.raises(UsageError, match="no test set in common"):
        compare(
            evaluate(["bicubic"], data=data, scale=4, datasets=["Zoo"]),
            evaluate(["bicubic"], data=data, scale=4, datasets=["Set5"]),
        )
    with pytest.raises(UsageError, match=r"Set5 is not the same data.*2 images.*1 images"):
        compare(base, evaluate(["bicubic"], data=data, scale=4, limit=1))
    changed = read(data / "Set5" / "HR" / "a.png")
    changed[0, 0, 0] ^= 1
    write(data / "Set5" / "HR" / "a.png", changed)
    with pytest.raises(UsageError, match="not the same data"):
        compare(base, evaluate(["bicubic"], data=data, scale=4))
    with pytest.raises(UsageError, match="follows protocol sisr-y"):
        compare(base, replace(base, protocol_digest="0" * 16))


def test_protocol_digest_changes_with_the_definition_only() -> None:
    protocol = PROTOCOLS["sisr-y"]
    assert replace(protocol).digest == protocol.digest
    assert replace(protocol, crop="none").digest != protocol.digest
    assert len({p.digest for p in PROTOCOLS.values()}) == len(PROTOCOLS)
    assert protocol.border_px(3) == 3 and replace(protocol, crop="none").border_px(3) == 0


def test_other_json_is_not_taken_for_an_evaluation() -> None:
    for text in ("", "[]", "{}", '{"format": "upframe-bench/1"}', '{"format": "upframe-evaluation/1"}'):
        with pytest.raises(InputError, match="not an upframe evaluation"):
            Evaluation.from_json(text)


@pytest.mark.parametrize(
    ("keys", "value"),
    [
        (("scores",), []),
        (("scores", 0, "scores"), {}),
        (("scores", 0, "scores", "psnr-y"), 10**400),
        (("scores", 0, "scores", "psnr-y"), "x" * 100_000),
        (("scores", 0, "image"), "another"),
        (("scores", 0, "seconds"), "long"),
        (("models", 0, "label"), "\x1b[31mred"),
        (("datasets", 0, "sha256"), None),
        (("datasets", 0, "images"), 10**400),
        (("scale",), "four"),
        (("format",), "x" * 100_000),
        (("environment",), 5),
        (("basis",), {"niqe": []}),
    ],
    ids=str,
)
def test_results_changed_by_hand_are_refused_in_one_short_line(keys: tuple[str | int, ...], value: object) -> None:
    good = Evaluation(
        protocol="p",
        protocol_digest="d",
        scale=4,
        datasets=(DatasetRecord("set", 2, "0" * 64),),
        models=(ModelRecord("m", "m.safetensors", "1" * 64), ModelRecord("n", "", "")),
        scores=tuple(ImageScore(model, "set", image, {"psnr-y": 30.0}, 1.0) for model in "mn" for image in "ab"),
        environment={"torch": "2"},
    )
    assert Evaluation.from_json(good.to_json()) == good
    tree: Any = json.loads(good.to_json())
    node = tree
    for key in keys[:-1]:
        node = node[key]
    node[keys[-1]] = value
    with pytest.raises(InputError, match="not an upframe evaluation") as caught:
        Evaluation.from_json(json.dumps(tree))
    assert len(str(caught.value)) < 400


def test_results_of_deep_nesting_are_refused() -> None:
    with pytest.raises(InputError, match="nested too deeply"):
        Evaluation.from_json("[" * 200_000)


# Files written --------------------------------------------------------------------------------------------------------
def test_images_and_sheets_are_saved(data: Path, tiny: Model, tmp_path: Path) -> None:
    out = tmp_path / "out"
    events: list[EvaluationEvent] = []
    evaluate([tiny, "bicubic"], data=data, save_images=out, contact_sheet=True, on_event=events.append)
    written = sorted(str(p.relative_to(out)) for p in out.rglob("*") if p.is_file())
    assert written == [
        "Set5_x4_sheet.png",
        "Zoo_x4_sheet.png",
        *(f"{model}/{name}.png" for model in ("bicubic", "rlfn-ntire-x4") for name in ("Set5/a", "Set5/b", "Zoo/a")),
    ]
    lr, hr = load_pair(find_test_sets(data, scale=4)[0].images[0], scale=4)
    saved = read(out / "bicubic" / "Set5" / "a.png")
    assert np.array_equal(saved, bicubic(lr, 4)) and saved.shape == hr.shape
    assert [(e.done, e.total) for e in events] == [(i, 6) for i in range(1, 7)]
    # The sheet holds the marked detail of the truth, enlarged by whole pixels.
    box = sheet.most_detailed(hr, side_px=SHEET_DETAIL_PX)
    detail = box.cut(hr).repeat(3, 0).repeat(3, 1)
    assert contains(read(out / "Set5_x4_sheet.png"), detail)
    assert contains(read(out / "Set5_x4_sheet.png"), box.cut(saved).repeat(3, 0).repeat(3, 1))


def contains(picture: np.ndarray, part: np.ndarray) -> bool:
    """Whether `part` stands somewhere in `picture`, exactly."""
    h, w = part.shape[:2]
    rows, columns = np.nonzero((picture[: -h + 1, : -w + 1] == part[0, 0]).all(-1))
    return any(np.array_equal(picture[y : y + h, x : x + w], part) for y, x in zip(rows, columns, strict=True))


def test_saved_images_never_overwrite_unasked(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    write(out / "mine.png", make_photo(8, 8))
    with pytest.raises(UsageError, match="is not empty"):
        evaluate(["bicubic"], data=data, scale=4, save_images=out)
    with pytest.raises(UsageError, match="is not a folder"):
        evaluate(["bicubic"], data=data, scale=4, save_images=out / "mine.png", overwrite=True)
    evaluate(["bicubic"], data=data, scale=4, save_images=out, overwrite=True)
    assert (out / "mine.png").exists() and (out / "bicubic" / "Zoo" / "a.png").exists()


def test_most_detailed_finds_the_textured_corner() -> None:
    picture = np.full((60, 80, 3), 128, np.uint8)
    picture[40:52, 60:72] = np.random.default_rng(0).integers(0, 256, (12, 12, 3))
    box = sheet.most_detailed(picture, side_px=16)
    assert (box.height, box.width) == (16, 16)
    assert box.top <= 40 <= 52 <= box.top + 16 and box.left <= 60 <= 72 <= box.left + 16
    small = sheet.most_detailed(picture[:10, :12], side_px=16)
    assert (small.top, small.left, small.height, small.width) == (0, 0, 10, 12)


def test_contact_sheet_refuses_rows_that_do_not_match_its_headings() -> None:
    picture = make_photo(20, 20)
    row = sheet.SheetRow("a", picture, sheet.Box(0, 0, 8, 8), (picture[:8, :8],), ("",))
    with pytest.raises(ValueError, match="1 details for 2 headings"):
        sheet.contact_sheet([row], headings=["x", "y"], title="t")
    with pytest.raises(ValueError, match="at least one row"):
        sheet.contact_sheet([], headings=["x"], title="t")


# Data -----------------------------------------------------------------------------------------------------------------
def test_sets_are_found_in_every_layout(data: Path) -> None:
    assert [s.name for s in find_test_sets(data, scale=4)] == ["Set5", "Zoo"]
    assert [s.name for s in find_test_sets(data, scale=4, datasets=["zoo", "set5", "ZOO"])] == ["Zoo", "Set5"]
    assert [s.name for s in find_test_sets(data / "Zoo", scale=4)] == ["Zoo"]
    plain = find_test_sets(data / "Set5" / "HR", scale=4)
    assert [i.name for s in plain for i in s.images] == ["a", "b"]


def test_sets_are_listed_as_tables_print_them(tmp_path: Path) -> None:
    for name in ("Urban100", "B100", "Own", "Set14", "Set5"):
        write(tmp_path / name / "HR" / "x.png", make_photo(8, 8))
    assert [s.name for s in find_test_sets(tmp_path, scale=2)] == ["Set5", "Set14", "B100", "Urban100", "Own"]
    assert canonical_set("BSD100") == canonical_set("B100") != canonical_set("Set14")
    assert find_test_sets(tmp_path, scale=2, datasets=["BSD100"])[0].name == "B100"


def test_missing_data_is_named(data: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nowhere: no such folder"):
        find_test_sets(tmp_path / "nowhere", scale=4)
    with pytest.raises(InputError, match=r"no test set Set14\. There are Set5, Zoo"):
        find_test_sets(data, scale=4, datasets=["Set5", "Set14"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="no images here"):
        find_test_sets(tmp_path / "empty", scale=4)
    write(tmp_path / "twins" / "a.png", make_photo(40, 40))
    write(tmp_path / "twins" / "a.bmp", make_photo(40, 40))
    with pytest.raises(InputError, match=r"a\.png: has the same name as a\.bmp"):
        find_test_sets(tmp_path / "twins", scale=4)
    write(data / "Set5" / "LRbicX4" / "a.png", make_photo(17, 22))
    with pytest.raises(InputError, match=r"b\.png: has no counterpart in LRbicX4"):
        find_test_sets(data, scale=4)


def test_lr_of_another_size_is_named(data: Path) -> None:
    write(data / "Zoo" / "LRbicX4" / "a.png", make_photo(18, 22))
    with pytest.raises(InputError, match=re.escape("a.png: is 18x22, but a.png at x4 needs 17x22")):
        evaluate(["bicubic"], data=data / "Zoo", scale=4)


def test_pictures_outside_the_protocol_are_named(tmp_path: Path) -> None:
    write(tmp_path / "alpha" / "a.png", np.dstack([make_photo(40, 40), np.full((40, 40), 128, np.uint8)]))
    with pytest.raises(InputError, match=r"a\.png: is uint8 with 4 channels"):
        evaluate(["bicubic"], data=tmp_path / "alpha", scale=4)
    write(tmp_path / "deep" / "a.png", np.full((40, 40), 1000, np.uint16))
    with pytest.raises(InputError, match=r"a\.png: is uint16"):
        evaluate(["bicubic"], data=tmp_path / "deep", scale=4)
    write(tmp_path / "small" / "a.png", make_photo(3, 40))
    with pytest.raises(InputError, match=r"a\.png: is smaller than 4 pixels"):
        evaluate(["bicubic"], data=tmp_path / "small", scale=4)
    write(tmp_path / "narrow" / "a.png", make_photo(18, 40))
    with pytest.raises(InputError, match=r"a\.png: is too small.*19 pixels"):
        evaluate(["bicubic"], data=tmp_path / "narrow", scale=4)


# Misuse ---------------------------------------------------------------------------------------------------------------
def test_misuse_is_refused_before_any_work(data: Path, tiny: Model) -> None:
    other = MODELS["rlfn-ntire-x2"]
    double = Model(other, other.build().eval(), None, "", "")
    cases = [
        (lambda: evaluate([], data=data), "no model"),
        (lambda: evaluate(["bicubic"], data=data), "no scale of its own"),
        (lambda: evaluate([tiny, double], data=data), r"one scale, found rlfn-ntire-x4 x4, rlfn-ntire-x2 x2"),
        (lambda: evaluate([tiny], data=data, scale=2), "with `scale=2`"),
        (lambda: evaluate([tiny], data=data, protocol="sisr"), "Use one of sisr-y, sisr-rgb"),
        (lambda: evaluate([tiny], data=data, limit=0), "0 images"),
        (lambda: evaluate([tiny], data=data, contact_sheet=True), "with `save_images`"),
        (lambda: evaluate(["rlfm-x4"], data=data), "rlfn-x4"),
    ]
    for call, named in cases:
        with pytest.raises(UsageError, match=named):
            call()


def test_two_weights_of_one_network_keep_apart(data: Path, tiny: Model) -> None:
    second = replace(tiny, source="weights/other.pth", sha256="cd" * 32)
    result = evaluate([tiny, second, second], data=data, datasets=["Zoo"])
    assert [m.label for m in result.models] == ["rlfn-ntire-x4", "rlfn-ntire-x4 (other)", "rlfn-ntire-x4 (other) #2"]
    assert len(result.scores) == 3


def test_names_from_cards_stay_inside_the_folder(data: Path, tiny: Model, tmp_path: Path) -> None:
    """A card is a stranger's text."""
    out = tmp_path / "deep" / "out"
    models = [
        replace(tiny, card=Card(name=name, arch="rlfn-ntire-x4", scale=4)) for name in ("..", "../../evil", "a/b", "a_b", "|x")
    ]
    result = evaluate(models, data=data, datasets=["Zoo"], save_images=out)
    assert len({m.label for m in result.models}) == 5
    assert len(list(out.glob("*/Zoo/a.png"))) == 5
    assert [p for p in tmp_path.rglob("*.png") if out not in p.parents and data not in p.parents] == []


# Clips ----------------------------------------------------------------------------------------------------------------
def independent_y(rgb: np.ndarray) -> np.ndarray:
    """Studio luma of (H, W, 3) uint8, in code values, from the matrix in ITU-R BT.601."""
    return 16 + (65.481 * rgb[..., 0] + 128.553 * rgb[..., 1] + 24.966 * rgb[..., 2].astype(np.float64)) / 255


def independent_psnr(a: np.ndarray, b: np.ndarray) -> float:
    return float(10 * np.log10(255**2 / np.mean((a - b) ** 2)))


def independent_ssim(a: np.ndarray, b: np.ndarray) -> float:
    """Wang et al. 2004 in code values, windows from a strided view."""
    at = np.arange(11) - 5
    taps = np.exp(-(at**2) / 4.5) / np.exp(-(at**2) / 4.5).sum()

    def mean(x: np.ndarray) -> np.ndarray:
        for axis in (0, 1):
            x = np.lib.stride_tricks.sliding_window_view(x, 11, axis=axis) @ taps
        return x

    ma, mb = mean(a), mean(b)
    va, vb, cov = mean(a * a) - ma**2, mean(b * b) - mb**2, mean(a * b) - ma * mb
    c1, c2 = 2.55**2, 7.65**2
    return float(np.mean((2 * ma * mb + c1) * (2 * cov + c2) / ((ma**2 + mb**2 + c1) * (va + vb + c2))))


def independent_bicubic(lr: np.ndarray, scale: int) -> np.ndarray:
    """Keys' cubic as a dense matrix for each axis, mirrored at the border; (H, W, 3) uint8."""

    def matrix(n: int) -> np.ndarray:
        dense = np.zeros((n * scale, n))
        for out in range(n * scale):
            centre = (out + 0.5) / scale - 0.5
            for tap in range(int(np.floor(centre)) - 1, int(np.floor(centre)) + 3):
                x = abs(centre - tap)
                near, far = 1.5 * x**3 - 2.5 * x**2 + 1, -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
                place = -tap - 1 if tap < 0 else 2 * n - 1 - tap if tap >= n else tap
                dense[out, place] += near if x <= 1 else far
        return dense

    big = np.einsum("yi,xj,ijc->yxc", matrix(lr.shape[0]), matrix(lr.shape[1]), lr.astype(np.float64), optimize=True)
    return np.clip(np.floor(big + 0.5), 0, 255).astype(np.uint8)


def test_vid4_scores_are_what_an_independent_computation_gives(shared: Path, tmp_path: Path) -> None:
    """Bicubic, RLFN and VapSR with official weights on two frames of each Vid4 part there is."""
    for clip in ("vid4_city", "vid4_walk"):
        for kind in ("HR", "LRbicX4"):
            (tmp_path / clip / kind).mkdir(parents=True)
            for i in range(2):
                shutil.copy(shared / "videos" / clip / kind / f"{i:08d}.png", tmp_path / clip / kind)
    networks = [load(shared / "weights" / name) for name in ("RLFN/rlfn_x4.pth", "VapSR/VapSR_X4.pth")]
    result = evaluate(["bicubic", *networks], protocol="vid4-y", data=tmp_path)

    name = "Vid4 (2 of 4 clips, 4 of 171 frames)"
    assert [(d.name, d.images, d.frames) for d in result.datasets] == [(name, 2, 4)]
    clip_means: dict[str, list[tuple[float, float]]] = {m.label: [] for m in result.models}
    for clip in ("vid4_city", "vid4_walk"):
        frames: dict[str, list[tuple[float, float]]] = {m.label: [] for m in result.models}
        for i in range(2):
            hr, lr = (read(tmp_path / clip / kind / f"{i:08d}.png") for kind in ("HR", "LRbicX4"))
            outputs = {"bicubic": independent_bicubic(lr, 4)}
            for model in networks:
                unit = torch.from_numpy(lr.transpose(2, 0, 1)[None] / np.float32(255))
                raw = model.network(unit)[0].numpy().transpose(1, 2, 0)
                outputs[model.name] = np.rint(np.clip(raw, 0, 1) * 255).astype(np.uint8)
            for label, sr in outputs.items():
                a, b = independent_y(sr), independent_y(hr)
                frames[label].append((independent_psnr(a, b), independent_ssim(a, b)))
        for label, values in frames.items():
            clip_means[label].append((sum(v[0] for v in values) / 2, sum(v[1] for v in values) / 2))
    for label, means in clip_means.items():
        # 1e-4: networks run in another memory layout, where a few of a million values round to the next code.
        assert result.mean(label, name, "psnr-y") == pytest.approx((means[0][0] + means[1][0]) / 2, abs=1e-4)
        assert result.mean(label, name, "ssim-y") == pytest.approx((means[0][1] + means[1][1]) / 2, abs=1e-5)
    rlfn, vapsr = (result.mean(m.name, name, "psnr-y") for m in networks)
    assert result.mean("bicubic", name, "psnr-y") + 1 < rlfn < vapsr


def put_clip(folder: Path, seed: int, numbers: Iterable[int], *, size: tuple[int, int] = (48, 64), low: bool = False) -> None:
    """Frames whose content moves by a pixel each; `low` shrinks them by four."""
    big = make_photo(size[0] + 8, size[1] + 120, seed=seed)
    for i in numbers:
        hr = np.ascontiguousarray(big[4 : 4 + size[0], i : i + size[1]])
        lr = pixels.matlab_bicubic_8bit(torch.from_numpy(hr).permute(2, 0, 1), 4).permute(1, 2, 0).numpy()
        write(folder / f"{i:08d}.png", lr if low else hr)


def test_clip_scores_are_means_over_frames_then_clips(tmp_path: Path) -> None:
    """A clip of five frames counts as much as one of two."""
    put_clip(tmp_path / "GT" / "city", 1, range(2))
    put_clip(tmp_path / "GT" / "walk", 2, range(5))
    for protocol, luma in (("vid4-y", True), ("udm10-bi-rgb", False)):
        result = evaluate(["bicubic"], protocol=protocol, data=tmp_path, scale=4)
        (dataset,) = result.datasets
        metric = PROTOCOLS[protocol].metrics[0]
        clip_means = []
        for clip, count in (("city", 2), ("walk", 5)):
            values = []
            for i in range(count):
                hr = read(tmp_path / "GT" / clip / f"{i:08d}.png")
                lr = pixels.matlab_bicubic_8bit(torch.from_numpy(hr).permute(2, 0, 1), 4).permute(1, 2, 0).numpy()
                values.append(psnr(bicubic(lr, 4), hr, luma=luma))
            clip_means.append(sum(values) / count)
        assert [s.scores[metric] for s in result.scores] == pytest.approx(clip_means, abs=1e-12)
        assert result.mean("bicubic", dataset.name, metric) == pytest.approx(sum(clip_means) / 2, abs=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("protocol", "clips", "title"),
    [
        ("reds4-rgb", ("000", "011", "015", "020"), "REDS4 (4 of 4 clips, 8 of 400 frames)"),
        ("redsofficial4-rgb", ("240", "241", "246", "257"), "REDSofficial4 (4 of 4 clips, 8 of 400 frames)"),
        ("redsval-rgb", tuple(str(i) for i in range(240, 270)), "REDS-val (30 of 30 clips, 60 of 3000 frames)"),
    ],
)
def test_the_three_reds_protocols_keep_apart(tmp_path: Path, protocol: str, clips: tuple[str, ...], title: str) -> None:
    for clip in ("000", "011", "015", "020", *(str(i) for i in range(240, 270))):
        put_clip(tmp_path / "train_sharp" / clip, int(clip), range(2), size=(16, 16))
        put_clip(tmp_path / "train_sharp_bicubic" / "X4" / clip, int(clip), range(2), size=(16, 16), low=True)
    result = evaluate(["bicubic"], protocol=protocol, data=tmp_path, scale=4)
    assert [s.image for s in result.scores] == list(clips)
    assert [d.name for d in result.datasets] == [title]
    with pytest.raises(UsageError, match=f"follows protocol {protocol}"):
        compare(result, evaluate(["bicubic"], protocol="udm10-bi-rgb", data=tmp_path / "train_sharp", scale=4))


def test_blurred_inputs_have_a_protocol_of_their_own(tmp_path: Path) -> None:
    put_clip(tmp_path / "archwall" / "truth", 1, range(2))
    blurred = evaluate(["bicubic"], protocol="udm10-y", data=tmp_path, scale=4)
    plain = evaluate(["bicubic"], protocol="vid4-y", data=tmp_path, scale=4)
    assert blurred.scores[0].scores["psnr-y"] < plain.scores[0].scores["psnr-y"] - 0.5
    assert blurred.datasets[0].sha256 != plain.datasets[0].sha256


def clip_model(window: Window) -> Model:
    """A network that says it takes clips, and enlarges by repeating pixels."""
    spec = replace(MODELS["rlfn-ntire-x4"], name="clips-x4", window=window, takes_place=False, build=RepeatPixels)
    return Model(spec, RepeatPixels().eval(), None, "weights/clips.pth", "ef" * 32)


class RepeatPixels(torch.nn.Module):
    def forward(self, clip: torch.Tensor) -> torch.Tensor:
        return clip.repeat_interleave(4, -1).repeat_interleave(4, -2)


@pytest.mark.parametrize("window", [Window(None, 0), Window(2, 1), Window(5, 4)])
def test_networks_on_clips_see_whole_clips_or_their_windows(tmp_path: Path, window: Window) -> None:
    put_clip(tmp_path / "GT" / "city", 1, range(3))
    put_clip(tmp_path / "BIx4" / "city", 1, range(3), low=True)
    result = evaluate([clip_model(window)], protocol="vid4-y", data=tmp_path)
    values = [
        psnr(
            read(tmp_path / "BIx4" / "city" / f"{i:08d}.png").repeat(4, 0).repeat(4, 1),
            read(tmp_path / "GT" / "city" / f"{i:08d}.png"),
            luma=True,
        )
        for i in range(3)
    ]
    assert result.scores[0].scores["psnr-y"] == pytest.approx(sum(values) / 3, abs=1e-9)


def test_networks_on_clips_see_the_mirrored_border_of_their_weights(tmp_path: Path) -> None:
    """As `upscale` runs them: here, pixels at the rim of what the network sees come out black."""

    class BlackRim(RepeatPixels):
        def forward(self, clip: torch.Tensor) -> torch.Tensor:
            return super().forward(torch.nn.functional.pad(clip[..., 2:-2, 2:-2], (2, 2, 2, 2)))

    put_clip(tmp_path / "GT" / "city", 1, range(3))
    plain = clip_model(Window(None, 0))
    rimmed = replace(plain, network=BlackRim().eval())
    mirrored = replace(rimmed, card=Card(name="rim", arch="rlfn-ntire-x4", scale=4, border_px=2))
    found = [evaluate([model], protocol="vid4-y", data=tmp_path).scores[0].scores for model in (plain, rimmed, mirrored)]
    assert found[2] == found[0]
    assert found[1]["psnr-y"] < found[0]["psnr-y"] - 1


def test_networks_on_clips_run_through_a_hook(tmp_path: Path) -> None:
    """On Vimeo-90K recurrent networks see the septuplet and its mirror image in time; frame 4 is scored."""
    (tmp_path / "sep_testlist.txt").write_text("00001/0001\n")
    put_clip(tmp_path / "named", 1, range(1, 8))
    for i in range(1, 8):
        write(tmp_path / "sequences" / "00001" / "0001" / f"im{i}.png", read(tmp_path / "named" / f"{i:08d}.png"))
    given: list[list[RGB8]] = []

    def clip_upscaler(model: Model) -> Callable[[Sequence[RGB8]], Iterable[RGB8]]:
        assert model.spec.window == Window(5, 4)

        def upscale(frames: Sequence[RGB8]) -> Iterable[RGB8]:
            given.append(list(frames))
            return (bicubic(frame, 4) for frame in frames)

        return upscale

    hooked = evaluate([clip_model(Window(5, 4)), "bicubic"], protocol="vimeo-y-c4", data=tmp_path, clip_upscaler=clip_upscaler)
    (frames,) = given
    assert len(frames) == 14
    assert all(np.array_equal(frames[i], frames[13 - i]) for i in range(7))
    assert hooked.scores[0].scores == hooked.scores[1].scores
    assert hooked.datasets[0].frames == 1
    with pytest.raises(UsageError, match=r"clips-x4: takes clips, not single images.*vid4-y"):
        evaluate([clip_model(Window(None, 0))], protocol="sisr-y", data=tmp_path)


def pristine(name: str, mean: float) -> NiqeModel:
    return NiqeModel(name, np.full(36, mean), np.eye(36), gaussian_window())


@pytest.mark.slow
def test_videolq_takes_three_frames_and_a_pristine_model(tmp_path: Path) -> None:
    put_clip(tmp_path / "000", 1, range(100), size=(96, 192), low=True)
    with pytest.raises(UsageError, match=r"no.* was given\. Name one with `niqe_params`"):
        evaluate(["bicubic"], protocol="videolq-3frame", data=tmp_path, scale=4)
    model = pristine("own", 1.0)
    result = evaluate(["bicubic"], protocol="videolq-3frame", data=tmp_path, scale=4, niqe_params=model)
    inputs = [read(tmp_path / "000" / f"{i:08d}.png") for i in (0, 50, 99)]
    outputs = [bicubic(lr, 4) for lr in inputs]
    assert result.scores[0].scores == {
        "niqe": pytest.approx(sum(niqe(sr, model) for sr in outputs) / 3, abs=1e-9),
        "lr-psnr": pytest.approx(sum(lr_consistency(a, b) for a, b in zip(outputs, inputs, strict=True)) / 3, abs=1e-9),
    }
    assert result.basis == {"niqe": f"own (sha256 {model.digest[:12]})"}
    assert "Scores rest on: niqe: own" in result.to_markdown() and "NIQE/LR-PSNR" in result.to_markdown()
    assert Evaluation.from_json(result.to_json()) == result
    other = evaluate(["bicubic"], protocol="videolq-3frame", data=tmp_path, scale=4, niqe_params=pristine("other", 2.0))
    with pytest.raises(UsageError, match="have different conditions"):
        compare(result, other)


def test_lower_is_better_where_it_is(tmp_path: Path) -> None:
    put_clip(tmp_path / "000", 1, [0], size=(96, 192), low=True)
    run = {"protocol": "videolq-3frame", "data": tmp_path, "scale": 4, "niqe_params": pristine("own", 1.0)}
    result = evaluate(["bicubic"], **run)
    worse = replace(
        result, scores=tuple(replace(s, scores={"niqe": s.scores["niqe"] + 1, "lr-psnr": 99.0}) for s in result.scores)
    )
    gains = {d.metric: d.gain for d in compare(result, worse)}
    assert gains["niqe"] == pytest.approx(-1)
    assert gains["lr-psnr"] > 0


@pytest.mark.slow
def test_temporal_scores_follow_the_motion_of_the_truth(tmp_path: Path) -> None:
    put_clip(tmp_path / "GT" / "city", 1, range(4))
    put_clip(tmp_path / "BIx4" / "city", 1, range(4), low=True)
    result = evaluate(["bicubic"], protocol="vid4-temporal", data=tmp_path, scale=4)
    truth, inputs = ([read(tmp_path / kind / "city" / f"{i:08d}.png") for i in range(4)] for kind in ("GT", "BIx4"))
    outputs = [bicubic(lr, 4) for lr in inputs]
    assert result.scores[0].scores == {
        "warp-error": warping_error(outputs, motion=truth),
        "tof": temporal_flow_difference(outputs, truth),
        "flicker": flicker(outputs, motion=truth),
        "lr-psnr": pytest.approx(sum(lr_consistency(a, b) for a, b in zip(outputs, inputs, strict=True)) / 4, abs=1e-9),
    }
    assert result.basis["motion"].startswith("lucas-kanade/1")
    footage = evaluate(["bicubic"], protocol="videolq-temporal", data=tmp_path / "BIx4", scale=4)
    assert footage.scores[0].scores["warp-error"] == warping_error(outputs)  # its own motion: it is the bicubic enlargement


def test_frames_and_sheets_of_clips_are_saved(tmp_path: Path) -> None:
    put_clip(tmp_path / "set" / "GT" / "city", 1, range(3))
    put_clip(tmp_path / "set" / "GT" / "walk", 2, range(2))
    out = tmp_path / "out"
    events: list[EvaluationEvent] = []
    data = tmp_path / "set"
    evaluate(["bicubic"], protocol="vid4-y", data=data, scale=4, save_images=out, contact_sheet=True, on_event=events.append)
    assert sorted(str(p.relative_to(out)) for p in out.rglob("*.png")) == [
        "Vid4_x4_sheet.png",
        *(f"bicubic/Vid4/city/{i:08d}.png" for i in range(3)),
        *(f"bicubic/Vid4/walk/{i:08d}.png" for i in range(2)),
    ]
    assert [(e.image, e.done, e.total) for e in events] == [("city", 1, 2), ("walk", 2, 2)]


def test_clip_tables_speak_of_clips_and_misuse_is_refused(tmp_path: Path) -> None:
    put_clip(tmp_path / "GT" / "city", 1, range(2))
    result = evaluate(["bicubic"], protocol="vid4-y", data=tmp_path, scale=4)
    assert "(1 clips, 2 frames, sha256" in result.to_markdown() and "Mean time per clip" in result.to_markdown()
    assert "| clip | bicubic |" in result.to_markdown_per_image()
    with pytest.raises(UsageError, match="protocol vid4-y uses only Vid4"):
        evaluate(["bicubic"], protocol="vid4-y", data=tmp_path, scale=4, datasets=["Set5"])
    with pytest.raises(UsageError, match="0 clips cannot be scored"):
        evaluate(["bicubic"], protocol="vid4-y", data=tmp_path, scale=4, limit=0)
    with pytest.raises(UsageError, match="no true pictures"):
        evaluate(
            ["bicubic"], protocol="videolq-temporal", data=tmp_path, scale=4, save_images=tmp_path / "o", contact_sheet=True
        )
    with pytest.raises(InputError, match=r"becomes 48x64 at x4, too small for NIQE"):
        put_clip(tmp_path / "lq" / "city", 1, [0], low=True)
        evaluate(["bicubic"], protocol="videolq-3frame", data=tmp_path / "lq", scale=4, niqe_params=pristine("own", 0))


# Proof ----------------------------------------------------------------------------------------------------------------
def test_proof_uses_a_cards_scores_and_says_what_it_cannot_know(data: Path, tiny: Model) -> None:
    unknown = proof_sheet([tiny], data)
    assert [row.verdict for row in unknown.rows] == ["unknown weights"] * 2
    assert not unknown.passed
    measured = {
        row.dataset: {"psnr": round(row.psnr, 2), "ssim": round(row.ssim, 4)} for row in unknown.rows if row.psnr and row.ssim
    }
    scores = {"sisr-y": {"Set5": measured["Set5"], "Urban100": {"psnr": 26.0, "ssim": 0.78}}}
    card = Card(name="tiny", arch="rlfn-ntire-x4", scale=4, scores=scores)
    known = proof_sheet([replace(tiny, card=card)], data)
    assert [(r.dataset, r.verdict, r.basis) for r in known.rows] == [
        ("Set5", "pass", "card"),
        ("Zoo", "no figure known", ""),
        ("Urban100", "set not here", "card"),
    ]
    assert known.passed
    assert all(text in known.to_markdown() for text in ("| tiny |", "tiny.pth", "set not here", "26.00/0.7800 (card)"))
    assert json.loads(known.to_json())["rows"][0]["verdict"] == "pass"
    scores["sisr-y"]["Set5"]["psnr"] += 0.02
    assert proof_sheet([replace(tiny, card=card)], data, datasets=["Set5"]).rows[0].verdict == "FAIL"


def test_tolerance_is_a_hundredth_of_a_db_and_half_a_thousandth() -> None:
    known = Published("Set5", 32.24, 0.8953)
    assert agrees(32.25, 0.8958, known) and agrees(32.23, 0.8948, known)
    assert not agrees(32.2511, 0.8953, known) and not agrees(32.24, 0.8959, known)
