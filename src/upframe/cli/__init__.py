"""The command line. Thin: it parses flags, calls the library, shows progress and turns errors into exit codes.

Only light modules are imported at the top of its modules; torch and the codecs are loaded by the commands that need
them, so that `upframe --help` answers at once.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import NoReturn

from upframe.cli.stopping import Stop, listening

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and exit with the documented code.

    Args:
        arguments: Those after the name of the program; None takes them from `sys.argv`.
    """
    try:
        with listening():  # before anything else is imported: a signal is answered from here on
            from upframe.cli.entry import run

            code = run(sys.argv[1:] if arguments is None else list(arguments))
    except KeyboardInterrupt:
        code = Stop.code or 130
    sys.exit(code)
