"""Running networks on labelled images, which are read once for all networks."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import nn

from pipeline_lib.errors import InputError
from pipeline_lib.evaluation.labelled import Labelled
from pipeline_lib.models.normalise import Normaliser
from pipeline_lib.models.prediction import Indices, likeliest_classes
from pipeline_lib.models.preprocessing import Pixels, resize_and_crop

METRICS, PREDICTIONS = "metrics.json", "predictions.csv"
NONE_CHOSEN = "no labelled image chosen; raise `evaluate.fraction` in params.yaml"
LIKELIEST = 5  # classes that are kept of a prediction


@dataclass(frozen=True)
class Predictions:
    """What networks predict for n labelled images."""

    keys: list[str]
    labels: Indices  # (n,)
    classes: dict[str, Indices]  # by network: its likeliest classes, (n, LIKELIEST), the likeliest first


def labelled_pixels(images: Iterable[Labelled], data_config: dict[str, Any]) -> Iterator[Pixels]:
    """The images one at a time, uint8 (h, w, 3), resized and cropped."""
    transform = resize_and_crop(data_config)
    return (transform(image.open()) for image in images)


def predict(
    networks: Mapping[str, nn.Module],
    data_config: dict[str, Any],
    images: Sequence[Labelled],
    batch_size: int,
    device: torch.device,
) -> Predictions:
    """What networks predict for labelled images, from one reading of them.

    Args:
        networks: by name, on the device.
        data_config: of timm, as the networks were trained.
        images: those to look at.
        batch_size: images at a time.
        device: where the networks are.

    Raises:
        InputError: there is no image, or one cannot be decoded.
    """
    if not images:
        raise InputError(NONE_CHOSEN)
    pixels = labelled_pixels(images, data_config)
    batches = (np.stack(batch) for batch in iter(lambda: list(islice(pixels, batch_size)), []))
    likeliest = likeliest_classes(networks, batches, Normaliser(data_config, device), LIKELIEST)
    labels = np.array([image.label for image in images], np.int64)
    return Predictions([image.key for image in images], labels, likeliest)


def prediction_table(keys: list[str], labels: Indices, predicted: Mapping[str, Indices]) -> pd.DataFrame:
    """A row for each image: key, label, and the class (n,) that each network predicts."""
    return pd.DataFrame({"key": keys, "label": labels, **predicted})
