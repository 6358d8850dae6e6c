"""A few images of a calibration set, for stages that only look at it: they then do without the whole."""

from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd

from pipeline_lib.artifacts.files import atomic_directory
from pipeline_lib.artifacts.records import write_json
from pipeline_lib.calibration.sets import DROPPED, IMAGES, SAMPLES, kind_of_reason

SUMMARY = "summary.json"


def write_preview(calibration: Path, count: int, out: Path) -> None:
    """Write `out`: the first `count` images, the dropped ones, and how many of all were left out for which reason.

    samples.csv has the rows of the images, followed by those of the dropped ones.
    """
    images, dropped = (np.load(calibration / name, mmap_mode="r") for name in (IMAGES, DROPPED))
    rows = pd.read_csv(calibration / SAMPLES, keep_default_na=False)
    kept, left_out = rows[rows["kept"]], rows[~rows["kept"]]
    with atomic_directory(out) as folder:
        np.save(folder / IMAGES, images[:count])
        np.save(folder / DROPPED, dropped)
        pd.concat([kept.head(count), left_out.head(len(dropped))]).to_csv(folder / SAMPLES, index=False)
        counts = Counter(map(kind_of_reason, left_out["reason"]))
        write_json(folder / SUMMARY, {"images": len(images), "left_out": dict(sorted(counts.items()))})
