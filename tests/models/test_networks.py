"""Every registered family: what its registration says holds, and a file's names alone lead to it."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest
import safetensors.torch
import torch

from upframe.models import checkpoints
from upframe.models.family import Family
from upframe.models.networks import FAMILIES, MODELS, family_of
from upframe.models.spec import ModelSpec


def untrained_state(spec: ModelSpec) -> dict[str, torch.Tensor]:
    """Names and shapes; no memory."""
    with torch.device("meta"):
        return spec.build().state_dict()


@pytest.mark.parametrize("spec", MODELS.values(), ids=lambda spec: spec.name)
def test_the_stated_number_of_parameters_is_that_of_the_network(spec: ModelSpec) -> None:
    with torch.device("meta"):
        network = spec.build()
    assert spec.parameters == sum(parameter.numel() for parameter in network.parameters())


@pytest.mark.parametrize("spec", MODELS.values(), ids=lambda spec: spec.name)
def test_the_names_of_its_weights_are_those_of_its_family_and_of_no_other(spec: ModelSpec) -> None:
    names = untrained_state(spec)
    assert [family.name for family in FAMILIES if family.may_be(names)] == [spec.family]


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_configuration_reads_every_name_of_the_signature(family: Family) -> None:
    """So that a file that lacks one is refused by its names just as it would be by its shapes."""
    names = untrained_state(family.specs[0])
    shapes = {name: tuple(value.shape) for name, value in names.items()}
    family.configuration(shapes)
    for name in family.signature:
        with pytest.raises((LookupError, ValueError)):
            family.configuration({other: shape for other, shape in shapes.items() if other != name})


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_the_parts_of_a_registration_belong_together(family: Family) -> None:
    for spec in family.specs:
        assert spec.family == family.name
        assert family_of(spec) is family
    network = family.network()
    assert isinstance(network, type) and issubclass(network, torch.nn.Module)
    assert network is not (family.reference and family.reference())
    if family.recipes is not None:
        recipes = import_module(family.recipes).RECIPES
        assert recipes
        assert {MODELS[make().model].family for make in recipes.values()} <= {family.name, "BasicVSR"}


def test_names_are_given_once() -> None:
    assert len({family.name for family in FAMILIES}) == len(FAMILIES)
    assert len(MODELS) == sum(len(family.specs) for family in FAMILIES)
    with pytest.raises(LookupError, match="toy"):
        family_of(ModelSpec("toy", "toy", torch.nn.Identity, 1, 0, 0, "exact", "", ""))


@pytest.mark.slow
def test_recognising_a_file_imports_the_network_it_is_of_and_no_other(tmp_path: Path) -> None:
    state = {name: torch.zeros(value.shape) for name, value in untrained_state(MODELS["vapsr-s-x4"]).items()}
    safetensors.torch.save_file(state, tmp_path / "weights.safetensors")
    code = f"""
import json, sys
from upframe.models.weights_file import read
from upframe.models.checkpoints import recognise
found = recognise(read({str(tmp_path / "weights.safetensors")!r}).state)
start = "upframe.models.architectures."
print(json.dumps([found.spec.name, sorted(m for m in sys.modules if m.startswith(start) and not m.startswith(start + "_"))]))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == ["vapsr-s-x4", ["upframe.models.architectures.vapsr"]]


@pytest.mark.slow
def test_a_file_that_lacks_a_signature_name_is_still_told_what_it_looks_like() -> None:
    state = dict(MODELS["rlfn-ntire-x4"].build().state_dict())
    del state["conv_1.weight"]
    with pytest.raises(checkpoints.ModelError, match=r"looks like rlfn-ntire-x4 .*conv_1\.weight is missing"):
        checkpoints.recognise(state)
