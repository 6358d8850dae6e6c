"""Render the prompts of a recipe into WebDataset shards."""

import re
from pathlib import Path
from typing import Annotated

import typer

from pipeline_lib.command import run
from pipeline_lib.errors import InputError
from pipeline_lib.params.base import read
from pipeline_lib.params.runtime import Runtime
from pipeline_lib.params.synthesize import Synthesize
from pipeline_lib.params.task import Task
from pipeline_lib.progress import notice
from pipeline_lib.provenance.record import Kind, recorded
from pipeline_lib.synthesis.synthesize import Synthesis

PACKAGES = ("torch", "diffusers", "transformers", "pillow", "webdataset")


def main(
    recipe: Annotated[str, typer.Argument(help="A recipe whose prompts are in data/prompts.")],
    shards: Annotated[
        str, typer.Option(metavar="A-B", help="Render the shards A to B alone, numbered from 0; with --work-only.")
    ] = "",
    work_only: Annotated[
        bool, typer.Option("--work-only", help="Leave the shards in .work; a later `dvc repro` assembles them.")
    ] = False,
) -> None:
    """Render data/synthetic/RECIPE/: NNNNNN.tar and index.jsonl. A killed run continues at the next shard."""
    bounds = re.fullmatch(r"(\d+)-(\d+)", shards)
    if work_only != bool(bounds):
        raise InputError(f"--work-only goes with --shards A-B, two numbers, and the other way round; found {shards!r}")
    params, task, runtime = read(Synthesize, "synthesize"), read(Task, "task"), read(Runtime, "runtime")
    prompts, generator = Path("data/prompts") / f"{recipe}.jsonl", Path(task.generator)
    if bounds:
        synthesis = Synthesis(recipe, prompts, generator, params, runtime)
        facts = synthesis.work_on(*map(int, bounds.groups()))
        notice(f"shards {shards} of {recipe} are done, {facts['images_rendered_in_this_run']} images in this run")
        return
    out = Path("data/synthetic") / recipe
    inputs: dict[Path, Kind] = {prompts: "made", generator: "generator weights"}
    with recorded("synthesize", recipe, PACKAGES, [out], inputs) as facts:
        facts |= Synthesis(recipe, prompts, generator, params, runtime).run(out)


if __name__ == "__main__":
    run(main)
