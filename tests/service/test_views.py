"""Thumbnails, previews and trials: browsers show them, and they show the right thing."""

from __future__ import annotations

import io
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from conftest import make_photo
from nearest import repeated
from serving import Server, until, within
from upframe.client import Client, Options, Source
from upframe.service import wire
from video_files import Clip, Sound, make_clip, picture, shown_times

pytestmark = pytest.mark.slow


def test_previews_of_pictures_show_the_pixels_of_the_output(server: Server, client: Client, tmp_path: Path) -> None:
    deep = make_photo(40, 56, dtype="uint16")
    source = tmp_path / "deep.tif"
    import tifffile

    tifffile.imwrite(source, deep)
    job = client.wait(client.submit(source, Options(scale=2)).id)
    shown = np.asarray(Image.open(io.BytesIO(server.fetched(f"/api/jobs/{job.id}/preview?of=input"))))
    assert shown.dtype == np.uint8 and np.abs(shown.astype(int) - deep / 257).max() <= 0.5  # rounding alone
    output = Image.open(io.BytesIO(server.fetched(f"/api/jobs/{job.id}/preview")))
    assert output.size == (112, 80) and output.format == "PNG"
    thumbnail = Image.open(io.BytesIO(server.fetched(f"/api/jobs/{job.id}/thumbnail")))
    assert max(thumbnail.size) <= 256


def test_a_picture_that_browsers_show_is_sent_as_it_is(server: Server, client: Client, photo: Path) -> None:
    job = client.wait(client.submit(photo, Options(scale=2)).id)
    assert server.fetched(f"/api/jobs/{job.id}/preview?of=input") == photo.read_bytes()
    assert server.fetched(f"/api/jobs/{job.id}/preview") == client.output(job.id)


def test_thumbnails_of_uploads_are_small(server: Server, client: Client, tmp_path: Path) -> None:
    large = tmp_path / "large.png"
    Image.fromarray(make_photo(300, 600)).save(large)
    upload = client.upload(large)
    thumbnail = Image.open(io.BytesIO(server.fetched(f"/api/uploads/{upload.id}/thumbnail")))
    assert thumbnail.size == (256, 128)
    assert server.fetched(f"/api/uploads/{upload.id}/preview") == large.read_bytes()
    assert upload.id in [one.id for one in client.uploads()]


def test_a_video_that_browsers_do_not_play_becomes_h264_with_the_same_times(
    server: Server, client: Client, tmp_path: Path
) -> None:
    clip = Clip(pts=[0, 3000, 9000, 12000, 30000], codec="ffv1", pix_fmt="yuv444p", size=(48, 64), sounds=[Sound("flac")])
    source = make_clip(tmp_path / "old.mkv", clip)
    job = client.submit(source, Options(scale=2), paused=True)
    preview = tmp_path / "preview.mp4"
    preview.write_bytes(server.fetched(f"/api/jobs/{job.id}/preview?of=input"))
    with av.open(str(preview)) as made:
        video, sound = made.streams.video[0], made.streams.audio[0]
        assert (video.codec_context.name, video.codec_context.pix_fmt, sound.codec_context.name) == ("h264", "yuv420p", "aac")
        frames = [frame.to_ndarray(format="rgb24").astype(int) for frame in made.decode(video)]
    before, after = shown_times(source), shown_times(preview)
    assert [float(t - after[0]) for t in after] == pytest.approx([float(t - before[0]) for t in before], abs=0.002)
    # H.264 with less colour: the pictures stay the same to the eye, frame for frame.
    for number, frame in enumerate(frames):
        wanted = picture(number, (48, 64), "yuv444p").to_ndarray(format="rgb24").astype(int)
        assert np.abs(frame - wanted).mean() < 6


def test_the_preview_of_a_turned_video_stays_turned_and_its_thumbnail_is_upright(
    server: Server, client: Client, tmp_path: Path
) -> None:
    source = make_clip(tmp_path / "phone.mov", Clip(codec="libx264", size=(48, 64), rotation=90))
    job = client.submit(source, Options(scale=2), paused=True)
    preview = tmp_path / "preview.mp4"
    preview.write_bytes(server.fetched(f"/api/jobs/{job.id}/preview?of=input"))
    with av.open(str(preview)) as made:
        assert next(made.decode(video=0)).rotation == 90
    thumbnail = Image.open(io.BytesIO(server.fetched(f"/api/jobs/{job.id}/thumbnail?of=input"))).convert("RGB")
    assert thumbnail.size == (48, 64)
    upright = np.rot90(picture(0, (48, 64), "yuv420p").to_ndarray(format="rgb24")).astype(int)
    shown = np.asarray(thumbnail).astype(int)  # apart from what x264 changes: its default is lossy
    assert np.abs(shown - upright).mean() < 6 < 20 < np.abs(shown - upright[::-1, ::-1]).mean()


