"""Prompts that somebody wrote: a text file with a prompt a line, or a CSV file that may say what each shows."""

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline_lib.errors import InputError
from pipeline_lib.prompts.vocabulary import ClassName

COLUMNS = (["prompt"], ["prompt", "classes"])
SEPARATOR = ";"  # of the classes of a prompt


@dataclass(frozen=True)
class Caption:
    """A prompt, and the indices of the classes that it shows: none where nobody said so."""

    text: str
    classes: list[int]


def read_captions(path: Path, classes: Sequence[ClassName]) -> list[Caption]:
    """The prompts of a file, in order: of CSV if its name ends so, else a line each.

    A CSV file has the columns prompt, or prompt,classes; classes are names or indices, separated by semicolons.

    Raises:
        InputError: the file is absent, empty or no text, a prompt is empty, or a class is unknown or ambiguous.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise InputError(f"{path}: captions not found; the recipe's `reads` in params.yaml names the file") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: expected text in UTF-8, found other bytes at {error.start}") from None
    if path.suffix.lower() == ".csv":
        captions = _from_csv(path, text, classes)
    else:
        captions = [Caption(line.strip(), []) for line in text.splitlines()]
    for number, caption in enumerate(captions, 1 + (path.suffix.lower() == ".csv")):
        if not caption.text:
            raise InputError(f"{path}:{number}: an empty prompt; remove the line")
    if not captions:
        raise InputError(f"{path}: no captions; write a prompt a line")
    return captions


def _from_csv(path: Path, text: str, classes: Sequence[ClassName]) -> list[Caption]:
    reader = csv.DictReader(io.StringIO(text, newline=""))
    if list(reader.fieldnames or []) not in COLUMNS:
        found = ",".join(reader.fieldnames or [])
        raise InputError(f"{path}: expected the columns prompt or prompt,classes, found {found}")
    captions = []
    for row in reader:
        where = f"{path}:{reader.line_num}"
        if None in row or None in row.values():
            raise InputError(
                f"{path}:{reader.line_num}: another number of fields than columns; quote prompts with commas"
            )
        named = [name.strip() for name in row.get("classes", "").split(SEPARATOR) if name.strip()]
        where = f"{path}:{reader.line_num}"
        captions.append(Caption(row["prompt"].strip(), [_index(where, name, classes) for name in named]))
    return captions


def _index(where: str, name: str, classes: Sequence[ClassName]) -> int:
    """The class that a name, or an index, means."""
    if name.isdecimal() and int(name) < len(classes):
        return int(name)
    found = [index for index, entry in enumerate(classes) if entry.name == name]
    if len(found) > 1:
        raise InputError(f"{where}: {name!r} is the name of the classes {', '.join(map(str, found))}; write an index")
    if not found:
        raise InputError(f"{where}: no class {name!r} in `task.classes`; write a name of its list, or an index")
    return found[0]
