"""Choose a calibration set from rendered shards for a model: mixed, filtered, balanced."""

from pathlib import Path
from typing import Annotated

import typer

from pipeline_lib.calibration import sources
from pipeline_lib.calibration.preview import write_preview
from pipeline_lib.calibration.treat import treat
from pipeline_lib.command import run
from pipeline_lib.models.device import resolve_device
from pipeline_lib.params.base import read
from pipeline_lib.params.calibrate import Calibrate
from pipeline_lib.params.runtime import Runtime
from pipeline_lib.params.task import Task
from pipeline_lib.params.treatments import Treatment
from pipeline_lib.provenance.record import Kind, recorded


def main(
    recipe: Annotated[str, typer.Argument(help="A recipe that is rendered in data/synthetic.")],
    treatment: Annotated[str, typer.Argument(help="A key of `treatments` in params.yaml.")],
    model: Annotated[str, typer.Argument(help="A folder below `task.classifiers`.")],
) -> None:
    """Write data/calibration/RECIPE-TREATMENT-MODEL/, images and table, and a few of them to data/preview/."""
    chosen, params = read(Treatment, f"treatments.{treatment}"), read(Calibrate, "calibrate")
    task, device = read(Task, "task"), resolve_device(read(Runtime, "runtime"))
    name = f"{recipe}-{treatment}-{model}"
    dataset, classifier = Path("data/synthetic") / recipe, Path(task.classifiers) / model
    out, preview = Path("data/calibration") / name, Path("data/preview") / name
    inputs: dict[Path, Kind] = {dataset: "made", classifier: "classifier weights"}
    with recorded("treat", name, ("torch", "timm", "pillow", "numpy"), [out, preview], inputs) as facts:
        samples = sources.synthetic(dataset)
        facts |= treat(samples, chosen, classifier, params.count, params.seed, device, out)
        write_preview(out, params.preview, preview)


if __name__ == "__main__":
    run(main)
