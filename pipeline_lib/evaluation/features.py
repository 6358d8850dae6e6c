"""What a classifier makes of images: penultimate features and a ranking of the classes."""

from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from pipeline_lib.models.normalise import Normaliser
from pipeline_lib.models.preprocessing import Pixels

Matrix = npt.NDArray[np.float64]


class Responses(NamedTuple):
    """What a network makes of n images."""

    features: Matrix  # penultimate, (n, d)
    ranking: npt.NDArray[np.int64]  # classes from the likeliest to the least likely, (n, classes)


@torch.inference_mode()
def responses(network: Any, batches: Iterable[Pixels], normalise: Normaliser) -> Responses:
    """Run a network of timm, not quantized, on batches of uint8 images (n, h, w, 3)."""
    features, rankings = [], []
    for batch in batches:
        hidden = network.forward_features(normalise(batch))
        features.append(network.forward_head(hidden, pre_logits=True).double().cpu().numpy())
        rankings.append(network.forward_head(hidden).argsort(1, descending=True).cpu().numpy())
    return Responses(np.concatenate(features), np.concatenate(rankings))
