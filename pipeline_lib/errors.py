"""The error for bad input, and what becomes of it at the command line."""

import sys
from collections.abc import Callable
from typing import Any


class InputError(Exception):
    """Bad parameters, files or arguments. The message is one line: what was expected, what was found, what mends it."""


def exit_code(command: Callable[[], Any]) -> int:
    """Run a command; 0, or 2 for bad input (one line on stderr), or 130 when interrupted."""
    try:
        command()
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; finished units are kept, `dvc repro` continues from them", file=sys.stderr)
        return 130
    return 0
