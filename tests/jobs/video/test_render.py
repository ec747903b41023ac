"""The job of a film below the command line: segments, shots, unchanged tiles, memory, video networks."""

from __future__ import annotations

import json
import threading
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

import films
from echo import echo
from films import Clip, make_clip, make_film, make_frames, make_pictures, make_talk
from nearest import nearest_weights, repeated
from peak import needs_proc, run_and_measure
from upframe.errors import Cancelled, Notice, UsageError, VerifyError
from upframe.jobs import model_choice
from upframe.jobs.options import JobOptions, VideoOptions
from upframe.jobs.video.geometry import segment_frames
from upframe.jobs.video.inputs import probe_input
from upframe.jobs.video.plan import Video, plan_video_output
from upframe.jobs.video.progress import VideoProgress, VideoReport
from upframe.jobs.video.render import render
from upframe.jobs.video.workspace import WorkFolder
from upframe.media.image.source import read_pixels
from upframe.models import checkpoints
from upframe.models.cards import Card
from upframe.models.families import rlfn
from upframe.models.families.realbasicvsr import realbasicvsr_spec_for
from upframe.models.registry import Model, load
from upframe.models.spec import Cleaning
from upframe.upscaling.clips import ClipUpscaler
from upframe.upscaling.images import Upscaler
from upframe.upscaling.options import UpscaleOptions

pytestmark = pytest.mark.slow  # as a whole: `make test-fast` has a minute and a half for everything

Picture = NDArray[np.uint8]


