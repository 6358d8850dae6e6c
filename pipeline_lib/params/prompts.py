"""Section `prompts`: one recipe a key."""

import unicodedata
from typing import Annotated, Any, Literal, cast

from pydantic import AfterValidator, Field

from pipeline_lib.params.base import Section, Seed, read

UNPRINTABLE = ("Cc", "Cs", "Zl", "Zp")  # Unicode's control characters, half characters, separators of lines


def control_character(text: str) -> str:
    """The first character that no line of text has, such as a line break or a tab; empty if there is none."""
    return next((character for character in text if unicodedata.category(character) in UNPRINTABLE), "")


def _one_line(text: str) -> str:
    if control_character(text):
        raise ValueError("expected one line, found a line break, a tab or another control character")
    return text


def _template(text: str) -> str:
    around = text.split("{}")
    if len(around) != 2 or set("{}") & set("".join(around)):
        raise ValueError("expected exactly one {}, for the class names, and no other braces")
    return text


OneLine = Annotated[str, AfterValidator(_one_line)]
Template = Annotated[OneLine, AfterValidator(_template)]


class PromptRecipe(Section):
    """What every recipe has: how the prompts of one synthetic dataset are written."""

    reads: OneLine  # file that the prompts are made of: a class list, or captions
    count: Annotated[int, Field(ge=1, le=1_000_000)]  # images; the ids of samples have six digits
    negative_prompt: OneLine = ""
    too_long: Literal["error", "cut"] = "error"  # a prompt that a text encoder does not read to its end; cut: recorded


class ClassRecipe(PromptRecipe):
    """Prompts that are made of class names."""

    seed: Seed = 0
    # Used in turn; {} is the class names, fused.
    templates: Annotated[list[Template], Field(min_length=1)] = Field(default_factory=lambda: ["a photo of {}"])
    definitions: bool = False  # follow each name with its definition


class Single(ClassRecipe):
    """A class a prompt."""

    strategy: Literal["single"]


class Mixup(ClassRecipe):
    """Several classes a prompt."""

    strategy: Literal["mixup"]
    classes_per_prompt: Annotated[int, Field(ge=2, le=8)] = 2
    pairs: Literal["uniform", "similar", "dissimilar"] = "uniform"  # which classes meet, by the text encoder
    fusion: Literal["text", "embedding"] = "text"  # one prompt names all classes, or a prompt each: embeddings mixed
    # Of the Dirichlet that draws weights of embeddings. 1: uniform; small: nearly one class; large: nearly equal.
    concentration: Annotated[float, Field(gt=0, le=1e6)] = 1.0


class FromFile(PromptRecipe):
    """Captions of a text or CSV file."""

    strategy: Literal["file"]


Recipe = Annotated[Single | Mixup | FromFile, Field(discriminator="strategy")]


def read_recipe(name: str) -> PromptRecipe:
    """The recipe at `prompts.NAME` of params.yaml.

    Raises:
        InputError: there is none, or it is not as its strategy has it.
    """
    recipe: PromptRecipe = read(cast(Any, Recipe), f"prompts.{name}")
    return recipe
