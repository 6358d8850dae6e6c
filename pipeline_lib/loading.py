"""A quantized network in a program of one's own. It needs the checkpoint's folder, and nothing else of the pipeline."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
from PIL import Image
from torch import Tensor, nn

from pipeline_lib.models.device import place
from pipeline_lib.models.normalise import Normaliser
from pipeline_lib.models.preprocessing import resize_and_crop
from pipeline_lib.pictures.decode import to_rgb
from pipeline_lib.quantization.checkpoint import load_quantized, read_classes


class Loaded(NamedTuple):
    """What a checkpoint is to its user."""

    network: nn.Module  # in evaluation mode, on the CPU: float32 (n, channels, h, w) -> logits (n, classes)
    transform: Callable[[Image.Image], Tensor]  # a picture of any size -> float32 (channels, h, w), normalised
    class_names: list[str]  # in the order of the logits


def load(checkpoint: str | Path) -> Loaded:
    """The network of a folder of data/quantized, or of a copy of it, with all that its user needs.

    Raises:
        InputError: the folder is no whole checkpoint.
    """
    folder, device = Path(checkpoint), torch.device("cpu")
    loaded = load_quantized(folder)
    resized, normalise = resize_and_crop(loaded.data_config), Normaliser(loaded.data_config, device)
    return Loaded(
        network=place(loaded.network, device),
        transform=lambda image: normalise(resized(to_rgb(image, "the picture"))[None])[0],
        class_names=read_classes(folder),
    )
