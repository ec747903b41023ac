"""Windows of a clip and attention within them: against the reference tensors, and against definitions written out."""

from __future__ import annotations

from itertools import product
from types import ModuleType

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from upframe.models.architectures import _attention, _tokens
from upframe.models.architectures._attention import attend, quick_head
from upframe.models.architectures._tokens import GatedMLP, framewise, linear, tokenwise
from upframe.models.architectures._vrt_stages import BlockShape, Group
from upframe.models.architectures._window_attention import (
    SEPARATED,
    Size3,
    WindowAttention,
    WindowPlan,
    plan_windows,
    relative_position_index,
    sine_position_code,
)

DTYPES = [torch.float32, torch.float64]
CPU = torch.device("cpu")


def plan(clip: tuple[int, int, int, int], window: Size3, *, shifted: bool) -> WindowPlan:
    return plan_windows(clip, window, shifted=shifted, device=CPU)


def windows_by_definition(clip: tuple[int, int, int], window: Size3, *, shifted: bool) -> list[list[int]]:
    """Token by token, as §3.2 of the paper has it: pad, roll by minus the shift, cut. -1 is padding."""
    window = tuple(min(side, length) for side, length in zip(window, clip, strict=True))  # type: ignore[assignment]
    padded = [-(-length // side) * side for side, length in zip(window, clip, strict=True)]
    shift = [side // 2 if shifted and length > side else 0 for side, length in zip(window, clip, strict=True)]
    result = []
    for corner in product(*(range(0, length, side) for length, side in zip(padded, window, strict=True))):
        tokens = []
        for within in product(*(range(side) for side in window)):
            place = [
                (start + step + by) % length for start, step, by, length in zip(corner, within, shift, padded, strict=True)
            ]
            inside = all(at < length for at, length in zip(place, clip, strict=True))
            tokens.append((place[0] * clip[1] + place[1]) * clip[2] + place[2] if inside else -1)
        result.append(tokens)
    return result


@pytest.mark.parametrize("shifted", [False, True])
@pytest.mark.parametrize(
    ("clip", "window"),
    [((4, 8, 8), (2, 4, 4)), ((5, 8, 12), (2, 4, 4)), ((3, 6, 9), (6, 4, 4)), ((7, 10, 13), (4, 4, 4)), ((2, 4, 4), (2, 4, 4))],
)
def test_windows_are_those_of_padding_rolling_and_cutting(clip: Size3, window: Size3, shifted: bool) -> None:
    made = plan((1, *clip), window, shifted=shifted)
    found = []
    for group in made.groups:
        inside = torch.ones_like(group.tokens, dtype=torch.bool) if group.inside is None else group.inside
        found += torch.where(inside, group.tokens, -1).tolist()
    assert sorted(found) == sorted(windows_by_definition(clip, window, shifted=shifted))


def test_every_token_of_every_clip_of_a_batch_has_one_place() -> None:
    made = plan((2, 5, 6, 7), (2, 4, 4), shifted=True)
    order = torch.cat([group.tokens.flatten() for group in made.groups])
    assert torch.equal(order[made.inverse], torch.arange(2 * 5 * 6 * 7))


def test_windows_of_a_clip_that_fits_need_no_mask() -> None:
    made = plan((1, 6, 8, 8), (6, 8, 8), shifted=True)
    assert made.window == (6, 8, 8)
    assert [(len(group.tokens), group.mask, group.inside) for group in made.groups] == [(1, None, None)]


@pytest.mark.parametrize(
    ("case", "clip", "window"),
    [
        ("a", (4, 8, 8), (2, 4, 4)),
        ("b", (6, 8, 8), (6, 4, 4)),
        ("c", (4, 4, 8), (2, 4, 4)),
        ("d", (2, 4, 4), (2, 4, 4)),
    ],
)
def test_masks_equal_the_reference(golden: ModuleType, case: str, clip: Size3, window: Size3) -> None:
    fixture = golden.Golden("vrt/mod_compute_mask")
    assert set(fixture.names("out.")) == {"out.a", "out.b", "out.c", "out.d"}
    expected = fixture.tensors[f"out.{case}"].float()
    numbered = windows_by_definition(clip, window, shifted=True)
    number = {tuple(tokens): i for i, tokens in enumerate(numbered)}
    seen = 0
    for group in plan((1, *clip), window, shifted=True).groups:
        mask = torch.zeros(expected.shape[1:]) if group.mask is None else group.mask
        for tokens in group.tokens.tolist():
            assert torch.equal(mask, expected[number[tuple(tokens)]])
            seen += 1
    assert seen == len(expected) == len(numbered)
    assert SEPARATED == -100


def test_the_index_of_relative_positions_tells_every_displacement() -> None:
    """The row of a displacement in a table of all of them, written out."""
    window = (3, 2, 4)
    index = relative_position_index(window)
    places = list(product(*(range(side) for side in window)))
    for (i, query), (j, key) in product(enumerate(places), repeat=2):
        d, h, w = (a - b + side - 1 for a, b, side in zip(query, key, window, strict=True))
        assert index[i, j] == (d * (2 * window[1] - 1) + h) * (2 * window[2] - 1) + w


def test_the_position_code_is_a_sine_code_of_row_and_column() -> None:
    code = sine_position_code(3, 5, 8)[0].view(3, 5, 8)
    y, x = 2 / (3 + 1e-6) * 2 * torch.pi, 4 / (5 + 1e-6) * 2 * torch.pi
    expected = [
        torch.sin(torch.tensor(y)),
        torch.cos(torch.tensor(y)),
        *(f(torch.tensor(y / 100)) for f in (torch.sin, torch.cos)),
    ]
    expected += [
        torch.sin(torch.tensor(x)),
        torch.cos(torch.tensor(x)),
        *(f(torch.tensor(x / 100)) for f in (torch.sin, torch.cos)),
    ]
    torch.testing.assert_close(code[1, 3], torch.stack(expected), atol=1e-6, rtol=0)


# Attention ------------------------------------------------------------------------------------------------------------
def module_of(fixture: object, dtype: torch.dtype) -> WindowAttention:
    given = fixture.meta["ctor_args"]  # type: ignore[attr-defined]
    attention = WindowAttention(
        given["dim"],
        heads=given["num_heads"],
        window=tuple(given["window_size"]),
        mutual=given.get("mut_attn", False),
        qkv_bias=given["qkv_bias"],
    )
    missing = attention.load_state_dict(fixture.weights(), strict=False).missing_keys  # type: ignore[attr-defined]
    assert set(missing) <= {"relative_position_index", "position_bias"}  # the reference's buffers, of which it has no values
    return attention.to(dtype)


@pytest.mark.parametrize("gradients", [False, True], ids=["inference", "training"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", ["mod_window_attn_mutual", "mod_window_attn_self", "mod_window_attn_short_d"])
def test_window_attention_equals_the_reference(golden: ModuleType, name: str, dtype: torch.dtype, gradients: bool) -> None:
    fixture = golden.Golden(f"vrt/{name}")
    attention, x = module_of(fixture, dtype), fixture.input("x", dtype)
    with torch.set_grad_enabled(gradients):
        fixture.check("out.nomask", attention(x))
        if "in.mask" in fixture.tensors:
            masks = fixture.input("mask").float()
            out = torch.empty_like(x)
            for i, mask in enumerate(masks):  # window i of every clip of the batch has mask i
                out[i :: len(masks)] = attention(x[i :: len(masks)], mask)
            fixture.check("out.mask", out)


@pytest.mark.parametrize("entry", ["relative_position_index", "position_bias"])
def test_constants_equal_the_reference(golden: ModuleType, entry: str) -> None:
    """By the checksum of their bytes, which is all that the reference says about them."""
    import zlib

    fixture = golden.Golden("vrt/mod_window_attn_mutual")
    facts = next(facts for facts in fixture.entries if facts["name"] == entry)
    value = getattr(module_of(fixture, torch.float32), entry)
    if entry == "relative_position_index":
        assert zlib.crc32(value.numpy().tobytes()) == facts["crc32"]
    else:  # sines of another library differ in the last bit
        assert list(value.shape) == facts["shape"]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("gradients", [False, True], ids=["inference", "training"])
@pytest.mark.parametrize("name", ["mod_tmsag_mutual_shift", "mod_tmsag_shift_pad"])
def test_shifted_groups_equal_the_reference(golden: ModuleType, name: str, gradients: bool, dtype: torch.dtype) -> None:
    fixture = golden.Golden(f"vrt/{name}")
    given = fixture.meta["ctor_args"]
    group = Group(
        given["dim"],
        window=tuple(given["window_size"]),
        mutual=given["mut_attn"],
        drops=[0.1] * given["depth"],
        shape=BlockShape(given["num_heads"], int(given["mlp_ratio"]), given["qkv_bias"]),
    )
    group.load_state_dict(fixture.weights(), strict=False)
    group.to(dtype).eval()
    x = fixture.input("x", dtype).permute(0, 2, 3, 4, 1).contiguous()
    before = x.clone()
    with torch.set_grad_enabled(gradients):
        fixture.check("out.y", group(x).permute(0, 4, 1, 2, 3))
    assert torch.equal(x, before)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_the_gated_mlp_equals_the_reference(golden: ModuleType, dtype: torch.dtype) -> None:
    fixture = golden.Golden("vrt/mod_geglu")
    sizes = fixture.meta["ctor_args"]
    mlp = GatedMLP(sizes["in_features"], sizes["hidden_features"], sizes["out_features"])
    mlp.load_state_dict(fixture.weights())
    mlp.to(dtype)
    x = fixture.input("x", dtype)
    fixture.check("out.y", tokenwise(mlp, x))
    with torch.inference_mode():
        fixture.check("out.y", tokenwise(mlp, x))


@pytest.mark.parametrize("bias", ["none", "of all heads", "of each head"])
@pytest.mark.parametrize(("length", "head"), [(256, 16), (48, 16), (20, 5), (256, 20)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_every_form_of_attention_is_the_formula(dtype: torch.dtype, length: int, head: int, bias: str) -> None:
    torch.manual_seed(0)
    q, k, v = (torch.randn(3, length, 3, 2, head).to(dtype)[:, :, i] for i in range(3))
    added = {"none": None, "of all heads": torch.randn(length, length), "of each head": torch.randn(2, length, length)}[bias]
    logits = torch.einsum("blhc,bmhc->bhlm", q.double(), k.double()) * 0.3 + (0 if added is None else added.double())
    expected = torch.einsum("bhlm,bmhc->blhc", logits.softmax(-1), v.double()).flatten(2)
    # bfloat16 rounds logits of up to ten, weights and the result to eight digits; the largest result is about three.
    tolerance = 1e-5 if dtype == torch.float32 else 0.08
    for gradients in (False, True):
        with torch.set_grad_enabled(gradients):
            made = attend(q, k, v, scale=0.3, bias=added)
        assert made.dtype == dtype
        torch.testing.assert_close(made.double(), expected, atol=tolerance, rtol=0)


def test_attention_of_few_windows_at_a_time_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    q, k, v = torch.randn(3, 5, 256, 2, 16)
    whole = attend(q, k, v, scale=0.25)
    monkeypatch.setattr(_attention, "LOGITS", 2 * 2 * 256**2)
    with torch.no_grad():
        torch.testing.assert_close(attend(q, k, v, scale=0.25), whole, atol=1e-6, rtol=0)


def test_heads_are_widened_where_that_is_cheap() -> None:
    assert [quick_head(channels, CPU) for channels in (16, 20, 30, 60)] == [16, 20, 32, 64]
    assert [quick_head(channels, torch.device("cuda")) for channels in (16, 20, 30)] == [16, 24, 32]


@pytest.mark.parametrize("mutual", [False, True])
def test_widened_heads_change_nothing(monkeypatch: pytest.MonkeyPatch, mutual: bool) -> None:
    torch.manual_seed(0)
    attention = WindowAttention(60, heads=2, window=(2, 4, 4), mutual=mutual)
    torch.nn.init.normal_(attention.relative_position_bias_table)
    x = torch.randn(3, 32, 60)
    assert attention.prepared(32).head == 32
    widened = attention(x)
    monkeypatch.setattr("upframe.models.architectures._window_attention.quick_head", lambda head, device: head)
    assert attention.prepared(32).head == 30
    torch.testing.assert_close(widened, attention(x), atol=1e-6, rtol=0)


# Tokens ---------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("tokens", [1, 16, 37, 64])
def test_a_linear_layer_is_one_in_every_form(tokens: int) -> None:
    x, weight, bias = torch.randn(tokens, 6), torch.randn(5, 6), torch.randn(5)
    expected = F.linear(x.double(), weight.double(), bias.double())
    torch.testing.assert_close(linear(x, weight, bias).double(), expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(linear(x, weight).double(), expected - bias, atol=1e-5, rtol=0)
    torch.testing.assert_close(linear(x.double(), weight.double(), bias.double()), expected)


@pytest.mark.parametrize("at_once", [1, 7, 100])
def test_tokens_in_pieces_give_the_same(monkeypatch: pytest.MonkeyPatch, at_once: int) -> None:
    monkeypatch.setattr(_tokens, "CPU_TOKENS", at_once)
    x, y = torch.randn(2, 3, 4, 5), torch.randn(2, 3, 4, 1)
    expected = x * y + 1
    with torch.inference_mode():
        assert torch.equal(tokenwise(lambda a, b: a * b + 1, x, y), expected)
        into = x.clone()
        assert tokenwise(lambda a, b: a * b + 1, into, y, into=into).data_ptr() == into.data_ptr()
        assert torch.equal(into, expected)
    assert torch.equal(tokenwise(lambda a, b: a * b + 1, x, y), expected)


@pytest.mark.parametrize("gradients", [False, True])
def test_framewise_puts_frames_side_by_side(gradients: bool) -> None:
    frames = torch.randn(2, 4, 3)
    with torch.set_grad_enabled(gradients):
        made = framewise(lambda i: frames[:, i], 4, dtype=torch.float64)
    assert torch.equal(made, frames.double())


def random_group(*, mutual: bool = False) -> Group:
    torch.manual_seed(1)
    group = Group(12, window=(2, 4, 4), mutual=mutual, drops=[0.0] * 3, shape=BlockShape(2, 2, True)).eval()
    for parameter in group.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return group


@pytest.mark.parametrize("at_once", [1, 64, 100, 1 << 20])
@pytest.mark.parametrize("mutual", [False, True])
def test_windows_in_pieces_give_the_same(monkeypatch: pytest.MonkeyPatch, mutual: bool, at_once: int) -> None:
    group, x = random_group(mutual=mutual), torch.randn(2, 5, 9, 12, 12)
    whole = group(x).detach()
    monkeypatch.setattr(_tokens, "CPU_TOKENS", at_once)
    with torch.inference_mode():
        made: Tensor = group(x)
    # Values reach 30 here, and other forms sum in another order.
    torch.testing.assert_close(made, whole, atol=1e-4, rtol=0)
