"""NIQE against reference values, its parts against known distributions, and its parameter files."""

from __future__ import annotations

import math
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.numpy import save_file

from conftest import make_photo
from upframe import pixels
from upframe.errors import InputError
from upframe.evaluation.evaluate import fit_niqe as fit_niqe_on_folder
from upframe.metrics import NiqeModel, fit_niqe, load_niqe, niqe, save_niqe
from upframe.metrics.niqe import _fit_aggd, gaussian_window

# The reference shrinks in float32; ours, in float64, is within 2e-5 of it.
TOLERANCE = 1e-3


def plain_model() -> NiqeModel:
    """Not pristine at all, but enough for everything but the values."""
    return NiqeModel("plain", np.zeros(36), np.eye(36), gaussian_window())


@pytest.fixture(scope="module")
def official(golden: ModuleType) -> NiqeModel:
    """The parameters of the authors' release, from the fixture."""
    tensors = golden.Golden("common/niqe").tensors
    parts = [tensors[f"in.param_{key}"].numpy() for key in ("mu_pris_param", "cov_pris_param", "gaussian_window")]
    return NiqeModel("release", parts[0].reshape(-1), parts[1], parts[2])


@pytest.fixture(scope="module")
def fitted() -> NiqeModel:
    """A model of six synthetic pictures, 12 blocks each."""
    return fit_niqe((make_photo(288, 384, seed=s) for s in range(6)), name="synthetic")


# Values ---------------------------------------------------------------------------------------------------------------
def test_scores_equal_the_reference(golden: ModuleType, official: NiqeModel) -> None:
    """Six blocks, and two: there the picture's own covariance has rank one and the pseudo-inverse decides."""
    fixture = golden.Golden("common/niqe")
    a, b = (fixture.tensors[name].numpy()[..., ::-1].copy() for name in ("in.a", "in.b"))  # stored as BGR
    expected = fixture.meta["values"]
    assert niqe(a, official) == pytest.approx(expected["a_y"], abs=TOLERANCE)
    assert niqe(a, official, crop_border=4) == pytest.approx(expected["a_y_crop4"], abs=TOLERANCE)
    assert niqe(a, official, colour="gray") == pytest.approx(expected["a_gray"], abs=TOLERANCE)
    assert niqe(b, official) == pytest.approx(expected["b_y"], abs=TOLERANCE)


def test_noise_and_blur_cost_a_photograph(shared: Path, official: NiqeModel) -> None:
    with Image.open(shared / "testsets" / "B100" / "HR" / "101085.png") as image:
        photo = np.array(image)
    rng = np.random.default_rng(0)
    noisy = np.clip(photo + rng.normal(0, 25, photo.shape), 0, 255).astype(np.uint8)
    planes = torch.from_numpy(photo).permute(2, 0, 1).double() / 255
    small = pixels.crop_to_multiple(planes, 4)
    blurred = pixels.from_unit(pixels.imresize(pixels.imresize(small, 0.25), 4), np.uint8)
    assert niqe(photo, official) < 4.5
    assert niqe(noisy, official) > niqe(photo, official) + 2
    assert niqe(blurred, official) > niqe(photo, official) + 2


@pytest.mark.parametrize(("draw", "shape"), [("laplace", 1.0), ("normal", 2.0)])
def test_asymmetric_fit_finds_shape_and_scales(draw: str, shape: float) -> None:
    """Known distributions whose two sides were stretched by 1 and 3. A generalised Gaussian is exp(−|x/β|^α)."""
    rng = np.random.default_rng(0)
    size = 400_000
    magnitude = np.abs(rng.laplace(size=size) if draw == "laplace" else rng.normal(size=size) * math.sqrt(0.5))
    # An asymmetric one has mass on each side in proportion to its scale, so that it is continuous at zero.
    right = rng.random(size) < 0.75
    samples = torch.from_numpy(np.where(right, 3 * magnitude, -magnitude))
    found_shape, left_scale, right_scale = (float(x) for x in _fit_aggd(samples[None]))
    # 2 %: four standard deviations of a fit to so many samples.
    assert found_shape == pytest.approx(shape, rel=0.02)
    assert (left_scale, right_scale) == (pytest.approx(1, rel=0.02), pytest.approx(3, rel=0.02))


def test_window_is_the_published_one(official: NiqeModel) -> None:
    assert np.allclose(gaussian_window(), official.window, rtol=0, atol=1e-15)


@pytest.mark.slow
def test_depth_kind_and_colour_of_a_picture_do_not_matter(fitted: NiqeModel) -> None:
    picture = make_photo(200, 210, seed=9)
    score = niqe(picture, fitted)
    assert niqe(picture.astype(np.uint16) * 257, fitted) == pytest.approx(score, abs=1e-9)
    assert niqe(picture / 255, fitted) == pytest.approx(score, abs=1e-9)
    assert niqe(torch.from_numpy(picture).permute(2, 0, 1), fitted) == score
    gray = picture[..., 1]
    assert niqe(gray, fitted) == niqe(gray[..., None], fitted)
    weighted = np.floor(picture @ np.array([0.299, 0.587, 0.114]) + 0.5 + 1e-9).astype(np.uint8)
    assert niqe(picture, fitted, colour="gray") == pytest.approx(niqe(weighted, fitted), abs=1e-9)


def test_an_incomplete_rest_of_blocks_is_not_looked_at(fitted: NiqeModel) -> None:
    picture = make_photo(192, 230, seed=9)
    changed = picture.copy()
    changed[:, 192:] = 0
    assert niqe(changed, fitted) == niqe(picture, fitted) == niqe(picture[:, :192], fitted)