@pytest.fixture(scope="module")
def nearest(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return load(nearest_weights(tmp_path_factory.mktemp("weights") / "x2.safetensors", scale=2))


@pytest.fixture(scope="module")
def sharp() -> Model:
    """A small RLFN with random weights: what comes out depends on all that lies around a pixel."""
    torch.manual_seed(1)
    spec = rlfn.spec_for(channels=8, blocks=2, scale=2, inner_channels=8)
    return Model(spec, spec.build().eval().requires_grad_(False), None, None, "random")


def made(
    source: Path,
    model: Model,
    output: Path,
    *,
    options: VideoOptions | None = None,
    upscale: UpscaleOptions = UpscaleOptions(),
    **rest: Any,
) -> VideoReport:
    """Render `source` without loss to `output`."""
    options = options or VideoOptions(codec="ffv1")
    info = probe_input(source, options)
    size = (info.size[0] * model.spec.scale, info.size[1] * model.spec.scale)
    plan, ledger = plan_video_output(info, size, options, container=output.suffix)
    video = Video(source, output, info, plan, size, ledger.notices(str(source)), ledger)
    with WorkFolder(video.output) as work:
        return render(video, model_choice.keep(model), JobOptions(upscale=upscale, video=options), work, **rest)


def lossless(**changes: Any) -> VideoOptions:
    return VideoOptions(codec="ffv1", **changes)


def same(a: Path, b: Path) -> bool:
    one, other = films.rgb_of(a), films.rgb_of(b)
    return len(one) == len(other) and all((x == y).all() for x, y in zip(one, other, strict=True))


# Segments -------------------------------------------------------------------------------------------------------------
@pytest.mark.slow
def test_segments_of_any_length_make_the_same_film(tmp_path: Path, sharp: Model) -> None:
    """A frame-wise network sees frames alone, so where a film is divided shows nowhere."""
    source = make_film(tmp_path / "in.mkv", make_pictures(13, (24, 32)))
    counts = []
    for longest in (1, 4, 5, 13, None):
        report = made(source, sharp, tmp_path / f"{longest}.mkv", options=lossless(segment_frames=longest))
        counts.append(report.segments)
        assert same(tmp_path / f"{longest}.mkv", tmp_path / "1.mkv")
        assert films.shown_times(tmp_path / f"{longest}.mkv") == films.shown_times(source)
    assert counts == [13, 4, 3, 1, 1]
    folder = make_frames(tmp_path / "frames", make_pictures(13, (24, 32)))
    made(folder, sharp, tmp_path / "folder.mkv")
    assert same(tmp_path / "folder.mkv", tmp_path / "1.mkv")


@pytest.mark.slow
def test_same_film_twice_gives_the_same_bytes(tmp_path: Path, sharp: Model) -> None:
    source = make_clip(tmp_path / "in.mkv", Clip(sounds=[films.Sound()]))
    for name in ("a.mkv", "b.mkv"):
        made(source, sharp, tmp_path / name, options=VideoOptions(preset="veryfast", segment_frames=5))
    assert (tmp_path / "a.mkv").read_bytes() == (tmp_path / "b.mkv").read_bytes()


def test_progress_goes_through_all_stages(tmp_path: Path, nearest: Model) -> None:
    source = make_film(tmp_path / "in.mkv", make_pictures(7, (16, 24)))
    told: list[VideoProgress] = []
    made(source, nearest, tmp_path / "out.mkv", on_progress=told.append)
    for stage in ("reading", "upscaling", "checking"):
        assert [p.frame for p in told if p.stage == stage] == list(range(8))  # 0 says that it began
    assert [p.stage for p in told] == sorted((p.stage for p in told), key=["reading", "upscaling", "checking"].index)


@pytest.mark.parametrize("stage", ["reading", "upscaling", "checking"])
def test_wish_to_stop_is_heard_in_every_stage(tmp_path: Path, nearest: Model, stage: str) -> None:
    source = make_film(tmp_path / "in.mkv", make_pictures(7, (16, 24)))
    cancel, told = threading.Event(), []

    def stop(progress: VideoProgress) -> None:
        told.append(progress)
        if progress.stage == stage and progress.frame == 3:
            cancel.set()

    with pytest.raises(Cancelled):
        made(source, nearest, tmp_path / "out.mkv", on_progress=stop, cancel=cancel)
    assert (told[-1].stage, told[-1].frame) == (stage, 3)
    assert not (tmp_path / "out.mkv").exists()
    made(source, nearest, tmp_path / "out.mkv")


def test_flat_frames_out_of_frames_that_are_not_are_an_error(tmp_path: Path) -> None:
    class Dead(torch.nn.Module):
        def forward(self, x: torch.Tensor, place: object = None) -> torch.Tensor:
            return torch.full((*x.shape[:-2], 2 * x.shape[-2], 2 * x.shape[-1]), 0.5)

    model = Model(rlfn.spec_for(channels=8, blocks=2, scale=2, inner_channels=8), Dead(), None, None, "dead")
    source = make_film(tmp_path / "in.mkv", make_pictures(3, (16, 24)))
    with pytest.raises(VerifyError, match="frame 0: came out in one flat colour"):
        made(source, model, tmp_path / "out.mkv")
    assert not (tmp_path / "out.mkv").exists()


def test_black_in_is_black_out_and_a_gray_frame_stays_gray(tmp_path: Path, nearest: Model) -> None:
    pictures = [np.full((16, 24, 3), value, np.uint8) for value in (0, 0, 128, 255)]
    source = make_film(tmp_path / "in.mkv", pictures)
    for model in (nearest, echo()):
        made(source, model, tmp_path / f"{model.name}.mkv", options=lossless(segment_frames=1, context=0))
        found = films.rgb_of(tmp_path / f"{model.name}.mkv")
        assert [sorted(set(f.flatten().tolist())) for f in found] == [[0], [0], [128], [255]]


# Unchanged tiles ------------------------------------------------------------------------------------------------------
@pytest.mark.slow
def test_unchanged_tiles_are_taken_over_without_any_difference(tmp_path: Path, sharp: Model) -> None:
    talk = make_talk(10, (96, 128))
    source = make_film(tmp_path / "in.mkv", talk)
    tiles = UpscaleOptions(tile=32, halo=8)
    report = made(source, sharp, tmp_path / "reused.mkv", upscale=tiles)
    assert report.tiles_reused > 0.5
    # Nothing is taken over from one segment into the next.
    report = made(source, sharp, tmp_path / "computed.mkv", upscale=tiles, options=lossless(segment_frames=1))
    assert report.tiles_reused == 0
    assert same(tmp_path / "reused.mkv", tmp_path / "computed.mkv")
    single = Upscaler(sharp, tiles)
    for picture, frame in zip(talk, films.rgb_of(tmp_path / "reused.mkv"), strict=True):
        wide = picture.astype(np.uint16) * 257
        assert (np.rint(single(wide) / 257).astype(np.uint8) == frame).all()


def test_film_that_changes_everywhere_reuses_nothing(tmp_path: Path, sharp: Model) -> None:
    source = make_film(tmp_path / "in.mkv", make_pictures(5, (64, 64)))
    assert made(source, sharp, tmp_path / "out.mkv", upscale=UpscaleOptions(tile=32)).tiles_reused == 0


# Flat margins ---------------------------------------------------------------------------------------------------------
def test_letterbox_bars_are_enlarged_once_unless_the_whole_is_asked_for(tmp_path: Path, sharp: Model) -> None:
    pictures = [np.pad(p, ((120, 120), (0, 0), (0, 0)), constant_values=16) for p in make_pictures(3, (40, 64))]
    source = make_film(tmp_path / "in.mkv", pictures)
    report = made(source, sharp, tmp_path / "bars.mkv")
    assert report.borders_repeated > 0.4
    whole = made(source, sharp, tmp_path / "whole.mkv", upscale=UpscaleOptions(tile="off"))
    assert whole.borders_repeated == 0
    for one, two in zip(films.rgb_of(tmp_path / "bars.mkv"), films.rgb_of(tmp_path / "whole.mkv"), strict=True):
        assert np.abs(one.astype(int) - two).max() <= 1


# Video networks ---------------------------------------------------------------------------------------------------
def shot(seed: int, frames: int, size: tuple[int, int] = (40, 56)) -> list[Picture]:
    """A scene of its own brightness that slides by a pixel a frame, under a lamp that flickers."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0 : size[0], 0 : size[1] + frames]
    scene = 40 + 35 * (3 * seed % 5) + 25 * np.sin((x + 2 * y) / 20)[..., None] + rng.normal(0, 4, (*x.shape, 3))
    views = [scene[:, n : n + size[1]] + 14 * np.sin(2.0 * n) for n in range(frames)]
    return [view.clip(0, 255).astype(np.uint8) for view in views]


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_each_shot_comes_out_as_it_would_alone(tmp_path: Path, kind: str) -> None:
    """State is reset at a cut: nothing of one shot gets into another."""
    first, second = shot(1, 7), shot(2, 6)
    make = make_film if kind == "file" else make_frames
    suffix = ".mkv" if kind == "file" else ""
    made(make(tmp_path / f"a{suffix}", first), echo(), tmp_path / "a_x2.mkv")
    made(make(tmp_path / f"b{suffix}", second), echo(), tmp_path / "b_x2.mkv")
    report = made(make(tmp_path / f"both{suffix}", first + second), echo(), tmp_path / "both_x2.mkv")
    assert report.segments == 2
    both = films.rgb_of(tmp_path / "both_x2.mkv")
    alone = films.rgb_of(tmp_path / "a_x2.mkv") + films.rgb_of(tmp_path / "b_x2.mkv")
    assert all((x == y).all() for x, y in zip(both, alone, strict=True))
    # Without the cut they would differ: the network does mix frames.
    mixed = list(ClipUpscaler(echo()).frames([p.astype(np.uint16) * 257 for p in first + second]))[6]
    assert np.abs(np.rint(mixed / 257) - both[6]).max() > 10


@pytest.mark.slow
def test_long_shots_are_divided_with_context(tmp_path: Path) -> None:
    """The echo of a frame k frames away weighs at most 0.4 ** k, so context brings a divided shot close to the whole."""
    source = make_film(tmp_path / "in.mkv", shot(3, 24))
    made(source, echo(), tmp_path / "whole.mkv")
    whole = films.rgb_of(tmp_path / "whole.mkv")
    errors = []
    for context in (0, 2, 6):
        report = made(source, echo(), tmp_path / f"{context}.mkv", options=lossless(segment_frames=8, context=context))
        assert report.segments == 3
        divided = films.rgb_of(tmp_path / f"{context}.mkv")
        assert len(divided) == 24
        errors.append(max(int(np.abs(a.astype(int) - b).max()) for a, b in zip(whole, divided, strict=True)))
    assert errors[0] >= 4
    assert errors[1] <= errors[0] / 2
    assert errors[2] <= 1


def test_times_and_cuts_of_a_film_that_starts_in_the_middle(tmp_path: Path) -> None:
    """`--start` inside a shot: the cut after it stays where it is."""
    source = make_film(tmp_path / "in.mkv", shot(1, 7) + shot(2, 6))
    report = made(source, echo(), tmp_path / "out.mkv", options=lossless(start=Fraction(3, 25)))
    assert (report.frames, report.segments) == (10, 2)
    alone = make_film(tmp_path / "b.mkv", shot(2, 6))
    made(alone, echo(), tmp_path / "b_x2.mkv")
    assert all(
        (a == b).all() for a, b in zip(films.rgb_of(tmp_path / "out.mkv")[4:], films.rgb_of(tmp_path / "b_x2.mkv"), strict=True)
    )


def test_damaged_frame_does_not_move_the_cut(tmp_path: Path) -> None:
    """Cuts are found on decoded pictures; frames that stand in for damaged ones shift their numbers."""
    pictures = shot(1, 10, (64, 64)) + shot(2, 8, (64, 64))
    source = make_film(tmp_path / "in.mp4", pictures, pix_fmt="yuv420p", codec="libx264", bf="0", g="6")
    films.damage(source, 3)
    report = made(source, echo(), tmp_path / "out.mkv", options=lossless())
    assert report.segments == 2
    assert [n.id for n in report.notices] == ["bad-frames"]
    assert report.frames == 18


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Model:
    """RealBasicVSR, small and with random weights, through a weights file."""
    torch.manual_seed(0)
    spec = realbasicvsr_spec_for(channels=8, propagation_blocks=1, cleaning_blocks=1)
    path = tmp_path_factory.mktemp("weights") / "real.safetensors"
    checkpoints.save(path, spec.build().state_dict(), Card(name="real", arch=spec.name, scale=4))
    return load(path)


@pytest.mark.slow
def test_realbasicvsr_goes_through_with_its_cleaning(tmp_path: Path, real: Model) -> None:
    source = make_clip(tmp_path / "in.mkv", Clip(films.VFR_PTS[:7], size=(17, 23), pix_fmt="yuv444p", sounds=[films.Sound()]))
    outputs = []
    for number, (cleaning, passes) in enumerate((
        (None, [1, 1, 1]),
        (Cleaning(threshold=0, max_passes=2), [2, 2, 2]),
        (Cleaning(max_passes=0), [0, 0, 0]),
        (Cleaning(strength=0), None),
    )):  # fmt: skip
        output = tmp_path / f"{number}.mkv"
        report = made(source, real, output, options=lossless(cleaning=cleaning, segment_frames=3))
        assert passes is None or list(report.cleaning_passes) == passes
        assert len(films.shown_times(output)) == 7
        assert films.sound_payloads(output) == films.sound_payloads(source)
        outputs.append(output)
    assert films.pictures_of(outputs[0])[0][0].shape == (68, 92)
    assert films.largest_difference(films.pictures_of(outputs[0]), films.pictures_of(outputs[1])) > 0
    assert films.largest_difference(films.pictures_of(outputs[2]), films.pictures_of(outputs[3])) == 0


@pytest.mark.slow
def test_segments_of_a_network_for_clips_are_resumed_to_the_same_bytes(
    tmp_path: Path, real: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = make_film(tmp_path / "in.mkv", shot(4, 9, (24, 32)))
    options = lossless(segment_frames=3, context=2)
    made(source, real, tmp_path / "undisturbed.mkv", options=options)
    with monkeypatch.context() as patch:
        patch.setattr("upframe.jobs.video.outputs.join", films.out_of_memory)
        with pytest.raises(MemoryError):
            made(source, real, tmp_path / "out.mkv", options=options)
    (tmp_path / ".out.mkv.upframe" / "000001.seg").unlink()
    # As if another program had taken the memory: segments that were chosen for it must not change.
    report = made(source, real, tmp_path / "out.mkv", options=options)
    assert report.resumed == 6
    assert (tmp_path / "out.mkv").read_bytes() == (tmp_path / "undisturbed.mkv").read_bytes()


@pytest.mark.slow
def test_length_of_segments_survives_a_change_of_memory(tmp_path: Path, real: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    source = make_film(tmp_path / "in.mkv", shot(4, 12, (24, 32)))
    options = lossless()
    memory = 20 << 20
    monkeypatch.setattr("upframe.upscaling.clips.available_memory_bytes", lambda: memory)
    made(source, real, tmp_path / "undisturbed.mkv", options=options)
    with monkeypatch.context() as patch:
        patch.setattr("upframe.jobs.video.outputs.join", films.out_of_memory)
        with pytest.raises(MemoryError):
            made(source, real, tmp_path / "out.mkv", options=options)
    memory = 4 << 30
    report = made(source, real, tmp_path / "out.mkv", options=options)
    assert report.resumed == 12
    assert (tmp_path / "out.mkv").read_bytes() == (tmp_path / "undisturbed.mkv").read_bytes()


def test_cleaning_is_refused_where_nothing_cleans(tmp_path: Path, nearest: Model) -> None:
    source = make_film(tmp_path / "in.mkv", make_pictures(2, (16, 24)))
    for model in (nearest, echo()):
        with pytest.raises(UsageError, match="does not clean"):
            made(source, model, tmp_path / "out.mkv", options=lossless(cleaning=Cleaning()))


def test_notice_that_is_refused_stops_at_once(tmp_path: Path, nearest: Model) -> None:
    folder = make_frames(tmp_path / "in", make_pictures(2, (16, 24)), names=["1.png", "4.png"])

    def refuse(notice: Notice) -> None:
        raise notice.as_error()

    with pytest.raises(UsageError, match="frames-missing"):
        made(folder, nearest, tmp_path / "out.mkv", on_notice=refuse)
    assert {p.name for p in tmp_path.iterdir()} == {"in"}


# Memory ---------------------------------------------------------------------------------------------------------------
@pytest.mark.slow
@needs_proc
def test_memory_does_not_grow_with_the_film(tmp_path: Path) -> None:
    """100 and 1,000 frames of 120×160 to 240×320: the longer film's output alone would be 415 MB at 16 bits."""
    weights = nearest_weights(tmp_path / "x2.safetensors", scale=2)
    peaks = {}
    for count in (100, 1000):
        source = make_clip(
            tmp_path / f"{count}.mkv", Clip(range(0, 3600 * count, 3600), (120, 160), options={"preset": "ultrafast"})
        )
        command = ["upscale", source, "-m", weights, "--threads", "1", "--preset", "ultrafast", "--window", "60", "--json"]
        peaks[count], printed = run_and_measure(tmp_path, *command)
        lines = [json.loads(line) for line in printed.splitlines()]
        assert next(line["frames"] for line in lines if line["event"] == "video") == count
    assert peaks[1000] <= 1.05 * peaks[100], peaks


def test_pictures_are_those_of_the_photo_way(tmp_path: Path, nearest: Model) -> None:
    pictures = make_pictures(3, (16, 24))
    source = make_film(tmp_path / "in.mkv", pictures)
    options = VideoOptions()
    info = probe_input(source, options)
    plan, _ = plan_video_output(info, (32, 48), options, container="png")
    assert plan is None
    video = Video(source, tmp_path / "out", info, None, (32, 48))
    with WorkFolder(video.output) as work:
        render(video, model_choice.keep(nearest), JobOptions(video=options), work)
    for number, picture in enumerate(pictures):
        np.testing.assert_array_equal(read_pixels(tmp_path / "out" / f"frame_{number:08}.png"), repeated(picture, 2))


@pytest.mark.parametrize(
    ("size", "frames"), [((48, 64), 240), ((180, 320), 173), ((360, 640), 43), ((576, 720), 24), ((1080, 1920), 24)]
)
def test_a_segment_has_ten_million_pixels_within_bounds(size: tuple[int, int], frames: int) -> None:
    """A stopped run loses the work on one segment; each segment costs a key frame."""
    assert segment_frames(size) == frames
