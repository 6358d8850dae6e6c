"""Quantize on one source, replicate by replicate, and measure: one row of cells of the study."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from pipeline_lib.command import run
from pipeline_lib.models.device import resolve_device
from pipeline_lib.params.base import read
from pipeline_lib.params.distil import Distil
from pipeline_lib.params.evaluate import Evaluate
from pipeline_lib.params.reconstruct import Method, Precision, Reconstruct
from pipeline_lib.params.runtime import Runtime
from pipeline_lib.params.study import Study
from pipeline_lib.params.task import Task
from pipeline_lib.params.treatments import Treatment
from pipeline_lib.prompts.vocabulary import read_vocabulary
from pipeline_lib.provenance.record import Kind, recorded
from pipeline_lib.study.cells import StudySettings, run_cells
from pipeline_lib.study.sets import StudySource


def main(
    source: Annotated[str, typer.Argument(help="A recipe that is rendered in data/synthetic, or a baseline.")],
    domain: Annotated[str, typer.Argument(help="A folder below `study.world`'s classifiers and test.")],
    model: Annotated[str, typer.Argument(help="A classifier of the domain.")],
    images: Annotated[Literal["rendered", "noise", "distilled", "real"], typer.Option(help="What the source is.")],
    treatment: Annotated[str, typer.Option(help="A key of `treatments`: what is done to the recipe's images.")] = "",
) -> None:
    """Write data/study/SOURCE-DOMAIN-MODEL/: every precision and replicate. A killed run continues at the next cell."""
    study, params, runtime = read(Study, "study"), read(Reconstruct, "reconstruct"), read(Runtime, "runtime")
    world, name = Path(study.world), f"{source}-{treatment}" if treatment else source
    out = Path("data/study") / f"{name}-{domain}-{model}"
    stage = "study-treated" if treatment else "study" if images == "rendered" else "study-baseline"
    chosen = StudySource(
        name=source,
        images=images,
        treatment=read(Treatment, f"treatments.{treatment}") if treatment else None,
        distil=read(Distil, "distil") if images == "distilled" else None,
        synthetic=Path("data/synthetic"),
        real=world / "real" / f"{domain}.tar",
        classifier=world / "classifiers" / domain / model,
    )
    settings = StudySettings(
        precisions={name: read(Precision, f"precisions.{name}") for name in study.cells.precisions},
        reconstruct=params,
        methods=read(dict[str, Method], "methods"),
        evaluate=read(Evaluate, "evaluate"),
        cells=study.cells,
        device=resolve_device(runtime, tf32=params.tf32),
        cache_gib=runtime.cache_gib,
    )
    labelled, classes = world / "test" / domain, Path(read(Task, "task").classes)
    inputs: dict[Path, Kind] = {chosen.classifier: "classifier weights", labelled: "labelled images", classes: "text"}
    inputs[chosen.synthetic] = "made"
    if stage == "study-baseline":  # which declares them for every baseline, though real images alone read them
        inputs[chosen.real] = "real images"
    with recorded("study", out.name, ("torch", "timm", "scipy"), [out], inputs) as facts:
        facts |= run_cells(chosen, labelled, read_vocabulary(classes), settings, out, f"{stage}@{out.name}")


if __name__ == "__main__":
    run(main)
