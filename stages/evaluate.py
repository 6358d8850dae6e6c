"""Evaluate a cell on the labelled images."""

from pathlib import Path
from typing import Annotated

import typer

from pipeline_lib.command import run
from pipeline_lib.evaluation.evaluate import Inputs, evaluate_cell
from pipeline_lib.models.device import resolve_device
from pipeline_lib.params.base import read
from pipeline_lib.params.evaluate import Evaluate
from pipeline_lib.params.runtime import Runtime
from pipeline_lib.params.task import Task
from pipeline_lib.prompts.vocabulary import read_vocabulary
from pipeline_lib.provenance.record import Kind, recorded

PACKAGES = ("torch", "timm", "torchvision", "pillow", "scipy")
OUT = Path("data/evaluation")


def main(
    source: Annotated[str, typer.Argument(help="A source of `axes`.")],
    model: Annotated[str, typer.Argument(help="A folder below `task.classifiers`.")],
    precision: Annotated[str, typer.Argument(help="A key of `precisions`.")],
) -> None:
    """Write data/evaluation/SOURCE-MODEL-PRECISION/."""
    params, task = read(Evaluate, "evaluate"), read(Task, "task")
    cell = f"{source}-{model}-{precision}"
    classes, labelled, classifier = Path(task.classes), Path(task.labelled), Path(task.classifiers) / model
    looked_at = Inputs(
        quantized=Path("data/quantized") / cell,
        float_evaluation=OUT / f"float-{model}",
        classifier=classifier,
        preview=Path("data/preview") / f"{source}-{model}",
        labelled=labelled,
    )
    inputs: dict[Path, Kind] = {classes: "text", labelled: "labelled images", classifier: "classifier weights"}
    inputs |= {looked_at.quantized: "made", looked_at.float_evaluation: "made", looked_at.preview: "made"}
    device = resolve_device(read(Runtime, "runtime"))
    axes = {"source": source, "model": model, "precision": precision}
    with recorded("evaluate", cell, PACKAGES, [OUT / cell], inputs) as facts:
        facts |= evaluate_cell(axes, looked_at, read_vocabulary(classes), params, device, OUT / cell)


if __name__ == "__main__":
    run(main)
