"""YAML 1.2, as DVC reads and writes it: `1e-5` is a number, `yes` a word."""

from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from pipeline_lib.errors import InputError


def read_yaml(path: Path, mend: str) -> dict[str, Any]:
    """The mapping that a file holds.

    Raises:
        InputError: absent, with `mend` as advice; not YAML; or not a mapping.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise InputError(f"{path}: not found; {mend}") from None
    return parse_yaml(text, path)


def parse_yaml(text: str, path: Path) -> dict[str, Any]:
    """The mapping that a text holds, which stands in the file `path` or is about to.

    Raises:
        InputError: not YAML, or not a mapping.
    """
    try:
        content = YAML(typ="safe").load(text)
    except YAMLError as error:
        raise InputError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict):
        raise InputError(f"{path}: expected a mapping, found {type(content).__name__}")
    return content
