"""A calibration set of images that were mixed, scored and chosen for a network."""

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pipeline_lib.artifacts.shards import Sample
from pipeline_lib.calibration.filters import score
from pipeline_lib.calibration.mixing import mix_images
from pipeline_lib.calibration.selection import select
from pipeline_lib.calibration.sets import (
    DROPPED_IMAGES,
    check_image_count,
    reason_in_general,
    recorded_reason,
    sample_row,
    write_set,
)
from pipeline_lib.models.card import resolve_data_config
from pipeline_lib.models.preprocessing import Pixels, resize_and_crop
from pipeline_lib.params.treatments import Treatment


def treat(
    samples: Iterable[Sample],
    treatment: Treatment,
    classifier: Path,
    count: int,
    seed: int,
    device: torch.device,
    out: Path,
) -> dict[str, Any]:
    """Write `out` as `assemble` does, from all samples: images.npy, uint8 (count, h, w, 3), dropped.npy, samples.csv.

    Samples whose record has a defect are left out first. The others are mixed, each with another, if the treatment says
    so; then they are scored by the network, and the fit ones chosen. All are held in memory at the network's input
    size. Returns facts for the provenance.

    Args:
        samples: of a rendered dataset.
        treatment: whether images are mixed, and which are chosen.
        classifier: folder of the network.
        count: of images to choose.
        seed: of the mixing.
        device: where the network runs.
        out: folder to be written.

    Raises:
        InputError: fewer usable images than asked for, or no classifier in its folder.
    """
    transform = resize_and_crop(resolve_data_config(classifier))
    records: list[dict[str, Any]] = []
    images: list[Pixels] = []
    for sample in samples:
        records.append(sample.record)
        images.append(transform(sample.image))
    reasons = [recorded_reason(record) for record in records]
    usable = [index for index, reason in enumerate(reasons) if not reason]
    check_image_count(out, count, len(usable))
    pixels = np.stack(images)
    candidates = pixels[usable]
    candidate_records = [records[index] for index in usable]
    if treatment.mix != "none":
        candidates, candidate_records = mix_images(treatment.mix, candidates, candidate_records, seed)
    scores = score(classifier, candidates, device)
    keys = [record["key"] for record in candidate_records]
    classes = [record["classes"] for record in candidate_records]
    candidate_reasons = select(keys, classes, candidates, scores, treatment, count)
    rows = [sample_row(record, reason, {}) for record, reason in zip(records, reasons, strict=True)]
    for number, index in enumerate(usable):
        pixels[index] = candidates[number]
        reasons[index] = candidate_reasons[number]
        rows[index] = sample_row(candidate_records[number], candidate_reasons[number], scores.of(number))
    kept = [index for index, reason in enumerate(reasons) if not reason]
    dropped = [index for index, reason in enumerate(reasons) if reason]
    check_image_count(out, count, len(kept))
    write_set(out, pixels[kept], rows, pixels[dropped[:DROPPED_IMAGES]])
    left_out = Counter(reason_in_general(reason) for reason in reasons if reason)
    return {"device": str(device), "images": count, "left_out": dict(sorted(left_out.items()))}
