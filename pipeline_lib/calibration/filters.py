"""Scores of images by the network that is to be quantized, by which unfit images are left out; one pass."""

from collections import defaultdict
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from pipeline_lib.calibration.entropy import patch_entropy
from pipeline_lib.calibration.layers import summarised_layers
from pipeline_lib.calibration.selection import Scores
from pipeline_lib.models.classifier import load_classifier
from pipeline_lib.models.device import place
from pipeline_lib.models.normalise import Normaliser
from pipeline_lib.models.preprocessing import Pixels

BATCH = 64  # images at a time; no score depends on it


def score(classifier: Path, pixels: Pixels, device: torch.device) -> Scores:
    """The scores of uint8 (n, h, w, 3) pixels at the network's input size.

    Batch-norm sensitivity is none for a network without batch norm, and for a single image; patch-similarity
    entropy is none for a network without attention over all tokens.
    """
    loaded = load_classifier(classifier)
    network = place(loaded.network, device)
    normalise = Normaliser(loaded.data_config, device)
    energies: list[Tensor] = []
    entropies: list[Tensor] = []
    moments: dict[nn.BatchNorm2d, list[Tensor]] = defaultdict(list)
    with torch.no_grad(), summarised_layers(network, image_moments, patch_entropy) as summaries:
        for start in range(0, len(pixels), BATCH):
            energies.append(energy(network(normalise(pixels[start : start + BATCH]))))
            for layer, of_batch in summaries.batch_norms.items():
                moments[layer].append(of_batch)
            if summaries.attentions:
                entropies.append(torch.stack([*summaries.attentions.values()]).mean(0))
    sensitivity = torch.zeros(len(pixels), dtype=torch.float64)
    for layer, batches in moments.items():
        sensitivity += leave_one_out(torch.cat(batches), *running_moments(layer))
    return Scores(
        energy=torch.cat(energies).cpu().numpy(),
        batch_norm=sensitivity.numpy() if moments and len(pixels) > 1 else None,
        patch_entropy=torch.cat(entropies).cpu().numpy().astype(np.float64) if entropies else None,
    )


def energy(logits: Tensor) -> Tensor:
    """Energy score E(x) = -logsumexp(logits) at temperature 1 (Liu et al. 2020): (n, classes) -> (n,) float64.

    It is high for images unlike those of the training.
    """
    return -torch.logsumexp(logits.double(), 1)


def image_moments(_: nn.BatchNorm2d, x: Tensor) -> Tensor:
    """Mean and mean square of each image and channel: (n, channels, h, w) -> (n, 2, channels) float64, on the CPU."""
    x = x.double()
    return torch.stack([x.mean((2, 3)), x.square().mean((2, 3))], 1).cpu()


def running_moments(layer: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Running mean and variance of a layer, (channels,) float64 each, on the CPU."""
    assert layer.running_mean is not None and layer.running_var is not None
    return layer.running_mean.double().cpu(), layer.running_var.double().cpu()


def leave_one_out(moments: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
    """What each image adds to the distance of a batch's statistics from the running ones; our reading of GenQ's filter.

    sensitivity_i = D(all images) - D(all but image i), where D = |mean - running mean|^2 + |variance - running
    variance|^2 with biased variances.

    `moments`: of each image, (n, 2, channels), from `image_moments`; `mean` and `variance`: the running ones,
    (channels,). Returns (n,).
    """
    total = moments.sum(0, keepdim=True)

    def distance(first: Tensor, second: Tensor) -> Tensor:
        return (first - mean).square().sum(1) + (second - first.square() - variance).square().sum(1)

    without = (total - moments) / (len(moments) - 1)  # moments of all images but one, for each of them
    whole = total / len(moments)
    return distance(whole[:, 0], whole[:, 1]) - distance(without[:, 0], without[:, 1])
