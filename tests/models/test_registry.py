"""Models by name and by path: what is found, what is refused, and what is known about each."""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from upframe.errors import ModelError, UsageError
from upframe.evaluation.tones import Tones, measure_tones
from upframe.models import checkpoints, registry
from upframe.models.cards import Card, card_path
from upframe.models.networks import MODELS
from upframe.models.official import OFFICIAL
from upframe.models.registry import SHIPPED, convert, count_parameters, default_model, info, list_models, load


@pytest.fixture
def user_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "my weights"
    folder.mkdir()
    monkeypatch.setenv("UPFRAME_WEIGHTS", str(folder))
    return folder


@pytest.fixture(autouse=True)
def no_user_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("UPFRAME_WEIGHTS", raising=False)


def write(path: Path, arch: str, *, seed: int = 0) -> Path:
    """Untrained weights of a published network at `path`, as their authors would publish them."""
    torch.manual_seed(seed)
    torch.save({"params": MODELS[arch].build().state_dict(), "value_range": "0-1"}, path)
    return path


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An installation of which every shipped model is present, with untrained weights."""
    folder = tmp_path / "installed"
    folder.mkdir()
    monkeypatch.setattr(registry, "WEIGHTS_FOLDER", folder)
    for name, shipped in SHIPPED.items():
        state = dict(MODELS[shipped.arch].build().state_dict())
        card = Card(name=name, arch=shipped.arch, scale=MODELS[shipped.arch].scale, licence_weights="CC0-1.0")
        checkpoints.save(folder / shipped.file, state, card)
    return folder


# The registry ---------------------------------------------------------------------------------------------------------
def test_no_two_models_answer_to_one_name() -> None:
    owners: dict[str, set[str]] = {name: {name} for name in (*SHIPPED, "photo")}
    for spec in MODELS.values():
        for name in (spec.name, *spec.aliases):
            owners.setdefault(name.lower().replace("_", "-"), set()).add(spec.name)
    assert {name: found for name, found in owners.items() if len(found) > 1} == {}


@pytest.mark.parametrize(
    ("scale", "name"),
    [
        (1, "photo-x2"),
        (1.5, "photo-x2"),
        (2, "photo-x2"),
        (2.01, "photo-x3"),
        (3, "photo-x3"),
        (3.2, "photo-x4"),
        (4, "photo-x4"),
        (7, "photo-x4"),
    ],
)
def test_the_smallest_shipped_network_that_reaches_the_scale_is_the_default(scale: float, name: str) -> None:
    assert default_model(scale) == name


# By path --------------------------------------------------------------------------------------------------------------
def test_a_path_gives_a_model_ready_to_run(tmp_path: Path) -> None:
    path = write(tmp_path / "anything.pth", "vapsr-s-x4")
    for given in (path, str(path)):
        model = load(given)
        assert model.spec is MODELS["vapsr-s-x4"]
        assert (model.name, model.card, model.source) == ("vapsr-s-x4", None, str(path))
        assert model.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
        assert not model.network.training
        assert {(p.dtype, p.device.type, p.requires_grad) for p in model.network.parameters()} == {
            (torch.float32, "cpu", False)
        }


def test_a_relative_path_without_a_folder_is_a_path_by_its_suffix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "rlfn_x2.pth", "vapsr-s-x4")
    write(tmp_path / "plain", "vapsr-s-x4")
    monkeypatch.chdir(tmp_path)
    assert load("rlfn_x2.pth").spec.name == "vapsr-s-x4", "the content counts, not the name"
    assert load("plain").spec.name == "vapsr-s-x4"
    with pytest.raises(ModelError, match="no such file"):
        load("absent.safetensors")
    with pytest.raises(ModelError, match="no such file"):
        load("./rlfn-x4")


def test_the_scale_asked_does_not_matter_for_a_path(tmp_path: Path) -> None:
    """A ×3 enlargement with a ×4 network is legitimate: the rest is a resample."""
    assert load(write(tmp_path / "w.pth", "vapsr-s-x4"), scale=3).spec.scale == 4


def test_a_card_names_the_model(tmp_path: Path) -> None:
    path = write(tmp_path / "w.pth", "rlfn-s-x2")
    card = convert(path, tmp_path / "w.safetensors", name="my-model")
    model = load(tmp_path / "w.safetensors")
    assert (model.name, model.card) == ("my-model", card)
    assert card.licence_weights == "", "nothing is known of weights that are not the official ones"


# Shipped --------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("given", "scale", "name"),
    [
        ("photo", None, "photo-x4"),
        ("Photo", 2, "photo-x2"),
        ("photo", 3, "photo-x3"),
        ("photo", 8, "photo-x4"),
        ("PHOTO_X2", None, "photo-x2"),
        ("photo-x2", 4, "photo-x2"),
    ],
)
def test_shipped_models_are_found_by_name(installed: Path, given: str, scale: int | None, name: str) -> None:
    model = load(given, scale=scale)
    assert model.name == name
    assert model.spec.name == SHIPPED[name].arch
    assert Path(model.source) == installed / SHIPPED[name].file
    assert model.card is not None
    assert model.card.sha256 == model.sha256


@pytest.mark.parametrize("damage", ["weights missing", "card missing", "weights changed", "weights cut", "card without hash"])
def test_a_damaged_installation_is_named_as_such(installed: Path, damage: str) -> None:
    path = installed / SHIPPED["photo-x4"].file
    if damage == "weights missing":
        path.unlink()
    elif damage == "card missing":
        card_path(path).unlink()
    elif damage == "weights changed":
        content = bytearray(path.read_bytes())
        content[-1] ^= 1
        path.write_bytes(content)
    elif damage == "weights cut":
        path.write_bytes(path.read_bytes()[:-9])
    else:
        text = card_path(path).read_text()
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        assert digest in text
        card_path(path).write_text(text.replace(digest, ""))
    with pytest.raises(ModelError, match="installation is damaged") as caught:
        load("photo-x4")
    assert caught.value.exit_code == 4
    assert load("photo-x2").name == "photo-x2"


# Published networks ---------------------------------------------------------------------------------------------------
def test_a_published_network_without_weights_asks_for_the_file() -> None:
    with pytest.raises(ModelError, match="upframe ships no weights for rlfn-x4") as caught:
        load("rlfn-x4")
    assert "model='PATH'" in str(caught.value)


@pytest.mark.parametrize(
    ("file", "arch", "given", "scale"),
    [
        ("rlfn_x4.pth", "rlfn-x4", "rlfn-x4", None),
        ("rlfn_x4.pth", "rlfn-x4", "RLFN_X4", None),
        ("rlfn_x4.pth", "rlfn-x4", "rlfn", None),
        ("rlfn_x2.pth", "rlfn-x2", "rlfn", 2),
        ("VapSR-S.pth", "vapsr-s-x4", "vapsr-s-x4", None),
        ("VapSR-S.pth", "vapsr-s-x4", "vapsr_s", None),
        ("VapSR_X2.pth", "vapsr-x2", "vapsr", 2),
        ("vapsr-x4.pt", "vapsr-x4", "vapsr", None),
    ],
)
def test_the_users_folder_is_searched_for_official_file_names(
    user_folder: Path, file: str, arch: str, given: str, scale: int | None
) -> None:
    write(user_folder / file, arch)
    model = load(given, scale=scale)
    assert model.spec.name == arch
    assert Path(model.source) == user_folder / file


def test_any_file_in_the_users_folder_has_a_name(user_folder: Path) -> None:
    write(user_folder / "My_Own.pth", "vapsr-s-x4")
    assert load("my-own").spec.name == "vapsr-s-x4"
    assert load("My_Own.pth").spec.name == "vapsr-s-x4"


def test_of_two_files_with_one_name_the_safer_format_is_taken(user_folder: Path) -> None:
    path = write(user_folder / "mine.pth", "rlfn-s-x2")
    convert(path, user_folder / "mine.safetensors")
    assert load("mine").source.endswith("mine.safetensors")


@pytest.mark.slow
def test_a_file_in_the_users_folder_must_be_the_network_its_name_says(user_folder: Path) -> None:
    write(user_folder / "rlfn_x4.pth", "rlfn-x2")
    with pytest.raises(ModelError, match=r"holds rlfn-x2 \(×2\), expected rlfn-x4 \(×4\)"):
        load("rlfn-x4")


def test_a_users_folder_that_is_not_there_is_reported_and_ignored(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("UPFRAME_WEIGHTS", str(tmp_path / "absent"))
    with pytest.raises(ModelError, match="no weights for"):
        load("rlfn-x4")
    assert "UPFRAME_WEIGHTS" in caplog.text


@pytest.mark.parametrize(
    ("given", "nearest"),
    [("vapser-x4", "vapsr-x4"), ("rlfn-ntyre-x4", "rlfn-ntire-x4"), ("foto", "photo-x"), ("", ""), ("x" * 300, "")],
)
def test_an_unknown_name_is_a_usage_error_with_three_suggestions(given: str, nearest: str) -> None:
    with pytest.raises(UsageError) as caught:
        load(given)
    assert caught.value.exit_code == 2
    assert f"did you mean {nearest}" in caught.value.advice
    suggestions = caught.value.advice.removeprefix("did you mean ").rstrip("?").replace(" or ", ", ").split(", ")
    assert len(suggestions) == 3
    assert set(suggestions) <= {*MODELS, *SHIPPED}


# Listing --------------------------------------------------------------------------------------------------------------
@pytest.mark.slow
def test_the_list_holds_every_model_and_where_its_weights_are(installed: Path, user_folder: Path) -> None:
    path = write(user_folder / "rlfn_x4.pth", "rlfn-x4")
    entries = {entry.name: entry for entry in list_models()}
    assert entries.keys() == {*SHIPPED, *MODELS}
    photo = entries["photo-x4"]
    assert (photo.shipped, photo.scale, photo.family, photo.params) == (True, 4, "RLFN", 317_218)
    assert (photo.weights, photo.licence, photo.aliases) == (installed / "photo_x4.safetensors", "CC0-1.0", ("photo",))
    assert (entries["rlfn-x4"].weights, entries["rlfn-x4"].params) == (path, 543_740)
    assert (entries["vapsr-x2"].weights, entries["vapsr-x2"].licence) == (None, "none stated")
    assert "arxiv.org" in entries["vapsr-x2"].paper


@pytest.mark.slow
def test_missing_shipped_weights_are_listed_as_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "WEIGHTS_FOLDER", tmp_path)
    entries = {entry.name: entry for entry in list_models()}
    assert entries["photo-x4"].shipped
    assert entries["photo-x4"].weights is None


def test_info_describes_a_network_without_weights() -> None:
    known = info("VapSR_X3")
    assert (known.name, known.spec, known.params) == ("vapsr-x3", MODELS["vapsr-x3"], 336_811)
    assert (known.card, known.official, known.source, known.sha256) == (None, None, None, None)


def test_info_describes_a_file(tmp_path: Path) -> None:
    path = write(tmp_path / "w.pth", "rlfn-x2")
    known = info(path)
    assert (known.name, known.source, known.official) == ("rlfn-x2", str(path), None)
    assert known.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def test_parameters_are_counted_without_memory_for_them() -> None:
    spec = MODELS["rlfn-x4"]
    assert count_parameters(spec) == sum(parameter.numel() for parameter in spec.build().parameters())


# Official files -------------------------------------------------------------------------------------------------------
def test_every_official_file_is_known_by_its_hash(shared: Path) -> None:
    files = list((shared / "weights").glob("*/*.pth"))
    assert len(files) == len(OFFICIAL) == 9
    for path in files:
        known = info(path)
        assert known.official is not None, path.name
        assert known.official.file == path.name
        assert known.official.arch == known.spec.name
        assert [score.dataset for score in known.official.scores] == ["Set5", "Set14", "B100"]
        # The alias under which users know the file leads to the network in it.
        assert info(path.stem).spec is known.spec


def test_an_official_file_converts_with_its_facts_and_to_the_same_function(shared: Path, tmp_path: Path) -> None:
    source, target = shared / "weights" / "RLFN" / "rlfn_s_x4.pth", tmp_path / "rlfn_s_x4.safetensors"
    card = convert(source, target)
    assert (card.name, card.licence_weights) == ("rlfn-s-x4", "Apache-2.0")
    assert card.scores["sisr-y"]["Set5"] == {"psnr": 32.24, "ssim": 0.8954}
    assert "bytedance/RLFN" in card.source
    picture = torch.rand(1, 3, 20, 20, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        assert torch.equal(load(target).network(picture), load(source).network(picture))


def test_loading_from_many_threads_at_once_gives_whole_models(shared: Path) -> None:
    paths = [*(shared / "weights").glob("*/*.pth")] * 3
    with ThreadPoolExecutor(8) as pool:
        loaded = list(pool.map(load, paths))
    for path, model in zip(paths, loaded, strict=True):
        assert model.spec.name == OFFICIAL[hashlib.sha256(path.read_bytes()).hexdigest()].arch
        assert all(not parameter.is_meta for parameter in model.network.parameters())


# Tones of shipped weights ---------------------------------------------------------------------------------------------
@pytest.mark.slow
@pytest.mark.parametrize("name", SHIPPED)
def test_the_tones_of_shipped_weights_are_those_of_their_card(name: str) -> None:
    model = load(name)
    assert model.card is not None
    measured = measure_tones(model).to_dict()
    # A pixel that lies between two code values may round to either, by the order of float32 sums.
    assert measured == pytest.approx(model.card.tones, abs=1)


@pytest.mark.parametrize("name", sorted(SHIPPED))
def test_shipped_weights_keep_tones(name: str) -> None:
    """Flat colours up to the border, white, black, and the mean of patterns."""
    model = load(name)
    assert model.card is not None
    assert Tones(**model.card.tones).passed


def test_a_file_with_a_card_is_listed_by_its_name_and_for_what_the_card_says(user_folder: Path) -> None:
    state = MODELS["rlfn-ntire-x4"].build().state_dict()
    for name, suits in (("manga", "drawings"), ("plain", "")):
        card = Card(name=name, arch="rlfn-ntire-x4", scale=4, suits=suits, licence_weights="CC0-1.0")
        checkpoints.save(user_folder / f"{name}.safetensors", state, card)
    (user_folder / "broken.safetensors").write_bytes((user_folder / "plain.safetensors").read_bytes())
    card_path(user_folder / "broken.safetensors").write_text("{}")
    write(user_folder / "bare.pth", "rlfn-ntire-x4")
    rows = {entry.name: entry for entry in list_models()}
    assert (rows["manga"].purpose, rows["manga"].licence, rows["manga"].scale) == ("drawings", "CC0-1.0", 4)
    assert rows["plain"].purpose == "photos" and load("manga").name == "manga"
    assert not {"broken", "bare"} & set(rows)


def test_a_card_says_for_a_published_name_what_it_suits(user_folder: Path) -> None:
    card = Card(name="own", arch="rlfn-x4", scale=4, suits="drawings")
    checkpoints.save(user_folder / "rlfn-x4.safetensors", MODELS["rlfn-x4"].build().state_dict(), card)
    assert [entry.purpose for entry in list_models() if entry.name == "rlfn-x4"] == ["drawings"]
    with pytest.raises(ModelError, match="wrong type: suits"):
        Card.from_json('{"name": "x", "arch": "y", "scale": 2, "suits": "cats"}', subject="card")
