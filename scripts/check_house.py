"""Check rules of the house that linters do not know: who touches files, how docstrings begin, which words are used.

Usage: python scripts/check_house.py [--root DIR] [--write-baseline [--force]]

* files: outside src/upframe/files.py nothing makes temporary names, renames, syncs, locks or looks at disk room.
* dynamic import: modules are imported by statements, which import contracts see.
* package: every folder of src with modules has an __init__.py, or import contracts do not see them.
* docstring: no docstring begins with "What ".
* words: src, docs and README.md use the words of the glossary (CONTRIBUTING.md) instead of those in `WORDS` and `PHRASES`.

scripts/house_allow.txt lists exceptions, each with its reason. scripts/house_baseline.txt holds how many of the words each
file still has: more are refused, and so is a line that is too high. --write-baseline writes the file anew, and refuses a
higher sum unless --force is given.
"""

from __future__ import annotations

import argparse
import ast
import re
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

FILES = "src/upframe/files.py"
ALLOW, BASELINE = "scripts/house_allow.txt", "scripts/house_baseline.txt"

FILE_MODULES = {"tempfile", "fcntl", "msvcrt", "filelock"}
FILE_CALLS = {
    **dict.fromkeys(("os.rename", "os.renames", "os.replace", "os.link", "shutil.move"), "put_in_place or link_file"),
    **dict.fromkeys(("os.fsync", "os.fdatasync", "os.sync"), "sync_file"),
    **dict.fromkeys(("os.lockf", "shutil.disk_usage", "os.statvfs"), "Lock or check_room"),
}
"""Functions that only files.py may call, and their replacements elsewhere."""

WORDS = {
    "film": "video",
    "films": "videos",
    "reel": "video",
    "reels": "videos",
    "press": "writer",
    "presses": "writers",
    "margin": "flat border",
    "margins": "flat borders",
    "ours": "upframe",
    "foretell": "predict",
    "foretells": "predicts",
    "foretold": "predicted",
    "said": "reported",
}
"""Words, also as parts of identifiers, and their replacements in the glossary."""

PHRASES = {
    re.compile(r"\b(?:take|takes|taken|taking|took)\b[^.\n]{0,40}\balong\b", re.IGNORECASE): "copy",
    re.compile(r"\b(?:leave|leaves|leaving|left) out\b", re.IGNORECASE): "skip",
}
_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")
_VERB = re.compile(r"\bpress (?:Ctrl|Enter|Escape|q\b|any key|a key|the key)", re.IGNORECASE)


@dataclass(frozen=True)
class Hit:
    """A place that breaks a rule."""

    path: str
    """Below the root, with slashes."""
    line: int
    rule: str
    """"files", "dynamic import", "package", "docstring", or the word."""
    message: str
    text: str
    """The line."""

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.message}"


@dataclass(frozen=True)
class Allowed:
    """A line of the allow list: hits of `rule` in `path` on lines that hold `text` are allowed."""

    path: str
    rule: str
    text: str
    reason: str

    def covers(self, hit: Hit) -> bool:
        return (self.path, self.rule) == (hit.path, hit.rule) and self.text in hit.text


# Rules ----------------------------------------------------------------------------------------------------------------
def code_hits(root: Path) -> Iterator[Hit]:
    """Break rules "files", "dynamic import" and "package" (in src) and "docstring" (in all Python files)."""
    for folder in ("src", "tests", "scripts", "examples"):
        for path in sorted((root / folder).rglob("*.py")):
            name = path.relative_to(root).as_posix()
            if folder == "src" and not path.with_name("__init__.py").exists():
                yield Hit(name, 1, "package", "its folder has no __init__.py, so import contracts do not see it", "")
            yield from _code_of(name, path.read_text(encoding="utf-8"))


@cache
def _code_of(name: str, source: str) -> tuple[Hit, ...]:
    tree, lines = ast.parse(source, name), source.splitlines()
    found = list(_docstrings(tree))
    if name.startswith("src/") and name != FILES:
        found += _file_rules(tree)
    return tuple(Hit(name, line, rule, message, lines[line - 1]) for line, rule, message in sorted(found))


def _docstrings(tree: ast.Module) -> Iterator[tuple[int, str, str]]:
    """Check all docstrings, also those below fields and constants."""
    for node in ast.walk(tree):
        for statement in getattr(node, "body", ()) if not isinstance(node, ast.Lambda | ast.IfExp) else ():
            if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant):
                text = statement.value.value
                if isinstance(text, str) and text.lstrip().startswith("What "):
                    yield statement.lineno, "docstring", 'a docstring begins with "What ": say what it is or does'


def _file_rules(tree: ast.Module) -> Iterator[tuple[int, str, str]]:
    names = _imported_names(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            modules = [node.module or ""] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]
            for module in modules:
                if module.partition(".")[0] in FILE_MODULES:
                    yield node.lineno, "files", f"{module} is for files.py alone"
        elif isinstance(node, ast.Attribute | ast.Name) and (called := _full_name(node, names)) in FILE_CALLS:
            yield node.lineno, "files", f"{called} is for files.py alone; use its {FILE_CALLS[called]}"
        elif isinstance(node, ast.Call) and _renames(node, names):
            yield node.lineno, "files", "files are renamed in files.py alone; use its put_in_place or an atomic_ function"
        elif isinstance(node, ast.Call) and _full_name(node.func, names) in ("importlib.import_module", "__import__"):
            yield node.lineno, "dynamic import", "import contracts do not see this import"
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.endswith((".part", ".tmp")):
            yield node.lineno, "files", "temporary names are made in files.py alone"


