"""Render the prompts of a recipe into WebDataset shards."""

from pathlib import Path
from typing import Annotated

import typer

from pipeline_lib.artifacts.provenance import recorded
from pipeline_lib.params.base import read
from pipeline_lib.params.runtime import Runtime
from pipeline_lib.params.synthesize import Synthesize
from pipeline_lib.params.task import Task
from pipeline_lib.synthesis.synthesize import synthesize
from stages.command import run


def main(recipe: Annotated[str, typer.Argument(help="A recipe whose prompts are in data/prompts.")]) -> None:
    """Render data/synthetic/RECIPE/: NNNNNN.tar and index.jsonl. A killed run continues at the next shard."""
    params, task, runtime = read(Synthesize, "synthesize"), read(Task, "task"), read(Runtime, "runtime")
    with recorded(
        "synthesize", recipe, packages=("torch", "diffusers", "transformers", "pillow", "webdataset")
    ) as facts:
        facts |= synthesize(
            prompts=Path("data/prompts") / f"{recipe}.jsonl",
            generator=Path(task.generator),
            params=params,
            runtime=runtime,
            out=Path("data/synthetic") / recipe,
        )


if __name__ == "__main__":
    run(main)
