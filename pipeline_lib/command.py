"""How a function becomes a command: arguments from its signature, one line and an exit code instead of a traceback."""

import functools
from collections.abc import Callable
from typing import Any

import typer

from pipeline_lib.errors import exit_code
from pipeline_lib.params.base import values_read


def guarded(function: Callable[..., Any]) -> Callable[..., None]:
    """The function, ending in the exit code of `exit_code`."""

    @functools.wraps(function)
    def command(*arguments: Any, **options: Any) -> None:
        raise typer.Exit(exit_code(lambda: function(*arguments, **options)))

    return command


def run(main: Callable[..., Any]) -> None:
    """Parse the command line into the arguments of a stage's main, and run it."""
    values_read.clear()  # of a stage that ran in this process before
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command()(guarded(main))
    app()
