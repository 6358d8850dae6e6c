"""Reading a section of params.yaml into a frozen, strict model."""

from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from pipeline_lib.errors import InputError
from pipeline_lib.yaml_file import read_yaml

PARAMS_FILE = Path("params.yaml")


class Section(BaseModel):
    """Base of every section: unknown keys and wrong types are errors, instances are immutable."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    def differences(self, *, without: AbstractSet[str] = frozenset()) -> dict[str, Any]:
        """The values that are not the defaults, as JSON has them, for an identity.

        A new key whose default is what was done before then changes no identity.
        """
        return self.model_dump(mode="json", exclude_defaults=True, exclude=set(without))


T = TypeVar("T")

values_read: dict[str, Any] = {}  # what `read` found in this process, by key; it goes into the record of a stage


def load(path: Path = PARAMS_FILE) -> dict[str, Any]:
    """The whole file as plain values."""
    return read_yaml(path, "`python -m pipeline_lib preset default` writes one")


def validate(model: type[T], value: Any, key: str, path: Path = PARAMS_FILE) -> T:
    """Check `value`, which stands at `key` of the file, against a model or a union of models.

    Raises:
        InputError: naming file, key, value and what is allowed.
    """
    try:
        return TypeAdapter(model).validate_python(value)
    except ValidationError as error:
        raise InputError("; ".join(_in_words(e, value, key, path) for e in error.errors())) from None


def read(model: type[T], key: str, path: Path = PARAMS_FILE) -> T:
    """The section at `key`, a dotted name such as `synthesize` or `prompts.mixup`.

    Raises:
        InputError: naming file, key, value and what is allowed.
    """
    value: Any = load(path)
    for part in key.split("."):
        if not isinstance(value, dict) or part not in value:
            known = ", ".join(value) if isinstance(value, dict) else "nothing"
            raise InputError(f"{path}: no key `{key}`; there is {known}")
        value = value[part]
    values_read[key] = value
    return validate(model, value, key, path)


def _in_words(error: Any, value: Any, key: str, path: Path) -> str:
    where = ".".join(filter(None, [key, *_keys(error["loc"], value)]))
    match error["type"]:
        case "extra_forbidden":
            return f"{path}: unknown key `{where}`"
        case "missing":
            return f"{path}: missing key `{where}`"
        case "union_tag_not_found":
            return f"{path}: missing key `{where}.{_tag(error)}`"
        case "union_tag_invalid":
            found, expected = error["ctx"]["tag"], error["ctx"]["expected_tags"]
            return f"{path}: `{where}.{_tag(error)}` is {found!r}; expected one of {expected}"
    return f"{path}: `{where}` is {error['input']!r}; {error['msg'][0].lower()}{error['msg'][1:]}"


def _tag(error: Any) -> str:
    """The key whose value says which model of a union is meant."""
    return str(error["ctx"]["discriminator"]).strip("'")


def _keys(location: tuple[int | str, ...], value: Any) -> list[str]:
    """The keys of an error's location, without the tags that pydantic puts in where a model is one of a union."""
    keys: list[str] = []
    for number, part in enumerate(location):
        inside = isinstance(part, int) or (isinstance(value, dict) and part in value)
        if inside or number == len(location) - 1:
            keys.append(str(part))
        if inside:
            value = value[part]
    return keys
