"""The upscaler: tiles, blending, back-off, alpha, gray, depth and sizes, on exact toy networks and on the real ones."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from conftest import make_photo, needs_shared
from upframe.engines import Engine, TorchEngine, TorchOptions, available_memory_bytes, pick_device
from upframe.errors import Cancelled, OutOfMemoryError, ResourceError, UsageError, VerifyError
from upframe.media.image.source import read_pixels
from upframe.models.cards import Card
from upframe.models.networks import MODELS
from upframe.models.registry import Model, load
from upframe.models.spec import ModelSpec, Place, Precision, SizeRule
from upframe.pixels import resize
from upframe.upscaling.images import Upscaler, spread_colour
from upframe.upscaling.options import UpscaleOptions

EXACT = TorchOptions(precision="fp32")
"""For comparisons to float32 rounding, which would not hold where "auto" is bfloat16."""


class Nearest(nn.Module):
    """Repeats pixels: exact under any tiling without a halo."""

    def __init__(self, scale: int) -> None:
        super().__init__()
        self.scale = scale

    def forward(self, x: Tensor) -> Tensor:
        return F.interpolate(x, scale_factor=self.scale, mode="nearest")


class Blurred(nn.Module):
    """A 7×7 mean, then nearest: exact with a halo of 3, wrong with less."""

    def __init__(self, scale: int) -> None:
        super().__init__()
        self.scale = scale

    def forward(self, x: Tensor) -> Tensor:
        kernel = torch.full((3, 1, 7, 7), 1 / 49, dtype=x.dtype)
        return F.interpolate(F.conv2d(x, kernel, padding=3, groups=3), scale_factor=self.scale, mode="nearest")


def toy(network: Callable[[int], nn.Module] = Nearest, *, scale: int = 2, halo: int = 3, **facts: Any) -> Model:
    spec = ModelSpec(
        name="toy", family="toy", build=lambda: network(scale), scale=scale, halo_px=halo, exact_halo_px=halo,
        tiling="exact", paper="", licence="", activation_bytes_per_px=100, **facts,
    )  # fmt: skip
    return Model(spec, network(scale), None, "toy", "")


def untrained(name: str, seed: int = 0) -> Model:
    torch.manual_seed(seed)
    return Model(MODELS[name], MODELS[name].build().eval().requires_grad_(False), None, name, "")


def repeated(pixels: NDArray[Any], scale: int) -> NDArray[Any]:
    return pixels.repeat(scale, 0).repeat(scale, 1)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
@pytest.mark.parametrize("tile", ["off", "auto", 20, (24, 40)])
def test_every_code_value_survives_an_identity_network(dtype: str, tile: Any) -> None:
    photo = make_photo(53, 71, dtype=dtype)
    up = Upscaler(toy(), UpscaleOptions(tile=tile, blend=4))
    made = up(photo)
    assert made.dtype == photo.dtype
    if dtype == "float32":  # blending multiplies by w and 1 - w, which do not sum to exactly 1
        np.testing.assert_allclose(made, repeated(photo, 2), atol=1e-6)
    else:
        np.testing.assert_array_equal(made, repeated(photo, 2))


@pytest.mark.parametrize("tile", [16, 17, 37, 52, 53, 54, 96])
def test_tiles_of_any_size_equal_the_whole_when_the_halo_is_the_receptive_field(tile: int) -> None:
    photo = make_photo(53, 71, dtype="float32")
    whole = Upscaler(toy(Blurred), UpscaleOptions(tile="off"))(photo)
    tiled = Upscaler(toy(Blurred), UpscaleOptions(tile=tile, blend=2))(photo)
    np.testing.assert_allclose(tiled, whole, atol=1e-6)


def test_a_halo_that_is_too_small_is_seen() -> None:
    """The test above can fail: without the halo the same tiles differ by far more than rounding."""
    photo = make_photo(53, 71, dtype="float32")
    whole = Upscaler(toy(Blurred), UpscaleOptions(tile="off"))(photo)
    tiled = Upscaler(toy(Blurred), UpscaleOptions(tile=20, blend=2, halo=0))(photo)
    assert np.abs(tiled - whole).max() > 0.01


@pytest.mark.slow
@pytest.mark.parametrize("name", ["vapsr-s-x4", "rlfn-ntire-x2"])
def test_tiled_equals_untiled_to_float32_rounding_at_the_exact_halo(name: str) -> None:
    model = untrained(name)
    halo = model.spec.exact_halo_px
    assert halo is not None
    photo = make_photo(60, 330, dtype="float32")
    whole = Upscaler(model, UpscaleOptions(tile="off", engine=EXACT))(photo)
    tiled = Upscaler(model, UpscaleOptions(tile=32, halo=halo, blend=4, engine=EXACT))(photo)
    assert np.abs(tiled - whole).max() < 3e-6  # sums in another order, block after block


@pytest.mark.parametrize("name", ["rlfn-ntire-x2", "vapsr-s-x4"])
@pytest.mark.parametrize("size", [(1, 1), (1, 9), (2, 3), (7, 16), (15, 15), (16, 5)])
def test_the_smallest_pictures_work(name: str, size: tuple[int, int]) -> None:
    model = untrained(name)
    made = Upscaler(model)(make_photo(*size))
    assert made.shape == (size[0] * model.spec.scale, size[1] * model.spec.scale, 3)


def test_a_flat_picture_of_one_pixel_is_padded_with_itself() -> None:
    model = toy(Blurred, size=SizeRule(minimum=15))
    pixel = np.full((1, 1, 3), 200, np.uint8)
    assert Upscaler(model)(pixel)[0, 0].tolist() == Upscaler(model)(np.full((3, 3, 3), 200, np.uint8))[0, 0].tolist()


def test_sizes_between_network_scales_are_resampled_from_the_network_s_output() -> None:
    photo = make_photo(40, 60, dtype="float32")
    made = Upscaler(toy(scale=4), UpscaleOptions(tile=20, blend=2))(photo, size=(100, 150))
    whole = torch.from_numpy(repeated(photo, 4)).permute(2, 0, 1)
    expected = resize(whole, (100, 150), kernel="lanczos3").permute(1, 2, 0).clamp(0, 1)
    np.testing.assert_allclose(made, expected, atol=2e-6)


def test_bands_come_top_to_bottom_and_are_much_smaller_than_the_picture() -> None:
    photo = make_photo(400, 50)
    bands = list(Upscaler(toy(), UpscaleOptions(tile=32, blend=4)).bands(photo))
    assert max(b.shape[0] for b in bands) <= 2 * (32 + 8)
    np.testing.assert_array_equal(np.concatenate(bands), repeated(photo, 2))


# Gray and alpha -------------------------------------------------------------------------------------------------------
def test_gray_stays_one_channel_and_keeps_its_values() -> None:
    gray = make_photo(30, 40)[..., :1]
    np.testing.assert_array_equal(Upscaler(toy())(gray), repeated(gray, 2))


@pytest.mark.parametrize("value", [0, 255, 77])
@pytest.mark.parametrize("channels", [1, 3])
def test_constant_alpha_stays_exactly_constant(value: int, channels: int) -> None:
    photo = make_photo(40, 50)[..., :channels]
    rgba = np.concatenate([photo, np.full((40, 50, 1), value, np.uint8)], -1)
    made = Upscaler(untrained("vapsr-s-x4"), UpscaleOptions(tile=24, blend=4))(rgba)
    assert made.shape[2] == channels + 1
    assert (made[..., -1] == value).all()


def disc_rgba(size: int = 64) -> NDArray[np.uint8]:
    """A red disc; what stands under zero alpha is bright green."""
    y, x = np.mgrid[0:size, 0:size] - (size - 1) / 2
    alpha = np.clip((size * 0.35 - np.hypot(x, y)) + 0.5, 0, 1)
    rgba = np.zeros((size, size, 4), np.uint8)
    rgba[..., :3] = np.where(alpha[..., None] > 0, [200, 40, 30], [0, 255, 0])
    rgba[..., 3] = np.round(alpha * 255)
    return rgba


@pytest.mark.parametrize("ground", [0, 255])
def test_colour_under_transparency_leaves_no_halo(ground: int) -> None:
    """On black and white ground every pixel lies between the disc's red and the ground, within 2/255 (faults A9)."""
    made = Upscaler(toy(Blurred, scale=4, halo=8))(disc_rgba()).astype(float)
    alpha = made[..., 3:] / 255
    shown = made[..., :3] * alpha + ground * (1 - alpha)
    red = np.array([200.0, 40.0, 30.0])
    expected = red * alpha + ground * (1 - alpha)
    # The blur darkens colour near the picture's border only, where alpha is zero.
    assert np.abs(shown - expected).max() <= 2


