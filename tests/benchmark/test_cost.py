"""Counts against published cards and counts by hand; the shape of a card. No test asserts a time."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from upframe.benchmark.cost import Bench, Card, Cost, Timing, bench, count
from upframe.errors import ResourceError, UsageError
from upframe.models.networks import MODELS
from upframe.models.registry import Model, load


def test_rlfn_ntire_prints_the_published_card() -> None:
    """NTIRE 2022: 0.317 M parameters, 19.70 G FLOPs, 80.05 M activations, 39 convolutions."""
    cost = count(MODELS["rlfn-ntire-x4"].build(), (1, 3, 256, 256))
    card = Card("rlfn-ntire-x4", "", 4, (256, 256), cost, Timing((0.1,)), cost.peak_bytes, "")
    rows = dict(card.rows())
    assert rows["Params [M]"] == "0.317"
    assert rows["FLOPs [G], NTIRE"] == "19.70"
    assert rows["Activations [M]"] == "80.05"
    assert rows["Convolutions"] == "39"


def test_vapsr_macs_equal_the_published_figure() -> None:
    """The paper counts 19.5 G multiply-adds for 342 K parameters at an output of 1280×720."""
    cost = count(MODELS["vapsr-x4"].build(), (1, 3, 180, 320))
    assert round(cost.macs / 1e9, 1) == 19.5
    assert round(cost.parameters / 1e3) == 342


def test_convolutions_are_counted_as_by_hand() -> None:
    """Plain, strided, grouped and transposed, as modules and as functions."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.plain = nn.Conv2d(3, 8, 3, padding=1)
            self.strided = nn.Conv2d(8, 6, 3, stride=2, padding=1, bias=False)
            self.grouped = nn.Conv2d(6, 6, 5, padding=2, groups=3)
            self.up = nn.ConvTranspose2d(6, 4, 2, stride=2)
            self.extra = nn.Parameter(torch.zeros(2, 4, 1, 1))

        def forward(self, x: Tensor) -> Tensor:
            x = F.relu(self.plain(x))
            return F.conv2d(self.up(self.grouped(self.strided(x))), self.extra)

    cost = count(Net(), (1, 3, 16, 12))
    full, half = 16 * 12, 8 * 6
    macs = [full * 8 * 27, half * 6 * 72, half * 6 * 50, half * 6 * 4 * 4, full * 2 * 4]
    assert cost.macs == sum(macs)
    assert cost.flops_ntire == sum(macs) + full * 8
    assert cost.activations == full * 8 + 2 * half * 6 + full * 4 + full * 2
    assert cost.convolutions == 5
    assert cost.uncounted == {}


def test_matrix_products_are_counted() -> None:
    net = nn.Linear(20, 30)
    assert count(net, (7, 20)).macs == 7 * 20 * 30
    assert count(nn.Linear(20, 30, bias=False), (7, 20)).macs == 7 * 20 * 30


