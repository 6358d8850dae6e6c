"""Section `study`: sources of calibration images against each other, over replicates and domains."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from pipeline_lib.params.base import Section


class StudyAxes(Section):
    """The lists that the matrices of the study's stages run over; all are empty where there is no study."""

    recipes: list[str]
    treated: list[str]  # recipes, each to be treated by every one of the treatments
    treatments: list[str]
    baselines: list[Literal["noise", "distilled", "real"]]
    domains: list[str]
    models: list[str]
    comparison: list[Literal["comparison"]]  # [comparison] or []

    @property
    def sources(self) -> list[str]:
        """All of them, treated ones as RECIPE-TREATMENT."""
        treated = [f"{recipe}-{treatment}" for recipe in self.treated for treatment in self.treatments]
        return [*self.recipes, *treated, *self.baselines]

    @model_validator(mode="after")
    def _treated_are_recipes(self) -> "StudyAxes":
        if not set(self.treated) <= set(self.recipes):
            raise ValueError("treated names recipes, and each must stand in recipes")
        return self


class StudyCells(Section):
    """What a cell of the study is."""

    precisions: Annotated[list[str], Field(min_length=1)]
    replicates: Annotated[int, Field(ge=1)]  # sets of images, each with its own seed of reconstruction
    images: Annotated[int, Field(ge=8)]  # of a calibration set
    block: Annotated[int, Field(ge=8)]  # rendered images that a replicate's set is taken from, filters drop the rest
    judges: list[str]  # recipes whose images after the last block judge without labels
    judge_images: Annotated[int, Field(ge=1)]  # of each of them
    compared: Annotated[int, Field(ge=8)]  # labelled images that a calibration set is compared with

    @model_validator(mode="after")
    def _set_fits_its_block(self) -> "StudyCells":
        if self.images > self.block:
            raise ValueError(f"images is {self.images}, more than the {self.block} of a block")
        return self


class Study(Section):
    """Section `study`."""

    world: str  # folder with classifiers/DOMAIN/MODEL, test/DOMAIN and real/DOMAIN.tar
    axes: StudyAxes
    cells: StudyCells
    baseline: str  # the source that the others are compared with
    resamples: Annotated[int, Field(ge=100)]  # of the bootstrap
    confidence: Annotated[float, Field(gt=0, lt=1)]  # of the intervals

    @model_validator(mode="after")
    def _baseline_is_a_source(self) -> "Study":
        if self.axes.comparison and self.baseline not in self.axes.sources:
            raise ValueError(f"baseline is {self.baseline!r}; expected one of {', '.join(self.axes.sources)}")
        return self
