"""The guards of `make check` are tried: whatever is planted in a copy of the source is found and named."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "scripts"))

pytest.importorskip("importlinter")
import check_house  # noqa: E402
import house  # noqa: E402

LINT = "from importlinter.cli import lint_imports_command; lint_imports_command()"


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of everything that the guards read."""
    root = tmp_path_factory.mktemp("house")
    for name in ("src", "docs", "scripts"):
        shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__", "*.so"))
    for name in (".importlinter", "README.md"):
        shutil.copy(ROOT / name, root / name)
    return root


@contextmanager
def planted(root: Path, name: str, text: str) -> Iterator[None]:
    """`text` at the end of a module, which may be a new one, for the time of the block."""
    path = root / "src" / "upframe" / name
    before = path.read_text(encoding="utf-8") if path.exists() else None
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text((before or '"""New."""\n') + f"\n{text}\n", encoding="utf-8")
    try:
        yield
    finally:
        if before is None:
            path.unlink()
        else:
            path.write_text(before, encoding="utf-8")


def lint(root: Path) -> tuple[int, str]:
    """Exit code and output of `lint-imports`, with line breaks within sentences taken out."""
    environment = {"PYTHONPATH": str(root / "src"), "PATH": "", "COLUMNS": "400"}
    done = subprocess.run([sys.executable, "-c", LINT], cwd=root, env=environment, capture_output=True, text=True, check=False)
    return done.returncode, " ".join((done.stdout + done.stderr).split())


def check(root: Path) -> list[str]:
    return list(check_house.complaints(root))


# Imports --------------------------------------------------------------------------------------------------------------
@pytest.mark.slow
def test_the_copy_keeps_all_contracts(copy: Path) -> None:
    code, told = lint(copy)
    assert code == 0 and "0 broken" in told, told


@pytest.mark.slow
@pytest.mark.parametrize(
    ("module", "statement", "library"),
    [
        ("jobs/video/workspace.py", "import av", "av"),
        ("pixels.py", "import av", "av"),
        ("training/brand_new.py", "import av", "av"),
        ("models/cards.py", "def late():\n    from av.video import frame", "av"),
        ("upscaling/tiling.py", "from PIL import Image", "PIL"),
        ("datasets/images.py", "import tifffile", "tifffile"),
        ("cli/output.py", "import pillow_heif", "pillow_heif"),
        ("engines/base.py", "import rich", "rich"),
        ("jobs/run.py", "from cyclopts import App", "cyclopts"),
        ("benchmark/cost.py", "import onnxruntime", "onnxruntime"),
        ("training/loop/train.py", "import lmdb", "lmdb"),
        ("evaluation/results.py", "from torch.utils.tensorboard import SummaryWriter", "torch.utils.tensorboard"),
        ("evaluation/results.py", "from torch.utils import tensorboard", "torch.utils.tensorboard"),
        ("jobs/items.py", "import tempfile", "tempfile"),
        ("media/image/sink.py", "import fcntl", "fcntl"),
        ("media/frames.py", "import imagecodecs", "imagecodecs"),
    ],
)
def test_a_library_outside_its_room_is_refused(copy: Path, module: str, statement: str, library: str) -> None:
    with planted(copy, module, statement):
        code, told = lint(copy)
    importer = "upframe." + module.removesuffix(".py").replace("/", ".")
    assert code == 1 and f"{importer} imports {library} " in told, told


@pytest.mark.slow
@pytest.mark.parametrize(
    ("module", "statement", "told"),
    [
        ("media/frames.py", "from upframe.media.image import png", "upframe.media.frames -> upframe.media.image.png"),
        ("pixels.py", "from upframe.upscaling import tiling", "upframe.pixels -> upframe.upscaling.tiling"),
        ("jobs/items.py", "def late():\n    from upframe.jobs import planning", "upframe.jobs.items -> upframe.jobs.planning"),
        ("models/spec.py", "from upframe.engines import cache", "upframe.models.spec -> upframe.engines.cache"),
        ("engines/base.py", "from upframe.models.architectures import vrt", "upframe.models.architectures.vrt"),
        ("cellar.py", "", "cellar"),
        ("jobs/video/shots.py", "from upframe.jobs.video import render", "upframe.jobs.video"),
    ],
)
def test_an_import_upwards_or_a_room_without_a_floor_is_refused(copy: Path, module: str, statement: str, told: str) -> None:
    with planted(copy, module, statement):
        code, found = lint(copy)
    assert code == 1 and told in found, found


# Files ----------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("statement", "named"),
    [
        ("import os\nos.replace('a', 'b')", "os.replace"),
        ("from os import rename as move\nmove('a', 'b')", "os.rename"),
        ("import os as system\nsystem.fsync(3)", "os.fsync"),
        ("import shutil\nshutil.move('a', 'b')", "shutil.move"),
        ("import shutil\nshutil.disk_usage('a')", "shutil.disk_usage"),
        ("import os\nact = os.fsync", "os.fsync"),
        ("from pathlib import Path\nPath('a').replace('b')", "renamed"),
        ("from pathlib import Path\nPath('a').rename(target='b')", "renamed"),
        ("import tempfile", "tempfile"),
        ("def late():\n    from tempfile import mkstemp", "tempfile"),
        ("import fcntl", "fcntl"),
        ("NAME = 'a.part'", "temporary names"),
        ("__import__('av')", "contracts do not see"),
        ("import importlib\nimportlib.import_module('av')", "contracts do not see"),
    ],
)
def test_files_are_touched_in_one_place(copy: Path, statement: str, named: str) -> None:
    with planted(copy, "jobs/naming.py", statement):
        found = check(copy)
    assert any(line.startswith("src/upframe/jobs/naming.py:") and named in line for line in found), found


