"""Evaluate a cell, or a float network, on the labelled images."""

from pathlib import Path
from typing import Annotated

import typer

from pipeline_lib.artifacts.provenance import recorded
from pipeline_lib.command import run
from pipeline_lib.evaluation.evaluate import Inputs, evaluate_cell, evaluate_float
from pipeline_lib.models.device import resolve_device
from pipeline_lib.params.base import read
from pipeline_lib.params.evaluate import Evaluate
from pipeline_lib.params.runtime import Runtime
from pipeline_lib.params.task import Task
from pipeline_lib.prompts.vocabulary import read_vocabulary

PACKAGES = ("torch", "timm", "torchvision", "pillow", "scipy")
OUT = Path("data/evaluation")


def main(
    source: Annotated[str, typer.Argument(help="A source, or `float` for the network as it was trained.")],
    model: Annotated[str, typer.Argument(help="A folder below `task.classifiers`.")],
    precision: Annotated[str | None, typer.Argument(help="A key of `precisions`; none for `float`.")] = None,
) -> None:
    """Write data/evaluation/SOURCE-MODEL-PRECISION/ or data/evaluation/float-MODEL/."""
    params, task = read(Evaluate, "evaluate"), read(Task, "task")
    classifier, labelled, device = (
        Path(task.classifiers) / model,
        Path(task.labelled),
        resolve_device(read(Runtime, "runtime")),
    )
    names = [c.name for c in read_vocabulary(Path(task.classes))]
    if precision is None:
        out = OUT / f"float-{model}"
        with recorded("evaluate", out.name, PACKAGES, [out]) as facts:
            facts |= evaluate_float(model, classifier, labelled, names, params, device, out)
        return
    cell = f"{source}-{model}-{precision}"
    with recorded("evaluate", cell, PACKAGES, [OUT / cell]) as facts:
        facts |= evaluate_cell(
            cell={"source": source, "model": model, "precision": precision},
            inputs=Inputs(
                quantized=Path("data/quantized") / cell,
                float_evaluation=OUT / f"float-{model}",
                classifier=classifier,
                preview=Path("data/preview") / f"{source}-{model}",
                labelled=labelled,
            ),
            class_names=names,
            params=params,
            device=device,
            out=OUT / cell,
        )


if __name__ == "__main__":
    run(main)
