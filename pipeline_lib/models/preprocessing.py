"""Resizing and cropping of images as timm's data config has it. Without torch, which calibration does not need."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

Pixels = npt.NDArray[np.uint8]


def resize_and_crop(data_config: dict[str, Any]) -> Callable[[Image.Image], Pixels]:
    """The evaluation transform of timm, without the conversion to floats: PIL image -> uint8 (h, w, 3).

    The shorter side, or with crop_mode squash each, is resized to the input size divided by crop_pct, rounded down;
    then the centre is cropped.
    """
    _, height, width = data_config["input_size"]
    squash = data_config.get("crop_mode") == "squash"
    shorter = math.floor(height / data_config["crop_pct"])
    filter_ = Image.Resampling[data_config["interpolation"].upper()]

    def transform(image: Image.Image) -> Pixels:
        image = image.convert("RGB")
        least = min(image.size)
        across = shorter if squash or image.width == least else shorter * image.width // least
        down = shorter if squash or image.height == least else shorter * image.height // least
        if (across, down) != image.size:
            image = image.resize((across, down), filter_)
        left, top = round((across - width) / 2), round((down - height) / 2)
        return np.asarray(image.crop((left, top, left + width, top + height)))

    return transform