def test_alpha_never_overshoots_its_neighbourhood() -> None:
    """An untrained network makes anything of alpha; bounds hold all the same."""
    rgba = disc_rgba()
    made = Upscaler(untrained("vapsr-s-x4"), UpscaleOptions(tile=32, blend=4))(rgba)[..., 3]
    clear = F.max_pool2d(torch.from_numpy(rgba[..., 3]).float()[None], 5, 1, 2)[0] == 0
    assert (made[repeated(clear.numpy(), 4)] == 0).all()
    assert made.max() == 255


def test_spread_colour_takes_the_nearest_visible_colour_and_keeps_visible_pixels() -> None:
    rgba = disc_rgba(40)
    spread = spread_colour(rgba[..., :3], rgba[..., 3])
    assert (spread == [200, 40, 30]).all()
    untouched = make_photo(9, 9)
    np.testing.assert_array_equal(spread_colour(untouched, np.zeros((9, 9), np.uint8)), untouched)


# Memory ---------------------------------------------------------------------------------------------------------------
class Failing:
    """The toy engine, out of memory whenever a rule says so. The fault is injected; the back-off under test is real."""

    def __init__(self, model: Model, fails: Callable[[int, Tensor], bool]) -> None:
        self._engine = TorchEngine(model)
        self._fails = fails
        self.spec = model.spec
        self.precision: Precision = "fp32"
        self.calls = 0

    def __call__(self, clip: Tensor, place: Place | None = None) -> Tensor:
        self.calls += 1
        if self._fails(self.calls, clip):
            raise OutOfMemoryError("toy", "injected")
        return self._engine(clip, place)

    def in_float32(self) -> Engine:
        return self


