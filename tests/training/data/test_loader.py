"""The loader: the same bits whatever the workers, processes and parts, errors that arrive, and nothing left behind."""

from __future__ import annotations

import gc
import os
import pickle
import signal
import subprocess
import sys
import tempfile
import threading
import time
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch

from conftest import make_photo
from upframe.datasets.stores import FileStore, HeldStore
from upframe.errors import InputError, ResourceError
from upframe.media.image.files import write_pixels
from upframe.training.data.loader import Loader, WorkerKind
from upframe.training.data.samples import Batch, Sample
from upframe.training.data.sources import DataPaths, source_for
from upframe.training.recipes.recipe import DataRecipe

pytestmark = pytest.mark.slow  # as a whole: `make test-fast` has a minute and a half for everything


class Numbers:
    """A source whose samples are what the generator gives: nothing else can make two of them equal."""

    def __call__(self, rng: np.random.Generator, /) -> Sample:
        drawn = torch.from_numpy(rng.random((2, 3, 4, 4), dtype=np.float32))
        return Sample(drawn[0], (drawn[1] * 255).round() / 255)


class Faulty:
    """Damaged files turn up while training goes on."""

    def __call__(self, rng: np.random.Generator, /) -> Sample:
        raise InputError(Path("clips/007/00000042.png"), "is truncated", "get the file again")


class Dying:
    def __call__(self, rng: np.random.Generator, /) -> Sample:
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError


def _take(loader: Loader, first: int, count: int) -> list[Batch]:
    with loader:
        return list(loader.batches(first, first + count))


def _equal(a: list[Batch], b: list[Batch]) -> bool:
    return all(torch.equal(x.lq, y.lq) and torch.equal(x.gt, y.gt) for x, y in zip(a, b, strict=True))


def test_a_sample_is_drawn_from_seed_and_number_alone() -> None:
    """The rule that other implementations of the data order would have to follow."""
    (batch,) = _take(Loader(Numbers(), batch=3, seed=9, workers=0), 5, 1)
    for i in range(3):
        expected = Numbers()(np.random.default_rng((9, 5 * 3 + i)))
        assert torch.equal(batch.lq[i], expected.lq)
        assert torch.equal(batch.gt[i], expected.gt)


@pytest.mark.parametrize(("kind", "workers"), [("thread", 1), ("thread", 3), ("process", 2)])
def test_batches_do_not_depend_on_the_workers(kind: WorkerKind, workers: int) -> None:
    expected = _take(Loader(Numbers(), batch=4, seed=1, workers=0), 3, 5)
    assert _equal(_take(Loader(Numbers(), batch=4, seed=1, workers=workers, kind=kind), 3, 5), expected)


def test_two_processes_share_the_batch_of_one() -> None:
    whole = _take(Loader(Numbers(), batch=6, seed=1, workers=0), 0, 2)
    halves = [_take(Loader(Numbers(), batch=6, seed=1, rank=rank, world=2), 0, 2) for rank in (0, 1)]
    for step in (0, 1):
        joined = torch.cat([halves[0][step].lq, halves[1][step].lq])
        assert torch.equal(joined, whole[step].lq)
    parts = whole[0].split(3)
    assert torch.equal(torch.cat([part.gt for part in parts]), whole[0].gt)
    with pytest.raises(ValueError, match="divided by 4"):
        whole[0].split(4)


def test_a_resumed_run_sees_what_it_would_have_seen() -> None:
    through = _take(Loader(Numbers(), batch=2, seed=1, workers=2), 0, 6)
    assert _equal(_take(Loader(Numbers(), batch=2, seed=1, workers=2), 4, 2), through[4:])
    assert not torch.equal(through[0].lq, through[1].lq)
    assert not torch.equal(through[0].lq[0], through[0].lq[1])


@pytest.mark.parametrize(("kind", "workers"), [("thread", 0), ("thread", 2), ("process", 1)])
def test_a_worker_s_error_arrives_with_the_file_s_name(kind: WorkerKind, workers: int) -> None:
    with (
        Loader(Faulty(), batch=2, seed=1, workers=workers, kind=kind) as loader,
        pytest.raises(InputError, match=r"clips/007/00000042\.png: is truncated\. Get the file again\."),
    ):
        next(loader.batches(0))


