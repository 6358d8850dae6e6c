"""Assemble a calibration set from rendered shards, noise or real images, at a model's input size."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from pipeline_lib.calibration import sources
from pipeline_lib.calibration.assemble import assemble
from pipeline_lib.calibration.preview import write_preview
from pipeline_lib.command import run
from pipeline_lib.models.card import resolve_data_config
from pipeline_lib.params.base import read
from pipeline_lib.params.calibrate import Calibrate
from pipeline_lib.params.images import StatedImages
from pipeline_lib.params.task import Task
from pipeline_lib.provenance.record import Kind, recorded


def main(
    source: Annotated[
        str,
        typer.Argument(help="A recipe that is rendered in data/synthetic, or a name in the axes noise, real, images."),
    ],
    model: Annotated[str, typer.Argument(help="A folder below `task.classifiers`.")],
    images: Annotated[Literal["rendered", "noise", "real", "stated"], typer.Option(help="What the source is.")],
) -> None:
    """Write data/calibration/SOURCE-MODEL/, images.npy and samples.csv, and a few of them to data/preview/."""
    params, task, name = read(Calibrate, "calibrate"), read(Task, "task"), f"{source}-{model}"
    out, preview = Path("data/calibration") / name, Path("data/preview") / name
    classifier = Path(task.classifiers) / model
    inputs: dict[Path, Kind] = {classifier: "classifier weights"}
    kinds: dict[str, tuple[Path, Kind]] = {
        "rendered": (Path("data/synthetic") / source, "made"),
        "real": (Path(task.real), "real images"),
        "stated": (Path(task.images) / source, "stated images"),
    }
    if images == "stated":
        read(StatedImages, f"images.{source}")  # for the record
    if images in kinds:
        inputs |= [kinds[images]]
    with recorded("calibrate", name, ("pillow", "numpy"), [out, preview], inputs) as facts:
        data_config = resolve_data_config(classifier)
        match images:
            case "rendered":
                samples = sources.synthetic(kinds[images][0])
            case "noise":
                samples = sources.noise(params.count, params.seed, data_config)
            case "real" | "stated":
                samples = sources.pictures(kinds[images][0], params.seed)
        facts |= assemble(samples, params.count, data_config, out)
        write_preview(out, params.preview, preview)


if __name__ == "__main__":
    run(main)
