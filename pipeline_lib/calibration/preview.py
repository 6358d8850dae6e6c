"""A few images of a calibration set, for stages that evaluate or show it: they need not fetch the whole set."""

from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd

from pipeline_lib.artifacts.files import atomic_directory
from pipeline_lib.artifacts.records import write_json
from pipeline_lib.calibration.sets import DROPPED, IMAGES, SAMPLES, reason_in_general

SUMMARY = "summary.json"


def write_preview(calibration: Path, count: int, out: Path) -> None:
    """Write `out`: the first `count` images, the stored dropped ones, and how many were left out for which reason.

    samples.csv has the rows of these images, followed by those of the dropped ones.
    """
    images = np.load(calibration / IMAGES, mmap_mode="r")
    dropped = np.load(calibration / DROPPED, mmap_mode="r")
    rows = pd.read_csv(calibration / SAMPLES, keep_default_na=False)
    kept, left_out = rows[rows["kept"]], rows[~rows["kept"]]
    with atomic_directory(out) as folder:
        np.save(folder / IMAGES, images[:count])
        np.save(folder / DROPPED, dropped)
        pd.concat([kept.head(count), left_out.head(len(dropped))]).to_csv(folder / SAMPLES, index=False)
        counts = Counter(map(reason_in_general, left_out["reason"]))
        write_json(folder / SUMMARY, {"images": len(images), "left_out": dict(sorted(counts.items()))})
