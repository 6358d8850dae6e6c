"""Scores of images by the network that is quantized, from which the unfit among them are told. One pass over all."""

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
    network, normalise = place(loaded.network, device), Normaliser(loaded.data_config, device)
    energies: list[Tensor] = []
    entropies: list[Tensor] = []
    moments: dict[nn.BatchNorm2d, list[Tensor]] = defaultdict(list)
    with torch.no_grad(), summarised_layers(network, image_moments, patch_entropy) as seen:
        for start in range(0, len(pixels), BATCH):
            energies.append(energy(network(normalise(pixels[start : start + BATCH]))))
            for layer, found in seen.normalised.items():
                moments[layer].append(found)
            if seen.attended:
                entropies.append(torch.stack([*seen.attended.values()]).mean(0))
    sensitivity = torch.zeros(len(pixels), dtype=torch.float64)
    for layer, parts in moments.items():
        sensitivity += leave_one_out(torch.cat(parts), *running_moments(layer))
    return Scores(
        energy=torch.cat(energies).cpu().numpy(),
        batch_norm=sensitivity.numpy() if moments and len(pixels) > 1 else None,
        patch_entropy=torch.cat(entropies).cpu().numpy().astype(np.float64) if entropies else None,
    )


def energy(logits: Tensor) -> Tensor:
    """Energy score E(x) = -logsumexp(logits) at temperature 1 (Liu et al. 2020): (n, classes) -> (n,) float64.

    High for what is unlike the training images.
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

    sensitivity_i = D(all) - D(all but i), D = |mean - running mean|^2 + |variance - running variance|^2, variances
    biased. Sums without an image are the whole sums less its own: (n, 2, channels) moments of images -> (n,).
    """
    total = moments.sum(0, keepdim=True)

    def distance(first: Tensor, second: Tensor) -> Tensor:
        return (first - mean).square().sum(1) + (second - first.square() - variance).square().sum(1)

    without = (total - moments) / (len(moments) - 1)
    whole = total / len(moments)
    return distance(whole[:, 0], whole[:, 1]) - distance(without[:, 0], without[:, 1])
