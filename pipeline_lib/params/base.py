"""Reading a section of params.yaml into a frozen, strict model."""

from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

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


S = TypeVar("S", bound=Section)


def load(path: Path = PARAMS_FILE) -> dict[str, Any]:
    """The whole file as plain values."""
    return read_yaml(path, "`python -m pipeline_lib preset default` writes one")


def validate(model: type[S], value: Any, key: str, path: Path = PARAMS_FILE) -> S:
    """Check `value`, which stands at `key` of the file, against the model."""
    try:
        return model.model_validate(value)
    except ValidationError as error:
        raise InputError("; ".join(_describe(e, key, path) for e in error.errors())) from None


def read(model: type[S], key: str, path: Path = PARAMS_FILE) -> S:
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
    return validate(model, value, key, path)


def _describe(error: Any, key: str, path: Path) -> str:
    where = ".".join([key, *(str(part) for part in error["loc"])]) if key else ".".join(map(str, error["loc"]))
    if error["type"] == "extra_forbidden":
        return f"{path}: unknown key `{where}`"
    if error["type"] == "missing":
        return f"{path}: missing key `{where}`"
    return f"{path}: `{where}` is {error['input']!r}; {error['msg'][0].lower()}{error['msg'][1:]}"
