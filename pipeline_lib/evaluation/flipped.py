"""Flipped images: labelled images that the float network classifies rightly and the reconstructed one wrongly."""

from collections.abc import Iterable
from itertools import islice

import numpy as np
import pandas as pd

from pipeline_lib.models.preprocessing import Pixels

COUNT = 12  # images that are shown
COLUMNS = ["key", "label", "float", "reconstructed"]


def flipped(
    predictions: pd.DataFrame, images: Iterable[Pixels], class_names: list[str], size: tuple[int, int]
) -> tuple[pd.DataFrame, Pixels]:
    """The first COUNT flipped images: their rows, with class names, and their pixels, uint8 (m, h, w, 3).

    `predictions` has COLUMNS, with classes as indices. `images`, in the same order, are uint8 (h, w, 3) with `size`
    (h, w); they are read no further than needed.
    """
    wrong = (predictions["float"] == predictions["label"]) & (predictions["reconstructed"] != predictions["label"])
    positions = np.flatnonzero(wrong)[:COUNT]
    end = int(positions[-1]) + 1 if len(positions) else 0
    pixels = [image for position, image in enumerate(islice(images, end)) if wrong[position]]
    rows = predictions.iloc[positions][COLUMNS].replace({name: dict(enumerate(class_names)) for name in COLUMNS[1:]})
    return rows, np.array(pixels, np.uint8).reshape(-1, *size, 3)
