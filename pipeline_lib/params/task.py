"""Section `task`: what is quantized, by which generator, judged on which images. `axes`: the matrix of dvc.yaml."""

from collections.abc import Iterator
from itertools import combinations
from pathlib import Path

from pydantic import model_validator

from pipeline_lib.params.base import PARAMS_FILE, Section, load, validate
from pipeline_lib.params.names import Name, OwnName, check_distinct


class Task(Section):
    """Paths from the root of the repository; dvc.yaml declares each as a dependency of the stages that read it."""

    classes: str  # CSV: index,name,definition, or index,synset for WordNet synsets resolved by timm
    generator: str  # folder: a diffusers pipeline, or hub.json naming a repository and revision
    classifiers: str  # folder with a folder per model: model.json and, unless it names a hub model, model.safetensors
    labelled: str  # folder of labelled test images: idx pair, WebDataset tars, or one folder a class
    real: str  # folder of pictures, or WebDataset tars: real calibration images, the upper bound
    images: str  # folder with pictures or tars for each source of `axes.images`, rendered elsewhere

    @model_validator(mode="after")
    def _a_path_is_of_one_kind(self) -> "Task":
        paths = {key: Path(value).resolve() for key, value in self}
        for one, other in combinations(paths, 2):
            if paths[one].is_relative_to(paths[other]) or paths[other].is_relative_to(paths[one]):
                raise ValueError(
                    f"{one} ({getattr(self, one)}) and {other} ({getattr(self, other)}) overlap, so nobody could say "
                    "which of them a file is; expected paths of which none lies in another"
                )
        return self


class Axes(Section):
    """The lists that dvc.yaml's matrix runs over."""

    recipes: list[OwnName]
    treated: list[OwnName]  # recipes whose images are calibrated on after each of the treatments
    treatments: list[OwnName]
    noise: list[str]
    distilled: list[str]
    real: list[str]
    images: list[OwnName]  # rendered elsewhere: folders below `task.images`
    sources: list[Name]  # what networks are quantized on: any of the above
    models: list[Name]
    precisions: list[OwnName]

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


def check_task_and_axes(path: Path = PARAMS_FILE) -> None:
    """What every stage checks before it begins, for DVC does not: names, overlapping paths, cells with one path.

    Raises:
        InputError: naming file, key, value and what is allowed.
    """
    content = load(path)
    validate(Task, content.get("task"), "task", path)
    validate(Axes, content.get("axes"), "axes", path)
