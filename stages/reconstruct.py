"""Quantize a classifier on a calibration set by block reconstruction."""

from pathlib import Path
from typing import Annotated

import typer

from pipeline_lib.calibration.sets import IMAGES
from pipeline_lib.command import run
from pipeline_lib.models.device import resolve_device
from pipeline_lib.params.base import read
from pipeline_lib.params.reconstruct import Method, Precision, Reconstruct
from pipeline_lib.params.runtime import Runtime
from pipeline_lib.params.task import Task
from pipeline_lib.prompts.vocabulary import read_vocabulary
from pipeline_lib.provenance.record import Kind, recorded
from pipeline_lib.quantization.quantize import Quantization, quantize


def main(
    source: Annotated[str, typer.Argument(help="A source whose calibration set is in data/calibration.")],
    model: Annotated[str, typer.Argument(help="A folder below `task.classifiers`.")],
    precision: Annotated[str, typer.Argument(help="A key of `precisions` in params.yaml.")],
) -> None:
    """Write data/quantized/SOURCE-MODEL-PRECISION/. A killed run continues at the next unit."""
    params, task, runtime = read(Reconstruct, "reconstruct"), read(Task, "task"), read(Runtime, "runtime")
    how = Quantization(
        precision=read(Precision, f"precisions.{precision}"),
        reconstruct=params,
        methods=read(dict[str, Method], "methods"),
        device=resolve_device(runtime, tf32=params.tf32),
        cache_gib=runtime.cache_gib,
    )
    cell = f"{source}-{model}-{precision}"
    calibration, out = Path("data/calibration") / f"{source}-{model}", Path("data/quantized") / cell
    classifier = Path(task.classifiers) / model
    listed = Path(task.classes)
    inputs: dict[Path, Kind] = {calibration: "made", classifier: "classifier weights", listed: "text"}
    with recorded("reconstruct", cell, ("torch", "timm", "safetensors"), [out], inputs) as facts:
        classes = [(entry.name, entry.definition) for entry in read_vocabulary(listed)]
        facts |= quantize(calibration / IMAGES, classifier, how, out, f"reconstruct@{cell}", classes)


if __name__ == "__main__":
    run(main)
