"""What a stage may read while it runs. Opening another file of the project is an error.

Python's audit hook is told of every `open` in this process, those of libraries too. It is not told of what native code
opens, such as safetensors: the paths that such readers get from us go through `checked`. Of child processes it sees
nothing.
"""

import functools
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pipeline_lib.errors import InputError


class Reads:
    """What one stage may read."""

    def __init__(self, stage: str, guarded: Iterable[Path], allowed: Iterable[Path], outs: Iterable[Path]) -> None:
        """Paths are files or folders, from the working directory.

        Args:
            stage: its name, for errors.
            guarded: where every file that is read must be allowed; files elsewhere are no concern of the project.
            allowed: what may be read there.
            outs: what the stage writes, which it may read as well, also under the temporary name beside it.
        """
        self.stage = stage
        self._guarded, self._allowed = _Paths(guarded), _Paths(allowed)
        for out in outs:
            self._allowed.add(out)
            self._allowed.prefixes += (f"{os.path.realpath(out.parent)}/.{out.name}.",)
        self.undeclared: str | None = None  # the error of the first such file

    def allow(self, path: Path) -> None:
        """Let the stage read this as well."""
        self._allowed.add(path)

    def check(self, path: str) -> None:
        """Stop where the path, symbolic links followed, is guarded and not allowed.

        Raises:
            InputError: it is.
        """
        real = os.path.realpath(path)
        if real in self._guarded and real not in self._allowed:
            shown = os.path.relpath(real) if real.startswith(os.getcwd() + "/") else real
            self.undeclared = (
                f"{shown}: {self.stage} reads this file, which is none of its inputs; add it to the `inputs` of the "
                "stage's script and to its deps in dvc.yaml, or read something else"
            )
            raise InputError(self.undeclared)


class _Paths:
    """A set of files and folders, without symbolic links."""

    def __init__(self, paths: Iterable[Path]) -> None:
        self.whole, self.prefixes = set[str](), tuple[str, ...]()
        for path in paths:
            self.add(path)

    def add(self, path: Path) -> None:
        real = os.path.realpath(path)
        self.whole.add(real)
        self.prefixes += (real + "/",)

    def __contains__(self, real: str) -> bool:
        return real in self.whole or real.startswith(self.prefixes)


_reads: Reads | None = None  # of the stage that runs in this process


@contextmanager
def only(reads: Reads) -> Iterator[None]:
    """Let the block read what is declared, and nothing else.

    Raises:
        InputError: it opened another file, even if it went on.
    """
    global _reads
    _add_hook()
    _reads = reads
    try:
        yield
    finally:
        _reads = None
        if reads.undeclared is not None:
            raise InputError(reads.undeclared) from None


def checked(path: Path) -> Path:
    """The path, for a reader in native code.

    Raises:
        InputError: the stage that runs here may not read it.
    """
    if _reads is not None:
        _reads.check(str(path))
    return path


def allow(path: Path) -> None:
    """Let the stage that runs here, if one does, read this as well."""
    if _reads is not None:
        _reads.allow(path)


@functools.cache
def _add_hook() -> None:
    """Once in a process, for a hook cannot be removed."""
    sys.addaudithook(_hook)


def _hook(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "open" and _reads is not None:
        path, _, flags = arguments
        if isinstance(path, str | bytes) and flags & os.O_ACCMODE != os.O_WRONLY:
            name = os.fsdecode(path)
            if os.path.isfile(name):  # not a folder, nor what is about to be made
                _reads.check(name)
