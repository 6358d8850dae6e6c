"""Normalisation of pixels, on the device."""

from typing import Any

import numpy as np
import torch

from pipeline_lib.models.preprocessing import Pixels


class Normaliser:
    """uint8 (n, h, w, 3) -> float32 (n, 3, h, w), channels_last, normalised as the network was trained."""

    def __init__(self, data_config: dict[str, Any], device: torch.device) -> None:
        self._mean = torch.tensor(data_config["mean"], device=device).view(1, 3, 1, 1)
        self._std = torch.tensor(data_config["std"], device=device).view(1, 3, 1, 1)

    def __call__(self, pixels: Pixels) -> torch.Tensor:
        """Normalise a batch."""
        batch = torch.from_numpy(np.array(pixels)).to(self._mean.device).permute(0, 3, 1, 2)
        return ((batch.float() / 255 - self._mean) / self._std).contiguous(memory_format=torch.channels_last)
