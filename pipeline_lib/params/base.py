"""Reading a section of params.yaml into a frozen, strict model."""

from collections.abc import Iterable
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from pipeline_lib.errors import InputError, shown
from pipeline_lib.yaml_file import read_yaml

PARAMS_FILE = Path("params.yaml")
MOST_LISTED = 12  # mistakes, or keys, that an error names

# Every number has bounds on both sides, far above what anybody needs: who mistypes one is told so, and neither waits
# for a week nor runs out of memory.
Count = Annotated[int, Field(ge=1, le=10_000_000)]  # images, prompts or iterations: ImageNet has 1.3 million images
Batch = Annotated[int, Field(ge=1, le=65_536)]  # images computed on together
Threads = Annotated[int, Field(ge=1, le=256)]  # thousands of them end the process
Seed = Annotated[int, Field(ge=0, lt=2**63)]
Rate = Annotated[float, Field(ge=0, le=1000)]  # learning rates, weights of terms
PositiveRate = Annotated[float, Field(gt=0, le=1000)]
Share = Annotated[float, Field(ge=0, le=1)]
Confidence = Annotated[float, Field(ge=0.5, le=0.9999)]  # of intervals


def path_text(text: str) -> str:
    """The text, if it can be the path of a file or folder.

    Raises:
        ValueError: it cannot.
    """
    if not text or not text.isprintable() or any(len(part.encode()) > 255 for part in text.split("/")):
        raise ValueError("expected a path, of printable letters and of names of at most 255 bytes")
    return text


PathText = Annotated[str, AfterValidator(path_text)]


class Section(BaseModel):
    """Base of every section: unknown keys and wrong types are errors, instances are immutable."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

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
        mistakes = error.errors()
        words = [_in_words(mistake, value, key, path) for mistake in mistakes[:MOST_LISTED]]
        more = [f"{len(mistakes) - MOST_LISTED} more mistakes"] if len(mistakes) > MOST_LISTED else []
        raise InputError("; ".join(words + more)) from None


def read(model: type[T], key: str, path: Path = PARAMS_FILE) -> T:
    """The section at `key`, a dotted name such as `synthesize` or `prompts.mixup`.

    Raises:
        InputError: naming file, key, value and what is allowed.
    """
    value: Any = load(path)
    for part in key.split("."):
        if not isinstance(value, dict) or part not in value:
            known = listed(value) if isinstance(value, dict) and value else "nothing"
            raise InputError(f"{path}: no key `{key}`; there is {known}")
        value = value[part]
    values_read[key] = value
    return validate(model, value, key, path)


def listed(names: Iterable[Any]) -> str:
    """Names for a message, the first of them if they are many."""
    texts = [text if len(text) <= 80 else f"{text[:80]}..." for text in map(str, names)]
    more = f" and {len(texts) - MOST_LISTED} more" if len(texts) > MOST_LISTED else ""
    return ", ".join(texts[:MOST_LISTED]) + more


def _in_words(error: Any, value: Any, key: str, path: Path) -> str:
    where = ".".join(filter(None, [key, *(listed([part]) for part in _keys(error["loc"], value))]))
    match error["type"]:
        case "extra_forbidden":
            return f"{path}: unknown key `{where}`"
        case "missing":
            return f"{path}: missing key `{where}`"
        case "union_tag_not_found":
            return f"{path}: missing key `{where}.{_tag(error)}`"
        case "union_tag_invalid":
            found, expected = error["ctx"]["tag"], error["ctx"]["expected_tags"]
            return f"{path}: `{where}.{_tag(error)}` is {shown(found)}; expected one of {expected}"
    subject = f"`{where}`" if where else "the whole"
    return f"{path}: {subject} is {shown(error['input'])}; {error['msg'][0].lower()}{error['msg'][1:]}"


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
