"""LMDB stores: what we write others read, by key and list, and what others write we read."""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import lmdb
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from conftest import make_photo
from upframe.datasets.footage import find_clips
from upframe.datasets.lmdb_store import Entry, LmdbStore, read_meta_info, write_lmdb
from upframe.datasets.prepare.items import carry_out
from upframe.datasets.prepare.stores import store_folder
from upframe.datasets.stores import decode
from upframe.errors import InputError, OutputError, UsageError
from upframe.media.image.files import write_pixels
from upframe.training.data.sources import DataPaths, source_for
from upframe.training.recipes.recipe import DataRecipe

NAMES = [f"{clip}/{frame:08}.png" for clip in ("000", "011") for frame in range(3)]


@pytest.fixture
def frames(tmp_path: Path) -> Path:
    for i, name in enumerate(NAMES):
        (tmp_path / "sharp" / name).parent.mkdir(parents=True, exist_ok=True)
        write_pixels(tmp_path / "sharp" / name, make_photo(30, 40, seed=i))
    return tmp_path / "sharp"


def _foreign_store(path: Path, pictures: dict[str, NDArray[np.generic]], *, lines: list[str]) -> None:
    """As the scripts of other frameworks make it: the lmdb package, Pillow's PNG, a list written by hand."""
    environment = lmdb.open(str(path), map_size=1 << 24)
    with environment.begin(write=True) as transaction:
        for key, pixels in pictures.items():
            held = io.BytesIO()
            Image.fromarray(pixels).save(held, "PNG", compress_level=1)
            transaction.put(key.encode("ascii"), held.getvalue())
    environment.close()
    if lines:
        (path / "meta_info.txt").write_text("".join(f"{line}\n" for line in lines))


def test_a_store_of_ours_is_read_by_the_rules_of_the_field(frames: Path, tmp_path: Path) -> None:
    """With the lmdb package and Pillow alone: key without extension, value an encoded file, one line a picture."""
    out = tmp_path / "train_sharp.lmdb"
    outcome = carry_out(store_folder(frames, out))
    assert (outcome.made, outcome.kept) == (1, 0)
    assert sorted(p.name for p in out.iterdir()) == ["data.mdb", "lock.mdb", "meta_info.txt"]
    assert (out / "meta_info.txt").read_text().splitlines() == [f"{name} (30,40,3) 1" for name in NAMES]
    environment = lmdb.open(str(out), readonly=True, lock=False)
    with environment.begin() as transaction:
        assert [bytes(key).decode() for key in transaction.cursor().iternext(values=False)] == [n[:-4] for n in NAMES]
        for i, name in enumerate(NAMES):
            picture = Image.open(io.BytesIO(transaction.get(name[:-4].encode())))
            assert np.array_equal(np.asarray(picture), make_photo(30, 40, seed=i))
    environment.close()


def test_a_store_of_another_framework_is_trained_on(tmp_path: Path) -> None:
    pictures = {f"000/{n:08}": np.full((24, 32, 3), n, np.uint8) for n in range(4)}
    path = tmp_path / "theirs.lmdb"
    _foreign_store(path, pictures, lines=[f"{key}.png (24,32,3) 1" for key in pictures])
    low = tmp_path / "theirs_x4.lmdb"
    small = {f"X4/{key}": pixels[::4, ::4] for key, pixels in pictures.items()}
    _foreign_store(low, small, lines=[f"{key}.png (6,8,3) 1" for key in small])  # the prefix some stores of REDS have
    data = DataRecipe(kind="clips", patch_px=6, clip_frames=3, low_quality="paired")
    sample = source_for(data, DataPaths(path, low), scale=4)(np.random.default_rng(0))
    assert sample.gt.shape == (3, 3, 24, 24)
    shown = (sample.gt[:, 0, 0, 0] * 255).round().tolist()
    assert shown in ([0, 1, 2], [1, 2, 3])
    assert (sample.lq[:, 0, 0, 0] * 255).round().tolist() == shown


def test_a_store_without_a_list_is_read_by_its_keys(tmp_path: Path) -> None:
    _foreign_store(tmp_path / "a.lmdb", {"0001_s001": make_photo(8, 9), "0001_s002": make_photo(8, 9, seed=1)}, lines=[])
    store = LmdbStore(tmp_path / "a.lmdb")
    assert list(store.names()) == ["0001_s001", "0001_s002"]
    assert store.size("0001_s002") == (8, 9)
    copy = pickle.loads(pickle.dumps(store))  # as a worker process gets it, opened or not
    assert np.array_equal(copy.read("0001_s002"), make_photo(8, 9, seed=1))


