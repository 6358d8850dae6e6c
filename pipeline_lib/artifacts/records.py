"""JSON and JSON-lines files with stable bytes."""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from pipeline_lib.artifacts.files import atomic
from pipeline_lib.errors import InputError, reading, shown

Text = Annotated[str, Field(min_length=1, pattern=r"^[^\x00-\x1f\x7f]+$")]  # without line breaks and other controls
Key = Annotated[str, Field(pattern=r"^[^\x00-\x1f\x7f./\\]+$", max_length=200)]  # names the files of a new shard
ClassIndex = Annotated[int, Field(ge=0)]
CHECKOUT = "`dvc checkout` restores the file"


class KeyedRow(BaseModel):
    """What every record in a shard has; other keys may follow."""

    model_config = ConfigDict(strict=True, extra="allow", allow_inf_nan=False)

    key: Text


class Row(KeyedRow):
    """What is known of every image of a dataset."""

    classes: list[ClassIndex]  # that the image is meant to show


class PromptRow(Row):
    """A row of data/prompts/RECIPE.jsonl: what an image is rendered from."""

    key: Key
    prompt: str
    negative_prompt: str
    weights: list[float]  # of the classes
    parts: list[str] | None = None  # a prompt a class, whose embeddings are mixed by the weights

    @model_validator(mode="after")
    def _every_class_has_a_weight(self) -> Self:
        if {len(self.classes), len(self.parts or self.weights)} - {len(self.weights)}:
            raise ValueError("expected a weight for each class, and for each part")
        return self


class IndexRow(Row):
    """A row of the index.jsonl of a dataset."""

    shard: Text


class RenderedRow(PromptRow, IndexRow):
    """A row of the index.jsonl of a dataset that was rendered from prompts."""

    seed: ClassIndex
    pixel_sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    defect: str
    duplicate_of: str | None


def write_lines(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    """One JSON object a line, atomically."""
    with atomic(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def iterate_lines(path: Path, shape: type[BaseModel] | None = None) -> Iterator[dict[str, Any]]:
    """The rows of a JSON-lines file, one at a time, as they stand there. `shape`: what each must have.

    Raises:
        InputError: the file is absent, or a line is not a JSON object of this shape.
    """
    with reading(path, "JSON lines", "`dvc repro` makes it"):
        file = path.open(encoding="utf-8", newline="\n")
    with file:
        number = 0
        while True:
            with reading(path, "JSON lines", CHECKOUT):
                line = file.readline()
            if not line:
                return
            number += 1
            where = f"{path}:{number}"
            row = parse_json(line, where, CHECKOUT)
            if shape is not None:
                check_row(row, shape, where, CHECKOUT)
            yield row


def check_row(row: dict[str, Any], shape: type[BaseModel], where: Path | str, mend: str) -> None:
    """Refuse a row of another shape than this, such as `Row`; `where` it stands, for errors.

    Raises:
        InputError: naming the key, what is there and what was expected.
    """
    try:
        shape.model_validate(row)
    except ValidationError as error:
        first = error.errors()[0]
        key = f"`{'.'.join(map(str, first['loc']))}`" if first["loc"] else "the row"
        found = "missing" if first["type"] == "missing" else f"{shown(first['input'])}; {first['msg'].lower()}"
        raise InputError(f"{where}: {key} is {found}; {mend}") from None


def read_lines(path: Path, shape: type[BaseModel] | None = None) -> list[dict[str, Any]]:
    """All rows of a JSON-lines file; see `iterate_lines`."""
    return list(iterate_lines(path, shape))


def write_json(path: Path, value: dict[str, Any]) -> None:
    """An indented JSON object, atomically."""
    with atomic(path) as temporary:
        temporary.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def read_json(path: Path, mend: str = "`dvc checkout` or `git checkout` restores what was here") -> dict[str, Any]:
    """A JSON object. `mend`: the command or key that helps if it is absent or damaged.

    Raises:
        InputError: the file is absent or holds something else.
    """
    with reading(path, "JSON", mend):
        text = path.read_text(encoding="utf-8")
    return parse_json(text, path, mend)


def parse_json(text: str, where: Path | str, mend: str) -> dict[str, Any]:
    """The JSON object that a text is; `where` it stands, for errors.

    Raises:
        InputError: it is something else.
    """
    with reading(where, "JSON", mend):
        value = json.loads(text)
        if "\\u" in text:  # an escape may be half of a letter, which no file could be written with
            json.dumps(value, ensure_ascii=False).encode()
    if not isinstance(value, dict):
        raise InputError(f"{where}: expected a JSON object, found {type(value).__name__}; {mend}")
    return value