def test_plain_blocks_do_not_spoil_a_score(fitted: NiqeModel) -> None:
    """Sky without variation has no statistics; the rest of the picture still has."""
    picture = make_photo(192, 288, seed=3)
    picture[:, :100] = 200
    assert math.isfinite(niqe(picture, fitted))


# Models of one's own --------------------------------------------------------------------------------------------------
def test_a_model_of_ones_own_prefers_what_it_was_made_of(fitted: NiqeModel) -> None:
    like = make_photo(288, 384, seed=50)
    noisy = np.clip(like + np.random.default_rng(0).normal(0, 20, like.shape), 0, 255).astype(np.uint8)
    assert niqe(like, fitted) < niqe(noisy, fitted) / 2


@pytest.mark.slow
def test_only_sharp_blocks_make_a_model() -> None:
    """One textured block and three nearly plain ones: only the first counts, in each of the thirty pictures."""
    pictures = []
    for seed in range(30):
        picture = np.full((192, 192, 3), 120, np.uint8) + (make_photo(192, 192, seed=seed) // 100)
        picture[:96, :96] = make_photo(96, 96, seed=seed)
        pictures.append(picture)
    with pytest.raises(ValueError, match="more than 36 sharp blocks, found 30"):
        fit_niqe(pictures, name="few")


@pytest.mark.slow
def test_a_model_is_fitted_on_a_folder_and_kept_in_a_file(tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    for seed in range(5):
        Image.fromarray(make_photo(288, 384, seed=seed)).save(folder / f"{seed}.png")
    model = fit_niqe_on_folder(folder)
    assert model.name == "own model of 5 photographs in photos"
    save_niqe(model, tmp_path / "own.safetensors", about="synthetic")
    again = load_niqe(tmp_path / "own.safetensors")
    assert (again.name, again.digest) == (model.name, model.digest)
    picture = make_photo(200, 210, seed=9)
    assert niqe(picture, again) == niqe(picture, model)
    (tmp_path / "none").mkdir()
    with pytest.raises(InputError, match="no photographs here"):
        fit_niqe_on_folder(tmp_path / "none")
    Image.fromarray(make_photo(192, 192)).save(tmp_path / "none" / "one.png")
    with pytest.raises(InputError, match=r"none: .*more than 36 sharp blocks"):
        fit_niqe_on_folder(tmp_path / "none")


# Files ----------------------------------------------------------------------------------------------------------------
def test_published_parameters_load_from_npz(tmp_path: Path) -> None:
    model = plain_model()
    arrays = {"mu_pris_param": model.mean[None], "cov_pris_param": model.covariance, "gaussian_window": model.window}
    np.savez(tmp_path / "niqe_pris_params.npz", **arrays)
    loaded = load_niqe(tmp_path / "niqe_pris_params.npz")
    assert (loaded.digest, loaded.name) == (model.digest, "niqe_pris_params")
    del arrays["gaussian_window"]
    np.savez(tmp_path / "without_window.npz", **arrays)
    assert load_niqe(tmp_path / "without_window.npz").digest == model.digest


def test_other_files_are_refused_and_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"gone\.npz: no such file.*mu_pris_param"):
        load_niqe(tmp_path / "gone.npz")
    with pytest.raises(InputError, match=r"gone\.safetensors: no such file"):
        load_niqe(tmp_path / "gone.safetensors")
    (tmp_path / "text.npz").write_text("no array")
    (tmp_path / "text.safetensors").write_text("no tensor")
    for name in ("text.npz", "text.safetensors"):
        with pytest.raises(InputError, match="cannot be read as NIQE parameters"):
            load_niqe(tmp_path / name)
    np.savez(tmp_path / "half.npz", mu_pris_param=np.zeros(36))
    with pytest.raises(InputError, match="holds no cov_pris_param"):
        load_niqe(tmp_path / "half.npz")
    np.savez(tmp_path / "pickle.npz", mu_pris_param=np.array([{}], dtype=object), cov_pris_param=np.eye(36))
    with pytest.raises(InputError, match="cannot be read"):
        load_niqe(tmp_path / "pickle.npz")
    save_file({"mu_pris_param": np.zeros(18), "cov_pris_param": np.eye(18)}, tmp_path / "small.safetensors")
    with pytest.raises(InputError, match=r"small\.safetensors: does not hold a NIQE model.*\(36,\).*found .*\(18,\)"):
        load_niqe(tmp_path / "small.safetensors")
    np.savez(tmp_path / "nan.npz", mu_pris_param=np.full(36, np.nan), cov_pris_param=np.eye(36))
    with pytest.raises(InputError, match="must be finite"):
        load_niqe(tmp_path / "nan.npz")


# Misuse ---------------------------------------------------------------------------------------------------------------
def test_pictures_without_statistics_are_refused() -> None:
    model = plain_model()
    with pytest.raises(ValueError, match="two blocks of 96x96 pixels, found 191x96"):
        niqe(make_photo(191, 96), model)
    with pytest.raises(ValueError, match="with any variation, found 0"):
        niqe(np.full((200, 200), 9, np.uint8), model)
    with pytest.raises(ValueError, match="1 or 3 channels, found 2"):
        niqe(make_photo(200, 200)[..., :2], model)
    with pytest.raises(ValueError, match="one picture at a time, found 2"):
        niqe(torch.zeros(2, 3, 200, 200), model)
    with pytest.raises(ValueError, match="border of 100 leaves nothing"):
        niqe(make_photo(200, 200), model, crop_border=100)
