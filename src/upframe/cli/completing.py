"""`upframe completion`."""

from __future__ import annotations

from typing import Literal

from upframe.cli.help import HelpPage
from upframe.cli.output import print_line
from upframe.cli.parser import SETTINGS, app

_BASH_ENTRY = "complete -F _upframe upframe"
_ZSH_ENTRY = 'if [ "$funcstack[1]" = _upframe ]; then _cyclopts_upframe "$@"; else compdef _cyclopts_upframe upframe; fi'


@app.command(group=SETTINGS, help_epilogue="", help_formatter=HelpPage())
def completion(shell: Literal["bash", "zsh", "fish"], /) -> int:
    """Print the script by which a shell completes commands, flags and their values.

    Bash reads it from ~/.local/share/bash-completion/completions/upframe, zsh from a file _upframe in a folder of $fpath, fish
    from ~/.config/fish/completions/upframe.fish.

    Args:
        shell: Shell that will read the script.
    """
    print_line(completion_script(shell))
    return 0


def completion_script(shell: Literal["bash", "zsh", "fish"]) -> str:
    """The script of cyclopts, made whole: words that are no command are files in bash, for upframe needs no command for them;
    and in zsh the script ends with a call, without which a file in $fpath only defines its function."""
    made = app.generate_completion(prog_name="upframe", shell=shell).rstrip("\n")
    if shell == "bash":
        assert _BASH_ENTRY in made
        return made.replace(_BASH_ENTRY, f"complete -o bashdefault -o default {_BASH_ENTRY.removeprefix('complete ')}")
    return f"{made}\n\n{_ZSH_ENTRY}" if shell == "zsh" else made
