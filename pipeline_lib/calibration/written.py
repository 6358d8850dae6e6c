"""A calibration set on the disk: its images, a row for every image that was looked at, a few that were left out."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pipeline_lib.artifacts.files import atomic_directory
from pipeline_lib.errors import InputError
from pipeline_lib.models.preprocessing import Pixels

IMAGES, SAMPLES, DROPPED = "images.npy", "samples.csv", "dropped.npy"
SHOWN = 32  # images left out that are kept to be looked at


def defect(record: Mapping[str, Any]) -> str:
    """What is wrong with a sample by its own record; "" if nothing."""
    return str(record.get("defect") or ("duplicate" if record.get("duplicate_of") else ""))


def kind(reason: str) -> str:
    """A reason without the image that it names: near-duplicates name what they are like."""
    return reason.split(" of ")[0]


def row(record: Mapping[str, Any], reason: str, scores: Mapping[str, float]) -> dict[str, Any]:
    """A row of samples.csv: `reason` is why the image was left out, "" if it was kept."""
    known = {"pixel_deviation": record["pixel_deviation"]} if "pixel_deviation" in record else {}
    return {
        "key": record["key"],
        "classes": " ".join(map(str, record["classes"])),
        "prompt": record.get("prompt", ""),
        "scores": json.dumps({**known, **scores}),
        "kept": not reason,
        "reason": reason,
    }


def write_set(out: Path, images: Pixels, rows: Sequence[Mapping[str, Any]], dropped: Sequence[Pixels] | Pixels) -> None:
    """Write `out`: images.npy and dropped.npy, uint8 (n, h, w, 3), in the order of the rows, and samples.csv.

    Images are those of all rows that are kept; dropped are the first of those that are not, at most SHOWN.
    """
    with atomic_directory(out) as folder:
        np.save(folder / IMAGES, images)
        np.save(folder / DROPPED, np.array(dropped[:SHOWN], np.uint8).reshape(-1, *images.shape[1:]))
        pd.DataFrame(rows).to_csv(folder / SAMPLES, index=False)


def require(out: Path, count: int, found: int) -> None:
    """Stop unless there are as many usable images as were asked for.

    Raises:
        InputError: there are fewer.
    """
    if found < count:
        raise InputError(
            f"{out.name}: asked for {count} images (params.yaml: `calibrate.count`, in a study `study.cells.images`), "
            f"found {found} that are usable; lower it, or raise the recipe's `count`"
        )
