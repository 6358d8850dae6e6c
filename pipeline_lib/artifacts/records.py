"""JSON and JSON-lines files with stable bytes."""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from pipeline_lib.artifacts.files import atomic
from pipeline_lib.errors import InputError


def write_lines(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    """One JSON object a line, atomically."""
    with atomic(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def iterate_lines(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of a JSON-lines file, one at a time.

    Raises:
        InputError: the file is absent, or a line is not a JSON object.
    """
    try:
        file = path.open(encoding="utf-8", newline="\n")
    except FileNotFoundError:
        raise InputError(f"{path}: not found; `dvc repro` makes it") from None
    with file:
        for number, line in enumerate(file, 1):
            try:
                row = json.loads(line)
            except json.JSONDecodeError as error:
                raise InputError(f"{path}:{number}: not JSON ({error.msg}); `dvc checkout` restores the file") from None
            if not isinstance(row, dict):
                raise InputError(f"{path}:{number}: expected a JSON object, found {type(row).__name__}")
            yield row


def read_lines(path: Path) -> list[dict[str, Any]]:
    """All rows of a JSON-lines file; see `iterate_lines`."""
    return list(iterate_lines(path))


def write_json(path: Path, value: dict[str, Any]) -> None:
    """An indented JSON object, atomically."""
    with atomic(path) as temporary:
        temporary.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object.

    Raises:
        InputError: the file is absent or holds something else.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path}: not found") from None
    except json.JSONDecodeError as error:
        raise InputError(f"{path}: not JSON ({error.msg})") from None
    if not isinstance(value, dict):
        raise InputError(f"{path}: expected a JSON object, found {type(value).__name__}")
    return value
