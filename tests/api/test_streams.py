"""VideoUpscaler: frames in, frames out, in segments that end at cuts, holding no more than it says."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

import upframe
from conftest import make_photo
from nearest import repeated
from upframe.api.arguments import Size
from upframe.api.streams import Cutting, FrameStream
from upframe.jobs.video.segments import plan_segments
from upframe.upscaling.clips import ClipUpscaler


class Mean(torch.nn.Module):
    """Every frame plus the mean of the clip, ×2: what a frame becomes tells which frames were seen with it."""

    def forward(self, clip: torch.Tensor) -> torch.Tensor:
        made = (clip + clip.mean(dim=(1, 3, 4), keepdim=True)) / 2
        return made.repeat_interleave(2, -1).repeat_interleave(2, -2)


@pytest.fixture(scope="module")
def video_model() -> upframe.Model:
    return upframe.Model.from_module(Mean(), video=True, name="mean")


def shots(*lengths: int) -> list[NDArray[Any]]:
    """Shots of quite different pictures, whose frames differ a little."""
    frames = []
    for number, length in enumerate(lengths):
        # Levels rise: where one came near again within three frames, a short shot would pass for a flash.
        base = make_photo(36, 64, seed=number) // 4 + 60 * number
        frames += [(base + np.uint8(i)).astype(np.uint8) for i in range(length)]
    return frames


# Frame-wise networks --------------------------------------------------------------------------------------------------
def test_a_frame_wise_network_answers_each_frame_at_once(weights: Path) -> None:
    read: list[int] = []

    def frames() -> Iterator[NDArray[Any]]:
        for number, frame in enumerate(shots(5)):
            read.append(number)
            yield frame

    for number, made in enumerate(upframe.VideoUpscaler(weights)(frames())):
        assert read[-1] == number
        np.testing.assert_array_equal(made, repeated(shots(5)[number], 2))


@pytest.mark.parametrize("kind", ["array", "gray", "tensor", "image"])
def test_frames_come_back_as_they_came(kind: str, weights: Path, video_model: upframe.Model) -> None:
    make = {
        "array": lambda f: f,
        "gray": lambda f: f[..., 0],
        "tensor": lambda f: torch.from_numpy(f).permute(2, 0, 1).float() / 255,
        "image": Image.fromarray,
    }[kind]
    frames = [make(frame) for frame in shots(3)]
    for model in (weights, video_model):
        made = list(upframe.VideoUpscaler(model)(frames))
        assert len(made) == 3
        for one in made:
            assert type(one) is type(frames[0])
            if kind == "image":
                assert one.mode == "RGB" and one.size == (128, 72)
            else:
                assert one.dtype == frames[0].dtype
                assert tuple(one.shape) == {"array": (72, 128, 3), "gray": (72, 128), "tensor": (3, 72, 128)}[kind]


def test_an_array_of_frames_is_a_stream(weights: Path) -> None:
    clip = np.stack(shots(3))
    assert [frame.shape for frame in upframe.VideoUpscaler(weights, size=(50, 90))(clip)] == [(50, 90, 3)] * 3


# Video networks -------------------------------------------------------------------------------------------------------
def segments_of(stream: FrameStream, frames: Sequence[NDArray[Any]]) -> list[tuple[int, int, int, int]]:
    """(first, end, read_first, read_end) of the segments of a stream, by position."""
    found, done = [], 0
    for read, first, end in stream._segments(iter(frames)):
        start = done - first
        assert all(a is b for a, b in zip(read, frames[start : start + len(read)], strict=True))
        found.append((done, done + end - first, start, start + len(read)))
        done += end - first
    return found


@pytest.mark.parametrize("lengths", [(1,), (5,), (17,), (12, 9), (6, 30, 7), (3, 3, 3, 3), (40,), (10, 10)])
@pytest.mark.parametrize("context", [0, 2])
def test_segments_cover_every_frame_within_shots(lengths: tuple[int, ...], context: int, video_model: upframe.Model) -> None:
    """Shots that fit the look-ahead are divided as a file's are; longer ones end where they must, too."""
    cutting = Cutting(segment_frames=10, context=context)
    stream = FrameStream(video_model, upframe.UpscaleOptions(), cutting, None)
    found = segments_of(stream, shots(*lengths))
    edges = np.cumsum([0, *lengths]).tolist()
    assert [first for first, *_ in found] == [0, *(end for _, end, *_ in found[:-1])] and found[-1][1] == edges[-1]
    for first, end, read_first, read_end in found:
        assert 0 < end - first <= 10 and first - read_first <= context and read_end - end <= context
        assert not any(read_first < cut < read_end for cut in edges), "no segment sees two shots"
        is_first, is_last = first in edges, end in edges
        assert first - read_first == (0 if is_first else min(context, first - max(e for e in edges if e <= first)))
        assert read_end - end == (0 if is_last else min(context, min(e for e in edges if e >= end) - end))
    if max(lengths) <= 10 + context:
        planned = plan_segments(edges[-1], edges[1:-1], longest=10, context=context)
        assert found == [(s.first, s.end, s.read_first, s.read_end) for s in planned]