def test_what_is_no_rename_passes(copy: Path) -> None:
    text = "from dataclasses import replace\nprint('a'.replace('b', 'c'), replace(1, x=2), (1).replace(x=2))"
    with planted(copy, "jobs/naming.py", text):
        assert check(copy) == []


def test_a_folder_that_import_contracts_do_not_see_is_refused(copy: Path) -> None:
    with planted(copy, "models/brand/new.py", "import av"):
        assert any("models/brand/new.py" in line and "__init__.py" in line for line in check(copy))


# Words ----------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("text", ['def f():\n    """What it is."""', 'A = 1\n"""What it is."""'])
def test_docstrings_do_not_begin_with_what(copy: Path, text: str) -> None:
    with planted(copy, "jobs/naming.py", text):
        assert any("jobs/naming.py" in line and "docstring" in line for line in check(copy))


@pytest.mark.parametrize(
    "text",
    [
        "# A film.",
        "film_plan = 1",
        "class FilmItem: ...",
        "# Two reels.",
        "class _FilePress: ...",
        "# A flat margin.",
        "# This is ours.",
        "# It takes the sound along.",
        "# As foretold.",
        "# It was said before.",
        "# It leaves out the rest.",
    ],
)
def test_a_new_word_that_the_glossary_replaces_is_refused(copy: Path, text: str) -> None:
    with planted(copy, "brand_new.py", text):
        assert any(line.startswith("src/upframe/brand_new.py: has 1 words") for line in check(copy))


@pytest.mark.parametrize("text", ["# multimedia", "# compressed", "# press Ctrl-C", "# yours", "# a filter", "# take it"])
def test_other_words_pass(copy: Path, text: str) -> None:
    with planted(copy, "brand_new.py", text):
        assert check(copy) == []


def test_an_exception_needs_a_reason_and_a_place(copy: Path) -> None:
    allow = copy / check_house.ALLOW
    before = allow.read_text(encoding="utf-8")
    try:
        allow.write_text(f"{before}src/upframe/brand_new.py | film | a film | the title of a work\n", encoding="utf-8")
        assert any("remove it" in line for line in check(copy))
        with planted(copy, "brand_new.py", "# a film"):
            assert check(copy) == []
        allow.write_text(f"{before}src/upframe/brand_new.py | film | a film |\n", encoding="utf-8")
        with pytest.raises(ValueError, match="reason"):
            check(copy)
    finally:
        allow.write_text(before, encoding="utf-8")


@pytest.mark.slow
def test_the_baseline_only_shrinks(copy: Path) -> None:
    baseline = copy / check_house.BASELINE
    before = baseline.read_text(encoding="utf-8")
    counts = check_house.Counter(check_house.read_baseline(baseline))
    try:
        baseline.write_text(f"{before}3 src/upframe/absent.py\n", encoding="utf-8")
        assert any("absent.py has 0 words, not 3" in line for line in check(copy))
        check_house.write_baseline(baseline, counts, force=False)
        assert check(copy) == [] and baseline.read_text(encoding="utf-8") == before
        counts["src/upframe/absent.py"] += 1
        with pytest.raises(ValueError, match="--force"):
            check_house.write_baseline(baseline, counts, force=False)
    finally:
        baseline.write_text(before, encoding="utf-8")


@pytest.mark.slow
def test_the_house_rules_are_kept_here() -> None:
    assert check(ROOT) == []


# Rooms ----------------------------------------------------------------------------------------------------------------
def test_rooms_are_few_and_no_arrow_runs_up_or_in_a_circle() -> None:
    found = house.survey(ROOT / "src")
    assert len(found.rooms) <= 25 and found.upward == () and found.circles == (), found.to_text()


def test_upward_arrows_and_circles_are_counted(tmp_path: Path) -> None:
    files = {
        "__init__": "VERSION = 1",
        "door": "from upframe import hall",
        "hall": "from upframe import cellar",
        "cellar": "from upframe import VERSION\ndef late():\n    from upframe import hall",
        "media/__init__": "",
        "media/a": "from upframe.media import b",
        "media/b": "from upframe.media import a",
    }
    for name, text in files.items():
        path = tmp_path / "upframe" / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    found = house.survey(tmp_path)
    assert found.rooms == ("cellar", "door", "hall", "media")
    assert found.arrows == (("cellar", "hall"), ("cellar", "upframe"), ("door", "hall"), ("hall", "cellar"))
    assert len(found.upward) == 2 and ("cellar", "upframe") in found.upward
    assert found.circles == (("upframe.cellar", "upframe.hall"), ("upframe.media.a", "upframe.media.b"))
    assert "4 rooms on" in found.to_text() and "2 upward, 2 circles" in found.to_text()
