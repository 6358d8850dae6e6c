"""Evaluate a classifier as it was trained on the labelled images."""

from pathlib import Path
from typing import Annotated

import typer

from pipeline_lib.command import run
from pipeline_lib.evaluation.evaluate_float import evaluate_float
from pipeline_lib.models.device import resolve_device
from pipeline_lib.params.base import read
from pipeline_lib.params.evaluate import Evaluate
from pipeline_lib.params.runtime import Runtime
from pipeline_lib.params.task import Task
from pipeline_lib.prompts.vocabulary import read_vocabulary
from pipeline_lib.provenance.record import Kind, recorded

PACKAGES = ("torch", "timm", "torchvision", "pillow", "scipy")


def main(model: Annotated[str, typer.Argument(help="A folder below `task.classifiers`.")]) -> None:
    """Write data/evaluation/float-MODEL/."""
    params, task = read(Evaluate, "evaluate"), read(Task, "task")
    classes, classifier, labelled = Path(task.classes), Path(task.classifiers) / model, Path(task.labelled)
    inputs: dict[Path, Kind] = {classes: "text", classifier: "classifier weights", labelled: "labelled images"}
    device, out = resolve_device(read(Runtime, "runtime")), Path("data/evaluation") / f"float-{model}"
    with recorded("evaluate", out.name, PACKAGES, [out], inputs) as facts:
        facts |= evaluate_float(classifier, labelled, read_vocabulary(classes), params, device, out)


if __name__ == "__main__":
    run(main)