def test_without_cuts_a_stream_is_one_shot(video_model: upframe.Model) -> None:
    stream = FrameStream(video_model, upframe.UpscaleOptions(), Cutting(find_cuts=False, segment_frames=10), None)
    assert [(first, end) for first, end, *_ in segments_of(stream, shots(4, 4))] == [(0, 8)]


def test_each_shot_is_what_the_network_makes_of_it_alone(video_model: upframe.Model) -> None:
    frames = shots(6, 9)
    expected = [*ClipUpscaler(video_model).frames(frames[:6]), *ClipUpscaler(video_model).frames(frames[6:])]
    made = list(upframe.VideoUpscaler(video_model)(frames))
    np.testing.assert_array_equal(np.stack(made), np.stack(expected))


def test_an_array_and_a_tensor_with_time_go_through_the_same_segments(video_model: upframe.Model) -> None:
    clip = np.stack(shots(6, 9))
    expected = np.stack(list(upframe.VideoUpscaler(video_model)(clip)))
    np.testing.assert_array_equal(upframe.upscale(clip, model=video_model), expected)
    tensor = torch.from_numpy(clip).permute(0, 3, 1, 2)[None]
    np.testing.assert_array_equal(upframe.upscale(tensor, model=video_model)[0].permute(0, 2, 3, 1).numpy(), expected)


def test_memory_does_not_grow_with_the_video(video_model: upframe.Model) -> None:
    """No more input frames are alive than `latency` says, and the context before them."""
    alive = most = 0

    class Tracked(np.ndarray[Any, Any]):
        pass

    def gone() -> None:
        nonlocal alive
        alive -= 1

    def frames() -> Iterator[NDArray[Any]]:
        nonlocal alive, most
        for frame in shots(70):
            one = frame.view(Tracked)
            weakref.finalize(one, gone)
            alive += 1
            most = max(most, alive)
            yield one
            del one

    video = upframe.VideoUpscaler(video_model, segment_frames=8, context=2)
    count = sum(1 for _ in video(frames()))
    assert count == 70 and alive == 0
    assert most <= video.latency((36, 64)) + 2 + 1  # the context before, and the frame on its way


def test_the_first_frame_comes_within_the_stated_latency(video_model: upframe.Model) -> None:
    read = 0

    def frames() -> Iterator[NDArray[Any]]:
        nonlocal read
        for frame in shots(60):
            read += 1
            yield frame

    video = upframe.VideoUpscaler(video_model, segment_frames=8, context=2)
    next(video(frames()))
    assert read == video.latency((36, 64))


def test_progress_counts_frames_and_cancel_ends_the_stream(video_model: upframe.Model) -> None:
    told: list[float] = []
    cancel = threading.Event()
    video = upframe.VideoUpscaler(video_model, segment_frames=4, on_progress=told.append, cancel=cancel)
    stream = video(shots(12))
    for _ in range(3):
        next(stream)
    cancel.set()
    with pytest.raises(upframe.errors.Cancelled):
        next(stream)
    assert told == [1, 2, 3]
    cancel.clear()
    assert len(list(video(shots(5)))) == 5, "the next stream begins afresh"


def test_video_networks_refuse_alpha_by_name(video_model: upframe.Model) -> None:
    with pytest.raises(upframe.errors.UsageError, match="alpha"):
        upframe.upscale(np.zeros((2, 8, 9, 4), np.uint8), model=video_model)
    with pytest.raises(upframe.errors.UsageError, match=r"frame 0.*alpha"):
        list(upframe.VideoUpscaler(video_model)([np.zeros((8, 9, 4), np.uint8)]))


def test_a_shipped_video_network_streams() -> None:
    video = upframe.VideoUpscaler("video-x4", segment_frames=3, size=(60, 100))
    assert [frame.shape for frame in video(frame[:16, :24] for frame in shots(5))] == [(60, 100, 3)] * 5


def test_an_empty_stream_gives_nothing(video_model: upframe.Model) -> None:
    assert list(upframe.VideoUpscaler(video_model)([])) == []
    assert Size().of((3, 4), native=2) == (6, 8)
