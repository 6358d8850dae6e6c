"""Labelled images that quantization turned: the float network is right, the reconstructed one is not."""

from collections.abc import Iterable
from itertools import islice

import numpy as np
import pandas as pd

from pipeline_lib.models.preprocessing import Pixels

COUNT = 12
COLUMNS = ["key", "label", "float", "reconstructed"]


def flipped(
    predictions: pd.DataFrame, images: Iterable[Pixels], class_names: list[str], size: tuple[int, int]
) -> tuple[pd.DataFrame, Pixels]:
    """The first COUNT of them, in order: their rows, with class names, and their pixels (m, h, w, 3).

    predictions: COLUMNS, classes as indices. images: uint8 of `size` (h, w), in the order of the predictions, read no
    further than needed.
    """
    turned = (predictions["float"] == predictions["label"]) & (predictions["reconstructed"] != predictions["label"])
    positions = np.flatnonzero(turned)[:COUNT]
    end = int(positions[-1]) + 1 if len(positions) else 0
    pixels = [image for position, image in enumerate(islice(images, end)) if turned[position]]
    rows = predictions.iloc[positions][COLUMNS].replace({name: dict(enumerate(class_names)) for name in COLUMNS[1:]})
    return rows, np.array(pixels, np.uint8).reshape(-1, *size, 3)
