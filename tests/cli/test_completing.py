"""The scripts of `upframe completion`, in the shells that read them."""

from __future__ import annotations

import os
import pty
import select
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from conftest import Upframe

pytestmark = pytest.mark.slow


def script(upframe: Upframe, shell: str, folder: Path, name: str) -> Path:
    done = upframe("completion", shell)
    assert done.code == 0, done.err
    path = folder / name
    path.write_text(done.out, encoding="utf-8")
    return path


def in_bash(path: Path, *words: str) -> list[str]:
    """Candidates for the last of `words`, as bash's own machinery asks for them."""
    program = 'source "$1"; shift; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _upframe; printf "%s\\n" "${COMPREPLY[@]}"'
    done = subprocess.run(
        ["bash", "--norc", "-c", program, "bash", str(path), *words], capture_output=True, text=True, check=True, timeout=30
    )
    assert done.stderr == ""
    return done.stdout.split()


def test_bash_completes_commands_flags_and_values(upframe: Upframe, tmp_path: Path) -> None:
    made = script(upframe, "bash", tmp_path, "upframe")
    assert in_bash(made, "upframe", "doc") == ["doctor"]
    assert in_bash(made, "upframe", "models", "ver") == ["verify"]
    assert "--as-published" in in_bash(made, "upframe", "upscale", "--as")
    assert in_bash(made, "upframe", "upscale", "--engine", "v") == ["vulkan"]
    assert in_bash(made, "upframe", "completion", "f") == ["fish"]


def test_bash_completes_files_where_no_command_fits(upframe: Upframe, tmp_path: Path) -> None:
    """`upframe photo.jpg` needs no command, so the script leaves such words to bash."""
    made = script(upframe, "bash", tmp_path, "upframe")
    assert in_bash(made, "upframe", "phot") == []
    program = 'source "$1"; complete -p upframe'
    done = subprocess.run(["bash", "--norc", "-c", program, "bash", str(made)], capture_output=True, text=True, check=True)
    assert "-o default" in done.stdout and "-F _upframe" in done.stdout


@pytest.mark.skipif(shutil.which("fish") is None, reason="fish is not here")
def test_fish_completes_commands_and_values(upframe: Upframe, tmp_path: Path) -> None:
    made = script(upframe, "fish", tmp_path, "upframe.fish")

    def ask(line: str) -> list[str]:
        done = subprocess.run(
            ["fish", "--no-config", "-c", 'source $argv[1]; complete -C "$argv[2]"', str(made), line],
            capture_output=True,
            text=True,
            check=True,
            timeout=30,
            cwd=tmp_path,
            env={**os.environ, "HOME": str(tmp_path)},
        )
        return [row.split("\t")[0] for row in done.stdout.splitlines()]

    assert ask("upframe doc") == ["doctor"]
    assert ask("upframe upscale --engine v") == ["vulkan"]


@pytest.mark.skipif(shutil.which("zsh") is None, reason="zsh is not here")
def test_zsh_completes_commands_and_values(upframe: Upframe, tmp_path: Path) -> None:
    """From a file _upframe in $fpath, at a terminal: completion exists nowhere else."""
    script(upframe, "zsh", tmp_path, "_upframe")
    assert "doctor" in typed_in_zsh(tmp_path, "upframe doct\t")
    assert "--engine vulkan" in typed_in_zsh(tmp_path, "upframe upscale --engine vul\t")


def typed_in_zsh(folder: Path, keys: str) -> str:
    """The screen of a zsh after `keys`."""
    (folder / ".zshrc").write_text('PS1="> "\nfpath=($ZDOTDIR $fpath)\nautoload -U compinit\ncompinit -u -D\necho READY\n')
    pid, terminal = pty.fork()
    if pid == 0:
        os.execvpe("zsh", ["zsh", "-d", "-i"], {**os.environ, "ZDOTDIR": str(folder), "TERM": "dumb"})
    try:
        until(terminal, "READY")
        os.write(terminal, keys.encode())
        return until(terminal, keys.split()[-1] + "\0", seconds=5)
    finally:
        os.kill(pid, 9)
        os.waitpid(pid, 0)
        os.close(terminal)


def until(terminal: int, sign: str, seconds: float = 30) -> str:
    """Read until `sign` stands there, or nothing has come for as long as `seconds`."""
    seen, end = "", time.monotonic() + seconds
    while sign not in seen and (left := end - time.monotonic()) > 0:
        if select.select([terminal], [], [], left)[0]:
            seen += os.read(terminal, 4096).decode(errors="replace")
    return seen
