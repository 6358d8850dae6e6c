"""How a function becomes a command: arguments from its signature, one line and an exit code instead of a traceback."""

import functools
import sys
from collections.abc import Callable
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from pipeline_lib.errors import exit_code, printable
from pipeline_lib.params.base import values_read
from pipeline_lib.params.names import check_arguments
from pipeline_lib.params.task import check_task_and_axes

# What click raises for a wrong command line. Typer brings click along, under a name that is its own affair.
UsageError: type[Any] = typer.BadParameter.__bases__[0]


class _OneLine:
    """A command whose usage errors are a line like all others, and not typer's box."""

    def main(self, *arguments: Any, standalone_mode: bool = True, **options: Any) -> Any:
        """Run the command line; exits unless `standalone_mode` is false."""
        if not standalone_mode:
            return super().main(*arguments, standalone_mode=False, **options)  # type: ignore[misc]
        try:
            code = super().main(*arguments, standalone_mode=False, **options)  # type: ignore[misc]
        except UsageError as error:
            if said := " ".join(error.format_message().split()).rstrip("."):  # else nothing was asked, help was printed
                said = said if len(said) <= 400 else f"{said[:380]} ..."
                usage = f"; `{error.ctx.command_path} --help` lists what there is" if error.ctx else ""
                print(f"error: {printable(said)}{usage}", file=sys.stderr)
            sys.exit(2)
        sys.exit(code)


class Command(_OneLine, TyperCommand):
    """A command by itself."""


class Group(_OneLine, TyperGroup):
    """A command with verbs."""


def guarded(function: Callable[..., Any]) -> Callable[..., None]:
    """The function, ending in the exit code of `exit_code`."""

    @functools.wraps(function)
    def command(*arguments: Any, **options: Any) -> None:
        raise typer.Exit(exit_code(lambda: function(*arguments, **options)))

    return command


def run(main: Callable[..., Any]) -> None:
    """Parse the command line into the arguments of a stage's main, check the names in them, and run it."""
    values_read.clear()  # of a stage that ran in this process before

    @functools.wraps(main)
    def checked(**arguments: Any) -> None:
        check_arguments(arguments)
        check_task_and_axes()
        main(**arguments)

    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command(cls=Command)(guarded(checked))
    app()
