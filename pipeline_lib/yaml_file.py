"""YAML 1.2, as DVC reads and writes it: `1e-5` is a number, `yes` a word."""

from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.constructor import DuplicateKeyError
from ruamel.yaml.error import MarkedYAMLError
from ruamel.yaml.events import AliasEvent, CollectionEndEvent, CollectionStartEvent, ScalarEvent

from pipeline_lib.errors import InputError, one_line, reading

MOST_LEVELS = 100  # of mappings and lists in each other; thousands of them end the process in libyaml
MOST_VALUES = 10_000_000  # with aliases followed, of which a few lines can make billions
MOST_DIGITS = 1000  # hexadecimal and octal; Python itself refuses a few thousand decimal ones


def read_yaml(path: Path, mend: str) -> dict[str, Any]:
    """The mapping that a file holds.

    Raises:
        InputError: absent, with `mend` as advice, or with the project's root if this is a folder in it; not YAML; or
            not a mapping.
    """
    root = _root_above(path)
    with reading(path, "valid YAML", mend if root is None else f"run this in {root}, where it is"):
        text = path.read_text(encoding="utf-8")
    return parse_yaml(text, path)


def parse_yaml(text: str, path: Path) -> dict[str, Any]:
    """The mapping that a text holds, which stands in the file `path` or is about to.

    Raises:
        InputError: not YAML, or not a mapping.
    """
    with reading(path, "valid YAML", "mend it there, or see `git diff`"):
        try:
            _check_extent(text)
            content = YAML(typ="safe").load(text)
        except DuplicateKeyError as error:
            key = str(error.problem).split('"')[1]
            raise InputError(f"{_at(path, error)}: key `{key}` stands there twice; expected each key once") from None
        except MarkedYAMLError as error:
            raise InputError(f"{_at(path, error)}: not valid YAML: {error.problem or one_line(error)}") from None
    if not isinstance(content, dict):
        raise InputError(f"{path}: expected a mapping, found {type(content).__name__}")
    return content


def _root_above(path: Path) -> Path | None:
    """The folder above the working directory that has the project's dvc.yaml and the file; none if the file is here."""
    if path.is_absolute() or path.exists():
        return None
    above = (folder for folder in Path.cwd().parents if (folder / "dvc.yaml").is_file() and (folder / path).is_file())
    return next(above, None)


def _at(path: Path, error: MarkedYAMLError) -> str:
    return f"{path}:{error.problem_mark.line + 1}" if error.problem_mark else str(path)


def _check_extent(text: str) -> None:
    """Stop at what is nested too deeply, or is too much once aliases are followed.

    Raises:
        ValueError: it is.
    """
    sizes: dict[str, int] = {}  # values below each anchor
    begun: list[tuple[str | None, int]] = []  # of the collections that are open: anchor, and `size` before it
    size = 0
    for event in YAML(typ="safe").parse(text):
        match event:
            case CollectionStartEvent():
                begun.append((event.anchor, size))
            case CollectionEndEvent():
                anchor, before = begun.pop()
                if anchor:
                    sizes[anchor] = size - before
            case AliasEvent():
                size += sizes.get(event.anchor, 1)
            case ScalarEvent():
                size += 1
                if event.value.lstrip("+-")[:2] in ("0x", "0o") and len(event.value) > MOST_DIGITS:
                    raise ValueError(f"a number of more than {MOST_DIGITS} digits")
        if len(begun) > MOST_LEVELS:
            raise ValueError(f"more than {MOST_LEVELS} levels of mappings and lists")
        if size > MOST_VALUES:
            raise ValueError(f"more than {MOST_VALUES} values, aliases followed")
