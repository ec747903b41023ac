"""upframe's own kernels: the same pixels as torch's, on any size and any number of threads, and torch where they are not."""

from __future__ import annotations

import logging
import math
import platform
import shutil
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from upframe import kernels
from upframe.benchmark.compare import compare_with_reference
from upframe.benchmark.cost import bench
from upframe.engines import NativeEngine, TorchEngine, TorchOptions, engine_options, exact, make_engine, native, native_modules
from upframe.errors import UsageError
from upframe.kernels import NEEDS
from upframe.machine import cpu_flags
from upframe.models.families import rlfn as rlfn_family
from upframe.models.families import vapsr as vapsr_family
from upframe.models.registry import Model

needs_kernels = pytest.mark.skipif(kernels.library() is None, reason="upframe's kernels are not built here")
HAS_BF16 = "avx512_bf16" in cpu_flags()
needs_bf16 = pytest.mark.skipif(not HAS_BF16, reason="this CPU does not multiply bfloat16")


def network(channels: int, *, blocks: int = 2, **options: object) -> Model:
    torch.manual_seed(channels)
    spec = vapsr_family.spec_for(channels=channels, attention_channels=64, blocks=blocks, scale=4, groups=2, **options)  # type: ignore[arg-type]
    return Model(spec, spec.build().eval().requires_grad_(False), None, "", "")


@pytest.mark.skipif(
    sys.platform != "linux" or platform.machine() != "x86_64" or not shutil.which("g++") or not cpu_flags() >= NEEDS["avx2"],
    reason="nothing to build them with, or to run them on",
)
def test_the_kernels_were_built_where_they_can_be() -> None:
    assert native.library() is not None, "reinstall upframe: make clean, make test"


@needs_kernels
@pytest.mark.parametrize("channels", [32, 48])
# One pixel, one row, less than what a block sees, and wide enough for several strips of 160 columns; odd and even.
@pytest.mark.parametrize("size", [(1, 1), (1, 70), (64, 1), (7, 9), (33, 47), (19, 340), (13, 161)])
def test_blocks_give_what_torch_gives(channels: int, size: tuple[int, int]) -> None:
    body = network(channels).network.body
    assert isinstance(body, torch.nn.Sequential)
    for block in body:  # away from the values that a normalisation begins with
        torch.nn.init.normal_(block.pixel_norm.weight, 1, 0.2)
        torch.nn.init.normal_(block.pixel_norm.bias, 0, 0.2)
    x = torch.randn(2, channels, *size, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        expected = body.double()(x.double())
        made = native_modules.FusedBlocks(body.kernel_form(), "fp32")(x)
        reduced = native_modules.FusedBlocks(body.kernel_form(), "bf16")(x) if HAS_BF16 else None
    # Values around 1 and sums of up to 1,600 products: float32 torch is as far from float64 (measured: 2e-6).
    torch.testing.assert_close(made.double(), expected, atol=2e-5, rtol=0)
    if reduced is None:
        return
    # Products of factors of 8 bits, each off by up to 2^-8 of it; in sums errors mostly cancel (measured: 2e-2).
    assert (reduced.double() - expected).abs().max() < 0.08
    assert (reduced.double() - expected).square().mean().sqrt() < 0.01


@needs_kernels
@pytest.mark.parametrize("precision", ["fp32", pytest.param("bf16", marks=needs_bf16)])
def test_threads_do_not_change_a_bit(precision: str) -> None:
    blocks = native_modules.FusedBlocks(network(32).network.body.kernel_form(), precision)  # type: ignore[arg-type]
    x = torch.randn(1, 32, 23, 350)
    before, made = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3, 5):
            torch.set_num_threads(threads)
            with torch.inference_mode():
                made.append(blocks(x))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(made[0], other) for other in made[1:])


