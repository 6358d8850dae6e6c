"""What networks predict for images, a batch at a time."""

from collections.abc import Iterable, Iterator, Mapping

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from pipeline_lib.models.normalise import Normaliser
from pipeline_lib.models.preprocessing import Pixels

Indices = npt.NDArray[np.int64]


def in_batches(pixels: Pixels, size: int) -> Iterator[Pixels]:
    """Images (n, h, w, 3) in batches of `size`; the last may be smaller."""
    return (pixels[start : start + size] for start in range(0, len(pixels), size))


@torch.inference_mode()
def likeliest_classes(
    networks: Mapping[str, nn.Module], batches: Iterable[Pixels], normalise: Normaliser, count: int
) -> dict[str, Indices]:
    """By network its `count` likeliest classes for n images, (n, count), likeliest first. Batches are read once."""
    found: dict[str, list[Indices]] = {name: [] for name in networks}
    for pixels in batches:
        images = normalise(pixels)
        for name, network in networks.items():
            logits = network(images)
            found[name].append(logits.topk(min(count, logits.shape[1])).indices.cpu().numpy())
    return {name: np.concatenate(parts) for name, parts in found.items() if parts}


def predicted_classes(network: nn.Module, pixels: Pixels, normalise: Normaliser, batch_size: int) -> Indices:
    """The likeliest class of each image, (n,)."""
    batches = in_batches(pixels, batch_size)
    return likeliest_classes({"network": network}, batches, normalise, 1)["network"][:, 0]
