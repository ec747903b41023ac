"""Write docs/commands.md and packaging/upframe.1 from the command line itself.

Usage: python scripts/draw_commands.py [--check]

`--check` changes nothing and exits with 1 if a file differs.
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path

from upframe.cli.entry import app
from upframe.cli.parser import EXIT_CODES

ROOT = Path(__file__).resolve().parents[1]
HEAD = """\
# Commands

Every command with all its flags, as the program states them. `python scripts/draw_commands.py` writes this page and the man
page, `packaging/upframe.1`, from the program. The other pages explain what the flags are for.

`upframe completion bash`, `zsh` or `fish` prints the script by which a shell completes all of them:

```
upframe completion bash > ~/.local/share/bash-completion/completions/upframe
upframe completion zsh > ~/.zfunc/_upframe     # a folder of $fpath, named before compinit
upframe completion fish > ~/.config/fish/completions/upframe.fish
```

"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    check: bool = parser.parse_args().check
    outdated = [path for path, text in drawn().items() if not path.exists() or path.read_text(encoding="utf-8") != text]
    for path in outdated:
        print(f"{path.relative_to(ROOT)}: {'outdated' if check else 'written'}")  # noqa: T201
        if not check:
            path.write_text(drawn()[path], encoding="utf-8")
    sys.exit(1 if check and outdated else 0)


def drawn() -> dict[Path, str]:
    """The text of each file."""
    body = reference()
    return {ROOT / "docs" / "commands.md": HEAD + body, ROOT / "packaging" / "upframe.1": manual(body)}


def reference() -> str:
    """The commands as cyclopts describes them, from the first one on, without the title and the page's own contents."""
    made = app.generate_docs(usage_name="upframe").replace(r"\[default:", "[default:")
    made = re.sub(r"\*?\[default: False\]\*?", "", made)  # a switch that is not given is off
    made = "".join(line.rstrip() + "\n" for line in made.splitlines())
    return made[made.index("\n## upframe ") + 1 :].rstrip("\n") + "\n"


def manual(body: str) -> str:
    """The same as a man page (man(7)): commands are sections, flags are tagged paragraphs."""
    made = [
        '.TH UPFRAME 1 "" "upframe" "User commands"',
        ".SH NAME",
        r"upframe \- upscale photos and videos with neural networks",
        ".SH SYNOPSIS",
        r"\fBupframe\fR [\fIINPUT\fR]... [\fIOPTIONS\fR]",
        ".br",
        r"\fBupframe\fR \fICOMMAND\fR ...",
        ".SH DESCRIPTION",
        r"Files without a command are upscaled: \fBupframe photo.jpg\fR is \fBupframe upscale photo.jpg\fR.",
    ]
    for line in body.splitlines():
        made += _roff(line)
    codes = [line.strip() for line in EXIT_CODES.splitlines()[1:]]
    made += [".SH EXIT STATUS"] + [part for line in codes for part in (".TP", *map(_text, line.split(maxsplit=1)))]
    return "\n".join(made) + "\n"


def _roff(line: str) -> list[str]:
    if heading := re.fullmatch(r"(#+) (.*)", line):
        return [f'.SH "{_text(heading[2])}"']
    if line.startswith("```"):
        return [".nf"] if line != "```" else [".fi"]
    if group := re.fullmatch(r"\*\*(.*)\*\*:", line):
        return [f'.SS "{_text(group[1])}"']
    if flag := re.fullmatch(r"\* `([^`]*)`: ?(.*)", line):
        return [".TP", rf"\fB{_text(flag[1])}\fR", _text(flag[2]) or r"\&"]
    if item := re.fullmatch(r"\* (.*)", line):
        return [".IP -", _text(item[1])]
    return [_text(line) if line else ".PP"]


def _text(text: str) -> str:
    """Plain text as roff: without Markdown's marks, and nothing in it is a command."""
    text = re.sub(r"\[([^\]]*)\]\(#[^)]*\)", r"\1", text)
    text = re.sub(r"\*+(\[[^\]]*\])\*+", r"\1", text).replace("`", "")
    text = text.replace("\\", r"\e").replace("-", r"\-")
    return rf"\&{text}" if text[:1] in (".", "'") else text


if __name__ == "__main__":
    main()
