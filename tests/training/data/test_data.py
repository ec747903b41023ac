"""Samples: inputs are exactly what stored sets would hold, frames are the right ones, and faults are named."""

from __future__ import annotations

import pickle
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from conftest import make_photo
from films import make_clip
from upframe.datasets.clips import blur_and_subsample_8bit
from upframe.datasets.footage import find_clips, find_photos
from upframe.datasets.stores import FileStore, HeldStore
from upframe.datasets.video_cache import decoded_video
from upframe.errors import InputError, UsageError
from upframe.media.image.files import write_pixels
from upframe.media.image.source import read_rgb8
from upframe.pixels import crop_to_multiple, matlab_bicubic_8bit
from upframe.training.data.motion import smooth_flow
from upframe.training.data.samples import Sample
from upframe.training.data.sources import DataPaths, source_for
from upframe.training.recipes.recipe import DataRecipe

PHOTOS = DataRecipe(patch_px=10)
CLIPS = DataRecipe(kind="clips", patch_px=8, clip_frames=3)
PLAIN = {"hflip": False, "vflip": False, "transpose": False}


def _codes(x: Tensor) -> Tensor:
    return (x * 255).round().to(torch.uint8)


def _poses(x: Tensor) -> list[Tensor]:
    turned = [torch.rot90(x, k, (-2, -1)) for k in range(4)]
    return turned + [t.flip(-1) for t in turned]


def _numbered_clip(folder: Path, frames: int, *, size: tuple[int, int] = (40, 48), first: int = 0) -> None:
    """A clip whose frame n is the even colour (n, n, n): a sample says which frames it holds."""
    folder.mkdir(parents=True)
    for n in range(first, first + frames):
        write_pixels(folder / f"{n:08}.png", np.full((*size, 3), n, np.uint8))


def _shown(x: Tensor) -> list[int]:
    """The frame numbers in a clip of numbered frames."""
    codes = _codes(x)
    assert torch.equal(codes, codes[:, :1, :1, :1].expand_as(codes))
    return codes[:, 0, 0, 0].tolist()


def _draw(source: object, count: int) -> list[Sample]:
    return [source(np.random.default_rng(i)) for i in range(count)]  # type: ignore[operator]


# Photos ---------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("low_quality", ["bicubic", "bd"])
@pytest.mark.parametrize("scale", [2, 3, 4])
def test_a_patch_is_a_crop_of_the_whole_picture_s_low_resolution_version(tmp_path: Path, scale: int, low_quality: str) -> None:
    """Found again by search, in one of the eight orientations, equal in every value; and its ground truth with it."""
    photo = make_photo(100, 110, seed=scale)
    write_pixels(tmp_path / "a.png", photo)
    hr = crop_to_multiple(torch.from_numpy(photo).permute(2, 0, 1), scale)
    lr = (matlab_bicubic_8bit if low_quality == "bicubic" else blur_and_subsample_8bit)(hr, scale)
    data = replace(PHOTOS, low_quality=low_quality)
    for sample in _draw(source_for(data, DataPaths(tmp_path), scale=scale), 6):
        truths = _poses(_codes(sample.gt))
        places = [
            (pose, y, x)
            for pose, turned in enumerate(_poses(_codes(sample.lq)))
            for y in range(lr.shape[1] - 9)
            for x in range(lr.shape[2] - 9)
            if torch.equal(lr[:, y : y + 10, x : x + 10], turned)
        ]
        assert len(places) == 1
        pose, y, x = places[0]
        s = scale
        assert torch.equal(hr[:, y * s : (y + 10) * s, x * s : (x + 10) * s], truths[pose])


@pytest.mark.slow
@pytest.mark.parametrize(("switches", "expected"), [({}, 8), ({"transpose": False}, 4), (PLAIN, 1)])
def test_the_poses_that_are_asked_for_are_drawn(tmp_path: Path, switches: dict[str, bool], expected: int) -> None:
    ramp = np.zeros((60, 60, 3), np.uint8)
    ramp[..., 0] = np.arange(60)[:, None] * 4
    ramp[..., 1] = np.arange(60) * 3
    write_pixels(tmp_path / "ramp.png", ramp)
    # Red rises downwards and green to the right; where each rises after turning names the orientation, one of eight.
    seen: dict[tuple[int, ...], int] = {}
    for sample in _draw(source_for(replace(PHOTOS, **switches), DataPaths(tmp_path), scale=2), 400):
        patch = sample.gt
        red = patch[0, -1, 0] - patch[0, 0, 0], patch[0, 0, -1] - patch[0, 0, 0]
        green = patch[1, -1, 0] - patch[1, 0, 0], patch[1, 0, -1] - patch[1, 0, 0]
        pose = tuple(int(torch.sign(rise)) for rise in (*red, *green))
        seen[pose] = seen.get(pose, 0) + 1
    assert len(seen) == expected
    # Binomial: with 400 draws a share of 1/8 is 50 ± 6.6; five deviations.
    assert all(abs(count - 400 / expected) < 34 for count in seen.values())


