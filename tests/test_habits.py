"""The files that greet contributors agree with each other and with the code: workflows, forms, citation, checklists."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

import upframe

ROOT = Path(__file__).resolve().parents[1]
FORMS = sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml"))
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
PAGES = [
    ROOT / ".github" / "PULL_REQUEST_TEMPLATE.md",
    *(ROOT / name for name in ("CODE_OF_CONDUCT.md", "CONTRIBUTING.md", "SECURITY.md", "docs/releasing.md")),
]


def text(path: Path | str) -> str:
    return (ROOT / path).read_text(encoding="utf-8")


def project() -> dict[str, Any]:
    return tomllib.loads(text("pyproject.toml"))


def pythons(source: str, key: str) -> list[str]:
    """The versions in a list of one line, `key: ["3.11", ...]`."""
    lists = re.findall(rf"^ *{key}: \[(.+)\]$", source, re.MULTILINE)
    assert lists, key
    return [version for one in lists for version in re.findall(r'"([\d.]+)"', one)]


# Versions -------------------------------------------------------------------------------------------------------------
def test_ci_runs_the_versions_of_python_that_the_package_names() -> None:
    named = [c.removeprefix("Programming Language :: Python :: ") for c in project()["project"]["classifiers"]]
    named = [version for version in named if re.fullmatch(r"3\.\d+", version)]
    assert pythons(text(".github/workflows/tests.yml"), "python") == named
    assert project()["project"]["requires-python"] == f">={named[0]}"
    smoke = pythons(text(".github/workflows/wheels.yml"), "python")
    assert smoke == [named[0], named[-1]]


def test_ci_runs_on_all_three_systems() -> None:
    for name in ("tests.yml", "wheels.yml"):
        assert "os: [ubuntu-latest, macos-latest, windows-latest]" in text(f".github/workflows/{name}"), name


def test_one_version_everywhere() -> None:
    version = project()["project"]["version"]
    assert upframe.__version__ == version
    assert re.search(r"^version: (.+)$", text("CITATION.cff"), re.MULTILINE)[1] == version  # type: ignore[index]
    assert f"\n## {version}\n" in text("CHANGELOG.md")


def test_the_release_workflow_reads_versions_where_they_are() -> None:
    """Its patterns, with the version put in, each match one whole line of the file that they are for."""
    version = project()["project"]["version"]
    patterns = re.findall(r"grep -qx (\".+\") (\S+)", text(".github/workflows/release.yml"))
    assert {file for _, file in patterns} == {"pyproject.toml", "src/upframe/version.py", "CITATION.cff", "CHANGELOG.md"}
    for pattern, file in patterns:
        line = pattern[1:-1].replace('\\"', '"').replace("$version", version)
        assert text(file).splitlines().count(line) == 1, (line, file)


# Citation -------------------------------------------------------------------------------------------------------------
def test_the_citation_has_the_fields_of_its_format_and_says_what_the_package_says() -> None:
    """Citation File Format 1.2.0: the required fields, and no other than it knows."""
    lines = text("CITATION.cff").splitlines()
    fields = dict(re.fullmatch(r"([a-z-]+): ?(.*)", line).groups() for line in lines if re.match(r"[a-z]", line))  # type: ignore[union-attr]
    required = {"cff-version", "message", "title", "authors"}
    known = required | {"type", "abstract", "version", "license", "keywords", "date-released", "doi", "repository-code", "url"}
    assert required <= fields.keys() <= known
    about = project()["project"]
    assert fields["cff-version"] == "1.2.0"
    assert (fields["title"], fields["type"], fields["license"]) == (about["name"], "software", about["license"])
    assert fields["abstract"].strip('".') == about["description"]
    keywords = text("CITATION.cff").split("keywords:\n")[1]
    assert re.findall(r"^  - (.+)$", keywords, re.MULTILINE) == about["keywords"]
    assert re.search(r'^authors:\n  - name: ".+"$', text("CITATION.cff"), re.MULTILINE)


# Workflows and forms --------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_workflows_have_no_secrets_and_few_rights(path: Path) -> None:
    source = path.read_text(encoding="utf-8")
    assert "secrets." not in source and "password" not in source.replace("there is no password", "")
    assert re.search(r"^permissions:\n  contents: read$", source, re.MULTILINE), "the default is read and nothing else"
    assert "pull_request_target" not in source, "it would run a stranger's code with the repository's rights"
    for step in re.findall(r"uses: (\S+)", source):
        if step.startswith("./"):
            assert (ROOT / step).is_file(), step
        else:
            assert re.fullmatch(r"[\w.-]+/[\w./-]+@(v\d+|release/v\d+)", step), step
    jobs = source.split("\njobs:\n")[1]
    assert jobs.count("runs-on:") == jobs.count("timeout-minutes:"), "every job that runs has a limit of time"


def test_installations_in_ci_are_pinned() -> None:
    for path in WORKFLOWS:
        for line in path.read_text(encoding="utf-8").splitlines():
            if "pip install" in line and ("-e " in line or "upframe==" in line):
                assert "-c constraints.txt" in line, (path.name, line)


@pytest.mark.parametrize("path", FORMS, ids=lambda path: path.name)
def test_forms_ask_for_what_is_needed(path: Path) -> None:
    source = path.read_text(encoding="utf-8")
    if path.name == "config.yml":
        assert source == "blank_issues_enabled: false\n"
        return
    assert re.match(r"name: .+\ndescription: .+\nlabels: \[.+\]\nbody:\n", source)
    ids = re.findall(r"^    id: (\w+)$", source, re.MULTILINE)
    assert len(ids) == len(set(ids)) >= 4
    if path.name != "feature.yml":
        assert {"version", "command"} <= set(ids)
        assert "`upframe --version`" in source


def test_there_is_a_form_for_each_kind_of_issue() -> None:
    assert {path.name for path in FORMS} == {"bug.yml", "feature.yml", "wrong_picture.yml", "config.yml"}


# Commands and links ---------------------------------------------------------------------------------------------------
def targets() -> set[str]:
    return set(re.findall(r"^([a-z][\w-]*):", text("Makefile"), re.MULTILINE))


def test_targets_of_make_are_declared() -> None:
    phony = re.search(r"^\.PHONY: (.+)$", text("Makefile"), re.MULTILINE)
    assert phony is not None and set(phony[1].split()) == targets()


@pytest.mark.parametrize("path", [*PAGES, *WORKFLOWS, ROOT / ".ci" / "run", ROOT / "README.md"], ids=lambda path: path.name)
def test_targets_named_exist(path: Path) -> None:
    source = path.read_text(encoding="utf-8")
    spans = re.findall(r"`make ([\w-]+)", source) + re.findall(r"^(?:\s*- run: )?make ([\w-]+)", source, re.MULTILINE)
    assert set(spans) <= targets()


def test_hooks_run_what_make_check_runs() -> None:
    check = text("scripts/check")
    entries = re.findall(r"^ +entry: (\S+)", text(".pre-commit-config.yaml"), re.MULTILINE)
    assert sorted(set(entries)) == ["lint-imports", "mypy", "ruff"]
    assert all(f'"$BIN/{entry}"' in check for entry in entries)


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_links_and_files_named_are_there(path: Path) -> None:
    source = path.read_text(encoding="utf-8")
    for link in re.findall(r"\]\(([^)#\s]+)[^)]*\)", source):
        if not re.match(r"[a-z]+:", link):
            assert (path.parent / link).exists(), link
    defined = set(re.findall(r"^\[([^\]]+)\]: ", source, re.MULTILINE))
    assert set(re.findall(r"\]\[([^\]]+)\]", source)) <= defined
    for name in re.findall(r"`((?:src|tests|docs|scripts|\.github)/[\w./-]+\w)`", source):
        assert (ROOT / name).exists(), name


def test_the_layout_in_contributing_is_that_of_the_package() -> None:
    """A room that is added, moved or removed changes the table."""
    folders = {p.name for p in (ROOT / "src" / "upframe").iterdir() if (p / "__init__.py").is_file()}
    section = text("CONTRIBUTING.md").split("## Where things are")[1].split("\n## ")[0]
    assert set(re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE)) == folders


def test_markers_in_contributing_are_those_that_are_registered() -> None:
    registered = {line.split(":")[0] for line in project()["tool"]["pytest"]["ini_options"]["markers"]}
    assert registered == {"slow", "shared", "gpu", "browser", "fuzz"}
    assert registered <= set(re.findall(r"^\| `(\w+)` \|", text("CONTRIBUTING.md"), re.MULTILINE))
