"""Write the prompts of a recipe."""

from pathlib import Path
from typing import Annotated

import typer

from pipeline_lib.artifacts.records import write_lines
from pipeline_lib.command import run
from pipeline_lib.params.base import read
from pipeline_lib.params.prompts import read_recipe
from pipeline_lib.params.task import Task
from pipeline_lib.prompts.limits import load_tokenizers, within_limits
from pipeline_lib.prompts.strategies import Surroundings, write_prompts
from pipeline_lib.prompts.vocabulary import read_vocabulary
from pipeline_lib.provenance.record import Kind, recorded


def main(recipe: Annotated[str, typer.Argument(help="A key of `prompts` in params.yaml.")]) -> None:
    """Write data/prompts/RECIPE.jsonl: a line a sample."""
    params, task = read_recipe(recipe), read(Task, "task")
    classes, generator, out = Path(task.classes), Path(task.generator), Path("data/prompts") / f"{recipe}.jsonl"
    inputs: dict[Path, Kind] = {classes: "text", generator: "generator weights", Path(params.reads): "text"}
    with recorded("prompts", recipe, (), [out], inputs) as facts:
        surroundings = Surroundings(read_vocabulary(classes), generator)
        prompts = write_prompts(recipe, params, surroundings)
        write_lines(out, within_limits(prompts, recipe, params, load_tokenizers(generator)))
        facts["prompts"] = params.count


if __name__ == "__main__":
    run(main)
