"""Assembling a calibration set: resized, cropped, counted, with a row for every image that was looked at."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pipeline_lib.artifacts.files import atomic_directory
from pipeline_lib.artifacts.shards import Sample
from pipeline_lib.errors import InputError
from pipeline_lib.models.preprocessing import resize_and_crop

IMAGES, SAMPLES = "images.npy", "samples.csv"


def assemble(samples: Iterable[Sample], count: int, data_config: dict[str, Any], out: Path) -> dict[str, Any]:
    """Write `out`: images.npy, uint8 (count, h, w, 3), and samples.csv with key, classes, prompt, scores, kept, reason.

    Images with a defect, and duplicates, keep their row but not their place. Returns facts for the provenance.

    Raises:
        InputError: fewer images than asked for.
    """
    transform = resize_and_crop(data_config)
    height, width = data_config["input_size"][1:]
    images = np.empty((count, height, width, 3), np.uint8)
    rows: list[dict[str, Any]] = []
    kept = 0
    for sample in samples:
        if kept == count:
            break
        record = sample.record
        defect = record.get("defect") or ("duplicate" if record.get("duplicate_of") else "")
        if not defect:
            images[kept] = transform(sample.image)
            kept += 1
        scores = {"pixel_deviation": record["pixel_deviation"]} if "pixel_deviation" in record else {}
        rows.append(
            {
                "key": sample.key,
                "classes": " ".join(map(str, record["classes"])),
                "prompt": record.get("prompt", ""),
                "scores": json.dumps(scores),
                "kept": not defect,
                "reason": defect,
            }
        )
    if kept < count:
        raise InputError(
            f"{out.name}: asked for {count} images (`calibrate.count` in params.yaml), found {kept} that are usable; "
            "lower it, or raise the recipe's `count`"
        )
    with atomic_directory(out) as folder:
        np.save(folder / IMAGES, images)
        pd.DataFrame(rows).to_csv(folder / SAMPLES, index=False)
    return {"images": kept, "defective_images_left_out": len(rows) - kept}
