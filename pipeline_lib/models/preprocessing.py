"""From PIL images to what a network reads, by timm's own data config."""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from timm.data import create_transform
from timm.data.transforms import MaybeToTensor
from torchvision.transforms import Normalize, ToTensor

Pixels = npt.NDArray[np.uint8]


def resize_and_crop(data_config: dict[str, Any]) -> Callable[[Image.Image], Pixels]:
    """Give timm's evaluation transform up to, and without, the conversion to floats: PIL -> uint8 (h, w, 3)."""
    whole = create_transform(**data_config, is_training=False)
    geometry = [t for t in whole.transforms if not isinstance(t, ToTensor | MaybeToTensor | Normalize)]

    def transform(image: Image.Image) -> Pixels:
        image = image.convert("RGB")
        for step in geometry:
            image = step(image)
        return np.asarray(image)

    return transform


class Normaliser:
    """uint8 (n, h, w, 3) -> float32 (n, 3, h, w), channels_last, normalised as the network was trained."""

    def __init__(self, data_config: dict[str, Any], device: torch.device) -> None:
        self._mean = torch.tensor(data_config["mean"], device=device).view(1, 3, 1, 1)
        self._std = torch.tensor(data_config["std"], device=device).view(1, 3, 1, 1)

    def __call__(self, pixels: Pixels) -> torch.Tensor:
        """Normalise a batch."""
        device = self._mean.device
        batch = torch.from_numpy(np.array(pixels)).to(device).permute(0, 3, 1, 2)
        return ((batch.float() / 255 - self._mean) / self._std).contiguous(memory_format=torch.channels_last)
