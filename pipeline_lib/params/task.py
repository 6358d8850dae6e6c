"""Section `task`: what is quantized, by which generator, judged on which images. `axes`: the matrix of dvc.yaml."""

from pydantic import model_validator

from pipeline_lib.params.base import Section


class Task(Section):
    """Paths from the root of the repository; dvc.yaml declares each as a dependency of the stages that read it."""

    classes: str  # CSV: index,name,definition, or index,synset for WordNet synsets resolved by timm
    generator: str  # folder: a diffusers pipeline, or hub.json naming a repository and revision
    classifiers: str  # folder with a folder per model: model.json and, unless it names a hub model, model.safetensors
    labelled: str  # folder of labelled test images: idx pair, WebDataset tars, or one folder a class
    real: str  # WebDataset tar or folder of tars: real calibration images, the upper bound


class Axes(Section):
    """The lists that dvc.yaml's matrix runs over."""

    recipes: list[str]
    noise: list[str]
    real: list[str]
    sources: list[str]
    models: list[str]
    precisions: list[str]

    @model_validator(mode="after")
    def _sources_are_the_union(self) -> "Axes":
        expected = {*self.recipes, *self.noise, *self.real}
        if set(self.sources) != expected:
            raise ValueError(f"sources must be those of recipes, noise and real together: {sorted(expected)}")
        if not set(self.noise) <= {"noise"} or not set(self.real) <= {"real"}:
            raise ValueError("noise is [noise] or [], real is [real] or []")
        return self
