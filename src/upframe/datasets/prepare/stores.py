"""Make LMDB stores from folders of PNG files."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from upframe.datasets.lmdb_store import META_INFO, LmdbStore, png_entry, write_lmdb
from upframe.datasets.prepare.items import Item, Preparation, require_folder
from upframe.errors import InputError, OutputError, UsageError
from upframe.files import part_path, put_in_place
from upframe.media.image.files import natural_key


def store_folder(source: Path, out: Path, *, wanted: Callable[[str], bool] | None = None) -> Preparation:
    """Plan the store `out` of all PNG files below `source`. The key of `000/00000000.png` is `000/00000000`.

    Args:
        out: A folder whose name ends in .lmdb, as other frameworks require.
        wanted: Selects names below `source`; by default all.

    Raises:
        InputError: if there are no PNG files, or one is not 8-bit gray or RGB.
        OutputError: if `out` holds another set.
    """
    require_folder(source, advice="pass a folder of PNG files")
    files = {p.relative_to(source).as_posix(): p for p in source.rglob("*.png") if p.is_file() and not p.name.startswith(".")}
    names = sorted((name for name in files if wanted is None or wanted(name)), key=natural_key)
    if not names:
        raise InputError(source, "has no PNG files in it", "pass a folder of PNG files")
    return Preparation(
        f"LMDB store {out} of {source}",
        store_items({name: files[name] for name in names}, out),
        {},
        (f"{len(names)} pictures",),
    )


def store_items(files: Mapping[str, Path], out: Path) -> tuple[Item, ...]:
    """Return an item that makes the store `out` of these files, by name with extension, in this order.

    The files need not exist yet if earlier phases make them.
    """
    if out.suffix != ".lmdb":
        raise UsageError(out, "does not end in .lmdb", "name the store NAME.lmdb, by which other frameworks recognise it")
    if out.exists():
        _require_same_names(out, list(files))
    size_bytes = sum(path.stat().st_size for path in files.values() if path.exists())
    return (Item((out,), partial(_write, dict(files), out), size_bytes + 8192 * len(files), phase=1),)


def _write(files: Mapping[str, Path], out: Path) -> None:
    """Write a store to a part folder, which an interrupted run resumes, and check it before renaming it."""
    part = part_path(out)
    entries = [png_entry(name, path) for name, path in files.items()]
    by_key = {entry.key: files[entry.name] for entry in entries}
    if len(by_key) < len(entries):
        raise InputError(out, "two pictures have one name", "rename one")
    write_lmdb(part, by_key, shapes=entries)
    store = LmdbStore(part)
    try:
        for key, path in by_key.items():  # a file may have changed since an interrupted run stored it
            if store.encoded(key) != path.read_bytes():
                raise InputError(path, f"differs from its copy in {part.name}", f"remove {part} and run it again")
    finally:
        store.close()
    (part / "lock.mdb").touch()  # LMDB creates it anyway; other frameworks look for it
    put_in_place(part, out)


def _require_same_names(out: Path, names: list[str]) -> None:
    if not (out / META_INFO).is_file():
        raise OutputError(out, f"already exists and has no {META_INFO}", "choose another name, or remove it")
    stored = set(LmdbStore(out).names())
    asked = {name.rpartition(".")[0] for name in names}
    if stored != asked:
        odd = min(stored ^ asked)
        raise OutputError(out, f"already exists and holds other pictures (such as {odd})", "choose another name")