@pytest.mark.slow
def test_every_pixel_is_as_likely_whatever_the_size_of_its_picture(tmp_path: Path) -> None:
    write_pixels(tmp_path / "dark.png", np.zeros((60, 60, 3), np.uint8))
    write_pixels(tmp_path / "white.png", np.full((120, 90, 3), 255, np.uint8))
    drawn = _draw(source_for(PHOTOS, DataPaths(tmp_path), scale=2), 600)
    # 10800 of 14400 pixels are white: 450 of 600, standard deviation 10.6; five of them.
    assert abs(sum(bool(s.gt[0, 0, 0] > 0.5) for s in drawn) - 450) < 53


def test_a_sample_depends_on_its_generator_alone(tmp_path: Path) -> None:
    for i in range(3):
        write_pixels(tmp_path / f"{i}.png", make_photo(80, 90, seed=i))
    one = source_for(PHOTOS, DataPaths(tmp_path), scale=2)
    two = source_for(PHOTOS, DataPaths(tmp_path), scale=2, budget_bytes=0)  # decoded on demand
    one(np.random.default_rng(0))  # earlier draws do not matter
    a, b = one(np.random.default_rng(7)), two(np.random.default_rng(7))
    assert torch.equal(a.gt, b.gt)
    assert torch.equal(a.lq, b.lq)
    assert not torch.equal(a.gt, one(np.random.default_rng(8)).gt)


def test_unusable_photos_are_left_out_and_damaged_ones_named(tmp_path: Path) -> None:
    write_pixels(tmp_path / "good.png", make_photo(64, 64))
    write_pixels(tmp_path / "gray.png", make_photo(64, 64)[..., :1])
    write_pixels(tmp_path / "small.png", make_photo(20, 64))
    write_pixels(tmp_path / "skip_me.png", make_photo(64, 64))
    write_pixels(tmp_path / "skip_me_s001.png", make_photo(64, 64))  # a part of one that is left out
    found = find_photos(tmp_path, exclude=("skip_me*.png",), minimum_px=40)
    assert [clip.name for clip in found.clips] == ["good.png"]
    found = find_photos(tmp_path, exclude=("skip_me.png", "small*"))
    assert [clip.name for clip in found.clips] == ["good.png"]
    (tmp_path / "broken.png").write_bytes(b"not a picture")
    with pytest.raises(InputError, match=r"broken\.png"):
        find_photos(tmp_path)


def test_damage_behind_a_sound_header_is_found_before_training_or_when_it_is_met(tmp_path: Path) -> None:
    write_pixels(tmp_path / "a.png", make_photo(64, 64))
    whole = (tmp_path / "a.png").read_bytes()
    middle = len(whole) // 2
    (tmp_path / "a.png").write_bytes(whole[:middle] + bytes(40) + whole[middle + 40 :])
    with pytest.raises(InputError, match=r"a\.png"):
        source_for(PHOTOS, DataPaths(tmp_path), scale=2)
    later = source_for(PHOTOS, DataPaths(tmp_path), scale=2, budget_bytes=0)
    with pytest.raises(InputError, match=r"a\.png"):
        later(np.random.default_rng(0))


def test_a_folder_without_photos_is_an_input_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no usable photographs \(8-bit RGB, [0-9]+ px or more\)"):
        source_for(PHOTOS, DataPaths(tmp_path), scale=2)
    with pytest.raises(InputError, match="no such folder"):
        source_for(PHOTOS, DataPaths(tmp_path / "nowhere"), scale=2)


