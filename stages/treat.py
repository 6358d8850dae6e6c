"""Choose a calibration set from rendered shards for a model: mixed, filtered, balanced."""

from pathlib import Path
from typing import Annotated

import typer

from pipeline_lib.artifacts.provenance import recorded
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


def main(
    recipe: Annotated[str, typer.Argument(help="A recipe that is rendered in data/synthetic.")],
    treatment: Annotated[str, typer.Argument(help="A key of `treatments` in params.yaml.")],
    model: Annotated[str, typer.Argument(help="A folder below `task.classifiers`.")],
) -> None:
    """Write data/calibration/RECIPE-TREATMENT-MODEL/, images and table, and a few of them to data/preview/."""
    chosen, params = read(Treatment, f"treatments.{treatment}"), read(Calibrate, "calibrate")
    task, device = read(Task, "task"), resolve_device(read(Runtime, "runtime"))
    name = f"{recipe}-{treatment}-{model}"
    samples = sources.synthetic(Path("data/synthetic") / recipe)
    out, preview = Path("data/calibration") / name, Path("data/preview") / name
    with recorded("treat", name, ("torch", "timm", "pillow", "numpy"), [out, preview]) as facts:
        facts |= treat(samples, chosen, Path(task.classifiers) / model, params.count, params.seed, device, out)
        write_preview(out, params.preview, preview)


if __name__ == "__main__":
    run(main)