def test_a_failure_at_any_call_changes_nothing() -> None:
    model = toy(Blurred)
    photo = make_photo(70, 90)
    options = UpscaleOptions(tile=32, blend=4)
    expected = Upscaler(model, options)(photo)
    calls = Failing(model, lambda n, clip: False)
    Upscaler(model, options, engine=calls)(photo)
    assert calls.calls == 9
    for failing in range(1, calls.calls + 1):
        up = Upscaler(model, options, engine=Failing(model, lambda n, clip, k=failing: n == k))  # type: ignore[misc]
        np.testing.assert_array_equal(up(photo), expected)
        assert [n.id for n in up.notices] == ["tile-halved"]


def test_neighbours_of_a_halved_tile_are_identical_even_when_halves_are_not_exact() -> None:
    """With a halo too small, parts differ from the whole tile; only that tile may change (faults E5)."""
    model = toy(Blurred, halo=0)
    photo = make_photo(64, 96, dtype="float32")
    options = UpscaleOptions(tile=32, blend=0)
    expected = Upscaler(model, options)(photo)
    made = Upscaler(model, options, engine=Failing(model, lambda n, clip: n == 2))(photo)
    differs = np.abs(made - expected).max(-1) > 0
    assert differs[:64, 64:128].any()
    differs[:64, 64:128] = False
    assert not differs.any()


def test_memory_for_small_tiles_only_still_gives_the_whole_picture() -> None:
    model = toy(Blurred)
    photo = make_photo(100, 130)
    small = Failing(model, lambda n, clip: clip.shape[-2] * clip.shape[-1] > 40 * 40)
    made = Upscaler(model, UpscaleOptions(tile="off"), engine=small)(photo)
    np.testing.assert_array_equal(made, Upscaler(model, UpscaleOptions(tile="off"))(photo))


