"""How a function becomes a command of the command line."""

import functools
from collections.abc import Callable
from typing import Any

import typer

from pipeline_lib.errors import exit_code


def guarded(function: Callable[..., Any]) -> Callable[..., None]:
    """The function with one line and an exit code instead of a traceback, where input or run are at fault."""

    @functools.wraps(function)
    def run(*arguments: Any, **options: Any) -> None:
        raise typer.Exit(exit_code(lambda: function(*arguments, **options)))

    return run
