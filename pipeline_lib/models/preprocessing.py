"""From PIL images to what a network reads, by the fields of timm's data config. No torch: calibration does without."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from pipeline_lib.errors import InputError

Pixels = npt.NDArray[np.uint8]


def resize_and_crop(data_config: dict[str, Any]) -> Callable[[Image.Image], Pixels]:
    """Give timm's evaluation transform up to, and without, the conversion to floats: PIL -> uint8 (h, w, 3).

    The shorter side is resized to the input size divided by crop_pct, rounded down; then the centre is cropped.

    Raises:
        InputError: the data config crops in another way.
    """
    _, height, width = data_config["input_size"]
    if height != width or data_config.get("crop_mode", "center") != "center":
        raise InputError(f"preprocessing: expected square input and crop_mode center, found {data_config}")
    shorter = math.floor(height / data_config["crop_pct"])
    filter_ = Image.Resampling[data_config["interpolation"].upper()]

    def transform(image: Image.Image) -> Pixels:
        image = image.convert("RGB")
        least = min(image.size)
        across, down = (shorter if side == least else shorter * side // least for side in image.size)
        if (across, down) != image.size:
            image = image.resize((across, down), filter_)
        left, top = round((across - width) / 2), round((down - height) / 2)
        return np.asarray(image.crop((left, top, left + width, top + height)))

    return transform
