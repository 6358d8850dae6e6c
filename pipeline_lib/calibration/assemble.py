"""A calibration set of the first usable images of a source, resized and cropped for a network."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from pipeline_lib.artifacts.shards import Sample
from pipeline_lib.calibration.sets import DROPPED_IMAGES, check_image_count, recorded_reason, sample_row, write_set
from pipeline_lib.models.preprocessing import Pixels, resize_and_crop


def assemble(samples: Iterable[Sample], count: int, data_config: dict[str, Any], out: Path) -> dict[str, Any]:
    """Write `out`: images.npy, uint8 (count, h, w, 3), dropped.npy and samples.csv, see `write_set`.

    Images with a defect, and duplicates, have a row in samples.csv but are left out. Returns facts for the provenance.

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
        elif len(dropped) < DROPPED_IMAGES:
            dropped.append(transform(sample.image))
        rows.append(sample_row(sample.record, reason, {}))
    check_image_count(out, count, kept)
    write_set(out, images, rows, dropped)
    return {"images": kept, "defective_images_left_out": len(rows) - kept}