def _imported_names(tree: ast.Module) -> dict[str, str]:
    """Map each imported name to its dotted origin."""
    names = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names.update({alias.asname: alias.name for alias in node.names if alias.asname})
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names.update({alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names})
    return names


def _full_name(node: ast.expr, names: dict[str, str]) -> str:
    if isinstance(node, ast.Name):
        return names.get(node.id, node.id)
    if isinstance(node, ast.Attribute):
        return f"{_full_name(node.value, names)}.{node.attr}"
    return ""


def _renames(call: ast.Call, names: dict[str, str]) -> bool:
    """Distinguish `path.replace(target)` from `text.replace(old, new)` and `replace(instance, field=...)` by their
    arguments."""
    if not isinstance(call.func, ast.Attribute):
        return False
    targets = len(call.args) + sum(keyword.arg == "target" for keyword in call.keywords)
    others = [keyword for keyword in call.keywords if keyword.arg != "target"]
    is_rename = call.func.attr in ("rename", "replace") and targets == 1 and not others
    is_bound = _full_name(call.func, names) in ("dataclasses.replace", "copy.replace")
    return (is_rename and not is_bound) or call.func.attr in ("hardlink_to", "symlink_to")


def word_hits(root: Path) -> Iterator[Hit]:
    """Break the rule "words"."""
    paths = [*(root / "src").rglob("*"), *(root / "docs").rglob("*.md"), root / "README.md"]
    for path in sorted(p for p in paths if p.suffix in (".py", ".md", ".cpp", ".h") and p.is_file()):
        name = path.relative_to(root).as_posix()
        yield from _words_of(name, path.read_text(encoding="utf-8"))


@cache
def _words_of(name: str, content: str) -> tuple[Hit, ...]:
    return tuple(
        Hit(name, number, found, f'"{found}": the glossary has "{better}"', text)
        for number, text in enumerate(content.splitlines(), start=1)
        for found, better in _words(text)
    )


def _words(text: str) -> Iterator[tuple[str, str]]:
    for match in _WORD.finditer(_VERB.sub("", text)):
        if (word := match[0].lower()) in WORDS:
            yield word, WORDS[word]
    for phrase, better in PHRASES.items():
        for match in phrase.finditer(text):
            yield match[0].lower(), better


# Exceptions -----------------------------------------------------------------------------------------------------------
def read_allowed(path: Path) -> list[Allowed]:
    """Read lines `path | rule | text on the line | reason`; lines that begin with # are comments.

    Raises:
        ValueError: for a line of another form, or without a reason.
    """
    entries = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines() if path.exists() else (), start=1):
        if line.strip() and not line.startswith("#"):
            parts = [part.strip() for part in line.split("|")]
            if len(parts) != 4 or not all(parts):
                raise ValueError(f"{path}:{number}: is not of the form 'path | rule | text | reason'")
            entries.append(Allowed(*parts))
    return entries


def read_baseline(path: Path) -> dict[str, int]:
    """Read lines `count path`."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return {name: int(count) for count, _, name in (line.partition(" ") for line in lines if line and not line.startswith("#"))}


def write_baseline(path: Path, counts: Counter[str], *, force: bool) -> None:
    """Write how many words each file has now.

    Raises:
        ValueError: if there are more than before and `force` is not set.
    """
    before = sum(read_baseline(path).values())
    if path.exists() and counts.total() > before and not force:
        raise ValueError(f"there are {counts.total()} words now and {before} in {path.name}; mend them, or use --force")
    head = "# Words that the glossary replaces, by file; written by scripts/check_house.py --write-baseline.\n"
    path.write_text(head + "".join(f"{counts[name]} {name}\n" for name in sorted(counts)), encoding="utf-8")


def complaints(root: Path) -> Iterator[str]:
    """Yield a line for every broken rule and every outdated entry."""
    allowed = read_allowed(root / ALLOW)
    words = list(word_hits(root))
    code = list(code_hits(root))
    unused = [entry for entry in allowed if not any(entry.covers(hit) for hit in (*code, *words))]
    yield from (f"{ALLOW}: nothing needs the line for {e.path}, {e.rule}, {e.text!r}: remove it" for e in unused)
    yield from (str(hit) for hit in code if not any(entry.covers(hit) for entry in allowed))
    left = [hit for hit in words if not any(entry.covers(hit) for entry in allowed)]
    counts, baseline = Counter(hit.path for hit in left), read_baseline(root / BASELINE)
    for name in sorted({*counts, *baseline}):
        has, may = counts[name], baseline.get(name, 0)
        if has > may:
            yield f"{name}: has {has} words that the glossary replaces, {may} before:"
            yield from (f"  {hit}" for hit in left if hit.path == name)
        elif has < may:
            yield f"{BASELINE}: {name} has {has} words, not {may}: run scripts/check_house.py --write-baseline"


def main() -> int:
    """Print all complaints; return 1 if there are any."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, default=Path(__file__).parents[1], help="folder that holds src")
    parser.add_argument("--write-baseline", action="store_true", help="write how many words each file has now")
    parser.add_argument("--force", action="store_true", help="also where there are more than before")
    given = parser.parse_args()
    if given.write_baseline:
        allowed = read_allowed(given.root / ALLOW)
        counts = Counter(hit.path for hit in word_hits(given.root) if not any(entry.covers(hit) for entry in allowed))
        try:
            write_baseline(given.root / BASELINE, counts, force=given.force)
        except ValueError as error:
            print(error, file=sys.stderr)  # noqa: T201
            return 1
        return 0
    found = list(complaints(given.root))
    print("\n".join(found) or "House rules kept.")  # noqa: T201
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
