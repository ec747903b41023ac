"""The documentation matches the program: flags, codes, notices, links, results, figures of recipes, and code that runs."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from datetime import date
from pathlib import Path
from typing import get_args, get_type_hints

import pytest
import torch
from PIL import Image

import draw_tables
import upframe
from conftest import make_photo
from upframe import errors
from upframe.cli.entry import app
from upframe.cli.parser import EXIT_CODES, VIDEO
from upframe.errors import NOTICES, UpframeError
from upframe.evaluation.evaluate import PROTOCOLS
from upframe.jobs.events import Event
from upframe.media.image.files import write_pixels
from upframe.media.video.files import CODECS, CONTAINERS
from upframe.models.architectures.rlfn import RLFN
from upframe.models.checkpoints import Card, save
from upframe.models.families.rlfn import spec_for
from upframe.models.networks import MODELS
from upframe.models.official import OFFICIAL
from upframe.models.registry import SHIPPED
from upframe.training.degradations.pipeline import DEGRADATIONS
from upframe.training.recipes.recipe import LOSS_OPTIONS
from upframe.training.recipes.registry import find_recipe

ROOT = Path(__file__).resolve().parents[1]
PAGES = [*sorted((ROOT / "docs").glob("*.md")), *sorted(ROOT.glob("*.md"))]


def page(name: str) -> str:
    return (ROOT / "docs" / name).read_text(encoding="utf-8")


def section(text: str, heading: str) -> str:
    """The text below `## heading`."""
    return text.split(f"\n## {heading}\n", 1)[1].split("\n## ", 1)[0]


def rows(text: str) -> list[list[str]]:
    """Cells of the lines of all tables in `text`, without headings."""
    lines = re.findall(r"^\|(.*)\|$", text, re.MULTILINE)
    table = [[cell.strip() for cell in line.split("|")] for line in lines]
    rules = {i for i, cells in enumerate(table) if all(re.fullmatch(r":?-+:?", cell) for cell in cells)}
    return [cells for i, cells in enumerate(table) if i not in rules and i + 1 not in rules]


def code(text: str) -> list[str]:
    """Everything in back quotes within lines."""
    return re.findall(r"`([^`\n]+)`", without_fences(text))


def without_fences(text: str) -> str:
    return re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)


def fenced(text: str, language: str) -> list[str]:
    blocks = re.findall(r"^```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return [body for kind, body in blocks if kind == language]


# Flags, codes, notices ------------------------------------------------------------------------------------------------
def flags_of(command: str, *, video: bool | None = None) -> set[str]:
    """Every flag of a sub-command, as the command line itself knows them; or only those for videos, or only the others."""
    parser = app
    for word in command.split():
        parser = parser[word]
    arguments = parser.assemble_argument_collection()
    # Positional arguments are documented as such; their names as flags are an accident of the library.
    named = [a for a in arguments if a.index is None and video in (None, VIDEO in (a.parameter.group or ()))]
    return {name for a in named for name in (*a.names, *a.negatives) if name.startswith("-")}


@pytest.mark.parametrize(
    ("name", "heading", "command", "video"),
    [
        ("upscale.md", "All flags", "upscale", False),
        ("video.md", "Video flags", "upscale", True),
        ("training.md", "All flags", "train", None),
        ("serve.md", "Flags", "serve", None),
    ],
)
def test_every_flag_is_documented_and_no_other(name: str, heading: str, command: str, video: bool | None) -> None:
    table = rows(section(page(name), heading))
    documented = {flag for cells in table for flag in code(cells[0])}
    assert documented and documented == flags_of(command, video=video)


@pytest.mark.parametrize("name", [p.name for p in PAGES if p.parent.name == "docs" and p.name != "commands.md"])
def test_flags_named_anywhere_exist(name: str) -> None:
    commands = (
        "upscale",
        "deblur",
        "denoise",
        "interpolate",
        "evaluate",
        "compare",
        "bench",
        "export",
        "doctor",
        "completion",
        "train",
        "train list",
        "train plot",
        "train difference-map",
        *(f"models {c}" for c in ("list", "info", "verify", "convert")),
        "serve",
        "watch",
        "config show",
        "data check",
        "data preview",
        *(f"data prepare {c}" for c in ("reds", "vimeo90k", "div2k", "videolq", "lq", "sub-images", "pans", "lmdb")),
    )
    known = {flag for command in commands for flag in flags_of(command)} | {
        "--help",
        "--help-video",
        "--help-all",
        "--version",
        "--tile_size",
    }
    # Only code, no line that runs another program, and only flags after those of torchrun.
    spans = code(page(name)) + [
        line.rpartition("-m upframe")[2]
        for block in fenced(page(name), "")
        for line in block.splitlines()
        if not line.lstrip().startswith(("python", "pip", "curl", "docker", "systemctl"))
    ]
    used = {flag for span in spans if "python " not in span for flag in re.findall(r"(?<![\w-])--[a-z][\w-]*", span)}
    assert used <= known


def test_the_command_reference_and_the_man_page_are_those_of_the_program() -> None:
    """In a process of its own: cyclopts words the usage by the way in which the process was started."""
    script = ROOT / "scripts" / "draw_commands.py"
    done = subprocess.run([sys.executable, str(script), "--check"], capture_output=True, text=True)
    assert done.returncode == 0, f"run python scripts/draw_commands.py: {done.stdout}{done.stderr}"


@pytest.mark.skipif(shutil.which("groff") is None, reason="groff is not here")
def test_groff_takes_the_man_page() -> None:
    done = subprocess.run(
        ["groff", "-man", "-ww", "-Tutf8", "-Kutf8", str(ROOT / "packaging" / "upframe.1")],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "macro" not in done.stderr and "escape" not in done.stderr and "vulkan" in done.stdout


def test_exit_codes_are_those_of_the_errors_and_signals() -> None:
    def of(kind: type[UpframeError]) -> set[int]:
        return {kind.exit_code}.union(*(of(child) for child in kind.__subclasses__()))

    documented = {int(cells[0]) for cells in rows(section(page("upscale.md"), "Exit codes"))}
    signals = {128 + number for number in (signal.SIGINT, signal.SIGTERM, getattr(signal, "SIGHUP", 1))}
    assert documented == {0} | of(UpframeError) | signals
    helped = {int(number) for number in re.findall(r"\b(\d+)  ?[a-z]", EXIT_CODES)}
    assert helped == documented


def test_errors_of_the_python_page_have_the_codes_it_says() -> None:
    table = rows(section(page("python.md"), "Errors"))
    assert len(table) == 8
    for cells in table:
        assert getattr(errors, code(cells[0])[0]).exit_code == int(cells[2])


def test_every_notice_is_documented_with_what_strict_makes_of_it() -> None:
    documented = {code(cells[0])[0]: cells for cells in rows(page("notices.md"))}
    assert documented.keys() == NOTICES.keys()
    for id, kind in NOTICES.items():
        assert int(documented[id][3]) == (2 if kind.at_planning else 7), id


def test_every_event_of_a_job_is_documented() -> None:
    documented = {code(cells[0])[0] for cells in rows(section(page("upscale.md"), "Progress and JSON"))}
    assert documented == {*get_args(get_type_hints(Event)["event"]), "summary", "plan", "error"}  # these three are the CLI's


# Models, protocols, recipes -------------------------------------------------------------------------------------------
def test_every_model_protocol_and_official_file_is_documented() -> None:
    named = set(code(page("models.md")))
    assert {*MODELS, *SHIPPED, *(official.file for official in OFFICIAL.values())} <= named
    assert set(PROTOCOLS) <= set(code(page("measuring.md")))
    helped = str(app["evaluate"].default_command.__doc__)
    assert all(re.search(rf"\b{name}\b", helped) for name in PROTOCOLS)


def test_codecs_and_containers_are_those_that_are_written() -> None:
    text = section(page("video.md"), "Codecs")
    for cells in rows(text):
        codec = CODECS[code(cells[0])[0]]
        crf, preset = (
            re.search(pattern, cells[i]) for i, pattern in ((2, r"(\d+), up to (\d+)"), (3, r"`(.+?)`; `(.+?)` to `(.+?)`"))
        )
        assert (crf and tuple(map(int, crf.groups()))) == (None if codec.crf is None else (codec.crf, codec.max_crf))
        assert (preset and preset.groups()) == (codec.preset and (codec.preset, codec.presets[0], codec.presets[-1]))
    assert {code(cells[0])[0] for cells in rows(text)} == CODECS.keys()
    held = section(page("video.md"), "What cannot be kept")
    headings = re.findall(r"\w+", held.split("\n|", 1)[1].splitlines()[0])
    table = {cells[0]: dict(zip(headings, cells[1:], strict=True)) for cells in rows(held)}
    assert set(headings) == {c.label for c in CONTAINERS.values()}
    for container in CONTAINERS.values():
        names = [CODECS[name].label for name in container.codecs]
        assert table["codecs"][container.label] in (", ".join(names), "all five")
        assert (table["codecs"][container.label] == "all five") == (set(container.codecs) == CODECS.keys())
        for row, is_held in (
            ("bitmap subtitles (PGS, VobSub)", container.holds_bitmaps),
            ("fonts and attachments", container.holds_attachments),
            ("cover picture", container.holds_covers),
            ("chapters", container.holds_chapters),
        ):
            assert (table[row][container.label] == "kept") == is_held, (row, container.name)
        assert (table["tags of tracks"][container.label] == "all") == container.has_free_tags
        assert (table["text subtitles"][container.label] == "kept") == ("ass" in container.text_kept)


def test_every_command_line_of_the_training_page_names_a_recipe_and_fields_there_are() -> None:
    """The tables of recipes and their fields are compared in training/test_recipes.py."""
    lines = [line for block in fenced(page("training.md"), "") for line in block.splitlines()]
    commands = [found[1] for line in lines if (found := re.search(r"upframe train ((?!plot|difference)[a-z].*)", line))]
    assert len(commands) > 5
    for command in commands:
        changes = dict(change.split("=", 1) for change in re.findall(r"--set (\S+)", command))
        find_recipe(command.split()[0]).override(changes)
    (groups,) = (re.fullmatch(r"--set '(.+)'", line) for line in lines if line.startswith("--set"))
    assert groups is not None
    find_recipe("vrt-001").override(dict([groups[1].split("=", 1)]))


def test_losses_and_degradations_are_documented_with_the_options_they_take() -> None:
    losses = {code(cells[0])[0]: set(code(cells[1])) for cells in rows(section(page("training.md"), "Losses"))}
    assert losses == {kind: set(options) for kind, options in LOSS_OPTIONS.items()}
    degradations = {code(cells[0])[0] for cells in rows(section(page("training.md"), "Degradations"))}
    assert degradations == DEGRADATIONS.keys()


# The layout -----------------------------------------------------------------------------------------------------------
ONE_PER_THING = (
    "models/architectures",
    "models/families",
    "models/reference",
    "training/recipes/presets",
    "datasets/prepare",
    "cli",
)
"""Packages with one file per network, recipe, set or command, which the design page names as a whole."""


def test_rooms_of_the_design_page_are_the_layers_that_are_enforced() -> None:
    layers = (ROOT / ".importlinter").read_text("utf-8").split("layers =\n")[1].split("\n\n")[0]
    enforced = [set(re.findall(r"\w+", line)) for line in layers.splitlines()]
    assert [set(code(cells[1])) for cells in rows(section(page("design.md"), "Rooms"))] == enforced


def test_every_module_is_on_the_design_page_and_no_other() -> None:
    source = ROOT / "src" / "upframe"
    named: set[str] = set()
    for heading in ("Where things are", "Jobs and the public door", "The service"):
        room = ""
        for cells in rows(section(page("design.md"), heading)):
            (room,) = code(cells[0]) or [room]
            named |= {f"{room}/{name}" for name in code(cells[1]) if not name.endswith("/")}
    files = {path.relative_to(source).with_suffix("").as_posix() for path in source.rglob("*.py") if path.stem[0] != "_"}
    assert named == {file for file in files if "/" in file and not file.startswith(ONE_PER_THING)}


# Results --------------------------------------------------------------------------------------------------------------
WEIGHTS = ROOT / "src" / "upframe" / "models" / "weights"
RESULTS = sorted((ROOT / "benchmarks").glob("*.json"))


def test_tables_of_results_are_those_that_the_script_draws() -> None:
    assert {ROOT / "README.md", ROOT / "docs" / "results.md", ROOT / "docs" / "speed.md"} <= draw_tables.PAGES.keys()
    for path, names in draw_tables.PAGES.items():
        text = path.read_text("utf-8")
        assert draw_tables.drawn(path) == text, f"{path.name}: run python scripts/draw_tables.py"
        assert set(re.findall(r"<!-- ([\w-]+):begin -->", text)) == set(names)
        assert all(rows(text.split(f"<!-- {name}:begin -->")[1].split(f"<!-- {name}:end -->")[0]) for name in names)


def test_every_file_of_results_is_drawn_and_says_how_it_was_measured() -> None:
    drawn = {draw_tables.TABLES[name][0] for names in draw_tables.PAGES.values() for name in names}
    assert {path.name for path in RESULTS} == drawn
    index = (ROOT / "benchmarks" / "README.md").read_text("utf-8")
    for path in RESULTS:
        results = json.loads(path.read_text("utf-8"))
        date.fromisoformat(results["date"])
        assert results["cpu"] and results["threads"] >= 1 and {"upframe", "torch"} <= results["versions"].keys(), path.name
        assert results["command"] and results["rows"] and f"`{path.name}`" in index, path.name


def test_published_scores_are_those_of_cards_and_official_files() -> None:
    results = json.loads((ROOT / "benchmarks" / "quality.json").read_text("utf-8"))
    by_arch = {official.arch: official for official in OFFICIAL.values()}
    compared = 0
    for row in results["rows"]:
        if row["weights"] == "shipped":
            card = json.loads((WEIGHTS / f"{row['model'].replace('-', '_')}.card.json").read_text("utf-8"))
            for dataset in ("Set5", "Set14", "B100"):
                score = card["scores"]["sisr-y"][dataset]
                assert row[dataset] == {"psnr_db": score["psnr"], "ssim": score["ssim"]}, (row["model"], dataset)
                compared += 1
        elif row["weights"] == "official":
            for score in by_arch[row["model"]].scores:
                assert abs(row[score.dataset]["psnr_db"] - score.psnr) < 0.0101, row["model"]  # official files round halves up
                assert abs(row[score.dataset]["ssim"] - score.ssim) < 0.000101, row["model"]
                compared += 1
    assert compared > 30


def test_the_readme_begins_with_a_small_picture_of_before_and_after() -> None:
    text = (ROOT / "README.md").read_text("utf-8")
    links = re.findall(r"!\[[^]]+\]\(([^)]+)\)", text)
    assert text.index(links[0]) < text.index("## Two commands")
    for link in links:
        assert (ROOT / link).stat().st_size <= 150_000
        with Image.open(ROOT / link) as picture:
            assert min(picture.size) >= 400


# Links ----------------------------------------------------------------------------------------------------------------
def anchors(path: Path) -> set[str]:
    """The anchors that GitHub makes of headings."""
    headings = re.findall(r"^#+ (.+)$", without_fences(path.read_text("utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_relative_links_resolve(path: Path) -> None:
    links = re.findall(r"\]\(([^)\s]+)\)", without_fences(path.read_text("utf-8")))
    for link in links:
        if re.match(r"[a-z]+:", link):
            continue
        file, _, anchor = link.partition("#")
        target = path.parent / file if file else path
        assert target.exists(), link
        if anchor:
            assert anchor in anchors(target), link


def test_every_page_is_in_the_index() -> None:
    index = page("README.md")
    missing = [p.name for p in (ROOT / "docs").glob("*.md") if p.name != "README.md" and f"({p.name})" not in index]
    assert not missing


# Code that runs -------------------------------------------------------------------------------------------------------
@pytest.mark.slow
def test_the_examples_of_the_python_page_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("UPFRAME_WEIGHTS", raising=False)
    torch.manual_seed(0)
    parameters = {"channels": 8, "blocks": 1, "scale": 2, "inner_channels": 8, "colours": 3}
    arch = spec_for(**parameters).name
    card = Card(name="toy", arch=arch, parameters=parameters, scale=2)
    save(tmp_path / "weights.safetensors", RLFN(channels=8, blocks=1, scale=2).state_dict(), card)
    write_pixels(tmp_path / "photo.png", make_photo(40, 60))
    shutil.copy(ROOT / "examples" / "media" / "bunny.mp4", tmp_path / "clip.mp4")
    (tmp_path / "sets" / "Mini" / "HR").mkdir(parents=True)
    write_pixels(tmp_path / "sets" / "Mini" / "HR" / "one.png", make_photo(72, 84, seed=1))
    names: dict[str, object] = {}
    for block in fenced(page("python.md"), "python"):
        exec(compile(block, "docs/python.md", "exec"), names)
    assert (tmp_path / "photo_photo_x2.png").is_file() and (tmp_path / "photo_large.png").is_file()
    assert (tmp_path / "clip_large.mkv").is_file()
    assert (tmp_path / "sets_large" / "Mini" / "HR" / "one.png").is_file()


def test_the_python_page_imports_no_inner_module_and_names_the_whole_door() -> None:
    imported = re.findall(r"^\s*(?:from|import) (upframe[\w.]*)", "".join(fenced(page("python.md"), "python")), re.MULTILINE)
    assert imported == ["upframe"]
    assert not re.findall(
        r"upframe\.(?!errors)\w+\.\w+", "".join(fenced(page("python.md"), "python")).replace("Model.from_module", "")
    )
    table = page("python.md").split("## Enlarge something")[0]
    assert {name for cells in rows(table) for name in code(cells[0])} == set(upframe.__all__) - {"__version__"}


@pytest.mark.slow
def test_the_worked_example_of_a_new_model_passes_its_own_tests(tmp_path: Path) -> None:
    """The page is applied to a copy of the source as a newcomer would, and the tests that it shows are run there."""
    text = page("add-a-model.md")
    shutil.copytree(ROOT / "src", tmp_path / "src", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "tests" / "models" / "architectures").mkdir(parents=True)
    for name in ("pyproject.toml", "tests/conftest.py"):
        shutil.copy(ROOT / name, tmp_path / name)
    for block in fenced(text, "python"):
        head, _, body = block.partition("\n")
        (tmp_path / head.removeprefix("# file: ")).write_text(body, encoding="utf-8")
    for block in fenced(text, "diff"):
        head, *lines = block.splitlines()
        path = tmp_path / head.removeprefix("# file: ")
        before = "\n".join(line[1:] for line in lines if line[0] in " -")
        after = "\n".join(line[1:] for line in lines if line[0] in " +")
        source = path.read_text(encoding="utf-8")
        assert source.count(before) == 1, (path.name, before)
        path.write_text(source.replace(before, after), encoding="utf-8")
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "src"), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/models/architectures/test_espcn.py"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    passed = re.search(r"(\d+) passed", done.stdout)
    assert passed is not None and int(passed[1]) >= 8
