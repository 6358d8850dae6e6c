"""A calibration set on the disk: its images, a row for every image that was considered, a few that were left out."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pipeline_lib.artifacts.files import atomic_directory
from pipeline_lib.errors import InputError, reading
from pipeline_lib.models.preprocessing import Pixels

IMAGES, SAMPLES, DROPPED = "images.npy", "samples.csv", "dropped.npy"
MEND = "`dvc checkout` restores it, `dvc repro --force` makes it anew"
DROPPED_IMAGES = 32  # of those left out, so many are stored, to be shown in the report


@dataclass(frozen=True)
class CalibrationSet:
    """What a network is calibrated on, or the preview of it."""

    images: Pixels  # uint8 (n, h, w, 3), memory-mapped
    classes: list[list[int]]  # for each image the classes that it is meant to show; none for noise
    looked_at: int  # number of images that were considered, with those left out
    left_out: int  # number of images


def read_set(folder: Path) -> CalibrationSet:
    """A calibration set, or a preview.

    Raises:
        InputError: a file is absent or damaged, or they do not belong together.
    """
    images, table = read_images(folder / IMAGES), folder / SAMPLES
    with reading(table, "a table of samples", MEND):
        rows = pd.read_csv(table, usecols=["classes", "kept"], dtype={"classes": str, "kept": bool}, na_filter=False)
        classes = [[int(index) for index in text.split()] for text in rows.loc[rows["kept"], "classes"]]
    if len(classes) != len(images):
        raise InputError(f"{table}: {len(classes)} images were kept, but {folder / IMAGES} has {len(images)}; {MEND}")
    if any(index < 0 for indices in classes for index in indices):
        raise InputError(f"{table}: expected indices of classes, found one below 0; {MEND}")
    return CalibrationSet(images, classes, len(rows), int((~rows["kept"]).sum()))


def read_images(path: Path) -> Pixels:
    """The images of a calibration set, memory-mapped; there is at least one.

    Raises:
        InputError: absent, or not uint8 (n, h, w, 3).
    """
    if not path.exists():
        raise InputError(f"{path}: calibration set not found; `dvc repro` makes it")
    with reading(path, "a numpy file", MEND):
        images: Pixels = np.load(path, mmap_mode="r")
        found = f"{images.dtype} {images.shape}"  # an archive of arrays has neither
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] != 3 or 0 in images.shape:
        raise InputError(f"{path}: expected uint8 (n, h, w, 3), found {found}; {MEND}")
    return images


def recorded_reason(record: Mapping[str, Any]) -> str:
    """Why a sample must be left out according to its record, "" if it need not."""
    return str(record.get("defect") or ("duplicate" if record.get("duplicate_of") else ""))


def reason_in_general(reason: str) -> str:
    """A reason without the image that it names: `near-duplicate of KEY` is one reason whatever the key."""
    return reason.split(" of ")[0]


def sample_row(record: Mapping[str, Any], reason: str, scores: Mapping[str, float]) -> dict[str, Any]:
    """A row of samples.csv: `reason` is why the image was left out, "" if it was kept."""
    recorded = {"pixel_deviation": record["pixel_deviation"]} if "pixel_deviation" in record else {}
    return {
        "key": record["key"],
        "classes": " ".join(map(str, record["classes"])),
        "prompt": record.get("prompt", ""),
        "scores": json.dumps({**recorded, **scores}),
        "kept": not reason,
        "reason": reason,
    }


def write_set(out: Path, images: Pixels, rows: Sequence[Mapping[str, Any]], dropped: Sequence[Pixels] | Pixels) -> None:
    """Write `out`: images.npy and dropped.npy, both uint8 (n, h, w, 3), and samples.csv.

    `images` are those of all rows that are kept, `dropped` those of the others, both in the order of the rows; of the
    dropped the first DROPPED_IMAGES are written.
    """
    with atomic_directory(out) as folder:
        np.save(folder / IMAGES, images)
        np.save(folder / DROPPED, np.array(dropped[:DROPPED_IMAGES], np.uint8).reshape(-1, *images.shape[1:]))
        pd.DataFrame(rows).to_csv(folder / SAMPLES, index=False)


def check_image_count(out: Path, count: int, found: int) -> None:
    """Stop unless there are as many usable images as were asked for.

    Raises:
        InputError: there are fewer.
    """
    if found < count:
        raise InputError(
            f"{out.name}: asked for {count} images (params.yaml: `calibrate.count`, in a study `study.cells.images`), "
            f"found {found} that are usable; lower it, or bring more: a recipe's `count`, or pictures"
        )
