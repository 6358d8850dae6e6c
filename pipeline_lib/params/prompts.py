"""Section `prompts`: one recipe a key."""

from typing import Annotated, Any, Literal, cast

from pydantic import Field, field_validator

from pipeline_lib.params.base import Section, read


class PromptRecipe(Section):
    """What every recipe has: how the prompts of one synthetic dataset are written."""

    reads: str  # file that the prompts are made of: a class list, or captions
    count: Annotated[int, Field(ge=1)]  # images
    negative_prompt: str = ""


class ClassRecipe(PromptRecipe):
    """Prompts that are made of class names."""

    seed: Annotated[int, Field(ge=0)] = 0
    # Used in turn; {} is the class names, fused.
    templates: Annotated[list[str], Field(min_length=1)] = Field(default_factory=lambda: ["a photo of {}"])
    definitions: bool = False  # follow each name with its definition

    @field_validator("templates")
    @classmethod
    def _one_place_for_names(cls, templates: list[str]) -> list[str]:
        for template in templates:
            if template.count("{}") != 1:
                raise ValueError(f"each template needs exactly one {{}}, not so {template!r}")
        return templates


class Single(ClassRecipe):
    """A class a prompt."""

    strategy: Literal["single"]


class Mixup(ClassRecipe):
    """Several classes a prompt."""

    strategy: Literal["mixup"]
    classes_per_prompt: Annotated[int, Field(ge=2, le=8)] = 2
    pairs: Literal["uniform", "similar", "dissimilar"] = "uniform"  # which classes meet, by the text encoder
    fusion: Literal["text", "embedding"] = "text"  # one prompt names all classes, or a prompt each: embeddings mixed
    concentration: Annotated[float, Field(gt=0)] = 1.0  # of the Dirichlet that draws weights of embeddings; 1: uniform


class FromFile(PromptRecipe):
    """Captions of a text or CSV file, in turn."""

    strategy: Literal["file"]


Recipe = Annotated[Single | Mixup | FromFile, Field(discriminator="strategy")]


def read_recipe(name: str) -> PromptRecipe:
    """The recipe at `prompts.NAME` of params.yaml.

    Raises:
        InputError: there is none, or it is not as its strategy has it.
    """
    recipe: PromptRecipe = read(cast(Any, Recipe), f"prompts.{name}")
    return recipe
