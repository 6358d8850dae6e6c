"""Normalisation of pixels, on the device."""

from typing import Any

import numpy as np
import torch

from pipeline_lib.models.preprocessing import Pixels

GREY = 19595, 38470, 7471  # weights of red, green and blue, in 65536ths, as Pillow has them


class Normaliser:
    """uint8 (n, h, w, 3) -> float32 (n, c, h, w), channels_last, normalised as the network was trained.

    Images are kept in colour everywhere. A network of one channel gets them grey, as Pillow's mode L has them.
    """

    def __init__(self, data_config: dict[str, Any], device: torch.device) -> None:
        self._grey = data_config["input_size"][0] == 1
        self._mean = torch.tensor(data_config["mean"], device=device).view(1, -1, 1, 1)
        self._std = torch.tensor(data_config["std"], device=device).view(1, -1, 1, 1)

    def __call__(self, pixels: Pixels) -> torch.Tensor:
        """Normalise a batch."""
        colours = np.array(pixels)
        if self._grey:
            colours = (colours @ np.array(GREY, np.uint32) + 2**15 >> 16).astype(np.uint8)[..., None]
        batch = torch.from_numpy(colours).to(self._mean.device).permute(0, 3, 1, 2)
        return ((batch.float() / 255 - self._mean) / self._std).contiguous(memory_format=torch.channels_last)
