"""Report the top level of the import graph: rooms, floors, arrows, upward arrows and circles.

Usage: python scripts/house.py [--source DIR] [--json]

DIR is a folder that holds the package, `src` of this repository by default, so that two states can be compared:

    git archive COMMIT src | tar -x -C /tmp/before
    python scripts/house.py --source /tmp/before/src

A room is a module or package directly within upframe; an arrow leads from a room to a room that it imports, at the top of a
module or within a function. Upward arrows are those to the package itself, which is above all rooms, and the smallest set found
without which rooms form no circle. Circles are circles of modules in any room.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

import grimp

PACKAGE = "upframe"


@dataclass(frozen=True)
class House:
    """The top level of an import graph."""

    rooms: tuple[str, ...]
    floors: tuple[tuple[str, ...], ...]
    """Rooms by the length of their longest path down, without upward arrows; the lowest first."""
    arrows: tuple[tuple[str, str], ...]
    """(importer, imported)."""
    upward: tuple[tuple[str, str], ...]
    circles: tuple[tuple[str, ...], ...]
    """Sets of modules that all import each other, directly or not."""

    def to_text(self) -> str:
        """Return the figures, then upward arrows and circles by name, then the floors."""
        lines = [
            f"{len(self.rooms)} rooms on {len(self.floors)} floors, {len(self.arrows)} arrows, "
            f"{len(self.upward)} upward, {len(self.circles)} circles",
            *(f"upward: {importer} -> {imported}" for importer, imported in self.upward),
            *(f"circle: {', '.join(circle)}" for circle in self.circles),
        ]
        width = len(str(len(self.floors)))
        lines += [f"{number:{width}}  {', '.join(floor)}" for number, floor in reversed(list(enumerate(self.floors)))]
        return "\n".join(lines)


def survey(source: Path, package: str = PACKAGE) -> House:
    """Read the package in the folder `source`; none of its code is executed.

    Raises:
        FileNotFoundError: if there is no such package.
    """
    if not (source / package / "__init__.py").is_file():
        raise FileNotFoundError(f"{source} holds no package {package}")
    known, cached = list(sys.path), {n: m for n, m in sys.modules.items() if n.partition(".")[0] == package}
    for name in cached:
        del sys.modules[name]
    sys.path.insert(0, str(source.resolve()))
    try:
        graph = grimp.build_graph(package, exclude_type_checking_imports=True, cache_dir=None)
    finally:
        sys.path[:] = known
        sys.modules.update(cached)
    rooms = sorted({_room(name, package) for name in graph.find_children(package)} - {"__main__"})
    reached = {module: graph.find_modules_directly_imported_by(module) for module in graph.modules}
    pairs = {(_room(a, package), _room(b, package)) for a, imported in reached.items() for b in imported}
    arrows = {(a, b) for a, b in pairs if a != b and a in rooms}
    breakers = {(_room(a, package), _room(b, package)) for a, b in graph.nominate_cycle_breakers(package)}
    upward = {(a, b) for a, b in arrows if (a, b) in breakers or b == package}
    down = {room: {b for a, b in arrows - upward if a == room} for room in rooms}
    return House(tuple(rooms), _floors(down), tuple(sorted(arrows)), tuple(sorted(upward)), _circles(reached))


def _room(module: str, package: str) -> str:
    """Return the room of a module; for the package itself, its own name."""
    return module.removeprefix(f"{package}.").partition(".")[0]


def _circles(imported: dict[str, set[str]]) -> tuple[tuple[str, ...], ...]:
    reached: dict[str, set[str]] = {}
    for module in imported:
        found: set[str] = set()
        due = list(imported[module])
        while due:
            if (other := due.pop()) not in found:
                found.add(other)
                due += imported[other]
        reached[module] = found
    circles = {tuple(sorted(o for o in reached[m] if m in reached[o])) for m in reached if m in reached[m]}
    return tuple(sorted(circles))


def _floors(down: dict[str, set[str]]) -> tuple[tuple[str, ...], ...]:
    heights: dict[str, int] = {}

    def height(room: str) -> int:
        if room not in heights:
            heights[room] = max((1 + height(other) for other in down[room]), default=0)
        return heights[room]

    top = max(height(room) for room in down)
    return tuple(tuple(room for room in down if heights[room] == floor) for floor in range(top + 1))


def main() -> None:
    """Print the report of the folder that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", type=Path, default=Path(__file__).parents[1] / "src", help="folder that holds the package")
    parser.add_argument("--json", action="store_true", help="print the same as JSON")
    given = parser.parse_args()
    house = survey(given.source)
    print(json.dumps(asdict(house), indent=1) if given.json else house.to_text())  # noqa: T201


if __name__ == "__main__":
    main()
