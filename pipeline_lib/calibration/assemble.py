"""Assembling a calibration set: resized, cropped, counted, with a row for every image that was looked at."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from pipeline_lib.artifacts.shards import Sample
from pipeline_lib.calibration.sets import SHOWN, recorded_reason, require_images, sample_row, write_set
from pipeline_lib.models.preprocessing import Pixels, resize_and_crop


def assemble(samples: Iterable[Sample], count: int, data_config: dict[str, Any], out: Path) -> dict[str, Any]:
    """Write `out`: images.npy, uint8 (count, h, w, 3), dropped.npy and samples.csv, see `write_set`.

    Images with a defect, and duplicates, keep their row but not their place. Returns facts for the provenance.

    Raises:
        InputError: fewer images than asked for.
    """
    transform = resize_and_crop(data_config)
    height, width = data_config["input_size"][1:]
    images = np.empty((count, height, width, 3), np.uint8)
    dropped: list[Pixels] = []
    rows: list[dict[str, Any]] = []
    kept = 0
    for sample in samples:
        if kept == count:
            break
        reason = recorded_reason(sample.record)
        if not reason:
            images[kept] = transform(sample.image)
            kept += 1
        elif len(dropped) < SHOWN:
            dropped.append(transform(sample.image))
        rows.append(sample_row(sample.record, reason, {}))
    require_images(out, count, kept)
    write_set(out, images, rows, dropped)
    return {"images": kept, "defective_images_left_out": len(rows) - kept}
