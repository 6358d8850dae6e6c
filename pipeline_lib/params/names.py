"""Names in params.yaml. They become parts of paths, of stages' names and of commands, so few letters will do."""

import re
from collections.abc import Iterable, Mapping
from typing import Annotated, Any

from pydantic import AfterValidator, Field

from pipeline_lib.errors import InputError

BASELINES = ("noise", "distilled", "real")
RESERVED = (*BASELINES, "float")  # `float-MODEL` is what `evaluate_float` writes


def name(text: str) -> str:
    """The text, if it can be a name.

    Raises:
        ValueError: it has other letters.
    """
    if not re.fullmatch("[a-z0-9][a-z0-9_-]{0,49}", text):
        raise ValueError(
            "expected a name of the letters a-z, 0-9, _ and -, that begins with one of a-z, 0-9 and has at most 50"
        )
    return text


def own_name(text: str) -> str:
    """The text, if a recipe, treatment or precision can be called so.

    Raises:
        ValueError: it has other letters, or is the name of something that is no recipe.
    """
    if text in RESERVED:
        raise ValueError(f"expected another name; {', '.join(RESERVED)} are taken")
    return name(text)


Name = Annotated[str, AfterValidator(name)]
OwnName = Annotated[str, AfterValidator(own_name)]
Names = Annotated[list[Name], Field(max_length=50)]  # an axis: five of them make a matrix of cells
OwnNames = Annotated[list[OwnName], Field(max_length=50)]

# By the names of stages' arguments. An empty option was not given.
ARGUMENTS = {
    "recipe": own_name,
    "treatment": own_name,
    "precision": own_name,
    "source": name,
    "model": name,
    "domain": name,
    "baseline": name,
}


def check_arguments(arguments: Mapping[str, Any]) -> None:
    """Refuse names on the command line of a stage that params.yaml could not have.

    Raises:
        InputError: one of them is not a name, or is taken.
    """
    for key, value in arguments.items():
        if key in ARGUMENTS and value:
            try:
                ARGUMENTS[key](value)
            except ValueError as error:
                raise InputError(f"{key} is {value!r}; {error}") from None


def check_distinct(described: Iterable[tuple[str, str]]) -> None:
    """Refuse two things that would be written to one path: pairs of the path and what is written there, in words.

    Raises:
        ValueError: naming the path and both things.
    """
    taken: dict[str, str] = {}
    for path, words in described:
        if taken.get(path) == words:
            raise ValueError(f"{words} stands there twice")
        if path in taken:
            raise ValueError(f"{taken[path]} and {words} would both be {path}; rename one of them")
        taken[path] = words