# Pairs ----------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("naming", ["{}.png", "{}x2.png", "X2/{}.png"])
def test_paired_patches_lie_at_the_same_place(tmp_path: Path, naming: str) -> None:
    """The stored input is an unrelated code of the position, so that only the right place fits."""
    y, x = np.mgrid[0:60, 0:80]
    gt = np.stack([y * 4, x * 3, y * 0], -1).astype(np.uint8)
    (tmp_path / "gt").mkdir()
    write_pixels(tmp_path / "gt" / "0001.png", gt)
    lq = tmp_path / "lq" / naming.format("0001")
    lq.parent.mkdir(parents=True)
    write_pixels(lq, gt[::2, ::2] // 2)
    data = DataRecipe(patch_px=10, low_quality="paired")
    for sample in _draw(source_for(data, DataPaths(tmp_path / "gt", tmp_path / "lq"), scale=2), 20):
        truth, low = _codes(sample.gt), _codes(sample.lq)
        found = [pose[:, ::2, ::2] // 2 for pose in _poses(truth)]  # every second pixel, from the right corner in one pose
        assert any(torch.equal(pose, low_pose) for pose, low_pose in zip(found, _poses(low), strict=True))


def test_stored_inputs_are_degraded_further_at_their_own_size(tmp_path: Path) -> None:
    (tmp_path / "gt").mkdir()
    (tmp_path / "lq").mkdir()
    write_pixels(tmp_path / "gt" / "a.png", make_photo(60, 60))
    write_pixels(tmp_path / "lq" / "a.png", make_photo(30, 30))
    plain = DataRecipe(patch_px=10, low_quality="paired")
    paths = DataPaths(tmp_path / "gt", tmp_path / "lq")
    seen: list[Tensor] = []

    def degrade(clip: Tensor, rng: np.random.Generator) -> Tensor:
        seen.append(clip)
        return 1 - clip

    data = replace(plain, degradation="test")
    before = _draw(source_for(plain, paths, scale=2), 5)
    after = _draw(source_for(data, paths, scale=2, degradation=degrade), 5)
    for one, other, given in zip(before, after, seen, strict=True):
        assert given.shape == (1, 3, 10, 10) and torch.equal(given[0], one.lq)
        assert torch.equal(other.lq, 1 - one.lq) and torch.equal(other.gt, one.gt)
    preset = source_for(replace(plain, degradation="phone-and-web"), paths, scale=2)
    assert {tuple(sample.lq.shape) for sample in _draw(preset, 10)} == {(3, 10, 10)}


def test_pairs_that_do_not_fit_are_named(tmp_path: Path) -> None:
    for folder in ("gt", "lq"):
        (tmp_path / folder).mkdir()
    write_pixels(tmp_path / "gt" / "a.png", make_photo(60, 60))
    data, paths = DataRecipe(patch_px=10, low_quality="paired"), DataPaths(tmp_path / "gt", tmp_path / "lq")
    with pytest.raises(InputError, match=r"no counterpart of a\.png"):
        source_for(data, paths, scale=2)
    write_pixels(tmp_path / "lq" / "a.png", make_photo(29, 30))
    with pytest.raises(InputError, match=r"a\.png: is 29x30, not 30x30"):
        source_for(data, paths, scale=2)(np.random.default_rng(0))
    with pytest.raises(UsageError, match="makes the inputs"):
        source_for(PHOTOS, paths, scale=2)
    with pytest.raises(UsageError, match="needs a folder of inputs"):
        source_for(data, DataPaths(tmp_path / "gt"), scale=2)


# Clips ----------------------------------------------------------------------------------------------------------------
def test_a_clip_holds_neighbouring_frames_in_order(tmp_path: Path) -> None:
    _numbered_clip(tmp_path / "000", 9)
    _numbered_clip(tmp_path / "sub" / "001", 9, first=100)
    _numbered_clip(tmp_path / "short", 2, first=200)
    source = source_for(CLIPS, DataPaths(tmp_path), scale=2)
    shown = {tuple(_shown(s.gt)) for s in _draw(source, 200)}
    assert shown == {(n, n + 1, n + 2) for first in (0, 100) for n in range(first, first + 7)}


def test_intervals_and_time_reversal(tmp_path: Path) -> None:
    _numbered_clip(tmp_path / "000", 6)
    data = replace(CLIPS, intervals=(1, 2, 3), time_reversal=True)
    shown = {tuple(_shown(s.gt)) for s in _draw(source_for(data, DataPaths(tmp_path), scale=2), 300)}
    forward = {(n, n + i, n + 2 * i) for i in (1, 2) for n in range(6 - 2 * i)}  # three frames at distance 3 need seven
    assert shown == forward | {frames[::-1] for frames in forward}


def test_a_mirrored_clip_reads_half_its_frames_and_degrades_both_halves(tmp_path: Path) -> None:
    _numbered_clip(tmp_path / "000", 6)
    data = replace(CLIPS, clip_frames=6, mirrored=True, low_quality="degraded", degradation="test")
    seen: list[Tensor] = []

    def degrade(clip: Tensor, rng: np.random.Generator) -> Tensor:
        seen.append(clip)
        return F.avg_pool2d(clip, 2) + float(rng.random())

    samples = _draw(source_for(data, DataPaths(tmp_path), scale=2, degradation=degrade), 20)
    for sample, given in zip(samples, seen, strict=True):
        a, b, c, *rest = _shown(sample.gt)
        assert (b, c) == (a + 1, a + 2)
        assert rest == [c, b, a]
        assert torch.equal(given, sample.gt)
        assert sample.lq.shape == (6, 3, 8, 8)


def test_one_pose_for_all_frames_of_a_clip_and_its_input(tmp_path: Path) -> None:
    photo = make_photo(48, 48, seed=4)
    (tmp_path / "000").mkdir()
    for n in range(3):
        write_pixels(tmp_path / "000" / f"{n}.png", photo)
    for sample in _draw(source_for(CLIPS, DataPaths(tmp_path), scale=2), 10):
        assert torch.equal(sample.gt[0], sample.gt[2])
        assert torch.equal(sample.lq[0], sample.lq[2])


def test_reds_pairs_of_clip_folders(tmp_path: Path) -> None:
    _numbered_clip(tmp_path / "train_sharp" / "000", 5)
    _numbered_clip(tmp_path / "train_sharp_bicubic" / "X4" / "000", 5, size=(10, 12))
    paths = DataPaths(tmp_path / "train_sharp", tmp_path / "train_sharp_bicubic" / "X4")
    source = source_for(replace(CLIPS, low_quality="paired"), paths, scale=4)
    for sample in _draw(source, 10):
        assert sample.lq.shape == (3, 3, 8, 8)
        assert _shown(sample.gt) == _shown(sample.lq)


def test_excluding_a_clip_excludes_its_sub_images(tmp_path: Path) -> None:
    """Else a recipe that leaves the four test clips out would train on their parts."""
    for name in ("000", "000_s001", "0001", "001"):
        _numbered_clip(tmp_path / name, 3)
    found = find_clips(tmp_path, exclude=("000",))
    assert {clip.name for clip in found.clips} == {"0001", "001"}


def test_vimeo_trains_on_the_listed_septuplets(tmp_path: Path) -> None:
    for name, first in (("00001/0001", 0), ("00001/0002", 20), ("00002/0001", 40)):
        folder = tmp_path / "sequences" / name
        folder.mkdir(parents=True)
        for n in range(7):
            write_pixels(folder / f"im{n + 1}.png", np.full((40, 40, 3), first + n, np.uint8))
    (tmp_path / "sep_trainlist.txt").write_text("00001/0001\n00002/0001\n\n")
    source = source_for(replace(CLIPS, clip_frames=7), DataPaths(tmp_path), scale=2)
    assert {tuple(_shown(s.gt)) for s in _draw(source, 30)} == {tuple(range(7)), tuple(range(40, 47))}
    (tmp_path / "sep_trainlist.txt").write_text("00009/0001\n")
    with pytest.raises(InputError, match="00009"):
        find_clips(tmp_path)


def test_faulty_clips_are_named(tmp_path: Path) -> None:
    _numbered_clip(tmp_path / "gap" / "000", 4)
    (tmp_path / "gap" / "000" / "00000002.png").unlink()
    with pytest.raises(InputError, match="frame 2 is missing"):
        find_clips(tmp_path / "gap")
    _numbered_clip(tmp_path / "sizes" / "000", 3)
    write_pixels(tmp_path / "sizes" / "000" / "00000003.png", make_photo(50, 48))
    source = source_for(replace(CLIPS, clip_frames=4), DataPaths(tmp_path / "sizes"), scale=2)
    with pytest.raises(InputError, match=r"00000003\.png: is 50x48"):
        source(np.random.default_rng(0))
    _numbered_clip(tmp_path / "brief" / "000", 2)
    with pytest.raises(InputError, match="no clip of 3 frames"):
        source_for(CLIPS, DataPaths(tmp_path / "brief"), scale=2)


def test_videos_and_folders_of_frames_are_mixed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    clips, cache = tmp_path / "clips", tmp_path / "cache"
    clips.mkdir()
    make_clip(clips / "film.mp4")
    alone = find_clips(clips, cache=cache)
    _numbered_clip(clips / "000", 3, size=(64, 64))
    mixed = find_clips(clips, cache=cache)
    assert not caplog.records
    assert sorted(clip.name for clip in mixed.clips) == ["000", "film.mp4"]
    by_name = {clip.name: clip for clip in mixed.clips}
    film = by_name["film.mp4"].frames
    assert film == alone.clips[0].frames
    np.testing.assert_array_equal(mixed.store.read(film[1]), alone.store.read(film[1]))
    np.testing.assert_array_equal(mixed.store.read("000/00000001.png"), read_rgb8(clips / "000" / "00000001.png"))
    source = source_for(replace(CLIPS, patch_px=16), DataPaths(clips, cache=cache), scale=2)
    made = {source(np.random.default_rng(seed)).gt.numpy().tobytes() for seed in range(4)}
    assert len(made) == 4
    assert pickle.loads(pickle.dumps(mixed.store)).size(film[0]) == mixed.store.size(film[0])
    write_pixels(clips / "poster.png", make_photo(8, 8))
    assert len(find_clips(clips, cache=cache).clips) == 2
    assert "skipped the pictures, because the folder contains videos" in caplog.text


def test_reduced_photographs_are_taken_as_well(tmp_path: Path) -> None:
    photo = make_photo(131, 97)
    write_pixels(tmp_path / "a.png", photo)
    write_pixels(tmp_path / "small.png", make_photo(60, 60))
    recipe = DataRecipe(patch_px=12, reductions=(1, 2))
    source = source_for(recipe, DataPaths(tmp_path), scale=2)
    assert sorted(clip.name for clip in source.footage.clips) == ["a.png", "a.png@2", "small.png"]  # 30 px hold no patch
    half = torch.from_numpy(photo[:130, :96]).permute(2, 0, 1)
    expected = matlab_bicubic_8bit(half, 2).permute(1, 2, 0).numpy()
    np.testing.assert_array_equal(source.footage.store.read("a.png@2"), expected)
    assert source.footage.store.size("a.png@2") == (65, 48)
    with pytest.raises(InputError, match="no photograph reduced by"):
        source_for(replace(recipe, reductions=(8,)), DataPaths(tmp_path), scale=2)
    with pytest.raises(UsageError, match="reductions need unpaired photos"):
        DataRecipe(kind="clips", reductions=(2,))


@pytest.mark.slow
def test_of_several_draws_the_one_with_most_detail_is_taken(tmp_path: Path) -> None:
    flat = np.full((128, 512, 3), 90, np.uint8)
    flat[:, 256:] = np.random.default_rng(0).integers(0, 256, (128, 256, 3))
    write_pixels(tmp_path / "half.png", flat)
    shares = []
    for draws in (1, 4):
        source = source_for(DataRecipe(patch_px=12, draws=draws), DataPaths(tmp_path), scale=2)
        stds = [float(source(np.random.default_rng(seed)).gt.std()) for seed in range(200)]
        shares.append(sum(std < 1e-3 for std in stds) / len(stds))
    # A patch of 36 px with its context lies in the flat half with probability 0.46: all four with 0.046. Of 200 patches,
    # that is 92 ± 7 and 9 ± 3.
    assert 0.35 < shares[0] < 0.57
    assert shares[1] < 0.11


def test_videos_are_decoded_once_and_exactly(tmp_path: Path) -> None:
    from upframe.media.video.files import FrameFolder, VideoSink, plan_video

    _numbered_clip(tmp_path / "frames" / "000", 5, size=(48, 64))
    (tmp_path / "videos").mkdir()
    video = tmp_path / "videos" / "clip.mkv"
    with FrameFolder(tmp_path / "frames" / "000", rate=Fraction(25)) as folder:
        plan = plan_video(folder.info, container="matroska", size=(48, 64), codec="ffv1")
        with VideoSink(video, plan, frames=5) as sink:
            for frame in folder:
                sink.write(frame.pixels, pts=frame.pts)
    paths = DataPaths(tmp_path / "videos", cache=tmp_path / "cache")
    source = source_for(replace(CLIPS, clip_frames=5), paths, scale=2)
    assert _shown(source(np.random.default_rng(0)).gt) == [0, 1, 2, 3, 4]
    (cached,) = (tmp_path / "cache").iterdir()
    stamp = cached.stat().st_mtime_ns
    again = pickle.loads(pickle.dumps(source_for(replace(CLIPS, clip_frames=5), paths, scale=2)))
    assert _shown(again(np.random.default_rng(0)).gt) == [0, 1, 2, 3, 4]
    assert cached.stat().st_mtime_ns == stamp
    with ThreadPoolExecutor(3) as pool:  # as processes of one run do it
        together = {str(p) for p in pool.map(lambda _: decoded_video(video, cache=tmp_path / "together"), range(3))}
    assert [str(p) for p in (tmp_path / "together").iterdir()] == list(together)
    assert Path(next(iter(together))).read_bytes() == cached.read_bytes()
    video.write_bytes(b"not a video")  # another file now
    with pytest.raises(InputError, match=r"clip\.mkv"):
        source_for(replace(CLIPS, clip_frames=2), paths, scale=2)
    assert [p for p in (tmp_path / "cache").iterdir() if p.suffix != ".lock"] == [cached]


def test_pictures_beyond_the_budget_are_decoded_again(tmp_path: Path) -> None:
    photos = {f"{i}.png": make_photo(20, 20, seed=i) for i in range(4)}
    for name, photo in photos.items():
        write_pixels(tmp_path / name, photo)
    decoded: list[str] = []

    class Counted(FileStore):
        def read(self, key: str) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
            decoded.append(key)
            return super().read(key)

    store = HeldStore(Counted({name: tmp_path / name for name in photos}), budget_bytes=2 * 1200)
    assert not store.is_complete
    for key in ("0.png", "1.png", "0.png", "2.png", "0.png", "1.png"):
        assert np.array_equal(store.read(key), photos[key])
    assert decoded == ["0.png", "1.png", "2.png", "1.png"]  # 1 was used longest ago when 2 came
    decoded.clear()
    complete = HeldStore(Counted({name: tmp_path / name for name in photos}), budget_bytes=4 * 1200)
    assert complete.is_complete
    assert decoded == list(photos)
    assert np.array_equal(complete.read("3.png"), photos["3.png"])
    assert len(decoded) == 4


def test_a_preset_degrades_clips_reproducibly(tmp_path: Path) -> None:
    (tmp_path / "000").mkdir()
    for n in range(4):
        write_pixels(tmp_path / "000" / f"{n}.png", make_photo(64, 72, seed=n))
    data = DataRecipe(
        kind="clips", patch_px=16, clip_frames=4, mirrored=True, low_quality="degraded", degradation="realbasicvsr"
    )
    source = source_for(data, DataPaths(tmp_path), scale=4)
    one, two = source(np.random.default_rng(3)), source(np.random.default_rng(3))
    assert one.lq.shape == (4, 3, 16, 16)
    assert torch.equal(one.lq, two.lq)
    assert not torch.equal(one.lq[0], one.lq[3])  # the same frame, degraded twice


# Motion ---------------------------------------------------------------------------------------------------------------
def test_warping_the_second_view_by_the_flow_gives_the_first(tmp_path: Path) -> None:
    write_pixels(tmp_path / "a.png", make_photo(200, 220, seed=2))
    data = DataRecipe(kind="motion", patch_px=48)
    improved = []
    for sample in _draw(source_for(data, DataPaths(tmp_path), scale=1), 12):
        (a, b), flow = sample.lq, sample.gt
        assert flow.shape == (2, 48, 48)
        y, x = torch.meshgrid(torch.arange(48.0), torch.arange(48.0), indexing="ij")
        places = torch.stack([x, y]) + flow
        inside = ((places >= 0) & (places <= 47)).all(0)
        grid = (places * 2 / 47 - 1).permute(1, 2, 0)[None]
        warped = F.grid_sample(b[None], grid, align_corners=True)[0]
        error, still = ((warped - a) ** 2)[:, inside].mean(), ((b - a) ** 2)[:, inside].mean()
        if flow.norm(dim=0).max() > 3:
            improved.append(float(error / still))
    assert len(improved) > 3
    assert np.median(improved) < 0.25  # what is left is noise and the interpolation of fine texture


def test_a_smooth_flow_has_the_size_that_is_asked_for() -> None:
    flow = smooth_flow(32, largest_px=6.0, rng=np.random.default_rng(1))
    assert float(flow.norm(dim=0).max()) == pytest.approx(6, rel=1e-5)
    assert float((flow[:, 1:] - flow[:, :-1]).abs().max()) < 2  # no tears
