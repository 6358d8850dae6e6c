"""Assemble a calibration set from rendered shards, noise or real images, at a model's input size."""

from pathlib import Path
from typing import Annotated

import typer

from pipeline_lib.artifacts.provenance import recorded
from pipeline_lib.calibration import sources
from pipeline_lib.calibration.assemble import assemble
from pipeline_lib.calibration.preview import write_preview
from pipeline_lib.command import run
from pipeline_lib.models.card import resolve_data_config
from pipeline_lib.params.base import read
from pipeline_lib.params.calibrate import Calibrate
from pipeline_lib.params.task import Task


def main(
    source: Annotated[str, typer.Argument(help="noise, real, or a recipe that is rendered in data/synthetic.")],
    model: Annotated[str, typer.Argument(help="A folder below `task.classifiers`.")],
) -> None:
    """Write data/calibration/SOURCE-MODEL/, images.npy and samples.csv, and a few of them to data/preview/."""
    params, task, name = read(Calibrate, "calibrate"), read(Task, "task"), f"{source}-{model}"
    data_config = resolve_data_config(Path(task.classifiers) / model)
    if source == "noise":
        samples = sources.noise(params.count, params.seed, data_config)
    elif source == "real":
        samples = sources.real(Path(task.real))
    else:
        samples = sources.synthetic(Path("data/synthetic") / source)
    out, preview = Path("data/calibration") / name, Path("data/preview") / name
    with recorded("calibrate", name, ("pillow", "numpy"), [out, preview]) as facts:
        facts |= assemble(samples, params.count, data_config, out)
        write_preview(out, params.preview, preview)


if __name__ == "__main__":
    run(main)
