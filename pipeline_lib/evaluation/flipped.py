"""Flipped images: labelled images that the float network classifies rightly and the reconstructed one wrongly."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from pipeline_lib.evaluation.labelled import Labelled, sample
from pipeline_lib.evaluation.predict import labelled_pixels
from pipeline_lib.models.preprocessing import Pixels

COUNT = 12  # images that are shown
COLUMNS = ["key", "label", "float", "reconstructed"]


def flipped(
    predictions: pd.DataFrame, images: Sequence[Labelled], data_config: dict[str, Any]
) -> tuple[pd.DataFrame, Pixels]:
    """A sample of COUNT flipped images: their rows, with classes as indices, and their pixels, uint8 (m, h, w, 3).

    `predictions` has COLUMNS; `images` are those of its rows.
    """
    wrong = (predictions["float"] == predictions["label"]) & (predictions["reconstructed"] != predictions["label"])
    every = np.flatnonzero(wrong).tolist()
    positions = [every[number] for number in sample([images[position] for position in every], COUNT)]
    pixels = list(labelled_pixels([images[position] for position in positions], data_config))
    size = data_config["input_size"][1:]
    return predictions.iloc[positions][COLUMNS], np.array(pixels, np.uint8).reshape(-1, *size, 3)
