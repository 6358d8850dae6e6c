"""Make a calibration set by optimising noise for a model."""

from pathlib import Path
from typing import Annotated

import typer

from pipeline_lib.calibration.distil import distil
from pipeline_lib.calibration.preview import write_preview
from pipeline_lib.command import run
from pipeline_lib.models.device import resolve_device
from pipeline_lib.params.base import read
from pipeline_lib.params.calibrate import Calibrate
from pipeline_lib.params.distil import Distil
from pipeline_lib.params.runtime import Runtime
from pipeline_lib.params.task import Task
from pipeline_lib.provenance.record import Kind, recorded


def main(model: Annotated[str, typer.Argument(help="A folder below `task.classifiers`.")]) -> None:
    """Write data/calibration/distilled-MODEL/, images.npy and samples.csv, and a few of them to data/preview/."""
    params, calibrate, task = read(Distil, "distil"), read(Calibrate, "calibrate"), read(Task, "task")
    device, name = resolve_device(read(Runtime, "runtime")), f"distilled-{model}"
    out, preview = Path("data/calibration") / name, Path("data/preview") / name
    classifier = Path(task.classifiers) / model
    inputs: dict[Path, Kind] = {classifier: "classifier weights"}
    with recorded("distil", name, ("torch", "timm", "numpy"), [out, preview], inputs) as facts:
        facts |= distil(classifier, params, calibrate.count, params.seed, device, out)
        write_preview(out, calibrate.preview, preview)


if __name__ == "__main__":
    run(main)
