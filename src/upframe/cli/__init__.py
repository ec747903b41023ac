"""The command line. Thin: it parses flags, calls the library, shows progress and turns errors into exit codes.

Only light modules are imported at the top of its modules; torch and the codecs are loaded by the commands that need
them, so that `upframe --help` answers at once.
"""

from upframe.cli.main import main
from upframe.cli.parser import EXIT_CODES, app

__all__ = ["EXIT_CODES", "app", "main"]
