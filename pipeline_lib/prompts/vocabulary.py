"""Class names and definitions, in the order of the classifier's outputs."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from pipeline_lib.errors import InputError
from pipeline_lib.progress import notice
from pipeline_lib.prompts import articles
from pipeline_lib.prompts.text_file import read_table

COLUMNS = [f"index,{names}{more}" for names in ("name", "synset", "synset,name") for more in ("", ",definition")]
WHAT = "a class list, a CSV file that `task.classes` or a recipe's `reads` in params.yaml names"


@dataclass(frozen=True)
class ClassName:
    """One class: what a caption would call it, and what a dictionary says it is."""

    name: str
    definition: str
    synset: str = ""  # of WordNet, where the list has them

    def with_article(self) -> str:
        """`a sneaker`, `an ankle boot`."""
        return articles.with_article(self.name)


def read_vocabulary(path: Path) -> list[ClassName]:
    """The classes of a CSV file with the columns index, name or synset or both, and perhaps definition, in any order.

    Without names, WordNet synsets (`n01440764`) are resolved by timm's own tables of names and definitions. Names may
    repeat, ImageNet has two cranes: a notice lists them.

    Raises:
        InputError: the file cannot be read, its columns are others, indices are not 0, 1, 2, ..., a name is
            empty, a synset is unknown or given twice.
    """
    rows = read_table(path, WHAT, COLUMNS)
    if not rows:
        raise InputError(f"{path}: no classes; expected the columns index,name,definition, and a line a class")
    classes: list[ClassName] = []
    first: dict[str, int] = {}  # class of a synset
    for position, (where, row) in enumerate(rows):
        if row["index"] != str(position):
            raise InputError(
                f"{where}: expected class index {position}, found {row['index']!r}; "
                "each class stands once, in the order of the classifier's outputs"
            )
        entry = _entry(where, row)
        if not entry.name:
            raise InputError(f"{where}: class {position} has no name")
        if entry.synset and first.setdefault(entry.synset, position) != position:
            raise InputError(f"{where}: class {position} has the synset {entry.synset} of class {first[entry.synset]}")
        classes.append(entry)
    repeated = _repeated(classes)
    if repeated:
        _say_once(f"{path}: names of several classes, which are told apart by their indices: {repeated}")
    return classes


@cache
def _say_once(text: str) -> None:
    """In a process, which may read a list for its classes and again for its words."""
    notice(text)


def _entry(where: str, row: dict[str, str]) -> ClassName:
    if "name" in row:
        return ClassName(row["name"], row.get("definition", ""), row.get("synset", ""))
    try:
        names = _wordnet().label_name_to_description(row["synset"], detailed=False)
        definition = _wordnet().label_name_to_description(row["synset"], detailed=True)
    except KeyError:
        raise InputError(f"{where}: timm knows no synset {row['synset']!r}; add a column `name`") from None
    # The first of the synonyms.
    definition = row.get("definition", definition.split(":", 1)[-1].strip())
    return ClassName(names.split(",")[0].strip(), definition, row["synset"])


@cache
def _wordnet() -> Any:
    from timm.data import ImageNetInfo  # imports torch

    return ImageNetInfo()


def _repeated(classes: Sequence[ClassName]) -> str:
    """`crane (134, 517), maillot (638, 639)`."""
    indices: dict[str, list[int]] = {}
    for index, entry in enumerate(classes):
        indices.setdefault(entry.name, []).append(index)
    several = {name: found for name, found in indices.items() if len(found) > 1}
    return ", ".join(f"{name} ({', '.join(map(str, found))})" for name, found in several.items())