@pytest.mark.parametrize(("degree", "error"), [(3, 4e-5), (5, 1e-7)])  # of the polynomials, in exact arithmetic
def test_the_table_of_gelu(degree: int, error: float) -> None:
    t = np.linspace(0, 7.74, 20001)
    segment = np.round(t * 2).astype(int)
    place = t if degree <= 3 else t - segment / 2
    table = native_modules.gelu_table(degree=degree).astype(np.float64)
    bump = sum(table[power, segment] * place**power for power in range(degree + 1))
    exactly = F.gelu(-torch.from_numpy(t)).numpy()  # x <= 0: gelu is the bump, with a minus
    assert np.abs(-bump - exactly).max() < error + 2e-7 * degree  # coefficients have 24 bits
    assert math.isclose(table[0, 0], 0, abs_tol=error)


@needs_kernels
@needs_bf16
def test_auto_takes_the_kernels_and_torch_does_not() -> None:
    model = network(32)
    assert type(make_engine(model, engine_options("torch", device="cpu"))) is TorchEngine
    made = make_engine(model, engine_options("auto", device="cpu", precision="bf16"))
    assert type(made) is NativeEngine and made.name == "native"
    other = made.in_float32()
    assert type(other) is NativeEngine and other.precision == "fp32" and other.in_float32() is other
    assert type(make_engine(model, exact(engine_options("auto")))) is TorchEngine  # scores stay comparable


@needs_kernels
def test_the_callers_network_stays_as_it_was() -> None:
    model = network(32)
    body = model.network.body
    engine = make_engine(model, TorchOptions("cpu", "fp32"))
    engine(torch.rand(1, 1, 3, 8, 8))
    assert model.network.body is body and isinstance(body, torch.nn.Sequential)


@pytest.mark.parametrize("why", ["network", "library", "cpu"])
def test_without_kernels_torch_runs_and_native_says_so(
    why: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    model = network(32)
    if why == "network":
        spec = rlfn_family.spec_for(channels=6, blocks=1, scale=2, inner_channels=6, esa_channels=8)
        model = Model(spec, spec.build().eval(), None, "", "")
    elif why == "library":
        monkeypatch.setattr(native, "cpu_flags", lambda: native._FLAGS["bf16"] | native._FLAGS["fp32"])
        monkeypatch.setattr(native, "library", lambda: None)
    else:
        monkeypatch.setattr(native, "cpu_flags", lambda: frozenset({"sse4_2"}))
    said = {"network": "has no kernels for", "library": "was not built", "cpu": "needs a CPU with avx2, fma for fp32"}[why]
    options = engine_options("native", device="cpu", precision="fp32")
    assert type(make_engine(model, options)) is TorchEngine
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert said in caplog.text and "torch runs" in caplog.text
    caplog.clear()
    assert type(make_engine(model, replace(options, fused=None))) is TorchEngine  # type: ignore[type-var]
    assert not caplog.records


def test_figures_of_kernels_are_refused_where_torch_would_run() -> None:
    spec = rlfn_family.spec_for(channels=6, blocks=1, scale=2, inner_channels=6, esa_channels=8)
    model = Model(spec, spec.build().eval(), None, "", "")
    with pytest.raises(UsageError, match="engine='native': has no kernels for"):
        compare_with_reference([model], size=(24, 24), repeats=1, threads=1, engines=["native"])
    with pytest.raises(UsageError, match="engine='native': has no kernels for"):
        bench([model], size=(24, 24), repeats=1, engine="native")


@needs_kernels
@pytest.mark.parametrize("options", [{"dense_px": 9}, {"dilated_px": 3}, {"attention_last": True}, {"pixel_norm": False}])
def test_other_blocks_than_the_published_stay_as_they_are(options: dict[str, object]) -> None:
    model = network(32, **options)
    engine = make_engine(model, TorchOptions("cpu", "fp32"))
    assert type(engine) is NativeEngine and isinstance(engine._network.body, torch.nn.Sequential)
    clip = torch.rand(1, 1, 3, 30, 41)
    expected = TorchEngine(model, TorchOptions("cpu", "fp32"))(clip)
    torch.testing.assert_close(engine(clip), expected, atol=1e-5, rtol=0)