def test_no_memory_at_all_is_a_clear_error_and_not_an_endless_search() -> None:
    model = toy()
    never = Failing(model, lambda n, clip: True)
    with pytest.raises(ResourceError, match="does not fit into memory") as caught:
        Upscaler(model, UpscaleOptions(tile="off"), engine=never)(make_photo(64, 64))
    assert caught.value.exit_code == 5
    assert never.calls < 10


def test_torch_s_own_allocation_failure_is_understood() -> None:
    class Hungry(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.empty(1 << 60) + x

    model = toy(lambda scale: Hungry())
    with pytest.raises(OutOfMemoryError):
        TorchEngine(model)(torch.rand(1, 1, 3, 8, 8))


def test_other_errors_of_a_network_are_not_taken_for_lack_of_memory() -> None:
    class Broken(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            raise RuntimeError("shapes do not match")

    with pytest.raises(RuntimeError, match="shapes do not match"):
        Upscaler(toy(lambda scale: Broken()))(make_photo(8, 8))


def test_auto_tiles_follow_the_memory_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    model = untrained("rlfn-ntire-x4")
    up = Upscaler(model)
    monkeypatch.setattr("upframe.upscaling.images.available_memory_bytes", lambda: 16 << 30)
    assert up.tile_px((1000, 1000)) == (1000, 1000)
    assert up.tile_px((2250, 1000)) == (384, 384)
    rows, columns = up.tile_px((2250, 3000))  # flatter, so that a row of tiles stays within 128 MiB of output
    assert columns == 384
    assert 16 <= rows * 4 * 3000 * 4 * 3 * 4 <= 128 << 20
    monkeypatch.setattr("upframe.upscaling.images.available_memory_bytes", lambda: 200 << 20)
    side = up.tile_px((2250, 3000))[0]
    assert 16 <= side < 384
    assert (side + 2 * (up.halo_px + up.options.blend)) ** 2 * model.spec.activation_bytes_per_px <= 0.4 * (200 << 20)


def test_available_memory_is_between_nothing_and_what_the_machine_has() -> None:
    meminfo = Path("/proc/meminfo")
    lines = meminfo.read_text().splitlines() if meminfo.exists() else []
    total = next((int(line.split()[1]) * 1024 for line in lines if "MemTotal" in line), None)
    assert total is None or 0 < available_memory_bytes() <= total


# Numbers --------------------------------------------------------------------------------------------------------------
class Overflowing(nn.Module):
    """Fine in float32, infinite in half precision."""

    def forward(self, x: Tensor) -> Tensor:
        return F.interpolate(x if x.dtype == torch.float32 else x / 0, scale_factor=2)


def test_a_tile_that_is_not_finite_is_redone_in_float32() -> None:
    model = toy(lambda scale: Overflowing(), precisions=("fp32", "bf16"))
    photo = make_photo(10, 12)
    up = Upscaler(model, UpscaleOptions(engine=TorchOptions(precision="bf16")))
    np.testing.assert_array_equal(up(photo), repeated(photo, 2))
    assert [n.id for n in up.notices] == ["fp32-fallback"]


def test_a_network_that_makes_no_numbers_fails_instead_of_writing_them() -> None:
    class NaN(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return F.interpolate(x * float("nan"), scale_factor=2)

    with pytest.raises(VerifyError, match="not finite") as caught:
        Upscaler(toy(lambda scale: NaN()))(make_photo(10, 12))
    assert caught.value.exit_code == 7


@pytest.mark.parametrize("name", ["rlfn-ntire-x4", "vapsr-s-x4"])
def test_bf16_stays_close_to_float32(name: str) -> None:
    """The claim behind `precisions`: with 8 bits of mantissa an untrained network stays above 40 dB."""
    model = untrained(name)
    photo = make_photo(40, 48, dtype="float32")
    exact = Upscaler(model, UpscaleOptions(engine=EXACT))(photo)
    reduced = Upscaler(model, UpscaleOptions(engine=TorchOptions(precision="bf16")))(photo)
    assert -10 * np.log10(((exact - reduced) ** 2).mean()) > 40
    assert model.network.conv_2.weight.dtype == torch.float32 if name.startswith("rlfn") else True


def test_a_precision_that_is_not_proven_is_refused() -> None:
    with pytest.raises(UsageError, match="not proven"):
        Upscaler(untrained("rlfn-x4"), UpscaleOptions(engine=TorchOptions(precision="fp16")))


@pytest.mark.slow
def test_the_same_input_gives_the_same_bytes() -> None:
    model = untrained("rlfn-ntire-x2")
    photo = make_photo(90, 90)
    first, second = (Upscaler(model, UpscaleOptions(tile=32, blend=4))(photo) for _ in range(2))
    assert first.tobytes() == second.tobytes()


def test_input_pixels_are_never_changed() -> None:
    rgba = disc_rgba()
    before = rgba.copy()
    rgba.flags.writeable = False
    Upscaler(toy())(rgba)
    np.testing.assert_array_equal(rgba, before)


# Reuse ----------------------------------------------------------------------------------------------------------------
@pytest.mark.slow
def test_unchanged_tiles_are_taken_over_and_the_pixels_are_the_same() -> None:
    """A cursor moves over a still picture: only tiles it touches, by their core or their halo, are computed again."""
    model = untrained("rlfn-ntire-x2")
    still = make_photo(96, 128)
    frames = [still, still.copy(), still.copy()]
    frames[1][40:44, 60:64] = 255
    options = UpscaleOptions(tile=32, blend=4, halo=8)
    up = Upscaler(model, options, reuse=True)
    for frame in frames:
        np.testing.assert_array_equal(up(frame), Upscaler(model, options)(frame))
    assert up.reused.total == 3 * 12
    assert up.reused.part == 2 * (12 - 4)  # the cursor lies in one tile and in the halo of three


def test_reuse_never_mixes_pictures_of_other_size_or_depth() -> None:
    up = Upscaler(toy(), UpscaleOptions(tile=32, blend=4), reuse=True)
    for frame in (make_photo(64, 64), make_photo(64, 70), make_photo(64, 64, dtype="uint16"), np.zeros((64, 64, 4), np.uint8)):
        np.testing.assert_array_equal(up(frame), repeated(frame, 2))


# Control --------------------------------------------------------------------------------------------------------------
def test_progress_counts_every_tile_once_and_cancel_stops_at_the_next() -> None:
    seen: list[tuple[int, int]] = []
    cancel = threading.Event()
    up = Upscaler(
        toy(), UpscaleOptions(tile=32, blend=4), on_tile=lambda done, total: seen.append((done, total)), cancel=cancel
    )
    up(make_photo(64, 64))
    assert seen == [(1, 4), (2, 4), (3, 4), (4, 4)]
    cancel.set()
    with pytest.raises(Cancelled):
        up(make_photo(64, 64))


@pytest.mark.parametrize("name", ["gpu", "cuda:x", "tpu:0", ""])
def test_names_that_are_no_device_are_usage_errors(name: str) -> None:
    with pytest.raises(UsageError):
        pick_device(name)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a CUDA device")
def test_a_device_that_is_not_there_is_named() -> None:
    with pytest.raises(ResourceError, match="0 CUDA devices"):
        pick_device("cuda:3")
    assert pick_device("auto").type in ("cpu", "mps")


@needs_shared
@pytest.mark.parametrize("file", ["VapSR/VapSR-S.pth", "RLFN/rlfn_ntire_x4.pth"])
def test_the_default_halo_keeps_official_weights_within_one_code_value(file: str, shared: Path) -> None:
    """The measured compromise of docs/tiling.md: tiles smaller than any that "auto" makes, on a real photograph."""
    model = load(shared / "weights" / file)
    photo = read_pixels(shared / "testsets" / "Set5" / "HR" / "bird.png").astype(np.float32)[:150, :230] / 255
    whole = Upscaler(model, UpscaleOptions(tile="off", engine=EXACT))(photo)
    tiled = Upscaler(model, UpscaleOptions(tile=64, engine=EXACT))(photo)
    assert np.abs(tiled - whole).max() * 255 < 1


# Refused input --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("pixels", "says"),
    [
        (np.zeros((20, 30, 7), np.uint8), "with 7 channels"),
        (np.zeros((3, 20, 30), np.uint8), "looks like channels first"),
        (np.full((20, 30, 3), np.nan, np.float32), "not finite"),
        (np.full((20, 30, 1), np.inf, np.float32), "not finite"),
        (np.zeros((20, 30), np.uint8), "expected \\(H, W, C\\)"),
        (np.zeros((20, 30, 3)), "of float64, expected"),
        (np.zeros((0, 30, 3), np.uint8), "is empty"),
    ],
)
def test_what_is_no_frame_is_refused_and_not_enlarged_to_nonsense(pixels: Any, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        list(Upscaler(toy()).bands(pixels))


# A border for weights that print a rim -----------------------------------------------------------------------------------
def bordered(model: Model, border_px: int) -> Model:
    return replace(model, card=Card(name="toy", arch="toy", scale=model.scale, border_px=border_px))


@pytest.mark.parametrize("shape", [(40, 53, 3), (40, 53, 4), (40, 53, 1), (9, 9, 3), (1, 1, 3)])
@pytest.mark.parametrize("tile", ["auto", "off", 24])
def test_a_border_is_what_mirroring_by_hand_and_cutting_off_gives(shape: tuple[int, ...], tile: str | int) -> None:
    """A 7x7 mean with zero padding darkens 3 pixels at the edge, unless these lie outside."""
    rng = np.random.default_rng(0)
    picture = rng.integers(1, 256, shape, dtype=np.uint8)  # nothing is hidden, so no colour is spread
    options = UpscaleOptions(tile=tile, blend=2, engine=EXACT)  # type: ignore[arg-type]
    made = Upscaler(bordered(toy(Blurred), 5), options)(picture)
    by_hand = np.pad(picture, ((5, 5), (5, 5), (0, 0)), mode="reflect")
    expected = Upscaler(toy(Blurred), options)(by_hand)[10:-10, 10:-10]
    assert made.shape == expected.shape == (2 * shape[0], 2 * shape[1], shape[2])
    np.testing.assert_array_equal(made, expected)


def test_a_flat_colour_stays_flat_up_to_the_border() -> None:
    flat = np.full((30, 30, 3), 200, np.uint8)
    assert Upscaler(toy(Blurred), UpscaleOptions(engine=EXACT))(flat).min() < 120
    assert (Upscaler(bordered(toy(Blurred), 3), UpscaleOptions(engine=EXACT))(flat) == 200).all()


def test_a_border_keeps_other_output_sizes() -> None:
    picture = make_photo(31, 45, seed=1)
    made, expected = (
        Upscaler(model, UpscaleOptions(engine=EXACT))(picture, size=(50, 70)) for model in (bordered(toy(), 4), toy())
    )
    np.testing.assert_array_equal(made, expected)


@pytest.mark.parametrize("border_px", [1, 2, 5, 6])
def test_tiles_with_a_border_equal_the_untiled_picture(border_px: int) -> None:
    """RLFN's grid of cells depends on the place of a tile in the picture with its border."""
    model = load("photo-x4")
    assert model.card is not None and model.spec.takes_place
    model = replace(model, card=replace(model.card, border_px=border_px))
    picture = make_photo(90, 131, seed=4)
    whole, tiled = (
        Upscaler(model, UpscaleOptions(tile=tile, halo=model.spec.exact_halo_px, engine=EXACT))(picture) for tile in ("off", 40)
    )
    # Exact but for the order of float32 sums, which may round a pixel to the next code value.
    np.testing.assert_allclose(tiled.astype(int), whole.astype(int), rtol=0, atol=1)


def test_a_border_cuts_no_picture_into_more_tiles() -> None:
    """A stated tile of the picture's size, as videos state it, is one tile."""
    total: list[int] = []
    up = Upscaler(bordered(toy(Blurred), 5), UpscaleOptions(tile=(64, 96), blend=2, engine=EXACT))
    up.on_tile = lambda done, tiles: total.append(tiles)
    up(make_photo(64, 96))
    assert total == [1]
