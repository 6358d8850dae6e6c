"""Class names and definitions, in the order of the classifier's outputs."""

import csv
from dataclasses import dataclass
from pathlib import Path

from pipeline_lib.errors import InputError


@dataclass(frozen=True)
class ClassName:
    """One class: what a caption would call it, and what a dictionary says it is."""

    name: str
    definition: str
    synset: str = ""  # of WordNet, where the list has them

    def with_article(self) -> str:
        """`a sneaker`, `an ankle boot`."""
        return f"{'an' if self.name[0].lower() in 'aeiou' else 'a'} {self.name}"


def read_vocabulary(path: Path) -> list[ClassName]:
    """The classes of a CSV file with columns index,name,definition, or index,synset.

    WordNet synsets (`n01440764`) are resolved by timm's own tables of names and definitions.

    Raises:
        InputError: file or column absent, indices not 0, 1, 2, ..., a name empty or given twice, a synset unknown.
    """
    try:
        with path.open(encoding="utf-8", newline="") as file:
            reader = csv.DictReader(file)
            columns, rows = reader.fieldnames or [], list(reader)
    except FileNotFoundError:
        raise InputError(f"{path}: class list not found; `task.classes` in params.yaml names it") from None
    if columns not in (["index", "name", "definition"], ["index", "synset"]):
        found = ",".join(columns)
        raise InputError(f"{path}: expected the columns index,name,definition or index,synset, found {found}")
    for position, row in enumerate(rows):
        if row["index"] != str(position):
            raise InputError(
                f"{path}:{position + 2}: expected class index {position}, found {row['index']!r}; "
                "each class stands once, in the order of the classifier's outputs"
            )
    classes = _resolve(path, rows) if "synset" in columns else _named(rows)
    seen: dict[str, int] = {}
    for position, entry in enumerate(classes):
        if not entry.name:
            raise InputError(f"{path}:{position + 2}: class {position} has no name")
        if entry.name in seen and "name" in columns:
            raise InputError(
                f"{path}:{position + 2}: class {position} is called {entry.name!r} like class {seen[entry.name]}"
            )
        seen[entry.name] = position
    if not classes:
        raise InputError(f"{path}: no classes")
    return classes


def _named(rows: list[dict[str, str]]) -> list[ClassName]:
    return [ClassName(row["name"].strip(), (row["definition"] or "").strip()) for row in rows]


def _resolve(path: Path, rows: list[dict[str, str]]) -> list[ClassName]:
    from timm.data import ImageNetInfo  # imports torch

    info = ImageNetInfo()
    classes = []
    for position, row in enumerate(rows):
        try:
            names = info.label_name_to_description(row["synset"], detailed=False)
            definition = info.label_name_to_description(row["synset"], detailed=True)
        except KeyError:
            raise InputError(f"{path}:{position + 2}: timm knows no synset {row['synset']!r}") from None
        # The first of the synonyms; two ImageNet classes share theirs (crane, maillot): that is polysemy, not an error.
        classes.append(ClassName(names.split(",")[0].strip(), definition.split(":", 1)[-1].strip(), row["synset"]))
    return classes