def test_arithmetic_outside_the_flops_is_listed() -> None:
    class Net(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            y = torch.sigmoid(x).view(-1) * 2
            return F.gelu(y) + 1

    cost = count(Net(), (1, 3, 4, 5))
    assert cost.uncounted == {"sigmoid": (1, 60), "mul": (1, 60), "gelu": (1, 60), "add": (1, 60)}
    assert cost.macs == cost.flops_ntire == 0


def test_custom_operations_are_called_out() -> None:
    """They may hide most of the work, as in the winner of NTIRE 2026; without a shape rule they are run to be counted."""
    library = torch.library.Library("upframe_test", "DEF")
    library.define("secret(Tensor x) -> Tensor")
    library.impl("secret", lambda x: x * 2, "CPU")

    class Net(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.ops.upframe_test.secret(x)

    cost = count(Net(), (1, 3, 4, 4))
    assert cost.custom == ("upframe_test::secret",)
    assert "upframe_test::secret" in make_card(cost).not_counted
    assert "trust the time" in make_card(cost).not_counted
    library._destroy()


def test_peak_memory_is_that_of_the_live_tensors() -> None:
    """Three maps of 1600 bytes exist at the sum; the input and 40 bytes of weights count, freed and viewed maps do not."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.bias = nn.Parameter(torch.zeros(10))

        def forward(self, x: Tensor) -> Tensor:
            y = x + 1
            y = y * 2  # the first map dies here
            z = y.view(-1) * 3
            del y
            z.mul_(2)
            return z[:10] + self.bias

    cost = count(Net(), (20, 20))
    assert cost.peak_bytes == 1600 + 40 + 2 * 1600
    assert count(Net(), (20, 20), dtype=torch.float64).peak_bytes == 2 * cost.peak_bytes


def test_counting_leaves_the_network_alone() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Dropout(0.5)).train()
    count(net, (1, 3, 8, 8))
    assert net.training and net[0].weight.device.type == "cpu" and net[0].weight.requires_grad


def test_bench_times_models_in_turns(shared: Path) -> None:
    small = [load(shared / "weights" / "RLFN" / "rlfn_ntire_x4.pth"), load(shared / "weights" / "VapSR" / "VapSR-S.pth")]
    seen: list[str] = []
    result = bench(small, size=(16, 20), repeats=3, warmup=1, on_event=lambda name, done, total: seen.append(name))
    assert seen == ["rlfn-ntire-x4", "vapsr-s-x4"] * 4
    assert [len(card.timing.runs_s) for card in result.cards] == [3, 3]
    assert [card.cost.parameters for card in result.cards] == [317_218, 154_956]
    assert result.environment["threads"] == torch.get_num_threads()


def test_card_shows_models_side_by_side_with_every_quantity() -> None:
    cost = Cost(2_000_000, 3_000_000_000, 3_100_000_000, 4_000_000, 7, 5 * 2**20, {"gelu": (2, 1_500_000)})
    cards = (make_card(cost, "first"), make_card(cost, "second-with-a-long-name"))
    result = Bench(cards, {"torch": "2", "cpu": "some CPU", "threads": 2, "device": "cpu", "precision": "fp32"})
    text = result.to_text()
    heading = next(line for line in text.splitlines() if "second-with-a-long-name" in line)
    for label, value in cards[0].rows():
        line = next(line for line in text.splitlines() if line.startswith(label))
        assert line.split(label)[1].count(value) == 2
        assert len(line) == len(heading)
    assert "gelu 1.50 M" in text
    card = json.loads(result.to_json())["cards"][0]
    assert card["flops_ntire"] == 3_100_000_000
    assert card["runtime_s"] == {"median": 0.3, "quartile_1": 0.2, "quartile_3": 0.4}
    assert card["output_px_per_s"] == pytest.approx(10 * 20 * 16 / 0.3)
    assert card["uncounted"] == {"gelu": {"calls": 2, "output_elements": 1_500_000}}


def make_card(cost: Cost, name: str = "model") -> Card:
    return Card(name, "0" * 64, 4, (10, 20), cost, Timing((0.1, 0.2, 0.3, 0.4, 0.5)), cost.peak_bytes, "counted")


def test_median_and_quartiles() -> None:
    for times in itertools.permutations((1.0, 2.0, 3.0, 10.0)):
        timing = Timing(times)
        assert timing.median_s == 2.5
        assert timing.quartiles_s == (1.75, 4.75)
    assert Timing((1.0,)).quartiles_s == (1.0, 1.0)


def test_misuse_is_refused_before_any_work() -> None:
    spec = MODELS["rlfn-ntire-x4"]
    model = Model(spec, spec.build().eval(), None, "", "")
    with pytest.raises(UsageError, match="no model"):
        bench([])
    with pytest.raises(UsageError, match="at least one repeat"):
        bench([model], repeats=0)
    with pytest.raises(UsageError, match="cannot take an input of 8x16"):
        bench([model], size=(8, 16))
    if not torch.cuda.is_available():
        with pytest.raises(ResourceError, match="cuda"):
            bench([model], device="cuda")
