"""The error for bad input, and what becomes of it at the command line."""

import errno
import sys
from collections.abc import Callable
from typing import Any


class InputError(Exception):
    """Bad parameters, files or arguments. The message is one line: what was expected, what was found, what mends it."""


class RunError(Exception):
    """Sound input, and yet the run failed: a killed worker, altered bytes, too many bad images. One line as well."""


def exit_code(command: Callable[[], Any]) -> int:
    """Run a command; 0, or 2 for bad input, 1 for a failed run (one line on stderr), 130 when interrupted."""
    try:
        command()
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except RunError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        print(f"error: {error}; free some space and run again, finished units are kept", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted; finished units are kept, `dvc repro` continues from them", file=sys.stderr)
        return 130
    return 0
