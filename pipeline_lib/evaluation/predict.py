"""Running networks on labelled images, which are read once for all networks."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import nn

from pipeline_lib.artifacts.fingerprints import seed_of
from pipeline_lib.errors import InputError
from pipeline_lib.evaluation.labelled import labelled_images
from pipeline_lib.models.normalise import Normaliser
from pipeline_lib.models.prediction import Indices, likeliest_classes
from pipeline_lib.models.preprocessing import Pixels, resize_and_crop
from pipeline_lib.params.evaluate import Evaluate

METRICS, PREDICTIONS = "metrics.json", "predictions.csv"
LIKELIEST = 5  # classes that are kept of a prediction
Batch = tuple[list[str], Pixels, Indices]  # keys, images, labels


@dataclass(frozen=True)
class Predictions:
    """What networks predict for n labelled images."""

    keys: list[str]
    labels: Indices  # (n,)
    classes: dict[str, Indices]  # by network: its likeliest classes, (n, LIKELIEST), the likeliest first


def labelled_batches(folder: Path, data_config: dict[str, Any], params: Evaluate) -> Iterator[Batch]:
    """Keys, uint8 images (n, h, w, 3) and labels of the chosen labelled images, resized and cropped."""
    transform = resize_and_crop(data_config)
    threshold = params.fraction * 2**63
    chosen = (sample for sample in labelled_images(folder) if seed_of("evaluate", 0, sample[0]) < threshold)
    while batch := list(islice(chosen, params.batch_size)):
        keys, pictures, labels = zip(*batch, strict=True)
        yield list(keys), np.stack([transform(p) for p in pictures]), np.array(labels, np.int64)


def first_labelled(folder: Path, data_config: dict[str, Any], params: Evaluate, count: int) -> Pixels:
    """The first `count` of the chosen labelled images, or all if there are fewer."""
    enough = math.ceil(count / params.batch_size)
    batches = islice(labelled_batches(folder, data_config, params), enough)
    return np.concatenate([pixels for _, pixels, _ in batches])[:count]


def predict(
    networks: Mapping[str, nn.Module],
    data_config: dict[str, Any],
    labelled: Path,
    classes: int,
    params: Evaluate,
    device: torch.device,
) -> Predictions:
    """What networks predict for the chosen labelled images, from one reading of them.

    Args:
        networks: by name, on the device.
        data_config: of timm, as the networks were trained.
        labelled: folder of labelled images.
        classes: number of those that the networks know.
        params: which images, and how many at a time.
        device: where the networks are.

    Raises:
        InputError: a label is not one of the classes, or there is no image.
    """
    keys: list[str] = []
    labels: list[Indices] = []

    def pixels() -> Iterator[Pixels]:
        for batch_keys, batch, batch_labels in labelled_batches(labelled, data_config, params):
            if batch_labels.max() >= classes:
                raise InputError(f"{labelled}: label {batch_labels.max()}, but the network knows {classes} classes")
            keys.extend(batch_keys)
            labels.append(batch_labels)
            yield batch

    likeliest = likeliest_classes(networks, pixels(), Normaliser(data_config, device), LIKELIEST)
    if not keys:
        raise InputError(f"{labelled}: no image chosen; raise `evaluate.fraction` in params.yaml")
    return Predictions(keys, np.concatenate(labels), likeliest)


def prediction_table(keys: list[str], labels: Indices, predicted: Mapping[str, Indices]) -> pd.DataFrame:
    """A row for each image: key, label, and the class (n,) that each network predicts."""
    return pd.DataFrame({"key": keys, "label": labels, **predicted})