def test_a_killed_worker_is_an_error_and_no_hang() -> None:
    with (
        Loader(Dying(), batch=2, seed=1, workers=1, kind="process") as loader,
        pytest.raises(ResourceError, match="worker process ended"),
    ):
        next(loader.batches(0))


def test_closing_in_the_middle_leaves_no_threads_or_processes() -> None:
    import multiprocessing

    before = threading.active_count()
    for kind in ("thread", "process"):
        with Loader(Numbers(), batch=2, seed=1, workers=2, kind=kind) as loader:
            assert len(list(islice(loader.batches(0), 2))) == 2
        loader.close()
    assert threading.active_count() == before
    assert multiprocessing.active_children() == []


@pytest.mark.parametrize("budget_bytes", [1 << 30, 0])
def test_worker_processes_read_the_same_photos(tmp_path: Path, budget_bytes: int) -> None:
    """Pictures in memory reach them through a file that is removed with the source; others they decode themselves."""
    for i in range(2):
        write_pixels(tmp_path / f"{i}.png", make_photo(70, 60, seed=i))
    data = DataRecipe(patch_px=12)
    source = source_for(data, DataPaths(tmp_path), scale=2, budget_bytes=budget_bytes)
    expected = _take(Loader(source, batch=3, seed=1, workers=0), 0, 2)
    assert _equal(_take(Loader(source, batch=3, seed=1, workers=2, kind="process"), 0, 2), expected)
    assert _equal(_take(Loader(source, batch=3, seed=1, workers=0), 0, 2), expected)  # from the shared file


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="files that are open cannot be removed there")
def test_the_shared_file_of_a_killed_run_is_removed_by_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    write_pixels(tmp_path / "a.png", make_photo(40, 40))
    stores = [HeldStore(FileStore({"a": tmp_path / "a.png"})) for _ in range(2)]
    abandoned = tmp_path / ".upframe-tmp-abandoned"
    (abandoned / "files").mkdir(parents=True)
    (abandoned / "files" / "frames").write_bytes(b"of a run that was killed")
    (abandoned / "lock").touch()
    copies = [pickle.loads(pickle.dumps(store)) for store in stores]
    assert not abandoned.exists()
    assert len(list(tmp_path.glob(".upframe-tmp-*"))) == 2  # those in use stay
    for copy in copies:
        assert np.array_equal(copy.read("a"), make_photo(40, 40))
    stores.clear()
    gc.collect()
    assert not list(tmp_path.glob(".upframe-tmp-*"))


_PARENT = """
import sys, time, multiprocessing
sys.path.insert(0, sys.argv[1])
from test_loader import Numbers
from upframe.training.data.loader import Loader
if __name__ == "__main__":
    loader = Loader(Numbers(), batch=1, seed=1, workers=1, kind="process")
    next(loader.batches(0))
    print(*[child.pid for child in multiprocessing.active_children()], flush=True)
    time.sleep(600)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL to send")
def test_workers_end_with_a_parent_that_was_killed(tmp_path: Path) -> None:
    script = tmp_path / "parent.py"
    script.write_text(_PARENT)
    here = Path(__file__).parent
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([*sys.path, str(here.parent)])}
    parent = subprocess.Popen([sys.executable, script, here], stdout=subprocess.PIPE, text=True, env=environment)
    assert parent.stdout is not None
    children = [int(pid) for pid in parent.stdout.readline().split()]
    assert children
    parent.kill()
    parent.wait()
    deadline = time.monotonic() + 30
    while any(_runs(pid) for pid in children) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(_runs(pid) for pid in children)


def _runs(pid: int) -> bool:
    """Whether it is there, and not merely waiting to be collected by whoever inherited it."""
    try:
        os.kill(pid, 0)
        state = Path(f"/proc/{pid}/stat")
        return not state.is_file() or state.read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
