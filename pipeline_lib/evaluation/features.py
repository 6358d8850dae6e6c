"""What a classifier makes of images: penultimate features and logits."""

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from pipeline_lib.models.normalise import Normaliser
from pipeline_lib.models.preprocessing import Pixels

Matrix = npt.NDArray[np.float64]


class Seen(NamedTuple):
    """Of n images: penultimate features (n, d), and the classes from the likeliest to the least likely (n, classes)."""

    features: Matrix
    ranking: npt.NDArray[np.int64]


def split(pixels: Pixels, size: int) -> Iterator[Pixels]:
    """Images (n, h, w, 3) in batches."""
    return (pixels[start : start + size] for start in range(0, len(pixels), size))


@torch.inference_mode()
def look(network: Any, pixels: Iterable[Pixels], normalise: Normaliser) -> Seen:
    """Run a network of timm, not quantized, on batches of uint8 images (n, h, w, 3)."""
    features, rankings = [], []
    for batch in pixels:
        hidden = network.forward_features(normalise(batch))
        features.append(network.forward_head(hidden, pre_logits=True).double().cpu().numpy())
        rankings.append(network.forward_head(hidden).argsort(1, descending=True).cpu().numpy())
    return Seen(np.concatenate(features), np.concatenate(rankings))
