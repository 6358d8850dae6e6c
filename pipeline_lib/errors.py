"""The errors of bad input and of failed runs, and what becomes of every error at the command line."""

import errno
import os
import reprlib
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any


class InputError(Exception):
    """Bad parameters, files or arguments. The message is one line: what was expected, what was found, what mends it."""


class RunError(Exception):
    """Sound input, and yet the run failed: a killed worker, altered bytes, too many bad images. One line as well."""


# What the machine lacks although the input is sound, and what helps.
MACHINE = {
    errno.ENOSPC: "free some space and run again, finished units are kept",
    errno.EDQUOT: "free some space and run again, finished units are kept",
    errno.EFBIG: "let larger files be written here (`ulimit -f`, or another file system) and run again",
    errno.EROFS: "run where data/ and .work/ can be written",
    errno.EMFILE: "allow more open files (`ulimit -n`) and run again",
    errno.ENFILE: "let other programs close files, and run again",
    errno.EIO: "the disk is failing, or the network to it; look at the system's log",
    errno.EPIPE: "who reads the output has left",
}
MEMORY = "out of memory; lower counts and `batch_size` of this stage in params.yaml, or let it have more memory"
OUT_OF_MEMORY = ("DefaultCPUAllocator", "annot allocate memory", "bad_alloc", "failed to map segment")

# What libraries raise for a file that is not theirs: module and class. A library that is not loaded raised nothing.
OF_LIBRARIES = (
    ("safetensors", "SafetensorError"),
    ("PIL.Image", "DecompressionBombError"),
    ("tarfile", "TarError"),
    ("zipfile", "BadZipFile"),
    ("zlib", "error"),
    ("pandas.errors", "ParserError"),
    ("pandas.errors", "EmptyDataError"),
    ("json", "JSONDecodeError"),
)


@contextmanager
def refusing(said: Callable[[Exception], str]) -> Iterator[None]:
    """Around a library's call, and nothing else, that may raise anything for bad input.

    What the machine lacks, memory or room on the disk, is no fault of the input and is raised as it is.

    Raises:
        InputError: whatever else was raised, in the words of `said`.
    """
    try:
        yield
    except Exception as error:
        if isinstance(error, InputError) or isinstance(as_told(error), RunError):
            raise
        raise InputError(said(error)) from None


def reading(path: Path | str, expected: str, mend: str) -> AbstractContextManager[None]:
    """Around the call of a library that reads a file, and nothing else: whatever it raises is a fault of the file.

    Raises:
        InputError: naming the path, what was `expected` (`JSON`), what was found, and `mend`: the command or key that
            helps.
    """

    def said(error: Exception) -> str:
        match error:
            case FileNotFoundError():
                return f"{path}: not found; {mend}"
            case OSError():
                return f"{path}: cannot be read ({error.strerror or one_line(error)}); expected {expected}; {mend}"
            case UnicodeError():
                return f"{path}: not {expected} in UTF-8 ({one_line(error)}); {mend}"
            case RecursionError():
                return f"{path}: not {expected} (nested too deeply); {mend}"
        return f"{path}: not {expected} ({one_line(error)}); {mend}"

    return refusing(said)


def exit_code(command: Callable[[], Any]) -> int:
    """Run a command; 0, or 2 for bad input, 1 for a failed run (one line on stderr), 130 when interrupted.

    A mistake in the program is neither: it is raised, and its traceback shown.
    """
    try:
        command()
        sys.stdout.flush()  # as the interpreter ends nobody could say that the disk is full
    except KeyboardInterrupt:
        print("interrupted; finished units are kept, `dvc repro` continues from them", file=sys.stderr)
        return 130
    except Exception as error:
        told = as_told(error)
        if told is None:
            raise
        _give_up(sys.stdout)
        print(f"error: {printable(str(told))}", file=sys.stderr)
        return 2 if isinstance(told, InputError) else 1
    return 0


def as_told(error: Exception) -> InputError | RunError | None:
    """The error as one of ours. None: it is a mistake in the program.

    Readers turn errors into ours where the file is known. What is left is what no reader can foresee: the system's
    errors, and those of libraries that read late.
    """
    if isinstance(error, InputError | RunError):
        return error
    text = one_line(error)
    if isinstance(error, MemoryError) or _is_of("torch", "OutOfMemoryError", error):
        return RunError(MEMORY)
    if isinstance(error, OSError | RuntimeError | ImportError) and any(words in text for words in OUT_OF_MEMORY):
        return RunError(MEMORY)
    if isinstance(error, OSError):
        if error.errno in MACHINE:
            return RunError(f"{text}; {MACHINE[error.errno]}")
        if error.errno is None and "requested and" in text:  # of numpy, which does not say why it wrote no more
            return RunError(f"a file could not be written: bytes {text}; {MACHINE[errno.ENOSPC]}")
        found = f"{os.fsdecode(error.filename)}: {error.strerror}" if isinstance(error.filename, str | bytes) else text
        return InputError(f"{found}; expected a file or folder that can be used here: see to its path and its rights")
    if isinstance(error, RecursionError):
        return InputError("a file of the input is nested too deeply; the paths in params.yaml name the files")
    if isinstance(error, UnicodeError):
        return InputError(f"expected text and names of files in UTF-8, found others ({text}); rename or convert them")
    if any(_is_of(module, name, error) for module, name in OF_LIBRARIES):
        for number, advice in MACHINE.items():  # of safetensors, which passes on what the system says as text
            if os.strerror(number) in text:
                return RunError(f"{text}; {advice}")
        return InputError(
            f"a file of the input is damaged ({type(error).__name__}: {text}); `dvc checkout` restores it"
        )
    return None


def one_line(error: BaseException) -> str:
    """What an error says, in a line that is not too long; the name of its class if it says nothing."""
    text = " ".join(str(error).split())
    if isinstance(error, KeyError) or not text:
        text = f"{type(error).__name__} {text}".strip()
    return text if len(text) <= 400 else f"{text[:380]} ..."


def shown(value: Any) -> str:
    """A value for a message: as Python writes it, but a few dozen letters of it."""
    try:
        return _SHORT.repr(value)
    except ValueError:  # Python does not print numbers of thousands of digits
        return "a number of thousands of digits"


def printable(text: str) -> str:
    """The text on one line of any terminal: what is no letter is escaped, a line break as well."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = _SHORT.maxlong = 80


def _is_of(module: str, name: str, error: Exception) -> bool:
    return isinstance(error, getattr(sys.modules.get(module), name, ()))


def _give_up(stream: Any) -> None:
    """Drop what cannot be written, or Python would try again as it ends, and complain."""
    try:
        stream.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