def test_a_trial_is_the_crop_of_what_a_job_would_make(server: Server, client: Client, allowed: Path, tmp_path: Path) -> None:
    pixels = make_photo(120, 160)
    source = tmp_path / "photo.png"
    Image.fromarray(pixels).save(source)
    model = str(allowed / "x2.safetensors")
    upload = client.upload(source)
    trial = client.trial(
        wire.NewTrial(source=Source(upload=upload.id), models=[model, "photo-x2"], spot=wire.Spot(x=0.5, y=0.0), side=32)
    )
    assert trial.state == "done" and [one.model for one in trial.results] == ["before", model, "photo-x2"]
    before, nearest, shipped = (Image.open(io.BytesIO(server.fetched(one.url or ""))) for one in trial.results)
    assert before.size == nearest.size == shipped.size == (64, 64)
    assert (np.asarray(nearest) == repeated(pixels[:32, 64:96], 2)).all()
    assert trial.scores is not None and trial.scores.suggested is None and trial.scores.noise < 4


def test_the_scores_of_a_trial_suggest_a_model_for_damaged_pictures(client: Client, tmp_path: Path) -> None:
    source = tmp_path / "old.jpg"
    noisy = make_photo(128, 160).astype(float) + np.random.default_rng(0).normal(0, 12, (128, 160, 3))
    Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(source, quality=30)
    trial = client.trial(wire.NewTrial(source=Source(upload=client.upload(source).id), models=[], side=32))
    assert trial.scores is not None and trial.scores.blockiness > 1.25
    assert trial.scores.suggested == "photo-real-x4" and "compression" in trial.scores.advice


def test_a_moment_of_a_video_is_tried_as_a_clip(server: Server, client: Client, allowed: Path, tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "clip.mp4", Clip(pts=[3600 * i for i in range(50)], size=(64, 96)))
    upload = client.upload(clip)
    model = str(allowed / "x2.safetensors")
    new = wire.NewTrial(source=Source(upload=upload.id), models=[model], side=32, time=1.0, clip_seconds=0.4)
    trial = client.trial(new)
    assert trial.state == "done" and trial.kind == "video", trial
    for result in trial.results:
        assert result.state == "done" and result.url is not None, result
        path = tmp_path / f"{result.url.rpartition('/')[2]}"
        path.write_bytes(server.fetched(result.url))
        with av.open(str(path)) as made:
            frames = list(made.decode(video=0))
            assert (frames[0].height, frames[0].width, made.streams.video[0].codec_context.name) == (64, 64, "h264")
            assert len(frames) == 10  # 0.4 s at 25 a second
            middle = frames[0].to_ndarray(format="rgb24").astype(int)
        wanted = picture(25, (64, 96), "yuv420p").to_ndarray(format="rgb24")[16:48, 32:64]
        assert np.abs(middle - repeated(wanted, 2).astype(int)).mean() < 6


def test_a_trial_of_nothing_tells_why(client: Client, tmp_path: Path) -> None:
    broken = tmp_path / "x.png"
    broken.write_bytes(b"no picture")
    trial = client.trial(wire.NewTrial(source=Source(upload=client.upload(broken).id), models=["photo-x2"]))
    assert trial.state == "failed" and trial.error is not None and trial.error.error.startswith("x.png: ")


def test_a_trial_that_is_deleted_stops_and_the_next_one_runs(server: Server, client: Client, tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "clip.mp4", Clip(pts=[3600 * i for i in range(100)], size=(64, 96)))
    source = {"upload": client.upload(clip).id}
    with server.http() as http:
        slow = {"source": source, "models": ["photo-x4"] * 9, "side": 64, "clip_seconds": 4}
        id = http.post("/api/trials", json=slow).json()["id"]
        until(lambda: any(one["state"] == "running" for one in http.get(f"/api/trials/{id}").json()["results"]))
        with within(3):
            assert http.delete(f"/api/trials/{id}").status_code == 204
        assert http.get(f"/api/trials/{id}").status_code == 404
    assert not (server.data / "trials" / id).exists()
    again = client.trial(wire.NewTrial(source=Source.model_validate(source), models=["photo-x2"], side=16))
    assert again.state == "done", again


def test_a_trial_that_waits_is_not_hurt_when_the_one_before_it_is_deleted(server: Server, client: Client, photo: Path) -> None:
    """A page starts the next trial first and deletes the older one then. The warm child carries out both."""
    source = {"upload": client.upload(photo).id}
    with server.http() as http:
        slow = http.post("/api/trials", json={"source": source, "models": ["photo-x4"] * 20, "side": 16}).json()["id"]
        until(lambda: any(one["state"] == "running" for one in http.get(f"/api/trials/{slow}").json()["results"]))
        children = set(server.children())
        next_one = http.post("/api/trials", json={"source": source, "models": ["photo-x2"], "side": 16}).json()["id"]
        assert http.delete(f"/api/trials/{slow}").status_code == 204
        until(lambda: http.get(f"/api/trials/{next_one}").json()["state"] != "running")
        assert http.get(f"/api/trials/{next_one}").json()["error"] is None
        assert children <= set(server.children())


def test_a_model_that_does_not_fit_fails_alone(client: Client, photo: Path) -> None:
    trial = client.trial(wire.NewTrial(source=Source(upload=client.upload(photo).id), models=["photo-x2", "nothing"], side=16))
    assert [one.state for one in trial.results] == ["done", "done", "failed"]
    assert trial.results[2].error is not None and trial.results[2].error.exit_code in (2, 4)
