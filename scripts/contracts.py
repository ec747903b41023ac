"""upframe's own import contracts, for import-linter; `.importlinter` names them under `contract_types`."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from typing import Any

from grimp import ImportGraph
from importlinter import Contract, ContractCheck, fields, output

ANYWHERE, NOWHERE = "*", "-"


class LibrariesContract(Contract):
    """Each library is imported only in its rooms, and only libraries in the list are imported.

    Configuration options:
        - rooms: Lines `library: room, room`. A room is a module or package within the root package, `*` stands for any room,
          and `-` for none. A dotted library is a part of a library: `torch.utils.tensorboard: training`. Modules of the
          standard library that are not in the list may be imported everywhere. A room that does not import its library breaks
          the contract, so that the list stays exact.
    """

    type_name = "libraries"
    rooms = fields.ListField(subfield=fields.StringField())

    def check(self, graph: ImportGraph, verbose: bool) -> ContractCheck:
        """Compare every import of a library with the list."""
        (root,) = self.session_options["root_packages"]
        rooms = dict(_entry(line) for line in self.rooms)  # type: ignore[attr-defined]
        used: set[tuple[str, str]] = set()
        broken = []
        for importer, library, line in _imports(graph, root, dotted={name for name in rooms if "." in name}):
            if library not in rooms:
                if library not in sys.stdlib_module_names:
                    broken.append(f"{importer} imports {library} (l.{line}), which is not in the list")
                continue
            within = [room for room in rooms[library] if room == ANYWHERE or _is_in(importer, f"{root}.{room}")]
            used.update((library, room) for room in within)
            if not within:
                broken.append(f"{importer} imports {library} (l.{line}), which is for {_named(rooms[library])}")
        for library, names in rooms.items():
            broken += [
                f"the list has {library} for {room}, which does not import it" for room in names if (library, room) not in used
            ]
        return ContractCheck(kept=not broken, metadata={"broken": broken})

    def render_broken_contract(self, check: ContractCheck) -> None:
        """Print a line for each import that is not allowed."""
        for line in check.metadata["broken"]:
            output.print_error(f"- {line}", bold=False)
        output.new_line()


def _entry(line: str) -> tuple[str, list[str]]:
    library, separator, rooms = line.partition(":")
    if not separator or not rooms.strip():
        raise ValueError(f"{line!r} is not of the form 'library: room, room'")
    return library.strip(), [room.strip() for room in rooms.split(",") if room.strip() != NOWHERE]


def _imports(graph: ImportGraph, root: str, *, dotted: set[str]) -> Iterator[tuple[str, str, int]]:
    """Yield importer, library and line of every import of a library. A part of a library that is in `dotted` has its own
    name."""
    libraries = sorted(name for name in graph.modules if not _is_in(name, root))
    for library in libraries:
        for importer in sorted(graph.find_modules_that_directly_import(library)):
            for detail in graph.get_import_details(importer=importer, imported=library):
                text: str = detail["line_contents"]
                parts: list[Any] = [part for part in dotted if re.search(rf"\b{re.escape(part)}\b", _as_dotted(text))]
                yield importer, (parts or [library])[0], detail["line_number"]


def _as_dotted(text: str) -> str:
    """Return `from a.b import c` as `a.b.c`, and other imports as they are."""
    found = re.match(r"\s*from\s+([\w.]+)\s+import\s+\(?\s*(\w+)", text)
    return f"{found[1]}.{found[2]}" if found else text


def _is_in(module: str, room: str) -> bool:
    return module == room or module.startswith(f"{room}.")


def _named(rooms: list[str]) -> str:
    return f"{' and '.join(rooms)} alone" if rooms else "nobody"
