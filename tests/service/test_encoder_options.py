"""Options of encoders: what the command line takes, except what could name files."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from conftest import Upframe
from serving import Server
from upframe.client import Client, Options, ServiceError, Source
from upframe.errors import OptionError
from upframe.service.encoder_options import OPTIONS, PARAMS, check_encoder_options
from upframe.service.wire import VideoOptions
from video_files import Clip, make_clip


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    return make_clip(tmp_path / "clip.mp4", Clip(pts=[3600 * i for i in range(8)]))


@pytest.mark.slow
def test_the_encoder_gets_them_as_from_the_command_line(client: Client, clip: Path, tmp_path: Path, upframe: Upframe) -> None:
    own = tmp_path / "own.mkv"
    chosen = {"tune": "grain", "x265-params": "aq-mode=3:no-sao=1"}
    flags = [
        "-f",
        "mkv",
        "-c",
        "h265",
        "--crf",
        30,
        "--preset",
        "fast",
        "-e",
        "tune=grain",
        "-e",
        "x265-params=aq-mode=3:no-sao=1",
    ]
    assert upframe("upscale", clip, "-s", 2, "-o", own, *flags, "--no-audio", "-q").code == 0
    video = VideoOptions(codec="h265", crf=30, preset="fast", audio=False)
    with_them, without = (
        client.wait(client.submit(clip, Options(scale=2, format="mkv", video=one)).id)
        for one in (video.model_copy(update={"encoder": chosen}), video)
    )
    assert client.output(with_them.id) == own.read_bytes() != client.output(without.id)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"tune": "nonsense"}, "Check `video.encoder=tune=nonsense`"),
        ({"quant_mat": "hq"}, "video.encoder='quant_mat': H.264 has no such option"),
    ],
)
def test_what_the_encoder_refuses_is_told_in_the_command_lines_words(
    client: Client, clip: Path, options: dict[str, str], said: str
) -> None:
    upload = client.upload(clip)
    with pytest.raises(ServiceError) as refused:
        client.plan(Source(upload=upload.id), Options(scale=2, video=VideoOptions(codec="h264", encoder=options)))
    assert said in str(refused.value) and refused.value.status == 422


@pytest.mark.slow
def test_a_stranger_cannot_have_the_server_write_a_file(server: Server, client: Client, clip: Path, tmp_path: Path) -> None:
    evil = tmp_path / "evil"
    body = {"encoder": {"x264-params": f"pass=1:stats={evil}"}}
    with server.http() as http, clip.open("rb") as file:
        upload, jobs = client.upload(clip).id, client.jobs()
        answers = [
            http.post(route, json={"source": {"upload": upload}, "options": {"video": body}})
            for route in ("/api/plans", "/api/trials", "/api/jobs")
        ]
        answers.append(http.post("/api/jobs", files={"file": file}, data={"options": json.dumps({"video": body})}))
    for answer in answers:
        assert answer.status_code == 422 and answer.json()["option"] == "video.encoder", answer.text
        assert "video.encoder='x264-params=pass=1': is not among the encoder options of this service" in answer.json()["error"]
    assert not list(tmp_path.glob("evil*")) and client.jobs() == jobs


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("stats", "x"),
        ("passlogfile", "x"),
        ("threads", "1"),
        ("x264opts", "crf=20"),
        ("x264-params", "stats=x"),
        ("x264-params", "cqmfile=x"),
        ("x264-params", "keyint=7:qpfile=x"),
        ("x264-params", "keyint=/etc/passwd"),
        ("x264-params", "keyint=1,stats=x"),
        ("x265-params", "csv=x"),
        ("x265-params", "keyint=7:analysis-save=x"),
        ("x265-params", "recon=x"),
        ("svtav1-params", "fgs-table=x"),
        ("svtav1-params", "stats=x"),
        ("tune", "film\nstats=x"),
        ("tune", "../film"),
        ("tune", ""),
        ("x264-params", ""),
    ],
)
def test_whatever_could_name_a_file_is_refused(key: str, value: str) -> None:
    with pytest.raises(OptionError):
        check_encoder_options({key: value})


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("tune", "animation"),
        ("deblock", "1:1"),
        ("x264-params", "deblock=1,1:8x8dct"),
        ("g", "250"),
        ("svtav1-params", "film-grain=8"),
    ],
)
def test_known_options_pass(key: str, value: str) -> None:
    check_encoder_options({key: value})


def test_the_documentation_lists_them_all() -> None:
    text = (Path(__file__).parents[2] / "docs" / "serve.md").read_text()
    part = text[text.index("### Options of the encoder") : text.index("### Try before you pay")]
    rows = [row.split("|") for row in part.splitlines() if row.startswith("|") and "`" in row]
    listed = {row[1].strip(" `"): set(re.findall(r"`([^`]+)`", row[2])) for row in rows}
    assert listed == {"of the encoder": set(OPTIONS), **PARAMS}
