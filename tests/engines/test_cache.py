"""The cache of compiled networks: nothing in it is run that somebody else could have written."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import pytest

from upframe.engines import cache


def fill(folder: Path) -> None:
    (folder / "code.so").write_text("mine")


def test_what_was_made_is_found_again(tmp_path: Path) -> None:
    first = cache.kept(tmp_path / "cache", "a", fill)
    assert first == tmp_path / "cache" / "a" and (tmp_path / "cache").stat().st_mode & 0o777 == 0o700
    again = cache.kept(tmp_path / "cache", "a", lambda folder: pytest.fail("it was there"))
    assert again == first


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="files have no such owner")
@pytest.mark.parametrize("part", ["", "a", "a/code.so"])
def test_what_others_may_write_is_not_run(tmp_path: Path, part: str, caplog: pytest.LogCaptureFixture) -> None:
    root = tmp_path / "cache"
    cache.kept(root, "a", fill)
    (root / "a" / "code.so").write_text("theirs")
    root.chmod(0o755)
    (root / "a").chmod(0o755)
    (root / part).chmod(0o777)
    with caplog.at_level(logging.WARNING):
        used = cache.kept(root, "a", fill)
    assert used != root / "a" and (used / "code.so").read_text() == "mine"
    assert "others may have written" in caplog.text


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only the superuser can give files away")
def test_what_belongs_to_another_user_is_not_run(tmp_path: Path) -> None:
    root = tmp_path / "cache"
    cache.kept(root, "a", fill)
    os.chown(root, 12345, 12345)
    assert cache.kept(root, "a", fill) != root / "a"


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="files have no such owner")
def test_a_closed_folder_is_used_whatever_modes_lie_in_it(tmp_path: Path) -> None:
    """A umask of 002 leaves files writable for the group, which cannot reach them."""
    root = tmp_path / "cache"
    cache.kept(root, "a", fill)
    (root / "a" / "code.so").chmod(0o664)
    assert cache.kept(root, "a", fill) == root / "a"
