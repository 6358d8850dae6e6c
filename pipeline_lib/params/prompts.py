"""Section `prompts`: one recipe a key."""

from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from pipeline_lib.params.base import Section


class Recipe(Section):
    """How the prompts of one synthetic dataset are written."""

    strategy: Literal["single", "mixup"]
    classes_per_prompt: Annotated[int, Field(ge=1, le=8)]  # 1 for single, 2 or more for mixup
    pairs: Literal["uniform", "similar", "dissimilar"]  # which classes meet, by the generator's text embeddings
    fusion: Literal[
        "text", "embedding"
    ]  # one prompt names all classes, or a prompt a class, whose embeddings are mixed
    concentration: Annotated[float, Field(gt=0)]  # of the Beta (Dirichlet) that draws weights of embeddings; 1: uniform
    count: Annotated[int, Field(ge=1)]  # images
    seed: Annotated[int, Field(ge=0)]
    templates: Annotated[list[str], Field(min_length=1)]  # used in turn; {} is the class names, fused
    definitions: bool  # follow each name with its definition
    negative_prompt: str

    @field_validator("templates")
    @classmethod
    def _one_place_for_names(cls, templates: list[str]) -> list[str]:
        for template in templates:
            if template.count("{}") != 1:
                raise ValueError(f"each template needs exactly one {{}}, not so {template!r}")
        return templates

    @model_validator(mode="after")
    def _classes_fit_the_strategy(self) -> "Recipe":
        if (self.strategy == "single") != (self.classes_per_prompt == 1):
            raise ValueError(f"classes_per_prompt is {self.classes_per_prompt}; single takes 1, mixup 2 or more")
        if self.fusion == "embedding" and self.strategy == "single":
            raise ValueError("fusion is embedding; a single class has nothing to fuse, set it to text")
        if self.pairs != "uniform" and self.strategy == "single":
            raise ValueError(f"pairs is {self.pairs}; a single class meets no other, set it to uniform")
        return self
