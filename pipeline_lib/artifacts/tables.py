"""CSV tables that a stage wrote, read by another."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from pipeline_lib.errors import reading

MEND = "`dvc checkout` restores it, `dvc repro` makes it anew"


def read_table(path: Path, columns: Sequence[str], text: Sequence[str] = ()) -> pd.DataFrame:
    """Some columns of a CSV, in this order: those named in `text` as they stand, the others as numbers.

    Raises:
        InputError: absent, damaged, or without such columns.
    """
    types = {column: str if column in text else float for column in columns}
    with reading(path, f"a table with the columns {', '.join(columns)}", MEND):
        table = pd.read_csv(path, usecols=list(columns), dtype=types, keep_default_na=False)
    return table[list(columns)]
