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
    treated: list[str]  # recipes whose images are calibrated on after each of the treatments
    treatments: list[str]
    noise: list[str]
    distilled: list[str]
    real: list[str]
    sources: list[str]  # what networks are quantized on: any of the above
    models: list[str]
    precisions: list[str]

    @model_validator(mode="after")
    def _sources_are_made(self) -> "Axes":
        for axis, name in ((self.noise, "noise"), (self.distilled, "distilled"), (self.real, "real")):
            if not set(axis) <= {name}:
                raise ValueError(f"{name} is [{name}] or []")
        if not set(self.treated) <= set(self.recipes):
            raise ValueError("treated names recipes, and each must stand in recipes")
        treated = {f"{recipe}-{treatment}" for recipe in self.treated for treatment in self.treatments}
        made = {*self.recipes, *treated, *self.noise, *self.distilled, *self.real}
        unknown = sorted(set(self.sources) - made)
        if unknown:
            raise ValueError(
                f"sources names {', '.join(unknown)}; expected recipes, noise, distilled, real or RECIPE-TREATMENT as "
                f"the other axes have them: {', '.join(sorted(made))}"
            )
        return self
