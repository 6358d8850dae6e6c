"""How a stage's main becomes a command."""

import functools
from collections.abc import Callable
from typing import Any

import typer

from pipeline_lib.errors import exit_code


def run(main: Callable[..., Any]) -> None:
    """Parse the command line into main's arguments; bad input ends in one line and exit code 2."""

    @functools.wraps(main)
    def command(*arguments: Any, **options: Any) -> None:
        raise typer.Exit(exit_code(lambda: main(*arguments, **options)))

    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command()(command)
    app()
