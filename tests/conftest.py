"""Fixtures that many tests share. The project's own fixtures are made by code; nothing is read from the network."""

from __future__ import annotations

import importlib.util
import json
import logging
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import settings
from numpy.typing import NDArray

from upframe import cli

# Two workers on two cores: one thread each, or they fight for the cores.
torch.set_num_threads(1)
os.environ["OMP_NUM_THREADS"] = "1"

# A developer's own settings must not change what a test sees.
os.environ["XDG_CONFIG_HOME"] = os.path.join(os.sep, "nowhere")  # noqa: PTH118

# Seeded, and without a deadline: machines are slow and noisy, and speed is not what these tests are about.
settings.register_profile("upframe", deadline=None, derandomize=True, max_examples=60)
settings.load_profile("upframe")

SHARED = Path(os.environ.get("UPFRAME_SHARED") or Path(__file__).resolve().parents[2] / "shared")
"""Official weights, test sets and reference tensors. They are not part of the project; tests that need them skip
without them. Set UPFRAME_SHARED when the folder does not lie beside the checkout."""

needs_shared = pytest.mark.shared
"""For tests that read SHARED without the fixtures `shared` and `golden`, whose users are marked by themselves."""


# Tiers (CONTRIBUTING.md) ----------------------------------------------------------------------------------------------
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what needs SHARED, and skip what this machine has not got."""
    has_shared = (SHARED / "golden").is_dir()
    for item in items:
        if {"shared", "golden"} & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.shared)
        if not has_shared and item.get_closest_marker("shared"):
            reason = "the reference tensors and test sets (../shared or $UPFRAME_SHARED) are not here"
            item.add_marker(pytest.mark.skip(reason=reason))
        if item.get_closest_marker("gpu") and not torch.cuda.is_available():
            item.add_marker(pytest.mark.skip(reason="there is no CUDA device here"))


@pytest.fixture(scope="session")
def shared() -> Path:
    return SHARED


@pytest.fixture(scope="session")
def golden(shared: Path) -> ModuleType:
    """The reader of the reference tensors: `golden.Golden("rlfn/rlfn_x2_small")`."""
    spec = importlib.util.spec_from_file_location("golden", shared / "golden" / "golden.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def make_photo(height: int, width: int, *, seed: int = 0, dtype: str = "uint8") -> NDArray[np.generic]:
    """A synthetic (H, W, 3) picture with smooth areas, edges at all angles and fine texture, seeded."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width] / max(height, width, 2)
    planes = []
    for _ in range(3):
        angle, frequency, phase = rng.uniform(0, np.pi), rng.uniform(3, 25), rng.uniform(0, 6)
        wave = np.sin(2 * np.pi * frequency * (x * np.cos(angle) + y * np.sin(angle)) + phase)
        disc = ((x - rng.uniform(0, 1)) ** 2 + (y - rng.uniform(0, 1)) ** 2) < rng.uniform(0.02, 0.2)
        planes.append(0.5 + 0.2 * wave + 0.25 * disc - 0.1 * y + rng.normal(0, 0.01, (height, width)))
    unit = np.clip(np.stack(planes, -1), 0, 1)
    if dtype == "float32":
        return unit.astype(np.float32)
    return np.round(unit * np.iinfo(dtype).max).astype(dtype)


@pytest.fixture(autouse=True)
def threads_as_before() -> Iterator[None]:
    """Torch's number of threads is the process's. Left at 2 by one test, it changes the last bits of a training in another."""
    yield
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def as_logged_before() -> Iterator[None]:
    """Give every test the log levels of a fresh process: a command line run in this one sets them for its own."""
    loggers = [logging.getLogger(name) for name in (None, "upframe", "upframe.run")]
    before = [(logger.level, logger.handlers[:]) for logger in loggers]
    yield
    for logger, (level, handlers) in zip(loggers, before, strict=True):
        logger.setLevel(level)
        for handler in logger.handlers[:]:
            if handler not in handlers and isinstance(handler, logging.FileHandler):
                logger.removeHandler(handler)
                handler.close()


# The command line ----------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Result:
    """Result of a run of the command line."""

    code: int
    out: str
    err: str

    @property
    def lines(self) -> list[dict[str, Any]]:
        """Standard output as JSON lines; fails if it is anything else."""
        return [json.loads(line) for line in self.out.splitlines()]

    def of(self, event: str) -> dict[str, Any]:
        """The first line of this event."""
        return next(line for line in self.lines if line["event"] == event)

    @property
    def notices(self) -> list[str]:
        return [line["id"] for line in self.lines if line["event"] == "notice"]


Upframe = Callable[..., Result]


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A weights file that makes a network repeat every pixel, ×2."""
    from nearest import nearest_weights  # not at the top: docs/add-a-model.md is tried out with this file alone

    return nearest_weights(tmp_path_factory.mktemp("weights") / "x2.safetensors", scale=2)


@pytest.fixture
def upframe(capsys: pytest.CaptureFixture[str]) -> Upframe:
    """Run a command line in this process."""

    def go(*arguments: object) -> Result:
        capsys.readouterr()
        with pytest.raises(SystemExit) as exit:
            cli.main([str(argument) for argument in arguments])
        assert isinstance(exit.value.code, int)
        return Result(exit.value.code, *capsys.readouterr())

    return go


# The service ----------------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def allowed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder whose files the server may read, with a weights file that repeats every pixel."""
    from nearest import nearest_weights

    folder = tmp_path_factory.mktemp("allowed")
    nearest_weights(folder / "x2.safetensors", scale=2)
    return folder


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, allowed: Path) -> Iterator[Any]:
    """A server in its own process, for the tests of one module: a `serving.Server`."""
    from serving import Server

    with Server(tmp_path_factory.mktemp("data"), "--allow", str(allowed)) as running:
        yield running


@pytest.fixture
def client(server: Any) -> Iterator[Any]:
    """An `upframe.client.Client` of that server."""
    with server.client() as made:
        yield made


# Its page -------------------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def chrome() -> Iterator[Any]:
    """A real browser, for the tests of one module."""
    from browsing import browser

    with browser() as running:
        yield running


@pytest.fixture
def visit(chrome: Any, server: Any, client: Any) -> Iterator[Any]:
    """The page in a fresh window. In the end nothing may have gone wrong unseen, and the queue is empty again."""
    from browsing import Visit

    made = Visit(chrome, server.address)
    yield made.open()
    made.close()
    client._request("PATCH", "/api/queue", json={"paused": False})
    for job in client.jobs():
        client.delete(job.id)
    for upload in client._request("GET", "/api/uploads").json()["uploads"]:
        client.delete_upload(upload["id"])
    assert not made.strangers
    assert not made.faults


@pytest.fixture
def shoot(tmp_path: Path) -> Callable[[Any, str], None]:
    """Keep a screenshot in $UPFRAME_SCREENSHOTS, where people look at it, or in the test's own folder."""
    shots = os.environ.get("UPFRAME_SCREENSHOTS")
    folder = Path(shots) if shots else tmp_path / "shots"
    return lambda visit, name: visit.page.screenshot(path=folder / f"{name}.png") and None


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    """A small picture under a name with a space."""
    from PIL import Image

    path = tmp_path / "my photo.png"
    Image.fromarray(make_photo(24, 32)).save(path)
    return path
