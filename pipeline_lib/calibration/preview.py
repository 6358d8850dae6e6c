"""A few images of a calibration set, for stages that only look at it: they then do without the whole."""

from pathlib import Path

import numpy as np
import pandas as pd

from pipeline_lib.artifacts.files import atomic_directory
from pipeline_lib.artifacts.records import write_json
from pipeline_lib.calibration.assemble import IMAGES, SAMPLES

SUMMARY = "summary.json"


def write_preview(calibration: Path, count: int, out: Path) -> None:
    """Write `out`: the first `count` images and their rows, and how many of all were left out for which reason."""
    images = np.load(calibration / IMAGES, mmap_mode="r")
    rows = pd.read_csv(calibration / SAMPLES, keep_default_na=False)
    left_out = rows.loc[~rows["kept"], "reason"].value_counts(sort=False).sort_index()
    with atomic_directory(out) as folder:
        np.save(folder / IMAGES, images[:count])
        rows[rows["kept"]].head(count).to_csv(folder / SAMPLES, index=False)
        counts = {str(reason): int(number) for reason, number in left_out.items()}
        write_json(folder / SUMMARY, {"images": len(images), "left_out": counts})
