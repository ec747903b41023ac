"""LMDB files are read as data: what the library stores is read as it stored it, and damage is named, never followed."""

from __future__ import annotations

import random
import struct
from pathlib import Path

import lmdb
import pytest

from conftest import make_photo
from upframe.datasets.lmdb_file import LmdbFile
from upframe.datasets.lmdb_store import LmdbStore, png_entry, write_lmdb
from upframe.errors import InputError
from upframe.media.image.files import write_pixels


def made(folder: Path, values: dict[bytes, bytes], *, remade: bool = False) -> Path:
    environment = lmdb.open(str(folder), map_size=1 << 26)
    for _ in range(2 if remade else 1):  # the second time frees pages of the first
        with environment.begin(write=True) as transaction:
            for key, value in values.items():
                transaction.put(key, value)
    environment.close()
    return folder / "data.mdb"


def sample(count: int, *, seed: int = 0) -> dict[bytes, bytes]:
    rng = random.Random(seed)
    keys = {bytes(rng.choices(b"0123456789/abc", k=rng.randrange(1, 60))) for _ in range(count)}
    return {key: rng.randbytes(rng.choice((0, 1, 100, 2000, 5000, 30_000))) for key in keys}


@pytest.mark.parametrize(("count", "remade"), [(0, False), (1, False), (40, False), (900, True)])
def test_what_the_library_stored_is_read(tmp_path: Path, count: int, remade: bool) -> None:
    values = sample(count)
    file = LmdbFile(made(tmp_path, values, remade=remade))
    assert list(file.iter_keys()) == sorted(values)
    for key, value in values.items():
        assert file.get(key) == value
    for key in (b"", b"0", b"zz", *(key + b"x" for key in list(values)[:9])):
        assert file.get(key) == values.get(key)
    file.check()
    file.close()


def test_a_named_database_is_no_picture(tmp_path: Path) -> None:
    environment = lmdb.open(str(tmp_path), max_dbs=2, map_size=1 << 20)
    environment.open_db(b"inner")
    environment.close()
    with pytest.raises(InputError, match="a value is a database"):
        LmdbFile(tmp_path / "data.mdb").get(b"inner")


@pytest.mark.parametrize(
    "content", [b"", b"no store", bytes(8192), b"\0" * 16 + struct.pack("<II", 0xBEEFC0DE, 2) + bytes(9000)]
)
def test_what_is_no_lmdb_file_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "data.mdb").write_bytes(content)
    with pytest.raises(InputError, match="is not an LMDB file"):
        LmdbFile(tmp_path / "data.mdb")


@pytest.mark.slow
@pytest.mark.fuzz
def test_any_flipped_bit_of_the_structure_gives_the_value_or_an_error(tmp_path: Path) -> None:
    values = sample(300, seed=4)
    path = made(tmp_path, values)
    whole = path.read_bytes()
    rng = random.Random(8)
    refused = 0
    for _ in range(150):
        damaged = bytearray(whole)
        at = rng.randrange(0, len(whole) // 4096) * 4096 + rng.choice((rng.randrange(160), rng.randrange(4096)))
        damaged[at % len(whole)] ^= 1 << rng.randrange(8)
        path.write_bytes(bytes(damaged[: rng.choice((len(whole), len(whole), len(whole) // 2))]))
        try:
            file = LmdbFile(path)
            file.check()
            for key in list(file.iter_keys())[:50]:
                assert len(file.get(key) or b"") <= 30_000
        except InputError as error:
            assert "Make" in str(error)
            refused += 1
    assert refused > 30, "the damage meets the structure often enough"


def test_a_circle_of_pages_ends(tmp_path: Path) -> None:
    path = made(tmp_path, sample(900))
    data = bytearray(path.read_bytes())
    for start in range(8192, len(data), 4096):
        number, _, flags, lower, _ = struct.unpack_from("<QHHHH", data, start)
        if flags == 1:  # each branch leads to itself
            for pointer in struct.unpack_from(f"<{(lower - 16) // 2}H", data, start + 16):
                struct.pack_into("<HHH", data, start + pointer, number & 0xFFFF, number >> 16, 0)
    path.write_bytes(data)
    with pytest.raises(InputError, match="no tree"):
        list(LmdbFile(path).iter_keys())
    with pytest.raises(InputError, match="leads nowhere"):
        LmdbFile(path).get(b"5")


def test_a_damaged_store_of_an_interrupted_run_is_not_handed_to_the_library(tmp_path: Path) -> None:
    write_pixels(tmp_path / "a.png", make_photo(8, 8))
    entry = png_entry("000/00000000.png", tmp_path / "a.png")
    write_lmdb(tmp_path / "s.lmdb", {entry.key: tmp_path / "a.png"}, shapes=[entry])
    data = bytearray((tmp_path / "s.lmdb" / "data.mdb").read_bytes())
    root = 4096 + 16 + 24 + 88  # of the main database, in the newer of the first pages
    assert int.from_bytes(data[root : root + 8], "little") < 99
    data[root : root + 8] = struct.pack("<Q", 77_777)
    (tmp_path / "s.lmdb" / "data.mdb").write_bytes(data)
    with pytest.raises(InputError, match="beyond the end of the file"):
        write_lmdb(tmp_path / "s.lmdb", {entry.key: tmp_path / "a.png"}, shapes=[entry])
    with pytest.raises(InputError, match="beyond the end of the file"):
        LmdbStore(tmp_path / "s.lmdb").read(entry.key)