def test_patches_of_a_store_are_those_of_its_folder(frames: Path, tmp_path: Path) -> None:
    carry_out(store_folder(frames, tmp_path / "a.lmdb"))
    data = DataRecipe(kind="clips", patch_px=8, clip_frames=2)
    for budget_bytes in (0, 1 << 30):
        one = source_for(data, DataPaths(frames), scale=2, budget_bytes=budget_bytes)(np.random.default_rng(5))
        two = source_for(data, DataPaths(tmp_path / "a.lmdb"), scale=2, budget_bytes=budget_bytes)(np.random.default_rng(5))
        assert (one.gt == two.gt).all()
        assert (one.lq == two.lq).all()


def test_an_interrupted_store_is_gone_on_with(frames: Path, tmp_path: Path) -> None:
    """The part that a killed run left is filled up; until then nothing has the final name."""
    out, part = tmp_path / "a.lmdb", tmp_path / ".a.lmdb.part"
    first = {name[:-4]: frames / name for name in NAMES[:2]}
    write_lmdb(part, first, shapes=[Entry(name, (30, 40), 3) for name in NAMES[:2]])
    (part / "meta_info.txt").unlink()
    carry_out(store_folder(frames, out))
    assert not part.exists()
    assert len(LmdbStore(out).names()) == 6
    stamp = (out / "data.mdb").stat().st_mtime_ns
    again = carry_out(store_folder(frames, out))
    assert (again.made, again.kept) == (0, 1)
    assert (out / "data.mdb").stat().st_mtime_ns == stamp


def test_a_store_of_other_pictures_is_not_written_into(frames: Path, tmp_path: Path) -> None:
    carry_out(store_folder(frames, tmp_path / "a.lmdb"))
    write_pixels(frames / "000" / "00000003.png", make_photo(30, 40))
    with pytest.raises(OutputError, match=r"holds other pictures \(such as 000/00000003\)"):
        store_folder(frames, tmp_path / "a.lmdb")
    with pytest.raises(UsageError, match=r"does not end in \.lmdb"):
        store_folder(frames, tmp_path / "store")


def test_a_part_whose_source_has_changed_is_refused(frames: Path, tmp_path: Path) -> None:
    first = {NAMES[0][:-4]: frames / NAMES[0]}
    write_lmdb(tmp_path / ".a.lmdb.part", first, shapes=[Entry(NAMES[0], (30, 40), 3)])
    write_pixels(frames / NAMES[0], make_photo(30, 40, seed=77))
    with pytest.raises(InputError, match=r"00000000\.png: differs from its copy"):
        carry_out(store_folder(frames, tmp_path / "a.lmdb"))
    assert not (tmp_path / "a.lmdb").exists()


def _truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-30])


def _make_gray16(path: Path) -> None:
    write_pixels(path, make_photo(30, 40, dtype="uint16"))


def _make_text(path: Path) -> None:
    path.write_bytes(b"no picture")


@pytest.mark.parametrize(
    ("spoil", "reason"), [(_truncate, "truncated"), (_make_gray16, "depth 16"), (_make_text, "not a PNG file")]
)
def test_a_bad_file_stops_the_store_by_its_name(
    frames: Path, tmp_path: Path, spoil: Callable[[Path], None], reason: str
) -> None:
    spoil(frames / "011" / "00000001.png")
    with pytest.raises(InputError, match=rf"011/00000001\.png: .*{reason}"):
        carry_out(store_folder(frames, tmp_path / "a.lmdb"))
    assert not (tmp_path / "a.lmdb").exists()


def test_faults_of_stores_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="not an LMDB store"):
        LmdbStore(tmp_path)
    path = tmp_path / "a.lmdb"
    _foreign_store(path, {"000/00000000": make_photo(8, 8)}, lines=["000/00000000.png (8,8,3) 1", "000/00000001.png (8,8,3) 1"])
    store = LmdbStore(path)
    with pytest.raises(InputError, match="no picture 000/00000001"):
        store.read("000/00000001")
    (path / "meta_info.txt").write_text("000/00000000.png 8 8\n")
    with pytest.raises(InputError, match="line 1 is not"):
        read_meta_info(path / "meta_info.txt")
    with pytest.raises(InputError, match=r"a\.lmdb/key: holds 10 bytes that are not"):
        decode(b"no picture", subject=path / "key")
    gaps = {f"000/{n:08}": make_photo(8, 8) for n in (0, 1, 3)}
    _foreign_store(tmp_path / "b.lmdb", gaps, lines=[f"{key}.png (8,8,3) 1" for key in gaps])
    with pytest.raises(InputError, match="clip 000 has no frame 2 after 1"):
        find_clips(tmp_path / "b.lmdb")


def test_splits_leave_clips_of_stores_out(frames: Path, tmp_path: Path) -> None:
    carry_out(store_folder(frames, tmp_path / "a.lmdb"))
    data = DataRecipe(kind="clips", patch_px=8, clip_frames=2)
    source = source_for(replace(data, exclude=("000", "015")), DataPaths(tmp_path / "a.lmdb"), scale=2)
    assert [clip.name for clip in source.footage.clips] == ["011"]
