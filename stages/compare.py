"""Compare the sources of a study."""

from pathlib import Path
from typing import Annotated

import typer

from pipeline_lib.command import run
from pipeline_lib.params.base import read
from pipeline_lib.params.study import Study
from pipeline_lib.provenance.record import recorded
from pipeline_lib.study.compare import compare


def main(baseline: Annotated[str, typer.Argument(help="The source that all others are compared with.")]) -> None:
    """Write data/comparison/BASELINE/: means.csv, comparisons.csv and ranking.csv, from the cells in data/study/."""
    out = Path("data/comparison") / baseline
    cells = Path("data/study")
    with recorded("compare", baseline, ("pandas", "scipy"), [out], {cells: "made"}) as facts:
        facts |= compare(cells, read(Study, "study"), baseline, out)


if __name__ == "__main__":
    run(main)
