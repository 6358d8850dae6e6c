"""A calibration set of images that were mixed, scored and chosen for a network."""

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pipeline_lib.artifacts.shards import Sample
from pipeline_lib.calibration.filters import score
from pipeline_lib.calibration.mix import mix_images
from pipeline_lib.calibration.selection import select
from pipeline_lib.calibration.sets import (
    SHOWN,
    kind_of_reason,
    recorded_reason,
    require_images,
    sample_row,
    write_set,
)
from pipeline_lib.models.card import resolve_data_config
from pipeline_lib.models.preprocessing import resize_and_crop
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

    Samples with a defect on record go first. The others are mixed, each with another, if the treatment says so;
    then they are scored by the network in the folder `classifier` and chosen. All are held in memory, at the
    network's input size. Returns facts for the provenance.

    Raises:
        InputError: fewer usable images than asked for, or no classifier in its folder.
    """
    transform = resize_and_crop(resolve_data_config(classifier))
    looked_at = [(sample.record, transform(sample.image)) for sample in samples]
    records, reasons = [record for record, _ in looked_at], [recorded_reason(record) for record, _ in looked_at]
    usable = [place for place, reason in enumerate(reasons) if not reason]
    require_images(out, count, len(usable))
    pixels = np.stack([image for _, image in looked_at])
    candidates, described = pixels[usable], [records[place] for place in usable]
    if treatment.mix != "none":
        candidates, described = mix_images(treatment.mix, candidates, described, seed)
    scores = score(classifier, candidates, device)
    chosen = select(
        [r["key"] for r in described], [r["classes"] for r in described], candidates, scores, treatment, count
    )
    rows = [sample_row(record, reason, {}) for record, reason in zip(records, reasons, strict=True)]
    for number, place in enumerate(usable):
        pixels[place], reasons[place] = candidates[number], chosen[number]
        rows[place] = sample_row(described[number], chosen[number], scores.of(number))
    kept, dropped = ([place for place, reason in enumerate(reasons) if bool(reason) == left] for left in (False, True))
    require_images(out, count, len(kept))
    write_set(out, pixels[kept], rows, pixels[dropped[:SHOWN]])
    left_out = Counter(kind_of_reason(reason) for reason in reasons if reason)
    return {"device": str(device), "images": count, "left_out": dict(sorted(left_out.items()))}
