"""Section `study`: sources of calibration images against each other, over replicates and domains."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from pipeline_lib.params.base import Confidence, Count, PathText, Section
from pipeline_lib.params.names import Names, OwnNames, check_distinct
from pipeline_lib.params.task import named_sources


class StudyAxes(Section):
    """The lists that the matrices of the study's stages run over; all are empty where there is no study."""

    recipes: OwnNames
    treated: OwnNames  # recipes, each to be treated by every one of the treatments
    treatments: OwnNames
    baselines: Annotated[list[Literal["noise", "distilled", "real"]], Field(max_length=3)]
    domains: Names
    models: Names
    against: Names  # sources that all others are compared with, a comparison each

    @property
    def sources(self) -> list[str]:
        """Recipes, treated recipes as RECIPE-TREATMENT, and baselines."""
        return [name for name, _ in self._described]

    @property
    def _described(self) -> list[tuple[str, str]]:
        """The sources, and what each is in words."""
        rendered = named_sources(self.recipes, self.treated, self.treatments)
        return [*rendered, *((baseline, baseline) for baseline in self.baselines)]

    @model_validator(mode="after")
    def _treated_are_recipes(self) -> "StudyAxes":
        if not set(self.treated) <= set(self.recipes):
            raise ValueError("treated names recipes, and each must stand in recipes")
        if not set(self.against) <= set(self.sources):
            raise ValueError(f"against names sources; expected some of {', '.join(self.sources) or 'none'}")
        return self

    @model_validator(mode="after")
    def _paths_are_distinct(self) -> "StudyAxes":
        check_distinct(
            (f"data/study/{source}-{domain}-{model}", f"{words} on model {model} of domain {domain}")
            for source, words in self._described
            for domain in self.domains
            for model in self.models
        )
        return self


class StudyCells(Section):
    """What a cell of the study is."""

    precisions: Annotated[OwnNames, Field(min_length=1)]
    replicates: Annotated[int, Field(ge=1, le=1000)]  # sets of images, each with its own seed of reconstruction
    images: Annotated[int, Field(ge=8, le=10_000_000)]  # of a calibration set
    block: Annotated[
        int, Field(ge=8, le=10_000_000)
    ]  # rendered images that a replicate's set is taken from, filters drop the rest
    judges: OwnNames  # any number of recipes, whose images after the last block judge without labels
    judge_images: Count  # of each of them
    compared: Annotated[int, Field(ge=8, le=100_000)]  # labelled images that a calibration set is compared with

    @model_validator(mode="after")
    def _set_fits_its_block(self) -> "StudyCells":
        if self.images > self.block:
            raise ValueError(f"images is {self.images}, more than the {self.block} of a block")
        return self


class Study(Section):
    """Section `study`."""

    world: PathText  # folder with classifiers/DOMAIN/MODEL, test/DOMAIN and real/DOMAIN.tar
    axes: StudyAxes
    cells: StudyCells
    resamples: Annotated[int, Field(ge=100, le=1_000_000)] = 2000  # of the bootstrap
    confidence: Confidence = 0.95  # of the intervals
