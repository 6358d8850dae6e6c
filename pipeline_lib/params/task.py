"""Section `task`: what is quantized, by which generator, judged on which images. `axes`: the matrix of dvc.yaml."""

import os
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import Annotated

from pydantic import Field, model_validator

from pipeline_lib.errors import InputError
from pipeline_lib.params.base import PARAMS_FILE, PathText, Section, load, validate
from pipeline_lib.params.names import Names, OwnNames, check_distinct


class Task(Section):
    """Paths from the root of the repository; dvc.yaml declares each as a dependency of the stages that read it."""

    classes: PathText  # CSV: index,name,definition, or index,synset for WordNet synsets resolved by timm
    generator: PathText  # folder: a diffusers pipeline, or hub.json naming a repository and revision
    classifiers: PathText  # folder with a folder a model: model.json, and model.safetensors unless the hub has it
    labelled: PathText  # folder of labelled test images: idx pair, tars, labels.csv, or one folder a class
    real: PathText  # folder of pictures, or WebDataset tars: real calibration images, the upper bound
    images: PathText  # folder with pictures or tars for each source of `axes.images`, rendered elsewhere

    @model_validator(mode="after")
    def _a_path_is_of_one_kind(self) -> "Task":
        paths = {key: Path(os.path.realpath(value)) for key, value in self}
        for one, other in combinations(paths, 2):
            if paths[one].is_relative_to(paths[other]) or paths[other].is_relative_to(paths[one]):
                raise ValueError(
                    f"{one} ({getattr(self, one)}) and {other} ({getattr(self, other)}) overlap, so nobody could say "
                    "which of them a file is; expected paths of which none lies in another"
                )
        return self


class Axes(Section):
    """The lists that dvc.yaml's matrix runs over."""

    recipes: OwnNames
    treated: OwnNames  # recipes whose images are calibrated on after each of the treatments
    treatments: OwnNames
    noise: Annotated[list[str], Field(max_length=1)]
    distilled: Annotated[list[str], Field(max_length=1)]
    real: Annotated[list[str], Field(max_length=1)]
    images: OwnNames  # rendered elsewhere: folders below `task.images`
    sources: Names  # what networks are quantized on: any of the above
    models: Names
    precisions: OwnNames

    @property
    def made(self) -> dict[str, str]:
        """Every source that has calibration sets, and what it is in words.

        Raises:
            ValueError: two of them would get one name.
        """
        sources = list(named_sources(self.recipes, self.treated, self.treatments))
        sources += [(name, name) for name in (*self.noise, *self.distilled, *self.real)]
        sources += [(name, f"images {name}") for name in self.images]
        check_distinct(sources)
        return dict(sources)

    @model_validator(mode="after")
    def _sources_are_made(self) -> "Axes":
        for axis, name in ((self.noise, "noise"), (self.distilled, "distilled"), (self.real, "real")):
            if not set(axis) <= {name}:
                raise ValueError(f"{name} is [{name}] or []")
        if not set(self.treated) <= set(self.recipes):
            raise ValueError("treated names recipes, and each must stand in recipes")
        unknown = sorted(set(self.sources) - self.made.keys())
        if unknown:
            raise ValueError(
                f"sources names {', '.join(unknown)}; expected recipes, noise, distilled, real, images or "
                f"RECIPE-TREATMENT as the other axes have them: {', '.join(sorted(self.made))}"
            )
        return self

    @model_validator(mode="after")
    def _paths_are_distinct(self) -> "Axes":
        check_distinct(
            (f"data/calibration/{source}-{model}", f"{words} on model {model}")
            for source, words in self.made.items()
            for model in self.models
        )
        check_distinct(self._evaluations())
        return self

    def _evaluations(self) -> Iterator[tuple[str, str]]:
        for model in self.models:
            yield f"data/evaluation/float-{model}", f"the float network of model {model}"
            for source in self.sources:
                for precision in self.precisions:
                    words = f"{self.made[source]} on model {model} at {precision}"
                    yield f"data/evaluation/{source}-{model}-{precision}", words


def named_sources(recipes: list[str], treated: list[str], treatments: list[str]) -> Iterator[tuple[str, str]]:
    """Recipes and treated recipes: their names as sources, and what they are in words."""
    for recipe in recipes:
        yield recipe, f"recipe {recipe}"
    for recipe in treated:
        for treatment in treatments:
            yield f"{recipe}-{treatment}", f"recipe {recipe} after treatment {treatment}"


def check_stated_images(task: Task, axes: Axes, path: Path = PARAMS_FILE) -> None:
    """Images that were rendered elsewhere are none of the other inputs, by whatever link.

    Raises:
        InputError: the folder of a source leads into a path of the task, or one of these into it.
    """
    others = {key: Path(os.path.realpath(value)) for key, value in task if key != "images"}
    for source in axes.images:
        folder = Path(os.path.realpath(Path(task.images) / source))
        for key, other in others.items():
            if folder.is_relative_to(other) or other.is_relative_to(folder):
                raise InputError(
                    f"{path}: {Path(task.images) / source} leads to {folder}, which overlaps with `task.{key}`; images "
                    "that were rendered elsewhere lie in a folder of their own"
                )


def check_task_and_axes(path: Path = PARAMS_FILE) -> None:
    """What every stage checks before it begins, for DVC does not: names, overlapping paths, cells with one path.

    Raises:
        InputError: naming file, key, value and what is allowed.
    """
    content = load(path)
    task = validate(Task, content.get("task"), "task", path)
    check_stated_images(task, validate(Axes, content.get("axes"), "axes", path), path)
