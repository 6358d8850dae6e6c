"""Prompts that somebody wrote: a text file with a prompt a line, or a CSV file that may say what each shows."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline_lib.errors import InputError, shown
from pipeline_lib.params.prompts import control_character
from pipeline_lib.prompts.labels import Labels
from pipeline_lib.prompts.text_file import read_table, read_text
from pipeline_lib.prompts.vocabulary import ClassName

WHAT = "captions, a text or CSV file that the recipe's `reads` in params.yaml names"
SEPARATOR = ";"  # of the classes of a prompt


@dataclass(frozen=True)
class Caption:
    """A prompt, and the indices of the classes that it shows: none where nobody said so."""

    text: str
    classes: list[int]


def read_captions(path: Path, classes: Sequence[ClassName]) -> list[Caption]:
    """The prompts of a file, in order: of CSV if its name ends so, else a line each.

    A CSV file has the columns prompt, or prompt and classes; classes are names, synsets or indices, separated by
    semicolons.

    Raises:
        InputError: the file cannot be read, has no captions, a prompt is empty, or a class is unknown or ambiguous.
    """
    if path.suffix.lower() == ".csv":
        rows = read_table(path, WHAT, ["prompt", "prompt,classes"])
    else:
        lines = read_text(path, WHAT).rstrip().split("\n")
        rows = [(f"{path}:{number}", {"prompt": line.strip()}) for number, line in enumerate(lines, 1) if any(lines)]
    if not rows:
        raise InputError(f"{path}: no captions; write a prompt a line")
    captions, labels = [], Labels(classes)
    for where, row in rows:
        if not row["prompt"]:
            raise InputError(f"{where}: an empty prompt; remove the line")
        if control_character(row["prompt"]):
            raise InputError(f"{where}: a tab in the prompt; write a space")
        named = [name.strip() for name in row.get("classes", "").split(SEPARATOR) if name.strip()]
        indices = [_index(where, name, labels) for name in named]
        if len(set(indices)) < len(indices):
            raise InputError(f"{where}: a class is named twice in {row['classes']!r}; name each once")
        captions.append(Caption(row["prompt"], indices))
    return captions


def _index(where: str, name: str, labels: Labels) -> int:
    """The class that a name, a synset or an index means."""
    try:
        return labels.index(name)
    except ValueError as error:
        raise InputError(f"{where}: {shown(name)} is {error}; expected {labels.expected}") from None
