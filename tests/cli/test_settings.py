"""Defaults of flags: a flag beats a variable, which beats a profile, which beats a file; and what a file may not state."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from PIL import Image

from conftest import Upframe
from upframe.cli.entry import app
from upframe.cli.settings_file import FOLDER_MAY
from upframe.cli.stated import COMMANDS, EXCLUSIVE, ONLY_FLAGS, by_key


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with a small picture; the user's settings are apart."""
    for name in [name for name in os.environ if name.startswith("UPFRAME_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "home"))
    here = tmp_path / "here"
    here.mkdir()
    Image.new("RGB", (8, 6), (40, 80, 120)).save(here / "p.png")
    monkeypatch.chdir(here)
    return here


def own(tmp_path: Path, text: str) -> Path:
    """The user's own file."""
    path = tmp_path / "home" / "upframe" / "upframe.toml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def held(upframe: Upframe, *arguments: object) -> dict[str, tuple[object, str]]:
    """Settings by `upframe config show` that are not defaults."""
    shown = upframe("config", "show", *arguments, "--json")
    assert shown.code == 0, shown.err
    settings = shown.of("settings")["settings"]
    return {key: (one["value"], one["from"]) for key, one in settings.items() if one["from"] != "default"}


def test_flag_beats_variable_beats_profile_beats_folder_beats_own_file(
    folder: Path, tmp_path: Path, upframe: Upframe, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = own(tmp_path, "scale = 2\nhalo = 1\n[profiles.big]\nhalo = 4\n")
    assert held(upframe) == {"scale": (2, str(mine)), "halo": (1, str(mine))}
    (folder / "upframe.toml").write_text('scale = 3\n[profiles.big]\ntile = 64\n[upscale]\nengine = "torch"\n')
    assert held(upframe)["scale"] == (3, "upframe.toml")
    assert held(upframe, "watch").keys() == {"scale", "halo"}
    assert held(upframe)["engine"] == ("torch", "upframe.toml [upscale]")
    by_profile = held(upframe, "--profile", "big")
    assert by_profile["halo"] == (4, f"{mine} [profiles.big]") and by_profile["tile"] == (64, "upframe.toml [profiles.big]")
    monkeypatch.setenv("UPFRAME_SCALE", "4")
    assert held(upframe, "--profile", "big")["scale"] == ("4", "UPFRAME_SCALE")
    monkeypatch.setenv("UPFRAME_PROFILE", "big")
    monkeypatch.setenv("UPFRAME_WATCH_SCALE", "2.5")
    assert held(upframe, "watch")["scale"] == ("2.5", "UPFRAME_WATCH_SCALE") and "halo" in held(upframe)


@pytest.mark.slow
def test_settings_reach_the_plan_and_a_flag_voids_what_answers_the_same_question(folder: Path, upframe: Upframe) -> None:
    (folder / "upframe.toml").write_text('scale = 2\nformat = "webp"\n')
    planned = upframe("p.png", "--dry-run", "--json")
    assert planned.of("plan")["size"] == [12, 16] and planned.of("plan")["output"].endswith(".webp")
    assert planned.of("settings")["settings"]["scale"] == {"value": 2, "from": "upframe.toml"}
    assert upframe("p.png", "--dry-run", "--json", "--width", 24).of("plan")["size"] == [18, 24]
    assert upframe("p.png", "--dry-run", "--json", "-s", 3).of("plan")["size"] == [18, 24]
    assert "upframe.toml" in upframe("p.png", "--dry-run").out
    assert upframe("p.png", "-v").err.count("upframe.toml: states --scale, --format") == 1


def test_a_named_file_takes_the_place_of_all_others(folder: Path, tmp_path: Path, upframe: Upframe) -> None:
    own(tmp_path, "scale = 2\n")
    (folder / "upframe.toml").write_text("halo = 3\n")
    (folder / "other.toml").write_text("[serve]\nport = 9000\n")
    assert held(upframe, "serve", "--config", "other.toml") == {"port": (9000, "other.toml [serve]")}
    assert held(upframe, "--config", "other.toml") == {}


def test_a_file_may_be_named_as_a_variable_is(folder: Path, upframe: Upframe) -> None:
    (folder / "UPFRAME_SCALE").write_text('audio = false\nexclude = ["a,b"]\n')
    assert held(upframe, "--config", "UPFRAME_SCALE").keys() == {"audio", "exclude"}
    (folder / "UPFRAME_SCALE").write_text('audio = "no"\n')
    assert 'UPFRAME_SCALE audio = "no": must be true or false.' in upframe("config", "show", "--config", "UPFRAME_SCALE").err


def test_what_a_command_does_not_have_is_skipped(folder: Path, upframe: Upframe) -> None:
    (folder / "upframe.toml").write_text("clip = true\nfps = 30\nhalo = 3\n")
    assert held(upframe, "watch") == {"halo": (3, "upframe.toml")}
    assert held(upframe).keys() == {"clip", "fps", "halo"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("scal = 2", "upframe.toml scal: no such setting. Did you mean scale?"),
        ("[serv]\nport = 1", "upframe.toml serv: no such setting. Did you mean serve?"),
        ("[watch]\nsettel = 2", "upframe.toml [watch] settel: no such setting. Did you mean settle?"),
        ("[profiles.a]\nscal = 2", "upframe.toml [profiles.a] scal: no such setting. Did you mean scale?"),
        ("scale = 2\nhalo = = 3", "upframe.toml: is not valid TOML at line 2"),
        ("scale = 2\nscale = 3\nhalo = 1", "upframe.toml: is not valid TOML at line 2"),
        ('scale = "two"', 'upframe.toml scale = "two": must be a number.'),
        ("audio = 1", "upframe.toml audio = 1: must be true or false."),
        ("halo = 1.5", "upframe.toml halo = 1.5: must be a whole number."),
        ("halo = true", "upframe.toml halo = true: must be a whole number."),
        ('engine = "gpu"', 'upframe.toml engine = "gpu": must be '),
        ("scale = [2]", "upframe.toml scale = [2]: must be a number."),
        ("profiles = 3", "upframe.toml: profiles is not a table"),
        ("[profiles]\na = 3", "upframe.toml [profiles.a]: is not a table"),
        ("watch = 3", "upframe.toml [watch]: is not a table"),
        ("crf = 99", "--crf 99 (upframe.toml): must be 0 to 63."),
    ],
)
def test_a_fault_in_a_file_is_one_line_with_file_and_key_or_line(
    folder: Path, upframe: Upframe, text: str, message: str
) -> None:
    (folder / "upframe.toml").write_text(text)
    refused = upframe("p.png", "--dry-run")
    assert refused.code == 2 and message in refused.err and refused.err.count("\n") == 1


@pytest.mark.parametrize(
    "key", ['output = "/elsewhere"', "overwrite = true", "restart = true", 'input = ["x"]', 'config = "y"']
)
def test_no_file_says_where_outputs_go_or_what_they_replace(
    folder: Path, tmp_path: Path, upframe: Upframe, monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    own(tmp_path, key)
    refused = upframe("p.png", "--dry-run")
    assert refused.code == 2 and "is never read from a file" in refused.err
    monkeypatch.setenv("UPFRAME_OVERWRITE", "1")
    own(tmp_path, "")
    assert held(upframe) == {}


@pytest.mark.parametrize("text", ['log = "x.log"', 'encoder = ["a=b"]', "max-pixels = 9", '[serve]\nhost = "0.0.0.0"'])
def test_a_file_in_the_folder_may_be_anybodys_and_states_only_how_outputs_are_made(
    folder: Path, tmp_path: Path, upframe: Upframe, text: str
) -> None:
    (folder / "upframe.toml").write_text(text)
    refused = upframe("config", "show", "serve")
    assert refused.code == 2 and "is not read from a file of the current folder" in refused.err
    (folder / "upframe.toml").rename(own(tmp_path, ""))
    assert upframe("config", "show", "serve").code == 0


def test_what_is_named_must_be_there(folder: Path, upframe: Upframe) -> None:
    assert "no such file" in upframe("p.png", "--config", "none.toml").err
    (folder / "upframe.toml").write_text("[profiles.talk]\nscale = 2\n")
    for command in ("upscale", "deblur", "denoise", "interpolate", "watch"):
        refused = upframe(command, "p.png", "-o", "out", "--profile", "tlak")
        assert refused.code == 2 and refused.err == "upframe: --profile tlak: no such profile. Did you mean talk?\n"


def test_a_variable_of_the_wrong_type_is_named(upframe: Upframe, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UPFRAME_HALO", "many")
    refused = upframe("p.png", "--dry-run")
    assert refused.code == 2 and 'UPFRAME_HALO = "many": must be a whole number.' in refused.err


def test_lists_of_keys_and_commands_name_those_that_there_are(upframe: Upframe) -> None:
    known = {key for command in COMMANDS for key in by_key(app[command].assemble_argument_collection())}
    assert FOLDER_MAY | ONLY_FLAGS | frozenset().union(*EXCLUSIVE) <= known
    assert not FOLDER_MAY & ONLY_FLAGS
    assert all(upframe("config", "show", command).code == 0 for command in COMMANDS)
